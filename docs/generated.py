"""What pages take from the code itself, as Markdown, so that it cannot go stale."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from bayes_icl.hypotheses import HYPOTHESES, Prior
from bayes_icl.hypotheses.law import DOF_PRIOR, SHARED_PRIORS
from bayes_icl.models.prompts import example_parts
from bayes_icl.tasks import BUILT_IN, Task

ROOT = Path(__file__).parent.parent
SHARED = {
    "gain": "total update from n_min to the last shot, nats",
    "gain_sd": "how much sequences differ in it, along a line, nats",
    "early_sd": "how much they differ along a bend over the first examples, nats",
    "level": "noise of each shot by itself: another query, nats",
    "walk": "noise that adds up: evidence of each example's own, nats",
    "dof": "degrees of freedom of a sequence's noise, with `--noise student` only",
}
# Variables of the effects format that `patch`, which takes heads whole, does not write.
NOT_OF_PATCH = (
    *("effect_by_source", "effect_by_role", "attention_by_role", "attention", "ablated_log_odds"),
    *("line_head", "line_mlp", "line_rest", "line_asked", "line_error"),
)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`"


def tasks() -> str:
    """The built-in tasks."""
    rows = []
    for name, make in BUILT_IN.items():
        task = make(name)
        own = inspect.signature(make).parameters.values()
        settings = [f"{p.name}={p.default}" for p in own if p.annotation in ("int", "bool")]
        rows.append(
            [_code(name), _code(_written(task)), ", ".join(map(_code, task.readouts)), str(len(task.pool)),
             ", ".join(map(_code, settings))]
        )  # fmt: skip
    return _table(["task", "an example", "readouts", "examples", "settings"], rows)


def _written(task: Task) -> str:
    """The first example as the model reads it, its newline apart."""
    return "".join(example_parts(task.template, task.pool[0])).rstrip("\n")


def hypotheses() -> str:
    """The table of hypotheses."""
    rows = [
        [f"[`{name}`](#{_anchor(name)})", _formula(name), ", ".join(map(_code, law.priors)), str(law.complexity)]
        for name, law in HYPOTHESES.items()
    ]
    return _table(["name", "curve", "parameters", "complexity"], rows)


def predictions() -> str:
    """Each hypothesis: where it comes from, what would tell it from the others, its parameters."""
    parts = []
    for name, law in HYPOTHESES.items():
        lines = [f"({_anchor(name)})=", f"{_code(name)}", f": {_formula(name)}", ""]
        lines += [f": Source: {law.reference}.", "", f": Predicts: {law.predicts}."]
        for parameter, prior in law.priors.items():
            lines += ["", f": {_code(parameter)}, {_prior(prior)}: {law.meanings[parameter]}."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def noise() -> str:
    """What all hypotheses share."""
    rows = [[_code(name), _prior(prior), SHARED[name]] for name, prior in {**SHARED_PRIORS, "dof": DOF_PRIOR}.items()]
    return _table(["parameter", "prior", "meaning"], rows)


def _anchor(name: str) -> str:
    return f"hypothesis-{name.replace('_', '-')}"


def _formula(name: str) -> str:
    """The first line of the curve's docstring."""
    return (inspect.getdoc(HYPOTHESES[name].curve) or "").split("\n")[0].rstrip(".")


def _prior(prior: Prior) -> str:
    own = f"{prior.family}({', '.join(f'{x:.3g}' for x in prior.parameters)})"
    return own + (", in units of the curves' scale" if prior.scaled else "")


def curves() -> str:
    """The variables of the curves format; dims and types as `collect` makes them."""
    from bayes_icl.collect import collect_curves
    from bayes_icl.curves import VARIABLES
    from bayes_icl.models import load_model
    from bayes_icl.tasks import load_tasks

    dataset = collect_curves(load_model("tiny", "cpu"), load_tasks(["category"]), n_shots=2, n_seqs=1, martingale=True)
    kinds = {name: ("text" if x.dtype.kind in "OU" else str(x.dtype)) for name, x in dataset.data_vars.items()}
    dims = {name: ", ".join(map(str, x.dims)) for name, x in dataset.data_vars.items()}
    rows = [[_code(name), dims[name], kinds[name], text] for name, text in VARIABLES.items()]
    return _table(["variable", "dims", "type", "meaning"], rows)


def effects() -> str:
    """The variables of the effects format."""
    from bayes_icl.mechanism.direct_effects import VARIABLES
    from bayes_icl.patch.outputs import DESCRIBED

    rows = [[_code(name), text, "`attribute`" if name in NOT_OF_PATCH else ""] for name, text in VARIABLES.items()]
    rows += [[_code(name), text, "`patch`"] for name, text in DESCRIBED.items()]
    return _table(["variable", "meaning", "only by"], rows)


def help(command: str) -> str:
    """What ``--help`` of a command prints; nothing if there is no such command yet."""
    if importlib.util.find_spec(f"bayes_icl.{command}") is None:
        return ""
    plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    ran = subprocess.run(
        [sys.executable, "-m", f"bayes_icl.{command}", "--help"],
        cwd=ROOT, env=os.environ | plain, capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    # tyro wraps all but the first paragraph.
    lines = ran.stdout.strip().split("\n")
    lines = [line if line.startswith(("╭", "│", "╰")) else textwrap.fill(line, 100) for line in lines]
    return "```\n" + "\n".join(lines) + "\n```\n"


def table(stage: str, name: str) -> str:
    """A table that a stage writes: what a row is, and every column."""
    schema = importlib.import_module(f"bayes_icl.{stage}.outputs").TABLES[name]
    return f"{schema.about}\n\n{schema.to_markdown()}"


def formerly() -> str:
    """Columns that had another name."""
    rows = []
    for stage in ("fit", "attribute", "atlas", "patch", "addition", "independence", "calibrate"):
        for schema in importlib.import_module(f"bayes_icl.{stage}.outputs").TABLES.values():
            rows += [
                [_code(old), _code(new), f"`{schema.name}.csv` of `{stage}`"] for old, new in schema.formerly().items()
            ]
    return _table(["before", "now", "in"], rows)
