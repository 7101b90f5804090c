"""Files: hashes, names, tables, and the text and bytes that are written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

if TYPE_CHECKING:
    import arviz as az

WRITER = "bayes_icl"


def within(inner: Path, outer: Path) -> bool:
    """Whether a folder lies in another one, and is not the same."""
    return outer.resolve() in inner.resolve().parents


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(content: Any) -> bytes:
    """JSON text for people: indented, names as they are."""
    return (json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n").encode()


def to_csv(table: pd.DataFrame, **how: Any) -> bytes:
    """A table as CSV."""
    return table.to_csv(index=False, lineterminator="\n", **how).encode()


SMALL = 2**15  # bytes up to which a variable is not compressed: that would cost more than it saves


def to_netcdf(dataset: xr.Dataset) -> bytes:
    """A dataset as netCDF, compressed; made in memory, since HDF5 does not survive a full disk."""
    return bytes(dataset.to_netcdf(engine="h5netcdf", encoding=_encoding(dataset)))


def inference_to_netcdf(inference: az.InferenceData) -> bytes:
    """InferenceData as netCDF, compressed, as ``to_netcdf`` of ArviZ writes it."""
    tree = inference.to_datatree()
    encoding = {node.path: _encoding(node.to_dataset(inherit=False)) for node in tree.subtree}
    return bytes(tree.to_netcdf(engine="h5netcdf", encoding={path: own for path, own in encoding.items() if own}))


def _encoding(dataset: xr.Dataset) -> dict[Any, dict[str, Any]]:
    return {
        name: {"zlib": True, "complevel": 4}
        for name, variable in dataset.data_vars.items()
        if variable.dtype.kind in "fiub" and variable.nbytes > SMALL
    }


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_name(name: str) -> str:
    """A task's name; what a file system might not take becomes a hyphen, and a hash keeps such names apart."""
    plain = re.sub("[^A-Za-z0-9_.=,+-]", "-", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def beside(path: Path, end: str) -> Path:
    """A file with the name of a netCDF file and another ending: a table that belongs to it."""
    return path.with_name(f"{path.name.removesuffix('.nc')}.{end}")


def read_table(path: Path, text: Iterable[str] = ("task", "readout", "hypothesis")) -> pd.DataFrame:
    """A table that a command wrote; in columns of text names are as they are: a task may be called null, or 7."""
    names = dict.fromkeys(text, str)
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
