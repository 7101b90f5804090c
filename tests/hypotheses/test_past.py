"""What was shown before every reading, held to loops over the examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from bayes_icl.hypotheses import Past

SHOWN = np.random.default_rng(0).choice([-1, 0, 1], p=[0.4, 0.15, 0.45], size=(6, 11))
READS = {
    "every shot": np.tile(np.arange(10), (6, 1)),
    "some shots": np.tile([1, 3, 5, 9], (6, 1)),
    "single prompts": np.array([[3], [0], [9], [1], [5], [3]]),
    "ragged": np.array([[0, 2], [1, 9], [4, 5], [0, 1], [2, 3], [8, 9]]),
}


def readings(reads: np.ndarray) -> list[list[int]]:
    """What was shown before each reading, the readings of the first sequence first."""
    return [SHOWN[s, :n].tolist() for s, row in enumerate(reads) for n in row]


@pytest.mark.parametrize("which", READS)
def test_counts_lags_and_places_are_those_of_the_examples(which: str) -> None:
    reads = READS[which]
    past, before = Past(SHOWN, reads), readings(reads)
    longest = int(reads.max())
    for name, of in {
        "n": len,
        "ups": lambda h: h.count(1),
        "downs": lambda h: h.count(-1),
        "signed": sum,
        "last": lambda h: h[-1] if h else 0,
    }.items():
        assert getattr(past, name).tolist() == [of(h) for h in before], name
    assert past.by_place.tolist() == [h + [0] * (longest - len(h)) for h in before]
    assert past.by_lag.tolist() == [h[::-1] + [0] * (longest - len(h)) for h in before]
    assert past.ages.tolist() == list(range(longest))
    weights = np.random.default_rng(1).normal(size=(3, longest))
    by_lag = [[sum(w[age] * x for age, x in enumerate(h[::-1])) for h in before] for w in weights]
    by_place = [[sum(w[i] * x for i, x in enumerate(h)) for h in before] for w in weights]
    np.testing.assert_allclose(past.weighed_by_lag(weights), by_lag, atol=1e-12)
    np.testing.assert_allclose(past.weighed_by_place(weights), by_place, atol=1e-12)


def test_what_follows_the_last_reading_is_not_looked_at() -> None:
    """Nor is it when another sequence is read for longer: its examples are as if they had not been shown."""
    for reads in READS.values():
        other = SHOWN.copy()
        for s, row in enumerate(reads):
            other[s, row[-1] :] = -1
        one, changed = Past(SHOWN, reads), Past(other, reads)
        np.testing.assert_array_equal(changed.by_lag, one.by_lag)
        np.testing.assert_array_equal(changed.by_place, one.by_place)
        sums = [past.filtered(np, lambda x, h: 0.9 * x + h, 0.0) for past in (one, changed)]
        np.testing.assert_array_equal(*sums)


def leaking(shown: list[int], leak: float) -> float:
    belief = 0.5
    for x in shown:
        belief = leak * belief + x + 0.1 * belief * x
    return belief


@pytest.mark.parametrize("which", READS)
def test_a_belief_is_what_steps_make_of_it(which: str) -> None:
    """Draws at once, and on PyTensor; sequences that end early stand still."""
    past, leaks = Past(SHOWN, READS[which]), [0.3, 0.8, 1.0]
    expected = [[leaking(shown, leak) for shown in readings(READS[which])] for leak in leaks]

    def filtered(xp: Any, leak: Any) -> Any:
        return past.filtered(xp, lambda belief, shown: leak * belief + shown + 0.1 * belief * shown, 0.5)

    np.testing.assert_allclose(filtered(np, np.array(leaks)[:, None]), expected, atol=1e-12)
    leak = pt.tensor("leak", dtype="float64", shape=(1,))
    call = pytensor.function([leak], filtered(pt, leak), mode="FAST_COMPILE")
    for value, row in zip(leaks, expected):
        np.testing.assert_allclose(call([value]), row, atol=1e-12)


def test_some_sequences_and_some_readings() -> None:
    observer = np.random.default_rng(2).normal(size=(6, 4))
    past = Past(SHOWN, READS["some shots"], observer)
    np.testing.assert_array_equal(past.of_observer, observer.ravel())
    whole = past.by_lag.reshape(6, 4, -1)
    for seqs in (np.array([4, 0, 1]), np.arange(6) != 2):
        some = past.of(seqs)
        np.testing.assert_array_equal(some.by_lag, whole[seqs].reshape(-1, 9))
        np.testing.assert_array_equal(some.of_observer, observer[seqs].ravel())
    keep = np.array([True, True, False, False])
    first = past.until(keep)
    np.testing.assert_array_equal(first.by_lag, whole[:, keep, :3].reshape(-1, 3))
    np.testing.assert_array_equal(first.of_observer, observer[:, keep].ravel())
    assert not Past(SHOWN, READS["ragged"]).of_observer.any()  # it is not known there
