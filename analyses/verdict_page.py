"""Write docs/verdict.md: the verdicts on simulated curves, each with the numbers that led to it.

``python analyses/verdict_page.py`` (about 2 minutes); figures go to figures/verdict/.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from bayes_icl.calibrate.truths import TRUTHS, N
from bayes_icl.curves import write_netcdf
from bayes_icl.fit import FitSettings, main

ROOT = Path(__file__).parent.parent
# Name of the simulated task: its truth (`calibrate.truths`), its number of sequences, and what the example shows.
EXAMPLES = {
    "even_steps": ("line", 64, "every example adds the same, and there is enough of it to see"),
    "slowing_steps": ("logarithmic", 64, "every example adds less than the one before"),
    "under_a_ceiling": ("ceiling", 256, "the belief gains the same with every example; the readout cannot pass 95 %"),
    "no_steps": ("nothing", 256, "nothing is learned"),
    "small_steps": ("weak", 64, "every example adds the same, but little beside the noise"),
}
MEANING = {
    "supported": "Supported: with a probability of 0.95 or more the mean curve is nowhere further from its best line "
    "than 5 % of the total update, and the sign of the total is known.",
    "rejected": "Rejected: with that probability it is somewhere further from it, and the direction of the bend is "
    "known.",
    "supported_under_ceiling": "Supported under a ceiling: the log-odds bend, but a line under a ceiling of the "
    "readout (`lapse`) describes them, no law that bends by itself survives, and the belief under the ceiling may be "
    "straight.",
    "no_update": "No update: total and departure surely lie within 0.5 nats. It is never said because data are few.",
    "undecided": "Undecided: the data allow a straight curve and a bent one. The line says how many sequences would "
    "decide it, and which way, if what is seen goes on.",
}
OPENING = """# How to read the verdict

*Written by `analyses/verdict_page.py` (`make pages`); the curves are simulated, so the truth is known.*

The verdict answers one question: does every example add the same amount to log P(correct)/P(incorrect)? It is asked of
the mean curve, which is fitted without any law (`freeform`: a line and a smooth deviation), in three steps:

1. Is there an update? The **total** is what the curve rises from the first shot fitted to the last, nats.
2. How straight is it? The **departure** is the largest distance of the mean curve from its best straight line, as a
   share of the total. Below 5 % (`--departure`) a curve is straight for practical purposes. Beside it stands what the
   **second half** of the examples adds as a share of what the first half adds: 1 for a line. **Delta** is the slope of
   the best line. Where shots are not consecutive it is the best line through the shots there are, and the distance is
   asked at those.
3. Which law describes it? Laws are compared by leaving sequences out. That describes; it does not judge.

For scale: over 32 examples n^0.95 departs by 1.3 %, n^0.85 by 4.1 %, log(1 + n/20) by 8.4 %, log(1 + n/5) by 18 %, and
a step by 49 %. More data narrow the interval of the departure; they never turn a departure of 2 % into a rejection, nor
one of 20 % into support.

Each answer is shown here on simulated sequences of 32 shots. The first line of each block is the headline; below it are
its reasons, and the same question under other settings: fewer of the first shots, noise with heavy tails.
"""
CLOSING = """## The verdicts side by side

![mean curve, best line and the band of equivalence](../figures/verdict/departure.png)

![verdict under every setting](../figures/verdict/sensitivity.png)

![delta of each](../figures/verdict/delta.png)

## The noise

What the curves' noise is like is found beside any mean curve, from how sequences differ: level noise (a new query at
each shot), which may change with n or carry over from shot to shot; a walk; sequences that differ along a line and
along an early bend. Where the mean curve is rougher than such noise can make it, as when all sequences are asked the
same item at a shot, every shot has an effect of its own, and intervals are wider. None of this can make a curve of a
line. `noise_shape` in `verdict.json` says what was chosen.

## The columns

- **left-out seq, SE**: how much worse than the best law a sequence is predicted by a fit to the others, nats, and the
  standard error of that difference over sequences. Laws within 4 nats or 2 SE survive, and so do laws whose mean curve
  is surely within 5 % of the total update of the mean curve: a law that misses it by less is not wrong for practical
  purposes, however many data say so. The law *selected* is the simplest of those that survive; of several equally
  simple ones, the one that predicts best. These are often not told apart, so read `survivors` in `verdict.json` too.
- **left-out future, SE**: the same for the second half of the examples, predicted from a fit to the first half.
- **survives**: seq, future or both.
- **p worse, < 4, MCSE**: probability that it predicts worse than the best, from the difference and its standard error;
  whether it is less than 4 nats from the best, which is too little to tell them apart; and the Monte Carlo error of its
  score. With fewer than 100 sequences standard errors may be too small, and the best of many laws looks better than it
  is: under *which law* stands how far above the median law the best would be by chance.
- **engine, ESS, k**: which engine fitted it, its effective number of draws, and the largest Pareto k of a sequence left
  out, after exact refits of those above 0.7.
- **covers**: the share of the second half's values inside their 95 % predictive intervals.
- **checks**: slope by sequence (its mean is delta), quadratic contrast (0 for a line), and the departure by polynomials
  of degree 1 to 3, which knows no model of the noise; it must agree with the departure above. p is given alone and
  corrected over all tasks by Holm's method.
- **how laws fit**: whether sequences left out lie among new ones as they should (their slope, bend and distance from
  the mean curve; probability integral transforms), whether the noise of each shot is what the fit expects, and whether
  posteriors hang on their priors (power-scaling). Figures: `pit`, `noise`, `prior_predictive`.
- **sequences that pull**: without one of them delta moves by more than half its posterior sd, or its Pareto k was above
  0.7. `--noise student` weighs such sequences down.

Evidence of both signs is not judged by this verdict: a curve that goes up and down with its evidence is no line, and
may be as Bayesian as can be.

How often all this is right on truths that the model does not assume: `make calibrate`; the tables are in
[figures/calibration](../figures/calibration/outcomes.csv). On networks whose law is known: `make organisms-check`.
"""


def made_curves() -> list[xr.Dataset]:
    """Each example, with its number of sequences."""
    made = []
    for i, (task, (truth, n_seqs, _)) in enumerate(EXAMPLES.items()):
        odds = TRUTHS[truth].draw(n_seqs, np.random.default_rng([i, 1])).log_odds
        coords = {"task": [task], "readout": ["complement"], "seq": np.arange(n_seqs), "shot": N.astype(int)}
        made.append(xr.Dataset({"log_odds": (("task", "readout", "seq", "shot"), odds[None, None])}, coords=coords))
    return made


def page(verdicts: dict[str, dict], summary: str) -> str:
    """The page: for each example its verdict in words, the program's own lines, the figure."""
    parts = {part.split(maxsplit=1)[0]: part for part in re.split(r"^(?=\S+ ──)", summary, flags=re.MULTILINE) if part}
    lines = [OPENING]
    for task, (truth, n_seqs, shows) in EXAMPLES.items():
        verdict = verdicts[task]
        lines += [
            f"## {verdict['verdict'].replace('_', ' ')}",
            "",
            f"The truth: {TRUTHS[truth].words}, {n_seqs} sequences; {shows}.",
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
        write_netcdf(xr.concat(made_curves(), "task", join="outer"), curves)
        main(FitSettings(curves=curves, out=out, figures=figures, engine="fast", force=True))
        verdicts = json.loads((out / "verdict.json").read_text())
    summary = (figures / "summary.txt").read_text(encoding="utf-8")
    target = ROOT / "docs/verdict.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page(verdicts, summary), encoding="utf-8")
    print(target)
