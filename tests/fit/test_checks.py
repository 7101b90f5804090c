"""Each check against plain formulas, its false alarms and power on simulated curves, and inputs with no answer."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from simulate import power_law, simulate_curves

from bayes_icl.curves import Curves
from bayes_icl.fit import checks as fit_checks
from bayes_icl.fit.checks import CHECK_COLUMNS, frequentist_checks, quadratic_contrast

NAMES = ["slope by sequence", "quadratic contrast", "updates on n", "mixed model"]
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
    assert all("nats" in quantity for quantity in table.quantity)


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


def test_updates_on_n_by_a_sandwich_written_out() -> None:
    y = np.diff(CURVES.log_odds, axis=1)
    n_seqs, n_updates = y.shape
    x = np.stack([np.ones(n_updates), CURVES.shots[1:]], axis=1)
    bread = np.linalg.inv(n_seqs * x.T @ x)
    beta = bread @ (x.T @ y.T).sum(1)
    meat = sum(np.outer(x.T @ (row - x @ beta), x.T @ (row - x @ beta)) for row in y)
    small = n_seqs / (n_seqs - 1) * (y.size - 1) / (y.size - 2)
    se = np.sqrt((small * bread @ meat @ bread)[1, 1])
    assert numbers(CURVES, "updates on n") == pytest.approx(by_t(beta[1], se, n_seqs - 1), rel=1e-9)


@pytest.mark.parametrize("n_seqs, n_shots", [(8, 8), (24, 16), (64, 32)])
def test_mixed_model_is_the_mean_slope_on_balanced_data(n_seqs: int, n_shots: int) -> None:
    curves = simulate_curves(n_seqs, n_shots, seed=1, gain_sd=4.0)
    expected = numbers(curves, "slope by sequence")
    assert numbers(curves, "mixed model") == pytest.approx(expected, rel=1e-4)


def test_mixed_model_is_at_the_maximum_of_the_restricted_likelihood() -> None:
    """Its standard error comes from a covariance that no neighbour beats, by a dense likelihood."""
    y, n = CURVES.log_odds, CURVES.shots
    z = np.stack([np.ones_like(n), (n - n.mean()) / n.std()], axis=1)
    lines = y @ z / len(n)
    noise = ((y - lines @ z.T) ** 2).sum() / (len(y) * (len(n) - 2))
    covariance = np.cov(lines.T) - noise * np.eye(2) / len(n)

    def reml(cov: np.ndarray, noise: float) -> float:
        v = z @ cov @ z.T + noise * np.eye(len(n))
        left = y - y.mean(0) @ np.linalg.solve(v, z) @ np.linalg.inv(z.T @ np.linalg.solve(v, z)).T @ z.T
        information = len(y) * z.T @ np.linalg.solve(v, z)
        quadratic = np.einsum("si,ij,sj", left, np.linalg.inv(v), left)
        return -0.5 * (len(y) * np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1] + quadratic)

    best = reml(covariance, noise)
    rng = np.random.default_rng(0)
    for _ in range(50):
        factor = np.eye(2) + 0.1 * rng.normal(size=(2, 2))
        assert reml(factor @ covariance @ factor.T, noise * np.exp(0.1 * rng.normal())) < best
    v = z @ covariance @ z.T + noise * np.eye(len(n))
    information = len(y) * z.T @ np.linalg.solve(v, z)
    se = np.sqrt(np.linalg.inv(information)[1, 1]) / n.std()
    assert numbers(CURVES, "mixed model")[1] == pytest.approx(se, rel=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_and_offsets(factor: float) -> None:
    plain, scaled = frequentist_checks(CURVES), frequentist_checks(CURVES._replace(log_odds=CURVES.log_odds * factor))
    np.testing.assert_allclose(scaled[NUMBERS[:4]] / factor, plain[NUMBERS[:4]], rtol=1e-6)
    np.testing.assert_allclose(scaled.p, plain.p, rtol=1e-4)
    shifted = frequentist_checks(CURVES._replace(shots=CURVES.shots + 100))
    np.testing.assert_allclose(shifted[NUMBERS[:4]], plain[NUMBERS[:4]], rtol=1e-5, atol=1e-12)


# ------------------------------------------------------------------------------------------ size and power

RUNS = 200
FALSE_ALARM_RUNS = 1000


def rejected(check: str, runs: int, **truth: object) -> float:
    """Share of simulated sets in which a check of curvature rejects at 5 %."""
    row = {"quadratic contrast": fit_checks._contrast, "updates on n": fit_checks._updates_on_n}[check]
    p = [row(simulate_curves(32, 24, seed=5000 + seed, **truth))["p"] for seed in range(runs)]  # type: ignore[arg-type]
    return float(np.mean(np.array(p) < 0.05))


NOISES = [dict(level=1.5, walk=0.0), dict(level=0.3, walk=0.5), dict(level=1.0, walk=0.4)]


@pytest.mark.parametrize("noise", NOISES, ids=["level", "walk", "both"])
@pytest.mark.parametrize("check", ["quadratic contrast", "updates on n"])
def test_false_alarms(check: str, noise: dict[str, float]) -> None:
    # Both are t-tests over sequences and exact under normal noise: at 5 %, the share in 1000 sets has sd 0.007.
    assert 0.03 <= rejected(check, FALSE_ALARM_RUNS, **noise) <= 0.07


@pytest.mark.parametrize("check", ["quadratic contrast", "updates on n"])
def test_power(check: str) -> None:
    assert rejected(check, RUNS, f=power_law(0.3), level=1.5, walk=0.1) > 0.95


@pytest.mark.parametrize("row", [fit_checks._slope_by_sequence, fit_checks._mixed_model], ids=["slopes", "mixed model"])
def test_coverage_of_delta(row) -> None:
    rows = [row(simulate_curves(12, 12, seed=seed, gain_sd=4.0, level=1.0, walk=0.3)) for seed in range(RUNS)]
    answered = [r for r in rows if not r["note"]]
    assert len(answered) > 0.9 * RUNS
    assert 0.90 <= np.mean([r["low"] < 9.6 / 12 < r["high"] for r in answered]) <= 0.99


def test_plain_least_squares_on_updates_is_far_off() -> None:
    """The control: what `updates on n` would say if updates with level noise (MA(1) errors) were independent."""
    plain, clustered = [], []
    for seed in range(RUNS):
        curves = simulate_curves(32, 24, seed=seed, level=1.5, walk=0.0)
        y, n = np.diff(curves.log_odds, axis=1), curves.shots[1:]
        fit = stats.linregress(np.tile(n, len(y)), y.ravel())
        plain.append((fit.slope, fit.stderr, fit.pvalue))
        row = fit_checks._updates_on_n(curves)
        clustered.append((row["estimate"], row["se"], row["p"]))
    slope, plain_se, plain_p = np.array(plain).T
    same, se, _ = np.array(clustered).T
    np.testing.assert_allclose(same, slope, rtol=1e-8, atol=1e-12)
    assert plain_se.mean() > 2 * slope.std()
    assert np.mean(plain_p < 0.05) < 0.005
    assert se.mean() == pytest.approx(slope.std(), rel=0.15)


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
    assert table.loc[NAMES[:3], NUMBERS].notna().all(axis=None)
    assert table.loc["mixed model", "note"] == "needs 3 sequences of 3 shots, got 2 of 3"
    slopes = np.diff(CURVES.log_odds[:2, [0, 2]])[:, 0] / 2
    assert table.loc["slope by sequence", "se"] == pytest.approx(abs(np.diff(slopes)[0]) / 2)


def test_lines_of_different_slopes() -> None:
    """Curvature has no answer, the slope has."""
    curves = made(np.linspace(0.1, 0.5, 8)[:, None] * LINE)
    table = frequentist_checks(curves).set_index("check")
    assert table.loc["slope by sequence", "estimate"] == pytest.approx(0.3)
    assert (table.loc[NAMES[1:], "note"] != "").all()


def test_no_spread_of_slopes_is_noted_by_the_mixed_model() -> None:
    seeds = [
        seed for seed in range(40) if fit_checks._mixed_model(simulate_curves(8, 8, seed=seed, gain_sd=0.0))["note"]
    ]
    assert 5 < len(seeds) < 40  # the boundary is met about half of the time
    row = fit_checks._mixed_model(simulate_curves(8, 8, seed=seeds[0], gain_sd=0.0))
    assert row["note"].startswith("singular") and np.isnan([row[name] for name in NUMBERS]).all()


def test_what_statsmodels_warns_of_becomes_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    def warn(*_: object, **__: object) -> None:
        warnings.warn("the gradient is not 0", ConvergenceWarning, stacklevel=1)

    def fail(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    for fit, note in [(warn, "the gradient is not 0"), (fail, "not fitted: Singular matrix")]:
        monkeypatch.setattr(MixedLM, "fit", fit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            row = fit_checks._mixed_model(CURVES)
        assert row["note"] == note and np.isnan([row[name] for name in NUMBERS]).all()


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


def test_the_robust_contrast_is_wilcoxon_s_and_holds_against_an_odd_sequence() -> None:
    from scipy.stats import wilcoxon

    curves = simulate_curves(32, 16, f=power_law(0.5), gain=12.0, gain_sd=0.5, level=0.5)
    n = curves.shots - curves.shots.mean()
    basis, _ = np.linalg.qr(np.stack([np.ones_like(n), n, n**2], axis=1))
    contrasts = curves.log_odds @ basis[:, 2] * np.sign(basis[-1, 2])
    median, p = quadratic_contrast(curves, robust=True)
    assert median == pytest.approx(np.median(contrasts))
    assert p == pytest.approx(wilcoxon(contrasts).pvalue)
    odd = curves._replace(log_odds=np.concatenate([curves.log_odds[:-1], -50 * curves.log_odds[-1:]]))
    assert quadratic_contrast(odd, robust=True)[1] < 0.01
    assert quadratic_contrast(odd)[1] > 0.05  # the control: the t-test is swayed
