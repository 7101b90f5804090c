"""Mean-ablation: means by shot and place, passes with heads replaced by them, and what other parts repair."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import xarray as xr
from by_hand import attention_of, outputs
from handmade import AMOUNT, WRITER, class_task, counting_model, random_model

from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import StatedError
from bayes_icl.lens.edits import heads_replaced
from bayes_icl.lens.watching import watch
from bayes_icl.mechanism.ablation import ablate_episode, ablated_effects, edits_of, loss_apart
from bayes_icl.mechanism.direct_effects import attribute_task, direct_effects
from bayes_icl.mechanism.episodes import Episode, recorded_episodes
from bayes_icl.mechanism.head_names import Heads
from bayes_icl.mechanism.mean_outputs import TASK_MEANS, MeanOutputs
from bayes_icl.models import Model
from bayes_icl.models.readouts import Vocabulary
from bayes_icl.tasks import load_tasks

KINDS = ["llama", "gpt2", "gemma3"]
SETS: dict[str, Heads] = {"both": [(0, 1), (1, 2)], "late": [(1, 0)], "early": [(0, 0), (0, 3)]}


@pytest.fixture(scope="module")
def model_of(tiny: Model) -> Callable[[str], Model]:
    return functools.cache(lambda name: random_model(name, tiny))


@pytest.fixture(scope="module")
def curves_of(model_of: Callable[[str], Model]) -> Callable[[str], xr.Dataset]:
    tasks = load_tasks(["past_tense", "copy"])
    return functools.cache(lambda name: collect_curves(model_of(name), tasks, n_shots=3, n_seqs=3))


def with_means(
    model: Model, curves: xr.Dataset, task: str = "past_tense", readout: str = "complement"
) -> tuple[list[Episode], MeanOutputs]:
    episodes = recorded_episodes(model, curves, task, readout=readout)
    means = MeanOutputs(model.anatomy, episodes)
    attribute_task(model, curves, task, readout=readout, batch_size=2, means=means)
    return episodes, means


@pytest.mark.parametrize("task", ["past_tense", "copy"])
@pytest.mark.parametrize("name", KINDS)
def test_means_are_over_episodes_at_the_same_shot_and_place(
    model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset], name: str, task: str
) -> None:
    """Tokens counted from the answer of their shot; a place that one episode alone has keeps its own output."""
    model = model_of(name)
    episodes, means = with_means(model, curves_of(name), task)
    assert (len({len(e.prompt.tokens) for e in episodes}) > 1) == (task == "past_tense")
    sums: dict[tuple[int, int], list[list[torch.Tensor]]] = defaultdict(list)
    for episode in episodes:
        z = outputs(model, episode)
        for pos in range(len(episode.prompt.tokens)):
            # By hand: the shot whose answer ends after this token, and the distance from the answer's beginning.
            shot = next(i for i, stop in enumerate(episode.prompt.answer_stop) if pos < stop)
            key = (shot, pos - int(episode.prompt.answer_start[shot])) if pos else (-1, 0)
            sums[key].append([layer[pos] for layer in z])
    sizes = {len(x) for x in sums.values()}
    assert max(sizes) == 3 and (min(sizes) == 1) == (task == "past_tense")
    for episode in episodes:
        for layer in (0, 1):
            found = means.at(episode.seq, layer, [3, 1])
            assert found.shape[:3] == (1, len(episode.prompt.tokens), 2)
            for pos in range(len(episode.prompt.tokens)):
                shot = next(i for i, stop in enumerate(episode.prompt.answer_stop) if pos < stop)
                key = (shot, pos - int(episode.prompt.answer_start[shot])) if pos else (-1, 0)
                expected = torch.stack([x[layer] for x in sums[key]]).mean(0)[[3, 1]]
                torch.testing.assert_close(found[0, pos], expected, atol=1e-5, rtol=1e-5)
    kept = means.sums.clone()
    again = MeanOutputs(model.anatomy, episodes)
    assert not again.sums.any()
    again.restore(kept.numpy())
    assert torch.equal(again.at(1, 1, [2]), means.at(1, 1, [2]))


def log_odds_by_hand(
    model: Model, episode: Episode, heads: Heads, means: MeanOutputs, positions: Sequence[int], tokens: Sequence[int]
) -> np.ndarray:
    """A whole forward with the heads' columns of the projection's input overwritten; log-odds in float64."""
    handles = []
    for layer, head in heads:
        mean = means.at(episode.seq, layer, [head])[0, :, 0]

        def replace(_: object, args: tuple, head: int = head, mean: torch.Tensor = mean) -> tuple:
            x = args[0].clone()
            size = mean.shape[1]
            x[0, :, head * size : (head + 1) * size] = mean
            return (x,)

        handles.append(attention_of(model)[layer][1].register_forward_pre_hook(replace))
    with torch.inference_mode():
        logits = model.hf(torch.from_numpy(episode.prompt.tokens)[None], use_cache=False).logits[0].double()
    for handle in handles:
        handle.remove()
    log_p = logits.log_softmax(-1)[list(positions), list(tokens)].numpy()
    return log_p - np.log1p(-np.exp(log_p))


@pytest.mark.parametrize("name", KINDS)
def test_ablated_log_odds_are_those_of_a_plain_hooked_run(
    model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset], name: str
) -> None:
    """And those that the ablated effects add up to; the curve is that of the whole answer."""
    model = model_of(name)
    episodes, means = with_means(model, curves_of(name))
    vocabulary = Vocabulary(model.token_texts)
    for episode in episodes[:2]:
        clean = direct_effects(model.anatomy, [episode]).log_odds
        found = ablate_episode(model, episode, SETS, means, vocabulary)["mean"]
        target, prompt = episode.target, episode.prompt
        for key, heads in SETS.items():
            expected = log_odds_by_hand(model, episode, heads, means, target.positions, target.correct)
            np.testing.assert_allclose(found[key]["log_odds"], expected, atol=2e-5)
            parts = ablated_effects(model, episode, heads, means)
            np.testing.assert_allclose(parts.log_odds, found[key]["log_odds"], atol=2e-5)
            np.testing.assert_allclose(parts.error, 0, atol=1e-4)
            assert np.abs(expected - clean).max() > 1e-3  # the control: something goes
            # The chain rule over the tokens of each answer.
            for shot in range(4):
                span = np.arange(prompt.answer_start[shot], prompt.answer_stop[shot])
                odds = log_odds_by_hand(model, episode, heads, means, span - 1, prompt.tokens[span])
                log_p = -np.logaddexp(0, -odds).sum()
                curve = log_p - np.log(-np.expm1(log_p))
                assert found[key]["curve"][shot] == pytest.approx(curve, abs=1e-4)


def test_ablated_foil_log_odds_are_differences_of_logits(
    model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset]
) -> None:
    model = model_of("llama")
    episodes, means = with_means(model, curves_of("llama"), readout="foil")
    found = ablate_episode(model, episodes[0], SETS, means, Vocabulary(model.token_texts))["mean"]
    for key, heads in SETS.items():
        parts = ablated_effects(model, episodes[0], heads, means)
        np.testing.assert_allclose(found[key]["log_odds"], parts.log_odds, atol=2e-5)
        assert not parts.entropy.any()


@pytest.mark.parametrize("name", KINDS)
def test_means_of_one_episode_change_nothing(
    model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset], name: str
) -> None:
    model, curves = model_of(name), curves_of(name)
    episodes, means = with_means(model, curves.isel(seq=[1]))
    found = ablate_episode(model, episodes[0], SETS, means, Vocabulary(model.token_texts))["mean"]
    clean = attribute_task(model, curves, "past_tense").isel(task=0, seq=1)
    curve = curves.log_odds.sel(task="past_tense", readout="complement").values[1]
    for one in found.values():
        np.testing.assert_allclose(one["log_odds"], clean.log_odds, atol=2e-5)
        np.testing.assert_allclose(one["curve"], curve, atol=2e-5)
    parts = ablated_effects(model, episodes[0], SETS["both"], means)
    np.testing.assert_allclose(parts.head, clean.effect, atol=2e-5)


def test_the_order_of_heads_and_of_sets_does_not_matter(
    model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset]
) -> None:
    model = model_of("llama")
    episodes, means = with_means(model, curves_of("llama"))
    vocabulary = Vocabulary(model.token_texts)
    heads: list[tuple[int, int]] = [(1, 3), (0, 2), (1, 0), (0, 1)]
    found = ablate_episode(model, episodes[0], {"a": heads, "b": heads[::-1], "c": [(1, 3)]}, means, vocabulary)["mean"]
    assert found["a"]["log_odds"] == found["b"]["log_odds"] != found["c"]["log_odds"]
    np.testing.assert_allclose(found["a"]["taken"], found["b"]["taken"], atol=1e-6)
    alone = ablate_episode(model, episodes[0], {"c": [(1, 3)]}, means, vocabulary)["mean"]
    np.testing.assert_allclose(alone["c"]["log_odds"], found["c"]["log_odds"], atol=1e-6)


def test_no_heads_are_stated(model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset]) -> None:
    model = model_of("llama")
    episodes, means = with_means(model, curves_of("llama"))
    with pytest.raises(StatedError, match="no heads to ablate"):
        edits_of([], means, 0)
    with pytest.raises(StatedError, match="no heads to ablate"):
        ablated_effects(model, episodes[0], [], means)
    with pytest.raises(StatedError, match="no heads to ablate"):
        # Fails where the first layer of the set is looked for before.
        ablate_episode(model, episodes[0], {**SETS, "none": []}, means, Vocabulary(model.token_texts))


@pytest.mark.parametrize("name", KINDS)
def test_an_ablated_head_says_nothing_of_its_episode(
    model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset], name: str
) -> None:
    """Its output at the answers is the same in all episodes, wherever all episodes have such a place."""
    model = model_of(name)
    episodes, means = with_means(model, curves_of(name))
    heads: Heads = [(0, 1), (1, 2)]
    ablated, clean = [], []
    for episode in episodes[:2]:
        clean.append(watch(model.anatomy, [episode.prompt.tokens], episode.target.positions[None]).z)
        with heads_replaced(model.anatomy, edits_of(heads, means, episode.seq)):
            ablated.append(watch(model.anatomy, [episode.prompt.tokens], episode.target.positions[None]).z)
    for layer, head in heads:
        assert torch.equal(ablated[0][layer][:, head], ablated[1][layer][:, head])
        assert (clean[0][layer][:, head] - clean[1][layer][:, head]).abs().max() > 1e-3  # the control
    # Heads above that are left alone answer to the change; those beside the ablated one in the first layer cannot.
    assert torch.allclose(ablated[0][0][:, 0], clean[0][0][:, 0], atol=1e-6)
    assert (ablated[0][1][:, 0] - clean[0][1][:, 0]).abs().max() > 1e-4


@pytest.mark.parametrize("way", TASK_MEANS)
@pytest.mark.parametrize("readout", ["complement", "foil"])
@pytest.mark.parametrize("name", KINDS)
def test_a_loss_is_taken_apart(
    model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset], name: str, readout: str, way: str
) -> None:
    """lost = taken - repaired; heads that cannot react do not, which another direction would hide."""
    model = model_of(name)
    episodes, means = with_means(model, curves_of(name), readout=readout)
    episode = episodes[2]
    clean = direct_effects(model.anatomy, [episode], by_source=False)
    sets: dict[str, Heads] = {**SETS, "last": [(1, 0), (1, 2)]}
    found = ablate_episode(model, episode, sets, means, Vocabulary(model.token_texts), apart=list(sets))[way]
    for key, heads in sets.items():
        ablated = ablated_effects(model, episode, heads, means, way, along=clean.direction)
        taken = np.array(found[key]["taken"])
        apart = loss_apart(clean, ablated, heads, taken)
        lost = clean.log_odds - np.array(found[key]["log_odds"])
        np.testing.assert_allclose(lost, taken - sum(apart.values()), atol=1e-4)
        # With a norm after attention, taking heads away changes its scale too.
        if name != "gemma3":
            expected = sum(clean.head[:, i, j] - ablated.head[:, i, j] for i, j in heads)
            np.testing.assert_allclose(taken, expected, atol=1e-5)
        for part, x in apart.items():
            np.testing.assert_allclose(found[key][part], x, atol=1e-6)
    if name != "gemma3":
        np.testing.assert_allclose(found["last"]["other_heads"], 0, atol=1e-5)
        own = ablated_effects(model, episode, sets["last"], means, way)  # the control: along its own direction
        others = [(i, j) for i in (0, 1) for j in range(4) if (i, j) not in sets["last"]]
        assert np.abs(sum(own.head[:, i, j] - clean.head[:, i, j] for i, j in others)).max() > 1e-4


def test_held_heads_have_one_output_at_every_shot(
    model_of: Callable[[str], Model], curves_of: Callable[[str], xr.Dataset]
) -> None:
    """The mean over episodes and shots by hand; at the mean over episodes they differ between shots."""
    model = model_of("llama")
    episodes, means = with_means(model, curves_of("llama"))
    outs = {e.seq: outputs(model, e) for e in episodes}
    at = [e.target.positions for e in episodes]
    expected = torch.cat([outs[e.seq][1][p][:, 2] for e, p in zip(episodes, at)]).mean(0)
    held = means.at(0, 1, [2], "mean_over_shots")[0, at[0], 0]
    torch.testing.assert_close(held, expected.expand_as(held), atol=1e-5, rtol=1e-5)
    assert means.at(0, 1, [2])[0, at[0], 0].std(0).max() > 1e-3
    norm = attribute_task(model, curves_of("llama"), "past_tense")["norm"].values[0]
    off = torch.stack([outs[e.seq][1][p][:, 2] for e, p in zip(episodes, at)]).flatten(0, 1) - expected
    by_hand = float(((off @ model.anatomy.w_out[1][2]) ** 2).sum(-1).mean().sqrt())
    assert means.taken_norm(model.anatomy, episodes, norm)[1, 2] == pytest.approx(by_hand, rel=1e-3)


def test_ablating_the_head_that_counts_takes_the_update(tiny: Model) -> None:
    """What the built head adds is gone; another head, ablated, takes nothing."""
    model = counting_model(tiny)
    curves = collect_curves(model, [class_task()], n_shots=8, n_seqs=12, readouts=["complement"])
    episodes, means = with_means(model, curves, "classes")
    clean = attribute_task(model, curves, "classes")
    sets: dict[str, Heads] = {"writer": [WRITER], "other": [(WRITER[0], 0)]}
    vocabulary = Vocabulary(model.token_texts)
    found = [ablate_episode(model, episode, sets, means, vocabulary)["mean"] for episode in episodes]
    log_odds = {key: np.array([one[key]["log_odds"] for one in found]) for key in sets}
    effect = clean.effect.sel(layer=WRITER[0], head=WRITER[1]).values[0]
    lost = clean.log_odds.values[0] - log_odds["writer"]
    # The mean over episodes of what it writes stays, half of it for either label, and beside one label alone it is
    # worth what is written for the answer.
    shots = np.arange(9)
    np.testing.assert_allclose((effect - lost).mean(0), AMOUNT * shots / 4, atol=0.5)
    assert np.corrcoef(effect[:, 8], lost[:, 8])[0, 1] > 0.95
    taken = clean.log_odds.values[0] - log_odds["other"]
    assert np.abs(taken.mean(0)).max() < 0.25 and lost[:, 8].mean() > 1
