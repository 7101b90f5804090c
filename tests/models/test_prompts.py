"""Prompts: where the answers stand among the tokens, and the branches that other answers make."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import byte_tokenizer, words
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bayes_icl.core.errors import StatedError
from bayes_icl.models import Model
from bayes_icl.models.prompts import (
    Prompt,
    differing,
    encode_episode,
    example_parts,
    first_token,
    recorded_prompt,
    token_read,
)
from bayes_icl.tasks import BUILT_IN, Example, Task, load_tasks

TASKS = load_tasks(list(BUILT_IN))


def decode(tokenizer: PreTrainedTokenizerBase, tokens: np.ndarray | list[int]) -> str:
    return tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)


def spans_decode(task: Task, episode: tuple[Example, ...], prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check every piece of the text against the template filled in by hand, and that the pieces tile the tokens."""
    whole, at = "", len(prompt.tokens) - len(tokenizer(_text(task, episode), add_special_tokens=False).input_ids)
    for example, start, stop in zip(episode, prompt.answer_start, prompt.answer_stop):
        assert at < start < stop
        query, answer = decode(tokenizer, prompt.tokens[at:start]), decode(tokenizer, prompt.tokens[start:stop])
        if task.template.startswith("("):
            assert (query, answer) == (f"({example.query},", f" {example.answer})\n")
        else:
            assert (query, answer) == (f"{example.query} ->", f" {example.answer}\n")
        whole, at = whole + query + answer, int(stop)
    assert at == len(prompt.tokens)
    assert whole == _text(task, episode)


def _text(task: Task, episode: tuple[Example, ...]) -> str:
    return "".join(task.template.replace("{query}", e.query).replace("{answer}", e.answer) for e in episode)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_spans_are_the_answers_on_the_byte_tokenizer(tiny: Model, task: Task) -> None:
    episode = task.episode(12, 0, 0)
    spans_decode(task, episode, encode_episode(task, episode, tiny.tokenizer), tiny.tokenizer)


@pytest.mark.real_model
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_spans_are_the_answers_on_a_real_tokenizer(smollm2: Model, task: Task) -> None:
    episode = task.episode(48, 0, 0)
    spans_decode(task, episode, encode_episode(task, episode, smollm2.tokenizer), smollm2.tokenizer)


def test_the_example_of_the_design(tiny: Model) -> None:
    """(28, 59): the answer is " 59", then ")" and a newline; one token a byte, after the document separator."""
    task = load_tasks(["affine"])[0]
    prompt = encode_episode(task, [Example("28", "59"), Example("30", "63")], tiny.tokenizer)
    assert prompt.answer_start.tolist() == [5, 14] and prompt.answer_stop.tolist() == [10, 19]
    assert decode(tiny.tokenizer, prompt.answer(0)) == " 59)\n"


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(words, words), min_size=2, max_size=6))
def test_any_text_is_cut_where_it_should_be(pairs: list[tuple[str, str]]) -> None:
    """Accents, other scripts, emoji, spaces at the ends: the answer's tokens spell the answer and its terminator."""
    tokenizer = byte_tokenizer(specials=("<|endoftext|>",), eos_token="<|endoftext|>")
    pool = tuple(Example(q, a) for q, a in pairs)
    task = Task("t", pool, foils=False, repeats=True)
    prompt = encode_episode(task, pool, tokenizer)
    for (_, answer), start, stop in zip(pairs, prompt.answer_start, prompt.answer_stop):
        assert decode(tokenizer, prompt.tokens[start:stop]) == f" {answer}\n"
    assert (prompt.answer_start[1:] >= prompt.answer_stop[:-1]).all()


def test_parts_put_the_space_before_an_answer_with_it() -> None:
    example = Example("28", "59")
    assert example_parts("({query}, {answer})\n", example) == ("(28,", " 59", ")\n")
    assert example_parts("({query}, {answer})\n", example, "7") == ("(28,", " 7", ")\n")
    assert example_parts("{query}={answer};", example) == ("28=", "59", ";")


# ------------------------------------------------------------------------------------------------- token boundaries

PAIRS = (Example("10", "23"), Example("28", "59"), Example("30", "63"))


@pytest.mark.parametrize(
    ("merge", "joined"), [((",", "Ġ"), r"', '"), (("Ċ", "("), r"'\\n\('")], ids=["before the answer", "after it"]
)
def test_a_token_across_an_answers_edge_names_the_example(merge: tuple[str, str], joined: str) -> None:
    task = Task("t", PAIRS, template="({query}, {answer})\n", form="number", foils=False)
    with pytest.raises(StatedError, match=rf"of example 1 \('10'\) does not begin and end .* joins {joined}"):
        encode_episode(task, PAIRS, byte_tokenizer([merge]))


def test_a_token_across_a_later_answers_edge_names_that_one() -> None:
    tokenizer = byte_tokenizer([("8", ","), ("8,", "Ġ")])
    task = Task("t", PAIRS, template="({query}, {answer})\n", form="number", foils=False)
    with pytest.raises(StatedError, match=r"' 59\)\\n' of example 2 \('28'\) .* joins '8, '"):
        encode_episode(task, PAIRS, tokenizer)


def test_a_token_inside_an_answer_is_welcome() -> None:
    """The control: the same tokenizer with a merge that crosses no edge is accepted, and the merge is used."""
    task = Task("t", PAIRS, template="({query}, {answer})\n", form="number", foils=False)
    prompt = encode_episode(task, PAIRS, byte_tokenizer([(")", "Ċ"), ("5", "9")]))
    assert [len(prompt.answer(shot)) for shot in range(3)] == [4, 3, 4]


def test_a_foil_off_its_boundaries_is_stated_too() -> None:
    pool = (Example("10", "23", "99"), Example("28", "59", "99"))
    task = Task("t", pool, template="({query},{answer})\n", form="number")
    with pytest.raises(StatedError, match=r"'99\)\\n' of example 1"):
        encode_episode(task, pool, byte_tokenizer([(",", "9")]))
    encode_episode(task, pool, byte_tokenizer([(",", "9")]), branch=False)


def test_offsets_that_leave_out_the_space_are_read_rightly() -> None:
    """GPT-NeoX's and RoBERTa's tokenizers trim the space off a token's offsets; the token is still the answer's."""
    tokenizer = byte_tokenizer([("Ġ", "5")], specials=("<|endoftext|>",))
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert tokenizer("a 5", return_offsets_mapping=True).offset_mapping == [(0, 1), (2, 3)]  # trimmed: not (1, 3)
    pool = (Example("10", "23"), Example("28", "59"))
    task = Task("t", pool, template="({query}, {answer})\n", form="number", foils=False)
    prompt = encode_episode(task, pool, tokenizer)
    assert [decode(tokenizer, prompt.answer(shot)) for shot in range(2)] == [" 23)\n", " 59)\n"]


ENDS = ["\n\n", "\r\n", " \n", ".\n\n", "\n\n\n"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("front", ["Input: {query}\nOutput: {answer}", "{query} -> {answer}"])
def test_a_longer_episode_begins_with_the_shorter_one(front: str, end: str) -> None:
    """Tokenizers of the GPT-2 kind join blank lines at the end of a text, and not before a word."""
    tokenizer = byte_tokenizer([("Ċ", "Ċ"), ("č", "Ċ"), ("Ġ", "Ċ"), (".", "ĊĊ"), ("ĊĊ", "Ċ")], words=True)
    text = front.replace("{query}", "a").replace("{answer}", "b") + end
    joined, within = (tokenizer(t, add_special_tokens=False).input_ids for t in (text, text + text))
    if end != ".\n\n":
        assert within[: len(joined)] != joined  # the control: cut after the answer, the last one would be another
    pool = tuple(Example(f"q{i}", "xyz"[i % 3], "yzx"[i % 3]) for i in range(6))
    task = Task("t", pool, front + end, form="label", labels=("x", "y", "z"))
    long = encode_episode(task, pool, tokenizer)
    for n in range(1, 6):
        short = encode_episode(task, pool[:n], tokenizer)
        assert short.tokens.tolist() == long.tokens[: len(short.tokens)].tolist()
        assert short.answer_stop[-1] == len(short.tokens) == long.answer_stop[n - 1]
        assert (short.foils, short.labels) == (long.foils[:n], long.labels[:n])
        assert short.answer(n - 1) in short.labels[-1]


@pytest.mark.parametrize(
    ("query", "answer", "holds"),
    [("a <|end|> b", "x", "<|end|>"), ("<|end|>", "x", "<|end|>"), ("a", "x<|endoftext|>", "<|endoftext|>")],
)
def test_a_control_token_in_the_text_is_stated(query: str, answer: str, holds: str) -> None:
    tokenizer = byte_tokenizer(specials=("<|endoftext|>", "<|end|>"), eos_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    pool = (Example("q", "y"), Example(query, answer))
    says = rf"example 2 \({re.escape(repr(query))}, .* holds {re.escape(repr(holds))}.* control token"
    with pytest.raises(StatedError, match=says):
        encode_episode(Task("t", pool, foils=False), pool, tokenizer)
    with pytest.raises(StatedError, match=r"example 1 \('q', 'y'\) holds '<\|end\|>'"):
        encode_episode(Task("t", pool[:1], "{query}<|end|>{answer}\n", foils=False), pool[:1], tokenizer)
    near = (Example("a <|en d|> b", "x"),)
    encode_episode(Task("t", near, foils=False), near, tokenizer)  # the control


def test_a_foil_that_is_a_control_token_is_stated() -> None:
    tokenizer = byte_tokenizer(specials=("<|endoftext|>",), eos_token="<|endoftext|>")
    pool = (Example("q", "y", "<|endoftext|>"),)
    with pytest.raises(StatedError, match=r"example 1 \('q', '<\|endoftext\|>'\) holds"):
        encode_episode(Task("t", pool), pool, tokenizer)


def test_text_that_the_tokenizer_does_not_know_is_stated() -> None:
    known = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "->": 2, "b": 3, "\n": 4, " ": 5}, unk_token="<unk>"))
    known.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, unk_token="<unk>")
    task = Task("t", (Example("a", "b"), Example("c", "b")), "{query} -> {answer}\n", foils=False)
    encode_episode(task, task.pool[:1], tokenizer)
    with pytest.raises(StatedError, match=r"example 2 \('c', 'b'\) holds 'c', which the tokenizer does not know"):
        encode_episode(task, task.pool, tokenizer)


# ------------------------------------------------------------------------------------------------- branches


def check_branches(prompt: Prompt) -> None:
    """Every row reads exactly what it should, and no token is laid out twice.

    The context of a row is spelled out from `visible` alone and compared with the episode up to the answer followed by
    the prefix of the continuation.
    """
    branches, n = prompt.branches, len(prompt.tokens)
    visible = branches.visible(n)
    needed = set()
    for shot, rows in enumerate(prompt.rows):
        start, own = prompt.answer_start[shot], prompt.answer(shot)
        for path in (own, prompt.foils[shot], *prompt.labels[shot]):
            for j in range(len(path)):
                expected = [*prompt.tokens[:start].tolist(), *path[:j]]
                in_branch, i = rows[path[:j]]
                if not in_branch:
                    assert prompt.tokens[: i + 1].tolist() == expected
                    continue
                needed.add((shot, path[:j]))
                seen = [*prompt.tokens[visible[i, :n]].tolist(), *branches.tokens[visible[i, n:]].tolist()]
                assert seen == expected
                assert branches.attach[i] + branches.depth[i] == len(expected) - 1  # its own position
    assert len(branches.tokens) == len(needed)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=2, max_size=5, unique=True),
    st.data(),
)
def test_a_branch_token_sees_its_prefix_and_its_ancestors(labels: list[str], data: st.DataObject) -> None:
    """Labels over two letters share long prefixes with each other and with the answer."""
    tokenizer = byte_tokenizer(specials=("<|endoftext|>",))
    answers = data.draw(st.lists(st.sampled_from(labels), min_size=1, max_size=4))
    pool = tuple(
        Example(f"q{i}", a, data.draw(st.text("ab", min_size=1, max_size=4).filter(lambda f, a=a: f != a)))
        for i, a in enumerate(answers)
    )
    task = Task("t", pool, form="label", labels=tuple(labels))
    check_branches(encode_episode(task, pool, tokenizer))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_branches_of_the_built_in_tasks(tiny: Model, task: Task) -> None:
    prompt = encode_episode(task, task.episode(4, 0, 0), tiny.tokenizer)
    assert len(prompt.branches.tokens)
    check_branches(prompt)


def test_the_check_of_branches_can_fail(tiny: Model) -> None:
    task = load_tasks(["category"])[0]
    prompt = encode_episode(task, task.episode(4, 0, 0), tiny.tokenizer)
    prompt.branches.attach[-1] -= 1
    with pytest.raises(AssertionError):
        check_branches(prompt)


def test_a_shared_prefix_is_laid_out_once() -> None:
    """Answer "aa", labels "aab" and "aac": " aa" is the episode's own, and one branch token is needed for each."""
    tokenizer = byte_tokenizer()
    pool = (Example("q", "aa"),)
    task = Task("t", pool, form="label", labels=("aa", "aab", "aac"), foils=False)
    branches = encode_episode(task, pool, tokenizer).branches
    assert decode(tokenizer, branches.tokens) == "bc"  # the terminators are predicted, never read
    assert branches.parent.tolist() == [-1, -1] and branches.depth.tolist() == [0, 0]
    task = Task("t", (Example("q", "z"),), form="label", labels=("z", "aab", "aac"), foils=False)
    assert decode(tokenizer, encode_episode(task, task.pool, tokenizer).branches.tokens) == "aabc"


def test_no_branches_when_none_are_asked_for(tiny: Model) -> None:
    task = load_tasks(["category"])[0]
    prompt = encode_episode(task, task.episode(4, 0, 0), tiny.tokenizer, branch=False)
    assert len(prompt.branches.tokens) == 0 and set(itertools.chain(prompt.foils, prompt.labels)) == {()}


# ------------------------------------------------------------------------------------------------- the token read


@pytest.mark.parametrize(
    ("answers", "token", "shares"),
    [
        (["_5Q", "_8Q", "_1Q"], 1, [0, 2 / 3, 0]),  # a space, then digits
        (["XQ", "YQ", "ZQ"], 0, [2 / 3, 0]),  # words
        (["ABCXQ", "ABCYQ", "ABDXQ", "ABDYQ"], 2, [0, 0, 0.5, 0.5]),  # two tokens that all answers share
        (["_58Q", "_5Q", "_15Q", "_1Q"], 1, [0, 0.5]),  # as far as the shortest goes
        (["AXPQ", "AXQ", "AYQ", "AXQ"], 1, [0, 0.375]),  # no token tells most answers apart
        (["XQ"] * 9 + ["YQ"], 0, [0.18, 0]),  # a rare label
    ],
)
def test_the_token_read_is_the_first_that_tells_answers_apart(
    answers: list[str], token: int, shares: list[float]
) -> None:
    """Two answers an episode; letters are tokens, _ a lone space, Q the terminator."""
    prompts = []
    for one in answers:
        tokens = np.array([ord(letter) for letter in f"q>{one}r>{one}"])
        starts = np.array([2, 4 + len(one)])
        queries = starts - 2
        prompts.append(recorded_prompt(tokens, starts, starts + len(one), queries, queries + 1))
    np.testing.assert_allclose([differing(prompts, i) for i in range(len(shares))], shares, atol=1e-12)
    assert token_read(prompts, "hand") == token
    with pytest.raises(StatedError, match="all answers of task 'hand' begin alike"):
        token_read(prompts[:1], "hand")


@pytest.mark.parametrize("name", ["random_labels", "category", "times_ten", "copy"])
def test_the_token_read_of_built_in_tasks(tiny: Model, name: str) -> None:
    """A tokenizer of letters: behind the space of a number its first digit, of a label its first letter."""
    (task,) = load_tasks([name])
    prompts = [encode_episode(task, task.episode(6, 0, seq), tiny.tokenizer) for seq in range(6)]
    token, answers = token_read(prompts, name), [p.answer(shot) for p in prompts for shot in range(6)]
    texts = {tiny.token_texts[answer[token]] for answer in answers}
    before = {tiny.token_texts[t] for answer in answers for t in answer[:token]}
    assert before <= {" "} and len(texts) > 1 and " " not in texts
    assert all(text.isdigit() for text in texts) == (name in ("times_ten", "copy"))


# ------------------------------------------------------------------------------------------------- the first token


def test_the_tokenizers_own_bos_comes_first_where_it_adds_one() -> None:
    tokenizer = byte_tokenizer(specials=("<|endoftext|>", "<s>"), bos_token="<s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    assert first_token(tokenizer) == (1, "tokenizer's BOS <s>")
    _begins_with(tokenizer, [1])


@pytest.mark.parametrize("single", ["$A", "$A <s>"], ids=["adds nothing", "adds it at the end"])
def test_else_the_document_separator(single: str) -> None:
    tokenizer = byte_tokenizer(specials=("<s>", "<|endoftext|>"), bos_token="<s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single, special_tokens=[("<s>", 0)])
    assert first_token(tokenizer) == (1, "document separator <|endoftext|>")
    _begins_with(tokenizer, [1])


def test_else_none() -> None:
    tokenizer = byte_tokenizer(specials=("<s>",), bos_token="<s>")
    assert first_token(tokenizer) == (None, "none")
    _begins_with(tokenizer, [])


def _begins_with(tokenizer: PreTrainedTokenizerFast, first: list[int]) -> None:
    """The episode is that token and then the text; the spans are moved with it."""
    task = Task("t", PAIRS, foils=False)
    prompt = encode_episode(task, PAIRS, tokenizer)
    assert prompt.tokens.tolist() == first + tokenizer(_text(task, PAIRS), add_special_tokens=False).input_ids
    assert decode(tokenizer, prompt.answer(2)) == " 63\n"


@pytest.mark.real_model
def test_the_policy_for_smollm2(smollm2: Model) -> None:
    """Its tokenizer adds no BOS, and its bos_token is a chat marker that pretraining text does not begin with."""
    token, policy = first_token(smollm2.tokenizer)
    assert policy == "document separator <|endoftext|>"
    assert smollm2.tokenizer.convert_ids_to_tokens(token) == "<|endoftext|>"
