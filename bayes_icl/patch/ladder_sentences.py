"""What a ladder says, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bayes_icl.mechanism.placebos import are_placebos
from bayes_icl.writing.numbers import Quotes, layer_of, listed

WORDS = {"zero": "heads knocked out (zero)", "mean": "heads ablated by mean", "resample": "heads resampled"}

CLASSES = {
    "format": "its form (a number, a label)",
    "parity": "its parity",
    "foil": "the answer against its foil",
    "rule": "the answer among its form",
}


def ladder_sentences(facts: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], quotes: Quotes) -> list[str]:
    """The ladders of one task, a sentence a kind of ablation, and from where features are decoded; none without one."""
    if "ladder_ended" not in facts:
        return []
    ladder, heads = tables["ladder"], tables["ladder_heads"]
    lines = []
    for kind, ended in facts["ladder_ended"].items():
        own = ladder[ladder.kind == kind]
        q = quotes.under("ladder", kind)
        steps = []
        for row in own[own["set"] == "ablated"].sort_values("step").itertuples():
            at = q.under(row.step)
            name = "answer_layer" if facts["replaces_query"] else "transfer_layer"
            gone = f"without {at.all_in('gone', row.layers_text)} at " if row.n_heads else "at layer "
            layer = layer_of(row, name, at)
            steps.append(f"{gone}{layer}" if layer != "-" else f"{gone.removesuffix('at ')}nowhere, no rule being left")
        what = "A's answer is copied" if facts["replaces_query"] else "the task is recovered"
        lines.append(f"ladder, {WORDS[kind]}: {what} {', '.join(steps)}; it ends: {q.all_in('ended', ended)}")
        lines += _last_step(own, heads[heads.kind == kind], q)
    return [*lines, *_decoded(tables["features"], quotes.under("features"))]


def _last_step(own: pd.DataFrame, heads: pd.DataFrame, quotes: Quotes) -> list[str]:
    """The step at which a ladder ends, beside its placebo sets; the heads that light up on the way."""
    last = own["step"].max()
    if not last:
        return []
    ablated, placebos = (
        own[(own.step == last) & which] for which in (own["set"] == "ablated", are_placebos(own["set"]))
    )
    row = ablated.iloc[0]
    q = quotes.under("last")
    line = (
        f"    there A's right token comes first in {q.percent('a_first', row.a_first)}; patched, A's own answer is "
        f"copied in up to {q.percent('copied', row.copied_first)} of pairs"
    )
    if len(placebos):
        low, high = placebos.a_first.min(), placebos.a_first.max()
        line += f"; with placebo sets A's comes first in {q.percent('least', low)} to {q.percent('most', high)}"
        worse = int((placebos.a_own < row.a_own).sum())
        line += (
            f", and {q.count('worse', worse)} of {q.count('n', len(placebos))} cost MORE than the set" if worse else ""
        )
    else:
        line += "; too few heads are left for placebo sets"
    lines = [line]
    for step, part in heads[heads.lights].groupby("step"):
        q = quotes.under("lit", step)
        named = [
            f"{row.component} ({q.under(row.component, unit='nats').columns(row, 'direct_rise', '.2f')} nats, "
            f"{q.under(row.component).columns(row, 'attention_rise', '.2f')} of attention)"
            for row in part.nlargest(3, ["direct_rise", "attention_rise"]).itertuples()
        ]
        lines.append(
            f"    step {q.count('step', int(step))}: {q.count('heads', len(part))} heads light up, by direct effect or "
            f"attention on examples, the most {listed(named)}"
        )
    return lines


def _decoded(features: pd.DataFrame, quotes: Quotes) -> list[str]:
    """From which layer on a class of the answer is surely the likelier one in A, and but for its form more than without
    the rule.
    """
    parts = []
    for readout, words in CLASSES.items():
        part = features[features.readout == readout].sort_values("layer")
        own, more = (part[part.run == run] for run in ("A", "difference"))
        if not len(own):
            continue
        sure = own.log_odds_low.to_numpy() > 0
        if readout != "format":
            sure &= more.log_odds_low.to_numpy() > 0
        start = len(sure) - int(sure[::-1].argmin()) if not sure.all() else 0
        where = (
            "nowhere" if start == len(sure) else f"from layer {quotes.count(readout, int(own.layer.iloc[start]))} on"
        )
        parts.append(f"{words} {where}")
    return [f"a logit lens on A reads {'; '.join(parts)}"] if parts else []
