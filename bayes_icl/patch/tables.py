"""The tables of `patch` as a paper shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import LEVEL_WORDS, Interval
from bayes_icl.mechanism.placebos import is_placebo
from bayes_icl.patch.outputs import BACKUPS, HALVES, HEADS, LADDER, MLPS, REDUNDANCY, ROUNDS, STEPS, TRANSFER
from bayes_icl.writing import columns
from bayes_icl.writing.tables import (
    SEVERAL,
    PaperTable,
)


def rounds_table(rounds: pd.DataFrame) -> PaperTable:
    """Rounds of ablation, from rounds.csv; round 0, in which nothing is ablated, once a task."""
    again = (rounds["round"] == 0) & rounds.duplicated(["task", "round"])
    whole = rounds.groupby("task", sort=False).rule_gain.transform("first")
    return PaperTable(
        "rounds",
        "Rounds of ablation",
        f"A's log-odds (nats, {LEVEL_WORDS} intervals over pairs) with heads ablated at every token, the share of the "
        "rule gain that is left, and the layers at which the task is recovered: where half of what this A has over "
        "B does, half of what clean A had, half of its lead over permuted answers beyond what these carry, and half of "
        "A's own answer.",
        "rounds.csv",
        rounds,
        (
            *columns.shown(ROUNDS, "task; round"),
            columns.Column("ablated", _ablated, number=False),
            columns.Column("kind", lambda row: columns.one_line(row.kind) if row.n_heads else "", number=False),
            *columns.shown(ROUNDS, "A's log-odds = a_own .2f"),
            columns.number("rule left", "left", ".0%"),
            *columns.shown(
                ROUNDS,
                "transfer = transfer_layer; of clean A = transfer_layer_kept; rule = rule_layer; answer = answer_layer",
            ),
        ),
        rounds.assign(left=rounds.rule_gain / whole)[~again],
    )


def _ablated(row: Any) -> str:
    return columns.one_line(row.set if is_placebo(row.set) else row.layers_text if row.n_heads else "nothing")


def backups_table(backups: pd.DataFrame) -> PaperTable:
    """Heads that take over, from backups.csv; it may have no rows."""
    return PaperTable(
        "backups",
        "Backup heads",
        "Heads whose own ablation costs more once others are gone: its cost before and after, the growth, and the "
        f"growth with placebo sets gone, nats, {LEVEL_WORDS} intervals over pairs; p by Holm's method. A head grows "
        "if the interval of its growth beyond placebo sets lies above 0, and takes over if it also cost less than 5 % "
        "of the rule gain before.",
        "backups.csv",
        backups,
        (
            *columns.shown(BACKUPS, "task; round; head = component"),
            columns.Column("takes over", lambda row: columns.one_line(_taking_over(row)), number=False),
            *columns.shown(BACKUPS, "cost before = effect_before; after = effect_after"),
            columns.interval("growth", "growth"),
            *columns.shown(BACKUPS, "beside placebos = growth_placebo; p = p_holm p"),
        ),
    )


def ladder_table(ladder: pd.DataFrame) -> PaperTable:
    """Steps of the ladders, from ladder.csv."""
    return PaperTable(
        "ladder",
        "Whole layers ablated, step by step",
        f"By each kind of ablation: the layers at which the task is recovered and A's answer copied ({LEVEL_WORDS} "
        "intervals), A's log-odds (nats), how often its right token comes first, and the share of the rule gain left.",
        "ladder.csv",
        ladder,
        (
            *columns.shown(LADDER, "task; kind; step"),
            columns.Column("ablated", _ablated, number=False),
            *columns.shown(LADDER, "A's log-odds = a_own .2f; A right = a_first .0%; rule left = left .0%"),
            *columns.shown(LADDER, "transfer = transfer_layer; answer = answer_layer; copied = copied_first .0%"),
        ),
    )


def _taking_over(row: Any) -> str:
    """Active or passive of a backup head; that it grows, of one that mattered before."""
    if row.grows:
        return str(row.mode) if row.backup else "grows"
    return columns.NOTHING


def _half(row: Any) -> str:
    return "never" if columns.missing(row.share) else f"{Interval.of(row, 'share'):.1%}"


def halves_table(halves: pd.DataFrame) -> PaperTable:
    """How many heads must go until half of the rule is gone, from halves.csv."""
    return PaperTable(
        "halves",
        "How many heads can go",
        f"The share of all heads whose ablation takes half of the rule gain, with its {LEVEL_WORDS} interval, and "
        "their number, the most costly first or in random order; never: A's log-odds without any head, nats, are still "
        "above half.",
        "halves.csv",
        halves,
        (
            *columns.shown(HALVES, "task; order"),
            columns.Column("share", _half),
            columns.Column("heads", lambda row: columns.number_cell(row.share * row.n_heads_all, ".1f")),
            *columns.shown(HALVES, "of = n_heads_all; left without any = left_without_heads .2f"),
        ),
    )


PARTS = {"taken": "taken", "other_heads": "other heads", "mlps": "MLPs", "norm": "norm, rivals"}


def costly_table(heads: pd.DataFrame, facts: Mapping[str, Any], task: str, most: int = SEVERAL) -> PaperTable:
    """The heads of one task whose ablation alone costs most, from heads.csv of `patch` and its JSON."""
    own, known = heads[heads.task == task], facts[task]
    other = known["other_kind"]
    roles = [name for name in ("bring", "to_answers", "to_sink", "induction") if name in own]
    where = "at every token" if known["singles_everywhere"] else "at the last position"
    return PaperTable(
        f"costly_{file_name(task)}",
        f"Heads that cost most on {task}",
        f"{task}: the heads whose {known['kind']} ablation {where} costs most, alone, nats ({LEVEL_WORDS} intervals "
        f"over pairs; beside it by {other}). What is lost is what is taken, less what other heads, MLPs, and the norm "
        "and rivals repair. Attention by role. The CSV has all heads.",
        "heads.csv",
        own,
        (
            *columns.shown(HEADS, "head = component; lost .2f"),
            *([columns.number(f"by {other}", f"lost_{other}", ".2f")] if f"lost_{other}" in own else []),
            *(columns.number(heading, name, ".2f") for name, heading in PARTS.items()),
            *(columns.number(name.replace("_", " "), name, ".2f") for name in roles),
        ),
        own.nlargest(most, "lost"),
    )


def steps_table(steps: pd.DataFrame) -> PaperTable:
    """The experiments on the three steps of Skunnavakkam (2024) and the verdicts, from steps.csv."""
    return PaperTable(
        "steps",
        "Three steps (Skunnavakkam 2024)",
        "What each experiment takes, as a share of the rule gain (beyond 100 %: of the form of answers as well), "
        "and what it takes beyond its control, which is the same done elsewhere or the largest of the placebo sets; "
        f"{LEVEL_WORDS} intervals over pairs.",
        "steps.csv",
        steps,
        (
            *columns.shown(
                STEPS, "task; step; verdict; experiment = what; kind; takes = share .0%; beyond control = beyond .0%"
            ),
        ),
        steps.sort_values(["task", "step"], key=_in_order, kind="stable"),
    )


def _in_order(names: pd.Series) -> pd.Series:
    """Names in the order in which they come, numbers in their own."""
    return names if names.name == "step" else pd.Series(pd.factorize(names)[0], index=names.index)


def transfer_table(transfer: pd.DataFrame) -> PaperTable:
    """Log-odds by layer with nothing ablated, from transfer.csv: a few layers a task, B's best one among them."""
    clean = transfer[(transfer["round"] == 0) & (transfer["set"] == "ablated")].drop_duplicates(["task", "layer"])
    step = -(-int(clean.layer.nunique()) // SEVERAL) or 1
    return PaperTable(
        "transfer",
        "What is carried, layer by layer",
        "A's residual stream put into B, nothing ablated: log-odds of B's own answer and of A's (the other) after B, "
        f"nats, {LEVEL_WORDS} intervals over pairs, and how often that token comes first. The CSV has every layer, "
        "round and kind of ablation.",
        "transfer.csv",
        transfer,
        (
            *columns.shown(TRANSFER, "task; layer; own answer = own .2f; first = own_first .0%"),
            *columns.shown(TRANSFER, "other answer = other .2f; first = other_first .0%"),
        ),
        clean[(clean.layer % step == 0) | clean.index.isin(clean.groupby("task").own.idxmax())],
    )


def redundancy_table(redundancy: pd.DataFrame) -> PaperTable:
    """A's log-odds by number of heads ablated, the most costly first, from redundancy.csv."""
    return PaperTable(
        "redundancy",
        "Heads ablated one after another",
        f"A's log-odds, nats, {LEVEL_WORDS} intervals over pairs, with heads ablated at every token, the most costly "
        "first. The CSV has random orders too.",
        "redundancy.csv",
        redundancy,
        (*columns.shown(REDUNDANCY, "task; heads ablated = n_heads; of all = share .1%; A's log-odds = log_odds .2f"),),
        redundancy[redundancy.order == "best first"],
    )


def mlps_table(mlps: pd.DataFrame, most: int = 3) -> PaperTable:
    """The MLPs whose ablation costs most at each place, from mlps.csv."""
    whole = mlps[mlps.readout == "complement"].sort_values("lost", ascending=False)
    largest = whole.groupby(["task", "place"], sort=False).head(most).index
    return PaperTable(
        "mlps",
        "MLPs that cost most",
        "The layers whose MLP costs most, alone, where it is ablated at the answers of examples, at their other "
        f"tokens, or at the last position: log-odds of the answer, nats, {LEVEL_WORDS} intervals over pairs. The CSV "
        "has every layer and readout.",
        "mlps.csv",
        mlps,
        (*columns.shown(MLPS, "task; place; kind; layer; lost .2f"),),
        mlps.loc[largest].sort_values(["task", "place"], key=_in_order, kind="stable"),
    )
