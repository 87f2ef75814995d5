"""Checks of shapes at run time, where shapes are written: a check of every call of everything takes longer than the tests.

Whatever is imported after this file is decorated so (conftest.py).
"""

from collections.abc import Callable
from functools import partial
from inspect import isclass
from typing import Any, get_args

import jaxtyping


def where_shapes_are_written(check: Callable[..., Any]) -> Callable[..., Any]:
    """jaxtyping's decorator, which leaves alone what has no array of a shape in its annotations: those types are mypy's."""

    def checked(function: Any = None, **options: Any) -> Any:
        if function is None:
            return partial(checked, **options)
        return check(function, **options) if written(function) else function

    return checked


def written(function: Any) -> bool:
    """Whether a function, a property, or the fields of a class say the shape of an array."""
    if isinstance(function, property):
        return any(written(own) for own in (function.fget, function.fset, function.fdel) if own is not None)
    plain = getattr(function, "__func__", function)
    holder = plain.__init__ if isclass(plain) else plain
    return any(map(_holds_shape, getattr(holder, "__annotations__", {}).values()))


def _holds_shape(annotation: Any) -> bool:
    if isinstance(annotation, list):  # the arguments of a Callable
        return any(map(_holds_shape, annotation))
    is_array = isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)
    return is_array or any(map(_holds_shape, get_args(annotation)))


jaxtyping.jaxtyped = where_shapes_are_written(jaxtyping.jaxtyped)
