"""A fit in ArviZ's form: groups, dims, what ArviZ makes of it, and the way to a file and back."""

from __future__ import annotations

from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm
from simulate import power_law, simulate_curves

from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.idata import inference_data
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.noise_shape import N_BENDS
from bayes_icl.inference.scores import score_curves, sequence_log_likelihood

CURVES = simulate_curves(32, 16, f=power_law(0.3), gain_sd=0.3, level=1.0, walk=0.3, n_min=1, seed=4, intercept_sd=3.0)
GROUPS = "posterior sample_stats prior prior_predictive posterior_predictive log_prior log_likelihood observed_data"


def inference_of(name: str, student: bool = False, seed: int = 0) -> az.InferenceData:
    return inference_data(sample_fast(HYPOTHESES[name].varied(student=student), summarise(CURVES)), CURVES, seed)


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("name", HYPOTHESES)
def test_every_fit_has_the_groups_and_dims_of_the_design(name: str, student: bool) -> None:
    h = HYPOTHESES[name]
    if h.ceiling and student:
        pytest.skip("free means are integrated out under normal noise only")
    inference = inference_of(name, student)
    assert set(inference.groups()) == set(GROUPS.split())
    assert inference.posterior.sizes["chain"] == 4 and inference.posterior.sizes["draw"] == 500
    assert inference.log_likelihood["log_odds"].dims == ("chain", "draw", "seq")
    assert inference.log_likelihood["log_odds"].shape == (4, 500, 32)
    assert inference.posterior_predictive["log_odds"].dims == ("chain", "draw", "seq", "shot")
    assert inference.posterior_predictive["mean_log_odds"].dims == ("chain", "draw", "shot")
    np.testing.assert_array_equal(inference.observed_data["log_odds"], CURVES.log_odds)
    np.testing.assert_array_equal(inference.observed_data["shot"], np.arange(1, 17))
    parameters = set(h.varied(student=student).parameters)
    assert parameters <= set(inference.posterior) & set(inference.prior)
    assert ("delta" in inference.posterior) == h.has_gain
    assert inference.attrs["engine"] == "fast"
    for group in inference.groups():
        for variable in inference[group].data_vars.values():
            assert np.isfinite(variable.values).all(), (group, variable.name)
    # Chains of independent draws: R-hat has nothing to say against them (its sd is below 0.002 with 4 of 500).
    assert az.rhat(inference.posterior).to_array().max().item() < 1.02


@pytest.mark.parametrize(("name", "student"), [("lapse", True), ("power", False), ("freeform", False)])
def test_log_prior_is_that_of_scipy(name: str, student: bool) -> None:
    h, scale = HYPOTHESES[name].varied(student=student), summarise(CURVES).scale
    inference = inference_of(name, student)
    assert set(inference.log_prior) == set(h.parameters)
    for parameter, prior in h.all_priors.items():
        size, x = (scale if prior.scaled else 1.0), inference.posterior[parameter].values
        first, *rest = prior.parameters
        if prior.family == "HalfNormal":
            expected = np.log(2) + norm.logpdf(x, 0, first * size)
        elif prior.family == "Normal":
            expected = norm.logpdf(x, first, rest[0] * size)
        elif prior.family == "Uniform":
            expected = np.full(x.shape, -np.log(rest[0] - first))
        else:
            expected = norm.logpdf(np.log(x), first, rest[0]) - np.log(x)
        expected = expected.sum(-1) if prior.length else expected
        np.testing.assert_allclose(inference.log_prior[parameter], expected, rtol=1e-9, atol=1e-9)


def test_power_scaling_is_that_of_the_normal_case() -> None:
    """The posterior of delta is all but normal: with a prior of half its width it must move far more than with its own.

    The control of `az.psens` on what is stored: the sensitivity to the stated prior is that of reweighting by hand.
    """
    inference = inference_of("additive")
    names = list(HYPOTHESES["additive"].parameters)
    found = float(az.psens(inference, var_names=["delta", "level"], component_var_names=names)["delta"])
    log_prior = sum(inference.log_prior[name] for name in names)
    x, w = inference.posterior["delta"].values.ravel(), (0.01 * log_prior).values.ravel()
    weights = np.exp(w - w.max()) / np.exp(w - w.max()).sum()
    moved = abs(weights @ x - x.mean()) / x.std()
    assert found < 0.05 and moved < 0.01
    narrow = inference.copy()
    narrow.log_prior["gain"] = 40 * narrow.log_prior["gain"]
    assert float(az.psens(narrow, var_names=["delta", "level"], component_var_names=names)["delta"]) > 2 * found


def test_what_verdicts_are_made_from_stands_in_the_free_mean() -> None:
    inference = inference_of("freeform")
    rise = inference.posterior_predictive["mean_log_odds"]
    total = float((rise.isel(shot=-1) - rise.isel(shot=0)).mean())
    assert float(inference.posterior["total"].mean()) == pytest.approx(total, abs=0.1)
    assert 0 < float(inference.posterior["departure"].mean()) < 0.3
    assert 0.3 < float(inference.posterior["second_half"].mean()) < 1.0  # the truth bends
    assert "departure" not in inference_of("power").posterior


def test_curves_from_the_priors() -> None:
    """200 of them, in the data's units: far wider than the data, rising as often as falling."""
    new = inference_of("additive").prior_predictive
    assert new["log_odds"].shape == new["mean_log_odds"].shape == (1, 200, 16)
    means = new["mean_log_odds"].values[0]
    rises, scale = means[:, -1] - means[:, 0], summarise(CURVES).scale
    assert rises.std() == pytest.approx(2.5 * scale, rel=0.2)
    assert abs(rises.mean()) < 4 * 2.5 * scale / np.sqrt(200)
    assert np.diff(means, n=2).std() < 1e-4  # lines
    np.testing.assert_allclose(new["log_odds"].values.mean(-1), CURVES.log_odds.mean(), rtol=1e-4)


def test_vectors_keep_their_length() -> None:
    inference = inference_of("freeform")
    assert inference.posterior["shape"].shape == (4, 500, N_BENDS)
    assert inference.prior["shape"].shape == (1, 500, N_BENDS)


@pytest.mark.parametrize("name", ["constant", "power", "changepoint"])
def test_arviz_finds_the_scores(name: str) -> None:
    """PSIS of ArviZ on 2000 draws resampled from those weighted: within 0.25 nats in total, 0.1 a sequence."""
    score, posterior = score_curves(HYPOTHESES[name], CURVES)
    inference = inference_data(posterior, CURVES)
    loo = az.loo(inference, pointwise=True)
    assert score.refits == 0
    assert abs(loo.loo_i.values - score.elpd_logo).max() < 0.1
    assert loo.elpd_loo == pytest.approx(score.elpd_logo.sum(), abs=0.25)
    # The control: another law's.
    other, _ = score_curves(HYPOTHESES["additive" if name != "additive" else "power"], CURVES)
    assert abs(loo.elpd_loo - other.elpd_logo.sum()) > 0.25


def test_draws_and_likelihoods_stand_in_the_same_place() -> None:
    inference, stats = inference_of("power"), summarise(CURVES)
    posterior = sample_fast(HYPOTHESES["power"], stats)
    for chain, draw in ((0, 0), (2, 7)):
        own = {p: inference.posterior[p].values[chain, draw] for p in posterior.params}
        (at,) = np.flatnonzero(np.all([posterior.params[p][:, 0] == x for p, x in own.items()], axis=0))
        ll = sequence_log_likelihood(posterior.at(np.array([at])), stats)
        np.testing.assert_allclose(inference.log_likelihood["log_odds"][chain, draw], ll[0])


def test_replicates_look_like_the_curves() -> None:
    """Spread between shots, rise, and level of each sequence; `constant` must fail on the rise."""
    rises = {}
    for name in ("power", "constant"):
        new = inference_of(name).posterior_predictive["log_odds"].stack(sample=("chain", "draw")).values
        # Replicates are kept in float32, which halves the files.
        np.testing.assert_allclose(new.mean(1).T, np.tile(CURVES.log_odds.mean(1), (new.shape[-1], 1)), atol=1e-4)
        assert np.diff(new, axis=1).std() == pytest.approx(np.diff(CURVES.log_odds, axis=1).std(), rel=0.1)
        rises[name] = float((new[:, -1] - new[:, 0]).mean())
    seen = float((CURVES.log_odds[:, -1] - CURVES.log_odds[:, 0]).mean())
    assert rises["power"] == pytest.approx(seen, abs=1.0)
    assert abs(rises["constant"]) < 1.0


def test_the_mean_curve_is_at_the_level_of_the_data() -> None:
    means = inference_of("power").posterior_predictive["mean_log_odds"].values.reshape(-1, 16)
    seen = CURVES.log_odds.mean(0)
    np.testing.assert_allclose(means.mean(1), CURVES.log_odds.mean(), rtol=1e-6)
    # 32 sequences of level noise 1: a mean has a standard error below 0.25.
    assert abs(means.mean(0) - seen).max() < 5 * 0.25
    assert abs(means.mean(0)[::-1] - seen).max() > 5 * 0.25  # the control


def test_the_seed_makes_it_reproducible() -> None:
    one, again, other = (inference_of("power", seed=seed) for seed in (0, 0, 1))
    for group in GROUPS.split():
        xr.testing.assert_equal(one[group], again[group])
    assert not one.posterior.equals(other.posterior)


@pytest.mark.parametrize("name", ["power", "freeform"])
def test_netcdf_round_trip(name: str, tmp_path: Path) -> None:
    inference = inference_of(name)
    inference.to_netcdf(str(tmp_path / "fit.nc"), engine="h5netcdf")
    back = az.from_netcdf(str(tmp_path / "fit.nc"))
    assert set(back.groups()) == set(inference.groups())
    for group in inference.groups():
        xr.testing.assert_equal(back[group].load(), inference[group])
    assert az.loo(back).elpd_loo == pytest.approx(az.loo(inference).elpd_loo)
