"""Figures: made without pyplot, nothing cut off, units and conditions named."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import warnings
from typing import Any

import arviz as az
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from figure_checks import cut_off, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from simulate import made_fit, power_law, simulate_curves

from bayes_icl.curves import Curves
from bayes_icl.fit import figures as fit_figures
from bayes_icl.fit.adequacy_figures import noise_figure, pit_figure, plot_pits, prior_predictive_figure
from bayes_icl.fit.outputs import comparison_table
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.loo_pit import STATISTICS, uniform_band
from bayes_icl.writing import style

TASKS = ("past_tense", "times_ten")
NAMES = tuple(HYPOTHESES)


@pytest.fixture(scope="module")
def curves() -> dict[str, Curves]:
    return {
        task: simulate_curves(
            12, 16, n_min=1, task=task, readout="complement", f=power_law(0.3), intercept_sd=2, seed=i
        )
        for i, task in enumerate(TASKS)
    }


@pytest.fixture(scope="module")
def fits(curves: dict[str, Curves]) -> dict[str, dict[str, az.InferenceData]]:
    return {task: {name: made_fit(c, name)[1] for name in NAMES} for task, c in curves.items()}


@pytest.fixture(scope="module")
def table(curves: dict[str, Curves]) -> pd.DataFrame:
    return comparison_table(
        [made_fit(c, n, elpd=-300 - 40 * i)[0] for c in curves.values() for i, n in enumerate(NAMES)]
    )


def verdicts_of(kind: str = "no_update") -> dict[str, dict]:
    """The longest words that a verdict may have."""
    return {t: {"verdict": kind, "selected": "nll_logistic", "readout": "complement", "n_min": 1} for t in TASKS}


SETTINGS = [
    ("complement", 1, "normal"),
    ("complement", 0, "normal"),
    ("complement", 2, "normal"),
    ("rule", 1, "normal"),
    ("complement", 1, "student"),
]
KINDS = ("supported", "supported_under_ceiling", "rejected", "no_update", "undecided", "refused")


def sensitivity_of(tasks: tuple[str, ...] = TASKS) -> pd.DataFrame:
    """As sensitivity.csv is read: every verdict in it, and the longest name of a law."""
    rows = [
        dict(zip(("readout", "n_min", "noise"), setting))
        | {"task": task, "verdict": (kind := KINDS[(i + j) % 6]), "headline": j == 0}
        | {"selected": None if kind == "refused" else "nll_logistic"}
        for i, task in enumerate(tasks)
        for j, setting in enumerate(SETTINGS)
    ]
    return pd.DataFrame(rows)


def pooled_of(fits: dict[str, dict[str, az.InferenceData]]) -> dict[str, Any]:
    """As in pooled.json."""
    means = {task: float(own["additive"]["posterior"]["delta"].mean()) for task, own in fits.items()}
    mu = float(np.mean(list(means.values())))
    deltas = {task: [0.9 * mean + 0.1 * mu, mean - 0.2, mean + 0.2] for task, mean in means.items()}
    return {"mu": [mu, mu - 1, mu + 1], "tau": [0.5, 0, 1], "new_task": [mu, mu - 2, mu + 2], "deltas": deltas}


def pit_of(n: int = 30) -> pd.DataFrame:
    """As pit.csv is read: values that lie evenly, but for a contrast that is too small."""
    evenly = (np.arange(n) + 0.5) / n
    rows = [
        pd.DataFrame({"pit": evenly**3 if statistic == "contrast" else evenly, "statistic": statistic}).assign(
            task=task, hypothesis=law, readout="complement", n_min=1
        )
        for task, law, statistic in itertools.product(TASKS, ("additive", "nll_logistic"), STATISTICS)
    ]
    return pd.concat(rows)


def noise_of() -> pd.DataFrame:
    """As noise.csv is read."""
    numbers = {"sd": 1.0, "sd_low": 0.8, "sd_high": 1.3, "expected": 1.1, "expected_low": 1.0, "expected_high": 1.2}
    own = pd.DataFrame({"shot": range(1, 17)} | numbers).assign(readout="complement", n_min=1)
    return pd.concat([own.assign(task=task) for task in TASKS])


def prior_of(curves: Curves) -> az.InferenceData:
    """A fit of which curves from the priors are read."""
    lines = np.random.default_rng(0).normal(size=(1, 50, 1)) * (curves.shots - 8)
    dims = {name: ["shot"] for name in ("log_odds", "mean_log_odds")}
    return az.from_dict(prior_predictive={"log_odds": lines + 1, "mean_log_odds": lines}, dims=dims)


FIGURES = ["curves", "updates", "comparison", "delta", "pooled", "sensitivity", "pit", "noise", "prior"]
WITH_UNITS = ["curves", "updates", "comparison", "delta", "pooled"]


@pytest.fixture
def figures(
    curves: dict[str, Curves], fits: dict[str, dict[str, az.InferenceData]], table: pd.DataFrame
) -> dict[str, Figure]:
    return {
        "curves": fit_figures.curves_figure(curves["past_tense"], fits["past_tense"]),
        "updates": fit_figures.updates_figure({t: (curves[t], fits[t]) for t in TASKS}, verdicts_of()),
        "comparison": fit_figures.comparison_figure(table, list(curves.values())),
        "delta": fit_figures.delta_figure({t: fits[t]["additive"] for t in TASKS}, verdicts_of()),
        "pooled": fit_figures.delta_figure({t: fits[t]["additive"] for t in TASKS}, verdicts_of(), pooled_of(fits)),
        "sensitivity": fit_figures.sensitivity_figure(sensitivity_of()),
        "pit": pit_figure(pit_of()),
        "noise": noise_figure(noise_of()),
        "prior": prior_predictive_figure(
            {task: (own, {"additive": prior_of(own), "nll_logistic": prior_of(own)}) for task, own in curves.items()}
        ),
    }


# --------------------------------------------------------------------------------------------- whole figures


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off(figures: dict[str, Figure], name: str) -> None:
    figure = figures[name]
    assert not cut_off(figure)
    # The control: the same figure with a label that cannot fit.
    figure.axes[0].set_title("far too long for a column " * 6, loc="left")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no layout has room for it
        assert cut_off(figure)


@pytest.mark.parametrize("verdict", KINDS)
def test_no_verdict_is_cut_off(
    curves: dict[str, Curves], fits: dict[str, dict[str, az.InferenceData]], verdict: str
) -> None:
    figure = fit_figures.updates_figure({t: (curves[t], fits[t]) for t in TASKS}, verdicts_of(verdict))
    assert not cut_off(figure)
    assert sum(verdict.replace("_", " ") in t.get_text() for t in texts(figure)) == 2
    assert not cut_off(fit_figures.delta_figure({t: fits[t]["additive"] for t in TASKS}, verdicts_of(verdict)))


@pytest.mark.parametrize("name", WITH_UNITS)
def test_figures_name_their_unit_readout_and_n_min(figures: dict[str, Figure], name: str) -> None:
    words = " ".join(t.get_text() for t in texts(figures[name]))
    assert "nats" in words
    assert "complement" in words
    assert re.search(r"n\s*(≥|>=)\s*1\b", words), words
    assert figures[name].get_figwidth() == pytest.approx(style.COLUMN)


def test_titles_say_another_readout_and_n_min(curves: dict[str, Curves], table: pd.DataFrame) -> None:
    """The control of the test above: the words come from the data."""
    own = curves["past_tense"]._replace(readout="rule").since(2)
    words = " ".join(
        t.get_text() for t in texts(fit_figures.curves_figure(own, {"additive": made_fit(own, "additive")[1]}))
    )
    assert "rule" in words and "≥ 2" in words and "complement" not in words


@pytest.mark.parametrize("name", WITH_UNITS)
def test_one_task_and_few_hypotheses_are_enough(
    curves: dict[str, Curves], fits: dict[str, dict[str, az.InferenceData]], table: pd.DataFrame, name: str
) -> None:
    task, three = TASKS[0], ("constant", "additive", "power")
    few = {n: fits[task][n] for n in three}
    made = {
        "curves": lambda: fit_figures.curves_figure(curves[task], few),
        "updates": lambda: fit_figures.updates_figure({task: (curves[task], few)}, verdicts_of()),
        "comparison": lambda: fit_figures.comparison_figure(table[table.hypothesis.isin(three)], [curves[task]]),
        "delta": lambda: fit_figures.delta_figure({task: few["additive"]}, verdicts_of()),
        "pooled": lambda: fit_figures.delta_figure({task: few["additive"]}, verdicts_of(), pooled_of(fits)),
    }
    assert not cut_off(made[name]())


def test_no_global_state_of_matplotlib_is_touched(
    curves: dict[str, Curves], fits: dict[str, dict[str, az.InferenceData]], table: pd.DataFrame
) -> None:
    import matplotlib.pyplot as plt

    before, size = dict(mpl.rcParams), mpl.rcParams["font.size"]
    figure = fit_figures.curves_figure(curves["past_tense"], fits["past_tense"])
    fit_figures.delta_figure({t: fits[t]["additive"] for t in TASKS}, verdicts_of())
    fit_figures.comparison_figure(table, list(curves.values()))
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before
    assert size != 8  # the control: the figures did have settings of their own
    assert figure.axes[0].title.get_fontsize() == 8


def test_no_name_is_mathematics_or_latex(
    curves: dict[str, Curves], fits: dict[str, dict[str, az.InferenceData]], table: pd.DataFrame
) -> None:
    """Whatever the user's own settings of matplotlib."""
    name = r"a$\frac$_%^{x}\input{y}"
    named, own = curves["past_tense"]._replace(task=name), fits["past_tense"]
    verdicts = {name: verdicts_of()["past_tense"]}
    with mpl.rc_context({"text.usetex": True}):
        assert Text().get_usetex() and Text().get_parse_math()  # the control
        made = [
            fit_figures.curves_figure(named, own),
            fit_figures.updates_figure({name: (named, own)}, verdicts),
            fit_figures.comparison_figure(table.assign(task=name), [named]),
            fit_figures.delta_figure({name: own["additive"]}, verdicts),
            fit_figures.sensitivity_figure(sensitivity_of((name,))),
        ]
    for figure in made:
        found = [text for text in texts(figure) if name in text.get_text()]
        assert found and not any(text.get_usetex() or text.get_parse_math() for text in found)


def test_every_hypothesis_has_a_panel_and_a_colour_of_its_own(figures: dict[str, Figure]) -> None:
    titles = [ax.get_title() for ax in figures["curves"].axes if ax.axison]
    assert titles == list(NAMES)
    assert len({ax.title.get_color() for ax in figures["curves"].axes if ax.axison}) == len(NAMES)


def luminance(colour: tuple[float, float, float]) -> float:
    """Of WCAG 2: 1 is white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_colours_are_told_apart_and_legible_on_white() -> None:
    colours = {name: style.colour_of(name) for name in NAMES}
    for name, colour in colours.items():
        assert 1.05 / (luminance(colour) + 0.05) > 2.2, name
        for other in list(NAMES)[: list(NAMES).index(name)]:
            assert np.linalg.norm(np.subtract(colour, colours[other])) > 0.18, (name, other)
    # The controls: the yellow and the pink of the palette, which no hypothesis has.
    for pale in ((0.925, 0.882, 0.2), (0.984, 0.686, 0.894)):
        assert 1.05 / (luminance(pale) + 0.05) < 2.2


def test_a_users_hypothesis_moves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: style.colour_of(name) for name in NAMES}
    for i in range(3):
        theirs = dataclasses.replace(HYPOTHESES["power"], name=f"theirs_{i}", curve=lambda xp, n, a: n)
        monkeypatch.setitem(HYPOTHESES, theirs.name, theirs)
    after = {name: style.colour_of(name) for name in HYPOTHESES}
    assert {name: after[name] for name in NAMES} == before
    assert len(set(after.values())) == len(NAMES) + 3


def test_a_law_that_is_not_named_and_of_many_parameters_gets_no_panel() -> None:
    shown = fit_figures.shown_hypotheses({"selected": None})
    assert {"constant", "additive", "power", "freeform"} <= set(shown)
    assert not {"lapse", "nll_power", "scaling_law"} & set(shown)
    assert set(fit_figures.shown_hypotheses({"selected": "nll_power"})) - set(shown) == {"nll_power"}
    assert fit_figures.shown_hypotheses({"selected": "power"}) == shown


@pytest.mark.parametrize("number", [1, 2, 7, 8])
def test_the_lowest_panel_of_each_column_has_its_numbers(
    curves: dict[str, Curves], fits: dict[str, dict[str, az.InferenceData]], number: int
) -> None:
    task = TASKS[0]
    figure = fit_figures.curves_figure(curves[task], dict(list(fits[task].items())[:number]))
    FigureCanvasAgg(figure).draw()
    panels = [ax for ax in figure.axes if ax.axison]
    with_numbers = [any(t.get_text() and t.get_visible() for t in ax.get_xticklabels()) for ax in panels]
    assert with_numbers == [False] * max(number - 2, 0) + [True] * min(number, 2)


def test_names_of_hypotheses_do_not_overlap(figures: dict[str, Figure]) -> None:
    figure = figures["comparison"]
    FigureCanvasAgg(figure).draw()
    for ax in figure.axes:
        boxes = sorted((t.get_window_extent() for t in ax.get_yticklabels()), key=lambda box: box.y0)
        assert len(boxes) == len(NAMES)
        # Of the boxes, which have room for ascenders and descenders, a fifth at most.
        assert all(low.y1 - high.y0 < 0.2 * low.height for low, high in itertools.pairwise(boxes))


# --------------------------------------------------------------------------------------------- sensitivity, pooling


def cells(figure: Figure) -> dict[tuple[float, float], str]:
    return {t.get_position(): t.get_text() for t in figure.axes[0].texts}


def test_every_setting_has_a_cell_with_its_verdict() -> None:
    table = sensitivity_of()
    figure = fit_figures.sensitivity_figure(table)
    ax = figure.axes[0]
    columns = [t.get_text() for t in ax.get_xticklabels()]
    assert columns == [
        "complement\nn ≥ 1",
        "complement\nn ≥ 0",
        "complement\nn ≥ 2",
        "rule\nn ≥ 1",
        "student\nnoise",
    ]
    assert [t.get_fontweight() for t in ax.get_xticklabels()] == ["bold"] + ["normal"] * 4
    assert [t.get_text() for t in ax.get_yticklabels()] == list(TASKS[::-1])
    for i, task in enumerate(TASKS):
        for j in range(5):
            row = table[table.task == task].iloc[j]
            words = fit_figures.in_lines(row.verdict)
            assert cells(figure)[j, 1 - i] == f"{words}\n" + ("" if pd.isna(row.selected) else row.selected)
    faces = {kind: set() for kind in KINDS}
    for patch, row in zip(ax.patches, table.itertuples()):
        faces[row.verdict].add(patch.get_facecolor())
    assert [len(own) for own in faces.values()] == [1] * 6
    assert len(set.union(*faces.values())) == 6
    assert figure.get_figwidth() == pytest.approx(2 * style.COLUMN)


def test_the_words_of_a_cell_stay_in_it() -> None:
    figure = fit_figures.sensitivity_figure(sensitivity_of(("past_tense", "a_task_of_a_longer_name_than_most")))
    FigureCanvasAgg(figure).draw()
    ax = figure.axes[0]
    for text, patch in zip(ax.texts, ax.patches):
        box, cell = text.get_window_extent(), patch.get_window_extent()
        assert cell.x0 <= box.x0 and box.x1 <= cell.x1 and cell.y0 <= box.y0 and box.y1 <= cell.y1
    assert not cut_off(figure)


def test_a_task_without_a_setting_has_a_gap_and_another_main_noise_is_named() -> None:
    table = sensitivity_of()
    figure = fit_figures.sensitivity_figure(table[(table.task == TASKS[0]) | (table.readout == "complement")])
    assert (3, 1) in cells(figure) and (3, 0) not in cells(figure)
    swapped = table.assign(noise=table.noise.map({"normal": "student", "student": "normal"}))
    assert "normal\nnoise" in [t.get_text() for t in fit_figures.sensitivity_figure(swapped).axes[0].get_xticklabels()]


def test_pooled_deltas_are_drawn_beside_each_tasks_own(
    figures: dict[str, Figure], fits: dict[str, dict[str, az.InferenceData]]
) -> None:
    pooled = pooled_of(fits)
    lines = [np.asarray(line.get_xdata(), float).ravel() for line in figures["pooled"].axes[0].lines]

    def drawn(*x: float) -> bool:
        return any(len(line) == len(x) and np.allclose(line, x) for line in lines)

    for mean, low, high in (*pooled["deltas"].values(), pooled["mu"]):
        assert drawn(mean) and drawn(low, high)
    assert drawn(*pooled["new_task"][1:])
    assert "mean of 2 tasks" in " ".join(t.get_text() for t in texts(figures["pooled"]))
    words = " ".join(t.get_text() for t in texts(figures["delta"]))
    assert "mean of" not in words and "pooled" not in words


def test_a_task_that_was_not_pooled_has_no_diamond(fits: dict[str, dict[str, az.InferenceData]]) -> None:
    def diamonds(pooled: dict[str, Any]) -> int:
        figure = fit_figures.delta_figure({t: fits[t]["additive"] for t in TASKS}, verdicts_of(), pooled)
        return sum(line.get_marker() == "D" for line in figure.axes[0].lines)

    pooled = pooled_of(fits)
    assert diamonds(pooled) == 3  # the control: two tasks and their mean
    del pooled["deltas"][TASKS[0]]
    assert diamonds(pooled) == 2


def test_pits_are_drawn_as_their_distance_from_uniform() -> None:
    own = pit_of().query("task == 'past_tense' and hypothesis == 'additive'")
    ax = plot_pits(own, Figure().subplots())
    heights = [np.asarray(line.get_ydata(), float) for line in ax.lines if len(line.get_xdata()) > 2]
    assert len(heights) == 3
    # Even values are nowhere further than one of 30; their cubes 0.38 at most, outside the band.
    largest = sorted(np.abs(y).max() for y in heights)
    assert largest[1] < 0.04 and largest[2] == pytest.approx(2 / 3**1.5, abs=0.04)
    low, high = uniform_band(30)[1:]
    assert (high - low).max() < 2 * largest[2]


def test_new_figures_name_readout_n_min_and_unit(figures: dict[str, Figure]) -> None:
    for name, unit in (("pit", "PIT"), ("noise", "nats"), ("prior", "nats")):
        words = " ".join(t.get_text() for t in texts(figures[name]))
        assert unit in words and "complement, n \u2265 1" in words
        assert figures[name].get_figwidth() == pytest.approx(2 * style.COLUMN)


# --------------------------------------------------------------------------------------------- single axes


def test_functions_return_the_axes_they_were_given(
    curves: dict[str, Curves], fits: dict[str, dict[str, az.InferenceData]], table: pd.DataFrame
) -> None:
    task = TASKS[0]
    axes = Figure().subplots(2, 2).flat
    rows = table[table.task == task]
    drawn = [
        fit_figures.plot_curves(curves[task], fits[task]["power"], axes[0], name="power"),
        fit_figures.plot_updates(curves[task], fits[task], axes[1], named="power"),
        fit_figures.plot_delta(fits[task]["additive"], axes[2], at=0),
        fit_figures.plot_comparison(rows, axes[3]),
    ]
    assert all(one is given for one, given in zip(drawn, axes))
    assert all(ax.has_data() for ax in drawn)


def test_what_is_drawn_are_the_numbers(
    curves: dict[str, Curves], fits: dict[str, dict[str, az.InferenceData]], table: pd.DataFrame
) -> None:
    task = TASKS[0]
    own, additive = curves[task], fits[task]["additive"]
    ax, ay, az_ = Figure().subplots(3)
    fit_figures.plot_curves(own, additive, ax, name="additive")
    lines = [np.asarray(line.get_ydata(), float) for line in ax.lines]
    expected = additive["posterior_predictive"]["mean_log_odds"].mean(("chain", "draw")).values
    assert any(np.allclose(line, own.log_odds.mean(0)) for line in lines)
    assert any(np.allclose(line, expected) for line in lines)
    assert sum(any(np.allclose(line, s) for s in own.log_odds) for line in lines) == len(own.log_odds)
    fit_figures.plot_updates(own, fits[task], ay, named="power")
    means = np.diff(own.log_odds, axis=1).mean(0)
    assert any(len(y := np.asarray(li.get_ydata(), float)) == 15 and np.allclose(y, means) for li in ay.lines)
    delta = float(additive["posterior"]["delta"].mean())
    assert any(math.isclose(float(np.asarray(li.get_ydata())[0]), delta) for li in ay.lines)
    rows = table[table.task == task]
    fit_figures.plot_comparison(rows, az_)
    drawn = [float(np.asarray(li.get_xdata())[0]) for li in az_.lines]
    for difference in rows.elpd_diff:
        assert any(math.isclose(x, difference, abs_tol=1e-9) for x in drawn)
    labels = [t.get_text() for t in az_.get_yticklabels()]
    assert labels[-1].startswith(str(rows.sort_values("elpd_diff").hypothesis.iloc[-1]))  # the best on top
    assert "freeform (free mean)" in labels
