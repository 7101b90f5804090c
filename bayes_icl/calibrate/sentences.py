"""What a calibration says, as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bayes_icl.writing.numbers import Quotes, listed


def calibration_differs(
    settings: Mapping[str, Any], sizes: tuple[int, int], fitted: Mapping[str, Any] | None, *, gaps: bool = False
) -> list[str]:
    """In what a calibration is not of these curves and fits, in words; empty where it is.

    Parameters
    ----------
    settings
        Those of `calibrate`.
    sizes
        Sequences and most examples of the curves.
    fitted
        Settings of `fit`; None if it was not run.
    gaps
        Whether the curves skip numbers of examples.
    """
    words = ["the curves skip numbers of examples, which simulated ones do not"] if gaps else []
    if (settings["n_seqs"], settings["n_shots"]) != tuple(sizes):
        words.append(f"the curves have {sizes[0]} sequences of {sizes[1]} examples")
    if fitted:
        other = [name for name in fitted["hypotheses"] if name not in (*settings["hypotheses"], "freeform")]
        words += [f"{listed(other)} {'were' if len(other) > 1 else 'was'} fitted and not calibrated"] if other else []
        words += [f"{fitted['noise']} noise was fitted"] if fitted["noise"] != "normal" else []
    return words


def calibration_sentences(
    outcomes: pd.DataFrame, settings: Mapping[str, Any], differs: Sequence[str], quotes: Quotes
) -> list[str]:
    """What was calibrated, in what it is not of these curves, and whether it held.

    Parameters
    ----------
    outcomes, settings
        outcomes.csv and the settings of `calibrate`.
    differs
        What `calibration_differs` found.
    quotes
        Where the numbers are kept that the sentences quote.
    """
    q = quotes.under("calibration")
    held = int(outcomes.holds.astype(bool).sum())
    sentences = [
        f"Simulated truths of {q.count('n_seqs', settings['n_seqs'])} sequences of "
        f"{q.count('n_shots', settings['n_shots'])} examples, from n = {q.count('n_from', 0)} on, under the stated "
        f"priors: {q.count('sims', settings['sims'])} of each law for ranks and recovery, and a total update of "
        f"{q.under(unit='nats').number('gain', settings['gain'], 'g')} nats where it is fixed."
    ]
    sentences.append(
        f"Not the very settings used: {q.all_in('differs', '; '.join(differs))}."
        if differs
        else "These are the sizes, laws and noise of the fits here."
    )
    sentences.append(
        f"{q.count('held', held)} of {q.count('checks', len(outcomes))} checks hold, those of controls that must fail "
        "among them."
    )
    for i, row in enumerate(outcomes.itertuples()):
        if not row.holds:
            sentences.append(q.all_in(f"failed.{i}", f"Fails: {row.what}: {row.value:.4g} ({row.bound})."))
    return sentences
