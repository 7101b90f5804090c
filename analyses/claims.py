"""What the scripts of claims 1 to 3 share: tasks, curves, the run of `patch`, and words for numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from bayes_icl import collect, patch
from bayes_icl.core.files import beside
from bayes_icl.core.intervals import Interval
from bayes_icl.core.schemas import read_beside
from bayes_icl.patch import outputs as patch_outputs

ROOT = Path(__file__).parent.parent
TASKS = ("copy", "past_tense", "category")
CURVES = ROOT / "data/curves/claims.nc"
PATCHED, BY_TASK = ROOT / "data/patch/claims.nc", ROOT / "data/patch/claims_by_task.nc"
FIGURES = ROOT / "figures/patch"


def collect_all() -> None:
    """The curves of all three scripts; nothing is done where they are there already."""
    collect.main(collect.CollectSettings(tasks=TASKS, n_seqs=32, out=CURVES))


def patch_all() -> None:
    """Patching, rounds, redundancy and steps; then round 1 again with the task's own means, and the answers' stream."""
    collect_all()
    patch.main(patch.PatchSettings(curves=CURVES, out=PATCHED, figures=FIGURES))
    for task in TASKS:
        rounds = tables(PATCHED)["rounds"]
        first = rounds[(rounds.task == task) & (rounds["round"] == 1) & (rounds.set == "ablated")]
        if len(first):
            by_task = patch.PatchSettings(
                curves=CURVES, tasks=(task,), reference="task", ablate=tuple(first.heads.iloc[0].split()), rounds=1,
                steps=False, placebos=1, n_seqs=16, out=of_task(task), figures=FIGURES / f"by_task/{task}",
            )  # fmt: skip
            patch.main(by_task)
    leave_answers()


def leave_answers() -> None:
    """Where the task leaves the answers of examples: A's stream there put into the same examples, permuted."""
    for task in TASKS:
        patch.main(
            patch.PatchSettings(
                curves=CURVES, tasks=(task,), position="answers", rounds=0, steps=False, placebos=1, n_seqs=16,
                out=at_answers(task), figures=FIGURES / f"at_answers/{task}",
            )
        )  # fmt: skip


def at_answers(task: str) -> Path:
    """Its output."""
    return PATCHED.with_stem(f"claims_at_answers_{task}")


def of_task(task: str) -> Path:
    """The second run's output."""
    return BY_TASK.with_stem(f"{BY_TASK.stem}_{task}")


def tables(path: Path) -> dict[str, pd.DataFrame]:
    """Tables beside a patch file; a run from before the ladder has none of it."""
    there = {name: table for name, table in patch_outputs.TABLES.items() if beside(path, f"{name}.csv").is_file()}
    return read_beside(path, there)


def facts(path: Path) -> dict[str, dict[str, Any]]:
    """Facts by task beside a patch file."""
    return json.loads(beside(path, "json").read_text())


def three(x: dict) -> str:
    """A mean with its interval."""
    return f"{Interval(*x.values()):.3f}"


def ranged(row: Any, name: str, form: str = ".2f") -> str:
    """The same from a table's columns."""
    return f"{Interval.of(row, name):{form}}"
