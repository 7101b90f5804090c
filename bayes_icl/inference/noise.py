r"""The noise model that all hypotheses share, and its likelihood with everything latent integrated out.

A sequence s read after n = n_min ... n_max examples has the log-odds::

    L[s, n] = l0_s + m(n) + g_s line(n) + e_s early(n) + walk + level,

where m is the law's mean curve. The rest is the same for all laws, so that they differ in the mean alone: a flat
intercept l0_s; how sequences differ, along a line and along an early bend, g_s ~ Normal(0, gain_sd) and
e_s ~ Normal(0, early_sd), correlated by `corr`; level noise of sd `level` (each shot asks a new query), which may
change with n or carry over from shot to shot (`noise_shape.Shape`); and a random walk of sd `walk` (each example adds
evidence of its own). Differencing from shot to shot removes l0_s. Shots may be any numbers of examples: with A the
covariance of the differences of level noise of sd 1, and B that of a walk of sd 1, which has the numbers of examples
between shots on its diagonal, the eigenvectors V of A V = B V diag(lambda), V'BV = I, make walk^2 B + level^2 A
diagonal whatever the two sds. (Where shots are consecutive B is I, and of plain level noise A is tridiag(-1, 2, -1) and
V the discrete sine transform.) g_s and e_s add rank two. With x_s = V' (differences of sequence s), u the same of m,
v = level^2 lambda + walk^2 and C the two columns of g_s and e_s::

    x_s ~ Normal(u, diag(v) + C C'),

so a sequence's log-likelihood takes sums over n only (Woodbury), and that of all S sequences follows from their mean
and scatter: the cost does not grow with S. Two kinds of hypothesis must be taken sequence by sequence: one with a
latent step in each (`changepoint`; given the step the form is the same), and any with heavy-tailed noise, where x_s has
the multivariate t distribution with that location and scale matrix and `dof` degrees of freedom. Laws of history, whose
curve differs between sequences, have statistics and a likelihood of their own (`histories`).

Functions that take `xp` run on numpy, with a leading axis of draws in every parameter (of curves and of draws, where
the statistics are `stacked`), and on pytensor.tensor, without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayes_icl.curves import Curves, consecutive
from bayes_icl.hypotheses.law import Hypothesis
from bayes_icl.inference.noise_shape import Shape, deviations, early_bend, estimate, spectrum

LOG_2PI = float(np.log(2 * np.pi))

MOST_PLACES = 256  # within uneven shots at which a latent step is looked for

# Keeps the variances positive where both noise sds are zero; far below any noise seen.
JITTER = 1e-8


@dataclass(frozen=True)
class Statistics:
    """What the likelihood needs to know of some sequences; every array is float64.

    Attributes
    ----------
    shots
        Numbers of examples, n_min to the last one read, shape (shot,).
    n_max
        Where f = 1. Beyond the last shot read when only the first part of the curves is fitted.
    x
        Transformed differences of each sequence, shape (seq, update).
    x_mean, x_scatter
        Their mean, and the sum over sequences of outer products about it, shapes (update,), (update, update).
    n_seqs, weight
        Number of sequences, and the sum of their weights: the same unless some are weighted down (`Shape.weights`).
    scale
        Typical spread of a sequence over shots, nats; the priors are in its units.
    transform, eigenvalues
        Eigenvectors (update, update) and spectrum (update,) of the covariance of differences of level noise of sd 1:
        differences @ transform are the transformed ones.
    inverse_transform
        Of `transform`, same shape: transformed differences @ inverse_transform are the differences. Its transpose only
        where shots are consecutive.
    line, early
        Transformed differences of what sequences differ along: 1 nat in all, evenly; a bend over the first examples
        about its best line, at most 1 nat from it. Shape (update,).
    corr
        Correlation of the two over sequences.
    bends
        Differences, not transformed, of smooth deviations from a line, of which `freeform` is made (bend, update):
        weighted by draws of the standard normal, their sum has root mean square 1 nat.
    items
        Differences, not transformed, of 1 nat at one shot in all sequences, shape (shot, update): what an item does
        that all are asked there. Without rows where sequences are asked items of their own.
    step_positions
        Where a latent step can be, as a share of the way from n_min to n_max: within each update fitted, then as far
        again beyond n_max, shape (place,).
    step_sums
        Examples that each place stands for, in the column of the update that it is within, or in the last one beyond
        the updates fitted, shape (place, update + 1).
    """

    shots: np.ndarray
    n_max: float
    x: np.ndarray
    x_mean: np.ndarray
    x_scatter: np.ndarray
    n_seqs: float
    weight: float
    scale: Any  # a float, but for `stacked`
    transform: np.ndarray
    inverse_transform: np.ndarray
    eigenvalues: np.ndarray
    line: np.ndarray
    early: np.ndarray
    corr: float
    bends: np.ndarray
    items: np.ndarray
    step_positions: np.ndarray
    step_sums: np.ndarray

    def of(self, seqs: np.ndarray) -> Statistics:
        """Those of some of the sequences, unweighted; the scale, which the priors hang on, stays."""
        x = self.x[seqs]
        mean = x.mean(0)
        scatter = (x - mean).T @ (x - mean)
        n = float(len(x))
        return replace(self, x=x, x_mean=mean, x_scatter=scatter, n_seqs=n, weight=n)


def summarise(
    curves: Curves, *, until: float | None = None, scale: float | None = None, shape: Shape | None = None
) -> Statistics:
    """The statistics of some curves.

    Parameters
    ----------
    curves
        One task under one readout.
    until
        Fit the shots up to this one only; f = 1 stays where the curves end. All, if none is given.
    scale
        What priors are in units of, nats; the median over sequences of the sd over shots, if none is given.
    shape
        Of the noise; as `noise_shape.estimate` finds it on the whole curves, if none is given.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.inference.noise import summarise
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> stats = summarise(curves)
    >>> stats.x.shape, round(stats.scale, 1)  # 32 sequences of 31 updates; nats
    ((32, 31), 1.5)
    """
    n_min, n_max = float(curves.shots[0]), float(curves.shots[-1])
    shape = estimate(curves) if shape is None else shape
    keep = curves.shots <= (n_max if until is None else until)
    log_odds, shots = curves.log_odds[:, keep], curves.shots[keep]
    eigenvalues, transform = spectrum(shots, n_min, n_max, shape)
    steps = np.diff(shots)
    places, step_sums = _step_places(curves.shots, len(steps))
    weights = np.ones(len(log_odds)) if shape.weights is None else np.asarray(shape.weights)
    # A sequence of weight w has w times the precision.
    x = np.diff(log_odds, axis=1) @ transform
    mean = weights @ x / weights.sum()
    early, bends = early_bend(curves.shots), deviations(curves.shots)
    at_shot = np.eye(len(shots)) if shape.shared else np.empty((0, len(shots)))
    return Statistics(
        shots=np.asarray(shots, float),
        n_max=n_max,
        x=x,
        x_mean=mean,
        x_scatter=((x - mean) * weights[:, None]).T @ (x - mean),
        n_seqs=float(len(x)),
        weight=float(weights.sum()),
        scale=float(np.median(log_odds.std(1)) if scale is None else scale),
        transform=transform,
        inverse_transform=transform.T * steps,  # V'B, as V'BV = I
        eigenvalues=eigenvalues,
        line=steps / (n_max - n_min) @ transform,
        early=np.diff(early[keep]) @ transform,
        corr=shape.corr,
        bends=np.diff(bends[:, keep], axis=1),
        items=np.diff(at_shot, axis=1),
        step_positions=places,
        step_sums=step_sums,
    )


def _step_places(shots: np.ndarray, n_updates: int) -> tuple[np.ndarray, np.ndarray]:
    """`step_positions` and `step_sums` of curves of which the first updates are fitted."""
    span = shots[-1] - shots[0]
    widest = 1.0 if consecutive(shots) else max(1.0, span / MOST_PLACES)
    stops = np.append(shots, shots[-1] + span)
    parts = [int(np.ceil(length / widest)) for length in np.diff(stops)]
    begins = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(stops, stops[1:], parts)]
    edges = np.append(np.concatenate(begins), stops[-1])
    centres = (edges[:-1] + edges[1:]) / 2
    within = np.searchsorted(shots[1 : n_updates + 1], centres)
    return (centres - shots[0]) / span, np.eye(n_updates + 1)[within] * np.diff(edges)[:, None]


def stacked(each: Sequence[Statistics]) -> Statistics:
    """Those of several curves of the same shape, with a leading axis of curves in all that differs between them.

    `total_log_likelihood` then takes parameters of shape (curve, draw, 1) or (curve, draw, length), where it need not
    go by sequence. x has shape (curve, seq, update), x_mean (curve, 1, update), x_scatter (curve, update, update) and
    scale (curve, 1, 1).
    """
    return replace(
        each[0],
        x=np.stack([stats.x for stats in each]),
        x_mean=np.stack([stats.x_mean for stats in each])[:, None],
        x_scatter=np.stack([stats.x_scatter for stats in each]),
        scale=np.array([stats.scale for stats in each])[:, None, None],
    )


def variances(stats: Any, level: Any, walk: Any) -> Any:
    """Noise variance of each transformed difference, v; arguments broadcast against a last axis of updates."""
    return level**2 * stats.eigenvalues + walk**2 + JITTER * stats.scale**2


def trace(xp: Any, scatter: Any, inverse: Any) -> Any:
    """Of scatter times the diagonal matrix `inverse`, whose entries are along the last axis."""
    return (inverse @ xp.diagonal(scatter, axis1=-2, axis2=-1)[..., None])[..., 0]


def total_log_likelihood(xp: Any, hypothesis: Hypothesis, stats: Any, params: Mapping[str, Any]) -> Any:
    """Log-likelihood of all sequences, nats, shape (...).

    It is the density of transformed differences: of the differences themselves it is less by half the sum of the logs
    of the examples between shots, a sequence, which is the same for all laws and 0 where shots are consecutive.

    Parameters
    ----------
    xp
        `numpy` or `pytensor.tensor`.
    hypothesis
        The law.
    stats
        `Statistics`, or the same names as tensors.
    params
        All parameters of the hypothesis; on numpy of shape (draw, 1) or (draw, length).
    """
    if hypothesis.student or hypothesis.latent_step:
        return log_likelihood(xp, hypothesis, stats, params).sum(axis=-1)
    v = variances(stats, params["level"], params["walk"])
    mean, _, _ = hypothesis.updates(xp, stats, params)
    s, weight, k = stats.n_seqs, stats.weight, stats.eigenvalues.shape[0]
    inverse, error = 1 / v, stats.x_mean - mean @ stats.transform
    between = Between.of(xp, stats, params, inverse)
    squares = trace(xp, stats.x_scatter, inverse) + weight * (error**2 * inverse).sum(axis=-1)
    one, other = ((h * error).sum(axis=-1) for h in between.columns)
    (h1, h2) = between.columns
    along = (
        ((h1 @ stats.x_scatter) * h1).sum(axis=-1) + weight * one**2,
        ((h1 @ stats.x_scatter) * h2).sum(axis=-1) + weight * one * other,
        ((h2 @ stats.x_scatter) * h2).sum(axis=-1) + weight * other**2,
    )
    log_det = xp.log(v).sum(axis=-1) + between.log_det
    return -0.5 * (s * (log_det + k * LOG_2PI) + squares - between.taken(*along))


def log_likelihood(xp: Any, hypothesis: Hypothesis, stats: Any, params: Mapping[str, Any]) -> Any:
    """Log-likelihood of each sequence, nats, shape (..., seq): what leave-one-sequence-out needs.

    Parameters are those of `total_log_likelihood`.
    """
    v = variances(stats, params["level"], params["walk"])
    inverse = 1 / v
    between = Between.of(xp, stats, params, inverse)
    log_det = (xp.log(v).sum(axis=-1) + between.log_det)[..., None]
    own_squares = inverse @ (stats.x**2).T
    own = [h @ stats.x.T for h in between.columns]  # (draw, seq)
    if hypothesis.latent_step:
        return _log_likelihood_of_steps(xp, hypothesis, stats, params, inverse, between, log_det, own_squares, own)
    # Squares are multiplied out, so that no array of shape (draw, seq, update) is needed.
    mean, _, _ = hypothesis.updates(xp, stats, params)
    mean = mean @ stats.transform
    weighted = mean * inverse
    squares = own_squares - 2 * weighted @ stats.x.T + (mean * weighted).sum(axis=-1, keepdims=True)
    along = [one - (h * mean).sum(axis=-1, keepdims=True) for one, h in zip(own, between.columns)]
    one, other = along
    k = stats.eigenvalues.shape[0]
    squares = squares - between.expanded().taken(one**2, one * other, other**2)
    return log_density_of(xp, hypothesis, params, k, log_det, squares)


@dataclass(frozen=True)
class Between:
    """How sequences differ, as a likelihood needs it: two columns b, correlated, beside noise of variances v.

    Attributes
    ----------
    columns
        b / v of each, shape (..., update).
    corner, middle, end
        Of the matrix I + b'(b / v), whose determinant and inverse Woodbury's identity takes; shape (...).
    log_det
        log of its determinant.
    """

    columns: tuple[Any, Any]
    corner: Any
    middle: Any
    end: Any
    log_det: Any

    @classmethod
    def of(cls, xp: Any, stats: Any, params: Mapping[str, Any], inverse: Any) -> Between:
        """Those of draws; `inverse` is 1 / v."""
        along, early = params["gain_sd"] * stats.line, params["early_sd"] * stats.early
        b1, b2 = along + stats.corr * early, (1 - stats.corr**2) ** 0.5 * early
        h1, h2 = b1 * inverse, b2 * inverse
        corner, end = 1 + (h1 * b1).sum(axis=-1), 1 + (h2 * b2).sum(axis=-1)
        middle = (h1 * b2).sum(axis=-1)
        return cls((h1, h2), corner, middle, end, xp.log(corner * end - middle**2))

    def expanded(self) -> Between:
        """With one more axis at the end of its numbers, for one of sequences."""
        return replace(
            self,
            corner=self.corner[..., None],
            middle=self.middle[..., None],
            end=self.end[..., None],
            log_det=self.log_det[..., None],
        )

    def taken(self, first: Any, both: Any, second: Any) -> Any:
        """What the two columns take off a squared length, given the products of b'x/v: (1, 1), (1, 2) and (2, 2)."""
        det = self.corner * self.end - self.middle**2
        return (self.end * first - 2 * self.middle * both + self.corner * second) / det


def _log_likelihood_of_steps(
    xp: Any,
    hypothesis: Hypothesis,
    stats: Any,
    params: Mapping[str, Any],
    inverse: Any,
    between: Between,
    log_det: Any,
    own_squares: Any,
    own: Sequence[Any],
) -> Any:
    """`log_likelihood` where the mean is a step at an unknown update of each sequence, or after the last shot."""
    # A step at update j is the unit vector e_j before the transform: row j of the transform. Arrays with axes of
    # sequences and steps are most of the cost, so that all else is put together before it meets one.
    gain, one, (y1, y2) = params["gain"], between.expanded(), own
    t1, t2 = (h @ stats.transform.T for h in between.columns)
    det = one.corner * one.end - one.middle**2
    first, second = gain * (one.end * y1 - one.middle * y2) / det, gain * (one.corner * y2 - one.middle * y1) / det
    match = (stats.x * (gain * inverse)[..., None, :]) @ stats.transform.T
    match = match - first[..., None] * t1[..., None, :] - second[..., None] * t2[..., None, :]
    half = 0.5 * gain**2 * (inverse @ stats.transform.T**2 - one.taken(t1**2, t1 * t2, t2**2))
    own_squares = (own_squares - one.taken(y1**2, y1 * y2, y2**2))[..., None]
    log_det, k = log_det[..., None], stats.eigenvalues.shape[0]
    log_weights = hypothesis.step_log_weights(xp, stats, params)
    last = log_weights[..., -1][..., None]  # so that PyTensor knows its length to be 1
    odds, last = log_weights[..., :-1] - last, last[..., None]
    if hypothesis.student:
        dof = {"dof": params["dof"][..., None]}
        never = log_density_of(xp, hypothesis, dof, k, log_det, own_squares)
        explained = 2 * (match - half[..., None, :])
        fit = log_density_of(xp, hypothesis, dof, k, log_det, own_squares - explained) - never + odds[..., None, :]
    else:
        never = -0.5 * (k * LOG_2PI + log_det + own_squares)
        fit = match + (odds - half)[..., None, :]
    # Relative to a step after the last shot, whose density is `never`.
    largest = xp.maximum(fit.max(axis=-1, keepdims=True), 0.0)
    total = xp.exp(fit - largest).sum(axis=-1, keepdims=True) + xp.exp(-largest)
    return (never + last + largest + xp.log(total))[..., 0]


def log_density_of(
    xp: Any, hypothesis: Hypothesis, params: Mapping[str, Any], k: int, log_det: Any, squares: Any
) -> Any:
    """Log density of k numbers whose squared length, in the metric of a scale matrix, is `squares`."""
    if not hypothesis.student:
        return -0.5 * (k * LOG_2PI + log_det + squares)
    dof = params["dof"]
    if xp is np:
        from scipy.special import gammaln
    else:
        gammaln = xp.gammaln
    constant = gammaln((dof + k) / 2) - gammaln(dof / 2) - 0.5 * k * xp.log(np.pi * dof)
    return constant - 0.5 * log_det - 0.5 * (dof + k) * xp.log1p(squares / dof)
