"""Survivors and verdicts on made-up scores, every branch; the quadratic contrast on simulated curves."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate import power_law, simulate_curves

from bayes_icl.curves import Curves
from bayes_icl.fit.checks import quadratic_contrast
from bayes_icl.fit.outputs import COMPARISON, comparison_table, sensitivity_table
from bayes_icl.fit.verdict import Verdict, judge, refuse
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.scores import Score
from bayes_icl.inference.survival import survivors, too_little

S, N = 16, 16
STRAIGHT = simulate_curves(S, N, seed=1)
BENT = simulate_curves(S, N, f=power_law(0.5), gain=12.0, gain_sd=0.5, level=0.5, seed=1)


def score(
    hypothesis: str, elpd: float | np.ndarray = -300.0, lfo: float | np.ndarray | None = None, **own: Any
) -> Score:
    """Nothing wrong with it, and every sequence alike unless an array is given."""

    def each(x: float | np.ndarray) -> np.ndarray:
        return np.asarray(x, float) if np.ndim(x) else np.full(S, x / S)

    intervals: dict[str, tuple[float, float, float]] = {"level": (1.0, 0.9, 1.1)}
    if HYPOTHESES[hypothesis].has_gain:
        intervals |= {"gain": (9.0, 8.0, 10.0), "delta": (0.56, 0.5, 0.62)}
    if hypothesis == "power":
        intervals["a"] = (0.02, -0.08, 0.12)
    own["intervals"] = intervals | own.pop("intervals", {})
    fields: dict[str, Any] = dict(pareto_k_max=0.3, refits=0, rhat_max=1.002, ess_bulk_min=2000.0, divergences=0) | own
    return Score("made", "complement", 0, hypothesis, each(elpd), each(elpd / 2 if lfo is None else lfo), **fields)


def scores(*changed: Score) -> list[Score]:
    """Additive is as good as any, constant far off; `changed` takes the place of what has its name."""
    usual = [score("constant", -380.0), score("additive"), score("power", -301.0), score("freeform", -290.0)]
    names = {s.hypothesis for s in changed}
    return [*changed, *(s for s in usual if s.hypothesis not in names)]


def with_p(low: float, high: float) -> Curves:
    """Curves of additive truth whose quadratic contrast has a p-value in between."""
    for seed in range(200):
        curves = simulate_curves(S, N, seed=seed)
        if low < quadratic_contrast(curves)[1] < high:
            return curves
    raise AssertionError("no such seed")


# --------------------------------------------------------------------------------------------- survivors


def spread(total: float, se: float) -> np.ndarray:
    """Numbers of sequences with this sum and standard error of the sum."""
    x = np.tile([1.0, -1.0], S // 2)
    return total / S + x * se / (np.sqrt(S) * x.std(ddof=1))


@pytest.mark.parametrize(
    ("below", "se", "survives"),
    [
        (3.9, 0.0, True),  # within 4 nats, however sure
        (4.1, 0.0, False),
        (4.1, 2.1, True),  # within 2 SE
        (10.0, 5.1, True),
        (10.0, 4.9, False),
        (3.9, 0.1, True),
    ],
)
def test_survivors_are_within_4_nats_or_2_se_of_the_best(below: float, se: float, survives: bool) -> None:
    base = np.random.default_rng(0).normal(-20, 5, S)
    worse = score("additive", base - spread(below, se), base)
    alive, distance = survivors([score("power", base), worse], "elpd_logo")
    assert distance["power"] == (0.0, 0.0)
    assert distance["additive"] == pytest.approx((-below, se), abs=1e-9)
    assert ("additive" in alive) == survives
    assert "power" in alive


def test_the_se_is_of_differences_sequence_by_sequence() -> None:
    """Sequences differ far more in how predictable they are than hypotheses do."""
    base = np.random.default_rng(0).normal(-20, 50, S)
    alive, distance = survivors([score("power", base), score("additive", base - 5.0 / S)], "elpd_logo")
    assert alive == ["power"]
    assert distance["additive"][1] == pytest.approx(0, abs=1e-9)
    assert np.sqrt(S) * base.std(ddof=1) > 100  # the control: what the SE of either one alone would have been


def test_the_ceiling_neither_survives_nor_sets_the_mark() -> None:
    alive, distance = survivors([score("freeform", -100.0), score("additive"), score("power", -303.0)], "elpd_logo")
    assert alive == ["additive", "power"]
    assert distance["freeform"][0] == pytest.approx(200)


def test_a_faulty_rival_neither_survives_nor_sets_the_mark() -> None:
    wrong = {"faults": ("ESS 3 below 400",)}
    made = [score("additive"), score("power", -303.0), score("pooling", -280.0, **wrong)]
    alive, distance = survivors(made, "elpd_logo")
    assert alive == ["additive", "power"]
    assert distance["pooling"] == (20.0, 0.0)  # its distance is told nevertheless
    # The control, and what the verdict rests on: with a fault in it the verdict is refused, so it stays in the race.
    assert survivors([*made[:2], score("pooling", -280.0)], "elpd_logo")[0] == ["pooling"]
    assert survivors([score("additive", -280.0, **wrong), *made[1:2]], "elpd_logo")[0] == ["additive"]


def test_what_has_no_score_does_not_survive() -> None:
    alive, distance = survivors([score("additive", lfo=np.full(S, np.nan)), score("power")], "elpd_lfo")
    assert (alive, set(distance)) == (["power"], {"power"})
    assert survivors([score("freeform")], "elpd_logo") == ([], {})


@given(st.lists(st.floats(-500, 0), min_size=4, max_size=4), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_survivors_do_not_depend_on_order_and_hold_the_best(elpds: list[float], random: Any) -> None:
    made = [score(name, elpd) for name, elpd in zip(("constant", "additive", "power", "pooling"), elpds)]
    alive, distance = survivors(made, "elpd_logo")
    shuffled = list(made)
    random.shuffle(shuffled)
    assert set(survivors(shuffled, "elpd_logo")[0]) == set(alive)
    assert max(made, key=lambda s: s.elpd_logo.sum()).hypothesis in alive
    assert max(d for d, _ in distance.values()) <= 1e-9


# --------------------------------------------------------------------------------------------- verdicts


def test_supported() -> None:
    curves = with_p(0.2, 1)
    verdict = judge(curves, scores())
    assert verdict.verdict == "supported"
    assert verdict.selected == "additive"
    assert verdict.survivors == ["additive", "power"]
    assert verdict.delta == {"mean": 0.56, "hdi_low": 0.5, "hdi_high": 0.62}
    assert (verdict.task, verdict.readout, verdict.n_min) == ("made", "complement", 0)
    assert verdict.seqs_needed is None
    text = " ".join(verdict.reasons)
    for part in ("0.0 (SE 0.0) nats from the best (additive)", "p = ", "a = 0.02 [-0.08, 0.12]"):
        assert part in text


def test_rejected_when_a_sequence_is_left_out() -> None:
    verdict = judge(STRAIGHT, scores(score("power", -280.0)))
    assert (verdict.verdict, verdict.selected, verdict.survivors) == ("rejected", "power", ["power"])
    assert "20.0 (SE 0.0) nats from the best (power)" in verdict.reasons[0]


def test_rejected_by_the_contrast_and_a_together() -> None:
    assert quadratic_contrast(BENT)[1] < 0.01
    bent = {"intervals": {"a": (0.5, 0.4, 0.6)}}
    assert judge(BENT, scores(score("power", -301.0, **bent))).verdict == "rejected"
    # Either alone does not reject.
    assert judge(BENT, scores()).verdict == "undecided"
    assert judge(with_p(0.2, 1), scores(score("power", -301.0, **bent))).verdict == "undecided"


def test_rejected_for_a_small_curvature_says_that_it_is_small() -> None:
    small = score("power", -301.0, intervals={"a": (0.08, 0.04, 0.12)})
    verdict = judge(BENT, scores(small))
    assert verdict.verdict == "rejected"
    assert "small: a lies within (-0.15, 0.15)" in verdict.reasons[-1]
    large = score("power", -301.0, intervals={"a": (0.3, 0.2, 0.4)})
    assert not any("small" in reason for reason in judge(BENT, scores(large)).reasons)


def test_no_update_when_constant_survives() -> None:
    verdict = judge(STRAIGHT, scores(score("constant", -300.5)))
    assert (verdict.verdict, verdict.selected) == ("no_update", "constant")
    assert "additive gains +0.5 (SE 0.0) nats on constant" in verdict.reasons[0]


def test_no_update_when_only_rivals_without_a_mean_update_beat_constant() -> None:
    """A change-point with a gain around 0 fits slopes of mean zero, and claims no learning either."""
    still = {"intervals": {"gain": (0.5, -1.0, 2.0)}}
    made = [score("constant", -300.0), score("additive", -301.0), score("power", -302.0, **still)]
    verdict = judge(STRAIGHT, [*made, score("changepoint", -280.0, **still)])
    assert verdict.verdict == "no_update"
    assert verdict.survivors == ["changepoint"]
    assert "changepoint" in verdict.reasons[-1] and "includes 0" in verdict.reasons[-1]
    # The control: the same scores with a gain clear of 0.
    assert judge(STRAIGHT, [*made, score("changepoint", -280.0)]).verdict == "rejected"


def test_a_gain_that_only_the_se_makes_doubtful_is_no_update() -> None:
    base = np.full(S, -300.0 / S)
    others = [score("additive", base, -150.0), score("power", -300.0, -150.0)]
    for se, verdict in ((5.0, "no_update"), (1.0, "supported")):
        constant = score("constant", base - spread(9.0, se), -150.0)
        assert judge(with_p(0.2, 1), [constant, *others]).verdict == verdict


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"lfo": -170.0}, "when the second half is left out"),
        ({"lfo": np.full(S, np.nan)}, "the second half could not be left out"),
    ],
)
def test_undecided_when_the_future_is_predicted_worse(changed: dict[str, Any], says: str) -> None:
    verdict = judge(with_p(0.2, 1), scores(score("additive", **changed), score("power", -301.0, -150.0)))
    assert verdict.verdict == "undecided"
    assert any(says in reason for reason in verdict.reasons)


def test_undecided_between_the_two_p_values() -> None:
    verdict = judge(with_p(0.011, 0.05), scores())
    assert verdict.verdict == "undecided"
    assert any("p = 0.0" in reason for reason in verdict.reasons)
    assert judge(with_p(0.0501, 0.2), scores()).verdict == "supported"  # the control


def test_undecided_says_how_many_sequences_would_decide() -> None:
    """a = 0 [-0.3, 0.3]: the half-width 0.3 must shrink to 0.15, so four times the sequences."""
    wide = score("power", -300.0, intervals={"a": (0.0, -0.3, 0.3)})
    verdict = judge(with_p(0.2, 1), scores(wide))
    assert verdict.verdict == "undecided"
    assert verdict.seqs_needed == 4 * S
    assert verdict.as_json()["seqs_needed"] == 4 * S
    assert any("not inside (-0.15, 0.15)" in reason for reason in verdict.reasons)
    assert f"about {4 * S} sequences would decide it" in verdict.reasons[-1]
    # Additive 2 nats behind: with twice the sequences it would be 4 nats behind, sooner than a is narrow.
    ahead = score("power", -298.0, intervals={"a": (0.0, -0.3, 0.3)})
    assert judge(with_p(0.2, 1), scores(ahead)).seqs_needed == 2 * S


def test_undecided_when_additive_may_gain_nothing_but_another_law_moves() -> None:
    """Additive is 9 nats (SE 5) better than constant, which a moving law beats by 13 for sure."""
    base = np.full(S, -300.0 / S)
    made = [
        score("constant", base, -150.0),
        score("additive", base + spread(9.0, 5.0), -150.0),
        score("power", base + 13.0 / S, -150.0),
    ]
    verdict = judge(with_p(0.2, 1), made)
    assert (verdict.verdict, verdict.survivors) == ("undecided", ["additive", "power"])
    assert verdict.reasons[0] == "additive gains +9.0 (SE 5.0) nats on constant"
    made[1] = score("additive", base + spread(11.0, 5.0), -150.0)
    assert judge(with_p(0.2, 1), made).verdict == "supported"  # the control


def test_undecided_says_which_way_more_sequences_would_decide() -> None:
    """a = 0.3 [-0.1, 0.7] is clear of 0 once its half-width 0.4 is 0.3."""
    verdict = judge(with_p(0.2, 1), scores(score("power", -301.0, intervals={"a": (0.3, -0.1, 0.7)})))
    assert (verdict.verdict, verdict.seqs_needed) == ("undecided", int(np.ceil(S * (0.4 / 0.3) ** 2)))
    assert "to reject: a clear of 0" in verdict.reasons[-1]
    towards = judge(with_p(0.2, 1), scores(score("power", -301.0, intervals={"a": (0.0, -0.3, 0.3)})))
    assert "to support" in towards.reasons[-1]


def test_a_gap_below_its_own_error_does_not_say_how_many_sequences_are_needed() -> None:
    base = np.full(S, -300.0 / S)
    wide = {"intervals": {"a": (0.0, -0.3, 0.3)}}
    for se, needed in ((3.0, 4 * S), (1.0, 2 * S)):
        ahead = score("power", base + spread(2.0, se), -150.0, **wide)
        verdict = judge(with_p(0.2, 1), scores(score("additive", base, -150.0), ahead))
        assert verdict.seqs_needed == needed


def test_undecided_for_a_reason_that_no_number_of_sequences_tells_says_so() -> None:
    verdict = judge(with_p(0.2, 1), scores(score("additive", lfo=-170.0), score("power", -301.0, -150.0)))
    assert (verdict.verdict, verdict.seqs_needed) == ("undecided", None)
    assert "cannot be said" in verdict.reasons[-1]


def test_the_simplest_survivor_is_named_and_ties_go_to_the_better() -> None:
    made = scores(score("pooling", -299.0), score("saturating", -298.5), score("changepoint", -298.0))
    assert judge(STRAIGHT, made).selected == "additive"
    far = scores(score("additive", -340.0), score("power", -301.0), *made[:3])
    assert judge(STRAIGHT, far).selected == "saturating"


# --------------------------------------------------------------------------------------------- notes


def test_a_verdict_on_curves_as_the_model_has_them_has_no_notes() -> None:
    within = {"lag": -0.4, "lag_low": -0.5, "lag_high": -0.3}
    assert judge(with_p(0.2, 1), scores(score("additive", **within), score("freeform", -299.0))).notes == []


@pytest.mark.parametrize(("lag", "noted"), [(-0.49, False), (-0.51, True), (-0.31, False), (-0.29, True)])
def test_noise_that_is_not_the_models_is_noted(lag: float, noted: bool) -> None:
    def notes(name: str) -> list[str]:
        odd = score(name, -300.0, lag=lag, lag_low=-0.5, lag_high=-0.3)
        return judge(with_p(0.2, 1), scores(odd, score("freeform", -299.0))).notes

    assert [note for note in notes("additive") if f"{lag:.2f}" in note and "[-0.50, -0.30]" in note] == (
        notes("additive") if noted else []
    )
    assert bool(notes("additive")) == noted
    assert notes("power") == []  # only the law selected's own replicates count


@pytest.mark.parametrize(("ceiling", "noted"), [(-296.5, False), (-295.0, True), (-310.0, False)])
def test_a_gap_to_freeform_is_noted(ceiling: float, noted: bool) -> None:
    notes = judge(with_p(0.2, 1), scores(score("freeform", ceiling))).notes
    assert notes == (["additive misses part of the curve: freeform is 5.0 (SE 0.0) nats better"] if noted else [])


def test_a_gap_to_freeform_within_its_se_is_not_noted() -> None:
    base = np.full(S, -300.0 / S)
    for se, noted in ((6.0, False), (4.0, True)):
        made = scores(score("freeform", base + spread(10.0, se)))
        assert bool(judge(with_p(0.2, 1), made).notes) == noted


@pytest.mark.parametrize(
    ("a", "noted"),
    [
        ((0.9, 0.8, 0.98), True),
        ((0.9, 0.8, 0.96), False),
        ((-0.4, -0.48, -0.3), True),
        ((-0.4, -0.46, -0.3), False),
    ],
)
def test_a_at_the_bound_of_its_prior_is_noted(a: tuple[float, float, float], noted: bool) -> None:
    notes = judge(BENT, scores(score("power", -301.0, intervals={"a": a}), score("freeform", -299.0))).notes
    assert notes == (["the power law's a is at the bound of its prior (-0.5, 1.0)"] if noted else [])


def test_sequences_that_pull_and_the_setting_come_with_the_verdict() -> None:
    pulls = [{"seq": 3, "delta_without": 0.4, "pareto_k": 0.9}]
    setting = {"noise": "student", "priors": "halved"}
    verdict = judge(with_p(0.2, 1), scores(score("additive", pulls=pulls, **setting)))
    assert (verdict.pulls, verdict.noise, verdict.priors) == (pulls, "student", "halved")
    assert verdict.as_json()["pulls"] == pulls
    assert judge(with_p(0.2, 1), scores(score("power", -301.0, pulls=pulls))).pulls == []  # only those on delta


# --------------------------------------------------------------------------------------------- refusals

DOUBTS = [
    ({"faults": ("R-hat 1.020 above 1.01",)}, "R-hat 1.020 above 1.01"),
    (
        {"faults": ("ESS 399 below 400", "first half: ESS 3 below 400")},
        "ESS 399 below 400, first half: ESS 3",
    ),
    ({"pareto_k_max": 0.71}, "Pareto k 0.71 after refits"),
    ({"pareto_k_max": float("nan")}, "Pareto k nan"),
]


@pytest.mark.parametrize(("own", "says"), DOUBTS)
@pytest.mark.parametrize("name", ["constant", "additive", "power"])
def test_refused_for_a_fit_on_which_the_verdict_rests(name: str, own: dict[str, Any], says: str) -> None:
    elpd = -380.0 if name == "constant" else -300.0
    verdict = judge(with_p(0.2, 1), scores(score(name, elpd, **own)))
    assert verdict.verdict == "refused"
    assert verdict.reasons[0].startswith(f"{name}: ") and says in verdict.reasons[0]
    assert not any("left aside" in note for note in verdict.notes)  # it is a reason, not a note


@pytest.mark.parametrize(("own", "says"), DOUBTS)
@pytest.mark.parametrize("elpd", [-400.0, -301.0, -297.0], ids=["far worse", "as good", "a little better"])
def test_a_faulty_rival_is_left_aside_and_noted(elpd: float, own: dict[str, Any], says: str) -> None:
    verdict = judge(with_p(0.2, 1), scores(score("pooling", elpd, **own)))
    assert (verdict.verdict, verdict.survivors) == ("supported", ["additive", "power"])
    assert [note for note in verdict.notes if "left aside: pooling: " in note and says in note]
    # The control: without the fault it survives, unless it is far worse, and nothing is noted.
    sound = judge(with_p(0.2, 1), scores(score("pooling", elpd)))
    assert ("pooling" in sound.survivors) == (elpd > -400)
    assert not any("left aside" in note for note in sound.notes)


@pytest.mark.parametrize(("own", "says"), DOUBTS)
def test_refused_where_a_faulty_rival_seems_far_better(own: dict[str, Any], says: str) -> None:
    verdict = judge(with_p(0.2, 1), scores(score("pooling", -280.0, **own)))
    assert verdict.verdict == "refused"
    assert verdict.reasons[0].startswith("pooling: ") and says in verdict.reasons[0]
    assert "it may be 20.0 (SE 0.0) nats better than additive" in verdict.reasons[0]
    # The control: a sound one so far ahead is no reason to refuse.
    assert judge(with_p(0.2, 1), scores(score("pooling", -280.0))).verdict == "rejected"


def test_a_faulty_rival_that_noise_may_have_put_ahead_is_left_aside() -> None:
    """9 nats ahead with a SE of 5: within 2 SE, as a survivor may be behind."""
    base = np.full(S, -300.0 / S)
    for se, verdict in ((5.0, "supported"), (4.0, "refused")):
        ahead = score("pooling", base + spread(9.0, se), -150.0, faults=("ESS 3 below 400",))
        assert judge(with_p(0.2, 1), scores(ahead)).verdict == verdict


def test_a_faulty_ceiling_is_noted_and_no_law_is_held_against_it() -> None:
    verdict = judge(with_p(0.2, 1), scores(score("freeform", -200.0, faults=("ESS 3 below 400",))))
    assert verdict.verdict == "supported"
    assert verdict.notes == ["left aside: freeform: ESS 3 below 400"]
    # The control: of a sound one the gap is told.
    assert "misses part of the curve" in judge(with_p(0.2, 1), scores(score("freeform", -200.0))).notes[0]


def test_all_refusals_are_given() -> None:
    wrong = {"faults": ("ESS 3 below 400",)}
    verdict = judge(with_p(0.2, 1), scores(score("constant", -380.0, **wrong), score("power", -301.0, **wrong)))
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["constant", "power"]
    assert verdict.delta is not None  # what was fitted is still told


def test_at_the_bounds_nothing_is_refused() -> None:
    at_bound = [dataclasses.replace(s, pareto_k_max=0.7) for s in scores()]
    assert judge(with_p(0.2, 1), at_bound).verdict == "supported"
    # The engines' bounds are in the posterior's faults, which a score takes over as they are.
    posterior = Posterior(HYPOTHESES["power"], {}, np.full(1000, -np.log(1000)), "nuts", ess=400.0, rhat_max=1.01)
    assert posterior.faults == []
    past = {"ess": 399.0, "rhat_max": 1.011, "divergences": 1, "k_hat": 0.71}
    assert len(dataclasses.replace(posterior, **past).faults) == 4
    # A high k of weights that are nearly all alike is no fault: most draws count.
    assert dataclasses.replace(posterior, k_hat=0.9, ess=501.0).faults == []
    assert dataclasses.replace(posterior, k_hat=0.9, ess=499.0).faults
    assert dataclasses.replace(posterior, ess=float("nan")).faults  # what could not be computed is no good


def cut(curves: Curves, n_seqs: int, n_shots: int) -> tuple[Curves, list[Score]]:
    short = curves._replace(log_odds=curves.log_odds[:n_seqs, :n_shots], shots=curves.shots[:n_shots])
    kept = [dataclasses.replace(s, elpd_logo=s.elpd_logo[:n_seqs], elpd_lfo=s.elpd_lfo[:n_seqs]) for s in scores()]
    return short, kept


def test_refused_for_few_sequences_or_shots() -> None:
    curves = with_p(0.2, 1)
    seven = judge(*cut(curves, 7, N + 1))
    assert seven.verdict == "refused" and "7 sequences, at least 8" in seven.reasons[0]
    short = judge(*cut(curves, S, 8))
    assert short.verdict == "refused" and "7 updates from n = 0 on, at least 8" in short.reasons[0]
    assert judge(*cut(curves, 8, 9)).verdict != "refused"  # the control: 8 of 8 are enough


@pytest.mark.parametrize("absent", ["constant", "additive", "power"])
def test_refused_without_what_the_verdict_needs(absent: str) -> None:
    verdict = judge(STRAIGHT, [s for s in scores() if s.hypothesis != absent])
    assert verdict.verdict == "refused"
    assert f"{absent} not fitted" in verdict.reasons[0]


# --------------------------------------------------------------------------------------------- the contrast
# More of it in test_checks.


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-2, 2)), min_size=2, max_size=6),
    st.sampled_from([0, 1, 2]),
)
@settings(deadline=None, max_examples=50)
def test_the_contrast_of_lines_is_zero(lines: list[tuple[float, float]], n_min: int) -> None:
    n = np.arange(n_min, 33.0)
    odds = np.array([a + b * n for a, b in lines])
    assert quadratic_contrast(Curves("made", "complement", n, odds))[0] == pytest.approx(0, abs=1e-10)
    # The control, of either sign: a parabola is not.
    for sign in (1, -1):
        bent = Curves("made", "complement", n, odds + sign * 0.01 * n**2)
        assert sign * quadratic_contrast(bent)[0] > 0.1


# --------------------------------------------------------------------------------------------- too little, the table


@pytest.mark.parametrize(
    ("curves", "says"),
    [
        (simulate_curves(1, 16), "1 sequence of 17 shots"),
        (simulate_curves(8, 2), "8 sequences of 3 shots"),
        (Curves("made", "complement", np.arange(9.0), np.full((8, 9), -2.5)), "no variation"),
        (Curves("made", "complement", np.arange(9.0), np.eye(8, 9) * (np.arange(9) < 3)), "more than half of the"),
        (simulate_curves(8, 16, level=0, walk=0), "no variation"),
        (simulate_curves(8, 16, level=0, walk=0, gain_sd=0, f=power_law(0.5)), "no variation"),
        (simulate_curves(8, 16, level=0, walk=0, gain_sd=0, intercept_sd=1e6), "no variation"),
    ],
    ids=["one sequence", "three shots", "constant", "few that move", "lines", "one curve", "far away lines"],
)
def test_too_little_to_fit(curves: Curves, says: str) -> None:
    reason = too_little(curves)
    assert reason is not None and says in reason


def test_enough_to_fit() -> None:
    assert too_little(simulate_curves(2, 3)) is None
    assert too_little(simulate_curves(8, 16, level=0.05, walk=0)) is None
    assert too_little(simulate_curves(8, 16, level=0.0, walk=0.05)) is None


def test_the_table_has_the_columns_of_the_design_and_a_row_each() -> None:
    made = scores() + [dataclasses.replace(s, n_min=1, elpd_logo=s.elpd_logo * 2) for s in scores()]
    table = comparison_table(made)
    columns = "task readout n_min hypothesis elpd_logo se elpd_diff diff_se elpd_lfo survivor pareto_k_max rhat_max"
    assert {*columns.split(), "ess_bulk_min", "divergences"} <= set(table.columns)
    assert list(table.columns[: len(COMPARISON.names)]) == COMPARISON.names == list(comparison_table([]).columns)
    assert len(table) == 8 and not table.duplicated(["task", "readout", "n_min", "hypothesis"]).any()
    row = table[(table.hypothesis == "constant") & (table.n_min == 1)].iloc[0]
    assert (row.elpd_logo, row.elpd_diff, row.survivor) == pytest.approx((-760.0, -160.0, False))
    assert row.gap_to_freeform == pytest.approx(-180.0)
    row = table[(table.hypothesis == "power") & (table.n_min == 0)].iloc[0]
    assert (row.a_mean, row.a_hdi_low, row.a_hdi_high) == (0.02, -0.08, 0.12)
    assert (row.lfo_diff, row.survivor_lfo) == pytest.approx((-0.5, True))
    assert np.isnan(table[table.hypothesis == "constant"].iloc[0].delta_mean)


def test_the_table_has_the_numbers_of_the_scores() -> None:
    numbers = {"k_hat": 0.1, "nrmse": 0.2, "nrmse_ahead": 0.3, "coverage_ahead": 0.9, "lag": -0.4, "lag_low": -0.5}
    numbers |= {"lag_high": -0.3, "log_marginal": -99.0, "refits": 2, "pareto_k_max": 0.6, "divergences": 4}
    base = np.random.default_rng(0).normal(-20, 5, S)
    table = comparison_table(scores(score("additive", base, engine="nuts", **numbers)))
    row = table.set_index("hypothesis").loc["additive"]
    assert row[list(numbers)].to_dict() == pytest.approx(numbers)
    assert (row.engine, row.se) == ("nuts", pytest.approx(np.sqrt(S) * base.std(ddof=1)))


def test_a_table_without_a_ceiling_has_no_gap() -> None:
    table = comparison_table([s for s in scores() if s.hypothesis != "freeform"])
    assert table.gap_to_freeform.isna().all() and table.elpd_diff.notna().all()


def verdict_json(**own: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "task": "made",
        "readout": "complement",
        "n_min": 1,
        "verdict": "supported",
        "reasons": [],
        "selected": "additive",
        "delta": {"mean": 0.5, "hdi_low": 0.4, "hdi_high": 0.6},
    }
    return Verdict(**fields | own).as_json()


def test_the_sensitivity_table_has_a_row_a_setting_the_headline_first() -> None:
    others = [
        verdict_json(n_min=0, verdict="undecided", seqs_needed=40),
        verdict_json(priors="halved"),
        verdict_json(noise="student", verdict="rejected", selected="power"),
    ]
    refused = refuse(STRAIGHT, "no variation").as_json()
    table = sensitivity_table({"one": {**verdict_json(), "others": others}, "two": {**refused, "others": []}})
    assert list(table.task) == ["one"] * 4 + ["two"]
    assert list(table.headline) == [True, False, False, False, True]
    assert list(table.n_min) == [1, 0, 1, 1, 0]
    assert list(table.priors) == ["stated", "stated", "halved", "stated", "stated"]
    assert list(table.noise) == ["normal", "normal", "normal", "student", "normal"]
    assert list(table.verdict) == ["supported", "undecided", "supported", "rejected", "refused"]
    assert list(table.selected[:4]) == ["additive", "additive", "additive", "power"] and pd.isna(table.selected[4])
    assert table.seqs_needed[1] == 40
    assert table.iloc[0][["delta_mean", "delta_hdi_low", "delta_hdi_high"]].to_list() == [0.5, 0.4, 0.6]
    assert table.iloc[4][["delta_mean", "delta_hdi_low", "delta_hdi_high"]].isna().all()
