"""Settings of the documentation site: ``sphinx-build -W --keep-going docs docs/_build/html``."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import generated  # noqa: E402

from bayes_icl import __version__  # noqa: E402

project = "bayes_icl"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
highlight_language = "none"  # blocks that name none are what a program printed
default_role = "py:obj"

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 88
numpydoc_show_class_members = False  # autodoc lists them

html_theme = "furo"
html_title = "bayes_icl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False


class Generated(SphinxDirective):
    """Markdown that a function of `generated` makes: ``{generated} help collect``."""

    required_arguments = 1
    optional_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Its nodes."""
        name, *arguments = self.arguments
        self.env.note_dependency(generated.__file__)
        return self.parse_text_to_nodes(getattr(generated, name)(*arguments))


def _skip(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """Leave out what Python adds to a NamedTuple ("Alias for field number 0"), and functions of other packages."""
    others = inspect.isfunction(obj) and not obj.__module__.startswith("bayes_icl")
    return True if others or type(obj).__name__ == "_tuplegetter" else None


def _shapes(
    app: Any, what: str, name: str, obj: object, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Shape strings of jaxtyping without the space that keeps a single dim from looking like a name; paths."""
    plain = [
        text and re.sub(r"(\w\[[\w.]+, ')\s", r"\1", text).replace("PosixPath", "Path") for text in (signature, returns)
    ]
    return plain[0], plain[1]


def _within_package(app: Any, env: Any, node: Any, inner: Any) -> Any:
    """`noise.Statistics` in a docstring is `bayes_icl.inference.noise.Statistics`, if that is the only such end."""
    if node.get("refdomain") != "py" or not node["reftarget"]:
        return None
    python = env.domains["py"]
    ends = [name for name in python.objects if name.endswith("." + node["reftarget"])]
    if len(ends) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", ends[0], node, inner)


def setup(app: Any) -> None:
    """Hook up what is special here."""
    app.add_directive("generated", Generated)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _shapes, priority=400)  # before numpydoc, which reads a tuple's own
    app.connect("missing-reference", _within_package)
