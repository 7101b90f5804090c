"""Tables with what examples showed: every form of a history, and what is wrong in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bayes_icl.core.errors import StatedError
from bayes_icl.curves import Curves, read_curves, select


def read(path: Path, rows: list[tuple], columns: str = "task,seq,shot,log_odds,history") -> Curves:
    path.write_text(columns + "\n" + "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows))
    return select(read_curves(path), "t", "complement")


def test_a_history_by_shot(tmp_path: Path) -> None:
    """What the example at a shot shows; that after the last reading need not be known."""
    shown = ["1", "-1", "+1", "0.0", ""]
    rows = [("t", s, n, 0.1 * n, shown[(n + s) % 4 if n < 4 else 4]) for s in range(2) for n in range(5)]
    curves = read(tmp_path / "c.csv", rows)
    assert curves.history is not None
    assert curves.history[:, :4].tolist() == [[1, -1, 1, 0], [-1, 1, 0, 1]]
    assert curves.disagrees and curves.single is None
    # One example before the last reading that is not known, or none from shot 0 on, is no history.
    assert read(tmp_path / "c.csv", [(*r[:4], "") if r[:3] == ("t", 1, 2) else r for r in rows]).history is None
    assert read(tmp_path / "c.csv", [r for r in rows if r[2] > 0]).history is None


@pytest.mark.parametrize(
    "cells",
    [
        ("+", "+-+", "+-+0-"),
        ("1", "1 -1 1", "1 -1 1 0 -1"),
        ("[+1]", "[1, -1, 1]", "(1;-1;+1;0;-1)"),
        ("+", "+1-1+1", "1-110-1"),
    ],
)
def test_a_history_of_all_before_the_query(tmp_path: Path, cells: tuple[str, ...]) -> None:
    """In any of its spellings, at whatever shots are read."""
    rows = [("t", s, len(text), 0.3, text) for s in (0, 1) for text in ("+", "+-+", "+-+0-")]
    plain = [(*row[:4], cell) for row, cell in zip(rows, cells * 2)]
    curves = read(tmp_path / "c.csv", plain)
    assert curves.shots.tolist() == [1, 3, 5]
    assert curves.history is not None and curves.history.tolist() == [[1, -1, 1, 0, -1]] * 2
    later = curves.since(3)
    assert later.history is curves.history and later.shots.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("+-", r"line 3: history must say what each of the 3 examples before the query showed, as in '\+-\+' .* has 2"),
        ("+x+", r"line 3: history must say .* got '\+x\+'$"),
        ("", r"line 3: history must say what each of the 3 examples"),
        ("++-", r"line 4: the history of task t, seq 0 is not that of its other rows, gone on: give every text a seq"),
    ],
)
def test_a_history_that_is_wrong_is_one_line(tmp_path: Path, cell: str, says: str) -> None:
    rows = [("t", 0, 1, 0.1, "+"), ("t", 0, 3, 0.2, cell), ("t", 0, 4, 0.2, "+-+-")]
    with pytest.raises(StatedError, match=says) as error:
        read(tmp_path / "c.csv", rows)
    assert "\n" not in str(error.value)
    read(tmp_path / "c.csv", [rows[0], ("t", 0, 3, 0.2, "+-+"), rows[2]])  # the control


def test_an_observer(tmp_path: Path) -> None:
    """Its log-odds; that of the example, the same in all readouts; not known at the last shot it is none."""
    columns = "task,seq,shot,log_odds,observer"
    rows = [("t", s, n, 0.1, 0.5 * n - s) for s in range(2) for n in range(4)]
    curves = read(tmp_path / "c.csv", rows, columns)
    assert curves.observer is not None and curves.history is None
    assert curves.observer.tolist() == [[0, 0.5, 1, 1.5], [-1, -0.5, 0, 0.5]] and not curves.disagrees
    assert read(tmp_path / "c.csv", [*rows[:-1], (*rows[-1][:4], "NA")], columns).observer is None
    falls = read(tmp_path / "c.csv", [*rows[:-1], (*rows[-1][:4], "-3")], columns)
    assert falls.disagrees
    with pytest.raises(StatedError, match="line 9: observer must be a number, got 'much'"):
        read(tmp_path / "c.csv", [*rows[:-1], (*rows[-1][:4], "much")], columns)
    both = [("t", r, 0, n, 0.1, 0.5 * n + (r == "foil") * (n == 2)) for r in ("complement", "foil") for n in range(4)]
    with pytest.raises(StatedError, match="task t, seq 0, shot 2 has another observer in another readout"):
        read(tmp_path / "c.csv", both, "task,readout,seq,shot,log_odds,observer")


def test_single_prompts(tmp_path: Path) -> None:
    """A row for each sequence, of several numbers of examples."""
    texts = ["+", "+-+", "-", "-+-", "++-"]
    rows = [("t", s, len(text), 0.1 * s, text) for s, text in enumerate(texts)]
    curves = read(tmp_path / "c.csv", rows)
    assert curves.single is not None and curves.single.tolist() == [1, 3, 1, 3, 3]
    np.testing.assert_allclose(curves.log_odds[:, 0], [0, 0.1, 0.2, 0.3, 0.4])
    assert curves.history is not None and curves.history[1].tolist() == [1, -1, 1] and curves.disagrees
    later = curves.since(2)
    assert later.single is not None and later.history is not None
    assert later.single.tolist() == [3, 3, 3] and later.history[:, 0].tolist() == [1, -1, 1]
