"""Slopes that add up to delta, pooling over heads, kinds of accumulation, the choice of heads and of their placebos."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as distributions
from simulate import line, power_law, simulate_curves

from bayes_icl.attribute.accumulation import LAWS, _judged, accumulation, accumulations, fit_alone
from bayes_icl.attribute.outputs import HEADS
from bayes_icl.attribute.slopes import choose_top, delta_of, delta_weights, head_table, join_columns, slope_table
from bayes_icl.core.errors import StatedError
from bayes_icl.core.intervals import Interval, t_interval
from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import PLAIN
from bayes_icl.inference.scores import score_curves, score_together
from bayes_icl.inference.survival import slack, survivors
from bayes_icl.mechanism.placebos import placebo_sets

CURVES = simulate_curves(24, 16, n_min=1, gain=6.0, walk=0.4, seed=3)


def averaging(c: float):
    return lambda n: n / (n + c)


# ------------------------------------------------------------------------------------------- delta and its weights


def test_delta_is_the_mean_slope_of_least_squares_and_near_that_of_the_verdict() -> None:
    delta = delta_of(CURVES)
    slopes = np.polyfit(CURVES.shots, CURVES.log_odds.T, 1)[0]
    assert delta.mean == pytest.approx(slopes.mean(), rel=1e-12)
    half = distributions.t.ppf(0.975, 23) * slopes.std(ddof=1) / np.sqrt(24)
    assert (delta.low, delta.high) == pytest.approx((slopes.mean() - half, slopes.mean() + half), rel=1e-9)
    verdict = score_curves(HYPOTHESES["freeform"], CURVES, checks=False)[0].straightness.delta
    assert abs(verdict.mean - delta.mean) < 0.3 * half  # by another road: the posterior of the best line
    assert delta_of(CURVES._replace(log_odds=CURVES.log_odds[::2])) != delta  # the control


@settings(max_examples=25, deadline=None)
@given(n_min=st.integers(0, 3), n_shots=st.integers(3, 20), seed=st.integers(0, 100))
def test_weights_of_updates_give_the_slope_of_the_best_line(n_min: int, n_shots: int, seed: int) -> None:
    shots = np.arange(n_min, n_min + n_shots, dtype=float)
    curve = np.random.default_rng(seed).normal(size=n_shots)
    assert delta_weights(shots) @ np.diff(curve) == pytest.approx(np.polyfit(shots, curve, 1)[0], rel=1e-9, abs=1e-12)


def test_weights_are_a_parabola() -> None:
    """Known by heart: the update in the middle counts most."""
    w = delta_weights(np.arange(1.0, 12.0))
    parabola = np.arange(1, 11) * np.arange(10, 0, -1)
    np.testing.assert_allclose(w, parabola / parabola.sum(), rtol=1e-12)


def test_any_parts_that_add_up_to_log_odds_have_slopes_that_add_up_to_delta() -> None:
    delta, w = delta_of(CURVES).mean, delta_weights(CURVES.shots)
    rng = np.random.default_rng(0)
    parts = 50 * rng.normal(size=(7, *CURVES.log_odds.shape))
    parts[-1] += CURVES.log_odds - parts.sum(0)
    slopes = np.diff(parts, axis=2).mean(1) @ w
    assert slopes.sum() == pytest.approx(delta, rel=1e-9)
    assert slopes[:-1].sum() != pytest.approx(delta, rel=1e-3)  # the control: one part is missing


def own_delta(curves: Curves) -> Interval:
    """Of a head's own fit of `additive`."""
    score, _ = score_curves(HYPOTHESES["additive"], curves, future=False, checks=False, shape=PLAIN)
    return score.intervals["delta"]


# ------------------------------------------------------------------------------------------------ pooling over heads


def kinds(f, gain: float, n: int = 6, scale: float = 1.0, **more: float) -> list[str]:
    """Kinds found in curves of one truth; level noise of 1 and gains that differ by a sixth."""
    out = []
    for seed in range(n):
        curves = simulate_curves(
            32, 32, n_min=1, f=f, gain=scale * gain, gain_sd=scale * 0.15 * abs(gain), level=scale, walk=0.02 * scale,
            intercept_sd=scale, seed=seed, **more,
        )  # fmt: skip
        out.append(accumulation(curves).kind)
    return out


@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("sign", [1, -1])
def test_kinds_of_known_truth(scale: float, sign: int) -> None:
    n = 4
    assert kinds(line, 16.0 * sign, n, scale).count("linear") >= n - 1
    assert kinds(averaging(4.0), 8.0 * sign, n, scale) == n * ["averaging"]
    assert kinds(line, 0.0, n, scale).count("none") >= n - 1


def test_what_neither_law_describes_is_other() -> None:
    """A curve that speeds up, and one that jumps, would both pass for linear beside averaging alone."""
    assert kinds(power_law(-2.0), 16.0, 3) == 3 * ["other"]
    assert kinds(lambda n: 1.0 * (n > 16), 8.0, 3) == 3 * ["other"]


def test_a_weak_line_is_not_told_from_slow_averaging() -> None:
    found = kinds(averaging(30.0), 3.0, 5) + kinds(line, 1.5, 5)
    assert "linear" not in found
    assert "undecided" in found


def test_c_is_recovered_and_delta_is_the_heads_own() -> None:
    curves = simulate_curves(32, 32, n_min=1, f=averaging(4.0), gain=8.0, gain_sd=1.0, level=0.5, seed=2)
    found = accumulation(curves)
    assert found.c[1] < 4 < found.c[2]
    assert found.c[2] - found.c[1] < 3
    assert found.delta == own_delta(curves)


def many_heads() -> list[Curves]:
    """Heads of all kinds, of 16 sequences: lines, averages, what speeds up, nothing, an outlier."""
    truths = [
        *[(line, gain) for gain in (0.0, 1.0, -4.0, 16.0)],
        *[(averaging(c), gain) for c, gain in ((4.0, 8.0), (30.0, -6.0), (4.0, 1.0))],
        (power_law(-2.0), 16.0),
    ]
    heads = [
        simulate_curves(16, 16, n_min=1, f=f, gain=gain, gain_sd=0.15 * abs(gain), walk=0.02, level=1.0, seed=i)
        for i, (f, gain) in enumerate(truths)
    ]
    heads.append(heads[0]._replace(log_odds=1e-3 * heads[0].log_odds))
    outlier = heads[2].log_odds.copy()
    outlier[0] = 20 * np.random.default_rng(0).normal(size=outlier.shape[1])
    return [*heads, heads[2]._replace(log_odds=outlier)]


def test_heads_together_are_judged_as_one_by_one() -> None:
    """The kinds, delta within 5 % of its sd of many more draws, differences of elpd within Monte Carlo error."""
    curves = many_heads()
    together = accumulations(curves)
    each = [{name: fit_alone(name, one) for name in LAWS} for one in curves]
    alone = [_judged(one, own) for one, own in zip(curves, each)]
    assert alone[0] == accumulation(curves[0])
    assert {one.kind for one in alone} >= {"none", "linear", "averaging", "other"}
    fits = {name: score_together(HYPOTHESES[name], curves) for name in LAWS}
    redone = np.array([not all(fits[name][i][0].reliable for name in LAWS) for i in range(len(curves))])
    assert redone[-1] and redone.sum() <= len(curves) / 2  # an outlier, and laws that a strong head does not follow
    for i, one in enumerate(curves):
        scores = {name: score for name, (score, _) in each[i].items()}
        gap, se = survivors(list(scores.values()), "elpd_logo")[1]["additive"]
        if abs(abs(gap) - slack(se)) > 0.5:  # else which side it is on is Monte Carlo error
            assert together[i].kind == alone[i].kind
        stats = summarise(one, shape=PLAIN)
        many = sample_fast(HYPOTHESES["additive"], stats, least_draws=10_000)
        delta, weights = many.numbers(stats)["delta"], np.exp(many.log_weights)
        sd = np.sqrt(weights @ (delta - weights @ delta) ** 2)
        if not redone[i]:
            assert abs(together[i].delta[0] - weights @ delta) < 0.05 * sd
            for name in ("constant", "pooling", "freeform"):
                found, expected = (
                    (x[name].elpd_logo - x["additive"].elpd_logo).sum()
                    for x in ({law: fit[i][0] for law, fit in fits.items()}, scores)
                )
                assert found == pytest.approx(expected, abs=1.5 if name == "freeform" else 0.5)
        elif not fits["additive"][i][0].reliable:
            assert together[i].delta == alone[i].delta


def test_a_head_does_not_hang_on_its_neighbours() -> None:
    curves = many_heads()
    for one, other in zip(accumulations(curves[3:6]), accumulations(curves)[3:6]):
        assert one.kind == other.kind
        np.testing.assert_allclose([*one.delta, *one.c], [*other.delta, *other.c], rtol=1e-6)
    still = curves[0]._replace(log_odds=np.ones_like(curves[0].log_odds))
    assert [one.kind for one in accumulations([still, curves[4], still])] == ["none", "averaging", "none"]
    assert accumulations([still]) == [accumulation(still)]


def test_curves_without_variation() -> None:
    shots = np.arange(1.0, 34)
    flat = Curves("t", "complement", shots, np.repeat(np.arange(8.0)[:, None], 33, axis=1))
    found = accumulation(flat)
    assert (found.kind, found.delta) == ("none", (0.0, 0.0, 0.0))
    # A line without noise leaves nothing to judge; nor does an effect in one sequence alone.
    steep = flat._replace(log_odds=flat.log_odds + 0.5 * shots)
    found = accumulation(steep)
    assert found.kind == "undecided"
    assert found.delta[0] == pytest.approx(0.5)
    alone = flat.log_odds.copy()
    alone[0] += np.sin(shots)
    assert accumulation(flat._replace(log_odds=alone)).kind == "undecided"


def test_few_sequences_or_updates_are_undecided() -> None:
    strong = {"f": averaging(4.0), "gain": 20.0, "gain_sd": 1.0, "level": 0.3, "n_min": 1}
    assert accumulation(simulate_curves(7, 32, **strong)).kind == "undecided"
    assert accumulation(simulate_curves(16, 8, **strong)).kind == "undecided"
    assert accumulation(simulate_curves(16, 16, **strong)).kind == "averaging"  # the control


# ------------------------------------------------------------------------------------------------------- the table


def made_effects(seed: int = 0, n_seqs: int = 12, n_shots: int = 12) -> xr.Dataset:
    """Two tasks, 2 layers of 3 heads; head L1H2 writes the update, the MLP of layer 0 writes against it."""
    rng = np.random.default_rng([seed, 23])
    shape = (2, n_seqs, n_shots + 1)
    n = np.arange(n_shots + 1.0)
    effect = 0.05 * rng.normal(size=(*shape, 2, 3))
    effect[..., 1, 2] += 0.3 * n * rng.normal(1, 0.1, size=(2, n_seqs, 1)) + 0.2 * rng.normal(size=shape)
    effect[..., 0, 0] = 0.25  # one head that does not vary
    mlp = 0.2 * rng.normal(size=(*shape, 2))
    mlp[..., 0] -= 0.05 * n
    rest = {name: 0.1 * rng.normal(size=shape) for name in ("embedding", "bias", "entropy")}
    rest["entropy"] += 5 - 0.02 * n
    log_odds = effect.sum((-2, -1)) + mlp.sum(-1) + rest["embedding"] + rest["bias"] - rest["entropy"]
    dims = ("task", "seq", "shot")
    return xr.Dataset(
        {
            "effect": ((*dims, "layer", "head"), effect),
            "attention": ((*dims, "layer", "head"), rng.uniform(size=effect.shape)),
            "mlp": ((*dims, "layer"), mlp),
            **{name: (dims, x) for name, x in rest.items()},
            "log_odds": (dims, log_odds),
        },
        coords={
            "task": ["one", "two"],
            "seq": np.arange(n_seqs),
            "shot": np.arange(n_shots + 1),
            "layer": [0, 1],
            "head": [0, 1, 2],
        },
        attrs={"readout": "complement"},
    )


@cache
def made_table() -> pd.DataFrame:
    return head_table(made_effects(), workers=1)


def curves_of(effects: xr.Dataset, task: str, n_min: int = 1) -> Curves:
    own = effects.log_odds.sel(task=task).values
    return Curves(task, "complement", effects.shot.values.astype(float), own).since(n_min)


def test_rows_and_columns() -> None:
    table = made_table()
    assert list(table.columns) == HEADS.names
    heads = [f"L{layer}H{head}" for layer in range(2) for head in range(3)]
    for _, own in table.groupby("task"):
        assert list(own.component) == [*heads, "MLP 0", "MLP 1", "embedding", "bias", "entropy", "all"]
        assert list(own.kind) == 6 * ["head"] + 2 * ["mlp"] + 3 * ["rest"] + ["all"]
    assert table.top.dtype == bool and not table.top.any()
    assert table[["lost", "lost_low", "lost_high"]].isna().all().all()
    others = table[table.kind != "head"]
    assert others[["head", "pooled", "false_sign", "delta", "c", "attention"]].isna().all().all()
    assert (others.accumulation == "").all() and not others.stands_out.any()


def test_columns_of_a_step_are_joined_by_row() -> None:
    """Rows that a step says nothing of, and tasks of which it says nothing, are left empty."""
    tables = [slope_table(made_effects().sel(task=task), task, 1)[0] for task in ("one", "two")]
    lost = pd.DataFrame({"top": [True, True], "lost": [0.2, 0.1]}, index=[5, 2])
    joined = join_columns(tables, [lost, pd.DataFrame()])
    assert list(joined.columns) == HEADS.names and joined.top.dtype == bool
    assert joined.index[joined.top].tolist() == [2, 5] == joined.index[joined.lost.notna()].tolist()
    assert joined.lost[2] == 0.1 and joined.lost[5] == 0.2 and joined.component[5] == "L1H2"
    assert joined.slope.tolist() == [x for table in tables for x in table.slope]


@pytest.mark.parametrize("n_min", [0, 1, 2])
def test_slopes_add_up_to_delta(n_min: int) -> None:
    effects = made_effects()
    table = made_table() if n_min == 1 else head_table(effects, n_min=n_min, workers=1)
    for task, own in table.groupby("task"):
        delta = delta_of(curves_of(effects, str(task), n_min)).mean
        every, own = own[own.kind == "all"], own[own.kind != "all"]
        assert own.slope.sum() == pytest.approx(delta, rel=1e-9) == every.slope.item()
        assert own.share.sum() == pytest.approx(1, rel=1e-9) == every.share.item()
        assert own.rise.sum() == pytest.approx(every.rise.item(), rel=1e-9)
        entropy = own[own.component == "entropy"].slope.item()
        assert entropy > 0  # it falls, which helps
        assert own.slope.sum() - 2 * entropy != pytest.approx(delta, rel=1e-3)  # the control: its sign


def test_the_head_that_writes_the_update_is_found() -> None:
    effects, table = made_effects(), made_table()
    for task, own in table.groupby("task"):
        heads = own[own.kind == "head"].set_index("component")
        assert list(heads.index[heads.stands_out]) == ["L1H2"]
        assert heads.false_sign["L1H2"] < 1e-3
        assert heads.accumulation["L1H2"] in ("linear", "undecided")
        assert heads.accumulation["L0H0"] == "none"
        assert heads.slope["L0H0"] == pytest.approx(0, abs=1e-12)
        assert heads.slope_low["L1H2"] < 0.3 < heads.slope_high["L1H2"]
        assert choose_top(own) == [(1, 2)]
        curves = curves_of(effects, str(task))
        head = curves._replace(log_odds=effects.effect.sel(task=task, layer=1, head=2).values[:, 1:])
        alone = own_delta(head)
        together = heads.loc["L1H2", ["delta", "delta_low", "delta_high"]].to_numpy(float)
        assert tuple(together) == pytest.approx(tuple(alone), abs=0.1 * (alone[2] - alone[1]))
        seen = effects.attention.sel(task=task, layer=1, head=2).values[:, -1].mean()
        assert heads.attention["L1H2"] == pytest.approx(seen)


def test_intervals_by_hand() -> None:
    effects, table = made_effects(), made_table()
    curves = curves_of(effects, "two")
    delta, w = delta_of(curves).mean, delta_weights(curves.shots)
    own = np.diff(effects.mlp.sel(task="two", layer=0).values[:, 1:], axis=1) @ w
    row = table[(table.task == "two") & (table.component == "MLP 0")].iloc[0]
    expected = distributions.t.interval(0.95, 11, own.mean(), distributions.sem(own))
    assert (row.slope_low, row.slope_high) == pytest.approx(expected)
    # The share's interval against a bootstrap of sequences.
    total = np.diff(curves.log_odds, axis=1) @ w
    at = np.random.default_rng(0).integers(12, size=(20_000, 12))
    ratios = own[at].mean(1) / total[at].mean(1)
    assert row.share == pytest.approx(own.mean() / delta)
    t_over_z = distributions.t.ppf(0.975, 11) / 1.96 * np.sqrt(12 / 11)
    assert row.share_high - row.share_low == pytest.approx(2 * 1.96 * ratios.std() * t_over_z, rel=0.1)


def test_slope_intervals_cover() -> None:
    """t-intervals of a component of known slope, over simulated runs; narrower ones must not cover."""
    inside, narrow = [], []
    for seed in range(400):
        rng = np.random.default_rng([seed, 24])
        slope, low, high = t_interval(0.3 + rng.normal(0, 0.5, size=(10, 1)))
        inside.append(low[0] < 0.3 < high[0])
        narrow.append(abs(slope[0] - 0.3) < 0.7 * (high[0] - slope[0]))
    assert 0.92 < np.mean(inside) < 0.98
    assert np.mean(narrow) < 0.92


def test_absent_sequences_and_worker_processes_change_nothing() -> None:
    effects = made_effects()
    padded = effects.pad(seq=(0, 2))
    again = head_table(padded, workers=2)
    pd.testing.assert_frame_equal(again, made_table())


def test_what_cannot_be_fitted_is_stated() -> None:
    effects = made_effects()
    with pytest.raises(StatedError, match="2 shots from n = 11"):
        head_table(effects, n_min=11, workers=1)
    flat = effects.assign(log_odds=0 * effects.log_odds)
    with pytest.raises(StatedError, match="task 'one': no variation"):
        head_table(flat, workers=1)


# --------------------------------------------------------------------------------------------- choosing, placebos, loss


def rows(slopes: list[float]) -> pd.DataFrame:
    n = len(slopes)
    return pd.DataFrame(
        {
            "kind": [*n * ["head"], "mlp"],
            "layer": [*(i // 4 for i in range(n)), 0],
            "head": [*(float(i % 4) for i in range(n)), np.nan],
            "pooled": [*slopes, np.nan],
        }
    )


def test_top_heads_make_half_of_the_total() -> None:
    assert choose_top(rows([0.1, 0.5, 0.2, 0.1, 0.1])) == [(0, 1)]
    assert choose_top(rows([0.1, 0.4, 0.2, 0.2, 0.1])) == [(0, 1), (0, 2)]
    # Heads against delta make the goal smaller, not the set.
    assert choose_top(rows([0.3, 0.4, -0.4, 0.3, 0.3])) == [(0, 1), (0, 0)]
    # Delta is negative: the heads that lower L are those that write it.
    assert choose_top(rows([0.1, -0.5, -0.2, 0.1, -0.1]), toward=-1.0) == [(0, 1)]
    assert choose_top(rows([0.1, -0.5, -0.2, 0.1, -0.1]), 2, -1.0) == [(0, 1), (0, 2)]
    # Those against leave less than half of what the others write: half of the latter, and no jump at the border.
    assert choose_top(rows([0.5, 0.4, 0.3, -0.5, -0.69])) == choose_top(rows([0.5, 0.4, 0.3, -0.5, -0.71]))
    assert choose_top(rows([0.3, 0.2, -0.9, 0.1, 0.0])) == [(0, 0)]
    assert choose_top(rows([-0.3, -0.2])) == []
    assert choose_top(rows([-0.3, -0.2]), top=1) == []
    with pytest.raises(StatedError, match="has 2 heads"):
        choose_top(rows([0.1, 0.2]), top=3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.sampled_from([1.0, -2.0]))
def test_top_heads_are_enough_and_one_fewer_is_not(slopes: list[float], delta: float) -> None:
    own = np.sign(delta) * np.array(slopes)
    chosen = [4 * layer + head for layer, head in choose_top(rows(slopes), 0, delta)]
    helping = np.maximum(own, 0).sum()
    total = own.sum() if own.sum() >= helping / 2 else helping
    if not (own > 0).any():
        assert chosen == []
        return
    assert own[chosen].sum() >= total / 2 * (1 - 1e-9)
    assert own[chosen[:-1]].sum() < total / 2
    assert own[chosen].min() >= np.delete(own, chosen).max(initial=-np.inf)


NORMS = np.random.default_rng(6).lognormal(0, 1, size=(10, 9))


def test_placebos_are_other_heads_of_like_norm() -> None:
    by_norm = [tuple(int(i) for i in np.unravel_index(k, NORMS.shape)) for k in np.argsort(-NORMS.ravel())]
    chosen = by_norm[8:40:5]
    sets = placebo_sets(NORMS, chosen)
    assert len(sets) == 20 and len({frozenset(one) for one in sets}) == 20
    for one in sets:
        assert len(set(one)) == len(chosen) and not set(one) & set(chosen)
    goal = sum(NORMS[head] for head in chosen)
    sums = np.array([sum(NORMS[head] for head in one) for one in sets])
    free = [head for head in by_norm if head not in chosen]
    rng = np.random.default_rng(0)
    unmatched = np.array([NORMS.ravel()[rng.choice(NORMS.size, len(chosen), replace=False)].sum() for _ in range(500)])
    assert len(free) == 83
    assert np.abs(sums / goal - 1).max() <= 0.1 < np.abs(unmatched / goal - 1).mean()
    assert placebo_sets(NORMS, chosen) == sets
    assert placebo_sets(NORMS, chosen, seed=1) != sets


def test_placebos_where_heads_are_few() -> None:
    norms = NORMS[:2, :3]
    chosen = [(0, 0), (0, 1), (1, 2)]
    assert [set(one) for one in placebo_sets(norms, chosen)] == [{(0, 2), (1, 0), (1, 1)}]
    assert len(placebo_sets(norms, chosen[:2])) == 6  # pairs among 4
    assert placebo_sets(norms, []) == []
    with pytest.raises(StatedError, match="4 of 6 heads are chosen, so that 2 are left"):
        placebo_sets(norms, [*chosen, (0, 2)])
