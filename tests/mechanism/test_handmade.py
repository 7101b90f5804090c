"""The model that moves a task, built by hand: it does what the tests that use it take for known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from handmade import (
    ANSWER,
    ANSWERED,
    BACKUP,
    BRING,
    FETCH,
    FORMED,
    FULL_ANSWER,
    HEADS,
    MOVER,
    PRESENCE,
    TASK_LAYERS,
    TRANSFER,
    TRANSFER_WITHOUT_MOVER,
    Dim,
    backup_model,
    mapping_task,
    noise_model,
    token_of,
)

from bayes_icl.collect import collect_curves
from bayes_icl.lens.edits import Edits, heads_replaced
from bayes_icl.lens.sweeps import Base, Row, base_run, sweep
from bayes_icl.lens.watching import watch
from bayes_icl.models import Model
from bayes_icl.models.prompts import Prompt, encode_episode
from bayes_icl.tasks import Example, Task

N, SEQS = 8, 16
KINDS = ("zero", "mean", "resample")
Head = tuple[int, int]


class Run(NamedTuple):
    """`n` examples and a query, up to the separator at which the label is read."""

    tokens: np.ndarray
    answer: int


@pytest.fixture(scope="module")
def model(tiny: Model) -> Model:
    return backup_model(tiny)


def encoded(model: Model, task: Task, examples: Sequence[Example]) -> tuple[Prompt, Run]:
    prompt = encode_episode(task, examples, model.tokenizer)
    at = int(prompt.answer_start[-1])
    return prompt, Run(prompt.tokens[:at], int(prompt.tokens[at]))


def runs_of(model: Model, task: Task, n: int = N) -> list[Run]:
    return [encoded(model, task, task.episode(n, 0, seq))[1] for seq in range(SEQS)]


def pairs_of(model: Model, task: Task) -> list[tuple[Run, Run]]:
    """A run and, of another episode, a bare query of the other class."""
    bare = runs_of(model, task, 0)
    pairs = []
    for i, run in enumerate(runs_of(model, task)):
        others = [bare[(i + j) % SEQS] for j in range(1, SEQS) if bare[(i + j) % SEQS].answer != run.answer]
        pairs.append((run, others[0]))
    return pairs


def log_odds(logits: torch.Tensor, token: int) -> float:
    """Of a token against all others."""
    others = torch.cat([logits[:token], logits[token + 1 :]])
    return float(logits[token] - others.logsumexp(-1))


def zeros(model: Model, run: Run, heads: Sequence[Head]) -> Edits:
    values = model.plain.lm_head.weight.new_zeros(1, len(run.tokens), 1, model.anatomy.value_bias[0].shape[-1])
    return edits_of({head: values for head in heads})


def edits_of(values: Mapping[Head, torch.Tensor]) -> Edits:
    """Values by head, shape (1, pos, 1, d_head), gathered by layer."""
    return {
        layer: (
            [head for at, head in values if at == layer],
            torch.cat([value for (at, _), value in values.items() if at == layer], 2),
        )
        for layer in {layer for layer, _ in values}
    }


def shuffled_outputs(model: Model, task: Task) -> list[list[torch.Tensor]]:
    """By episode and layer: what heads hand on, of shape (pos, head, d_head), where answers are permuted."""
    rng = np.random.default_rng(0)
    found = []
    for seq in range(SEQS):
        *shown, query = task.episode(N, 0, seq)
        answers = rng.permutation([e.answer for e in shown])
        _, run = encoded(model, task, [*(replace(e, answer=str(a)) for e, a in zip(shown, answers)), query])
        z: list[torch.Tensor] = []
        watch(model.anatomy, [run.tokens], np.array([[0]]), on_z=lambda _, x: z.append(x[0].clone()))  # noqa: B023
        found.append(z)
    return found


def without(model: Model, task: Task, heads: Sequence[Head], kind: str) -> np.ndarray:
    """Log-odds of the answer of every run without some heads, at all positions."""
    shuffled = shuffled_outputs(model, task) if kind != "zero" else []
    found = []
    for seq, run in enumerate(runs_of(model, task)):
        if kind == "zero":
            edits = zeros(model, run, heads)
        else:
            chosen = shuffled if kind == "mean" else [shuffled[(seq + 1) % SEQS]]
            edits = edits_of({(i, h): sum(z[i][:, [h]] for z in chosen)[None] / len(chosen) for i, h in heads})
        with heads_replaced(model.anatomy, edits), torch.inference_mode():
            logits = model.plain(torch.from_numpy(run.tokens)[None]).logits[0, -1]
        found.append(log_odds(logits, run.answer))
    return np.array(found)


def swept(model: Model, base: Base, rows: Sequence[Row], token: int) -> np.ndarray:
    """Log-odds of a token after every row's last position."""
    found = np.zeros(len(rows))
    for some in sweep(model.anatomy, base, rows, [base.residual[0].shape[1] - 1]):
        found[some.rows] = [log_odds(row, token) for row in some.logits[:, 0]]
    return found


def patched(model: Model, pairs: Sequence[tuple[Run, Run]], heads: Sequence[Head] = ()) -> np.ndarray:
    """Means over pairs, (own answer, other answer) x point: a run's last position, less heads, put into the query."""
    total = np.zeros((2, TASK_LAYERS + 1))
    for run, query in pairs:
        a = base_run(model.anatomy, run.tokens, len(run.tokens) - 1, zeros(model, run, heads))
        b = base_run(model.anatomy, query.tokens, 0)
        last = len(query.tokens) - 1
        rows = [Row(point, patch={last: a.residual[point][0, -1]}) for point in range(TASK_LAYERS + 1)]
        total += [swept(model, b, rows, token) for token in (query.answer, run.answer)]
    return total / len(pairs)


def attention(model: Model, run: Run, head: Head, edits: Edits | None = None, at: int = -1) -> np.ndarray:
    with heads_replaced(model.anatomy, edits or {}):
        stream = watch(model.anatomy, [run.tokens], np.array([[at % len(run.tokens)]]))
    return stream.pattern[head[0]][0, head[1], 0].numpy()


@pytest.mark.parametrize("flipped", [False, True])
def test_learns_from_examples_what_a_bare_query_cannot_know(model: Model, flipped: bool) -> None:
    curves = collect_curves(
        model, [mapping_task(flipped=flipped)], n_shots=10, n_seqs=24, readouts=("complement", "foil")
    )
    complement, foil = (curves.log_odds.sel(readout=r)[0].values for r in ("complement", "foil"))
    np.testing.assert_allclose(complement, foil, atol=0.01)  # all else is unlikely
    mean, sd = complement.mean(0), complement.std(0, ddof=1)
    assert abs(mean[0]) < 0.3 and 4 < mean[1] < mean[4]
    assert (abs(mean[5:] - FULL_ANSWER) < 0.6).all()
    assert (sd > 0.05).all() and (sd[5:] < 0.5).all()


def test_answers_without_evidence_teach_nothing(model: Model, tiny: Model) -> None:
    """Random labels; and a model of noise."""
    for one, task in ((model, mapping_task(shuffled=True)), (noise_model(tiny), mapping_task())):
        curves = collect_curves(one, [task], n_shots=10, n_seqs=24, readouts=("complement",))
        assert abs(curves.log_odds[0, 0, :, 4:].mean()) < 1


@pytest.mark.parametrize("flipped", [False, True])
def test_a_patch_brings_the_task_first_and_then_the_answer(model: Model, flipped: bool) -> None:
    pairs = pairs_of(model, mapping_task(flipped=flipped))
    own, other = patched(model, pairs)
    full = 0.9 * FULL_ANSWER
    assert (abs(own[:TRANSFER]) < 0.5).all() and (abs(other[:TRANSFER]) < 0.5).all()
    assert (own[TRANSFER:ANSWER] > full).all() and (other[TRANSFER:ANSWER] < -full).all()
    assert (own[ANSWER:] < -full).all() and (other[ANSWER:] > full).all()

    own, other = patched(model, pairs, [MOVER])
    assert (abs(own[:TRANSFER_WITHOUT_MOVER]) < 0.5).all()
    assert (own[TRANSFER_WITHOUT_MOVER:ANSWER] > full).all() and (other[ANSWER:] > full).all()

    for heads in ([MOVER, BACKUP], [(layer, h) for layer in (MOVER[0], BACKUP[0]) for h in range(HEADS)]):
        own, other = patched(model, pairs, heads)
        assert (abs(own) < 0.6).all() and (abs(other) < 0.6).all()


def test_other_heads_of_the_layers_before_a_transfer_do_not_matter(model: Model) -> None:
    pairs = pairs_of(model, mapping_task())
    others = [
        (layer, head) for layer in range(1, FETCH[0]) for head in range(HEADS) if (layer, head) not in (MOVER, BACKUP)
    ]
    np.testing.assert_allclose(patched(model, pairs, others), patched(model, pairs), atol=0.5)
    # All heads of the mover's layer are as good as the mover.
    all_there = [(MOVER[0], head) for head in range(HEADS)]
    np.testing.assert_allclose(patched(model, pairs, all_there), patched(model, pairs, [MOVER]), atol=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_backup_costs_nothing_until_the_mover_is_gone(model: Model, kind: str) -> None:
    task = mapping_task()
    clean = without(model, task, [], kind)
    cost = {
        heads: clean - without(model, task, list(heads), kind)
        for heads in ((MOVER,), (BACKUP,), (MOVER, BACKUP), ((4, 0),), (MOVER, (4, 0)))
    }
    assert abs(cost[BACKUP,].mean()) < 0.1
    little = 0.25 if kind == "resample" else 0.05  # a resampled task may be above 0.5, or below -0.5
    assert -0.1 < cost[MOVER,].mean() < little * clean.mean()
    assert cost[MOVER, BACKUP].mean() > 0.8 * clean.mean()
    growth = cost[MOVER, BACKUP] - cost[MOVER,] - cost[BACKUP,]
    assert growth.mean() > 0.7 * clean.mean() and growth.mean() / growth.std(ddof=1) * SEQS**0.5 > 5
    control = cost[MOVER, (4, 0)] - cost[MOVER,] - cost[(4, 0),]
    assert abs(control).max() < 0.5
    assert all(effect.std() > 0.001 for effect in cost.values())


def test_without_a_backup_the_mover_is_all(tiny: Model) -> None:
    model, task = backup_model(tiny, backup=False), mapping_task()
    pairs = pairs_of(model, task)
    own, other = patched(model, pairs)
    assert (own[TRANSFER:ANSWER] > 0.9 * FULL_ANSWER).all() and (other[ANSWER:] > 0.9 * FULL_ANSWER).all()
    assert (abs(patched(model, pairs, [MOVER])) < 0.6).all()
    assert abs(without(model, task, [MOVER], "zero").mean()) < 0.5


def test_a_model_of_noise_transfers_nothing(tiny: Model) -> None:
    assert (abs(patched(noise_model(tiny), pairs_of(noise_model(tiny), mapping_task()))) < 0.5).all()


def test_no_head_is_needed_alone_but_those_that_bring_and_fetch(model: Model) -> None:
    """Without the mover, its backup is too."""
    heads = [(layer, head) for layer in range(TASK_LAYERS) for head in range(HEADS)]
    cost = np.zeros((2, TASK_LAYERS, HEADS))
    for run in runs_of(model, mapping_task()):
        for i, gone in enumerate(([], [MOVER])):
            base = base_run(model.anatomy, run.tokens, 0, zeros(model, run, gone))
            rows = [Row(0)] + [
                Row(h[0], heads={k: (v[0], v[1][0]) for k, v in zeros(model, run, [h]).items()}) for h in heads
            ]
            found = swept(model, base, rows, run.answer)
            cost[i] += (found[0] - found[1:]).reshape(TASK_LAYERS, HEADS) / SEQS
    expected = np.zeros_like(cost, dtype=bool)
    for i, needed in enumerate(([BRING, FETCH], [BRING, FETCH, BACKUP])):
        for head in needed:
            expected[i][head] = True
    assert (cost[expected] > 0.9 * FULL_ANSWER).all()
    assert (abs(cost[~expected]) < 0.2).all()
    assert 0.01 < cost[0][MOVER] < 0.2


def test_heads_attend_where_they_are_meant_to(model: Model) -> None:
    task = mapping_task()
    shown = task.episode(N, 0, 3)
    prompt, run = encoded(model, task, shown)
    answers = prompt.answer_start[:-1]
    for shot, answer in enumerate(answers.tolist()):
        for at in (answer, answer + 1):  # the label, and its terminator
            assert attention(model, run, BRING, at=at)[answer - 2] > 0.99
        assert attention(model, run, FETCH, at=answer - 1)[answer - 2] > 0.99
        assert attention(model, run, BRING, at=answer - 1)[0] > 0.99, shot
    assert attention(model, run, FETCH)[len(run.tokens) - 2] > 0.99
    gone = zeros(model, run, [MOVER])
    for head, edits, share in ((MOVER, None, 2 / 3), (BACKUP, None, 0), (BACKUP, gone, 2 / 3)):
        pattern = attention(model, run, head, edits)
        assert pattern[answers].sum() == pytest.approx(share, abs=0.1)
        assert pattern[[0, *answers]].sum() > 0.99
        assert attention(model, run, head, edits, at=-2)[0] > 0.99  # elsewhere, to the sink
    _, bare = encoded(model, task, shown[-1:])
    assert attention(model, bare, MOVER)[0] > 0.99 and attention(model, bare, BACKUP)[0] > 0.99


def test_evidence_is_formed_at_answers(model: Model) -> None:
    """By the MLP of a known layer; no other is needed there, nor that one elsewhere."""
    task = mapping_task()
    for seq in range(4):
        examples = task.episode(N, 0, seq)
        wrong = [replace(e, answer=e.foil) if i % 3 == 0 else e for i, e in enumerate(examples)]
        prompt, run = encoded(model, task, wrong)
        base = base_run(model.anatomy, run.tokens, 0)
        signs = [-1 if i % 3 == 0 else 1 for i in range(N)]
        for point, expected in ((FORMED, np.zeros(N)), (FORMED + 1, signs), (TASK_LAYERS, signs)):
            found = base.residual[point][0, prompt.answer_start[:-1], Dim.EVIDENCE]
            np.testing.assert_allclose(found, expected, atol=0.05)

        prompt, run = encoded(model, task, examples)
        base = base_run(model.anatomy, run.tokens, 0)
        at = np.isin(np.arange(len(run.tokens)), prompt.answer_start)
        nothing = {layer: torch.zeros(len(run.tokens), base.residual[0].shape[-1]) for layer in range(TASK_LAYERS)}
        rows = [Row(layer, mlps={layer: nothing[layer]}, at=where) for layer in nothing for where in (at, ~at)]
        found = swept(model, base, rows, run.answer)
        needed = np.zeros((TASK_LAYERS, 2), dtype=bool)
        needed[FORMED, 0] = needed[ANSWERED, 1] = True
        assert (abs(found.reshape(needed.shape)[needed]) < 1).all()
        assert (found.reshape(needed.shape)[~needed] > 0.9 * FULL_ANSWER).all()


def test_the_task_and_its_presence_are_at_the_last_position(model: Model) -> None:
    run, *_ = runs_of(model, mapping_task())
    for heads, points in (([], (MOVER[0], TRANSFER)), ([MOVER], (BACKUP[0], TRANSFER_WITHOUT_MOVER))):
        base = base_run(model.anatomy, run.tokens, len(run.tokens) - 1, zeros(model, run, heads))
        before, after = (base.residual[point][0, 0] for point in points)
        assert abs(before[Dim.TASK]) < 0.02 and 0.75 < after[Dim.TASK] < 1.05
        there = base.residual[PRESENCE + 1][0, 0, Dim.PRESENT]
        assert float(there) == pytest.approx(0 if heads else 1, abs=0.05)


def test_the_backup_writes_next_to_nothing_along_the_answer(model: Model) -> None:
    """So its direct effect stays about 0 where its effect grows."""
    size = model.plain.model.layers[0].self_attn.head_dim
    own = slice(BACKUP[1] * size, (BACKUP[1] + 1) * size)
    unembedding = model.plain.lm_head.weight
    along = (unembedding[token_of(model, "x")] - unembedding[token_of(model, "y")]) @ (
        model.plain.model.layers[BACKUP[0]].self_attn.o_proj.weight[:, own]
    )
    direct = np.zeros((2, SEQS))
    for seq, run in enumerate(runs_of(model, mapping_task())):
        sign = 1 if run.answer == token_of(model, "x") else -1
        for i, gone in enumerate(([], [MOVER])):
            with heads_replaced(model.anatomy, zeros(model, run, gone)):
                z = watch(model.anatomy, [run.tokens], np.array([[len(run.tokens) - 1]])).z[BACKUP[0]][0, BACKUP[1]]
            direct[i, seq] = sign * float(z @ along.detach())
    rise = direct[1] - direct[0]
    assert abs(direct).max() < 0.1 and 0 < rise.std() and abs(rise.mean()) < 2 * rise.std() / SEQS**0.5


def test_is_the_same_every_time(model: Model, tiny: Model) -> None:
    state, again = torch.get_rng_state(), backup_model(tiny)
    assert torch.equal(state, torch.get_rng_state())
    for own, other in zip(model.plain.parameters(), again.plain.parameters()):
        assert torch.equal(own, other)
