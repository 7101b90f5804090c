"""The one exception that a user is meant to read, and how a command ends on it."""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Iterable

MOST_NAME = 80  # characters: names of files hold it with what is added, and figures its title

MOST_LINE = 1500  # characters of a line that states what is wrong

MOST, MOST_SEED = 1_000_000, 2**32 - 1  # of a setting that counts; of a seed

DONE, FAILED, BAD_ARGUMENTS, REFUSED = 0, 1, 2, 3


class StatedError(Exception):
    """Something a user can put right: one line saying what was expected, what came, and what to do."""


def first_line(error: BaseException) -> str:
    """What an error of another library says, on one line."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no more is said').splitlines()[0]}"


def shown(text: str) -> str:
    """Text that may be a user's, safe for a terminal, on one line: what is not printable is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_name(kind: str, name: object) -> None:
    """State a name that could not be printed: it stands on terminals, in figures and in names of files."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MOST_NAME:
        got = repr(name)[: 2 * MOST_NAME]
        raise StatedError(f"{kind} must have a name of 1 to {MOST_NAME} printable characters, got {got}: rename it")


def unknown(kind: str, name: object, known: Iterable[str]) -> StatedError:
    """The error for a name that is not in a table, with the nearest names first."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return StatedError(f"unknown {kind} {name!r}: {hint}known: {', '.join(known)}")


def check_least(settings: object, **least: int) -> None:
    """State the first setting of a command that is below its bound, or beyond all use, by the name of its flag."""
    for name, bound in least.items():
        given, most = getattr(settings, name), MOST_SEED if name == "seed" else MOST
        if not bound <= given <= most:
            flag = "--" + name.replace("_", "-")
            bounds = f"{bound} or more" if given < bound else f"{most} or less"
            raise StatedError(f"{flag} must be {bounds}, got {given}")


def is_text(text: object) -> bool:
    """Whether this is text that can be written: half a surrogate pair, which JSON and Python can hold, cannot."""
    return isinstance(text, str) and not any("\ud800" <= character <= "\udfff" for character in text)


def _line(text: str) -> str:
    """What is wrong, on one line; a cell as long as a book is cut in the middle, since remedies stand last."""
    line = shown(text)
    if len(line) > MOST_LINE:
        line = f"{line[: MOST_LINE // 2]} [...] {line[-MOST_LINE // 2 :]}"
    return f"error: {line}"


def exit_stating(run: Callable[[], int]) -> None:
    """Run a command's body; a `StatedError` ends it with one line on stderr and exit code 1."""
    from bayes_icl.core.home import spare_home

    try:
        spare_home()
        code = run()
    except StatedError as error:
        print(_line(str(error)), file=sys.stderr)
        code = FAILED
    except OSError as error:  # disk full, unwritable folder, unreadable file: the system's own words are clear
        where = f": {error.filename}" if error.filename else ""
        remedy = "; make room, or give another --out, and run again" if error.errno == errno.ENOSPC else ""
        print(_line(f"{error.strerror or error}{where}{remedy}"), file=sys.stderr)
        code = FAILED
    except MemoryError as error:
        print(_line(f"not enough memory ({str(error) or 'no more is said'}): ask for less"), file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:
        goes_on = "collect, attribute and patch go on where they were, the others begin again"
        print(f"stopped: no file is left half written; run the same command again ({goes_on})", file=sys.stderr)
        code = 130
    sys.exit(code)
