"""Options as the command line, Python and the report write them: each command's are the fields of one dataclass.

Nothing heavy is imported, so that ``kshot --help`` and a mistyped flag answer at once.
"""

from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from kshot.errors import KshotError, UnknownName

# A layout may hold commas, so that each has a flag of its own.
REPEATED = ("template",)

# Beyond these a number is a slip of the hand: no model reads so many demonstrations, no file has so many rows.
_MOST = {
    "num_fewshot": 100_000,
    "limit": 100_000_000,
    "orders": 1_000,
    "draws": 100,
    "seed": 2**63 - 1,
    "context": 10_000_000,
    "stride": 10_000_000,
    "tokens": 10**13,
    "vocabulary": 10_000_000,
    "batch": 1_000_000,
    "layers": 10_000,
    "heads": 10_000,
    "width": 1_000_000,
    "accumulate": 1_000_000,
}


def option(default: Any, help: str, *, word: str = "TASK") -> Any:
    """A field of such a dataclass; ``word`` is what its help calls each of what stands without a flag."""
    return field(default=default, metadata={"help": help, "word": word})


def read(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The value of every field of ``kind``. A single value may stand for a list of one; repeated values are asked once.

    UnknownName where there is no such option or choice, KshotError where a text is empty, or a list that may not be.
    """
    known = {f.name: f for f in fields(kind)}
    for name in given:
        if name not in known:
            raise UnknownName("option", name, known)
    asked = {name: _tidy(given.get(name, f.default), f.default) for name, f in known.items()}
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is Literal and asked[name] not in get_args(hint):
            raise UnknownName(f"value of {flag(name)}", str(asked[name]), get_args(hint))
        texts = asked[name] if isinstance(asked[name], tuple) else (asked[name],)
        if any(isinstance(text, str) and not text.strip() for text in texts):
            called = f"a {known[name].metadata['word']}" if name == "tasks" else flag(name)
            raise KshotError(f"{called} is an empty text; give it a value, or leave it out")
        may_be_empty = known[name].default == ()
        if (
            name in ("tasks", "methods", "num_fewshot", "seed", "parts", "context")
            and asked[name] == ()
            and not may_be_empty
        ):
            raise KshotError(f"{flag(name)} is empty; give at least one")
    for seed in asked.get("seed", ()):
        within("seed", seed, 0)
    return asked


def _tidy(value: Any, default: Any) -> Any:
    if not isinstance(default, tuple):
        return value
    return tuple(dict.fromkeys((value,) if isinstance(value, str | int) else value or ()))


def within(name: str, number: Any, least: int, also: str = "") -> None:
    """KshotError where an option is no whole number of a size that makes sense."""
    most = _MOST[name]
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise KshotError(f"{flag(name)} {number!r}: what works is a whole number from {least} to {most}{also}")


def check_shared(asked: dict[str, Any], parts: Sequence[str]) -> None:
    """What commands that answer in parts have alike: UnknownName or KshotError where it makes no sense."""
    if asked["limit"] not in (None, "all"):
        within("limit", asked["limit"], 1, ", or all")
    for part in asked["parts"]:
        if part not in parts:
            raise UnknownName("part", part, parts)
    if len(asked["template"]) > 1:
        raise KshotError(f"--template: what works is one layout, and {len(asked['template'])} are given")


def flag(name: str) -> str:
    """The option as it is written on the command line.

    >>> flag("num_fewshot")
    '--num-fewshot'
    """
    return "--" + name.replace("_", "-")


def plain(asked: Any) -> dict[str, Any]:
    """Options as JSON knows them, in the order of their fields."""
    found = {f.name: getattr(asked, f.name) for f in fields(asked)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def command(word: str, asked: Any) -> list[str]:
    """The command ``word`` that asks for the same again, as a list of words; what is as by default is left out."""
    words = ["kshot", word]
    for own in fields(asked):
        value = getattr(asked, own.name)
        if value != own.default:
            words += value if own.name == "tasks" else flag_words(own.name, value)
    return words


def flag_words(name: str, value: Any) -> list[str]:
    """One option and its value as words of a command line."""
    if isinstance(value, bool):
        return [flag(name) if value else flag(name).replace("--", "--no-", 1)]
    if name in REPEATED:
        parts = [value] if isinstance(value, str) else value
        return [word for part in parts for word in (flag(name), broken(str(part)))]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [flag(name), ",".join(str(part) for part in value)]
    return [flag(name), str(value)]


def broken(layout: str) -> str:
    """A layout as it stands on a command line, in one line.

    >>> print(broken("Review: {{text}}" + chr(10) + "Sentiment:"))
    Review: {{text}}\\nSentiment:
    """
    return layout.replace("\n", "\\n").replace("\t", "\\t") if "{" in layout else layout


def unbroken(layout: str) -> str:
    """The layout that a word of a command line stands for; a path, without braces, is as it is.

    >>> unbroken(broken("{{a}}" + chr(10) + "{{b}}")) == "{{a}}" + chr(10) + "{{b}}"
    True
    """
    return layout.replace("\\n", "\n").replace("\\t", "\t") if "{" in layout else layout
