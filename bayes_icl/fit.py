"""Fit every hypothesis to every curve with PyMC, and judge which survive.

``python -m bayes_icl.fit --curves data/curves/demo.nc``
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bayes_icl.errors import DONE, REFUSED, StatedError, exit_stating, unknown
from bayes_icl.hypotheses import HYPOTHESES, Hypothesis

if TYPE_CHECKING:
    import arviz as az
    import pandas as pd
    import xarray as xr
    from rich.table import Table

    from bayes_icl.curves import Curves
    from bayes_icl.sampling import SamplerSettings, Score


@dataclass(frozen=True)
class FitSettings:
    """Fit the hypotheses to a curves file with PyMC, compare them, and give a verdict on the additive one."""

    curves: Path | None = None
    """A curves file (.nc), or a .csv with the columns task, seq, shot, log_odds; the newest in data/curves if none is
    named."""
    tasks: tuple[str, ...] = ()
    """Tasks of the file to fit; all, if none is named."""
    readout: tuple[str, ...] = ("complement", "rule")
    """Readouts to fit where a task has them; the first is the headline."""
    n_min: tuple[int, ...] = (1, 0, 2)
    """Examples from which on the curve is fitted; the first is the headline (0 to 1 is mostly learning the format)."""
    hypotheses: tuple[str, ...] = tuple(HYPOTHESES)
    """Hypotheses to compare; the verdict needs constant, additive and power."""
    draws: int = 1000
    """Posterior draws a chain."""
    tune: int = 500
    """Warm-up draws a chain."""
    chains: int = 4
    """Chains; convergence is judged between them."""
    seed: int = 0
    """Seed of the sampler."""
    workers: int = 0
    """Processes, each of which compiles a hypothesis at a time; 0 takes one a core, 4 at most."""
    out: Path | None = None
    """Folder for the fits, comparison.csv and verdict.json; data/fits/NAME of the curves if none is named."""
    figures: Path | None = None
    """Folder for the figures (PNG and PDF); figures/NAME of the curves if none is named."""
    force: bool = False
    """Replace fits that were made from other curves or settings."""


def main(settings: FitSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    from datetime import UTC, datetime

    from bayes_icl.curves import read_curves, replacing
    from bayes_icl.provenance import provenance, to_attribute

    started = datetime.now(UTC)
    _check_numbers(settings)
    path = settings.curves or _newest(Path("data/curves"))
    dataset = read_curves(path)
    plan = plan_fits(dataset, settings)
    out = settings.out or Path("data/fits") / path.stem
    figures = settings.figures or Path("figures") / path.stem
    decides = ("tasks", "readout", "n_min", "hypotheses", "draws", "tune", "chains", "seed")
    decisive = {"curves": hashlib.sha256(path.read_bytes()).hexdigest(), **{k: getattr(settings, k) for k in decides}}
    key = hashlib.sha256(to_attribute(decisive).encode()).hexdigest()
    for folder in (out, figures):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # now, not after minutes of sampling
            raise StatedError(f"cannot write into {folder}: give another --out or --figures")
    found = _key_of(out)
    if found == key and not settings.force:
        print(f"{out} was made from these curves with these settings; drawing and printing it again", file=sys.stderr)
    elif found and not settings.force:
        raise StatedError(f"{out} holds fits of other curves or settings: give another --out, or --force")
    else:
        _fit_and_write(plan, settings, out, {"key": key, **provenance(settings, started=started, inputs=[path])})
    verdicts = json.loads((out / "verdict.json").read_text())
    _draw(dataset, out, figures, verdicts)
    summary = summarise_verdicts(dataset, out, verdicts)
    with replacing(figures / "summary.txt") as temporary:
        temporary.write_text(summary, encoding="utf-8")
    print(summary, file=sys.stderr)
    print(figures)
    print(out)
    return REFUSED if any(verdict["verdict"] == "refused" for verdict in verdicts.values()) else DONE


def plan_fits(dataset: xr.Dataset, settings: FitSettings) -> list[Curves]:
    """The curves to fit: for each task the headline readout from every n_min, other readouts from the headline n_min.

    The first entry of each task is its headline.

    Raises
    ------
    StatedError
        An unknown task, readout or hypothesis, or an n_min beyond the shots.
    """
    from bayes_icl.curves import readouts_of, select

    for name in settings.hypotheses:
        if name not in HYPOTHESES:
            raise unknown("hypothesis", name, HYPOTHESES)
    known = [str(name) for name in dataset.readout.values]
    if not set(settings.readout) & set(known):
        raise unknown("readout", settings.readout[0], known)
    first, last = int(dataset.shot[0]), int(dataset.shot[-1])
    n_mins = [n for n in settings.n_min if n >= first]
    if not n_mins or max(n_mins) > last - 1:
        raise StatedError(
            f"--n-min {' '.join(map(str, settings.n_min))}: the curves run from n = {first} to {last}, and one update "
            "at least must be left"
        )
    plan = []
    n_mins = list(dict.fromkeys(n_mins))
    for task in dict.fromkeys(settings.tasks) or [str(name) for name in dataset.task.values]:
        has = readouts_of(dataset, task) if task in dataset.task.values else []
        readouts = [r for r in dict.fromkeys(settings.readout) if r in has] or [
            select(dataset, task, settings.readout[0]).readout
        ]
        for i, readout in enumerate(readouts):
            plan += [select(dataset, task, readout).since(n) for n in (n_mins if i == 0 else n_mins[:1])]
    return plan


def _fit_one_hypothesis(
    hypothesis: Hypothesis, all_curves: Sequence[Curves], keep: frozenset[int], settings: SamplerSettings
) -> list[tuple[Score, az.InferenceData | None]]:
    """Compile a hypothesis, then fit it to everything; InferenceData for those in `keep`."""
    import logging
    import warnings

    from threadpoolctl import threadpool_limits

    # ArviZ 0.23 under current matplotlib and pandas, and PyTensor without a BLAS of its own, warn of nothing we use;
    # high Pareto k are dealt with by exact refits.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*(Pareto|BLAS).*")
    logging.getLogger("pytensor").setLevel(logging.ERROR)
    from bayes_icl.noise import summarise
    from bayes_icl.sampling import Sampler, score_curves

    longest = max(all_curves, key=lambda c: len(c.shots))
    sampler = Sampler(hypothesis, summarise(longest.log_odds, longest.shots), settings)
    with threadpool_limits(1, user_api="blas"):  # as many processes as cores already
        fits = [score_curves(sampler, curves) for curves in all_curves]
    return [(score, inference if i in keep else None) for i, (score, inference) in enumerate(fits)]


def fit_curves(
    all_curves: Sequence[Curves],
    hypotheses: Sequence[str] = tuple(HYPOTHESES),
    *,
    sampler: SamplerSettings | None = None,
    keep: Iterable[int] = (),
    workers: int = 0,
    progress: bool = False,
) -> tuple[list[Score], dict[tuple[int, str], az.InferenceData]]:
    """Fit every hypothesis to every curve.

    Parameters
    ----------
    sampler
        How long to sample.
    keep
        Indices of the curves whose InferenceData are returned too.
    workers
        Processes, each of which compiles one hypothesis at a time; 0 takes one a core, 4 at most. With 1 everything
        happens in this process, which a hypothesis defined in a notebook needs.

    Returns
    -------
    scores
        Curve after curve, hypotheses in the order given.
    inferences
        By index of the curve and name of the hypothesis.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    from tqdm import tqdm

    from bayes_icl.sampling import SamplerSettings

    if not all_curves:
        return [], {}
    workers = workers or min(4, os.cpu_count() or 1)
    given = (all_curves, frozenset(keep), sampler or SamplerSettings())
    # The costliest first, so that no worker is left alone with it at the end.
    order = sorted(hypotheses, key=lambda name: -HYPOTHESES[name].complexity)
    fits: dict[str, list[tuple[Score, az.InferenceData | None]]] = {}
    with tqdm(total=len(order) * len(all_curves), unit="fit", disable=not progress, dynamic_ncols=True) as bar:
        bar.set_description("compiling")

        def done(name: str, own: list[tuple[Score, az.InferenceData | None]]) -> None:
            fits[name] = own
            bar.set_description(name)
            bar.update(len(all_curves))

        if workers == 1:
            for name in order:
                done(name, _fit_one_hypothesis(HYPOTHESES[name], *given))
        else:
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                futures = {pool.submit(_fit_one_hypothesis, HYPOTHESES[name], *given): name for name in order}
                for future in as_completed(futures):
                    done(futures[future], future.result())
    scores = [fits[name][i][0] for i in range(len(all_curves)) for name in hypotheses]
    inferences = {
        (i, name): inference
        for name in hypotheses
        for i, (_, inference) in enumerate(fits[name])
        if inference is not None
    }
    return scores, inferences


def judge_curves(plan: Sequence[Curves], scores: Sequence[Score]) -> dict[str, dict]:
    """The verdict on every task: that of its headline, with those of its other readouts and n_min under `others`."""
    from bayes_icl.compare import judge, refuse, too_little

    verdicts: dict[str, dict] = {}
    for curves in plan:
        reason = too_little(curves)
        own = [s for s in scores if (s.task, s.readout, s.n_min) == (curves.task, curves.readout, int(curves.shots[0]))]
        verdict = (refuse(curves, reason) if reason else judge(curves, own)).as_json()
        if curves.task in verdicts:
            verdicts[curves.task]["others"].append(verdict)
        else:
            verdicts[curves.task] = {**verdict, "others": []}
    return verdicts


def _fit_and_write(plan: Sequence[Curves], settings: FitSettings, out: Path, record: dict) -> None:
    """Fit, judge and write the folder; provenance.json comes last and says that it is whole."""
    from bayes_icl.compare import comparison_table, too_little
    from bayes_icl.curves import replacing
    from bayes_icl.provenance import now, to_attribute
    from bayes_icl.sampling import SamplerSettings

    fitted = [curves for curves in plan if not too_little(curves)]
    headlines = {curves.task: curves for curves in reversed(plan)}.values()
    scores, inferences = fit_curves(
        fitted,
        list(dict.fromkeys(settings.hypotheses)),
        sampler=SamplerSettings(settings.draws, settings.tune, settings.chains, settings.seed),
        keep=[i for i, curves in enumerate(fitted) if any(curves is headline for headline in headlines)],
        workers=settings.workers,
        progress=True,
    )
    record = {**record, "finished": now()}
    # Nothing of another run may stand beside the new fits.
    stale = [path for name in HYPOTHESES for path in out.glob(f"*__{name}.nc")]
    for path in (out / "provenance.json", *stale):
        path.unlink(missing_ok=True)
    for (i, name), inference in inferences.items():
        inference.attrs |= {
            "provenance": to_attribute(record),
            "readout": fitted[i].readout,
            "n_min": int(fitted[i].shots[0]),
        }
        with replacing(out / fit_file(fitted[i].task, name)) as temporary:
            inference.to_netcdf(str(temporary), engine="h5netcdf")
    with replacing(out / "comparison.csv") as temporary:
        comparison_table(scores).to_csv(temporary, index=False)
    verdicts = judge_curves(plan, scores)
    for name, content in (("verdict.json", verdicts), ("provenance.json", record)):
        with replacing(out / name) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def fit_file(task: str, hypothesis: str) -> str:
    """The name of a fit's file."""
    return f"{_file_name(task)}__{hypothesis}.nc"


def _file_name(name: str) -> str:
    """A task's name; what a file system might not take becomes a hyphen, and a hash keeps such names apart."""
    plain = re.sub("[^A-Za-z0-9_.=,+-]", "-", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _draw(dataset: xr.Dataset, out: Path, figures: Path, verdicts: dict[str, dict]) -> None:
    """Write the figures, all of them from the files of the fit."""
    import arviz as az
    import pandas as pd

    from bayes_icl import plots
    from bayes_icl.curves import replacing, select

    shown = {
        task: select(dataset, task, verdict["readout"]).since(verdict["n_min"]) for task, verdict in verdicts.items()
    }
    inferences = {
        task: {
            name: az.from_netcdf(str(out / fit_file(task, name)))
            for name in HYPOTHESES
            if (out / fit_file(task, name)).exists()
        }
        for task in shown
    }
    fitted = {task: own for task, own in inferences.items() if own}
    drawn = {f"curves_{task}": plots.curves_figure(shown[task], own) for task, own in fitted.items()}
    if fitted:
        table = pd.read_csv(out / "comparison.csv")
        drawn["updates"] = plots.updates_figure({task: (shown[task], own) for task, own in fitted.items()}, verdicts)
        drawn["comparison"] = plots.comparison_figure(table, [shown[task] for task in fitted])
        additive = {task: own["additive"] for task, own in fitted.items() if "additive" in own}
        if additive:
            drawn["delta"] = plots.delta_figure(additive, verdicts)
    for name, figure in drawn.items():
        for suffix in (".png", ".pdf"):
            with replacing(figures / (_file_name(name) + suffix)) as temporary:
                # Without a date, so that the same numbers give the same file.
                figure.savefig(temporary, dpi=200, metadata={"CreationDate": None} if suffix == ".pdf" else None)


def summarise_verdicts(dataset: xr.Dataset, out: Path, verdicts: dict[str, dict]) -> str:
    """Text for people: the verdict on each task first, then delta, then the hypotheses."""
    import io

    import pandas as pd
    from rich.console import Console
    from rich.markup import escape

    console = Console(file=io.StringIO(), highlight=False, width=110)
    scores = pd.read_csv(out / "comparison.csv") if any(v["delta"] for v in verdicts.values()) else pd.DataFrame()
    for task, headline in verdicts.items():
        console.rule(f"[bold]{escape(task)}", align="left")
        for verdict in (headline, *headline["others"]):
            where = f"{verdict['readout']}, n >= {verdict['n_min']}"
            word = verdict["verdict"].upper() if verdict is headline else verdict["verdict"]
            rest = ""
            if (delta := verdict["delta"]) is not None:
                rest = f"delta {delta['mean']:.3f} [{delta['hdi_low']:.3f}, {delta['hdi_high']:.3f}] nats/example"
            if verdict["named"]:
                rest += f"   named: {verdict['named']}"
            console.print(f"{where:18s} additive update: [bold]{word:10s}[/] {escape(rest)}")
            if verdict is headline:
                for reason in verdict["reasons"]:
                    console.print(f"    {escape(reason)}")
        for sentence in _readings(dataset, task, headline):
            console.print(f"  {escape(sentence)}", style="italic")
        if len(scores):
            at = (scores.task == task) & (scores.readout == headline["readout"]) & (scores.n_min == headline["n_min"])
            if at.any():
                console.print(_score_table(scores[at]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _score_table(own: pd.DataFrame) -> Table:
    """The hypotheses of one curve, best first: differences of both scores from the best, with their SE, nats."""
    from rich.table import Table

    table = Table(box=None)
    headings = ("hypothesis", "left-out seq", "SE", "left-out future", "SE", "survives", "R-hat", "ESS", "k")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("hypothesis", "survives") else "right")

    def number(x: float, digits: int = 1) -> str:
        return "-" if x != x else f"{x:.{digits}f}"

    for row in own.sort_values("elpd_diff", ascending=False).itertuples():
        survives = {(True, True): "both", (True, False): "seq", (False, True): "future", (False, False): ""}
        table.add_row(
            row.hypothesis + (" (ceiling)" if HYPOTHESES[row.hypothesis].ceiling else ""),
            *(number(x) for x in (row.elpd_diff, row.diff_se, row.lfo_diff, row.lfo_diff_se)),
            survives[bool(row.survivor), bool(row.survivor_lfo)],
            *(number(row.rhat_max, 3), number(row.ess_bulk_min, 0), number(row.pareto_k_max, 2)),
        )
    return table


def _readings(dataset: xr.Dataset, task: str, headline: dict) -> list[str]:
    """What two readouts say together: format learned without the rule, and whether a null control came out as one."""
    rule = next((v for v in headline["others"] if v["readout"] == "rule"), None)
    if rule is None or headline["readout"] != "complement":
        return []
    sentences = []
    rises = headline["verdict"] != "no_update" and headline["delta"] and headline["delta"]["hdi_low"] > 0
    if rises and rule["verdict"] == "no_update":
        sentences.append("complement rises but rule does not: what is learned is the form of an answer, not the rule")
    if "evidence" in dataset and bool((dataset.evidence.sel(task=task) == 0).all()):
        outcome = "passes" if rule["verdict"] == "no_update" else "FAILS"
        sentences.append(f"null control (nothing to learn): rule must be no_update and is {rule['verdict']}: {outcome}")
    return sentences


def _check_numbers(settings: FitSettings) -> None:
    least = {"draws": 100, "tune": 100, "chains": 2, "seed": 0, "workers": 0}
    for name, bound in least.items():
        if getattr(settings, name) < bound:
            raise StatedError(f"--{name} must be {bound} or more, got {getattr(settings, name)}")
    if not settings.readout or not settings.n_min or not settings.hypotheses:
        raise StatedError("--readout, --n-min and --hypotheses each need at least one value")


def _newest(folder: Path) -> Path:
    files = sorted(folder.glob("*.nc"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise StatedError(f"no curves file in {folder}: run `python -m bayes_icl.collect` first, or give --curves")
    return files[-1]


def _key_of(out: Path) -> str | None:
    """The key of the fits in a folder, None where there are none or they are not whole."""
    try:
        return json.loads((out / "provenance.json").read_text())["key"]
    except (OSError, ValueError, KeyError):
        return None


if __name__ == "__main__":
    import tyro

    # Under its own name, so that what worker processes send back has one class, not two.
    from bayes_icl.fit import FitSettings, main

    settings = tyro.cli(FitSettings, prog="python -m bayes_icl.fit")
    exit_stating(lambda: main(settings))
