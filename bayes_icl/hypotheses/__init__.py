"""The rival laws of the mean log-odds, and how a law of your own is registered."""

from bayes_icl.hypotheses import laws  # noqa: F401  (registers them)
from bayes_icl.hypotheses.law import (
    HYPOTHESES,
    Hypothesis,
    LogNormal,
    Prior,
    Uniform,
    hypothesis,
    label_of,
    load_hypotheses,
)

__all__ = ["HYPOTHESES", "Hypothesis", "LogNormal", "Prior", "Uniform", "hypothesis", "label_of", "load_hypotheses"]
