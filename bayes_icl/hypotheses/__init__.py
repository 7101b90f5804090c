"""The rival laws of the mean log-odds, and how a law of your own is registered."""

from bayes_icl.hypotheses import history, laws  # noqa: F401  (registers them)
from bayes_icl.hypotheses.law import (
    HISTORY_LAWS,
    HYPOTHESES,
    Hypothesis,
    LogNormal,
    Prior,
    Uniform,
    hypothesis,
    label_of,
    law_of_history,
    load_hypotheses,
)
from bayes_icl.hypotheses.past import Past

__all__ = [
    "HISTORY_LAWS",
    "HYPOTHESES",
    "Hypothesis",
    "LogNormal",
    "Past",
    "Prior",
    "Uniform",
    "hypothesis",
    "label_of",
    "law_of_history",
    "load_hypotheses",
]
