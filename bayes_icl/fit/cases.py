"""Cases: a curve and the setting under which it is judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_icl.core.errors import StatedError, unknown
from bayes_icl.curves import READOUTS, Curves, readouts_of, select
from bayes_icl.fit.settings import NOISES, FitSettings
from bayes_icl.hypotheses.kinds import OfHistory
from bayes_icl.hypotheses.law import Hypothesis, law_called
from bayes_icl.inference.noise_shape import estimate

HEAVY = 6  # complexity from which a law is fitted to headlines only, and not sampled where weighting fails


@dataclass(frozen=True)
class Case:
    """One curve and the setting under which it is judged.

    Attributes
    ----------
    headline
        The curve of its task that figures show and whose posteriors are kept.
    base
        Not there for the sensitivity table alone.
    weighs
        It is asked how evidence is weighed (the second verdict), by laws of history, and not how straight the curve is.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.fit import Case
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> case = Case(curves, noise="student")
    >>> case.hypothesis("additive").student
    True
    >>> Case(curves, weighs=True).left_out("observer")
    'the curves do not know what it would say'
    """

    curves: Curves
    noise: str = "normal"
    headline: bool = False
    base: bool = True
    weighs: bool = False

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise unknown("noise", self.noise, NOISES)

    def hypothesis(self, name: str) -> Hypothesis:
        """A hypothesis under this setting."""
        law, student = law_called(name), self.noise == "student"
        if law.of_history:
            return law.varied(student=student and not law.ceiling, single=self.curves.single is not None)
        return law.varied(student=student, shared=law.ceiling and estimate(self.curves).shared)

    def fits(self, name: str) -> bool:
        """Whether the hypothesis is fitted here."""
        return not self.left_out(name)

    def left_out(self, name: str) -> str:
        """Why a hypothesis is not fitted here; empty where it is."""
        law = law_called(name)
        if law.of_history != self.weighs:
            return "for curves whose examples disagree" if law.of_history else "for curves whose examples agree"
        # Other settings are there for the verdict, which the laws of most parameters do not decide.
        if law.complexity >= HEAVY and not law.ceiling and not (self.headline or self.weighs):
            return "for headlines only"
        if not law.of_history:
            return ""
        if not law.rival and not self.curves.disagrees:
            return "all examples agree"
        if name == "observer":
            return "the curves do not know what it would say" if self.curves.observer is None else ""
        if isinstance(law.kind, OfHistory) and law.kind.uses_examples and self.curves.history is None:
            return "what each example showed is not known"
        return ""


def plan_cases(dataset: xr.Dataset, settings: FitSettings) -> list[Case]:
    """What to fit: for each task the headline readout from every n_min, other readouts from the headline n_min.

    The first such case of each task is its headline; with `sensitivity` it comes again with the other noise. Where
    examples disagree, or an ideal observer is known, there is a case of the second verdict before it.

    Parameters
    ----------
    dataset
        In the curves format.
    settings
        Its tasks, readouts, n_min, noise and sensitivity are read.

    Raises
    ------
    StatedError
        An unknown task or readout, or an n_min beyond the shots.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves
    >>> from bayes_icl.fit import FitSettings, plan_cases
    >>> settings = FitSettings(tasks=("past_tense",), n_min=(1, 0), sensitivity=False)
    >>> cases = plan_cases(read_curves(Path("data/example.nc")), settings)
    >>> [(case.curves.readout, int(case.curves.shots[0]), case.headline) for case in cases]
    [('complement', 1, True), ('complement', 0, False)]
    """
    known = [str(name) for name in dataset.readout.values]
    for name in settings.readout:  # one that is misspelt must not leave another to be the headline
        if name not in known and name not in READOUTS:
            raise unknown("readout", name, known)
    if not set(settings.readout) & set(known):
        raise unknown("readout", settings.readout[0], known)
    shots = dataset.shot.values
    if len(shots) < 2 or max(settings.n_min) > shots[-2]:
        raise StatedError(
            f"--n-min {' '.join(map(str, settings.n_min))}: the curves run from n = {shots[0]:.0f} to {shots[-1]:.0f}, "
            "and one update at least must be left"
        )
    cases: list[Case] = []
    # The first shot from there on: two settings may begin at the same.
    n_mins = list(dict.fromkeys(int(shots[shots >= n][0]) for n in settings.n_min))
    for task in dict.fromkeys(settings.tasks) or [str(name) for name in dataset.task.values]:
        has = readouts_of(dataset, task) if task in dataset.task.values else []
        readouts = [r for r in dict.fromkeys(settings.readout) if r in has] or [
            select(dataset, task, settings.readout[0]).readout
        ]
        if (weighed := _weighed(dataset, task, readouts[0], has, n_mins[0], settings.noise)) is not None:
            cases.append(weighed)
            if weighed.curves.disagrees or weighed.curves.single is not None:
                continue  # how straight a curve is, is not asked where examples disagree
        for i, readout in enumerate(readouts):
            cases += [
                Case(select(dataset, task, readout).since(n), settings.noise, headline=i == j == 0)
                for j, n in enumerate(n_mins if i == 0 else n_mins[:1])
            ]
        if settings.sensitivity:
            curves = select(dataset, task, readouts[0]).since(n_mins[0])
            other = "student" if settings.noise == "normal" else "normal"
            cases.append(Case(curves, other, base=False))
    return cases


def _weighed(dataset: xr.Dataset, task: str, headline: str, has: list[str], n_min: int, noise: str) -> Case | None:
    """The case of the second verdict, where something tells examples apart, or an ideal observer is known.

    Its readout is that in which the observer speaks: the answer against the foil, or against the other labels.
    """
    readout = next((name for name in ("foil", "rule") if name in has), headline)
    curves = select(dataset, task, readout).since(n_min)
    if curves.observer is not None and curves.single is None:
        unknown_at = np.flatnonzero(~np.isfinite(curves.observer).all(0)).max(initial=-1)
        if unknown_at >= 0:  # its log-odds are known from the shot after
            curves = curves.since(int(curves.shots[unknown_at + 1]))
    known = curves.observer is not None and bool(np.ptp(curves.observer) > 0)
    return Case(curves, noise, weighs=True) if curves.disagrees or known or curves.single is not None else None
