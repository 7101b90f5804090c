"""Schemas of tables: what is written, what is read, what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bayes_icl.core.schemas import INTERVAL, Column, Table, columns

TABLE = Table(
    "made",
    "A row for each thing.",
    (
        Column("task", "which", "text"),
        Column("n", "how many", "count"),
        Column("lost", "what is lost", ends=INTERVAL, written="gone", formerly="away"),
        Column("sure", "whether its interval excludes 0", "flag"),
        *columns("a b", "attention", optional=True),
    ),
    {"prior_.*": "priors"},
)
ROWS = [
    {"task": "7", "n": 2, "lost": 0.5, "lost_low": 0.25, "lost_high": 1.0, "sure": True},
    {"task": "null", "n": 3, "lost": float("nan"), "lost_low": 0.25, "lost_high": 1.0, "sure": False},
]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    path.write_bytes(TABLE.to_csv(TABLE.frame(ROWS)))
    assert path.read_text().splitlines()[0] == "task,n,gone,gone_low,gone_high,sure"
    pd.testing.assert_frame_equal(TABLE.read(path), pd.DataFrame(ROWS), check_dtype=False)


def test_names_of_before_are_read(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    path.write_text("task,n,away,away_low,away_high,sure\nx,1,0.5,0.25,1,True\n")
    assert TABLE.read(path).lost.tolist() == [0.5] and TABLE.formerly() == {"away": "gone"}


def test_a_table_without_rows_has_its_columns_and_their_kinds(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    path.write_bytes(TABLE.to_csv(TABLE.frame([])))
    read = TABLE.read(path)
    assert list(read) == TABLE.names and read.n.dtype == int and read.sure.dtype == bool


def test_a_column_that_no_schema_knows_is_not_written() -> None:
    table = TABLE.frame(ROWS)
    assert TABLE.to_csv(table.assign(a=1.0, prior_x=2.0))  # optional, and one that depends on the run
    with pytest.raises(ValueError, match=r"made.csv has columns that no schema knows: strange"):
        TABLE.to_csv(table.assign(strange=1))
    with pytest.raises(ValueError, match=r"made.csv lacks sure"):
        TABLE.to_csv(table.drop(columns="sure"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("task,n,gone,gone_low,sure\nx,1,0,0,True\n", "lost_high"),
        ("task,n,gone,gone_low,gone_high,sure\nx,many,0,0,1,True\n", "n"),
        ("task,n,gone,gone_low,gone_high,sure\nx,1,much,0,1,True\n", "lost"),
    ],
)
def test_another_table_is_refused_with_the_column_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "made.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"is not made.csv as this version reads it: .*\b{named}\b"):
        TABLE.read(path)


def test_columns_of_one_meaning_stand_in_one_row_of_the_page() -> None:
    page = TABLE.to_markdown()
    assert "| `a`, `b` | attention |" in page and "| `gone` | what is lost |" in page
