"""What an atlas says, as sentences: for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bayes_icl.atlas.outputs import GROUPS, SCORES, read_atlas
from bayes_icl.atlas.tables import atlas_table, lesions_table
from bayes_icl.core.intervals import Interval
from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.writing.blocks import Heading, Tabled, Text, to_terminal
from bayes_icl.writing.numbers import Quotes, plain, token_words

NAMED = 5  # heads that a sentence names

AGREEING = 4  # pairs of scores that a sentence names

EFFECTS = {
    "total": "carry part of delta",
    "direct": "write part of delta",
    "backup": "take over once the writers are ablated",
    "function_vector": "have a function vector",
    "recognition": "write part of the slope of format",
    "learning": "write part of the slope of rule",
}


def summarise_atlas(folder: Path) -> str:
    """Text for people: which heads are named on each task, what groups of them lose, which scores agree.

    Parameters
    ----------
    folder
        The one that `atlas` wrote.
    """
    tables, facts = read_atlas(folder)
    blocks: list[Heading | Text | Tabled] = []
    for task, own in facts.items():
        lines = atlas_sentences(own, {name: table[table.task == task] for name, table in tables.items()})
        blocks += [Heading(task, ""), Text(lines), Tabled(atlas_table(tables["atlas"], task))]
    if len(tables["lesions"]):
        blocks += [Heading("Groups ablated", ""), Tabled(lesions_table(tables["lesions"]))]
    return to_terminal(blocks, width=140)


def atlas_sentences(
    facts: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], quotes: Quotes | None = None
) -> list[str]:
    """What was found on one task, from its part of the tables.

    With `quotes`, numbers are kept there and sentences hold their keys (`Quotes`); without, they are plain text.
    """
    if quotes is None:
        return [plain(line) for line in atlas_sentences(facts, tables, Quotes())]
    q = quotes.under(unit="nats/example")
    atlas = tables["atlas"]
    delta = Interval(*facts["wholes"]["delta"].values())
    lines = [
        f"{facts['readout']}, {token_words(facts, q)}, n >= {q.count('n_min', facts['n_min'])}, "
        f"{q.count('n_seqs', facts['n_seqs'])} sequences: delta {q.three('delta', delta)} nats/example"
    ]
    if not delta.excludes(0):
        lines.append("delta's interval has zero in it: no head is named for it, and no group is ablated")
    for score, words in EFFECTS.items():
        if (own := atlas[atlas.score == score]).empty:
            continue
        if Interval(*facts["wholes"][SCORES[score].whole].values()).excludes(0):
            lines.append(_named(score, words, own, q))
        elif score == "function_vector":
            lines.append("permuted answers cost nothing here, so that no function vector is looked for")
    kinds = atlas[atlas.score == "direct"].kind.value_counts()
    if "canceller" in kinds:
        lines.append(f"cancellers, which write against delta: {q.count('cancellers', int(kinds['canceller']))}")
    lines += _lesions(tables["lesions"], q)
    lines += _agreement(tables["agreement"], q)
    return lines + [
        f"no score of {score}: {q.all_in(f'missing.{score}', why)}" for score, why in facts["missing"].items()
    ]


def _named(score: str, words: str, own: pd.DataFrame, q: Quotes) -> str:
    """How many heads are named by a score, and the largest of them."""
    named = own[own.named]
    named = named.loc[named.value.abs().sort_values(ascending=False, kind="stable").index]
    count = f"{q.count(f'named.{score}', len(named))} of {q.count('heads', len(own))} heads {words}"
    if named.empty:
        return count
    several = ", ".join(
        f"{row.component} ({q.percent(f'{score}.{row.component}', row.share)})"
        for row in named.head(NAMED).itertuples()
    )
    return f"{count}: {several}{', ...' if len(named) > NAMED else ''}"


def _lesions(lesions: pd.DataFrame, q: Quotes) -> list[str]:
    """What goes with each group."""
    lines = []
    for group, words in GROUPS.items():
        own = lesions[lesions.group == group]
        if own.empty:
            continue
        top, placebo = own[own["set"] == "top"].iloc[0], own[are_placebos(own["set"])]
        beyond = Interval.of(top, "beyond")
        more = "more than" if beyond.low > 0 else "less than" if beyond.high < 0 else "no other than"
        lines.append(
            f"without the {q.count(f'lesions.{group}.heads', int(top.n_heads))} heads of the {words}, "
            f"{q.three_percent(f'lesions.{group}.share', Interval.of(top, 'share'), '.0%')} of delta goes, {more} "
            f"with placebo groups ({q.percent(f'lesions.{group}.placebos', placebo.share.mean())})"
        )
    return lines


def _agreement(agreement: pd.DataFrame, q: Quotes) -> list[str]:
    """The pairs of scores that go together most, of those that surely do."""
    pairs = agreement[(agreement.a != agreement.b) & ((agreement.rank_low > 0) | (agreement.rank_high < 0))]
    pairs = pairs.loc[pairs["rank"].abs().sort_values(ascending=False, kind="stable").index].head(AGREEING)
    if pairs.empty:
        return []
    unitless = Quotes(q.prefix, "", q.numbers)
    words = []
    for row in pairs.to_dict("records"):
        rank = unitless.three(f"rank.{row['a']}.{row['b']}", Interval.of(row, "rank"), ".2f")
        words.append(f"{SCORES[row['a']].words} and {SCORES[row['b']].words} {rank}")
    return [f"rank correlations over heads, the largest: {'; '.join(words)}"]
