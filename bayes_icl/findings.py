"""The report's sentences: what was asked and what was found, every number quoted from the files of the stages.

Functions take what the stages wrote and a `Quotes`, and return text that holds the quoted numbers' keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from bayes_icl.curves import null_controls
from bayes_icl.quotes import Quotes, code, listed
from bayes_icl.summary import agreement, carried, pulls_sentence, readings, rule_beside

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
    from bayes_icl.heads import placebo_rank

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
        top, placebo = part[part.set == "top"].iloc[0], part[part.set.str.startswith("placebo ")]
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


def calibration_differs(
    settings: Mapping[str, Any], sizes: tuple[int, int], fitted: Mapping[str, Any] | None
) -> list[str]:
    """In what a calibration is not of these curves and fits, in words; empty where it is.

    Parameters
    ----------
    settings
        Those of `calibrate`.
    sizes
        Sequences and most examples of the curves.
    fitted
        Settings of `fit`; None if it was not run.
    """
    words = []
    if (settings["n_seqs"], settings["n_shots"]) != tuple(sizes):
        words.append(f"the curves have {sizes[0]} sequences of {sizes[1]} examples")
    if fitted:
        other = [name for name in fitted["hypotheses"] if name not in (*settings["hypotheses"], "freeform")]
        words += [f"{listed(other)} {'were' if len(other) > 1 else 'was'} fitted and not calibrated"] if other else []
        words += [f"{fitted['noise']} noise was fitted"] if fitted["noise"] != "normal" else []
    return words


def calibration_sentences(
    outcomes: pd.DataFrame, settings: Mapping[str, Any], differs: Sequence[str], quotes: Quotes
) -> list[str]:
    """What was calibrated, in what it is not of these curves, and whether it held.

    Parameters
    ----------
    outcomes, settings
        outcomes.csv and the settings of `calibrate`.
    differs
        What `calibration_differs` found.
    """
    q = quotes.under("calibration")
    held = int(outcomes.holds.astype(bool).sum())
    sentences = [
        f"Simulated truths of {q.count('n_seqs', settings['n_seqs'])} sequences of "
        f"{q.count('n_shots', settings['n_shots'])} examples, from n = {q.count('n_from', 0)} on, under the stated "
        f"priors: {q.count('sims', settings['sims'])} of each law for ranks and recovery, and a total update of "
        f"{q.under(unit='nats').number('gain', settings['gain'], 'g')} nats where it is fixed."
    ]
    sentences.append(
        f"Not the very settings used: {q.all_in('differs', '; '.join(differs))}."
        if differs
        else "These are the sizes, laws and noise of the fits here."
    )
    sentences.append(
        f"{q.count('held', held)} of {q.count('checks', len(outcomes))} checks hold, those of controls that must fail "
        "among them."
    )
    for i, row in enumerate(outcomes.itertuples()):
        if not row.holds:
            sentences.append(q.all_in(f"failed.{i}", f"Fails: {row.what}: {row.value:.4g} ({row.bound})."))
    return sentences


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
