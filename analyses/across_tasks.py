"""One comparison over the built-in tasks on SmolLM2-135M: which law each follows, and what the first example adds.

``python analyses/across_tasks.py``: curves and fits of all tasks; then figures/across_tasks/ and docs/across_tasks.md,
whose sentences are made from the numbers found. It goes on where it stopped.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from claims import ROOT, ranged
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from bayes_icl import collect, fit
from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import read_table, replacing
from bayes_icl.core.intervals import LEVEL_WORDS, TAILS, UNKNOWN_INTERVAL, Interval, flat, t_interval
from bayes_icl.curves import Curves, read_curves, readouts_of, select
from bayes_icl.fit.outputs import read_verdicts
from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.inference.survival import SLACK_NATS, SLACK_SE
from bayes_icl.tasks import BUILT_IN, load_tasks
from bayes_icl.writing import columns
from bayes_icl.writing.columns import Column
from bayes_icl.writing.numbers import listed
from bayes_icl.writing.style import COLUMN, FAINT, INK, STYLE, colour_of, save_figures
from bayes_icl.writing.tables import PaperTable

CURVES, FITS = ROOT / "data/curves/across_tasks.nc", ROOT / "data/fits/across_tasks"
FIGURES, PAGE = ROOT / "figures/across_tasks", ROOT / "docs/across_tasks.md"
N_SHOTS, N_SEQS = 32, 32
LAWS = ("pooling", "power", "additive")  # those that the page follows by name, whichever is the simplest survivor
DECIDED = ("supported", "rejected")
READ = ("complement", "format", "rule")  # whose jumps are shown
# What `format` and `rule` are, by the form of a task's answers (`readouts._read_shot`, `_read_number`): two quantities.
MEANING = {
    "number": "where `format` is the first digit only, and `rule` counts as wrong also what departs later, a missing "
    "bracket or newline too",
    "label": "where `format` is the whole label with its terminator, and `rule` the right label among the labels",
}
RESAMPLES = 9999
AT_BOUND = 0.03  # from the bound of a prior, within which an interval touches it
LEAST = 5  # tasks that a correlation needs: with fewer no order of them is unlikely
PICTURE = "delta by task with the law selected, and the jump at the first example"
OPENING = f"""# All tasks side by side

*Written by `analyses/across_tasks.py` (`make across`) from its output: {{model}}, {{n_tasks}} tasks, {{n_seqs}}
sequences of {{n_shots}} examples. Brackets hold {LEVEL_WORDS} intervals: of delta the highest-density interval of its
posterior under `additive`, which counts curvature as noise; of jumps, L(1) - L(0), the t-interval over
sequences.*{{left_out}}

{{first}}

{{answers}}

![{PICTURE}](../figures/across_tasks/across_tasks.png)

`complement` counts every other text as incorrect, `rule` only wrong answers of the right form, and `format` any answer
of the right form as correct. A law *survives* a score if it is within {SLACK_NATS:g} nats or {SLACK_SE:g} standard
errors of the best: when a sequence is left out, and, to *survive both scores*, when the second half of the shots is
left out as well. The law *selected* is the simplest survivor of the first score; of several as simple, which the score
does not tell apart, it is the best by that score, however little it is ahead. An asterisk marks a law selected that
does not survive both scores. All numbers: [across_tasks.csv](../figures/across_tasks/across_tasks.csv).

"""


def drawn() -> tuple[str, ...]:
    """The built-in tasks that have examples enough for a sequence."""
    names = []
    for task in load_tasks(list(BUILT_IN)):
        try:
            task.episode(N_SHOTS, 0, 0)
        except StatedError:
            continue
        names.append(task.name)
    return tuple(names)


def run(curves: Path = CURVES, fits: Path = FITS) -> None:
    """The stages, each skipped where its output is there already. The figures of single tasks stay beside the fits."""
    collect.main(collect.CollectSettings(tasks=drawn(), n_shots=N_SHOTS, n_seqs=N_SEQS, out=curves))
    fit.main(
        fit.FitSettings(
            curves=curves,
            readout=("complement", "rule"),
            n_min=(1,),
            engine="fast",
            sensitivity=False,
            pool=True,
            out=fits,
            figures=fits.with_name(fits.name + "_figures"),
        )
    )


def table(curves: Path = CURVES, fits: Path = FITS) -> pd.DataFrame:
    """One row a task, the largest delta first and those without one last.

    Delta, jumps and a are a column each with the ends ``_low`` and ``_high``, nats (a has no unit); what a task does
    not have is NaN, or empty text. `first_over_second` is the jump of `complement` less the update at the second
    example, paired over sequences; `rise_rule` is what `rule` gains from n = 0 to the last. For the columns that come
    with ``_rule`` as well see `found`.
    """
    dataset, verdicts = read_curves(curves), read_verdicts(fits)
    scores = read_table(fits / "comparison.csv")
    pooled = read_pooled(fits)
    forms = {task.name: task.form for task in load_tasks(list(verdicts))}
    rows = []
    for task, verdict in verdicts.items():
        curves_of = {name: select(dataset, task, name) for name in readouts_of(dataset, task) if name in READ}
        whole = curves_of["complement"]
        rule: dict[str, Any] = next((one for one in verdict["others"] if one["readout"] == "rule"), {})
        jumps = {
            name: t_interval(update(curves_of[name], 1)) if name in curves_of else UNKNOWN_INTERVAL for name in READ
        }
        rows.append(
            {
                "task": task,
                "form": forms[task],
                "null_control": is_null(whole),
                "n_seqs": len(whole.log_odds),
                "n_min": verdict["n_min"],
                "reason": verdict["reasons"][0],
                **found(scores, task, verdict),
                **{renamed(name): value for name, value in found(scores, task, rule).items()},
                **flat({f"jump_{name}": numbers for name, numbers in jumps.items()}),
                **flat({"first_over_second": t_interval(update(whole, 1) - update(whole, 2))}),
                "rise_rule": rise(curves_of["rule"]) if "rule" in curves_of else math.nan,
                **flat({"delta_pooled": pooled.get("deltas", {}).get(task, UNKNOWN_INTERVAL)}),
            }
        )
    return pd.DataFrame(rows).sort_values("delta", ascending=False, na_position="last", ignore_index=True)


def renamed(column: str) -> str:
    """A column of `found` under `rule`: "delta_low" is "delta_rule_low"."""
    for end in ("_low", "_high"):
        if column.endswith(end):
            return f"{column.removesuffix(end)}_rule{end}"
    return f"{column}_rule"


def found(scores: pd.DataFrame, task: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What the fit says of one curve, and nothing of its laws where the verdict is refused.

    Returns
    -------
    verdict, selected
        That on `additive`, and the law selected; empty if there is none.
    behind, behind_se
        By how much the law selected is behind the best when a sequence is left out, with its standard error, nats.
    survivors
        Of both scores.
    as_simple, lead
        The other survivors of a left-out sequence of the same complexity as the law selected, and by how much it is
        ahead of the best of them, nats.
    a, delta
        The power law's exponent, and the update per example under `additive`, with intervals.
    """
    numbers: dict[str, Any] = {name: math.nan for name in ("behind", "behind_se", "lead")}
    numbers |= {"survivors": "", "as_simple": "", **flat({"a": UNKNOWN_INTERVAL})}
    named = (verdict["selected"] if verdict.get("verdict", "refused") != "refused" else "") or ""
    if named:
        at = (scores.task == task) & (scores.readout == verdict["readout"]) & (scores.n_min == verdict["n_min"])
        own = scores[at].set_index("hypothesis")
        left = own[own.survivor.astype(bool)]
        complexity = HYPOTHESES[named].complexity
        ties = [law for law in left.index if law != named and HYPOTHESES[law].complexity == complexity]
        numbers = {
            "behind": 0.0 - own.elpd_diff[named],  # no -0.0
            "behind_se": own.diff_se[named],
            "lead": own.elpd_diff[named] - left.elpd_diff[ties].max() if ties else math.nan,
            "survivors": " ".join(left.index[left.survivor_lfo.astype(bool)]),
            "as_simple": " ".join(ties),
            **flat({"a": own.loc["power", ["a_mean", "a_hdi_low", "a_hdi_high"]]}),
        }
    return {"verdict": verdict.get("verdict", ""), "selected": named, **numbers, **flat({"delta": delta_of(verdict)})}


def delta_of(verdict: Mapping[str, Any]) -> Interval:
    """Delta with its interval, nats per example; NaN where there is none."""
    return Interval(*verdict["delta"].values()) if verdict.get("delta") else UNKNOWN_INTERVAL


def update(curves: Curves, n: int) -> np.ndarray:
    """L(n) - L(n - 1) of each sequence, nats."""
    before, after = (int(np.flatnonzero(curves.shots == at)[0]) for at in (n - 1, n))
    return curves.log_odds[:, after] - curves.log_odds[:, before]


def rise(curves: Curves) -> float:
    """L at the last n less L(0), the mean over sequences, nats."""
    return float((curves.log_odds[:, -1] - curves.log_odds[:, 0]).mean())


def is_null(curves: Curves) -> bool:
    """Whether the examples carry no evidence at all: a null control."""
    return curves.evidence is not None and not curves.evidence[:, 1:].any()


def read_pooled(fits: Path) -> dict[str, Any]:
    """pooled.json, empty where the fit was made without it."""
    path = fits / "pooled.json"
    return json.loads(path.read_text()) if path.exists() else {}


def together(x: Iterable[float], y: Iterable[float], seed: int = 0) -> dict[str, float]:
    """Spearman's rank correlation, its bootstrap interval over pairs, and p by permutation; NaN with too few pairs."""
    a, b = np.asarray(list(x), dtype=float), np.asarray(list(y), dtype=float)
    if len(a) < LEAST:
        return {"rho": math.nan, "low": math.nan, "high": math.nan, "p": math.nan, "n": len(a)}
    rng = np.random.default_rng(seed)
    picked = rng.integers(len(a), size=(RESAMPLES, len(a)))
    resampled = correlation(stats.rankdata(a[picked], axis=1), stats.rankdata(b[picked], axis=1))
    ranks = stats.rankdata(b)
    test = stats.permutation_test(
        (stats.rankdata(a),), lambda own, axis: correlation(np.moveaxis(own, axis, -1), ranks),
        permutation_type="pairings", n_resamples=RESAMPLES, rng=rng, vectorized=True,
    )  # fmt: skip
    low, high = np.nanquantile(resampled, TAILS)
    return {"rho": float(test.statistic), "low": float(low), "high": float(high), "p": float(test.pvalue), "n": len(a)}


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's along the last axis; NaN where all values are one."""
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    size = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.divide((x * y).sum(-1), size, out=np.full(size.shape, np.nan), where=size > 0)


# ---------------------------------------------------------------------------------------------- the page


def called(rows: pd.DataFrame) -> list[str]:
    """The tasks' names; a null control is marked as one."""
    return [f"{row.task} (null control)" if row.null_control else row.task for row in rows.itertuples()]


def on(k: int, n: int, what: str = "tasks") -> str:
    """ "on all 16 tasks", "on 3 of 16 tasks", "on none of 16 tasks"."""
    return f"on all {n} {what}" if k == n else f"on {k or 'none'} of {n} {what}"


def counted(values: pd.Series, what: str = "tasks", *, mark: str = "") -> str:
    """ "rejected on all 3 tasks"; "rejected on 2 and open on 1 of 3 tasks"; `mark` stands around a value."""
    counts = Counter(values).most_common()
    if len(counts) == 1:
        return f"{mark}{counts[0][0]}{mark} {on(len(values), len(values), what)}"
    return listed([f"{mark}{value}{mark} on {k}" for value, k in counts]) + f" of {len(values)} {what}"


def by_form(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Label tasks and number tasks, as far as there are any: their `format` and `rule` are two quantities."""
    return [(form, own) for form in MEANING if len(own := rows[rows.form == form])]


def first_sentence(rows: pd.DataFrame) -> str:
    """What the first example teaches, and that the laws leave it out."""
    end = f"the laws are fitted to n >= {rows.n_min.iloc[0]}."
    own = rows[~rows.null_control & rows.jump_format.notna()]
    worth = judged(rows)
    worth = worth[worth.delta_low > 0]
    if not len(own) or not len(worth):
        return f"Here {end}"
    most = (own.jump_rule_low > 0) & (own.jump_rule > own.rise_rule / 2)
    kinds = [on(most[mine.index].sum(), len(mine), f"{form} tasks") for form, mine in by_form(own)]
    examples = worth.jump_complement / worth.delta
    return (
        f"The first example teaches the form of an answer (`format` rises, 95 % interval above 0, "
        f"{on((own.jump_format_low > 0).sum(), len(own), 'tasks that have it')}) and, {listed(kinds)}, most of what "
        f"`rule` gains in all. It is worth many later examples, {examples.min():.0f} to {examples.max():.0f} of "
        f"average size (jump of `complement` over delta), so {end}"
    )


def verdict_answer(rows: pd.DataFrame) -> str:
    """Whether the update is constant."""
    rule = rows[rows.verdict_rule != ""]
    text = f"*Is the update constant?* Of the whole answer (`complement`), `additive` is {counted(rows.verdict)}."
    if not len(rule):
        return f"{text} No task here has `rule`."
    parts = [counted(own.verdict_rule, f"{form} tasks") for form, own in by_form(rule)]
    return f"{text} Among answers of the right form (`rule`, {len(rule)} tasks), it is {'; '.join(parts)}."


def alive(rows: pd.DataFrame, law: str, suffix: str = "") -> pd.Series:
    """Whether a law survives both scores, by row."""
    return rows[f"survivors{suffix}"].map(lambda laws: law in laws.split())


def holds(row: Any, suffix: str = "") -> bool:
    """Whether the law selected survives both scores."""
    return getattr(row, f"selected{suffix}") in getattr(row, f"survivors{suffix}").split()


def starred(row: Any, suffix: str = "") -> str:
    """The law selected, with an asterisk if it does not survive both scores; "-" if there is none."""
    named = getattr(row, f"selected{suffix}")
    return (named if holds(row, suffix) else f"{named}*") if named else "-"


def law_answer(rows: pd.DataFrame) -> str:
    """Which law each task follows, under `complement` and under `rule`."""
    parts = []
    for readout, suffix in (("complement", ""), ("rule", "_rule")):
        own = rows[rows[f"selected{suffix}"] != ""]
        if not len(own):
            parts.append(f"Under `{readout}` no law is selected.")
            continue
        lives = listed([f"`{law}` on {alive(own, law, suffix).sum()}" for law in LAWS])
        fails = sum(not holds(row, suffix) for row in own.itertuples())
        ties = own[f"lead{suffix}"].dropna()
        tied = f", the nearest {ties.min():.1f} nats behind it" if len(ties) else ""
        parts.append(
            f"Under `{readout}` the law selected is {counted(own[f'selected{suffix}'], mark='`')}"
            f"{additive_on(own, suffix)}. Both scores are survived by {lives}; the law selected does not survive both "
            f"(*) {on(fails, len(own))}. Laws as simple as the one selected survive a left-out sequence too "
            f"{on(len(ties), len(own))}{tied}."
        )
    return f"*Which law?* {' '.join(parts)}{power_sentence(rows)}"


def additive_on(rows: pd.DataFrame, suffix: str) -> str:
    """The tasks on which `additive` is selected, in brackets; an asterisk where it does not survive both scores."""
    own = rows[rows[f"selected{suffix}"] == "additive"]
    marked = [name + ("" if holds(row, suffix) else "*") for name, row in zip(called(own), own.itertuples())]
    return f" (`additive`: {listed(marked)})" if marked else ""


def power_sentence(rows: pd.DataFrame) -> str:
    """On how many tasks the power law's a is at the upper bound of its prior."""
    own = rows[rows.a.notna()]
    _, upper = HYPOTHESES["power"].priors["a"].parameters
    at = own[own.a_high > upper - AT_BOUND]
    if not len(at):
        return ""
    return (
        f" The power law's a, in updates that fall as n^-a, has an interval that touches the upper bound of its prior, "
        f"{upper:.2f}, {on(len(at), len(own))} under `complement` (its lower end is {at.a_low.min():.2f} or more): "
        "there updates fall about as fast as the steepest power law allowed, or faster."
    )


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Those whose delta counts: neither refused nor a null control."""
    return rows[rows.delta.notna() & (rows.verdict != "refused") & ~rows.null_control]


def size_answer(rows: pd.DataFrame, pooled: Mapping[str, Any]) -> str:
    """How large delta is, over tasks."""
    own = judged(rows)
    if not len(own):
        return "*How large is it?* No task has a delta."
    first, last = own.iloc[0], own.iloc[-1]
    text = (
        f"*How large is it?* Delta falls from {ranged(first, 'delta', '.3f')} nats per example on {first.task} to "
        f"{ranged(last, 'delta', '.3f')} on {last.task}"
    )
    if "mu" not in pooled:
        return f"{text}. It was not pooled ({pooled.get('refused', 'the fit was made without --pool')})."
    mu, tau, new = (f"{Interval(*pooled[name]):.3f}" for name in ("mu", "tau", "new_task"))
    without = called(rows[~rows.task.isin(pooled["deltas"])])
    return (
        f"{text}. Pooled over {len(pooled['deltas'])} of {len(rows)} tasks"
        f"{f' (left out: {listed(without)})' if without else ''} its mean is {mu}, its sd between tasks {tau}, and a "
        f"further such task would have {new}."
    )


def jump_answer(rows: pd.DataFrame) -> str:
    """What the first example adds, how much that is beside later ones, and how much of it is the form of an answer."""
    taught = rows[~rows.null_control]
    if not len(taught):
        return "*What does the first example add?* No task here has something to learn."
    own = judged(taught)
    more = own[own.jump_complement_low > own.delta_high]
    not_second = taught[~(taught.first_over_second_low > 0)]
    named = [f"{row.task} {ranged(row, 'first_over_second')}" for row in not_second.itertuples()]
    text = (
        f"*What does the first example add?* `complement` gains {between(taught.jump_complement)} nats: more "
        f"(95 % interval) than delta, the average later example, {on(len(more), len(own))}, and more than the second "
        f"example, by the paired interval of L(1) - L(0) less L(2) - L(1), {on(len(taught) - len(named), len(taught))}"
        f"{f' (not on {listed(named)})' if named else ''}."
    )
    has = taught[taught.jump_format.notna()]
    for form, mine in by_form(has[has.jump_complement > 0]):
        parts = []
        for name in ("format", "rule"):
            own = mine[f"jump_{name}"]
            share = between(100 * own / mine.jump_complement, ".0f")
            parts.append(f"`{name}` gains {between(own)} nats, {share} % of `complement`'s")
        text += f" On the {len(mine)} {form} tasks, {MEANING[form]}, {', and '.join(parts)}."
    if len(has):
        text += " (Changes in log-odds do not add up.)"
    without = len(taught) - len(has)
    return text + (
        f" `format` is not read on {without} of {len(taught)} tasks, those with a - in the table." * bool(without)
    )


def between(x: pd.Series, form: str = ".2f") -> str:
    """ "1.20 to 3.40": the least and the most."""
    return f"{x.min():{form}} to {x.max():{form}}"


def together_answer(rows: pd.DataFrame) -> str:
    """Whether tasks with a large jump have a large delta."""
    own = judged(rows)
    numbers = together(own.delta, own.jump_complement)
    if math.isnan(numbers["rho"]):
        return f"*Do delta and the jump go together?* {len(own)} tasks are too few to say."
    low, high = f"{numbers['low']:+.2f}", f"{numbers['high']:+.2f}"
    if numbers["low"] <= 0 <= numbers["high"]:
        said = f"No sign that they do, but {numbers['n']} tasks leave a wide interval, from {low} to {high}"
    else:
        said = "They do" if numbers["rho"] > 0 else "Where the jump is large, delta is small"
    return (
        f"*Do delta and the jump go together?* {said}. Spearman's rank correlation of delta with `complement`'s jump, "
        f"over tasks that are neither refused nor a null control, is {numbers['rho']:+.2f} [{low}, {high}], p = "
        f"{numbers['p']:.2g}, n = {numbers['n']} (bootstrap over tasks; p by permutation; a task's own uncertainty is "
        "not counted)."
    )


def control_answer(rows: pd.DataFrame) -> str:
    """What the null control shows."""
    parts = []
    for row in rows[rows.null_control].itertuples():
        if not row.verdict_rule:
            parts.append(f"{row.task} has no `rule`, so it controls nothing here")
            continue
        kept = row.verdict_rule == "no_update" or row.delta_rule_low <= 0 <= row.delta_rule_high
        parts.append(
            f"The labels of {row.task} are coin flips, so that `complement` may rise with the form of an answer (delta "
            f"{ranged(row, 'delta', '.3f')}) and `rule` must not: it has delta {ranged(row, 'delta_rule', '.3f')}, "
            f"{row.verdict_rule}, {'as it should' if kept else 'WHICH IT SHOULD NOT: the control fails'}"
        )
    return f"*Does the null control hold?* {'; '.join(parts) if parts else 'There is none among these tasks'}."


def refused_answer(rows: pd.DataFrame) -> str:
    """Which tasks could not be judged, and why."""
    own = rows[rows.verdict == "refused"]
    parts = [f"{row.task} ({row.reason})" for row in own.itertuples()]
    return f"*Which tasks could not be judged?* {f'Refused: {chr(59).join(parts)}' if parts else 'All could'}."


def estimate(heading: str, column: str, form: str = ".2f") -> Column:
    """A column of numbers with their intervals; "-" where there is none."""
    return Column(heading, lambda row: "-" if math.isnan(getattr(row, column)) else ranged(row, column, form))


def law_table(rows: pd.DataFrame, suffix: str, title: str) -> PaperTable:
    """The laws under one readout, a row a task."""

    def behind(row: Any) -> str:
        nats, se = (getattr(row, f"behind{end}{suffix}") for end in ("", "_se"))
        return "-" if math.isnan(nats) else f"{nats:.1f} ({se:.1f})"

    shown = (
        columns.text("task", "called"),
        estimate("delta", f"delta{suffix}", ".3f"),
        columns.text("verdict", f"verdict{suffix}"),
        Column("law selected", lambda row: starred(row, suffix)),
        Column("nats behind the best (SE)", behind),
        Column("survive both scores", lambda row: getattr(row, f"survivors{suffix}").replace(" ", ", ") or "-"),
    )
    return PaperTable(f"laws{suffix}", title, "", "", rows.assign(called=called(rows)), shown)


def jump_table(rows: pd.DataFrame) -> PaperTable:
    """The jumps at the first example, a row a task."""
    shown = (
        columns.text("task", "called"),
        columns.text("answers", "form"),
        *(estimate(f"jump, {name}", f"jump_{name}") for name in READ),
        estimate("first less second example, complement", "first_over_second"),
    )
    ordered = rows.sort_values("form", key=lambda form: form.map([*MEANING, "free"].index), kind="stable")
    return PaperTable("jumps", "The first example, L(1) - L(0)", "", "", ordered.assign(called=called(ordered)), shown)


def tables(rows: pd.DataFrame) -> str:
    """The page's tables: laws under `complement`, laws under `rule`, jumps."""
    titles = {"": "The whole answer (`complement`)", "_rule": "Among answers of the right form (`rule`)"}
    laws = [law_table(rows[rows[f"verdict{suffix}"] != ""], suffix, title) for suffix, title in titles.items()]
    made = [*(table for table in laws if len(table.frame)), jump_table(rows)]
    return "\n".join(f"## {table.title}\n\n{table.to_markdown()}" for table in made)


def page(curves: Path = CURVES, fits: Path = FITS) -> str:
    """The page."""
    from bayes_icl.models.names import title_of

    rows, dataset = table(curves, fits), read_curves(curves)
    missing = [name for name in BUILT_IN if name not in set(rows.task)]
    record = json.loads(dataset.attrs.get("provenance", "{}"))
    answers = (
        *(verdict_answer(rows), law_answer(rows), size_answer(rows, read_pooled(fits)), jump_answer(rows)),
        *(together_answer(rows), control_answer(rows), refused_answer(rows)),
    )
    opening = OPENING.format(
        model=title_of(record["model"]["model"]) if "model" in record else "a model that the curves do not name",
        n_tasks=len(rows),
        n_seqs=rows.n_seqs.max(),
        n_shots=int(dataset.shot[-1]),
        left_out=f" Built-in tasks that were not read: {listed(missing)}." if missing else "",
        first=first_sentence(rows),
        answers="\n".join(f"{i}. {text}" for i, text in enumerate(answers, 1)),
    )
    return opening + tables(rows)


# -------------------------------------------------------------------------------------------- the figure


SHAPES = "*ops^Dh<vdXP>8"  # markers of the hypotheses, in the order in which they are registered
JUMPS = {"complement": ("o", INK, INK), "format": ("^", "0.5", "0.5"), "rule": ("s", INK, "w")}  # marker, line, face

ABOVE: dict[str, Any] = dict(
    loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, alignment="left", handlelength=1.6
)


def shape_of(hypothesis: str) -> str:
    """The marker of a hypothesis, beside `colour_of`: some colours are near each other."""
    return SHAPES[list(HYPOTHESES).index(hypothesis) % len(SHAPES)]


def plot_deltas(rows: pd.DataFrame, ax: Axes, pooled: Mapping[str, Any]) -> Axes:
    """Delta by task, the largest at the top, as the law selected is drawn; hollow where the verdict is open."""
    for row in rows.itertuples():
        y = -row.Index
        colour, shape = (colour_of(row.selected), shape_of(row.selected)) if row.selected else (INK, ".")
        face = colour if row.verdict in DECIDED else "w"
        if not math.isnan(row.delta):
            ax.plot([row.delta_low, row.delta_high], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
            ax.plot(row.delta, y, shape, color=colour, ms=5, markerfacecolor=face)
    if "mu" in pooled:
        y = -len(rows)
        for name, lw in (("new_task", 0.8), ("mu", 2.0)):
            ax.plot(pooled[name][1:], [y, y], color=INK, lw=lw, solid_capstyle="butt")
        ax.plot(pooled["mu"][0], y, "|", color=INK, ms=8, mew=1.5)
    ax.axvline(0, color=INK, lw=0.6, ls=":")
    ax.set_xlabel(f"delta (nats per example; bars: {LEVEL_WORDS})")
    laws = list(dict.fromkeys(name for name in rows.selected if name))
    marks = [Line2D([], [], marker=shape_of(law), ms=5, lw=1.4, color=colour_of(law)) for law in laws]
    labels = laws
    if (rows.delta.notna() & ~rows.verdict.isin(DECIDED)).any():
        marks.append(Line2D([], [], marker="o", ms=5, lw=1.4, color=INK, markerfacecolor="w"))
        labels = [*laws, "hollow: no verdict"]
    if laws:
        ax.legend(marks, labels, ncols=2, title="law selected", **ABOVE)
    return ax


def plot_jumps(rows: pd.DataFrame, ax: Axes) -> Axes:
    """L(1) - L(0) by task, each readout with a marker of its own."""
    for row in rows.itertuples():
        has = [name for name in READ if not math.isnan(getattr(row, f"jump_{name}"))]
        for i, name in enumerate(has):
            mean, low, high = (getattr(row, f"jump_{name}{end}") for end in ("", "_low", "_high"))
            y, (shape, colour, face) = -row.Index + 0.26 * ((len(has) - 1) / 2 - i), JUMPS[name]
            ax.plot([low, high], [y, y], color=colour, lw=1.0, solid_capstyle="butt")
            ax.plot(mean, y, shape, color=colour, ms=3.2, mew=0.7, markerfacecolor=face)
    ax.axvline(0, color=INK, lw=0.6, ls=":")
    ax.set_xlabel("first example, L(1) \u2212 L(0) (nats)")
    marks = [
        Line2D([], [], marker=shape, ms=3.2, mew=0.7, lw=1.0, color=colour, markerfacecolor=face)
        for shape, colour, face in JUMPS.values()
    ]
    ax.legend(marks, list(JUMPS), ncols=2, title="jump of", **ABOVE)
    return ax


@mpl.rc_context(STYLE)  # type: ignore[arg-type]
def figure(rows: pd.DataFrame, pooled: Mapping[str, Any]) -> Figure:
    """Tasks by delta: at the left delta and the law selected, at the right the first example's jumps; bars 95 %."""
    n_rows = len(rows) + ("mu" in pooled)
    drawn_figure = Figure(figsize=(2 * COLUMN, 0.25 * n_rows + 1.5), layout="constrained")
    left, right = drawn_figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    plot_deltas(rows, left, pooled)
    plot_jumps(rows, right)
    names = called(rows)
    if "mu" in pooled:
        names.append(f"mean of {len(pooled['deltas'])} tasks\n(thin: a new one)")
    left.set_yticks([-i for i in range(n_rows)], names)
    left.set_ylim(-n_rows + 0.4, 0.7)
    words = right.secondary_yaxis("right")
    words.set_yticks([-i for i in range(len(rows))], [f"{row.verdict}; {starred(row)}" for row in rows.itertuples()])
    words.tick_params(length=0)
    words.spines["right"].set_visible(False)
    heading: dict[str, Any] = {
        "xy": (1, 1),
        "xycoords": "axes fraction",
        "xytext": (5, 2),
        "textcoords": "offset points",
    }
    right.annotate("verdict on additive;\nlaw selected (*: does not\nsurvive both scores)", **heading, fontsize=7)
    for ax in (left, right):
        ax.tick_params(axis="y", length=0)
        for row in rows.itertuples():
            ax.axhline(-row.Index, color=FAINT, lw=0.4, zorder=0)
    return drawn_figure


def write(curves: Path = CURVES, fits: Path = FITS, figures: Path = FIGURES, target: Path = PAGE) -> None:
    """The table, the figure and the page, from what the stages wrote."""
    rows = table(curves, fits)
    with replacing(figures / "across_tasks.csv") as temporary:
        rows.to_csv(temporary, index=False)
    save_figures({"across_tasks": figure(rows, read_pooled(fits))}, figures)
    with replacing(target) as temporary:
        temporary.write_text(page(curves, fits), encoding="utf-8")


if __name__ == "__main__":
    run()
    write()
    print(PAGE)
