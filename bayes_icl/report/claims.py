"""The answer on the report's first screen, and the post's claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from bayes_icl.curves import null_controls
from bayes_icl.fit.sentences import VERDICTS, _tasks, readings, rule_beside
from bayes_icl.mechanism.placebos import are_placebos, placebo_rank
from bayes_icl.patch.sentences import carried
from bayes_icl.writing.numbers import Quotes, code, listed

SURE = 0.01  # p of the quadratic contrast below which updates are said to change

MOSTLY = 0.5  # attention on examples from which a head is said to attend to them

# Laws of learners that are Bayesian in another way than adding the same with every example.
BAYESIAN = {
    "logarithmic": "counting",
    "lapse": "two known tasks",
    "scaling_law": "three known tasks",
    "observer": "the ideal observer",
}


class Claim(NamedTuple):
    """One claim of the post that started this project, and what was found of it.

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


def answer(
    dataset: xr.Dataset, verdicts: Mapping[str, dict], checks: pd.DataFrame, quotes: Quotes
) -> tuple[str, list[str]]:
    """The answer to "does every example add the same?": in a word or two, and in sentences.

    Parameters
    ----------
    verdicts
        verdict.json.
    checks
        checks.csv; may be empty.
    """
    q = quotes.under("answer")
    nulls = null_controls(dataset)
    asked = {task: v["verdict"] for task, v in verdicts.items() if task not in nulls}
    by_verdict = {kind: [task for task, v in asked.items() if v == kind] for kind in dict.fromkeys(asked.values())}
    n_tasks, n_supported = len(asked), len(by_verdict.get("supported", []))
    n_rejected = len(by_verdict.get("rejected", []))
    if not asked:
        word = "Nothing was asked."
    elif n_supported == n_tasks:
        word = "Yes."
    elif n_supported:
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
    rising = {
        task
        for task, kind in asked.items()
        if kind not in ("refused", "no_update") and verdicts[task]["delta"]["hdi_low"] > 0
    }
    slowing = [
        row.task
        for row in checks.itertuples()
        if row.check == "quadratic contrast" and row.p < SURE and row.estimate < 0 and row.task in rising
    ]
    if slowing:
        sentences.append(
            f"Further examples add less and less on {_tasks(slowing)} (quadratic contrast below zero, p below "
            f"{q.count('slowing_p', SURE, 'g')})."
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
    for task in nulls:
        rule = rule_beside(verdicts[task]) if task in verdicts else None
        if rule is None:
            sentences.append(f"The null control {code(task)} was not tested: `rule` was not fitted.")
        else:
            sentences.append(f"{code(task)}: {readings(dataset, task, verdicts[task])[-1]}.")
            if rule["verdict"] != "no_update" and n_supported:
                word = "In doubt: a null control fails."
    return word, sentences


def claims(
    heads: Mapping[str, Mapping[str, Any]] | None,
    standing: pd.DataFrame | None,
    ablation: pd.DataFrame | None,
    patch: Mapping[str, Mapping[str, Any]] | None,
    tables: Mapping[str, pd.DataFrame] | None,
    settings: Mapping[str, Any],
    quotes: Quotes,
) -> list[Claim]:
    """The post's claims about heads, layers and steps, and what was found of each.

    Parameters
    ----------
    heads, standing, ablation
        Facts, heads.csv and ablation.csv of `attribute`; None if it was not run.
    patch, tables
        Facts and tables of `patch`; None if it was not run.
    settings
        Those of `patch`.
    """
    found = [
        Claim(
            "Heads that attend to examples write the update",
            []
            if heads is None or standing is None or ablation is None
            else [_writers(task, own, standing, ablation, quotes.under(task, "heads")) for task, own in heads.items()],
            "attribute",
        )
    ]
    taught = {task: own for task, own in (patch or {}).items() if own["taught"]}
    untaught = [task for task in patch or {} if task not in taught]
    nothing = [f"On {_tasks(untaught)} the examples teach no rule that could be patched."] if untaught else []
    layers, steps = [], []
    if patch is not None and tables is not None:
        sought = settings.get("rounds", 1) > 0
        layers = [_layers(task, own, tables, quotes.under(task, "patch")) for task, own in taught.items()] + nothing
        layers += [] if sought or not taught else ["Heads that take over were not sought (`--rounds 0`)."]
        words = {"1": "heads bring the query to the answers", "2": "MLPs make features of the pair"}
        words["3"] = "later heads bring them to the last position"
        for step, what in words.items():
            by_verdict: dict[str, list[str]] = {}
            for task, own in taught.items():
                if step in own.get("steps", {}):
                    by_verdict.setdefault(own["steps"][step], []).append(task)
            if by_verdict:
                kinds = "; ".join(f"{kind} on {_tasks(tasks)}" for kind, tasks in by_verdict.items())
                steps.append(f"Step {quotes.count(f'step.{step}', int(step))}, {what}: {kinds}.")
        steps = steps or nothing or ["They were not tested (`--no-steps`)."]
    found.append(Claim("The task forms at one layer, and backup heads take over", layers, "patch"))
    found.append(Claim("Heads bring, MLPs make features, later heads add them", steps, "patch"))
    return found


def _writers(task: str, facts: Mapping[str, Any], table: pd.DataFrame, ablation: pd.DataFrame, quotes: Quotes) -> str:
    """Who writes delta of one task, and what goes with them; keys are those of `summary.head_sentences`."""
    q, delta = quotes.under(unit="nats/example"), facts["delta"]
    of = q.three("delta", delta.values())
    if delta["hdi_low"] <= 0 <= delta["hdi_high"]:
        return f"{code(task)}: delta's interval has zero in it ({of}): nothing to share out."
    own = table[(table.task == task) & (table.kind == "head")]
    standing = own[own.stands_out.astype(bool)]
    sentence = (
        f"{code(task)}: heads write {q.three('slope_head', facts['slope_head'].values())} of {of} nats per example "
        f"of {_what(facts, q)} ({q.percent('share_head', facts['share_head'])})"
    )
    if "slope_examples" in facts:
        sentence += f", {q.three('slope_examples', facts['slope_examples'].values())} from examples they attend to"
    count = f"{q.count('standing', len(standing))} of {q.count('n_heads', len(own))} heads stand out"
    if len(standing):
        attending = (standing.attention > MOSTLY).sum()
        count += (
            f", {q.count('standing_for', (standing.share > 0).sum())} for the update and "
            f"{q.count('standing_against', (standing.share < 0).sum())} against it; "
            f"{q.count('standing_attending', attending)} of them have most of their attention on examples"
        )
    return f"{sentence}. {count}.{_taken(task, facts, ablation, quotes)}"


def _what(facts: Mapping[str, Any], quotes: Quotes) -> str:
    """Which log-odds are taken apart; tokens are counted from the first."""
    if facts["readout"] == "foil":
        return "answer against foil, where the two fork"
    ordinals = ("first", "second", "third", "fourth", "fifth")
    token, text = facts["token"], quotes.words("token_text", facts["token_text"]) if "token_text" in facts else ""
    words = f"the answer's {ordinals[token]} token" if token < len(ordinals) else "a later token of the answer"
    return f"{words} ({text})" if text else words


def _taken(task: str, facts: Mapping[str, Any], ablation: pd.DataFrame, quotes: Quotes) -> str:
    """What goes with the heads that write most, in both ways of taking them away."""
    own = ablation[ablation.task == task]
    if own.empty:
        return ""
    here, sentences = facts["delta_measured"]["mean"], []
    n_heads = quotes.under("taken").count("n_heads", own[own.set == "top"].n_heads.iloc[0])
    words = {
        "held": f" Held at their mean over episodes and shots, those that write most ({n_heads}) take",
        "mean": " With their mean over episodes at each shot left in, they take",
    }
    for way, opening in words.items():
        q, part = quotes.under("taken", way, unit="nats/example"), own[own.way == way]
        top, placebo = part[part.set == "top"].iloc[0], part[are_placebos(part.set)]
        beyond, n_sets = placebo_rank(part, way, here)
        sentences.append(
            f"{opening} {q.columns(top, 'lost')} with them ({q.percent('share_lost', top.lost / here)} of delta where "
            f"they were taken away); {q.count('placebos_beyond', beyond)} of {q.count('placebos', n_sets)} placebo "
            f"sets take as much, and {q.number('placebo_mean', placebo.lost.mean())} on average."
        )
    return "".join(sentences)


def _layers(task: str, facts: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], quotes: Quotes) -> str:
    """Where a task comes across and who takes over; keys are those of `summary.patch_sentences`."""
    rounds, backups = tables["rounds"], tables["backups"]
    own = rounds[(rounds.task == task) & (rounds.kind == facts["kind"])]
    where = "the answers of examples" if facts["position"] == "answers" else code(facts["position"])
    first = own[own["round"] == 0].iloc[0]
    sentence = f"{code(task)}, at {where}: {carried(dict(facts), first, quotes.under(unit='nats'))}."
    named = backups[(backups.task == task) & backups.backup.astype(bool)] if len(backups) else backups
    for number, of_round in named.groupby("round"):
        ablated = own[(own["round"] == number) & (own.set == "ablated")].layers_text.iloc[0]
        heads = []
        for row in of_round.itertuples():
            b = quotes.under("backups", row.round, row.component, unit="nats")
            heads.append(
                f"{row.component} ({row.mode}: {b.columns(row, 'growth')} nats by {facts['kind']}, "
                f"{b.columns(row, 'growth_other_kind')} by {facts['other_kind']})"
            )
        text = quotes.all_in(f"ablated.{number}", str(ablated))
        sentence += f" With {text} ablated, the ablation of {listed(heads)} costs more than before: backup heads."
    if facts["backups_sought"] and not len(named):
        sentence += " No head is shown to take over in the rounds of ablation."
    return sentence
