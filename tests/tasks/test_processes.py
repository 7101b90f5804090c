"""Tasks without a query: what is drawn, and Dirichlet counting against integrals over probabilities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from bayes_icl.core.errors import StatedError
from bayes_icl.tasks import Task, load_tasks, under_designs
from bayes_icl.tasks.processes import Process

N = 24


def one(spec: str) -> Task:
    return load_tasks([spec])[0]


def symbols(task: Task, seq: int, n_shots: int = N) -> list[int]:
    return [task.labels.index(e.written) for e in task.episode(n_shots, 0, seq)]


@pytest.mark.parametrize("spec", ["coin", "urn:colours=4", "markov:states=3,alpha=0.5"])
def test_the_first_symbol_is_asked_throughout_and_more_symbols_begin_with_fewer(spec: str) -> None:
    task = one(spec)
    episode = task.episode(N, 5, 1)
    assert {(e.query, e.answer) for e in episode} == {("", task.labels[0])}
    assert {e.foil for e in episode} == ({"tails"} if spec == "coin" else {""})
    assert task.episode(7, 5, 1) == episode[:8]
    assert task.history(episode).tolist() == [1 if e.written == task.labels[0] else -1 for e in episode]
    assert task.readouts == ("complement", *(["foil"] if spec == "coin" else []), "format", "rule")


def test_a_coin_has_its_bias_in_all_sequences_and_an_urn_one_of_each_own() -> None:
    shares = np.array([np.mean(np.array(symbols(one("coin:bias=0.75"), seq, 99)) == 0) for seq in range(40)])
    assert abs(shares.mean() - 0.75) < 4 * math.sqrt(0.1875 / 4000)
    assert shares.std() < 2 * math.sqrt(0.1875 / 100)
    urns = np.array([np.mean(np.array(symbols(one("urn:colours=2"), seq, 99)) == 0) for seq in range(40)])
    assert urns.std() > 0.2 and abs(urns.mean() - 0.5) < 4 * 0.29 / math.sqrt(40)  # uniform: Dirichlet(1, 1)


def test_a_chain_draws_by_the_symbol_before() -> None:
    """With rows that are nearly certain, the next symbol follows from the one before it."""
    task = one("markov:states=3,alpha=0.01")
    for seq in range(6):
        row = symbols(task, seq, 60)
        follows = {s: [b for a, b in itertools.pairwise(row) if a == s] for s in set(row[:-1])}
        assert all(np.bincount(after).max() >= 0.9 * len(after) for after in follows.values())
    assert len({tuple(symbols(task, seq)) for seq in range(6)}) > 2


def dirichlet_odds(counts: np.ndarray, alpha: float) -> float:
    """Log-odds of symbol 0 next, by importance sampling of nothing: exact sums over a fine grid of three shares."""
    grid = (np.arange(400) + 0.5) / 400
    p, q = (x.ravel() for x in np.meshgrid(grid, grid, indexing="ij"))
    keep = p + q < 1 - 1e-9
    shares = np.stack([p[keep], q[keep], 1 - p[keep] - q[keep]])
    weight = np.exp(((counts + alpha - 1)[:, None] * np.log(shares)).sum(0))
    mean = (weight * shares[0]).sum() / weight.sum()
    return math.log(mean / (1 - mean))


@pytest.mark.parametrize("spec", ["urn:colours=3,alpha=2", "markov:states=3,alpha=2"])
def test_the_observer_integrates_over_all_probabilities(spec: str) -> None:
    task = one(spec)
    episode, row = task.episode(9, 0, 2), symbols(task, 2, 9)
    odds = task.ideal_log_odds(episode)
    for n in range(10):
        seen = row[:n]
        if task.process is not None and task.process.chain:
            seen = [b for a, b in itertools.pairwise(row[:n]) if a == row[n - 1]] if n else []
        assert odds[n] == pytest.approx(dirichlet_odds(np.bincount(seen, minlength=3), 2.0), abs=5e-3)
    assert odds[0] == pytest.approx(math.log(1 / 2)) and len(set(odds.round(3))) > 3
    assert task.evidence(episode)[1:] == pytest.approx(np.diff(odds))


def test_a_coins_observer_counts_from_one_look_of_each() -> None:
    process, task = Process(("heads", "tails"), bias=0.9), one("coin")
    episode = task.episode(5, 0, 0)
    h = np.cumsum([0, *(e.written == "heads" for e in episode[:-1])])
    t = np.arange(6) - h
    assert process.log_odds(episode) == pytest.approx(np.log((h + 1) / (t + 1)))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("coin:bias=1", "bias must be between 0 and 1, got 1"),
        ("coin:bias=x", "bias must be a number of 0 or more, not 'x'"),
        ("urn:colours=1", "colours must be from 2 to 8, got 1"),
        ("markov:states=7", "states must be from 2 to 6, got 7"),
        ("urn:alpha=0", "alpha must be above 0"),
        ("coin:colours=2", "unknown setting of task 'coin': 'colours'"),
    ],
)
def test_settings_out_of_bounds_are_stated(spec: str, says: str) -> None:
    with pytest.raises(StatedError, match=says):
        one(spec)


def test_designs_of_two_rules_do_not_go_with_symbols_and_orders_keep_them() -> None:
    coin = one("coin")
    for spec in ("noise", "switch:at=3", "mixed"):
        (task,) = under_designs([coin], [spec], N)
        assert task.design is not None
        with pytest.raises(StatedError, match="task 'coin' draws its symbols itself"):
            task.design.check(task, N, 8)
    (orders,) = under_designs([coin], ["orders:k=4"], N)
    assert orders.design is not None
    orders.design.check(orders, N, 8)
    episodes = [orders.episode(N, 0, seq) for seq in range(4)]
    assert {sum(e.written == "heads" for e in episode[: N // 2]) for episode in episodes} == {
        sum(e.written == "heads" for e in coin.episode(N, 0, 0)[: N // 2])
    }
    (prior,) = under_designs([coin], ["prior:text=A coin."], N)
    assert prior.preamble == "A coin.\nFlips:"


def test_a_template_has_a_query_or_the_task_draws_symbols() -> None:
    with pytest.raises(StatedError, match="a template is text with"):
        Task("mine", one("coin").pool, template=" {answer},", repeats=True)
    with pytest.raises(StatedError, match="a template is text with"):
        Task("mine", one("coin").pool, repeats=True, process=Process(("heads", "tails")))
