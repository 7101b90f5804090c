"""Three steps (Skunnavakkam 2024): x is brought to y, MLPs make features of the pair, later heads read them.

Each is asked twice. Attention kept from certain tokens (Geva et al. 2023, arXiv 2304.14767) says whether the model
needs the way at all, whichever heads go it; ablating the heads that attend so, beside other heads, says whether it is
those. Where an MLP matters is asked of its place: at the examples' answers, at their other tokens, at the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayes_icl.lens.anatomy import Anatomy
from bayes_icl.lens.attention import Attention, attention_through
from bayes_icl.lens.edits import unembedding
from bayes_icl.lens.sweeps import Row, base_run, sweep
from bayes_icl.mechanism.episodes import Episode
from bayes_icl.mechanism.halves import chosen_on
from bayes_icl.mechanism.thresholds import ATTENDING_LEAST
from bayes_icl.mechanism.transfer import ANSWER, QUERY, SEPARATOR, Pair, log_odds_of
from bayes_icl.models.readouts import SetLogits, Vocabulary

ROLES_OF_HEADS = (
    "bring", "bring_other", "bring_separator", "bring_separator_other", "to_answers", "to_before", "to_queries",
    "to_sink",
)  # fmt: skip


def attention_edges(episode: Episode) -> dict[str, Bool[np.ndarray, "pos pos"]]:
    """Which token attends to which (row to column), for each role that attention can play in a cut episode.

    bring
        From an example's answer to its own query: the direct way.
    bring_separator
        From the tokens between its query and that answer to its own query: where the way through the separator starts.
    bring_any
        Both, and so every way from the query of an example to its answer.
    bring_other, bring_separator_other, bring_any_other
        From there to the query of the example before: as many tokens that do not tell what belongs together.
    to_answers, to_before, to_queries, to_sink
        From the last position to the answers of examples, to the tokens just before them, to their queries, and to the
        first token.
    read_answers, read_before, read_queries
        From the query on and all that follows it to the answers of examples, to the tokens just before them, to their
        queries: what the last position reads for itself, and what the query or the separator hand it.
    through_later
        From the examples to the answers of those before them: the way on which a later example hands it.

    An answer begins with the token that is read (the space before a number is not part of it), and ends with its
    terminator.
    """
    shot, role, offset = episode.places
    n = int(shot.max())
    answers, queries = answers_of(episode), (role == QUERY) & (shot >= 0) & (shot < n)
    last = np.arange(len(shot)) == len(shot) - 1
    between = after_queries(episode) & ~answers
    before = (offset == offset[-1]) & (shot >= 0) & (shot < n)
    here, asked = shot[:, None] == shot[None], shot == shot.max()
    edges = {}
    for name, rows in (("bring", answers), ("bring_separator", between), ("bring_any", answers | between)):
        edges[name] = rows[:, None] & queries[None] & here
        edges[f"{name}_other"] = rows[:, None] & queries[None] & (shot[:, None] == shot[None] + 1)
    for name, rows in (("to", last), ("read", asked)):
        for place, columns in (("answers", answers), ("before", before), ("queries", queries)):
            edges[f"{name}_{place}"] = rows[:, None] & columns[None]
    edges["to_sink"] = last[:, None] & (np.arange(len(shot)) == 0)[None]
    edges["through_later"] = (~asked & (shot >= 0))[:, None] & answers[None] & (shot[:, None] > shot[None])
    return edges


def answers_of(episode: Episode) -> Bool[np.ndarray, " pos"]:
    """The answers of a cut episode's examples, from the token on that is read of its own."""
    shot, role, offset = episode.places
    return (role == ANSWER) & (shot >= 0) & (shot < shot.max()) & (offset > offset[-1])


def after_queries(episode: Episode) -> Bool[np.ndarray, " pos"]:
    """Tokens of a cut episode's examples that follow their query: separators and answers."""
    shot, role, _ = episode.places
    return ((role == ANSWER) | (role == SEPARATOR)) & (shot >= 0) & (shot < shot.max()) & _behind_query(episode)


def _behind_query(episode: Episode) -> Bool[np.ndarray, " pos"]:
    """Tokens that stand behind the last token of their own example's query; all of it where it has no query."""
    shot, role, _ = episode.places
    at = np.arange(len(shot))
    ends = {int(s): int(at[(shot == s) & (role == QUERY)].max(initial=-1)) for s in np.unique(shot)}
    return at > np.array([ends[int(s)] for s in shot])


def attention_by_role(anatomy: Anatomy, episode: Episode) -> dict[str, Float[np.ndarray, "layer head"]]:
    """Attention mass of every head by role, mean over the tokens from which the role looks (`attention_edges`)."""
    return _attention(anatomy, episode.prompt.tokens, {name: attention_edges(episode)[name] for name in ROLES_OF_HEADS})


def induction_scores(anatomy: Anatomy, seed: int = 0, length: int = 64) -> dict[str, Float[np.ndarray, "layer head"]]:
    """Attention to the token before, and to the token after an earlier occurrence, on random tokens said twice.

    As TransformerLens's head detector does, after Olsson et al. 2022 (arXiv 2209.11895). The first token of the
    vocabulary that is drawn stands in front. All differ, where the vocabulary has so many: of a token that comes twice
    there are two places to look, and no head would have a score of 1.
    """
    vocabulary = anatomy.unembedding.shape[0]
    rng = np.random.default_rng([seed, 29])
    drawn = rng.choice(vocabulary, size=length + 1, replace=vocabulary <= length)
    tokens = np.concatenate([drawn, drawn[1:]])
    n = len(tokens)
    row, column = np.indices((n, n))
    again = row > length
    edges = {"previous_token": again & (column == row - 1), "induction": again & (column == row - length + 1)}
    return _attention(anatomy, tokens, edges)


def _attention(
    anatomy: Anatomy, tokens: np.ndarray, edges: Mapping[str, Bool[np.ndarray, "pos pos"]]
) -> dict[str, np.ndarray]:
    """Mean attention mass along some edges over the tokens that have any; patterns are contracted as they pass."""
    device = anatomy.unembedding.device
    weights = torch.from_numpy(np.stack([e / max(e.any(1).sum(), 1) for e in edges.values()])).float().to(device)
    n = len(tokens)
    causal = torch.ones(n, n, dtype=torch.bool, device=device).tril()
    found = torch.zeros(len(edges), anatomy.n_layers, anatomy.n_heads, device=device)

    def attend(one: Attention) -> None:
        mask = causal[None, None] if one.mask is None else one.mask[:1, :, :, :n]
        pattern = one.weights(one.scores(one.query, one.key), mask)[0]
        found[:, one.layer, : len(pattern)] = torch.einsum("hds,eds->eh", pattern, weights)

    with attention_through(anatomy, attend), unembedding(anatomy, [0]), torch.inference_mode():
        anatomy.hf(input_ids=torch.from_numpy(tokens)[None].to(device), use_cache=False)
    return dict(zip(edges, found.double().cpu().numpy()))


class Knockout(NamedTuple):
    """An attention knockout: which step it speaks to, in words, and whether it decides.

    A ``path`` shuts every way that the step names and must hold; a ``detour`` is another way, which rejects nothing but
    keeps the step from being rejected; an empty text is one edge of a way, told apart.
    """

    step: int
    what: str
    decides: str


KNOCKOUTS = {
    "bring_any": Knockout(1, "separators and answers cannot attend to their own query", "path"),
    "bring_any_other": Knockout(1, "separators and answers cannot attend to the query before", ""),
    "bring": Knockout(1, "directly: answers cannot attend to their own query", ""),
    "bring_separator": Knockout(1, "indirectly: separators cannot attend to their own query", ""),
    "read_answers": Knockout(3, "query and all after it cannot attend to earlier answers", "path"),
    "read_before": Knockout(3, "query and all after it cannot attend to tokens before them", ""),
    "read_queries": Knockout(3, "query and all after it cannot attend to earlier queries", ""),
    "to_answers": Knockout(3, "directly: last position cannot attend to earlier answers", ""),
    "through_later": Knockout(3, "indirectly: later examples cannot attend to earlier answers", "detour"),
    "all": Knockout(3, "query and last position cannot attend to examples", ""),
}


def knocked_out(anatomy: Anatomy, episode: Episode) -> dict[str, float]:
    """Log-odds of a cut episode when attention is kept from each way, in all layers; ``clean`` when it is not."""
    edges, width = _edges(episode), len(episode.places.shot)
    found: dict[str, float] = {}
    # What acts on the last shot only needs nothing before it again.
    late = ("read_answers", "read_before", "read_queries", "to_answers", "all")
    for names in (tuple(name for name in KNOCKOUTS if name not in late), late):
        first = min(int(np.flatnonzero(edges[name].any(1))[0]) if edges[name].any() else width - 1 for name in names)
        base = base_run(anatomy, episode.prompt.tokens, first)
        rows = [Row(0, blocked=torch.from_numpy(edges[name][first:])) for name in names]
        for some in sweep(anatomy, base, rows, [width - 1 - first]):
            log_odds = _log_odds(some.logits, episode)
            found |= {names[i]: float(x) for i, x in zip(some.rows, log_odds)}
        found["clean"] = float(_log_odds(base.logits[:, None], episode)[0])
    return found


def _edges(episode: Episode) -> dict[str, Bool[np.ndarray, "pos pos"]]:
    """`attention_edges`, and all at once from the query on."""
    shot = episode.places.shot
    examples = (shot >= 0) & (shot < shot.max())
    return {**attention_edges(episode), "all": (shot == shot.max())[:, None] & examples[None]}


def _log_odds(logits: Tensor, episode: Episode) -> Float[np.ndarray, " row"]:
    return log_odds_of(logits[:, 0], [int(episode.target.correct[0])])[:, 0]


class Form(NamedTuple):
    """Tokens of the right form where one token of the answer stands, and what parity is read from.

    Attributes
    ----------
    tokens
        Those that the form allows there; empty for answers of any form.
    ahead
        The tokens of the answer from the one read up to the one whose parity counts; None without parity.
    same, other
        Tokens of the answer's parity and of the other, there.
    """

    tokens: frozenset[int]
    ahead: np.ndarray | None = None
    same: frozenset[int] = frozenset()
    other: frozenset[int] = frozenset()


def form_of(episode: Episode, whole: np.ndarray, texts: Sequence[str], labels: frozenset[int], parity: bool) -> Form:
    """What `format`, `rule` and `parity` mean for the token read: the readouts of `readouts`, one token at a time.

    Parameters
    ----------
    episode
        As `cut` gives it.
    whole
        The tokens of the answer from the one read on.
    texts
        The text of every token.
    labels
        The token read in every answer of a task with labels; empty if answers are numbers or free.
    parity
        Whether the task has that readout.
    """
    vocabulary = Vocabulary(texts)
    if labels:
        return Form(labels)
    digits = [j for j, token in enumerate(whole.tolist()) if token in vocabulary.digits_like(token)]
    if not parity or not digits or digits[0] != 0:
        return Form(frozenset())
    last = digits[-1]
    form, true = vocabulary.digits_like(int(whole[last])), int(texts[int(whole[last])][-1])
    same = frozenset(t for t in form if (int(texts[t][-1]) - true) % 2 == 0)
    return Form(vocabulary.digits_like(int(whole[0])), whole[:last], same, form - same)


def read_token(
    logits: Float[Tensor, "row read vocab"], correct: int, form: Form
) -> dict[str, Float[np.ndarray, " row"]]:
    """Log-odds of the token read, nats, by readout, each of shape (row,).

    Against all others; of its form against all else; against others of its form; and of its last digit's parity, read
    at the last of the positions.
    """
    questions, n = SetLogits(), len(logits)
    asked: dict[str, list[tuple[int, int]]] = {}
    sets: dict[str, tuple[frozenset[int], frozenset[int], int]] = {"complement": (frozenset([correct]), frozenset(), 0)}
    if form.tokens:
        sets["format"] = (form.tokens, frozenset(), 0)
        sets["rule"] = (frozenset([correct]), form.tokens - {correct}, 0)
    if form.ahead is not None:
        sets["parity"] = (form.same, form.other, logits.shape[1] - 1)
    for name, (right, wrong, read) in sets.items():
        at = [row * logits.shape[1] + read for row in range(n)]
        asked[name] = [(questions.ask(row, right), questions.ask(row, wrong) if wrong else -1) for row in at]
    inside, outside, _ = questions.answer(logits.flatten(0, 1))
    return {
        name: np.array([inside[a] - (outside[a] if b < 0 else inside[b]) for a, b in pairs])
        for name, pairs in asked.items()
    }


PLACES_OF_MLPS = ("answers", "others", "last")

OTHER_QUERY = "same y, other x"
"""What replaces MLPs at the answers of step 2: theirs where the same answer follows another example's query."""


def ablate_mlps(
    anatomy: Anatomy,
    pair: Pair,
    mlps: Float[Tensor, "layer pos d_model"],
    form: Form,
    point: int | None,
    *,
    layers: Sequence[int] | None = None,
    places: Sequence[str] = PLACES_OF_MLPS,
    together: bool = False,
) -> dict[tuple[str, str], Float[np.ndarray, " run"]]:
    """What ablating MLPs of A costs, by place and readout, nats; a layer at a time, or some `together`.

    Parameters
    ----------
    anatomy
        The model's parts.
    pair
        Runs with examples (A) and without (B).
    mlps
        What replaces them (`AblationValues`).
    form
        What the readouts of a form mean (`form_of`).
    point
        Where A's residual stream is put into B, for the readout ``transfer``: what B's own answer loses.
    layers
        Which; all if None.
    places
        Which of `PLACES_OF_MLPS`.
    together
        Ablate all these layers at once: one number instead of one a layer.
    """
    a = pair.a
    shot = a.places.shot
    last, answers = len(shot) - 1, answers_of(a)
    others = ~answers & (shot >= 0) & (shot < shot.max())
    ahead = np.array([], dtype=np.int64) if form.ahead is None else form.ahead
    tokens = np.concatenate([a.prompt.tokens, ahead])
    correct = int(a.target.correct[0])
    chosen = list(range(anatomy.n_layers) if layers is None else layers)
    found: dict[tuple[str, str], np.ndarray] = {}
    for place in places:
        at = {"answers": answers, "others": others, "last": np.arange(len(shot)) == last}[place]
        at = np.concatenate([at, np.zeros(len(ahead), bool)])
        first = int(np.flatnonzero(at)[0])
        base = base_run(anatomy, tokens, first)
        filled = torch.cat([mlps, mlps[:, :1].expand(-1, len(ahead), -1)], 1)[:, first:]
        edits: list[Mapping[int, Tensor]] = [{layer: filled[layer]} for layer in chosen]
        if together:
            edits = [{layer: filled[layer] for layer in chosen}]
        rows = [Row(min(edit), mlps=edit, at=at[first:]) for edit in edits]
        rows.append(Row(anatomy.n_layers))  # the run without edits
        read = [last - first, len(tokens) - 1 - first]
        stream = None if point is None else (point, last - first)
        numbers: dict[str, np.ndarray] = {}
        streams = torch.zeros(len(rows), anatomy.unembedding.shape[1])
        for some in sweep(anatomy, base, rows, read, stream=stream):
            for name, x in read_token(some.logits, correct, form).items():
                numbers.setdefault(name, np.zeros(len(rows)))[some.rows] = x
            if some.stream is not None:
                streams[some.rows] = some.stream.cpu()
        if point is not None:
            numbers["transfer"] = _into(anatomy, pair, point, streams)
        for name, x in numbers.items():
            found[place, name] = x[-1] - x[:-1]
    return found


def _into(anatomy: Anatomy, pair: Pair, point: int, streams: Float[Tensor, "row d_model"]) -> np.ndarray:
    """Log-odds of B's right answer, with each of some residual streams put into its last position at one point."""
    b = base_run(anatomy, pair.b.prompt.tokens, len(pair.b.prompt.tokens) - 1)
    found = np.zeros(len(streams))
    for some in sweep(anatomy, b, [Row(point, patch={0: x}) for x in streams], [0]):
        found[some.rows] = log_odds_of(some.logits[:, 0], pair.tokens[:1])[:, 0]
    return found


def attending(
    masses: Mapping[str, Float[np.ndarray, "pair layer head"]], role: str, most: int = 8
) -> list[tuple[int, int]]:
    """The heads with the most attention of a role, chosen on every other pair: more than a tenth of it, at most `most`.

    For ``bring`` it is that from the answer or from the separator, whichever is more, and must be more than to the
    query of the example before.
    """
    mass = chosen_on(masses[role]).mean(0)
    if role == "bring":
        ways = [
            [chosen_on(masses[f"{way}{end}"]).mean(0) for end in ("", "_other")] for way in (role, f"{role}_separator")
        ]
        mass = np.maximum(*(np.where(own > other, own, 0.0) for own, other in ways))
    order = np.argsort(-mass, axis=None, kind="stable")[:most]
    heads = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, mass.shape))]
    return [head for head in heads if mass[head] > ATTENDING_LEAST]
