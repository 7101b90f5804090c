"""Whether laws fit the curves, and priors matter: what a reviewer asks for beside a verdict.

Of every headline curve: PITs of sequences left out under `additive` and the law selected, the noise of each shot beside
what the fit expects, and how sensitive posteriors are to the power of their prior and of their likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from bayes_icl.curves import Curves
from bayes_icl.fit.cases import Case
from bayes_icl.fit.fitting import RESTS_ON, Fits
from bayes_icl.fit.outputs import CHECKS, NOISE, PIT, PIT_TESTS
from bayes_icl.inference.loo_pit import loo_pits, uniform_p
from bayes_icl.inference.noise import summarise
from bayes_icl.inference.posterior import Posterior
from bayes_icl.inference.residuals import expected_sd, residual_sd

if TYPE_CHECKING:
    import arviz as az

SENSITIVE = 0.05  # of arviz.psens: above it a posterior moves much (Kallioinen et al. 2024)

CONFLICT, STRONG = "potential prior-data conflict", "potential strong prior or weak likelihood"

# Numbers of a posterior that are not asked about: sizes of the noise, and delta's other unit.
ASIDE = ("gain", "gain_sd", "early_sd", "level", "walk", "dof", "shot_sd")


def adequacy_tables(
    cases: Sequence[Case], fits: Fits, verdicts: Mapping[str, Mapping[str, Any]], seed: int = 0
) -> dict[str, pd.DataFrame]:
    """The tables `pit`, `pit_tests` and `noise` of the headlines.

    Parameters
    ----------
    cases, fits
        What was fitted.
    verdicts
        By task.
    seed
        Of new sequences.
    """
    pits: list[pd.DataFrame] = []
    tests: list[dict[str, Any]] = []
    noise: list[dict[str, Any]] = []
    for i, case in enumerate(cases):
        if not case.headline:
            continue
        for name in dict.fromkeys(("additive", verdicts[case.curves.task]["selected"])):
            if (i, name) in fits.posteriors:
                found = pit_table(case.curves, fits.posteriors[i, name], seed)
                pits.append(found)
                for statistic, own in found.groupby("statistic", sort=False):
                    tests.append(
                        {
                            **of_curve(case.curves),
                            "hypothesis": name,
                            "statistic": statistic,
                            "n_seqs": len(own),
                            "p": uniform_p(own.pit.to_numpy()),
                        }
                    )
        if (i, RESTS_ON) in fits.posteriors:
            noise += noise_rows(case.curves, fits.posteriors[i, RESTS_ON])
    return {
        "pit": pd.concat(pits) if pits else PIT.frame([]),
        "pit_tests": with_holm(PIT_TESTS.frame(tests), []),
        "noise": NOISE.frame(noise),
    }


def of_curve(curves: Curves) -> dict[str, Any]:
    """The columns of a table that say which curve."""
    return {"task": curves.task, "readout": curves.readout, "n_min": int(curves.shots[0])}


def pit_table(curves: Curves, posterior: Posterior, seed: int = 0) -> pd.DataFrame:
    """PITs of every sequence left out, by statistic: the columns of `PIT`."""
    by_statistic, pareto_k = loo_pits(posterior, summarise(curves), seed)
    tables = [
        pd.DataFrame({"statistic": statistic, "seq": np.arange(len(pits)), "pit": pits, "pareto_k": pareto_k})
        for statistic, pits in by_statistic.items()
    ]
    return pd.concat(tables).assign(hypothesis=posterior.hypothesis.name, **of_curve(curves))[PIT.names]


def noise_rows(curves: Curves, posterior: Posterior) -> list[dict[str, Any]]:
    """The noise of each shot, seen and expected: the columns of `NOISE`."""
    columns = zip(curves.shots, *residual_sd(curves), *expected_sd(posterior, summarise(curves)))
    names = ("shot", "sd", "sd_low", "sd_high", "expected", "expected_low", "expected_high")
    return [{**of_curve(curves), **dict(zip(names, row))} | {"shot": int(row[0])} for row in columns]


def power_scaling_rows(curves: Curves, posterior: Posterior, inference: az.InferenceData) -> list[dict[str, Any]]:
    """How a posterior moves with the power of its prior and of its likelihood: the columns of `POWER_SCALING`.

    Of delta, of what a verdict is made from, and of the law's own parameters. Of the prior all is scaled but the
    vectors of a free mean, whose sd has a prior of its own.

    Parameters
    ----------
    curves
        One task under one readout.
    posterior, inference
        A fit of a law to it, and the same in ArviZ's form.
    """
    import arviz as az

    law = posterior.hypothesis
    names = [name for name, x in inference["posterior"].data_vars.items() if x.ndim == 2 and name not in ASIDE]
    if not names:
        return []
    priors = [name for name, prior in law.all_priors.items() if not prior.length]
    with np.errstate(all="ignore"):
        by_prior = az.psens(inference, component="prior", component_var_names=priors, var_names=names)
        by_data = az.psens(inference, component="likelihood", var_names=names)
    rows = []
    for name in names:
        # Of one variable ArviZ makes an array, of several a Dataset.
        prior, data = (float(found if len(names) == 1 else found[name]) for found in (by_prior, by_data))
        diagnosis = "" if not prior >= SENSITIVE else CONFLICT if data >= SENSITIVE else STRONG
        rows.append(
            {
                **of_curve(curves),
                "hypothesis": law.name,
                "parameter": name,
                "prior_sensitivity": prior,
                "likelihood_sensitivity": data,
                "diagnosis": diagnosis,
            }
        )
    return rows


def power_scaled(name: str, verdict: Mapping[str, Any]) -> bool:
    """Whether the sensitivity of a law's fit is asked about."""
    return name in ("additive", RESTS_ON, verdict["selected"])


def with_holm(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The table with `p_holm`: its column p corrected by Holm's method, apart for each value of the columns `by`."""
    table = table.reset_index(drop=True)
    corrected = pd.Series(np.nan, index=table.index)
    known = table[table.p.notna()]
    for _, own in known.groupby(list(by), sort=False) if by and len(known) else [("", known)]:
        corrected[own.index] = holm(own.p.to_numpy(float))
    return table.assign(p_holm=corrected)


def holm(p: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """P-values corrected by Holm's method; as statsmodels does it, whose import alone takes half a second.

    Parameters
    ----------
    p
        The values, none missing.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.fit.adequacy import holm
    >>> holm(np.array([0.04, 0.01, 0.03])).round(2).tolist()
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


def checks_table(cases: Sequence[Case], checks: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The checks of headline curves in one table, each corrected over the tasks."""
    named = [table.assign(**of_curve(case.curves)) for case, table in zip(cases, checks)]
    return with_holm(pd.concat(named), ["check"]) if named else CHECKS.frame([])
