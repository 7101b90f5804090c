"""Total effects: known amounts of hand-built models, gates moved by hand, heads ablated, completeness."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from handmade import AVERAGE_SINK, CEILING, WRITER, averaging_model, class_task, random_model, through_model

from bayes_icl.collect import collect_curves
from bayes_icl.mechanism import total_effects as module
from bayes_icl.mechanism.ablation import ablate_episode
from bayes_icl.mechanism.direct_effects import direct_effects
from bayes_icl.mechanism.episodes import Episode, recorded_episodes
from bayes_icl.mechanism.mean_outputs import MeanOutputs
from bayes_icl.mechanism.total_effects import SOURCES, ShotMeans, read_without, total_effects
from bayes_icl.models import Model
from bayes_icl.models.prompts import ROLES
from bayes_icl.models.readouts import Vocabulary
from bayes_icl.tasks import Task, load_tasks

N, SEQS = 8, 4
CONSTANT = class_task("constant", labels=("x",))


def episodes_of(model: Model, task: Task, readout: str = "foil", n_seqs: int = SEQS) -> list[Episode]:
    curves = collect_curves(model, [task], n_shots=N, n_seqs=n_seqs, readouts=(readout,))
    return recorded_episodes(model, curves, task.name, readout=readout)


def line() -> np.ndarray:
    """Weights of a least-squares slope from n = 1 on."""
    n = np.arange(N + 1.0)
    away = np.where(n >= 1, n - n[1:].mean(), 0)
    return away / (away @ n)


def direct_slopes(model: Model, episodes: Sequence[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """What heads write of delta beyond what they would write at their reference, and what MLPs write."""
    means, heads, mlps = ShotMeans(model.anatomy, episodes), [], []
    for episode in episodes:
        parts = direct_effects(model.anatomy, [episode], by_source=False)
        heads.append(np.einsum("r,rlh->lh", line(), parts.head))
        mlps.append(line() @ parts.mlp)
        for layer, seen in enumerate(parts.seen):
            for head in range(model.anatomy.n_heads):
                at_zero = means.edits(episode, [(layer, head)])[layer][1][0, episode.target.positions, 0]
                written = ((at_zero - model.anatomy.value_bias[layer][head]) * seen[:, head]).sum(-1)
                heads[-1][layer, head] -= line() @ written.numpy()
    return np.array(heads), np.array(mlps)


@pytest.fixture(scope="module")
def through(tiny: Model) -> tuple[Model, list[Episode]]:
    model = through_model(tiny)
    with torch.no_grad():
        model.plain.model.layers[0].self_attn.o_proj.weight.zero_()  # no head reads what another writes
    return model, episodes_of(model, CONSTANT, n_seqs=6)


# ------------------------------------------------------------------------------------------------- known amounts


def test_a_head_that_writes_through_an_mlp_has_it_all_in_total(through: tuple[Model, list[Episode]]) -> None:
    """The head adds CEILING n/(n + c) nats by way of the MLP: nothing by what it writes itself, all in total."""
    model, episodes = through
    means = ShotMeans(model.anatomy, episodes)
    found = total_effects(model.anatomy, episodes, means, line(), by_source=True)
    heads, mlps = direct_slopes(model, episodes)
    delta = found.full.mean()
    expected = line() @ (CEILING * np.arange(N + 1) / (np.arange(N + 1) + AVERAGE_SINK))
    assert delta == pytest.approx(expected, rel=0.2)  # its scores and values vary
    assert abs(heads.mean(0)[WRITER]) < 0.05 * delta and abs(mlps.mean(0)[WRITER[0]] - delta) < 0.05 * delta
    others = found.head.mean(0).copy()
    others[WRITER] = 0
    assert abs(found.head.mean(0)[WRITER] - delta) < 0.05 * delta and np.abs(others).max() < 0.05 * delta
    assert (found.error < 1e-4).all() and found.by_source is not None
    from_answers = found.by_source.mean(0)[WRITER][SOURCES.index("examples"), ROLES.index("answer")]
    assert abs(from_answers - delta) < 0.1 * delta


def test_gates_on_mlps_share_what_an_mlp_makes_of_a_head(through: tuple[Model, list[Episode]]) -> None:
    """One head and one MLP in a row: half each, since neither adds anything without the other."""
    model, episodes = through
    found = total_effects(model.anatomy, episodes, ShotMeans(model.anatomy, episodes), line(), steps=16, mlps=True)
    assert found.mlp is not None
    delta = (found.full - found.reference).mean()
    assert abs(found.head.mean(0)[WRITER] / delta - 0.5) < 0.1 and abs(found.mlp.mean(0)[WRITER[0]] / delta - 0.5) < 0.1


def test_gradients_and_ablation_agree_where_heads_act_alone(through: tuple[Model, list[Episode]]) -> None:
    """Nothing that a head adds depends on another, so that its loss is its total effect, in every sequence."""
    model, episodes = through
    means = ShotMeans(model.anatomy, episodes)
    found = total_effects(model.anatomy, episodes[:3], means, line(), steps=16)
    for i, episode in enumerate(episodes[:3]):
        read = read_without(model.anatomy, episode, [WRITER, (0, 1)], means)
        lost = line() @ (read["none"] - read[f"L{WRITER[0]}H{WRITER[1]}"])
        assert lost == pytest.approx(found.head[i][WRITER], rel=0.03)
        assert line() @ (read["none"] - read["L0H1"]) == pytest.approx(found.head[i, 0, 1], abs=0.003)


def test_in_attention_alone_total_is_direct(tiny: Model) -> None:
    """One layer of attention, norms that stay as they are: a head adds what it writes, in every sequence."""
    model = averaging_model(tiny)
    with torch.no_grad():
        for layer in model.plain.model.layers:
            layer.mlp.down_proj.weight.zero_()
        model.plain.model.layers[0].self_attn.o_proj.weight.zero_()
    episodes = episodes_of(model, CONSTANT)
    found = total_effects(model.anatomy, episodes, ShotMeans(model.anatomy, episodes), line(), steps=4, by_source=True)
    heads, _ = direct_slopes(model, episodes)
    close = 0.005 * found.full.mean()
    assert found.full.mean() > 0.2 and found.by_source is not None
    np.testing.assert_allclose(found.head, heads, atol=close)
    for episode, split in zip(episodes, found.by_source):
        places = direct_effects(model.anatomy, [episode]).by_place
        assert places is not None
        at = places[..., 1:].reshape(*places.shape[:3], N + 1, len(ROLES))
        earlier = np.tri(N + 1, k=-1)  # at shot n the examples are shots 0 to n - 1
        np.testing.assert_allclose(split[..., 0, :].sum(-1), np.einsum("r,rlh->lh", line(), places[..., 0]), atol=close)
        examples = np.einsum("r,rlhsk,rs->lhk", line(), at, earlier)
        np.testing.assert_allclose(split[..., 1, :], examples, atol=close)
        own = np.einsum("r,rlhrk->lhk", line(), at)
        np.testing.assert_allclose(split[..., 2, :], own, atol=close)


# ------------------------------------------------------------------------------------------------- random models


def delta_with_gates(model: Model, episode: Episode, means: ShotMeans, gates: np.ndarray) -> float:
    """Delta with heads' gates set by hooks of this test's own; shape (layer, head)."""
    anatomy = model.anatomy
    n_heads = anatomy.n_heads

    def hook(layer: int, _: Any, args: tuple) -> tuple:
        z = args[0].unflatten(-1, (n_heads, -1))
        at_zero = means.edits(episode, [(layer, h) for h in range(n_heads)])[layer][1]
        gate = torch.from_numpy(gates[layer]).float()[:, None]
        return ((gate * z + (1 - gate) * at_zero).flatten(-2),)

    with contextlib.ExitStack() as stack, torch.inference_mode():
        for layer in range(anatomy.n_layers):
            stack.enter_context(anatomy.outs[layer].register_forward_pre_hook(partial(hook, layer)))
        logits = model.plain(torch.from_numpy(episode.prompt.tokens)[None]).logits[0, episode.target.positions].double()
    log_p = logits.log_softmax(-1)[np.arange(N + 1), episode.target.correct]
    return float(torch.from_numpy(line()) @ (log_p - (1 - log_p.exp()).log()))


def test_gradients_are_those_of_gates_moved_by_hand(tiny: Model) -> None:
    """Every head's gate by central differences at the same nodes."""
    (task,) = load_tasks(["category"])
    episodes = episodes_of(tiny, task, "complement", 2)
    means, steps, step = ShotMeans(tiny.anatomy, episodes), 3, 0.02
    found = module._Run.of(tiny.anatomy, episodes[:1], means, line(), False, False).integrate(steps)
    shape = found.head.shape[1:]
    expected = np.zeros(shape)
    for node, share in zip(*np.polynomial.legendre.leggauss(steps)):
        for at in np.ndindex(*shape):
            ends = []
            for sign in (1, -1):
                gates = np.full(shape, (node + 1) / 2)
                gates[at] += sign * step
                ends.append(delta_with_gates(tiny, episodes[0], means, gates))
            expected[at] += share / 2 * (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(found.head[0], expected, atol=0.02 * np.abs(expected).max())
    one, zero = (delta_with_gates(tiny, episodes[0], means, np.full(shape, x)) for x in (1.0, 0.0))
    assert (found.full[0], found.reference[0]) == pytest.approx((one, zero), abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma3"])
def test_contributions_add_up_in_every_family(name: str, tiny: Model) -> None:
    """Heads alone and with MLPs; a batch gives what its episodes give; the weights are left as they were."""
    model = random_model(name, tiny)
    (task,) = load_tasks(["category"])
    episodes = episodes_of(model, task, "complement", 2)
    means, anatomy = ShotMeans(model.anatomy, episodes), model.anatomy
    alone = [total_effects(anatomy, [e], means, line(), steps=16, by_source=True) for e in episodes]
    together = total_effects(anatomy, episodes, means, line(), steps=16, by_source=True)
    joint = total_effects(anatomy, episodes, means, line(), steps=16, mlps=True)
    assert together.by_source is not None and joint.mlp is not None
    np.testing.assert_allclose(np.concatenate([one.head for one in alone]), together.head, atol=1e-5)
    split = np.concatenate([one.by_source for one in alone if one.by_source is not None])
    np.testing.assert_allclose(split, together.by_source, atol=1e-5)
    for one in (together, joint):
        assert one.error.max() < 0.01
        added = one.head.sum((1, 2)) + (0 if one.mlp is None else one.mlp.sum(1))
        np.testing.assert_allclose(added, one.full - one.reference, atol=0.02 * np.abs(line()).sum())
    np.testing.assert_allclose(joint.full, together.full, atol=1e-5)
    assert all(p.requires_grad for p in model.plain.parameters()) and not any(
        p.grad is not None for p in model.plain.parameters()
    )


def test_what_does_not_add_up_is_taken_again(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With twice the nodes, and those episodes only."""
    (task,) = load_tasks(["category"])
    episodes = episodes_of(tiny, task, "complement", 3)
    means = ShotMeans(tiny.anatomy, episodes)
    rough = total_effects(tiny.anatomy, episodes, means, line(), steps=16)  # at most that many: as they are
    assert (rough.steps == 16).all()
    least = total_effects(tiny.anatomy, episodes, means, line(), steps=2)
    monkeypatch.setattr(module, "COMPLETE", float(np.median(least.error)))
    found = total_effects(tiny.anatomy, episodes, means, line(), steps=2)
    assert (found.steps > 2).any() and (found.steps == 2).any()


def test_heads_read_one_by_one_are_those_ablated_over_shots(tiny: Model) -> None:
    """The exact way is `ablate_episode`'s, by another road."""
    (task,) = load_tasks(["category"])
    episodes = episodes_of(tiny, task, "complement", 3)
    means, over = MeanOutputs(tiny.anatomy, episodes), ShotMeans(tiny.anatomy, episodes)
    for episode in episodes:
        direct_effects(tiny.anatomy, [episode], by_source=False, on_z=means.taking([episode]))
    heads = [(1, 2), (0, 3)]
    sets = {f"L{layer}H{head}": [(layer, head)] for layer, head in heads}
    vocabulary = Vocabulary(tiny.token_texts)
    expected = ablate_episode(tiny, episodes[1], sets, means, vocabulary, ways=["mean_over_shots"])["mean_over_shots"]
    read = read_without(tiny.anatomy, episodes[1], heads, over)
    for name in sets:
        np.testing.assert_allclose(read[name], expected[name]["log_odds"], atol=1e-5)
        assert np.abs(read[name] - read["none"]).max() > 1e-3
