"""Model families: whatever layers keep between tokens, `collect` says what plain forward passes say, or refuses."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from bayes_icl.collect import collect_curves
from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.errors import StatedError
from bayes_icl.models import Model
from bayes_icl.tasks import load_tasks

ANALYSES = Path(__file__).parent.parent / "analyses"
NEAR = 1e-4  # nats; float32 logits of tiny models agree within 1e-5

# One of each kind, and how its branches have to be read.
WAYS = {
    "llama": "over the cached prefix",
    "opt": "over the cached prefix",  # learned positions
    "mixtral": "over the cached prefix",  # experts
    "gemma3_text": "its attention reaches back 64 tokens",  # a sliding window
    "bloom": "its cache does not take branches",  # positions are distances in the row
    "qwen3_next": "nats off",  # a recurrent state beside attention
    "lfm2": "nats off",  # convolutions beside attention
    "bart": "nats off",  # counts positions from its cache
    "roberta (is_decoder)": "nats off",  # as a decoder; counts positions from the padding token
    "mamba": "its cache does not take branches",  # a recurrent state alone
    "rwkv": "its cache does not take branches",
    "openai-gpt": "its cache does not take branches",  # it has none
    "llama4_text": "its cache does not take branches",  # attention in chunks
}


@pytest.fixture(scope="module")
def families() -> Any:
    sys.path.insert(0, str(ANALYSES))
    yield importlib.import_module("families")
    sys.path.remove(str(ANALYSES))


def _collect(model: Model, n_seqs: int = 1, **how: Any) -> xr.Dataset:
    return collect_curves(model, load_tasks(["category_arbitrary"]), n_shots=4, n_seqs=n_seqs, **how)


@pytest.mark.parametrize("name", WAYS)
def test_every_family_is_read_as_plain_passes_read_it(
    families: Any, tiny: Model, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model(families.build(name), tiny.tokenizer, name)
    curves = _collect(model)
    gaps = families.largest_gap(model.hf, curves)
    assert max(gaps.values()) < NEAR, gaps
    assert WAYS[name] in curves.branches
    said = [line for line in capsys.readouterr().err.splitlines() if "read one by one" in line]
    assert len(said) == (0 if WAYS[name] == "over the cached prefix" else 1)


@pytest.mark.parametrize("name", ["qwen3_next", "lfm2", "bart", "roberta (is_decoder)"])
def test_without_the_comparison_they_would_be_wrong(families: Any, tiny: Model, name: str) -> None:
    """The control: over the cached prefix these are far outside the tolerance."""
    model = Model(families.build(name), tiny.tokenizer, name)
    model.branching.checked = 10**6
    gaps = families.largest_gap(model.hf, _collect(model))
    assert gaps["complement"] < NEAR and gaps["foil"] > 0.05


@pytest.mark.parametrize("name", ["bert", "electra", "xlm"])
@pytest.mark.parametrize("readouts", [(), ("complement",)])
def test_a_model_that_sees_what_follows_is_refused(
    families: Any, tiny: Model, name: str, readouts: tuple[str, ...]
) -> None:
    with pytest.raises(StatedError, match=rf"model '{name}' \(\w+\) sees what follows.* by [\d.]+ nats"):
        _collect(Model(families.build(name), tiny.tokenizer, name), readouts=readouts)


def test_a_run_that_went_on_says_how_its_branches_were_read(families: Any, tiny: Model, tmp_path: Path) -> None:
    """Also of batches that an earlier process read, and in batches of any size."""
    model = Model(families.build("bart"), tiny.tokenizer, "bart")
    first = _collect(model, 2, parts=Checkpoint(tmp_path / "c.part", "key"))
    again = _collect(model, 2, parts=Checkpoint(tmp_path / "c.part", "key"))
    xr.testing.assert_identical(first, again)
    assert first.branches.startswith("one by one: over its cache they are")
    together = _collect(model, 2, batch_size=2)
    xr.testing.assert_allclose(first.log_odds, together.log_odds, atol=NEAR)
    assert _collect(model, readouts=["complement"]).branches == "none read"
