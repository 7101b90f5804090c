r"""The log-odds taken apart along a straight line: from a mean stream to the stream of a run.

Direct effects hold the scale of the final norm and the chances of the other tokens as a run has them, so that what
these change by is in the entropy and in no component. Here both move: h(t) goes from the mean stream m to the run's h,
and the log-odds L rise by::

    L(h) - L(m) = sum over components c of (c - mean of c) . D,    D = int_0^1 dL/dh(h(t)) dt,

exactly, by Gauss-Legendre nodes, a soft-cap of logits being in dL/dh by its slope; what is left is L(m), the log-odds
of the answer asked at the mean stream. Neither convention is the truth: shares of heads and MLPs are to be read under
both.

On the line the stream is m + t (h - m), so its logits before the scale of the norm are a line as well: the unembedding
is applied once, and not at every node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.watching import Stream
from bayes_icl.mechanism.answer_odds import Asked, answer_log_odds, step_weights

STEPS, MOST_STEPS = 8, 64
"""Nodes of the line, and how many there may be where parts do not add up with these."""

LINE_COMPLETE = 1e-3
"""Parts and what the log-odds change by may differ by this share of the larger of 1 nat and the log-odds."""

VOCABULARY_AT_ONCE = 1024  # tokens added up in float32


def against_unembedding(
    slopes: Float[Tensor, "row vocab"], unembedding: Float[Tensor, "vocab d_model"]
) -> Float[Tensor, "row d_model"]:
    """The direction whose logits have these slopes.

    By parts of the vocabulary: of one row, a float32 product over all of it is off by 1e-3.
    """
    parts = zip(slopes.split(VOCABULARY_AT_ONCE, dim=1), unembedding.split(VOCABULARY_AT_ONCE))
    return sum((x @ w).double() for x, w in parts).float()  # type: ignore[union-attr]


class Writes(NamedTuple):
    """What components write at some rows.

    Attributes
    ----------
    embedding, mlp, other, last
        Shape (row, d_model), MLPs and what else adds by layer; `last` is all of it, before the final norm.
    z
        By layer, shape (row, head, d_head), times the scale of a norm after attention.
    scale
        By layer, shape (row, 1): of that norm; 1 where there is none.
    constant
        What biases of such norms are multiplied with: 1, or 0 of a difference.
    """

    embedding: Tensor
    mlp: list[Tensor]
    other: list[Tensor]
    last: Tensor
    z: list[Tensor]
    scale: list[Tensor]
    constant: float = 1.0

    @classmethod
    def of(cls, stream: Stream) -> Writes:
        """Of a pass."""
        ones = torch.ones_like(stream.residual[0][:, :1])
        scale = [ones if x is None else x for x in stream.attention_scale]
        z = [x * own[..., None] for x, own in zip(stream.z, scale)]
        return cls(stream.residual[0], stream.mlp, stream.other, stream.residual[-1], z, scale)

    def each(self, change: Callable[[Tensor], Tensor]) -> Writes:
        """With a function of each tensor."""
        layers = (self.mlp, self.other, self.z, self.scale)
        mlp, other, z, scale = ([change(x) for x in each] for each in layers)
        return Writes(change(self.embedding), mlp, other, change(self.last), z, scale, self.constant)

    def less(self, other: Writes) -> Writes:
        """A difference."""
        pairs = ((self.mlp, other.mlp), (self.other, other.other), (self.z, other.z), (self.scale, other.scale))
        mlp, more, z, scale = ([x - y for x, y in zip(*pair)] for pair in pairs)
        return Writes(self.embedding - other.embedding, mlp, more, self.last - other.last, z, scale, 0.0)


class Parts(NamedTuple):
    """What components add along a direction; shapes (row, layer, ...), nats.

    Attributes
    ----------
    head, mlp, other, embedding, bias
        `bias` is of all blocks, those of values too.
    block_bias
        The same by layer.
    seen, constant
        By layer: the direction as each head's values see it, shape (row, head, d_head), and what a bias of values adds.
    """

    head: Tensor
    mlp: Tensor
    other: Tensor
    embedding: Tensor
    bias: Tensor
    block_bias: Tensor
    seen: list[Tensor]
    constant: list[Tensor]


def parts_along(anatomy: Anatomy, writes: Writes, direction: Float[Tensor, "row d_model"]) -> Parts:
    """What was written, taken along a direction before the final norm."""
    heads, mlps, others, biases, all_seen, constants = [], [], [], [], [], []
    for layer in range(anatomy.n_layers):
        d, after, scale = direction * anatomy.multipliers[layer], anatomy.after_attention[layer], writes.scale[layer]
        own_bias = torch.zeros_like(d[:, 0], dtype=torch.float64)
        if after:
            own_bias = own_bias + writes.constant * (d * after.bias).sum(-1, dtype=torch.float64)
            d = after.back(d, torch.ones_like(scale))
        if (out_bias := anatomy.out_bias[layer]) is not None:
            own_bias = own_bias + (d * scale * out_bias).sum(-1, dtype=torch.float64)
        seen = torch.einsum("rd,hkd->rhk", d, anatomy.w_out[layer])
        constant = (seen * anatomy.value_bias[layer]).sum(-1) * scale
        heads.append((seen * writes.z[layer]).sum(-1) - constant)
        biases.append(own_bias + constant.sum(-1, dtype=torch.float64))
        mlps.append((writes.mlp[layer] * direction).sum(-1, dtype=torch.float64))
        others.append((writes.other[layer] * direction).sum(-1, dtype=torch.float64))
        all_seen.append(seen * scale[..., None])
        constants.append(constant)
    embedding = (writes.embedding * anatomy.carried[0] * direction).sum(-1, dtype=torch.float64)
    head, mlp, other, block_bias = (torch.stack(x, dim=1) for x in (heads, mlps, others, biases))
    return Parts(head, mlp, other, embedding, block_bias.sum(1), block_bias, all_seen, constants)


@dataclass(frozen=True)
class Start:
    """Means over sequences at one number of examples: the stream that lines begin at, and direct effects there.

    Attributes
    ----------
    shot
        That number of examples.
    log_odds, embedding, bias, entropy
        Shape (token,): of the first, second, ... step of answers, nats.
    head, mlp, other
        Shapes (token, layer, head), and twice (token, layer).
    by_source
        Shape (token, layer, head, source, role), as in the effects format.
    writes
        What components write, a row a token.
    """

    shot: int
    log_odds: Float[np.ndarray, " token"]
    embedding: Float[np.ndarray, " token"]
    bias: Float[np.ndarray, " token"]
    entropy: Float[np.ndarray, " token"]
    head: Float[np.ndarray, "token layer head"]
    mlp: Float[np.ndarray, "token layer"]
    other: Float[np.ndarray, "token layer"]
    by_source: Float[np.ndarray, "token layer head source role"]
    writes: Writes


class LineEffects(NamedTuple):
    """Effects along the line, nats.

    Attributes
    ----------
    head, mlp, others
        Shapes (shot, layer, head), and twice (shot, layer).
    rest
        Shape (shot,): of the embedding and of biases.
    asked
        Shape (shot,): log-odds of the answer at the mean stream.
    error
        Shape (shot,): the log-odds less the sum of all these.
    """

    head: np.ndarray
    mlp: np.ndarray
    others: np.ndarray
    rest: np.ndarray
    asked: np.ndarray
    error: np.ndarray


def along_line(anatomy: Anatomy, stream: Stream, asked: Asked, start: Start) -> LineEffects:
    """Take the log-odds of a pass apart along the lines from the mean stream.

    Nodes are doubled until parts add up (`LINE_COMPLETE`), to `MOST_STEPS` at most.
    """
    token = asked.token.clamp(max=len(start.log_odds) - 1)
    device = stream.logits.device
    begin = start.writes.each(lambda x: x.to(device)[token])
    moved = Writes.of(stream).less(begin)
    log_odds = asked.log_odds(stream.logits)
    steps = STEPS
    while True:
        at_start, direction = _direction(anatomy, stream, asked, begin.last, moved.last, token, steps)
        parts = parts_along(anatomy, moved, direction.float())
        head, mlp, others = (asked.summed(x) for x in (parts.head, parts.mlp, parts.other))
        rest = asked.summed(parts.embedding + parts.bias)
        error = log_odds - at_start - head.sum((1, 2), dtype=torch.float64) - mlp.sum(1) - others.sum(1) - rest
        if steps >= MOST_STEPS or bool((error.abs() <= LINE_COMPLETE * log_odds.abs().clamp(min=1)).all()):
            return LineEffects(*(x.cpu().numpy() for x in (head, mlp, others, rest, at_start, error)))
        steps *= 2


def soft_cap(anatomy: Anatomy) -> float | None:
    """What logits are capped at, c in c * tanh(logit / c), as Gemma 2 does; None where they are not."""
    config = anatomy.hf.config.get_text_config()
    return getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)


def _direction(
    anatomy: Anatomy, stream: Stream, asked: Asked, begin: Tensor, moved: Tensor, token: Tensor, steps: int
) -> tuple[Float[Tensor, " shot"], Float[Tensor, "row d_model"]]:
    """Log-odds at the mean stream, and the mean slope of the log-odds in each row's stream along its line."""
    norm, unembedding = anatomy.final_norm, anatomy.unembedding
    constant = unembedding @ norm.bias
    if (bias := getattr(anatomy.unembed, "bias", None)) is not None:
        constant = constant + bias

    def scale(x: Tensor) -> Tensor:
        return norm.scale(x, norm.module(x)).float()

    # Logits before the scale of the norm, at both ends: a row a token of the answer at the beginning.
    _, first, inverse = np.unique(token.cpu().numpy(), return_index=True, return_inverse=True)
    start = norm.linear(begin[first]) @ unembedding.T
    number = torch.from_numpy(inverse).to(token.device)
    cap = soft_cap(anatomy)
    raw = (
        stream.logits / stream.scale
        if cap is None
        else stream.normed @ unembedding.T + (constant - unembedding @ norm.bias)
    )
    end = (raw - constant) / norm.scale(stream.residual[-1], stream.normed).float()

    def at(t: float) -> tuple[Tensor, Tensor, Tensor]:
        line = start[number].lerp(end, t)
        own = scale(begin + t * moved)
        logits = own * line + constant
        return line, own, stream.scale * logits if cap is None else cap * torch.tanh(logits / cap)

    at_start = answer_log_odds(asked.by_answer(asked.steps(at(0.0)[2])), asked.real)
    slopes, turned = torch.zeros_like(stream.logits), torch.zeros_like(begin)
    nodes, shares = np.polynomial.legendre.leggauss(steps)
    for node, share in zip((nodes + 1) / 2, shares / 2):
        line, own, logits = at(float(node))
        log_odds, contrast = asked.contrast(logits)
        weight = asked.of_rows(step_weights(asked.by_answer(log_odds), asked.real)) * share
        contrast *= weight.float()[:, None]
        contrast *= stream.scale if cap is None else 1 - (logits / cap).square()
        slopes += own * contrast
        # What the scale of the norm does: its slope in the stream is -scale^3 / d_model times the stream itself.
        by_scale = (contrast * line).sum(-1, dtype=torch.float64)[:, None] * own.double() ** 3 / begin.shape[1]
        turned -= (by_scale * norm.centre(begin + float(node) * moved)).float()
    through = norm.back(against_unembedding(slopes, unembedding), torch.ones_like(begin[:, :1]))
    return at_start, through + turned


def mean_start(rows: Sequence[Writes], tokens: Sequence[np.ndarray], n_tokens: int) -> Writes:
    """Means of what was written by token of the answer; a token that none has is like the one before it.

    Parameters
    ----------
    rows, tokens
        By pass: what was written, and which token of its answer each row is.
    n_tokens
        Tokens of the longest answer.
    """
    number = np.concatenate(tokens)

    def mean(*each: Tensor) -> Tensor:
        return torch.from_numpy(by_token(torch.cat(each).double().cpu().numpy(), number, n_tokens)).float()

    def layers(name: str) -> list[Tensor]:
        return [mean(*layer) for layer in zip(*(getattr(one, name) for one in rows))]

    embedding, last = (mean(*(getattr(one, name) for one in rows)) for name in ("embedding", "last"))
    return Writes(embedding, layers("mlp"), layers("other"), last, layers("z"), layers("scale"))


def by_token(x: Float[np.ndarray, "row ..."], token: np.ndarray, n_tokens: int) -> Float[np.ndarray, "token ..."]:
    """Means of rows by token of the answer; a token that none has is like the one before it."""
    found = [x[token == 0].mean(0)]
    for i in range(1, n_tokens):
        found.append(x[token == i].mean(0) if (token == i).any() else found[-1])
    return np.stack(found)
