"""Finished parts of an unfinished run, in one file beside its output, keyed by what decides its numbers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import WRITER


class Checkpoint:
    """Finished parts of a run, in one file beside its output until that is written.

    Each part has its hash, so that what a kill cut short or somebody altered is made again, with what came after it.

    Parameters
    ----------
    path
        The file; ``NAME.part``.
    key
        `provenance.resume_key` of the run; parts of another key are put aside, as ``NAME.part.KEY``.

    Raises
    ------
    StatedError
        Something else stands at `path`.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._at: dict[str, tuple[int, int]] = {}
        head = f"{WRITER} parts {key}\n".encode()
        end = 0
        self._change_over(key)
        if os.path.lexists(path):
            foreign = StatedError(f"{path} is in the way of what a run keeps until it is finished: move it away")
            if not path.is_file():
                raise foreign
            with path.open("rb") as file:
                first = file.readline(1000)
                if first and not head.startswith(first):
                    raise foreign
                if first == head:
                    end = self._scan(file)
            if end and end < path.stat().st_size:
                print(f"{path} is damaged or cut short: what follows is made again", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._end = end or len(head)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(end)
            if not end:
                file.write(head)
        if self._at:
            print(f"going on: {len(self._at)} parts of an unfinished run are kept", file=sys.stderr)

    def _change_over(self, key: str) -> None:
        """Put parts of another key aside, and take up those of this one that were."""
        begins = f"{WRITER} parts ".encode()
        if self.path.is_file():
            with self.path.open("rb") as file:
                first, more = file.readline(1000), file.read(1)
            other = first.removeprefix(begins).decode("ascii", "replace").rstrip("\n")
            if first.startswith(begins) and first.endswith(b"\n") and other != key:
                kept = self._aside(other)
                self.path.rename(kept) if more else self.path.unlink()
                said = f": kept as {kept.name}, for a run with those" if more else ""
                print(
                    f"{self.path} is of other settings, inputs or code, and is not gone on with{said}", file=sys.stderr
                )
        if self._aside(key).is_file() and not os.path.lexists(self.path):
            self._aside(key).rename(self.path)

    def _aside(self, key: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{hashlib.sha256(key.encode()).hexdigest()[:8]}")

    def _scan(self, file: Any) -> int:
        """Find the parts; where the last good one ends."""
        end = file.tell()
        while line := file.readline():
            try:
                digest, size, name = line.decode().rstrip("\n").split(" ", 2)
                start, name = file.tell(), json.loads(name)
                content = file.read(int(size))
            except ValueError:
                break
            if len(content) != int(size) or _digest(name, content) != digest:
                break
            self._at[name] = start, int(size)
            end = file.tell()
        return end

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def get(self, name: str) -> bytes | None:
        """A part that was kept, else None."""
        if name not in self._at:
            return None
        start, size = self._at[name]
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def put(self, name: str, content: bytes) -> None:
        """Keep a part."""
        head = f"{_digest(name, content)} {len(content)} {json.dumps(name)}\n".encode()
        with self.path.open("r+b") as file:
            file.seek(self._end)
            file.truncate()  # what a full disk has cut short
            file.write(head + content)
        self._at[name] = self._end + len(head), len(content)
        self._end += len(head) + len(content)

    def arrays(self, name: str, compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What ``compute()`` gives, by name; taken from the file if it is there."""
        kept = self.get(name)
        if kept is None:
            buffer = io.BytesIO()
            np.savez(buffer, **compute())  # type: ignore[arg-type]
            self.put(name, kept := buffer.getvalue())
        with np.load(io.BytesIO(kept), allow_pickle=False) as arrays:
            return dict(arrays)

    def drop(self) -> None:
        """Remove the file: the output is written."""
        self.path.unlink(missing_ok=True)


def _digest(name: str, content: bytes) -> str:
    return hashlib.sha256(name.encode() + b"\0" + content).hexdigest()
