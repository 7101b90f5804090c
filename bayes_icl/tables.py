"""The tables of all stages for a paper: CSV in full, LaTeX to be input, HTML for the page.

Functions that take what a command wrote and return `PaperTable`s. A cell is made once, as plain text such as
"-0.178 [-0.211, -0.148]"; LaTeX and HTML differ only in how they write its numbers and what they escape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup, escape

from bayes_icl.curves import file_name
from bayes_icl.hypotheses import label_of
from bayes_icl.outputs import to_csv
from bayes_icl.quotes import escape_latex, typeset_html, typeset_latex
from bayes_icl.summary import point_of, token_label

NOTHING = "\u2013"  # where a number is not known
P_LEAST = 1e-300  # below it, p is 0 by rounding
SEVERAL = 10  # rows of a table that is too long to be shown whole


@dataclass(frozen=True)
class Column:
    """A column as it is shown.

    Attributes
    ----------
    heading
        What stands above it.
    cell
        A row of the table, columns as attributes, to the cell's plain text.
    number
        Whether cells are numbers: aligned to the right, with minus signs and powers of ten.
    """

    heading: str
    cell: Callable[[Any], str]
    number: bool = True


@dataclass(frozen=True)
class PaperTable:
    """A table with what is shown of it.

    Attributes
    ----------
    name
        Its files' name.
    title, caption
        In words; units stand in the caption.
    source
        The file of a command that it was made from.
    frame
        All of it, as the CSV holds it.
    columns
        Those shown.
    shown
        The rows shown, where they are not all rows of `frame`.
    """

    name: str
    title: str
    caption: str
    source: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    shown: pd.DataFrame | None = None

    def cells(self) -> list[list[str]]:
        """The cells shown, by row, as plain text."""
        rows = self.frame if self.shown is None else self.shown
        return [[column.cell(row) for column in self.columns] for row in rows.itertuples(index=False)]


def text(heading: str, name: str) -> Column:
    """A column of words; what is missing is empty."""
    return Column(heading, lambda row: _words(getattr(row, name)), number=False)


def yes(heading: str, name: str) -> Column:
    """A column that says "yes" or nothing."""
    return Column(heading, lambda row: "yes" if getattr(row, name) in (True, "True") else "", number=False)


def number(heading: str, name: str, form: str = ".3f") -> Column:
    """A column of numbers in the form of `format`."""
    return Column(heading, lambda row: _number(getattr(row, name), form))


def interval(heading: str, mean: str, form: str = ".3f", *, ends: tuple[str, str] | None = None) -> Column:
    """A column of means with intervals; their ends are in the columns with _low and _high if `ends` names no others."""
    names = (mean, *(ends or (f"{mean}_low", f"{mean}_high")))

    def cell(row: Any) -> str:
        middle, low, high = (_number(getattr(row, name), form) for name in names)
        return NOTHING if middle == NOTHING else f"{middle} [{low}, {high}]"

    return Column(heading, cell)


def p_value(heading: str, name: str) -> Column:
    """A column of p-values, to two digits."""
    return Column(heading, lambda row: _p(getattr(row, name)))


def point(heading: str, name: str) -> Column:
    """A column of layers, or points between them, that may never be reached."""
    return Column(heading, lambda row: NOTHING if (words := point_of(row, name)) == "-" else words)


def _missing(x: Any) -> bool:
    return x is None or (isinstance(x, float) and math.isnan(x))


def _words(x: Any) -> str:
    """A name on one line, without characters that cannot be printed."""
    return "" if _missing(x) else " ".join("".join(c if c.isprintable() else " " for c in str(x)).split())


def _number(x: Any, form: str) -> str:
    return NOTHING if _missing(x) else f"{x:z{form}}"  # z: no minus before what is rounded to 0


def _p(x: Any) -> str:
    return _number(x, ".2g") if _missing(x) or x > P_LEAST else f"<{P_LEAST:g}"


# --- what fit wrote


def verdict_table(verdicts: Mapping[str, dict], comparison: pd.DataFrame, checks: pd.DataFrame) -> PaperTable:
    """The headline verdicts: a row a task.

    Parameters
    ----------
    verdicts
        verdict.json.
    comparison, checks
        comparison.csv and checks.csv; without rows where nothing was fitted.
    """
    rows = []
    for task, verdict in verdicts.items():
        setting = {"task": task, "readout": verdict["readout"], "n_min": verdict["n_min"]}
        sound = verdict["verdict"] != "refused"
        score = _row_where(comparison, **setting, hypothesis="additive")
        contrast = _row_where(checks, **setting, check="quadratic contrast")
        rows.append(
            {
                **setting,
                "verdict": verdict["verdict"],
                # Of a refused fit neither is to be relied on.
                **{f"delta_{end}": ((sound and verdict["delta"]) or {}).get(end, math.nan) for end in ("mean", *HDI)},
                "named": verdict["named"] if sound else None,
                **{name: score.get(name, math.nan) for name in ("elpd_diff", "diff_se")},
                "contrast": contrast.get("estimate", math.nan),
                **{f"contrast_{end}": contrast.get(end, math.nan) for end in ("low", "high")},
                "p": contrast.get("p", math.nan),
                "survivors": ", ".join(verdict["survivors"]),
                "seqs_needed": verdict["seqs_needed"],
            }
        )
    settings = dict.fromkeys((verdict["readout"], verdict["n_min"]) for verdict in verdicts.values())
    words = " or ".join(f"{readout}, n \u2265 {n_min}" for readout, n_min in settings)
    return PaperTable(
        "verdicts",
        "Verdicts",
        f"The additive update under the readout {words}: delta in nats per "
        "example, mean and 95 % highest-density interval; how far additive is from the best hypothesis when a sequence "
        "is left out, nats (SE); the quadratic contrast over sequences, nats, with its p; all hypotheses that survive, "
        "the simplest of which is named.",
        "verdict.json",
        pd.DataFrame(rows),
        (
            text("task", "task"),
            *((text("readout", "readout"), number("n from", "n_min", ".0f")) if len(settings) > 1 else ()),
            text("additive", "verdict"),
            interval("delta", "delta_mean", ends=("delta_hdi_low", "delta_hdi_high")),
            text("law named", "named"),
            Column("from best (SE)", _with_se("elpd_diff", "diff_se")),
            interval("contrast", "contrast", ".2f"),
            p_value("p", "p"),
            text("survivors", "survivors"),
        ),
    )


HDI = ("hdi_low", "hdi_high")


def _row_where(table: pd.DataFrame, **values: Any) -> dict[str, Any]:
    """The first row with these values, empty if there is none."""
    if table.empty:
        return {}
    at = pd.concat([table[name] == value for name, value in values.items()], axis=1).all(axis=1)
    return table[at].iloc[0].to_dict() if at.any() else {}


def _with_se(name: str, se: str) -> Callable[[Any], str]:
    def cell(row: Any) -> str:
        value, error = getattr(row, name), getattr(row, se)
        return NOTHING if _missing(value) else f"{_number(value, '.1f')} ({_number(error, '.1f')})"

    return cell


def comparison_tables(verdicts: Mapping[str, dict], comparison: pd.DataFrame) -> list[PaperTable]:
    """The hypotheses under the headline's setting, best first: a table a task that was fitted."""
    tables = []
    for task, verdict in verdicts.items():
        if comparison.empty:
            continue
        at = (comparison.task == task) & (comparison.readout == verdict["readout"])
        own = comparison[at & (comparison.n_min == verdict["n_min"])].sort_values("elpd_diff", ascending=False)
        if own.empty:
            continue
        tables.append(
            PaperTable(
                f"comparison_{file_name(task)}",
                f"Hypotheses on {task}",
                f"{task}, readout {verdict['readout']}, n \u2265 {verdict['n_min']}: differences from the best "
                "hypothesis when a sequence, or the future half of all, is left out, nats; which of the two scores a "
                "hypothesis survives; effective sample size and Pareto k; error of the fitted mean and of the mean "
                "ahead, as shares of its range; how much of the future the 95 % intervals cover.",
                "comparison.csv",
                own,
                (
                    Column("hypothesis", _hypothesis, number=False),
                    number("left-out seq", "elpd_diff", ".1f"),
                    number("SE", "diff_se", ".1f"),
                    number("left-out future", "lfo_diff", ".1f"),
                    number("SE", "lfo_diff_se", ".1f"),
                    Column("survives", _survives, number=False),
                    text("engine", "engine"),
                    number("ESS", "ess_bulk_min", ".0f"),
                    number("k", "pareto_k_max", ".2f"),
                    number("NRMSE", "nrmse"),
                    number("ahead", "nrmse_ahead"),
                    number("covers", "coverage_ahead", ".2f"),
                ),
            )
        )
    return tables


def _hypothesis(row: Any) -> str:
    return _words(label_of(row.hypothesis))


def _survives(row: Any) -> str:
    words = {(True, True): "both", (True, False): "seq", (False, True): "future", (False, False): NOTHING}
    return words[bool(row.survivor), bool(row.survivor_lfo)]


def sensitivity_table(sensitivity: pd.DataFrame) -> PaperTable:
    """The verdict under every setting, from sensitivity.csv."""
    return PaperTable(
        "sensitivity",
        "Verdicts under other settings",
        "How the verdict on the additive update, the law named and delta (nats per example, 95 % highest-density "
        "interval) hang on the readout, the first n, the priors and the noise; and how many sequences would decide.",
        "sensitivity.csv",
        sensitivity,
        (
            text("task", "task"),
            text("readout", "readout"),
            number("n from", "n_min", ".0f"),
            text("priors", "priors"),
            text("noise", "noise"),
            text("additive", "verdict"),
            text("law named", "named"),
            interval("delta", "delta_mean", ends=("delta_hdi_low", "delta_hdi_high")),
            number("seqs needed", "seqs_needed", ".0f"),
            yes("headline", "headline"),
        ),
    )


def checks_table(checks: pd.DataFrame) -> PaperTable:
    """The frequentist checks that have an answer, from checks.csv."""
    return PaperTable(
        "checks",
        "Frequentist checks",
        "Quick checks of the headline curves without a prior: estimate, 95 % interval and p.",
        "checks.csv",
        checks,
        (
            text("task", "task"),
            text("check", "check"),
            text("what", "quantity"),
            interval("estimate", "estimate", ".4g", ends=("low", "high")),
            p_value("p", "p"),
        ),
        checks[checks.estimate.notna()] if len(checks) else checks,
    )


def engines_table(engines: pd.DataFrame) -> PaperTable:
    """The two engines beside each other, from engines.csv: of every fit, the parameter that is furthest off."""
    shown = engines
    if len(engines):
        furthest = engines["shift"].abs().groupby([engines.task, engines.hypothesis], sort=False).idxmax()
        shown = engines.loc[furthest]
    return PaperTable(
        "engines",
        "The fast engine beside NUTS",
        "Of every fit by both engines, the parameter whose posterior means are furthest apart: the shift in posterior "
        "sds with its Monte Carlo error, and the ratio of the sds. The CSV has all parameters.",
        "engines.csv",
        engines,
        (
            text("task", "task"),
            text("hypothesis", "hypothesis"),
            text("parameter", "parameter"),
            number("mean, fast", "mean_fast", ".4g"),
            number("mean, NUTS", "mean_nuts", ".4g"),
            number("sd, fast", "sd_fast", ".3g"),
            number("sd, NUTS", "sd_nuts", ".3g"),
            number("shift", "shift"),
            number("SE", "shift_se"),
            number("sd ratio", "sd_ratio"),
        ),
        shown,
    )


POOLED = {"mu": "mean over tasks like these", "tau": "sd over tasks", "new_task": "a further task"}


def pooled_table(pooled: Mapping[str, Any]) -> PaperTable:
    """Delta over tasks, from pooled.json; without rows, and with the reason, where pooling was refused."""
    rows = []
    if "refused" not in pooled:
        for what, three in [*((words, pooled[name]) for name, words in POOLED.items()), *pooled["deltas"].items()]:
            alone = pooled["alone"].get(what, {})
            rows.append({"what": what, **dict(zip(("mean", "low", "high"), three)), **_named("alone", alone)})
    return PaperTable(
        "pooled",
        "Delta over tasks",
        pooled.get("refused")
        or "Delta under additive, nats per example, with partial pooling over tasks: posterior means and 95 % "
        "intervals; beside them, what each task says alone, mean and sd.",
        "pooled.json",
        pd.DataFrame(rows, columns=["what", "mean", "low", "high", "alone_mean", "alone_sd"]),
        (
            text("", "what"),
            interval("pooled", "mean", ends=("low", "high")),
            number("alone", "alone_mean"),
            number("sd", "alone_sd"),
        ),
    )


def _named(prefix: str, numbers: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": x for name, x in numbers.items()}


# --- what attribute wrote


def heads_table(heads: pd.DataFrame, facts: Mapping[str, Any], task: str, most: int = SEVERAL) -> PaperTable:
    """Components of one task; shown are the heads of the largest slopes, and those taken away.

    Parameters
    ----------
    heads
        heads.csv of `attribute`.
    facts
        Its JSON: whether delta is clear of 0, so that there is something to share out.
    """
    own, delta = heads[heads.task == task], facts[task]["delta"]
    named = ", ".join(filter(None, [task, token_label(facts[task])]))
    clear = not delta["hdi_low"] <= 0 <= delta["hdi_high"]
    only = own[own.kind == "head"]
    shown = only[(only.slope.abs().rank(ascending=False) <= most) | only.top.astype(bool)]
    return PaperTable(
        f"heads_{file_name(task)}",
        f"Heads that write the update on {task}",
        f"{named}: the heads of the largest slopes, nats per example, with 95 % intervals over sequences, and their "
        "shares of delta; whether a head surely writes a material part of it, how its effect grows, its attention to "
        "examples at the last shot, and what of delta is lost if this head alone is held at its mean. Asterisk: among "
        "those taken away. The CSV has all components.",
        "heads.csv",
        own,
        (
            Column("head", lambda row: _words(row.component) + ("*" if row.top else ""), number=False),
            interval("slope", "slope", ".4f"),
            *([interval("share", "share", ".0%")] if clear else []),
            yes("stands out", "stands_out"),
            text("accumulation", "accumulation"),
            number("attention", "attention", ".2f"),
            interval("lost if held", "lost_held", ".4f"),
        ),
        shown.sort_values("slope", key=abs, ascending=False).head(2 * most),
    )


def ablation_table(ablation: pd.DataFrame, facts: Mapping[str, Any]) -> PaperTable:
    """What goes with the top heads, and what placebo sets lose, from ablation.csv; the CSV has every set.

    Parameters
    ----------
    facts
        The JSON of `attribute`: delta of the sequences measured.
    """
    from bayes_icl.heads import placebo_rank

    rows = []
    for (task, way), own in ablation.groupby(["task", "way"], sort=False):
        here, placebo = facts[task]["delta_measured"]["mean"], own[own["set"].str.startswith("placebo ")].lost
        beyond, n_sets = placebo_rank(own, way, here)
        row = own[own["set"] == "top"].iloc[0].to_dict()
        spread = {"placebo_mean": placebo.mean(), "placebo_least": placebo.min(), "placebo_most": placebo.max()}
        rows.append(row | spread | {"share": row["lost"] / here, "as_much": f"{beyond} of {n_sets}"})
    return PaperTable(
        "ablation",
        "The top heads taken away",
        "What of delta (nats per example, 95 % intervals over the sequences that the heads were not chosen on) is lost "
        "with the top heads at their mean, shot by shot (mean) or over shots too (held): beside it what they write "
        "directly, what of that goes, delta fitted again, and placebo sets of other heads of the same number and norm: "
        "how many lose as much, and what they lose, on average and from least to most. The CSV has every set."
        + _tokens(facts),
        "ablation.csv",
        ablation,
        (
            text("task", "task"),
            text("way", "way"),
            number("heads", "n_heads", ".0f"),
            interval("they write", "direct"),
            interval("of it goes", "predicted"),
            interval("lost", "lost"),
            number("share", "share", ".0%"),
            interval("delta again", "delta"),
            Column("placebos as much", lambda row: row.as_much),
            Column("placebos lose", _placebos),
        ),
        pd.DataFrame(rows, columns=None if rows else [*ablation.columns, "share", "as_much"]),
    )


def _tokens(facts: Mapping[str, Any]) -> str:
    """Which token of the answer each task's numbers are of, as a sentence."""
    labels = {task: token_label(own) for task, own in facts.items()}
    words = "; ".join(f"{task}, {label}" for task, label in labels.items() if label)
    return f" Of the answers: {words}." if words else ""


def _placebos(row: Any) -> str:
    mean, least, most = (_number(x, ".3f") for x in (row.placebo_mean, row.placebo_least, row.placebo_most))
    return NOTHING if mean == NOTHING else f"{mean} ({least} to {most})"


def repair_table(repair: pd.DataFrame, facts: Mapping[str, Any]) -> PaperTable:
    """From what goes with the top heads to what is lost, from repair.csv; `facts` as in `ablation_table`."""
    return PaperTable(
        "repair",
        "Who makes up for the top heads",
        "What goes with the top heads, less what other heads, MLPs, and the final norm and the other tokens make up "
        "for, is what is lost of delta: nats per example, 95 % intervals over sequences." + _tokens(facts),
        "repair.csv",
        repair,
        (
            text("task", "task"),
            text("way", "way"),
            interval("goes", "predicted"),
            interval("other heads", "other_heads"),
            interval("MLPs", "mlps"),
            interval("norm, rivals", "norm"),
            interval("lost", "lost"),
        ),
    )


# --- what patch wrote


def rounds_table(rounds: pd.DataFrame) -> PaperTable:
    """Rounds of ablation, from rounds.csv; round 0, in which nothing is ablated, once a task."""
    again = (rounds["round"] == 0) & rounds.duplicated(["task", "round"])
    whole = rounds.groupby("task", sort=False).rule.transform("first")
    return PaperTable(
        "rounds",
        "Rounds of ablation",
        "A's log-odds (nats, 95 % intervals over pairs) with heads ablated at every token, the share of what the rule "
        "adds that is left, and the points at which the task comes across: where half of what this A has over B does, "
        "half of what clean A had, half of its lead over permuted answers beyond what these carry, and half of A's own "
        "answer.",
        "rounds.csv",
        rounds,
        (
            text("task", "task"),
            number("round", "round", ".0f"),
            Column("ablated", _ablated, number=False),
            Column("kind", lambda row: _words(row.kind) if row.n_heads else "", number=False),
            interval("A's log-odds", "a_own", ".2f"),
            number("rule left", "left", ".0%"),
            point("transfer", "transfer_layer"),
            point("of clean A", "transfer_layer_kept"),
            point("rule", "rule_layer"),
            point("answer", "answer_layer"),
        ),
        rounds.assign(left=rounds.rule / whole)[~again],
    )


def _ablated(row: Any) -> str:
    return _words(row.set if str(row.set).startswith("placebo") else row.layers_text if row.n_heads else "nothing")


def backups_table(backups: pd.DataFrame) -> PaperTable:
    """Heads that take over, from backups.csv; it may have no rows."""
    return PaperTable(
        "backups",
        "Backup heads",
        "Heads whose own ablation costs more once others are gone: its cost before and after, the growth, and the "
        "growth with placebo sets gone, nats, 95 % intervals over pairs; p by Holm's method. A head takes over if the "
        "growth surely exceeds that beside placebo sets.",
        "backups.csv",
        backups,
        (
            text("task", "task"),
            number("round", "round", ".0f"),
            text("head", "component"),
            Column("takes over", lambda row: _words(row.mode) if row.backup else NOTHING, number=False),
            interval("cost before", "effect_before"),
            interval("after", "effect_after"),
            interval("growth", "growth"),
            interval("beside placebos", "growth_placebo"),
            p_value("p", "p_holm"),
        ),
    )


def halves_table(halves: pd.DataFrame) -> PaperTable:
    """How many heads must go until half of the rule is gone, from halves.csv."""
    return PaperTable(
        "halves",
        "How many heads can go",
        "The share of all heads whose ablation takes half of what the rule adds, with its 95 % interval, and their "
        "number, the most costly first or in random order; never: A's log-odds without any head, nats, are still above "
        "half.",
        "halves.csv",
        halves,
        (
            text("task", "task"),
            text("order", "order"),
            Column("share", lambda row: "never" if _missing(row.share) else interval("", "share", ".1%").cell(row)),
            Column("heads", lambda row: _number(row.share * row.n_heads_all, ".1f")),
            number("of", "n_heads_all", ".0f"),
            number("left without any", "left_without_heads", ".2f"),
        ),
    )


def costly_table(heads: pd.DataFrame, facts: Mapping[str, Any], task: str, most: int = SEVERAL) -> PaperTable:
    """The heads of one task whose ablation alone costs most, from heads.csv of `patch` and its JSON."""
    own, known = heads[heads.task == task], facts[task]
    other = known["other_kind"]
    roles = [name for name in ("bring", "to_answers", "to_sink", "induction") if name in own]
    where = "at every token" if known["singles_everywhere"] else "at the last position"
    return PaperTable(
        f"costly_{file_name(task)}",
        f"Heads that cost most on {task}",
        f"{task}: the heads whose {known['kind']} ablation {where} costs most, alone, nats (95 % intervals over pairs; "
        f"beside it by {other}). What is lost is what is taken, less what other heads, MLPs, and the norm and rivals "
        "make up for. Attention by role. The CSV has all heads.",
        "heads.csv",
        own,
        (
            text("head", "component"),
            interval("lost", "lost", ".2f"),
            *([number(f"by {other}", f"lost_{other}", ".2f")] if f"lost_{other}" in own else []),
            number("taken", "taken", ".2f"),
            number("other heads", "other_heads", ".2f"),
            number("MLPs", "mlps", ".2f"),
            number("norm, rivals", "norm", ".2f"),
            *(number(name.replace("_", " "), name, ".2f") for name in roles),
        ),
        own.nlargest(most, "lost"),
    )


def steps_table(steps: pd.DataFrame) -> PaperTable:
    """The experiments on the post's three steps and the verdicts, from steps.csv."""
    return PaperTable(
        "steps",
        "The post's three steps",
        "What each experiment takes, as a share of what the rule adds (beyond 100 %: of the form of answers as well), "
        "and what it takes beyond its control, which is the same done elsewhere or the largest of the placebo sets; "
        "95 % intervals over pairs.",
        "steps.csv",
        steps,
        (
            text("task", "task"),
            number("step", "step", ".0f"),
            text("verdict", "verdict"),
            text("experiment", "what"),
            text("kind", "kind"),
            interval("takes", "share", ".0%"),
            interval("beyond control", "beyond", ".0%"),
        ),
        steps.sort_values(["task", "step"], key=_in_order, kind="stable"),
    )


def _in_order(names: pd.Series) -> pd.Series:
    """Names in the order in which they come, numbers in their own."""
    return names if names.name == "step" else pd.Series(pd.factorize(names)[0], index=names.index)


def transfer_table(transfer: pd.DataFrame) -> PaperTable:
    """Log-odds by point with nothing ablated, from transfer.csv: a few points a task, B's best one among them."""
    clean = transfer[(transfer["round"] == 0) & (transfer["set"] == "ablated")].drop_duplicates(["task", "point"])
    step = -(-int(clean.point.nunique()) // SEVERAL) or 1
    return PaperTable(
        "transfer",
        "What is carried, point by point",
        "A's residual stream put into B, nothing ablated: log-odds of B's own answer and of A's (the other) after B, "
        "nats, 95 % intervals over pairs, and how often that token comes first. The CSV has every point, round and "
        "kind of ablation.",
        "transfer.csv",
        transfer,
        (
            text("task", "task"),
            number("point", "point", ".0f"),
            interval("own answer", "own", ".2f"),
            number("first", "own_first", ".0%"),
            interval("other answer", "other", ".2f"),
            number("first", "other_first", ".0%"),
        ),
        clean[(clean.point % step == 0) | clean.index.isin(clean.groupby("task").own.idxmax())],
    )


def redundancy_table(redundancy: pd.DataFrame) -> PaperTable:
    """A's log-odds by number of heads ablated, the most costly first, from redundancy.csv."""
    return PaperTable(
        "redundancy",
        "Heads ablated one after another",
        "A's log-odds, nats, 95 % intervals over pairs, with heads ablated at every token, the most costly first. The "
        "CSV has random orders too.",
        "redundancy.csv",
        redundancy,
        (
            text("task", "task"),
            number("heads ablated", "n_heads", ".0f"),
            number("of all", "share", ".1%"),
            interval("A's log-odds", "log_odds", ".2f"),
        ),
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
        "tokens, or at the last position: log-odds of the answer, nats, 95 % intervals over pairs. The CSV has every "
        "layer and readout.",
        "mlps.csv",
        mlps,
        (
            text("task", "task"),
            text("place", "place"),
            text("kind", "kind"),
            number("layer", "layer", ".0f"),
            interval("lost", "lost", ".2f"),
        ),
        mlps.loc[largest].sort_values(["task", "place"], key=_in_order, kind="stable"),
    )


# --- what calibrate wrote


def calibration_table(outcomes: pd.DataFrame) -> PaperTable:
    """What a calibration must keep and whether it does, from outcomes.csv."""
    return PaperTable(
        "calibration",
        "Calibration on simulated curves",
        "What must hold on curves whose truth is known, what was found, and the bound set before.",
        "outcomes.csv",
        outcomes,
        (
            text("check", "what"),
            number("found", "value", ".3g"),
            text("bound", "bound"),
            Column("holds", lambda row: "yes" if row.holds in (True, "True") else "NO", number=False),
        ),
    )


# --- as text


def to_latex(table: PaperTable) -> str:
    r"""A booktabs tabular to ``\input``, after comments that say what it is."""
    columns = table.columns
    cells = [[_latex(x, column.number) for x, column in zip(row, columns)] for row in table.cells()]
    body = pd.DataFrame(cells, columns=[_latex(_words(column.heading), False) for column in columns])
    aligned = "".join("r" if column.number else "l" for column in columns)
    tabular = body.style.hide(axis="index").to_latex(hrules=True, column_format=aligned)
    return f"% {_words(table.name)}, from {_words(table.source)}\n% {_words(table.caption)}\n{tabular}"


def _latex(cell: str, numeric: bool) -> str:
    if not numeric:
        words = re.sub("-(?=-)", "-{}", escape_latex(cell))  # two hyphens would be a dash
        # What ends the row before looks for a bracket or an asterisk.
        return f"{{{words[0]}}}{words[1:]}" if words[:1] in ("[", "*") else words
    return typeset_latex(cell.replace(NOTHING, "--"))


_ENVIRONMENT = Environment(autoescape=True, trim_blocks=True)
_ENVIRONMENT.filters["words"] = _words
_PAGE = _ENVIRONMENT.from_string(
    """\
<div class="scroll" role="region" aria-label="{{ table.title | words }}" tabindex="0">
<table>
<thead><tr>
{% for column in table.columns %}
<th scope="col"{% if column.number %} class="num"{% endif %}>{{ column.heading | words }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row[0] }}</th>
{%- for column in table.columns[1:] %}
<td{% if column.number %} class="num"{% endif %}>{{ row[loop.index] }}</td>
{%- endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
"""
)


def to_html(table: PaperTable) -> str:
    """The table as HTML that scrolls within its own width; numbers have the class ``num``."""
    rows = [
        [Markup(typeset_html(str(escape(x)))) if column.number else x for x, column in zip(row, table.columns)]
        for row in table.cells()
    ]  # words are escaped by the template
    return _PAGE.render(table=table, rows=rows)


def table_files(tables: Iterable[PaperTable]) -> dict[str, bytes]:
    """NAME.csv and NAME.tex of each table, by name."""
    files = {}
    for table in tables:
        files[f"{table.name}.csv"] = to_csv(table.frame)
        files[f"{table.name}.tex"] = to_latex(table).encode()
    return files
