"""Run collect, fit, attribute and patch on every organism, and put what came out beside what must.

``python analyses/organisms_check.py`` (`make organisms-check`) writes figures/organisms/table.csv; names of organisms
do those alone, and leave the rows of others. `met` is yes, no, or later: what no command says yet. It ends with code 1
if anything is not met.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from organisms import ORGANISMS, ROOT, SEED, TABLE

from bayes_icl import attribute, collect, fit, patch
from bayes_icl.attribute import outputs as attribute_outputs
from bayes_icl.core.errors import DONE, FAILED, exit_stating, unknown
from bayes_icl.core.files import beside, replacing
from bayes_icl.core.intervals import Interval
from bayes_icl.core.schemas import read_beside
from bayes_icl.curves import read_curves
from bayes_icl.fit.outputs import HISTORY, read_verdicts
from bayes_icl.fit.weighing_sentences import interval
from bayes_icl.patch import outputs as patch_outputs

RESULT = ROOT / "figures/organisms/table.csv"
SEQS = 32
DELTA, NEAR = 0.25, 0.01  # nats per example
HALF = 0.5


class Row(NamedTuple):
    """One line of the table."""

    what: str
    must: str
    came: str
    met: bool | None  # None: later


def run(name: str) -> dict[str, Any]:
    """All stages on one organism, skipped where their output is there; what they say, by stage."""
    curves = ROOT / f"data/curves/organisms/{name}.nc"
    fits, effects, patched = (ROOT / f"data/{kind}/organisms/{name}" for kind in ("fits", "effects", "patch"))
    drawn = ROOT / f"runs/organisms/{name}"
    collect.main(collect.CollectSettings(model=f"organism:{name}", n_seqs=SEQS, out=curves))
    signed, weighed = curves.with_stem(f"{name}_signed"), fits.with_name(f"{name}_signed")
    collect.main(
        collect.CollectSettings(
            model=f"organism:{name}", design=("mixed", "orders:k=4"), n_seqs=SEQS, readouts=("foil",), out=signed
        )
    )
    fit.main(
        fit.FitSettings(
            curves=signed, readout=("foil",), n_min=(1,), engine="fast", sensitivity=False, out=weighed,
            figures=drawn / "signed",
        )
    )  # fmt: skip
    fit.main(
        fit.FitSettings(
            curves=curves, readout=("rule", "complement"), n_min=(1,), engine="fast", sensitivity=False, out=fits,
            figures=drawn / "curves",
        )
    )  # fmt: skip
    attribute.main(
        attribute.AttributeSettings(
            curves=curves, readout="foil", out=effects.with_suffix(".nc"), figures=drawn / "heads"
        )
    )
    patch.main(
        patch.PatchSettings(
            curves=curves, ablate=("1",) if name == "redundant" else (), out=patched.with_suffix(".nc"),
            figures=drawn / "patch",
        )
    )  # fmt: skip
    return {
        "verdict": read_verdicts(fits)[f"organism_{name}"],
        "weighed": {str(v["design"]): v for v in _weighed(signed, weighed)},
        "history": HISTORY.read(weighed / "history.csv"),
        **{f"attribute_{k}": v for k, v in read_beside(effects.with_suffix(".nc"), attribute_outputs.TABLES).items()},
        **{f"patch_{k}": v for k, v in read_beside(patched.with_suffix(".nc"), patch_outputs.TABLES).items()},
        "facts": json.loads(beside(patched.with_suffix(".nc"), "json").read_text())[f"organism_{name}"],
    }


def rows(name: str, found: dict[str, Any]) -> Iterator[Row]:
    """What must come out of an organism, and what came."""
    yield _near_observer(name)
    verdict = found["verdict"]
    must = {"coin": "supported", "rule": "supported", "redundant": "supported", "constant": "no_update"}
    if name != "switch":
        expected = must.get(name, "rejected")
        yield Row("additive, under rule", expected, verdict["verdict"], verdict["verdict"] == expected)
    alive = verdict["survivors"]
    if name == "count":
        yield Row("laws that survive", "logarithmic among them", ", ".join(alive), "logarithmic" in alive)
    if name == "pooled":
        yield Row("law selected", "pooling", str(verdict["selected"]), verdict["selected"] == "pooling")
        yield from _heads_write_all(found)
    if name in ("coin", "rule", "redundant"):
        delta = Interval(*verdict["delta"].values())
        yield Row("delta, nats per example", f"{DELTA}", f"{delta:.3f}", abs(delta.mean - DELTA) < NEAR)
        yield _ablated(found)
        yield Row("share of delta that heads carry, by total effect", "0.9 or more", "", None)
    if name == "rule":
        yield from _steps(found, "supported")
    if name == "constant":
        yield from _steps(found, "not seen", "nothing to explain")
        named = _backups(found)
        yield Row("backup heads", "none", ", ".join(named.component) or "none", named.empty)
    if name == "redundant":
        yield from _rounds(found)
    if name in ("coin", "rule", "count", "leaky", "switch"):
        yield from _evidence(name, found)


def _weighed(curves: Path, fits: Path) -> Iterator[dict[str, Any]]:
    """Second verdicts, each with its design."""
    dataset = read_curves(curves)
    for task, verdict in read_verdicts(fits).items():
        yield {"design": str(dataset.design.sel(task=task).item()).partition(":")[0], **verdict["bayesian"]}


def _evidence(name: str, found: dict[str, Any]) -> Iterator[Row]:
    """The second verdict on examples that disagree, half of them of each rule, and in several orders."""
    mixed, share = found["weighed"]["mixed"], interval(found["weighed"]["orders"]["order_share"])
    weight = interval(mixed["weight"])
    yield Row("evidence, by its own observer", "bayesian", mixed["verdict"], mixed["verdict"] == "bayesian")
    yield Row("weight of its observer", "1 [0.97, 1.03]", f"{weight:.3f}", weight.low > 0.97 and weight.high < 1.03)
    forgets = name in ("leaky", "switch")
    said = f"order makes {Interval(*(100 * x for x in share)):.0f} % of variance"
    yield Row("exchangeable", "no" if forgets else "yes", said, (share.low > 0) == forgets)
    history = found["history"].set_index("hypothesis")
    for law, parameter, truth in (("leaky", "leak", 0.8), ("hazard", "rate", 0.1)):
        if name == {"leaky": "leaky", "hazard": "switch"}[law]:
            came = history.loc[[law]].iloc[0]
            three = Interval(*(came[f"{parameter}_{end}"] for end in ("mean", "hdi_low", "hdi_high")))
            yield Row(f"{parameter} recovered", f"{truth} within 0.02", f"{three:.3f}", abs(three.mean - truth) < 0.02)
    if name == "switch":
        better = float(history.loc[["hazard"]].elpd_logo.iloc[0] - history.loc[["signed"]].elpd_logo.iloc[0])
        yield Row("filter with a hazard against the one without", "beats it", f"by {better:.0f} nats", better > 4)


def _near_observer(name: str) -> Row:
    """From the table of the training: noisy sequences, which `collect` does not read."""
    table = pd.read_csv(TABLE)
    own = table[(table.organism == name) & (table.seed == SEED)].iloc[0]
    again = f"; refitted: {own.refitted}" if isinstance(own.refitted, str) else ""
    return Row("rmse against its observer, nats", "0.1 or less", f"{own.rmse:.3f}{again}", own.rmse <= 0.1)


def _ablated(found: dict[str, Any]) -> Row:
    """The heads that direct effects find, held at their mean over shots."""
    table = found["attribute_ablation"]
    top = table[(table.set == "top") & (table.value == "mean_over_shots")].iloc[0]
    whole = table[(table.set == "none") & (table.value == "mean_over_shots")]
    delta = float(whole.delta.iloc[0]) if len(whole) else DELTA
    share = float(top.lost) / delta
    what = f"share of delta lost without {top.heads} (top by direct effect)"
    return Row(what, f"{HALF} or more", f"{share:.2f}", share >= HALF)


def _heads_write_all(found: dict[str, Any]) -> Iterator[Row]:
    heads = found["attribute_heads"]
    share = float(heads[heads.kind == "head"].share.sum())
    yield Row("share of delta that heads write directly", "1 within 0.02", f"{share:.3f}", abs(share - 1) < 0.02)
    mlps = float(heads[heads.kind == "mlp"].slope.abs().max())
    yield Row("slope that the MLP writes, nats per example", "0", f"{mlps:.1e}", mlps < 1e-6)


def _steps(found: dict[str, Any], *allowed: str) -> Iterator[Row]:
    verdicts = found["facts"].get("steps", {})
    for step in ("1", "2", "3"):
        said = str(verdicts.get(step, "nothing to explain"))
        yield Row(f"step {step} of Skunnavakkam (2024)", " or ".join(allowed), said, said in allowed)


def _backups(found: dict[str, Any]) -> pd.DataFrame:
    table = found["patch_backups"]
    return table[table.backup.astype("boolean").fillna(False)] if "backup" in table else table.iloc[:0]


def _rounds(found: dict[str, Any]) -> Iterator[Row]:
    """Without the heads of the first group. The last position is the query itself, so that A's stream brings A's query
    along: it is A's answer that is handed on from a layer, and B's own never."""
    rounds = found["patch_rounds"]
    own = rounds[(rounds.set == "ablated") & (rounds.kind == "mean")].set_index("round")
    first, then = own.loc[0] if 0 in own.index else rounds.iloc[0], own.loc[1]
    left = float(then.a_own / first.a_own)
    yield Row("log-odds left without the heads of round 1", "0.9 or more", f"{left:.2f}", left >= 0.9)
    moved = f"from {first.answer_layer:g} to {then.answer_layer:g}"
    yield Row("layer from which A's answer is handed on", "later", moved, then.answer_layer > first.answer_layer)
    group = ORGANISMS["redundant"].groups[1]
    named = _backups(found)
    of_group = len(named) > 0 and bool((named.layer == group).all())
    yield Row("backup heads", f"of layer {group}", ", ".join(named.component) or "none", of_group)


def main(names: list[str]) -> int:
    """Run what is asked for, write the table, print it."""
    for name in names:
        if name not in ORGANISMS:
            raise unknown("organism", name, ORGANISMS)
    made = []
    for name in names or list(ORGANISMS):
        print(f"organism {name}", file=sys.stderr)
        made += [{"organism": name, **row._asdict()} for row in rows(name, run(name))]
    table = pd.DataFrame(made)
    table["met"] = table.met.map({True: "yes", False: "no"}).fillna("later")
    if RESULT.is_file():
        before = pd.read_csv(RESULT, keep_default_na=False)
        table = pd.concat([before[~before.organism.isin(set(table.organism))], table])
        table = table.sort_values("organism", key=lambda c: c.map(list(ORGANISMS).index), kind="stable")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    with replacing(RESULT) as part:
        table.to_csv(part, index=False)
    print(table.to_string(index=False))
    return FAILED if (table.met == "no").any() else DONE


if __name__ == "__main__":
    exit_stating(lambda: main(sys.argv[1:]))
