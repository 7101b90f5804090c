"""Can the fits and verdicts be trusted on curves like yours? Simulated truths, and controls that must fail.

``python -m bayes_icl.calibrate --n-seqs 64 --n-shots 32``

Simulation-based calibration
    Parameters are drawn from the priors, curves from them, and the rank of the truth in its posterior must be uniform
    (Talts et al. 2018). Controls: a prior shifted by two sds, noise without its walk.
Recovery
    At a fixed truth of every hypothesis, how often the 95 % intervals hold the parameters.
Confusion
    Curves of known kind under three kinds of noise, from n = 0 on: which kind of law is named, and the verdict.
    Control: fits to probabilities averaged over sequences.

Curves are simulated the plain way, every random effect on its own; the likelihood that is checked integrates them out.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayes_icl.errors import DONE, FAILED, MOST, StatedError, check_least, exit_stating, unknown
from bayes_icl.hypotheses import HYPOTHESES, Hypothesis, Prior

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from bayes_icl.curves import Curves

# Level and walk sd, nats: a new query at each shot, evidence of its own in each example, both.
NOISES = {"level": (1.0, 0.0), "walk": (0.3, 0.5), "both": (1.0, 0.4)}
# Of the control: a parameter that data often leave to its prior, or a shifted prior would go unseen.
SHIFTED = ("lapse", "floor_until")
# Kind of law that a name stands for; all laws with a bend are one kind, as data of this size rarely tell them apart.
KINDS = {"constant": "constant", "additive": "additive", "observer": "additive", "changepoint": "change-point"}
TRUTHS: dict[str, dict[str, float]] = {
    "constant": {},
    "additive": {},
    "logarithmic": {"c": 1.0},
    "power": {"a": 0.3},
    "changepoint": {"tau": 0.4, "spread": 0.1},
}
OWN_TRUTH = {
    "c": 5.0, "a": 0.3, "tau": 10.0, "spread": 0.1, "slope": 0.5, "floor_until": 4.0, "ceiling_from": 20.0,
    "C": 6.0, "alpha": 0.7, "K": 0.2, "n_c": 5.0, "H": 6.0, "n_0": 8.0, "kappa": 1.5,
    "width": 15.0, "top": 2.0, "gap_3": 2.0, "odds_3": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """What a calibration must keep; false-alarm rates at the default sizes in brackets.

    Attributes
    ----------
    sbc_p
        Smallest p-value of a chi-square test of ranks, times the number of tests (alarm in 1 % of sound runs).
    coverage_low, coverage_high
        Of 95 % intervals of additive's delta and the power law's a (alarm in 0.5 % of sound runs each).
    right_kind
        Least share of simulations in which the kind of law named is the true one.
    additive_rejected
        Largest share of additive truths whose verdict is rejected.
    control_p
        The p-value, Bonferroni applied, that the controls of the ranks must fall below.
    """

    sbc_p: float = 0.01
    coverage_low: float = 0.92
    coverage_high: float = 0.98
    right_kind: float = 0.98
    additive_rejected: float = 0.01
    control_p: float = 1e-6


LEAST = {"n_seqs": 32, "n_shots": 10, "sims": 50, "confusion_sims": 2, "coverage_sims": 30}  # settings


@dataclass(frozen=True)
class CalibrateSettings:
    """Check fits and verdicts on simulated curves of the size of yours; fails if they fall outside the bounds."""

    n_seqs: int = 64
    """Sequences of a simulated set; confusion is also run with a quarter of them."""
    n_shots: int = 32
    """Examples shown at most."""
    gain: float = 9.6
    """Total update of truths that rise, nats."""
    hypotheses: tuple[str, ...] = tuple(name for name, h in HYPOTHESES.items() if not h.ceiling)
    """Hypotheses to calibrate; confusion always compares all."""
    sims: int = 200
    """Simulations of each hypothesis: ranks, and recovery."""
    coverage_sims: int = 500
    """Simulations for the coverage of additive's delta and the power law's a."""
    confusion_sims: int = 10
    """Simulations of each truth and noise at the full number of sequences; additive gets four times as many."""
    seed: int = 0
    """Seed of everything."""
    workers: int = 0
    """Processes; 0 takes one a core, 4 at most."""
    figures: Path = Path("figures/calibration")
    """Folder for tables and figures."""
    force: bool = False
    """Replace files that were changed since an earlier calibration."""


def simulate(
    hypothesis: Hypothesis,
    params: dict[str, float],
    n_seqs: int,
    n_shots: int,
    rng: np.random.Generator,
    evidence: np.ndarray | None = None,
) -> Curves:
    """Curves of a hypothesis with known parameters, every random effect drawn on its own.

    Parameters
    ----------
    params
        All that the hypothesis samples, nats.
    evidence
        For `observer`: the ideal observer's updates, shape (seq, shot), nats.

    Returns
    -------
    Curves
        From n = 0 to `n_shots`, at an intercept of 0 give or take 2 nats.
    """
    from bayes_icl.curves import Curves
    from bayes_icl.noise import summarise

    shots = np.arange(n_shots + 1.0)
    blank = Curves(hypothesis.name, "complement", shots, np.zeros((n_seqs, n_shots + 1)), evidence)
    stats = summarise(blank, scale=1.0)
    one = {name: np.array([[value]]) for name, value in params.items()}
    if hypothesis.latent_step:
        chances = np.exp(hypothesis.step_log_weights(np, stats, one)[0])
        f = np.eye(n_shots + 1)[rng.choice(n_shots + 1, n_seqs, p=chances / chances.sum())][:, :-1]
        gain: Any = params["gain"]
    else:
        _, f, gain = hypothesis.updates(np, stats, one)
        gain = float(np.squeeze(gain))
    f = np.broadcast_to(f, (n_seqs, n_shots))
    size = np.ones((n_seqs, 1))
    if hypothesis.student:
        size = np.sqrt(params["dof"] / rng.chisquare(params["dof"], (n_seqs, 1)))
    drift = size * params["gain_sd"] * rng.normal(size=(n_seqs, 1))
    updates = (gain + drift) * f + size * params["walk"] * rng.normal(size=(n_seqs, n_shots))
    curves = np.concatenate([np.zeros((n_seqs, 1)), np.cumsum(updates, axis=1)], axis=1)
    noise = size * params["level"] * rng.normal(size=curves.shape)
    return blank._replace(log_odds=rng.normal(0, 2, (n_seqs, 1)) + curves + noise)


def coin_evidence(n_seqs: int, n_shots: int, rng: np.random.Generator) -> np.ndarray:
    """Updates of an observer who tells a coin of 3/4 heads from one of 1/4 by its flips, shape (seq, shot), nats."""
    return np.log(3) * np.where(rng.uniform(size=(n_seqs, n_shots + 1)) < 0.75, 1.0, -1.0)


def without_walk(hypothesis: Hypothesis) -> Hypothesis:
    """The control: the same law, its noise without the walk."""
    nothing = Prior("HalfNormal", (1e-4,), scaled=True)

    def curve(xp: Any, n: Any, walk: Any, **theta: Any) -> Any:
        return hypothesis.curve(xp, n, **theta)

    return replace(hypothesis, curve=curve, priors={**hypothesis.priors, "walk": nothing})


def _generator(seed: int, *cell: object) -> np.random.Generator:
    """Random numbers of one simulation, of its own in every cell of a table: shared ones would make cells depend."""
    return np.random.default_rng([seed, zlib.crc32(repr(cell).encode())])


def ranks(name: str, setting: str, seeds: Sequence[int], n_seqs: int, n_shots: int) -> list[dict[str, Any]]:
    """Posterior probability below the truth of every parameter, truths drawn from the prior; one row a simulation.

    Parameters
    ----------
    setting
        ``"sound"``; ``"student"`` (heavy-tailed noise); controls ``"shifted prior"`` (`SHIFTED` two prior sds higher
        than the fit expects) and ``"wrong noise"`` (fitted without a walk).
    """
    from bayes_icl.importance import sample_fast
    from bayes_icl.noise import summarise

    hypothesis = HYPOTHESES[name].varied(student=setting == "student")
    fitted = without_walk(hypothesis) if setting == "wrong noise" else hypothesis
    rows = []
    for seed in seeds:
        rng = _generator(seed, "ranks", name, setting)
        truth = {name: float(prior.draw(rng, ())) for name, prior in hypothesis.all_priors.items()}
        if setting == "shifted prior":
            truth[SHIFTED[1]] += 2 * hypothesis.all_priors[SHIFTED[1]].parameters[1]
        evidence = coin_evidence(n_seqs, n_shots, rng) if hypothesis.by_sequence else None
        curves = simulate(hypothesis, truth, n_seqs, n_shots, rng, evidence)
        # Ranks are uniform only if the prior does not look at the data, so the scale is given.
        posterior = sample_fast(fitted, summarise(curves, scale=1.0), seed=seed)
        weights = np.exp(posterior.log_weights)
        row: dict[str, Any] = {"hypothesis": name, "setting": setting, "faulty": bool(posterior.faults)}
        if setting == "wrong noise":
            del truth["walk"]  # which the fit has pinned; the others must show what that does
        for parameter, value in truth.items():
            below = float(weights @ (posterior.params[parameter][:, 0] < value))
            row[parameter] = below
        rows.append(row)
    return rows


def recover(
    name: str, noise: str, seeds: Sequence[int], n_seqs: int, n_shots: int, gain: float
) -> list[dict[str, Any]]:
    """Whether 95 % intervals hold a fixed truth; one row a simulation and parameter."""
    from bayes_icl.importance import sample_fast
    from bayes_icl.noise import summarise
    from bayes_icl.posterior import mean_and_interval

    hypothesis = HYPOTHESES[name]
    rows = []
    for seed in seeds:
        rng = _generator(seed, "recovery", name, noise)
        truth = truth_of(hypothesis, noise, gain)
        evidence = coin_evidence(n_seqs, n_shots, rng) if hypothesis.by_sequence else None
        curves = simulate(hypothesis, truth, n_seqs, n_shots, rng, evidence)
        stats = summarise(curves)
        posterior = sample_fast(hypothesis, stats, seed=seed)
        if hypothesis.has_gain:
            one = {key: np.array([[value]]) for key, value in truth.items()}
            total = truth.get("gain", float(np.squeeze(hypothesis.updates(np, stats, one)[2])))
            truth = {**truth, "delta": total / n_shots}
        for parameter, x in posterior.numbers(stats).items():
            if parameter in truth:
                mean, low, high = mean_and_interval(x, posterior.log_weights)
                held = low <= truth[parameter] <= high
                rows.append(
                    {
                        "hypothesis": name,
                        "noise": noise,
                        "parameter": parameter,
                        "truth": truth[parameter],
                        "mean": mean,
                        "width": high - low,
                        "held": held,
                    }
                )
    return rows


def truth_of(hypothesis: Hypothesis, noise: str, gain: float) -> dict[str, float]:
    """A plain truth: own parameters of `TRUTHS` or `OWN_TRUTH`, the noise of `NOISES`."""
    level, walk = NOISES[noise]
    shared = {"gain": gain, "gain_sd": 1.5, "level": level, "walk": walk, "dof": 8.0}
    own = {**OWN_TRUTH, **TRUTHS.get(hypothesis.name, {})}
    if hypothesis.latent_step:
        own["tau"] = TRUTHS["changepoint"]["tau"]
    prior = np.random.default_rng(0)
    return {
        name: {**shared, **own}.get(name, float(np.median(p.draw(prior, (999,)))))
        for name, p in hypothesis.all_priors.items()
    }


def confuse(
    name: str, noise: str, seeds: Sequence[int], n_seqs: int, n_shots: int, gain: float, averaged: bool
) -> list[dict[str, Any]]:
    """Which law is named, and the verdict, on curves of a known law; one row a simulation.

    Parameters
    ----------
    averaged
        The control: each curve is the log-odds of the mean probability of a tenth of the sequences, as if they had been
        averaged before the fit.
    """
    from scipy.special import expit, logit

    from bayes_icl.compare import judge
    from bayes_icl.fit import Case
    from bayes_icl.scores import score_curves

    rows = []
    for seed in seeds:
        rng = _generator(seed, "confusion", name, noise, n_seqs, averaged)
        hypothesis = HYPOTHESES[name]
        n_drawn = 10 * n_seqs if averaged else n_seqs
        curves = simulate(hypothesis, truth_of(hypothesis, noise, gain), n_drawn, n_shots, rng)
        if averaged:
            curves = curves._replace(log_odds=logit(expit(curves.log_odds.reshape(n_seqs, 10, -1)).mean(1)))
        case = Case(curves)
        scores = [score_curves(HYPOTHESES[h], curves, checks=False)[0] for h in HYPOTHESES if case.fits(h)]
        verdict = judge(curves, scores)
        rows.append(
            {
                "truth": name,
                "kind": kind_of(name),
                "noise": noise,
                "n_seqs": n_seqs,
                "averaged": averaged,
                "named": verdict.named or "none",
                # No update on average is one kind, whichever law without a mean update predicts best.
                "named_kind": "constant" if verdict.verdict == "no_update" else kind_of(verdict.named or "none"),
                "verdict": verdict.verdict,
            }
        )
    return rows


def kind_of(name: str) -> str:
    """constant, additive, change-point or curved."""
    return KINDS.get(name, "curved") if name != "none" else "none"


def averaging_ratio(n: Sequence[int] = (1, 5, 10, 20, 50, 100)) -> pd.DataFrame:
    """How much of the mean log-odds is left in the log-odds of the mean probability: two coins, 3/4 and 1/4 heads.

    An ideal observer's log-odds gain log(3)/2 a flip on average; averaged as probabilities they seem to gain ever less.
    Exact: summed over the number of heads.
    """
    import pandas as pd
    from scipy.special import expit
    from scipy.stats import binom

    ratios = []
    for flips in n:
        heads = np.arange(flips + 1)
        chance, log_odds = binom.pmf(heads, flips, 0.75), (2 * heads - flips) * np.log(3)
        apparent = np.log(chance @ expit(log_odds)) - np.log(chance @ expit(-log_odds))
        ratios.append(apparent / (0.5 * np.log(3) * flips))
    return pd.DataFrame({"n": n, "ratio": ratios})


def _run(function: Callable, jobs: Sequence[tuple], workers: int, label: str) -> list[dict[str, Any]]:
    """All rows of all jobs, in the order of the jobs."""
    from tqdm import tqdm

    from bayes_icl.parallel import run_jobs

    rows: list[list[dict[str, Any]]] = [[] for _ in jobs]
    with run_jobs(workers) as run:
        for i, own in tqdm(run(function, jobs), total=len(jobs), desc=label, dynamic_ncols=True):
            rows[i] = own
    return [row for own in rows for row in own]


def _chunks(n: int, size: int, seed: int) -> Iterator[list[int]]:
    numbers = [seed * 1_000_003 + i for i in range(n)]
    return (numbers[i : i + size] for i in range(0, n, size))


def calibrate(settings: CalibrateSettings) -> dict[str, pd.DataFrame]:
    """All tables: sbc, recovery, confusion, averaging."""
    import pandas as pd

    from bayes_icl.parallel import one_a_core

    workers = settings.workers or one_a_core()
    size = settings.n_seqs, settings.n_shots
    plan = [(name, "sound") for name in settings.hypotheses] + [("additive", "student")]
    plan += [(SHIFTED[0], "shifted prior"), ("additive", "wrong noise")]
    jobs = [
        (name, setting, seeds, *size) for name, setting in plan for seeds in _chunks(settings.sims, 25, settings.seed)
    ]
    sbc = pd.DataFrame(_run(ranks, jobs, workers, "ranks"))
    many = {"additive": settings.coverage_sims, "power": settings.coverage_sims}
    recovery_jobs = [
        (name, noise, seeds, *size, settings.gain)
        for name in settings.hypotheses
        for noise in (NOISES if name in many else ["both"])
        for seeds in _chunks(-(-many.get(name, settings.sims) // (3 if name in many else 1)), 25, settings.seed)
    ]
    recovery = pd.DataFrame(_run(recover, recovery_jobs, workers, "recovery"))
    confusion_jobs = [
        (truth, noise, seeds, n_seqs, settings.n_shots, settings.gain, averaged)
        for truth in TRUTHS
        for noise in NOISES
        for n_seqs in (settings.n_seqs, settings.n_seqs // 4)
        for averaged in ([False, True] if n_seqs == settings.n_seqs and truth == "additive" else [False])
        for seeds in _chunks(
            settings.confusion_sims
            * (4 if truth == "additive" and n_seqs == settings.n_seqs else 1)
            // (1 if n_seqs == settings.n_seqs else 2),
            5,
            settings.seed,
        )
    ]
    confusion = pd.DataFrame(_run(confuse, confusion_jobs, workers, "confusion"))
    return {"sbc": sbc, "recovery": recovery, "confusion": confusion, "averaging": averaging_ratio()}


def rank_tests(sbc: pd.DataFrame) -> pd.DataFrame:
    """Chi-square test over ten bins that ranks are uniform, of every hypothesis, setting and parameter."""
    import pandas as pd
    from scipy.stats import chisquare

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
            check(f"95 % intervals of {name} {parameter} hold the truth ({len(own)} simulations)", share, bound, holds)
    confusion = tables["confusion"]
    full = confusion[(confusion.n_seqs == settings.n_seqs) & ~confusion.averaged]
    # Every truth and noise counts alike, however many simulations it has.
    share = full.assign(right=full.kind == full.named_kind).groupby(["truth", "noise"]).right.mean().mean()
    check(
        f"kind of law named is the true one ({len(full)} simulations)",
        *(share, f"at least {bounds.right_kind}", share >= bounds.right_kind),
    )
    additive = full[full.truth == "additive"]
    share = (additive.verdict == "rejected").mean()
    upper = proportion_confint((additive.verdict == "rejected").sum(), len(additive), 0.1, "beta")[1]
    check(
        f"additive truths rejected ({len(additive)} simulations; 95 % upper bound {upper:.3f})",
        *(share, f"at most {bounds.additive_rejected}", share <= bounds.additive_rejected),
    )
    averaged = confusion[confusion.averaged]
    share = (averaged.verdict == "supported").mean()
    check("control, averaged probabilities: additive truths supported", share, "below 0.5", share < 0.5)
    ratio = tables["averaging"].set_index("n").ratio
    check("control, averaged probabilities: log-odds left at n = 20", ratio[20], "below 0.6", ratio[20] < 0.6)
    return checked


def main(settings: CalibrateSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    from datetime import UTC, datetime

    from bayes_icl.outputs import Output, to_json
    from bayes_icl.plots import figure_files
    from bayes_icl.provenance import now, provenance

    started = datetime.now(UTC)
    settings = replace(settings, hypotheses=tuple(dict.fromkeys(settings.hypotheses)))  # twice would count twice
    if not settings.hypotheses:
        raise StatedError("--hypotheses needs at least one value")
    for name in settings.hypotheses:
        if name not in HYPOTHESES or HYPOTHESES[name].ceiling:
            raise unknown("hypothesis", name, [n for n, h in HYPOTHESES.items() if not h.ceiling])
    check_least(settings, **LEAST, seed=0, workers=0)
    if not 0 < settings.gain < MOST:
        raise StatedError(f"--gain must be above 0 and below {MOST}, got {settings.gain}")
    output = Output(settings.figures, "calibrate", flag="--figures")
    with output.held(force=settings.force):
        tables = calibrate(settings)
        checked = outcomes(tables, settings, Bounds())
        record = {**provenance(settings, started=started, inputs=[]), "finished": now()}
        output.write({**_files(tables, checked), "provenance.json": to_json(record)})
        output.write(figure_files(figures_of(settings.figures)), of=settings.figures / "outcomes.csv")
    for outcome in checked:
        mark = "holds" if outcome["holds"] else "FAILS"
        print(f"{mark}  {outcome['what']}: {outcome['value']:.4g} ({outcome['bound']})", file=sys.stderr)
    print(settings.figures)
    if failed := [outcome for outcome in checked if not outcome["holds"]]:
        print(f"error: calibration outside its bounds: {len(failed)} of {len(checked)} checks", file=sys.stderr)
        return FAILED
    return DONE


def _files(tables: dict[str, pd.DataFrame], checked: list[dict[str, Any]]) -> dict[str, bytes]:
    """The tables that are written, by name."""
    import pandas as pd

    from bayes_icl.outputs import to_csv

    recovery = tables["recovery"]
    coverage = recovery.groupby(["hypothesis", "noise", "parameter"], sort=False).agg(
        truth=("truth", "first"), mean=("mean", "mean"), width=("width", "mean"), held=("held", "mean"),
        sims=("held", "size"),
    ).reset_index()  # fmt: skip
    written = {
        "ranks.csv": tables["sbc"],
        "rank_tests.csv": rank_tests(tables["sbc"]),
        "recovery.csv": coverage,
        "confusion.csv": tables["confusion"],
        "averaging.csv": tables["averaging"],
        "outcomes.csv": pd.DataFrame(checked),
    }
    return {name: to_csv(table, float_format="%.6g") for name, table in written.items()}


def figures_of(folder: Path) -> dict[str, Figure]:
    """The figures by name, all of them from the tables in a folder."""
    from bayes_icl import plots
    from bayes_icl.compare import read_table

    ranks, tests, recovery, confusion = (
        read_table(folder / f"{name}.csv") for name in ("ranks", "rank_tests", "recovery", "confusion")
    )
    return {
        "ranks": plots.ranks_figure(ranks, tests),
        "recovery": plots.recovery_figure(recovery),
        "confusion": plots.confusion_figure(confusion),
    }


if __name__ == "__main__":
    import tyro

    # Under its own name, so that what worker processes send back has one class, not two.
    from bayes_icl.calibrate import CalibrateSettings, main

    settings = tyro.cli(CalibrateSettings, prog="python -m bayes_icl.calibrate")
    exit_stating(lambda: main(settings))
