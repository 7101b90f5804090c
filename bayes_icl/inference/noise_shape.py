r"""The shape of the noise: how level noise changes with n and carries over, how sequences differ, which items recur.

It is found from how sequences differ from their mean, whatever that mean is (restricted maximum likelihood), so that it
is the same for all laws and can neither make a curve of a line nor a line of a curve. Of four kinds of level noise
(plain, with a sd that changes with n, carried over from shot to shot, both) the plainest is kept unless the Bayesian
information criterion prefers another. Sizes (`level`, `walk`, `gain_sd`, `early_sd`) are left to the posteriors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.stats import chi2

from bayes_icl.curves import Curves, consecutive

EARLY = 3.0  # examples within which sequences may differ by an early bend

N_BENDS = 12  # smooth deviations from a line, the smoothest ones

ROUGH = 0.05  # p below which a mean curve is too rough for noise of each sequence's own

DOF = 4.0  # of the multivariate t distribution whose weights are taken against odd sequences

LEAST_SEQS, LEAST_SHOTS = 8, 6  # below which the shape is taken to be plain

LEAST = 1e-3  # a sd in units of the curves' scale below which it is none


@dataclass(frozen=True)
class Shape:
    """The shape of the noise of some curves.

    Attributes
    ----------
    trend
        Level noise has sd level exp(-trend (n - middle) / span): 0 where it does not change, log 3 where it falls
        threefold.
    carry
        Correlation of level noise from n to n + 1, as in an AR(1) process.
    corr
        Correlation over sequences of how they differ along a line and along an early bend.
    shared
        Whether something common to all sequences moves single shots, as an item does that all are asked there.
    weights
        Of each sequence, against odd ones; None where all are equal.
    """

    trend: float = 0.0
    carry: float = 0.0
    corr: float = 0.0
    shared: bool = False
    weights: tuple[float, ...] | None = None

    @property
    def words(self) -> str:
        """What was chosen, for people."""
        parts = []
        if self.trend:
            parts.append(f"level noise {'falling' if self.trend > 0 else 'rising'} {np.exp(abs(self.trend)):.1f}-fold")
        if self.carry:
            parts.append(f"level noise carried over (AR(1), {self.carry:.2f})")
        return " and ".join(parts or ["plain level noise"]) + (", an effect of each shot" if self.shared else "")


PLAIN = Shape()


def spectrum(
    shots: Float[np.ndarray, " shot"], n_min: float, n_max: float, shape: Shape
) -> tuple[Float[np.ndarray, " update"], Float[np.ndarray, "update update"]]:
    """Eigenvalues and eigenvectors (columns) of the covariance A of differences of level noise of sd 1.

    They are generalised ones, A V = B V diag(eigenvalues) with V'BV = I: B is the covariance of differences of a walk
    of sd 1, which has the numbers of examples between shots on its diagonal.
    """
    k = len(shots) - 1
    if not shape.trend and not shape.carry and consecutive(shots):
        i = np.arange(1, k + 1)
        sines = np.sqrt(2 / (k + 1)) * np.sin(np.pi * np.outer(i, i) / (k + 1))
        return 2 - 2 * np.cos(np.pi * i / (k + 1)), sines
    root = np.sqrt(np.diff(shots))
    covariance = _level_covariance(shots, n_min, n_max, shape.trend, shape.carry)
    values, vectors = np.linalg.eigh(covariance / np.outer(root, root))
    # Signs are free, and another machine's library may choose others.
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(k)])
    return np.maximum(values, 0.0), vectors * signs / root[:, None]


def _level_covariance(
    shots: Float[np.ndarray, " shot"], n_min: float, n_max: float, trend: float, carry: float
) -> Float[np.ndarray, "update update"]:
    size = np.exp(-trend * (shots - (n_min + n_max) / 2) / (n_max - n_min))
    level = np.outer(size, size) * carry ** np.abs(np.subtract.outer(shots, shots))
    return np.diff(np.diff(level, axis=0), axis=1)


def off_line(shots: Float[np.ndarray, " shot"], curves: Float[np.ndarray, "... shot"]) -> np.ndarray:
    """Curves less their best straight lines."""
    basis, _ = np.linalg.qr(np.stack([np.ones_like(shots), shots], axis=1))
    return curves - curves @ basis @ basis.T


def early_bend(shots: Float[np.ndarray, " shot"]) -> Float[np.ndarray, " shot"]:
    """A bend over the first examples about its best line, at most 1 from it."""
    bend = off_line(shots, 1 - np.exp(-(shots - shots[0]) / EARLY))
    return bend / max(np.abs(bend).max(), 1e-12)


def deviations(shots: Float[np.ndarray, " shot"]) -> Float[np.ndarray, "bend shot"]:
    """Smooth deviations from a line: weighted by standard normal draws, their sum has root mean square 1.

    The principal components of curves over all whole n whose second differences are independent, at the shots there are
    and less their best lines.
    """
    n = len(shots)
    if consecutive(shots):
        summed = np.tril(np.ones((n, n)))
        vectors, sizes, _ = np.linalg.svd(off_line(shots, (summed @ summed).T).T)
    else:
        both = off_line(shots, off_line(shots, _summed_twice(shots)).T)
        squares, vectors = np.linalg.eigh((both + both.T) / 2)
        vectors, sizes = vectors[:, ::-1], np.sqrt(squares[::-1].clip(0))
    rows = np.zeros((N_BENDS, n))
    kept = min(N_BENDS, max(n - 2, 0))
    signs = np.sign(vectors[-1, :kept])
    rows[:kept] = (vectors[:, :kept] * sizes[:kept] * np.where(signs == 0, 1, signs)).T
    return rows * np.sqrt(n / max((rows**2).sum(), 1e-12))


def _summed_twice(shots: Float[np.ndarray, " shot"]) -> Float[np.ndarray, "shot shot"]:
    """Covariance of noise summed twice over whole n, up to its size."""
    n = shots - shots[0] + 1
    m, apart = np.minimum.outer(n, n), np.abs(np.subtract.outer(n, n))
    # The sum over i = 1 ... m of i (i + apart).
    return m * (m + 1) * ((2 * m + 1) / 6 + apart / 2) / n[-1] ** 3


def estimate(curves: Curves, *, robust: bool = False) -> Shape:
    """The shape of the noise of some curves.

    Parameters
    ----------
    curves
        One task under one readout.
    robust
        Weigh sequences down that are odd, as under a multivariate t distribution with 4 degrees of freedom.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import Curves, consecutive
    >>> from bayes_icl.inference.noise_shape import estimate
    >>> shots, rng = np.arange(33.0), np.random.default_rng(0)
    >>> falling = 0.3 * shots + rng.normal(size=(64, 33)) * 3 ** -(shots / 32)
    >>> estimate(Curves("mine", "complement", shots, falling)).words[:19]
    'level noise falling'
    """
    items = None if curves.items is None else curves.items.tobytes()
    return _estimate(curves.shots.tobytes(), curves.log_odds.tobytes(), curves.log_odds.shape, items, robust)


@lru_cache(maxsize=256)
def _estimate(shots: bytes, log_odds: bytes, size: tuple[int, int], items: bytes | None, robust: bool) -> Shape:
    n, odds = np.frombuffer(shots), np.frombuffer(log_odds).reshape(size)
    codes = None if items is None else np.frombuffer(items, dtype=np.int64).reshape(size)
    problem = _Problem(n, odds, np.ones(size[0]))
    if size[0] < LEAST_SEQS or size[1] < LEAST_SHOTS or not problem.scale > 0 or not np.isfinite(odds).all():
        return PLAIN
    found = problem.chosen()
    weights = None
    if robust:
        for _ in range(4):
            weights = (DOF + problem.k) / (DOF + problem.distances(found[1]))
            weights /= weights.mean()  # as where they have settled, and sooner there (Kent, Tyler and Vardi 1994)
            problem = replace(problem, weights=weights)
            found = problem.chosen()
    shape, covariance = found
    shared = problem.rough(covariance) or (codes is not None and recurs(codes))
    return replace(shape, shared=bool(shared), weights=None if weights is None else tuple(weights.tolist()))


def recurs(items: Any) -> bool:
    """Whether sequences are asked the same item at a shot more often than items drawn for each would be.

    By how much the share of the sequences that an item has at a shot varies over shots: 1 over the number of sequences
    where each draws its own.
    """
    n_seqs = len(items)
    kinds, codes = np.unique(items, return_inverse=True)
    shares = np.zeros((items.shape[1], len(kinds)))
    np.add.at(shares, (np.broadcast_to(np.arange(items.shape[1]), items.shape), codes.reshape(items.shape)), 1 / n_seqs)
    return bool(((shares - shares.mean(0)) ** 2).sum(1).mean() > 3 / n_seqs)


@dataclass(frozen=True)
class _Problem:
    """Log-odds of sequences, and the likelihood of how they differ from their mean."""

    shots: np.ndarray
    odds: np.ndarray
    weights: np.ndarray

    @property
    def k(self) -> int:
        return len(self.shots) - 1

    @cached_property
    def updates(self) -> np.ndarray:
        return np.diff(self.odds, axis=1)

    @cached_property
    def mean(self) -> np.ndarray:
        return self.weights @ self.updates / self.weights.sum()

    @cached_property
    def scale(self) -> float:
        # Of how sequences differ: what is found must not hang on their mean.
        return float(np.median((self.odds - self.odds.mean(0)).std(1)))

    @cached_property
    def straight(self) -> np.ndarray:
        """Updates of a line that rises by 1, and of an early bend."""
        return np.stack([np.diff(self.shots) / (self.shots[-1] - self.shots[0]), np.diff(early_bend(self.shots))])

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of shots as a share of the way about the middle, summed over pairs, and how far pairs are apart."""
        place = (self.shots - (self.shots[0] + self.shots[-1]) / 2) / (self.shots[-1] - self.shots[0])
        return place, np.add.outer(place, place), np.abs(np.subtract.outer(self.shots, self.shots))

    def chosen(self) -> tuple[Shape, np.ndarray]:
        """The shape preferred, and the covariance of a sequence's updates."""
        off = self.updates - self.mean
        scatter = (off * self.weights[:, None]).T @ off
        df, low = len(self.odds) - 1, np.log(LEAST)
        spread = np.log(max(off.std() / np.sqrt(2) / self.scale, 2 * LEAST))
        best: tuple[float, np.ndarray] | None = None
        start = np.array([spread, spread - 2, -1.0, -2.0, 0.0, 0.0, 0.0])
        for trends, carries in ((False, False), (True, False), (False, True), (True, True)):
            bounds = [
                *[(low, 3.0)] * 4,
                (-2.0, 2.0),
                (-3.0, 3.0) if trends else (0, 0),
                (0, 0.95) if carries else (0, 0),
            ]
            z0 = start if best is None else np.where([*[True] * 6, False], best[1], 0.3 * carries)
            z0 = np.clip(z0, [b[0] for b in bounds], [b[1] for b in bounds])
            options = {"ftol": 1e-13, "gtol": 1e-7, "maxiter": 200}
            found = minimize(self._loss, z0, (scatter, df), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
            criterion = 2 * found.fun + (trends + carries) * np.log(df * self.k)
            if best is None or criterion < best[0]:
                best = criterion, found.x
            if best is not None and not trends and not carries:
                start = found.x
        assert best is not None
        z = best[1]
        corr = float(np.tanh(z[4])) if min(z[2], z[3]) > low + 0.1 else 0.0
        return Shape(trend=float(z[5]), carry=float(z[6]), corr=corr), self._covariance(z)[0]

    def _covariance(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of a sequence's updates, shape (update, update), and its derivative by each coordinate.

        Coordinates are log sds of the level noise, the walk and the two ways in which sequences differ, in units of
        the scale; the inverse hyperbolic tangent of their correlation; trend and carry.
        """
        level, walk, along, bent = np.exp(2 * z[:4]) * self.scale**2
        (trend, carry), (line, early), (place, places, apart) = z[5:], self.straight, self.places
        size = np.exp(-trend * place)
        # Powers of 0 are 0 but for the first.
        each = np.outer(size, size) * np.stack([carry**apart, apart * carry ** np.maximum(apart - 1, 0)])
        noise = level * np.stack([each[0], -places * each[0], each[1]])
        levels, by_trend, by_carry = np.diff(np.diff(noise, axis=1), axis=2)
        cross = np.sqrt(along * bent) * (np.outer(line, early) + np.outer(early, line))
        crossed, eye = np.tanh(z[4]) * cross, np.diag(np.diff(self.shots))  # a walk goes on with every example
        straight, curved = along * np.outer(line, line), bent * np.outer(early, early)
        cov = levels + (walk + 1e-8 * self.scale**2) * eye + straight + curved + crossed
        slopes = [2 * levels, 2 * walk * eye, 2 * straight + crossed, 2 * curved + crossed]
        return cov, np.stack([*slopes, cross / np.cosh(z[4]) ** 2, by_trend, by_carry])

    def _loss(self, z: np.ndarray, scatter: np.ndarray, df: int) -> tuple[float, np.ndarray]:
        """Minus the restricted log-likelihood, with priors of trend and correlation, and its gradient."""
        cov, slopes = self._covariance(z)
        try:
            root = np.linalg.cholesky(cov)
        except np.linalg.LinAlgError:
            return 1e12, np.zeros(len(z))
        inverse = np.linalg.inv(cov)
        squares = inverse @ scatter
        prior = 0.5 * z[5] ** 2 + 2 * np.log(np.cosh(z[4]))  # normal; LKJ(2)
        value = df * np.log(np.diagonal(root)).sum() + 0.5 * np.trace(squares) + prior
        gradient = 0.5 * np.tensordot(slopes, df * inverse - squares @ inverse, 2)
        gradient[4] += 2 * np.tanh(z[4])
        gradient[5] += z[5]
        return value, gradient

    def distances(self, covariance: np.ndarray) -> Float[np.ndarray, " seq"]:
        """Squared length of each sequence's updates about the mean, in the metric of their covariance."""
        off = self.updates - self.mean
        return np.einsum("sk,sk->s", off, np.linalg.solve(covariance, off.T).T)

    def rough(self, covariance: np.ndarray) -> bool:
        """Whether the mean curve is rougher than a smooth curve seen through noise of each sequence's own."""
        line, bends = np.diff(self.shots)[None], np.diff(deviations(self.shots), axis=1)
        smooth = np.concatenate([line, bends[(bends**2).sum(1) > 0]])
        df = self.k - len(smooth)
        if df < 1:
            return False
        root = np.linalg.cholesky(covariance / self.weights.sum())
        basis, mean = np.linalg.solve(root, smooth.T), np.linalg.solve(root, self.mean)
        left = mean - basis @ np.linalg.lstsq(basis, mean)[0]
        return bool(chi2.sf(left @ left, df) < ROUGH)
