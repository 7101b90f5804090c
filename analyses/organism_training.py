"""How an organism is trained and measured: a small GPT-2 on the answers of an ideal observer (see organisms.py)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import GPT2Config, GPT2LMHeadModel

from bayes_icl.models.loading import byte_tokenizer, load_model
from bayes_icl.tasks.organism_tasks import LABELS, LETTERS, OBSERVERS, sign_of

SHOTS = 32

SHORT = 12  # shots of a short episode, where lengths are mixed

POSITION = 0.03  # size of the position embeddings before training

SHARE = 0.1  # of the margin's shortfall in the loss

MARGIN = 14.0  # nats of the two labels over all other tokens, beyond which nothing is asked of the mass elsewhere


@dataclass(frozen=True)
class Organism:
    """What is trained.

    Attributes
    ----------
    layers, steps, batch
        Of the network and of the training; `batch` is in sequences of `SHOTS` examples.
    rate
        Largest learning rate.
    mixed
        Take short sequences in half of the steps, as many tokens a step.
    curriculum
        Begin with 95 % of the letters of sign +, and fall to 50 % over the first half.
    attention_only
        No MLP: its weights are zero, and stay so.
    groups
        Drop the heads of one of these layers in a third of the steps each.
    begins
        The organism whose weights it begins with; random ones if empty.
    """

    layers: int = 2
    steps: int = 1000
    batch: int = 64
    rate: float = 2e-3
    mixed: bool = False
    curriculum: bool = False
    attention_only: bool = False
    groups: tuple[int, ...] = ()
    begins: str = ""


def histories(name: str, n_seqs: int, n_shots: int, rng: np.random.Generator) -> np.ndarray:
    """Histories (seq, shot) of noisy examples: the rate at which they agree is drawn anew for each sequence.

    Of `switch`, half follow the very process, in which the rule changes.
    """
    history = np.where(rng.random((n_seqs, n_shots)) < rng.random((n_seqs, 1)), 1, -1)
    if name == "switch":
        settings = OBSERVERS[name].keywords  # type: ignore[attr-defined]
        changes = np.where(rng.random((n_seqs, n_shots)) < settings["hazard"], -1, 1)
        rule = np.cumprod(changes, axis=1) * rng.choice([1, -1], (n_seqs, 1))
        right = rng.random((n_seqs, n_shots)) < 1 / (1 + np.exp(-settings["delta"]))
        history[::2] = (rule * np.where(right, 1, -1))[::2]
    return history


class Batches:
    """Sequences of an organism's task as tokens, and where its observer's log-odds are to be read."""

    def __init__(self, name: str) -> None:
        tokenizer = byte_tokenizer()
        self.name = name
        self._token = {text: tokenizer(text).input_ids[0] for text in (*LETTERS, *LABELS, "\n")}
        self.bos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self.labels = [self._token[label] for label in LABELS]
        self.newline = self._token["\n"]
        self._letters = np.array([self._token[x] for x in LETTERS])
        self._signs = np.array([sign_of(name, x) for x in LETTERS])

    def draw(
        self, n_seqs: int, n_shots: int, rng: np.random.Generator, plus: float = 0.5, *, agree: bool = False
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Tokens (seq, 3 shots + 4), histories of the rule and signs of the letters, each (seq, shot + 1)."""
        history = histories(self.name, n_seqs, n_shots + 1, rng)
        if agree:
            history[:] = history[:, :1]
        half = len(LETTERS) // 2
        letters = rng.integers(half, size=history.shape) + half * (rng.random(history.shape) >= plus)
        signs = self._signs[letters]
        shown = np.where(signs * history > 0, self.labels[0], self.labels[1])
        tokens = np.full((n_seqs, 1 + 3 * history.shape[1]), self.bos)
        tokens[:, 1::3], tokens[:, 2::3], tokens[:, 3::3] = self._letters[letters], shown, self.newline
        return torch.tensor(tokens), history, signs

    def target(self, history: np.ndarray, signs: np.ndarray) -> np.ndarray:
        """The observer's log-odds of + against -, nats, before each label."""
        return OBSERVERS[self.name](history[:, :-1]) * signs

    def read(self, hf: GPT2LMHeadModel, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log P(+)/P(-) and log P(a label)/P(no label), each (seq, shot + 1), and log P(newline) after a label."""
        hidden = hf.transformer(tokens).last_hidden_state
        logits = hf.lm_head(hidden[:, 1::3])
        labels = logits[..., self.labels]
        others = logits.index_fill(-1, torch.tensor(self.labels), -torch.inf)
        newline = hf.lm_head(hidden[:, 2::3]).log_softmax(-1)[..., self.newline]
        return labels[..., 0] - labels[..., 1], labels.logsumexp(-1) - others.logsumexp(-1), newline


def network(organism: Organism, seed: int) -> GPT2LMHeadModel:
    """A GPT-2 of width 64 with 4 heads, untrained."""
    tokenizer = byte_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=256,
        n_embd=64,
        n_head=4,
        n_layer=organism.layers,
        n_inner=1 if organism.attention_only else None,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own, a third faster
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    hf = GPT2LMHeadModel(config)
    # Sinusoids, which are trained on: what is one token back is then the same everywhere from the first step on.
    angles = torch.arange(config.n_positions)[:, None] / 1000 ** (torch.arange(0, 1, 2 / config.n_embd))
    hf.transformer.wpe.weight.data = POSITION * torch.cat([angles.sin(), angles.cos()], 1)
    if organism.attention_only:
        for block in hf.transformer.h:
            for parameter in block.mlp.parameters():
                parameter.requires_grad_(False).zero_()
    return hf


@contextlib.contextmanager
def dropped(hf: GPT2LMHeadModel, layer: int, kind: str) -> Iterator[None]:
    """The network without the heads of one layer: ``zero``, or ``mean``, their mean over the batch at each token."""

    def edit(module: Any, arguments: tuple[Tensor]) -> tuple[Tensor]:
        heads = arguments[0]
        return (torch.zeros_like(heads) if kind == "zero" else heads.mean(0, keepdim=True).repeat(len(heads), 1, 1),)

    hook = hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(edit)
    try:
        yield
    finally:
        hook.remove()


def train(name: str, organism: Organism, seed: int) -> tuple[GPT2LMHeadModel, float]:
    """A trained network, and the CPU seconds it took."""
    began = time.process_time()
    hf, batches, rng = network(organism, seed), Batches(name), np.random.default_rng([seed, 1])
    if organism.begins:
        hf.load_state_dict(load_model(f"organism:{organism.begins}", "cpu").hf.state_dict())
    optimiser = torch.optim.AdamW(
        [p for p in hf.parameters() if p.requires_grad], organism.rate, weight_decay=0.0, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, organism.rate, organism.steps)
    for step in range(organism.steps):
        short = organism.mixed and step % 2 == 0
        n_shots, n_seqs = (SHORT, organism.batch * SHOTS // SHORT) if short else (SHOTS, organism.batch)
        plus = max(0.5, 0.95 - 0.9 * step / organism.steps) if organism.curriculum else 0.5
        tokens, history, signs = batches.draw(n_seqs, n_shots, rng, plus)
        with contextlib.ExitStack() as stack:
            if organism.groups and (which := rng.integers(3)) < 2:
                stack.enter_context(dropped(hf, organism.groups[which], str(rng.choice(["zero", "mean"]))))
            odds, labels, newline = batches.read(hf, tokens)
        fit = F.huber_loss(odds, torch.tensor(batches.target(history, signs), dtype=torch.float32))
        optimiser.zero_grad()
        (fit + SHARE * F.relu(MARGIN - labels).mean() - newline.mean()).backward()
        torch.nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"{name} {step + 1}: {(2 * fit.item()) ** 0.5:.3f} nats, {labels.min().item():.1f}", flush=True)
    return hf.eval(), time.process_time() - began
