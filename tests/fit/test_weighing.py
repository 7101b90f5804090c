"""The second verdict on simulated learners, drawn by numpy, and through the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bayes_icl.curves import Curves
from bayes_icl.fit import FitSettings, main
from bayes_icl.fit.weighing import FLAT, Weighing, weigh
from bayes_icl.hypotheses import HISTORY_LAWS
from bayes_icl.inference.history_scores import score_history
from bayes_icl.inference.lag_weights import LagWeights

SEQS, N, EVIDENCE = 48, 24, 0.5
FEW = ("trend", "observer", "signed", "leaky", "per_lag")


def learner(kind: str, seed: int = 0, level: float = 0.5, mirrored: bool = False) -> Curves:
    """48 sequences of 24 examples that each show a rule at random, worth half a nat to the ideal observer."""
    rng = np.random.default_rng(seed)
    shown = rng.choice([-1.0, 1.0], (SEQS, N))
    if mirrored:
        shown[1::2] = -shown[::2]
    belief = np.pad(EVIDENCE * shown, ((0, 0), (1, 0))).cumsum(1)
    odds = np.zeros_like(belief)
    for n in range(1, N + 1):
        x = shown[:, n - 1]
        odds[:, n] = {
            "bayesian": odds[:, n - 1] + EVIDENCE * x,
            "conservative": odds[:, n - 1] + 0.5 * EVIDENCE * x,
            "overconfident": odds[:, n - 1] + 1.6 * EVIDENCE * x,
            "leaky": 0.8 * odds[:, n - 1] + EVIDENCE * x,
            "recency": belief[:, n] - 1.5 * x,
            "ignores": 0.2 * n * np.ones(SEQS),
        }[kind]
    odds = odds + rng.normal(0, level, odds.shape) + rng.normal(0, 1, (SEQS, 1))
    return Curves("t", "foil", np.arange(N + 1.0), odds, history=shown, observer=belief)


def second_verdict(curves: Curves, laws: tuple[str, ...] = FEW) -> Weighing:
    return weigh(curves, [score_history(HISTORY_LAWS[name], curves)[0] for name in laws])


@pytest.mark.parametrize(("kind", "weight"), [("bayesian", 1.0), ("conservative", 0.5), ("overconfident", 1.6)])
def test_who_weighs_as_the_observer_does(kind: str, weight: float) -> None:
    """The weight within 4 standard errors; half a nat of noise leaves one of 0.01."""
    found = second_verdict(learner(kind))
    assert found.verdict == kind, found.reasons
    assert found.law == "observer" and found.weight is not None
    assert found.weight["mean"] == pytest.approx(weight, abs=0.06)
    assert found.kernel is not None and found.kernel["alike"] > 0.9
    assert found.kernel["left_after"]["8"]["mean"] == pytest.approx(1, abs=0.2)
    json.dumps(found.as_json())  # it can be written


def test_who_forgets() -> None:
    found = second_verdict(learner("leaky"))
    assert found.verdict == "leaky", found.reasons
    assert found.parameters["leak"]["mean"] == pytest.approx(0.8, abs=0.03)
    assert found.kernel is not None and found.kernel["alike"] < 0.05
    assert found.kernel["left_after"]["4"]["mean"] == pytest.approx(0.8**4, abs=0.15)


def test_who_contrasts_the_last_example() -> None:
    found = second_verdict(learner("recency"), ("trend", "observer", "signed", "recent"))
    assert found.verdict == "recency", found.reasons
    assert found.parameters["kappa"]["high"] < 0 and "observer" not in found.survivors


def test_a_line_in_n_is_no_bayesian() -> None:
    found = second_verdict(learner("ignores"), ("trend", "observer", "signed"))
    assert found.verdict == "ignores", found.reasons
    assert "root mean square, at the last shot" in found.reasons[0]


def test_examples_that_agree_cannot_tell() -> None:
    curves = learner("bayesian")
    n = np.arange(N + 1.0)
    noise = np.random.default_rng(1).normal(0, 0.5, (SEQS, N + 1))
    belief = np.tile(EVIDENCE * n, (SEQS, 1))
    same = curves._replace(history=np.ones((SEQS, N)), observer=belief, log_odds=belief + noise)
    found = second_verdict(same, ("observer", "signed", "trend"))
    assert found.verdict == "not separable" and "all examples agree" in found.reasons[0]


def test_a_mirrored_design_whose_evidence_sums_to_0() -> None:
    curves = learner("bayesian", mirrored=True)
    assert curves.observer is not None and abs(curves.observer.sum()) < 1e-9
    found = second_verdict(curves, ("trend", "observer", "leaky"))
    assert found.verdict == "bayesian" and found.weight is not None
    assert found.weight["mean"] == pytest.approx(1, abs=0.06)


def test_an_observer_without_a_history() -> None:
    """Weights over lags are nobody's then: only whether it says what the observer says."""
    curves = learner("conservative")._replace(history=None)
    found = second_verdict(curves, ("trend", "observer"))
    assert found.verdict == "conservative" and found.kernel is None
    assert second_verdict(learner("ignores")._replace(history=None), ("trend", "observer")).verdict != "bayesian"


@pytest.mark.parametrize(("kind", "verdict"), [("bayesian", "bayesian"), ("leaky", "leaky")])
def test_single_prompts(kind: str, verdict: str) -> None:
    """One reading of each of 288 texts, of 4, 8, ... or 24 examples."""
    parts = []
    for seed in range(6):
        curves = learner(kind, seed, level=0.3)
        own = np.full(SEQS, 4 * (seed + 1))
        at = np.arange(SEQS), own
        assert curves.observer is not None
        parts.append((curves.log_odds[at] - curves.log_odds[:, 0], curves.history, curves.observer[at], own))
    odds, history, belief, n = (np.concatenate(x) for x in zip(*parts))
    single = Curves("t", "foil", np.array([24.0]), odds[:, None], history=history, observer=belief[:, None], single=n)
    found = second_verdict(single, ("trend", "observer", "leaky", "per_lag"))
    assert found.verdict == verdict, found.reasons
    if kind == "bayesian":
        assert found.weight is not None and found.weight["mean"] == pytest.approx(1, abs=0.06)


def test_refused_for_few_sequences() -> None:
    curves = learner("bayesian")
    few = curves._replace(
        log_odds=curves.log_odds[:6],
        history=None if curves.history is None else curves.history[:6],
        observer=None if curves.observer is None else curves.observer[:6],
    )
    found = second_verdict(few, ("observer",))
    assert found.verdict == "refused" and "6 sequences, at least 8" in found.reasons[0]


# --------------------------------------------------------------------------------------------- weights over lags


def lags_of(kind: str, seed: int) -> LagWeights:
    score, _ = score_history(HISTORY_LAWS["per_lag"], learner(kind, seed))
    assert score.lag_weights is not None
    return score.lag_weights


@pytest.mark.parametrize("seed", range(2))
def test_weights_over_lags_are_flat_for_the_observer_and_fall_where_it_forgets(seed: int) -> None:
    exact, leaky = (lags_of(kind, seed) for kind in ("bayesian", "leaky"))
    assert exact.within(FLAT) > 0.9 and leaky.within(FLAT) < 0.01
    assert exact.of_observer is not None and leaky.of_observer is not None
    # The observer's own are 0.5 nats at every lag, whoever is read; 1, 2, 3 and 4, 5 to 8, ... are groups.
    for lags in (exact, leaky):
        np.testing.assert_allclose(lags.of_observer[:16], EVIDENCE, atol=0.03)
        assert lags.groups[:4].tolist() == [[1, 1], [2, 2], [3, 4], [5, 8]]
    # The truth, lag by lag, within 5 sds of the posterior.
    for lags, truth in ((exact, np.full(8, EVIDENCE)), (leaky, EVIDENCE * 0.8 ** np.arange(8))):
        first = lags.draws[:, :8]
        assert (abs(first.mean(0) - truth) < np.maximum(5 * first.std(0), 0.02)).all()


# --------------------------------------------------------------------------------------------- the command


def command(tmp_path: Path, rows: list[str]) -> dict:
    path = tmp_path / "c.csv"
    path.write_text("task,seq,shot,log_odds,history\n" + "\n".join(rows) + "\n")
    settings = FitSettings(
        curves=path, hypotheses=("trend", "signed", "leaky"), engine="fast", workers=1, n_min=(0,), sensitivity=False,
        out=tmp_path / "out", figures=tmp_path / "figures",
    )  # fmt: skip
    assert main(settings) == 0
    return json.loads((tmp_path / "out" / "verdict.json").read_text())["t"]


@pytest.mark.parametrize("strings", [False, True])
def test_a_table_with_a_history_is_weighed(
    strings: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One example a shot; or all before the query, at shots that are uneven."""
    monkeypatch.setattr("bayes_icl.fit.command.figure_files", lambda _: {})
    curves = learner("leaky")
    assert curves.history is not None
    rows = []
    for s, (odds, shown) in enumerate(zip(curves.log_odds, curves.history.astype(int))):
        signs = "".join("+" if x > 0 else "-" for x in shown)
        for n in (1, 3, 5, 10, 20) if strings else range(N + 1):
            cell = signs[:n] if strings else shown[n] if n < N else ""
            rows.append(f"t,{s},{n},{odds[n]},{cell}")
    verdict = command(tmp_path, rows)
    assert verdict["verdict"] == "not_asked"
    assert verdict["bayesian"]["verdict"] == "leaky", verdict["bayesian"]["reasons"]
    assert verdict["bayesian"]["parameters"]["leak"]["mean"] == pytest.approx(0.8, abs=0.05)
    assert "evidence: LEAKY" in capsys.readouterr().err
