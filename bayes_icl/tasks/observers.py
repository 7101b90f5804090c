"""Ideal observers of two rules: the log-odds that they give rule A after each example.

A history h, shape (seq, shot), is +1 where the example showed rule A, -1 where it showed rule B, and 0 where it showed
neither. Every function returns log P(A)/P(B), nats, after 0 to `shot` examples: shape (seq, shot + 1), and column n
knows the first n examples only.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num

History = Num[np.ndarray, "seq shot"]


def two_rules(history: History, delta: float = 0.25) -> Float[np.ndarray, "seq shot1"]:
    """Posterior of two rules of equal prior, one of which holds throughout: delta for every example.

    Parameters
    ----------
    history
        What the examples showed.
    delta
        Evidence in an example, nats: log((1 - p) / p), where p is the share of examples that show the other rule.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.tasks.observers import two_rules
    >>> two_rules(np.array([[1, 1, -1]]))
    array([[0.  , 0.25, 0.5 , 0.25]])
    """
    return _sums(delta * np.asarray(history, float))


def counting(history: History, prior: float = 1.0) -> Float[np.ndarray, "seq shot1"]:
    """Predictive log-odds of a coin of unknown bias, log((h + a) / (t + a)): Beta-Bernoulli counting.

    Parameters
    ----------
    history
        What the examples showed.
    prior
        The a of Beta(a, a), looks.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.tasks.observers import counting
    >>> counting(np.array([[1, 1, -1]])).round(2)
    array([[0.  , 0.69, 1.1 , 0.41]])
    """
    history = np.asarray(history)
    return np.log(_sums(history > 0) + prior) - np.log(_sums(history < 0) + prior)


def discounted(history: History, delta: float = 0.5, leak: float = 0.8) -> Float[np.ndarray, "seq shot1"]:
    """Evidence that fades: what was known is multiplied by `leak`, then the example's is added.

    Parameters
    ----------
    history
        What the examples showed.
    delta
        Evidence in an example when it has just been seen, nats.
    leak
        Share of the evidence that is left after one more example.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.tasks.observers import discounted
    >>> discounted(np.array([[1, 1, -1]])).round(2)
    array([[0.  , 0.5 , 0.9 , 0.22]])
    """
    return _steps(history, lambda known, shown: leak * known + delta * shown)


def averaging(history: History, height: float = 4.0, prior: float = 6.0) -> Float[np.ndarray, "seq shot1"]:
    """Mean of what was shown, height * (h - t) / (h + t + c): what one softmax head with fixed scores can write.

    Parameters
    ----------
    history
        What the examples showed.
    height
        Where it ends, nats, if all examples agree.
    prior
        The c: examples after which it is half way.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.tasks.observers import averaging
    >>> averaging(np.array([[1, 1, -1]])).round(2)
    array([[0.  , 0.57, 1.  , 0.44]])
    """
    history = np.asarray(history)
    return height * _sums(history) / (_sums(abs(history)) + prior)


def switching(history: History, delta: float = 1.0, hazard: float = 0.1) -> Float[np.ndarray, "seq shot1"]:
    """Exact filter of a rule that may change before every query: log-odds of the rule that holds for the query.

    Parameters
    ----------
    history
        What the examples showed.
    delta
        Evidence in an example, nats: log((1 - p) / p), where p is the share of examples that show the other rule.
    hazard
        Probability that the rule changes from one query to the next.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.tasks.observers import switching
    >>> switching(np.array([[1, 1, -1]])).round(2)
    array([[0.  , 0.78, 1.29, 0.23]])
    """
    stays, goes = np.log1p(-hazard), np.log(hazard)

    def step(known: np.ndarray, shown: np.ndarray) -> np.ndarray:
        posterior = known + delta * shown
        return np.logaddexp(stays + posterior, goes) - np.logaddexp(goes + posterior, stays)

    return _steps(history, step)


def predictive(belief: Float[np.ndarray, "seq shot1"], p: float) -> Float[np.ndarray, "seq shot1"]:
    """Log-odds that the next example *shows* rule A, from those that rule A holds: within log((1 - p) / p) of 0.

    Parameters
    ----------
    belief
        Log-odds of rule A, nats.
    p
        Share of examples that show the other rule.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.tasks.observers import predictive
    >>> predictive(np.array([[0.0, 1.0, 9.0]]), p=0.2).round(2)
    array([[0.  , 0.57, 1.39]])
    """
    holds, fails = np.log1p(-p), np.log(p)
    return np.logaddexp(holds + belief, fails) - np.logaddexp(fails + belief, holds)


def nothing(history: History) -> Float[np.ndarray, "seq shot1"]:
    """No evidence in any example: labels are drawn anew each time.

    Parameters
    ----------
    history
        What the examples showed.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.tasks.observers import nothing
    >>> nothing(np.array([[1, 1, -1]]))
    array([[0., 0., 0., 0.]])
    """
    n_seqs, n_shots = np.shape(history)
    return np.zeros((n_seqs, n_shots + 1))


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... columns."""
    return np.pad(np.cumsum(np.asarray(values, float), axis=1), ((0, 0), (1, 0)))


def _steps(history: History, step) -> np.ndarray:
    """Log-odds from 0 on, one example after the other."""
    history = np.asarray(history, float)
    known = np.zeros((history.shape[0], history.shape[1] + 1))
    for n, shown in enumerate(history.T):
        known[:, n + 1] = step(known[:, n], shown)
    return known
