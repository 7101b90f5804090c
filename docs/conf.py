"""Settings of the documentation site: ``sphinx-build -W --keep-going docs docs/_build/html``."""

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
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
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
napoleon_google_docstring = False
napoleon_use_param = False  # several names may share an explanation
napoleon_attr_annotations = False
napoleon_custom_sections = [("Attributes", "params_style")]  # else fields of a NamedTuple are listed twice

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
    """Leave out what Python itself adds to a NamedTuple: "Alias for field number 0"."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def _shapes(
    app: Any, what: str, name: str, obj: object, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Shape strings of jaxtyping without the space that keeps a single dim from looking like a name; paths."""
    plain = [
        text and re.sub(r"(\w\[[\w.]+, ')\s", r"\1", text).replace("PosixPath", "Path") for text in (signature, returns)
    ]
    return plain[0], plain[1]


_PLAIN = ("attribute", "data", "property")
_own: dict[str, tuple[list[str], str]] = {}


def _before(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Keep from napoleon a "Returns" that is a sentence: it would take each line for a type."""
    lines[:] = [re.sub(r"(`[\w.]+`)(?=\w)", r"\1\\ ", line) for line in lines]  # `Task`s
    text = "\n".join(lines) + "\n"
    found = re.search(r"^Returns\n-+\n((?:\S.*\n)+)(?=\n|\Z)", text, flags=re.MULTILINE)
    _own[name] = (list(lines), found[1] if found else "")
    if found:
        lines[:] = text.replace(found[0], "").split("\n")


def _after(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Put the sentence back; and the text of an attribute, of which napoleon takes what precedes a colon for a type."""
    own, sentence = _own.pop(name, ([], ""))
    if own and what in _PLAIN:
        lines[:] = own
    elif sentence:
        lines += ["", ":returns: " + " ".join(sentence.split())]


def _within_package(app: Any, env: Any, node: Any, inner: Any) -> Any:
    """`noise.Statistics` in a docstring is `bayes_icl.noise.Statistics`."""
    if node.get("refdomain") != "py" or node["reftarget"].startswith("bayes_icl."):
        return None
    target = "bayes_icl." + node["reftarget"]
    python = env.domains["py"]
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, inner)


def _home(app: Any, module: str, name: str) -> str | None:
    """An alias of a tuple stands in its own module, not among Python's own, where viewcode looks for it."""
    value = getattr(sys.modules.get(module), name, None)
    return module if getattr(value, "__module__", "") == "builtins" else None


def setup(app: Any) -> None:
    """Hook up what is special here."""
    app.add_directive("generated", Generated)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _shapes)
    app.connect("autodoc-process-docstring", _before, priority=100)
    app.connect("autodoc-process-docstring", _after, priority=900)
    app.connect("viewcode-follow-imported", _home)
    app.connect("missing-reference", _within_package)
