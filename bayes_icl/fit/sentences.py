"""What fits say, as sentences: for the terminal and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayes_icl.core.intervals import Interval
from bayes_icl.curves import learning_of, null_controls
from bayes_icl.fit.adequacy_sentences import (
    bent_sentence,
    noise_sentences,
    pit_sentences,
    power_scaling_sentences,
    selection_sentences,
)
from bayes_icl.fit.outputs import CHECKS, COMPARISON, ENGINES, NOISE, PIT_TESTS, POWER_SCALING, WITHOUT_VERDICT
from bayes_icl.fit.pooling import FEW_FAMILIES
from bayes_icl.fit.tables import checks_table, comparison_tables, pooled_rows
from bayes_icl.fit.weighing_sentences import weighing_lines
from bayes_icl.writing.blocks import Heading, Tabled, Text, to_terminal
from bayes_icl.writing.learning import not_learnt
from bayes_icl.writing.numbers import Quotes, code, listed, plain


def summarise_verdicts(dataset: xr.Dataset, out: Path, verdicts: dict[str, dict]) -> str:
    """Text for people: the verdict on each task first, then delta, then the hypotheses."""
    scores = COMPARISON.read(out / "comparison.csv")
    blocks: list[Heading | Text | Tabled] = [Text(left_out_sentences(verdicts))]
    for task, headline in verdicts.items():
        second = weighing_lines(headline["bayesian"]) if headline.get("bayesian") else []
        if headline["verdict"] == "not_asked":
            blocks += [Heading(task, ""), Text(second)]
            continue
        first, *others = (verdict_line(verdict, headline) for verdict in (headline, *headline["others"]))
        below = [*headline["reasons"], *(f"note: {note}" for note in headline["notes"])]
        below += [pulls_sentence(headline)] if headline["pulls"] else []
        beside = [agreement(headline)] if others else []
        beside += readings(dataset, task, headline)
        learning = learning_of(dataset, task)
        lines = [plain(line) for line in not_learnt(learning._asdict() if learning else None, Quotes())]
        lines += [first, *(f"    {line}" for line in below), *others, *(f"  {line}" for line in beside), *second]
        blocks += [Heading(task, ""), Text(lines), *map(Tabled, comparison_tables({task: headline}, scores))]
    if len(scores):
        checks = CHECKS.read(out / "checks.csv")
        unanswered = checks[checks.estimate.isna()].itertuples()
        blocks += [Heading("checks", ""), Tabled(checks_table(checks))]
        blocks.append(Text([f"{row.task}: no {row.check}: {row.note}" for row in unanswered]))
        lines = engines_agree(ENGINES.read(out / "engines.csv"), scores)
        if (out / "pooled.json").exists():
            lines += pooled_sentences(json.loads((out / "pooled.json").read_text()))
        told = selection_sentences(verdicts, scores)
        blocks += [Heading("which law", ""), Text(told), Heading("how laws fit", ""), Text(fit_sentences(out, checks))]
        blocks += [Heading("engines and pooling", ""), Text(lines)]
    return to_terminal(blocks, width=116)


def fit_sentences(out: Path, checks: pd.DataFrame) -> list[str]:
    """What the tables on the fit of laws say, from the folder of the fits."""
    return [
        *bent_sentence(checks),
        *pit_sentences(PIT_TESTS.read(out / "pit_tests.csv")),
        *noise_sentences(NOISE.read(out / "noise.csv")),
        *power_scaling_sentences(POWER_SCALING.read(out / "power_scaling.csv")),
    ]


def verdict_line(verdict: dict, headline: dict) -> str:
    """A verdict in a line, by the setting in which it differs from the headline's."""
    word = verdict["verdict"].upper() if verdict is headline else verdict["verdict"]
    setting = next(iter(_differs(verdict, headline)), f"{verdict['readout']}, n >= {verdict['n_min']}")
    line = f"{setting:18s} additive: {word}"
    if numbers := departure_words(verdict):
        line += f" ({numbers})"
    return line + (f"; selected: {verdict['selected']}" if verdict["selected"] else "")


def departure_words(verdict: Mapping[str, Any]) -> str:
    """By how much the mean curve departs from a line, of how much, and delta; empty where nothing was fitted."""
    departure, total, delta = (verdict.get(name) for name in ("departure", "total", "delta"))
    if not (departure and total and delta):
        return ""
    slope = f"delta {Interval(*delta.values()):.3f} nats/example"
    if total["low"] <= 0 <= total["high"]:  # of which there is no share
        return f"total {Interval(*(total[name] for name in ('mean', 'low', 'high'))):.1f} nats; {slope}"
    share = Interval(*(100 * departure[name] for name in ("mean", "low", "high")))
    falls = "a fall of " if total["mean"] < 0 else ""
    return f"departs by {share:.1f} % of {falls}{abs(total['mean']):.1f} nats; {slope}"


def left_out_sentences(verdicts: dict[str, dict]) -> list[str]:
    """Which laws were asked for and not fitted, on which tasks, and why; a line for each reason and group of tasks."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for task, verdict in verdicts.items():
        for name, why in verdict.get("left_out", {}).items():
            tasks.setdefault((name, why), []).append(task)
    laws: dict[tuple[str, str], list[str]] = {}
    for (name, why), own in tasks.items():
        laws.setdefault((", ".join(own), why), []).append(name)
    return [f"not fitted: {', '.join(names)} on {own}: {why}" for (own, why), names in laws.items()]


def _differs(verdict: Mapping[str, Any], headline: Mapping[str, Any]) -> list[str]:
    """In what other than readout and n_min a setting is not the headline's."""
    return [f"{verdict['noise']} noise"] if verdict["noise"] != headline["noise"] else []


def pulls_sentence(verdict: dict) -> str:
    """Which sequences pull on delta."""
    listed = ", ".join(f"{p['seq']} (delta {p['delta_without']:.3f} without it)" for p in verdict["pulls"][:5])
    more = f" and {len(verdict['pulls']) - 5} more" if len(verdict["pulls"]) > 5 else ""
    return f"sequences that pull: {listed}{more}"


def agreement(headline: dict) -> str:
    """In how many settings of the same readout the verdict is the headline's."""
    own = [v for v in headline["others"] if v["readout"] == headline["readout"]]
    same = [v for v in own if v["verdict"] == headline["verdict"]]
    return f"the verdict is the same in {len(same)} of {len(own)} other settings of {headline['readout']}"


def engines_agree(engines: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    """How far the two engines agree, and where NUTS had to step in."""
    by_nuts = sorted(scores[scores.engine == "nuts"].hypothesis.unique())
    sentences = []
    if len(engines):
        furthest = engines.loc[engines["shift"].abs().idxmax()]
        widest = engines.loc[(engines.sd_ratio - 1).abs().idxmax()]
        n_fits = len(engines[["task", "hypothesis"]].drop_duplicates())
        sentences.append(
            f"fast engine beside NUTS, {len(engines)} parameters of {n_fits} fits: means at most "
            f"{abs(furthest['shift']):.3f} sd apart, Monte Carlo error {furthest.shift_se:.3f} ({furthest.hypothesis} "
            f"{furthest.parameter}, {furthest.task}); sds at most {100 * abs(widest.sd_ratio - 1):.1f} % apart "
            f"({widest.hypothesis} {widest.parameter}, {widest.task})"
        )
    return [*sentences, f"scored by NUTS: {', '.join(by_nuts)}" if by_nuts else "all scores are the fast engine's"]


def pooled_sentences(pooled: dict) -> list[str]:
    """Delta over tasks and families; last, indented, that of each."""
    if "refused" in pooled:
        return [pooled["refused"]]
    families = pooled.get("families") or {}
    lines = [f"delta, {words}: {Interval(*three):.3f} nats/example" for words, three in pooled_rows(pooled)]
    if families and len(families) < FEW_FAMILIES:
        lines.append(f"the mean's interval is wide because there are {len(families)} families of tasks")
    if len(pooled["deltas"]) < 4:
        lines.append(f"with {len(pooled['deltas'])} tasks the sd over tasks follows its prior more than the data")
    return lines + [f"  {task}: {Interval(*delta):.3f}" for task, delta in pooled["deltas"].items()]


def rule_beside(headline: dict) -> dict | None:
    """The verdict under `rule`, where that was fitted beside `complement`."""
    if headline["readout"] != "complement":
        return None
    return next((v for v in headline["others"] if v["readout"] == "rule"), None)


def readings(dataset: xr.Dataset, task: str, headline: dict) -> list[str]:
    """What two readouts say together: format learned without the rule, and whether a null control came out as one."""
    rule = rule_beside(headline)
    if rule is None:
        return []
    sentences = []
    rises = headline["verdict"] != "no_update" and headline["delta"] and headline["delta"]["hdi_low"] > 0
    if rises and not risen(rule):
        sentences.append("complement rises but rule does not: what is learned is the form of an answer, not the rule")
    if task in null_controls(dataset):
        outcome = "passes" if null_holds(rule) else "FAILS"
        sentences.append(
            "null control (nothing to learn): rule must be no_update, or undecided about a total that may be 0, and is "
            f"{rule['verdict']}: {outcome}"
        )
    return sentences


def risen(verdict: Mapping[str, Any]) -> bool:
    """Whether there is an update: the total is surely not 0, and not surely small."""
    total = verdict.get("total") or {"low": 0.0, "high": 0.0}
    return verdict["verdict"] != "no_update" and not total["low"] <= 0 <= total["high"]


def null_holds(verdict: Mapping[str, Any]) -> bool:
    """Whether a verdict is one that a null control may have: nothing learned, or not enough data to say so."""
    return verdict["verdict"] == "no_update" or (verdict["verdict"] == "undecided" and not risen(verdict))


VERDICTS = {
    "supported": "supported",
    "supported_under_ceiling": "supported under a ceiling of the readout",
    "rejected": "rejected",
    "no_update": "beside the point, since nothing is learned,",
    "undecided": "undecided",
    "refused": "refused a verdict",
    "not_asked": "not asked, since examples disagree,",
}


def verdict_sentence(task: str, verdict: Mapping[str, Any], quotes: Quotes) -> str:
    """The verdict on a task with its reasons, its delta and the law that is selected."""
    q = quotes.under(task, "verdict", unit="nats/example")
    reasons = verdict["reasons"]
    parts = [q.all_in(f"reasons.{i}", reason) for i, reason in enumerate(reasons)]
    sentence = (
        f"{code(task)}: {verdict['verdict']} ({verdict['readout']}, n \u2265 {q.count('n_min', verdict['n_min'])})"
    )
    sentence += f". {'; '.join(parts)}." if parts else "."
    if verdict["verdict"] in WITHOUT_VERDICT:  # then neither delta nor the law selected is to be relied on
        return sentence
    if (delta := verdict["delta"]) is not None:
        sentence += f" Delta, the slope of the best line, is {q.three('delta', delta.values())} nats per example."
    if verdict["selected"]:
        sentence += f" The simplest law that survives is {code(verdict['selected'])}."
    if verdict.get("seqs_needed") and not any("would decide" in reason for reason in reasons):
        sentence += f" About {q.count('seqs_needed', verdict['seqs_needed'])} sequences would decide it."
    return sentence


def beside_verdict(dataset: xr.Dataset, task: str, verdict: dict, quotes: Quotes) -> list[str]:
    """What else is to be said of it: other settings, other readouts, notes."""
    q = quotes.under(task, "verdict")
    sentences = [agreement(verdict)] if any(v["readout"] == verdict["readout"] for v in verdict["others"]) else []
    sentences += [*readings(dataset, task, verdict), *(f"note: {note}" for note in verdict["notes"])]
    sentences += [pulls_sentence(verdict)] if verdict["pulls"] else []
    return [q.all_in(f"beside.{i}", sentence) for i, sentence in enumerate(sentences)]


def left_aside(verdicts: Mapping[str, dict], quotes: Quotes) -> list[str]:
    """What was refused, and which fits were not relied on, with the reason; of all settings."""
    sentences = []
    for task, headline in verdicts.items():
        for i, verdict in enumerate((headline, *headline["others"])):
            reasons = list(verdict["reasons"]) if verdict["verdict"] == "refused" else []
            words = [f"refused: {reason}" for reason in reasons]
            words += [note for note in verdict["notes"] if note.startswith("left aside")]
            if not words:
                continue
            q = quotes.under(task, "refused", i)
            n_min = f"n \u2265 {q.count('n_min', verdict['n_min'])}"
            setting = ", ".join([verdict["readout"], n_min, *_differs(verdict, headline)])
            sentences += [f"{code(task)} ({setting}): {q.all_in(str(j), text)}." for j, text in enumerate(words)]
    return sentences


def _tasks(names: Sequence[str]) -> str:
    return listed(list(map(code, names)))
