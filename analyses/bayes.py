"""Is it Bayesian? SmolLM2-135M on six tasks whose examples disagree, and organisms whose answer is known beside it.

``python analyses/bayes.py`` (`make bayes`): curves and fits of every model; then figures/bayes/ and docs/bayes.md,
whose sentences are made from the numbers found. It goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from claims import ROOT

from bayes_icl import collect, fit
from bayes_icl.core.files import replacing
from bayes_icl.core.intervals import LEVEL_WORDS, Interval
from bayes_icl.curves import read_curves
from bayes_icl.fit.outputs import read_verdicts
from bayes_icl.fit.weighing import LAGS
from bayes_icl.fit.weighing_figures import weighing_figures
from bayes_icl.fit.weighing_sentences import MEANING
from bayes_icl.hypotheses import HISTORY_LAWS
from bayes_icl.writing import columns
from bayes_icl.writing.numbers import listed
from bayes_icl.writing.style import save_figures
from bayes_icl.writing.tables import PaperTable

CURVES, FITS = ROOT / "data/curves/bayes", ROOT / "data/fits/bayes"
FIGURES, PAGE = ROOT / "figures/bayes", ROOT / "docs/bayes.md"
TASKS = (
    "category", "category_arbitrary", "parity", "threshold", "successor~double", "affine~affine:intercept=5",
)  # fmt: skip
TEXT = "Answer with the opposite of what is right."
DESIGNS = ("plain", "noise:p=0.2", "switch", f"prior:text={TEXT}")
ORDERS = ("orders:k=4",)
LAWS = ("constant", "additive", "logarithmic", "saturating", "pooling", *HISTORY_LAWS)
ORGANISMS = ("coin", "count", "leaky", "switch")
N_SHOTS, N_SEQS, N_ORDERED = 24, 24, 40


def run() -> None:
    """The stages of every model, each skipped where its output is there already."""
    _read("smollm2", DESIGNS, N_SEQS, TASKS)
    _read("smollm2", ORDERS, N_ORDERED, TASKS, "smollm2_orders")
    for name in ORGANISMS:
        _read(f"organism:{name}", ("mixed",), N_SEQS, (), name)
        _read(f"organism:{name}", ORDERS, N_ORDERED, (), f"{name}_orders")


def _read(model: str, designs: tuple[str, ...], n_seqs: int, tasks: tuple[str, ...], name: str = "smollm2") -> None:
    curves = CURVES / f"{name}.nc"
    collect.main(
        collect.CollectSettings(
            model=model, tasks=tasks, design=designs, n_shots=N_SHOTS, n_seqs=n_seqs, readouts=("foil",), out=curves
        )
    )
    fit.main(
        fit.FitSettings(
            curves=curves, readout=("foil",), n_min=(1,), hypotheses=LAWS, engine="fast", sensitivity=False,
            out=FITS / name,
            figures=FITS.with_name("bayes_figures") / name,
        )
    )  # fmt: skip


def rows() -> pd.DataFrame:
    """One row a model, task and design that a second verdict was given on."""
    found = []
    for name in ("smollm2", "smollm2_orders", *(f"{o}{end}" for o in ORGANISMS for end in ("", "_orders"))):
        if not (FITS / name / "verdict.json").exists():
            continue
        dataset = read_curves(CURVES / f"{name}.nc")
        for task, verdict in read_verdicts(FITS / name).items():
            if own := verdict.get("bayesian"):
                of = dataset.sel(task=task)
                found.append(
                    {
                        "model": name.removesuffix("_orders"),
                        "task": str(of.base.item()),
                        "design": str(of.design.item()).partition(":")[0],
                        **_numbers(own),
                    }
                )
    return pd.DataFrame(found)


def _numbers(own: Mapping[str, Any]) -> dict[str, Any]:
    """What the table has of a second verdict."""
    kernel = (own.get("kernel") or {}).get("left_after", {})
    threes = {
        "weight": own["weight"],
        **{f"left_{n}": kernel.get(str(n)) for n in LAGS},
        "order_share": own.get("order_share"),
        **{f"shift_{name}": (own.get("prior_shift") or {}).get(name) for name in ("first", "last", "slope")},
    }
    flat = {
        f"{name}{end}": (three or {}).get(key)
        for name, three in threes.items()
        for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))
    }
    return {"verdict": own["verdict"], "law": own["law"], **flat}


def table(found: pd.DataFrame) -> PaperTable:
    """Verdicts by model, task and design."""
    return PaperTable(
        "bayes",
        "How evidence is weighed",
        f"The second verdict by design; the simplest law that survives; the weight of the ideal observer's log-odds (1 "
        f"for the ideal); what is left of the last example's weight after further ones; means and {LEVEL_WORDS} "
        "intervals.",
        "bayes.csv",
        found,
        (
            columns.text("model", "model"),
            columns.text("task", "task"),
            columns.text("design", "design"),
            columns.text("verdict", "verdict"),
            columns.text("law", "law"),
            columns.interval("weight", "weight", ".2f"),
            columns.interval("left after 1", "left_1", ".2f"),
            columns.interval("left after 8", "left_8", ".2f"),
        ),
    )


def sentences(found: pd.DataFrame) -> Iterator[str]:
    """What was found, a claim each."""
    own = found[found.model == "smollm2"]
    for design in ("noise", "switch"):
        of = own[own.design == design]
        kinds = of.groupby("verdict").task.apply(list)
        said = "; ".join(f"*{kind}* on {listed([f'`{t}`' for t in tasks])}" for kind, tasks in kinds.items())
        if said:
            yield f"Under `{design}`, the verdict is {said}."
    for kind in dict.fromkeys(own[own.design.isin(("noise", "switch"))].verdict):
        if kind in MEANING:
            yield f"*{kind.capitalize()}*: the model {MEANING[kind]}."
    noise = own[(own.design == "noise") & own[f"left_{LAGS[-1]}"].notna()]
    for row in noise.itertuples():
        left = listed([f"{getattr(row, f'left_{n}'):.2f} after {n}" for n in LAGS])
        yield f"On `{row.task}` an example has this share of the last one's weight left: {left} further ones (`noise`)."
    if len(noise) < len(TASKS):
        yield f"On {len(TASKS) - len(noise)} of {len(TASKS)} tasks the last example's weight may be 0 (`noise`)."
    ordered = own[(own.design == "orders") & own.order_share.notna()]
    sure = ordered[ordered.order_share_low > 0]
    if len(ordered):
        low, high = 100 * ordered.order_share.min(), 100 * ordered.order_share.max()
        yield f"Order matters surely on {len(sure)} of {len(ordered)} tasks."
        yield f"It makes {low:.0f} to {high:.0f} % of the variance over all sequences."
    priors = own[(own.design == "prior") & own.shift_slope.notna()]
    adds = priors[(priors.shift_slope_low <= 0) & (priors.shift_slope_high >= 0)]
    for row in priors.itertuples():
        first, last = (Interval.of(row, f"shift_{name}") for name in ("first", "last"))
        yield f"On `{row.task}` the instruction shifts log-odds by {first:.1f} nats at first, {last:.1f} at last."
    if len(priors):
        yield (
            f"Instruction and examples add in log-odds, as far as can be seen, on {len(adds)} of {len(priors)} tasks: "
            "there the shift does not change with n."
        )
    for row in found[found.model.isin(ORGANISMS) & (found.design == "mixed")].itertuples():
        weight = Interval.of(row, "weight")
        yield f"The organism `{row.model}` is *{row.verdict}*, with weight {weight:.2f} of its own observer's log-odds."
    for row in found[found.model.isin(ORGANISMS) & found.order_share.notna()].itertuples():
        share = Interval(*(100 * x for x in Interval.of(row, "order_share")))
        yield f"Order makes {share:.0f} % of the variance of the organism `{row.model}`."


def page(found: pd.DataFrame, drawn: list[str]) -> str:
    """docs/bayes.md."""
    words = {
        "evidence": "What SmolLM2 makes of evidence, beside an ideal observer",
        "kernel": "The weight of an example by how many were shown since",
        "prior": "Log-odds with and without the instruction",
        "orders": "The variance between orders of the same examples",
    }
    pictures = "\n\n".join(f"![{words[name]}](../figures/bayes/{name}.png)" for name in words if name in drawn)
    said = "\n".join(f"- {sentence}" for sentence in sentences(found))
    shown = found[found.verdict.ne("not separable") | found.weight.notna()]
    return f"""# Is it Bayesian? Evidence that disagrees

*Written by `analyses/bayes.py` (`make bayes`) from its output: SmolLM2-135M, {len(TASKS)} tasks, {N_SEQS} sequences of
{N_SHOTS} examples under each design ({N_ORDERED} under `orders`), readout `foil`; and organisms, small networks trained
on an ideal observer's answer. Brackets hold {LEVEL_WORDS} intervals.*

Under `noise` an example shows the other rule's answer with probability 0.2, under `switch` all do from the middle on,
under `mixed` half of them. The instruction of `prior` is "{TEXT}". How verdicts come about: [verdict](verdict.md).

{said}

{pictures}

{table(shown).to_markdown()}

All numbers: [bayes.csv](../figures/bayes/bayes.csv).
"""


def write() -> None:
    """The table, the figures and the page, from what the stages wrote."""
    found = rows()
    with replacing(FIGURES / "bayes.csv") as temporary:
        found.to_csv(temporary, index=False)
    figures = weighing_figures(read_curves(CURVES / "smollm2.nc"), _signed(FITS / "smollm2"))
    ordered = CURVES / "smollm2_orders.nc"
    if ordered.exists() and (FITS / "smollm2_orders" / "verdict.json").exists():
        more = weighing_figures(read_curves(ordered), read_verdicts(FITS / "smollm2_orders"))
        figures |= {name: figure for name, figure in more.items() if name == "orders"}
    save_figures(figures, FIGURES)
    with replacing(PAGE) as temporary:
        temporary.write_text(page(found, list(figures)), encoding="utf-8")


def _signed(fits: Path) -> dict[str, Any]:
    """Verdicts of the designs that a figure shows."""
    return {task: v for task, v in read_verdicts(fits).items() if v.get("bayesian")}


if __name__ == "__main__":
    run()
    write()
    print(PAGE)
