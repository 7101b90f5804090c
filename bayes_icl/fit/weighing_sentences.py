"""What the second verdict says, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayes_icl.core.intervals import Interval
from bayes_icl.writing.numbers import Quotes, code

# What a verdict says of a learner, in a few words.
MEANING = {
    "bayesian": "weighs evidence as the ideal observer does",
    "conservative": "weighs evidence as the ideal observer does, but less",
    "overconfident": "weighs evidence as the ideal observer does, but more",
    "leaky": "forgets: an example's weight falls with every further one",
    "asymmetric": "weighs contrary examples otherwise than supporting ones",
    "counting": "counts, as a Beta-Bernoulli observer does",
    "averaging": "goes by the share of supporting examples, not by their number",
    "hazard": "expects the rule to change",
    "primacy": "goes by the first examples",
    "recency": "weighs the last example otherwise than all others",
    "additive": "adds the same for every example and takes it back for a contrary one",
    "ignores": "is not moved by what the examples show",
}


def interval(numbers: Mapping[str, float]) -> Interval:
    """An interval as verdict.json has it."""
    return Interval(*(numbers[name] for name in ("mean", "low", "high")))


def weighing_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The second verdict for the terminal: a line, and its reasons and what stands beside it indented."""
    setting = f"{verdict['readout']}, n >= {verdict['n_min']}"
    line = f"{setting:18s} evidence: {verdict['verdict'].upper()}"
    if verdict["weight"]:
        line += f" (weight {interval(verdict['weight']):.2f} of the ideal observer's)"
    if verdict["law"]:
        line += f"; law: {verdict['law']}"
    return [line, *(f"    {words}" for words in [*verdict["reasons"], *beside_weighing(verdict)])]


def beside_weighing(verdict: Mapping[str, Any]) -> list[str]:
    """What stands beside the second verdict, a sentence each."""
    lines = []
    kernel = verdict.get("kernel")
    if kernel and kernel["left_after"]:
        left = {n: interval(three) for n, three in kernel["left_after"].items()}
        some = [n for n in ("1", "8") if n in left]
        words = ", ".join(f"{left[n]:.2f} after {n}" for n in some)
        lines.append(f"share of the last example's weight that is left after further ones: {words}")
    if combined := verdict.get("combined"):
        lines.append(
            f"all in one: weight {interval(combined['w']):.2f}, leak {interval(combined['leak']):.2f}, contrast to the "
            f"last example {interval(combined['kappa']):.2f} nats (a Bayesian who counts: 1, 1, 0)"
        )
    if share := verdict.get("order_share"):
        percent = Interval(*(100 * x for x in interval(share)))
        lines.append(f"order makes {percent:.0f} % of the variance over all sequences (exchangeable: 0)")
    if gap := verdict.get("martingale_gap"):
        lines.append(f"martingale gap {interval(gap):.3f} nats, in size {interval(gap['size']):.3f} (coherent: 0)")
    if shift := verdict.get("prior_shift"):
        lines.append(
            f"the text before the examples shifts log-odds by {interval(shift['first']):.2f} nats at first and "
            f"{interval(shift['last']):.2f} at last: {interval(shift['slope']):.3f} nats/example (if they add: 0)"
        )
    return lines


def weighing_sentence(task: str, verdict: Mapping[str, Any], quotes: Quotes) -> str:
    """The second verdict on a task, with its reasons."""
    q = quotes.under(task, "bayesian")
    parts = [q.all_in(f"reasons.{i}", reason) for i, reason in enumerate(verdict["reasons"])]
    meaning = MEANING.get(verdict["verdict"])
    said = f"Evidence on {code(task)}: {verdict['verdict']} ({verdict['readout']}"
    said += f", n \u2265 {q.count('n_min', verdict['n_min'])})"
    said += f": the model {meaning}." if meaning else "."
    return f"{said} {'; '.join(parts)}." if parts else said


def beside_weighing_sentences(task: str, verdict: Mapping[str, Any], quotes: Quotes) -> list[str]:
    """What stands beside it, with its numbers quoted."""
    q = quotes.under(task, "bayesian")
    return [q.all_in(f"beside.{i}", line) for i, line in enumerate(beside_weighing(verdict))]
