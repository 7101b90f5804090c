"""Cases: a curve and the setting under which it is judged."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from bayes_icl.core.errors import StatedError, unknown
from bayes_icl.curves import READOUTS, Curves, readouts_of, select
from bayes_icl.fit.settings import NOISES, FitSettings
from bayes_icl.hypotheses.law import HYPOTHESES, Hypothesis
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

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.fit import Case
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> case = Case(curves, noise="student")
    >>> case.hypothesis("additive").student
    True
    >>> case.left_out("observer")
    'the curves do not know its evidence'
    """

    curves: Curves
    noise: str = "normal"
    headline: bool = False
    base: bool = True

    def __post_init__(self) -> None:
        if self.noise not in NOISES:
            raise unknown("noise", self.noise, NOISES)

    def hypothesis(self, name: str) -> Hypothesis:
        """A hypothesis under this setting."""
        law, student = HYPOTHESES[name], self.noise == "student"
        return law.varied(student=student, shared=law.ceiling and estimate(self.curves).shared)

    def fits(self, name: str) -> bool:
        """Whether the hypothesis is fitted here."""
        return not self.left_out(name)

    def left_out(self, name: str) -> str:
        """Why a hypothesis is not fitted here; empty where it is."""
        law, observed = HYPOTHESES[name], self.curves.observed
        # Other settings are there for the verdict, which the laws of most parameters do not decide.
        if law.complexity >= HEAVY and not law.ceiling and not self.headline:
            return "for headlines only"
        if not law.by_sequence:
            return ""
        if self.curves.evidence is None:
            return "the curves do not know its evidence"
        if observed is None:
            updates = self.curves.evidence[:, 1:]
            return f"its evidence is not known at {int((updates != updates).sum())} of {updates.size} updates"
        return "" if observed.any() else "its evidence is 0 throughout"


def plan_cases(dataset: xr.Dataset, settings: FitSettings) -> list[Case]:
    """What to fit: for each task the headline readout from every n_min, other readouts from the headline n_min.

    The first case of each task is its headline; with `sensitivity` it comes again with the other noise.

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
