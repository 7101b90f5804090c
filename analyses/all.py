"""Run the claims and the comparison across tasks, measure what each takes, and list their outputs.

``python analyses/all.py`` (`make analyses`): claim1, claim2, claim3, across_tasks, each stage skipped where its output
is there; it goes on where it stopped. Then analyses/README.md, a row a page or figure. A script's minutes stand in
figures/minutes.json and are those of a run from nothing: time before and after a stop is added up
(figures/minutes.json.part; without it the run is a new one), and a run that finds outputs leaves them as they are.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import across_tasks
import claim2
import claims
from claims import ROOT

from bayes_icl.core.errors import DONE, exit_stating
from bayes_icl.core.files import replacing
from bayes_icl.core.parallel import cores

MINUTES, README = ROOT / "figures/minutes.json", ROOT / "analyses/README.md"
TICK = 10.0  # seconds after which the time taken is on disk: as much as a kill may lose


@dataclass(frozen=True)
class Script:
    """One script of analyses/.

    Attributes
    ----------
    path
        The file.
    target
        What `make` calls it.
    page
        What it writes; its figures are those that the page points at.
    outputs
        What its stages write last: where one is there, a run does not start from nothing.
    """

    path: Path
    target: str
    page: Path
    outputs: tuple[Path, ...]


HERE, DOCS = ROOT / "analyses", ROOT / "docs"
WHOLE = "provenance.json"  # the last file of a folder of fits
SCRIPTS = (
    Script(HERE / "claim1.py", "claim1", DOCS / "claim1.md", (claims.CURVES, claims.PATCHED)),
    Script(HERE / "claim2.py", "claim2", DOCS / "claim2.md", (claim2.FITS / WHOLE, claim2.EFFECTS)),
    Script(HERE / "claim3.py", "claim3", DOCS / "claim3.md", (claims.PATCHED,)),
    Script(HERE / "across_tasks.py", "across", across_tasks.PAGE, (across_tasks.CURVES, across_tasks.FITS / WHOLE)),
)

TEMPLATE = """# Analyses

*Written by `analyses/all.py` (`make analyses`).*

A script a claim: it calls the commands with the settings of the claim, and writes a page whose sentences are made from
their output. All of them at once: `make analyses`. Every stage keeps what it has finished, so after a stop the same
command goes on.

| page or figure | script | command | minutes |
|---|---|---|---|
{rows}

{measured}

Beside these:

- `notebook.py`: curves, laws, verdict, posterior, a law of one's own and heads in ten cells; a notebook kept as a
  script. Jupyter with jupytext opens it, `jupytext --to ipynb analyses/notebook.py` makes an .ipynb of it, and
  `python analyses/notebook.py` runs it.
- `my_laws.py`: laws of one's own, for `python -m bayes_icl.fit --hypotheses-from`.
- `verdict_page.py` (`make pages`): [docs/verdict.md](../docs/verdict.md), the verdicts on simulated curves.
- `families.py` (`make families`): [docs/families.md](../docs/families.md), a tiny random model of every family of
  transformers, read by every command.
- `organisms.py` (`make organisms`): the organisms, small networks whose law is known, trained anew; how one is trained
  and measured stands in `organism_training.py`, and `organisms_check.py` (`make organisms-check`) runs every command on
  every organism and puts what came out beside what must.
- `bayes.py` (`make bayes`): [docs/bayes.md](../docs/bayes.md), how evidence that disagrees is weighed by SmolLM2 and
  by organisms; `weighing_check.py` (`make weighing-check`): what the second verdict makes of simulated learners.
- `fill_readme.py` (`make figures`): what the commands printed, put into the README.
- `claims.py`: what the scripts of claims 1 to 3 share.
"""


def main(scripts: Sequence[Script] = SCRIPTS, minutes: Path = MINUTES, readme: Path = README) -> int:
    """Run the scripts in order, keep their minutes, and write the list of their outputs."""
    part = minutes.with_name(minutes.name + ".part")
    # Which scripts begin from nothing is settled at the start: claim3 reads what claim1 has just made.
    fresh = [one.path.stem for one in scripts if not any(path.exists() for path in one.outputs)]
    record = (
        json.loads(part.read_text()) if part.exists() else {name: {"seconds": 0.0, "done": False} for name in fresh}
    )
    for script in scripts:
        name, began = script.path.stem, time.monotonic()
        own, before = record.get(name), ""
        if own is None or own["done"]:  # what was done before a stop is found again, and not measured
            runpy.run_path(str(script.path), run_name="__main__")
        else:
            with measured(own, record, part):
                runpy.run_path(str(script.path), run_name="__main__")
            keep(name, own["seconds"], minutes)
            own["done"] = True
            write_json(record, part)
            before = f", {own['seconds'] / 60:.1f} from nothing"
        print(f"{name}: {(time.monotonic() - began) / 60:.1f} minutes now{before}", file=sys.stderr)
    part.unlink(missing_ok=True)
    with replacing(readme) as temporary:
        temporary.write_text(listing(scripts, minutes), encoding="utf-8")
    print(readme)
    return DONE


@contextmanager
def measured(own: dict[str, Any], record: dict[str, Any], part: Path) -> Iterator[None]:
    """Add the time that the block takes to `own`, and keep the record on disk while it runs."""
    before, began, ended = own["seconds"], time.monotonic(), threading.Event()

    def note() -> None:
        own["seconds"] = before + time.monotonic() - began
        write_json(record, part)

    def watch() -> None:
        while not ended.wait(TICK):
            note()

    note()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        note()


def keep(name: str, seconds: float, minutes: Path) -> None:
    """Put a script's time into the file of minutes."""
    kept = json.loads(minutes.read_text()) if minutes.exists() else {}
    kept[name] = {"minutes": round(seconds / 60, 1), "cores": cores(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    write_json(kept, minutes)


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write it whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def listing(scripts: Sequence[Script] = SCRIPTS, minutes: Path = MINUTES) -> str:
    """analyses/README.md: a row for every page, and for every figure and table that a page points at."""
    kept = json.loads(minutes.read_text()) if minutes.exists() else {}
    rows = []
    for script in scripts:
        name, taken = script.path.stem, "-"
        if name in kept:
            taken = f"{kept[name]['minutes']:.1f}"
        links = [f"{script.page.name}, not yet written"]
        if script.page.exists():
            text = script.page.read_text(encoding="utf-8")
            # Pages stand one folder below the root, as this list does, so that their links hold here.
            found = dict.fromkeys(re.findall(r"\[([^\]]*)\]\((\.\./figures/[^)]+)\)", text))
            links = [f"[{script.page.name}](../docs/{script.page.name})"]
            links += [f"[{target.removeprefix('../')}]({target}): {words}" for words, target in found]
        rows += [f"| {link} | `{name}.py` | `make {script.target}` | {taken} |" for link in links]
    runs = dict.fromkeys((own["cores"], own["date"]) for own in kept.values())
    when = "; ".join(f"{n} core{'s' * (n > 1)}, {date}" for n, date in runs)
    words = (
        f"Minutes of the whole script, from nothing and in this order ({when}): claim 2 reads the curves of claim 1, "
        "and claim 3 its run."
    )
    return TEMPLATE.format(rows="\n".join(rows), measured=words if kept else "Minutes: not measured yet.")


if __name__ == "__main__":
    exit_stating(main)
