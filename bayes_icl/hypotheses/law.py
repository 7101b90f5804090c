r"""What a law of the mean is: curve, priors, how it is registered."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from bayes_icl.core.errors import StatedError
from bayes_icl.core.inputs import run_python
from bayes_icl.hypotheses.kinds import SMOOTH, Free, Kind, OfHistory, Smooth, Step


@dataclass(frozen=True)
class Prior:
    """A prior distribution, as PyMC and numpy both spell it.

    Attributes
    ----------
    family
        Its name in PyMC: Normal, HalfNormal, LogNormal or Uniform.
    parameters
        Its parameters in PyMC's order.
    length
        For a vector, the field of `noise.Statistics` that has a row for each entry; None for a number.
    scaled
        In units of the curves' scale (`noise.Statistics.scale`), which multiplies the draw; for Normal and HalfNormal.
    """

    family: str
    parameters: tuple[float, ...]
    length: str | None = None
    scaled: bool = False

    def draw(self, rng: np.random.Generator, size: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
        """Draws of that shape by numpy; `scale` is that of the curves, and used where the prior is scaled."""
        if self.family == "HalfNormal":
            x = np.abs(rng.normal(0.0, self.parameters[0], size))
        else:
            sampler: dict[str, Callable[..., np.ndarray]] = {
                "Normal": rng.normal,
                "LogNormal": rng.lognormal,
                "Uniform": rng.uniform,
            }
            x = sampler[self.family](*self.parameters, size)
        return x * scale if self.scaled else x


def LogNormal(mu: float, sigma: float) -> Prior:
    """Median exp(mu).

    Parameters
    ----------
    mu, sigma
        Mean and sd of the logarithm.

    Examples
    --------
    >>> from math import log
    >>> import numpy as np
    >>> from bayes_icl.hypotheses import LogNormal
    >>> draws = LogNormal(log(5), 1.5).draw(np.random.default_rng(0), (100_000,))
    >>> np.median(draws).round().item()
    5.0
    """
    return Prior("LogNormal", (mu, sigma))


def Uniform(low: float, high: float) -> Prior:
    """Flat between `low` and `high`.

    Parameters
    ----------
    low, high
        Bounds, in units of the parameter.

    Examples
    --------
    >>> from bayes_icl.hypotheses import HYPOTHESES, Uniform
    >>> HYPOTHESES["power"].priors["a"] == Uniform(-0.5, 1.0)
    True
    """
    return Prior("Uniform", (low, high))


# Of all hypotheses; nats, so in units of the curves' scale.
SHARED_PRIORS = {
    "gain": Prior("Normal", (0.0, 2.5), scaled=True),
    "gain_sd": Prior("HalfNormal", (1.0,), scaled=True),
    "early_sd": Prior("HalfNormal", (0.5,), scaled=True),
    "level": Prior("HalfNormal", (1.0,), scaled=True),
    "walk": Prior("HalfNormal", (0.5,), scaled=True),
}

# What `Free` has where single shots move in all sequences.
SHARED_SHOTS = {
    "shot_sd": Prior("HalfNormal", (1.0,), scaled=True),
    "at_shot": Prior("Normal", (0.0, 1.0), length="items"),
}

# Of all laws of history; w is in nats for a unit of f.
HISTORY_PRIORS = {
    "w": Prior("Normal", (0.0, 1.0)),
    "w_sd": Prior("HalfNormal", (0.5,)),
    "gain_sd": Prior("HalfNormal", (1.0,), scaled=True),
    "level": Prior("HalfNormal", (1.0,), scaled=True),
    "walk": Prior("HalfNormal", (0.5,), scaled=True),
}

# Of single prompts, of which no two are of one sequence: one intercept for all, and nothing that varies within one.
SINGLE_PRIORS = {
    "start": Prior("Normal", (0.0, 2.5), scaled=True),
    **{name: HISTORY_PRIORS[name] for name in ("w", "w_sd", "level")},
}

# Degrees of freedom of a whole sequence, where the noise is heavy-tailed.
DOF_PRIOR = Prior("LogNormal", (log(8), 1.0))

# A log ratio of probabilities below this is none; it may be small, at log-odds far from 0.
LEAST_RATIO = 1e-12


@dataclass(frozen=True)
class Hypothesis:
    """A law of the mean of L(n).

    Attributes
    ----------
    name
        As in files and on the command line.
    curve
        ``curve(xp, n, **parameters)``; what it returns is said by its kind.
    complexity
        Among hypotheses that predict equally well the one with the least is named, of equals the best. From 6 on a law
        is fitted to headlines only, and NUTS does not step in for it (`fit.HEAVY`).
    priors
        Of its own parameters; every one needs its meaning and unit in `meanings`.
    kind
        `Smooth`, `Step`, `Free` or `OfHistory` (see `kinds`).
    reference, predicts
        Where it comes from, and what would tell it from the others.
    student
        A sequence's noise has heavy tails: a multivariate t with `dof` degrees of freedom (see `varied`).
    shared
        Of a `Free` mean: single shots move in all sequences alike (`noise_shape.Shape.shared`).
    single
        Of a law of history: its readings are single prompts, no two of one sequence.
    """

    name: str
    curve: Callable[..., Any]
    complexity: int
    reference: str
    predicts: str
    priors: Mapping[str, Prior] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = SMOOTH
    student: bool = False
    shared: bool = False
    single: bool = False

    def varied(self, *, student: bool = False, shared: bool = False, single: bool = False) -> Hypothesis:
        """The same law with heavy-tailed noise, an effect of each shot, or on single prompts.

        Parameters
        ----------
        student
            Give the noise of a sequence heavy tails.
        shared
            Let single shots move in all sequences alike; of a `Free` mean.
        single
            Readings are single prompts; of a law of history.

        Examples
        --------
        >>> from bayes_icl.hypotheses import HYPOTHESES
        >>> HYPOTHESES["additive"].parameters
        ('gain', 'gain_sd', 'early_sd', 'level', 'walk')
        >>> HYPOTHESES["additive"].varied(student=True).parameters
        ('gain', 'gain_sd', 'early_sd', 'level', 'walk', 'dof')
        """
        return replace(self, student=student, shared=shared and self.ceiling, single=single and self.of_history)

    @property
    def has_gain(self) -> bool:
        """Whether there is a mean update."""
        return self.kind.has_gain

    @property
    def in_nats(self) -> bool:
        """Whether the total update follows from the law's own parameters."""
        return self.kind.in_nats

    @property
    def latent_step(self) -> bool:
        """Whether each sequence jumps once, at an update of its own."""
        return isinstance(self.kind, Step)

    @property
    def rival(self) -> bool:
        """Whether it is compared with others, and may survive."""
        return not self.ceiling and (not isinstance(self.kind, OfHistory) or self.kind.rival)

    @property
    def of_history(self) -> bool:
        """Whether it is a function of what the examples showed."""
        return isinstance(self.kind, OfHistory)

    @property
    def ceiling(self) -> bool:
        """Whether it is not a rival but the best any law could do, left out of the survivors."""
        return isinstance(self.kind, Free) or (isinstance(self.kind, OfHistory) and self.kind.free)

    @property
    def all_priors(self) -> dict[str, Prior]:
        """The priors of all that is sampled, the shared ones first."""
        if isinstance(self.kind, OfHistory):
            some = SINGLE_PRIORS if self.single else HISTORY_PRIORS
            left: tuple[str, ...] = () if self.kind.weighted else ("w",)
            left += ("w_sd",) if self.kind.free or not self.kind.uses_examples else ()
            own = {name: prior for name, prior in some.items() if name not in left} | dict(self.priors)
            return own | ({"dof": DOF_PRIOR} if self.student else {})
        shared = {k: v for k, v in SHARED_PRIORS.items() if k != "gain" or (self.has_gain and not self.in_nats)}
        stated = {**shared, **({"dof": DOF_PRIOR} if self.student else {}), **self.priors}
        stated |= SHARED_SHOTS if self.shared else {}
        return stated

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all that is sampled."""
        return tuple(self.all_priors)

    def updates(self, xp: Any, stats: Any, params: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Mean updates, nats; the differences of f, their shares of the total; and the total mean update, nats.

        Parameters
        ----------
        xp
            `numpy` or `pytensor.tensor`.
        stats
            `noise.Statistics`, or the same names as tensors.
        params
            All parameters; on numpy with a leading axis of draws, shape (draw, 1) or (draw, length).

        Returns
        -------
        mean, f
            Shape (..., update).
        gain
            Shape (..., 1) on numpy; 0 where there is no mean update.
        """
        theta = {name: params[name] for name in (*self.priors, *(SHARED_SHOTS if self.shared else ()))}
        assert not isinstance(self.kind, OfHistory)
        return self.kind.updates(self.curve, xp, stats, theta, params.get("gain"))

    def step_log_weights(self, xp: Any, stats: Any, params: Mapping[str, Any]) -> Any:
        """For `latent_step`: log probability of a step at each update and after the last, shape (..., update + 1)."""
        score = self.curve(xp, stats.step_positions, **{name: params[name] for name in self.priors})
        weight = xp.exp(score - score.max(axis=-1, keepdims=True))
        # The floor keeps a step that is all but excluded from costing an infinity.
        weights = xp.dot(weight, stats.step_sums) + 1e-12
        return xp.log(weights / weights.sum(axis=-1, keepdims=True))


HYPOTHESES: dict[str, Hypothesis] = {}

HISTORY_LAWS: dict[str, Hypothesis] = {}

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")  # which stands in names of files

# Names of what every law has in its fits and tables, and in its PyMC model: what is not its own, and the data.
RESERVED = (
    *(*SHARED_PRIORS, "dof", "delta", "log_odds", "mean_log_odds", "xp", "n", "statistics", "chain", "draw"),
    *("log_likelihood", "shots", "n_max", "x", "x_mean", "x_scatter", "n_seqs", "scale", "transform", "eigenvalues"),
    *("inverse_transform", "step_sums"),
    *("step_positions", "weight", "line", "early", "corr", "bends", "items", "past", "start", "w_sd", "knots"),
    *(*SHARED_SHOTS, "log_prior", "total", "departure", "second_half"),
)


def hypothesis(
    name: str, complexity: int, *, in_nats: bool = False, **fields: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a curve as a hypothesis.

    Parameters
    ----------
    name, complexity
        As in `Hypothesis`.
    in_nats
        Whether the curve has its own size, nats: short for ``kind=Smooth(in_nats=True)``.
    **fields
        Other fields of `Hypothesis`.

    Raises
    ------
    ValueError
        The name is taken, or cannot stand in the names of files; a parameter has the name of one that all laws have.

    Examples
    --------
    >>> from bayes_icl.hypotheses import HYPOTHESES, Uniform, hypothesis
    >>> @hypothesis("root", 2, priors={"b": Uniform(0.2, 0.8)}, meanings={"b": "exponent, no unit"},
    ...             reference="mine", predicts="updates fall as n^(b-1)")
    ... def root(xp, n, b):
    ...     return n**b
    >>> HYPOTHESES["root"].parameters
    ('gain', 'gain_sd', 'early_sd', 'level', 'walk', 'b')
    """

    own: dict[str, Any] = {"kind": Smooth(in_nats=True)} if in_nats else {}
    return _registering(HYPOTHESES, name, complexity, **own, **fields)


def law_of_history(name: str, complexity: int, **fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a law of history: log-odds as a function of what the examples showed.

    ``curve(xp, past, **parameters)`` takes a `past.Past`; its f is multiplied by a weight w. Parameters and errors are
    those of `hypothesis`; of the priors, one of ``w`` replaces the usual one.

    Parameters
    ----------
    name, complexity
        As in `Hypothesis`.
    **fields
        Other fields of `Hypothesis`.

    Examples
    --------
    >>> from bayes_icl.hypotheses import HISTORY_LAWS, Uniform, law_of_history
    >>> @law_of_history("majority", 2, priors={"b": Uniform(0.2, 0.8)}, meanings={"b": "exponent, no unit"},
    ...                 reference="mine", predicts="the sign of the majority decides")
    ... def majority(xp, past, b):
    ...     return xp.sign(past.signed) * xp.abs(past.signed) ** b
    >>> HISTORY_LAWS["majority"].parameters
    ('w', 'w_sd', 'gain_sd', 'level', 'walk', 'b')
    """
    fields = {"kind": OfHistory(), **fields}
    return _registering(HISTORY_LAWS, name, complexity, **fields)


def _registering(
    registry: dict[str, Hypothesis], name: str, complexity: int, **fields: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(curve: Callable[..., Any]) -> Callable[..., Any]:
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise ValueError(f"a hypothesis is called by 1 to 40 letters, digits, _ or -, a letter first; not {name!r}")
        for parameter in fields.get("priors", {}):
            known = isinstance(parameter, str) and parameter.isidentifier()
            if not known or parameter in RESERVED or parameter.endswith("__"):  # so end PyMC's own
                raise ValueError(f"hypothesis {name!r}: no parameter can be called {parameter!r}: rename it")
        if name in HYPOTHESES or name in HISTORY_LAWS:
            raise ValueError(f"a hypothesis called {name!r} is registered already")
        registry[name] = Hypothesis(name, curve, complexity, **fields)
        return curve

    return register


def label_of(name: str) -> str:
    """A hypothesis's name in figures and tables; a user's own need not be registered in this process."""
    if name in HISTORY_LAWS and HISTORY_LAWS[name].ceiling:
        return f"{name} (ceiling)"
    return f"{name} (free mean)" if name in HYPOTHESES and HYPOTHESES[name].ceiling else name


def load_hypotheses(path: Path) -> list[str]:
    """Run a Python file that registers hypotheses, and name those it registered; once a process.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    StatedError
        No such file, an error in it, or nothing registered.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from bayes_icl.hypotheses import load_hypotheses
    >>> law = "hypothesis('square', 2, reference='mine', predicts='updates rise')(lambda xp, n: n**2)"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "laws.py"
    ...     _ = file.write_text("from bayes_icl.hypotheses import hypothesis\\n" + law)
    ...     load_hypotheses(file)
    ['square']
    """
    path = Path(os.path.realpath(path))  # `resolve` raises where links go round
    if path in _LOADED:
        return _LOADED[path]
    if not path.is_file():
        raise StatedError(f"--hypotheses-from {path}: no such file; it should be Python that registers hypotheses")
    before = {*HYPOTHESES, *HISTORY_LAWS}
    try:
        run_python(path)
    except StatedError as error:
        for registry in (HYPOTHESES, HISTORY_LAWS):
            for name in set(registry) - before:
                del registry[name]
        raise StatedError(f"--hypotheses-from {error}") from error
    if not (new := [name for name in (*HYPOTHESES, *HISTORY_LAWS) if name not in before]):
        raise StatedError(f"--hypotheses-from {path}: nothing in it is registered with @hypothesis or @law_of_history")
    _LOADED[path] = new
    return new


_LOADED: dict[Path, list[str]] = {}

LAWS_MODULE = "bayes_icl.hypotheses.laws"  # of the laws that come with the package


def law_called(name: str) -> Hypothesis:
    """The law of that name, of n or of history."""
    return HYPOTHESES[name] if name in HYPOTHESES else HISTORY_LAWS[name]
