"""Mixtures of multivariate t distributions, the proposals of the fast engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lgamma, log, pi

import numpy as np
from jaxtyping import Float

DOF = 5  # of the proposals: tails heavier than any posterior here


@dataclass(frozen=True)
class Mixture:
    """A mixture of multivariate t distributions, or one for each of several curves.

    Attributes
    ----------
    means, roots
        Shape (..., component, z) and (..., component, z, z): lower Cholesky factors of the scale matrices.
    shares
        Shape (component,), sum 1.
    folds
        Coordinates whose negative half is folded onto the positive one: standard deviations that may be near 0, of
        which half the draws would be lost otherwise.
    """

    means: np.ndarray
    roots: np.ndarray
    shares: np.ndarray
    folds: tuple[int, ...] = ()

    def folded(self, sds: np.ndarray) -> Mixture:
        """With folds where a standard deviation of mask `sds` may be near 0."""
        widths = np.linalg.norm(self.roots, axis=-1)
        near = (self.means < 4 * widths).reshape(-1, len(sds)).any(0)
        return replace(self, folds=tuple(np.flatnonzero(sds & near).tolist()))

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` draws, as many from each component as its share says."""
        normal, square = rng.normal(size=(n, self.means.shape[-1])), rng.chisquare(DOF, size=n)
        return self.placed(normal / np.sqrt(square / DOF)[:, None])

    def placed(self, t: Float[np.ndarray, "draw z"]) -> Float[np.ndarray, "... draw z"]:
        """Draws of the standard t distribution brought to this one."""
        ends = np.floor(np.cumsum(self.shares[:-1]) * len(t) + 0.5).astype(int)
        parts = [
            self.means[..., i, None, :] + part @ self.roots[..., i, :, :].mT for i, part in enumerate(np.split(t, ends))
        ]
        z = np.concatenate(parts, axis=-2)
        z[..., self.folds] = np.abs(z[..., self.folds])
        return z

    def log_density(self, z: Float[np.ndarray, "... draw z"]) -> Float[np.ndarray, "... draw"]:
        """Log density of each draw."""
        signs = np.ones((1, z.shape[-1]))
        for i in self.folds:
            other = signs.copy()
            other[:, i] = -1
            signs = np.concatenate([signs, other])
        return _log_sum(np.concatenate([self.log_components(z * sign) for sign in signs]))

    def log_components(self, z: Float[np.ndarray, "... draw z"]) -> Float[np.ndarray, "component ... draw"]:
        """Log share times density of each component, folds left aside."""
        p = z.shape[-1]
        out = np.empty((len(self.shares), *z.shape[:-1]))
        for i, share in enumerate(self.shares):
            root = self.roots[..., i, :, :]
            # Draws last: numpy sums over few rows many times faster than along short ones.
            standard = np.linalg.inv(root) @ (z - self.means[..., i, None, :]).mT
            squares = np.einsum("...ij,...ij->...j", standard, standard)
            log_size = np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)[..., None]
            out[i] = np.log(share) - log_size - 0.5 * (DOF + p) * np.log1p(squares / DOF)
        return out + _t_constant(p)


def _log_sum(x: np.ndarray) -> np.ndarray:
    """log of the sum of exponentials along the first axis."""
    largest = x.max(0)
    return largest + np.log(np.exp(x - largest).sum(0))


def _t_constant(p: int) -> float:
    return lgamma((DOF + p) / 2) - lgamma(DOF / 2) - 0.5 * p * log(DOF * pi)
