"""Ideal observers, held to sums over all hypotheses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import quad

from bayes_icl.core.errors import StatedError
from bayes_icl.tasks import Example, Task, load_tasks
from bayes_icl.tasks.observers import averaging, counting, discounted, nothing, switching, two_rules
from bayes_icl.tasks.organism_tasks import ORGANISM_TASKS

HISTORIES = np.random.default_rng(0).choice([-1, 0, 1], p=[0.35, 0.15, 0.5], size=(12, 7))
SHORT = HISTORIES[:4, :5]


def flipped(delta: float) -> float:
    """The share of examples that show the other rule."""
    return 1 / (1 + np.exp(delta))


def likelihood(shown: int, rule: int, p: float) -> float:
    """Of one example; one that shows neither rule tells nothing."""
    return 1.0 if shown == 0 else (1 - p if shown == rule else p)


def test_two_rules_are_a_sum_over_both() -> None:
    p = flipped(0.7)
    for row, odds in zip(HISTORIES, two_rules(HISTORIES, delta=0.7)):
        for n in range(len(row) + 1):
            posterior = [0.5 * np.prod([likelihood(h, rule, p) for h in row[:n]]) for rule in (1, -1)]
            assert odds[n] == pytest.approx(np.log(posterior[0] / posterior[1]), abs=1e-12)


@pytest.mark.parametrize("a", [1.0, 0.4])
def test_counting_is_an_integral_over_biases(a: float) -> None:
    for row, odds in zip(SHORT, counting(SHORT, prior=a)):
        for n in range(len(row) + 1):
            h, t = int((row[:n] > 0).sum()), int((row[:n] < 0).sum())
            with np.errstate(divide="ignore"):  # the density of Beta(0.4, 0.4) at its ends
                up, down = (
                    quad(lambda q: 1.0, 0, 1, weight="alg", wvar=(h + i + a - 1, t + j + a - 1))[0]
                    for i, j in ((1, 0), (0, 1))
                )
            assert odds[n] == pytest.approx(np.log(up / down), abs=1e-7)


def test_switching_is_a_sum_over_all_paths_of_the_rule() -> None:
    """The rule of the query itself is on the path: it may have changed since the last example."""
    hazard, p = 0.15, flipped(0.9)
    for row, odds in zip(SHORT, switching(SHORT, delta=0.9, hazard=hazard)):
        for n in range(len(row) + 1):
            total = {1: 0.0, -1: 0.0}
            for path in itertools.product((1, -1), repeat=n + 1):
                moves = [hazard if a != b else 1 - hazard for a, b in itertools.pairwise(path)]
                shown = [likelihood(h, rule, p) for h, rule in zip(row[:n], path)]
                total[path[-1]] += 0.5 * float(np.prod(moves) * np.prod(shown))
            assert odds[n] == pytest.approx(np.log(total[1] / total[-1]), abs=1e-12)
    assert np.allclose(switching(HISTORIES, 0.9, 1e-12), two_rules(HISTORIES, 0.9), atol=1e-6)  # no hazard: two rules


def test_what_fades_and_what_averages_is_a_weighted_sum() -> None:
    fades, mean = discounted(HISTORIES, delta=0.5, leak=0.8), averaging(HISTORIES, height=4.0, prior=6.0)
    for s, row in enumerate(HISTORIES):
        for n in range(len(row) + 1):
            assert fades[s, n] == pytest.approx(sum(0.5 * 0.8 ** (n - 1 - i) * row[i] for i in range(n)))
            told = np.abs(row[:n]).sum()
            assert mean[s, n] == pytest.approx(4.0 * row[:n].sum() / (told + 6.0))
    assert np.allclose(discounted(HISTORIES, 0.5, leak=1.0), two_rules(HISTORIES, 0.5))


@pytest.mark.parametrize("observer", [two_rules, counting, discounted, averaging, switching, nothing])
def test_an_observer_knows_earlier_examples_only_and_takes_no_side(observer) -> None:
    odds = observer(HISTORIES)
    assert odds.shape == (12, 8) and (odds[:, 0] == 0).all()
    changed = HISTORIES.copy()
    changed[:, 4] = 1 - changed[:, 4] % 2
    assert np.array_equal(observer(changed)[:, :5], odds[:, :5])
    assert np.allclose(observer(-HISTORIES), -odds)


# ------------------------------------------------------------------------------------------- tasks that have one


@pytest.mark.parametrize("name", ORGANISM_TASKS)
def test_an_organisms_task_has_two_rules_and_agrees_within_an_episode(name: str) -> None:
    (task,) = load_tasks([name])
    episodes = [task.episode(32, 0, seq) for seq in range(40)]
    rules = []
    for episode in episodes:
        bound = name in ("organism_rule", "organism_redundant")
        sign = {-1 if bound and e.query > "m" else 1 for e in episode}
        shown = {(1 if e.answer == "+" else -1) * (-1 if bound and e.query > "m" else 1) for e in episode}
        assert len(shown) == 1 and {e.foil for e in episode} <= {"+", "-"}
        assert sign == ({1, -1} if bound else {1})
        rules.append(shown.pop())
    assert 10 < rules.count(1) < 30
    assert task.episode(5, 0, 7) == episodes[7][:6]
    assert task.readouts == ("complement", "foil", "format", "rule")


def test_evidence_is_the_difference_of_the_observers_log_odds() -> None:
    """The evidence at shot n is what the n-th example told: known to the query at shot n, not to those before."""
    coin, count = load_tasks(["organism_coin", "organism_count"])
    assert coin.evidence(coin.episode(4, 0, 0)) == pytest.approx([0, 0.25, 0.25, 0.25, 0.25])
    assert count.evidence(count.episode(3, 0, 1)) == pytest.approx([0, np.log(2), np.log(3 / 2), np.log(4 / 3)])
    # The second example shows the other label: it speaks against the answers that agree with the first.
    mixed = [Example("a", "+", "-"), Example("b", "-", "+"), Example("c", "+", "-")]
    assert coin.evidence(mixed) == pytest.approx([0, -0.25, 0.25])


def test_a_users_task_may_have_an_observer() -> None:
    pool = tuple(Example(f"q{i}", "yes", "no") for i in range(6))
    task = Task("mine", pool, observer=lambda examples: 0.5 * np.arange(len(examples)))
    assert task.evidence(task.episode(3, 0, 0)).tolist() == [0, 0.5, 0.5, 0.5]


def test_two_rules_need_a_foil_for_every_example() -> None:
    with pytest.raises(StatedError, match="two_rules needs a foil for every example"):
        Task("mine", (Example("a", "x"), Example("b", "y")), two_rules=True)
