"""The parts of the report: sentences, tables and figures of each stage, in order; what is missing has its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bayes_icl.stages import Found, Missing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayes_icl.quotes import Quotes
    from bayes_icl.tables import PaperTable


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


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    blocks: list[Any]


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
    from bayes_icl.summary import head_sentences, token_label

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
        named = ", ".join(filter(None, [task, token_label(fact)]))
        blocks += [
            Heading(task, f"heads-{_id(task)}"),
            Text([line.strip() for line in sentences], as_list=True),
            Tabled(tables.heads_table(heads, facts, task), folded=True),
            Shown(file_name(f"heads_effects_{task}"), f"{named}: effects of the heads of largest slope against n."),
            Shown(file_name(f"heads_sources_{task}"), f"{named}: what heads write, by the token that they attend to."),
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
            Tabled(tables.repair_table(repair, facts), folded=True),
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
