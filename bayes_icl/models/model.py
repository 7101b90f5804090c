"""A model and the one way to run it: logits at chosen positions only.

A model is a transformers module with its tokenizer. `Model.bridge` wraps the same module in a raw TransformerBridge
of TransformerLens 4 (hook names in this project are TransformerLens's), never in compatibility mode, which would
rewrite the user's weights. The bridge forces eager attention, so it is built only when something asks for it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayes_icl.core.errors import StatedError, first_line
from bayes_icl.lens.anatomy import Anatomy, pad
from bayes_icl.lens.locating import anatomy_of
from bayes_icl.models.branching import Branching, gap_between
from bayes_icl.models.identity import hash_weights
from bayes_icl.models.prompts import Branches, first_token

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Where configurations say how many tokens a model takes; the first that is there counts.
CONTEXT_NAMES = (
    "max_position_embeddings",
    "max_target_positions",
    "n_positions",
    "max_seq_len",
    "context_length",
    "n_ctx",
)


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
        bridge
            As `boot_transformers` returns it.
        name
            The model's name in files; that of the bridge's configuration if None.
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
            "weights_sha256": hash_weights(self.hf),
            "tokenizer_sha256": hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "bos": first_token(self.tokenizer)[1],
            "dtype": str(self.hf.dtype).removeprefix("torch."),
            "device": str(self.device),
        }

    def logits_at(
        self,
        tokens: Sequence[Int[np.ndarray, " _pos"]],
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
        tokens
            Of each episode.
        positions
            Of each episode, those to read.
        branches
            Of each episode.
        branch_positions
            Of each episode, the branch tokens to read, by index.

        Returns
        -------
        own, of_branches
            Logits in float32, episode after episode, in the order of the positions given.
        """
        with torch.inference_mode():
            if not any(len(wanted) for wanted in branch_positions):
                self.branching.last = ""
                own = self.plain_pass(tokens, positions)
                return own, own[:0]
            config, known = self.hf.config.get_text_config(), self.branching
            window = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)  # GPT-Neo's name
            length = max(map(len, tokens)) + max(len(b.tokens) for b in branches)
            why = known.why
            if not why and window and length > window:
                why = f"its attention reaches back {window} tokens, so its cache forgets what came before"
            if not why:
                try:
                    found = self.over_cache(tokens, positions, branches, branch_positions)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # of many kinds, where a cache is not made for this, or there is none
                    known.why = why = f"its cache does not take branches ({first_line(error)})"
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
            return self.plain_pass(tokens, positions), self._spelled_out(tokens, branches, branch_positions)

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
                read = self.plain_pass([tokens], [range(half)])
                whole = [
                    self.hf(input_ids=pad([row]).to(self.device), use_cache=False).logits[0, :half].float()
                    for row in (tokens, np.concatenate([tokens[:half], after]), tokens[:half])
                ]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model's own code raises: it cannot be read
            raise StatedError(
                f"model {self.name!r} ({type(self.hf).__name__}) cannot be run on text alone: {first_line(error)}"
            ) from error
        again, *changed = (gap_between(read, other, self.hf.dtype) for other in whole)
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

    def plain_pass(
        self, tokens: Sequence[np.ndarray], positions: Sequence[Sequence[int]]
    ) -> Float[Tensor, "read vocab"]:
        """Logits at chosen positions of one plain pass over some rows."""
        with self._reading(positions):
            return self.hf(input_ids=pad(tokens).to(self.device), use_cache=False).logits[0].float()

    def over_cache(
        self,
        tokens: Sequence[np.ndarray],
        positions: Sequence[Sequence[int]],
        branches: Sequence[Branches],
        branch_positions: Sequence[Sequence[int]],
        seen: Sequence[Bool[np.ndarray, "_pos _pos"]] | None = None,
    ) -> tuple[Float[Tensor, "read vocab"], Float[Tensor, "branch_read vocab"]]:
        """The same logits as `logits_at`: branches as trees over the cached prefix, whether the model can or not.

        With `seen`, which tokens of an episode each of them attends to, the prefix is read under that mask.
        """
        ids = pad(tokens).to(self.device)
        n, width = ids.shape[1], max(len(b.tokens) for b in branches)
        lowest = torch.finfo(self.hf.dtype).min
        masked = {}
        if seen is not None:
            mask = torch.full((len(tokens), 1, n, n), lowest, dtype=self.hf.dtype)
            mask[..., 0] = 0
            for i, own in enumerate(seen):
                mask[i, 0, : len(own), : len(own)].masked_fill_(torch.from_numpy(own), 0)
            places = torch.arange(n, device=self.device).expand(len(tokens), n)
            masked = {"attention_mask": mask.to(self.device), "position_ids": places}
        with self._reading(positions):
            out = self.hf(input_ids=ids, use_cache=True, **masked)
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
                self.plain_pass([np.concatenate([text[:begin], b.tokens[path]])], [reads]),
            ),
            (branched[[wanted.index(i) for i in few]], self._spelled_out([text], [b], [few])),
        ]
        gap = max(gap_between(a, expected, self.hf.dtype) for a, expected in pairs)
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
        read = torch.cat(
            [self.plain_pass(rows[i : i + chunk], reads[i : i + chunk]) for i in range(0, len(rows), chunk)]
        )
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


def _plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer as it was before TransformerLens had it add a BOS, if it can be loaded again."""
    from transformers import AutoTokenizer

    if not getattr(tokenizer, "name_or_path", ""):
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(tokenizer.name_or_path, local_files_only=True, trust_remote_code=False)
    except Exception:  # not on this disk any more: the bridge's own is the best there is
        return tokenizer
