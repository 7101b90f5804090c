"""What a calibration must keep, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chisquare

from bayes_icl.calibrate.settings import CalibrateSettings
from bayes_icl.calibrate.truths import outcomes_of
from bayes_icl.core.intervals import LEVEL, LEVEL_WORDS


@dataclass(frozen=True)
class Bounds:
    """What a calibration must keep; false-alarm rates at the default sizes in brackets.

    Attributes
    ----------
    sbc_p
        Smallest p-value of a chi-square test of ranks, times the number of tests (alarm in 1 % of sound runs).
    coverage_low, coverage_high
        Of intervals of additive's delta and the power law's a (alarm in 0.5 % of sound runs each).
    right_kind
        Least share of simulations in which the kind of law selected is the true one.
    additive_rejected
        Largest share of additive truths whose verdict is rejected.
    control_p
        The p-value, Bonferroni applied, that the controls of the ranks must fall below.
    """

    sbc_p: float = 0.01
    coverage_low: float = round(LEVEL - 0.03, 6)
    coverage_high: float = round(LEVEL + 0.03, 6)
    right_kind: float = 0.98
    additive_rejected: float = 0.01
    control_p: float = 1e-6


def rank_tests(sbc: pd.DataFrame) -> pd.DataFrame:
    """Chi-square test over ten bins that ranks are uniform, of every hypothesis, setting and parameter."""
    rows = []
    for (name, setting), own in sbc.groupby(["hypothesis", "setting"], sort=False):
        for parameter in own.columns.drop(["hypothesis", "setting", "faulty"]):
            u = own[parameter].dropna()
            if len(u):
                counts = np.histogram(u, bins=10, range=(0, 1))[0]
                within = float(((u > 0.05) & (u < 0.95)).mean())
                row = {"hypothesis": name, "setting": setting, "parameter": parameter, "sims": len(u)}
                rows.append({**row, "p": float(chisquare(counts).pvalue), "coverage_90": within})
    return pd.DataFrame(rows)


def outcomes(tables: dict[str, pd.DataFrame], settings: CalibrateSettings, bounds: Bounds) -> list[dict[str, Any]]:
    """Each thing that was checked: what it is, its value, the bound, and whether it holds."""
    from statsmodels.stats.proportion import proportion_confint

    tests = rank_tests(tables["sbc"])
    sound = tests[tests.setting.isin(["sound", "student"])]
    worst = sound.loc[sound.p.idxmin()]
    checked: list[dict[str, Any]] = []

    def check(what: str, value: float, bound: str, holds: bool) -> None:
        checked.append({"what": what, "value": float(value), "bound": bound, "holds": bool(holds)})

    p = min(1.0, worst.p * len(sound))
    check(
        f"ranks uniform, {len(sound)} tests (worst: {worst.hypothesis} {worst.parameter}), Bonferroni p",
        *(p, f"above {bounds.sbc_p}", p > bounds.sbc_p),
    )
    for control in ("shifted prior", "wrong noise"):
        own = tests[tests.setting == control]
        p = min(1.0, own.p.min() * len(own))
        check(f"control, {control}: ranks must not be uniform, p", p, f"below {bounds.control_p}", p < bounds.control_p)
    recovery = tables["recovery"]
    for name, parameter in (("additive", "delta"), ("power", "a")):
        own = recovery[(recovery.hypothesis == name) & (recovery.parameter == parameter)]
        if len(own):
            share = own.held.mean()
            holds = bounds.coverage_low <= share <= bounds.coverage_high
            bound = f"{bounds.coverage_low} to {bounds.coverage_high}"
            check(
                f"{LEVEL_WORDS} intervals of {name} {parameter} hold the truth ({len(own)} simulations)",
                share,
                bound,
                holds,
            )
    confusion = tables["confusion"]
    full = confusion[(confusion.n_seqs == settings.n_seqs) & ~confusion.averaged]
    # Every truth and noise counts alike, however many simulations it has.
    share = full.assign(right=full.kind == full.selected_kind).groupby(["truth", "noise"]).right.mean().mean()
    check(
        f"kind of law selected is the true one ({len(full)} simulations)",
        *(share, f"at least {bounds.right_kind}", share >= bounds.right_kind),
    )
    additive = full[full.truth == "additive"]
    share = (additive.verdict == "rejected").mean()
    upper = proportion_confint((additive.verdict == "rejected").sum(), len(additive), 0.1, "beta")[1]
    check(
        f"additive truths rejected ({len(additive)} simulations; 95 % upper bound {upper:.3f})",
        *(share, f"at most {bounds.additive_rejected}", share <= bounds.additive_rejected),
    )
    for truth, asked, hits, n in outcomes_of(tables["verdicts"]):
        low, high = proportion_confint(hits, n, 1 - LEVEL, "wilson")
        words = "delta within its interval" if asked.verdicts == ("delta",) else " or ".join(asked.verdicts)
        limits = [f"at least {asked.least:g}"] * (asked.least > 0) + [f"at most {asked.most:g}"] * (asked.most < 1)
        check(
            f"{truth.words}, {asked.n_seqs} sequences: {words} ({n} simulations; {LEVEL_WORDS} interval "
            f"{low:.2f} to {high:.2f})",
            *(hits / n, ", ".join(limits), asked.least <= hits / n <= asked.most),
        )
    averaged = confusion[confusion.averaged]
    share = (averaged.verdict == "supported").mean()
    check("control, averaged probabilities: additive truths supported", share, "below 0.5", share < 0.5)
    ratio = tables["averaging"].set_index("n").ratio
    check("control, averaged probabilities: log-odds left at n = 20", ratio[20], "below 0.6", ratio[20] < 0.6)
    return checked
