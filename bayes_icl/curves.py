"""The curves format: what `collect` writes and everything after it reads.

An `xarray.Dataset` with dims ``task, readout, seq, shot`` (`VARIABLES` says what each variable is), stored as netCDF.
Log-odds are natural logarithms (nats), float64. A readout that a task does not have is NaN for the whole task; a NaN
or an infinity anywhere else is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Num

from bayes_icl.core.errors import MOST, StatedError, check_name, unknown
from bayes_icl.core.files import replacing, to_netcdf
from bayes_icl.core.intervals import t_interval
from bayes_icl.curve_tables import DIMS, INFINITE, curves_from_table

VARIABLES = {
    "log_p_correct": "log probability of the correct bucket, nats",
    "log_p_incorrect": "log probability of the incorrect bucket, nats",
    "log_odds": "log_p_correct - log_p_incorrect, nats",
    "correct": "greedy decoding gives the whole answer, terminator included",
    "query": "text of the query asked after n examples",
    "answer": "text of its answer (of two rules, that of rule A)",
    "foil": "text of a wrong answer of the same form (of two rules, that of rule B), empty where there is none",
    "shown": "what stands in the text as its answer",
    "tokens": "the whole episode as the model reads it, padded with -1",
    "answer_start": "what is shown as answer, terminator included, is tokens[start:stop]",
    "answer_stop": "what is shown as answer, terminator included, is tokens[start:stop]",
    "query_start": "tokens[start:stop] hold the query's text",
    "query_stop": "tokens[start:stop] hold the query's text",
    "fork": "how many tokens the answer and the foil share; -1 where no foil was read",
    "foil_token": "the foil's first token after those; -1 where no foil was read",
    "query_seen": "this query stood earlier in the episode, so its answer can be looked up",
    "evidence": "the ideal observer's update since the shot before, nats; NaN where the task does not know it",
    "observer": "the ideal observer's log-odds of the answer against the foil, nats; NaN where there is none",
    "history": "what the example at this shot shows: 1 its answer, -1 its foil, 0 neither; NaN without foils",
    "set": "sequences of one number have the same examples in other orders; -1 where none do",
    "design": "what the examples show, as `--design` gives it; `plain`: their answers",
    "base": "the task's name without its design",
    "martingale_gap": "log-odds expected after one more example less those of now, nats; with `--martingale`, else NaN",
}

NEEDED = ("log_odds",)


class Curves(NamedTuple):
    """The curves of one task under one readout.

    Attributes
    ----------
    task, readout
        Their names.
    shots
        Numbers of examples shown, rising, shape (shot,); they need not be consecutive.
    log_odds
        Shape (seq, shot), nats.
    evidence
        The ideal observer's update since the shot before, same shape, nats, NaN where it is not known; None where none
        is.
    items
        Which item is asked, as a number of its own, same shape; None where the file does not say.
    history
        What each example showed, +1 rule A's answer, -1 rule B's, 0 neither, from the first example on, shape
        (seq, place); None where it is not known.
    observer
        The ideal observer's log-odds at each shot, shape (seq, shot), nats, NaN where it is not known; None where it is
        not known at the last shot.
    single
        Of single prompts, no two of which are of one sequence: numbers of examples before each, shape (seq,); their
        log-odds have shape (seq, 1). None for curves.

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import Curves
    >>> shots = np.arange(5.0)
    >>> curves = Curves("mine", "complement", shots, np.stack([0.2 * shots, 0.4 * shots - 1]))
    >>> np.diff(curves.log_odds).mean().round(2).item()  # nats per example
    0.3
    """

    task: str
    readout: str
    shots: Float[np.ndarray, " shot"]
    log_odds: Float[np.ndarray, "seq shot"]
    evidence: Float[np.ndarray, "seq shot"] | None = None
    items: Int[np.ndarray, "seq shot"] | None = None
    history: Num[np.ndarray, "seq place"] | None = None
    observer: Float[np.ndarray, "seq shot"] | None = None
    single: Int[np.ndarray, " seq"] | None = None

    @property
    def n_min(self) -> int:
        """The least number of examples read."""
        return int(self.shots[0] if self.single is None else self.single.min())

    @property
    def disagrees(self) -> bool:
        """Whether some example shows another rule's answer, or an ideal observer's updates have both signs."""
        if self.history is not None:
            last = int(self.shots[-1]) if self.single is None else int(self.single.max())
            shown = self.history[:, :last]
            return bool((shown < 0).any())
        known = self.observed if self.observer is None else np.diff(self.observer, axis=1)
        return known is not None and bool((known > 0).any() and (known < 0).any())

    @property
    def observed(self) -> Float[np.ndarray, "seq update"] | None:
        """The ideal observer's updates from shot to shot, nats; None unless all of them are known."""
        # The first shot has no update before it, so nobody need know its evidence.
        updates = None if self.evidence is None else self.evidence[:, 1:]
        return updates if updates is not None and np.isfinite(updates).all() else None

    def since(self, n_min: int) -> Curves:
        """The part from `n_min` examples on.

        Parameters
        ----------
        n_min
            The least number of examples kept.

        Examples
        --------
        >>> import numpy as np
        >>> from bayes_icl.curves import Curves
        >>> curves = Curves("mine", "complement", np.arange(5.0), np.zeros((2, 5)))
        >>> later = curves.since(2)
        >>> later.shots.tolist(), later.log_odds.shape
        ([2.0, 3.0, 4.0], (2, 3))
        """
        keep = self.shots >= n_min
        if self.single is not None:
            rows = self.single >= n_min
            history, observer = (None if x is None else x[rows] for x in (self.history, self.observer))
            kept = self._replace(log_odds=self.log_odds[rows], single=self.single[rows])
            return kept._replace(history=history, observer=observer)
        own = (self.evidence, self.items, self.observer)
        evidence, items, observer = (None if x is None else x[:, keep] for x in own)
        kept = self._replace(shots=self.shots[keep], log_odds=self.log_odds[:, keep])
        return kept._replace(evidence=evidence, items=items, observer=observer)


def consecutive(shots: np.ndarray) -> bool:
    """Whether every number of examples between the first and the last is there.

    Parameters
    ----------
    shots
        Numbers of examples, shape (shot,).

    Examples
    --------
    >>> import numpy as np
    >>> from bayes_icl.curves import consecutive
    >>> consecutive(np.array([1.0, 2, 3])), consecutive(np.array([1.0, 2, 4]))
    (True, False)
    """
    return bool((np.diff(shots) == 1).all())


def readouts_of(dataset: xr.Dataset, task: str) -> list[str]:
    """The readouts that a task has in this file.

    Parameters
    ----------
    dataset
        In the curves format.
    task
        One of its tasks.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, readouts_of
    >>> dataset = read_curves(Path("data/example.nc"))
    >>> readouts_of(dataset, "past_tense"), readouts_of(dataset, "category")
    (['complement', 'foil'], ['complement', 'foil', 'format', 'rule'])
    """
    has = dataset.log_odds.sel(task=task).notnull().any(("seq", "shot"))
    return [str(name) for name in dataset.readout.values[has.values]]


class Learning(NamedTuple):
    """Whether a model learns a task from its examples at all.

    Attributes
    ----------
    shot
        Examples shown at the end.
    right_before, right
        Share of sequences in which greedy decoding gives the answer: with the fewest examples, and at the end (the last
        quarter of the shots).
    rise, rise_low, rise_high
        Rise of that share, and its 95 % interval.
    foil, foil_low, foil_high
        Rise of the log-odds against the foil after the first example, nats; NaN without foils.
    learnt
        Whether greedy answers surely get better, by a fifth of what there is to gain or more (or were right in nine of
        ten before), and the log-odds against the foil, where there is one, surely rise.
    """

    shot: int
    right_before: float
    right: float
    rise: float
    rise_low: float
    rise_high: float
    foil: float
    foil_low: float
    foil_high: float
    learnt: bool


RIGHT_LEAST = 0.2
"""Share of the wrong greedy answers that get right at least, or a task is not learnt."""

RIGHT_BEFORE = 0.9
"""Share of right greedy answers without examples from which on these cannot tell whether more is learnt."""


def learning_of(dataset: xr.Dataset, task: str, shot: int | None = None) -> Learning | None:
    """Whether a task is learnt, from greedy answers and the log-odds against the foil; None where neither can tell.

    Parameters
    ----------
    dataset
        In the curves format.
    task
        One of its tasks.
    shot
        Examples at the end; the most there are, if None.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import learning_of, read_curves
    >>> found = learning_of(read_curves(Path("data/example.nc")), "past_tense")
    >>> found.learnt, found.right > found.right_before
    (True, True)
    """
    if "correct" not in dataset:
        return None
    own = dataset.sel(task=task)
    own = own.isel(shot=slice(None)) if shot is None else own.sel(shot=slice(None, shot))
    last = int(own.shot[-1])
    late = own.shot.values > 0.75 * last
    right = own.correct.transpose("seq", "shot").values.astype(float)
    if len(own.shot) < 3 or len(right) < 2 or np.isnan(right).any():
        return None
    rise = t_interval(right[:, late].mean(1) - right[:, 0])
    foil: tuple[float, ...] = (np.nan,) * 3
    if "foil" in readouts_of(dataset, task):
        odds = own.log_odds.sel(readout="foil").transpose("seq", "shot").values
        begin = int(np.argmax(own.shot.values >= 1))
        foil = tuple(map(float, t_interval(odds[:, late].mean(1) - odds[:, begin])))
    before = float(right[:, 0].mean())
    better = before >= RIGHT_BEFORE or (rise[1] > 0 and rise[0] >= RIGHT_LEAST * (1 - before))
    learnt = bool(better and not foil[1] <= 0)
    (mean, low, high), (foil_mean, foil_low, foil_high) = map(float, rise), foil
    return Learning(last, before, float(right[:, late].mean()), mean, low, high, foil_mean, foil_low, foil_high, learnt)


def null_controls(dataset: xr.Dataset) -> list[str]:
    """Tasks that have nothing to learn: an ideal observer's evidence is known, and none.

    Parameters
    ----------
    dataset
        In the curves format.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import null_controls, read_curves
    >>> null_controls(read_curves(Path("data/example.nc")))
    ['random_labels']
    """
    if "evidence" not in dataset:
        return []
    nothing = (dataset.evidence == 0).all([dim for dim in dataset.evidence.dims if dim != "task"])
    return [str(task) for task in dataset.task.values[nothing.values]]


def select(dataset: xr.Dataset, task: str, readout: str) -> Curves:
    """One task under one readout.

    Parameters
    ----------
    dataset
        In the curves format.
    task, readout
        Their names.

    Raises
    ------
    StatedError
        The file has no such task, or the task has no such readout.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves, select
    >>> curves = select(read_curves(Path("data/example.nc")), "past_tense", "complement")
    >>> curves.log_odds.shape  # 32 sequences, 0 to 32 examples
    (32, 33)
    >>> curves.log_odds[:, [0, 1, -1]].mean(0).round(1).tolist()
    [-10.6, -1.5, 2.4]
    """
    if task not in dataset.task.values:
        raise unknown("task", task, [str(name) for name in dataset.task.values])
    if readout not in readouts_of(dataset, task):
        raise unknown(f"readout of task {task!r}:", readout, readouts_of(dataset, task))
    chosen = dataset.log_odds.sel(task=task, readout=readout).transpose("seq", "shot").dropna("seq", how="all")

    def per_seq(name: str) -> np.ndarray | None:
        if name not in dataset:
            return None
        return dataset[name].sel(task=task, seq=chosen.seq).transpose("seq", ...).values

    odds, shots = chosen.values.astype(np.float64), dataset.shot.values
    evidence, observer, history, queries = map(per_seq, ("evidence", "observer", "history", "query"))
    evidence = None if evidence is None or not np.isfinite(evidence).any() else evidence.astype(np.float64)
    history = None if history is None else _history(history, dataset.history.dims, shots)
    curves = Curves(task, readout, shots.astype(float), odds, evidence, history=history)
    if (there := np.isfinite(odds)).sum(1).max() == 1 and odds.shape[1] > 1:
        place = there.argmax(1)[:, None]
        observer = None if observer is None else np.take_along_axis(observer.astype(np.float64), place, 1)
        curves = curves._replace(
            shots=shots[[-1]].astype(float), log_odds=np.take_along_axis(odds, place, 1), single=shots[place[:, 0]]
        )
    elif queries is not None and (queries.astype(str) != "").any():  # tasks without a query have no items
        codes = np.unique(queries.astype(str), return_inverse=True)[1]
        curves = curves._replace(items=codes.reshape(queries.shape).astype(np.int64))
    if observer is not None and np.isfinite(observer[:, -1].astype(float)).all():
        curves = curves._replace(observer=observer.astype(np.float64))
    elif curves.single is None and (observed := curves.observed) is not None:
        # From its updates, up to what it says at the first shot.
        curves = curves._replace(observer=np.pad(observed.cumsum(1), ((0, 0), (1, 0))))
    return curves


def _history(values: np.ndarray, dims: tuple, shots: np.ndarray) -> np.ndarray | None:
    """What examples showed, from the first on; None where some of them is not known."""
    values = values.astype(np.float64)
    if "place" in dims:
        return np.nan_to_num(values) if np.isfinite(values).any() else None
    if shots[0] != 0 or len(shots) != shots[-1] + 1:
        return None
    return np.nan_to_num(values) if np.isfinite(values[:, :-1]).all() else None


def check(dataset: xr.Dataset, source: str = "the curves") -> xr.Dataset:
    """Return the dataset if it keeps the format.

    Parameters
    ----------
    dataset
        What may be curves.
    source
        What an error calls it, as its file's name.

    Raises
    ------
    StatedError
        Names what is missing, or the cells that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from bayes_icl.curves import DIMS, check
    >>> coords = {"task": ["mine"], "readout": ["complement"], "seq": [0, 1], "shot": [0, 1, 2]}
    >>> check(xr.Dataset({"log_odds": (DIMS, np.zeros((1, 1, 2, 3)))}, coords)).sizes["shot"]
    3
    """
    missing = [name for name in NEEDED if name not in dataset] + [
        f"dimension {d}" for d in DIMS if d not in dataset.dims
    ]
    if missing:
        raise StatedError(f"{source} is not a curves file: it lacks {', '.join(missing)}; collect makes such files")
    if missing := [d for d in DIMS if d not in dataset.coords]:
        raise StatedError(f"{source}: the dimensions {', '.join(missing)} have no coordinates")
    for dim in ("task", "readout"):
        for name in dataset[dim].values.tolist():
            check_name(f"{source}: a {dim}", name)
    per_shot = {name: ("task", "seq", "shot") for name in ("evidence", "observer", "history")}
    if "history" in dataset and "place" in dataset.history.dims:  # of all examples before the query, from a table
        per_shot["history"] = ("task", "seq", "place")
    for name, dims in ({"log_odds": DIMS} | per_shot).items():
        if name in dataset and (set(dataset[name].dims) != set(dims) or dataset[name].dtype.kind not in "fiu"):
            raise StatedError(
                f"{source}: {name} must be real numbers of dimensions {', '.join(dims)}, not {dataset[name].dtype} of "
                f"{', '.join(map(str, dataset[name].dims)) or 'none'}"
            )
    for dim in DIMS:
        labels = dataset.indexes[dim]
        if not len(labels):
            raise StatedError(f"{source} is empty: it has no {dim}")
        if not labels.is_unique or labels.hasnans:
            raise StatedError(f"{source}: every {dim} must have a name or number of its own, got {labels.tolist()[:8]}")
    shots = dataset.shot.values
    if shots.dtype.kind not in "fiu" or abs(shots).max() > MOST:
        raise StatedError(f"{source}: shots must be numbers of examples, 0 to {MOST}, got {shots.tolist()[:8]}")
    if (shots < 0).any() or (shots % 1 != 0).any() or (np.diff(shots.astype(np.int64)) < 0).any():
        raise StatedError(
            f"{source}: shots must be whole numbers of examples that rise, 0 or more, got {shots.tolist()[:8]}"
        )
    odds = dataset.log_odds.transpose(*DIMS)
    # Sequences of a table may differ in number from task to task; a sequence that is NaN at all shots is absent.
    absent = odds.isnull().all("shot")
    # Single prompts: every sequence of the task is read once.
    single = (np.isfinite(odds).sum("shot") == 1) & (odds.sizes["shot"] > 1)
    bad = ~np.isfinite(odds) & ~absent & ~((single | absent).all("seq") & odds.isnull())
    if bool(bad.any()):
        cells = [dict(zip(DIMS, where)) for where in np.argwhere(bad.values)]
        named = "; ".join(
            ", ".join(f"{dim} {odds[dim].values[i]}" for dim, i in cell.items())
            + f" is {odds.values[tuple(cell.values())]}"
            for cell in cells[:3]
        )
        more = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
        why = INFINITE if np.isinf(odds.values).any() else "a readout that a task lacks is NaN for the whole task"
        raise StatedError(f"{source}: log_odds must be finite, but {named}{more}; {why}")
    for name in ("log_odds", *per_shot):
        largest = float(abs(dataset[name]).max()) if name in dataset else 0.0
        if largest > MOST:
            raise StatedError(
                f"{source}: {name} goes to {largest:.3g} nats, and {MOST} is beyond all that models say: does it stand "
                "for a missing value, or is it of another unit?"
            )
    empty = absent.all(("readout", "seq"))
    if bool(empty.any()):
        raise StatedError(f"{source}: no values for task {', '.join(map(str, dataset.task.values[empty.values]))}")
    return dataset


def read_curves(path: Path) -> xr.Dataset:
    """Read a curves file: netCDF, or a CSV table with the columns ``task, seq, shot, log_odds``.

    A table may have a column ``readout``; without one its values are taken as `complement`. A column ``evidence`` is
    the ideal observer's update at each shot, nats, since the shot before where shots are not consecutive; what is empty
    or NA there is not known. A column ``family`` says which tasks are alike, for `fit --pool`. A column ``history``
    says what the examples before the query showed, in order, as ``+-+``: + rule A's answer (whose log-odds are read), -
    rule B's, 0 neither; or, where all shots from 0 on have a row, what the example at that shot shows, as 1, -1 or 0. A
    column ``observer`` has the ideal observer's log-odds, nats. A table with one row for each sequence holds single
    prompts.

    Parameters
    ----------
    path
        The file; one that ends in ``.csv`` is read as a table.

    Raises
    ------
    StatedError
        No such file, not readable, or not in the format.

    Examples
    --------
    >>> from pathlib import Path
    >>> from bayes_icl.curves import read_curves
    >>> dataset = read_curves(Path("data/example.nc"))
    >>> dataset.task.values.tolist()
    ['copy', 'times_ten', 'past_tense', 'category', 'random_labels']
    >>> dataset.log_odds.dims
    ('task', 'readout', 'seq', 'shot')
    """
    if not path.is_file():
        raise StatedError(
            f"no curves file {str(path)!r}: run `python -m bayes_icl.collect` or give --curves an existing file"
        )
    if path.suffix.lower() == ".csv":
        return check(curves_from_table(path), str(path))
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            dataset = opened.load()
    except Exception as error:  # h5py raises many kinds on damaged files
        raise StatedError(f"{path} is not a readable netCDF file (damaged or cut short?): {error}") from error
    return check(dataset, str(path)).transpose(*DIMS, ...)  # the order that all take


def write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(to_netcdf(dataset))


def newest_curves(folder: Path = Path("data/curves")) -> Path:
    """The curves file written last."""
    files = sorted(folder.glob("*.nc"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise StatedError(f"no curves file in {folder}: run `python -m bayes_icl.collect` first, or give --curves")
    return files[-1]


READOUTS = ("complement", "foil", "format", "rule", "parity")
