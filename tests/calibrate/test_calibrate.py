"""Simulated truths and what is made of them; the long run itself is `make calibrate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulate import covariance_by_hand

from bayes_icl import calibrate
from bayes_icl.calibrate import CalibrateSettings, calibration, simulation
from bayes_icl.calibrate.calibration import averaging_ratio
from bayes_icl.calibrate.outcomes import Bounds, outcomes, rank_tests
from bayes_icl.calibrate.simulation import simulate, truth_of
from bayes_icl.calibrate.truths import TRUTHS, cells
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import Curves
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import PLAIN

RIVALS = [name for name, h in HYPOTHESES.items() if not h.ceiling]


@pytest.mark.parametrize("name", RIVALS)
def test_simulated_curves_have_the_mean_and_covariance_of_the_model(name: str) -> None:
    """Against the formula, written out: 20 000 sequences, bounds of 5 standard errors (alarm in 1 of 10 000 runs)."""
    h, n_seqs, n_shots = HYPOTHESES[name], 20_000, 6
    truth = truth_of(h, "both", 4.0)
    curves = simulate(h, truth, n_seqs, n_shots, np.random.default_rng(0))
    updates = np.diff(curves.log_odds, axis=1)
    few = curves._replace(log_odds=curves.log_odds[:4])
    stats = summarise(few, shape=PLAIN)
    one = {key: np.array([[value]]) for key, value in truth.items()}
    cov = covariance_by_hand(curves.shots, one, 0.0)  # the same for all laws
    if h.latent_step:
        chance = np.exp(h.step_log_weights(np, stats, one)[0])[:-1]
        mean = truth["gain"] * chance
        cov = cov + np.diag(truth["gain"] ** 2 * chance) - np.outer(mean, mean)
    else:
        _, f, gain = h.updates(np, stats, one)
        mean = float(np.squeeze(gain)) * np.broadcast_to(f, (4, n_shots))[0]
    error = np.sqrt(np.diag(cov) / n_seqs)
    assert np.abs(updates.mean(0) - mean).max() < 5 * error.max()
    # Fourth moments of a mixture are larger than a normal law's, but not twice.
    assert np.abs(np.cov(updates.T) - cov).max() < 5 * np.sqrt(4 / n_seqs) * np.diag(cov).max()


def test_averaging_loses_the_ratios_of_two_coins() -> None:
    """What is left of the log-odds when probabilities are averaged first: the known answer."""
    table = averaging_ratio()
    assert table.n.tolist() == [1, 5, 10, 20, 50, 100]
    assert table.ratio.to_numpy() == pytest.approx([0.93, 0.60, 0.48, 0.40, 0.33, 0.30], abs=0.006)


def test_ranks_of_a_sound_and_of_an_unsound_fit() -> None:
    """A hundred fits a piece: the sound one passes at 1 %, the control must not pass at one in a million."""
    rows = []
    for name, setting in (("additive", "sound"), ("additive", "wrong noise"), ("lapse", "shifted prior")):
        rows += calibration.ranks(name, setting, range(100), 16, 12)
    tests = rank_tests(pd.DataFrame(rows))
    sound = tests[tests.setting == "sound"]
    assert set(sound.parameter) == {"gain", "gain_sd", "early_sd", "level", "walk"}
    assert (sound.sims == 100).all()
    assert sound.p.min() * len(sound) > 0.01
    for control in ("wrong noise", "shifted prior"):
        assert tests[tests.setting == control].p.min() < 1e-6


def test_recovery_counts_what_intervals_hold() -> None:
    rows = pd.DataFrame(calibration.recover("power", "both", range(30), 64, 24, 9.6))
    assert set(rows.parameter) == {"gain", "gain_sd", "early_sd", "level", "walk", "a", "delta"}
    assert rows[rows.parameter == "delta"].truth.iloc[0] == pytest.approx(9.6 / 24)
    # 30 intervals of 95 %: fewer than 24 hold once in 3000 runs.
    assert rows[rows.parameter == "a"].held.sum() >= 24
    shifted = rows.assign(held=(rows["mean"] + 2 * rows.width - rows.truth).abs() < rows.width / 2)
    assert shifted[shifted.parameter == "a"].held.sum() < 5  # the control: intervals two widths off


def test_confusion_names_the_kind() -> None:
    row = calibration.confuse("power", "level", [0], 64, 16, 9.6, averaged=False)[0]
    assert (row["kind"], row["selected_kind"], row["verdict"]) == ("curved", "curved", "rejected")


def _judged(truth: str, n_seqs: int) -> pd.DataFrame:
    """A hundred verdicts that keep every bound of a cell."""
    asked = [bound for bound in TRUTHS[truth].bounds if bound.n_seqs == n_seqs]
    wanted = next((bound.verdicts[0] for bound in asked if bound.least and bound.verdicts != ("delta",)), "undecided")
    held = np.arange(100) % 20 != 0
    return pd.DataFrame({"truth": truth, "n_seqs": n_seqs, "verdict": wanted, "held": held})


def _tables(**changed: pd.DataFrame) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    u = pd.DataFrame({"hypothesis": "additive", "setting": "sound", "faulty": False, "gain": rng.uniform(size=400)})
    bad = [u.assign(setting=s, gain=u.gain / 5) for s in ("shifted prior", "wrong noise")]
    held = np.arange(400) % 20 != 0
    recovery = [
        pd.DataFrame({"hypothesis": h, "noise": "both", "parameter": p, "held": held})
        for h, p in (("additive", "delta"), ("power", "a"))
    ]
    confusion = pd.DataFrame(
        [
            {"truth": t, "kind": calibration.kind_of(t), "noise": "both", "n_seqs": 64, "averaged": averaged,
             "selected": t, "selected_kind": calibration.kind_of(t), "verdict": "rejected" if averaged else "supported"}
            for t in simulation.TRUTHS
            for averaged in (False, True)
        ]
    )  # fmt: skip
    tables = {"sbc": pd.concat([u, *bad]), "recovery": pd.concat(recovery), "confusion": confusion}
    tables["verdicts"] = pd.concat(_judged(*cell) for cell in cells())
    return {**tables, "averaging": averaging_ratio(), **changed}


def test_outcomes_hold_and_each_fails_by_itself() -> None:
    settings, bounds = CalibrateSettings(), Bounds()
    good = _tables()
    checked = outcomes(good, settings, bounds)
    assert all(outcome["holds"] for outcome in checked)
    wrong = {
        "ranks uniform": {"sbc": good["sbc"].assign(gain=good["sbc"].gain / 5)},
        "control, shifted": {"sbc": good["sbc"].assign(gain=np.tile(good["sbc"].gain[:400].to_numpy()[:400], 3))},
        "additive delta": {"recovery": good["recovery"].assign(held=True)},
        "kind of law": {"confusion": good["confusion"].assign(selected_kind="curved")},
        "additive truths rejected": {"confusion": good["confusion"].assign(verdict="rejected")},
        "additive truths supported": {"confusion": good["confusion"].assign(verdict="supported")},
        "a line, 256 sequences: rejected": {"verdicts": good["verdicts"].assign(verdict="rejected")},
        "log(1 + n/5), 32 sequences: supported": {"verdicts": good["verdicts"].assign(verdict="supported")},
        "no update, 256 sequences: no_update": {"verdicts": good["verdicts"].assign(verdict="undecided")},
        "delta within its interval": {"verdicts": good["verdicts"].assign(held=True)},
    }
    for name, changed in wrong.items():
        failed = [o["what"] for o in outcomes({**good, **changed}, settings, bounds) if not o["holds"]]
        assert any(name in what for what in failed), (name, failed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hypotheses": ("additve",)}, "did you mean additive"),
        ({"hypotheses": ("freeform",)}, "unknown hypothesis"),
        ({"n_seqs": 8}, "--n-seqs must be 32 or more, got 8"),
        ({"hypotheses": ()}, "--hypotheses needs at least one value"),
        ({"gain": float("nan")}, "--gain must be above 0 and below 1000000, got nan"),
        ({"sims": 10**12}, "--sims must be 1000000 or less"),
        ({"sims": 3}, "--sims must be 50 or more"),
    ],
)
def test_bad_settings_are_stated(changed: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(StatedError, match=says):
        calibrate.main(CalibrateSettings(figures=tmp_path, **changed))


def test_curves_start_at_no_examples() -> None:
    curves = simulate(
        HYPOTHESES["additive"], truth_of(HYPOTHESES["additive"], "level", 9.6), 5, 7, np.random.default_rng(0)
    )
    assert isinstance(curves, Curves)
    assert curves.shots.tolist() == list(range(8)) and curves.log_odds.shape == (5, 8)
