"""Blocks: examples that do not see one another, against one masked pass a shot, and models that cannot be read so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES
from transformers import LlamaForCausalLM

from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import StatedError
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.models import Model
from bayes_icl.models.blocks import in_blocks, seen_in
from bayes_icl.models.prompts import encode_episode
from bayes_icl.tasks import load_tasks, under_designs

N = 6


def log_p_again(model: Model, one: Any, size: int) -> np.ndarray:
    """log P(answer) of a plain task by shot: the text up to it in one pass, under a mask made here."""
    found = []
    starts = [1, *one.answer_stop.values[:-1].tolist()]
    for shot in range(one.sizes["shot"]):
        ids = torch.tensor(one.tokens.values[: int(one.answer_stop[shot])], dtype=torch.long)[None]
        allowed = torch.zeros(ids.shape[1], ids.shape[1], dtype=torch.bool)
        allowed[:, 0] = True
        for i, begin in enumerate(starts[: shot + 1]):
            stop = int(one.answer_stop[i])
            first = starts[i // size * size] if i < shot else 0
            for place in range(begin, stop):
                allowed[place, first : place + 1] = True
        mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None]
        with torch.inference_mode():
            log_p = model.hf(input_ids=ids, attention_mask=mask).logits[0].double().log_softmax(-1)
        span = range(int(one.answer_start[shot]), int(one.answer_stop[shot]))
        found.append(sum(float(log_p[i - 1, ids[0, i]]) for i in span))
    return np.array(found)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("name", ["affine", "past_tense"])
def test_queries_see_all_examples_and_examples_their_block(tiny: Model, name: str, size: int) -> None:
    (task,) = under_designs(load_tasks([name]), [f"blocks:size={size}"], N)
    dataset = collect_curves(tiny, [task], n_shots=N, n_seqs=2, batch_size=2)
    found = dataset.log_p_correct.sel(readout="complement").isel(task=0)
    for seq in range(2):
        again = log_p_again(tiny, dataset.isel(task=0, seq=seq), size)
        np.testing.assert_allclose(found.values[seq], again, atol=1e-4, rtol=0)
    # The control: blocks of another size are other numbers, from the shot on at which they differ.
    other = log_p_again(tiny, dataset.isel(task=0, seq=0), 3)
    assert np.abs(found.values[0] - other)[size + 1 :].max() > 1e-2


@pytest.mark.parametrize("name", ["category", "affine", "past_tense", "coin", "markov"])
def test_one_block_is_the_plain_episode(tiny: Model, name: str) -> None:
    """All readouts, branches for labels and foils too; and one that holds no more than one example is not."""
    tasks = under_designs(load_tasks([name]), ["plain", f"blocks:size={N}", f"blocks:size={N + 5}", "blocks"], N)
    dataset = collect_curves(tiny, tasks, n_shots=N, n_seqs=2)
    plain, *same, apart = (dataset.log_odds.isel(task=i).values for i in range(4))
    for odds in same:
        np.testing.assert_allclose(odds, plain, atol=1e-4, rtol=0)
    assert np.abs(apart - plain)[..., :2].max() < 1e-4 and np.abs(apart - plain)[..., 2:].max() > 1e-2
    assert (dataset.correct[0] == dataset.correct[1]).all() and (dataset.tokens[0] == dataset.tokens[3]).all()
    assert tiny.branching.last == "over the cached blocks" and "over the cached blocks" in dataset.branches


@pytest.mark.real_model
def test_one_block_is_the_plain_episode_of_a_real_model(smollm2: Model) -> None:
    tasks = under_designs(load_tasks(["category"]), ["plain", "blocks:size=4", "blocks"], 4)
    dataset = collect_curves(smollm2, tasks, n_shots=4, n_seqs=1)
    np.testing.assert_allclose(dataset.log_odds[1], dataset.log_odds[0], atol=1e-3, rtol=0)
    assert float(abs(dataset.log_odds[2] - dataset.log_odds[0]).max()) > 0.1


def test_a_preamble_is_seen_by_all_blocks(tiny: Model) -> None:
    (coin,) = load_tasks(["coin"])
    prompt = in_blocks(encode_episode(coin, coin.episode(3, 0, 0), tiny.tokenizer), 2)
    assert prompt.blocks is not None and tiny.tokenizer.decode(prompt.tokens[1 : prompt.head]) == "Flips:"
    assert set(prompt.blocks[: prompt.head]) == {-1} and set(prompt.blocks[prompt.head :]) == {0, 1}
    seen = seen_in(prompt.blocks)
    last = int(prompt.answer_stop[2]) - 1  # the third example, alone in its block with the fourth
    assert np.flatnonzero(seen[last]).tolist() == [*range(prompt.head), *range(int(prompt.answer_start[2]), last + 1)]


# ------------------------------------------------------------------------------------------------- other models


def of_family(name: str, tiny: Model) -> Model:
    torch.manual_seed(0)
    return Model(FAMILIES[name](len(tiny.tokenizer)).eval(), tiny.tokenizer, name)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gpt_neox", "gemma2"])
def test_families_that_take_any_mask_are_read(tiny: Model, name: str) -> None:
    (task,) = under_designs(load_tasks(["category"]), ["blocks:size=2"], N)
    dataset = collect_curves(of_family(name, tiny), [task], n_shots=N, n_seqs=1, readouts=["complement"])
    again = log_p_again(of_family(name, tiny), dataset.isel(task=0, seq=0), 2)
    np.testing.assert_allclose(dataset.log_p_correct.values[0, 0, 0], again, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gpt_neo", "gemma3", "bloom"])
def test_families_that_do_not_are_refused(tiny: Model, name: str) -> None:
    (task,) = under_designs(load_tasks(["category"]), ["blocks"], N)
    with pytest.raises(StatedError, match=f"model '{name}' .* cannot keep examples in blocks apart"):
        collect_curves(of_family(name, tiny), [task], n_shots=N, n_seqs=1)
    collect_curves(of_family(name, tiny), load_tasks(["category"]), n_shots=N, n_seqs=1)  # the control: plain is read


class Forgetful(LlamaForCausalLM):
    """Takes a mask over a cache and drops it without one, so that all examples see one another."""

    def forward(self, *args: Any, attention_mask: Any = None, past_key_values: Any = None, **kwargs: Any) -> Any:
        if past_key_values is None:
            attention_mask = None
        return super().forward(*args, attention_mask=attention_mask, past_key_values=past_key_values, **kwargs)


def test_a_mask_that_is_dropped_is_noticed_by_what_examples_see(tiny: Model) -> None:
    hf = Forgetful(tiny.hf.config).eval()
    hf.load_state_dict(tiny.hf.state_dict())
    model = Model(hf, tiny.tokenizer, "forgetful")
    whole, apart = under_designs(load_tasks(["category"]), [f"blocks:size={N + 1}", "blocks"], N)
    collect_curves(model, [whole], n_shots=N, n_seqs=1)
    with pytest.raises(StatedError, match="another first block changes the others by"):
        collect_curves(model, [apart], n_shots=N, n_seqs=1)


def test_heads_of_episodes_in_blocks_are_refused(tiny: Model) -> None:
    (task,) = under_designs(load_tasks(["category"]), ["blocks"], N)
    dataset = collect_curves(tiny, [task], n_shots=N, n_seqs=1)
    with pytest.raises(StatedError, match="its examples do not see one another"):
        recorded_episodes(tiny, dataset, task.name)
