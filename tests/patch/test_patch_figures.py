"""Figures of patching: what is drawn equals the tables, nothing is cut off, never and NaN do not crash."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from figure_checks import cut_off, overlapping, words_of
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from bayes_icl.patch import drawing, step_figures
from bayes_icl.patch import figures as patch_figures
from bayes_icl.writing.style import COLUMN

TASKS = ("copy", "past_tense", "affine:slope=3,intercept=1", "capitalise")
A, B = 7.0, -2.6
LAYERS, HEADS = 30, 9
ROUND_TEXTS = ("", "layers 19-20", "layers 19-20, L22H3, L22H7", "layers 19-20, L22H3, L22H7, L23H0, L23H5, L25H1")
ROUND_HEADS = (0, 18, 20, 23)
TRANSFER = (21.0, 23.0, np.nan, np.nan)


def limits(name: str, value: float, half: float) -> dict[str, float]:
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def made_transfer(tasks: tuple[str, ...] = TASKS, n_rounds: int = 4) -> pd.DataFrame:
    """Own answer: up at 15 and at 21, down at 24, lower and later by round; the other answer rises at 24."""
    rng = np.random.default_rng(0)
    rows = []
    for task in tasks:
        for r in range(n_rounds):
            for kind in ("mean", "zero"):
                for name in ("ablated",) if r == 0 else ("ablated", "placebo 1", "placebo 2"):
                    hit = r if name == "ablated" else 0
                    start = 21 + 2 * min(hit, 1)
                    for point in range(LAYERS + 1):
                        own = B if point < 15 else -0.7 - 0.3 * hit if point < start else 3.3 - 1.6 * hit
                        own, other = (own, -7.5) if point < 24 else (-6.7, 4.5 + 0.06 * (point - 24) - 0.5 * hit)
                        row = {"task": task, "round": r, "kind": kind, "set": name, "layer": point}
                        row |= limits("own", own + rng.normal(0, 0.1), 0.4)
                        rows.append(row | limits("other", other + rng.normal(0, 0.1), 0.4))
    return pd.DataFrame(rows)


def made_rounds(
    tasks: tuple[str, ...] = TASKS, n_rounds: int = 4, kinds: tuple[str, ...] = ("zero", "mean", "resample")
) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = []
    for task in tasks:
        for r in range(n_rounds):
            for kind in kinds:
                for name in ["ablated", *(f"placebo {i + 1}" for i in range(6 if r else 0))]:
                    hit = r if name == "ablated" else 0
                    transfer, i = TRANSFER[min(hit, 3)], min(r, 3)
                    row = {"task": task, "round": r, "kind": kind, "set": name, "n_heads": ROUND_HEADS[i]}
                    row |= {"heads": "L19H0 L19H1", "layers_text": ROUND_TEXTS[i], "transfer_layer": transfer}
                    row |= {"transfer_layer_low": transfer - 1, "transfer_layer_high": transfer}
                    row |= {"reached": 0.99 if np.isfinite(transfer) else 0.2, "answer_layer": 24.0}
                    row |= {"answer_layer_low": 24.0, "answer_layer_high": 25.0}
                    row |= limits("peak", 3.3 - 1.5 * hit, 0.5) | {"peak_layer": 21}
                    row |= limits("a_own", A - 2.1 * hit + (rng.normal(0, 0.2) if r else 0), 0.4)
                    rows.append(row | {"b_own": B, "n_pairs": 32})
    return pd.DataFrame(rows)


def made_redundancy(tasks: tuple[str, ...] = TASKS) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    rng = np.random.default_rng(2)
    rows, halves = [], []
    grid = [0, 1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 190, 270]
    for task in tasks:
        for order, scale in [("best first", 25), *((f"random {i + 1}", rng.uniform(80, 130)) for i in range(5))]:
            for n in grid:
                value = -6 + (A + 6) * np.exp(-n / scale) + (rng.normal(0, 0.15) if n else 0)
                rows.append({"task": task, "order": order, "n_heads": n, "share": n / 270})
                rows[-1] |= limits("log_odds", value, 0.4)
        for order, share in (("best first", 0.05), ("random", 0.26)):
            row = {"task": task, "order": order, "share": share, "share_low": share * 0.6, "share_high": share * 1.4}
            halves.append(row | {"n_heads_all": 270})
    return pd.DataFrame(rows), pd.DataFrame(halves), dict.fromkeys(tasks, A - B)


ATTENTION = ("bring", "to_answers", "to_before", "to_queries", "to_sink", "previous_token", "induction")


def made_table_of_heads(tasks: tuple[str, ...] = TASKS) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = []
    for task in tasks:
        strong = rng.choice(np.arange(120, 260), 14, replace=False)
        for i in range(LAYERS * HEADS):
            layer, head = divmod(i, HEADS)
            taken = rng.normal(0, 0.03) + (rng.choice([1, 1, -0.6]) * rng.uniform(0.2, 1.6) if i in strong else 0)
            parts = {"other_heads": taken * rng.uniform(0, 0.5), "mlps": taken * rng.uniform(-0.1, 0.3)}
            parts["norm"] = rng.normal(0, 0.02) + 0.1 * taken
            lost = taken - sum(parts.values())
            row: dict[str, Any] = {"task": task, "component": f"L{layer}H{head}", "layer": layer, "head": head}
            for name in ATTENTION:
                row |= limits(name, rng.beta(0.5, 5), 0.02)
            row |= limits("direct", taken * 1.1 + rng.normal(0, 0.02), 0.06) | limits("lost", lost, 0.08)
            row |= limits("lost_zero", lost * 1.2, 0.1) | limits("taken", taken, 0.06)
            for name, value in parts.items():
                row |= limits(name, value, 0.03)
            rows.append(row | {"round": 1.0 if layer in (19, 20) else 2.0 if i in strong[:2] else np.nan})
    return pd.DataFrame(rows)


BACKUPS = ("effect_before", "effect_after", "growth", "growth_placebo", "direct_rise", "attention_rise")


def made_backups(tasks: tuple[str, ...] = TASKS) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    rows = []
    for task in tasks:
        for i, (layer, head) in enumerate([(22, 3), (22, 7), (23, 0), (25, 1)]):
            before, growth = rng.uniform(-0.1, 0.4), rng.uniform(0.4, 2)
            row: dict[str, Any] = {"task": task, "round": 1 + i // 2, "component": f"L{layer}H{head}", "layer": layer}
            row |= {"head": head} | limits("effect_before", before, 0.1)
            row |= limits("effect_after", before + growth, 0.25) | limits("growth", growth, 0.25)
            row |= limits("growth_placebo", rng.normal(0, 0.05), 0.08) | limits("direct_rise", 0.3, 0.1)
            row |= limits("attention_rise", 0.05, 0.02)
            rows.append(
                row
                | {
                    "p_holm": 0.001,
                    "mode": "active" if i % 2 else "passive",
                    "n_seqs": 32,
                    "grows": i != 3,
                    "backup": i not in (2, 3),
                }
            )
    return pd.DataFrame(rows)


EXPERIMENTS = {
    1: ["examples' answers cut off from their own queries", "heads that bring, ablated at the answers"],
    2: ["last position cut off from the answers", "transfer to another query at layer 21", "task heads ablated"],
    3: ["MLPs from the transfer layer on, at the last position"],
}


def made_steps(tasks: tuple[str, ...] = TASKS) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = []
    for i, task in enumerate(tasks):
        for step, experiments in EXPERIMENTS.items():
            for j, what in enumerate(experiments):
                for kind in ("zero", "mean", "resample")[: 3 if j else 2]:
                    row = {"task": task, "step": step, "verdict": ["supported", "rejected", "not seen"][(step + i) % 3]}
                    row |= {"what": what, "kind": kind} | limits("share", rng.uniform(-0.05, 0.8), 0.07)
                    rows.append(row | {"decides": "path" if j == 0 else ""})
    return pd.DataFrame(rows)


def made_mlps(tasks: tuple[str, ...] = TASKS) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    rows = []
    for i, task in enumerate(tasks):
        for readout in ("complement", "format", "rule", "parity", "transfer")[: 5 - 2 * (i == 1)]:
            for place in ("answers", "others", "last"):
                for layer in range(LAYERS):
                    value = rng.normal(0.05, 0.08) + (rng.uniform(3, 9) if layer == 0 else 0) + (layer > 26) * 0.8
                    row = {"task": task, "layer": layer, "place": place, "readout": readout}
                    rows.append(row | limits("lost", value, 0.15))
    return pd.DataFrame(rows)


def all_figures(tasks: tuple[str, ...] = TASKS, n_rounds: int = 4) -> dict[str, Figure]:
    redundancy, halves, rules = made_redundancy(tasks)
    rounds, heads = made_rounds(tasks, n_rounds), made_table_of_heads(tasks)
    return {
        "transfer": patch_figures.transfer_figure(made_transfer(tasks, n_rounds), rounds, tasks[-1], kind="mean"),
        "rounds": patch_figures.rounds_figure(rounds),
        "redundancy": patch_figures.redundancy_figure(redundancy, halves, rules),
        "repair": step_figures.repair_figure(heads),
        "backups": step_figures.backups_figure(made_backups(tasks)),
        "roles": step_figures.roles_figure(heads, tasks[-1]),
        "steps": step_figures.steps_figure(made_steps(tasks)),
        "mlps": step_figures.mlps_figure(made_mlps(tasks)),
    }


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return all_figures()


@pytest.fixture(scope="module")
def alone() -> dict[str, Figure]:
    """Of one task, of a long name."""
    return all_figures(TASKS[2:3], 6)


def panels(figure: Figure) -> list[Any]:
    return [ax for ax in figure.axes if ax.axison and ax.get_title(loc="left")]


def lines(ax: Any) -> list[np.ndarray]:
    """The points of each line, shape (point, 2)."""
    return [np.column_stack([np.asarray(line.get_xdata(), float), line.get_ydata()]) for line in ax.lines]


def drawn(ax: Any, x: Any, y: Any) -> bool:
    """Whether one of the lines is that."""
    wanted = np.column_stack([np.asarray(x, float), np.asarray(y, float)])
    return any(line.shape == wanted.shape and np.allclose(line, wanted, equal_nan=True) for line in lines(ax))


def levels(ax: Any) -> list[float]:
    """Heights of lines across the whole panel."""
    return [
        line[0, 1] for line in lines(ax) if len(line) == 2 and (line[:, 0] == [0, 1]).all() and np.ptp(line[:, 1]) == 0
    ]


NAMES = ["transfer", "rounds", "redundancy", "repair", "backups", "roles", "steps", "mlps"]


@pytest.mark.parametrize("size", ["figures", "alone"])
@pytest.mark.parametrize("name", NAMES)
def test_every_text_is_inside_the_figure_and_on_no_other(name: str, size: str, request: pytest.FixtureRequest) -> None:
    figure = request.getfixturevalue(size)[name]
    assert not cut_off(figure)
    pairs = overlapping(figure)
    if name == "mlps":  # the task stands above the readout, and may reach over the next panel, whose title is one line
        pairs = [pair for pair in pairs if not any("\n" in title for title in pair)]
    assert not pairs


@pytest.mark.parametrize("name", NAMES)
def test_figures_name_units_and_intervals_and_are_as_wide_as_columns(
    figures: dict[str, Figure], alone: dict[str, Figure], name: str
) -> None:
    for figure in (figures[name], alone[name]):
        assert figure.get_figwidth() in (pytest.approx(COLUMN), pytest.approx(2 * COLUMN))
        assert figure.get_figheight() <= 9.8
        assert "nats" in words_of(figure) and "95 %" in words_of(figure)
        assert TASKS[2] in words_of(figure) or name in ("transfer", "roles")


def test_as_read_from_a_file(figures: dict[str, Figure]) -> None:
    def read(table: pd.DataFrame) -> pd.DataFrame:
        return pd.read_csv(io.StringIO(table.to_csv(index=False)))

    redundancy, halves, rules = made_redundancy()
    rounds, heads = read(made_rounds()), read(made_table_of_heads())
    again = {
        "transfer": patch_figures.transfer_figure(read(made_transfer()), rounds, TASKS[-1], kind="mean"),
        "rounds": patch_figures.rounds_figure(rounds),
        "redundancy": patch_figures.redundancy_figure(read(redundancy), read(halves), rules),
        "repair": step_figures.repair_figure(heads),
        "backups": step_figures.backups_figure(read(made_backups())),
        "roles": step_figures.roles_figure(heads, TASKS[-1]),
        "steps": step_figures.steps_figure(read(made_steps())),
        "mlps": step_figures.mlps_figure(read(made_mlps())),
    }
    for name, figure in again.items():
        assert words_of(figure) == words_of(figures[name])


def test_no_global_state_of_matplotlib_is_touched() -> None:
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    all_figures(TASKS[:1], 2)
    assert plt.get_fignums() == [] and dict(mpl.rcParams) == before


def blanked(table: pd.DataFrame, *keep: str) -> pd.DataFrame:
    """A third of the numbers missing."""
    rng = np.random.default_rng(7)
    numbers = [column for column in table.select_dtypes("number") if column not in keep]
    return table.assign(**{column: table[column].where(rng.random(len(table)) < 0.67) for column in numbers})


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS[:3]])
def test_missing_numbers_do_not_crash(tasks: tuple[str, ...]) -> None:
    redundancy, halves, rules = made_redundancy(tasks)
    rounds, heads = (
        blanked(made_rounds(tasks), "round", "n_heads"),
        blanked(made_table_of_heads(tasks), "layer", "head"),
    )
    halves, rules = blanked(halves, "n_heads_all"), rules | {tasks[0]: np.nan}
    for figure in (
        patch_figures.transfer_figure(blanked(made_transfer(tasks), "round", "layer"), rounds, tasks[0], kind="mean"),
        patch_figures.rounds_figure(rounds),
        patch_figures.redundancy_figure(blanked(redundancy, "n_heads"), halves, rules),
        step_figures.repair_figure(heads),
        step_figures.backups_figure(blanked(made_backups(tasks), "round", "layer", "head")),
        step_figures.roles_figure(heads, tasks[0]),
        step_figures.steps_figure(blanked(made_steps(tasks), "step").assign(decides="path")),
        step_figures.mlps_figure(blanked(made_mlps(tasks), "layer")),
    ):
        assert not cut_off(figure)


# --------------------------------------------------------------------------------------------- transfer, rounds


def test_transfer_has_both_answers_of_every_round_and_the_levels_of_round_0() -> None:
    transfer, rounds = made_transfer(), made_rounds()
    figure = patch_figures.transfer_figure(transfer, rounds, TASKS[0], kind="zero")
    upper, lower = figure.axes
    own = transfer[(transfer.task == TASKS[0]) & (transfer.kind == "zero") & (transfer["set"] == "ablated")]
    for _, part in own.groupby("round"):
        assert drawn(upper, part.layer, part.own) and drawn(lower, part.layer, part.other)
    assert sum(len(line) == 31 for line in lines(upper)) == 4  # no placebo, no other kind
    bands = [band.get_paths()[0].vertices for band in upper.collections]
    for (_, part), band in zip(own.groupby("round"), bands, strict=True):
        assert band[:, 1].min() == pytest.approx(part.own_low.min()) and np.isin(part.own_high, band[:, 1]).all()
    known = rounds[(rounds.task == TASKS[0]) & (rounds.kind == "zero") & (rounds["set"] == "ablated")]
    halves = (known.a_own + known.b_own) / 2
    assert sorted(levels(upper)) == pytest.approx(sorted([B, *halves, A])) and levels(lower) == pytest.approx([A])
    assert {text.get_text() for text in upper.texts} == {"A 7.0", "B \u22122.6"}
    marks = {ax: [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "^"] for ax in (upper, lower)}
    assert marks[upper] == list(known.transfer_layer.dropna()) and marks[lower] == list(known.answer_layer)
    legend = [" ".join(text.get_text().replace("\u00a0", " ").split()) for text in figure.legends[0].get_texts()]
    assert legend == [
        "round 0: nothing ablated; transfer at 21 [20, 21]",
        "round 1: layers 19-20 (18 heads); transfer at 23 [22, 23]",
        "round 2: layers 19-20, L22H3, L22H7 (20 heads); transfer never",
        "round 3: layers 19-20, L22H3, L22H7, L23H0, L23H5, L25H1 (23 heads); transfer never",
    ]
    assert "zero ablation" in words_of(figure) and "mean ablation" in words_of(
        patch_figures.transfer_figure(transfer, rounds, TASKS[0], kind="mean")
    )


def test_no_half_way_to_an_a_that_is_not_above_b() -> None:
    rounds = made_rounds(TASKS[:1], 2)
    rounds.loc[rounds["round"] == 1, ["a_own", "a_own_low", "a_own_high"]] = [B + 0.2, B - 0.2, B + 0.6]
    upper = patch_figures.transfer_figure(made_transfer(TASKS[:1], 2), rounds, TASKS[0], kind="mean").axes[0]
    assert sorted(levels(upper)) == pytest.approx([B, (A + B) / 2, A])


def test_marks_are_below_all_that_is_drawn(figures: dict[str, Figure]) -> None:
    figure = figures["transfer"]
    cut_off(figure)  # draws
    for ax in figure.axes:
        data = [line.get_window_extent().y0 for line in ax.lines if line.get_marker() == "."]
        marks = [line.get_window_extent().y1 for line in ax.lines if line.get_marker() == "^"]
        assert marks and max(marks) < min(data) and min(marks) > ax.bbox.y0


def test_rounds_have_layers_log_odds_and_a_row_for_never(figures: dict[str, Figure]) -> None:
    rounds = made_rounds()
    axes = figures["rounds"].axes
    uppers = [ax for ax in axes if ax.get_title(loc="left")]
    lowers = [ax for ax in axes if not ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in uppers] == list(TASKS)
    for task, upper, lower in zip(TASKS, uppers, lowers, strict=True):
        never = dict(zip((label.get_text() for label in upper.get_yticklabels()), upper.get_yticks()))["never"]
        assert never > rounds.transfer_layer_high.max()
        for kind, offset in zip(("zero", "mean", "resample"), (-0.2, 0.0, 0.2)):
            own = rounds[(rounds.task == task) & (rounds.kind == kind)]
            ablated, placebo = own[own["set"] == "ablated"], own[own["set"] != "ablated"]
            for ax, column in ((upper, "transfer_layer"), (lower, "a_own")):
                assert drawn(ax, ablated["round"] + offset, ablated[column])
                assert drawn(ax, placebo["round"] + offset + 0.08, placebo[column])
                bars = [path.vertices for lines in ax.collections for path in lines.get_paths()]
                for row in ablated.to_dict("records"):
                    bar = [[row["round"] + offset, row[f"{column}_{side}"]] for side in ("low", "high")]
                    assert np.isnan(bar).any() or any(np.allclose(bar, other) for other in bars)
            assert drawn(upper, [2 + offset, 3 + offset], [never, never])
            assert drawn(lower, ablated["round"], ablated.b_own)


def test_rounds_in_which_nothing_is_transferred_and_of_one_kind() -> None:
    rounds = made_rounds(TASKS[:1], 3, ("mean",))
    for name in ("transfer_layer", "transfer_layer_low", "transfer_layer_high"):
        rounds[name] = np.nan
    figure = patch_figures.rounds_figure(rounds)
    assert not cut_off(figure) and not overlapping(figure)
    never = figure.axes[0].get_yticks()[-1]
    assert drawn(figure.axes[0], [0, 1, 2], [never] * 3)
    words = words_of(
        patch_figures.transfer_figure(
            made_transfer(TASKS[:1], 3).query("kind == 'mean'"), rounds, TASKS[0], kind="mean"
        )
    )
    assert words.count("transfer\u00a0never") == 3


# --------------------------------------------------------------------------------------------- redundancy


def test_redundancy_has_all_orders_and_says_when_half_is_gone(figures: dict[str, Figure]) -> None:
    redundancy, halves, rules = made_redundancy()
    for task, ax in zip(TASKS, panels(figures["redundancy"]), strict=True):
        own = redundancy[redundancy.task == task]
        for _, part in own.groupby("order"):
            assert drawn(ax, part.n_heads, part.log_odds)
        assert levels(ax) == pytest.approx([A - rules[task] / 2])
        marks = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "^"]
        assert marks == pytest.approx(list(halves[halves.task == task].share * 270))
        assert ax.get_title(loc="left").split("\n") == [
            task,
            "best first: half gone at 5 % of heads [3, 7]",
            "random: half gone at 26 % of heads [16, 36]",
        ]
        labels = [label.get_text() for label in ax.get_xticklabels()]
        assert labels == ["0", "1", "2", "5", "10", "20", "50", "100", "200"]


def test_redundancy_where_half_is_never_gone_or_has_no_interval() -> None:
    redundancy, halves, _ = made_redundancy(TASKS[:1])
    halves.loc[halves.order == "random", ["share", "share_low", "share_high"]] = np.nan
    halves.loc[halves.order == "best first", ["share", "share_low", "share_high"]] = [1 / 270, np.nan, np.nan]
    figure = patch_figures.redundancy_figure(redundancy, halves)
    (ax,) = panels(figure)
    assert "random: half never gone" in ax.get_title(loc="left") and "half gone at 0.4 % of heads\n" in ax.get_title(
        loc="left"
    )
    assert not levels(ax) and "half-way" not in words_of(figure)  # A over B was not given
    assert not cut_off(figure)


# --------------------------------------------------------------------------------------------- repair


def test_repair_has_all_heads_and_names_the_largest(figures: dict[str, Figure]) -> None:
    heads = made_table_of_heads()
    for task, ax in zip(TASKS, panels(figures["repair"]), strict=True):
        own = heads[heads.task == task]
        for value, colour in ((np.nan, drawing.GREY), (1, drawing.ROUND_COLOURS[1]), (2, drawing.ROUND_COLOURS[2])):
            part = own[own["round"].isna() if np.isnan(value) else own["round"] == value]
            assert drawn(ax, part.taken, part.lost)
            dots = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()) == len(part)]
            assert any(line.get_color() == colour for line in dots)
        largest = own.loc[own[["taken", "lost"]].abs().max(axis=1).nlargest(6).index]
        assert {text.get_text() for text in ax.texts} == set(largest.component)
        for text, row in zip(ax.texts, largest.itertuples(), strict=True):
            assert text.xy == pytest.approx((row.taken, row.lost))
            assert drawn(ax, [row.taken_low, row.taken_high], [row.lost] * 2)
            assert drawn(ax, [row.taken] * 2, [row.lost_low, row.lost_high])
    assert "self-repair" in words_of(figures["repair"])


@settings(max_examples=12, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=9),
    most=st.integers(1, 6),
)
def test_names_of_heads_are_inside_and_on_no_other(points: list[tuple[float, float]], most: int) -> None:
    heads = made_table_of_heads(TASKS[:1]).head(len(points)).reset_index(drop=True)
    for i, name in enumerate(("taken", "lost")):
        heads[name] = [point[i] for point in points]
        heads[f"{name}_low"], heads[f"{name}_high"] = heads[name] - 0.1, heads[name] + 0.1
    figure = step_figures.repair_figure(heads, most)
    assert not cut_off(figure) and not overlapping(figure)
    (ax,) = panels(figure)
    assert len([text for text in ax.texts if isinstance(text, Annotation)]) == min(most, len(points))


# --------------------------------------------------------------------------------------------- backups


def test_backups_have_effects_before_and_after_and_growth_beside_a_placebos(figures: dict[str, Figure]) -> None:
    backups = made_backups()
    left, right = figures["backups"].axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    rows = {}
    heading = ""
    for label, y in zip(labels, left.get_yticks()):
        if label in TASKS:
            heading = label
        else:
            rows[heading, label] = y
    assert list(dict.fromkeys(task for task, _ in rows)) == list(TASKS) and len(rows) == len(backups)
    for row in backups.to_dict("records"):
        mode = (row["mode"] if row["backup"] else "grows") if row["grows"] else "not beyond placebo"
        y = rows[row["task"], f"{row['component']}, round {row['round']}, {mode}"]
        for ax, name, shift in (
            (left, "effect_before", -0.15),
            (left, "effect_after", 0.15),
            (right, "growth", -0.15),
            (right, "growth_placebo", 0.15),
        ):
            assert drawn(ax, [row[name]], [y + shift])
            assert drawn(ax, [row[f"{name}_low"], row[f"{name}_high"]], [y + shift] * 2)
    assert list(left.get_yticks()) == sorted(left.get_yticks()) and left.yaxis_inverted()


def test_no_backups() -> None:
    for empty in (made_backups().head(0), pd.read_csv(io.StringIO(made_backups().head(0).to_csv(index=False)))):
        figure = step_figures.backups_figure(empty)
        assert words_of(figure) == "no backup head was found" and not cut_off(figure)


# --------------------------------------------------------------------------------------------- roles


@settings(max_examples=8, deadline=None)
@given(most=st.integers(4, 30), seed=st.integers(0, 100))
def test_roles_hold_the_numbers_of_the_heads_largest_in_any(most: int, seed: int) -> None:
    heads = made_table_of_heads(TASKS[:2])
    order = np.random.default_rng(seed).permutation(len(heads))
    figure = step_figures.roles_figure(heads.iloc[order], TASKS[0], most)
    own = heads[heads.task == TASKS[0]].set_index("component")
    left, right = figure.axes
    names = [label.get_text().split(" ")[0] for label in left.get_yticklabels()]
    assert len(names) == most
    keys = own[["bring", "to_answers", "lost"]].assign(direct=own.direct.abs())
    first = [set(keys[name].nlargest(most // 4).index) for name in keys]
    assert set().union(*first) <= set(names)
    assert names == list(own.loc[names].sort_values(["layer", "head"]).index)
    for ax, columns in ((left, step_figures.ROLES), (right, step_figures.NATS)):
        cells = np.ma.asarray(ax.collections[0].get_array()).reshape(most, len(columns))
        np.testing.assert_allclose(cells, own.loc[names, list(columns)])
        shown = [float(text.get_text().replace("\u2212", "-")) for text in ax.texts]
        np.testing.assert_allclose(np.reshape(shown, cells.shape), cells, atol=0.0051)
    assert left.collections[0].get_clim() == (0, 1) and sum(right.collections[0].get_clim()) == 0
    rows = own.loc[names]
    for column, name in enumerate(step_figures.NATS):
        clear = rows[f"{name}_low"] * rows[f"{name}_high"] > 0
        weights = [text.get_fontweight() for text in right.texts[column::2]]
        assert [weight == "bold" for weight in weights] == list(clear)
    ablated = {label.get_text() for label in left.get_yticklabels() if "(" in label.get_text()}
    assert ablated == {f"{name} ({own['round'][name]:.0f})" for name in names if np.isfinite(own["round"][name])}


def test_roles_leave_cells_without_a_number_blank() -> None:
    heads = made_table_of_heads(TASKS[:1]).assign(induction=np.nan)
    left, _ = step_figures.roles_figure(heads, TASKS[0], 5).axes
    cells = np.ma.asarray(left.collections[0].get_array()).reshape(5, 7)
    assert cells.mask[:, -1].all() and not cells.mask[:, :-1].any() and len(left.texts) == 30


# --------------------------------------------------------------------------------------------- steps, MLPs


def test_steps_have_every_experiment_under_its_verdict(figures: dict[str, Figure]) -> None:
    steps = made_steps()
    for task, ax in zip(TASKS, panels(figures["steps"]), strict=True):
        own = steps[steps.task == task]
        labels = [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]
        wanted = []
        for step, part in own.groupby("step"):
            wanted += [f"step {step}: {part.verdict.iloc[0]}", *part.what.unique()]
        assert labels == wanted
        places = dict(zip(labels, ax.get_yticks()))
        for row in own.itertuples():
            points = [line for line in ax.lines if np.array_equal(line.get_xdata(), [row.share])]
            assert len(points) == 1
            (point,) = points
            assert abs(point.get_ydata()[0] - places[row.what]) < 0.5
            assert (point.get_markerfacecolor() == "w") == (not row.decides)
            assert (point.get_color(), point.get_marker()) == drawing.KINDS[row.kind]
            assert drawn(ax, [row.share_low, row.share_high], [point.get_ydata()[0]] * 2)
        across = [line[0, 0] for line in lines(ax) if len(line) == 2 and np.ptp(line[:, 0]) == 0]
        assert across == [0, step_figures.STEP_LEAST]


def test_steps_without_an_ablation_have_a_colour_of_their_own() -> None:
    steps = made_steps(TASKS[:1])
    steps.loc[steps.step == 1, "kind"] = np.nan
    figure = step_figures.steps_figure(steps)
    assert "no ablation" in words_of(figure) and "nan" not in words_of(figure)
    assert not cut_off(figure) and not overlapping(figure)


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(1, 3), st.booleans()), min_size=1, max_size=20))
def test_rows_do_not_run_into_each_other(rows: list[tuple[int, float, bool]]) -> None:
    made, end = step_figures._Rows(), 0.0
    for n_lines, least, heading in rows:
        name = "\n".join(["words"] * n_lines)
        if heading:
            made.heading(name)
        half = max(1 + 0.75 * (n_lines - 1), 1.0 if heading else least) / 2
        place = made.places[-1] if heading else made.add(name, least)
        assert place - half >= end - 1e-9
        end = place + half
        assert made.end == pytest.approx(end)


def test_mlps_have_a_line_a_place_in_the_panel_of_task_and_readout(figures: dict[str, Figure]) -> None:
    mlps = made_mlps()
    grid = np.array(figures["mlps"].axes).reshape(len(TASKS), 5)
    for task, row in zip(TASKS, grid):
        for readout, ax in zip(("complement", "format", "rule", "parity", "transfer"), row):
            own = mlps[(mlps.task == task) & (mlps.readout == readout)]
            title = ax.get_title(loc="left").split("\n")
            assert title == ([task, readout] if readout == "complement" else [readout])
            for _, part in own.groupby("place"):
                assert drawn(ax, part.layer, part.lost)
            words = [text.get_text() for text in ax.texts]
            assert words == (["not measured"] if own.empty else [])
            assert len(ax.collections) == own.place.nunique()


def test_mlps_of_one_readout_are_as_wide_as_a_column() -> None:
    mlps = made_mlps(TASKS[:2])
    figure = step_figures.mlps_figure(mlps[mlps.readout == "rule"])
    assert figure.get_figwidth() == COLUMN and not cut_off(figure) and not overlapping(figure)


def test_a_run_with_permuted_answers_is_dotted_beside_the_rounds() -> None:
    transfer = made_transfer()
    points = np.arange(LAYERS + 1)
    no_rule = pd.DataFrame({"task": TASKS[0], "round": 0, "kind": "", "set": "no rule", "layer": points})
    no_rule["own"], no_rule["other"] = points - 20.0, 3.0 - points
    for rows, wanted in ((transfer, False), (pd.concat([transfer, no_rule]), True)):
        figure = patch_figures.transfer_figure(rows, made_rounds(), TASKS[0], kind="mean")
        for ax, name in zip(figure.axes, ("own", "other")):
            assert drawn(ax, points, no_rule[name]) is wanted
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ("A with permuted answers, nothing ablated" in words) is wanted
