"""Each check against plain formulas, its false alarms and power on simulated curves, and inputs with no answer."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from simulate import line, power_law, simulate_curves

from bayes_icl.curves import Curves
from bayes_icl.fit import checks as fit_checks
from bayes_icl.fit.checks import CHECK_COLUMNS, departure_by_polynomials, frequentist_checks, quadratic_contrast
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.scores import score_curves

NAMES = ["slope by sequence", "quadratic contrast", "departure by polynomials"]
NUMBERS = ["estimate", "se", "low", "high", "p"]
CURVES = simulate_curves(24, 16, seed=3, intercept_sd=3.0, n_min=1)


def numbers(curves: Curves, check: str) -> list[float]:
    table = frequentist_checks(curves).set_index("check")
    assert table.loc[check, "note"] == ""
    return [float(table.loc[check, column]) for column in NUMBERS]


def made(log_odds: np.ndarray) -> Curves:
    return Curves("made", "complement", np.arange(log_odds.shape[1], dtype=float), log_odds)


def by_t(estimate: float, se: float, df: int) -> list[float]:
    half = stats.t.ppf(0.975, df) * se
    return [estimate, se, estimate - half, estimate + half, 2 * stats.t.sf(abs(estimate / se), df)]


def test_one_row_a_check() -> None:
    table = frequentist_checks(CURVES)
    assert table.columns.tolist() == CHECK_COLUMNS
    assert table.check.tolist() == NAMES
    units = ["nats/example", "nats", "share of the total update"]
    assert all(quantity.endswith(unit) for quantity, unit in zip(table.quantity, units, strict=True))


def test_slope_by_sequence_by_hand() -> None:
    slopes = np.array([np.polyfit(CURVES.shots, row, 1)[0] for row in CURVES.log_odds])
    expected = by_t(slopes.mean(), slopes.std(ddof=1) / np.sqrt(len(slopes)), len(slopes) - 1)
    assert numbers(CURVES, "slope by sequence") == pytest.approx(expected, rel=1e-9)


def test_quadratic_contrast_by_hand() -> None:
    # A parabola's leading coefficient, times the length of what n^2 leaves beside a line.
    leading = np.array([np.polyfit(CURVES.shots, row, 2)[0] for row in CURVES.log_odds])
    square = CURVES.shots**2
    beside = square - np.polyval(np.polyfit(CURVES.shots, square, 1), CURVES.shots)
    each = leading * np.linalg.norm(beside)
    expected = by_t(each.mean(), each.std(ddof=1) / np.sqrt(len(each)), len(each) - 1)
    assert numbers(CURVES, "quadratic contrast") == pytest.approx(expected, rel=1e-7)
    assert quadratic_contrast(CURVES) == pytest.approx((expected[0], expected[-1]), rel=1e-7)


def polynomials(shots: np.ndarray) -> np.ndarray:
    """Legendre polynomials of degree 1 to 3, made orthonormal over the shots; shape (shot, 3)."""
    x = 2 * (shots - shots[0]) / np.ptp(shots) - 1
    basis: list[np.ndarray] = []
    for degree in range(4):
        new = np.polynomial.legendre.Legendre.basis(degree)(x)
        new = new - sum((new @ old) * old for old in basis)
        basis.append(new / np.linalg.norm(new))
    return np.stack(basis[1:], axis=1)


def test_departure_by_polynomials_follows_a_multivariate_t() -> None:
    """Of the mean of three numbers a sequence under a flat prior: S - 3 degrees of freedom, scatter / (S (S - 3))."""
    basis = polynomials(CURVES.shots)
    each = CURVES.log_odds @ basis
    n = len(each)
    beside = each - each.mean(0)
    scale = beside.T @ beside / (n * (n - 3))
    draws = stats.multivariate_t(each.mean(0), scale, df=n - 3, seed=1).rvs(200_000)
    curve = draws @ basis.T
    off = np.abs(draws[:, 1:] @ basis[:, 1:].T).max(1) / np.abs(curve[:, -1] - curve[:, 0])
    found = departure_by_polynomials(CURVES, draws=200_000)
    at = np.linspace(0.02, 0.98, 25)
    # Quantiles of 200,000 draws are known to about 0.5 % of the spread.
    np.testing.assert_allclose(np.quantile(found, at), np.quantile(off, at), atol=0.02 * off.std())
    few = frequentist_checks(CURVES).set_index("check").loc["departure by polynomials"]
    np.testing.assert_allclose([few.low, few.high], np.quantile(off, (0.025, 0.975)), atol=0.1 * off.std())
    assert few.estimate == pytest.approx(np.median(off), abs=0.1 * off.std())


def test_departure_of_a_parabola_has_a_t_interval() -> None:
    """Where sequences differ in one number alone, their bow, the departure is that number, and its interval is t's."""
    n, s = 9, 12
    shots = np.arange(n, dtype=float)
    x = shots - shots.mean()
    bow = x**2 - (x**2).mean()
    height = 0.2 + 0.02 * np.random.default_rng(0).normal(size=s)
    # The three numbers must vary: a slope and a cubic that do by a millionth do not matter.
    other = 1e-6 * np.random.default_rng(1).normal(size=(s, 2))
    cubic = x**3 - x * (x**4).sum() / (x**2).sum()
    log_odds = np.outer(5 + other[:, 0], x) - np.outer(height, bow) + np.outer(other[:, 1], cubic)
    curves = Curves("made", "complement", shots, log_odds)
    # Three means share S - 3 degrees of freedom, and the interval of one is that of S - 1 with its scale.
    share = np.abs(bow).max() / (5 * np.ptp(x))
    half = stats.t.ppf(0.975, s - 3) * np.sqrt(height.var(ddof=0) * s / (s * (s - 3)))
    low, high = np.quantile(departure_by_polynomials(curves, draws=200_000), (0.025, 0.975))
    assert (low, high) == pytest.approx((share * (height.mean() - half), share * (height.mean() + half)), rel=5e-3)


def test_the_departure_s_p_is_hotelling_s() -> None:
    each = CURVES.log_odds @ polynomials(CURVES.shots)[:, 1:]
    n = len(each)
    t2 = n * each.mean(0) @ np.linalg.solve(np.cov(each.T), each.mean(0))
    p = stats.f.sf(t2 * (n - 2) / (2 * (n - 1)), 2, n - 2)
    assert numbers(CURVES, "departure by polynomials")[-1] == pytest.approx(p, rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("f", [line, power_law(0.3)], ids=["line", "n^0.7"])
@pytest.mark.parametrize("n_seqs", [24, 96])
def test_it_agrees_with_the_departure_of_the_free_mean(f, n_seqs: int) -> None:
    """Two roads to one number: their 95 % intervals overlap, and both hold less where there is less."""
    found = []
    for seed in range(2):
        curves = simulate_curves(n_seqs, 32, f=f, seed=seed, n_min=1)
        free = score_curves(HYPOTHESES["freeform"], curves, future=False, checks=False)[0].straightness
        assert free is not None
        low, high = np.quantile(departure_by_polynomials(curves), (0.025, 0.975))
        assert low <= free.departure.high and free.departure.low <= high
        found.append((np.median(departure_by_polynomials(curves)), free.departure.mean))
    polynomial, bayesian = np.mean(found, axis=0)
    truth = f(curves.shots)
    beside = truth - np.polyval(np.polyfit(curves.shots, truth, 1), curves.shots)
    departs = np.abs(beside).max() / np.ptp(truth)
    # The largest of many distances is above 0 even for a line, and smoothing takes some off a bend; less so with more
    # sequences.
    for mean in (polynomial, bayesian):
        assert abs(mean - departs) < (0.05 if n_seqs == 24 else 0.025)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_and_offsets(factor: float) -> None:
    plain, scaled = frequentist_checks(CURVES), frequentist_checks(CURVES._replace(log_odds=CURVES.log_odds * factor))
    in_nats = plain.check != "departure by polynomials"  # which is a share
    np.testing.assert_allclose(scaled[in_nats][NUMBERS[:4]] / factor, plain[in_nats][NUMBERS[:4]], rtol=1e-6)
    np.testing.assert_allclose(scaled[~in_nats][NUMBERS[:4]], plain[~in_nats][NUMBERS[:4]], rtol=1e-6)
    np.testing.assert_allclose(scaled.p, plain.p, rtol=1e-4)
    shifted = frequentist_checks(CURVES._replace(shots=CURVES.shots + 100))
    np.testing.assert_allclose(shifted[NUMBERS[:4]], plain[NUMBERS[:4]], rtol=1e-5, atol=1e-12)


# ------------------------------------------------------------------------------------------ size and power

RUNS = 200
FALSE_ALARM_RUNS = 1000


def rejected(check: str, runs: int, **truth: object) -> float:
    """Share of simulated sets in which a check of curvature rejects at 5 %."""
    of = {"quadratic contrast": lambda curves: quadratic_contrast(curves)[1], "departure": fit_checks._bend_p}[check]
    p = [of(simulate_curves(32, 24, seed=5000 + seed, **truth)) for seed in range(runs)]  # type: ignore[arg-type]
    return float(np.mean(np.array(p) < 0.05))


NOISES = [dict(level=1.5, walk=0.0), dict(level=0.3, walk=0.5), dict(level=1.0, walk=0.4)]


@pytest.mark.parametrize("noise", NOISES, ids=["level", "walk", "both"])
@pytest.mark.parametrize("check", ["quadratic contrast", "departure"])
def test_false_alarms(check: str, noise: dict[str, float]) -> None:
    # Tests over sequences, of t and of Hotelling, exact under normal noise: the share in 1000 sets has sd 0.007.
    assert 0.03 <= rejected(check, FALSE_ALARM_RUNS, **noise) <= 0.07


@pytest.mark.parametrize("check", ["quadratic contrast", "departure"])
def test_power(check: str) -> None:
    assert rejected(check, RUNS, f=power_law(0.3), level=1.5, walk=0.1) > 0.95


def test_coverage_of_delta() -> None:
    curves = (simulate_curves(12, 12, seed=seed, gain_sd=4.0, level=1.0, walk=0.3) for seed in range(RUNS))
    rows = [fit_checks._slope_by_sequence(one) for one in curves]
    assert 0.90 <= np.mean([row["low"] < 9.6 / 12 < row["high"] for row in rows]) <= 0.99


# ------------------------------------------------------------------------------------------ no answer

LINE = np.arange(10.0)
NO_ANSWER = {
    "nothing": np.zeros((0, 0)),
    "no shots": np.zeros((3, 0)),
    "one sequence": CURVES.log_odds[:1],
    "one shot": CURVES.log_odds[:, :1],
    "constant": np.full((8, 10), 0.1),
    "constant within sequences": np.repeat(np.linspace(-3, 3, 8)[:, None], 10, axis=1),
    "one line": np.tile(0.3 * LINE, (8, 1)) + 0.7,
    "lines of one slope": 0.1 * LINE + np.linspace(-3, 3, 8)[:, None],
    "all alike": np.tile(CURVES.log_odds[0], (8, 1)),
    "not finite": np.full((4, 5), np.nan),
}


@pytest.mark.parametrize("case", NO_ANSWER)
def test_no_answer_is_said(case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = frequentist_checks(made(NO_ANSWER[case]))
    assert table.check.tolist() == NAMES
    assert table[NUMBERS].isna().all(axis=None)
    assert (table.note.str.len() > 5).all()


def test_two_sequences_and_three_shots() -> None:
    table = frequentist_checks(made(CURVES.log_odds[:2, :3])).set_index("check")
    assert table.loc[NAMES[:2], NUMBERS].notna().all(axis=None)
    assert table.loc["departure by polynomials", "note"] == "needs 5 sequences of 5 shots, got 2 of 3"
    enough = frequentist_checks(made(CURVES.log_odds[:5, :5])).set_index("check")
    assert enough.loc["departure by polynomials", NUMBERS].notna().all()
    slopes = np.diff(CURVES.log_odds[:2, [0, 2]])[:, 0] / 2
    assert table.loc["slope by sequence", "se"] == pytest.approx(abs(np.diff(slopes)[0]) / 2)


def test_a_departure_of_sequences_that_differ_in_nothing_is_a_number() -> None:
    """Of the function by itself; `frequentist_checks` says that there is no variation."""
    found = departure_by_polynomials(made(np.tile(LINE + 0.01 * LINE**2, (8, 1))))
    beside = 0.01 * LINE**2 - np.polyval(np.polyfit(LINE, 0.01 * LINE**2, 1), LINE)
    assert found == pytest.approx(np.full(4000, np.abs(beside).max() / (9 + 0.81)), rel=1e-6)


def test_lines_of_different_slopes() -> None:
    """Curvature has no answer, the slope has."""
    curves = made(np.linspace(0.1, 0.5, 8)[:, None] * LINE)
    table = frequentist_checks(curves).set_index("check")
    assert table.loc["slope by sequence", "estimate"] == pytest.approx(0.3)
    assert (table.loc[NAMES[1:], "note"] != "").all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factor", [1e-300, 1e160, 1e300])
def test_extreme_numbers_are_no_exception(factor: float) -> None:
    assert frequentist_checks(made(CURVES.log_odds * factor)).check.tolist() == NAMES


def test_importing_is_cheap() -> None:
    import subprocess
    import sys

    code = (
        "import sys, bayes_icl.fit.checks, bayes_icl.inference.psis, bayes_icl.fit.pooling;"
        "print([name for name in ('statsmodels', 'arviz', 'pymc', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
