"""The post's sequence: find where the task comes across, ablate what comes before, find it again, name who took over.

Round 0 ablates nothing. Round 1 ablates all heads of the layers just before the transfer layer in the run with
examples, at every token; each later round its backup heads as well. It ends when the task no longer comes across, when
the run has nothing left to carry, or when nobody took over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bayes_icl.ablate import Heads, StandIns, edits_from, name_of, places_ablated
from bayes_icl.heads import t_interval
from bayes_icl.redundancy import Singles, ablate_each, name_backups, stack
from bayes_icl.stream import Anatomy, Edits, outputs_of
from bayes_icl.sweeps import base_run
from bayes_icl.transfer import Pair, log_odds_of, matched, patched, reaching

GAIN_LEAST = 1.0  # nats that examples must add, or there is no task to carry


def carried(
    anatomy: Anatomy,
    pairs: Sequence[Pair],
    heads: Heads,
    stand_ins: StandIns | None,
    kind: str,
    *,
    where: str = "everywhere",
    position: str = "last",
    on_pair: Any = None,
) -> dict[str, np.ndarray]:
    """Transfer by point with some heads of A ablated.

    Returns
    -------
    ``own``, ``other``: log-odds of B's and of A's right answer after B, shape (pair, point); ``a``: A's own, shape
    (pair,); ``b``, ``b_other``: after B without patch, shape (pair,).
    """
    found: dict[str, list] = {name: [] for name in ("own", "other", "a", "b", "b_other")}
    for pair in pairs:
        at = matched(pair, position)
        edits = edits_of_pair(pair, heads, stand_ins, kind, where)
        a = base_run(anatomy, pair.a.prompt.tokens, min(p for p, _ in at), edits)
        b = base_run(anatomy, pair.b.prompt.tokens, min(q for _, q in at))
        own, other = patched(anatomy, a, b, at, pair.tokens).T
        (b_own, b_other), (_, a_own) = (log_odds_of(run.logits, pair.tokens)[0] for run in (b, a))
        for name, x in zip(found, (own, other, a_own, b_own, b_other)):
            found[name].append(x)
        if on_pair:
            on_pair()
    return {name: np.array(x) for name, x in found.items()}


def bare_log_odds(anatomy: Anatomy, pairs: Sequence[Pair], on_pair: Any = None) -> Float[np.ndarray, " pair"]:
    """Log-odds of B's right answer after B."""
    found = []
    for pair in pairs:
        b = base_run(anatomy, pair.b.prompt.tokens, len(pair.b.prompt.tokens) - 1)
        found.append(log_odds_of(b.logits, pair.tokens[:1])[0, 0])
        if on_pair:
            on_pair()
    return np.array(found)


def edits_of_pair(pair: Pair, heads: Heads, stand_ins: StandIns | None, kind: str, where: str = "everywhere") -> Edits:
    """Edits that ablate some heads of A; none without heads."""
    if not heads or stand_ins is None:
        return {}
    return edits_from(heads, stand_ins.of(pair.a.seq, kind)[0], places_ablated(pair.a, where))


def describe(found: dict[str, np.ndarray], clean: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    """Transfer and answer layer, peak, A's and B's log-odds of one ablation, as in the table of rounds.

    A layer is where half of what *this* A has over B has come across; ``kept`` layers are where half of what A had
    before anything was ablated has. Where A has no nat more than B for sure, there is nothing to carry: NaN.
    """
    row: dict[str, float] = {}
    gain, low, _ = t_interval(found["a"] - found["b"])
    has = low > 0 and gain >= GAIN_LEAST
    for name, curve, base in (("transfer_layer", "own", "b"), ("answer_layer", "other", "b_other")):
        for end, full in (("", found["a"]), ("_kept", clean["a"])):
            reached = reaching(found[curve], found[base], full, seed=seed)
            three = (reached.point, reached.low, reached.high) if has or end else (np.nan,) * 3
            row |= dict(zip((f"{name}{end}", f"{name}{end}_low", f"{name}{end}_high"), three))
            if name == "transfer_layer":
                row[f"reached{end}"] = reached.share if has or end else 0.0
    peak = int(found["own"].mean(0).argmax())
    row["peak_point"] = peak
    numbers = {"peak": found["own"][:, peak], "a_own": found["a"], "b_own": found["b"], "gain": found["a"] - found["b"]}
    for name, x in numbers.items():
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, t_interval(x))))
    row["n_pairs"] = len(found["a"])
    return row


def norms_taken(
    anatomy: Anatomy, pairs: Sequence[Pair], stand_ins: StandIns, kind: str
) -> Float[np.ndarray, "layer head"]:
    """Root mean square norm, over tokens and pairs, of what ablating a head takes from the residual stream."""
    total = np.zeros((anatomy.n_layers, anatomy.n_heads))
    count = 0
    for pair in pairs:
        z = outputs_of(anatomy, pair.a.prompt.tokens)[0]
        gone = z - stand_ins.of(pair.a.seq, kind)[0].to(z.device)
        for layer in range(anatomy.n_layers):
            x, gram = gone[layer].transpose(0, 1), anatomy.gram[layer]
            total[layer] += ((x @ gram) * x).sum((1, 2)).double().cpu().numpy()
        count += z.shape[1]
    return np.sqrt(np.maximum(total, 0) / count)


def singles_of(
    anatomy: Anatomy,
    pairs: Sequence[Pair],
    stand_ins: StandIns,
    kind: str,
    gone: Heads,
    *,
    where: str = "everywhere",
    heads: Heads | None = None,
    everywhere: bool = False,
    on_pair: Any = None,
) -> Singles:
    """Heads ablated one by one in every A, those in `gone` being ablated as `where` says."""
    found = []
    for pair in pairs:
        z = stand_ins.of(pair.a.seq, kind)[0]
        edits = edits_from(gone, z, places_ablated(pair.a, where)) if gone else None
        found.append(ablate_each(anatomy, pair.a, z, edits=edits, heads=heads, everywhere=everywhere))
        if on_pair:
            on_pair()
    return stack(found)


def backup_rows(
    before: Singles,
    after: Singles,
    lost: Float[np.ndarray, " pair"],
    placebo: Singles | None,
    gone: Heads,
    most: int,
) -> list[dict[str, Any]]:
    """Rows of the table of backup heads, found on the even pairs and measured on the odd ones.

    Active: in a layer above the lowest ablated one, its direct effect rising for sure; else passive, as where what it
    writes was simply not needed before (a head of the same layer cannot react).
    """
    rows = []
    lowest = min(layer for layer, _ in gone)
    for head, p in name_backups(before.lost, after.lost, lost, most):
        at = (slice(1, None, 2), *head)
        numbers = {
            "effect_before": before.lost[at],
            "effect_after": after.lost[at],
            "growth": after.lost[at] - before.lost[at],
            "growth_placebo": (placebo.lost[at] if placebo else np.nan) - before.lost[at],
            "direct_rise": after.direct[at] - before.direct[at],
            "attention_rise": after.attention[at] - before.attention[at],
        }
        row: dict[str, Any] = {"component": name_of(head), "layer": head[0], "head": head[1], "p_holm": p}
        for name, x in numbers.items():
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, t_interval(x))))
        row["mode"] = "active" if head[0] > lowest and row["direct_rise_low"] > 0 else "passive"
        rows.append(row | {"n_seqs": len(lost[1::2])})
    return rows
