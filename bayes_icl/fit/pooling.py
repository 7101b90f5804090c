"""Partial pooling of delta over tasks and their families, from each task's own slopes.

Gelman et al., Bayesian Data Analysis (3rd ed.), section 5.4, with one level more: each task's mean slope over
sequences, with its standard error, is a measurement of its true delta; those of a family are normal about the family's
mean with sd tau, and family means are normal(mu, tau_family). Tasks of one family resemble each other, so that many
tasks in few families tell little of the mean over families.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from bayes_icl.core.errors import StatedError
from bayes_icl.core.intervals import LEVEL

_GRID, _COARSE = 2000, 160  # places of tau; of tau and of tau_family, where there are both

_REACH = 6.0  # scales of the prior of tau that the grid covers: 2e-9 of its mass lies beyond

# What built-in tasks are made of: numbers, one of two labels, words.
FAMILIES = {
    **dict.fromkeys(("affine", "copy", "times_ten", "successor", "double"), "numbers"),
    **dict.fromkeys(
        ("category", "category_flipped", "category_arbitrary", "parity", "threshold", "random_labels"), "labels"
    ),
    **dict.fromkeys(("antonym", "capital", "past_tense", "capitalise", "constant"), "words"),
}

OTHER = "other"  # the family of tasks that no one has named one for

FEW_FAMILIES = 5  # with fewer, the mean's interval is wide because families are few


def families_of(dataset: xr.Dataset, tasks: Sequence[str]) -> dict[str, str]:
    """The family of each task: as the file has it, else that of a built-in task, else `OTHER`.

    Parameters
    ----------
    dataset
        In the curves format; `family`, by task, where a table had that column.
    tasks
        Their names; settings and designs that follow a built-in's name do not matter.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves
    >>> from bayes_icl.fit.pooling import families_of
    >>> families_of(read_curves(Path("data/example.nc")), ["copy", "category", "past_tense"])
    {'copy': 'numbers', 'category': 'labels', 'past_tense': 'words'}
    """
    if "family" in dataset:
        return {task: str(dataset.family.sel(task=task).item()) for task in tasks}
    return {task: FAMILIES.get(re.sub("[:+].*", "", task), OTHER) for task in tasks}


@dataclass(frozen=True)
class Pooled:
    """What tasks have in common; each entry a mean and 95 % highest-density interval, nats per example.

    Attributes
    ----------
    mu
        Mean of delta over tasks like these: of families like these, where there are several.
    tau, tau_family
        Sd of delta over tasks of a family, and over families; the latter None where all are of one.
    new_task
        Delta of a further such task, of a family of its own where there are several.
    deltas
        Each task's delta, drawn towards its family's mean.
    families
        Each family's mean; empty where all are of one.
    """

    mu: tuple[float, float, float]
    tau: tuple[float, float, float]
    new_task: tuple[float, float, float]
    deltas: dict[str, tuple[float, float, float]]
    tau_family: tuple[float, float, float] | None = None
    families: dict[str, tuple[float, float, float]] | None = None


def pool_deltas(
    means: Mapping[str, float],
    sds: Mapping[str, float],
    families: Mapping[str, str] | None = None,
    *,
    draws: int = 4000,
    seed: int = 0,
) -> Pooled:
    """Pool the deltas of tasks.

    The prior of mu is flat. Those of tau and of tau_family are half-normal with the root mean square of the deltas
    (their own uncertainty added) as its scale: tasks may differ by as much as the updates are large, not by many times
    that. The scale makes the answer free of units; the normal tail gives tau and a new task a finite sd with 2 tasks,
    where the likelihood alone, which falls as tau^(1 - tasks), would not. It matters only where tasks are few: on
    deltas of 0.25 to 0.42 known to 0.03, halving and doubling the scale move the mean of tau by -2 % and +1 % with 8
    tasks, -14 % and +9 % with 4, -25 % and +28 % with 3, and -38 % and +63 % with 2.

    Parameters
    ----------
    means, sds
        Mean and standard error of each task's delta, nats per example.
    families
        Of each task. Without it, or where all are of one, tasks are exchangeable.
    draws
        How many are returned.
    seed
        Of the draws.

    Raises
    ------
    StatedError
        Fewer than 2 tasks, or numbers that are no mean and sd.

    Examples
    --------
    >>> from bayes_icl.fit.pooling import pool_deltas
    >>> means, sds = {"copy": 0.2, "capital": 0.3, "antonym": 0.4}, {"copy": 0.03, "capital": 0.03, "antonym": 0.03}
    >>> pooled = pool_deltas(means, sds)
    >>> round(pooled.mu[0], 1), pooled.deltas["copy"][0] > means["copy"]  # drawn towards the others
    (0.3, True)
    """
    tasks = list(means)
    if len(tasks) < 2:
        raise StatedError(f"pooling needs the deltas of at least 2 tasks, got {len(tasks)}: give more tasks")
    if set(tasks) != set(sds):
        raise StatedError(f"pooling needs a mean and an sd of each task, got means of {tasks} and sds of {list(sds)}")
    y = np.array([means[task] for task in tasks], dtype=float)
    s = np.array([sds[task] for task in tasks], dtype=float)
    for task, mean, sd in zip(tasks, y, s):
        if not (np.isfinite(mean) and np.isfinite(sd) and sd > 0):
            raise StatedError(f"delta of task {task!r} must have a finite mean and a positive sd, got {mean} and {sd}")
    rng = np.random.default_rng(seed)
    if families is not None and len(of := dict.fromkeys(families[task] for task in tasks)) > 1:
        groups = {family: np.array([families[task] == family for task in tasks]) for family in of}
        return _pool_families(tasks, y, s, groups, draws, rng)
    tau = _draw_tau(y, s, draws, rng)
    mu_mean, mu_sd = _mu_given(tau, y, s)
    mu = rng.normal(mu_mean, mu_sd)
    own = tau[:, None] ** 2 / (tau[:, None] ** 2 + s**2)  # the weight of a task's own measurement
    deltas = rng.normal(own * y + (1 - own) * mu[:, None], np.sqrt(own) * s)
    return Pooled(
        mu=_summary(mu),
        tau=_summary(tau),
        new_task=_summary(rng.normal(mu, tau)),
        deltas={task: _summary(delta) for task, delta in zip(tasks, deltas.T)},
    )


def _pool_families(
    tasks: Sequence[str],
    y: Float[np.ndarray, " task"],
    s: Float[np.ndarray, " task"],
    groups: Mapping[str, np.ndarray],
    draws: int,
    rng: np.random.Generator,
) -> Pooled:
    """`pool_deltas` with a level of families; `groups` says which tasks are of each."""
    scale = np.sqrt(np.mean(y**2 + s**2))
    places = np.concatenate([[0], np.geomspace(1e-2 * s.min(), _REACH * scale, _COARSE)])
    tau, tau_family = (x.ravel() for x in np.meshgrid(places, places, indexing="ij"))
    families = [_family_given(tau, y[of], s[of]) for of in groups.values()]
    own_means, variances, within = (np.stack(x, axis=1) for x in zip(*families))
    mu_mean, mu_sd = _mu_given(tau_family, own_means, np.sqrt(variances))
    variance = variances + tau_family[:, None] ** 2
    log_density = (
        within.sum(1)
        + np.log(mu_sd)
        - 0.5 * (np.log(variance) + (own_means - mu_mean[:, None]) ** 2 / variance).sum(1)
        - 0.5 * (tau**2 + tau_family**2) / scale**2
    )
    # A place stands for what is nearer to it than to its neighbours.
    edges = np.concatenate([[0], (places[1:] + places[:-1]) / 2, places[-1:]])
    mass = np.exp(log_density - log_density.max()) * np.outer(np.diff(edges), np.diff(edges)).ravel()
    evenly = (rng.permutation(draws) + rng.uniform(size=draws)) / draws
    at = np.minimum(np.searchsorted(np.cumsum(mass) / mass.sum(), evenly), len(mass) - 1)
    tau, tau_family = (x[at] for x in (tau, tau_family))
    mu = rng.normal(mu_mean[at], mu_sd[at])
    of_family, deltas = {}, np.empty((draws, len(tasks)))
    for i, (family, of) in enumerate(groups.items()):
        own = tau_family**2 / (tau_family**2 + variances[at, i])
        mean = rng.normal(own * own_means[at, i] + (1 - own) * mu, np.sqrt(own * variances[at, i]))
        share = tau[:, None] ** 2 / (tau[:, None] ** 2 + s[of] ** 2)
        deltas[:, of] = rng.normal(share * y[of] + (1 - share) * mean[:, None], np.sqrt(share) * s[of])
        of_family[family] = _summary(mean)
    return Pooled(
        mu=_summary(mu),
        tau=_summary(tau),
        new_task=_summary(rng.normal(mu, np.hypot(tau, tau_family))),
        deltas={task: _summary(delta) for task, delta in zip(tasks, deltas.T)},
        tau_family=_summary(tau_family),
        families=of_family,
    )


def _family_given(
    tau: Float[np.ndarray, " place"], y: Float[np.ndarray, " task"], s: Float[np.ndarray, " task"]
) -> tuple[Float[np.ndarray, " place"], Float[np.ndarray, " place"], Float[np.ndarray, " place"]]:
    """What the tasks of a family say of its mean at each tau: mean, variance, and log density of their spread."""
    variance = s**2 + tau[:, None] ** 2
    mean, sd = _mu_given(tau, y, s)
    spread = -0.5 * (np.log(variance) + (y - mean[:, None]) ** 2 / variance).sum(1)
    return mean, sd**2, spread + np.log(sd)


def _draw_tau(
    y: Float[np.ndarray, " task"], s: Float[np.ndarray, " task"], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draw"]:
    """Draws of the marginal posterior of tau, from its density on a grid."""
    scale = np.sqrt(np.mean(y**2 + s**2))
    # Even steps in log tau resolve a narrow posterior anywhere; below a thousandth of the least sd it is flat.
    tau = np.concatenate([[0], np.geomspace(1e-3 * s.min(), _REACH * scale, _GRID)])
    mu_mean, mu_sd = _mu_given(tau, y, s)
    variance = s**2 + tau[:, None] ** 2
    log_density = (
        np.log(mu_sd)
        - 0.5 * (np.log(variance) + (y - mu_mean[:, None]) ** 2 / variance).sum(1)
        - 0.5 * (tau / scale) ** 2
    )
    density = np.exp(log_density - log_density.max())
    below = np.concatenate([[0], np.cumsum(np.diff(tau) * (density[1:] + density[:-1]) / 2)])
    evenly = (rng.permutation(draws) + rng.uniform(size=draws)) / draws  # one draw in each stratum: less noise
    return np.interp(evenly * below[-1], below, tau)


def _mu_given(
    tau: Float[np.ndarray, " draw"], y: Float[np.ndarray, "*place task"], s: Float[np.ndarray, "*place task"]
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """Mean and sd of mu at each tau."""
    precision = 1 / (s**2 + tau[:, None] ** 2)
    total = precision.sum(1)
    return (precision * y).sum(1) / total, 1 / np.sqrt(total)


def _summary(draws: Float[np.ndarray, " draw"]) -> tuple[float, float, float]:
    """Mean and the narrowest interval that holds `LEVEL` of the draws."""
    x = np.sort(draws)
    held = int(np.floor(LEVEL * len(x)))
    first = int(np.argmin(x[held:] - x[: len(x) - held]))
    return float(x.mean()), float(x[first]), float(x[first + held])
