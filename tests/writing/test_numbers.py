"""Numbers in sentences: kept once, in full precision, and the same in every rendering."""

import html.parser
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayes_icl.writing.numbers import (
    Quotes,
    code,
    escape_latex,
    latex_macros,
    listed,
    plain,
    to_html,
    to_latex,
    unmarked,
)


class Words(html.parser.HTMLParser):
    """Text of a fragment, and its data elements."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.text, self.data, self.tags = "", [], []
        self.feed(fragment)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag == "data":
            self.data.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_number_is_kept_and_written_the_same_everywhere() -> None:
    q = Quotes()
    text = "`copy`: " + q.under("copy", unit="nats").three("delta", (-0.17771965, -0.2, 0.1)) + " & more"
    assert plain(text) == "`copy`: -0.178 [-0.200, 0.100] & more"
    assert q.numbers == {
        "copy.delta": {
            "value": -0.17771965, "low": -0.2, "high": 0.1, "text": "-0.178 [-0.200, 0.100]", "unit": "nats",
        }
    }  # fmt: skip
    page = Words(to_html(text, q.numbers))
    assert page.text == "copy: \u22120.178 [\u22120.200, 0.100] & more"
    assert page.tags == ["code", "data"]
    assert page.data[0]["value"] == "-0.17771965" and page.data[0]["data-key"] == "copy.delta"
    assert to_latex(text) == r"\texttt{copy}: \bayesicl{copy.delta} \& more"
    assert r"\@namedef{bayesicl@copy.delta}{$-0.178$ [$-0.200$, $0.100$]}" in latex_macros(q.numbers)


def test_one_key_has_one_number() -> None:
    q = Quotes()
    q.number("x", 1.0)
    q.number("x", 1.0)
    with pytest.raises(ValueError, match="x is quoted as"):
        q.number("x", 2.0)
    q.under("other").number("x", 2.0)
    assert set(q.numbers) == {"x", "other.x"}


def test_scopes_share_numbers_and_units_are_those_of_the_scope() -> None:
    q = Quotes().under("a", unit="nats")
    q.under("b").number("x", 1)
    q.count("n", 3)
    q.percent("share", 0.5)
    assert q.numbers["a.b.x"]["unit"] == "nats"
    assert "unit" not in q.numbers["a.n"] and "unit" not in q.numbers["a.share"]
    assert q.numbers["a.share"] == {"value": 0.5, "text": "50%"}


def test_what_is_not_a_number_is_null() -> None:
    q = Quotes()
    assert plain(q.number("x", float("nan"))) == "-"
    assert "-" in to_html(q.number("x", float("nan"))) and json.loads(json.dumps(q.numbers))["x"]["value"] is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("additive is 462.5 (SE 23.0) nats from the best (nll_2)", [462.5, 23.0]),
        ("quadratic contrast -3.00 nats, p = 5.6e-24", [-3.0, 5.6e-24]),
        ("a = 1.00 [0.99, 1.00].", [1.0, 0.99, 1.0]),
        ("L16H0 of SmolLM2-135M, rounds 1-2, x3", [1, 2]),
        ("at most 10.9 % apart", [10.9]),
        ("(-0.5, 1.0)", [-0.5, 1.0]),
        ("from n = 1 to 2", [1, 2]),
        ("no number", []),
    ],
)
def test_every_number_of_words_from_elsewhere_is_kept(text: str, numbers: list[float]) -> None:
    q = Quotes()
    quoted = q.all_in("r", text)
    assert plain(quoted) == text
    assert [abs(n["value"]) for n in q.numbers.values()] == [abs(n) for n in numbers]


@given(st.text(st.characters(exclude_categories=["Cs", "Co", "Cc"])))
def test_a_page_shows_the_text_and_nothing_else(text: str) -> None:
    quoted = Quotes().under(text).all_in("key & <b>", text)
    page = Words(to_html(quoted))
    shown = re.sub("`([^`]*)`", r"\1", plain(quoted)).replace("\u2212", "-")
    if "sup" not in page.tags and "+" not in text:
        assert page.text.replace("\u2212", "-") == shown
    assert set(page.tags) <= {"data", "code", "sup"}


def test_powers_of_ten_are_typeset() -> None:
    q = Quotes()
    quoted = q.all_in("p", "p = 5.6e-24")
    assert "5.6\u00d710<sup>\u221224</sup></data>" in to_html(quoted, q.numbers)
    assert r"{$5.6\times10^{-24}$}" in latex_macros(q.numbers)


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_nothing_is_left_that_latex_would_take_for_a_command(text: str) -> None:
    bare = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])", "", escape_latex(text))
    assert not set(bare) & set("\\&%$#_{}~^")


def test_latex_macros_keep_keys_apart() -> None:
    q = Quotes()
    for task in ("a b", "a-b", "a_b", "a\u00e9b"):
        q.under(task).number("x", 1.0)
    defined = re.findall(r"@namedef\{bayesicl@([^}]*)\}", latex_macros(q.numbers))
    assert len(set(defined)) == 4 and all(re.fullmatch(r"[A-Za-z0-9_.=,+-]+", key) for key in defined)
    # What a sentence asks for is defined.
    for task in ("a b", "a\u00e9b"):
        (asked,) = re.findall(r"\\bayesicl\{([^}]*)\}", to_latex(Quotes().under(task).number("x", 1.0)))
        assert asked in defined


def test_words_in_a_row() -> None:
    assert [listed(list("abc")[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    "name", ["a`b", "`", "``x` `", r"a$\frac$_%^{x", r"x}\input{y}{", "</script><b>", "n>=2", "a\\"]
)
def test_a_name_is_shown_whole_whatever_is_in_it(name: str) -> None:
    text = f"On {code(name)} and {code('copy')} `rule` rises."
    assert plain(text) == f"On `{name}` and `copy` `rule` rises."
    page = Words(to_html(text))
    assert page.text == f"On {name} and copy rule rises." and page.tags == ["code"] * 3
    typeset = rf"\texttt{{{escape_latex(name)}}}"
    assert to_latex(text) == rf"On {typeset} and \texttt{{copy}} \texttt{{rule}} rises."


def test_text_from_elsewhere_has_no_marks() -> None:
    forged = "\ue000x}\\input{y}{\ue001z\ue002\ue003"
    assert "\\bayesicl{x}\\input" in to_latex(forged)  # the control
    assert plain(unmarked(forged)) == "\ufffdx}\\input{y}{\ufffdz\ufffd\ufffd"
