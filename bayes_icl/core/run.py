"""One run of a command: settings, key, made before?, work, provenance, files, figures, summary."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bayes_icl.core.checkpoints import Checkpoint
from bayes_icl.core.outputs import Output
from bayes_icl.core.provenance import key_of, provenance, resume_key, to_attribute

SUMMARY = "summary.txt"  # what was printed, beside the figures


def key_without(settings: Any, names: Iterable[str], **more: Any) -> str:
    """Key of what decides the numbers: settings but for some, and what else does.

    Parameters
    ----------
    settings
        The command's dataclass; where it writes decides nothing.
    names
        Other settings that change no number, or that `more` has in another form.
    **more
        Hashes of the files that are read, and the like.
    """
    left = {*names, "figures", "force", "out"}
    return key_of({name: value for name, value in asdict(settings).items() if name not in left} | more)


@dataclass
class Run:
    """A run of a command, from its settings to what it leaves.

    Attributes
    ----------
    settings
        The command's dataclass; its field `force` is read.
    output
        What it makes.
    inputs
        Files that it reads.
    figures
        Where figures and what is printed go; None where nothing is drawn.
    beside
        Names of files that are written beside the output's main one.
    others
        How an output of another key was made, for messages.
    started
        When the run began, UTC.
    """

    settings: Any
    output: Output
    inputs: Sequence[Path] = ()
    figures: Output | None = None
    beside: Sequence[str] = ()
    others: str = "from other curves or settings"
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    _parts: Checkpoint | None = None

    def carry_out(
        self,
        key: str | Callable[[], str],
        work: Callable[[str], Mapping[str, bytes]],
        show: Callable[[], tuple[dict[str, bytes], str]] | None = None,
    ) -> bool:
        """Make the output unless it stands there already; draw and print in either case.

        Parameters
        ----------
        key
            Hash of what decides the numbers; a function where a model must be loaded to know it.
        work
            From the key to the files of the output, by name.
        show
            From the output as it stands to figures by name, and what is printed.

        Returns
        -------
        bool
            Whether the work was done.

        Raises
        ------
        StatedError
            Something stands in the way, and it is said before the work is done.
        """
        force = self.settings.force
        if self.figures:
            self.figures.check(force=force, beside=[SUMMARY])
        with self.output.held(force=force, beside=self.beside):
            decided = key if isinstance(key, str) else key()
            made = not self.output.holds(decided, self.others, force=force)
            if made:
                self.output.write(work(decided), decided)
                if self._parts:
                    self._parts.drop()
            elif show:
                named = self.output.named
                print(
                    f"{named} was made from these curves with these settings; drawn and printed again", file=sys.stderr
                )
            else:
                print(f"nothing to do: {self.output.named} was made with these settings", file=sys.stderr)
            if show:
                files, summary = show()
        if show and self.figures:
            with self.figures.held(force=force):
                self.figures.write({**files, SUMMARY: summary.encode()}, of=self.output.named)
            print(summary, file=sys.stderr)
            print(self.figures.folder)
        return made

    def checkpoint(self, key: str, identity: Mapping[str, str]) -> Checkpoint:
        """Parts of an unfinished run with this key and model; they go when the output is written."""
        part = self.output.named.with_name(f"{self.output.named.name}.part")
        self._parts = Checkpoint(part, resume_key(key, self.settings, identity))
        return self._parts

    def record(self, identity: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Provenance of what was made, and of the model where one was run."""
        return provenance(self.settings, started=self.started, model=identity, inputs=self.inputs)

    def attributes(self, key: str, identity: Mapping[str, str]) -> dict[str, str]:
        """Key and provenance as attributes of a netCDF file."""
        return {"key": key, "provenance": to_attribute(self.record(identity))}
