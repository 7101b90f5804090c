"""Fit every hypothesis to every curve, and judge which survive.

``python -m bayes_icl.fit --curves data/curves/demo.nc``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bayes_icl.errors import DONE, REFUSED, StatedError, check_least, exit_stating, unknown
from bayes_icl.hypotheses import HYPOTHESES, Hypothesis, load_hypotheses, users_laws

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from bayes_icl.curves import Curves
    from bayes_icl.nuts import SamplerSettings
    from bayes_icl.posterior import Posterior
    from bayes_icl.scores import Score


@dataclass(frozen=True)
class FitSettings:
    """Fit the hypotheses to a curves file, compare them, and give a verdict on the additive one."""

    curves: Path | None = None
    """A curves file (.nc), or a .csv with the columns task, seq, shot, log_odds; the newest in data/curves if none is
    named."""
    tasks: tuple[str, ...] = ()
    """Tasks of the file to fit; all, if none is named."""
    readout: tuple[str, ...] = ("complement", "rule")
    """Readouts to fit where a task has them; the first is the headline."""
    n_min: tuple[int, ...] = (1, 0, 2)
    """Examples from which on the curve is fitted; the first is the headline. The first example teaches the form
    of an answer and, on some tasks, most of the rule, and is worth many later ones."""
    hypotheses: tuple[str, ...] = tuple(HYPOTHESES)
    """Hypotheses to compare; the verdict needs constant, additive and power. observer is fitted where the curves file
    knows the evidence."""
    hypotheses_from: Path | None = None
    """A Python file that registers hypotheses of your own; they are compared beside the others."""
    engine: Literal["auto", "fast", "nuts"] = "auto"
    """fast: importance sampling for everything (seconds a task). nuts: the PyMC models for everything but the
    sensitivity table and exact refits. auto: fast for the scores, NUTS for the posteriors of additive and of the
    simplest survivor, and how far the two agree. NUTS steps in where the fast engine's diagnostics are bad on a
    headline, but for scaling_law."""
    noise: Literal["normal", "student"] = "normal"
    """Noise of a whole sequence: normal, or heavy-tailed (multivariate t), which odd sequences do not sway."""
    sensitivity: bool = True
    """Give the verdict with priors half and twice as wide (but those between bounds, as the power law's a) and with the
    other noise too."""
    pool: bool = False
    """Pool delta over the tasks: its mean and spread over tasks like these."""
    draws: int = 2000
    """NUTS: posterior draws a chain."""
    tune: int = 1000
    """NUTS: warm-up draws a chain."""
    chains: int = 4
    """NUTS: chains; convergence is judged between them."""
    seed: int = 0
    """Seed of both engines."""
    workers: int = 0
    """Processes; 0 takes one a core, 4 at most."""
    out: Path | None = None
    """Folder for the fits, the tables and verdict.json; data/fits/NAME of the curves if none is named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME of the curves if none is named."""
    force: bool = False
    """Replace fits that were made from other curves or settings."""


NOISES = ("normal", "student")
ENGINES = ("auto", "fast", "nuts")
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
    """

    curves: Curves
    noise: str = "normal"
    priors: str = "stated"
    headline: bool = False
    base: bool = True

    def __post_init__(self) -> None:
        from bayes_icl.scores import PRIOR_WIDTHS

        for kind, given, known in (("noise", self.noise, NOISES), ("priors", self.priors, PRIOR_WIDTHS)):
            if given not in known:
                raise unknown(kind, given, known)

    def hypothesis(self, name: str) -> Hypothesis:
        """A hypothesis under this setting."""
        from bayes_icl.scores import PRIOR_WIDTHS

        return HYPOTHESES[name].varied(student=self.noise == "student", prior_width=PRIOR_WIDTHS[self.priors])

    def fits(self, name: str) -> bool:
        """Whether the hypothesis is fitted here."""
        return not self.left_out(name)

    def left_out(self, name: str) -> str:
        """Why a hypothesis is not fitted here; empty where it is."""
        law, observed = HYPOTHESES[name], self.curves.observed
        # Other settings are there for the verdict: the laws of most parameters, which take most of the time, do not
        # decide it, nor does a ceiling.
        if law.complexity >= HEAVY and not law.ceiling and not self.headline:
            return "for headlines only"
        if law.ceiling and not self.base:
            return "not for the sensitivity table"
        if law.ceiling and self.noise == "student":
            return "free means can be integrated out under normal noise only"
        if not law.by_sequence:
            return ""
        if self.curves.evidence is None:
            return "the curves do not know its evidence"
        if observed is None:
            updates = self.curves.evidence[:, 1:]
            return f"its evidence is not known at {int((updates != updates).sum())} of {updates.size} updates"
        return "" if observed.any() else "its evidence is 0 throughout"


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


def main(settings: FitSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    from datetime import UTC, datetime

    from bayes_icl.curves import newest_curves, read_curves
    from bayes_icl.outputs import Output, sha256, within
    from bayes_icl.plots import figure_files
    from bayes_icl.provenance import key_of, provenance
    from bayes_icl.summary import summarise_verdicts

    started = datetime.now(UTC)
    _check_numbers(settings)
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    inputs = [path]
    names = list(settings.hypotheses)
    if settings.hypotheses_from:
        names += load_hypotheses(settings.hypotheses_from)
        inputs.append(settings.hypotheses_from)
    names = list(dict.fromkeys(names))
    _check_names(names)
    cases = plan_cases(dataset, settings)
    out = settings.out or Path("data/fits") / path.stem
    decides = ("tasks", "readout", "n_min", "engine", "noise", "sensitivity", "pool", "draws", "tune", "chains", "seed")
    decisive = {
        "inputs": [sha256(file) for file in inputs],
        "hypotheses": names,
        **{k: getattr(settings, k) for k in decides},
    }
    key = key_of(decisive)
    drawn = Output(settings.figures or Path("figures") / path.stem, "fit", flag="--figures", inputs=inputs)
    if within(drawn.folder, out):
        raise StatedError(f"--figures {drawn.folder} lies within --out {out}, where fits stand alone: give another")
    drawn.check(force=settings.force, beside=["summary.txt"])  # now, not after the fits
    output = Output(out, "fit", alone=".", inputs=inputs)
    with output.held(force=settings.force):
        if output.holds(key, "from other curves or settings", force=settings.force):
            print(f"{out} was made from these curves with these settings; drawn and printed again", file=sys.stderr)
        else:
            record = {"key": key, **provenance(settings, started=started, inputs=inputs)}
            output.write(_fit(cases, names, settings, record), key)
        verdicts = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
        files = figure_files(figures_of(dataset, out))
        files["summary.txt"] = (summary := summarise_verdicts(dataset, out, verdicts)).encode()
    with drawn.held(force=settings.force):
        drawn.write(files, of=out)
    print(summary, file=sys.stderr)
    print(drawn.folder)
    print(out)
    return REFUSED if any(verdict["verdict"] == "refused" for verdict in verdicts.values()) else DONE


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in HYPOTHESES:
            raise unknown("hypothesis", name, HYPOTHESES)


def plan_cases(dataset: xr.Dataset, settings: FitSettings) -> list[Case]:
    """What to fit: for each task the headline readout from every n_min, other readouts from the headline n_min.

    The first case of each task is its headline; with `sensitivity` it comes again with other priors and noise.

    Raises
    ------
    StatedError
        An unknown task or readout, or an n_min beyond the shots.
    """
    from bayes_icl.curves import readouts_of, select
    from bayes_icl.readouts import READOUTS

    known = [str(name) for name in dataset.readout.values]
    for name in settings.readout:  # one that is misspelt must not leave another to be the headline
        if name not in known and name not in READOUTS:
            raise unknown("readout", name, known)
    if not set(settings.readout) & set(known):
        raise unknown("readout", settings.readout[0], known)
    first, last = int(dataset.shot[0]), int(dataset.shot[-1])
    n_mins = [n for n in settings.n_min if n >= first]
    if not n_mins or max(n_mins) > last - 1:
        raise StatedError(
            f"--n-min {' '.join(map(str, settings.n_min))}: the curves run from n = {first} to {last}, and one update "
            "at least must be left"
        )
    cases: list[Case] = []
    n_mins = list(dict.fromkeys(n_mins))
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
            varied = [(settings.noise, "halved"), (settings.noise, "doubled"), (other, "stated")]
            cases += [Case(curves, noise, priors, base=False) for noise, priors in varied]
    return cases


def fit_curves(
    cases: Sequence[Case],
    hypotheses: Sequence[str] = tuple(HYPOTHESES),
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
    engine
        As in `FitSettings`. Cases with other priors or noise than their headline are the fast engine's.
    sampler
        How long NUTS samples; its seed is that of the fast engine too.
    hypotheses_from
        File of hypotheses that an error in one of them names.
    workers
        Processes; 0 takes one a core, 4 at most. A script that asks for more than 1 needs
        ``if __name__ == "__main__":`` around what it does.
    """
    import pandas as pd
    from tqdm import tqdm

    from bayes_icl.compare import judge
    from bayes_icl.home import spare_home
    from bayes_icl.nuts import SamplerSettings
    from bayes_icl.parallel import one_a_core, run_jobs

    spare_home()
    _check_names(hypotheses)
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    sampler = sampler or SamplerSettings()
    workers = workers or one_a_core()
    scores: list[dict[str, Score]] = [{} for _ in cases]
    posteriors: dict[tuple[int, str], Posterior] = {}
    agreement: list[dict[str, Any]] = []

    def keep(i: int, fitted: dict[str, tuple[Score, Posterior | None]]) -> None:
        for name, (score, posterior) in fitted.items():
            # What neither engine can fit keeps the fast engine's account of itself.
            if score.faults and name in scores[i]:
                continue
            scores[i][name] = score
            if posterior is not None:
                posteriors[i, name] = posterior

    def fast_job(i: int) -> tuple:
        return _fit_case, cases[i], [n for n in hypotheses if cases[i].fits(n)], sampler.seed, hypotheses_from

    with (
        run_jobs(workers, *users_laws()) as run,
        tqdm(total=len(cases), unit="fit", disable=not progress, dynamic_ncols=True) as bar,
    ):
        # Headlines first: their verdicts can be told, and say what NUTS is wanted for.
        bar.set_description("headlines, fast engine")
        fast = [i for i, case in enumerate(cases) if engine != "nuts" or not case.base]
        first = [i for i in fast if cases[i].headline]
        for j, fitted in run(_call, [*map(fast_job, first)]):
            keep(first[j], fitted)
            bar.update(1)
            if progress:
                bar.write(_first_word(cases[first[j]], fitted), file=sys.stderr)
        # By hypothesis, since compiling one is most of what NUTS costs: what to score anew, and what to sample only.
        anew = {
            name: [
                i for i, case in enumerate(cases) if case.fits(name) and _wants_nuts(case, scores[i].get(name), engine)
            ]
            for name in hypotheses
        }
        shown: dict[str, list[int]] = {name: [] for name in hypotheses}
        if engine == "auto":
            for i, case in enumerate(cases):
                if case.headline and scores[i]:
                    named = judge(case.curves, list(scores[i].values())).named
                    for name in sorted({"additive", named or "additive"} & {n for n in scores[i] if i not in anew[n]}):
                        shown[name].append(i)
        nuts = [name for name in hypotheses if anew[name] or shown[name]]
        rest = [i for i in fast if i not in first]
        # The longest first, so that no worker is left alone with one at the end.
        nuts.sort(key=lambda name: (-len(anew[name]), -HYPOTHESES[name].complexity))

        def nuts_job(name: str) -> tuple:
            scored, sampled = ([cases[i] for i in of] for of in (anew[name], shown[name]))
            return _sample_hypothesis, name, scored, sampled, sampler, hypotheses_from

        bar.total = len(first) + len(rest) + len(nuts)
        bar.set_description("other settings" + (f"; NUTS: {', '.join(nuts)}" if nuts else ""))
        for j, result in run(_call, [*map(nuts_job, nuts), *map(fast_job, rest)]):
            bar.update(1)
            if j >= len(nuts):
                keep(rest[j - len(nuts)], result)
                continue
            name, (scored, sampled) = nuts[j], result
            for i, one in zip(anew[name], scored):
                keep(i, {name: one})
            for i, posterior in zip(shown[name], sampled):
                agreement += _compare_engines(cases[i].curves, posteriors[i, name], posterior)
                if not posterior.faults:
                    posteriors[i, name] = posterior
    columns = ["task", "hypothesis", "parameter", "mean_fast", "mean_nuts", "sd_fast", "sd_nuts", "shift", "shift_se"]
    columns.append("sd_ratio")
    return Fits(
        [[scores[i][name] for name in hypotheses if name in scores[i]] for i in range(len(cases))],
        posteriors,
        pd.DataFrame(agreement, columns=columns),
    )


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Jobs of several kinds, for one pool."""
    return function(*arguments)


def _wants_nuts(case: Case, score: Score | None, engine: str) -> bool:
    """Whether NUTS is to score a law: a headline that the fast engine could not, but for laws it cannot walk either."""
    if engine == "nuts":
        return case.base
    faulty = score is not None and bool(score.faults) and HYPOTHESES[score.hypothesis].complexity < HEAVY
    return case.headline and faulty


def _first_word(case: Case, fitted: dict[str, tuple[Score, Posterior | None]]) -> str:
    """The fast engine's verdict, in a line."""
    from bayes_icl.compare import judge
    from bayes_icl.summary import verdict_line

    verdict = judge(case.curves, [score for score, _ in fitted.values()]).as_json()
    return f"{case.curves.task:16s} {verdict_line(verdict, verdict)}"


def _fit_case(
    case: Case, names: Sequence[str], seed: int, hypotheses_from: Path | None
) -> dict[str, tuple[Score, Posterior | None]]:
    """All hypotheses on one case by the fast engine; posteriors too where it is a headline."""
    from functools import partial

    from bayes_icl.importance import sample_fast
    from bayes_icl.scores import score_curves

    users = load_hypotheses(hypotheses_from) if hypotheses_from else []
    fitted = {}
    for name in names:
        engine = partial(sample_fast, seed=seed)
        try:
            score, posterior = score_curves(case.hypothesis(name), case.curves, engine, checks=case.base)
        except Exception as error:
            if name not in users:
                raise
            raise StatedError(f"hypothesis {name!r} of {hypotheses_from}: {type(error).__name__}: {error}") from error
        fitted[name] = score, posterior if case.headline else None
    return fitted


def _sample_hypothesis(
    name: str, anew: Sequence[Case], shown: Sequence[Case], settings: SamplerSettings, hypotheses_from: Path | None
) -> tuple[list[tuple[Score, Posterior | None]], list[Posterior]]:
    """Compile a hypothesis; score some cases by NUTS, and only sample others."""
    from bayes_icl.noise import summarise
    from bayes_icl.nuts import Sampler
    from bayes_icl.scores import score_curves

    if hypotheses_from:
        load_hypotheses(hypotheses_from)
    cases = [*anew, *shown]
    hypothesis = cases[0].hypothesis(name)
    longest = max(cases, key=lambda case: len(case.curves.shots)).curves
    sampler = Sampler(hypothesis, summarise(longest), settings)
    scored = []
    for case in anew:
        score, posterior = score_curves(hypothesis, case.curves, sampler)
        scored.append((score, posterior if case.headline else None))
    return scored, [sampler(hypothesis, summarise(case.curves)) for case in shown]


def _compare_engines(curves: Curves, fast: Posterior, nuts: Posterior) -> list[dict[str, Any]]:
    """One row a number that both engines gave."""
    import numpy as np

    from bayes_icl.noise import summarise

    stats = summarise(curves)
    rows = []
    weights = np.exp(fast.log_weights)
    by_nuts = nuts.numbers(stats)
    for name, x in fast.numbers(stats).items():
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


def judge_cases(cases: Sequence[Case], scores: Sequence[Sequence[Score]]) -> dict[str, dict]:
    """The verdict on every task: that of its headline, with those under every other setting in `others`."""
    from dataclasses import replace

    from bayes_icl.compare import judge, refuse, too_little

    verdicts: dict[str, dict] = {}
    for case, own in zip(cases, scores):
        reason = too_little(case.curves)
        verdict = refuse(case.curves, reason) if reason else judge(case.curves, own)
        as_json = replace(verdict, noise=case.noise, priors=case.priors).as_json()
        if case.curves.task in verdicts:
            verdicts[case.curves.task]["others"].append(as_json)
        else:
            verdicts[case.curves.task] = {**as_json, "others": []}
    return verdicts


def _fit(cases: Sequence[Case], names: list[str], settings: FitSettings, record: dict) -> dict[str, bytes]:
    """Fit and judge; the files of the folder, by name."""
    import pandas as pd

    from bayes_icl.checks import COLUMNS as CHECKS
    from bayes_icl.checks import frequentist_checks
    from bayes_icl.compare import comparison_table, sensitivity_table, too_little
    from bayes_icl.inference import inference_data
    from bayes_icl.nuts import SamplerSettings, quiet
    from bayes_icl.outputs import inference_to_netcdf, to_csv, to_json
    from bayes_icl.provenance import now, to_attribute

    fitted = [case for case in cases if not too_little(case.curves)]
    fits = fit_curves(
        fitted,
        names,
        engine=settings.engine,
        sampler=SamplerSettings(settings.draws, settings.tune, settings.chains, settings.seed),
        hypotheses_from=settings.hypotheses_from,
        workers=settings.workers,
        progress=True,
    )
    scores = iter(fits.scores)
    verdicts = judge_cases(cases, [[] if too_little(case.curves) else next(scores) for case in cases])
    for case in cases:
        if case.headline:
            reasons = {name: case.left_out(name) for name in names}
            verdicts[case.curves.task]["left_out"] = {name: why for name, why in reasons.items() if why}
    record = {**record, "finished": now()}
    files: dict[str, bytes] = {}
    for (i, name), posterior in fits.posteriors.items():
        curves = fitted[i].curves
        with quiet():
            inference = inference_data(posterior, curves, settings.seed)
        inference.attrs |= {
            "provenance": to_attribute(record),
            "readout": curves.readout,
            "n_min": int(curves.shots[0]),
            "noise": fitted[i].noise,
        }
        files[fit_file(curves.task, name)] = inference_to_netcdf(inference)
    base = [own for case, own in zip(fitted, fits.scores) if case.base]
    checks = [
        frequentist_checks(case.curves).assign(
            task=case.curves.task, readout=case.curves.readout, n_min=int(case.curves.shots[0])
        )
        for case in fitted
        if case.headline
    ]
    tables = {
        "comparison.csv": comparison_table([score for own in base for score in own]),
        "sensitivity.csv": sensitivity_table(verdicts),
        "engines.csv": fits.agreement,
        "checks.csv": pd.concat(checks or [pd.DataFrame(columns=[*CHECKS, "task", "readout", "n_min"])]),
    }
    files |= {name: to_csv(table) for name, table in tables.items()}
    if settings.pool:
        files["pooled.json"] = to_json(_pool(fitted, fits, verdicts))
    return files | {"verdict.json": to_json(verdicts), "provenance.json": to_json(record)}


def _pool(cases: Sequence[Case], fits: Fits, verdicts: dict[str, dict]) -> dict[str, Any]:
    """Delta over tasks, from the headline posteriors of those that were not refused and have something to learn."""
    from dataclasses import asdict

    import numpy as np

    from bayes_icl.hierarchy import pool_deltas
    from bayes_icl.noise import summarise

    means, sds = {}, {}
    for i, case in enumerate(cases):
        null = (observed := case.curves.observed) is not None and not observed.any()
        if (i, "additive") not in fits.posteriors or null or verdicts[case.curves.task]["verdict"] == "refused":
            continue
        posterior = fits.posteriors[i, "additive"]
        delta, weights = posterior.numbers(summarise(case.curves))["delta"], np.exp(posterior.log_weights)
        means[case.curves.task] = float(weights @ delta)
        sds[case.curves.task] = float(np.sqrt(weights @ (delta - means[case.curves.task]) ** 2))
    if len(means) < 2:
        return {"refused": f"--pool needs 2 tasks or more with a fit and something to learn, got {len(means)}"}
    pooled = asdict(pool_deltas(means, sds))
    return {"alone": {task: {"mean": means[task], "sd": sds[task]} for task in means}, **pooled}


def fit_file(task: str, hypothesis: str) -> str:
    """The name of a fit's file."""
    from bayes_icl.curves import file_name

    return f"{file_name(task)}__{hypothesis}.nc"


def figures_of(dataset: xr.Dataset, out: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the curves and the folder of the fits."""
    import arviz as az

    from bayes_icl import plots
    from bayes_icl.compare import read_table
    from bayes_icl.curves import file_name, select

    verdicts = json.loads((out / "verdict.json").read_text())
    shown = {
        task: select(dataset, task, verdict["readout"]).since(verdict["n_min"]) for task, verdict in verdicts.items()
    }
    inferences = {
        task: {
            name: az.from_netcdf(str(out / fit_file(task, name)))
            for name in plots.shown_hypotheses(verdicts[task])
            if (out / fit_file(task, name)).exists()
        }
        for task in shown
    }
    fitted = {task: own for task, own in inferences.items() if own}
    drawn = {f"curves_{task}": plots.curves_figure(shown[task], own) for task, own in fitted.items()}
    table = read_table(out / "comparison.csv")
    # Those of the headlines; there may be no law among them that gets a panel.
    if scored := [c for c in shown.values() if len(plots.rows_of(table, c))]:
        drawn["comparison"] = plots.comparison_figure(table, scored)
    if fitted:
        drawn["updates"] = plots.updates_figure({task: (shown[task], own) for task, own in fitted.items()}, verdicts)
        additive = {task: own["additive"] for task, own in fitted.items() if "additive" in own}
        if additive:
            drawn["delta"] = plots.delta_figure(additive, verdicts, _pooled(out))
    if any(len(verdict["others"]) for verdict in verdicts.values()):
        drawn["sensitivity"] = plots.sensitivity_figure(read_table(out / "sensitivity.csv"))
    return {file_name(name): figure for name, figure in drawn.items()}


def _pooled(out: Path) -> dict | None:
    path = out / "pooled.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    return content if "mu" in content else None


def _check_numbers(settings: FitSettings) -> None:
    check_least(settings, draws=100, tune=100, chains=2, seed=0, workers=0)
    if not settings.readout or not settings.n_min or not settings.hypotheses:
        raise StatedError("--readout, --n-min and --hypotheses each need at least one value")
    if min(settings.n_min) < 0:
        raise StatedError(f"--n-min must be 0 or more, got {min(settings.n_min)}")


if __name__ == "__main__":
    import tyro

    # Under its own name, so that what worker processes send back has one class, not two.
    from bayes_icl.fit import FitSettings, main

    settings = tyro.cli(FitSettings, prog="python -m bayes_icl.fit")
    exit_stating(lambda: main(settings))
