"""What fits say, as sentences and as the terminal's tables."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from bayes_icl.curves import null_controls
from bayes_icl.fit.outputs import CHECKS, COMPARISON, ENGINES
from bayes_icl.hypotheses.law import label_of
from bayes_icl.writing.numbers import Quotes, code, listed


def summarise_verdicts(dataset: xr.Dataset, out: Path, verdicts: dict[str, dict]) -> str:
    """Text for people: the verdict on each task first, then delta, then the hypotheses."""
    console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=110)
    scores = COMPARISON.read(out / "comparison.csv")
    fitted = len(scores) > 0
    checks = CHECKS.read(out / "checks.csv") if fitted else scores
    for sentence in left_out_sentences(verdicts):
        console.print(sentence)
    for task, headline in verdicts.items():
        console.rule(task, align="left")
        for verdict in (headline, *headline["others"]):
            console.print(verdict_line(verdict, headline), style="bold" if verdict is headline else None)
            if verdict is headline:
                for reason in verdict["reasons"]:
                    console.print(Padding(reason, (0, 0, 0, 4)))
                for note in verdict["notes"]:
                    console.print(Padding(f"note: {note}", (0, 0, 0, 4)))
                if verdict["pulls"]:
                    console.print(Padding(pulls_sentence(verdict), (0, 0, 0, 4)))
        if headline["others"]:
            console.print(f"  {agreement(headline)}", style="italic")
        for sentence in readings(dataset, task, headline):
            console.print(f"  {sentence}", style="italic")
        if len(scores):
            at = (scores.task == task) & (scores.readout == headline["readout"]) & (scores.n_min == headline["n_min"])
            if at.any():
                console.print(_score_table(scores[at]))
        if len(checks) and (checks.task == task).any():
            own = checks[checks.task == task]
            console.print(_check_table(own[own.estimate.notna()]))
            for row in own[own.estimate.isna()].itertuples():
                console.print(Padding(f"no {row.check}: {row.note}", (0, 0, 0, 1)))
    if fitted:
        console.rule("engines and pooling", align="left")
        console.print(engines_agree(ENGINES.read(out / "engines.csv"), scores))
        if (out / "pooled.json").exists():
            console.print(pooled_sentences(json.loads((out / "pooled.json").read_text())))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def verdict_line(verdict: dict, headline: dict) -> str:
    """A verdict in a line, by the setting in which it differs from the headline's."""
    word = verdict["verdict"].upper() if verdict is headline else verdict["verdict"]
    rest = ""
    if (delta := verdict["delta"]) is not None:
        rest = f"delta {delta['mean']:.3f} [{delta['hdi_low']:.3f}, {delta['hdi_high']:.3f}] nats/example"
    if verdict["named"]:
        rest += f"   named: {verdict['named']}"
    return f"{_setting(verdict, headline):18s} additive update: {word:10s} {rest}"


def left_out_sentences(verdicts: dict[str, dict]) -> list[str]:
    """Which laws were asked for and not fitted, on which tasks, and why; a line for each law and reason."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for task, verdict in verdicts.items():
        for name, why in verdict.get("left_out", {}).items():
            tasks.setdefault((name, why), []).append(task)
    return [f"not fitted: {name} on {', '.join(own)}: {why}" for (name, why), own in tasks.items()]


def _setting(verdict: dict, headline: dict) -> str:
    """What differs from the headline, in words; its readout and n_min themselves."""
    if verdict["priors"] != "stated":
        return f"priors {verdict['priors']}"
    if verdict["noise"] != headline["noise"]:
        return f"{verdict['noise']} noise"
    return f"{verdict['readout']}, n >= {verdict['n_min']}"


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


def engines_agree(engines: pd.DataFrame, scores: pd.DataFrame) -> str:
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
    sentences.append(f"scored by NUTS: {', '.join(by_nuts)}" if by_nuts else "all scores are the fast engine's")
    return "\n".join(sentences)


def pooled_sentences(pooled: dict) -> str:
    """Delta over tasks."""
    if "refused" in pooled:
        return pooled["refused"]
    named = {"mu": "mean over tasks like these", "tau": "sd over tasks", "new_task": "a further task"}
    lines = [f"delta, {words}: {_interval(pooled[name])} nats/example" for name, words in named.items()]
    if len(pooled["deltas"]) < 4:
        lines.append(f"with {len(pooled['deltas'])} tasks the sd over tasks follows its prior more than the data")
    return "\n".join([*lines, *(f"  {task}: {_interval(delta)}" for task, delta in pooled["deltas"].items())])


def _interval(x: list[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*x)


def _check_table(own: pd.DataFrame) -> Table:
    """The frequentist checks of one curve that have an answer."""
    table = Table(box=None)
    for heading in ("check", "what", "estimate", "95 % interval", "p"):
        table.add_column(heading, justify="left" if heading in ("check", "what") else "right")
    for row in own.itertuples():
        table.add_row(
            row.check, row.quantity, f"{row.estimate:.4g}", f"[{row.low:.4g}, {row.high:.4g}]", f"{row.p:.2g}"
        )
    return table


def _score_table(own: pd.DataFrame) -> Table:
    """The hypotheses of one curve, best first: differences of both scores from the best, with their SE, nats."""
    table = Table(box=None, collapse_padding=True)  # so that its twelve columns fit
    headings = ("hypothesis", "left-out seq", "SE", "left-out future", "SE", "survives", "engine", "ESS", "k")
    for heading in (*headings, "NRMSE", "ahead", "covers"):
        table.add_column(heading, justify="left" if heading in ("hypothesis", "survives", "engine") else "right")

    def number(x: float, digits: int = 1) -> str:
        return "-" if x != x else f"{x:.{digits}f}"

    for row in own.sort_values("elpd_diff", ascending=False).itertuples():
        survives = {(True, True): "both", (True, False): "seq", (False, True): "future", (False, False): ""}
        table.add_row(
            label_of(row.hypothesis),
            *(number(x) for x in (row.elpd_diff, row.diff_se, row.lfo_diff, row.lfo_diff_se)),
            survives[bool(row.survivor), bool(row.survivor_lfo)],
            row.engine,
            *(number(row.ess_bulk_min, 0), number(row.pareto_k_max, 2)),
            *(number(x, 3) if not x >= 10 else f"{x:.2g}" for x in (row.nrmse, row.nrmse_ahead)),
            number(row.coverage_ahead, 2),
        )
    return table


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
    if rises and rule["verdict"] == "no_update":
        sentences.append("complement rises but rule does not: what is learned is the form of an answer, not the rule")
    if task in null_controls(dataset):
        outcome = "passes" if rule["verdict"] == "no_update" else "FAILS"
        sentences.append(f"null control (nothing to learn): rule must be no_update and is {rule['verdict']}: {outcome}")
    return sentences


VERDICTS = {
    "supported": "supported",
    "rejected": "rejected",
    "no_update": "beside the point, since nothing is learned,",
    "undecided": "undecided",
    "refused": "refused a verdict",
}


def verdict_sentence(task: str, verdict: Mapping[str, Any], quotes: Quotes) -> str:
    """The verdict on a task with its reasons, its delta and the law that is named."""
    q = quotes.under(task, "verdict", unit="nats/example")
    reasons = verdict["reasons"]
    parts = [q.all_in(f"reasons.{i}", reason) for i, reason in enumerate(reasons)]
    sentence = (
        f"{code(task)}: {verdict['verdict']} ({verdict['readout']}, n \u2265 {q.count('n_min', verdict['n_min'])})"
    )
    sentence += f". {'; '.join(parts)}." if parts else "."
    if verdict["verdict"] == "refused":  # then neither delta nor the law named is to be relied on
        return sentence
    if (delta := verdict["delta"]) is not None and not any("delta =" in reason for reason in reasons):
        numbers = (delta["mean"], delta["hdi_low"], delta["hdi_high"])
        sentence += f" Delta under `additive` is {q.three('delta', numbers)} nats per example."
    if verdict["named"]:
        sentence += f" The simplest law that survives is {code(verdict['named'])}."
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
            setting = f"{verdict['readout']}, n \u2265 {q.count('n_min', verdict['n_min'])}"
            if verdict["priors"] != "stated":
                setting += f", priors {verdict['priors']}"
            if verdict["noise"] != headline["noise"]:
                setting += f", {verdict['noise']} noise"
            sentences += [f"{code(task)} ({setting}): {q.all_in(str(j), text)}." for j, text in enumerate(words)]
    return sentences


def _tasks(names: Sequence[str]) -> str:
    return listed(list(map(code, names)))
