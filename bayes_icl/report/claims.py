"""The answer on the report's first screen, and the claims of Skunnavakkam (2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import xarray as xr

from bayes_icl.attribute.sentences import writers_sentence
from bayes_icl.curves import null_controls
from bayes_icl.fit.sentences import VERDICTS, _tasks, rule_beside
from bayes_icl.patch.sentences import layers_sentence, steps_sentences
from bayes_icl.writing.numbers import Quotes, code, listed
from bayes_icl.writing.stage import StageOutputs

# Laws of learners that are Bayesian in another way than adding the same with every example.
BAYESIAN = {
    "logarithmic": "counting",
    "lapse": "two known tasks",
    "scaling_law": "three known tasks",
}


class Claim(NamedTuple):
    """One claim of Skunnavakkam (2024), and what was found of it.

    Attributes
    ----------
    title
        The claim in a few words.
    sentences
        What was found; empty if the stage that asks was not run.
    stage
        That stage.
    """

    title: str
    sentences: list[str]
    stage: str


def answer(dataset: xr.Dataset, verdicts: Mapping[str, dict], quotes: Quotes) -> tuple[str, list[str]]:
    """The answer to "does every example add the same?": in a word or two, and in sentences.

    Parameters
    ----------
    dataset
        The curves file.
    verdicts
        verdict.json.
    quotes
        Where the numbers are kept that the sentences quote.
    """
    q = quotes.under("answer")
    nulls = null_controls(dataset)
    asked = {task: v["verdict"] for task, v in verdicts.items() if task not in nulls and v["verdict"] != "not_asked"}
    by_verdict = {kind: [task for task, v in asked.items() if v == kind] for kind in dict.fromkeys(asked.values())}
    n_tasks, n_supported = len(asked), len(by_verdict.get("supported", []))
    n_under = len(by_verdict.get("supported_under_ceiling", []))
    n_rejected = len(by_verdict.get("rejected", []))
    evidence = evidence_sentences(verdicts, q)
    if not asked:
        word = "Examples disagree." if evidence else "Nothing was asked."
    elif n_supported == n_tasks:
        word = "Yes."
    elif n_under and n_supported + n_under == n_tasks:
        word = "Yes, under a ceiling of the readout."
    elif n_supported + n_under:
        word = "On some tasks."
    elif n_rejected == n_tasks:
        word = "No."
    elif n_rejected:
        word = "No, where it can be told."
    elif set(by_verdict) == {"no_update"}:
        word = "Nothing is learned."
    else:
        word = "It cannot be told."
    sentences = []
    if asked:
        kinds = "; ".join(
            f"{VERDICTS[kind]} on {_tasks(tasks)} ({q.count(kind, len(tasks))} of {q.count('tasks', n_tasks)} "
            f"task{'s' * (n_tasks > 1)})"
            for kind, tasks in by_verdict.items()
        )
        sentences.append(f"That every example adds the same is {kinds}.")
    rising = [
        task
        for task, kind in asked.items()
        if kind not in ("refused", "no_update", "not_asked") and verdicts[task]["delta"]["hdi_low"] > 0
    ]
    slowing = {task: verdicts[task]["second_half"] for task in rising if verdicts[task]["second_half"]["high"] < 1}
    if slowing:
        least, most = (f(half["mean"] for half in slowing.values()) for f in (min, max))
        shares = q.number("second_half_least", least, ".2f")
        shares += f" to {q.number('second_half_most', most, '.2f')}" if len(slowing) > 1 else ""
        sentences.append(
            f"Later examples add less on {_tasks(list(slowing))}: their second half adds {shares} of what the first "
            "half adds."
        )
    if n_rejected:
        kept = {
            name: [task for task in by_verdict["rejected"] if name in verdicts[task]["survivors"]] for name in BAYESIAN
        }
        others = [f"{code(name)} ({BAYESIAN[name]}) on {_tasks(tasks)}" for name, tasks in kept.items() if tasks]
        sentences.append(
            "What is rejected is equal evidence from every example, not every Bayesian learner: "
            + (f"laws of others survive, {listed(others)}." if others else "but no law of another survives either.")
        )
    if missing := [str(task) for task in dataset.task.values if task not in verdicts]:
        sentences.append(f"Not judged: {_tasks(missing)}.")
    sentences += [
        f"The null control {code(task)} was not tested: `rule` was not fitted."
        for task in nulls
        if not (task in verdicts and rule_beside(verdicts[task]))
    ]
    return word, [*sentences, *evidence]


def evidence_sentences(verdicts: Mapping[str, dict], quotes: Quotes) -> list[str]:
    """How evidence is weighed where examples disagree: the second verdict, over tasks."""
    second = {task: v["bayesian"] for task, v in verdicts.items() if v.get("bayesian") and v["bayesian"]["kernel"]}
    by_verdict = {kind: [t for t, v in second.items() if v["verdict"] == kind] for kind in
                  dict.fromkeys(v["verdict"] for v in second.values())}  # fmt: skip
    if not second:
        return []
    kinds = "; ".join(
        f"{kind} on {_tasks(tasks)} ({quotes.count(f'evidence_{kind}', len(tasks))} of "
        f"{quotes.count('evidence_tasks', len(second))})"
        for kind, tasks in by_verdict.items()
    )
    return [f"Where examples disagree, the model's weighing of evidence is: {kinds}."]


def claims(found: StageOutputs, quotes: Quotes) -> list[Claim]:
    """The claims of Skunnavakkam (2024) about heads, layers and steps, and what was found of each."""
    writers, layers, steps = list[str](), list[str](), list[str]()
    for task, own in found.facts.get("attribute", {}).items():
        parts = {name: table[table.task == task] for name, table in found.tables["attribute"].items()}
        writers.append(writers_sentence(task, own, parts["heads"], parts["ablation"], quotes.under(task, "heads")))
    if patch := found.facts.get("patch"):
        taught = {task: own for task, own in patch.items() if own["taught"]}
        untaught = [task for task in patch if task not in taught]
        nothing = [f"On {_tasks(untaught)} the examples teach no rule that could be patched."] if untaught else []
        for task, own in taught.items():
            layers.append(layers_sentence(task, own, found.tables["patch"], quotes.under(task, "patch")))
        layers += nothing
        if taught and not found.settings("patch").get("rounds", 1) > 0:
            layers.append("Heads that take over were not sought (`--rounds 0`).")
        steps = steps_sentences(taught, quotes) or nothing or ["They were not tested (`--no-steps`)."]
    return [
        Claim("Heads that attend to examples write the update", writers, "attribute"),
        Claim("The task forms at one layer, and backup heads take over", layers, "patch"),
        Claim("Heads bring, MLPs make features, later heads add them", steps, "patch"),
    ]
