"""Problems whose answers are known in closed form: Bayes by enumeration or recursion, then the whole package on it.

1. A rule of sign +1 or -1 under noise: exactly log 2 an example. 2. Two coins: log 3 a flip, and what averaging
probabilities makes of it. 3. Beta-Bernoulli counts: logarithmic. 4. Leaky counts. 5. The scaling law of Arora et al.
with two tasks is a four-parameter logistic.

Curves are the exact log-odds plus level noise of known sd: without noise there would be nothing to judge by.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom

from bayes_icl.curves import Curves
from bayes_icl.fit.verdict import judge
from bayes_icl.hypotheses import HISTORY_LAWS, HYPOTHESES, Uniform, hypothesis
from bayes_icl.hypotheses.laws import lapse_from_scaling_law
from bayes_icl.inference.history_scores import score_history
from bayes_icl.inference.scores import Score, score_curves
from bayes_icl.inference.survival import survivors

LOG2, LOG3 = np.log(2), np.log(3)


def curves_of(odds: np.ndarray, level: float, seed: int) -> Curves:
    """Log-odds of sequences (seq, shot) from n = 0 on, as a model that adds level noise would give them."""
    noise = np.random.default_rng(seed).normal(0, level, size=odds.shape)
    return Curves("known", "complement", np.arange(odds.shape[1], dtype=float), odds + noise)


def fits(curves: Curves, *names: str) -> dict[str, Score]:
    return {name: score_curves(HYPOTHESES[name], curves)[0] for name in names}


def history_fits(curves: Curves, *names: str) -> dict[str, Score]:
    return {name: score_history(HISTORY_LAWS[name], curves)[0] for name in names}


def holds(score: Score, name: str, value: float) -> bool:
    _, low, high = score.intervals[name]
    return bool(low < value < high)


def elpd(scores: dict[str, Score], name: str) -> float:
    return float(scores[name].elpd_logo.sum())


# --------------------------------------------------------------------------------------------- 1: the sign


def sign_task(n: int) -> np.ndarray:
    """Posterior mean of f after 1 ... n examples y = f + noise = +1: f = +-1 equally likely, noise -2, 0, 2 with
    probability 1/4, 1/2, 1/4."""
    noise = {-2: 0.25, 0: 0.5, 2: 0.25}
    belief = {1: 0.5, -1: 0.5}
    means = []
    for _ in range(n):
        belief = {f: p * noise[1 - f] for f, p in belief.items()}
        total = sum(belief.values())
        belief = {f: p / total for f, p in belief.items()}
        means.append(belief[1] - belief[-1])
    return np.array(means)


def test_the_sign_is_learned_by_log_2_an_example() -> None:
    means = sign_task(24)
    np.testing.assert_allclose(means[:3], [1 / 3, 3 / 5, 7 / 9])
    odds = np.concatenate([[0], np.log((1 + means) / (1 - means))])
    np.testing.assert_allclose(odds, LOG2 * np.arange(25), rtol=1e-8)  # 2^n against 1
    curves = curves_of(np.tile(odds, (64, 1)), 1.0, seed=0)
    scores = fits(curves, "constant", "additive", "power", "logarithmic", "saturating", "lapse", "freeform")
    assert holds(scores["additive"], "delta", 0.6931)
    # Its interval says something: within 3 % of it either way.
    _, low, high = scores["additive"].intervals["delta"]
    assert high - low < 0.06 * LOG2
    verdict = judge(curves, list(scores.values()))
    assert (verdict.verdict, verdict.selected) == ("supported", "additive"), verdict.reasons
    # No lapses: both knees lie outside the examples shown, or lapse would have something to gain.
    assert elpd(scores, "lapse") < elpd(scores, "additive") + 1
    assert holds(scores["lapse"], "slope", LOG2)
    # b = 0: the mean level at n = 0, 64 values of noise 1.
    assert abs(curves.log_odds[:, 0].mean()) < 5 / 8
    # The control: the same with updates that fall as n^-0.3.
    bent = np.arange(25.0) ** 0.7 * odds[-1] / 24**0.7
    wrong = curves_of(np.tile(bent, (64, 1)), 1.0, seed=0)
    verdict = judge(wrong, list(fits(wrong, "constant", "additive", "power", "freeform").values()))
    assert verdict.verdict == "rejected", verdict.reasons


# --------------------------------------------------------------------------------------------- 2: two coins


def coins(n_seqs: int, n: int, seed: int) -> np.ndarray:
    """Evidence of each flip of a coin of 3/4 heads against one of 1/4: +-log 3; 0 at n = 0."""
    heads = np.random.default_rng(seed).random((n_seqs, n)) < 0.75
    return np.concatenate([np.zeros((n_seqs, 1)), LOG3 * np.where(heads, 1.0, -1.0)], axis=1)


def averaged(n: int) -> float:
    """Log-odds of the probability averaged over all sequences of n flips, exactly."""
    k = np.arange(n + 1)
    right = binom(n, 0.75).pmf(k)
    odds = LOG3 * (2 * k - n)
    return float(np.log((right * expit(odds)).sum()) - np.log((right * expit(-odds)).sum()))


def test_averaging_probabilities_first_loses_most_of_the_update() -> None:
    n = [1, 5, 10, 20, 50, 100]
    ratios = [averaged(i) / (i * LOG3 / 2) for i in n]
    np.testing.assert_allclose(ratios, [0.93, 0.60, 0.48, 0.40, 0.33, 0.30], atol=0.005)
    # The mean of log-odds loses nothing, and its sd grows with the root.
    for i in n:
        k = np.arange(i + 1)
        odds, p = LOG3 * (2 * k - i), binom(i, 0.75).pmf(k)
        assert p @ odds == pytest.approx(i * 0.5493, rel=1e-4)
        assert np.sqrt(p @ odds**2 - (p @ odds) ** 2) == pytest.approx(LOG3 * np.sqrt(0.75 * i))


def test_two_coins_by_sequence_and_averaged_first() -> None:
    """delta = log(3)/2 a flip in its interval by sequence; from averaged probabilities it is half of it or less."""
    evidence = coins(256, 20, seed=1)
    curves = curves_of(np.cumsum(evidence, axis=1), 0.5, seed=1)
    scores = fits(curves, "constant", "additive", "power")
    assert holds(scores["additive"], "delta", 0.5493)
    assert holds(scores["additive"], "walk", LOG3 * np.sqrt(0.75)) and holds(scores["additive"], "level", 0.5)
    assert scores["additive"].intervals["gain_sd"][0] < 2
    # The control, which must fail: groups of 256 sequences, each averaged as probabilities before its logit is taken.
    p = expit(np.cumsum(coins(16384, 20, seed=1), axis=1)).reshape(64, 256, 21).mean(1)
    first = curves_of(logit(p), 0.1, seed=1)
    wrong = fits(first, "constant", "additive", "power", "freeform")
    assert not holds(wrong["additive"], "delta", 0.5493)
    assert wrong["additive"].intervals["delta"][0] < 0.5 * 0.5493
    verdict = judge(first, list(wrong.values()))
    assert verdict.verdict == "rejected", verdict.reasons  # bent by the averaging alone


def observed(evidence: np.ndarray, weight: float = 1.0) -> Curves:
    """What weighs each flip so, beside the ideal observer."""
    belief = np.cumsum(evidence, axis=1)
    return curves_of(weight * belief, 0.5, seed=2)._replace(history=np.sign(evidence[:, 1:]), observer=belief)


def test_the_ideal_observer_of_two_coins_has_weight_1_and_wins() -> None:
    evidence = coins(64, 32, seed=2)
    curves = observed(evidence)
    scores = history_fits(curves, "trend", "observer", "counting", "averaging", "signed")
    assert holds(scores["observer"], "w", 1.0) and holds(scores["signed"], "w", LOG3)
    _, low, high = scores["observer"].intervals["w"]
    assert high - low < 0.05
    # That log-odds count flips is what the observer says; none of the others does.
    alive, distance = survivors(list(scores.values()), "elpd_logo")
    assert set(alive) == {"observer", "signed"}
    assert max(distance[name][0] for name in ("trend", "counting", "averaging")) < -100
    # Each flip is known, so nothing is left of the walk that a law of n alone needs.
    walk = fits(curves, "additive")["additive"].intervals["walk"][0]
    assert scores["observer"].intervals["walk"][0] < 0.1 < 0.8 < walk
    # The controls: who takes half of each flip has weight 1/2; flips of other sequences explain nothing.
    (half,) = history_fits(observed(evidence, 0.5), "observer").values()
    assert holds(half, "w", 0.5) and not holds(half, "w", 1.0)
    assert curves.observer is not None
    others = curves._replace(observer=np.roll(curves.observer, 1, axis=0))
    assert elpd(history_fits(others, "observer"), "observer") < elpd(scores, "observer") - 100


def test_evidence_whose_mean_is_0_is_weighed_too() -> None:
    """Of no unit can be taken from it; and a design of mirrored sequences has no mean curve at all."""
    shown = np.random.default_rng(6).choice([-1.0, 1.0], size=(24, 16))
    shown[1::2] = -shown[::2]
    evidence = np.concatenate([np.zeros((24, 1)), shown], axis=1)
    assert abs(evidence.sum()) < 1e-12
    curves = observed(evidence, 0.7)
    (score,) = history_fits(curves, "observer").values()
    _, low, high = score.intervals["w"]
    assert low < 0.7 < high and high - low < 0.12 and not score.faults
    # The control: of evidence of the other sign the weight is that below 0.
    assert curves.observer is not None
    (mirrored,) = history_fits(curves._replace(observer=-curves.observer), "observer").values()
    assert mirrored.intervals["w"][0] == pytest.approx(-score.intervals["w"][0], abs=0.02)


# --------------------------------------------------------------------------------------------- 3: counts


@pytest.mark.parametrize("a", [1.0, 0.5])
def test_counts_from_beta_are_logarithmic(a: float) -> None:
    """From Beta(a, a), n heads in a row: log((n + a) / a), that is log(n + 1) and log(2n + 1)."""
    counts, odds = np.array([a, a]), [0.0]
    for _ in range(32):
        counts[0] += 1
        odds.append(float(np.log(counts[0] / counts[1])))
    if a == 1.0:
        np.testing.assert_allclose(np.array(odds)[[1, 2, 4, 8, 16]], [0.693, 1.099, 1.609, 2.197, 2.833], atol=5e-4)
    np.testing.assert_allclose(odds, np.log1p(np.arange(33) / a))
    curves = curves_of(np.tile(odds, (32, 1)), 0.3, seed=3)
    scores = fits(curves, "constant", "additive", "power", "logarithmic", "saturating", "freeform")
    for rival in ("constant", "additive", "power", "saturating"):
        assert elpd(scores, "logarithmic") > elpd(scores, rival) + 4, rival
        assert np.nansum(scores["logarithmic"].elpd_lfo) > np.nansum(scores[rival].elpd_lfo), rival
    assert holds(scores["logarithmic"], "c", a) and not holds(scores["logarithmic"], "c", 3 * a)
    assert holds(scores["logarithmic"], "gain", odds[-1])
    assert judge(curves, list(scores.values())).verdict == "rejected"
    # The control: on a straight line it does not win.
    straight = curves_of(np.tile(np.linspace(0, odds[-1], 33), (32, 1)), 0.3, seed=3)
    on_line = fits(straight, "additive", "logarithmic")
    assert elpd(on_line, "logarithmic") < elpd(on_line, "additive")


# --------------------------------------------------------------------------------------------- 4: leaky counts


def leaky(n: int, keep: float) -> np.ndarray:
    """log(heads / tails) after 0 ... n heads, when counts from Beta(1, 1) are discounted before each, by recursion."""
    heads, tails, odds = 1.0, 1.0, [0.0]
    for _ in range(n):
        heads, tails = keep * heads + 1, keep * tails
        odds.append(float(np.log(heads / tails)))
    return np.array(odds)


@pytest.fixture
def leaky_beta() -> Iterator[str]:
    """As a user would write it."""

    @hypothesis(
        "leaky_beta",
        complexity=2,
        in_nats=True,
        priors={"keep": Uniform(0.1, 1.0)},
        meanings={"keep": "what is left of each count when an example comes"},
        reference="Gupta et al. 2025, with a prior that is discounted too",
        predicts="ever larger updates, up to -log keep",
    )
    def leaky_beta(xp: Any, n: Any, keep: Any) -> Any:
        """log(1 + (keep^-n - 1) / (1 - keep)): log(1 + n) as keep goes to 1."""
        rate = -xp.log(keep)
        return xp.log1p(xp.expm1(n * rate) / xp.maximum(-xp.expm1(-rate), 1e-12))

    yield "leaky_beta"
    del HYPOTHESES["leaky_beta"]


@pytest.mark.parametrize(("keep", "known"), [(0.8807, 4.036), (0.4655, 12.861), (1.0, 2.833)])
def test_leaky_counts_have_a_closed_form(keep: float, known: float, leaky_beta: str) -> None:
    assert leaky(16, keep)[16] == pytest.approx(known, abs=5e-4)
    n = np.arange(33.0)
    near = min(keep, 1 - 1e-9)
    found = HYPOTHESES[leaky_beta].curve(np, n, np.array([[near]]))[0]
    np.testing.assert_allclose(found, leaky(32, keep), atol=1e-6)
    other = HYPOTHESES[leaky_beta].curve(np, n, np.array([[0.9 * keep]]))[0]
    assert abs(other - leaky(32, keep)).max() > 0.1  # the control


@pytest.mark.parametrize("keep", [0.8807, 0.4655])
def test_leaky_counts_are_found_by_a_users_hypothesis(keep: float, leaky_beta: str) -> None:
    curves = curves_of(np.tile(leaky(16, keep), (64, 1)), 0.1, seed=4)
    scores = fits(curves, "constant", "additive", "power", "logarithmic", "saturating", leaky_beta, "freeform")
    assert scores[leaky_beta].faults == ()
    assert holds(scores[leaky_beta], "keep", keep) and not holds(scores[leaky_beta], "keep", 0.9 * keep)
    assert holds(scores[leaky_beta], "gain", leaky(16, keep)[16])
    alive, _ = survivors(list(scores.values()), "elpd_logo")
    assert alive == [leaky_beta]
    verdict = judge(curves, list(scores.values()))
    # Where little is kept all updates but the first few are the same: that curve is within 5 % of a line.
    n, odds = np.arange(17), leaky(16, keep)
    departs = abs(odds - np.polyval(np.polyfit(n, odds, 1), n)).max() / odds[-1]
    assert departs == pytest.approx(0.190 if keep > 0.5 else 0.032, abs=1e-3)
    expected = ("rejected", leaky_beta) if departs > 0.05 else ("supported", "additive")
    assert (verdict.verdict, verdict.selected) == expected, verdict.reasons
    # The control: counts that are not discounted are logarithmic again.
    plain = curves_of(np.tile(leaky(16, 1.0), (64, 1)), 0.1, seed=4)
    on_plain = fits(plain, "logarithmic", leaky_beta)
    assert elpd(on_plain, leaky_beta) < elpd(on_plain, "logarithmic") + 4
    assert on_plain[leaky_beta].intervals["keep"][2] > 0.97


def test_the_users_hypothesis_is_gone_again() -> None:
    assert "leaky_beta" not in HYPOTHESES


# --------------------------------------------------------------------------------------------- 5: the scaling law


def test_the_scaling_law_with_two_tasks_is_a_four_parameter_logistic() -> None:
    """p = P2 + (P1 - P2) sigma(logit rho + K n log(P1 / P2)), to 1e-12, and so is `lapse`; any rho, P1, P2, K."""
    rng, n = np.random.default_rng(5), np.arange(65.0)
    worst = 0.0
    for _ in range(2000):
        rho, k = rng.uniform(0.001, 0.999), rng.uniform(0.01, 2.0)
        p2, p1 = np.sort(rng.uniform(0.01, 0.99, size=2))
        if p1 / p2 < 1.01:
            continue
        # As published, in powers of P1 and P2 less a common factor.
        first, second = rho, (1 - rho) * (p2 / p1) ** (k * n)
        p = (first * p1 + second * p2) / (first + second)
        assert abs(p - (p2 + (p1 - p2) * expit(logit(rho) + k * n * np.log(p1 / p2)))).max() < 1e-12
        theta = {name: np.array([[x]]) for name, x in lapse_from_scaling_law(rho, p1, p2, k).items()}
        curve = HYPOTHESES["lapse"].curve(np, n, **theta)[0]
        worst = max(worst, abs(expit(curve - curve[0] + logit(p[0])) - p).max())
        # The control: with K 1 % larger it is another curve.
        if rho * (1 - rho) > 0.05 and p1 - p2 > 0.1 and k * np.log(p1 / p2) > 0.02:
            assert abs(p2 + (p1 - p2) * expit(logit(rho) + 1.01 * k * n * np.log(p1 / p2)) - p).max() > 1e-6
    assert worst < 1e-12
