"""What fits and attributions say, as text for people: from their files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_icl.hypotheses import label_of
from bayes_icl.quotes import Quotes, plain

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from rich.table import Table


def summarise_verdicts(dataset: xr.Dataset, out: Path, verdicts: dict[str, dict]) -> str:
    """Text for people: the verdict on each task first, then delta, then the hypotheses."""
    import io

    from rich.console import Console
    from rich.padding import Padding

    from bayes_icl.compare import read_table

    console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=110)
    scores = read_table(out / "comparison.csv")
    fitted = len(scores) > 0
    checks = read_table(out / "checks.csv") if fitted else scores
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
        console.print(engines_agree(read_table(out / "engines.csv"), scores))
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
    from rich.table import Table

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
    from rich.table import Table

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
    from bayes_icl.curves import null_controls

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


def summarise_heads(out: Path) -> str:
    """Text for people: what writes delta on each task, and what goes when the top heads are taken away.

    Parameters
    ----------
    out
        The effects file; its tables stand beside it.
    """
    import io

    from rich.console import Console

    from bayes_icl.compare import read_table
    from bayes_icl.curves import beside

    console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=110)
    facts = json.loads(beside(out, "json").read_text())
    heads, ablation, repair = (read_table(beside(out, f"{name}.csv")) for name in ("heads", "ablation", "repair"))
    for task, own in facts.items():
        console.rule(task, align="left")
        for sentence in head_sentences(
            own, heads[heads.task == task], ablation[ablation.task == task], repair[repair.task == task]
        ):
            console.print(sentence)
        clear = not own["delta"]["hdi_low"] <= 0 <= own["delta"]["hdi_high"]
        console.print(_head_table(heads[(heads.task == task) & (heads.kind == "head")], clear))
    console.rule("completeness", align="left")
    console.print(
        f"heads + MLPs + rest = log-odds within {max(own['completeness'] for own in facts.values()):.1g} relative; "
        f"sources = head within {max(own['split'] for own in facts.values()):.1g}"
    )
    return console.file.getvalue()  # type: ignore[attr-defined]


def token_words(facts: Mapping[str, Any], quotes: Quotes) -> str:
    """Which token's log-odds were taken apart or patched, and what it says; facts of `attribute` or of `patch`."""
    if facts.get("readout") == "foil":
        return "foil, where it forks"
    text = f" ({quotes.words('token_text', facts['token_text'])})" if "token_text" in facts else ""
    before = ", given those before it" if facts["token"] else ""
    return f"token {quotes.count('token', facts['token'])} of the answer{text}{before}"


def token_label(facts: Mapping[str, Any]) -> str:
    """The same for a figure or a caption: "token 1: \u201c5\u201d, \u201c8\u201d, \u2026"."""
    if facts.get("readout") == "foil" or "token_text" not in facts:
        return ""
    return f"token {facts['token']}: {facts['token_text']}"


def head_sentences(
    facts: dict, heads: pd.DataFrame, ablation: pd.DataFrame, repair: pd.DataFrame, quotes: Quotes | None = None
) -> list[str]:
    """What was found on one task, from its part of the tables; shares are given where there is something to share.

    With `quotes`, numbers are kept there and sentences hold their keys (`quotes`); without, they are plain text.
    """
    if quotes is None:
        return [plain(line) for line in head_sentences(facts, heads, ablation, repair, Quotes())]
    from bayes_icl.prompts import OFTEN
    from bayes_icl.shrinkage import LEAST_SHARE

    q, delta = quotes.under(unit="nats/example"), facts["delta"]
    clear = not delta["hdi_low"] <= 0 <= delta["hdi_high"]

    def slopes(names: dict[str, str]) -> str:
        return ", ".join(
            f"{name} {q.three(f'slope_{key}', facts[f'slope_{key}'].values())}"
            + (f" ({q.percent(f'share_{key}', facts[f'share_{key}'])})" if clear and f"share_{key}" in facts else "")
            for key, name in names.items()
        )

    lines = [
        f"{facts['readout']}, {token_words(facts, q)}, n >= {q.count('n_min', facts['n_min'])}: delta "
        f"{q.three('delta', delta.values())} nats/example under additive, "
        f"{q.three('delta_seqs', facts['delta_seqs'].values())} over sequences; of the whole answer, as "
        f"fit has it, {q.three('delta_curve', facts['delta_curve'].values())}",
        "adding up to it: "
        + slopes({"head": "heads", "mlp": "MLPs", "rest": "embedding, biases and entropy"})
        + "; of the last, entropy of the other tokens "
        + q.three("slope_entropy", facts["slope_entropy"].values()),
    ]
    if facts.get("token_differs", 1) < OFTEN:
        lines.append(
            f"two answers drawn at random differ in this token in "
            f"{q.percent('token_differs', facts['token_differs'])}: it tells of their form more than of the task"
        )
    if "further_example" in facts:
        here = "the query and the answer so far" if facts["token"] else "the query"
        names = {"examples": "earlier examples", "query": here, "sink": "the first token"}
        by_role = ", ".join(
            f"{name} {q.number(f'slope_by_role.{name}', x)}" for name, x in facts["slope_by_role"].items()
        )
        further = [
            f"{q.three(f'further_example.{key}', x.values())} nats from n = {q.all_in(f'from.{key}', n)}"
            for n, x in facts["further_example"].items()
            for key in [n.replace(" ", "_")]
        ]
        lines += [
            f"what heads write of it, by where they attend: {slopes(names)}; within examples: {by_role}",
            f"a further example adds, by what all heads write from examples, {', '.join(further)}",
        ]
    if not clear:
        return [*lines, "delta's interval has zero in it: there is no update to share out, and nothing is taken away"]
    own = heads[heads.kind == "head"]
    standing = own[own.stands_out.astype(bool)]
    kinds = ", ".join(
        f"{q.count(f'standing.{kind}', n)} {kind}" for kind, n in standing.accumulation.value_counts().items()
    )
    lines.append(
        f"{q.count('standing', len(standing))} of {q.count('n_heads', len(own))} heads stand out (surely more "
        f"than {q.count('least_share', 100 * LEAST_SHARE, 'g')} % of delta, for or against it)"
        + (f": {kinds}" if kinds else "")
    )
    if facts.get("note"):
        lines.append(q.all_in("note", facts["note"]))
    return lines + (_ablation_sentences(facts, ablation, repair, q) if len(ablation) else [])


TAKEN = {
    "held": "held at their mean over episodes and shots",
    "mean": "at their mean over episodes, shot by shot",
}


def _ablation_sentences(facts: dict, ablation: pd.DataFrame, repair: pd.DataFrame, quotes: Quotes) -> list[str]:
    from bayes_icl.heads import placebo_rank

    q, first, here = quotes.under("taken"), ablation[ablation.set == "top"].iloc[0], facts["delta_measured"]["mean"]
    lines = [
        f"taken away, of heads those that write most: {q.count('n_heads', first.n_heads)} ({first['heads']}), chosen "
        f"on every other sequence; on the other {q.count('n_seqs', first.n_seqs)}, of delta "
        f"{q.number('delta_here', here)}, what they write is {q.columns(first, 'direct')}"
    ]
    for way in TAKEN:
        q, own = quotes.under("taken", way), ablation[ablation.way == way]
        top, placebo = own[own.set == "top"].iloc[0], own[own.set.str.startswith("placebo ")]
        clean, mended = own[own.set == "none"].iloc[0], repair[repair.way == way].iloc[0]
        moves = ", ".join(
            f"{name} {q.columns(mended, part)}"
            for part, name in (("other_heads", "other heads"), ("mlps", "MLPs"), ("norm", "norms and rivals"))
        )
        beyond, n_sets = placebo_rank(own, way, here)
        norms = {
            "placebo_norm_least": placebo.norm.min(),
            "placebo_norm_most": placebo.norm.max(),
            "norm_of_heads": top.norm,
        }
        least, most, of_heads = (q.count(name, x, ".3g") for name, x in norms.items())
        lines += [
            f"{TAKEN[way]}: {q.columns(top, 'lost')} is lost ({q.percent('share_lost', top.lost / here)}), "
            f"where direct effects of {q.columns(top, 'predicted')} go; delta fitted again "
            f"{q.columns(top, 'delta')}, from {q.number('delta_clean', clean.delta)}; of the whole "
            f"answer (complement) {q.columns(top, 'lost_curve')} is lost",
            f"    {q.count('placebos_beyond', beyond)} of {q.count('placebos', n_sets)} placebo sets lose as much; "
            f"they lose {q.number('placebo_mean', placebo.lost.mean())} on average, "
            f"{q.number('placebo_least', placebo.lost.min())} to {q.number('placebo_most', placebo.lost.max())} "
            f"(norm {least} to {most}, that of the heads {of_heads})",
            f"    from what goes to what is lost, by the change of {moves}",
        ]
    return lines


def _head_table(heads: pd.DataFrame, shares: bool, most: int = 10) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="heads of the largest slope", title_justify="left")
    headings = ("head", "slope", "95 %", "share", "stands out", "accumulation", "attention", "lost if held")
    for heading in headings:
        left = heading in ("head", "stands out", "accumulation")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    shown = heads.slope.abs().rank(ascending=False) <= most
    shown |= heads.top.astype(bool)
    for row in heads[shown].sort_values("slope", key=abs, ascending=False).head(2 * most).itertuples():
        low, high = row.lost_held_low, row.lost_held_high
        alone = "" if row.lost_held != row.lost_held else f"{row.lost_held:.4f} [{low:.4f}, {high:.4f}]"
        table.add_row(
            f"{row.component}{'*' if row.top else ''}",
            f"{row.slope:.4f}",
            f"[{row.slope_low:.4f}, {row.slope_high:.4f}]".replace("[", "\\["),
            f"{row.share:.0%}" if shares else "",
            "yes" if row.stands_out else "",
            str(row.accumulation),
            "" if row.attention != row.attention else f"{row.attention:.2f}",
            alone.replace("[", "\\["),
        )
    table.caption = "*: among those taken away; lost if held: this head alone"
    table.caption_justify = "left"
    return table


def summarise_patch(out: Path) -> str:
    """Text for people: where each task comes across, who takes over, how many heads can go, and the post's steps.

    Parameters
    ----------
    out
        The effects file of `patch`; its tables stand beside it.
    """
    import io

    from rich.console import Console

    from bayes_icl.compare import read_table
    from bayes_icl.curves import beside

    console = Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=130)
    facts = json.loads(beside(out, "json").read_text())
    names = ("rounds", "backups", "halves", "heads", "steps")
    tables = {name: read_table(beside(out, f"{name}.csv")) for name in names}
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
    from rich.table import Table

    from bayes_icl.steps import STEPS

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


OPEN = 0.025  # share of resamples that never reach a point, beyond which its interval is open on that side


def point_of(row: Any, name: str, quotes: Quotes | None = None) -> str:
    """A point with its interval; one that more than 2.5 % of the resamples never reach is open on that side.

    "-" where there is no rule left to carry. `quotes` as in `head_sentences`.
    """
    point, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
    reached = getattr(row, f"{name}_reached")
    if point != point:
        return "-" if reached != reached else "never"
    ends = [f"{low:.0f}", f"{high:.0f}"]
    if not reached >= 1 - OPEN:
        ends[0 if name == "transfer_until" else 1] = "never"
    text = f"{point:.0f} [{ends[0]}, {ends[1]}]"
    return quotes.words(name, text, value=point, low=low, high=high) if quotes else text


def _round_table(rounds: pd.DataFrame) -> Table:
    from rich.table import Table

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
        name = "placebo" if str(row.set).startswith("placebo") else str(row.layers_text if row.n_heads else "nothing")
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
    from rich.table import Table

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
