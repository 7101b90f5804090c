"""When a step of Skunnavakkam (2024) is supported: shares of the rule gain, beyond their controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from bayes_icl.core.intervals import flat, t_interval
from bayes_icl.mechanism.thresholds import STEP_LEAST

STEPS = {
    1: "heads bring x to y",
    2: "MLPs at y make features of the pair",
    3: "later heads bring them from y to the answer",
}


def judge(steps: pd.DataFrame) -> dict[int, str]:
    """Each step's verdict from the experiments on one task.

    What decides: whether the way is needed (``path``: attention kept from all of it; for step 2, MLPs at the answers),
    and whether the heads that go it can be told (``heads``). An experiment *holds* if it takes a tenth of the rule
    gain, or more (the lower end of its 95 % interval), and more than its control: the lower end of `beyond` for
    ways, no placebo set that takes as much for heads.

    supported
        All hold, heads among them where the step has heads: by chance in less than 2.5 % of cases.
    rejected
        Every ``path``, and every ``detour``, takes less than a tenth (95 % interval below), so that the step is not
        needed. Heads that take little reject nothing, since others may repair them; nor does one edge of a way, since
        what it carried may go another.
    not seen
        Else.

    Parameters
    ----------
    steps
        Columns step, decides, share_low, share_high, beyond_low, n_controls and n_as_much.
    """
    verdicts = {}
    for step in STEPS:
        own = steps[steps.step == step]
        ways_, heads = (own[own.decides == what] for what in ("path", "heads"))
        hold = (ways_.share_low >= STEP_LEAST) & (ways_.beyond_low > 0)
        told = (heads.share_low >= STEP_LEAST) & (heads.n_as_much == 0) & (heads.n_controls > 0)
        every = own[own.decides.isin(["path", "detour"])]
        if len(ways_) and (every.share_high < STEP_LEAST).all():
            verdicts[step] = "rejected"
        elif len(ways_) and hold.all() and (step == 2 or (len(heads) and told.all())):
            verdicts[step] = "supported"
        else:
            verdicts[step] = "not seen"
    return verdicts


def experiment_row(
    lost: Float[np.ndarray, " pair"],
    rule: Float[np.ndarray, " pair"],
    controls: Sequence[Float[np.ndarray, " pair"]] = (),
    **about: Any,
) -> dict[str, Any]:
    """A row of the table of steps: a loss as a share of the rule gain, and beyond the largest of its controls.

    Both are ratios of means over pairs; their intervals are those of a ratio (linearised).
    """
    numbers: dict[str, Any] = {"share": _ratio(lost, rule), "beyond": (np.nan,) * 3}
    as_much = 0
    if controls:
        worst = max(controls, key=lambda x: x.mean())
        numbers["beyond"] = _ratio(lost - worst, rule)
        as_much = sum(int(x.mean() >= lost.mean()) for x in controls)
    return {"n_controls": len(controls), "n_as_much": as_much, **about, **flat(numbers)}


def _ratio(x: Float[np.ndarray, " pair"], y: Float[np.ndarray, " pair"]) -> tuple[float, float, float]:
    """Mean of x over mean of y, and its 95 % interval."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = x.mean() / y.mean()
        _, low, high = t_interval((x - ratio * y) / y.mean())
        return float(ratio), float(ratio + low), float(ratio + high)
