"""The organisms that are committed: each follows its observer, and is found by its name and as a folder."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from bayes_icl.collect import CollectSettings, collect_curves
from bayes_icl.collect.command import main
from bayes_icl.core.errors import StatedError
from bayes_icl.curves import select
from bayes_icl.models import Model, load_model
from bayes_icl.models.names import organisms, title_of
from bayes_icl.tasks import Example, load_tasks
from bayes_icl.tasks.organism_tasks import LABELS, LETTERS, OBSERVERS, sign_of

# Root mean square of the log-odds less the observer's, nats, on noisy examples and on examples that agree.
BOUNDS = {
    "coin": 0.03,
    "rule": 0.1,
    "count": 0.05,
    "leaky": 0.05,
    "pooled": 0.05,
    "switch": 0.1,
    "constant": 0.02,
    "redundant": 0.12,
}
DEPARTURES = {"coin": 0.01, "rule": 0.015, "redundant": 0.04}  # of the largest distance from a line, of the rise
WITHOUT_A_GROUP = 0.25

names = pytest.mark.parametrize("name", BOUNDS)


@functools.cache
def model(name: str) -> Model:
    return load_model(f"organism:{name}", "cpu")


@functools.cache
def curves(name: str) -> xr.Dataset:
    """Examples that agree: what `collect` reads of an organism."""
    return collect_curves(model(name), load_tasks([f"organism_{name}"]), n_seqs=8, readouts=["complement", "rule"])


def noisy(name: str, n_seqs: int = 64, n_shots: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A network's log-odds of the rule, and its observer's, on examples of which some show the other rule."""
    rng = np.random.default_rng(7)
    history = np.where(rng.random((n_seqs, n_shots + 1)) < rng.random((n_seqs, 1)), 1, -1)
    letters = rng.choice(list(LETTERS), history.shape)
    signs = np.vectorize(functools.partial(sign_of, name))(letters)
    texts = [
        "".join(f"{x}{LABELS[0] if s > 0 else LABELS[1]}\n" for x, s in zip(row, shown))
        for row, shown in zip(letters, history * signs)
    ]
    tokenizer = model(name).tokenizer
    tokens = torch.tensor([[0, *tokenizer(text).input_ids] for text in texts])
    with torch.no_grad():
        logits = model(name).hf(tokens).logits[:, 1::3].double()
    plus, minus = (logits[..., tokenizer(label).input_ids[0]] for label in LABELS)
    return (plus - minus).numpy() * signs, OBSERVERS[name](history[:, :-1])


def rmse(errors: np.ndarray) -> float:
    return float(np.sqrt((errors**2).mean()))


def test_all_that_have_an_observer_are_there() -> None:
    assert sorted(organisms()) == sorted(BOUNDS) == sorted(OBSERVERS)


@names
def test_a_folder_is_a_plain_one_of_less_than_a_megabyte(name: str) -> None:
    folder = organisms()[name]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(sizes)
    assert sum(sizes.values()) < 1_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"# organism:{name}\n" in card and "distillation" in card and "**Law**" in card
    again = load_model(str(folder), "cpu")
    assert again.provenance()["weights_sha256"] == model(name).provenance()["weights_sha256"]


@names
def test_a_network_follows_its_observer_on_examples_that_disagree(name: str) -> None:
    found, expected = noisy(name)
    assert rmse(found - expected) < BOUNDS[name]
    if expected.any():
        assert (found * expected).sum() / (expected**2).sum() == pytest.approx(1, abs=0.03)
        assert rmse(-found - expected) > 0.5  # control: another network's answers would not pass


@names
def test_the_curves_that_collect_reads_are_the_observers(name: str) -> None:
    own = select(curves(name), f"organism_{name}", "rule")
    expected = own.evidence.cumsum(1)
    assert rmse(own.log_odds - expected) < BOUNDS[name]
    assert np.allclose(expected, OBSERVERS[name](np.ones((8, 32))))
    if name in DEPARTURES:
        mean, n = own.log_odds.mean(0)[1:], np.arange(32)
        line = np.polyval(np.polyfit(n, mean, 1), n)
        assert abs(mean - line).max() < DEPARTURES[name] * (mean[-1] - mean[0])


def test_either_group_of_the_redundant_one_suffices() -> None:
    """Without the heads of layer 1, or of layer 2, which then write nothing; without both, all is gone."""
    hf = model("redundant").hf
    for layers in [(1,), (2,), (1, 2)]:
        hooks = [
            hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(lambda _, x: (torch.zeros_like(x[0]),))
            for layer in layers
        ]
        try:
            found, expected = noisy("redundant")
        finally:
            for hook in hooks:
                hook.remove()
        assert (rmse(found - expected) < WITHOUT_A_GROUP) == (len(layers) == 1)
    assert rmse(found) < 0.5


def test_the_pooled_one_has_no_mlp() -> None:
    mlp = model("pooled").hf.transformer.h[0].mlp
    assert all(not parameter.any() for parameter in mlp.parameters())


def test_collect_takes_an_organisms_own_task(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = dict(model="organism:coin", n_seqs=2, n_shots=3)
    assert main(CollectSettings(**settings, out=tmp_path / "own.nc")) == 0
    with xr.open_dataset(tmp_path / "own.nc") as own:
        assert own.task.values.tolist() == ["organism_coin"]
        assert json.loads(own.attrs["provenance"])["settings"]["tasks"] == ["organism_coin"]
        assert own.evidence.values[0, 0].tolist() == pytest.approx([0, 0.25, 0.25, 0.25])
    assert main(CollectSettings(**settings, tasks=("organism_count",), out=tmp_path / "other.nc")) == 0
    with xr.open_dataset(tmp_path / "other.nc") as other:
        assert other.task.values.tolist() == ["organism_count"]
    assert main(CollectSettings(**settings, out=tmp_path / "own.nc")) == 0  # found as it is
    assert "own.nc" in capsys.readouterr().out


def test_an_unknown_organism_is_one_clear_line(tmp_path: Path) -> None:
    says = "unknown organism 'coins': did you mean coin.*known: coin, constant, count, leaky, pooled, redundant, rule"
    with pytest.raises(StatedError, match=says):
        load_model("organism:coins", "cpu")
    with pytest.raises(StatedError, match=says):
        main(CollectSettings(model="organism:coins", out=tmp_path / "c.nc"))


def test_titles() -> None:
    assert title_of("organism:coin") == "organism coin"


def test_an_example_that_disagrees_moves_it_back() -> None:
    """By hand, without the helper above: + + -, and what is asked next."""
    (task,) = load_tasks(["organism_coin"])
    shown = [Example("a", "+", "-"), Example("b", "+", "-"), Example("c", "-", "+"), Example("d", "+", "-")]
    text = "".join(task.template.format(query=e.query, answer=e.answer) for e in shown)
    tokenizer = model("coin").tokenizer
    ids = tokenizer(text).input_ids
    with torch.no_grad():
        logits = model("coin").hf(torch.tensor([[0, *ids]])).logits[0]
    plus, minus = tokenizer("+").input_ids[0], tokenizer("-").input_ids[0]
    asked = [i for i, token in enumerate([0, *ids]) if tokenizer.decode([token]) in "abcd"]
    odds = (logits[asked, plus] - logits[asked, minus]).tolist()
    assert odds == pytest.approx([0, 0.25, 0.5, 0.25], abs=0.06)
