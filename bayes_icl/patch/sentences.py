"""What patches say, as sentences and as the terminal's tables."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from bayes_icl.core.files import beside
from bayes_icl.core.schemas import read_beside
from bayes_icl.mechanism.placebos import is_placebo
from bayes_icl.patch.outputs import TABLES
from bayes_icl.patch.steps import STEPS
from bayes_icl.writing.numbers import OPEN, Quotes, plain, point_of, token_words


def summarise_patch(out: Path) -> str:
    """Text for people: where each task comes across, who takes over, how many heads can go, and the post's steps.

    Parameters
    ----------
    out
        The effects file of `patch`; its tables stand beside it.
    """
    console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=130)
    facts = json.loads(beside(out, "json").read_text())
    tables = read_beside(out, TABLES)
    for task, own in facts.items():
        console.rule(task, align="left")
        for sentence in patch_sentences(own, {name: table[table.task == task] for name, table in tables.items()}):
            console.print(sentence)
        if not own["taught"]:
            continue
        steps = tables["steps"][tables["steps"].task == task]
        if len(steps):
            console.print(_step_table(own, steps))
        console.print(_round_table(tables["rounds"][tables["rounds"].task == task]))
        console.print(_costly_table(tables["heads"][tables["heads"].task == task], own))
    return console.file.getvalue()  # type: ignore[attr-defined]


def patch_sentences(facts: dict, tables: dict[str, pd.DataFrame], quotes: Quotes | None = None) -> list[str]:
    """What was found on one task, from its part of the tables; `quotes` as in `head_sentences`."""
    if quotes is None:
        return [plain(line) for line in patch_sentences(facts, tables, Quotes())]
    q = quotes.under(unit="nats")
    rounds, backups, halves = (tables[name] for name in ("rounds", "backups", "halves"))
    first = rounds[(rounds["round"] == 0) & (rounds.kind == facts["kind"])].iloc[0]
    where = {"last": "the last position", "query": "the last token of the query", "separator": "the separator"}
    bare = "B, another query after those" if facts["position"] == "answers" else "B, without"
    lines = [
        f"{token_words(facts, q)}, against all others, "
        f"{q.count('n_pairs', facts['n_pairs'])} pairs: A, with {q.count('n_examples', facts['n_examples'])} examples, "
        f"{q.columns(first, 'a_own')} nats; with their answers permuted "
        f"{q.three('no_rule', facts['no_rule'].values())}; {bare}, {q.columns(first, 'b_own')}; the rule "
        f"adds {q.three('rule', facts['rule'].values())}"
    ]
    if not facts["taught"]:
        return [*lines, "the examples teach no rule here: there is nothing to carry, and nothing to explain"]
    lines += [
        f"A's stream at {where.get(facts['position'], 'the answers of examples')} put into B: "
        f"{carried(facts, first, q)}; B's own answer is likeliest at point "
        f"{q.count('peak_point', first.peak_point, '.0f')}, {q.columns(first, 'peak')} nats, and comes first in "
        f"{q.percent('peak_first', first.peak_first)}",
        f"rounds end: {q.all_in('ended', facts['ended'])}",
    ]
    for row in backups.itertuples():
        b = q.under("backups", row.round, row.component)
        attention = quotes.under("backups", row.round, row.component)
        name = "takes over" if row.backup else "costs more, but is not shown to do so beyond placebo sets"
        lines.append(
            f"    round {b.count('round', row.round)}: {row.component} {name} ({row.mode}): its ablation costs "
            f"{b.columns(row, 'effect_before')} before and {b.columns(row, 'effect_after')} after, growth "
            f"{b.columns(row, 'growth')} ({b.columns(row, 'growth_other_kind')} by {facts['other_kind']}), "
            f"{_placebo(row, b)}; its direct effect rises by "
            f"{b.columns(row, 'direct_rise')}, its attention to examples by {attention.columns(row, 'attention_rise')}"
        )
    for row in halves.itertuples():
        h = q.under("halves", row.order.replace(" ", "_"))
        order = "the most costly first" if row.order == "best first" else "in random order"
        if row.share != row.share:
            left = h.number("left", row.left_without_heads, ".2f")
            text = f"half of what the rule adds is never gone: {left} nats are left without any"
        else:
            share = h.three_percent("share", (row.share, row.share_low, row.share_high))
            heads = h.count("heads", row.share * row.n_heads_all, ".1f")
            of = h.count("n_heads", row.n_heads_all)
            text = f"half of what the rule adds is gone with {share} ({heads} of {of} heads)"
        lines.append(f"heads ablated at every token ({facts['kind']}), {order}: {text}")
    return lines


def _placebo(row: Any, quotes: Quotes) -> str:
    """Growth with placebo sets ablated, if there were any."""
    if row.growth_placebo != row.growth_placebo:
        return "too few heads for placebo sets"
    return f"{quotes.columns(row, 'growth_placebo')} beside placebo sets"


def _step_table(facts: dict, steps: pd.DataFrame) -> Table:
    """What each experiment on the post's steps takes, and the verdicts."""
    table = Table(box=None, pad_edge=False, title="the post's three steps", title_justify="left")
    for heading, justify in (("", "left"), ("", "left"), ("takes", "right"), ("beyond its control", "right")):
        table.add_column(heading, justify=justify, no_wrap=bool(heading))  # type: ignore[arg-type]

    def shares(row: Any, name: str) -> str:
        mean, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
        return "" if mean != mean else f"{mean:.0%} \\[{low:.0%}, {high:.0%}]"

    for step, words in STEPS.items():
        table.add_row(f"{step} {words}")
        table.add_row(f"  {facts['steps'][str(step)].upper()}")
        for row in steps[steps.step == step].itertuples():
            table.add_row(f"    {row.what}", row.kind, shares(row, "share"), shares(row, "beyond"))
    table.caption = (
        "shares of what the rule adds (beyond 100 %: of the form of answers as well);\n"
        "control: the same done elsewhere, or the largest of the placebo sets"
    )
    table.caption_justify = "left"
    return table


def carried(facts: dict, row: Any, quotes: Quotes) -> str:
    """What A's residual stream carries into B where nothing is ablated, at the position that was patched."""
    if facts["position"] == "answers":
        return f"it carries half of A's lead up to point {point_of(row, 'transfer_until', quotes)}"
    return came_across(row, quotes)


def came_across(row: Any, quotes: Quotes | None = None) -> str:
    """Where half of what A has over B came across, and half of what the rule is."""
    task, answer, rule = (point_of(row, f"{name}_layer", quotes) for name in ("transfer", "answer", "rule"))
    across = f"comes across at point {task}"
    if task in ("never", "-"):
        across = "does not come across"
        if (reached := row.transfer_layer_reached) > OPEN:
            share = quotes.percent("transfer_reached", reached) if quotes else f"{reached:.0%}"
            across += f" (it does in {share} of resamples)"
    beyond = "nowhere half of A's lead" if rule in ("never", "-") else f"half of A's lead from {rule} on"
    then = "A's answer never" if answer in ("never", "-") else f"A's answer at {answer}"
    return f"the task {across} (beyond what a run with permuted answers carries, {beyond}), {then}"


def _round_table(rounds: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False, title="rounds of ablation in A", title_justify="left")
    for heading in (
        "round",
        "ablated",
        "kind",
        "A's log-odds",
        "rule left",
        "transfer",
        "of clean A",
        "rule",
        "answer",
    ):
        left = heading in ("ablated", "kind")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "ablated")
    whole = rounds.rule.iloc[0]
    for row in rounds.itertuples():
        if row.round == 0 and row.Index != rounds.index[0]:
            continue
        name = "placebo" if is_placebo(row.set) else str(row.layers_text if row.n_heads else "nothing")
        cells = [point_of(row, f"{x}_layer{end}") for x, end in (("transfer", ""), ("transfer", "_kept"), ("rule", ""))]
        numbers = (f"{row.a_own:.2f} [{row.a_own_low:.2f}, {row.a_own_high:.2f}]", f"{row.rule / whole:.0%}", *cells)
        kind = row.kind if row.n_heads else ""
        shown = (*numbers, point_of(row, "answer_layer"))
        table.add_row(str(row.round), name, kind, *(x.replace("[", "\\[") for x in shown))
    table.caption = (
        "transfer, answer: where half of what this A has over B comes across; of clean A: half of what A had;\n"
        "rule: half of its lead over permuted answers, beyond what these carry"
    )
    table.caption_justify = "left"
    return table


def _costly_table(heads: pd.DataFrame, facts: dict, most: int = 8) -> Table:
    other_kind = facts["other_kind"]
    where = "at every token" if facts["singles_everywhere"] else "at the last position"
    table = Table(
        box=None,
        pad_edge=False,
        title=f"heads whose ablation {where} costs most, alone",
        title_justify="left",
    )
    roles = [name for name in ("bring", "to_answers", "to_sink", "induction") if name in heads]
    parts = ("taken", "other_heads", "mlps", "norm")
    names = ("taken", "other heads", "MLPs", "norm, rivals", *(name.replace("_", " ") for name in roles))
    for heading in ("head", "lost", other_kind, *names):
        table.add_column(heading, justify="left" if heading == "head" else "right", no_wrap=True)
    for row in heads.nlargest(most, "lost").itertuples():
        lost = f"{row.lost:.2f} [{row.lost_low:.2f}, {row.lost_high:.2f}]".replace("[", "\\[")
        cells = [f"{getattr(row, name):.2f}" for name in (f"lost_{other_kind}", *parts, *roles)]
        table.add_row(str(row.component), lost, *cells)
    table.caption = "lost = taken - other heads - MLPs - norm and rivals, nats; attention by role"
    table.caption_justify = "left"
    return table
