from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from bayes_icl.collect.interactive import curves_by_sequence
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import read_curves, readouts_of
from bayes_icl.patch.interactive import transfer_map
from bayes_icl.writing import interactive as writing_interactive
from bayes_icl.writing.head_map import head_map
from bayes_icl.writing.interactive import as_html, library
from bayes_icl.writing.style import colour_of

EXAMPLE = Path(__file__).parents[2] / "data" / "example.nc"
HTML = "<b>x</b> & %{y}"


@pytest.fixture(scope="module")
def example() -> xr.Dataset:
    return read_curves(EXAMPLE)


def small(task: str = HTML, n_seqs: int = 3, n_shots: int = 4) -> xr.Dataset:
    """Curves as a CSV table gives them: nothing but log-odds, and one readout that the task lacks."""
    odds = np.random.default_rng(0).normal(size=(1, 2, n_seqs, n_shots))
    odds[:, 1] = np.nan
    coords = {"task": [task], "readout": ["complement", "foil"], "seq": np.arange(n_seqs) + 7, "shot": range(n_shots)}
    return xr.Dataset({"log_odds": (("task", "readout", "seq", "shot"), odds)}, coords)


def choices(figure: Any, menu: int = 0) -> dict[str, tuple[dict, dict]]:
    """What each entry of a menu changes: of the traces, of the layout."""
    return {button.label: tuple(button.args) for button in figure.layout.updatemenus[menu].buttons}


def sequences(flat: list, n_shots: int) -> np.ndarray:
    """Lines with gaps between them as an array, sequence by shot."""
    lines = np.array([np.nan if x is None else x for x in flat], float).reshape(-1, n_shots + 1)
    assert np.isnan(lines[:, -1]).all()
    return lines[:, :-1]


def test_curves_are_those_of_the_dataset_rounded(example: xr.Dataset) -> None:
    figure = curves_by_sequence(example, "copy")
    names = [trace.name for trace in figure.data]
    assert names == ["32 sequences", "95 % of the mean", "mean over sequences", "chosen sequence"]
    odds = example.log_odds.sel(task="copy", readout="complement").values
    lines, band, mean, chosen = figure.data
    np.testing.assert_array_equal(sequences(lines.y, 33), np.round(odds, 4))
    np.testing.assert_array_equal(sequences(lines.x, 33), np.tile(np.arange(33.0), (32, 1)))
    np.testing.assert_array_equal(mean.y, np.round(odds.mean(0), 4))
    low, high = stats.t.interval(0.95, 31, odds.mean(0), stats.sem(odds))
    np.testing.assert_allclose(band.y, [*low, *high[::-1]], atol=5.1e-5)
    assert mean.customdata[5] == f"[{low[5]:.4f}, {high[5]:.4f}]"
    assert not chosen.y and not chosen.showlegend


def test_words_are_those_of_the_point(example: xr.Dataset) -> None:
    """The query, the answer, the foil, the update and whether it was right, of one point; read from the file anew."""
    figure = curves_by_sequence(example, "past_tense")
    at = {"task": "past_tense", "seq": 5, "shot": 7}
    place = 5 * 34 + 7
    one = example.sel(at)
    words = figure.data[0].text[place].split("<br>")
    assert words[0] == f"sequence 5: <b>{one['query'].item()} \u2192 {one.answer.item()}</b>"
    assert words[1] == f"foil {one.foil.item()}"
    assert words[2] == "greedy decoding: " + ("right" if one.correct.item() else "wrong")
    assert len(words) == 3 + bool(one.query_seen.item())
    before, now = (example.log_odds.sel(at | {"shot": n, "readout": "complement"}).item() for n in (6, 7))
    assert figure.data[0].customdata[place] == round(now - before, 4)
    assert figure.data[0].customdata[5 * 34] == "\u2013"  # no update before the first example
    assert figure.data[0].text[5 * 34 + 33] is None


def test_seen_queries_are_said_to_be() -> None:
    dataset = small("t").assign(query_seen=(("task", "seq", "shot"), [[[False, True, False, True]] * 3]))
    words = curves_by_sequence(dataset, "t").data[0].text
    assert ["seen before" in w for w in words[:4]] == [False, True, False, True]


def test_a_menu_shows_exactly_one_readout(example: xr.Dataset) -> None:
    laws = {"additive": ([1, 2], [0.123456, 0.2]), "pooling": ([1, 2], [0.1, 0.3])}
    figure = curves_by_sequence(example, "category", laws=laws)
    entries = choices(figure)
    assert list(entries) == readouts_of(example, "category") == ["complement", "foil", "format", "rule"]
    assert "parity" not in json.dumps(figure.to_json())
    n_traces = len(figure.data)
    for name, (traces, layout) in entries.items():
        odds = example.log_odds.sel(task="category", readout=name).values
        assert {len(traces[key]) for key in ("y", "customdata", "visible")} == {n_traces}
        np.testing.assert_array_equal(sequences(traces["y"][0], 33), np.round(odds, 4))
        np.testing.assert_array_equal(traces["y"][2], np.round(odds.mean(0), 4))
        np.testing.assert_array_equal(
            [x for x in traces["customdata"][0] if x not in (None, "\u2013")], np.round(np.diff(odds), 4).ravel()
        )
        assert traces["visible"] == [True, True, True, *[name == "complement"] * 2, True]
        assert not traces["y"][-1]  # the sequence chosen under another readout goes
        assert layout == {"yaxis.title.text": f"log-odds, {name} (nats)"}
    first = entries["complement"][0]
    for trace, y in zip(figure.data, first["y"]):
        assert list(trace.y) == list(y)


def test_readouts_are_in_the_order_given(example: xr.Dataset) -> None:
    figure = curves_by_sequence(example, "copy", ["rule", "complement"])
    assert list(choices(figure)) == ["rule", "complement"]
    assert figure.layout.yaxis.title.text == "log-odds, rule (nats)"
    odds = example.log_odds.sel(task="copy", readout="rule").values
    np.testing.assert_array_equal(sequences(figure.data[0].y, 33), np.round(odds, 4))
    assert not curves_by_sequence(example, "copy", ["rule"]).layout.updatemenus


def test_laws_are_lines_in_their_colours(example: xr.Dataset) -> None:
    figure = curves_by_sequence(example, "copy", laws={"additive": ([1, 2], [0.123456, 0.2])})
    law = next(trace for trace in figure.data if trace.name == "additive")
    assert list(law.x) == [1, 2] and list(law.y) == [0.1235, 0.2]
    wanted = [255 * c for c in colour_of("additive")]
    np.testing.assert_allclose([int(x) for x in re.findall(r"\d+", law.line.color)], wanted, atol=0.51)
    assert [shape.x0 for shape in figure.layout.shapes] == [1]
    assert not curves_by_sequence(example, "copy").layout.shapes


def test_curves_of_a_table_have_words_too() -> None:
    dataset = small("t")
    figure = curves_by_sequence(dataset, "t")
    assert figure.data[0].text[:4] == ("sequence 7",) * 4
    assert not figure.layout.updatemenus


def test_absent_sequences_and_single_ones() -> None:
    dataset = small("t")
    dataset.log_odds[0, 0, 1] = np.nan
    figure = curves_by_sequence(dataset, "t")
    assert [words for words in figure.data[0].text if words][::4] == ["sequence 7", "sequence 9"]
    np.testing.assert_array_equal(figure.data[2].y, np.round(dataset.log_odds[0, 0, [0, 2]].values.mean(0), 4))
    dataset.log_odds[0, 1, :2] = 1.5  # sequence 8 has this readout alone, sequence 9 the other
    both = curves_by_sequence(dataset, "t")
    assert both.data[0].name == "3 sequences"
    assert list(both.data[2].y) == list(figure.data[2].y)
    assert choices(both)["foil"][0]["y"][2] == [1.5] * 4
    assert choices(both)["foil"][0]["y"][0][10:] == [None] * 5
    alone = curves_by_sequence(dataset.isel(seq=[0]), "t")
    assert set(alone.data[1].y) == {None} and set(alone.data[2].customdata) == {""}


def test_names_of_users_are_escaped() -> None:
    dataset = small()
    shape = (1, 3, 4)
    texts = {"query": "a<br>&b", "answer": "two\nlines", "foil": "x" * 99}
    dataset = dataset.assign({k: (("task", "seq", "shot"), np.full(shape, v)) for k, v in texts.items()})
    words = curves_by_sequence(dataset, HTML).data[0].text[0]
    assert words.startswith("sequence 7: <b>a&lt;br&gt;&amp;b \u2192 two\u21b5lines</b><br>foil xxx")
    assert words.endswith("x\u2026") and len(words) < 150
    heads = heads_of_patch([HTML, "other"])
    figure = head_map(heads)
    assert figure.data[0].name == "&lt;b&gt;x&lt;/b&gt; &amp; %{y}"
    assert next(iter(choices(figure, 1))) == figure.data[0].name
    assert not any("%{y} " in trace.hovertemplate for trace in figure.data)


def test_what_is_not_there_is_stated(example: xr.Dataset) -> None:
    with pytest.raises(StatedError, match=r"unknown task 'cpy'.*copy"):
        curves_by_sequence(example, "cpy")
    with pytest.raises(StatedError, match="unknown readout of task 'past_tense': 'rule'"):
        curves_by_sequence(example, "past_tense", ["rule"])
    with pytest.raises(StatedError, match="unknown task 'b'"):
        head_map(heads_of_patch(["a"]), ["b"])
    with pytest.raises(StatedError, match="table of heads"):
        head_map(heads_of_patch(["a"]).head(0))
    with pytest.raises(StatedError, match="unknown task 'b'"):
        transfer_map(transfer(), "b", "mean")


def heads_of_patch(tasks: list[str]) -> pd.DataFrame:
    rows = [
        {"task": task, "component": f"L{i}H{j}", "layer": i, "head": j, "lost": (i - j) / 3 + k, "to_sink": 0.1 * j}
        for k, task in enumerate(tasks)
        for i in range(3)
        for j in range(2)
    ]
    table = pd.DataFrame(rows)
    table["lost_low"], table["lost_high"], table["round"] = table.lost - 0.5, table.lost + 0.5, np.nan
    table.loc[0, "round"] = 1
    table["taken"] = np.nan
    return table


def test_a_map_has_each_head_at_its_place() -> None:
    figure = head_map(heads_of_patch(["a", "b"]))
    assert [(trace.name, trace.visible) for trace in figure.data] == [("a", True), ("b", False)]
    np.testing.assert_allclose(
        figure.data[1].z, [[1, 2 / 3], [4 / 3, 1], [5 / 3, 4 / 3]], rtol=1e-3
    )  # layers upwards, heads to the right
    assert figure.data[0].customdata[2][1][0] == "0.333 [\u22120.167, 0.833]"
    assert figure.data[0].customdata[0][0][-1] == "ablated in round 1" and figure.data[0].customdata[1][0][-1] == ""
    assert figure.data[0].hovertemplate.startswith("<b>L%{y}H%{x}</b><br>lost: %{customdata[0]}<br>")
    quantities, tasks = choices(figure), choices(figure, 1)
    assert list(quantities) == ["lost", "attention to the first token"]  # `taken` has no numbers
    assert {name: traces for name, (traces, _) in tasks.items()} == {
        "a": {"visible": [True, False]},
        "b": {"visible": [False, True]},
    }


def test_colours_are_about_zero_and_alike_for_all_tasks() -> None:
    figure = head_map(heads_of_patch(["a", "b"]))
    entries = choices(figure)
    lost, sink = (entries[name][0] for name in ("lost", "attention to the first token"))
    assert (lost["zmin"], lost["zmax"]) == ([-1.67], [1.67])
    assert (sink["zmin"], sink["zmax"]) == ([0], [0.1])
    assert {(trace.zmin, trace.zmax) for trace in figure.data} == {(-1.67, 1.67)}
    first, last = lost["colorscale"][0][0][1], lost["colorscale"][0][-1][1]
    assert int(first.split(",")[2].strip(")")) > int(first.split("(")[1].split(",")[0])  # blue below
    assert int(last.split("(")[1].split(",")[0]) > int(last.split(",")[2].strip(")"))  # red above
    assert lost["colorbar.title.text"] == ["lost (nats)"]
    assert len(lost["z"]) == 2


def test_a_map_of_attribution_leaves_out_what_is_no_head() -> None:
    table = heads_of_patch(["a"]).drop(columns="round").rename(columns={"lost": "slope"})
    table = table.assign(kind="head", stands_out=[True] + [False] * 5, accumulation=["averaging", *[None] * 5])
    table = table.rename(columns={"lost_low": "slope_low", "lost_high": "slope_high"})
    whole = pd.DataFrame([{"task": "a", "component": "all", "kind": "all", "slope": 99.0}])
    figure = head_map(pd.concat([table, whole]))
    assert np.max(np.abs(np.array(figure.data[0].z, float))) < 1
    assert figure.data[0].customdata[0][0][-1] == "stands out<br>accumulation: averaging"
    assert figure.data[0].customdata[0][1][-1] == ""
    assert figure.data[0].colorbar.title.text == "slope (nats/example)"
    assert not figure.layout.updatemenus


def test_a_head_without_a_number_is_a_gap() -> None:
    table = heads_of_patch(["a"])
    table.loc[3, "lost"] = np.nan
    trace = head_map(table).data[0]
    assert trace.z[1][1] is None and trace.customdata[1][1][0] == "\u2013" and trace.hoverongaps is False


def transfer() -> pd.DataFrame:
    rows = [
        {"task": "a", "round": i, "kind": kind, "set": "ablated", "layer": point, "own": i + 0.1 * point}
        for kind in ("zero", "mean")
        for i in range(2)
        for point in (2, 0, 1)
    ]
    rows += [{**rows[0], "set": "placebo 1", "own": 99.0}]
    rows += [{"task": "a", "round": 0, "set": "no rule", "layer": point, "own": -5.0} for point in range(3)]
    table = pd.DataFrame(rows).assign(own_first=0.25, other_first=0.5)
    table["other"] = -table.own
    for name in ("own", "other"):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 1, table[name] + 1
    return table


def test_transfer_has_a_line_for_each_round_and_answer_and_a_menu_of_kinds() -> None:
    figure = transfer_map(transfer(), "a", "mean")
    lines = [trace for trace in figure.data if trace.hovertemplate]
    shown = [trace for trace in lines if trace.visible]
    assert [trace.name for trace in shown if trace.showlegend] == ["nothing ablated", "round 1", "permuted answers"]
    own, other = shown[2:4]
    assert list(own.x) == [0, 1, 2] and list(own.y) == [1.0, 1.1, 1.2] and list(other.y) == [-1.0, -1.1, -1.2]
    assert (own.line.dash, other.line.dash) == ("solid", "dash")
    assert list(own.customdata[1]) == ["[0.1000, 2.1000]", "25%"]
    bands = [trace for trace in figure.data if trace.fill]
    assert list(bands[0].y) == [-1.0, -0.9, -0.8, 1.2, 1.1, 1.0]
    assert 99.0 not in [y for trace in lines for y in trace.y]  # placebo sets are not drawn
    entries = choices(figure)
    assert list(entries) == ["mean ablation", "zero ablation"]
    for kind, n in (("mean", 4), ("zero", 4)):
        visible = entries[f"{kind} ablation"][0]["visible"]
        assert len(visible) == len(figure.data) and sum(visible) == 2 * n + 4
    assert [trace.visible for trace in figure.data] == entries["mean ablation"][0]["visible"]


def all_figures(example: xr.Dataset) -> list[Any]:
    return [
        curves_by_sequence(example, "copy"),
        head_map(heads_of_patch(["a", "b"])),
        transfer_map(transfer(), "a", "mean"),
    ]


def test_figures_take_the_colours_and_the_width_of_the_page(example: xr.Dataset) -> None:
    for figure in all_figures(example):
        layout = figure.layout.to_plotly_json()
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert "color" not in layout["font"] and layout["font"]["family"] == "inherit"
        assert "width" not in layout and layout["autosize"] and 380 <= layout["height"] <= 460
        assert "layout" not in layout["template"]  # plotly's own has colours
        words = json.dumps(layout)
        assert not re.search(r'"(?:black|white|#000(?:000)?|#fff(?:fff)?|#2a3f5f)"', words, re.IGNORECASE)
        assert all(layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis"))


def test_a_part_of_a_page_is_light_and_has_no_library(example: xr.Dataset) -> None:
    figure = curves_by_sequence(example, "copy")
    part = as_html(figure, "curves-copy")
    assert len(readouts_of(example, "copy")) == 5 and len(part) < 300_000
    assert part.count('id="curves-copy"') == 1 and "<html" not in part and "cdn" not in part
    assert '"displaylogo": false' in part and '"responsive": true' in part
    assert part.count("plotly_hover") == 1
    assert "plotly_hover" not in as_html(transfer_map(transfer(), "a", "mean"), "t")
    assert not re.search("bdata", part)  # numbers can be read, and read on by hand


def test_tags_of_users_do_not_end_the_script() -> None:
    dataset = small("</script><script>alert(1)</script>")
    part = as_html(curves_by_sequence(dataset, dataset.task.item(), None), "x")
    part += as_html(head_map(heads_of_patch(["</script><b>", "b"])), "y")
    assert part.count("</script>") == part.count("<script") == 2


def test_library_can_stand_in_a_page() -> None:
    source = library()
    assert len(source) > 1_000_000 and "</script" not in source and "Plotly" in source


def test_styles_name_what_plotly_draws() -> None:
    for name in ("updatemenu-item-rect", "js-plotly-plot"):
        assert name in library() and name in writing_interactive.STYLE
