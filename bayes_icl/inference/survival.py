"""Which laws survive: within a slack of the best when a sequence or the future is left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from bayes_icl.curves import Curves, consecutive
from bayes_icl.hypotheses.law import law_called
from bayes_icl.inference.posterior import PARETO_K_MOST
from bayes_icl.inference.scores import Score

SLACK_NATS, SLACK_SE = 4.0, 2.0

LEAST_SEQS, LEAST_SHOTS, LEAST_EXAMPLES = 8, 5, 8  # examples: between the first shot and the last


def few_shots(shots: Float[np.ndarray, " shot"]) -> str | None:
    """Why curves of these shots can have no verdict, or None.

    Parameters
    ----------
    shots
        Numbers of examples.
    """
    n, first, last = len(shots), shots[0], shots[-1]
    if n >= LEAST_SHOTS and last - first >= LEAST_EXAMPLES:
        return None
    if consecutive(shots):
        return f"{n - 1} updates from n = {first:.0f} on, at least {LEAST_EXAMPLES} are needed"
    needed = f"at least {LEAST_SHOTS} over {LEAST_EXAMPLES} examples are needed"
    return f"{n} shots from n = {first:.0f} to {last:.0f}, {needed}"


LEAST_PROMPTS = 32  # single ones


def too_little(curves: Curves) -> str | None:
    """Why these curves cannot be fitted at all, or None."""
    n_seqs, n_shots = curves.log_odds.shape
    if curves.single is not None:
        if n_seqs < LEAST_PROMPTS:
            return f"{counted(n_seqs, 'single prompt')}: at least {LEAST_PROMPTS} are needed for a fit"
        return None if np.ptp(curves.log_odds) > 0 else "no variation: all single prompts have the same log-odds"
    if n_seqs < 2 or n_shots < 4:
        return (
            f"{counted(n_seqs, 'sequence')} of {counted(n_shots, 'shot')} from n = {curves.shots[0]:.0f}: at least 2 "
            f"sequences of 4 shots are needed for a fit, {LEAST_SEQS} of {LEAST_EXAMPLES + 1} for a verdict, or of "
            f"{LEAST_SHOTS} over {LEAST_EXAMPLES} examples"
        )
    spread = curves.log_odds.std(1)
    if not np.median(spread) > 1e-9 * spread.max():  # of which priors are in units
        return "no variation: more than half of the sequences do not change from shot to shot"
    updates = np.diff(curves.log_odds, axis=1)
    steps = np.diff(curves.shots)
    off = updates - updates.mean(0)
    noise = off - np.outer(off @ steps, steps) / (steps @ steps)
    if noise.std() <= 1e-4 * curves.log_odds.std():
        return (
            "no variation: beside a mean curve and a slope of each sequence the updates do not vary, so there is no "
            "noise to judge by"
        )
    return None


def survivors(scores: Sequence[Score], values: str) -> tuple[list[str], dict[str, tuple[float, float]]]:
    """The hypotheses within max(4 nats, 2 SE) of the best, and each one's distance to the best with its SE.

    A rival whose fit cannot be relied on neither survives nor sets the mark.

    Parameters
    ----------
    scores
        One a hypothesis, of the same curves.
    values
        Which pointwise score: ``elpd_logo`` or ``elpd_lfo``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.hypotheses import HYPOTHESES
    >>> from bayes_icl.inference.scores import score_curves
    >>> from bayes_icl.inference.survival import survivors
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> scores = [score_curves(HYPOTHESES[name], curves)[0] for name in ("constant", "additive", "pooling")]
    >>> survivors(scores, "elpd_logo")[0]
    ['pooling']
    """
    pointwise = {s.hypothesis: getattr(s, values) for s in scores if np.isfinite(getattr(s, values)).all()}
    sound = {s.hypothesis for s in scores if not doubt_of(s)}
    rivals = [name for name in pointwise if name in sound and law_called(name).rival]
    if not rivals:
        return [], {}
    best = max(rivals, key=lambda name: pointwise[name].sum())
    distance = {name: difference_of(pointwise[name], pointwise[best]) for name in pointwise}
    return [name for name in rivals if -distance[name][0] <= slack(distance[name][1])], distance


def difference_of(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Difference of two summed scores, and its standard error over sequences, nats."""
    d = one - other
    return float(d.sum()), float(np.sqrt(len(d)) * d.std(ddof=1))


def slack(se: float) -> float:
    """By how much a survivor may be worse than the best, nats, given the standard error of the difference."""
    return max(SLACK_NATS, SLACK_SE * se)


def doubt_of(score: Score) -> str | None:
    """Why a fit cannot be relied on, or None."""
    wrong = [
        *score.faults,
        *([f"Pareto k {score.pareto_k_max:.2f} after refits"] if not score.pareto_k_max <= PARETO_K_MOST else []),
    ]
    return f"{score.hypothesis}: {', '.join(wrong)}" if wrong else None


def in_nats(difference: float, se: float) -> str:
    """A difference without its sign, and its standard error, in words."""
    return f"{abs(difference):.1f} (SE {se:.1f}) nats"


def counted(n: int, what: str) -> str:
    """A number of things, in words."""
    return f"{n} {what}" + ("" if n == 1 else "s")
