"""Ablation in rounds: what replaces heads, what is carried without them, how a round is told."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from by_hand import by_hooks, forward, odds_by_hand, outputs
from handmade import random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import StatedError
from bayes_icl.lens.edits import heads_replaced
from bayes_icl.lens.sweeps import Row, base_run
from bayes_icl.mechanism.ablation_values import REFERENCE_KINDS, AblationValues, edits_from, places_ablated
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.head_names import Heads, heads_named, name_of
from bayes_icl.mechanism.redundancy import Backup, SingleAblations, ablate_each
from bayes_icl.mechanism.rounds import (
    backup_rows,
    carried,
    describe,
    edits_of_pair,
    has_rule,
    norms_taken,
    singles_of,
)
from bayes_icl.mechanism.thresholds import RULE_LEAST
from bayes_icl.mechanism.transfer import Pair, matched, pairs_of, permuted
from bayes_icl.models import Model
from bayes_icl.models.prompts import ROLES
from bayes_icl.tasks import load_tasks

N, SEQS = 3, 6
EXIST = np.ones((3, 4), bool)
HEADS: Heads = [(0, 1), (1, 2), (0, 3)]
FAMILIES = ["llama", "gpt2"]


@pytest.fixture(scope="module")
def model_of(tiny: Model) -> Callable[[str], Model]:
    return functools.cache(lambda name: random_model(name, tiny))


@pytest.fixture(scope="module")
def curves(model_of: Callable[[str], Model]) -> xr.Dataset:
    return collect_curves(model_of("llama"), load_tasks(["past_tense"]), n_shots=N, n_seqs=SEQS)


@pytest.fixture(scope="module")
def pairs_at(model_of: Callable[[str], Model], curves: xr.Dataset) -> Callable[[str], list[Pair]]:
    return functools.cache(
        lambda position: pairs_of(model_of("llama"), curves, "past_tense", n_examples=N, position=position)
    )


def ablation_values(model: Model, pairs: Sequence[Pair], shuffled: bool = True) -> tuple[AblationValues, list[Episode]]:
    runs = [pair.a for pair in pairs]
    references = [permuted(run, N, 0) for run in runs] if shuffled else runs[1:] + runs[:1]
    return AblationValues(model.anatomy, runs, references), references


# ------------------------------------------------------------------------------------------------- what stands in


def mlp_outputs(model: Model, episode: Episode) -> list[torch.Tensor]:
    """By layer, shape (pos, d_model): a forward of the episode alone."""
    found: list[torch.Tensor] = []
    blocks = model.hf.transformer.h if model.name == "gpt2" else model.hf.model.layers
    handles = [block.mlp.register_forward_hook(lambda _, __, y: found.append(y[0].clone())) for block in blocks]
    with torch.inference_mode():
        model.hf(torch.from_numpy(episode.prompt.tokens)[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def places_of(episode: Episode) -> list[tuple[int, int, int]]:
    return list(zip(*(x.tolist() for x in episode.places)))


@pytest.mark.parametrize(("shuffled", "n_runs"), [(True, SEQS), (True, 1), (False, SEQS)])
@pytest.mark.parametrize("name", FAMILIES)
def test_ablation_values_are_zero_a_mean_over_references_or_one_of_them(
    model_of: Callable[[str], Model], pairs_at: Callable[[str], list[Pair]], name: str, shuffled: bool, n_runs: int
) -> None:
    """At the same shot, role and distance from the answer; over shots where no reference has that shot's place."""
    model, pairs = model_of(name), pairs_at("last")[:n_runs]
    found, references = ablation_values(model, pairs, shuffled)
    by_place: dict[tuple[int, int, int], list[torch.Tensor]] = defaultdict(list)
    over_shots: dict[tuple[bool, int, int], list[torch.Tensor]] = defaultdict(list)
    theirs = []  # (pos, layer, heads and MLP in one)
    for reference in references:
        z, mlp = outputs(model, reference), mlp_outputs(model, reference)
        both = torch.stack([torch.cat([x.flatten(1), y], 1) for x, y in zip(z, mlp)], 1)
        theirs.append(both)
        for place, x in zip(places_of(reference), both):
            by_place[place].append(x)
            over_shots[place[0] < 0, place[1], place[2]].append(x)
    fallen_back = alone = 0
    for pair, reference, own in zip(pairs, references, theirs):
        n, seq = len(pair.a.prompt.tokens), pair.a.seq
        given = {kind: [x.flatten(2) for x in found.of(seq, kind)] for kind in REFERENCE_KINDS}
        given_ = {kind: torch.cat(x, -1).transpose(0, 1) for kind, x in given.items()}
        assert all(x.shape == (n, 2, 128) for x in given_.values())
        assert not given_["zero"].any()
        there = places_of(reference)
        for pos, place in enumerate(places_of(pair.a)):
            some = by_place[place] or over_shots[place[0] < 0, place[1], place[2]]
            fallen_back += not by_place[place]
            mean = torch.stack(some).mean(0)
            torch.testing.assert_close(given_["mean"][pos], mean, atol=1e-5, rtol=1e-5)
            expected = own[there.index(place)] if place in there else mean
            alone += place not in there
            torch.testing.assert_close(given_["resample"][pos], expected, atol=1e-5, rtol=1e-5)
    assert alone > 0  # answers and queries of unequal length
    assert fallen_back > 0 or n_runs == SEQS
    moved = [found.of(pair.a.seq, "mean")[0] - found.of(pair.a.seq, "resample")[0] for pair in pairs]
    assert (min(float(x.abs().max()) for x in moved) > 0.01) == (n_runs > 1)  # the control


def test_shuffled_references_say_nothing_of_the_query_that_is_not_said_anyway(
    model_of: Callable[[str], Model], pairs_at: Callable[[str], list[Pair]]
) -> None:
    """The mean is the same for all runs at the last position, which stands at the same place in all."""
    model, pairs = model_of("llama"), pairs_at("last")
    found, _ = ablation_values(model, pairs)
    last = [found.of(pair.a.seq, "mean")[0][:, -1] for pair in pairs]
    assert all(torch.equal(x, last[0]) for x in last)
    resampled = [found.of(pair.a.seq, "resample")[0][:, -1] for pair in pairs]
    assert all(not torch.equal(x, resampled[0]) for x in resampled[1:])  # the control


@pytest.mark.parametrize("where", ["everywhere", "last", *ROLES])
def test_heads_are_replaced_at_their_places_only(
    model_of: Callable[[str], Model], pairs_at: Callable[[str], list[Pair]], where: str
) -> None:
    """Elsewhere they hand on what they do in that run."""
    model, pairs = model_of("llama"), pairs_at("last")
    found, _ = ablation_values(model, pairs)
    for pair in pairs[:3]:
        run = pair.a
        at = places_ablated(run, where)
        shot, role, _ = run.places
        n = len(run.prompt.tokens)
        expected = {"everywhere": np.arange(n) > 0, "last": np.arange(n) == n - 1}
        expected |= {name: (role == ROLES.index(name)) & (shot >= 0) for name in ROLES}
        assert at.tolist() == expected[where].tolist() and at.any()
        z = found.of(run.seq, "mean")[0]
        kept = z.clone()
        edits = edits_from(HEADS, z, at)
        assert torch.equal(z, kept)
        before = outputs(model, run)
        with heads_replaced(model.anatomy, edits):
            after = outputs(model, run)
        for layer in (0, 1):
            for head in range(4):
                own = torch.from_numpy(at) if (layer, head) in HEADS else torch.zeros(n, dtype=torch.bool)
                torch.testing.assert_close(after[layer][own, head], z[layer][own, head], atol=0, rtol=0)
                assert own.any() == ((layer, head) in HEADS)
                if layer == 0:
                    torch.testing.assert_close(after[0][~own, head], before[0][~own, head], atol=1e-6, rtol=0)
        if where != "everywhere":  # a later layer's head may change where it is left alone, since what it reads has
            own = torch.from_numpy(at)
            assert (after[1][:, 2] - before[1][:, 2]).abs().max() > 1e-3
            assert not edits[1][1][0, ~own].isfinite().any() and edits[1][1][0, own].isfinite().all()


def test_a_heads_own_output_put_in_its_place_is_stated(
    model_of: Callable[[str], Model], pairs_at: Callable[[str], list[Pair]]
) -> None:
    """It would pass for an ablation without effect; so would one whose places are not in the prompt."""
    model, pairs = model_of("llama"), pairs_at("last")
    itself = AblationValues(model.anatomy, [pairs[0].a], [pairs[0].a])
    for kind in ("mean", "resample"):
        with pytest.raises(StatedError, match="nothing would be ablated"):
            carried(model.anatomy, pairs[:1], HEADS, itself, kind)
    carried(model.anatomy, pairs[:1], HEADS, itself, "zero")  # the control
    edits = edits_from(HEADS, itself.of(pairs[0].a.seq, "zero")[0], np.zeros(len(pairs[0].a.prompt.tokens), bool))
    with pytest.raises(StatedError, match="nothing would be ablated"):
        base_run(model.anatomy, pairs[0].a.prompt.tokens, 0, edits)


# ------------------------------------------------------------------------------------------------- heads by name


def test_heads_are_named_in_four_ways() -> None:
    table = pd.DataFrame({"layer": [0, 2, 1, np.nan], "head": [3, 0, 1, np.nan], "slope": [0.1, 0.3, 0.2, 9.0]})
    named = functools.partial(heads_named, exist=EXIST, ranks=table, rank_by="slope")
    layer = [(1, head) for head in range(4)]
    assert named(["L1H3"]) == [(1, 3)] and named(["L2H0", "L0H1"]) == [(2, 0), (0, 1)]
    assert named(["1"]) == layer == named(["1-1"])
    assert named(["1-2"]) == [*layer, *[(2, head) for head in range(4)]]
    assert named(["top2"]) == [(2, 0), (1, 1)] and named(["top9"]) == [(2, 0), (1, 1), (0, 3)]
    assert named(["L1H1", "top2", "1"]) == [(1, 1), (2, 0), (1, 0), (1, 2), (1, 3)]  # none twice
    assert named([]) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("L3H0", "the model has no head L3H0: it has layers 0 to 2 and heads 0 to 3"),
        ("L0H4", "no head L0H4"),
        ("3", "no head L3H0"),
        ("1-3", "no head L3H0"),
        ("2-1", "a range of layers goes up, as in 1-2"),
        ("top1", "give the table to rank by with --ranks"),
        ("layer 1", "expected a head"),
        ("L1", "expected a head"),
        ("top", "expected a head"),
        ("1-", "expected a head"),
        ("", "expected a head"),
    ],
)
def test_names_of_no_head_are_stated(spec: str, said: str) -> None:
    with pytest.raises(StatedError, match=said) as error:
        heads_named(["L0H0", spec], EXIST)
    assert "\n" not in str(error.value)


def test_a_column_to_rank_by_that_is_not_there_is_stated() -> None:
    table = pd.DataFrame({"layer": [0], "head": [0], "slope": [1.0]})
    with pytest.raises(StatedError, match="did you mean slope"):
        heads_named(["top1"], EXIST, table, "slop")
    with pytest.raises(StatedError, match="'layer'"):
        heads_named(["top1"], EXIST, table.drop(columns="layer"), "slope")


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 8)), unique=True))
def test_names_of_heads_are_read_back(heads: list[tuple[int, int]]) -> None:
    assert heads_named([name_of(head) for head in heads], np.ones((12, 9), bool)) == heads


# ------------------------------------------------------------------------------------------------- what is carried


@pytest.mark.parametrize(("where", "kind"), [("everywhere", "mean"), ("answer", "resample"), ("last", "zero")])
@pytest.mark.parametrize("position", ["last", "answers"])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_carried_is_that_of_hooked_runs(
    model_of: Callable[[str], Model],
    pairs_at: Callable[[str], list[Pair]],
    name: str,
    position: str,
    where: str,
    kind: str,
) -> None:
    """A without some heads, its stream at every layer put into B: two plain runs with hooks."""
    model, pairs = model_of(name), pairs_at(position)
    given, _ = ablation_values(model, pairs)
    seen: list[int] = []
    found = carried(
        model.anatomy, pairs, HEADS, given, kind, where=where, position=position, on_pair=lambda: seen.append(1)
    )
    clean = carried(model.anatomy, pairs, [], given, kind, position=position)
    assert len(seen) == len(pairs) and found["own"].shape == (len(pairs), 3) and found["a"].shape == (len(pairs),)
    np.testing.assert_array_equal(found["b"], clean["b"])
    assert np.abs(found["a"] - clean["a"]).max() > 1e-3  # the control
    for i, pair in enumerate(pairs[:3]):
        own, other = pair.tokens
        edits = edits_of_pair(pair, HEADS, given, kind, where)
        plain = forward(model, pair.b.prompt.tokens)[-1]
        assert found["b"][i] == pytest.approx(odds_by_hand(plain, own), abs=2e-5)
        assert found["b_other"][i] == pytest.approx(odds_by_hand(plain, other), abs=2e-5)
        for point in range(3):
            kept: list[torch.Tensor] = []
            keep = lambda _, args, kwargs, kept=kept: kept.append((*args, *kwargs.values())[0][0].clone())  # noqa: E731
            module = [*model.anatomy.blocks, model.anatomy.final_norm.module][point]
            handle = module.register_forward_pre_hook(keep, with_kwargs=True)
            with by_hooks(model, 0, Row(0), edits):
                logits = forward(model, pair.a.prompt.tokens)[-1]
            handle.remove()
            assert found["a"][i] == pytest.approx(odds_by_hand(logits, other), abs=2e-5)
            patch = {q: kept[0][p] for p, q in matched(pair, position)}
            with by_hooks(model, 0, Row(point, patch)):
                logits = forward(model, pair.b.prompt.tokens)[-1]
            likeliest = int(logits.argmax())
            assert (found["own_first"][i, point], found["other_first"][i, point]) == (
                likeliest == own,
                likeliest == other,
            )
            assert found["own"][i, point] == pytest.approx(odds_by_hand(logits, own), abs=2e-5)
            assert found["other"][i, point] == pytest.approx(odds_by_hand(logits, other), abs=2e-5)


def test_the_norm_taken_is_that_of_what_goes(
    model_of: Callable[[str], Model], pairs_at: Callable[[str], list[Pair]]
) -> None:
    """Written out through the projection, over tokens of a place and runs."""
    model, pairs = model_of("llama"), pairs_at("last")
    given, _ = ablation_values(model, pairs)
    places = {where: functools.partial(places_ablated, where=where) for where in ("everywhere", "answer", "last")}
    found = norms_taken(model.anatomy, pairs, given, ("mean", "zero"), places)
    assert set(found) == {f"{kind} {where}" for kind in ("mean", "zero") for where in places}
    for name, norms in found.items():
        kind, where = name.split()
        for layer, head in np.ndindex(2, 4):
            weight = model.hf.model.layers[layer].self_attn.o_proj.weight[:, 16 * head : 16 * head + 16].detach()
            gone = torch.cat(
                [
                    (outputs(model, p.a)[layer] - given.of(p.a.seq, kind)[0][layer])[places_ablated(p.a, where), head]
                    for p in pairs
                ]
            )
            expected = float(((gone @ weight.T) ** 2).sum(1).mean().sqrt())
            assert norms[layer, head] == pytest.approx(expected, rel=1e-4)


def test_heads_alone_are_those_of_each_run(
    model_of: Callable[[str], Model], pairs_at: Callable[[str], list[Pair]]
) -> None:
    model, pairs = model_of("llama"), pairs_at("last")
    given, _ = ablation_values(model, pairs)
    found = singles_of(model.anatomy, pairs, given, "mean", [(0, 1)], where="answer")
    assert isinstance(found, SingleAblations) and all(x.shape == (len(pairs), 2, 4) for x in found)
    z = given.of(pairs[2].a.seq, "mean")[0]
    edits = edits_from([(0, 1)], z, places_ablated(pairs[2].a, "answer"))
    for x, y in zip(found, ablate_each(model.anatomy, pairs[2].a, z, edits=edits)):
        np.testing.assert_array_equal(x[2], y)


# ------------------------------------------------------------------------------------------------- how a round is told


def carried_so(
    own: list[float], a: float, b: float = 0.0, n: int = 8, noise: float = 0.1, seed: int = 1
) -> dict[str, np.ndarray]:
    """Pairs about known means; A's answer is recovered where B's own goes."""
    rng = np.random.default_rng(seed)
    curve = np.array(own)
    found = {
        "own": curve + noise * rng.normal(size=(n, len(own))),
        "other": curve[::-1] + noise * rng.normal(size=(n, len(own))),
        "a": a + noise * rng.normal(size=n),
        "b": b + noise * rng.normal(size=n),
        "b_other": b + noise * rng.normal(size=n),
    }
    return found | {
        name: found[key] > 0 for name, key in (("own_first", "own"), ("other_first", "other"), ("a_first", "a"))
    }


def three_of(row: dict[str, float], name: str) -> list[float]:
    return [row[f"{name}{end}"] for end in ("", "_low", "_high")]


def t_by_hand(x: np.ndarray) -> list[float]:
    half = student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5
    return [x.mean(), x.mean() - half, x.mean() + half]


FORM = carried_so([0.0, 0.1, 1.0, 4.0, 1.0], a=4.0, seed=2)  # a run that shows the form and no rule
FIRST = carried_so([0.0, 0.2, 6.0, 9.0, 2.0], a=10.0)


def test_a_round_is_told_by_what_its_a_has_and_by_what_the_first_had() -> None:
    found = describe(FIRST, FIRST, FORM, 0)
    assert three_of(found, "transfer_layer") == [2, 2, 2] == three_of(found, "transfer_layer_kept")
    assert found["answer_layer"] == 1 and found["transfer_layer_reached"] == 1 and found["n_pairs"] == 8
    assert three_of(found, "shift") == [0, 0, 0]
    # Beyond what the run without a rule carries: 5 at layer 2 and at layer 3, half of 10 - 4 is 3.
    assert three_of(found, "rule_layer") == [2, 2, 2]
    for name, x in (("a_own", FIRST["a"]), ("b_own", FIRST["b"]), ("gain", FIRST["a"] - FIRST["b"])):
        np.testing.assert_allclose(three_of(found, name), t_by_hand(x))
    np.testing.assert_allclose(three_of(found, "rule_gain"), t_by_hand(FIRST["a"] - FORM["a"]))
    # Ablated: A has 6 nats left, half of which is reached later; half of the first round's 10 never is.
    later = carried_so([0.0, 0.2, 1.7, 4.5, 1.5], a=6.0)
    found = describe(later, FIRST, FORM, 0)
    assert three_of(found, "transfer_layer") == [3, 3, 3] and three_of(found, "shift") == [1, 1, 1]
    assert np.isnan(three_of(found, "transfer_layer_kept")).all() and found["transfer_layer_kept_reached"] == 0
    # Half of the 2 that the rule adds is 1, and no point has more beyond the form than that.
    assert np.isnan(found["rule_layer"]) and found["rule_layer_reached"] == 0


def test_what_comes_across_of_the_form_alone_has_no_rule_layer() -> None:
    """The control: B's own answer rises as much when A shows no rule."""
    form = carried_so([0.0, 0.2, 6.0, 9.0, 2.0], a=4.0, seed=3)
    found = describe(FIRST, FIRST, form, 0)
    assert found["transfer_layer"] == 2 and np.isnan(three_of(found, "rule_layer")).all()
    assert found["rule_layer_reached"] == 0


def test_the_peak_is_chosen_on_the_even_pairs_and_measured_on_the_odd() -> None:
    found = carried_so([0.0, 5.0, 5.0, 5.0], a=9.0, noise=2.0)
    row = describe(found, found, carried_so([0.0] * 4, a=0.0), 0)
    point = int(found["own"][::2].mean(0).argmax())
    assert row["peak_layer"] == point and row["peak_first"] == found["own_first"][1::2, point].mean()
    np.testing.assert_allclose(three_of(row, "peak"), t_by_hand(found["own"][1::2, point]))
    odd = {name: x.copy() for name, x in found.items()}
    odd["own"][1::2] += 100 * (np.arange(4) == 0)
    assert describe(odd, odd, carried_so([0.0] * 4, a=0.0), 0)["peak_layer"] == point


def test_a_shift_is_over_the_same_resamples() -> None:
    """Wide layers that move together move by a sure amount; the control: resampled apart they do not."""
    rng = np.random.default_rng(0)
    n = 13  # so that no resample has half of them
    late = rng.integers(0, 2, size=n)  # half of the pairs are recovered two points later
    steps = np.arange(9)

    def curves(by: int) -> dict[str, np.ndarray]:
        own = np.where(steps >= 2 + by + 2 * late[:, None], 10.0, 0.0) + 0.01 * rng.normal(size=(n, 9))
        zero = 0.01 * rng.normal(size=n)
        made = {"own": own, "other": own, "a": 10 + zero, "b": zero, "b_other": zero}
        return made | {"own_first": own > 5, "other_first": own > 5, "a_first": own[:, 0] > 5}

    form = carried_so([0.0] * 9, a=0.0, n=n)
    row = describe(curves(3), curves(0), form, 0)
    assert row["transfer_layer_low"] < row["transfer_layer_high"]
    assert three_of(row, "shift") == [3, 3, 3]


@pytest.mark.parametrize(
    ("rule", "noise", "there"), [(RULE_LEAST - 0.1, 0.01, False), (RULE_LEAST + 0.1, 0.01, True), (3.0, 8.0, False)]
)
def test_where_the_rule_adds_nothing_there_is_nothing_to_carry(rule: float, noise: float, there: bool) -> None:
    """Less than half a nat, or not surely more than nothing; whatever the examples say of the form."""
    no_rule = carried_so([0.0, 1.0, 1.0], a=7.0, noise=noise, seed=2)
    row = describe(carried_so([0.0, 9.0, 9.0], a=7.0 + rule, noise=noise), FIRST | {"a": no_rule["a"] + 5}, no_rule, 0)
    for name in ("transfer_layer", "answer_layer", "rule_layer"):
        assert not np.isnan(three_of(row, name)).any() == there
        assert (row[f"{name}_reached"] > 0) == there
    assert not np.isnan(row["transfer_layer_kept"])  # told of what the first round had


def test_a_rule_is_half_a_nat_for_sure() -> None:
    assert has_rule(np.array([0.5, 0.6, 0.7])) and not has_rule(np.array([0.4, 0.4, 0.4]))
    assert not has_rule(np.array([-5.0, 8.0, 9.0, -4.0])) and not has_rule(np.array([-0.5, -0.6, -0.7]))


# ------------------------------------------------------------------------------------------------- who takes over


def singles_so(n: int, shape: tuple[int, int], rng: np.random.Generator) -> SingleAblations:
    return SingleAblations(*(0.1 * rng.normal(size=(n, *shape)) for _ in SingleAblations._fields))


def grown(singles: SingleAblations, head: tuple[int, int], rng: np.random.Generator, **by: float) -> SingleAblations:
    """With some numbers of a head larger, more or less."""
    more = {name: getattr(singles, name).copy() for name in by}
    for name, amount in by.items():
        more[name][:, *head] += amount + 0.05 * rng.normal(size=len(more[name]))
    return singles._replace(**more)


MORE = dict(direct=1.0, attention=0.5)


@pytest.mark.parametrize(
    ("head", "by", "beside", "backup", "mode"),
    [
        ((2, 1), dict(direct=1.0), {}, True, "active"),
        ((2, 1), dict(attention=0.5), {}, True, "active"),
        ((2, 1), dict(direct=-1.0, attention=-0.5), {}, True, "passive"),
        ((2, 1), {}, {}, True, "passive"),
        ((1, 1), MORE, {}, True, "passive"),  # beside those ablated, it cannot react
        ((2, 1), MORE, MORE, True, "passive"),  # so it does whatever is ablated
        ((2, 1), MORE, dict(lost=2.5), False, "active"),  # no more than with any heads gone
        ((2, 1), MORE, None, False, "active"),  # no placebo sets to be beyond
    ],
)
def test_a_backup_is_active_if_it_does_more(
    head: tuple[int, int], by: dict[str, float], beside: dict[str, float] | None, backup: bool, mode: str
) -> None:
    """Of the odd pairs, all numbers by hand; the even ones do not count."""
    rng = np.random.default_rng(0)
    before = singles_so(20, (3, 4), rng)
    after = grown(before, head, rng, lost=2.0, **by)
    placebo = None if beside is None else grown(before, head, rng, **beside)
    others = (before, grown(before, head, rng, lost=0.7))
    named, large = [Backup(head, 0.01)], np.full(20, 1000.0)
    (row,) = backup_rows(named, before, after, placebo, others, [(1, 0), (2, 3)], large)
    assert (row["component"], row["layer"], row["head"], row["p_holm"]) == (name_of(head), *head, 0.01)
    assert row["mode"] == mode and row["backup"] == row["grows"] == backup and row["n_seqs"] == 10
    # A head whose ablation cost a twentieth of the rule gain before grows, and is no backup.
    (known,) = backup_rows(named, before, after, placebo, others, [(1, 0), (2, 3)], np.full(20, -1000.0))
    assert known["grows"] == backup and not known["backup"]
    at = (slice(1, None, 2), *head)
    growth = after.lost[at] - before.lost[at]
    expected = {
        "effect_before": before.lost[at],
        "effect_after": after.lost[at],
        "growth": growth,
        "direct_rise": after.direct[at] - before.direct[at],
        "attention_rise": after.attention[at] - before.attention[at],
        "growth_other_kind": others[1].lost[at] - others[0].lost[at],
    }
    if placebo:
        expected |= {"growth_placebo": placebo.lost[at] - before.lost[at], "beyond": after.lost[at] - placebo.lost[at]}
    for name, x in expected.items():
        np.testing.assert_allclose(three_of(row, name), t_by_hand(x), err_msg=name)
    alone = backup_rows(named, before, after, None, None, [(1, 0)], large)[0]
    assert np.isnan([alone[name] for name in ("growth_placebo", "beyond_low", "growth_other_kind")]).all()
    assert alone["growth"] == row["growth"] and not alone["backup"]
    for one in (before, after):
        one.lost[::2] = rng.normal(size=one.lost[::2].shape)
    (again,) = backup_rows(named, before, after, placebo, others, [(1, 0), (2, 3)], large)
    assert three_of(again, "growth") == three_of(row, "growth")
    assert not backup_rows(named, before, before, None, None, [(1, 0)], large)[0]["backup"]  # the control


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.5, 3), st.floats(-2, 2))
def test_what_a_round_tells_does_not_hang_on_the_order_of_pairs(seed: int, a: float, b: float) -> None:
    """But for its bootstrap, which draws pairs by number, and the halves that choose and measure the peak."""
    found = carried_so([0.0, 1.0, 2.0, 5.0], a=b + a, b=b, noise=0.3)
    form = carried_so([0.0] * 4, a=b, noise=0.3, seed=4)
    order = np.random.default_rng(seed).permutation(8)
    again, other_form = ({name: x[order] for name, x in one.items()} for one in (found, form))
    one, other = describe(found, found, form, 0), describe(again, again, other_form, 0)
    for name in ("transfer_layer", "answer_layer", "rule_layer", "shift", "rule_gain_low", "a_own_low", "gain_high"):
        assert one[name] == pytest.approx(other[name], nan_ok=True)
