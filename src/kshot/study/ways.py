"""Ways of teaching as they are written: a method's name, and its options after colons."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kshot.adapt import METHODS
from kshot.adapt.course import Course
from kshot.errors import KshotError, UnknownName

# Options that a run sets by flags of its own, or that are no business of the user's.
_ELSEWHERE = ("shots", "order", "pick", "ids", "channel", "template", "course")
_OWN = ("draw", "state", "watch", "budget", "validation")

_COLON = re.compile(r":(?=\s*[A-Za-z_][\w-]*\s*=)")


@dataclass(frozen=True, slots=True)
class Way:
    """A method with the options that were given to it."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read_way(text: str) -> Way:
    """A way as it is written on the command line; UnknownName or KshotError in one line where it cannot be read.

    A colon within a value is one that no name and equals sign follow.

    >>> read_way("soft-prompt:length=5:init=vocabulary")
    Way(method='soft-prompt', options={'length': 5, 'init': 'vocabulary'})
    """
    name, colon, rest = text.partition(":")
    parts = _COLON.split(rest) if colon else []
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    known = kinds(name)
    options: dict[str, Any] = {}
    for part in parts:
        key, sign, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if key not in known:
            if not known:
                raise KshotError(f"method {name!r} has no options of its own, and {part!r} is given to it")
            raise UnknownName(f"option of {name}", key, known)
        if not sign:
            raise KshotError(f"option {key!r} of {name} has no value; write it as {name}:{key}=...")
        options[key] = _read(name, key, value, known[key])
    return Way(name, options)


def option_names(method: str) -> frozenset[str]:
    """The options that a method has."""
    return frozenset(option.name for option in fields(METHODS[method]))


def trained(method: str) -> bool:
    """Whether it learns by steps, and so has a budget."""
    return "course" in option_names(method)


def kinds(method: str) -> dict[str, Any]:
    """The options that may be given to a method by name, with their types."""
    own = {n: kind for n, kind in get_type_hints(METHODS[method]).items() if n not in _ELSEWHERE}
    own = {n: kind for n, kind in own.items() if n in option_names(method)}
    course = get_type_hints(Course) if trained(method) else {}
    return own | {n: kind for n, kind in course.items() if n not in _OWN}


def built(method: str, options: Mapping[str, Any]) -> Any:
    """The method (kshot.adapt.Method) with these options; those that it does not have are left out."""
    names = option_names(method)
    made = METHODS[method](**{n: value for n, value in options.items() if n in names})
    if not trained(method):
        return made
    own = {f.name for f in fields(Course)}
    return replace(made, course=replace(made.course, **{n: v for n, v in options.items() if n in own}))


def _read(method: str, key: str, value: str, kind: Any) -> Any:
    if NoneType in get_args(kind):
        kind = next(inner for inner in get_args(kind) if inner is not NoneType)
    try:
        if get_origin(kind) is Literal:
            if value not in get_args(kind):
                raise UnknownName(f"value of {method}:{key}", value, get_args(kind))
            return value
        if get_origin(kind) is tuple:
            inner = get_args(kind)[0]
            return tuple(inner(word) for word in value.split("+") if word)
        return kind(value)
    except (TypeError, ValueError) as error:
        raise KshotError(
            f"{method}:{key}={value}: what works is {getattr(kind, '__name__', str(kind))}, several with a plus between"
        ) from error
