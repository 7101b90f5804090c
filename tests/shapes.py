"""The checker of shapes: what jaxtyping's import hook calls on every function of the package (see pyproject.toml).

The hook wraps all of them, and makes a signature of every inner function anew each time that it is defined. Here only
those are wrapped whose annotations state a shape: the others have nothing to check, and took a fifth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray

STATES_A_SHAPE = re.compile(r"\b(Bool|Float|Int|Num)\[|\bHistory\b")  # the one name of such a type

_jaxtyped = jaxtyping.jaxtyped


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """As jaxtyping's, but that it leaves functions without shapes as they are."""

    def decorate(function: Any) -> Any:
        hints = getattr(function, "__annotations__", {}).values()
        if isinstance(function, type) or any(STATES_A_SHAPE.search(str(hint)) for hint in hints):
            return _jaxtyped(function, typechecker=typechecker)
        return function

    return decorate


jaxtyping.jaxtyped = jaxtyped  # which modules look up as they are imported: conftest.py imports this one first


def _states_a_shape(hint: Any) -> bool:
    if isinstance(hint, list):  # arguments of a Callable
        return any(map(_states_a_shape, hint))
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_states_a_shape, get_args(hint)))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arrays only: what users bring may have any type, and is stated where it is wrong, which tests try."""
    hints = {name: hint for name, hint in function.__annotations__.items() if _states_a_shape(hint)}
    function.__annotations__ = hints
    return beartype(function) if hints else function
