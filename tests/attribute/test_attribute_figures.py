"""Figures of heads: nothing cut off, zero in the middle of the colours, the heads that stand out named."""

from __future__ import annotations

import io
import itertools
import re
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from figure_checks import cut_off, overlapping, words_of
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bayes_icl.attribute import figures as attribute_figures
from bayes_icl.writing.style import COLUMN

TASKS = ("past_tense", "times_ten", "random_labels")
DELTAS = {"past_tense": 0.12, "times_ten": 0.19, "random_labels": -0.002}
TOKENS = {
    "past_tense": "token 0: \u201c answered\u201d, \u201c attended\u201d, \u2026",
    "times_ten": "token 1: \u201c4\u201d, \u201c1\u201d, \u201c7\u201d, \u2026",
    "random_labels": "token 0: \u201c fruit\u201d, \u201c tool\u201d",
}


def made_heads(
    tasks: tuple[str, ...] = TASKS, layers: int = 30, n_heads: int = 9, *, flat: bool = False
) -> pd.DataFrame:
    """As heads.csv; slopes of a task add up to its delta. With `flat`, no head stands out."""
    rng = np.random.default_rng([layers, n_heads])
    rows = []
    for task in tasks:
        delta, number = DELTAS[task], layers * n_heads
        slopes = rng.normal(0, 0.0006, number)
        strong = rng.choice(np.arange(number // 2, number), 0 if flat else min(10, number // 3), replace=False)
        slopes[strong] += rng.choice([1, 1, 1, -0.5], len(strong)) * rng.uniform(0.05, 0.2, len(strong)) * abs(delta)
        mlps = rng.normal(0.01, 0.006, layers) * delta / 0.1
        parts = [("head", f"L{i // n_heads}H{i % n_heads}", i // n_heads, i % n_heads, s) for i, s in enumerate(slopes)]
        parts += [("mlp", f"MLP {i}", i, np.nan, s) for i, s in enumerate(mlps)]
        left = delta - slopes.sum() - mlps.sum()
        parts += [("rest", "embedding", np.nan, np.nan, 0.1 * left), ("rest", "bias", np.nan, np.nan, 0.0)]
        parts += [("rest", "entropy", np.nan, np.nan, 0.9 * left)]
        for i, (kind, component, layer, head, slope) in enumerate(parts):
            own = kind == "head"
            row = {"task": task, "component": component, "kind": kind, "layer": layer, "head": head, "n_min": 1}
            row |= {"slope": slope, "slope_low": slope - 0.004, "slope_high": slope + 0.004}
            row |= {"share": slope / delta}
            limits = sorted([(slope - 0.004) / delta, (slope + 0.004) / delta])
            row |= dict(zip(("share_low", "share_high"), limits))
            row |= {"stands_out": bool(i in strong) if own else np.nan}
            row |= {"delta": slope * 1.1, "delta_low": slope - 0.005, "delta_high": slope + 0.006} if own else {}
            row |= {"accumulation": str(rng.choice(["linear", "averaging", "undecided"])) if own else ""}
            row |= {
                "c": 5.0 if own and row["accumulation"] != "linear" else np.nan,
                "attention": 0.3 if own else np.nan,
            }
            row |= {"top": bool(i in strong[:6]) if own else np.nan}
            if own:  # every other head adds in total what it writes, the others nothing
                total = row["share"] * (1 - i % 2)
                row |= {"total_share": total, "total_share_low": total - 0.02, "total_share_high": total + 0.02}
            row |= {"total_stands_out": bool(i in strong and i % 2 == 0) if own else np.nan}
            rows.append(row)
    return pd.DataFrame(rows)


def made_facts(tasks: tuple[str, ...] = TASKS, **deltas: tuple[float, float, float]) -> dict[str, dict[str, Any]]:
    """As the JSON of `attribute`; deltas are 0.02 wide at each side if none is given."""
    facts = {}
    for task in tasks:
        mean, low, high = deltas.get(task, (DELTAS[task], DELTAS[task] - 0.02, DELTAS[task] + 0.02))
        token, text = TOKENS[task].removeprefix("token ").split(": ", 1)
        facts[task] = {"readout": "complement", "n_min": 1, "token": int(token), "token_text": text}
        facts[task]["delta"] = {"mean": mean, "hdi_low": low, "hdi_high": high}
        thirds = {"mean": mean / 3, "low": mean / 3 - 0.01, "high": mean / 3 + 0.01}
        facts[task] |= {f"slope_{part}": thirds for part in ("head", "mlp", "rest")}
        facts[task]["line"] = {f"slope_{part}": thirds for part in ("head", "mlp", "other")}
        facts[task] |= {"share_head": 0.4, "total": {"share_head": {"mean": 0.9, "low": 0.8, "high": 1.0}}}
    return facts


def made_effects(table: pd.DataFrame, n_seqs: int = 32, n_shots: int = 32) -> xr.Dataset:
    """As data/effects/demo.nc, but for the splits by role: averaging heads take from all examples alike."""
    rng = np.random.default_rng(3)
    heads = table[table.kind == "head"]
    tasks = list(dict.fromkeys(table.task))
    layers, n_heads = int(heads.layer.max()) + 1, int(heads["head"].max()) + 1
    n = np.arange(n_shots + 1.0)
    shape = (len(tasks), n_seqs, len(n), layers, n_heads)
    slopes = heads.slope.to_numpy().reshape(len(tasks), 1, 1, layers, n_heads)
    at = n[:, None, None]
    c = heads.c.to_numpy().reshape(len(tasks), 1, 1, layers, n_heads)
    curve = np.where(np.isfinite(c), slopes * (n_shots + 5) * at / (at + 5), slopes * at)
    gain = rng.normal(1, 0.3, (len(tasks), n_seqs, 1, layers, n_heads))
    shown = (curve * gain).astype("f4")
    sink = rng.normal(0, 0.02, shape).astype("f4") + 0.1
    query = rng.normal(0, 0.03, shape).astype("f4") - 0.11
    by_source = np.full((*shape, n_shots + 2), np.nan, "f4")
    by_source[..., 0], by_source[..., -1] = sink, query
    for k in range(1, n_shots + 1):
        noise = rng.standard_normal((len(tasks), n_seqs, layers, n_heads, k), dtype="f4") * 0.01
        by_source[:, :, k, ..., 1 : k + 1] = (shown[:, :, k] / k)[..., None] + noise
    effect = np.nansum(by_source, -1)
    mlp = (rng.normal(0.1, 0.05, (len(tasks), n_seqs, len(n), layers)) + 0.005 * at[:, :, 0]).astype("f4")
    embedding = np.full(shape[:3], 0.3, "f4")
    entropy = rng.normal(7, 0.2, shape[:3]).astype("f4") - 0.05 * n.astype("f4")
    rest = embedding - entropy
    log_odds = (effect.sum((-2, -1)) + mlp.sum(-1) + rest).astype(float)
    dims = ("task", "seq", "shot", "layer", "head")
    source = ["sink", *(str(i) for i in range(1, n_shots + 1)), "query"]
    return xr.Dataset(
        {
            "effect": (dims, effect),
            "effect_by_source": ((*dims, "source"), by_source),
            "attention": (
                dims,
                np.broadcast_to(0.8 * at / (at + 5), shape).astype("f4") * gain.astype("f4").clip(0, 1.2),
            ),
            "mlp": (dims[:4], mlp),
            "embedding": (dims[:3], embedding),
            "entropy": (dims[:3], entropy),
            "rest": (dims[:3], rest),
            "log_odds": (dims[:3], log_odds),
        },
        coords={
            "task": tasks,
            "seq": np.arange(n_seqs),
            "shot": np.arange(n_shots + 1),
            "layer": np.arange(layers),
            "head": np.arange(n_heads),
            "source": source,
        },
        attrs={"method": "direct", "readout": "complement"},
    )


def made_ablation(table: pd.DataFrame, placebos: int = 20) -> pd.DataFrame:
    """As ablation.csv: the top heads lose less than predicted, single heads at that, placebo sets little."""
    rng = np.random.default_rng(4)
    rows = []

    def add(task: str, name: str, heads: pd.DataFrame, lost: float, half: float) -> None:
        row = {"task": task, "set": name, "heads": " ".join(heads.component), "n_heads": len(heads), "n_seqs": 32}
        for prefix in ("lost", "lost_curve"):
            row |= {prefix: lost, f"{prefix}_low": lost - half, f"{prefix}_high": lost + half}
        kept = DELTAS[task] - lost
        row |= {"delta": kept, "delta_low": kept - half, "delta_high": kept + half, "norm": 10.0}
        rows.append(row | {"predicted": heads.slope.sum()})

    for task, own in table[table.kind == "head"].groupby("task", sort=False):
        top = own[own.top.astype(str) == "True"]
        add(task, "top", top, 0.6 * top.slope.sum(), 0.1 * abs(DELTAS[task]) + 0.005)
        for i in range(placebos):
            add(task, f"placebo {i + 1}", own.sample(max(len(top), 1), random_state=i), rng.normal(0, 0.008), 0.01)
        for i in range(len(top)):
            head = top.iloc[[i]]
            add(task, head.component.iloc[0], head, 0.5 * head.slope.sum() + rng.normal(0, 0.002), 0.005)
    return pd.DataFrame(rows)


def made_repair(ablation: pd.DataFrame) -> pd.DataFrame:
    """As repair.csv; on the first task all others repair the loss, on the next MLPs lose too."""
    rows = []
    for i, own in enumerate(ablation[ablation["set"] == "top"].itertuples()):
        p = own.predicted
        parts = {"other_heads": 0.2 * p, "mlps": (0.15 if i % 2 == 0 else -0.2) * p, "norm": 0.07 * p}
        row = {"predicted": p, **parts, "lost": p - sum(parts.values())}
        limits = {f"{k}_{side}": v + s * 0.006 for k, v in row.items() for side, s in (("low", -1), ("high", 1))}
        rows.append({"task": own.task} | row | limits)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return made_heads()


@pytest.fixture(scope="module")
def effects(table: pd.DataFrame) -> xr.Dataset:
    return made_effects(table)


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    return made_heads(("times_ten",), 2, 6)


@pytest.fixture(scope="module")
def small_effects(small: pd.DataFrame) -> xr.Dataset:
    return made_effects(small, 8, 8)


def all_figures(table: pd.DataFrame, effects: xr.Dataset) -> dict[str, Figure]:
    ablation, task = made_ablation(table), table.task.iloc[0]
    facts = made_facts(tuple(dict.fromkeys(table.task)))
    return {
        "map": attribute_figures.share_map_figure(table, facts),
        "curves": attribute_figures.effect_curves_figure(effects, table, facts, task),
        "sources": attribute_figures.source_map_figure(effects, table, facts, task),
        "ablation": attribute_figures.ablation_figure(ablation, facts, "mean_over_shots"),
        "conventions": attribute_figures.conventions_figure(facts),
        "cumulative": attribute_figures.cumulative_figure(table, facts),
        "total": attribute_figures.total_figure(table, facts),
        "repair": attribute_figures.repair_figure(made_repair(ablation), facts, "mean_over_shots"),
    }


@pytest.fixture(scope="module")
def figures(table: pd.DataFrame, effects: xr.Dataset) -> dict[str, Figure]:
    return all_figures(table, effects)


@pytest.fixture(scope="module")
def small_figures(small: pd.DataFrame, small_effects: xr.Dataset) -> dict[str, Figure]:
    return all_figures(small, small_effects)


def meshes(figure: Figure) -> list[QuadMesh]:
    return [
        mesh for ax in figure.axes for mesh in ax.collections if isinstance(mesh, QuadMesh) and mesh.get_rasterized()
    ]


def drawn(ax: Any) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), float).ravel() for line in ax.lines]


NAMES = ["map", "curves", "sources", "ablation", "conventions", "cumulative", "total", "repair"]


@pytest.mark.parametrize("size", ["figures", "small_figures"])
@pytest.mark.parametrize("name", NAMES)
def test_every_text_is_inside_the_figure_and_on_no_other(name: str, size: str, request: pytest.FixtureRequest) -> None:
    figure = request.getfixturevalue(size)[name]
    assert not cut_off(figure)
    assert not overlapping(figure)


def test_the_controls_of_overlap_and_cut() -> None:
    figure = Figure(figsize=(2, 2))
    for x in (0.2, 0.25, 0.9):
        figure.text(x, 0.5, "these words")
    assert overlapping(figure) and cut_off(figure)


@pytest.mark.parametrize("name", NAMES)
def test_figures_name_their_unit_readout_and_are_as_wide_as_columns(
    figures: dict[str, Figure], small_figures: dict[str, Figure], name: str
) -> None:
    for figure in (figures[name], small_figures[name]):
        assert figure.get_figwidth() in (pytest.approx(COLUMN), pytest.approx(2 * COLUMN))
        assert figure.get_figheight() <= 9.8
        words = words_of(figure)
        unit = {"cumulative": "share of delta", "total": "shares of delta"}.get(name, "nats")
        assert unit in words
        assert name == "repair" or "complement" in words
        assert name in ("repair", "sources") or "n \u2265 1" in words
    words = words_of(figures[name])  # which token of the answer, of every task shown
    shown = TASKS[: {"curves": 1, "sources": 1, "total": 2}.get(name, 3)]  # of the third delta may be zero
    assert all(f"{task}, {TOKENS[task]}" in words for task in shown)


def test_as_read_from_a_file(table: pd.DataFrame, effects: xr.Dataset) -> None:
    file = io.StringIO()
    table.to_csv(file, index=False)
    file.seek(0)
    for name, figure in all_figures(read := pd.read_csv(file), effects).items():
        assert not cut_off(figure), name
    facts = made_facts(past_tense=(0.123, 0.1, 0.15))
    given = words_of(attribute_figures.share_map_figure(read, facts))
    assert "delta 0.123 [0.100, 0.150]" in given and "delta 0.190 [0.170, 0.210]" in given and "token" in given
    facts["past_tense"].pop("token_text")  # as made before tokens were named
    assert "past_tense\n" in words_of(attribute_figures.share_map_figure(read, facts))


def test_no_global_state_of_matplotlib_is_touched(small: pd.DataFrame, small_effects: xr.Dataset) -> None:
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    all_figures(small, small_effects)
    assert plt.get_fignums() == [] and dict(mpl.rcParams) == before


# --------------------------------------------------------------------------------------------- maps of shares


def panels(figure: Figure) -> list[Any]:
    return [ax for ax in figure.axes if ax.axison and ax.get_title(loc="left")]


def test_maps_share_one_range_about_zero_and_hold_the_shares(table: pd.DataFrame, figures: dict[str, Figure]) -> None:
    axes = panels(figures["map"])
    assert [ax.get_title(loc="left").split(",")[0] for ax in axes] == list(TASKS)
    maps = [ax.collections[0] for ax in axes]
    limits = {mesh.get_clim() for mesh in maps}
    assert len(limits) == 1
    (low, high) = limits.pop()
    heads = table[table.kind == "head"]
    assert low == -high and high == pytest.approx(heads[heads.task.isin(TASKS[:2])].share.abs().max())
    for task, mesh in zip(TASKS, maps):
        own = heads[heads.task == task]
        values = np.ma.asarray(mesh.get_array()).reshape(30, 9)
        if task == "random_labels":  # whose delta may be zero: its shares would set the range, and mean nothing
            assert values.mask.all()
        else:
            np.testing.assert_allclose(values[own.layer.astype(int), own["head"].astype(int)], own.share)
    assert "no shares" in axes[2].get_title(loc="left") and "no shares" not in axes[0].get_title(loc="left")
    assert axes[0].get_ylim()[0] < axes[0].get_ylim()[1]  # layer 0 is the lowest


def test_heads_that_stand_out_are_outlined_and_the_largest_named(
    table: pd.DataFrame, figures: dict[str, Figure]
) -> None:
    for task, ax in zip(TASKS, panels(figures["map"])):
        own = table[(table.task == task) & (table.stands_out.astype(str) == "True")]
        outlines = {patch.get_xy() for patch in ax.patches if isinstance(patch, Rectangle)}
        assert outlines == set(zip(own["head"], own.layer))
        largest = own.reindex(own.slope.abs().sort_values(ascending=False).index)[:8]
        names = {text.get_text(): text for text in ax.texts}
        assert set(names) == {f"{row.layer:.0f}.{row.head:.0f}" for row in largest.itertuples()}
        for row in largest.itertuples():  # near their layer
            label = names[f"{row.layer:.0f}.{row.head:.0f}"]
            assert label.xy[1] == row.layer + 0.5 and abs(label.xyann[1] - label.xy[1]) < 3
        assert "10 heads stand out, 8 named" in ax.get_title(loc="left")


def test_a_map_where_no_head_stands_out_and_deltas_are_near_zero_or_negative() -> None:
    table, task = made_heads(("random_labels",), 12, 12, flat=True), ("random_labels",)
    figure = attribute_figures.share_map_figure(table, made_facts(task))
    (ax,) = panels(figure)
    assert "no head stands out" in ax.get_title(loc="left") and not ax.texts and not ax.patches
    assert "may be zero" in ax.get_title(loc="left")
    assert not np.ma.asarray(ax.collections[0].get_array()).mask.any()  # the only task is drawn all the same
    negative = attribute_figures.share_map_figure(table, made_facts(task, random_labels=(-0.05, -0.06, -0.04)))
    assert "delta \u22120.050 [\u22120.060, \u22120.040]" in words_of(negative) and "zero" not in words_of(negative)


@pytest.mark.parametrize(("layers", "n_heads"), [(2, 4), (12, 12), (48, 32)])
@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS])
def test_maps_of_small_and_large_models(layers: int, n_heads: int, tasks: tuple[str, ...]) -> None:
    figure = attribute_figures.share_map_figure(made_heads(tasks, layers, n_heads), made_facts(tasks))
    assert not cut_off(figure) and not overlapping(figure)
    assert len(panels(figure)) == len(tasks) and figure.get_figheight() <= 9.8


# --------------------------------------------------------------------------------------------- effects


def test_curves_have_the_heads_of_the_largest_slopes_and_their_fits(
    table: pd.DataFrame, effects: xr.Dataset, figures: dict[str, Figure]
) -> None:
    *axes, last = panels(figures["curves"])
    own = table[(table.task == "past_tense") & (table.kind == "head")]
    top = own.reindex(own.slope.abs().sort_values(ascending=False).index)[:6]
    n = np.arange(1, 33.0)
    for ax, row in zip(axes, top.itertuples(), strict=True):
        title = ax.get_title(loc="left").replace("\u2212", "-")
        share = f"{row.share:.2f} [{row.share_low:.2f}, {row.share_high:.2f}]"
        assert title == f"{row.component}: {row.accumulation}\nshare {share}"
        mean = effects.effect.sel(task="past_tense", layer=int(row.layer), head=int(row.head)).mean("seq").values
        lines = [line for line in drawn(ax) if len(line) == 32]
        assert any(np.allclose(line, mean[1:], atol=1e-6) for line in lines)
        assert any(np.allclose(np.diff(line), row.delta) for line in lines)
        assert any(np.allclose(line, mean[:1], atol=1e-6) for line in drawn(ax))  # n = 0, before the fits
        basis = np.stack([n / (n + 5), np.ones(32)], 1)
        averaging = basis @ np.linalg.lstsq(basis, mean[1:])[0]
        assert any(np.allclose(line, averaging, atol=1e-5) for line in lines) == np.isfinite(row.c)
    np.testing.assert_allclose(sum(drawn(last)[1:4]), drawn(last)[0], rtol=1e-4, atol=1e-4)
    assert {text.get_text() for text in last.texts} == {"L(n)", "heads", "MLPs", "rest"}
    legend = [text.get_text() for text in figures["curves"].legends[0].get_texts()]
    assert [word.split(":")[0].split(",")[0] for word in legend] == ["mean", "additive", "averaging"]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7])
def test_any_number_of_heads_and_another_n_min(small: pd.DataFrame, small_effects: xr.Dataset, most: int) -> None:
    facts = made_facts(("times_ten",))
    facts["times_ten"]["n_min"] = 2
    curves = attribute_figures.effect_curves_figure(small_effects, small, facts, "times_ten", most=most)
    sources = attribute_figures.source_map_figure(small_effects, small, facts, "times_ten", most=min(most, 4))
    assert len(panels(curves)) == most + 1 and len(panels(sources)) == min(most, 4)
    assert "n \u2265 2" in words_of(curves)
    for figure in (curves, sources):
        assert not cut_off(figure) and not overlapping(figure)


def test_source_maps_hold_the_means_and_are_blank_above_the_diagonal(
    table: pd.DataFrame, effects: xr.Dataset, figures: dict[str, Figure]
) -> None:
    figure = figures["sources"]
    limits = {mesh.get_clim() for mesh in meshes(figure)}
    assert len(limits) == 1 and np.isclose(sum(limits.pop()), 0)
    own = table[(table.task == "past_tense") & (table.kind == "head")]
    top = own.reindex(own.slope.abs().sort_values(ascending=False).index)[:4]
    for ax, row in zip(panels(figure), top.itertuples(), strict=True):
        mean = effects.effect_by_source.sel(task="past_tense", layer=int(row.layer), head=int(row.head)).mean("seq")
        sink, examples, query = ax.collections
        cells = np.ma.asarray(examples.get_array()).reshape(33, 32)
        n, i = np.meshgrid(np.arange(33), np.arange(1, 33), indexing="ij")
        assert (cells.mask == (i > n)).all()
        np.testing.assert_allclose(cells.filled(np.nan), mean.values[:, 1:-1], rtol=1e-5)
        for mesh, name in ((sink, "sink"), (query, "query")):
            np.testing.assert_allclose(np.ravel(mesh.get_array()), mean.sel(source=name), rtol=1e-5)
        ends = [mesh.get_datalim(ax.transData).intervalx for mesh in (sink, examples, query)]
        assert ends[0][1] < ends[1][0] - 0.5 and ends[1][1] < ends[2][0] - 0.5  # set apart
        low, high = ax.get_ylim()
        assert low > high  # n grows downwards: the blank triangle is the upper one
        labels = [text.get_text() for text in ax.get_xticklabels()]
        assert labels[0] == "sink" and labels[-1] == "query"
    assert figure.axes[-1].get_ylabel() == "effect (nats)"


def test_a_task_of_fewer_sequences_and_shots_than_another_is_drawn_as_if_alone(
    small: pd.DataFrame, small_effects: xr.Dataset
) -> None:
    longer = made_effects(small, 10, 12).assign_coords(task=["longer"])
    padded = xr.concat([small_effects, longer], dim="task", join="outer")
    for make in (attribute_figures.effect_curves_figure, attribute_figures.source_map_figure):
        facts = made_facts(("times_ten",))
        alone, beside = make(small_effects, small, facts, "times_ten"), make(padded, small, facts, "times_ten")
        assert words_of(alone) == words_of(beside)
        for ax, other in zip(alone.axes, beside.axes, strict=True):
            for line, same in zip(drawn(ax), drawn(other), strict=True):
                np.testing.assert_allclose(line, same, rtol=1e-5, atol=1e-6)


def test_the_profile_by_distance_is_level_for_a_head_that_averages() -> None:
    """It falls with n, but at one n no example counts more than another; the mean over all shots would fall too."""
    table = made_heads(("times_ten",), 2, 6)
    effects = made_effects(table, 8, 16).copy()
    n = np.arange(17.0)
    source = np.arange(1, 17)
    even = np.where(source <= n[:, None], 1 / (n[:, None] + 5), np.nan)
    effects["effect_by_source"][..., 1:-1] = even[:, None, None, :]
    figure = attribute_figures.source_map_figure(effects, table, made_facts(("times_ten",)), "times_ten")
    ax = next(ax for ax in figure.axes if "an\nexample" in ax.get_ylabel())
    profile = drawn(ax)[0]
    np.testing.assert_allclose(profile, np.mean(1 / (n[8:] + 5)), rtol=1e-5)
    naive = [np.nanmean([even[k, k - d - 1] for k in range(d + 1, 17)]) for d in range(8)]
    assert naive[0] > 1.4 * naive[-1]  # the control
    assert "n \u2265 8" in words_of(figure)


# --------------------------------------------------------------------------------------------- ablation, totals


def test_the_ablation_has_all_sets_beside_delta(table: pd.DataFrame, figures: dict[str, Figure]) -> None:
    ablation = made_ablation(table)
    axes = panels(figures["ablation"])
    assert len(axes) == 3
    for task, ax in zip(TASKS, axes):
        own = ablation[ablation.task == task]
        x = [np.asarray(line.get_xdata(), float) for line in ax.lines]
        placebo = own[own["set"].str.startswith("placebo")]
        assert any(len(line) == 20 and np.allclose(line, placebo.lost) for line in x)
        assert any(np.allclose(line, DELTAS[task]) for line in x)
        for row in own[~own["set"].str.startswith("placebo")].itertuples():
            for values in ([row.lost_low, row.lost_high], [row.lost], [row.predicted]):
                assert any(len(line) == len(values) and np.allclose(line, values) for line in x)
        labels = [text.get_text() for text in ax.get_yticklabels()]
        singles = own[~own["set"].str.contains("top|placebo")]
        assert labels[:2] == ["top 6 heads", "20 placebo sets"]
        assert labels[2:] == list(singles.sort_values("lost", ascending=False)["set"])
    lost = ablation[(ablation.task == TASKS[0]) & (ablation["set"] == "top")].lost.iloc[0] / DELTAS[TASKS[0]]
    assert f"lost {100 * lost:.0f} %" in axes[0].get_title(loc="left")
    assert "lost" not in axes[2].get_title(loc="left")  # a share of a delta that may be zero
    legend = " ".join(text.get_text() for text in figures["ablation"].legends[0].get_texts())
    assert all(word in legend for word in ("lost", "predicted", "placebo", "all of delta"))


def test_an_ablation_of_the_top_alone_and_of_many_single_heads(table: pd.DataFrame) -> None:
    ablation = made_ablation(table)
    alone = attribute_figures.ablation_figure(ablation[ablation["set"] == "top"], made_facts(), "mean_over_shots")
    assert not cut_off(alone) and "0 placebo sets" in words_of(alone)
    few = attribute_figures.ablation_figure(
        ablation[ablation.task == TASKS[1]], made_facts(), "mean_over_shots", most=3
    )
    assert len(panels(few)) == 1 and len(panels(few)[0].get_yticks()) == 5
    assert few.get_figwidth() == COLUMN and not cut_off(few)


def test_cumulative_shares_end_at_the_heads_total(table: pd.DataFrame, figures: dict[str, Figure]) -> None:
    (ax,) = figures["cumulative"].axes
    legend = [text.get_text() for text in figures["cumulative"].legends[0].get_texts()]
    for task, words in zip(TASKS, legend, strict=True):
        own = table[table.task == task]
        share = own[own.kind == "head"].share.sort_values(ascending=False).to_numpy()
        shown = [line for line in drawn(ax) if len(line) == 270 and np.allclose(line, np.cumsum(share))]
        assert len(shown) == (task != "random_labels")
        if task == "random_labels":
            assert "not drawn: delta may be zero" in words
            continue
        by = next(k for k in range(1, 271) if share[:k].sum() >= share.sum() / 2)
        totals = [f"{own[own.kind == kind].share.sum():.2f}".replace("-", "\u2212") for kind in ("head", "mlp", "rest")]
        assert words == f"{task}, {TOKENS[task]}\nheads {totals[0]}, half by {by}; MLPs {totals[1]}; rest {totals[2]}"
        dots = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "o"]
        assert any(np.allclose(dot, (by, share[:by].sum())) for dot in dots)
        assert any(len(line) == 2 and np.allclose(line, share.sum()) for line in drawn(ax))
    low, high = ax.get_ylim()
    assert low < 0 and high > 1


def test_a_total_below_zero_has_no_half() -> None:
    table = made_heads(TASKS[:1], 4, 4, flat=True)
    table.loc[table.kind == "head", "share"] = -table.share.abs()
    figure = attribute_figures.cumulative_figure(table, made_facts(TASKS[:1]))
    assert "half by" not in words_of(figure) and not any(line.get_marker() == "o" for line in figure.axes[0].lines)
    assert "heads \u2212" in words_of(figure)


def test_totals_are_drawn_against_what_heads_write(table: pd.DataFrame, figures: dict[str, Figure]) -> None:
    """A dot a head, filled where it stands out in total; the largest named; tasks whose delta is clear of zero."""
    panels_ = [ax for ax in figures["total"].axes if ax.lines]
    assert len(panels_) == 2
    for ax, task in zip(panels_, TASKS):
        heads = table[(table.task == task) & (table.kind == "head")]
        dots = [np.column_stack(line.get_data()) for line in ax.lines if line.get_marker() == "o"]
        for out, found in zip((False, True), dots, strict=True):
            own = heads[heads.total_stands_out.astype(bool) == out]
            np.testing.assert_allclose(found, own[["share", "total_share"]].to_numpy(float))
        named = heads.loc[heads.total_share.abs().nlargest(6).index]
        assert {text.get_text() for text in ax.texts} == set(named.component)
        assert "heads: directly 40 %, in total 90 %" in ax.get_title(loc="left")


def test_the_repair_adds_up(table: pd.DataFrame, figures: dict[str, Figure]) -> None:
    repair = made_repair(made_ablation(table))
    for row, ax in zip(repair.itertuples(), panels(figures["repair"]), strict=True):
        bars = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]
        assert len(bars) == 5
        assert bars[0] == (0, pytest.approx(row.predicted)) and bars[-1] == (0, pytest.approx(row.lost))
        assert all(above[1] == pytest.approx(below[0]) for above, below in itertools.pairwise(bars[:-1]))
        assert bars[-2][1] == pytest.approx(row.lost)
        made_up = [patch.get_facecolor() for patch in list(ax.patches)[1:-1]]
        assert (made_up[2] == made_up[1]) == (row.mlps * row.other_heads > 0)
        whiskers = [np.asarray(line.get_xdata(), float) for line in ax.lines]
        for values in (
            [row.lost_low, row.lost_high],
            [bars[0][1] - row.other_heads_low, bars[0][1] - row.other_heads_high],
        ):
            assert any(np.allclose(line, values) for line in whiskers)
    words = words_of(figures["repair"])
    assert re.search(r"predicted loss\b", words) and "= lost" in words
