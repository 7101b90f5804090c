"""A hypothesis of one's own, for ``python -m bayes_icl.fit --hypotheses-from analyses/my_laws.py``."""

from bayes_icl.hypotheses import Uniform, hypothesis


@hypothesis(
    "leaky_counts",
    complexity=2,
    priors={"keep": Uniform(0.3, 1.0)},
    meanings={"keep": "share of a count that is left after the next example"},
    reference="Beta-Bernoulli counts that fade (Gupta et al. 2025), a run of heads from Beta(1, 1)",
    predicts="logarithmic at first, then linear: the prior fades too",
)
def leaky_counts(xp, n, keep):  # xp is numpy or pytensor.tensor; scale and origin do not matter
    """log of heads over tails, H = sum of keep^i + keep^n and T = keep^n."""
    rate = -xp.log(keep)
    return xp.log1p(xp.expm1(rate * n) / (1 - keep))
