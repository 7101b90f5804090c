"""Three steps (Skunnavakkam 2024): which way attention goes, what is lost without it or MLPs, and the verdict."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from by_hand import forward, odds_by_hand, spelled_out
from handmade import class_task, mapping_task, random_model, token_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student

from bayes_icl.collect import collect_curves
from bayes_icl.mechanism.ablation_values import AblationValues
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.steps import (
    KNOCKOUTS,
    ROLES_OF_HEADS,
    Form,
    ablate_mlps,
    answers_of,
    attending,
    attention_by_role,
    attention_edges,
    form_of,
    induction_scores,
    knocked_out,
    read_token,
)
from bayes_icl.mechanism.thresholds import STEP_LEAST
from bayes_icl.mechanism.transfer import Pair, cut, pairs_of, permuted
from bayes_icl.models import Model
from bayes_icl.models.readouts import Vocabulary
from bayes_icl.patch.steps import STEPS, experiment_row, judge
from bayes_icl.tasks import Example, load_tasks

N = 3
KINDS = ["llama", "gpt2", "gemma3"]


@pytest.fixture(scope="module")
def model_of(tiny: Model) -> Callable[[str], Model]:
    return functools.cache(lambda name: random_model(name, tiny))


@pytest.fixture(scope="module")
def curves(model_of: Callable[[str], Model]) -> xr.Dataset:
    tasks = [*load_tasks(["past_tense", "copy"]), mapping_task()]
    return collect_curves(model_of("llama"), tasks, n_shots=N, n_seqs=6)


@pytest.fixture(scope="module")
def pairs_on(model_of: Callable[[str], Model], curves: xr.Dataset) -> Callable[[str], list[Pair]]:
    return functools.cache(lambda task: pairs_of(model_of("llama"), curves, task, n_examples=N))


@contextlib.contextmanager
def eager(model: Model) -> Iterator[None]:
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.hf.set_attn_implementation(before)


def patterns(model: Model, tokens: np.ndarray) -> np.ndarray:
    """As an eager run outputs them, shape (layer, head, pos, pos)."""
    with eager(model), torch.inference_mode():
        found = model.hf(torch.from_numpy(tokens)[None], output_attentions=True, use_cache=False).attentions
    return torch.cat(found).double().numpy()


# ------------------------------------------------------------------------------------------------- ways


def test_ways_of_a_small_prompt_by_hand(tiny: Model) -> None:
    """The sink, three examples of a digit, a letter, a separator, a label and a line's end; and a query."""
    examples = [Example("1a", "x"), Example("2k", "y"), Example("3b", "x"), Example("4c", "x")]
    run = spelled_out(mapping_task(), examples, tiny, 3, 0)
    assert str(tiny.tokenizer.decode(run.prompt.tokens[1:].tolist())) == "1a>x\n2k>y\n3b>x\n4c>"
    queries, labels, ends = {0: [1, 2], 1: [6, 7], 2: [11, 12]}, [4, 9, 14], [5, 10, 15]
    last = 18
    answers, between, asked = [*zip(labels, ends)], [[3], [8], [13]], (16, 17, 18)
    after = [[*between[n], *answers[n]] for n in range(3)]
    expected = {}
    for name, rows in (("bring", answers), ("bring_separator", between), ("bring_any", after)):
        expected[name] = {(i, j) for n in range(3) for i in rows[n] for j in queries[n]}
        expected[f"{name}_other"] = {(i, j) for n in (1, 2) for i in rows[n] for j in queries[n - 1]}
    for name, rows in (("to", (last,)), ("read", asked)):
        expected[f"{name}_answers"] = {(i, j) for i in rows for j in labels + ends}
        expected[f"{name}_before"] = {(i, j) for i in rows for j in (3, 8, 13)}
        expected[f"{name}_queries"] = {(i, j) for i in rows for n in range(3) for j in queries[n]}
    expected["to_sink"] = {(last, 0)}
    later = {n: [*queries[n], *after[n]] for n in range(3)}
    expected["through_later"] = {(i, j) for n in (1, 2) for i in later[n] for m in range(n) for j in answers[m]}
    found = attention_edges(run)
    assert set(found) == set(expected) >= set(ROLES_OF_HEADS)
    for name, edges in found.items():
        assert edges.shape == (19, 19) and set(map(tuple, np.argwhere(edges).tolist())) == expected[name], name
    assert np.flatnonzero(answers_of(run)).tolist() == sorted(labels + ends)


def test_an_answer_begins_with_the_token_that_is_read(tiny: Model) -> None:
    """Read after the space in front of a number, the spaces of the examples are what stands before their answers."""
    (task,) = load_tasks(["copy"])
    examples = [Example("47", "47"), Example("8", "8"), Example("13", "13")]
    for token, answers, before in ((0, (5, 6, 7, 8, 9), 4), (1, (6, 7, 8, 9), 5)):
        run = spelled_out(task, examples, tiny, 2, token)
        assert str(tiny.tokenizer.decode(run.prompt.tokens[1:].tolist())) == "(47, 47)\n(8, 8)\n(13," + " " * token
        last = len(run.prompt.tokens) - 1
        found = attention_edges(run)
        second = (13, 14, 15, 16)[token:]  # " 8)" and the line's end
        assert np.flatnonzero(found["to_answers"][last]).tolist() == [*answers, *second]
        assert np.flatnonzero(found["to_before"][last]).tolist() == [before, 12 + token]
        assert np.flatnonzero(found["bring"].any(1)).tolist() == [*answers, *second]
        assert np.flatnonzero(found["bring"][answers[0]]).tolist() == [2, 3]
        assert np.flatnonzero(answers_of(run)).tolist() == [*answers, *second]


def test_before_an_answer_may_stand_its_query(tiny: Model) -> None:
    """Without a separator, the token before an answer is the query's last."""
    run = spelled_out(class_task(), [Example("1a", "x"), Example("2k", "y"), Example("3b", "x")], tiny, 2, 0)
    assert str(tiny.tokenizer.decode(run.prompt.tokens[1:].tolist())) == "1ax\n2ky\n3b"
    assert np.argwhere(attention_edges(run)["to_before"]).tolist() == [[10, 2], [10, 6]]
    assert np.argwhere(attention_edges(run)["to_queries"]).tolist() == [[10, j] for j in (1, 2, 5, 6)]


@pytest.mark.parametrize("task", ["past_tense", "copy", "mapping"])
def test_ways_go_back_and_do_not_meet(pairs_on: Callable[[str], list[Pair]], task: str) -> None:
    for pair in pairs_on(task):
        found = attention_edges(pair.a)
        total = np.zeros_like(found["bring"], dtype=int)
        for name, edges in found.items():
            row, column = np.nonzero(edges)
            assert (column < row).all() and len(row), name
            total += edges if name in ROLES_OF_HEADS else 0
        assert total.max() == 1
        assert (answers_of(pair.a) == found["bring"].any(1)).all()
        assert not attention_edges(pair.b)["bring"].any()  # a bare query has no examples
        # The same examples whatever is asked: those rows of a prompt are those of a longer one.
        shorter = cut(pair.a, N - 1, len(pair.a.prompt.tokens) - int(pair.a.prompt.answer_start[N]))
        n = len(shorter.prompt.tokens)
        assert (attention_edges(shorter)["bring"] == found["bring"][:n, :n]).all()


@pytest.mark.parametrize("task", ["past_tense", "mapping"])
@pytest.mark.parametrize("name", KINDS)
def test_attention_by_role_is_that_of_an_eager_run(
    model_of: Callable[[str], Model], pairs_on: Callable[[str], list[Pair]], name: str, task: str
) -> None:
    """Summed along the edges, mean over the tokens that have any."""
    model = model_of(name)
    for pair in pairs_on(task)[:2]:
        found, pattern = attention_by_role(model.anatomy, pair.a), patterns(model, pair.a.prompt.tokens)
        assert list(found) == list(ROLES_OF_HEADS)
        for role in ROLES_OF_HEADS:
            edges = attention_edges(pair.a)[role]
            rows = np.flatnonzero(edges.any(1))
            expected = np.mean([pattern[..., i, edges[i]].sum(-1) for i in rows], axis=0)
            np.testing.assert_allclose(found[role], expected, atol=1e-5)
        assert all((x >= 0).all() and (x <= 1).all() and x.std() > 0 for x in found.values() if x.any())
        # One of a bare query's roles is there at least, the others are 0.
        bare = attention_by_role(model.anatomy, pair.b)
        assert not bare["bring"].any() and not bare["to_answers"].any()
        np.testing.assert_allclose(bare["to_sink"], patterns(model, pair.b.prompt.tokens)[..., -1, 0], atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_induction_scores_are_those_of_an_eager_run(model_of: Callable[[str], Model], name: str) -> None:
    """On tokens said twice: to the token before, and to what came after the same token before."""
    model, length = model_of(name), 12
    drawn = np.random.default_rng([3, 29]).choice(len(model.tokenizer), size=length + 1, replace=False)
    tokens = np.array([*drawn, *drawn[1:]])
    pattern = patterns(model, tokens)
    before, after = [], []
    for i in range(length + 1, 2 * length + 1):
        (earlier,) = [j for j in range(1, length + 1) if j + length == i]
        assert tokens[earlier] == tokens[i]
        before.append(pattern[..., i, i - 1])
        after.append(pattern[..., i, earlier + 1])
    found = induction_scores(model.anatomy, seed=3, length=length)
    np.testing.assert_allclose(found["previous_token"], np.mean(before, 0), atol=1e-5)
    np.testing.assert_allclose(found["induction"], np.mean(after, 0), atol=1e-5)
    assert not np.allclose(found["induction"], induction_scores(model.anatomy, seed=4, length=length)["induction"])


# ------------------------------------------------------------------------------------------------- attention knockouts


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("task", ["past_tense", "mapping"])
def test_a_way_shut_is_an_eager_run_with_a_mask(
    model_of: Callable[[str], Model], pairs_on: Callable[[str], list[Pair]], name: str, task: str
) -> None:
    """A mask of four dimensions, which transformers adds to the scores of all layers; its window in the first."""
    model = model_of(name)
    for pair in pairs_on(task)[:2]:
        run = pair.a
        found = knocked_out(model.anatomy, run)
        correct, shot = int(run.target.correct[0]), run.places.shot
        assert set(found) == {"clean", *KNOCKOUTS}
        plain = odds_by_hand(forward(model, run.prompt.tokens)[-1], correct)
        assert found["clean"] == pytest.approx(plain, abs=3e-5)
        edges = attention_edges(run)
        edges["all"] = (shot == N)[:, None] & ((shot >= 0) & (shot < N))[None]
        for way in KNOCKOUTS:
            with eager(model), adding(model, edges[way]):
                expected = odds_by_hand(forward(model, run.prompt.tokens)[-1], correct)
            assert found[way] == pytest.approx(expected, abs=3e-5), way
            # The control; a query before is out of the window of the first layer, and the last one's comes too late.
            assert abs(found[way] - plain) > 1e-4 or ((name, task) == ("gemma3", "past_tense") and "other" in way)


@contextlib.contextmanager
def adding(model: Model, edges: np.ndarray) -> Iterator[None]:
    """Minus infinity, added to the masks that an eager model makes."""

    def hook(_: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask = kwargs["attention_mask"].clone()
        mask[0, 0][torch.from_numpy(edges)] = torch.finfo(mask.dtype).min
        return args, kwargs | {"attention_mask": mask}

    handles = [x.register_forward_pre_hook(hook, with_kwargs=True) for x in model.anatomy.attentions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_with_one_example_there_is_no_query_before(
    model_of: Callable[[str], Model], pairs_on: Callable[[str], list[Pair]]
) -> None:
    run = cut(pairs_on("copy")[0].a, 1, 0)
    found = knocked_out(model_of("llama").anatomy, run)
    assert found["bring_any_other"] == pytest.approx(found["clean"], abs=1e-5)
    assert abs(found["bring"] - found["clean"]) > 1e-3


# ------------------------------------------------------------------------------------------------- tokens read


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 10.0]), st.booleans(), st.booleans())
def test_tokens_are_read_by_softmax(seed: int, size: float, formed: bool, even: bool) -> None:
    """Each row by hand; parity at the last position."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(size * rng.normal(size=(3, 2, 12))).float()
    some = [int(i) for i in rng.permutation(12)]
    correct = some[0]
    form = Form(
        frozenset(some[:5]) if formed else frozenset(),
        np.array([], np.int64) if even else None,
        frozenset(some[:3]) if even else frozenset(),
        frozenset(some[3:5]) if even else frozenset(),
    )
    found = read_token(logits, correct, form)
    assert list(found) == ["complement", *(["format", "rule"] if formed else []), *(["parity"] if even else [])]
    p = logits.double().softmax(-1).numpy()

    def odds(read: int, right: list[int], wrong: list[int]) -> np.ndarray:
        return np.log(p[:, read, right].sum(-1)) - np.log(p[:, read, wrong].sum(-1))

    close = functools.partial(np.testing.assert_allclose, atol=1e-4)
    close(found["complement"], odds(0, some[:1], some[1:]))
    if formed:
        close(found["format"], odds(0, some[:5], some[5:]))
        close(found["rule"], odds(0, some[:1], some[1:5]))
        # What `readouts` promises: complement is format and rule together.
        log = lambda x: -np.logaddexp(0, -x)  # noqa: E731
        close(log(found["complement"]), log(found["format"]) + log(found["rule"]))
    if even:
        close(found["parity"], odds(1, some[:3], some[3:5]))


def test_forms_of_answers(tiny: Model, pairs_on: Callable[[str], list[Pair]]) -> None:
    """Labels, digits, and words that may be anything; each text by hand."""
    texts = tiny.token_texts
    digits = [token_of(tiny, d) for d in "0123456789"]
    run = pairs_on("copy")[0].a
    labels = frozenset(token_of(tiny, x) for x in "xy")
    assert form_of(run, np.array([token_of(tiny, "x")]), texts, labels, False) == Form(labels)
    four, seven, bracket = (token_of(tiny, x) for x in "47)")
    found = form_of(run, np.array([four, seven, bracket]), texts, frozenset(), True)
    assert found.tokens == frozenset(digits) and found.ahead is not None and found.ahead.tolist() == [four]
    assert found.same == frozenset(digits[1::2]) and found.other == frozenset(digits[::2])
    one = form_of(run, np.array([four, bracket]), texts, frozenset(), True)
    assert one.ahead is not None and one.ahead.tolist() == [] and one.same == frozenset(digits[::2])
    word = np.array([token_of(tiny, x) for x in "went"])
    for whole, parity in ((word, True), (word, False), (np.array([four, seven]), False)):
        assert form_of(run, whole, texts, frozenset(), parity) == Form(frozenset())
    # A space that is a token of its own is not of the form.
    assert form_of(run, np.array([token_of(tiny, " "), four]), texts, frozenset(), True) == Form(frozenset())
    assert Vocabulary(texts).digits_like(four) == found.tokens


# ------------------------------------------------------------------------------------------------- MLPs


@contextlib.contextmanager
def other_mlps(model: Model, values: dict[int, torch.Tensor], at: np.ndarray) -> Iterator[None]:
    """A plain model whose MLPs put out something else at some tokens."""

    def replace(layer: int) -> Callable:
        def hook(_: object, __: tuple, y: torch.Tensor) -> torch.Tensor:
            y = y.clone()
            where = torch.from_numpy(np.flatnonzero(at))
            y[0, where] = values[layer][where]
            return y

        return hook

    blocks = model.hf.transformer.h if model.name == "gpt2" else model.hf.model.layers
    written = [block.post_feedforward_layernorm if model.name == "gemma3" else block.mlp for block in blocks]
    handles = [written[layer].register_forward_hook(replace(layer)) for layer in values]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def mlps_by_hand(
    model: Model, pair: Pair, values: dict[int, torch.Tensor], at: np.ndarray, form: Form, point: int
) -> dict[str, float]:
    """Readouts of one run with hooks, and what B's own answer gets from its stream at a point."""
    ahead = [] if form.ahead is None else form.ahead.tolist()
    n = len(pair.a.prompt.tokens)
    tokens = np.array([*pair.a.prompt.tokens, *ahead])
    at = np.array([*at, *[False] * len(ahead)])
    more = {layer: torch.cat([x, torch.zeros(len(ahead), x.shape[1])]) for layer, x in values.items()}
    kept: list[torch.Tensor] = []
    module = [*model.anatomy.blocks, model.anatomy.final_norm.module][point]
    keep = lambda _, args, kwargs: kept.append((*args, *kwargs.values())[0][0, n - 1].clone())  # noqa: E731
    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    with other_mlps(model, more, at):
        logits = forward(model, tokens)
    handle.remove()
    found = {name: float(x[0]) for name, x in read_token(logits[None, [n - 1, -1]], pair.tokens[1], form).items()}

    def patch(_: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        x = (*args, *kwargs.values())[0].clone()
        x[0, -1] = kept[0]
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {next(iter(kwargs)): x})

    handle = module.register_forward_pre_hook(patch, with_kwargs=True)
    found["transfer"] = odds_by_hand(forward(model, pair.b.prompt.tokens)[-1], pair.tokens[0])
    handle.remove()
    return found


def places_by_hand(run: Episode) -> dict[str, np.ndarray]:
    """The answers of the examples from the token read on, all else of the examples, the last."""
    answers = np.zeros(len(run.prompt.tokens), bool)
    token = len(answers) - int(run.prompt.answer_start[N])
    for start, stop in zip(run.prompt.answer_start[:N], run.prompt.answer_stop[:N]):
        answers[start + token : stop] = True
    others = ~answers
    others[0] = others[run.prompt.answer_stop[N - 1] :] = False
    return {"answers": answers, "others": others, "last": np.arange(len(answers)) == len(answers) - 1}


def form_for(model: Model, task: str, pair: Pair, curves: xr.Dataset) -> Form:
    own = curves.sel(task=task, seq=pair.a.seq)
    whole = own.tokens.values[len(pair.a.prompt.tokens) : int(own.answer_stop[N])].astype(np.int64)
    labels = frozenset(token_of(model, x) for x in "xy") if task == "mapping" else frozenset()
    return form_of(pair.a, whole, model.token_texts, labels, task == "copy")


@pytest.mark.parametrize("task", ["past_tense", "copy", "mapping"])
@pytest.mark.parametrize("name", KINDS)
def test_ablated_mlps_are_hooked_runs(
    model_of: Callable[[str], Model],
    pairs_on: Callable[[str], list[Pair]],
    curves: xr.Dataset,
    name: str,
    task: str,
) -> None:
    """A layer at a time and together, by place and readout."""
    model, pairs = model_of(name), pairs_on(task)
    runs = [pair.a for pair in pairs]
    ablation_values = AblationValues(model.anatomy, runs, [permuted(run, N, 0) for run in runs])
    pair, point = pairs[1], 2
    form = form_for(model, task, pair, curves)
    assert (form.ahead is not None and len(form.ahead) == 1) == (task == "copy")
    mlps = ablation_values.of(pair.a.seq, "mean")[1]
    found = ablate_mlps(model.anatomy, pair, mlps, form, point)
    names = {"past_tense": [], "mapping": ["format", "rule"], "copy": ["format", "rule", "parity"]}[task]
    assert set(found) == {
        (place, name) for place in ("answers", "others", "last") for name in ("complement", *names, "transfer")
    }
    clean = mlps_by_hand(model, pair, {}, np.zeros(len(pair.a.prompt.tokens), bool), form, point)
    for place, at in places_by_hand(pair.a).items():
        for layer in (0, 1):
            odds = mlps_by_hand(model, pair, {layer: mlps[layer]}, at, form, point)
            for readout, x in odds.items():
                assert found[place, readout][layer] == pytest.approx(clean[readout] - x, abs=6e-5), (place, readout)
        # The control: what the last layer's MLP does elsewhere, no later attention brings to the last token.
        for readout in ("complement", "transfer"):
            assert (abs(found[place, readout]) > 1e-4).tolist() == [True, place == "last"]
    early = ablate_mlps(model.anatomy, pair, mlps, form, 1)
    for place in ("answers", "others", "last"):
        np.testing.assert_allclose(early[place, "complement"], found[place, "complement"], atol=1e-6)
        # Before block 1, the stream has what block 0 did there.
        assert (abs(early[place, "transfer"]) > 1e-4).tolist() == [place == "last", False]
    assert early["last", "transfer"][0] == pytest.approx(
        mlps_by_hand(model, pair, {}, places_by_hand(pair.a)["last"], form, 1)["transfer"]
        - mlps_by_hand(model, pair, {0: mlps[0]}, places_by_hand(pair.a)["last"], form, 1)["transfer"],
        abs=6e-5,
    )
    together = ablate_mlps(
        model.anatomy, pair, mlps, form, None, layers=[0, 1], places=("answers", "others"), together=True
    )
    assert {place for place, _ in together} == {"answers", "others"} and ("answers", "transfer") not in together
    for place in ("answers", "others"):
        odds = mlps_by_hand(model, pair, dict(enumerate(mlps)), places_by_hand(pair.a)[place], form, point)
        for readout in ("complement", *names):
            (lost,) = together[place, readout]
            assert lost == pytest.approx(clean[readout] - odds[readout], abs=6e-5)
    some = ablate_mlps(model.anatomy, pair, mlps, form, point, layers=[1], places=("last",))
    np.testing.assert_allclose(some["last", "complement"], found["last", "complement"][1:], atol=1e-5)


# ------------------------------------------------------------------------------------------------- which heads


def test_heads_that_attend_are_chosen_by_the_even_pairs() -> None:
    rng = np.random.default_rng(0)
    mass = rng.uniform(0, 0.05, size=(8, 3, 4))
    mass[::2, 1, 2], mass[::2, 0, 3], mass[::2, 2, 0] = 0.5, 0.3, 0.11
    mass[1::2, 2, 2] = 1.0
    nothing = np.zeros_like(mass)
    masses = {"to_answers": mass, "bring": mass, "bring_other": nothing}
    masses |= {"bring_separator": nothing, "bring_separator_other": nothing}
    assert attending(masses, "to_answers") == [(1, 2), (0, 3), (2, 0)]
    assert attending(masses, "to_answers", most=2) == [(1, 2), (0, 3)]
    assert attending(masses, "bring") == [(1, 2), (0, 3), (2, 0)]
    masses["bring_other"] = np.where(np.arange(12).reshape(3, 4) == 3, 0.4, 0.2)[None] * np.ones((8, 1, 1))
    assert attending(masses, "bring") == [(1, 2)]  # the others look as much at the query before
    assert attending(masses, "to_answers") == [(1, 2), (0, 3), (2, 0)]
    through = masses | {"bring": nothing, "bring_separator": mass}
    assert attending(through, "bring") == [(1, 2), (0, 3), (2, 0)]  # by way of the separator
    assert attending({"to_answers": np.full((4, 2, 2), 0.1)}, "to_answers") == []


# ------------------------------------------------------------------------------------------------- the verdict

NAN = float("nan")
Row = tuple[
    int, str, float, float, float, int, int
]  # step, decides, share_low, share_high, beyond_low, n_controls, as much


def table(*rows: Row) -> pd.DataFrame:
    """`n_as_much`: how many of the controls take as much."""
    columns = ["step", "decides", "share_low", "share_high", "beyond_low", "n_controls", "n_as_much"]
    return pd.DataFrame(list(rows), columns=columns)


WAY: Row = (1, "path", 0.3, 0.5, 0.2, 1, 0)
TOLD: Row = (1, "heads", 0.3, 0.5, 0.1, 20, 0)
FILLED: list[Row] = [(step, what, 0.3, 0.5, 0.2, 20, 0) for step in (2, 3) for what in ("path", "heads")]


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([WAY, TOLD], "supported"),
        ([WAY, TOLD, TOLD], "supported"),
        ([(1, "path", STEP_LEAST, 0.5, 0.01, 1, 0), (1, "heads", STEP_LEAST, 0.5, -0.1, 20, 0)], "supported"),
        ([WAY], "not seen"),  # no heads that go it
        ([TOLD], "not seen"),
        ([WAY, (1, "heads", 0.09, 0.5, 0.1, 20, 0)], "not seen"),  # may be less than a tenth
        ([WAY, (1, "heads", 0.3, 0.5, 0.1, 20, 1)], "not seen"),  # a placebo set takes as much
        ([WAY, (1, "heads", 0.3, 0.5, NAN, 0, 0)], "not seen"),  # no placebo sets
        ([WAY, TOLD, (1, "heads", -0.1, 0.01, -0.4, 20, 20)], "not seen"),  # by one kind of ablation only
        ([WAY, (1, "heads", -0.1, 0.01, -0.4, 20, 20)], "not seen"),  # others may repair them
        ([(1, "path", 0.09, 0.5, 0.2, 1, 0), TOLD], "not seen"),
        ([(1, "path", 0.3, 0.5, 0.0, 1, 0), TOLD], "not seen"),  # may be no more than a control
        ([(1, "path", 0.3, 0.5, NAN, 0, 0), TOLD], "not seen"),  # without a control
        ([(1, "path", -0.05, 0.09, -0.1, 1, 1), TOLD], "rejected"),  # surely less than a tenth
        ([(1, "path", -0.05, 0.09, -0.1, 1, 1)], "rejected"),
        ([(1, "path", -0.5, -0.2, 0.1, 1, 0)], "rejected"),
        ([WAY, (1, "path", -0.05, 0.09, -0.1, 1, 1), TOLD], "not seen"),  # one of two
        ([(1, "path", -0.05, 0.09, -0.1, 1, 1), (1, "detour", 0.3, 0.5, NAN, 0, 0)], "not seen"),  # goes another way
        ([(1, "path", -0.05, 0.09, -0.1, 1, 1), (1, "detour", -0.1, 0.05, NAN, 0, 0)], "rejected"),
        ([WAY, TOLD, (1, "", -0.1, 0.01, NAN, 0, 0)], "supported"),  # one edge of a way rejects nothing
        ([(1, "", -0.1, 0.01, NAN, 0, 0)], "not seen"),
        ([WAY, TOLD, (1, "", 0.0, 0.01, NAN, 0, 0)], "supported"),  # a control decides nothing by itself
        ([WAY, TOLD, (1, "", 0.6, 0.9, NAN, 0, 0)], "supported"),
        ([(1, "", 0.3, 0.5, 0.2, 1, 0)], "not seen"),
        ([(1, "path", NAN, NAN, NAN, 1, 0), (1, "heads", NAN, NAN, NAN, 20, 0)], "not seen"),  # no rule to explain
        ([], "not seen"),
    ],
)
def test_a_step_is_judged_by_what_decides(rows: list[Row], verdict: str) -> None:
    """And by nothing of the other steps; step 2 has no heads."""
    assert judge(table(*rows, *FILLED)) == {1: verdict, 2: "supported", 3: "supported"}
    assert judge(table(*rows, *[(step, "path", 0.0, 0.01, 0.0, 1, 0) for step in (2, 3)]))[1] == verdict
    assert judge(table((2, *WAY[1:])))[2] == "supported"
    assert list(judge(table())) == list(STEPS)


def ratio_by_hand(x: np.ndarray, y: np.ndarray) -> list[float]:
    """Mean of x over that of y; the interval by the delta method."""
    n, ratio = len(x), x.mean() / y.mean()
    covariance = np.cov(x, y)
    variance = (covariance[0, 0] - 2 * ratio * covariance[0, 1] + ratio**2 * covariance[1, 1]) / y.mean() ** 2 / n
    half = student.ppf(0.975, n - 1) * variance**0.5
    return [ratio, ratio - half, ratio + half]


def test_a_row_is_a_share_of_what_the_rule_adds_beside_its_worst_control() -> None:
    rng = np.random.default_rng(0)
    rule, lost = 5 + rng.normal(size=9), 2 + rng.normal(size=9)
    controls = [0.1 * rng.normal(size=9), 1 + 0.1 * rng.normal(size=9), 0.5 + 0.1 * rng.normal(size=9)]
    row = experiment_row(lost, rule, controls, step=1, what="x")
    assert row["step"] == 1 and row["what"] == "x" and row["n_controls"] == 3 and row["n_as_much"] == 0
    for name, x in (("share", lost), ("beyond", lost - controls[1])):
        np.testing.assert_allclose([row[f"{name}{end}"] for end in ("", "_low", "_high")], ratio_by_hand(x, rule))
    alone = experiment_row(lost, rule, step=1)
    assert np.isnan([alone[f"beyond{end}"] for end in ("", "_low", "_high")]).all()
    assert alone["share"] == row["share"] and alone["n_controls"] == alone["n_as_much"] == 0
    assert experiment_row(lost, rule, [lost, lost + 1, lost - 1])["n_as_much"] == 2


def test_the_interval_of_a_share_is_that_of_a_ratio() -> None:
    """Lost and rule go together, so a share is surer than either; the control: one that takes the rule for known."""
    rng = np.random.default_rng(0)
    held = naive = 0
    for _ in range(400):
        rule = 4 + rng.normal(size=16)
        lost = 0.5 * rule + 0.2 * rng.normal(size=16)
        row = experiment_row(lost, rule)
        held += row["share_low"] <= 0.5 <= row["share_high"]
        share = lost / 4
        naive += abs(share.mean() - 0.5) <= student.ppf(0.975, 15) * 0.2 / 4 / 4
        assert row["share_high"] - row["share_low"] < 4 * share.std() / 4
    assert binom.ppf(0.001, 400, 0.95) <= held <= binom.ppf(0.999, 400, 0.95) and naive < 0.9 * 400


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_stronger_evidence_never_weakens_a_verdict(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for what in ("path", "heads", "path", "heads"):
        share, beyond, width = rng.uniform(-0.3, 0.6), rng.uniform(-0.3, 0.4), rng.uniform(0, 0.4)
        rows.append((1, what, share - width, share + width, beyond - width, 20, int(rng.integers(0, 2))))
    order = ["rejected", "not seen", "supported"]
    stronger = [(*row[:2], *(x + 0.2 for x in row[2:5]), row[5], 0) for row in rows]
    before, after = (judge(table(*x, *FILLED))[1] for x in (rows, stronger))  # type: ignore[misc]
    assert order.index(after) >= order.index(before)
