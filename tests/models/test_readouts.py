"""Readouts: the two buckets against formulas, brute force over paths, and real greedy generation."""

from __future__ import annotations

import copy
import dataclasses
import re
import string

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bayes_icl.core.errors import StatedError
from bayes_icl.models import Model
from bayes_icl.models.prompts import Prompt, TokenPath, encode_episode
from bayes_icl.models.readouts import EpisodeReading, SetLogits, Vocabulary
from bayes_icl.tasks import Example, Task, load_tasks

Buckets = dict[str, np.ndarray]


def read(model: Model, task: Task, episode: tuple[Example, ...]) -> tuple[Prompt, Buckets, np.ndarray]:
    """All readouts of one episode: per readout an array (shot, 2)."""
    prompt = encode_episode(task, episode, model.tokenizer)
    reading = EpisodeReading(task, prompt, task.readouts, Vocabulary(model.token_texts))
    logits = torch.cat(
        model.logits_at([prompt.tokens], [reading.positions], [prompt.branches], [reading.branch_positions])
    )
    buckets, correct = reading.read(logits)
    return prompt, dict(zip(task.readouts, buckets)), correct


def next_log_p(model: Model, tokens: list[int]) -> np.ndarray:
    """Log probabilities of the token after `tokens`: a plain forward of transformers, float64 softmax."""
    with torch.inference_mode():
        return model.hf(input_ids=torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1).numpy()


def log_p_path(model: Model, prefix: list[int], path: TokenPath) -> float:
    """Brute-force teacher forcing: one forward a token."""
    return sum(next_log_p(model, [*prefix, *path[:j]])[path[j]] for j in range(len(path)))


# ------------------------------------------------------------------------------------------------- sets of tokens

ROW = st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=12)


@settings(deadline=None, max_examples=80)
@given(ROW, st.data())
def test_a_set_has_the_log_odds_of_two_logsumexps(row: list[float], data: st.DataObject) -> None:
    logits = torch.tensor([row])
    chosen = data.draw(st.sets(st.integers(0, len(row) - 1), min_size=1, max_size=len(row) - 1))
    others = [i for i in range(len(row)) if i not in chosen]
    questions = SetLogits()
    number = questions.ask(0, chosen)
    log_in, log_out, first = questions.answer(logits)
    a, b = (logits[0, list(s)].double().logsumexp(0).item() for s in (chosen, others))
    assert log_in[number] - log_out[number] == pytest.approx(a - b, abs=1e-6)  # exponentials are float32
    assert np.logaddexp(log_in[number], log_out[number]) == pytest.approx(0, abs=1e-12)
    if abs(max(row[i] for i in chosen) - max(row[i] for i in others)) > 0:
        assert first[number] == (int(np.argmax(row)) in chosen)


def test_a_single_token_is_its_logit_against_the_others() -> None:
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)) * 5
    questions = SetLogits()
    for row in range(5):
        for token in range(40):
            questions.ask(row, [token])
    log_in, log_out, _ = questions.answer(logits, chunk=7)
    for row in range(5):
        for token in range(40):
            others = torch.cat([logits[row, :token], logits[row, token + 1 :]]).double()
            expected = float(logits[row, token].double() - others.logsumexp(0))
            number = questions.ask(row, [token])
            assert log_in[number] - log_out[number] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gap", [20.0, 100.0, 500.0, 720.0, 900.0, 2000.0, 1e5])
def test_extreme_logits_stay_finite_and_exact(gap: float) -> None:
    """No value may be infinite by saturation, whichever side is the likely one; nor lose its digits at 1."""
    logits = torch.tensor([[gap, 0.0, 0.0], [-gap, 0.0, 0.0]])
    questions = SetLogits()
    numbers = [questions.ask(row, [0]) for row in range(2)]
    log_in, log_out, first = questions.answer(logits)
    assert np.isfinite(log_in).all() and np.isfinite(log_out).all()
    np.testing.assert_allclose(log_out[numbers[0]], np.log(2) - gap - np.log1p(2 * np.exp(-gap)), rtol=1e-12)
    np.testing.assert_allclose(log_in[numbers[1]], -gap - np.log(2 + np.exp(-gap)), rtol=1e-12)
    assert first[numbers].tolist() == [True, False]


# ------------------------------------------------------------------------------------------------- hand-made logits


def _one_shot(task: Task, example: Example, tiny: Model, logits: torch.Tensor) -> Buckets:
    """Readouts of one example from given rows of logits (episode rows first, then branch rows)."""
    prompt = encode_episode(task, [example], tiny.tokenizer)
    reading = EpisodeReading(task, prompt, task.readouts, Vocabulary(tiny.token_texts))
    n = len(reading.positions) + len(reading.branch_positions)
    return dict(zip(task.readouts, reading.read(logits[:n])[0]))


TASKS = {
    "free": Task("free", (Example("q", "abc"), Example("r", "abd"))),
    "number": Task(
        "n", (Example("7", "59"), Example("8", "63")), "({query}, {answer})\n", "number", features=("parity",)
    ),
    "label": Task("l", (Example("q", "abc"), Example("r", "abd")), form="label", labels=("abc", "abd", "xyz")),
}


@pytest.mark.parametrize("kind", TASKS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 3.0, 30.0, 200.0]))
def test_identities_hold_for_any_logits(tiny: Model, kind: str, seed: int, scale: float) -> None:
    """Several tokens: L = t - log(-expm1(t)); complement = format and rule together."""
    logits = torch.randn(40, 257, generator=torch.Generator().manual_seed(seed)) * scale
    task = TASKS[kind]
    values = {k: v[0] for k, v in _one_shot(task, dataclasses.replace(task.pool[0], foil="abz"), tiny, logits).items()}
    assert all(np.isfinite(v).all() for v in values.values())
    correct, incorrect = values["complement"]
    assert max(correct, incorrect) < 1e-12  # a sum of float64 terms may end one rounding above 0
    if correct < -1e-3:  # nearer to 0 the formula itself cancels
        assert incorrect == pytest.approx(np.log(-np.expm1(correct)), abs=1e-12)
    if kind == "free":
        return
    of_form, off_form = values["format"]
    right, wrong = values["rule"]
    assert right == correct
    assert np.logaddexp(off_form, wrong) == pytest.approx(incorrect, abs=1e-9)
    assert np.logaddexp(right, wrong) == pytest.approx(of_form, abs=1e-9)
    assert np.logaddexp(of_form, off_form) == pytest.approx(0, abs=1e-9)


def test_a_near_certain_answer_keeps_its_log_odds(tiny: Model) -> None:
    """Where -expm1(t) would be 0: every token of the answer has log-odds 60, so does the path, less log(tokens)."""
    task = TASKS["free"]
    prompt = encode_episode(task, [task.pool[0]], tiny.tokenizer)
    path = prompt.answer(0)
    logits = torch.zeros(40, 257)
    for j, token in enumerate(path):
        logits[j, token] = 60 + np.log(256)
    correct, incorrect = _one_shot(dataclasses.replace(task, foils=False), task.pool[0], tiny, logits)["complement"][0]
    assert correct - incorrect == pytest.approx(60 - np.log(len(path)), abs=1e-5)  # 60 + log(256) in float32
    assert correct < 0 and -np.expm1(correct) == pytest.approx(np.exp(incorrect), rel=1e-9)
    assert 1 - np.exp(correct) == 0  # the control: the plain complement has lost everything


# ------------------------------------------------------------------------------------------------- brute force


def check_against_brute_force(model: Model, task: Task, n_shots: int, atol: float) -> None:
    """Every readout of every shot, from one plain forward a token."""
    episode = task.episode(n_shots, 0, 0)
    prompt, values, _ = read(model, task, episode)
    decode = lambda i: model.tokenizer.decode([i])  # noqa: E731
    close = lambda found, expected: np.testing.assert_allclose(found, expected, atol=atol, rtol=0)  # noqa: E731
    for shot in range(n_shots + 1):
        prefix, own = prompt.tokens[: prompt.answer_start[shot]].tolist(), prompt.answer(shot)
        correct = log_p_path(model, prefix, own)
        for name in ("complement", "foil"):
            close(values[name][shot, 0], correct)
        close(values["foil"][shot, 1], log_p_path(model, prefix, prompt.foils[shot]))
        close(np.exp(values["complement"][shot, 1]), -np.expm1(correct))
        if task.form == "label":
            each = [log_p_path(model, prefix, path) for path in prompt.labels[shot]]
            wrong = [p for p, label in zip(each, task.labels) if label != episode[shot].answer]
            close(values["rule"][shot], [correct, np.logaddexp.reduce(wrong)])
            close(np.exp(values["format"][shot]), [np.exp(each).sum(), 1 - np.exp(each).sum()])
        if task.form == "number":
            lead = next(j for j, token in enumerate(own) if re.search(r"\d", decode(token)))
            at_first = next_log_p(model, [*prefix, *own[:lead]])
            digits = [i for i in range(len(at_first)) if re.fullmatch(r"[0-9]+", decode(i))]
            of_form = log_p_path(model, prefix, own[:lead]) + np.logaddexp.reduce(at_first[digits])
            close(values["format"][shot, 0], of_form)
            close(np.exp(values["format"][shot, 1]), -np.expm1(of_form))
            close(np.exp(values["rule"][shot]), [np.exp(correct), np.exp(of_form) - np.exp(correct)])
            # The last digit's token, given all before it: digits of the answer's parity against the others.
            last = max(j for j, token in enumerate(own) if re.search(r"\d", decode(token)))
            at_last = next_log_p(model, [*prefix, *own[:last]])
            parity = int(episode[shot].answer) % 2
            same = [i for i in digits if int(decode(i)) % 2 == parity]
            other = [i for i in digits if int(decode(i)) % 2 != parity]
            assert len(same) == len(other) == 5
            close(values["parity"][shot], [np.logaddexp.reduce(at_last[same]), np.logaddexp.reduce(at_last[other])])


@pytest.mark.parametrize("name", ["affine", "category_arbitrary", "threshold"])
def test_readouts_equal_brute_force(tiny: Model, name: str) -> None:
    check_against_brute_force(tiny, load_tasks([name])[0], n_shots=3, atol=2e-5)


@pytest.mark.real_model
@pytest.mark.parametrize("name", ["affine", "category_arbitrary"])
def test_readouts_equal_brute_force_on_a_real_model(smollm2: Model, name: str) -> None:
    check_against_brute_force(smollm2, load_tasks([name])[0], n_shots=2, atol=1e-4)


def test_the_comparison_sees_a_foil_of_another_shot(tiny: Model) -> None:
    """The control of brute force: foils rotated by one shot are far outside its tolerance."""
    task = load_tasks(["category_arbitrary"])[0]
    prompt, values, _ = read(tiny, task, task.episode(3, 0, 0))
    prefix = prompt.tokens[: prompt.answer_start[0]].tolist()
    shift = [log_p_path(tiny, prefix, prompt.labels[0][i]) - values["foil"][0, 1] for i in range(2)]
    assert min(map(abs, shift)) < 1e-4 < 1e-2 < max(map(abs, shift))


# ------------------------------------------------------------------------------------------------- greedy decoding


def _generated(model: Model, prefix: list[int], n: int) -> list[int]:
    tokens = list(prefix)
    for _ in range(n):
        tokens.append(int(next_log_p(model, tokens).argmax()))
    return tokens[len(prefix) :]


def check_greedy(model: Model, task: Task, n_shots: int, seq: int = 0) -> set[bool]:
    """Compare `correct` with generation at every shot; returns the outcomes seen."""
    prompt, _, correct = read(model, task, task.episode(n_shots, 0, seq))
    for shot in range(n_shots + 1):
        own = prompt.answer(shot)
        generated = _generated(model, prompt.tokens[: prompt.answer_start[shot]].tolist(), len(own))
        assert correct[shot] == (generated == [*own])
    return set(correct.tolist())


def test_correct_is_what_greedy_decoding_gives(tiny: Model) -> None:
    """A random model spells no word, so its unembedding is cut down to three bytes that spell the answers here."""
    hf = copy.deepcopy(tiny.hf)
    spoken = tiny.tokenizer("ab\n").input_ids
    with torch.no_grad():
        hf.lm_head.weight[[i for i in range(257) if i not in spoken]] = 0
    pool = tuple(Example(f"{i}", "ab"[i % 2]) for i in range(60))
    task = Task("t", pool, template="{query}={answer}\n", form="label", labels=("a", "b"))
    model = Model(hf, tiny.tokenizer, "cut down")
    seen = set().union(*(check_greedy(model, task, 30, seq) for seq in range(4)))
    assert seen == {True, False}  # both outcomes occur, or the test would say nothing


@pytest.mark.real_model
def test_correct_is_what_a_real_model_generates(smollm2: Model) -> None:
    seen = check_greedy(smollm2, load_tasks(["copy"])[0], 5) | check_greedy(smollm2, load_tasks(["past_tense"])[0], 6)
    assert seen == {True, False}


# ------------------------------------------------------------------------------------------------- subsets


@pytest.mark.parametrize("name", ["affine", "category"])
def test_a_readout_does_not_depend_on_those_beside_it(tiny: Model, name: str) -> None:
    task = load_tasks([name])[0]
    episode = task.episode(3, 0, 0)
    prompt, values, _ = read(tiny, task, episode)
    for readout in task.readouts:
        reading = EpisodeReading(task, prompt, [readout], Vocabulary(tiny.token_texts))
        bare = encode_episode(task, episode, tiny.tokenizer, branch=bool(reading.branch_positions))
        logits = torch.cat(
            tiny.logits_at([bare.tokens], [reading.positions], [bare.branches], [reading.branch_positions])
        )
        np.testing.assert_allclose(reading.read(logits)[0][0], values[readout], atol=1e-5)


# ------------------------------------------------------------------------------------------------- digits of an answer


def byte_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the Llama 2 kind: its newline is the token <0x0A>, its space the sign of a word's start."""
    texts = ["<unk>", "<s>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581", *string.ascii_letters, *string.digits]
    texts += string.punctuation
    bpe = models.BPE({t: i for i, t in enumerate(texts)}, merges=[], byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("end", [")\n", ")\r\n", " cm\u00b2)\n", ") 7\n", ") <0x31>\n"])
@pytest.mark.parametrize("kind", ["bytes", "fallback"])
def test_the_digits_of_a_number_are_those_of_its_answer(tiny: Model, kind: str, end: str) -> None:
    """Not those in the name of a newline's token, of a terminator, or signs that are like digits."""
    model = tiny
    if kind == "fallback":
        tokenizer = byte_fallback_tokenizer()
        config = LlamaConfig(**{**tiny.hf.config.to_dict(), "vocab_size": len(tokenizer)})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Model(LlamaForCausalLM(config).eval(), tokenizer, "fallback")
    pool = (Example("7", "59"), Example("8", "64"), Example("9", "3"))
    task = Task("n", pool, "({query}, {answer}" + end, "number", features=("parity",))
    prompt, found, _ = read(model, task, pool)
    digits = [model.tokenizer.convert_tokens_to_ids(d) for d in string.digits]
    for shot, example in enumerate(pool):
        own = prompt.answer(shot)
        last = own.index(digits[int(example.answer[-1])], 1 + len(example.answer) - 1)
        log_p = next_log_p(model, [*prompt.tokens[: prompt.answer_start[shot]].tolist(), *own[:last]])
        same = [d for i, d in enumerate(digits) if i % 2 == int(example.answer) % 2]
        other = [d for d in digits if d not in same]
        expected = [np.logaddexp.reduce(log_p[which]) for which in (same, other)]
        np.testing.assert_allclose(found["parity"][shot], expected, atol=1e-5)


def test_a_digit_joined_with_other_text_is_stated(tiny: Model) -> None:
    """The bracket merges with the digit before it: which tokens are numbers can then not be told."""
    from tiny_families import byte_tokenizer

    tokenizer = byte_tokenizer([("9", ")")])
    task = Task("n", (Example("7", "59"),), "({query}, {answer})\n", "number", features=("parity",), foils=False)
    prompt = encode_episode(task, task.pool, tokenizer)
    vocabulary = Vocabulary(tuple(str(t).replace("\u0120", " ") for t in tokenizer.convert_ids_to_tokens(range(257))))
    with pytest.raises(StatedError, match=r"task 'n': a digit .* of example 1 is part of the token '9\)'"):
        EpisodeReading(task, prompt, task.readouts, vocabulary)
    EpisodeReading(task, prompt, ["complement"], vocabulary)  # the control: whole answers need no digits
