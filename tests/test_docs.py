"""What README and ARCHITECTURE say is so."""

import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import bayes_icl
from bayes_icl.fit import FitSettings, main
from bayes_icl.fit.sentences import VERDICTS
from bayes_icl.hypotheses import HYPOTHESES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


# Modules that every stage may have; ARCHITECTURE.md says once what they are.
OF_STAGES = ("settings", "command", "outputs", "figures", "tables", "sentences", "section", "stage")


def _tree() -> dict[str, set[str]]:
    """Modules and folders named in the tree that opens ARCHITECTURE.md, by the folder that they stand in."""
    found: dict[str, set[str]] = {"": set()}
    folder = ""
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1].splitlines():
        depth, named = len(line) - len(line.lstrip()), re.findall(r"\b[a-z_]+(?:\.py|/)", line)
        if depth < 4 and named:
            folder = named[0] if depth == 2 and named[0].endswith("/") else ""
            found[""].add(named.pop(0))
            named = named if depth else []  # beside the package, folders only
        found.setdefault(folder, set()).update(named)
    return found


def test_architecture_names_every_module_and_folder() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {path.split("/")[0] + "/" for path in tracked if "/" in path and not path.startswith(".")}
    tree = _tree()
    package = [path.split("/")[1:] for path in tracked if path.startswith("bayes_icl/")]
    assert tree.pop("") == top | {path[0] if len(path) == 1 else path[0] + "/" for path in package} - {"__init__.py"}
    for folder, named in tree.items():
        there = {path[1] + ("/" if path[2:] else "") for path in package if path[0] + "/" == folder and path[1:]}
        assert named <= there, folder
        own = set() if folder in ("core/", "writing/") else {f"{name}.py" for name in OF_STAGES}
        assert there - named <= own | {"__init__.py", "__main__.py"}, folder


def test_numbers_in_the_readme_are_those_of_committed_files() -> None:
    script = runpy.run_path(str(ROOT / "analyses/fill_readme.py"))
    filled, summaries = script["filled"], script["read_summaries"]()
    assert filled(README, summaries) == README
    other = {"summary": summaries["summary"].replace("REJECTED", "other")}
    assert filled(README, other) != README  # it would show


VARIES = {
    "law": "|".join(sorted(HYPOTHESES, key=len, reverse=True)),
    "verdict": "|".join(word for kind in VERDICTS for word in (kind.upper(), kind)),
    "survives": "both|seq|future",
    "number": r"[-+]?[0-9]+(?:[.][0-9]+)?(?:e[-+][0-9]+)?",
}


def _forms(text: str) -> set[str]:
    """Lines with a place for every number, law and verdict: what stays whatever machine fitted the curves."""
    for name, pattern in VARIES.items():
        text = re.sub(rf"(?<![\w<])(?:{pattern})(?![\w>])", f"<{name}>", text)
    return {re.sub(r"[ ─]+", " ", line).replace(" <survives>", "").strip() for line in text.splitlines()}


def test_the_readme_shows_the_form_that_the_program_prints(tmp_path: Path) -> None:
    """On the committed curves, with a few laws: every line but the reasons, which hang on what was found."""
    settings = FitSettings(
        curves=ROOT / "data/example.nc",
        tasks=("copy",),
        hypotheses=("constant", "additive", "power", "pooling", "freeform"),
        engine="fast",
        out=tmp_path / "fits",
        figures=tmp_path / "figures",
        workers=1,
    )
    main(settings)
    printed = _forms((tmp_path / "figures/summary.txt").read_text(encoding="utf-8"))
    block = re.search(r"<!-- summary: copy .*?```\n(.*?)^random_labels", README, flags=re.DOTALL | re.MULTILINE)
    assert block
    shown = {form for form in _forms(block[1]) if not form.startswith(("note:", "the mean curve", "if what is"))}
    assert len(shown) >= 12
    assert shown <= printed, shown - printed
    # The control: a heading that the program does not print.
    assert not _forms(block[1].replace("survives", "stays")) <= printed


def test_readme_points_at_what_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_there_is_one_version_number() -> None:
    """The package's; pyproject takes it from there, the citation has to follow."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert citation["version"] == bayes_icl.__version__
    assert project["project"]["dynamic"] == ["version"] and citation["license"] == project["project"]["license"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "bayes_icl.__version__"}


def test_the_commit_hooks_are_what_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    for hook in hooks:
        assert hook["entry"].removeprefix(".venv/bin/").split()[0] in lint, hook["id"]
    assert len(hooks) == lint.count("\n\t")


@pytest.mark.parametrize("block", [b for b in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)])
def test_python_in_the_readme_is_python(block: str) -> None:
    compile(block, "README.md", "exec")


def test_the_law_in_the_readme_is_the_one_in_the_file() -> None:
    """Line by line, the file's docstrings aside."""
    source = (ROOT / "analyses/my_laws.py").read_text(encoding="utf-8")
    for line in source.splitlines():
        assert line in README.splitlines() or line.lstrip().startswith('"""'), line
