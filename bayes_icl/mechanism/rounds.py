"""The rounds of Skunnavakkam (2024), in which heads that matter are ablated until the task is no longer recovered.

Each finds where the task is recovered, ablates what comes before, finds it again, and names who took over. Round 0
ablates nothing. Round 1 ablates all heads of the layers just before the transfer layer in the run with examples, at
every token; each later round its backup heads as well. They end when the task is no longer recovered, when the run has
nothing left to carry, or when nobody took over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bayes_icl.core.intervals import TAILS, flat, t_interval
from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.edits import Edits, outputs_of
from bayes_icl.lens.sweeps import base_run
from bayes_icl.mechanism.ablation_values import AblationValues, edits_from, places_ablated
from bayes_icl.mechanism.halves import MEASURING, chosen_on, measured_on
from bayes_icl.mechanism.head_names import Heads, name_of
from bayes_icl.mechanism.redundancy import Backup, SingleAblations, ablate_each, stack
from bayes_icl.mechanism.thresholds import BEFORE_MOST, RULE_LEAST
from bayes_icl.mechanism.transfer import Pair, log_odds_of, matched, patched, reaching


def carried(
    anatomy: Anatomy,
    pairs: Sequence[Pair],
    heads: Heads,
    values: AblationValues | None,
    kind: str,
    *,
    where: str = "everywhere",
    position: str = "last",
    on_pair: Any = None,
) -> dict[str, np.ndarray]:
    """Transfer by layer with some heads of A ablated.

    Returns
    -------
    dict
        Of ``own`` and ``other``, log-odds of B's and of A's right answer after B, nats, shape (pair, layer);
        ``own_first`` and ``other_first``, whether that token comes first; ``a``, A's own log-odds, and ``a_first``,
        whether that token comes first after A, shape (pair,); ``b`` and ``b_other``, those after B without patch, shape
        (pair,).
    """
    names = ("own", "other", "own_first", "other_first", "a", "a_first", "b", "b_other")
    found: dict[str, list] = {name: [] for name in names}
    for pair in pairs:
        at = matched(pair, position)
        edits = edits_of_pair(pair, heads, values, kind, where)
        a = base_run(anatomy, pair.a.prompt.tokens, min(p for p, _ in at), edits)
        b = base_run(anatomy, pair.b.prompt.tokens, min(q for _, q in at))
        log_odds, first = patched(anatomy, a, b, at, pair.tokens)
        (b_own, b_other), (_, a_own) = (log_odds_of(run.logits, pair.tokens)[0] for run in (b, a))
        a_first = bool(a.logits[0].argmax() == pair.tokens[1])
        for name, x in zip(names, (*log_odds.T, *first.T, a_own, a_first, b_own, b_other)):
            found[name].append(x)
        if on_pair:
            on_pair()
    return {name: np.array(x) for name, x in found.items()}


def edits_of_pair(
    pair: Pair, heads: Heads, values: AblationValues | None, kind: str, where: str = "everywhere"
) -> Edits:
    """Edits that ablate some heads of A; none without heads."""
    if not heads or values is None:
        return {}
    return edits_from(heads, values.of(pair.a.seq, kind)[0], places_ablated(pair.a, where))


def has_rule(rule: Float[np.ndarray, " pair"]) -> bool:
    """Whether the 95 % interval of the rule gain lies above 0, and its mean at half a nat or more."""
    mean, low, _ = t_interval(rule)
    return bool(low > 0 and mean >= RULE_LEAST)


def describe(
    found: dict[str, np.ndarray], clean: dict[str, np.ndarray], no_rule: dict[str, np.ndarray], seed: int
) -> dict[str, float]:
    """Transfer and answer layer, peak, A's and B's log-odds of one ablation, as in the table of rounds.

    transfer_layer, answer_layer
        Where half of what *this* A has over B is recovered.
    transfer_layer_kept
        Where half of what A had over B before anything was ablated has.
    transfer_until
        The last layer at which half of what this A has over B is recovered: of a patch at the answers of examples,
        where the task leaves them.
    rule_layer
        Where half of what A has over a run whose answers are permuted is recovered beyond what that run carries:
        what A's stream says of the rule, not of the form of answers.
    shift
        By how many layers transfer_layer is later than without ablation, over the same resamples.

    Where there is no rule gain, there is nothing to carry: all are NaN. The peak is the layer with the largest
    mean on the even pairs, and its height that on the odd ones.
    """
    left = found["a"] - no_rule["a"]
    goals = {
        "transfer_layer": ("own", found["b"], found["a"]),
        "answer_layer": ("other", found["b_other"], found["a"]),
        "transfer_layer_kept": ("own", found["b"], clean["a"]),
    }
    curves = {name: (found[curve], base, full) for name, (curve, base, full) in goals.items()}
    curves["rule_layer"] = (found["own"] - no_rule["own"], np.zeros(len(left)), left)
    row: dict[str, float] = {}
    reached = {}
    for name, (curve, base, full) in curves.items():
        r = reached[name] = reaching(curve, base, full, seed=seed)
        has = has_rule(clean["a"] - no_rule["a"] if name.endswith("kept") else left)
        numbers = (r.layer, r.low, r.high, r.share) if has else (np.nan,) * 4
        row |= dict(zip((name, f"{name}_low", f"{name}_high", f"{name}_reached"), numbers))
    back = reaching(found["own"][:, ::-1], found["b"], found["a"], seed=seed)
    until = [found["own"].shape[1] - 1 - x + 0 * row["transfer_layer"] for x in (back.layer, back.high, back.low)]
    row |= dict(zip(("transfer_until", "transfer_until_low", "transfer_until_high"), until))
    row["transfer_until_reached"] = row["transfer_layer_reached"]
    before = reaching(clean["own"], clean["b"], clean["a"], seed=seed)
    moves = reached["transfer_layer"].draws - before.draws
    moves = moves[~np.isnan(moves)]
    ends = np.quantile(moves, TAILS, method="inverted_cdf") if len(moves) else (np.nan, np.nan)
    shift = row["transfer_layer"] - before.layer
    row |= dict(zip(("shift", "shift_low", "shift_high"), (float(shift), *(np.asarray(ends) + 0 * shift).tolist())))
    row["shift_reached"] = len(moves) / len(before.draws)
    peak = int(chosen_on(found["own"]).mean(0).argmax())
    row["peak_layer"], row["peak_first"] = peak, float(measured_on(found["own_first"])[:, peak].mean())
    numbers_ = {
        "peak": measured_on(found["own"])[:, peak],
        "a_own": found["a"],
        "b_own": found["b"],
        "gain": found["a"] - found["b"],
    }
    row |= flat({name: t_interval(x) for name, x in (numbers_ | {"rule_gain": left}).items()})
    row["a_first"] = float(found["a_first"].mean())
    row["n_pairs"] = len(found["a"])
    return row


def norms_taken(
    anatomy: Anatomy,
    pairs: Sequence[Pair],
    values: AblationValues,
    kinds: Sequence[str],
    places: Mapping[str, Any],
    on_pair: Any = None,
) -> dict[str, Float[np.ndarray, "layer head"]]:
    """Root mean square norm, over tokens and pairs, of what ablating a head takes from the residual stream.

    Parameters
    ----------
    anatomy
        The model's parts.
    pairs
        Runs with examples (A) and without (B).
    values
        What heads are ablated to.
    kinds
        Kinds of ablation.
    places
        By name: a function that gives the tokens of a cut episode at which heads are ablated.
    on_pair
        Called after each pair.

    Returns
    -------
    dict
        By ``"kind place"``.
    """
    total = {f"{kind} {place}": np.zeros((anatomy.n_layers, anatomy.n_heads)) for kind in kinds for place in places}
    count = dict.fromkeys(places, 0)
    for pair in pairs:
        z = outputs_of(anatomy, pair.a.prompt.tokens)[0]
        for place, where in places.items():
            count[place] += int(where(pair.a).sum())
        for kind in kinds:
            gone = z - values.of(pair.a.seq, kind)[0].to(z.device)
            for layer in range(anatomy.n_layers):
                x, gram = gone[layer].transpose(0, 1), anatomy.gram[layer]
                squares = ((x @ gram) * x).sum(-1).double().cpu().numpy()  # (head, pos)
                for place, where in places.items():
                    total[f"{kind} {place}"][layer] += squares[:, where(pair.a)].sum(1)
        if on_pair:
            on_pair()
    there = np.where(anatomy.exists(), 1.0, np.nan)
    return {name: there * np.sqrt(np.maximum(x, 0) / count[name.split(" ")[1]]) for name, x in total.items()}


def singles_of(
    anatomy: Anatomy,
    pairs: Sequence[Pair],
    values: AblationValues,
    kind: str,
    gone: Heads,
    *,
    where: str = "everywhere",
    heads: Heads | None = None,
    everywhere: bool = False,
    on_pair: Any = None,
) -> SingleAblations:
    """Heads ablated one by one in every A, those in `gone` being ablated as `where` says."""
    found = []
    for pair in pairs:
        z = values.of(pair.a.seq, kind)[0]
        edits = edits_of_pair(pair, gone, values, kind, where)
        found.append(ablate_each(anatomy, pair.a, z, edits=edits, heads=heads, everywhere=everywhere))
        if on_pair:
            on_pair()
    return stack(found)


def backup_rows(
    named: Sequence[Backup],
    before: SingleAblations,
    after: SingleAblations,
    placebo: SingleAblations | None,
    others: tuple[SingleAblations, SingleAblations] | None,
    gone: Heads,
    rule: Float[np.ndarray, " pair"],
) -> list[dict[str, Any]]:
    """Rows of the table of heads named on the even pairs, measured on the odd ones.

    grows
        Its growth exceeds that with placebo sets gone (95 % interval above 0); none where the model has too few heads
        for such sets.
    backup
        It grows, and mattered little before: its ablation cost less than 5 % of the rule gain.
    active
        In a layer above the lowest ablated one, and attending more to examples, or adding more to the
        log-odds, than with placebo sets gone (97.5 % each). Else passive: what it does was not needed before (a head of
        the same layer cannot react).

    Parameters
    ----------
    named
        Heads and their p-values, as `name_backups` gives them.
    before, after
        Each head ablated alone: with the others, and without them.
    placebo
        Means over placebo sets of as many heads.
    others
        Before and after by another kind of ablation.
    gone
        The heads that were ablated.
    rule
        The rule gain, nats.
    """
    rows = []
    little = BEFORE_MOST * measured_on(rule).mean()
    lowest = min(layer for layer, _ in gone)
    for head, p in named:
        at = (MEASURING, *head)
        growth = after.lost[at] - before.lost[at]
        rises = {
            f"{name}_rise": getattr(after, name)[at] - getattr(before, name)[at] for name in ("direct", "attention")
        }
        nothing = np.full(len(growth), np.nan)
        numbers = {"effect_before": before.lost[at], "effect_after": after.lost[at], "growth": growth, **rises}
        numbers["growth_placebo"] = nothing if placebo is None else placebo.lost[at] - before.lost[at]
        numbers["beyond"] = growth - numbers["growth_placebo"]
        numbers["growth_other_kind"] = nothing if others is None else others[1].lost[at] - others[0].lost[at]
        row: dict[str, Any] = {"component": name_of(head), "layer": head[0], "head": head[1], "p_holm": p}
        row |= flat({name: t_interval(x) for name, x in numbers.items()})
        reacts = False
        for name in ("direct", "attention"):
            beside = 0.0 if placebo is None else getattr(placebo, name)[at] - getattr(before, name)[at]
            reacts |= bool(t_interval(rises[f"{name}_rise"] - beside, 0.975)[1] > 0)
        row["grows"] = bool(row["growth_low"] > 0 and row["beyond_low"] > 0)
        row["backup"] = row["grows"] and bool(row["effect_before"] < little)
        row["mode"] = "active" if head[0] > lowest and reacts else "passive"
        rows.append(row | {"n_seqs": len(growth)})
    return rows
