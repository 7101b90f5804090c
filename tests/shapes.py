"""The checker of shapes: what jaxtyping's import hook calls on every function of the package (see pyproject.toml)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def _states_a_shape(hint: Any) -> bool:
    if isinstance(hint, list):  # arguments of a Callable
        return any(map(_states_a_shape, hint))
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_states_a_shape, get_args(hint)))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arrays only: what users bring may have any type, and is stated where it is wrong, which tests try."""
    hints = {name: hint for name, hint in function.__annotations__.items() if _states_a_shape(hint)}
    function.__annotations__ = hints
    return beartype(function) if hints else function
