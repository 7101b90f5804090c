"""The documentation site: every page is reached, every module, column and name of the code stands in it."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import re
import runpy
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import xarray as xr

from bayes_icl.hypotheses import HYPOTHESES
from bayes_icl.hypotheses.law import LAWS_MODULE
from bayes_icl.models import Model
from bayes_icl.tasks import BUILT_IN, load_tasks

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
GENERATED = re.compile(r"```\{generated\} (\w+)((?: \w+)*)\n```")
COMMANDS = ("collect", "fit", "attribute", "atlas", "patch", "addition", "independence", "calibrate", "report")

spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
assert spec is not None and spec.loader is not None
generated = importlib.util.module_from_spec(spec)
sys.modules["generated"] = generated
spec.loader.exec_module(generated)


def _modules() -> set[str]:
    """Packages and modules by their full names, those that run a command aside."""
    files = [path.relative_to(ROOT).with_suffix("").parts for path in (ROOT / "bayes_icl").rglob("*.py")]
    names = {".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in files}
    return {name for name in names if not name.endswith("__main__")} - {"bayes_icl"}


def _toctrees() -> set[str]:
    """Pages that the first page leads to, as its toctrees name them."""
    found: set[str] = set()
    for block in re.findall(r"```\{toctree\}\n(.*?)```", PAGES["index"], flags=re.DOTALL):
        for entry in block.splitlines():
            if entry and not entry.startswith(":"):
                found |= {path.stem for path in DOCS.glob(f"{entry}.md")} or {entry}
    return found


def test_every_page_is_in_a_toctree() -> None:
    assert _toctrees() == set(PAGES) - {"index"}


def test_every_package_is_in_the_reference() -> None:
    """Each with its modules, which the reference finds by itself."""
    groups = [re.findall(r"^   (bayes_icl[.\w]+)$", part, re.MULTILINE) for part in PAGES["api"].split("## ")[1:]]
    assert sorted(name for group in groups for name in group) == sorted(n for n in _modules() if n.count(".") == 1)
    assert PAGES["api"].count(":recursive:") == len(groups)


def test_names_of_the_code_on_pages_exist() -> None:
    """Each is the one end of a full name, as the site's links need it."""
    full = set(_modules())
    for name in _modules():
        source = ROOT / (name.replace(".", "/") + ".py")
        tree = ast.parse(source.read_text(encoding="utf-8")) if source.exists() else ast.Module([], [])
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                full.add(f"{name}.{node.name}")
                inner = [one for one in getattr(node, "body", []) if isinstance(one, ast.FunctionDef)]
                full |= {f"{name}.{node.name}.{one.name}" for one in inner if isinstance(node, ast.ClassDef)}
    for page, text in PAGES.items():
        for target in re.findall(r"\{py:obj\}`(?:[^`<]*<)?([^`>]+)>?`", text):
            assert len([name for name in full if name.endswith("." + target)]) == 1, (page, target)


def test_what_pages_generate_exists() -> None:
    wanted = [found for page in PAGES.values() for found in GENERATED.findall(page)]
    assert len(wanted) == sum(page.count("{generated}") for page in PAGES.values()) > 5
    assert {given.strip() for name, given in wanted if name == "help"} == set(COMMANDS)
    for name, given in wanted:
        if name != "help":
            assert getattr(generated, name)(*given.split()).strip()


def test_tables_hold_every_task_and_setting() -> None:
    table = generated.tasks()
    for name in BUILT_IN:
        row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
        assert str(len(load_tasks([name])[0].pool)) in row.split(" | ")
    assert "`slope=2`" in table and "`cut=55`" in table
    load_tasks(["affine:slope=2,intercept=3,low=10,high=99,repeats=false"])  # as the table has them


def test_tables_hold_every_hypothesis_and_parameter() -> None:
    table, each = generated.hypotheses(), generated.predictions()
    for name, law in HYPOTHESES.items():
        if law.curve.__module__ != LAWS_MODULE:  # of another test
            continue
        own = each.split(f"(hypothesis-{name.replace('_', '-')})=\n")[1].split("\n(hypothesis-")[0]
        assert f"[`{name}`]" in table and law.reference in own and law.predicts in own
        for parameter in law.priors:
            assert f"`{parameter}`" in own
        # A formula, not a remark.
        assert re.search(r"\bn\b", own.split("\n: ")[1]), name


def test_every_shared_parameter_has_its_meaning() -> None:
    from bayes_icl.hypotheses.law import SHARED_PRIORS

    assert set(generated.SHARED) == {*SHARED_PRIORS, "dof"}


def test_tables_hold_every_variable_of_the_formats() -> None:
    from bayes_icl import curves
    from bayes_icl.mechanism import direct_effects
    from bayes_icl.patch import outputs as patch_outputs

    assert re.findall(r"^\| `(\w+)` \|", generated.curves(), re.MULTILINE) == list(curves.VARIABLES)
    named = re.findall(r"^\| `(\w+)` \|", generated.effects(), re.MULTILINE)
    assert named == [*direct_effects.VARIABLES, *patch_outputs.DESCRIBED]


def test_tables_say_which_command_writes_a_variable(tiny: Model) -> None:
    """`patch` keeps no sources and takes no set of heads away; a run of the real one stands on some disks."""
    from bayes_icl.collect import collect_curves
    from bayes_icl.mechanism import direct_effects
    from bayes_icl.patch import outputs as patch_outputs

    only = {command: set(re.findall(rf"^\| `(\w+)` \|.*\| `{command}` \|$", generated.effects(), re.MULTILINE))
            for command in ("attribute", "patch")}  # fmt: skip
    curves = collect_curves(tiny, load_tasks(["copy"]), n_shots=2, n_seqs=2)
    plain = set(direct_effects.attribute_task(tiny, curves, "copy", by_source=False))
    whole = set(direct_effects.attribute_task(tiny, curves, "copy", whole=True))
    assert only["attribute"] == whole - plain | {"ablated_log_odds"}
    assert only["patch"] == set(patch_outputs.DESCRIBED)
    for folder, other in (("data/patch", "attribute"), ("data/effects", "patch")):
        for path in (ROOT / folder).glob("*.nc"):
            with xr.open_dataset(path) as dataset:
                assert not only[other] & set(dataset), path.name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_setting(command: str) -> None:
    text = generated.help(command)
    assert max(map(len, text.splitlines())) <= 100
    module = importlib.import_module(f"bayes_icl.{command}")
    settings = getattr(module, f"{command.capitalize()}Settings")
    for one in dataclasses.fields(settings):
        assert f"--{one.name.replace('_', '-')}" in text


SCHEMAS = {stage: importlib.import_module(f"bayes_icl.{stage}.outputs").TABLES for stage in
           ("fit", "attribute", "atlas", "patch", "addition", "independence", "calibrate")}  # fmt: skip


@pytest.mark.parametrize("stage", SCHEMAS)
def test_every_table_is_on_the_page_of_files(stage: str) -> None:
    for name, schema in SCHEMAS[stage].items():
        assert f"```{{generated}} table {stage} {name}\n" in PAGES["files"]
        text = generated.table(stage, name)
        for column in schema.columns:
            assert column.meaning and f"`{column.written or column.name}{column.ends[0]}`" in text


def test_tables_that_are_there_are_as_their_schema_says() -> None:
    """The committed calibration; and of runs that stand on this disk, where there are any."""
    read = 0
    for folder in ("calibration", "calibration_32x32"):
        for name, schema in SCHEMAS["calibrate"].items():
            table = schema.read(ROOT / "figures" / folder / f"{name}.csv")
            assert len(table) or (folder, name) == ("calibration_32x32", "verdicts")  # truths have numbers of their own
            read += 1
    for stage, folder in (("patch", "data/patch"), ("attribute", "data/effects")):
        for path in (ROOT / folder).glob("*.csv"):
            SCHEMAS[stage][path.name.split(".")[-2]].read(path)
    assert read


def test_the_demo_is_what_make_runs() -> None:
    target = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndemo:")[1].split("\n\n")[0]
    ran = [line.removeprefix("\t$(RUN)") for line in target.splitlines()[1:]]
    assert ran and "\n".join(f"python{command}" for command in ran) in PAGES["start"]


def test_provenance_is_explained() -> None:
    from bayes_icl.collect import CollectSettings
    from bayes_icl.core.provenance import provenance

    record = provenance(CollectSettings(), started=datetime.now(UTC), model={"model": "tiny"})
    own = PAGES["files"].split("\n## Provenance\n")[1]
    for key in record:
        assert f"`{key}`" in own


def test_links_and_images_of_pages_exist() -> None:
    for name, page in PAGES.items():
        shown = re.sub(r"```(?!\{).*?```", "", page, flags=re.DOTALL)  # not in what a program printed
        targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", shown)
        targets += re.findall(r"^(?:```\{figure\}|```\{literalinclude\}|:file:) (\S+)$", shown, re.MULTILINE)
        for target in targets:
            if target.startswith("api/"):
                assert target.removeprefix("api/").removesuffix(".rst") in _modules(), (name, target)
            else:
                assert (DOCS / target).exists(), (name, target)


def _commands(text: str) -> list[list[str]]:
    """What blocks of commands run of this package: its name, then the arguments."""
    blocks = re.findall(r"^```\n(python -m .*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("python -m bayes_icl.")]
    return [shlex.split(line.removeprefix("python -m bayes_icl."), comments=True) for line in lines]


def test_commands_are_understood_and_write_where_nothing_else_does() -> None:
    """After `make demo`, in any order: no two write other things to one file; what the demo wrote is forced."""
    import tyro

    demo = _commands(PAGES["start"].split("## Your first own run")[0])
    shown = [c for text in ((ROOT / "README.md").read_text(encoding="utf-8"), *PAGES.values()) for c in _commands(text)]
    assert len(demo) == 8 and len(shown) > 20
    written: dict[tuple[str, str], list[str]] = {}
    for command, *arguments in [*demo, *shown]:
        settings = getattr(importlib.import_module(f"bayes_icl.{command}"), f"{command.capitalize()}Settings")
        one = tyro.cli(settings, args=arguments)
        if command == "report" or arguments == [] or getattr(one, "force", False):
            continue  # replaced without a word; of the newest curves; on purpose
        out = Path(one.out or one.curves).stem
        assert written.setdefault((command, out), arguments) == arguments, (command, out)


def test_the_page_on_verdicts_is_what_its_script_writes() -> None:
    script = runpy.run_path(str(ROOT / "analyses/verdict_page.py"))
    for part in ("OPENING", "CLOSING"):
        assert script[part] in PAGES["verdict"]
    for words in script["MEANING"].values():
        assert words in PAGES["verdict"]


_BLOCKS = [(name, block) for name, page in PAGES.items() for block in re.findall(r"```python\n(.*?)```", page, re.S)]


@pytest.mark.parametrize(("page", "block"), _BLOCKS)
def test_python_on_the_pages_is_python(page: str, block: str) -> None:
    compile(block, f"{page}.md", "exec")
