from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bayes_icl.attribute import tables as attribute_tables
from bayes_icl.attribute.outputs import HEADS
from bayes_icl.calibrate import tables as calibrate_tables
from bayes_icl.core.schemas import INTERVAL, POSTERIOR, REACHED, Table
from bayes_icl.core.schemas import Column as Schemed
from bayes_icl.fit import tables as fit_tables
from bayes_icl.fit.outputs import COMPARISON
from bayes_icl.patch import tables as patch_tables
from bayes_icl.writing.columns import Column, interval, number, p_value, shown, text
from bayes_icl.writing.tables import PaperTable, table_files

MINUS = "\u2212"
NASTY = ["<b>", "a & b", "[x]", "*y", "50 %", "#1_a^b~c\\d{e}$f$", "a--b `c'", "x\n\n% y", "\x00\x1b", "</td>", "-1.5"]


def triples(numbers: dict[str, tuple]) -> dict[str, Any]:
    """Columns of means and their intervals."""
    return {name + end: x for name, three in numbers.items() for end, x in zip(("", "_low", "_high"), three)}


def one_column(names: list[str], column: Column | None = None) -> PaperTable:
    frame = pd.DataFrame({"name": names, "x": np.arange(len(names)) - 1.25})
    return PaperTable("odd", "t", "c", "s.csv", frame, (column or text("name", "name"), number("x", "x", ".2f")))


def tabular(latex: str) -> tuple[list[str], str, list[list[str]]]:
    """Comments, alignment and rows (the heading first) of a tabular, its rules checked."""
    lines = latex.splitlines()
    comments = [line for line in lines if line.startswith("%")]
    rest = lines[len(comments) :]
    begin = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", rest[0])
    assert begin
    assert (rest[1], rest[3], rest[-2], rest[-1]) == ("\\toprule", "\\midrule", "\\bottomrule", "\\end{tabular}")
    rows = [rest[2], *rest[4:-2]]
    assert all(row.endswith(r" \\") for row in rows)
    return comments, begin[1], [re.split(r"(?<!\\)&", row.removesuffix(r"\\")) for row in rows]


def bare(cell: str) -> str:
    """What is left of a cell without escaped characters, macros and groups, numbers in math among them."""
    cell = re.sub(r"\$(?:<?[-+]?[\d.]*(?:\\infty)?(?:\\times10\^\{-?\d+\})?(?:\\%)?|-|\\geq)\$", "", cell)
    return re.sub(r"\\(?:text\w+\{\}|[&%$#_{}])", "", cell)


class Parser(HTMLParser):
    """A strict reader: every element is closed in its turn."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[tuple[str, dict[str, str | None], str]]] = []
        self.cell: tuple[str, dict[str, str | None], str] | None = None
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = (tag, dict(attrs), "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            assert self.cell
            self.rows[-1].append(self.cell)
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.cell = (*self.cell[:2], self.cell[2] + data)


def verdict(**changed: Any) -> dict[str, Any]:
    return {
        "verdict": "rejected",
        "readout": "complement",
        "n_min": 1,
        "selected": "nll_power",
        "delta": {"mean": 0.1777, "hdi_low": -0.0004, "hdi_high": 0.2107},
        "departure": {"mean": 0.2001, "low": 0.1502, "high": 0.2503, "margin": 0.05, "within": 0.0},
        "total": {"mean": 5.54, "low": 5.0, "high": 6.0},
        "second_half": {"mean": 0.456, "low": 0.367, "high": 0.554},
        "survivors": ["nll_power", "pooling"],
        "seqs_needed": None,
        **changed,
    }


def comparison(task: str = "past_tense") -> pd.DataFrame:
    table = pd.DataFrame(index=range(3), columns=COMPARISON.names)
    numbers = [name for name in COMPARISON.names if name not in ("task", "readout", "hypothesis", "engine", "faults")]
    table[numbers] = np.linspace(0.1, 9, table[numbers].size).reshape(3, -1)
    table = table.astype(dict.fromkeys(numbers, float))
    table["task"], table["readout"], table["n_min"], table["engine"] = task, "complement", 1, "fast"
    table["hypothesis"], table["elpd_diff"], table["diff_se"] = (
        ["additive", "freeform", "pooling"],
        [-9.94, -4, 0],
        2.06,
    )
    table["survivor"], table["survivor_lfo"] = [False, False, True], [False, False, True]
    table.loc[1, "lfo_diff"] = math.nan
    return table


CHECKS = pd.DataFrame(
    {
        "check": ["quadratic contrast", "slope by sequence", "departure by polynomials"],
        "quantity": ["curvature", "delta", "share"],
        "estimate": [-3.0025, math.nan, 0.1876],
        "low": [-3.2145, math.nan, 0.15],
        "high": [-2.7906, math.nan, 0.22],
        "p": [5.6045e-24, math.nan, 0.011],
        "p_holm": [1.12e-23, math.nan, 0.011],
        "task": "past_tense",
        "readout": "complement",
        "n_min": 1,
    }
)


def test_cells_are_numbers_as_a_paper_has_them() -> None:
    """By hand: minus signs, intervals, percent, powers of ten, what is not known, what is rounded to 0."""
    frame = pd.DataFrame(
        {
            "name": ["a_b", "c"],
            "m": [-0.1777, math.nan],
            "m_low": [-0.2107, math.nan],
            "m_high": [-0.0004, math.nan],
            "p": [5.6045e-24, 0.0123],
            "share": [-0.331, 1.0],
            "zero": [0.0, -0.0],
        }
    )
    columns = (
        text("n", "name"),
        interval("m", "m"),
        p_value("p", "p"),
        number("s", "share", ".0%"),
        p_value("z", "zero"),
        number("zero", "zero", ".1f"),
    )
    table = PaperTable("x", "t", "c", "s", frame, columns)
    assert table.cells() == [
        ["a_b", "-0.178 [-0.211, 0.000]", "5.6e-24", "-33%", "<1e-300", "0.0"],
        ["c", "\u2013", "0.012", "100%", "<1e-300", "0.0"],
    ]
    _, aligned, rows = tabular(table.to_latex())
    assert aligned == "lrrrrr"
    assert [cell.strip() for cell in rows[1]] == [
        r"a\_b",
        "$-0.178$ [$-0.211$, $0.000$]",
        r"$5.6\times10^{-24}$",
        r"$-33\%$",
        r"$<1\times10^{-300}$",
        "$0.0$",
    ]
    assert rows[2][1].strip() == "--"
    source = table.to_html()
    assert f'<td class="num">{MINUS}0.178 [{MINUS}0.211, 0.000]</td>' in source
    assert f'<td class="num">5.6\u00d710<sup>{MINUS}24</sup></td>' in source
    assert f'<td class="num">&lt;1\u00d710<sup>{MINUS}300</sup></td>' in source
    cells = [cell for row in Parser(source).rows[1:] for cell in row]
    assert not any("-" in words for _, _, words in cells)


def test_a_terminal_and_markdown_show_the_cells_of_the_page() -> None:
    frame = pd.DataFrame({"name": ["[bold]a|b[/]", "c"], "x": [1.5, math.nan], "x_low": [1.0, math.nan], "x_high": 2.0})
    table = PaperTable("x", "The [title]", "c", "s", frame, (text("n", "name"), interval("x", "x", ".1f")))
    console = Console(file=io.StringIO(), width=60)
    console.print(table.to_rich())
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines == [
        "The [title]",
        "n                         x",
        "[bold]a|b[/] 1.5 [1.0, 2.0]",
        "c                         \u2013",
    ]
    assert table.to_markdown() == ("| n | x |\n| --- | --- |\n| [bold]a\\|b[/] | 1.5 [1.0, 2.0] |\n| c | \u2013 |\n")


def test_columns_are_shown_as_the_schema_has_them() -> None:
    """Words, flags, counts, numbers, p-values, intervals and layers, each with its own heading or its name's."""
    kinds = {"task": "text", "stands_out": "flag", "n": "count", "x": "number", "p_holm": "number"}
    ends = {"slope": INTERVAL, "delta": POSTERIOR, "layer": REACHED}
    known = [Schemed(name, "", kind) for name, kind in kinds.items()]
    schema = Table("t", "", [*known, *(Schemed(name, "", ends=own) for name, own in ends.items())])
    row = {"task": "a", "stands_out": True, "n": 3, "x": 0.5, "p_holm": 0.0123, **dict.fromkeys(schema.names[5:], 2.0)}
    frame = pd.DataFrame([row | {"layer_reached": 1.0}])
    words = "task; stands_out; how many, all = n; x .0%; p = p_holm p; slope .1f; delta; layer"
    table = PaperTable("x", "t", "c", "s", frame, (*shown(schema, words),))
    assert [column.heading for column in table.columns] == [
        *("task", "stands out", "how many, all", "x", "p", "slope", "delta", "layer")
    ]
    (cells,) = table.cells()
    assert cells == ["a", "yes", "3", "50%", "0.012", "2.0 [2.0, 2.0]", "2.000 [2.000, 2.000]", "2 [2, 2]"]
    assert [column.number for column in table.columns] == [False, False, *[True] * 6]
    with pytest.raises(KeyError, match="nothing"):
        shown(schema, "task; nothing")


def test_infinite_numbers_are_signs() -> None:
    table = one_column(["a"], Column("k", lambda row: f"{math.inf} [{-math.inf}, {-1e300:.2g}]"))
    assert r"$\infty$ [$-\infty$, $-1\times10^{300}$]" in table.to_latex()
    assert f'<th scope="row">\u221e [{MINUS}\u221e, {MINUS}1\u00d710<sup>300</sup>]</th>' in table.to_html()


def test_names_of_users_change_nothing_but_their_cell() -> None:
    table = one_column(NASTY)
    comments, _, rows = tabular(table.to_latex())
    assert len(rows) == len(NASTY) + 1 and len(comments) == 2
    assert {len(row) for row in rows} == {2}
    assert not any(row[0].lstrip().startswith(("[", "*")) for row in rows)
    assert rows[7][0].strip() == r"a-{}-b \textasciigrave{}c'"  # no dash, no quotation mark
    shown = Parser(table.to_html()).rows[1:]
    assert [row[0][2] for row in shown] == [row[0] for row in table.cells()]
    assert shown[0][0][2] == "<b>" and shown[9][0][2] == "</td>"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_any_name_is_escaped(names: list[str]) -> None:
    table = one_column(names, text(names[0], "name"))
    _, _, rows = tabular(table.to_latex())
    assert len(rows) == len(names) + 1 and {len(row) for row in rows} == {2}
    for row in rows:
        for cell in row:
            assert not re.search(r"[&%$#_{}^~<>\\]", re.sub(r"^\{[*\[]\}|-\{\}", "", bare(cell.strip()))), cell
            unescaped = re.sub(r"\\[{}]", "", cell)
            assert unescaped.count("{") == unescaped.count("}")
    shown = Parser(table.to_html()).rows
    assert [row[0][2] for row in shown[1:]] == [row[0] for row in table.cells()]
    assert shown[0][0][2] == shown[1][0][2]


@settings(max_examples=100, deadline=None)
@given(st.floats(allow_nan=False), st.sampled_from([".3f", ".0%", ".2g", ".4g", ".0f"]))
def test_any_number_is_one_number_in_every_rendering(x: float, form: str) -> None:
    """What LaTeX and HTML show, read back, is what the plain cell says."""
    column = number("x", "x", form)
    table = PaperTable("x", "t", "c", "s", pd.DataFrame({"n": ["a"], "x": [x]}), (text("n", "n"), column))
    plain = table.cells()[0][1]
    latex = tabular(table.to_latex())[2][1][1].strip()
    assert re.fullmatch(r"\$[^$]*\$", latex)
    latex = re.sub(r"\\times10\^\{(-?\d+)\}", r"e\1", latex[1:-1]).replace(r"\infty", "inf").replace(r"\%", "%")
    page = Parser(table.to_html().replace("\u00d710<sup>", "e").replace("</sup>", "")).rows[1][1][2]
    page = page.replace(MINUS, "-").replace("\u221e", "inf")
    for words in (latex, page):
        assert words.endswith("%") == plain.endswith("%")
        assert float(words.rstrip("%")) == float(plain.rstrip("%"))


def test_html_has_headers_for_rows_and_columns_and_scrolls() -> None:
    found = Parser(one_column(["a", "b"]).to_html())
    tag, attributes = found.seen[0]
    assert (tag, attributes["class"], attributes["tabindex"]) == ("div", "scroll", "0")
    heading, *rows = found.rows
    assert [(cell[0], cell[1].get("scope")) for cell in heading] == [("th", "col")] * 2
    for row in rows:
        assert [(cell[0], cell[1].get("scope"), cell[1].get("class")) for cell in row] == [
            ("th", "row", None),
            ("td", None, "num"),
        ]


def test_a_table_without_rows_is_a_table() -> None:
    table = one_column([])
    _, _, rows = tabular(table.to_latex())
    assert len(rows) == 1
    assert len(Parser(table.to_html()).rows) == 1


def test_files_hold_all_of_the_frame_exactly(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": NASTY, "x": np.random.default_rng(0).normal(size=len(NASTY)) * 1e-7})
    table = PaperTable("odd", "t", "c\n\\end", "s", frame, (text("name", "name"),), frame.head(2))
    files = table_files([table])
    assert list(files) == ["odd.csv", "odd.tex"]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    again = pd.read_csv(tmp_path / "odd.csv", dtype=str, keep_default_na=False)
    assert [float(x) for x in again.x] == frame.x.tolist() and again.name.tolist() == NASTY
    comments, _, rows = tabular((tmp_path / "odd.tex").read_text(encoding="utf-8"))
    assert comments == ["% odd, from s", "% c \\end"]
    assert len(rows) == 3


def test_verdicts_join_the_three_files() -> None:
    verdicts = {"past_tense": verdict(), "a & b": verdict(verdict="refused", delta=None, selected=None, survivors=[])}
    table = fit_tables.verdict_table(verdicts, comparison(), CHECKS)
    assert table.cells() == [
        [
            *("past_tense", "rejected", "20.0 [15.0, 25.0]", "18.8", "5.5", "0.46 [0.37, 0.55]"),
            *("0.178 [0.000, 0.211]", "nll_power", "-9.9 (2.1)", "nll_power, pooling"),
        ],
        ["a & b", "refused", *["\u2013"] * 5, "", "\u2013", ""],  # what was fitted is not to be relied on
    ]
    assert table.frame.elpd_diff[0] == -9.94 and table.frame.by_polynomials[0] == pytest.approx(18.76)
    assert table.frame.delta_mean[0] == 0.1777


def test_verdicts_stand_without_any_fit() -> None:
    nothing = dict.fromkeys(("delta", "selected", "departure", "total", "second_half"))
    table = fit_tables.verdict_table({"t": verdict(**nothing)}, pd.DataFrame(), pd.DataFrame())
    assert [cell for cell in table.cells()[0] if cell not in ("", "\u2013")] == ["t", "rejected", "nll_power, pooling"]
    assert fit_tables.comparison_tables({"t": verdict()}, pd.DataFrame(columns=COMPARISON.names)) == []


def test_hypotheses_come_best_first_under_the_headline_alone() -> None:
    own = comparison()
    others = [own.assign(n_min=2), own.assign(readout="rule"), own.assign(task="other")]
    (table,) = fit_tables.comparison_tables({"past_tense": verdict(), "unfitted": verdict()}, pd.concat([*others, own]))
    cells = table.cells()
    assert [row[0] for row in cells] == ["pooling", "freeform (free mean)", "additive"]
    assert [row[5] for row in cells] == ["both", "\u2013", "\u2013"]
    assert cells[1][3] == "\u2013"
    assert table.name == "comparison_past_tense"
    assert (table.frame.n_min == 1).all() and list(table.frame.columns) == COMPARISON.names


def test_other_tables_of_fit() -> None:
    engines = pd.DataFrame(
        {"task": "t", "hypothesis": "additive", "parameter": ["gain", "level"], "shift": [0.01, -0.2], "shift_se": 0.03}
    ).assign(mean_fast=1.0, mean_nuts=1.0, sd_fast=0.1, sd_nuts=0.1, sd_ratio=1.0)
    table = fit_tables.engines_table(engines)
    assert [row[2] for row in table.cells()] == ["level"] and len(table.frame) == 2
    checks = fit_tables.checks_table(CHECKS)
    assert checks.cells() == [
        ["past_tense", "quadratic contrast", "curvature", "-3.002 [-3.215, -2.791]", "5.6e-24", "1.1e-23"],
        ["past_tense", "departure by polynomials", "share", "0.1876 [0.15, 0.22]", "0.011", "0.011"],
    ]
    assert len(checks.frame) == 3
    pooled = {"mu": [0.1, 0, 0.2], "tau": [0.07, 0.02, 0.2], "new_task": [0.1, -0.04, 0.3]}
    pooled |= {"deltas": {"t": [0.17, 0.14, 0.2]}, "alone": {"t": {"mean": 0.18, "sd": 0.016}}}  # type: ignore[dict-item]
    assert fit_tables.pooled_table(pooled).cells()[-1] == ["t", "0.170 [0.140, 0.200]", "0.180", "0.016"]
    refused = fit_tables.pooled_table({"refused": "too few"})
    assert refused.cells() == [] and refused.caption == "too few"


def heads_of_attribute(task: str) -> pd.DataFrame:
    slopes = np.array([0.03, -0.05, 0.01, 0.001])
    table = pd.DataFrame(index=range(5), columns=HEADS.names)
    table["task"], table["kind"] = task, ["head"] * 4 + ["all"]
    table["component"], table["layer"], table["head"] = ["L0H0", "L0H1", "L1H0", "L1H1", "all"], [0, 0, 1, 1, None], 0
    for name, x in triples({"slope": (slopes, slopes - 0.01, slopes + 0.01)}).items():
        table.loc[:3, name] = x
    numbers = [
        name for name in HEADS.names if name not in ("task", "component", "kind", "accumulation", "stands_out", "top")
    ]
    table = table.astype(dict.fromkeys(numbers, float))
    table["share"] = table.slope / 0.1
    table["stands_out"], table["top"] = [True, False, False, False, False], [False, False, False, True, False]
    table["accumulation"] = ["averaging", "none", "none", "none", None]
    return table


def test_heads_are_those_of_the_largest_slopes_and_those_taken_away() -> None:
    clear = {"t": {"delta": {"mean": 0.1, "hdi_low": 0.05, "hdi_high": 0.2}}}
    heads = pd.concat([heads_of_attribute("t"), heads_of_attribute("other")])
    table = attribute_tables.heads_table(heads, clear, "t", most=2)
    assert table.caption.startswith("t: the heads of the largest slopes")
    clear["t"] |= {"token": 0, "token_text": "\u201c a\u201d, \u201c b\u201d"}
    caption = attribute_tables.heads_table(heads, clear, "t").caption
    assert caption.startswith("t, token 0: \u201c a\u201d, \u201c b\u201d: the heads of")
    assert [row[0] for row in table.cells()] == ["L0H1", "L0H0", "L1H1*"]
    assert table.cells()[1][:4] == ["L0H0", "0.0300 [0.0200, 0.0400]", "30% [\u2013, \u2013]", "yes"]
    assert len(table.frame) == 5 and set(table.frame.task) == {"t"}
    unclear = {"t": {"delta": {"mean": 0.1, "hdi_low": -0.05, "hdi_high": 0.2}}}
    headings = [column.heading for column in attribute_tables.heads_table(heads, unclear, "t").columns]
    assert "share" not in headings


def test_ablation_counts_the_placebo_sets_that_lose_as_much() -> None:
    sets = ["none", "top", "placebo 1", "placebo 2", "L0H1"]
    lost = [0, 0.05, 0.06, 0.01, 0.02]
    rows = pd.DataFrame({"task": "t", "value": "mean_over_shots", "set": sets, "n_heads": [0, 2, 2, 2, 1]})
    names = ("lost", "direct", "predicted", "delta")
    rows = rows.assign(
        **triples({name: (np.array(lost), np.array(lost) - 0.01, np.array(lost) + 0.01) for name in names})
    )
    table = attribute_tables.ablation_table(rows, {"t": {"delta_measured": {"mean": 0.1}}})
    (cells,) = table.cells()
    assert cells[:3] == ["t", "mean_over_shots", "2"] and cells[5:7] == ["0.050 [0.040, 0.060]", "50%"]
    assert cells[-2:] == ["1 of 2", "0.035 (0.010 to 0.060)"]
    assert len(table.frame) == 5
    assert attribute_tables.ablation_table(rows.head(0), {}).cells() == []


def rounds() -> pd.DataFrame:
    table = pd.DataFrame({"task": "t", "round": [0, 0, 1, 1], "kind": ["zero", "mean", "mean", "mean"]})
    table["set"], table["n_heads"] = ["ablated", "ablated", "ablated", "placebo 1"], [0, 0, 18, 18]
    table["layers_text"], table["rule_gain"] = [None, None, "layers 19-20", "18 heads"], [4.0, 4.0, 1.0, 2.0]
    table["a_own"] = table["a_own_low"] = table["a_own_high"] = -1.5
    for name in ("transfer_layer", "transfer_layer_kept", "rule_layer", "answer_layer"):
        for end in ("", "_low", "_high"):
            table[name + end] = [21.0, 21.0, math.nan, 20.0]
        table[f"{name}_reached"] = [1.0, 1.0, 0.5, 0.9]
    return table


def test_rounds_say_where_a_point_is_never_reached() -> None:
    cells = patch_tables.rounds_table(rounds()).cells()
    assert [row[1:4] for row in cells] == [
        ["0", "nothing", ""],
        ["1", "layers 19-20", "mean"],
        ["1", "placebo 1", "mean"],
    ]
    assert [row[5] for row in cells] == ["100%", "25%", "50%"]
    assert [row[6] for row in cells] == ["21 [21, 21]", "never", "20 [20, never]"]
    assert "never" in patch_tables.rounds_table(rounds()).to_latex()


def test_halves_that_are_never_gone() -> None:
    halves = pd.DataFrame(
        {"task": "t", "order": ["best first", "random"], "n_heads_all": 270, "left_without_heads": 1.5}
    )
    halves = halves.assign(share=[0.01, math.nan], share_low=[0.005, math.nan], share_high=[0.02, math.nan])
    assert patch_tables.halves_table(halves).cells() == [
        ["t", "best first", "1.0% [0.5%, 2.0%]", "2.7", "270", "1.50"],
        ["t", "random", "never", "\u2013", "270", "1.50"],
    ]


def test_costly_heads_come_first_and_have_the_other_kind() -> None:
    names = ("lost", "taken", "other_heads", "mlps", "norm", "lost_resample")
    heads = pd.DataFrame({"task": "t", "component": [f"L0H{i}" for i in range(3)], "bring": 0.5})
    heads = heads.assign(**triples({name: (np.array([0.1, 0.3, 0.2]), np.zeros(3), np.ones(3)) for name in names}))
    facts = {"t": {"kind": "mean", "other_kind": "resample", "singles_everywhere": False}}
    table = patch_tables.costly_table(heads, facts, "t", most=2)
    assert [row[0] for row in table.cells()] == ["L0H1", "L0H2"]
    assert [c.heading for c in table.columns][-1] == "bring" and "by resample" in [c.heading for c in table.columns]
    assert "at the last position" in table.caption


def test_what_is_shown_of_long_tables() -> None:
    points = np.arange(31)
    own = -np.abs(points - 23.0)
    transfer = pd.DataFrame({"task": "t", "round": 0, "kind": "zero", "set": "ablated", "layer": points})
    three = triples({"own": (own, own - 1, own + 1), "other": (own, own, own)})
    transfer = transfer.assign(**three, own_first=0.5, other_first=0.25)
    both = pd.concat([transfer, transfer.assign(kind="mean"), transfer.assign(round=1, own=9.0)], ignore_index=True)
    table = patch_tables.transfer_table(both)
    assert [row[1] for row in table.cells()] == ["0", "4", "8", "12", "16", "20", "23", "24", "28"]
    assert len(table.frame) == 93
    redundancy = pd.DataFrame({"task": "t", "order": ["best first", "random 1"], "n_heads": 2, "share": 0.01})
    redundancy = redundancy.assign(log_odds=-1.0, log_odds_low=-2.0, log_odds_high=0.0)
    assert patch_tables.redundancy_table(redundancy).cells() == [["t", "2", "1.0%", "-1.00 [-2.00, 0.00]"]]
    mlps = pd.DataFrame({"task": "t", "place": ["answers"] * 4 + ["last"], "readout": "complement", "kind": "mean"})
    mlps = mlps.assign(layer=range(5), lost=[1.0, 4, 3, 2, 0.5], lost_low=0.0, lost_high=5.0)
    assert [row[3] for row in patch_tables.mlps_table(mlps).cells()] == ["1", "2", "3", "4"]


def test_steps_stand_in_order_with_their_verdicts() -> None:
    steps = pd.DataFrame(
        {"task": ["b", "b", "a"], "step": [3, 1, 2], "verdict": "supported", "what": "w", "kind": "mean"}
    )
    steps = steps.assign(**triples({"share": (1.005, 0.9, 1.1), "beyond": (math.nan,) * 3}))
    cells = patch_tables.steps_table(steps).cells()
    assert [row[:2] for row in cells] == [["b", "1"], ["b", "3"], ["a", "2"]]
    assert cells[0][-2:] == ["100% [90%, 110%]", "\u2013"]


def test_calibration_shouts_where_a_bound_is_broken() -> None:
    outcomes = pd.DataFrame({"what": ["a", "b"], "value": [1.23738e-94, 1], "bound": "below 1", "holds": [True, False]})
    assert calibrate_tables.calibration_table(outcomes).cells() == [
        ["a", "1.24e-94", "below 1", "yes"],
        ["b", "1", "below 1", "NO"],
    ]


def test_backups_and_repair_and_sensitivity() -> None:
    names = ("effect_before", "effect_after", "growth", "growth_placebo")
    backups = pd.DataFrame(
        {
            "task": "t",
            "round": 1,
            "component": "L1H2",
            "backup": [True, False],
            "grows": [True, False],
            "mode": "active",
        }
    )
    backups = backups.assign(p_holm=[0.0011, 0.5], **triples({name: (0.1, -0.2, 0.3) for name in names}))
    cells = patch_tables.backups_table(backups).cells()
    assert [row[3] for row in cells] == ["active", "\u2013"] and cells[0][-1] == "0.0011"
    assert patch_tables.backups_table(backups.head(0)).cells() == []
    repair = pd.DataFrame({"task": ["t"], "value": ["mean"]})
    parts = ("predicted", "other_heads", "mlps", "norm", "lost")
    repair = repair.assign(**triples({name: (0.1, -0.2, 0.3) for name in parts}))
    facts = {"t": {"token": 1, "token_text": "\u201c5\u201d, \u2026"}}
    assert "Of the answers: t, token 1: \u201c5\u201d, \u2026." in attribute_tables.repair_table(repair, facts).caption
    assert attribute_tables.repair_table(repair, {}).cells() == [["t", "mean", *["0.100 [-0.200, 0.300]"] * 5]]
    from bayes_icl.fit.outputs import sensitivity_table

    verdicts = {"t": verdict(noise="normal", others=[])}
    cells = fit_tables.sensitivity_table(sensitivity_table(verdicts)).cells()
    assert cells == [
        ["t", "complement", "1", "normal", "rejected", "nll_power", "0.178 [0.000, 0.211]", "\u2013", "yes"]
    ]


COMMITTED = Path(__file__).parents[2] / "figures" / "calibration"


def test_committed_outcomes_become_a_table() -> None:
    frame = pd.read_csv(COMMITTED / "outcomes.csv")
    table = calibrate_tables.calibration_table(frame)
    _, _, rows = tabular(table.to_latex())
    assert len(rows) == len(frame) + 1
    assert pd.read_csv(io.StringIO(table.frame.to_csv(index=False))).equals(frame)
    assert json.loads(frame.to_json()) and len(Parser(table.to_html()).rows) == len(frame) + 1


@pytest.mark.parametrize("task", ["<b>", "a & b", "x/y"])
def test_names_of_files_are_those_of_the_figures(task: str, tmp_path: Path) -> None:
    """A task whose name no file system takes still has its table."""
    from bayes_icl.core.files import file_name

    (table,) = fit_tables.comparison_tables({task: verdict()}, comparison(task))
    assert list(table_files([table])) == [f"comparison_{file_name(task)}{end}" for end in (".csv", ".tex")]
