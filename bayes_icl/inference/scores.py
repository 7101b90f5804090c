"""How well a hypothesis predicts: sequences left out, the future left out, replicates.

Leave one sequence out
    The exchangeable unit is the sequence. Weights of the posterior without it follow from those with it (PSIS, `psis`);
    a sequence whose Pareto k is above 0.7 is scored by an exact refit without it.
Leave the future out
    The first half of the shots is fitted, and the rest of each sequence predicted from its own first half.
Replicates
    Lag-1 autocorrelation of the updates beside that of curves drawn from the fit, and how often extrapolated 95 %
    intervals hold the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from bayes_icl.core.intervals import TAILS, Interval
from bayes_icl.curves import Curves
from bayes_icl.hypotheses.law import Hypothesis
from bayes_icl.inference.departure import Straightness
from bayes_icl.inference.histories import Histories, history_log_likelihood
from bayes_icl.inference.importance import sample_fast, sample_together
from bayes_icl.inference.lag_weights import LagWeights
from bayes_icl.inference.noise import Statistics, log_likelihood, summarise
from bayes_icl.inference.noise_shape import PLAIN, Shape, estimate
from bayes_icl.inference.posterior import PARETO_K_MOST, Posterior
from bayes_icl.inference.predictive import go_on, mean_curve, replicate
from bayes_icl.inference.psis import smooth
from bayes_icl.inference.space import BLOCK, collapsed_log_likelihood

SMOOTHED_BELOW = 0.25  # share of draws that count without a sequence: a tail matters where it is less

EFFECTIVE_LEAST = 20  # draws that must carry the score of a refit

LOGO_DRAWS = 4000  # of equal weight: k must tell of the sequence left out, not of the engine's weights

MOST_NUMBERS = 2**22  # in a table of draws by sequences

REPLICATES = 6400  # new sequences that predictive checks draw

LEAST_REPLICATES = 40  # of each sequence: 39 have their 2.5 % quantile at the least of them

PULLS = 0.5  # a sequence pulls when delta moves by more than this share of its sd without it

Engine = Callable[[Hypothesis, Any], Posterior]  # the second, `Statistics` or `Histories`


@dataclass(frozen=True)
class Score:
    """How one hypothesis does on one curve.

    Attributes
    ----------
    noise
        The setting: ``"normal"`` or ``"student"``.
    elpd_logo, elpd_lfo
        Expected log predictive density of each sequence left out, and of each sequence's second half given its first,
        nats, shape (seq,); NaN where it is not defined.
    mcse
        Monte Carlo standard error of the sum of `elpd_logo`, nats.
    intervals
        Posterior mean and bounds of the 95 % highest-density interval of every number among the parameters.
    pareto_k_max
        The largest Pareto k among sequences that were not refitted.
    refits
        Sequences scored by an exact refit, because their k was above 0.7.
    faults
        Why the fit cannot be relied on, in words.
    log_marginal
        Log marginal likelihood, nats; it hangs on the priors, and no verdict on it.
    lag, lag_low, lag_high
        Lag-1 autocorrelation of the updates about their mean, and the interval that holds 99 % of replicates.
    coverage_ahead
        Share of the values of the second half inside their 95 % predictive intervals.
    pulls
        Sequences without which delta moves by more than half its posterior sd, or whose k was above 0.7: index,
        delta without it (nats per example), k.
    mean_curve
        Posterior mean of the law's mean curve, nats, about a mean of 0, shape (shot,).
    straightness
        Of the mean curve, from `freeform`: what the verdict is made from.
    lag_weights
        From `per_lag`: the weight of an example by how long ago it was.
    fitted
        Of a law of history: the mean log-odds at every reading under the posterior's mean, shape (seq, read), nats.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.hypotheses import HYPOTHESES
    >>> from bayes_icl.inference.scores import score_curves
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> additive, _ = score_curves(HYPOTHESES["additive"], curves)
    >>> power, _ = score_curves(HYPOTHESES["power"], curves)
    >>> power.reliable, power.elpd_logo.sum().item() - additive.elpd_logo.sum().item() > 10  # nats
    (True, True)
    """

    task: str
    readout: str
    n_min: int
    hypothesis: str
    elpd_logo: np.ndarray
    elpd_lfo: np.ndarray
    intervals: dict[str, Interval]
    pareto_k_max: float
    refits: int
    rhat_max: float
    ess_bulk_min: float
    divergences: int
    faults: tuple[str, ...] = ()
    engine: str = "fast"
    k_hat: float = np.nan
    noise: str = "normal"
    log_marginal: float = np.nan
    mcse: float = np.nan
    lag: float = np.nan
    lag_low: float = np.nan
    lag_high: float = np.nan
    coverage_ahead: float = np.nan
    pulls: list[dict[str, float]] = field(default_factory=list)
    mean_curve: np.ndarray | None = None
    straightness: Straightness | None = None
    lag_weights: LagWeights | None = None
    fitted: np.ndarray | None = None

    @property
    def reliable(self) -> bool:
        """No faults, and no sequence left out whose score hangs on a few draws."""
        return not self.faults and self.pareto_k_max <= PARETO_K_MOST


def sequence_log_likelihood(posterior: Posterior, stats: Statistics | Histories) -> Float[np.ndarray, "draw seq"]:
    """Log-likelihood of each sequence under each draw, nats."""
    n_draws = len(posterior.log_weights)
    long = posterior.hypothesis.latent_step or posterior.hypothesis.of_history
    per_draw = len(stats.x) * (len(stats.eigenvalues) if long else 1)
    step = max(1, BLOCK // per_draw)
    blocks = [{k: v[i : i + step] for k, v in posterior.params.items()} for i in range(0, n_draws, step)]
    # Draws without weight may lie where a law is 0/0.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        one: Any = history_log_likelihood if isinstance(stats, Histories) else log_likelihood
        each = np.concatenate([one(np, posterior.hypothesis, stats, block) for block in blocks])
    return np.where(np.isnan(each), -np.inf, each)


def score_curves(
    hypothesis: Hypothesis,
    curves: Curves,
    engine: Engine = sample_fast,
    *,
    future: bool = True,
    checks: bool = True,
    shape: Shape | None = None,
) -> tuple[Score, Posterior]:
    """Fit a hypothesis to some curves and score it.

    Parameters
    ----------
    hypothesis
        The law.
    curves
        One task under one readout.
    engine
        What fits; exact refits are the fast engine's whenever it can be relied on.
    future
        Leave the future out too, which takes a second fit.
    checks
        Take replicates too.
    shape
        Of the noise; as `noise_shape.estimate` finds it, if none is given.
    """
    noise, free = "student" if hypothesis.student else "normal", hypothesis.ceiling
    # A free mean is integrated out under normal noise only; odd sequences are weighed down instead.
    shape = estimate(curves, robust=free and hypothesis.student) if shape is None else shape
    stats = summarise(curves, shape=shape)
    if free:
        hypothesis = hypothesis.varied(shared=shape.shared)
    posterior = engine(hypothesis, stats)
    if free and shape.weights is not None:
        nothing = np.full(len(stats.x), np.nan)
        score: dict[str, Any] = {
            "elpd_logo": nothing,
            "pareto_k_max": 0.0,
            "refits": 0,
            "faults": tuple(posterior.faults),
        }
    else:
        score = leave_sequences_out(hypothesis, stats, posterior, engine)
    score["intervals"] = posterior.intervals(stats)
    elpd_lfo = np.full(len(stats.x), np.nan)
    middle = float(curves.shots[-1] / 2)
    n_past = int((curves.shots <= middle).sum()) - 1
    rng = np.random.default_rng(5)
    n_draws = int(np.clip(REPLICATES // len(stats.x), LEAST_REPLICATES, 200))
    if future and n_past >= 2 and not hypothesis.ceiling:
        half = summarise(curves, until=middle, scale=stats.scale, shape=shape)  # under the same priors
        first = engine(hypothesis, half)
        if first.faults:
            score["faults"] += tuple(f"first half: {fault}" for fault in first.faults)
        elpd_lfo, first = leave_future_out(first, stats, half)
        if checks:
            later = curves.log_odds[:, n_past, None] + go_on(first.equal(n_draws), stats, n_past, rng)
            seen = curves.log_odds[:, n_past + 1 :]
            # Weibull's quantiles hold 95 % of new values on average; those of numpy 93 % with 100 draws.
            low, high = np.quantile(later, TAILS, axis=0, method="weibull")
            score["coverage_ahead"] = float(((low <= seen) & (seen <= high)).mean())
    if checks:
        new = replicate(posterior.equal(n_draws), stats, rng)
        lags = lag_one(np.diff(new, axis=-1))
        spread = 2.576 * float(lags.std(ddof=1))
        score["lag"] = float(lag_one(np.diff(curves.log_odds, axis=-1)))
        score["lag_low"], score["lag_high"] = float(lags.mean()) - spread, float(lags.mean()) + spread
    return Score(
        task=curves.task,
        readout=curves.readout,
        n_min=int(curves.shots[0]),
        hypothesis=hypothesis.name,
        elpd_lfo=elpd_lfo,
        rhat_max=posterior.rhat_max,
        ess_bulk_min=posterior.ess,
        divergences=posterior.divergences,
        engine=posterior.engine,
        k_hat=posterior.k_hat,
        noise=noise,
        log_marginal=posterior.log_marginal,
        mean_curve=np.exp(posterior.log_weights) @ mean_curve(posterior, stats),
        straightness=Straightness.of(posterior, stats, shape) if free else None,
        **score,
    ), posterior


def score_together(hypothesis: Hypothesis, each: Sequence[Curves], *, seed: int = 0) -> list[tuple[Score, Posterior]]:
    """Fit a hypothesis to many curves of the same shape at once and leave out each sequence, without refits.

    Scores lack `intervals` and all that `score_curves` adds with `future` and `checks`. Where one is not `reliable`,
    by the posterior's faults or a Pareto k above 0.7, `score_curves` is for that curve. k is taken, and weights
    smoothed, only where less than a quarter of the draws count without the sequence; k is 0 where none is taken.

    Parameters are those of `sample_together`.
    """
    stats = [summarise(curves, shape=PLAIN) for curves in each]
    posteriors = sample_together(hypothesis, stats, seed=seed)
    own = np.stack([sequence_log_likelihood(posterior, one) for posterior, one in zip(posteriors, stats)], axis=1)
    log_weights = np.stack([posterior.log_weights for posterior in posteriors], axis=1)[..., None] - own
    largest = log_weights.max(0)
    weights = np.exp(log_weights - largest)
    total = weights.sum(0)
    elpd, k = -largest - np.log(total), np.zeros(total.shape)
    few = ~(total**2 >= SMOOTHED_BELOW * len(own) * np.einsum("nij,nij->ij", weights, weights))
    smoothed, k[few] = smooth(log_weights[:, few])
    elpd[few] = logsumexp(smoothed + own[:, few], axis=0)
    if hypothesis.ceiling:
        for i, s in np.argwhere(k > PARETO_K_MOST):
            elpd[i, s], k[i, s] = _without_drawn_means(posteriors[i], stats[i], s)
    return [
        (
            Score(
                task=curves.task,
                readout=curves.readout,
                n_min=int(curves.shots[0]),
                hypothesis=hypothesis.name,
                elpd_logo=elpd[i],
                elpd_lfo=np.full(elpd.shape[1], np.nan),
                intervals={},
                pareto_k_max=float(k[i].max()),
                refits=0,
                rhat_max=posterior.rhat_max,
                ess_bulk_min=posterior.ess,
                divergences=0,
                faults=tuple(posterior.faults),
                k_hat=posterior.k_hat,
                log_marginal=posterior.log_marginal,
            ),
            posterior,
        )
        for i, (curves, posterior) in enumerate(zip(each, posteriors))
    ]


def _without_drawn_means(posterior: Posterior, stats: Statistics, s: int) -> tuple[float, float]:
    """Score and Pareto k of sequence `s` left out under a `ceiling`, its free means integrated out.

    Few sequences tell little of a mean for each shot, so that draws of those means without one of the sequences are far
    from those with it, while the noise is much the same.
    """
    others = stats.of(np.arange(len(stats.x)) != s)
    own = np.subtract(*(collapsed_log_likelihood(posterior.hypothesis, x, posterior.params) for x in (stats, others)))
    log_weights, k = smooth((posterior.log_weights - own)[:, None])
    return float(logsumexp(log_weights[:, 0] + own)), float(k[0])


def leave_sequences_out(
    hypothesis: Hypothesis, stats: Statistics | Histories, posterior: Posterior, engine: Engine
) -> dict:
    """The fields of a score that leaving out each sequence gives."""
    n_seqs = len(stats.x)
    faults = tuple(posterior.faults)
    if n_seqs < 2:
        nothing = np.full(n_seqs, np.nan)
        return {"elpd_logo": nothing, "pareto_k_max": 0.0, "refits": 0, "pulls": [], "faults": faults}
    wanted = LOGO_DRAWS // 2 if hypothesis.latent_step or hypothesis.of_history else LOGO_DRAWS  # each is dear
    draws = posterior.equal(int(np.clip(MOST_NUMBERS // n_seqs, 1000, wanted)))
    own = sequence_log_likelihood(draws, stats)
    log_weights, k = smooth(draws.log_weights[:, None] - own)
    elpd = logsumexp(log_weights + own, axis=0)
    # Of a ratio of sums over draws, of which the posterior's effective number count.
    error = ((np.exp(log_weights + own - elpd) - np.exp(log_weights)) ** 2).sum(0)
    error *= max(1.0, len(own) / posterior.ess)
    numbers = draws.numbers(stats)
    delta = numbers.get("delta")
    without = np.exp(log_weights).T @ delta if delta is not None else np.full(n_seqs, np.nan)
    left = k.copy()
    # A fit that cannot be relied on is left aside whole, so refits would be of no use.
    # Nor is the ceiling of laws of history, which is no rival, worth them.
    hopeless = bool(faults) or (hypothesis.ceiling and hypothesis.of_history)
    refitted = np.flatnonzero((k > PARETO_K_MOST) & (not hopeless))
    for s in refitted:
        others = stats.of(np.arange(n_seqs) != s)
        refit = sample_fast(hypothesis, others, like=posterior if posterior.engine == "fast" else None)
        if refit.faults and posterior.engine == "nuts":
            refit = engine(hypothesis, others)
        one = sequence_log_likelihood(refit, stats.of(np.array([s])))[:, 0] + refit.log_weights
        elpd[s] = logsumexp(one)
        error[s] = ((np.exp(one - elpd[s]) - np.exp(refit.log_weights)) ** 2).sum()
        if delta is not None:
            without[s] = np.exp(refit.log_weights) @ refit.numbers(others)["delta"]
        # A score that hangs on a few of the draws is not exact: its k stays, and the verdict is refused.
        weights = np.exp(one - logsumexp(one))
        if not refit.faults and 1 / (weights**2).sum() >= EFFECTIVE_LEAST:
            left[s] = 0.0
    pulls = []
    if delta is not None:
        weights = np.exp(draws.log_weights)
        mean = weights @ delta
        moved = np.abs(without - mean) > PULLS * np.sqrt(weights @ (delta - mean) ** 2)
        pulls = [
            {"seq": int(s), "delta_without": float(without[s]), "pareto_k": float(k[s])}
            for s in np.flatnonzero(moved | (k > PARETO_K_MOST))
        ]
    return {
        "elpd_logo": elpd,
        "mcse": float(np.sqrt(error.sum())),
        "pareto_k_max": float(left.max()),
        "refits": len(refitted),
        "pulls": pulls,
        "faults": faults,
    }


def leave_future_out(
    first: Posterior, stats: Statistics | Histories, half: Statistics | Histories
) -> tuple[Float[np.ndarray, " seq"], Posterior]:
    """Log predictive density of what follows the first half of each sequence, nats; and the draws it is from.

    Parameters
    ----------
    first
        Fitted to the first half.
    stats, half
        Of whole sequences, and of their first half.
    """
    first = _at_most(first, min(LOGO_DRAWS // 2, MOST_NUMBERS // len(stats.x)))
    later = sequence_log_likelihood(first, stats) - sequence_log_likelihood(first, half)
    return logsumexp(later + first.log_weights[:, None], axis=0), first


def _at_most(posterior: Posterior, n: int) -> Posterior:
    """The posterior, or `n` draws of it, where a table of all draws by all sequences would be too large."""
    return posterior if len(posterior.log_weights) <= n else posterior.equal(max(n, 1000))


def lag_one(updates: Float[np.ndarray, "... seq update"]) -> np.ndarray:
    """Lag-1 autocorrelation of updates about their mean over sequences: -0.5 is level noise, 0 a random walk."""
    d = updates - updates.mean(-2, keepdims=True)
    return (d[..., 1:] * d[..., :-1]).sum((-1, -2)) / (d**2).sum((-1, -2))
