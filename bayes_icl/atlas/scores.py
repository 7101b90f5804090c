"""The scores of every head on one task, sequence by sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from bayes_icl.atlas.settings import AtlasSettings
from bayes_icl.attribute.effects import measure_effects
from bayes_icl.attribute.totals import shot_weights
from bayes_icl.attribute.update import Update, three, update_of
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.core.intervals import UNKNOWN_INTERVAL, Interval, t_interval
from bayes_icl.curves import readouts_of
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.edits import heads_replaced
from bayes_icl.mechanism.episodes import ATTRIBUTED_READOUTS, Episode, recorded_episodes
from bayes_icl.mechanism.function_vectors import function_vectors
from bayes_icl.mechanism.head_names import Heads
from bayes_icl.mechanism.steps import attention_by_role, induction_scores
from bayes_icl.mechanism.total_effects import ShotMeans, TotalEffects, total_effects
from bayes_icl.mechanism.transfer import cut, permuted
from bayes_icl.models.model import Model

SEQS_LEAST = 4  # so that each half of them has an interval

TEXTS = 8  # random texts for induction

FORMS = {"recognition": "format", "learning": "rule"}
"""Slopes of direct effects on another readout, by score (Pan et al. 2023, arXiv 2305.09731)."""


@dataclass
class TaskScores:
    """Scores of every head on one task.

    Attributes
    ----------
    values
        By score, shape (seq, layer, head); induction scores have random texts for sequences. Those that cannot be had
        are missing.
    wholes
        What scores are shares of, by name: delta, the rule gain, slopes of other readouts.
    update
        Delta of the quantity attributed.
    episodes
        The sequences.
    means
        What heads are ablated to.
    weights
        Of L(n), which make delta.
    norms
        Of what ablating a head takes, shape (layer, head).
    facts
        As in the JSON file.
    """

    values: dict[str, Float[np.ndarray, "seq layer head"]]
    wholes: dict[str, Interval]
    update: Update
    episodes: list[Episode]
    means: ShotMeans
    weights: Float[np.ndarray, " shot"]
    norms: Float[np.ndarray, "layer head"]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def toward(self) -> float:
        """The direction of delta."""
        return 1.0 if self.update.delta.mean >= 0 else -1.0


def measure_scores(
    model: Model,
    curves: xr.Dataset,
    task: str,
    settings: AtlasSettings,
    texts: Mapping[str, np.ndarray],
    parts: Checkpoint | None,
    progress: bool,
) -> TaskScores:
    """All scores of one task but growth, which asks what is ablated (`backup_growth`).

    Parameters
    ----------
    model, curves, task, settings
        The model, the sequences that count, the task, the command's settings.
    texts
        Induction scores, which are of no task.
    parts
        Keeps what is finished.
    progress
        Show a bar on stderr.

    Raises
    ------
    StatedError
        There are too few sequences, or the curves lack what is needed.
    """
    if curves.sizes["seq"] < SEQS_LEAST:
        raise StatedError(f"{curves.sizes['seq']} sequences, an atlas needs {SEQS_LEAST} or more: collect more")
    anatomy = model.anatomy

    def direct_of(readout: str, token: int | None) -> tuple[Any, xr.Dataset, Update, np.ndarray]:
        measured = measure_effects(
            model, curves, [task], readout=readout, token=token, by_source=False, with_means=False,
            batch_size=settings.batch_size, parts=_named(parts, readout), progress=progress,
        )[task]  # fmt: skip
        effects = measured.effects.sel(task=task)
        update = update_of(effects, settings.n_min)
        effect = effects.effect.transpose("seq", "layer", "head", "shot").values.astype(float)
        return measured, effects, update, np.diff(effect[..., effects.shot.values >= settings.n_min]) @ update.weights

    measured, effects, update, direct = direct_of(settings.readout, settings.token)
    episodes = measured.episodes
    means = ShotMeans(anatomy, episodes)
    weights = shot_weights(update.weights, effects.sizes["shot"])
    size = settings.batch_size or (1 if model.device.type == "cpu" else 16)

    def totals() -> Mapping[str, np.ndarray]:
        some = [episodes[i : i + size] for i in range(0, len(episodes), size)]
        found = [total_effects(anatomy, batch, means, weights, steps=settings.total_steps).arrays() for batch in some]
        return TotalEffects.joined(found).arrays()

    total = _kept(parts, f"total/{task}", totals)
    wholes = {"delta": update.delta}
    told = ("n_min", "readout", "read", "token", "token_text", "delta")
    facts = {name: update.facts[name] for name in told if name in update.facts}
    facts |= {
        "n_seqs": len(episodes),
        "completeness": measured.completeness,
        "total_error": float(total["error"].max()),
    }
    values = {"direct": direct, "total": total["head"]}
    more, gain = _of_rule(model, curves, task, settings, parts)
    values |= more
    wholes["rule_gain"] = gain
    facts["missing"] = {}
    for score, readout in FORMS.items():
        wholes[f"delta_{readout}"] = UNKNOWN_INTERVAL
        why = "" if readout in ATTRIBUTED_READOUTS else f"{readout} is not attributed by this version"
        if not why and readout not in readouts_of(curves, task):
            why = f"the curves have no {readout} of this task"
        if not why:
            try:
                _, _, own, values[score] = direct_of(readout, None)
                wholes[f"delta_{readout}"] = own.delta
            except StatedError as error:
                why = str(error)
        if why:
            facts["missing"][score] = why
    values = {name: np.where(anatomy.exists(), x, np.nan) for name, x in {**values, **texts}.items()}
    norms = means.taken_norm(episodes, effects["norm"].transpose("layer", "head").values.astype(float))
    facts["wholes"] = {name: three(whole) for name, whole in wholes.items() if not np.isnan(whole.mean)}
    return TaskScores(values, wholes, update, episodes, means, weights, norms, facts)


def _of_rule(
    model: Model, curves: xr.Dataset, task: str, settings: AtlasSettings, parts: Checkpoint | None
) -> tuple[dict[str, np.ndarray], Interval]:
    """Function-vector scores and attention by role, at one number of examples; and the rule gain there."""
    n = min(settings.n_examples, curves.sizes["shot"] - 1)
    token = settings.token if settings.readout == "complement" else None
    episodes = recorded_episodes(model, curves, task, token=token)
    cuts = [cut(episode, n, int(episode.token or 0)) for episode in episodes]

    def measure() -> Mapping[str, np.ndarray]:
        references = [permuted(episode, n, settings.seed) for episode in cuts]
        found = function_vectors(model.anatomy, cuts, references)
        masses = [attention_by_role(model.anatomy, episode) for episode in cuts]
        attention = {role: np.stack([mass[role] for mass in masses]) for role in ("bring", "to_answers")}
        return {"function_vector": found.effect, "gain": found.clean - found.permuted, **attention}

    found = _kept(parts, f"rule/{task}", measure)
    return found, Interval(*map(float, t_interval(found.pop("gain"))))


def text_scores(anatomy: Anatomy, seed: int) -> dict[str, Float[np.ndarray, "text layer head"]]:
    """Induction and previous-token scores on some random texts.

    Parameters
    ----------
    anatomy
        The model's parts.
    seed
        Of the texts.
    """
    found = [induction_scores(anatomy, seed * TEXTS + i) for i in range(TEXTS)]
    return {name: np.stack([one[name] for one in found]) for name in ("induction", "previous_token")}


def backup_growth(
    anatomy: Anatomy,
    scores: TaskScores,
    episodes: Sequence[int],
    heads: Heads,
    steps: int,
    parts: Checkpoint | None,
) -> Float[np.ndarray, "seq layer head"]:
    """By how much total effects grow once some heads are ablated; NaN for these.

    Parameters
    ----------
    anatomy, scores
        The model's parts, and its scores on the task.
    episodes
        Numbers of the sequences that measure.
    heads
        Those ablated.
    steps
        Nodes of the integral.
    parts
        Keeps what is finished.
    """

    def measure() -> Mapping[str, np.ndarray]:
        found = []
        for episode in (scores.episodes[i] for i in episodes):
            with heads_replaced(anatomy, scores.means.edits(episode, heads)):
                found.append(total_effects(anatomy, [episode], scores.means, scores.weights, steps=steps).head[0])
        return {"head": np.stack(found)}

    growth = _kept(parts, f"backup/{scores.facts['task']}", measure)["head"] - scores.values["total"][list(episodes)]
    for layer, head in heads:
        growth[:, layer, head] = np.nan
    return growth


def _kept(parts: Checkpoint | None, name: str, compute: Any) -> dict[str, np.ndarray]:
    """What is computed, taken from an unfinished run if it is there."""
    return parts.arrays(name, compute) if parts else dict(compute())


class _Named:
    """A checkpoint whose parts have a readout in their names."""

    def __init__(self, parts: Checkpoint, readout: str) -> None:
        self._parts, self._readout = parts, readout

    def get(self, name: str) -> bytes | None:
        """A part that was kept, else None."""
        return self._parts.get(f"{self._readout} {name}")

    def put(self, name: str, content: bytes) -> None:
        """Keep a part."""
        self._parts.put(f"{self._readout} {name}", content)


def _named(parts: Checkpoint | None, readout: str) -> Any:
    return _Named(parts, readout) if parts else None
