"""How a command starts: flags first, and all that is slow to load after them."""

from __future__ import annotations

import importlib

import tyro

from bayes_icl.core.errors import exit_stating


def run(name: str, settings: type) -> None:
    """Parse the flags of a command and run it; ends the process.

    Parameters
    ----------
    name
        The command's package.
    settings
        Its dataclass, whose fields are the flags.
    """
    given: object = tyro.cli(settings, prog=f"python -m bayes_icl.{name}")
    exit_stating(lambda: importlib.import_module(f"bayes_icl.{name}.command").main(given))
