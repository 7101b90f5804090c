"""Files that a command leaves: whole or not at all, and never in the place of somebody else's.

What a run writes is swapped in together. A hidden record in the folder, ``.NAME.json``, lists the files with their
SHA-256; a command replaces and removes only what a record lists. Parts of an unfinished run are kept in one file beside
the output, keyed by settings, inputs, code and versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bayes_icl.core.errors import StatedError
from bayes_icl.core.files import WRITER, sha256, to_json

NAMED = 3  # most files that a message names

RECORD = ".record"  # the new record, among files that wait to be swapped in


class Output:
    """Some files of one command in a folder.

    Parameters
    ----------
    folder
        Where they stand.
    command
        The one that writes them.
    main
        The file that the user named, for outputs that are one; what belongs to it stands beside it.
    flag
        The flag that names the output, for messages.
    alone
        A folder in which nothing else may stand, as seen from `folder`; None if others may write there too.
    inputs
        Files that the run reads, which it must not replace.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        *,
        main: str = "",
        flag: str = "--out",
        alone: str | None = None,
        inputs: Iterable[Path] = (),
    ) -> None:
        self.folder, self.command, self.main, self.flag = folder, command, main, flag
        self.inputs = [path for path in inputs if path.exists()]
        self._alone, self._force = alone, False
        self._label = main or command
        self._record, self._lock, self._staged, self._whole = (
            folder / f".{self._label}.{end}" for end in ("json", "lock", "new", "whole")
        )

    @classmethod
    def file(cls, path: Path, command: str, *, suffixes: tuple[str, ...] = (".nc",), **more: Any) -> Output:
        """The output of a command that writes one file, with others beside it.

        Raises
        ------
        StatedError
            It has another ending.
        """
        if path.suffix not in suffixes:
            kind = "an HTML page" if ".html" in suffixes else "a netCDF file"
            raise StatedError(f"--out {path}: {kind} is written: give a name that ends in {suffixes[0]}")
        return cls(path.parent, command, main=path.name, **more)

    @property
    def named(self) -> Path:
        """What the user named: the file or the folder."""
        return self.folder / self.main if self.main else self.folder

    @contextmanager
    def held(self, *, force: bool = False, beside: Iterable[str] = ()) -> Iterator[None]:
        """Keep other runs away from these files while the block runs, after checking that they can be written.

        A run that was killed while it swapped its files in is finished first.

        Parameters
        ----------
        force
            Replace the file that was named, even if no record lists it.
        beside
            Names of other files that will be written.

        Raises
        ------
        StatedError
            The folder cannot be written, or holds what is not of this command; another run is at it.
        """
        self._force = force
        lock = FileLock(self._lock, timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise StatedError(
                f"{self.named} is being written by another run: wait for its end, or give another {self.flag}"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._finish()
            self._check([*([self.main] if self.main else []), *beside, *self._own()], force=force)
            yield
        finally:
            self._lock.unlink(missing_ok=True)  # while it is held, lest another run's be removed
            lock.release()

    def check(self, *, force: bool = False, beside: Iterable[str] = ()) -> None:
        """Check now, before the work, that these files can be written later; raises as `held`."""
        with self.held(force=force, beside=beside):
            pass

    def holds(self, key: str, what: str, *, force: bool = False) -> bool:
        """Whether the files of a run with this key stand here as they were written.

        Parameters
        ----------
        key
            Hash of what decides the content.
        what
            How files of another key were made, for the message: "with other settings".
        force
            Whether what stands here is to be replaced.

        Raises
        ------
        StatedError
            Files of another run stand here, and `force` is not given.
        """
        own = self._runs().get("", {})
        if not own or force:
            return False
        if own["key"] != key:
            raise StatedError(f"{self.named} was made {what}: give another {self.flag}, or --force to replace it")
        if missing := [name for name in own["files"] if not (self.folder / name).exists()]:
            are = "is" if len(missing) == 1 else "are"
            print(f"{_listed(self.folder, missing)} {are} missing: made again", file=sys.stderr)
        return not missing

    def write(self, files: Mapping[str, bytes], key: str = "", *, of: Path | None = None) -> None:
        """Swap in all files of a run, and remove those of its record that it does not write any more.

        Parameters
        ----------
        files
            Content by name, as seen from the folder.
        key
            Hash of what decides the content.
        of
            The output that they show, where several runs of one command may write into the folder.

        Raises
        ------
        StatedError
            Something stands in the way by now; what was made is kept and takes its place in the next run.
        """
        runs, shown = self._runs(), ""
        if of is not None:  # as seen from here, and hashed, since records may be published
            shown = hashlib.sha256(os.path.relpath(of, self.folder).encode()).hexdigest()[:16]
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        before = runs.get(shown, {}).get("files", {})
        for run in runs.values():
            run["files"] = {name: digest for name, digest in run["files"].items() if name not in files}
        runs = {name: run for name, run in runs.items() if run["files"]}
        runs[shown] = {"key": key, "files": digests}
        gone = {name: digest for name, digest in before.items() if name not in files}
        record = {"written_by": WRITER, "command": self.command, "alone": self._alone == ".", "runs": runs}
        record |= {"gone": gone, "force": self._force}
        shutil.rmtree(self._staged, ignore_errors=True)
        try:
            for name, content in {**files, RECORD: to_json(record)}.items():
                path = self._staged / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._staged.rename(self._whole)
        except BaseException:
            shutil.rmtree(self._staged, ignore_errors=True)
            raise
        self._finish()

    def _finish(self) -> None:
        """Move what waits to be swapped in to its places, the record last, after what a kill has left."""
        shutil.rmtree(self._staged, ignore_errors=True)
        waiting = self._whole / RECORD
        if waiting.is_file():
            record = json.loads(waiting.read_text(encoding="utf-8"))
            files = _files(record["runs"])
            names = [name for name in files if (self._whole / name).is_file()]
            moved = {name: digest for name, digest in files.items() if self._state(name, digest) == "as it was"}
            try:
                self._check(names, force=record["force"], moved=moved)
            except StatedError as error:
                raise StatedError(
                    f"{error}; what was made is kept in {self._whole}, and moved when you run again"
                ) from None
            for name in names:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self._whole / name, self.folder / name)
            for name, digest in record["gone"].items():
                if self._state(name, digest) == "as it was":
                    (self.folder / name).unlink()
            os.replace(waiting, self._record)
        shutil.rmtree(self._whole, ignore_errors=True)

    def _check(self, names: Iterable[str], *, force: bool, moved: Mapping[str, str] | None = None) -> None:
        """Refuse to replace what no record lists, what is no plain file, and what the run reads.

        Parameters
        ----------
        moved
            Files that a run which was killed has moved to their places already.
        """
        own, others = self._own(), self._listed_by_others()
        for name in dict.fromkeys(names):
            path = self.folder / name
            if not os.path.lexists(path):
                continue
            if not path.is_file() or path.is_symlink():
                raise StatedError(f"{path} is no plain file: give another {self.flag}")
            if any(path.samefile(read) for read in self.inputs):
                raise StatedError(f"{path} is an input of this run: give another {self.flag}")
            if name in others or (name in own and (force or self._state(name, own[name]) == "as it was")):
                continue
            if name in own:
                raise StatedError(
                    f"{path} is not as {self.command} wrote it, but changed or damaged since: move it away and run "
                    "again, or --force to replace it"
                )
            if name != self.main:
                raise StatedError(
                    f"{path} is in the way, and no record says that bayes_icl wrote it: move it away, or give another "
                    f"{self.flag}"
                )
            if not force:
                raise StatedError(
                    f"{path} exists, and no record says that {self.command} wrote it: give another {self.flag}, or "
                    f"--force to replace it (a copy needs its hidden record, {self._record.name})"
                )
        for other in self.folder.glob(".*.json"):
            if self._alone is None and not self.main and other != self._record and _stands_alone(other):
                raise StatedError(f"{self.folder} is the folder of another command alone: give another {self.flag}")
        if self._alone is not None and (strange := self._strange({**own, **(moved or {})})):
            raise StatedError(
                f"{self.folder / self._alone} holds {_listed(Path(), strange)}, which no record says that "
                f"{self.command} wrote: give another {self.flag}, or move {_them(strange)} away"
                + ("" if own else f" (a copy needs its hidden record, {self._record.name})")
            )

    def _strange(self, own: Mapping[str, str]) -> list[str]:
        """Files in the folder of this command alone that it did not write; no more than a message names and one."""
        found: list[str] = []
        assert self._alone is not None
        for folder, folders, names in os.walk(self.folder / self._alone):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = [name for name in folders if (Path(folder) / name).is_symlink()]  # what is there is elsewhere
            for name in sorted([*names, *links]):
                path = (Path(folder) / name).relative_to(self.folder)
                if not name.startswith(".") and path.as_posix() not in own:
                    found.append(str(path))
            if len(found) > NAMED:
                break
        return found

    def _runs(self) -> dict[str, dict[str, Any]]:
        """By what they were made from, key and files of the runs that the record lists."""
        return _read_record(self._record)

    def _own(self) -> dict[str, str]:
        """SHA-256 by name of all files that the record lists."""
        return _files(self._runs())

    def _listed_by_others(self) -> set[str]:
        """Files that other commands' records list, and that are as these wrote them."""
        records = [path for path in self.folder.glob(".*.json") if path != self._record]
        files = [file for path in records for file in _files(_read_record(path)).items()]
        return {name for name, digest in files if self._state(name, digest) == "as it was"}

    def _state(self, name: str, digest: str) -> str:
        return _state(self.folder / name, digest)

    def _unwritable(self, error: OSError) -> StatedError:
        return StatedError(f"cannot write {self.named} ({error.strerror or error}): give another {self.flag}")


def problem_of(folder: Path, label: str) -> str:
    """What is wrong with an output, by its record: files that are missing or changed; empty if nothing is known.

    Parameters
    ----------
    folder, label
        Where the output stands, and the name of its file, or of the command for a folder.
    """
    for name, digest in _files(_read_record(folder / f".{label}.json")).items():
        if (state := _state(folder / name, digest)) != "as it was":
            return f"{name} is {state}"
    return ""


def _read_record(path: Path) -> dict[str, dict[str, Any]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["written_by"] != WRITER:
            return {}
        return {
            str(of): {"key": str(run["key"]), "files": {str(n): str(x) for n, x in run["files"].items()}}
            for of, run in record["runs"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged: nothing is known
        return {}


def _files(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """SHA-256 by name of the files of all runs that a record lists."""
    return {name: digest for run in runs.values() for name, digest in run["files"].items()}


def _stands_alone(path: Path) -> bool:
    """Whether a record is of a folder in which nothing else may stand."""
    try:
        return bool(_read_record(path)) and json.loads(path.read_text(encoding="utf-8")).get("alone") is True
    except (OSError, ValueError):
        return False


def _state(path: Path, digest: str) -> str:
    if not path.is_file():
        return "missing"
    return "as it was" if sha256(path) == digest else "changed"


def _listed(folder: Path, names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(str(folder / name) for name in names[:NAMED]) + more


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
