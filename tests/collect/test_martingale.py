"""The martingale gap: against texts that are spelled out, and on organisms whose law is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_icl.collect import CollectSettings, collect_curves, main
from bayes_icl.collect.martingale import shots_of
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import read_curves
from bayes_icl.models import Model, load_model
from bayes_icl.models.prompts import example_parts, first_token
from bayes_icl.tasks import Example, Task, load_tasks, under_designs

N = 6


def label_shares(model: Model, task: Task, before: list[Example], asked: Example) -> np.ndarray:
    """Probability of every label, among labels, from one plain pass over each text."""
    text = task.preamble + "".join("".join(example_parts(task.template, e)) for e in before)
    log_p = []
    for label in task.labels:
        lead, answer, terminator = example_parts(task.template, asked, label)
        begin = model.tokenizer(text + lead, add_special_tokens=False).input_ids
        whole = model.tokenizer(text + lead + answer + terminator, add_special_tokens=False).input_ids
        assert whole[: len(begin)] == begin
        first, _ = first_token(model.tokenizer)
        ids = torch.tensor([first, *whole])
        with torch.inference_mode():
            after = model.hf(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        log_p.append(sum(float(after[i - 1, ids[i]]) for i in range(len(begin) + 1, len(ids))))
    return np.exp(log_p - np.logaddexp.reduce(log_p))


def gap_again(model: Model, task: Task, examples: tuple[Example, ...], n: int) -> float:
    before, extra, asked = list(examples[:n]), examples[n], examples[n + 1]
    at = task.labels.index(asked.answer)
    now = label_shares(model, task, before, asked)[at]
    expected = sum(
        share * label_shares(model, task, [*before, replace(extra, shown=label)], asked)[at]
        for label, share in zip(task.labels, label_shares(model, task, before, extra))
    )
    return float(np.log(expected / (1 - expected)) - np.log(now / (1 - now)))


@pytest.mark.parametrize("spec", ["category", "coin", "markov", "category~category_arbitrary"])
def test_the_gap_is_that_of_texts_spelled_out(tiny: Model, spec: str) -> None:
    """Two, three and four labels, with queries and without, examples that show another label among them."""
    (task,) = load_tasks([spec])
    if task.process is None:
        (task,) = under_designs([task], ["noise:p=0.5"], N)
    dataset = collect_curves(tiny, [task], n_shots=N, n_seqs=2, readouts=["complement"], martingale=True)
    gaps = dataset.martingale_gap.isel(task=0)
    assert np.flatnonzero(gaps.notnull().all("seq")).tolist() == shots_of(N) == [1, 2, 4]
    assert int(gaps.notnull().sum()) == 6 and gaps.attrs["units"] == "nats"
    for seq in range(2):
        for n in (1, 4):
            expected = gap_again(tiny, task, task.episode(N, 0, seq), n)
            assert float(gaps.sel(seq=seq, shot=n)) == pytest.approx(expected, abs=1e-4)
    assert float(abs(gaps).max()) > 1e-3  # a random network is no observer


def test_a_counting_organism_expects_what_it_says_and_a_confident_one_does_not() -> None:
    """`count` is Beta-Bernoulli, a martingale; what `coin` says is b = 0.25 (h - t), which moves by 0.25 either way."""
    found = {}
    for name in ("count", "coin"):
        model, tasks = load_model(f"organism:{name}", "cpu"), load_tasks([f"organism_{name}"])
        dataset = collect_curves(model, tasks, n_shots=17, n_seqs=8, readouts=["rule"], martingale=True)
        found[name] = dataset.martingale_gap.isel(task=0).mean("seq")
    for n in shots_of(17):
        assert abs(float(found["count"].sel(shot=n))) < 0.02
        b = 0.25 * n
        p, up, down = (1 / (1 + np.exp(-x)) for x in (b, b + 0.25, b - 0.25))
        expected = p * up + (1 - p) * down
        exact = np.log(expected / (1 - expected)) - b
        assert float(found["coin"].sel(shot=n)) == pytest.approx(exact, abs=0.03)
    assert exact > 0.2  # far from what the counting one has


def test_tasks_that_have_no_gap(tiny: Model) -> None:
    tasks = under_designs(load_tasks(["category"]), ["plain", "blocks"], N)
    dataset = collect_curves(
        tiny, [*tasks, *load_tasks(["past_tense"])], n_shots=N, n_seqs=1, readouts=["complement"], martingale=True
    )
    assert dataset.martingale_gap.notnull().any(("seq", "shot")).values.tolist() == [True, False, False]
    for none in ([tasks[1]], load_tasks(["past_tense"])):
        with pytest.raises(StatedError, match="--martingale needs a task with labels"):
            collect_curves(tiny, none, n_shots=N, n_seqs=1, martingale=True)
    with pytest.raises(StatedError, match="and 2 shots"):
        collect_curves(tiny, tasks, n_shots=1, n_seqs=1, martingale=True)


def test_the_command_records_it_and_tells_such_files_apart(tmp_path: Path) -> None:
    settings = CollectSettings(
        model="tiny", tasks=("category",), n_shots=4, n_seqs=3, batch_size=2, device="cpu", martingale=True,
        out=tmp_path / "c.nc",
    )  # fmt: skip
    assert main(settings) == 0
    dataset = read_curves(settings.out)
    assert dataset.martingale_gap.notnull().sum("shot").values.tolist() == [[2, 2, 2]]
    assert json.loads(dataset.attrs["provenance"])["settings"]["martingale"] is True
    with pytest.raises(StatedError, match="made with other settings"):
        main(replace(settings, martingale=False))
    main(replace(settings, martingale=False, out=tmp_path / "plain.nc"))
    plain = read_curves(tmp_path / "plain.nc")
    assert "martingale_gap" not in plain and plain.log_odds.equals(dataset.log_odds)
