"""Write docs/verdict.md: the four verdicts on simulated curves, each with the numbers that led to it.

``python analyses/verdict_page.py`` (about 2 minutes); figures go to figures/verdict/.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from bayes_icl.calibrate.simulation import simulate, truth_of
from bayes_icl.curves import write_netcdf
from bayes_icl.fit import FitSettings, main
from bayes_icl.hypotheses import HYPOTHESES

ROOT = Path(__file__).parent.parent
# Name of the simulated task: its law, total update (nats), and what the example shows.
EXAMPLES = {
    "even_steps": ("additive", 9.6, "every example adds the same, and there is enough of it to see"),
    "slowing_steps": ("power", 9.6, "updates fall as n^-0.3"),
    "no_steps": ("constant", 0.0, "nothing is learned"),
    "small_steps": ("additive", 2.0, "every example adds the same, but little beside the noise"),
}
MEANING = {
    "supported": "Supported: the additive law predicts sequences it has not seen, and shots it has not seen, about as "
    "well as the best law; no curvature shows; and the power law's exponent lies where a curve cannot be told "
    "from a line.",
    "rejected": "Rejected: a curved law predicts better by more than the difference's own uncertainty, or the "
    "curvature is plain without any model.",
    "no_update": "No update: the additive law gains nothing on no change at all.",
    "undecided": "Undecided: the additive law survives, but a curved one could still be true. That is not support: the "
    "line says how many sequences would decide it.",
}
OPENING = """# How to read the verdict

*Written by `analyses/verdict_page.py` (`make pages`); the curves are simulated, so the truth is known.*

The verdict answers one question: does every example add the same amount to log P(correct)/P(incorrect)? Four answers
are possible, and *refused* when there are too few data or a fit cannot be relied on. Each is shown here on 64 sequences
of 32 shots. The first line of each block is the headline; below it are its reasons, and the same question asked under
other settings: fewer or more of the first shots, priors half and twice as wide, noise with heavy tails. A verdict to
rely on is the same in all of them.
"""
CLOSING = """## The verdicts side by side

![verdict under every setting](../figures/verdict/sensitivity.png)

![delta of each](../figures/verdict/delta.png)

## The columns

- **left-out seq, SE**: how much worse than the best law a sequence is predicted by a fit to the others, nats, and the
  standard error of that difference over sequences. Laws within 4 nats or 2 SE survive.
- **left-out future, SE**: the same for the second half of the shots, predicted from a fit to the first half.
- **survives**: seq, future or both. `additive` must survive both to be supported. The law *selected* is the simplest of
  those that survive a sequence left out; of several equally simple ones, the one that predicts it best. These are often
  not told apart, so read `survivors` in `verdict.json` too.
- **p worse, < 4, MCSE**: probability that it predicts worse than the best, from the difference and its standard error;
  whether it is less than 4 nats from the best, which is too little to tell them apart; and the Monte Carlo error of its
  score. With fewer than 100 sequences standard errors may be too small, and the best of many laws looks better than it
  is: under *which law* stands how far above the median law the best would be by chance.
- **engine, ESS, k**: which engine fitted it, its effective number of draws, and the largest Pareto k of a sequence left
  out, after exact refits of those above 0.7.
- **covers**: share of the second half's values inside the 95 % intervals predicted from the first half.
- **checks**: slope by sequence (its mean is delta), quadratic contrast (0 if additive) and departure from a line by
  polynomials; none knows of the models above. p is given alone and corrected over all tasks by Holm's method.
- **how laws fit**: whether sequences left out lie among new ones as they should (their slope, bend and distance from the
  mean curve; probability integral transforms), whether the noise of each shot is what the fit expects, and whether
  posteriors hang on their priors (power-scaling). Figures: `pit`, `noise`, `prior_predictive`.
- **sequences that pull**: without one of them delta moves by more than half its posterior sd, or its Pareto k was above
  0.7. `--noise student` fits noise with heavy tails, which such sequences do not sway, and tests the contrast by ranks.

*no_update* comes first: it is the verdict when additive gains nothing on constant and constant survives, or only laws
survive whose mean update may be 0.

How often all this is right on simulated truths of a given size: `make calibrate` or
`python -m bayes_icl.calibrate --n-seqs 64 --n-shots 32`; the tables are in
[figures/calibration](../figures/calibration/outcomes.csv).
"""


def made_curves() -> xr.Dataset:
    """64 sequences of 32 shots of each example."""
    shots = np.arange(33)
    odds = np.empty((len(EXAMPLES), 1, 64, 33))
    for i, (law, gain, _) in enumerate(EXAMPLES.values()):
        truth = truth_of(HYPOTHESES[law], "both", gain) | {"level": 1.5, "walk": 0.1, "gain_sd": 0.1 * gain + 0.5}
        odds[i, 0] = simulate(HYPOTHESES[law], truth, 64, 32, np.random.default_rng([i, 1])).log_odds
    coords = {"task": list(EXAMPLES), "readout": ["complement"], "seq": np.arange(64), "shot": shots}
    return xr.Dataset({"log_odds": (("task", "readout", "seq", "shot"), odds)}, coords=coords)


def page(verdicts: dict[str, dict], summary: str) -> str:
    """The page: for each example its verdict in words, the program's own lines, the figure."""
    parts = {part.split(maxsplit=1)[0]: part for part in re.split(r"^(?=\S+ ──)", summary, flags=re.MULTILINE) if part}
    lines = [OPENING]
    for task, (law, gain, shows) in EXAMPLES.items():
        verdict = verdicts[task]
        delta = verdict["delta"]
        lines += [
            f"## {verdict['verdict']}",
            "",
            f"The truth: `{law}`, {gain:g} nats in all; {shows}. delta = {delta['mean']:.3f} "
            f"[{delta['hdi_low']:.3f}, {delta['hdi_high']:.3f}] nats per example.",
            "",
            MEANING[verdict["verdict"]],
            "",
            "```",
            parts[task].rstrip(),
            "```",
            "",
            f"![curves of {task} with fitted laws](../figures/verdict/curves_{task}.png)",
            "",
        ]
    return "\n".join([*lines, CLOSING])


if __name__ == "__main__":
    figures = ROOT / "figures/verdict"
    with tempfile.TemporaryDirectory() as folder:
        curves, out = Path(folder) / "made.nc", Path(folder) / "fits"
        write_netcdf(made_curves(), curves)
        main(FitSettings(curves=curves, out=out, figures=figures, force=True))
        verdicts = json.loads((out / "verdict.json").read_text())
    summary = (figures / "summary.txt").read_text(encoding="utf-8")
    target = ROOT / "docs/verdict.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page(verdicts, summary), encoding="utf-8")
    print(target)
