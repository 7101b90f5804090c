"""Where a file came from: one JSON attribute in every file that a command writes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray as xr

from bayes_icl.core.files import sha256
from bayes_icl.core.intervals import LEVEL

USUAL = 0.95  # the level that keys do not mention

PACKAGES = (
    *("bayes_icl", "numpy", "xarray", "torch", "transformers", "transformer_lens"),
    *("pymc", "pytensor", "nutpie", "arviz", "statsmodels"),
)


def code_hash() -> str:
    """SHA-256 of this package's source, lest a run go on with what other code has left."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def key_of(decisive: Mapping[str, Any]) -> str:
    """Key of what decides a run's numbers: files with the same key hold the same."""
    level = {} if LEVEL == USUAL else {"level": LEVEL}  # intervals of another level are other numbers
    return hashlib.sha256(to_attribute({**decisive, **level}).encode()).hexdigest()


def resume_key(key: str, settings: object, model: Mapping[str, str]) -> str:
    """The key under which unfinished parts of a run are kept: settings, inputs, model, code and versions.

    Parameters
    ----------
    key
        That of the finished output, which holds the hashes of the inputs.
    settings
        The command's dataclass; where it writes and how many processes it takes changes nothing.
    model
        What identifies it (`Model.provenance`).
    """
    own = dataclasses.asdict(settings)  # type: ignore[call-overload]
    own = {name: value for name, value in own.items() if name not in ("out", "figures", "force", "workers")}
    return key_of({"key": key, "settings": own, "model": dict(model), "code": code_hash(), "packages": _versions()})


def provenance(
    settings: object, *, started: datetime, model: Mapping[str, str] | None = None, inputs: Iterable[Path] = ()
) -> dict[str, Any]:
    """The record of a run.

    Parameters
    ----------
    settings
        The command's dataclass of settings, which holds its seeds.
    started
        When the run began, UTC.
    model
        What identifies the model (`Model.provenance`).
    inputs
        Files read; their SHA-256 is recorded.
    """
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "settings": dataclasses.asdict(settings),  # type: ignore[call-overload]
        **({"model": dict(model)} if model else {}),
        "packages": _versions(),
        "python": platform.python_version(),
        "git": _git(),
        "started": started.isoformat(timespec="seconds"),
        "finished": now(),
        "inputs": _digests(list(inputs)),
    }


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 by name, or by path where several have one name."""
    times = Counter(path.name for path in paths)
    names = {path: path.name if times[path.name] == 1 else path.as_posix() for path in paths}
    return {name: sha256(path) for path, name in names.items()}


def command_of(name: str, settings: Mapping[str, Any], defaults: object) -> str:
    """The command line that gives these settings: flags for what differs from the defaults, `force` left out.

    Parameters
    ----------
    name
        The command's module.
    settings
        As a record holds them: a dataclass as JSON.
    defaults
        The command's dataclass with its defaults.
    """
    plain = json.loads(to_attribute(dataclasses.asdict(defaults)))  # type: ignore[call-overload]
    words = ["python", "-m", f"bayes_icl.{name}"]
    for key, value in settings.items():
        if key == "force" or value == plain.get(key) or value is None:
            continue
        flag = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def now() -> str:
    """The time as records hold it, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def to_attribute(record: Mapping[str, Any]) -> str:
    """A record as the JSON text that netCDF can hold."""
    return json.dumps(record, default=str, ensure_ascii=False)


def record_of(dataset: xr.Dataset) -> dict[str, Any]:
    """What a dataset says of its making; empty if it says nothing that can be read."""
    return read_record(dataset.attrs.get("provenance", "{}"))


def read_record(text: object) -> dict[str, Any]:
    """A record from its JSON text, without the parts that are none: another tool's may be anything."""
    try:
        record = json.loads(text) if isinstance(text, str | bytes) else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(record, dict):
        return {}
    parts = {name: record.get(name) for name in ("settings", "model", "inputs")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            record.pop(name, None)
    if not all(isinstance(value, str) for value in record.get("model", {}).values()):
        del record["model"]
    return record


def _versions() -> dict[str, str]:
    return {name: version for name in PACKAGES if (version := _version(name))}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of this package's own checkout and whether it has changes; None where it is installed without one."""
    folder = Path(__file__).parent
    try:
        ask = ["git", "-C", str(folder)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        tracked = [*ask, "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        status = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
