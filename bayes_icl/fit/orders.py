"""What stands beside the second verdict: does order matter, is a prediction a martingale, do priors shift log-odds?

None of it takes a model of the log-odds. Sets of the same examples in several orders tell how much order matters; a
prediction that is averaged over the next example must be what it was before; and an instruction before the examples
shifts log-odds by the same at every n where prior and evidence add.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from bayes_icl.core.intervals import TAILS, Interval, t_interval

WINDOW = 4  # shots after the orders end, whose readings are taken together

DRAWS = 4000  # of the bootstrap over sets

LEAST_SETS = 4


def order_share(
    odds: Float[np.ndarray, "seq read"], sets: Int[np.ndarray, " seq"], seed: int = 0
) -> tuple[Interval, Interval] | None:
    """How much order matters: the variance between orders of one set of examples, as a share of all variance.

    All variance is that of the log-odds over sequences, orders and sets and their queries alike, at one shot.

    Readings are of queries that see the same examples, in other orders. What a query adds by itself, and level noise,
    is no order effect: it differs from shot to shot, so that products of readings at two shots are free of it. An
    effect of the last example alone does not outlast one shot, and is no part of it.

    Parameters
    ----------
    odds
        Log-odds at the shots after the examples that change places, nats.
    sets
        Which set of examples a sequence has.
    seed
        Of the bootstrap over sets.

    Returns
    -------
    share, variance
        Each with its 95 % interval; of the variance, nats squared, a t-interval over sets. None where there are fewer
        than 4 sets, or fewer than 2 shots.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.fit.orders import order_share
    >>> rng = np.random.default_rng(0)
    >>> sets = np.repeat(np.arange(40), 4)
    >>> exchangeable = rng.normal(size=40)[sets, None] + 0.3 * rng.normal(size=(160, 4))
    >>> share, _ = order_share(exchangeable, sets)
    >>> share.low < 0 < share.high
    True
    """
    if (found := _within_sets(odds, sets)) is None:
        return None
    within, at = found
    odds, n_orders = odds[:, :WINDOW], np.bincount(at)
    # Of all sequences about the mean of all, by set: what a query adds is in it, and so is level noise.
    spread = np.stack([np.bincount(at, x) for x in (odds - odds.mean(0)).T ** 2], axis=1).mean(1) / n_orders

    def share(which: np.ndarray) -> np.ndarray:
        """Of resampled sets, shape (..., set)."""
        return within[which].mean(-1) / np.maximum(spread[which].mean(-1), 1e-12)

    rng = np.random.default_rng([seed, 17])
    drawn = share(rng.integers(len(within), size=(DRAWS, len(within))))
    whole = float(share(np.arange(len(within))))
    # Percentiles of few sets are too near one another, by about the root of 1 - 1/number.
    wide = np.sqrt(len(within) / (len(within) - 1)) * (1 + 1 / len(within))
    low, high = (float(whole + wide * (q - whole)) for q in np.quantile(drawn, TAILS))
    return Interval(whole, low, high), Interval(*map(float, t_interval(within)))


def order_variances(
    odds: Float[np.ndarray, "seq read"], sets: Int[np.ndarray, " seq"], shots: Sequence[float]
) -> list[dict[str, float]]:
    """The variance between orders at each number of examples, nats squared, with its t-interval over sets.

    Parameters are those of `order_share`; each reading is taken with the one after it.
    """
    rows = []
    for i in range(odds.shape[1] - 1):
        if (found := _within_sets(odds[:, i : i + 2], sets)) is not None:
            rows.append({"n": float(shots[i]), **Interval(*map(float, t_interval(found[0])))._asdict()})
    return rows


def _within_sets(
    odds: Float[np.ndarray, "seq read"], sets: Int[np.ndarray, " seq"]
) -> tuple[Float[np.ndarray, " set"], Int[np.ndarray, " seq"]] | None:
    """The variance between orders in each set, nats squared, and the place of each sequence's set among them."""
    names, at = np.unique(sets, return_inverse=True)
    odds = odds[:, :WINDOW]
    n_read = odds.shape[1]
    if len(names) < LEAST_SETS or n_read < 2:
        return None
    n_orders = np.bincount(at)
    means = np.stack([np.bincount(at, x) / n_orders for x in odds.T], axis=1)
    off = odds - means[at]
    apart = ~np.eye(n_read, dtype=bool)
    products = np.zeros((len(names), n_read, n_read))
    np.add.at(products, at, off[:, :, None] * off[:, None, :])
    return (products / np.maximum(n_orders - 1, 1)[:, None, None])[:, apart].mean(1), at


def prior_shift(
    with_prior: Float[np.ndarray, "seq shot"], without: Float[np.ndarray, "seq shot"], shots: Float[np.ndarray, " shot"]
) -> dict[str, Interval]:
    """What a text before the examples does to log-odds, sequence by sequence beside the same examples without it.

    Parameters
    ----------
    with_prior, without
        Log-odds, nats.
    shots
        Numbers of examples.

    Returns
    -------
    dict
        ``first`` and ``last``: the shift at the fewest and the most examples, nats; ``slope``: by how much it changes
        with every example between, nats per example, 0 where prior and evidence add. t-intervals over sequences.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.fit.orders import prior_shift
    >>> shots, rng = np.arange(9.0), np.random.default_rng(0)
    >>> plain = 0.3 * shots + rng.normal(size=(16, 9))
    >>> f"{prior_shift(plain + 2, plain, shots)['slope']:.1f}"
    '0.0 [-0.0, 0.0]'
    """
    shift = with_prior - without
    line = (shots - shots.mean()) / ((shots - shots.mean()) ** 2).sum()
    numbers = {"first": shift[:, 0], "last": shift[:, -1], "slope": shift @ line}
    return {name: Interval(*map(float, t_interval(x))) for name, x in numbers.items()}


def beside_second_verdict(dataset: xr.Dataset, task: str, readout: str) -> dict[str, Any]:
    """What a file says of order, of the martingale and of a prior, where its designs ask: as verdict.json has it."""
    found: dict[str, Any] = {}
    odds = dataset.log_odds.sel(task=task, readout=readout).transpose("seq", "shot")
    shots = dataset.shot.values.astype(float)
    if "set" in dataset and (sets := dataset["set"].sel(task=task).values).max() >= 0:
        after = shots >= shots[_orders_end(dataset.sel(task=task), sets)]
        if (share := order_share(odds.values[:, after], sets)) is not None:
            found["order_share"] = {
                **share[0]._asdict(),
                "by_n": order_variances(odds.values[:, after], sets, shots[after]),
            }
    if "martingale_gap" in dataset:
        gaps = dataset.martingale_gap.sel(task=task).transpose("seq", "shot").values
        asked = np.isfinite(gaps).all(0)
        if asked.any():
            by_n = [
                {"n": float(n), **Interval(*map(float, t_interval(g)))._asdict()}
                for n, g in zip(shots[asked], gaps.T[asked])
            ]
            mean = Interval(*map(float, t_interval(gaps[:, asked].mean(1))))
            size = Interval(*map(float, t_interval(np.abs(gaps[:, asked]).mean(1))))
            found["martingale_gap"] = {**mean._asdict(), "size": size._asdict(), "by_n": by_n}
    if (plain := _plain_beside(dataset, task)) is not None:
        other = dataset.log_odds.sel(task=plain, readout=readout).transpose("seq", "shot")
        shift = prior_shift(odds.values, other.values, shots)
        found["prior_shift"] = {"plain": plain, **{name: three._asdict() for name, three in shift.items()}}
    return found


def _orders_end(own: xr.Dataset, sets: Int[np.ndarray, " seq"]) -> int:
    """Index of the first shot from which on sequences of a set go on alike, so that all have seen the same examples."""
    first = np.array([np.flatnonzero(sets == number)[0] for number in sets])
    alike = np.ones(own.sizes["shot"], bool)
    for name in ("query", "shown"):
        texts = own[name].transpose("seq", "shot").values
        alike &= (texts == texts[first]).all(0)
    return int(np.flatnonzero(~alike).max(initial=-1)) + 1


def _plain_beside(dataset: xr.Dataset, task: str) -> str | None:
    """The same task without the text that a `prior` design puts before its examples, if the file has it."""
    if "design" not in dataset or not str(dataset.design.sel(task=task).item()).startswith("prior"):
        return None
    base = str(dataset.base.sel(task=task).item())
    same = (dataset.base == base) & (dataset.design == "plain")
    return str(dataset.task.values[same.values][0]) if bool(same.any()) else None
