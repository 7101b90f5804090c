"""What patches say, as sentences: for the terminal, the report and its first screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bayes_icl.core.files import beside
from bayes_icl.core.intervals import TAIL
from bayes_icl.core.schemas import read_beside
from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.patch.ladder_sentences import ladder_sentences
from bayes_icl.patch.outputs import TABLES
from bayes_icl.patch.steps import STEPS
from bayes_icl.patch.tables import costly_table, rounds_table, steps_table
from bayes_icl.writing.blocks import Heading, Tabled, Text, to_terminal
from bayes_icl.writing.learning import not_learnt
from bayes_icl.writing.numbers import Quotes, code, layer_of, listed, plain, token_words

PLACES = {"last": "the last position", "query": "the last token of the query", "separator": "the separator"}

ANSWERS = "the answers of examples"


def summarise_patch(out: Path) -> str:
    """Text for people: where each task is recovered, who takes over, how many heads can go, and the three steps.

    Parameters
    ----------
    out
        The effects file of `patch`; its tables stand beside it.
    """
    facts = json.loads(beside(out, "json").read_text())
    tables = read_beside(out, TABLES)
    blocks: list[Heading | Text | Tabled] = []
    for task, own in facts.items():
        parts = {name: table[table.task == task] for name, table in tables.items()}
        blocks += [Heading(task, ""), Text(patch_sentences(own, parts))]
        blocks += [Tabled(costly_table(tables["heads"], facts, task))] if own["taught"] else []
    blocks += [Heading("all tasks", ""), Tabled(rounds_table(tables["rounds"]))]
    explained = tables["steps"][tables["steps"].task.isin([task for task, own in facts.items() if own["taught"]])]
    blocks += [Tabled(steps_table(explained))] if len(explained) else []
    return to_terminal(blocks, width=130)


def patch_sentences(
    facts: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], quotes: Quotes | None = None
) -> list[str]:
    """What was found on one task, from its part of the tables; `quotes` as in `head_sentences`."""
    if quotes is None:
        return [plain(line) for line in patch_sentences(facts, tables, Quotes())]
    q, first = quotes.under(unit="nats"), _clean(facts, tables["rounds"])
    bare = "B, another query after those" if facts["position"] == "answers" else "B, without"
    without = "each label replaced by another" if facts.get("exchanged") else "their answers permuted"
    lines = not_learnt(facts.get("learning"), quotes)
    lines += [
        f"{token_words(facts, q)}, against all others, "
        f"{q.count('n_pairs', facts['n_pairs'])} pairs: A, with {q.count('n_examples', facts['n_examples'])} examples, "
        f"{q.columns(first, 'a_own')} nats; with {without} "
        f"{q.three('no_rule', facts['no_rule'].values())}; {bare}, {q.columns(first, 'b_own')}; rule "
        f"gain {q.three('rule_gain', facts['rule_gain'].values())}"
    ]
    if not facts["taught"]:
        return [*lines, "the examples teach no rule here: there is nothing to carry, and nothing to explain"]
    return [
        *lines,
        f"A's stream at {PLACES.get(facts['position'], ANSWERS)} put into B: "
        f"{carried(facts, first, q)}; B's own answer is likeliest at layer "
        f"{q.count('peak_layer', first.peak_layer, '.0f')}, {q.columns(first, 'peak')} nats, and comes first in "
        f"{q.percent('peak_first', first.peak_first)}",
        *_rounds_told(facts, tables["rounds"], quotes),
        f"rounds end: {q.all_in('ended', facts['ended'])}",
        *(_grown(row, facts, quotes) for row in tables["backups"].itertuples()),
        *(_half_gone(row, facts, q) for row in tables["halves"].itertuples()),
        *_ways_told(tables["steps"], quotes),
        *ladder_sentences(facts, tables, quotes),
    ]


def _clean(facts: Mapping[str, Any], rounds: pd.DataFrame) -> Any:
    """The row in which nothing is ablated."""
    return rounds[(rounds["round"] == 0) & (rounds.kind == facts["kind"])].iloc[0]


def _rounds_told(facts: Mapping[str, Any], rounds: pd.DataFrame, quotes: Quotes) -> list[str]:
    """Each round by knock-out and by mean, beside its placebo sets."""
    whole = _clean(facts, rounds).rule_gain
    lines = []
    for (number, kind), own in rounds[rounds["round"] > 0].groupby(["round", "kind"], sort=True):
        placebos = own[are_placebos(own["set"])]
        if kind not in ("zero", "mean", facts["kind"]):
            continue
        row = own[own["set"] == "ablated"].iloc[0]
        q = quotes.under("rounds", number, kind, unit="nats")
        words = {"zero": "knocked out (zero)"}.get(kind, f"ablated by {kind}")
        line = (
            f"round {q.count('round', number)}, {q.all_in('heads', row.layers_text)} {words}: A keeps "
            f"{q.columns(row, 'a_own', '.2f')} nats, {q.percent('left', row.rule_gain / whole)} of the rule gain; "
        )
        answer = layer_of(row, "answer_layer", q)
        task = layer_of(row, "transfer_layer", q)
        line += (
            "nothing is left to carry" if task == "-" else f"the task is recovered at {task}, A's answer at {answer}"
        )
        if len(placebos):
            q = q.under("placebos")
            low, high = (end(placebos.rule_gain / whole) for end in (min, max))
            line += f"; placebo sets leave {q.percent('least', low)} to {q.percent('most', high)}"
            worse = int((placebos.a_own < row.a_own).sum())
            if worse:
                line += f"; {q.count('worse', worse)} of {q.count('n', len(placebos))} cost MORE than the set"
        else:
            line += "; too few heads are left for placebo sets"
        lines.append(line)
    return lines


def _ways_told(steps: pd.DataFrame, quotes: Quotes) -> list[str]:
    """Steps 1 and 3: what shutting every way takes, and the direct and the indirect one apart."""
    lines = []
    shut = steps[(steps.kind == "attention knockout") & steps.share.notna()]
    for step, what in ((1, "x reaches y"), (3, "the answers of examples reach the last position")):
        own = shut[shut.step == step]
        every = own[own.decides == "path"]
        apart = own[own.what.str.startswith(("directly", "indirectly"))]
        if not len(every) or not len(apart):
            continue
        q, gone = quotes.under("ways", step), "of the rule gain goes"
        parts = [
            f"{row.what.split(':')[0]} {q.percent(row.what.split(':')[0], row.share)}" for row in apart.itertuples()
        ]
        row = every.iloc[0]
        share = q.three_percent("every", (row.share, row.share_low, row.share_high), ".0%")
        lines.append(f"step {q.count('step', step)}, {what}: with every way shut {share} {gone}; {', '.join(parts)}")
    return lines


def _grown(row: Any, facts: Mapping[str, Any], quotes: Quotes) -> str:
    """What the ablation of one head costs before and after others are gone."""
    attention = quotes.under("backups", row.round, row.component)
    q = attention.under(unit="nats")
    name = "costs more, but is not shown to do so beyond placebo sets"
    if row.grows:
        name = "takes over" if row.backup else "grows (it mattered before, and is no backup head)"
    placebo = "too few heads for placebo sets"
    if row.growth_placebo == row.growth_placebo:
        placebo = f"{q.columns(row, 'growth_placebo')} beside placebo sets"
    return (
        f"    round {q.count('round', row.round)}: {row.component} {name} ({row.mode}): its ablation costs "
        f"{q.columns(row, 'effect_before')} before and {q.columns(row, 'effect_after')} after, "
        f"{growth_words(row, facts, quotes)}, {placebo}; its direct effect rises by "
        f"{q.columns(row, 'direct_rise')}, its attention to examples by {attention.columns(row, 'attention_rise')}"
    )


def growth_words(row: Any, facts: Mapping[str, Any], quotes: Quotes) -> str:
    """By how much the cost of one head grows, by both kinds of ablation."""
    q = quotes.under("backups", row.round, row.component, unit="nats")
    other = q.columns(row, "growth_other_kind")
    return f"growth {q.columns(row, 'growth')} nats by {facts['kind']}, {other} by {facts['other_kind']}"


def _half_gone(row: Any, facts: Mapping[str, Any], quotes: Quotes) -> str:
    """How many heads must go until half of the rule gain is gone."""
    q = quotes.under("halves", row.order.replace(" ", "_"))
    order = "the most costly first" if row.order == "best first" else "in random order"
    start = f"heads ablated at every token ({facts['kind']}), {order}: half of the rule gain is"
    if row.share != row.share:
        return f"{start} never gone: {q.number('left', row.left_without_heads, '.2f')} nats are left without any"
    share = q.three_percent("share", (row.share, row.share_low, row.share_high))
    heads, of = q.count("heads", row.share * row.n_heads_all, ".1f"), q.count("n_heads", row.n_heads_all)
    return f"{start} gone with {share} ({heads} of {of} heads)"


def carried(facts: Mapping[str, Any], row: Any, quotes: Quotes) -> str:
    """What A's residual stream carries into B where nothing is ablated, at the position that was patched."""
    if facts.get("replaces_query"):
        answer = layer_of(row, "answer_layer", quotes)
        return (
            "the prompt ends on its query, which the patch replaces, so that B's own answer cannot come of it: rounds "
            f"follow A's answer, at {answer}"
        )
    if facts["position"] == "answers":
        return f"it carries half of A's lead up to layer {layer_of(row, 'transfer_until', quotes)}"
    return came_across(row, quotes)


def came_across(row: Any, quotes: Quotes | None = None) -> str:
    """Where half of what A has over B was recovered, and half of what the rule is."""
    task, answer, rule = (layer_of(row, f"{name}_layer", quotes) for name in ("transfer", "answer", "rule"))
    across = f"is recovered at layer {task}"
    if task in ("never", "-"):
        across = "is not recovered"
        if (reached := row.transfer_layer_reached) > TAIL:
            share = quotes.percent("transfer_reached", reached) if quotes else f"{reached:.0%}"
            across += f" (it does in {share} of resamples)"
    beyond = "nowhere half of A's lead" if rule in ("never", "-") else f"half of A's lead from {rule} on"
    then = "A's answer never" if answer in ("never", "-") else f"A's answer at {answer}"
    return f"the task {across} (beyond what a run with permuted answers carries, {beyond}), {then}"


def layers_sentence(task: str, facts: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], quotes: Quotes) -> str:
    """Where a task is recovered and who takes over, in short; `tables` are of all tasks."""
    rounds, backups = (tables[name][tables[name].task == task] for name in ("rounds", "backups"))
    where = ANSWERS if facts["position"] == "answers" else code(facts["position"])
    words = carried(facts, _clean(facts, rounds), quotes.under(unit="nats"))
    sentence = f"{code(task)}, at {where}: {words}."
    named = backups[backups.backup.astype(bool)] if len(backups) else backups
    ablated = rounds[(rounds.set == "ablated") & (rounds.kind == facts["kind"])].set_index("round").layers_text
    for number, of_round in named.groupby("round"):
        heads = [f"{row.component} ({row.mode}: {growth_words(row, facts, quotes)})" for row in of_round.itertuples()]
        text = quotes.all_in(f"ablated.{number}", str(ablated[number]))
        sentence += f" With {text} ablated, the ablation of {listed(heads)} costs more than before: backup heads."
    if facts["backups_sought"] and not len(named):
        sentence += " No head is shown to take over in the rounds of ablation."
    return sentence


def steps_sentences(facts: Mapping[str, Mapping[str, Any]], quotes: Quotes) -> list[str]:
    """The verdicts on each of the steps of Skunnavakkam (2024), over tasks; none where no task was tested."""
    sentences = []
    for step, what in STEPS.items():
        by_verdict: dict[str, list[str]] = {}
        for task, own in facts.items():
            if verdict := own.get("steps", {}).get(str(step)):
                by_verdict.setdefault(verdict, []).append(code(task))
        if by_verdict:
            kinds = "; ".join(f"{verdict} on {listed(tasks)}" for verdict, tasks in by_verdict.items())
            sentences.append(f"Step {quotes.count(f'step.{step}', step)}, {what}: {kinds}.")
    return sentences
