"""What README and ARCHITECTURE say is so."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _tree() -> set[str]:
    """Modules and folders named in the tree that opens ARCHITECTURE.md."""
    block = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]
    return set(re.findall(r"^ *([a-z_]+(?:\.py|/))", block, flags=re.MULTILINE))


def test_architecture_names_every_module_and_folder() -> None:
    package = ROOT / "bayes_icl"
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {path.split("/")[0] + "/" for path in tracked if "/" in path and not path.startswith(".")}
    assert _tree() == modules | folders | {"words/", "pages/"}


def test_modules_import_only_from_those_above_them() -> None:
    """The order of the tree is the order of the data; imports inside functions count too."""
    block = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]
    order = re.findall(r"^  ([a-z_]+)\.py", block, flags=re.MULTILINE)
    for at, name in enumerate(order):
        source = (ROOT / "bayes_icl" / f"{name}.py").read_text(encoding="utf-8")
        source = source.split('if __name__ == "__main__"')[0]  # a command imports itself by its own name there
        used = set(re.findall(r"from bayes_icl\.([a-z_]+) import", source))
        used |= {n.strip() for m in re.findall(r"from bayes_icl import ([a-z_, ]+)", source) for n in m.split(",")}
        assert used <= set(order[:at]), f"{name} imports {sorted(used - set(order[:at]))}, which stand below it"


def test_readme_shows_what_the_program_printed() -> None:
    script = runpy.run_path(str(ROOT / "analyses/fill_readme.py"))
    filled, summaries = script["filled"], script["read_summaries"]()
    assert filled(README, summaries) == README
    for kind, word in (
        ("summary", "REJECTED"),
        ("heads", "nats/example"),
        ("patch", "rounds end"),
    ):  # and it would show
        assert filled(README, summaries | {kind: summaries[kind].replace(word, "other")}) != README


def test_readme_points_at_what_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("block", [b for b in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)])
def test_python_in_the_readme_is_python(block: str) -> None:
    compile(block, "README.md", "exec")


def test_the_law_in_the_readme_is_the_one_in_the_file() -> None:
    """Line by line, the file's docstrings aside."""
    source = (ROOT / "analyses/my_laws.py").read_text(encoding="utf-8")
    for line in source.splitlines():
        assert line in README.splitlines() or line.lstrip().startswith('"""'), line
