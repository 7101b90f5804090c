"""Fit every hypothesis to every case, by the fast engine and by NUTS, and judge which survive."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from bayes_icl.core.errors import StatedError, unknown
from bayes_icl.core.home import spare_home
from bayes_icl.core.parallel import one_a_core, run_jobs
from bayes_icl.curves import Curves
from bayes_icl.fit.cases import HEAVY, Case
from bayes_icl.fit.sentences import verdict_line
from bayes_icl.fit.settings import ENGINES
from bayes_icl.fit.verdict import RULES, Rules, judge, not_asked, refuse
from bayes_icl.fit.weighing import weigh
from bayes_icl.hypotheses.law import HISTORY_LAWS, HYPOTHESES, Hypothesis, law_called, load_hypotheses
from bayes_icl.inference.departure import MeanCurve
from bayes_icl.inference.history_scores import score_history
from bayes_icl.inference.importance import sample_fast
from bayes_icl.inference.noise import Statistics, summarise
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.scores import Score, score_curves
from bayes_icl.inference.survival import too_little

if TYPE_CHECKING:
    from bayes_icl.inference.nuts import SamplerSettings

# Columns of `Fits.agreement`.
AGREEMENT = (
    "task", "hypothesis", "parameter", "mean_fast", "mean_nuts", "sd_fast", "sd_nuts", "shift", "shift_se", "sd_ratio",
)  # fmt: skip


@dataclass(frozen=True)
class Fits:
    """What was fitted to some cases.

    Attributes
    ----------
    scores
        Of each case, hypotheses in the order given.
    posteriors
        By index of the case and name of the hypothesis: of headlines.
    agreement
        One row a parameter that both engines gave: columns task, hypothesis, parameter, mean_fast, mean_nuts, sd_fast,
        sd_nuts, shift (difference of the means in sds of NUTS), shift_se (its Monte Carlo error) and sd_ratio.
    """

    scores: list[list[Score]]
    posteriors: dict[tuple[int, str], Posterior]
    agreement: pd.DataFrame


RESTS_ON, WEIGHTS_FROM = "freeform", "per_lag"  # whose fits are the mean curve and the weights over lags of verdicts


def check_names(names: Sequence[str]) -> None:
    """State the first name that is of no registered law."""
    for name in names:
        if name not in HYPOTHESES and name not in HISTORY_LAWS:
            raise unknown("hypothesis", name, [*HYPOTHESES, *HISTORY_LAWS])


def fit_curves(
    cases: Sequence[Case],
    hypotheses: Sequence[str] = (*HYPOTHESES, *HISTORY_LAWS),
    *,
    engine: Literal["auto", "fast", "nuts"] = "auto",
    sampler: SamplerSettings | None = None,
    hypotheses_from: Path | None = None,
    workers: int = 1,
    progress: bool = False,
) -> Fits:
    """Fit hypotheses to cases, and score them.

    Parameters
    ----------
    cases
        As `plan_cases` returns them, or your own.
    hypotheses
        Names of registered laws. `freeform` and `per_lag`, on which verdicts rest, are always fitted.
    engine
        As in `FitSettings`. Cases with other noise than their headline are the fast engine's.
    sampler
        How long NUTS samples; its seed is that of the fast engine too.
    hypotheses_from
        File of hypotheses that an error in one of them names.
    workers
        Processes; 0 takes one a core, 4 at most.
    progress
        Show a bar on stderr.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.fit import Case, fit_curves
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1)
    >>> fits = fit_curves([Case(curves, headline=True)], ["constant", "additive", "power"], engine="fast")
    >>> [score.hypothesis for score in fits.scores[0]]
    ['constant', 'additive', 'power', 'freeform']
    """
    from bayes_icl.inference.nuts import SamplerSettings

    spare_home()
    hypotheses = tuple(dict.fromkeys((*hypotheses, RESTS_ON, WEIGHTS_FROM)))
    check_names(hypotheses)
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    sampler = sampler or SamplerSettings()
    own = dict.fromkeys(load_hypotheses(hypotheses_from), hypotheses_from) if hypotheses_from else {}
    workers = workers or one_a_core()
    results = _Results(cases, hypotheses)

    def fast_job(i: int) -> tuple:
        return _fit_case, cases[i], [cases[i].hypothesis(n) for n in hypotheses if cases[i].fits(n)], sampler.seed, own

    with (
        run_jobs(workers) as run,
        tqdm(total=len(cases), unit="fit", disable=not progress, dynamic_ncols=True) as bar,
    ):
        # Headlines first: their verdicts can be told, and say what NUTS is wanted for.
        bar.set_description("headlines, fast engine")
        fast = [i for i, case in enumerate(cases) if engine != "nuts" or not case.base]
        first = [i for i in fast if cases[i].headline or cases[i].weighs]
        for j, fitted in run(_call, [*map(fast_job, first)]):
            results.keep(first[j], fitted)
            bar.update(1)
            if progress:
                bar.write(_first_word(cases[first[j]], fitted), file=sys.stderr)
        plan = _plan_nuts(results, engine)
        rest = [i for i in fast if i not in first]
        bar.total = len(first) + len(rest) + len(plan.names)
        bar.set_description("other settings" + (f"; NUTS: {', '.join(plan.names)}" if plan.names else ""))
        nuts_jobs = [plan.job(name, cases, sampler) for name in plan.names]
        for j, result in run(_call, [*nuts_jobs, *map(fast_job, rest)]):
            bar.update(1)
            if j < len(nuts_jobs):
                results.keep_nuts(plan, plan.names[j], *result)
            else:
                results.keep(rest[j - len(nuts_jobs)], result)
    return results.fits()


@dataclass(frozen=True)
class _NutsPlan:
    """What NUTS is wanted for, by hypothesis, since compiling one is most of what it costs.

    Attributes
    ----------
    names
        Hypotheses that it samples, the longest job first, so that no worker is left alone with one at the end.
    anew
        Indices of the cases that it scores anew, by hypothesis.
    shown
        Indices of the headlines that it only samples, beside the fast engine.
    """

    names: list[str]
    anew: dict[str, list[int]]
    shown: dict[str, list[int]]

    def job(self, name: str, cases: Sequence[Case], sampler: SamplerSettings) -> tuple:
        """The call that samples one hypothesis, for the pool."""
        scored, sampled = ([cases[i] for i in of] for of in (self.anew[name], self.shown[name]))
        return _sample_hypothesis, (scored + sampled)[0].hypothesis(name), scored, sampled, sampler


class _Results:
    """What has been fitted so far; in the end `Fits`."""

    def __init__(self, cases: Sequence[Case], hypotheses: Sequence[str]) -> None:
        self.cases, self.hypotheses = cases, hypotheses
        self.scores: list[dict[str, Score]] = [{} for _ in cases]
        self.posteriors: dict[tuple[int, str], Posterior] = {}
        self.agreement: list[dict[str, Any]] = []

    def show(self, i: int, name: str, posterior: Posterior) -> None:
        """Take a posterior to be the one of that headline and law."""
        # Of the law as it is registered here: a curve of the user's own came back from a worker as a copy.
        law = self.cases[i].hypothesis(name)
        student = law.student and "dof" in posterior.params  # a free mean has weights of sequences instead
        law = law.varied(student=student, shared=law.shared, single=law.single)
        self.posteriors[i, name] = replace(posterior, hypothesis=law)

    def keep(self, i: int, fitted: Mapping[str, tuple[Score, Posterior | None]]) -> None:
        """Take scores of a case, and posteriors where there are some."""
        for name, (score, posterior) in fitted.items():
            # What neither engine can fit keeps the fast engine's account of itself.
            if score.faults and name in self.scores[i]:
                continue
            self.scores[i][name] = score
            if posterior is not None:
                self.show(i, name, posterior)

    def keep_nuts(
        self,
        plan: _NutsPlan,
        name: str,
        scored: Sequence[tuple[Score, Posterior | None]],
        sampled: Sequence[Posterior],
    ) -> None:
        """Take what NUTS made of one hypothesis, and compare it with the fast engine where both sampled."""
        for i, one in zip(plan.anew[name], scored):
            self.keep(i, {name: one})
        for i, posterior in zip(plan.shown[name], sampled):
            self.agreement += _compare_engines(self.cases[i].curves, self.posteriors[i, name], posterior)
            if not posterior.faults:
                self.show(i, name, posterior)

    def fits(self) -> Fits:
        """All of it, cases and hypotheses in the order given, in whatever order workers were done."""
        order = [(i, name) for i in range(len(self.cases)) for name in self.hypotheses]
        return Fits(
            [[of_case[name] for name in self.hypotheses if name in of_case] for of_case in self.scores],
            {key: self.posteriors[key] for key in order if key in self.posteriors},
            pd.DataFrame(self.agreement, columns=list(AGREEMENT)),
        )


def _plan_nuts(results: _Results, engine: str) -> _NutsPlan:
    """What to score anew, once the headlines are fitted, and what to sample only."""
    cases, hypotheses, scores = results.cases, results.hypotheses, results.scores
    anew = {
        name: [i for i, case in enumerate(cases) if case.fits(name) and _wants_nuts(case, scores[i].get(name), engine)]
        for name in hypotheses
    }
    shown: dict[str, list[int]] = {name: [] for name in hypotheses}
    if engine == "auto":
        for i, case in enumerate(cases):
            if case.headline and scores[i]:
                selected = judge(case.curves, list(scores[i].values())).selected
                wanted = {"additive", RESTS_ON, selected or "additive"}
                for name in sorted(wanted & {n for n in scores[i] if i not in anew[n]}):
                    shown[name].append(i)
    names = [name for name in hypotheses if anew[name] or shown[name]]
    names.sort(key=lambda name: (-len(anew[name]), -law_called(name).complexity))
    return _NutsPlan(names, anew, shown)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Jobs of several kinds, for one pool."""
    return function(*arguments)


def _wants_nuts(case: Case, score: Score | None, engine: str) -> bool:
    """Whether NUTS is to score a law: a headline that the fast engine could not, but for laws it cannot walk either."""
    if engine == "nuts":
        return case.base
    faulty = score is not None and bool(score.faults) and law_called(score.hypothesis).complexity < HEAVY
    return case.headline and faulty


def _first_word(case: Case, fitted: dict[str, tuple[Score, Posterior | None]]) -> str:
    """The fast engine's verdict, in a line."""
    if case.weighs:
        found = weigh(case.curves, [score for score, _ in fitted.values()])
        return f"{case.curves.task:16s} evidence: {found.verdict}"
    verdict = judge(case.curves, [score for score, _ in fitted.values()]).as_json()
    return f"{case.curves.task:16s} {verdict_line(verdict, verdict)}"


def _fit_case(
    case: Case, laws: Sequence[Hypothesis], seed: int, own: Mapping[str, Path]
) -> dict[str, tuple[Score, Posterior | None]]:
    """All hypotheses on one case by the fast engine; posteriors too where it is a headline.

    An error in one of the user's `own` names the file that it is from.
    """
    fitted = {}
    for law in laws:
        engine = partial(sample_fast, seed=seed)
        try:
            if law.of_history:
                score, posterior = score_history(law, case.curves, engine)
            else:
                score, posterior = score_curves(law, case.curves, engine, checks=case.base)
        except Exception as error:
            if law.name not in own:
                raise
            why = f"hypothesis {law.name!r} of {own[law.name]}: {type(error).__name__}: {error}"
            raise StatedError(why) from error
        fitted[law.name] = score, posterior if case.headline or case.weighs else None
    return fitted


def _sample_hypothesis(
    hypothesis: Hypothesis, anew: Sequence[Case], shown: Sequence[Case], settings: SamplerSettings
) -> tuple[list[tuple[Score, Posterior | None]], list[Posterior]]:
    """Compile a hypothesis; score some cases by NUTS, and only sample others."""
    from bayes_icl.inference.nuts import Sampler

    def sampled(law: Hypothesis, stats: Statistics) -> Posterior:
        return Sampler(law, stats, settings)(law, stats)  # compiled once a process

    scored = []
    for case in anew:
        scoring = score_history if hypothesis.of_history else score_curves
        score, posterior = scoring(hypothesis, case.curves, sampled)
        scored.append((score, posterior if case.headline or case.weighs else None))
    drawn = []
    for case in shown:
        stats = summarise(case.curves)
        # A law of the user's own need not be registered in this process.
        drawn.append(sampled(hypothesis.varied(student=hypothesis.student, shared=len(stats.items) > 0), stats))
    return scored, drawn


def _compare_engines(curves: Curves, fast: Posterior, nuts: Posterior) -> list[dict[str, Any]]:
    """One row a number that both engines gave."""
    stats = summarise(curves)
    rows = []
    weights = np.exp(fast.log_weights)
    by_fast, by_nuts = fast.numbers(stats), nuts.numbers(stats)
    if fast.hypothesis.ceiling:
        for numbers, posterior in ((by_fast, fast), (by_nuts, nuts)):
            mean = MeanCurve.of(posterior, stats)
            numbers |= {"total": mean.totals, "departure": mean.departures}
    for name, x in by_fast.items():
        mean, y = weights @ x, by_nuts[name]
        sd = np.sqrt(weights @ (x - mean) ** 2)
        rows.append(
            {
                "task": curves.task,
                "hypothesis": fast.hypothesis.name,
                "parameter": name,
                "mean_fast": mean,
                "mean_nuts": y.mean(),
                "sd_fast": sd,
                "sd_nuts": y.std(),
                "shift": (mean - y.mean()) / y.std(),
                "shift_se": np.sqrt(1 / fast.ess + 1 / nuts.ess),
                "sd_ratio": sd / y.std(),
            }
        )
    return rows


def judge_cases(cases: Sequence[Case], scores: Sequence[Sequence[Score]], rules: Rules = RULES) -> dict[str, dict]:
    """The verdict on every task: that of its headline, with those under every other setting in `others`.

    Parameters
    ----------
    cases
        The headline of a task before its other settings.
    scores
        Of each case, one a law.
    rules
        Regions of practical equivalence.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> from bayes_icl.fit import Case, fit_curves, judge_cases
    >>> cases = [Case(select(read_curves(Path("data/example.nc")), "past_tense", "complement").since(1))]
    >>> fits = fit_curves(cases, ["constant", "additive", "power"], engine="fast")
    >>> verdict = judge_cases(cases, fits.scores)["past_tense"]
    >>> verdict["verdict"], verdict["selected"]
    ('rejected', 'power')
    """
    verdicts: dict[str, dict] = {}
    for case, own in zip(cases, scores):
        task, reason = case.curves.task, too_little(case.curves)
        if case.weighs:
            verdicts[task] = {**not_asked(case.curves).as_json(), "others": []}
            verdicts[task]["bayesian"] = weigh(case.curves, own, rules.small).as_json()
            continue
        verdict = refuse(case.curves, reason) if reason else judge(case.curves, own, rules)
        as_json = {**replace(verdict, noise=case.noise).as_json(), "others": []}
        if task not in verdicts:
            verdicts[task] = as_json
        elif verdicts[task]["verdict"] == "not_asked":  # the second verdict stood before its headline
            verdicts[task] = {**as_json, "bayesian": verdicts[task]["bayesian"]}
        else:
            del as_json["others"]
            verdicts[task]["others"].append(as_json)
    return verdicts
