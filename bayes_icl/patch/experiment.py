"""The experiment of `patch` on one task: its pairs of runs, what heads are ablated to, and how a stage is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool
from tqdm import tqdm

from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import read_table
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.mechanism.ablation_values import AblationValues, places_ablated
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.halves import measured_on
from bayes_icl.mechanism.head_names import Heads, heads_named
from bayes_icl.mechanism.redundancy import SingleAblations
from bayes_icl.mechanism.rounds import carried, norms_taken, singles_of
from bayes_icl.mechanism.transfer import Pair, labels_shown, pairs_of, permuted
from bayes_icl.models.model import Model
from bayes_icl.models.prompts import ROLES
from bayes_icl.patch.settings import PatchSettings

Arrays = dict[str, np.ndarray]
"""What a stage finds, by name."""


@dataclass(frozen=True)
class PatchExperiment:
    """One task, ready for the stages: functions that take this and what earlier stages found.

    Attributes
    ----------
    pairs
        Run A with examples and run B without, a pair a sequence.
    token
        Which token of the answer is read, counted from 0.
    named
        Heads that the user names for round 1; none if the layers before the transfer layer go.
    shuffled
        Every A with its answers permuted among the examples.
    values
        What ablated heads and MLPs put out instead, by the reference that the settings ask for.
    parts
        Keeps finished stages on disk; None keeps nothing.
    """

    model: Model
    curves: xr.Dataset
    task: str
    settings: PatchSettings
    pairs: list[Pair]
    token: int
    named: Heads
    shuffled: list[Episode]
    values: AblationValues
    parts: Checkpoint | None = None
    progress: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        curves: xr.Dataset,
        task: str,
        settings: PatchSettings,
        parts: Checkpoint | None = None,
        progress: bool = False,
    ) -> PatchExperiment:
        """Pair the sequences of a task, and take the outputs of its reference episodes.

        Raises
        ------
        StatedError
            The settings ask for heads, tokens or examples that the model or the curves do not have.
        """
        anatomy = model.anatomy
        pairs = pairs_of(
            model, curves, task, n_examples=settings.n_examples, token=settings.token,
            position=settings.position, seed=settings.seed,
        )  # fmt: skip
        token = pairs[0].a.token or 0
        pairs = pairs[: settings.n_seqs or None]
        named = heads_named(settings.ablate, anatomy.exists(), _ranks(settings, task), settings.rank_by)
        runs = [pair.a for pair in pairs]
        if not all(places_ablated(run, settings.ablate_at).any() for run in runs):
            raise StatedError(f"--ablate-at {settings.ablate_at}: the prompts of {task!r} have no such token")
        shuffled = [permuted(run, settings.n_examples, settings.seed) for run in runs]
        references = shuffled if settings.reference == "shuffled" else runs[1:] + runs[:1]
        values = AblationValues(anatomy, runs, references)
        return cls(model, curves, task, settings, pairs, token, named, shuffled, values, parts, progress)

    @property
    def anatomy(self) -> Anatomy:
        """Of the model."""
        return self.model.anatomy

    @property
    def n_heads_all(self) -> int:
        """Heads of all layers."""
        return len(self.anatomy.heads)

    @property
    def kind(self) -> str:
        """The kind of ablation that leads; one of `REFERENCE_KINDS`."""
        return self.settings.kind

    @property
    def other_kind(self) -> str:
        """The kind of ablation that backup heads and steps are read in besides."""
        return "resample" if self.kind != "resample" else "mean"

    @property
    def headlines(self) -> tuple[str, ...]:
        """The kinds whose rounds are told, each beside placebo sets: the one that leads, a knock-out, and the mean."""
        return tuple(dict.fromkeys((self.kind, "zero", "mean")))

    @property
    def runs(self) -> list[Episode]:
        """Every A."""
        return [pair.a for pair in self.pairs]

    @property
    def n_labels(self) -> int:
        """Different answers that the examples show, where all runs repeat some; else 0."""
        return min(labels_shown(run, self.settings.n_examples) for run in self.runs)

    @property
    def replaces_query(self) -> bool:
        """Whether a patch replaces all that B knows of its query, prompts ending on a query of one token.

        B's own answer cannot come of such a patch at any layer: that it never does says nothing.
        """
        b = self.pairs[0].b
        asked = np.flatnonzero((b.places.shot == b.places.shot.max()) & (b.places.role == ROLES.index("query")))
        return self.settings.position in ("last", "query") and asked.tolist() == [len(b.prompt.tokens) - 1]

    def without_rule(self, *, exchanged: bool) -> list[Episode]:
        """Every A with its answers permuted, or with its labels `exchanged`."""
        n_examples, seed = self.settings.n_examples, self.settings.seed
        return [permuted(run, n_examples, seed, exchanged=True) for run in self.runs] if exchanged else self.shuffled

    @property
    def measuring(self) -> list[Pair]:
        """The pairs that measure what the others have chosen."""
        return measured_on(self.pairs)

    def has_placebos(self, heads: Heads, besides: int = 0) -> bool:
        """Whether there are as many other heads, some more being set aside."""
        return 2 * len(heads) + besides <= self.n_heads_all

    def stage(self, name: str, compute: Callable[[Any], Mapping[str, np.ndarray]], n: int | None = None) -> Arrays:
        """Compute a stage with a progress bar of `n` steps (pairs, if None), or take it from an unfinished run."""

        def run() -> Arrays:
            total = len(self.pairs) if n is None else n
            with tqdm(total=total, unit="pair", disable=not self.progress or n == 1, dynamic_ncols=True) as bar:
                bar.set_description(f"{self.task}: {name}")
                return dict(compute(bar.update))

        return self.parts.arrays(f"{name}/{self.task}", run) if self.parts else run()

    def each(self, name: str, one: Callable[[Pair], Mapping[str, Any]], pairs: Sequence[Pair] | None = None) -> Arrays:
        """A stage: what `one` finds of each pair, stacked by name."""
        pairs = self.pairs if pairs is None else pairs

        def compute(step: Any) -> Arrays:
            by_pair = []
            for pair in pairs:
                by_pair.append(one(pair))
                step()
            shared = set.intersection(*(set(x) for x in by_pair))  # a readout that some answers do not have
            return {key: np.stack([x[key] for x in by_pair]) for key in by_pair[0] if key in shared}

        return self.stage(name, compute, len(pairs))

    def transfer(self, name: str, heads: Heads, kind: str) -> Arrays:
        """A stage: transfer by layer with some heads of A ablated, as `rounds.carried` gives it."""
        return self.stage(
            name,
            lambda step: carried(
                self.anatomy, self.pairs, heads, self.values, kind,
                where=self.settings.ablate_at, position=self.settings.position, on_pair=step,
            ),
        )  # fmt: skip

    def transfer_without_rule(self, name: str, *, exchanged: bool = False) -> Arrays:
        """A stage: transfer from every A with its answers permuted, or with its labels `exchanged`."""
        pairs = [pair._replace(a=run) for pair, run in zip(self.pairs, self.without_rule(exchanged=exchanged))]
        position = self.settings.position
        return self.stage(
            name, lambda step: carried(self.anatomy, pairs, [], None, self.kind, position=position, on_pair=step)
        )

    def single_ablations(self, name: str, kind: str, gone: Heads, heads: Heads | None = None) -> SingleAblations:
        """A stage: heads ablated one by one, those in `gone` being ablated too; all heads, if None are given."""
        arrays = self.stage(
            name,
            lambda step: singles_of(
                self.anatomy, self.pairs, self.values, kind, gone, where=self.settings.ablate_at, heads=heads,
                everywhere=self.settings.singles_everywhere, on_pair=step,
            )._asdict(),
        )  # fmt: skip
        return SingleAblations(**arrays)

    def norms(
        self,
        name: str,
        values: AblationValues,
        kinds: Sequence[str],
        places: Mapping[str, Callable[[Episode], Bool[np.ndarray, " pos"]]],
    ) -> Arrays:
        """A stage: norms of what ablating a head removes, by ``"kind place"``, each of shape (layer, head)."""
        return self.stage(name, lambda step: norms_taken(self.anatomy, self.pairs, values, kinds, places, step))


def last_of(run: Episode) -> Bool[np.ndarray, " pos"]:
    """The last position of a cut episode."""
    return places_ablated(run, "last")


def _ranks(settings: PatchSettings, task: str) -> pd.DataFrame | None:
    """The table to rank heads by: its rows of the task, where it says so."""
    if not settings.ranks:
        return None
    try:
        table = read_table(settings.ranks)
    except ValueError as error:  # pandas' own errors, and what is no text
        raise StatedError(f"--ranks {settings.ranks} is not readable as CSV: {error}") from None
    if "task" not in table:
        return table
    if not (table.task == task).any():
        raise StatedError(f"the table {settings.ranks} has no row of task {task!r}: give --tasks, or another table")
    return table[table.task == task]
