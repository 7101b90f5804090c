"""Write up whatever stages were run on a curves file: one HTML page, and its figures, tables and numbers for a paper.

``python -m bayes_icl.report --curves data/curves/demo.nc``

Beside NAME.html stands the folder NAME: ``figures/`` (PDF, SVG), ``tables/`` (CSV, LaTeX with booktabs),
``numbers.json`` and ``numbers.tex`` (every number that the page quotes) and ``sentences.tex`` (its sentences). The page
itself needs none of them, no server and no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bayes_icl.errors import DONE, StatedError, exit_stating

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from bayes_icl.findings import Claim
    from bayes_icl.quotes import Quotes
    from bayes_icl.tables import PaperTable


@dataclass(frozen=True)
class ReportSettings:
    """Write one HTML page, self-contained, of whatever stages were run on a curves file; beside it every figure as PDF
    and SVG, every table as CSV and LaTeX, and every number that the page quotes."""

    curves: Path | None = None
    """The curves file; the newest in data/curves if none is named."""
    fits: Path | None = None
    """Folder that `fit` wrote; data/fits/NAME of the curves if none is named."""
    effects: Path | None = None
    """File that `attribute` wrote; data/effects/NAME.nc of the curves if none is named."""
    patch: Path | None = None
    """File that `patch` wrote; data/patch/NAME.nc of the curves if none is named."""
    calibration: Path | None = None
    """Folder that `calibrate` wrote; among those in figures/ the one of the curves' size, if none is named."""
    out: Path | None = None
    """The page to write (.html); reports/NAME.html of the curves if none is named. What belongs to it goes into the
    folder of the same name."""
    figures: Path | None = None
    """Folder for the figures (PDF and SVG); NAME/figures beside the page if none is named."""
    force: bool = False
    """Replace a file that is no report."""


GENERATOR = "bayes_icl report"
STAGES = {
    "collect": "the curves",
    "fit": "verdicts, laws, delta",
    "attribute": "which heads write the update",
    "patch": "where the task forms, which heads take over, the post's three steps",
    "calibrate": "whether fits of this size can be trusted",
}


class Heading(NamedTuple):
    """A heading within a section."""

    title: str
    id: str
    kind: str = "heading"


class Text(NamedTuple):
    """Sentences: a paragraph, or a list."""

    sentences: Sequence[str]
    as_list: bool = False
    kind: str = "text"


class Shown(NamedTuple):
    """A figure by its name, with its caption."""

    name: str
    caption: str
    kind: str = "figure"


class Tabled(NamedTuple):
    """A table; folded, if it is long."""

    table: PaperTable
    folded: bool = False
    kind: str = "table"


class Explorer(NamedTuple):
    """A figure to hover over."""

    html: str
    caption: str
    kind: str = "explorer"


class Missing(NamedTuple):
    """A stage that was not run, or not on these curves, and the command that does."""

    stage: str
    why: str
    command: str
    kind: str = "missing"


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    blocks: list[Any]


@dataclass
class Found:
    """What the stages have left for one curves file.

    Attributes
    ----------
    path, curves
        The curves file and its content.
    folder
        By stage, what was read: the fits' folder, the effects file, the patch file, the calibration's folder.
    tables
        By stage, tables by name.
    facts
        By stage: verdict.json, and what stands in .json beside the effects files.
    records
        By stage, provenance.
    missing
        Of the other stages.
    read
        Every file that the page is made from.
    """

    path: Path
    curves: xr.Dataset
    folder: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)
    read: list[Path] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The model's name, as the curves file has it."""
        from bayes_icl.models import title_of

        name = self.records.get("collect", {}).get("model", {}).get("model", "")
        return title_of(name) if name else "the model"

    @property
    def n_seqs(self) -> list[int]:
        """Sequences of each task; tasks of a table may have different numbers."""
        return [int(n) for n in self.curves.log_odds.notnull().any(("readout", "shot")).sum("seq")]

    @property
    def sizes(self) -> tuple[int, int]:
        """Least number of sequences of a task, and most examples shown."""
        return min(self.n_seqs), int(self.curves.shot[-1])

    def settings(self, stage: str) -> dict[str, Any]:
        """Those that a stage was run with; empty where it was not."""
        return self.records.get(stage, {}).get("settings", {})


def main(settings: ReportSettings) -> int:
    """Run the command: the only place here that touches the disk."""
    from datetime import UTC, datetime

    from bayes_icl.curves import newest_curves, read_curves, replacing
    from bayes_icl.findings import claims
    from bayes_icl.plots import save_figures
    from bayes_icl.provenance import provenance
    from bayes_icl.quotes import Quotes, latex_macros
    from bayes_icl.tables import write_tables

    started = datetime.now(UTC)
    path = settings.curves or newest_curves()
    out = settings.out or Path("reports") / f"{path.stem}.html"
    _check_output(out, settings.force)
    found = gather(path, read_curves(path), settings)
    quotes = Quotes()
    figures = draw(found)
    heads, patched, facts = found.tables.get("attribute", {}), found.tables.get("patch"), found.facts
    asked = claims(
        facts.get("attribute"),
        heads.get("heads"),
        heads.get("ablation"),
        facts.get("patch"),
        patched,
        found.settings("patch"),
        quotes,
    )
    opening = open_with(found, quotes)
    sections = compose(found, figures, quotes)
    beside = out.with_suffix("")
    folder = settings.figures or beside / "figures"
    record = provenance(settings, started=started, inputs=found.read)
    page = render(
        found, opening, asked, sections, figures, quotes, record, links=_link(folder, out), beside=_link(beside, out)
    )
    save_figures(figures, folder, (".pdf", ".svg"))
    written = write_tables(
        [block.table for section in sections for block in section.blocks if block.kind == "table"], beside / "tables"
    )
    # Of an earlier run, with other tasks or stages; a folder that the user named may hold what is not ours.
    written += [beside / "figures" / (name + end) for name in figures for end in (".pdf", ".svg")]
    for old in {*(beside / "tables").glob("*"), *(beside / "figures").glob("*")} - set(written):
        if old.is_file():
            old.unlink()
    numbers = {"provenance": record, "numbers": quotes.numbers}
    texts = {
        beside / "numbers.json": json.dumps(numbers, indent=1, ensure_ascii=False, default=str) + "\n",
        beside / "numbers.tex": latex_macros(quotes.numbers),
        beside / "sentences.tex": sentences_latex(opening, asked, sections),
        out: page,  # last: with it the report is whole
    }
    for file, text in texts.items():
        with replacing(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for missing in found.missing.values():
        print(f"not in the report: {STAGES[missing.stage]} ({missing.why}); {missing.command}", file=sys.stderr)
    print(beside)
    print(out)
    return DONE


def _link(folder: Path, page: Path) -> str:
    """A folder as the page's links have it."""
    from urllib.parse import quote

    return quote(Path(os.path.relpath(folder, page.parent)).as_posix())


def gather(path: Path, curves: xr.Dataset, settings: ReportSettings) -> Found:
    """Read what the stages have left for a curves file.

    Raises
    ------
    StatedError
        A stage's output that was named is not there, not whole, or of other curves. What stands at a default place and
        is of other curves is left out and said to be missing.
    """
    found = Found(path, curves, read=[path])
    found.records["collect"] = _record_of(curves)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    places = {
        "fit": (settings.fits, Path("data/fits") / path.stem),
        "attribute": (settings.effects, Path("data/effects") / f"{path.stem}.nc"),
        "patch": (settings.patch, Path("data/patch") / f"{path.stem}.nc"),
    }
    for stage, (named, default) in places.items():
        place = named or default
        command = f"python -m bayes_icl.{stage} --curves {shlex.quote(str(path))}"
        record = _read_record(place)
        why = ""
        if record is None:
            why = f"{place} is not whole" if place.exists() else "not run"
        elif digest not in record.get("inputs", {}).values():
            why = f"{place} was made from other curves"
        elif not _take(found, stage, place, record):
            why = f"{place} is not whole, or was not written by {stage}"
        if why and named:
            raise StatedError(
                f"--{FLAG[stage]} {place}: {_problem(why, place)}; run `{command}`, or leave the flag away"
            )
        if why == "not run" and stage != "fit" and "model" not in found.records["collect"]:
            why, command = "these curves name no model that could be run again", "python -m bayes_icl.collect"
        if why:
            found.missing[stage] = Missing(stage, why, command + (" --force" if "other curves" in why else ""))
    _gather_calibration(found, settings.calibration)
    return found


def _take(found: Found, stage: str, place: Path, record: dict[str, Any]) -> bool:
    """Read a stage's tables and facts; whether they are all there."""
    from bayes_icl.compare import read_table
    from bayes_icl.curves import beside

    def file(end: str) -> Path:
        return place / end if stage == "fit" else beside(place, end)

    tables = {name: file(f"{name}.csv") for name in _tables_of(stage)}
    facts = file("verdict.json" if stage == "fit" else "json")
    try:
        found.tables[stage] = {name: read_table(path) for name, path in tables.items()}
        found.facts[stage] = json.loads(facts.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        found.tables.pop(stage, None)
        return False
    found.folder[stage], found.records[stage] = place, record
    found.read += [_whole(place), facts, *tables.values()]
    return True


FLAG = {"fit": "fits", "attribute": "effects", "patch": "patch"}


def _problem(why: str, place: Path) -> str:
    return "nothing there" if why == "not run" else why.removeprefix(f"{place} ")


def _tables_of(stage: str) -> tuple[str, ...]:
    from bayes_icl import attribute, experiments

    return {
        "fit": ("comparison", "sensitivity", "checks", "engines"),
        "attribute": attribute.TABLES,
        "patch": experiments.TABLES,
    }[stage]


def _whole(place: Path) -> Path:
    """The file with which a stage's output is whole."""
    return place if place.suffix == ".nc" else place / "provenance.json"


def _read_record(place: Path) -> dict[str, Any] | None:
    """Provenance of a stage's output; None where it is not there or not whole."""
    import xarray as xr

    try:
        if place.suffix != ".nc":
            return json.loads(_whole(place).read_text(encoding="utf-8"))
        with xr.open_dataset(place, engine="h5netcdf") as dataset:
            return _record_of(dataset)
    except (OSError, ValueError):
        return None


def _record_of(dataset: xr.Dataset) -> dict[str, Any]:
    try:
        return json.loads(dataset.attrs.get("provenance", "{}"))
    except ValueError:
        return {}


def _gather_calibration(found: Found, named: Path | None) -> None:
    """The calibration of the curves' size, or another, which the page then says."""
    from bayes_icl.calibrate import LEAST
    from bayes_icl.compare import read_table
    from bayes_icl.findings import calibration_differs

    n_seqs, n_shots = (max(size, LEAST[name]) for name, size in zip(("n_seqs", "n_shots"), found.sizes))
    command = f"python -m bayes_icl.calibrate --n-seqs {n_seqs} --n-shots {n_shots}"
    command += f" --figures figures/calibration_{n_seqs}x{n_shots}"
    folders = [named] if named else sorted(path.parent for path in Path("figures").glob("*/outcomes.csv"))
    found_there = {folder: _read_record(folder) or {} for folder in folders}
    records = {folder: own for folder, own in found_there.items() if "n_seqs" in own.get("settings", {})}
    if named and not records:
        raise StatedError(f"--calibration {named}: no calibration there; run `{command}`, or leave the flag away")
    if not records:
        found.missing["calibrate"] = Missing("calibrate", "not run", command)
        return

    def distance(folder: Path) -> tuple[bool, int, int]:
        own = records[folder]["settings"]
        differs = calibration_differs(own, (n_seqs, n_shots), found.settings("fit") or None)
        return bool(differs), abs(own["n_seqs"] - n_seqs) + abs(own["n_shots"] - n_shots), -own["n_seqs"]

    folder = min(records, key=distance)
    found.folder["calibrate"], found.records["calibrate"] = folder, records[folder]
    found.tables["calibrate"] = {"outcomes": read_table(folder / "outcomes.csv")}
    names = ("outcomes", "ranks", "rank_tests", "recovery", "confusion")
    found.read += [_whole(folder), *(folder / f"{name}.csv" for name in names)]
    if distance(folder)[1]:
        found.missing["calibrate"] = Missing("calibrate", "run for curves of another size", command)


def draw(found: Found) -> dict[str, Figure]:
    """The figures of all stages, by name."""
    from bayes_icl import attribute, calibrate, fit, patch

    drawn: dict[str, Figure] = {}
    if "fit" in found.folder:
        drawn |= fit.figures_of(found.curves, found.folder["fit"])
    if "attribute" in found.folder:
        drawn |= {f"heads_{name}": figure for name, figure in attribute.figures_of(found.folder["attribute"]).items()}
    if "patch" in found.folder:
        drawn |= {f"patch_{name}": figure for name, figure in patch.figures_of(found.folder["patch"]).items()}
    if "calibrate" in found.folder:
        own = calibrate.figures_of(found.folder["calibrate"])
        drawn |= {f"calibration_{name}": figure for name, figure in own.items()}
    return drawn


class Opening(NamedTuple):
    """The page's first lines: the question, the answer in a word or two and in sentences, and what it is of."""

    question: str
    word: str
    sentences: list[str]
    setting: str


def open_with(found: Found, quotes: Quotes) -> Opening:
    """The question, and its answer as far as `fit` was run."""
    from bayes_icl.findings import answer, calibration_differs

    q, verdicts = quotes.under("answer"), found.facts.get("fit", {})
    word, sentences = "Not judged yet.", list[str]()
    numbers, n_shots = sorted(set(found.n_seqs)), found.sizes[1]
    n_seqs = " to ".join(q.count(f"n_seqs_{i}", n) for i, n in enumerate(dict.fromkeys((numbers[0], numbers[-1]))))
    setting = f"{found.model}, {n_seqs} sequences of {q.count('n_shots', n_shots)} examples a task"
    if verdicts:
        word, sentences = answer(found.curves, verdicts, found.tables["fit"]["checks"], quotes)
        of = dict.fromkeys((v["readout"], v["n_min"], v["noise"]) for v in verdicts.values())
        setting += "; " + " or ".join(
            f"{readout}, n \u2265 {q.count(f'n_min_{n_min}', n_min)}, {noise} noise" for readout, n_min, noise in of
        )
        if "calibrate" not in found.folder:
            setting += "; not calibrated"
        elif calibration_differs(found.settings("calibrate"), found.sizes, found.settings("fit")):
            setting += "; calibrated on other settings (below)"
        else:
            setting += "; calibrated on these settings (below)"
    question = f"Does every example add the same evidence in {found.model}, as a Bayesian's would?"
    return Opening(question, word, sentences, f"{setting}.")


def compose(found: Found, figures: Mapping[str, Figure], quotes: Quotes) -> list[Section]:
    """The sections of the page, in order; a stage that was not run has one that says how to run it."""
    verdicts, *others = _fit_sections(found, quotes)
    sections = [
        verdicts,
        _curves_section(found, quotes),
        *others,
        _calibration_section(found, quotes),
        _heads_section(found, quotes),
        _patch_section(found, quotes),
        _refused_section(found, quotes),
    ]
    return [
        section._replace(blocks=[b for b in section.blocks if b.kind != "figure" or b.name in figures])
        for section in sections
    ]


def _curves_section(found: Found, quotes: Quotes) -> Section:
    from bayes_icl import explore
    from bayes_icl.curves import file_name, readouts_of
    from bayes_icl.findings import beside_verdict, verdict_sentence

    verdicts = found.facts.get("fit", {})
    blocks: list[Any] = []
    for i, task in enumerate(map(str, found.curves.task.values), 1):
        verdict = verdicts.get(task)
        blocks.append(Heading(task, f"task-{i}"))
        if verdict:
            blocks.append(Text([verdict_sentence(task, verdict, quotes)]))
            if beside := beside_verdict(found.curves, task, verdict, quotes):
                blocks.append(Text(beside, as_list=True))
        readouts = readouts_of(found.curves, task)
        if verdict:  # the one that was judged first: laws belong to it
            readouts = list(dict.fromkeys([verdict["readout"], *readouts]))
        laws, n_min = _mean_curves(found, task), verdict["n_min"] if verdict else 1
        figure = explore.curves_by_sequence(found.curves, task, readouts, laws, n_min)
        blocks.append(
            Explorer(
                explore.as_html(figure, f"curves-{_id(task)}"),
                f"{task}: every sequence. Hover for the query, its answer and the update; click names in the legend.",
            )
        )
        blocks.append(
            Shown(
                file_name(f"curves_{task}"),
                f"{task}: log-odds of the correct answer against examples shown, with every law's mean and the band "
                "that holds 95 % of new sequences (posterior predictive).",
            )
        )
    return Section("curves", "Curves", blocks)


def _mean_curves(found: Found, task: str) -> dict[str, tuple[Any, Any]]:
    """Posterior mean curves of `additive` and of the law that is named, from their files."""
    import xarray as xr

    from bayes_icl.fit import fit_file

    verdict = found.facts.get("fit", {}).get(task)
    curves: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys(["additive", verdict["named"]] if verdict else []):
        file = found.folder["fit"] / fit_file(task, name) if name else None
        if file and file.exists():
            with xr.open_dataset(file, group="posterior_predictive", engine="h5netcdf") as predicted:
                mean = predicted["mean_log_odds"].mean(("chain", "draw"))
                curves[name] = mean.shot.values, mean.values
    return curves


def _fit_sections(found: Found, quotes: Quotes) -> list[Section]:
    from bayes_icl import tables
    from bayes_icl.summary import engines_agree, pooled_sentences

    if "fit" not in found.folder:
        return [Section("verdicts", "Verdicts", [found.missing["fit"]])]
    own, verdicts, q = found.tables["fit"], found.facts["fit"], quotes.under("fit")
    comparison = own["comparison"]
    delta: list[Any] = [
        Shown("delta", "Delta under additive: posterior density, mean and 95 % interval, by task, with the verdict."),
        Shown("updates", "Mean update by number of examples, and what additive and the law that is named make of it."),
    ]
    pooled = found.folder["fit"] / "pooled.json"
    if pooled.exists():
        content = json.loads(pooled.read_text(encoding="utf-8"))
        # The lines of single tasks, which are indented, stand in the table.
        lines = [line for line in pooled_sentences(content).splitlines() if not line.startswith(" ")]
        delta.insert(1, Text([q.all_in(f"pooled.{i}", line) for i, line in enumerate(lines)], as_list=True))
        if "mu" in content:
            delta.insert(2, Tabled(tables.pooled_table(content)))
    compared: list[Any] = [
        Shown(
            "comparison",
            "How far each law predicts below the best, with 2 standard errors: a sequence left out, the future left "
            "out. Laws in bold survive; the grey band is within 4 nats.",
        )
    ]
    compared += [Tabled(table, folded=True) for table in tables.comparison_tables(verdicts, comparison)]
    agree = engines_agree(own["engines"], comparison).splitlines()
    engines = [q.all_in(f"engines.{i}", line) for i, line in enumerate(agree)]
    sensitive: list[Any] = [
        Shown("sensitivity", "The verdict on every task under every setting, and the law that is named."),
        Tabled(tables.sensitivity_table(own["sensitivity"]), folded=True),
        Tabled(tables.checks_table(own["checks"]), folded=True),
        Text(engines),
        *([Tabled(tables.engines_table(own["engines"]), folded=True)] if len(own["engines"]) else []),
    ]
    verdict = tables.verdict_table(verdicts, comparison, own["checks"])
    return [
        Section("verdicts", "Verdicts", [Tabled(verdict)]),
        Section("delta", "Delta and updates", delta),
        Section("comparison", "Comparison of laws", compared),
        Section("sensitivity", "Sensitivity and checks", sensitive),
    ]


def _calibration_section(found: Found, quotes: Quotes) -> Section:
    from bayes_icl import tables
    from bayes_icl.findings import calibration_differs, calibration_sentences

    blocks: list[Any] = []
    if "calibrate" in found.folder:
        outcomes, settings = found.tables["calibrate"]["outcomes"], found.settings("calibrate")
        differs = calibration_differs(settings, found.sizes, found.settings("fit") or None)
        blocks += [
            Text(calibration_sentences(outcomes, settings, differs, quotes)),
            Tabled(tables.calibration_table(outcomes)),
            Shown("calibration_confusion", "Which kind of law is named and which verdict given, by the true law."),
            Shown("calibration_recovery", "Share of 95 % intervals that hold the truth, by law and parameter."),
            Shown("calibration_ranks", "Ranks of true parameters in their posteriors, less uniform; red: controls."),
        ]
    if "calibrate" in found.missing:
        blocks.insert(1 if blocks else 0, found.missing["calibrate"])
    return Section("calibration", "Calibration", blocks)


def _heads_section(found: Found, quotes: Quotes) -> Section:
    from bayes_icl import attribute, explore, tables
    from bayes_icl.curves import file_name
    from bayes_icl.provenance import command_of
    from bayes_icl.summary import head_sentences

    title = "Which heads write the update"
    if "attribute" not in found.folder:
        return Section("heads", title, [found.missing["attribute"]])
    own, facts = found.tables["attribute"], found.facts["attribute"]
    heads, ablation, repair = (own[name] for name in ("heads", "ablation", "repair"))
    blocks: list[Any] = [
        Explorer(
            explore.as_html(explore.head_map(heads, list(facts)), "head-map"),
            "Every head by layer: choose a task and a quantity, hover for the numbers behind it.",
        ),
        Shown("heads_share_map", "Share of delta that each head writes; heads that stand out are outlined."),
        Shown("heads_cumulative", "Shares of delta added up, the largest first."),
    ]
    for task, fact in facts.items():
        of_task, taken, repaired = (table[table.task == task] for table in (heads, ablation, repair))
        sentences = head_sentences(fact, of_task, taken, repaired, quotes.under(task, "heads"))
        blocks += [
            Heading(task, f"heads-{_id(task)}"),
            Text([line.strip() for line in sentences], as_list=True),
            Tabled(tables.heads_table(heads, facts, task), folded=True),
            Shown(file_name(f"heads_effects_{task}"), f"{task}: effects of the heads of largest slope against n."),
            Shown(file_name(f"heads_sources_{task}"), f"{task}: what heads write, by the token that they attend to."),
        ]
    blocks.append(Heading("Heads taken away", "heads-taken"))
    for way, words in (("held", "held at their mean over shots"), ("mean", "at their mean shot by shot")):
        blocks += [
            Shown(f"heads_ablation_{way}", f"Delta lost with the top heads {words}, beside placebo sets."),
            Shown(f"heads_repair_{way}", f"From what was to go to what went, heads {words}."),
        ]
    if len(ablation):
        blocks += [
            Tabled(tables.ablation_table(ablation, facts), folded=True),
            Tabled(tables.repair_table(repair), folded=True),
        ]
    elif not found.settings("attribute").get("ablate", True):
        settings = found.settings("attribute") | {"ablate": True}
        command = f"{command_of('attribute', settings, attribute.AttributeSettings())} --force"
        blocks.append(Missing("attribute", "no heads were taken away, so the effects are direct effects only", command))
    return Section("heads", title, blocks)


def _patch_section(found: Found, quotes: Quotes) -> Section:
    from bayes_icl import explore, tables
    from bayes_icl.curves import file_name
    from bayes_icl.summary import patch_sentences

    title = "Where the task forms, and who takes over"
    if "patch" not in found.folder:
        return Section("formation", title, [found.missing["patch"]])
    own, facts = found.tables["patch"], found.facts["patch"]
    halves = own["halves"][own["halves"].task.map(lambda task: facts[task]["taught"]).astype(bool)]
    blocks: list[Any] = []
    for task, fact in facts.items():
        parts = {name: table[table.task == task] for name, table in own.items()}
        sentences = patch_sentences(fact, parts, quotes.under(task, "patch"))
        own["transfer"].attrs["kind"] = fact["kind"]  # drawn at once, of the kinds of ablation
        blocks += [
            Heading(task, f"formation-{_id(task)}"),
            Text([line.strip() for line in sentences], as_list=True),
            Explorer(
                explore.as_html(explore.transfer_map(own["transfer"], task), f"transfer-{_id(task)}"),
                f"{task}: A's residual stream put into B, point by point; hover for the numbers.",
            ),
            Shown(file_name(f"patch_transfer_{task}"), f"{task}: where the task and A's answer come across, by round."),
            Shown(file_name(f"patch_roles_{task}"), f"{task}: what the most costly heads attend to, by role."),
            Tabled(tables.costly_table(own["heads"], facts, task), folded=True),
        ]
    blocks += [
        Heading("All tasks", "formation-all"),
        Shown("patch_rounds", "The transfer layer and A's log-odds after each round of ablation, beside placebo sets."),
        Tabled(tables.rounds_table(own["rounds"]), folded=True),
        Shown("patch_backups", "Heads that take over: what their ablation costs before and after."),
        *([Tabled(tables.backups_table(own["backups"]), folded=True)] if len(own["backups"]) else []),
        Shown("patch_redundancy", "How many heads can go: the most costly first, and in random order."),
        *([Tabled(tables.halves_table(halves), folded=True)] if len(halves) else []),
        Tabled(tables.redundancy_table(own["redundancy"]), folded=True),
        Shown("patch_repair", "Self-repair: what a head's ablation takes, and what others make up for."),
        Shown("patch_steps", "The post's three steps: what each experiment takes, beside its control."),
        *([Tabled(tables.steps_table(own["steps"]), folded=True)] if len(own["steps"]) else []),
        Shown("patch_mlps", "MLPs ablated by layer, place and readout."),
        *([Tabled(tables.mlps_table(own["mlps"]), folded=True)] if len(own["mlps"]) else []),
        Tabled(tables.transfer_table(own["transfer"]), folded=True),
    ]
    blocks.insert(
        0,
        Explorer(
            explore.as_html(explore.head_map(own["heads"], list(facts)), "cost-map"),
            "What each head's ablation alone costs, and what it attends to.",
        ),
    )
    return Section("formation", title, blocks)


def _refused_section(found: Found, quotes: Quotes) -> Section:
    from bayes_icl.findings import left_aside

    sentences = left_aside(found.facts.get("fit", {}), quotes)
    if "fit" not in found.folder:
        return Section("refused", "Refused and left aside", [found.missing["fit"]])
    return Section("refused", "Refused and left aside", [Text(sentences or ["Nothing."], as_list=bool(sentences))])


def _id(name: str) -> str:
    """A task's name as a part of an element's id."""
    from bayes_icl.curves import file_name

    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in file_name(name))


def render(
    found: Found,
    opening: Opening,
    asked: Sequence[Claim],
    sections: Sequence[Section],
    figures: Mapping[str, Figure],
    quotes: Quotes,
    record: Mapping[str, Any],
    *,
    links: str,
    beside: str,
) -> str:
    """The page.

    Parameters
    ----------
    links, beside
        Folder of the figures' PDF and SVG, and that of everything else that belongs to the page, as seen from it.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    from bayes_icl import explore
    from bayes_icl.findings import null_controls
    from bayes_icl.plots import VERDICT_COLOURS, verdict_colour
    from bayes_icl.quotes import to_html
    from bayes_icl.tables import to_html as table_html

    environment = Environment(loader=PackageLoader("bayes_icl", "pages"), autoescape=True, trim_blocks=True)
    environment.filters["quoted"] = lambda text: Markup(to_html(text, quotes.numbers))
    environment.filters["tabled"] = lambda table: Markup(table_html(table))
    interactive = any(block.kind == "explorer" for section in sections for block in section.blocks)
    return environment.get_template("report.html").render(
        found=found,
        opening=opening,
        verdicts=found.facts.get("fit", {}),
        nulls=null_controls(found.curves),
        colours={kind: verdict_colour(kind) for kind in VERDICT_COLOURS},
        claims=asked,
        sections=sections,
        images={name: _image(figure) for name, figure in figures.items()},
        links=links,
        beside=beside,
        explorer_style=Markup(explore.STYLE),
        library=Markup(explore.library()) if interactive else "",
        commands=commands_of(found),
        stages=STAGES,
        record=record,
        generator=GENERATOR,
        delta=lambda task, verdict: quotes.under(task, "verdict", unit="nats/example").three(
            "delta", (verdict["delta"][x] for x in ("mean", "hdi_low", "hdi_high"))
        ),
        pretty=lambda content: json.dumps(content, indent=1, ensure_ascii=False, default=str),
    )


class Image(NamedTuple):
    """A figure as the page holds it.

    Attributes
    ----------
    source
        A data URI: WebP, which loses nothing and is half of a PNG.
    width, height
        Inches.
    """

    source: str
    width: float
    height: float


def _image(figure: Figure) -> Image:
    import base64
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=200, pil_kwargs={"lossless": True})
    figure.set_layout_engine("none")  # as in `plots.save_figures`
    width, height = figure.get_size_inches()
    return Image("data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), float(width), float(height))


def commands_of(found: Found) -> dict[str, str]:
    """By stage, the command that makes its output again."""
    from bayes_icl import attribute, calibrate, collect, experiments, fit
    from bayes_icl.provenance import command_of

    defaults: dict[str, object] = {
        "collect": collect.CollectSettings(),
        "fit": fit.FitSettings(),
        "attribute": attribute.AttributeSettings(),
        "patch": experiments.PatchSettings(),
        "calibrate": calibrate.CalibrateSettings(),
    }
    return {
        stage: command_of(stage, found.records[stage].get("settings", {}), default)
        for stage, default in defaults.items()
        if found.records.get(stage)
    }


def sentences_latex(opening: Opening, asked: Sequence[Claim], sections: Sequence[Section]) -> str:
    r"""The page's sentences with ``\bayesicl{key}`` for their numbers, for a paper that has ``\input{numbers}``."""
    from bayes_icl.quotes import escape_latex, to_latex

    def items(sentences: Sequence[str]) -> list[str]:
        return [r"\begin{itemize}", *(rf"\item {to_latex(sentence)}" for sentence in sentences), r"\end{itemize}"]

    lines = [r"% Needs \input{numbers} in the preamble.", "", escape_latex(opening.question), opening.word]
    lines += ["", *map(to_latex, opening.sentences), "", to_latex(opening.setting)]
    for claim in asked:
        lines += ["", f"% {claim.title}", *(items(claim.sentences) if claim.sentences else [])]
    for section in sections:
        blocks = [block for block in section.blocks if block.kind in ("text", "heading")]
        lines += ["", f"% {section.title}"] if any(block.kind == "text" for block in blocks) else []
        for block in blocks:
            if block.kind == "heading":
                lines += ["", rf"\paragraph{{{escape_latex(block.title)}}}"]
            else:
                lines += items(block.sentences) if block.as_list else [" ".join(map(to_latex, block.sentences))]
    return "\n".join([*lines, ""])


def _check_output(out: Path, force: bool) -> None:
    if out.suffix not in (".html", ".htm"):
        raise StatedError(f"--out {out}: an HTML page is written: give a name that ends in .html")
    if out.exists() and not force:
        with out.open(encoding="utf-8", errors="replace") as file:
            if GENERATOR not in file.read(2000):
                raise StatedError(f"{out} exists and is no report: give another --out, or --force to replace it")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise StatedError(f"cannot write into {out.parent}: give another --out")


if __name__ == "__main__":
    import tyro

    # Under its own name, as in fit.
    from bayes_icl.report import ReportSettings, main

    settings = tyro.cli(ReportSettings, prog="python -m bayes_icl.report")
    exit_stating(lambda: main(settings))
