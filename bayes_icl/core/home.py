"""A home folder that cannot be written: caches of PyTensor, matplotlib and ArviZ in a folder of this run's own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path

from platformdirs import user_cache_path


def spare_home() -> None:
    """Let libraries that write into the home folder when they are imported do so elsewhere, where it cannot be written.

    What a user's cache holds is still read: only ArviZ, which makes a folder there, is told of another. The folder is
    new each time, since PyTensor runs what it finds in its own.
    """
    flags = os.environ.get("PYTENSOR_FLAGS", "")
    compiles = "compiledir" in flags or _writable(Path.home() / ".pytensor")
    draws = "MPLCONFIGDIR" in os.environ or _writable(Path.home() / ".config" / "matplotlib")
    caches = _writable(user_cache_path())
    if compiles and draws and caches:
        return
    folder = Path(tempfile.mkdtemp(prefix="bayes_icl-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if not compiles:
        os.environ["PYTENSOR_FLAGS"] = ",".join(filter(None, [flags, f"base_compiledir={folder}"]))
    if not draws:
        os.environ["MPLCONFIGDIR"] = str(folder)
    if not caches:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = str(folder)
        try:
            with warnings.catch_warnings():  # of its next version, once a day
                warnings.simplefilter("ignore")
                import arviz  # noqa: F401
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before


def _writable(path: Path) -> bool:
    """Whether a folder can be made or written there."""
    try:
        while not path.exists():
            path = path.parent
    except OSError:  # a folder above it cannot be read
        return False
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)
