"""Numbers as a text quotes them: written once, kept with their full precision, and found again in every rendering.

A sentence is made with an f-string whose numbers come from a `Quotes`. What it returns is text with the number's key
inside, in characters that no text has; `plain`, `to_html` and `to_latex` make of it what a terminal, a page and a paper
show. So a number that stands in a sentence stands in numbers.json as well, and none is written by hand.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bayes_icl.core.files import file_name
from bayes_icl.core.intervals import TAIL, Interval

_OPEN, _BETWEEN, _CLOSE = "\ue000", "\ue001", "\ue002"

_BACKQUOTE = "\ue003"  # one within a name

_QUOTED = re.compile(f"{_OPEN}([^{_BETWEEN}]*){_BETWEEN}([^{_CLOSE}]*){_CLOSE}")

# A number in words written elsewhere: not part of a name such as L16H0, nll_2 or SmolLM2-135M, nor of a longer number.
_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w]|\.\d|-[A-Za-z])")

NOTHING = "-"  # what stands where a number is not known


class Quotes:
    """The numbers that some text quotes, by key.

    Attributes
    ----------
    numbers
        Key to value, as numbers.json holds it: ``{"value": ..., "text": ...}``, with ``low`` and ``high`` where there
        is an interval, ``unit`` where there is a unit, and ``rounded`` where the value is only known as it is written.

    Examples
    --------
    >>> from bayes_icl.writing.numbers import Quotes, plain
    >>> quotes = Quotes(unit="nats per example")
    >>> plain(f"The update is {quotes.three('delta', (0.1784, 0.1482, 0.2107))}.")
    'The update is 0.178 [0.148, 0.211].'
    >>> quotes.numbers["delta"]["low"], quotes.numbers["delta"]["unit"]
    (0.1482, 'nats per example')
    """

    def __init__(self, prefix: str = "", unit: str = "", numbers: dict[str, dict[str, Any]] | None = None) -> None:
        self.prefix, self.unit = prefix, unit
        self.numbers: dict[str, dict[str, Any]] = {} if numbers is None else numbers

    def under(self, *names: object, unit: str = "") -> Quotes:
        """The same numbers, with keys that begin with these names; `unit` is that of `number` and `three` from here."""
        prefix = ".".join([*filter(None, [self.prefix]), *(_key(name) for name in names)])
        return Quotes(prefix, unit or self.unit, self.numbers)

    def number(self, key: str, value: float, form: str = ".3f") -> str:
        """A number in the scope's unit, in the form of `format`."""
        text = NOTHING if isinstance(value, float) and math.isnan(value) else format(value, form)
        return self._quote(key, text, {"value": value}, self.unit)

    def three(self, key: str, numbers: Iterable[float], form: str = ".3f") -> str:
        """A mean with its interval: "0.178 [0.148, 0.211]"."""
        interval = Interval(*numbers)
        values = {"value": interval.mean, "low": interval.low, "high": interval.high}
        return self._quote(key, f"{interval:{form}}", values, self.unit)

    def columns(self, row: Any, name: str, form: str = ".3f") -> str:
        """A mean with its interval from a table's row: columns `name`, and that with _low and _high after it."""
        return self.three(name, Interval.of(row, name), form)

    def count(self, key: str, value: float, form: str = "") -> str:
        """How many: no unit."""
        return self._quote(key, format(value, form), {"value": value}, "")

    def percent(self, key: str, value: float, form: str = ".0%") -> str:
        """A share; its value is the share itself."""
        return self.count(key, value, form)

    def words(self, key: str, text: str, **values: float) -> str:
        """A number in words of its own: an interval that is open, a layer that is never reached."""
        return self._quote(key, text, values, "")

    def three_percent(self, key: str, numbers: Iterable[float], form: str = ".1%") -> str:
        """A share with its interval; its value is the share itself."""
        return Quotes(self.prefix, "", self.numbers).three(key, numbers, form)

    def all_in(self, key: str, text: str) -> str:
        """Words written elsewhere, with every number in them under `key`.0, `key`.1, ..., as rounded as it is there."""
        count = iter(range(len(text)))

        def quote(match: re.Match[str]) -> str:
            value = float(match[0].replace("\u2212", "-"))
            return self._quote(f"{key}.{next(count)}", match[0], {"value": value, "rounded": True}, "")

        return _NUMBER.sub(quote, text)

    def _quote(self, key: str, text: str, values: dict[str, Any], unit: str) -> str:
        key = ".".join([*filter(None, [self.prefix]), _key(key)])
        # JSON has no NaN; numpy's numbers become Python's.
        kept = {name: None if x != x else x.item() if hasattr(x, "item") else x for name, x in values.items()}
        number = {**kept, "text": text, **({"unit": unit} if unit else {})}
        if self.numbers.setdefault(key, number) != number:
            raise ValueError(f"{key} is quoted as {number} and as {self.numbers[key]}")
        return f"{_OPEN}{key}{_BETWEEN}{text}{_CLOSE}"


def unmarked(text: str) -> str:
    """Text from elsewhere without the signs that mark a number here, lest it pass for one."""
    return re.sub(f"[{_OPEN}{_BETWEEN}{_CLOSE}{_BACKQUOTE}]", "\ufffd", text)


def code(name: object) -> str:
    """A name between backquotes, which it may have itself."""
    return f"`{str(name).replace('`', _BACKQUOTE)}`"


def plain(text: str) -> str:
    """The text for a terminal."""
    return _QUOTED.sub(r"\2", text).replace(_BACKQUOTE, "`")


def to_html(text: str, numbers: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The text for a page: numbers are ``<data value= data-key=>``, words between backquotes ``<code>``.

    Parameters
    ----------
    text
        Plain, with words between backquotes.
    numbers
        Those of the `Quotes`, for the full precision.
    """

    def element(match: re.Match[str]) -> str:
        key, value = html.escape(match[1]), (numbers or {}).get(match[1], {}).get("value", "")
        words = typeset_html(html.escape(match[2]))
        return f'<data value="{value}" data-key="{key}" title="{key}: {value}">{words}</data>'

    return _rendered(text, element, lambda words: html.escape(words), lambda code: f"<code>{html.escape(code)}</code>")


def _rendered(
    text: str,
    number: Callable[[re.Match[str]], str],
    words: Callable[[str], str],
    code: Callable[[str], str],
) -> str:
    """The text with each of its parts written: quoted numbers, words, words between backquotes."""
    parts = re.split(f"({_OPEN}[^{_CLOSE}]*{_CLOSE}|`[^`{_OPEN}]*`)", text)
    return "".join(
        _QUOTED.sub(number, part)
        if part[:1] == _OPEN
        else code(part[1:-1].replace(_BACKQUOTE, "`"))
        if i % 2
        else words(part.replace(">=", "\u2265"))
        for i, part in enumerate(parts)
    )


# What is typeset: signs and powers of ten; a "<" stands before what is below the least number, escaped on a page.
_SET = re.compile(r"((?:<|&lt;)?[-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|inf)(?:%|\\%)?)")


def typeset_html(text: str) -> str:
    """Escaped text with its numbers as a page shows them: minus signs, powers of ten."""

    def write(found: str) -> str:
        minus = found.replace("-", "\u2212").replace("inf", "\u221e")
        mantissa, _, exponent = minus.partition("e")
        sign = "\u2212" if exponent.startswith("\u2212") else ""
        return f"{mantissa}\u00d710<sup>{sign}{int(exponent.removeprefix(sign))}</sup>" if exponent else mantissa

    return "".join(write(part) if i % 2 else part for i, part in enumerate(_SET.split(text)))


def typeset_latex(text: str) -> str:
    """Escaped text with its numbers in mathematics: minus signs, powers of ten."""

    def write(found: str) -> str:
        percent = r"\%" if found.endswith("%") else ""
        mantissa, _, exponent = found.removesuffix("%").removesuffix("\\").replace("inf", r"\infty").partition("e")
        return f"${mantissa}\\times10^{{{int(exponent)}}}$" if exponent else f"${mantissa}{percent}$"

    return "".join(write(part) if i % 2 else part for i, part in enumerate(_SET.split(text)))


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "\u2212": "$-$", "\u2013": "--", "\u2265": r"$\geq$", "`": r"\textasciigrave{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def to_latex(text: str) -> str:
    r"""The text for a paper: numbers are ``\bayesicl{key}``, which numbers.tex defines."""
    return _rendered(
        text,
        lambda match: f"\\bayesicl{{{match[1]}}}",
        escape_latex,
        lambda code: rf"\texttt{{{escape_latex(code)}}}",
    )


def latex_macros(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    r"""numbers.tex: after ``\input{numbers}``, ``\bayesicl{key}`` prints a number as the text quotes it."""
    lines = [
        r"% Every number that the report quotes, as \bayesicl{key}; in full precision: numbers.json.",
        r"\makeatletter",
        r"\providecommand{\bayesicl}[1]{\@ifundefined{bayesicl@#1}{\textbf{??}}{\@nameuse{bayesicl@#1}}}",
    ]
    for key, number in numbers.items():
        text = typeset_latex(escape_latex(str(number["text"])))
        lines.append(rf"\@namedef{{bayesicl@{key}}}{{{text}}}")
    return "\n".join([*lines, r"\makeatother", ""])


def listed(parts: Sequence[str]) -> str:
    """Words in a row: "a, b and c"."""
    return "".join(parts) if len(parts) < 2 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _key(name: object) -> str:
    """A name as a part of a key: what LaTeX's control sequences and HTML's attributes take as it is."""
    return file_name(str(name))


def token_words(facts: Mapping[str, Any], quotes: Quotes) -> str:
    """Which log-odds were taken apart or patched, and what is read; facts of `attribute` or of `patch`."""
    if facts.get("readout") == "foil":
        return "foil, where it forks"
    if words := _several(facts):
        return f"{words} ({quotes.words('token_text', facts['token_text'])})"
    text = f" ({quotes.words('token_text', facts['token_text'])})" if "token_text" in facts else ""
    before = ", given those before it" if facts["token"] else ""
    return f"token {quotes.count('token', facts['token'])} of the answer{text}{before}"


def _several(facts: Mapping[str, Any]) -> str:
    """What is read where it is not one token; else empty."""
    if facts.get("read") == "parting":
        return "labels where they part"
    if facts.get("read") == "whole answer":
        return WHOLE_WORDS.get(facts["readout"], "whole answer")
    return ""


WHOLE_WORDS = {"format": "number up to its first digit", "rule": "number from its first digit", "parity": "last digit"}
"""What `format`, `rule` and `parity` read of numbers."""


def token_label(facts: Mapping[str, Any]) -> str:
    """The same for a figure or a caption: "token 1: \u201c5\u201d, \u201c8\u201d, \u2026"."""
    if facts.get("readout") == "foil" or "token_text" not in facts:
        return ""
    if words := _several(facts):
        return words
    return f"token {facts['token']}: {facts['token_text']}"


def named_task(facts: Mapping[str, Mapping[str, Any]], task: str) -> str:
    """A task with the token that is attributed or patched."""
    return ", ".join(filter(None, [task, token_label(facts[task])]))


def layer_of(row: Any, name: str, quotes: Quotes | None = None) -> str:
    """A layer with its interval; one that more than `TAIL` of the resamples never reach is open on that side.

    "-" where there is no rule left to carry. `quotes` as in `head_sentences`.
    """
    layer, low, high = Interval.of(row, name)
    reached = getattr(row, f"{name}_reached")
    if layer != layer:
        return "-" if reached != reached else "never"
    ends = [f"{low:.0f}", f"{high:.0f}"]
    if not reached >= 1 - TAIL:
        ends[0 if name == "transfer_until" else 1] = "never"
    text = f"{layer:.0f} [{ends[0]}, {ends[1]}]"
    return quotes.words(name, text, value=layer, low=low, high=high) if quotes else text
