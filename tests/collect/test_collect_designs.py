"""Designs as they are read: the text shows one answer, and the log-odds are another's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from bayes_icl.collect import CollectSettings, collect_curves, main
from bayes_icl.collect.command import _fields
from bayes_icl.collect.interactive import _episode_words
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import read_curves
from bayes_icl.mechanism.episodes import recorded_episodes
from bayes_icl.models import Model
from bayes_icl.models.prompts import encode_episode
from bayes_icl.models.readouts import EpisodeReading, Vocabulary
from bayes_icl.tasks import Example, Task, load_tasks, under_designs

N = 6


def spelled_out(model: Model, task: Task, examples: tuple[Example, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Buckets (readout, shot, 2) and greedy decoding, from an episode a shot in which nothing branches for designs.

    What was shown stands there as each example's own answer, and the last has the answer that is asked.
    """
    buckets, correct = [], []
    for n, asked in enumerate(examples):
        before = [Example(e.query, e.written, e.foil if e.written != e.foil else e.answer) for e in examples[:n]]
        prompt = encode_episode(task, [*before, replace(asked, shown="")], model.tokenizer)
        reading = EpisodeReading(task, prompt, task.readouts, Vocabulary(model.token_texts))
        own, branched = model.logits_at(
            [prompt.tokens], [reading.positions], [prompt.branches], [reading.branch_positions]
        )
        values, right = reading.read(torch.cat([own, branched]))
        buckets.append(values[:, n])
        correct.append(right[n])
    return np.stack(buckets, axis=1), np.array(correct)


@pytest.mark.parametrize("name", ["category", "affine", "past_tense"])
def test_what_is_read_is_the_answer_whatever_is_shown(tiny: Model, name: str) -> None:
    """All readouts, numbers of several tokens too, against a plain episode for every shot."""
    (task,) = under_designs(load_tasks([name]), ["noise:p=0.5"], N)
    dataset = collect_curves(tiny, [task], n_shots=N, n_seqs=2)
    differ = dataset.shown != dataset.answer
    assert 3 < int(differ.sum()) < 14 and bool((dataset.shown == dataset.foil).where(differ, True).all())
    for seq in range(2):
        buckets, correct = spelled_out(tiny, task, task.episode(N, 0, seq))
        for which, found in enumerate((dataset.log_p_correct, dataset.log_p_incorrect)):
            np.testing.assert_allclose(found.isel(task=0, seq=seq).values, buckets[..., which], atol=1e-4, rtol=0)
        assert dataset.correct.values[0, seq].tolist() == correct.tolist()
    # The control: the answer that is shown has another probability.
    swapped = [replace(e, answer=e.foil, foil=e.answer, shown="") for e in task.episode(N, 0, 0)]
    other, _ = spelled_out(tiny, replace(task, design=None), tuple(swapped))
    assert np.abs(other[..., 0] - dataset.log_p_correct.isel(task=0, seq=0).values).max() > 1e-2


@pytest.mark.real_model
def test_greedy_decoding_is_of_the_answer_on_a_real_model(smollm2: Model) -> None:
    """After three examples of the other rule the model says the foil, and `correct` is still about the answer."""
    (task,) = under_designs(load_tasks(["category"]), ["switch:at=1"], 4)
    dataset = collect_curves(smollm2, [task], n_shots=4, n_seqs=1, readouts=["complement", "foil"])
    buckets, correct = spelled_out(smollm2, replace(task, form="free", labels=()), task.episode(4, 0, 0))
    np.testing.assert_allclose(dataset.log_odds.values[0, :, 0], buckets[..., 0] - buckets[..., 1], atol=1e-3, rtol=0)
    assert dataset.correct.values[0, 0].tolist() == correct.tolist()


def test_the_file_says_what_was_shown_and_by_which_design(tiny: Model) -> None:
    specs = ["plain", "noise:p=0.4", "orders:k=2,first=3"]
    tasks = under_designs(load_tasks(["category", "past_tense"]), specs, N)
    dataset = collect_curves(tiny, tasks, n_shots=N, n_seqs=4, seed=2, readouts=["foil"])
    noisy = "category+noise(p=0.4)"
    assert dataset.task.values.tolist()[:3] == ["category", noisy, "category+orders(k=2,first=3)"]
    assert dataset.base.values.tolist() == ["category"] * 3 + ["past_tense"] * 3
    assert dataset["design"].values.tolist() == ["plain", "noise:p=0.4", "orders:k=2,first=3,p=0.5"] * 2
    assert dataset["set"].values.tolist() == [[-1] * 4, [-1] * 4, [0, 0, 1, 1]] * 2
    for task in tasks:
        for seq in range(4):
            one = dataset.sel(task=task.name, seq=seq)
            signs = [1 if a == s else -1 for a, s in zip(one.answer.values, one.shown.values)]
            assert one.history.values.tolist() == signs
            for shot in range(N + 1):
                shown = one.tokens.values[int(one.answer_start[shot]) : int(one.answer_stop[shot])]
                assert tiny.tokenizer.decode(shown) == f" {one.shown.values[shot]}\n"
    assert (dataset.history.sel(task="category") == 1).all() and (dataset.history.sel(task=noisy) == -1).any()
    observer = dataset.observer.sel(task=noisy)
    assert np.isfinite(observer).all() and (observer.isel(shot=0) == 0).all() and observer.attrs["units"] == "nats"
    np.testing.assert_allclose(dataset.evidence.sel(task=noisy).values[:, 1:], np.diff(observer.values), atol=1e-15)
    assert dataset.observer.sel(task="category").isnull().all()
    # Who hovers over a point is told where the text shows something else than the answer.
    told = [words for words in _episode_words(dataset, noisy, range(4)) if words is not None]
    assert ["the text shows" in words for words in told] == (
        dataset.history.sel(task=noisy).values < 0
    ).ravel().tolist()
    assert dataset["query"].sel(task=noisy).equals(dataset["query"].sel(task="category").assign_coords(task=noisy))


def test_a_text_before_the_examples_stands_there_once_and_moves_the_rest(tiny: Model) -> None:
    tasks = under_designs(load_tasks(["category"]), ["plain", "prior:text=Sort the words."], N)
    dataset = collect_curves(tiny, tasks, n_shots=N, n_seqs=2, readouts=["complement"])
    plain, prior = (dataset.isel(task=i, seq=0) for i in (0, 1))
    texts = [tiny.tokenizer.decode([t for t in one.tokens.values if t >= 0]) for one in (plain, prior)]
    assert texts[1].count("Sort the words.\n") == 1
    assert texts[1].replace("Sort the words.\n", "") == texts[0]
    moved = prior.answer_start - plain.answer_start
    assert (moved == moved[0]).all() and moved[0] > 0
    for shot in range(N + 1):
        at = slice(int(prior.query_start[shot]), int(prior.query_stop[shot]))
        assert tiny.tokenizer.decode(prior.tokens.values[at]).strip() == prior["query"].values[shot]
    assert float(abs(prior.log_odds - plain.log_odds).max()) > 1e-3


def test_heads_and_patches_are_of_plain_episodes(tiny: Model) -> None:
    specs = ["plain", "noise:p=0.5", "prior:text=Hm.", "repeat:times=2"]
    tasks = under_designs(load_tasks(["category"]), specs, N)
    dataset = collect_curves(tiny, tasks, n_shots=N, n_seqs=2)
    with pytest.raises(StatedError, match=r"'category\+noise\(p=0.5\)' .*: its examples show other answers than those"):
        recorded_episodes(tiny, dataset, "category+noise(p=0.5)")
    with pytest.raises(StatedError, match=r"'category\+prior\(text=Hm.\)' .*: a text stands before its examples"):
        recorded_episodes(tiny, dataset, "category+prior(text=Hm.)")
    for name in ("category", "category+repeat(times=2)"):
        assert len(recorded_episodes(tiny, dataset, name)) == 2


# ------------------------------------------------------------------------------------------------- the command


def test_files_of_before_designs_keep_their_keys() -> None:
    """The fields that stood in a key then, of a task that needs none of the later ones."""
    before = ["name", "pool", "template", "form", "labels", "features", "foils", "shuffled", "repeats"]
    (task,) = load_tasks(["category"])
    assert list(_fields(task, N)) == before
    assert _fields(task, N)["pool"][0] == {"query": task.pool[0].query, "answer": task.pool[0].answer, "foil": ""}
    (noisy,) = under_designs([task], ["noise"], N)
    assert _fields(noisy, N) == _fields(task, N) | {
        "name": noisy.name, "design": "noise:p=0.2", "base": "category"
    }  # fmt: skip


def test_the_command_reads_every_task_under_every_design(tmp_path: Path) -> None:
    text = "Sort the words.\nThere are two groups."
    settings = CollectSettings(
        model="tiny", tasks=("category", "past_tense"), design=("plain", f"prior:text={text}"),
        n_shots=4, n_seqs=2, device="cpu", out=tmp_path / "c.nc",
    )  # fmt: skip
    assert main(settings) == 0
    dataset = read_curves(settings.out)
    assert dataset.sizes["task"] == 4
    assert dataset["design"].values.tolist() == ["plain", f"prior:text={text}"] * 2
    assert json.loads(dataset.attrs["provenance"])["settings"]["design"] == ["plain", f"prior:text={text}"]
    with pytest.raises(StatedError, match="made with other settings"):
        main(replace(settings, design=("plain",)))


@pytest.mark.parametrize(
    ("design", "says"),
    [("nois", "unknown design 'nois'"), ("orders:k=4,first=3", "6 are no multiple of it")],
)
def test_a_design_that_cannot_be_is_stated_before_a_model_is_loaded(tmp_path: Path, design: str, says: str) -> None:
    settings = CollectSettings(model="no such model", design=(design,), n_shots=4, n_seqs=6, out=tmp_path / "c.nc")
    with pytest.raises(StatedError, match=says):
        main(settings)
    with pytest.raises(StatedError, match="no such model"):
        main(replace(settings, design=("plain",)))


# ------------------------------------------------------------------------------------------------- without a query


@pytest.mark.parametrize("spec", ["coin:bias=0.6", "markov:states=3"])
def test_the_first_symbol_is_read_at_every_position(tiny: Model, spec: str) -> None:
    """Against the model's own logits after each prefix of the text, symbol by symbol."""
    (task,) = load_tasks([spec])
    dataset = collect_curves(tiny, [task], n_shots=N, n_seqs=2)
    for seq in range(2):
        one, examples = dataset.isel(task=0, seq=seq), task.episode(N, 0, seq)
        text = task.preamble
        for shot, example in enumerate(examples):
            begin = tiny.tokenizer(text, add_special_tokens=False).input_ids
            log_p = {}
            for label in task.labels:
                path = tiny.tokenizer(f" {label},", add_special_tokens=False).input_ids
                ids = torch.tensor([[int(one.tokens[0]), *begin, *path]])
                with torch.inference_mode():
                    after = tiny.hf(input_ids=ids).logits[0].double().log_softmax(-1)
                log_p[label] = sum(float(after[len(begin) + j, token]) for j, token in enumerate(path))
            first, *others = (log_p[label] for label in task.labels)
            expected = first - np.logaddexp.reduce(others)
            assert float(one.log_odds.sel(readout="rule", shot=shot)) == pytest.approx(expected, abs=1e-4)
            text += f" {example.written},"
    assert not dataset.query_seen.any() and np.isfinite(dataset.observer).all()
    assert (dataset.history.values == np.where(dataset.shown == task.labels[0], 1, -1)).all()
    with pytest.raises(StatedError, match="it has no queries"):
        recorded_episodes(tiny, dataset, spec)


def test_a_text_that_begins_with_its_answer_needs_a_first_token(tiny: Model) -> None:
    (coin,) = load_tasks(["coin"])
    bare = replace(coin, name="mine", preamble="")
    assert encode_episode(bare, bare.episode(2, 0, 0), tiny.tokenizer).answer_start[0] == 1
    letters = tokenizers.Tokenizer(
        tokenizers.models.BPE({c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}, [])
    )
    letters.pre_tokenizer = ByteLevel(add_prefix_space=False)
    without = PreTrainedTokenizerFast(tokenizer_object=letters)
    with pytest.raises(StatedError, match="nothing stands before the first answer"):
        encode_episode(bare, bare.episode(2, 0, 0), without)
    assert encode_episode(coin, coin.episode(2, 0, 0), without).answer_start[0] == len("Flips:")
