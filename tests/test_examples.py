"""The examples in docstrings: each runs by itself, from the repository root, and prints what it says."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from bayes_icl.hypotheses import HYPOTHESES, law

ROOT = Path(__file__).parent.parent


def documented(body: list[ast.stmt], name: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods, by their full names."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{name}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from documented(node.body, f"{name}.{node.name}")


def found_examples() -> Iterator[doctest.DocTest]:
    """The examples of every public object of the package; read, not imported: they are to import what they need."""
    for path in sorted((ROOT / "bayes_icl").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name, node in documented(ast.parse(path.read_text(encoding="utf-8")).body, module):
            docstring = ast.get_docstring(node) or ""
            if ">>>" in docstring:
                line = node.body[0].lineno - 1
                yield doctest.DocTestParser().get_doctest(docstring, {}, name, str(path), line)


EXAMPLES = {example.name.removeprefix("bayes_icl."): example for example in found_examples()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    said: list[str] = []
    # What an example registers is gone after it.
    with mock.patch.dict(HYPOTHESES), mock.patch.dict(law._LOADED):
        failed, _ = doctest.DocTestRunner().run(EXAMPLES[name], out=said.append)
    assert not failed, "".join(said)


def test_what_researchers_call_has_examples() -> None:
    assert len(EXAMPLES) >= 30
    lines = {name: sum(example.source.count("\n") for example in one.examples) for name, one in EXAMPLES.items()}
    assert max(lines.values()) <= 9, "an example is short"
