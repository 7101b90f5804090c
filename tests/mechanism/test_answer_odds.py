"""Whole answers and readouts of forms: exact weights of their steps, against logits in full and path integrals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import Gemma2Config, Gemma2ForCausalLM

from bayes_icl.attribute.effects import measure_effects
from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import readouts_of
from bayes_icl.mechanism.ablation import ablate_episode
from bayes_icl.mechanism.answer_odds import Asked, answer_log_odds, mean_weights, shot_log_odds, step_weights
from bayes_icl.mechanism.direct_effects import attribute_task, direct_effects, start_at, with_reference
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.mechanism.line_effects import LINE_COMPLETE
from bayes_icl.mechanism.total_effects import ShotMeans, read_without
from bayes_icl.models import Model, load_model
from bayes_icl.models.readouts import Vocabulary
from bayes_icl.tasks import load_tasks
from tests.handmade import class_task, counting_model, random_model, randomise

WHOLE: dict[str, Any] = {"token": None, "n_min": 1, "by_source": True, "with_means": False}
QUIET: dict[str, Any] = {"batch_size": 0, "parts": None, "progress": False}


@pytest.fixture(scope="module")
def curves(tiny: Model) -> xr.Dataset:
    """Answers of one to many tokens: digits, labels, words."""
    return collect_curves(tiny, load_tasks(["copy", "category", "past_tense"]), n_shots=4, n_seqs=3)


def effects_of(model: Model, curves: xr.Dataset, task: str, readout: str = "complement", **more: Any) -> xr.Dataset:
    """The effects format of one task, as `attribute` has it."""
    (one,) = measure_effects(model, curves, [task], readout=readout, **{**WHOLE, **QUIET, **more}).values()
    return one.effects.isel(task=0)


# ------------------------------------------------------------------------------------------------- weights of steps


def test_an_answer_is_the_product_of_its_steps_and_never_saturates() -> None:
    steps = torch.tensor([[0.3, -1.0, 2.0], [40.0, 50.0, 45.0], [-60.0, 1.0, 3.0]], dtype=torch.float64)
    real = torch.ones(3, 3, dtype=torch.bool)
    found = answer_log_odds(steps, real)
    np.testing.assert_allclose(found[0], torch.sigmoid(steps[0]).prod().logit(), rtol=1e-12)
    # Of likely answers the chances of error add up, where 1 - P would be 0.
    np.testing.assert_allclose(found[1], -torch.exp(-steps[1]).sum().log(), rtol=1e-9)
    np.testing.assert_allclose(found[2], -60 + torch.sigmoid(steps[2, 1:]).prod().log(), rtol=1e-9)
    real[:, 2] = False  # a step that is not there
    np.testing.assert_allclose(answer_log_odds(steps, real)[0], torch.sigmoid(steps[0, :2]).prod().logit())


def test_weights_are_slopes_and_their_means_make_the_change() -> None:
    """By autograd; over ways of up to 60 nats."""
    rng = np.random.default_rng(0)
    start, end = (torch.from_numpy(rng.normal(0, 12, (200, 5))) for _ in range(2))
    real = torch.from_numpy(rng.random((200, 5)) < 0.7)
    real[:, 0] = True
    leaf = end.clone().requires_grad_()
    answer_log_odds(leaf, real).sum().backward()
    torch.testing.assert_close(step_weights(end, real), leaf.grad, atol=1e-9, rtol=1e-9)
    moved = answer_log_odds(end, real) - answer_log_odds(start, real)
    added = (mean_weights(start, end, real) * torch.where(real, end - start, 0.0)).sum(1)
    assert float(((added - moved).abs() / moved.abs().clamp(min=1)).max()) < 1e-4


# ------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("readout", ["complement", "format", "rule", "parity"])
def test_numbers_are_read_exactly_as_collect_reads_them(tiny: Model, curves: xr.Dataset, readout: str) -> None:
    found = effects_of(tiny, curves, "copy", readout)
    np.testing.assert_allclose(found.log_odds, found.curve, atol=2e-5)
    parts = found.effect.sum(("layer", "head")) + found.mlp.sum("layer") + found.rest
    np.testing.assert_allclose(parts, found.log_odds, atol=2e-5)
    np.testing.assert_allclose(found.effect_by_source.sum("source"), found.effect, atol=2e-5)


def test_whole_answers_of_any_length_are_the_curve(tiny: Model, curves: xr.Dataset) -> None:
    """Words of four to nine tokens beside one another."""
    found = effects_of(tiny, curves, "past_tense")
    np.testing.assert_allclose(found.log_odds, found.curve, atol=2e-5)
    parts = found.effect.sum(("layer", "head")) + found.mlp.sum("layer") + found.rest
    np.testing.assert_allclose(parts, found.log_odds, atol=2e-5)
    together = effects_of(tiny, curves, "past_tense", batch_size=3)
    for name in ("effect", "effect_by_source", "mlp", "entropy", "line_head", "line_asked", "norm"):
        np.testing.assert_allclose(together[name], found[name], atol=2e-4)


def test_labels_are_read_where_they_part(tiny: Model, curves: xr.Dataset) -> None:
    """`rule` is the label against the others there, `format` any label against all else, the space before it too."""
    episodes = recorded_episodes(tiny, curves, "category", readout="rule")
    labels = {"a", "f"}
    for episode in recorded_episodes(tiny, curves, "category", readout="rule"):
        assert {tiny.token_texts[t] for t in episode.target.correct.tolist()} <= labels
    logits = tiny.plain(torch.from_numpy(episodes[0].prompt.tokens)[None]).logits[0].double().detach()
    at, correct = episodes[0].target.positions, episodes[0].target.correct
    a, f = (tiny.token_texts.index(text) for text in ("a", "f"))
    signs = np.where(correct == a, 1, -1)
    expected = signs * (logits[at, a] - logits[at, f]).numpy()
    np.testing.assert_allclose(shot_log_odds(logits[at].float(), episodes[0].target), expected, atol=1e-5)
    found = effects_of(tiny, curves, "category", "format")
    chances = logits.softmax(-1)
    space = tiny.token_texts.index(" ")
    form = chances[at - 1, space] * (chances[at, a] + chances[at, f])
    np.testing.assert_allclose(found.log_odds[0], form.logit(), atol=1e-4)


def test_what_cannot_be_had_is_refused_in_a_line(tiny: Model, curves: xr.Dataset) -> None:
    with pytest.raises(StatedError, match="do not all part at the same token"):
        recorded_episodes(tiny, curves, "past_tense", readout="rule")
    with pytest.raises(StatedError, match="parity is of numbers"):
        recorded_episodes(tiny, curves, "category", readout="parity")
    assert "rule" not in readouts_of(curves, "past_tense")


# ------------------------------------------------------------------------------------------------- brute force


def by_path_integral(model: Model, episode: Any, start: Any, shot: int, nodes: int = 100) -> np.ndarray:
    """What each block's heads and MLP add to one answer along the line, by autograd through norm and unembedding."""
    hf, own = model.plain, episode.target.shot == shot
    written: dict[str, list[torch.Tensor]] = {"attention": [], "mlp": [], "last": []}
    at = episode.target.positions[own]
    hooks = [
        module.register_forward_hook(
            lambda _, __, y, k=k: written[k].append((y[0] if isinstance(y, tuple) else y)[0, at])
        )
        for layer in hf.model.layers
        for k, module in (("attention", layer.self_attn), ("mlp", layer.mlp))
    ]
    hooks.append(hf.model.norm.register_forward_pre_hook(lambda _, x: written["last"].append(x[0][0, at])))
    with torch.no_grad():
        hf(torch.from_numpy(episode.prompt.tokens)[None])
    for hook in hooks:
        hook.remove()
    begin, end = start.writes.last[: len(at)], written["last"][0]
    target = episode.target._replace(
        positions=at,
        correct=episode.target.correct[own],
        of_shot=np.zeros(len(at), int),
        sets=None if episode.target.sets is None else tuple(np.array(episode.target.sets, object)[own].tolist()),
    )
    if target.sets is not None:
        target = target._replace(sets=tuple(s for s, here in zip(episode.target.sets, own) if here))
    asked = Asked.of([replace(episode, target=target)], len(model.token_texts), torch.device("cpu"))
    slopes = torch.zeros_like(end)
    for node in (np.arange(nodes) + 0.5) / nodes:
        line = (begin + node * (end - begin)).detach().requires_grad_()
        logits = hf.lm_head(hf.model.norm(line))
        asked.log_odds(logits).sum().backward()
        slopes += line.grad / nodes
    heads = [torch.einsum("thk,hkd->td", z[: len(at)], w) for z, w in zip(start.writes.z, model.anatomy.w_out)]
    moved = [a - z for a, z in zip(written["attention"], heads)]
    moved += [m - z[: len(at)] for m, z in zip(written["mlp"], start.writes.mlp)]
    return np.array([float((x * slopes).sum()) for x in moved])


@pytest.mark.parametrize("readout", ["complement", "rule"])
def test_effects_along_the_line_are_those_of_a_path_integral(tiny: Model, readout: str) -> None:
    """A random Llama, tokens of numbers: heads of a layer, and MLPs, of single shots."""
    model = random_model("llama", tiny)
    curves = collect_curves(model, load_tasks(["copy"]), n_shots=4, n_seqs=3)
    episodes = recorded_episodes(model, curves, "copy", readout=readout, whole=True)
    start = start_at(model.anatomy, episodes, 1)
    episodes = with_reference(episodes, start)
    line = direct_effects(model.anatomy, [episodes[1]], start=start).line
    assert line is not None
    for shot in (2, 4):
        brute = by_path_integral(model, episodes[1], start, shot)
        found = np.concatenate([line.head[shot].sum(1), line.mlp[shot]])
        np.testing.assert_allclose(found, brute, atol=2e-3)
        assert np.abs(brute).max() > 0.1  # there is something to compare


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma3"])
def test_parts_along_the_line_add_up(tiny: Model, name: str) -> None:
    """Norms of both kinds, biases, norms after attention."""
    model = random_model(name, tiny)
    curves = collect_curves(model, load_tasks(["copy"]), n_shots=3, n_seqs=3)
    found = effects_of(model, curves, "copy", by_source=False)
    size = np.maximum(1, np.abs(found.log_odds))
    assert float((np.abs(found.line_error) / size).max()) < LINE_COMPLETE
    parts = found.line_head.sum(("layer", "head")) + found.line_mlp.sum("layer") + found.line_rest + found.line_asked
    np.testing.assert_allclose(parts + found.line_error, found.log_odds, atol=1e-4)
    # At the mean stream itself nothing is moved on average.
    assert abs(float(found.line_head.sel(shot=1).mean("seq").sum())) < float(np.abs(found.line_head.sel(shot=3)).sum())


def test_a_soft_cap_is_in_the_slopes_of_the_line(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Capped hard, as Gemma 2 caps: without the slope of the cap parts do not add up."""
    config = Gemma2Config(
        vocab_size=len(tiny.token_texts), hidden_size=64, intermediate_size=96, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, final_logit_softcapping=0.5, max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(0)
    hf = Gemma2ForCausalLM(config).eval()
    randomise(hf)
    hf.lm_head.weight.data *= 5
    model = replace(tiny, hf=hf, name="gemma2")
    monkeypatch.setattr("bayes_icl.lens.watching._scale_of", lambda *_: 1.0)
    curves = collect_curves(model, load_tasks(["copy"]), n_shots=3, n_seqs=3)
    episodes = recorded_episodes(model, curves, "copy", whole=True)
    start = start_at(model.anatomy, episodes, 1)
    episodes = with_reference(episodes, start)

    def error() -> float:
        found = direct_effects(model.anatomy, episodes, start=start, by_source=False)
        assert found.line is not None
        return float(np.abs(found.line.error / np.maximum(1, np.abs(found.log_odds))).max())

    assert error() < LINE_COMPLETE
    monkeypatch.setattr("bayes_icl.mechanism.line_effects.soft_cap", lambda _: None)
    assert error() > 10 * LINE_COMPLETE


# ------------------------------------------------------------------------------------------------- known truths


def test_the_one_head_that_writes_is_found_under_both_conventions(tiny: Model) -> None:
    """A hand-built model counts labels with one head: the growth is that head's, and no MLP's."""
    model, task = counting_model(tiny), class_task()
    curves = collect_curves(model, [task], n_shots=8, n_seqs=8)
    found = effects_of(model, curves, task.name, "rule", by_source=False)
    names = ("effect", "mlp", "line_head", "line_mlp", "log_odds")
    grown = {name: (found[name].sel(shot=8) - found[name].sel(shot=1)).mean("seq") for name in names}
    largest = grown["effect"].argmax(("layer", "head"))
    assert {k: int(v) for k, v in largest.items()} == {
        k: int(v) for k, v in grown["line_head"].argmax(("layer", "head")).items()
    }
    for name, mlp in (("effect", "mlp"), ("line_head", "line_mlp")):
        of_head = float(grown[name].isel(largest))
        assert of_head > 0.5 * float(grown["log_odds"]) > 0
        assert np.abs(grown[mlp]).max() < 0.2 * of_head


def test_on_coin_the_whole_answer_is_its_one_token() -> None:
    """Its newline is certain, so effects on the whole answer are those on the symbol."""
    task = "organism_coin"
    model = load_model("organism:coin", "cpu")
    curves = collect_curves(model, load_tasks([task]), n_shots=8, n_seqs=6)
    whole = effects_of(model, curves, task, by_source=False)
    one = effects_of(model, curves, task, by_source=False, token=0)
    assert abs(whole.log_odds - one.log_odds).max() < 0.05
    np.testing.assert_allclose(whole.effect, one.effect, atol=0.05)
    np.testing.assert_allclose(whole.line_mlp, one.line_mlp, atol=0.1)


def test_heads_ablated_lose_of_the_whole_answer(tiny: Model, curves: xr.Dataset) -> None:
    """What is read without heads is the curve without them, and their direct effects go along the clean direction."""
    (one,) = measure_effects(
        tiny, curves, ["copy"], readout="complement", **WHOLE | {"with_means": True}, **QUIET
    ).values()
    assert one.means is not None
    episode, heads = one.episodes[1], [(0, 1), (1, 2)]
    read = ablate_episode(tiny, episode, {"top": heads}, one.means, Vocabulary(tiny.token_texts), apart=["top"])
    for own in (read[way]["top"] for way in read):
        np.testing.assert_allclose(own["log_odds"], own["curve"], atol=2e-5)
    clean = direct_effects(tiny.anatomy, [episode], by_source=False)
    again = direct_effects(tiny.anatomy, [episode], by_source=False, along=clean.direction)
    np.testing.assert_allclose(again.head, clean.head, atol=1e-5)
    without = read_without(tiny.anatomy, episode, [(0, 1)], ShotMeans(tiny.anatomy, one.episodes))
    np.testing.assert_allclose(without["none"], one.effects.log_odds.isel(task=0, seq=1), atol=2e-5)


def test_nothing_grows_in_an_organism_that_learns_nothing() -> None:
    """Neither convention has a head, or all of them, write anything by the examples."""
    task, model = "organism_constant", load_model("organism:constant", "cpu")
    curves = collect_curves(model, load_tasks([task]), n_shots=8, n_seqs=6)
    found = effects_of(model, curves, task, by_source=False)
    for name in ("effect", "line_head"):
        grown = (found[name].sel(shot=8) - found[name].sel(shot=1)).mean("seq")
        assert np.abs(grown).max() < 0.1 and abs(float(grown.sum())) < 0.2


def test_one_token_is_what_it_was_before_there_were_whole_answers(tiny: Model, curves: xr.Dataset) -> None:
    """A start changes nothing of one token's direct effects."""
    plain = attribute_task(tiny, curves, "copy", token=1)
    found = effects_of(tiny, curves, "copy", token=1)
    for name in ("effect", "mlp", "entropy", "rest", "log_odds", "effect_by_source", "norm"):
        np.testing.assert_array_equal(plain[name].isel(task=0), found[name])
