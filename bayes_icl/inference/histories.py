r"""The likelihood of laws of history: curves, or single prompts, whose examples need not agree.

A sequence s read after n examples has the log-odds::

    L[s, n] = l0_s + w_s f(h_s, n) + g_s line(n) + walk + level,

f being the law's function of what its examples showed, w_s ~ Normal(w, w_sd) its weight in that sequence, and the rest
as in `noise`: a flat intercept, a slope of the sequence's own, g_s ~ Normal(0, gain_sd), level noise and a random walk.
No unit is taken from the evidence, whose mean may be 0. As there, differences over n are taken to coordinates in which
the noise is diagonal, with variances v; the slopes add the column b = gain_sd line, and the weights one of each
sequence's own, w_sd u_s, with u_s the transformed differences of f. Two steps of Woodbury's identity give the density.

Single prompts, of which no two are of one sequence, have one intercept for all (`start`), no slope and no walk. Their
level noise may hang on n: prompts are divided by its size at their n, relative to the others', found beforehand from
what a weight for every lag leaves over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from bayes_icl.curves import Curves
from bayes_icl.hypotheses.history import knots_of, lag_basis, lag_sizes
from bayes_icl.hypotheses.law import Hypothesis
from bayes_icl.hypotheses.past import Past
from bayes_icl.inference.noise import log_density_of, summarise
from bayes_icl.inference.noise_shape import LEAST_SEQS, Shape, estimate

LEAST_ROWS = 8  # prompts of one n below which the size of their noise is taken from all

SHRUNK_BY = 10.0  # prompts that the size of the noise of all counts for, beside those of one n


@dataclass(frozen=True, eq=False)
class Histories:
    """What the likelihood of laws of history needs to know of some sequences; every array is float64.

    Attributes
    ----------
    past
        What was shown before every reading.
    x
        Transformed differences of each sequence, shape (seq, update); of single prompts their log-odds over `size`,
        with one update.
    matrix
        From the readings of a sequence to its transformed differences, shape (read, update).
    size
        Of the level noise of each sequence, relative to the others'; 1 but for single prompts. Shape (seq, 1).
    eigenvalues, line
        As in `noise.Statistics`, shape (update,); of single prompts 1 and 0.
    transform
        From differences to x, shape (update, update).
    scale
        What some priors are in units of, nats.
    single
        Whether readings are single prompts.
    log_odds
        As read, shape (seq, read), nats.
    """

    past: Past
    x: np.ndarray
    matrix: np.ndarray
    size: np.ndarray
    eigenvalues: np.ndarray
    line: np.ndarray
    transform: np.ndarray
    scale: float
    single: bool
    log_odds: np.ndarray

    @cached_property
    def knots(self) -> np.ndarray:
        """Lags at which `per_lag` steps."""
        return knots_of(self.past)

    @cached_property
    def start(self) -> Float[np.ndarray, "seq update"]:
        """What an intercept adds: nothing to differences."""
        return self.transformed(np.ones(len(self.past.n)))

    @cached_property
    def lags(self) -> Float[np.ndarray, "seq update knot"]:
        """Transformed differences of the basis of `per_lag`."""
        return np.moveaxis(self.transformed(lag_basis(self.past)), 0, -1)

    def transformed(self, f: Any) -> Any:
        """From values at all readings, shape (..., reading), to transformed differences, shape (..., seq, update)."""
        shape = self.log_odds.shape
        if isinstance(f, np.ndarray):
            each = f.reshape(*f.shape[:-1], *shape)
            return each / self.size if self.single else each @ self.matrix
        return (f.reshape(shape) / self.size) @ self.matrix

    def of(self, seqs: np.ndarray) -> Histories:
        """Those of some of the sequences; the scale, which priors hang on, stays."""
        return replace(
            self, past=self.past.of(seqs), x=self.x[seqs], size=self.size[seqs], log_odds=self.log_odds[seqs]
        )


def histories_of(curves: Curves, *, until: float | None = None, like: Histories | None = None) -> Histories:
    """What the laws of history need to know of some curves.

    Parameters
    ----------
    curves
        One task under one readout, whose history or observer is known.
    until
        Take the readings up to this number of examples only. All, if none is given.
    like
        Those of the whole curves, for priors of the same scale; needed with `until`.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import Curves
    >>> from bayes_icl.inference.histories import histories_of
    >>> shown = np.random.default_rng(0).choice([-1, 1], (16, 9))
    >>> walks = np.pad(0.3 * shown.cumsum(1), ((0, 0), (1, 0)))[:, :9]
    >>> histories_of(Curves("mine", "foil", np.arange(9.0), walks, history=shown)).x.shape
    (16, 8)
    """
    if curves.single is not None:
        return _of_prompts(curves)
    shape = noise_left(curves)
    keep = curves.shots <= (curves.shots[-1] if until is None else until)
    stats = summarise(curves, until=until, scale=None if like is None else like.scale, shape=shape)
    n_read = int(keep.sum())
    differences = np.diff(np.eye(n_read), axis=0).T
    return Histories(
        past=past_of(curves).until(keep),
        x=stats.x,
        matrix=differences @ stats.transform,
        size=np.ones((len(stats.x), 1)),
        eigenvalues=stats.eigenvalues,
        line=stats.line,
        transform=stats.transform,
        scale=stats.scale,
        single=False,
        log_odds=curves.log_odds[:, keep],
    )


def past_of(curves: Curves) -> Past:
    """What was shown before each of the readings; nothing, where only the observer is known."""
    n_seqs = len(curves.log_odds)
    if curves.single is not None:
        reads = np.asarray(curves.single, int)[:, None]
    else:
        reads = np.broadcast_to(curves.shots.astype(int), (n_seqs, len(curves.shots)))
    history = curves.history
    if history is None:
        history = np.zeros((n_seqs, int(reads.max())))
    return Past(history, np.ascontiguousarray(reads), curves.observer)


def noise_left(curves: Curves) -> Shape:
    """The shape of the noise (`noise_shape`) that a weight for every lag, and a mean for every shot, leave over."""
    if len(curves.log_odds) < LEAST_SEQS:
        return estimate(curves)
    columns = [lag_basis(past_of(curves)).reshape(-1, *curves.log_odds.shape)]
    if curves.observer is not None:
        columns.append(curves.observer[None])
    basis = np.concatenate(columns)
    basis = basis - basis.mean(1, keepdims=True)
    updates = np.diff(curves.log_odds - curves.log_odds.mean(0), axis=1).ravel()
    design = np.diff(basis, axis=2).reshape(len(basis), -1).T
    weights = np.linalg.lstsq(design, updates, rcond=1e-8)[0]
    left = curves.log_odds - np.tensordot(weights, basis, 1)
    return replace(estimate(curves._replace(log_odds=left, items=None)), shared=False)


def _of_prompts(curves: Curves) -> Histories:
    past, n = past_of(curves), np.asarray(curves.single, int)
    columns = [np.ones(len(n)), n / n.max(), *lag_basis(past)]
    if curves.observer is not None:
        columns.append(past.of_observer)
    design, values = np.stack(columns, axis=1), curves.log_odds[:, 0]
    left = values - design @ np.linalg.lstsq(design, values, rcond=1e-8)[0]
    total, size = float((left**2).mean()), np.ones(len(n))
    for number in np.unique(n):
        own = n == number
        if own.sum() >= LEAST_ROWS and total > 0:
            size[own] = np.sqrt(((left[own] ** 2).sum() / total + SHRUNK_BY) / (own.sum() + SHRUNK_BY))
    return Histories(
        past=past,
        x=values[:, None] / size[:, None],
        matrix=np.ones((1, 1)),
        size=size[:, None],
        eigenvalues=np.ones(1),
        line=np.zeros(1),
        transform=np.ones((1, 1)),
        scale=float(values.std()),
        single=True,
        log_odds=curves.log_odds,
    )


def history_variances(stats: Histories, params: Mapping[str, Any]) -> Any:
    """Noise variance of each transformed difference."""
    own = params["level"] ** 2 * stats.eigenvalues
    return own + 1e-8 * stats.scale**2 + (params["walk"] ** 2 if "walk" in params else 0.0)


def means(xp: Any, hypothesis: Hypothesis, stats: Histories, params: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """f and what is added beside w f, each transformed, shape (..., seq, update); and the weight, with those axes."""
    own = {name: params[name] for name in hypothesis.priors if name != "w"}
    found = hypothesis.curve(xp, stats.past, **own)
    f, beside = found if isinstance(found, tuple) else (found, None)

    def spread(name: str) -> Any:
        return params[name][..., None]

    u = stats.transformed(f)
    added: Any = spread("start") * stats.start if "start" in params else 0.0
    if beside is not None:
        added = added + stats.transformed(beside)
    return u, added, spread("w") if "w" in params else 1.0


def history_log_likelihood(xp: Any, hypothesis: Hypothesis, stats: Histories, params: Mapping[str, Any]) -> Any:
    """Log-likelihood of each sequence, nats, shape (..., seq), up to a constant for single prompts.

    Parameters
    ----------
    xp
        `numpy` or `pytensor.tensor`.
    hypothesis
        A law of history.
    stats
        Of the sequences.
    params
        All parameters; on numpy of shape (draw, 1) or (draw, length), on PyTensor numbers or vectors.
    """
    if xp is not np:  # numbers, to which `means` and the columns below give their axes
        params = {name: x[None] if x.ndim == 0 else x for name, x in params.items()}
    v = history_variances(stats, params)
    inverse = (1 / v)[..., None, :]
    u, added, weight = means(xp, hypothesis, stats, params)
    error, single = stats.x - added - weight * u, stats.x.shape[1] == 1

    def product(a: Any, b: Any) -> Any:
        each = a * b * inverse
        return each[..., 0] if single else each.sum(axis=-1)

    squares, log_det = product(error, error), xp.log(v).sum(axis=-1)[..., None]
    along = None
    if "gain_sd" in params:
        h = (params["gain_sd"] * stats.line / v)[..., None, :]
        corner = 1 + (h[..., 0, :] * params["gain_sd"] * stats.line).sum(axis=-1)[..., None]
        along = (h * error).sum(axis=-1)
        squares, log_det = squares - along**2 / corner, log_det + xp.log(corner)
    if "w_sd" in params:
        own, cross = product(u, u), product(u, error)
        if along is not None:
            of_u = (h * u).sum(axis=-1)
            own, cross = own - of_u**2 / corner, cross - of_u * along / corner
        spread = 1 + params["w_sd"] ** 2 * own
        squares, log_det = squares - params["w_sd"] ** 2 * cross**2 / spread, log_det + xp.log(spread)
    return log_density_of(xp, hypothesis, params, stats.x.shape[1], log_det, squares)


def collapsed_history(
    stats: Histories, params: Mapping[str, np.ndarray]
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, "draw knot knot"], Float[np.ndarray, "draw knot"]]:
    """Log-likelihood of all sequences under `per_lag` with its vector integrated out, nats; and the vector, given all.

    The vector's innovations are standard normal, and the mean linear in them, so that what is integrated out is normal.

    Parameters
    ----------
    stats
        Of the sequences.
    params
        The other parameters, shape (draw, 1).

    Returns
    -------
    log_likelihood
        Shape (draw,), nats.
    root, mean
        Of the vector given the rest: the Cholesky factor of its precision, and its mean.
    """
    v = history_variances(stats, params)
    inverse, (n_seqs, k, n_knots) = 1 / v, stats.lags.shape
    u, added = stats.lags, params["start"][..., None] * stats.start if "start" in params else 0.0
    error = np.broadcast_to(stats.x - added, (len(v), *stats.x.shape))
    gram = (inverse @ np.einsum("ski,skj->kij", u, u).reshape(k, -1)).reshape(-1, n_knots, n_knots)
    push = np.einsum("dsk,ski->di", error * inverse[:, None, :], u, optimize=True)
    squares = np.einsum("dsk,dsk,dk->d", error, error, inverse, optimize=True)
    log_det = n_seqs * np.log(v).sum(-1)
    if "gain_sd" in params:
        column = params["gain_sd"] * stats.line
        h = column * inverse
        corner = 1 + (h * column).sum(-1)
        along = np.einsum("dsk,dk->ds", error, h)
        of_u = (h @ np.moveaxis(u, 1, 0).reshape(k, -1)).reshape(-1, n_seqs, n_knots)
        gram = gram - of_u.mT @ of_u / corner[:, None, None]
        push = push - np.einsum("ds,dsi->di", along, of_u) / corner[:, None]
        squares = squares - (along**2).sum(-1) / corner
        log_det = log_det + n_seqs * np.log(corner)
    sizes = lag_sizes(np, params["step"], stats.past)
    gram = gram * sizes[:, :, None] * sizes[:, None, :] + np.eye(n_knots)
    push = push * sizes
    root = np.linalg.cholesky(gram)
    half = np.linalg.solve(root, push[..., None])
    log_det = log_det + 2 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
    value = -0.5 * (n_seqs * k * np.log(2 * np.pi) + log_det + squares - (half[..., 0] ** 2).sum(-1))
    return value, root, np.linalg.solve(root.mT, half)[..., 0]


def known_starts(
    hypothesis: Hypothesis, stats: Histories, params: Mapping[str, np.ndarray]
) -> dict[str, Float[np.ndarray, "draw 1"]]:
    """Where to begin: the weight that fits best beside the law's own parameters, and the noise that is then left."""
    level = 1e-2 * stats.scale + float(np.sqrt((stats.x**2 / np.maximum(stats.eigenvalues, 1e-3)).mean())) / 2
    sizes = {"level": level, "walk": 0.1 * level, "gain_sd": 0.1 * stats.scale, "w_sd": 0.05}
    known = {name: np.full_like(params["level"], size) for name, size in sizes.items()}
    if hypothesis.ceiling:
        return known
    u, added, _ = means(np, hypothesis, stats, {k: v for k, v in params.items() if k != "start"})
    u, left = np.broadcast_to(u, (len(params["level"]), *u.shape[-2:])), stats.x - added
    columns = [u, *([np.broadcast_to(stats.start, u.shape)] * stats.single)]
    design = np.stack([column.reshape(len(u), -1) for column in columns], axis=-1)
    target = np.broadcast_to(left, u.shape).reshape(len(u), -1, 1)
    gram = design.mT @ design + 1e-9 * np.eye(design.shape[-1]) * (1 + (design**2).sum((1, 2))[:, None, None])
    fitted = np.linalg.solve(gram, design.mT @ target)[..., 0]
    rest = np.sqrt(((target - design @ fitted[..., None]) ** 2).mean((1, 2)) / max(stats.eigenvalues.mean(), 1e-12))
    known |= {"level": rest[:, None] + 1e-3 * stats.scale, "w": fitted[:, :1]}
    return known | ({"start": fitted[:, 1:]} if stats.single else {})
