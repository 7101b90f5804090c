"""The laws of history, each held to a loop over the examples before a reading, or a sum over all that may have been."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from bayes_icl.core.errors import StatedError
from bayes_icl.hypotheses import HISTORY_LAWS, HYPOTHESES, Past, Uniform, law_of_history, load_hypotheses
from bayes_icl.hypotheses.history import FIRST_SD, KNOTS, knots_of
from bayes_icl.hypotheses.law import law_called

SHOWN = np.random.default_rng(3).choice([-1, 0, 1], p=[0.4, 0.1, 0.5], size=(5, 12))
READS = {
    "every shot": np.tile(np.arange(8), (5, 1)),
    "some shots": np.tile([1, 3, 6, 12], (5, 1)),
    "single prompts": np.array([[3], [0], [12], [1], [5]]),
}
VALUES: dict[str, list[float]] = {
    "leak": [0.8, 0.3, 1 - 1e-9],
    "r": [0.7, 1.6, 0.0],
    "a": [2.0, 0.5, 9.0],
    "c": [5.0, 0.4, 60.0],
    "kappa": [-1.5, 0.7, 0.0],
    "e": [0.5, 1.4, 0.05],
    "rate": [0.1, 0.4, 1e-6],
    "fade": [0.6, 0.95, 0.01],
    "step": [0.3, 0.05, 1.2],
}


def past_of(which: str) -> Past:
    reads = READS[which]
    return Past(SHOWN, reads, np.random.default_rng(4).normal(size=reads.shape))


def filtered(shown: list[int], e: float, rate: float) -> float:
    """Log-odds of the rule in force at the query: a sum over all rules that may have been in force at each example."""
    odds = np.zeros(2)
    for rules in itertools.product((1, -1), repeat=len(shown) + 1):
        chance = 0.5
        for now, then in itertools.pairwise(rules):
            chance *= rate if now != then else 1 - rate
        for rule, x in zip(rules, shown):
            chance *= np.exp(e) if x == rule else 1.0  # e nats more likely under the rule that it shows
        odds[int(rules[-1] == -1)] += chance
    return float(np.log(odds[0] / odds[1]))


def weight_at(lag: int, step: float, kernel: np.ndarray, knots: np.ndarray) -> float:
    """Of an example `lag` ago: all steps at knots up to there."""
    sizes = [FIRST_SD] + [step * np.sqrt(np.log2(b / a)) for a, b in itertools.pairwise(knots)]
    return sum(size * z for knot, size, z in zip(knots, sizes, kernel) if knot <= lag)


def ups(h: list[int]) -> int:
    return h.count(1)


def downs(h: list[int]) -> int:
    return h.count(-1)


def fading(h: list[int], leak: float, side: int) -> float:
    return sum(leak ** (len(h) - 1 - i) for i, x in enumerate(h) if x == side)


def contrast(h: list[int], kappa: float, r: float) -> float:
    return kappa * h[-1] * len(h) ** -r if h else 0.0


# f of what was shown, and what is beside it.
BY_HAND: dict[str, Callable[..., Any]] = {
    "trend": len,
    "signed": sum,
    "leaky": lambda h, leak: sum(leak ** (len(h) - 1 - i) * x for i, x in enumerate(h)),
    "asymmetric": lambda h, r: ups(h) - r * downs(h),
    "counting": lambda h, a: np.log((ups(h) + a) / (downs(h) + a)),
    "averaging": lambda h, c: sum(h) / (len(h) + c),
    "recent": lambda h, kappa, r: (sum(h), contrast(h, kappa, r)),
    "primacy": lambda h, fade: sum(fade**i * x for i, x in enumerate(h)),
    "hazard": filtered,
    "combined": lambda h, a, leak, kappa, r: (
        np.log((fading(h, leak, 1) + a) / (fading(h, leak, -1) + a)),
        contrast(h, kappa, r),
    ),
}


def given(name: str, past: Past) -> dict[str, np.ndarray]:
    """Three draws of each parameter of the law but its weight."""
    own = {key: prior for key, prior in HISTORY_LAWS[name].priors.items() if key != "w"}
    kernel = np.random.default_rng(5).normal(size=(3, len(knots_of(past))))
    return {key: kernel if prior.length else np.array(VALUES[key])[:, None] for key, prior in own.items()}


def by_hand(name: str, past: Past, params: dict[str, np.ndarray]) -> np.ndarray:
    """f and what is beside it, shape (2, draw, reading)."""
    if name == "observer":
        assert past.observer is not None
        return np.stack([np.tile(past.observer.ravel(), (3, 1)), np.zeros((3, past.observer.size))])
    found = np.zeros((2, 3, past.reads.size))
    for draw in range(3):
        values = {key: x[draw, 0] if x.shape[1] == 1 else x[draw] for key, x in params.items()}
        for i, (s, n) in enumerate((s, n) for s, row in enumerate(past.reads) for n in row):
            h = SHOWN[s, :n].tolist()
            if name == "per_lag":
                knots = [lag for lag in KNOTS if lag <= past.reads.max()]
                one = sum(weight_at(n - j, values["step"], values["kernel"], knots) * x for j, x in enumerate(h))
            elif name == "hazard" and n > 8:  # 2^13 paths a reading are too many: two halves of a filter
                continue
            else:
                one = BY_HAND[name](h, **values)
            found[:, draw, i] = one if isinstance(one, tuple) else (one, 0)
    return found


@pytest.mark.parametrize("which", READS)
@pytest.mark.parametrize("name", HISTORY_LAWS)
def test_a_law_is_what_a_loop_over_the_examples_gives(name: str, which: str) -> None:
    """At every reading; three draws at once; PyTensor gives the same, and gradients that are finite."""
    law, past = HISTORY_LAWS[name], past_of(which)
    params = given(name, past)
    found = law.curve(np, past, **params)
    shape = (3, past.reads.size)
    f, beside = (np.broadcast_to(x, shape) for x in (found if isinstance(found, tuple) else (found, np.zeros(1))))
    expected = by_hand(name, past, params)
    looked_at = past.n <= 8 if name == "hazard" else np.ones(len(past.n), bool)
    np.testing.assert_allclose(f[:, looked_at], expected[0][:, looked_at], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(beside[:, looked_at], expected[1][:, looked_at], rtol=1e-9, atol=1e-9)
    inputs = {key: pt.tensor(key, dtype="float64", shape=x.shape[1:]) for key, x in params.items()}
    tensors = law.curve(pt, past, **inputs)
    tensors = [pt.as_tensor(x) for x in (tensors if isinstance(tensors, tuple) else (tensors,))]
    # Sums of more than 32 terms, as the filter's gradient has, are not to be had without compiling.
    sloped = inputs and name != "hazard"
    slopes = pt.grad(sum(x.sum() for x in tensors), [*inputs.values()]) if sloped else []
    call = pytensor.function([*inputs.values()], [*tensors, *slopes], mode="FAST_COMPILE")
    for draw in range(3):
        each = call(*(x[draw] for x in params.values()))
        np.testing.assert_allclose(each[0], f[draw], rtol=1e-9, atol=1e-9)
        if len(tensors) == 2:
            np.testing.assert_allclose(each[1], beside[draw], rtol=1e-9, atol=1e-9)
        assert all(np.isfinite(x).all() for x in each)


def test_a_filter_goes_on_from_where_it_was() -> None:
    """`hazard` after 12 examples, which the sum over paths does not reach: the rule's recursion in probabilities."""
    past = past_of("some shots")
    e, rate = 0.9, 0.15
    found = np.reshape(HISTORY_LAWS["hazard"].curve(np, past, e=np.array([[e]]), rate=np.array([[rate]])), (5, 4))
    for row, values in zip(SHOWN, found):
        p = 0.5
        for x in row:
            of_a, of_b = p * np.exp(e * (x > 0)), (1 - p) * np.exp(e * (x < 0))
            p = of_a / (of_a + of_b)
            p = p * (1 - rate) + (1 - p) * rate
        assert values[-1] == pytest.approx(np.log(p / (1 - p)), rel=1e-9)


def test_laws_that_are_cases_of_others() -> None:
    """What forgets nothing, fades nothing, never changes or takes both sides alike is the sum."""
    past, one = past_of("every shot"), np.ones((1, 1))

    def of(name: str, **params: float) -> np.ndarray:
        found = HISTORY_LAWS[name].curve(np, past, **{key: x * one for key, x in params.items()})
        return np.sum([np.broadcast_to(x, (1, 40)) for x in (found if isinstance(found, tuple) else (found,))], axis=0)

    for found in (of("leaky", leak=1.0), of("asymmetric", r=1.0), of("recent", kappa=0.0, r=1.0)):
        np.testing.assert_allclose(found[0], past.signed, atol=1e-12)
    np.testing.assert_allclose(of("primacy", fade=1.0)[0], past.signed, atol=1e-12)
    np.testing.assert_allclose(of("hazard", e=0.7, rate=0.0)[0], 0.7 * past.signed, atol=1e-9)
    np.testing.assert_allclose(1e7 * of("averaging", c=1e7)[0], past.signed, rtol=1e-5)
    counted = of("combined", a=1.5, leak=1.0, kappa=0.0, r=1.0)
    np.testing.assert_allclose(counted, of("counting", a=1.5), atol=1e-12)
    # The controls.
    assert abs(of("leaky", leak=0.9)[0] - past.signed).max() > 0.3
    assert abs(of("hazard", e=0.7, rate=0.1)[0] - 0.7 * past.signed).max() > 0.3


# --------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize("name", HISTORY_LAWS)
def test_every_law_says_what_it_is(name: str) -> None:
    law = law_called(name)
    assert law is HISTORY_LAWS[name] and name not in HYPOTHESES
    assert set(law.meanings) <= set(law.priors) | {"w"} and set(law.priors) <= set(law.meanings)
    assert all(len(text) > 5 for text in law.meanings.values()) and law.reference and law.predicts
    assert law.of_history and not law.has_gain and not law.latent_step


def test_parameters_of_the_likelihood_beside_the_laws_own() -> None:
    """A weight and how it differs between sequences where the law has one; single prompts have one intercept."""
    noise = {"gain_sd", "level", "walk"}
    expected = {
        "trend": noise | {"w"},  # what ignores the examples has no weight of each sequence's own
        "signed": noise | {"w", "w_sd"},
        "hazard": noise | {"w_sd", "e", "rate"},
        "per_lag": noise | {"step", "kernel"},
    }
    for name, names in expected.items():
        law = HISTORY_LAWS[name]
        assert set(law.parameters) == names
        assert set(law.varied(single=True).parameters) == names - {"gain_sd", "walk"} | {"start"}
        assert set(law.varied(student=True).parameters) == names | {"dof"}
    assert not HYPOTHESES["additive"].varied(single=True).single
    assert {name for name, law in HISTORY_LAWS.items() if not law.rival} == {"per_lag", "combined"}
    assert [name for name, law in HISTORY_LAWS.items() if law.ceiling] == ["per_lag"]
    # A law of a weight with a prior of its own has that: 1 is ideal.
    assert HISTORY_LAWS["observer"].all_priors["w"].parameters == (1.0, 1.0)
    assert HISTORY_LAWS["signed"].all_priors["w"].parameters == (0.0, 1.0)
    assert not any(HISTORY_LAWS[name].all_priors["w"].scaled for name in ("observer", "signed", "counting"))


THEIRS = """
from bayes_icl.hypotheses import Uniform, law_of_history

@law_of_history("majority", 2, priors={"b": Uniform(0.2, 0.8)}, meanings={"b": "exponent, no unit"},
                reference="mine", predicts="the sign of the majority decides")
def majority(xp, past, b):
    return xp.sign(past.signed) * abs(past.signed) ** b
"""


def test_a_law_of_the_users_own(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The example of `law_of_history` may have registered one of this name in this process.
    known = {name: law for name, law in HISTORY_LAWS.items() if name != "majority"}
    monkeypatch.setattr("bayes_icl.hypotheses.law.HISTORY_LAWS", known)
    monkeypatch.setattr("bayes_icl.hypotheses.law._LOADED", {})
    path = tmp_path / "own.py"
    path.write_text(THEIRS)
    assert load_hypotheses(path) == ["majority"]
    past = past_of("every shot")
    expected = np.sign(past.signed) * np.abs(past.signed) ** np.array([[0.3], [0.7]])
    np.testing.assert_allclose(known["majority"].curve(np, past, b=np.array([[0.3], [0.7]])), expected)
    # A name that a law of n has, or a parameter of all laws of history, and nothing stays of a file that fails.
    for name, parameter, said in (("additive", "b", "is registered already"), ("mine", "w_sd", "can be called 'w_sd'")):
        with pytest.raises(ValueError, match=said):
            law_of_history(name, 2, priors={parameter: Uniform(0, 1)}, reference="", predicts="")(len)
    (bad := tmp_path / "bad.py").write_text(THEIRS.replace('"majority"', '"other"') + "\nraise ValueError('no')")
    with pytest.raises(StatedError, match=r"bad\.py"):
        load_hypotheses(bad)
    assert "other" not in known and "majority" in known
