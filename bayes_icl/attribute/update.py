"""The update of one task, delta, and what adds up to it: kinds of components, sources, token roles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from bayes_icl.attribute.slopes import delta_of, delta_weights
from bayes_icl.core.intervals import Interval, t_interval
from bayes_icl.curves import Curves


@dataclass(frozen=True)
class Update:
    """The update of one task.

    Attributes
    ----------
    delta
        Of the token attributed: posterior mean and 95 % highest-density interval, nats per example.
    weights
        Of mean updates, which make delta (`delta_weights`).
    facts
        As in the JSON file: delta of the token and of the whole answer, and the shares that add up to it.
    columns
        Of heads.csv, by row of the task: `slope_examples`, the part of a head's slope that it writes from earlier
        examples. Empty without sources.
    """

    delta: Interval
    weights: Float[np.ndarray, " update"]
    facts: dict[str, Any]
    columns: pd.DataFrame


def curves_of(effects: xr.Dataset, log_odds: Float[np.ndarray, "seq shot"], n_min: int) -> Curves:
    """Log-odds with the shots of some effects of one task, from `n_min` examples on."""
    shots = effects.shot.values.astype(float)
    return Curves(str(effects.task.item()), str(effects.attrs.get("readout", "")), shots, log_odds).since(n_min)


def three(numbers: Sequence[Any]) -> dict[str, float]:
    """A mean and its 95 % interval, by name."""
    return dict(zip(("mean", "low", "high"), map(float, numbers)))


def update_of(effects: xr.Dataset, n_min: int) -> Update:
    """Fit delta of one task, and take it apart.

    Parameters
    ----------
    effects
        The effects format, of one task.
    n_min
        The first shot that counts.
    """
    fits = {}
    for name, variable in (("delta", "log_odds"), ("delta_curve", "curve")):
        log_odds = effects[variable].transpose("seq", "shot").values.astype(float)
        curves = curves_of(effects, log_odds, n_min)
        fits[name] = curves, delta_of(curves)
    curves, delta = fits["delta"]
    weights = delta_weights(curves.shots)
    facts: dict[str, Any] = {"n_min": n_min, "readout": effects.attrs["readout"]}
    facts |= {name: str(effects[name].item()) for name in ("read", "token_text") if name in effects.coords}
    facts |= {"token": int(effects.token)}
    facts["weights"] = weights.tolist()
    facts |= {name: dict(zip(("mean", "hdi_low", "hdi_high"), interval)) for name, (_, interval) in fits.items()}
    since = effects.shot.values >= n_min
    facts |= _by_kind(effects, since, weights, facts["delta"]["mean"])
    if "line_head" in effects:
        facts["line"] = _along_line(effects, since, weights, facts["delta"]["mean"])
    columns = pd.DataFrame()
    if "effect_by_source" in effects:
        facts |= _by_source(effects, since, weights, n_min)
        columns = _from_examples(effects, since, weights)
    return Update(delta, weights, facts, columns)


def _slope(part: xr.DataArray, since: Bool[np.ndarray, " shot"], weights: np.ndarray) -> dict[str, float]:
    """Slope of what some components add, with its interval; dims seq and shot."""
    return three(t_interval(np.diff(part.transpose("seq", "shot").values[:, since], axis=1) @ weights))


def _by_kind(
    effects: xr.Dataset, since: Bool[np.ndarray, " shot"], weights: np.ndarray, delta: float
) -> dict[str, Any]:
    """Slopes of all heads, all MLPs, what else adds and the rest, and their shares of delta."""
    facts: dict[str, Any] = {"delta_seqs": _slope(effects.log_odds, since, weights)}
    totals = {"head": effects.effect.sum(("layer", "head"), dtype=float), "mlp": effects.mlp.sum("layer")}
    totals |= {"other": effects.other.sum("layer")} if "other" in effects else {}
    totals |= {"rest": effects.rest, "entropy": -effects.entropy}
    for kind, part in totals.items():
        facts[f"slope_{kind}"] = _slope(part, since, weights)
        facts[f"share_{kind}"] = facts[f"slope_{kind}"]["mean"] / (delta or np.nan)
    return facts


def _along_line(
    effects: xr.Dataset, since: Bool[np.ndarray, " shot"], weights: np.ndarray, delta: float
) -> dict[str, Any]:
    """The same along the line from the mean stream: of heads, MLPs, embedding and biases, and which answer is asked."""
    parts = {"head": effects.line_head.sum(("layer", "head"), dtype=float), "mlp": effects.line_mlp.sum("layer")}
    parts |= {"others": effects.line_others.sum("layer")} if "line_others" in effects else {}
    parts |= {"rest": effects.line_rest, "asked": effects.line_asked, "other": effects.line_rest + effects.line_asked}
    facts: dict[str, Any] = {}
    for kind, part in parts.items():
        facts[f"slope_{kind}"] = _slope(part, since, weights)
        facts[f"share_{kind}"] = facts[f"slope_{kind}"]["mean"] / (delta or np.nan)
    size = np.maximum(1, np.abs(effects.log_odds))
    return facts | {"error": float(np.abs(effects.line_error / size).max())}


def _examples_of(effects: xr.Dataset) -> list[str]:
    """The sources that are examples."""
    return [name for name in effects.source.values.tolist() if name not in ("sink", "query")]


def _by_source(
    effects: xr.Dataset, since: Bool[np.ndarray, " shot"], weights: np.ndarray, n_min: int
) -> dict[str, Any]:
    """Slopes of what heads write from sink, examples and query; by token role; and what one more example adds."""
    facts: dict[str, Any] = {}
    examples = _examples_of(effects)
    by_source = effects.effect_by_source.sum(("layer", "head"), dtype=float)
    for name, source in (("sink", "sink"), ("examples", examples), ("query", "query")):
        part = by_source.sel(source=source)
        facts[f"slope_{name}"] = _slope(part.sum("source") if name == "examples" else part, since, weights)
    written = by_source.sel(source=examples).sum("source").transpose("seq", "shot").values
    last = len(since) - 1
    shown = sorted({n for n in (1, 2, 4, 8, 16) if n < last} | {last})
    ends = [n for n in shown if n >= max(n_min, 1)]
    facts["further_example"] = {
        f"{a} to {b}": three(t_interval((written[:, b] - written[:, a]) / (b - a))) for a, b in itertools.pairwise(ends)
    }
    roles = effects.effect_by_role.sel(source=examples).sum(("layer", "head", "source"), dtype=float)
    by_role = weights @ np.diff(roles.transpose("shot", "role").values[since], axis=0)
    facts["slope_by_role"] = dict(zip(effects.role.values.tolist(), by_role.tolist()))
    return facts


def _from_examples(effects: xr.Dataset, since: Bool[np.ndarray, " shot"], weights: np.ndarray) -> pd.DataFrame:
    """The slope of what each head writes from earlier examples; rows are heads, by layer."""
    # The weights are linear, so the order of the sums is free.
    mean = effects.effect_by_source.mean("seq").transpose("shot", "layer", "head", "source").values[since]
    from_examples = np.nansum(mean[..., 1:-1], axis=-1)
    slopes = np.einsum("u,uij->ij", weights, np.diff(from_examples, axis=0)).ravel()
    return pd.DataFrame({"slope_examples": slopes})
