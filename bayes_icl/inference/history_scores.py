"""How well a law of history predicts: sequences left out, the future left out; and the weights over lags."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from bayes_icl.curves import Curves
from bayes_icl.hypotheses.history import lag_basis, lag_sizes
from bayes_icl.hypotheses.law import Hypothesis
from bayes_icl.inference.histories import Histories, histories_of
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.lag_weights import LagWeights
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.scores import Engine, Score, leave_future_out, leave_sequences_out

LEAST_PAST = 4  # readings of the first half, below which the future is not left out


def score_history(
    law: Hypothesis, curves: Curves, engine: Engine = sample_fast, *, future: bool = True
) -> tuple[Score, Posterior]:
    """Fit a law of history to some curves, or single prompts, and score it.

    Parameters
    ----------
    law
        The law; on single prompts it gets their intercept by itself.
    curves
        One task under one readout.
    engine
        What fits.
    future
        Leave the second half of every sequence out too, which takes a second fit; of curves.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import Curves
    >>> from bayes_icl.hypotheses import HISTORY_LAWS
    >>> from bayes_icl.inference.history_scores import score_history
    >>> rng = np.random.default_rng(0)
    >>> shown = rng.choice([-1, 1], (24, 17))
    >>> walks = np.pad(0.4 * shown.cumsum(1), ((0, 0), (1, 0)))[:, :17] + 0.3 * rng.normal(size=(24, 17))
    >>> score, _ = score_history(HISTORY_LAWS["signed"], Curves("mine", "foil", np.arange(17.0), walks, history=shown))
    >>> round(score.intervals["w"].mean, 1)  # nats per example
    0.4
    """
    stats = histories_of(curves)
    law = law.varied(student=law.student, single=stats.single)
    posterior = engine(law, stats)
    score = leave_sequences_out(law, stats, posterior, engine)
    elpd_lfo = np.full(len(stats.x), np.nan)
    middle = float(curves.shots[-1] / 2)
    if future and not stats.single and law.rival and (curves.shots <= middle).sum() >= LEAST_PAST:
        half = histories_of(curves, until=middle, like=stats)
        first = engine(law, half)
        if first.faults:
            score["faults"] += tuple(f"first half: {fault}" for fault in first.faults)
        elpd_lfo, _ = leave_future_out(first, stats, half)
    return Score(
        task=curves.task,
        readout=curves.readout,
        n_min=curves.n_min,
        hypothesis=law.name,
        elpd_lfo=elpd_lfo,
        intervals=posterior.intervals(stats),
        rhat_max=posterior.rhat_max,
        ess_bulk_min=posterior.ess,
        divergences=posterior.divergences,
        engine=posterior.engine,
        k_hat=posterior.k_hat,
        noise="student" if law.student else "normal",
        log_marginal=posterior.log_marginal,
        fitted=history_mean(posterior, stats),
        lag_weights=LagWeights.of(posterior, stats) if law.ceiling else None,
        **score,
    ), posterior


def history_mean(posterior: Posterior, stats: Histories) -> Float[np.ndarray, "seq read"]:
    """The mean log-odds of each sequence at its readings under the posterior's mean parameters, nats.

    Each sequence is at its own level; single prompts at the level of all.
    """
    law, weights = posterior.hypothesis, np.exp(posterior.log_weights)
    at = {name: (weights @ x)[None] for name, x in posterior.params.items()}
    if law.ceiling:
        steps = weights @ (posterior.params["kernel"] * lag_sizes(np, posterior.params["step"], stats.past))
        f, beside = steps @ lag_basis(stats.past), 0.0
    else:
        found = law.curve(np, stats.past, **{name: at[name] for name in law.priors if name != "w"})
        f, beside = found if isinstance(found, tuple) else (found, 0.0)
    mean = at.get("w", np.ones((1, 1))) * f + beside
    mean = mean.reshape(stats.log_odds.shape)
    if stats.single:
        return mean + at["start"][0, 0]
    return mean + (stats.log_odds - mean).mean(1, keepdims=True)
