"""One comparison over the built-in tasks on SmolLM2-135M: which law each follows, and what the first example adds.

``python analyses/across_tasks.py``: curves and fits of all tasks; then figures/across_tasks/ and docs/across_tasks.md,
whose sentences are made from the numbers found. It goes on where it stopped.
"""

from __future__ import annotations

import json
import math
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
from bayes_icl.compare import read_table
from bayes_icl.curves import Curves, read_curves, readouts_of, replacing, select
from bayes_icl.errors import StatedError
from bayes_icl.heads import flat, t_interval
from bayes_icl.plots import COLUMN, FAINT, INK, STYLE, colour_of, rows_of, save_figures
from bayes_icl.quotes import listed
from bayes_icl.tasks import BUILT_IN, load_tasks

CURVES, FITS = ROOT / "data/curves/across_tasks.nc", ROOT / "data/fits/across_tasks"
FIGURES, PAGE = ROOT / "figures/across_tasks", ROOT / "docs/across_tasks.md"
N_SHOTS, N_SEQS = 32, 32
LAWS = ("additive", "power", "pooling")  # those that the page follows by name, whichever is the simplest survivor
DECIDED = ("supported", "rejected")
RESAMPLES = 9999
LEAST = 5  # tasks that a correlation needs: with fewer no order of them is unlikely
OPENING = """# All tasks side by side

*Written by `analyses/across_tasks.py` (`make across`) from its output: {model}, {n_tasks} tasks, {n_seqs} sequences of
{n_shots} examples. The laws are fitted to n >= {n_min}. Brackets hold 95 % intervals: of delta the highest-density
interval of its posterior under `additive`, which counts curvature as noise; of the first example's jump L(1) - L(0) the
t-interval over sequences.*{left_out}

{answers}

![delta by task with the law named, and the jump at the first example](../figures/across_tasks/across_tasks.png)

The law *named* is the simplest of those within 4 nats or 2 standard errors of the best when a sequence is left out; a
law *survives both scores* if it is that near as well when the second half of the shots is left out. `complement` counts
every other text as incorrect, `rule` only wrong answers of the right form, and `format` any answer of the right form as
correct. From n = 0 to 1 a model mostly learns that form, which is why the laws are fitted from n = {n_min} on. All
numbers: [across_tasks.csv](../figures/across_tasks/across_tasks.csv).

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
    """The stages, each skipped where its output is there already. The figures of single tasks stay with the fits."""
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
            figures=fits / "figures",
        )
    )


def table(curves: Path = CURVES, fits: Path = FITS) -> pd.DataFrame:
    """One row a task, the largest delta first and those without one last.

    Delta and jumps are a column each with the ends ``_low`` and ``_high``, nats; what a task does not have is NaN, or
    empty text. `jump` is that of the readout named in `jump_readout`: `format` where the task has it, else
    `complement`. `survivors` and `survives_...` are of both scores, and of no task whose verdict is refused.
    """
    dataset, verdicts = read_curves(curves), json.loads((fits / "verdict.json").read_text())
    scores = read_table(fits / "comparison.csv")
    pooled = read_pooled(fits)
    rows = []
    for task, verdict in verdicts.items():
        sound = verdict["verdict"] != "refused"
        curves_judged = select(dataset, task, verdict["readout"])
        own = rows_of(scores, curves_judged.since(verdict["n_min"]))
        both = own[own.survivor.astype(bool) & own.survivor_lfo.astype(bool)].hypothesis.tolist() if sound else []
        rule: dict[str, Any] = next((one for one in verdict["others"] if one["readout"] == "rule"), {})
        has = readouts_of(dataset, task)
        jumps = {name: jump(select(dataset, task, name)) if name in has else NONE for name in ("complement", "format")}
        shown = "format" if "format" in has else "complement"
        rows.append(
            {
                "task": task,
                "null_control": is_null(curves_judged),
                "n_seqs": len(curves_judged.log_odds),
                "n_min": verdict["n_min"],
                "verdict": verdict["verdict"],
                "reason": verdict["reasons"][0],
                "named": verdict["named"] or "",
                "survivors": " ".join(both),
                **{f"survives_{law}": law in both for law in LAWS},
                **flat({"delta": delta_of(verdict)}),
                "verdict_rule": rule.get("verdict", ""),
                "named_rule": rule.get("named") or "",
                **flat({"delta_rule": delta_of(rule)}),
                "jump_readout": shown,
                **flat({"jump": jumps[shown]}),
                **flat({f"jump_{name}": own_jump for name, own_jump in jumps.items()}),
                **flat({"delta_pooled": pooled.get("deltas", {}).get(task, NONE)}),
            }
        )
    return pd.DataFrame(rows).sort_values("delta", ascending=False, na_position="last", ignore_index=True)


NONE = (math.nan,) * 3


def delta_of(verdict: Mapping[str, Any]) -> tuple[float, ...]:
    """Delta with its interval, nats per example; NaN where there is none."""
    return tuple(verdict["delta"].values()) if verdict.get("delta") else NONE


def jump(curves: Curves) -> tuple[float, ...]:
    """L(1) - L(0) with its t-interval over sequences, nats."""
    at = [int(np.flatnonzero(curves.shots == n)[0]) for n in (0, 1)]
    return tuple(float(x) for x in t_interval(curves.log_odds[:, at[1]] - curves.log_odds[:, at[0]]))


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
    low, high = np.nanquantile(resampled, [0.025, 0.975])
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


def grouped(rows: pd.DataFrame, column: str) -> str:
    """ "rejected on a and b; supported on c": what a column says, and of which tasks."""
    kinds = {kind: called(own) for kind, own in rows.groupby(column, sort=False)}
    return "; ".join(f"{kind} on {listed(names)}" for kind, names in sorted(kinds.items(), key=lambda x: -len(x[1])))


def verdict_answer(rows: pd.DataFrame) -> str:
    """Whether the update is constant."""
    rule = rows[rows.verdict_rule != ""]
    text = f"*Is the update constant?* Of the whole answer (`complement`), `additive` is {grouped(rows, 'verdict')}."
    if not len(rule):
        return f"{text} No task here has `rule`."
    return f"{text} Among answers of the right form (`rule`, {len(rule)} tasks), it is {grouped(rule, 'verdict_rule')}."


def law_answer(rows: pd.DataFrame) -> str:
    """Which law each task follows."""
    sound = rows[rows.verdict != "refused"]
    named = f"The simplest survivor is {grouped(sound[sound.named != ''], 'named') or 'named on no task'}"
    parts = []
    for law in LAWS:
        own, alive = (called(sound[rows]) for rows in (sound.named == law, sound[f"survives_{law}"].astype(bool)))
        parts.append(
            f"`{law}` is named on {listed(own) if own else 'none'} and survives both scores on {len(alive)} of "
            f"{len(sound)} tasks" + (f": {listed(alive)}" if alive else "")
        )
    return f"*Which law?* {named}. {'; '.join(parts)}."


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
    mu, tau, new = ("{:.3f} [{:.3f}, {:.3f}]".format(*pooled[name]) for name in ("mu", "tau", "new_task"))
    return (
        f"{text}. Pooled over {len(pooled['deltas'])} tasks its mean is {mu}, its sd between tasks {tau}, and a "
        f"further such task would have {new}."
    )


def jump_answer(rows: pd.DataFrame) -> str:
    """What the first example adds, and how much of it is the form of an answer."""
    taught = rows[~rows.null_control & rows.jump_complement.notna()]
    if not len(taught):
        return "*What does the first example add?* No curve starts at n = 0."
    least, most = taught.loc[taught.jump_complement.idxmin()], taught.loc[taught.jump_complement.idxmax()]
    own = judged(taught)
    more = own[own.jump_complement_low > own.delta_high]
    has = taught[taught.jump_format.notna()]
    text = (
        f"*What does the first example add?* `complement` gains {ranged(least, 'jump_complement')} nats on "
        f"{least.task} to {ranged(most, 'jump_complement')} on {most.task}, surely more than a further example (delta) "
        f"on {len(more)} of {len(own)} tasks."
    )
    if not len(has):
        return f"{text} No task here has `format`."
    low, high = has.loc[has.jump_format.idxmin()], has.loc[has.jump_format.idxmax()]
    larger = has[has.jump_format > has.jump_complement / 2]
    without = taught[taught.jump_format.isna()].task.tolist()
    return (
        f"{text} The form alone (`format`, {len(has)} tasks) gains {ranged(low, 'jump_format')} on {low.task} to "
        f"{ranged(high, 'jump_format')} on {high.task}; it is more than half of what `complement` gains on "
        f"{len(larger)} of {len(has)}." + (f" Answers have no closed form on {listed(without)}." if without else "")
    )


def together_answer(rows: pd.DataFrame) -> str:
    """Whether tasks with a large jump have a large delta."""
    own = judged(rows)
    closed = own[own.jump_readout == "format"]
    found = {
        f"`format`'s where a task has it ({len(closed)} of {len(own)}), else `complement`'s": together(
            own.delta, own.jump
        ),
        "`complement`'s": together(own.delta, own.jump_complement),
        "`format`'s": together(closed.delta, closed.jump_format),
    }
    main = next(iter(found.values()))
    if math.isnan(main["rho"]):
        return f"*Do delta and the jump go together?* {len(own)} tasks are too few to say."
    together_or_not = (
        ("They go together" if main["rho"] > 0 else "Where the jump is large, delta is small")
        if main["p"] < 0.05
        else "That cannot be said"
    )
    parts = [
        f"with {name}: {numbers['rho']:+.2f} [{numbers['low']:+.2f}, {numbers['high']:+.2f}], p = {numbers['p']:.2g}, "
        f"n = {numbers['n']}"
        for name, numbers in found.items()
        if not math.isnan(numbers["rho"])
    ]
    return (
        f"*Do delta and the jump go together?* {together_or_not}. Spearman's rank correlation of delta over tasks that "
        "are neither refused nor a null control (bootstrap over tasks; p by permutation; a task's own uncertainty is "
        f"not counted) {'; '.join(parts)}."
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


def cells(name: str, row: Any) -> list[str]:
    """A task's row of the page's table."""

    def shown(column: str, form: str = ".2f") -> str:
        return "-" if math.isnan(getattr(row, column)) else ranged(row, column, form)

    laws = [law for law in LAWS if getattr(row, f"survives_{law}")]
    return [
        *(name, shown("delta", ".3f"), row.verdict, row.named or "-", ", ".join(laws) or "-"),
        *(row.verdict_rule or "-", shown("delta_rule", ".3f"), shown("jump_complement"), shown("jump_format")),
    ]


def page(curves: Path = CURVES, fits: Path = FITS) -> str:
    """The page."""
    rows, dataset = table(curves, fits), read_curves(curves)
    missing = [name for name in BUILT_IN if name not in set(rows.task)]
    record = json.loads(dataset.attrs.get("provenance", "{}"))
    answers = (
        *(verdict_answer(rows), law_answer(rows), size_answer(rows, read_pooled(fits)), jump_answer(rows)),
        *(together_answer(rows), control_answer(rows), refused_answer(rows)),
    )
    opening = OPENING.format(
        model=record.get("model", {}).get("model", "a model that the curves do not name"),
        n_tasks=len(rows),
        n_seqs=rows.n_seqs.max(),
        n_shots=int(dataset.shot[-1]),
        n_min=rows.n_min.iloc[0],
        left_out=f" Built-in tasks that were not read: {listed(missing)}." if missing else "",
        answers="\n".join(f"{i}. {text}" for i, text in enumerate(answers, 1)),
    )
    headings = (
        *("task", "delta", "verdict", "law named", f"of {', '.join(LAWS)}: survives both"),
        *("verdict, rule", "delta, rule", "jump, complement", "jump, format"),
    )
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    lines += [f"| {' | '.join(cells(name, row))} |" for name, row in zip(called(rows), rows.itertuples())]
    return opening + "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------------------- the figure


def plot_deltas(rows: pd.DataFrame, ax: Axes, pooled: Mapping[str, Any]) -> Axes:
    """Delta by task, the largest at the top, in the colour of the law named; hollow where the verdict is open."""
    for row in rows.itertuples():
        y, colour = -row.Index, colour_of(row.named) if row.named else INK
        face = colour if row.verdict in DECIDED else "w"
        if not math.isnan(row.delta):
            ax.plot([row.delta_low, row.delta_high], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
            ax.plot(row.delta, y, "o", color=colour, ms=4.5, markerfacecolor=face)
    if "mu" in pooled:
        y = -len(rows)
        for name, lw in (("new_task", 0.8), ("mu", 2.0)):
            ax.plot(pooled[name][1:], [y, y], color=INK, lw=lw, solid_capstyle="butt")
        ax.plot(pooled["mu"][0], y, "D", color=INK, ms=3.5)
    ax.axvline(0, color=INK, lw=0.6, ls=":")
    ax.set_xlabel("delta (nats per example)")
    return ax


def plot_jumps(rows: pd.DataFrame, ax: Axes) -> Axes:
    """L(1) - L(0) by task: dark, of `format`; pale, of `complement`."""
    for row in rows.itertuples():
        for name, colour, shift in (("complement", "0.6", -0.16), ("format", INK, 0.16)):
            mean, low, high = (getattr(row, f"jump_{name}{end}") for end in ("", "_low", "_high"))
            y = -row.Index + (shift if not math.isnan(row.jump_format) else 0)
            if not math.isnan(mean):
                ax.plot([low, high], [y, y], color=colour, lw=1.2, solid_capstyle="butt")
                ax.plot(mean, y, "s", color=colour, ms=3)
    ax.axvline(0, color=INK, lw=0.6, ls=":")
    ax.set_xlabel("first example, L(1) \u2212 L(0) (nats)")
    return ax


@mpl.rc_context(STYLE)  # type: ignore[arg-type]
def figure(rows: pd.DataFrame, pooled: Mapping[str, Any]) -> Figure:
    """Tasks by delta: at the left delta and the law named, at the right the jump at the first example."""
    n_rows = len(rows) + ("mu" in pooled)
    drawn_figure = Figure(figsize=(2 * COLUMN, 0.21 * n_rows + 1.3), layout="constrained")
    left, right = drawn_figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    plot_deltas(rows, left, pooled)
    plot_jumps(rows, right)
    names = called(rows)
    if "mu" in pooled:
        names.append(f"mean of {len(pooled['deltas'])} tasks\n(thin: a new one)")
    left.set_yticks([-i for i in range(n_rows)], names)
    left.set_ylim(-n_rows + 0.4, 1.4)
    words = right.secondary_yaxis("right")
    said = ["additive; law named", *(f"{row.verdict}; {row.named or '-'}" for row in rows.itertuples())]
    words.set_yticks([1 - i for i in range(len(said))], said)
    words.tick_params(length=0)
    words.spines["right"].set_visible(False)
    for ax in (left, right):
        ax.tick_params(axis="y", length=0)
        for row in rows.itertuples():
            ax.axhline(-row.Index, color=FAINT, lw=0.4, zorder=0)
    laws = list(dict.fromkeys(name for name in rows.named if name))
    marks = [Line2D([], [], marker="o", ms=4.5, lw=1.4, color=colour_of(law)) for law in laws]
    marks += [
        Line2D([], [], marker="o", ms=4.5, lw=1.4, color=INK, markerfacecolor="w"),
        *(Line2D([], [], marker="s", ms=3, lw=1.2, color=colour) for colour in (INK, "0.6")),
    ]
    labels = [*laws, "no verdict for or against", "jump of format", "of complement"]
    drawn_figure.legend(marks, labels, loc="outside upper center", ncols=5, title="colour: law named; bars: 95 %")
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
