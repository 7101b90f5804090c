"""``python -m bayes_icl.fit``: settings, curves, fits, verdicts, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayes_icl.core.errors import DONE, MOST, REFUSED, StatedError, check_least
from bayes_icl.core.files import inference_to_netcdf, sha256, to_json, within
from bayes_icl.core.outputs import Output
from bayes_icl.core.provenance import key_of, now, to_attribute
from bayes_icl.core.run import Run
from bayes_icl.curves import newest_curves, read_curves, readouts_of
from bayes_icl.fit.adequacy import adequacy_tables, checks_table, power_scaled, power_scaling_rows
from bayes_icl.fit.cases import Case, plan_cases
from bayes_icl.fit.checks import frequentist_checks
from bayes_icl.fit.figures import fit_figures
from bayes_icl.fit.fitting import check_names, fit_curves, judge_cases
from bayes_icl.fit.orders import beside_second_verdict
from bayes_icl.fit.outputs import (
    POWER_SCALING,
    TABLES,
    WITHOUT_VERDICT,
    comparison_table,
    fit_file,
    read_verdicts,
    sensitivity_table,
)
from bayes_icl.fit.pooling import families_of, pool_deltas
from bayes_icl.fit.sentences import summarise_verdicts
from bayes_icl.fit.settings import FitSettings
from bayes_icl.fit.verdict import Rules
from bayes_icl.fit.weighing import Weighing
from bayes_icl.hypotheses.law import law_called, load_hypotheses
from bayes_icl.inference.survival import too_little
from bayes_icl.writing.style import figure_files


def main(settings: FitSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    _check_numbers(settings)
    path = settings.curves or newest_curves()
    dataset = read_curves(path)
    inputs = [path]
    names = list(settings.hypotheses)
    if settings.hypotheses_from:
        names += load_hypotheses(settings.hypotheses_from)
        inputs.append(settings.hypotheses_from)
    names = list(dict.fromkeys(names))
    check_names(names)
    cases = plan_cases(dataset, settings)
    out = settings.out or Path("data/fits") / path.stem
    decides = (
        "tasks",
        "readout",
        "n_min",
        "engine",
        "departure",
        "small",
        "noise",
        "sensitivity",
        "pool",
        "draws",
        "tune",
        "chains",
        "seed",
    )
    decisive = {
        "inputs": [sha256(file) for file in inputs],
        "hypotheses": names,
        **{k: getattr(settings, k) for k in decides},
    }
    key = key_of(decisive)
    drawn = Output(settings.figures or Path("figures") / path.stem, "fit", flag="--figures", inputs=inputs)
    if within(drawn.folder, out):
        raise StatedError(f"--figures {drawn.folder} lies within --out {out}, where fits stand alone: give another")
    output = Output(out, "fit", alone=".", inputs=inputs)
    run = Run(settings, output, inputs, drawn)

    def work(key: str) -> dict[str, bytes]:
        return _fit(dataset, cases, names, settings, {"key": key, **run.record()})

    def show() -> tuple[dict[str, bytes], str]:
        verdicts.update(read_verdicts(out))
        return figure_files(fit_figures(dataset, out)), summarise_verdicts(dataset, out, verdicts)

    verdicts: dict[str, Any] = {}
    run.carry_out(key, work, show)
    print(out)
    return REFUSED if any(_refused(verdict) for verdict in verdicts.values()) else DONE


def _fit(
    dataset: xr.Dataset, cases: Sequence[Case], names: list[str], settings: FitSettings, record: dict
) -> dict[str, bytes]:
    """Fit and judge; the files of the folder, by name."""
    from bayes_icl.inference.idata import history_data, inference_data
    from bayes_icl.inference.nuts import SamplerSettings, quiet

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
    verdicts = judge_cases(
        cases,
        [[] if too_little(case.curves) else next(scores) for case in cases],
        Rules(settings.departure, settings.small),
    )
    for task, verdict in verdicts.items():
        _beside(dataset, task, verdict)
    for case in cases:
        if case.headline or case.weighs:
            # Laws of the other kind are not missed.
            own = [name for name in names if law_called(name).of_history == case.weighs]
            reasons = {name: why for name in own if (why := case.left_out(name))}
            verdicts[case.curves.task]["left_out"] = verdicts[case.curves.task].get("left_out", {}) | reasons
    record = {**record, "finished": now()}
    files: dict[str, bytes] = {}
    scaled: list[dict[str, Any]] = []
    for (i, name), posterior in fits.posteriors.items():
        curves = fitted[i].curves
        with quiet():
            make = history_data if fitted[i].weighs else inference_data
            inference = make(posterior, curves, settings.seed)
            if not fitted[i].weighs and power_scaled(name, verdicts[curves.task]):
                scaled += power_scaling_rows(curves, posterior, inference)
        inference.attrs |= {
            "provenance": to_attribute(record),
            "readout": curves.readout,
            "n_min": curves.n_min,
            "noise": fitted[i].noise,
        }
        files[fit_file(curves.task, name)] = inference_to_netcdf(inference)
    base = [own for case, own in zip(fitted, fits.scores) if case.base and not case.weighs]
    weighed = [own for case, own in zip(fitted, fits.scores) if case.weighs]
    headlines = [case for case in fitted if case.headline]
    checks = checks_table(headlines, [frequentist_checks(case.curves) for case in headlines])
    tables = {
        "comparison": comparison_table([score for own in base for score in own]),
        "history": comparison_table([score for own in weighed for score in own]),
        "sensitivity": sensitivity_table(verdicts),
        "engines": fits.agreement,
        "checks": checks,
        "power_scaling": POWER_SCALING.frame(scaled),
        **adequacy_tables(fitted, fits, verdicts, settings.seed),
    }
    files |= {f"{name}.csv": TABLES[name].to_csv(table) for name, table in tables.items()}
    if settings.pool:
        files["pooled.json"] = to_json(_pool(fitted, checks, verdicts, dataset))
    return files | {"verdict.json": to_json(verdicts), "provenance.json": to_json(record)}


def _beside(dataset: xr.Dataset, task: str, verdict: dict[str, Any]) -> None:
    """Put what the designs of a file tell of order, of a prior, of the martingale beside the second verdict."""
    has = readouts_of(dataset, task)
    readout = (verdict["bayesian"] or {}).get("readout") or next((r for r in ("foil", "rule") if r in has), has[0])
    if found := beside_second_verdict(dataset, task, readout):
        if verdict["bayesian"] is None:
            agree = "all examples agree, so that no weighing shows (a design where they disagree tells)"
            verdict["bayesian"] = Weighing("not separable", [agree], readout, verdict["n_min"]).as_json()
        verdict["bayesian"] |= found


def _refused(verdict: Mapping[str, Any]) -> bool:
    return "refused" in (verdict["verdict"], (verdict.get("bayesian") or {}).get("verdict"))


def _pool(
    cases: Sequence[Case], checks: pd.DataFrame, verdicts: dict[str, dict], dataset: xr.Dataset
) -> dict[str, Any]:
    """Delta over tasks, from the slopes of headlines that were not refused and have something to learn.

    A slope by sequence is delta whatever the law, where that of a fit is delta under the law.
    """
    means, sds = {}, {}
    slopes = checks[checks.check == "slope by sequence"].set_index("task")
    for case in cases:
        task, observed = case.curves.task, case.curves.observed
        null = observed is not None and not observed.any()
        if case.headline and not null and verdicts[task]["verdict"] not in WITHOUT_VERDICT and slopes.se[task] > 0:
            means[task], sds[task] = float(slopes.estimate[task]), float(slopes.se[task])
    if len(means) < 2:
        return {"refused": f"--pool needs 2 tasks or more with a fit and something to learn, got {len(means)}"}
    families = families_of(dataset, list(means))
    pooled = asdict(pool_deltas(means, sds, families))
    return {
        "alone": {task: {"mean": means[task], "sd": sds[task], "family": families[task]} for task in means},
        **pooled,
    }


def _check_numbers(settings: FitSettings) -> None:
    check_least(settings, draws=100, tune=100, chains=2, seed=0, workers=0)
    if not settings.readout or not settings.n_min or not settings.hypotheses:
        raise StatedError("--readout, --n-min and --hypotheses each need at least one value")
    if not 0 < settings.departure < 1:
        raise StatedError(f"--departure must be a share between 0 and 1, got {settings.departure}")
    if not 0 < settings.small < MOST:
        more = "" if settings.small <= 0 else ", and a number that can be reckoned with"
        raise StatedError(f"--small must be above 0 nats{more}, got {settings.small}")
    if min(settings.n_min) < 0:
        raise StatedError(f"--n-min must be 0 or more, got {min(settings.n_min)}")
