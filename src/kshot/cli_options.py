"""Options of the command line, made from the settings of a command; a YAML file may mirror them."""

import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml
from cyclopts import Parameter, Token

from kshot.errors import DataError, KshotError, UnknownName
from kshot.study.options import REPEATED, flag, flag_words, unbroken


@contextmanager
def spoken() -> Iterator[None]:
    """What is fetched or found on the way is told to those who watch, and to nobody who reads standard error by program."""
    if not sys.stderr.isatty():
        yield
        return
    log, handler = logging.getLogger("kshot"), logging.StreamHandler(sys.stderr)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def as_command(does: Callable[..., None], kind: Any) -> Callable[..., None]:
    """A function as the command line sees it: an option for each field of ``kind``, with its help and its default."""

    def command(*tasks: Any, **options: Any) -> None:
        does(*tasks, **options)

    command.__doc__, command.__annotations__ = does.__doc__, {}
    # inspect reads it wherever it is set; mypy knows no function that has one.
    command.__signature__ = signature(kind)  # type: ignore[attr-defined]
    return command


def signature(kind: Any) -> inspect.Signature:
    """The parameters of such a command."""
    hints = get_type_hints(kind)
    help_of = {option.name: option.metadata["help"] for option in fields(kind)}
    word = next(option.metadata["word"] for option in fields(kind) if option.name == "tasks")
    task = Annotated[str, Parameter(name=word, help=help_of["tasks"])]
    found = [inspect.Parameter("tasks", inspect.Parameter.VAR_POSITIONAL, annotation=task)]
    for option in fields(kind):
        if option.name != "tasks":
            found.append(
                _keyword(option.name, option.default, _annotated(option.name, hints[option.name], help_of[option.name]))
            )
    said = "A YAML file that mirrors these options; an option given here wins."
    found.append(_keyword("config", None, Annotated[str | None, Parameter(help=said)]))
    said = "Print results.json and nothing else."
    found.append(_keyword("json", False, Annotated[bool, Parameter(help=said, negative=())]))
    return inspect.Signature(found)


def usage(kind: Any) -> str:
    """What stands without a flag, as help calls it: in brackets where it may be left out."""
    own = next(option for option in fields(kind) if option.name == "tasks")
    word = f"{own.metadata['word']}..."
    return f"[{word}]" if own.default else word


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _annotated(name: str, kind: Any, said: str) -> Any:
    """A setting's type with what the command line needs to know; lists are one word with commas, or a flag again."""
    if get_origin(kind) is tuple:
        return Annotated[
            kind,
            Parameter(
                help=said,
                converter=_whole if name in REPEATED else _listed,
                n_tokens=1,
                negative=(),
                allow_leading_hyphen=True,
                show_default=_as_words,
            ),
        ]
    kinds = {kind, *get_args(kind)}
    # What a number may begin with is told to whoever checks it, and not taken for a flag.
    hyphens = bool(kinds & {int, float}) or name == "budget"
    return Annotated[
        kind, Parameter(help=said, converter=whole_number if int in kinds else None, allow_leading_hyphen=hyphens)
    ]


def _as_words(value: Sequence[Any]) -> str:
    """A list as it is written on the command line."""
    return ",".join(map(str, value)) or "none"


def _listed(kind: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:
    """``0,4,16`` as a tuple of what the list holds."""
    inner = get_args(kind)[0]
    words = [word.strip() for token in tokens for word in token.value.split(",")]
    try:
        return tuple(inner(word) for word in words if word)
    except ValueError as error:
        raise KshotError(
            f"{tokens[0].keyword} {tokens[0].value}: what works is whole numbers with commas, as 0,4,16"
        ) from error


def whole_number(kind: Any, tokens: Sequence[Token]) -> int | str:
    """A whole number, or a word that may stand in its place; the library would round, and read 0x3 and 1_000."""
    text, words = tokens[0].value.strip(), [word for one in get_args(kind) for word in get_args(one)]
    if text in words:
        return text
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        raise KshotError(
            f"{tokens[0].keyword} {tokens[0].value}: what works is {', or '.join(['a whole number', *words])}"
        )
    return int(text)


def _whole(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Every word as it is given, commas and all; in a layout ``\\n`` is a line break, since no shell would make it one."""
    return tuple(unbroken(token.value) for token in tokens)


def spelt(argv: Sequence[str], kind: Any) -> list[str]:
    """The words of a command line with lm-eval's underscores as hyphens, and those of ``--config`` put in.

    ``kind`` are the settings of its command.
    """
    words = []
    for word in argv:
        name, sign, value = word.partition("=")
        words.append(name.replace("_", "-") + sign + value if name.startswith("--") else word)
    for at, word in enumerate(words):
        if word == "--config" and at + 1 < len(words):
            return words + _configured(words[at + 1], words, kind)
        if word.startswith("--config="):
            return words + _configured(word.partition("=")[2], words, kind)
    return words


def _configured(file: str, words: Sequence[str], kind: Any) -> list[str]:
    """The options of a YAML file that the command line does not give itself, as words of a command line."""
    try:
        found = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise DataError(f"--config {file!r} cannot be read as YAML: {why}") from error
    if not isinstance(found, dict):
        raise DataError(f"--config {file!r} must be a mapping of options to values, as in: num-fewshot: [0, 4]")
    known, hints = {flag(option.name): option for option in fields(kind)}, get_type_hints(kind)
    given = {word.partition("=")[0] for word in words}
    more: list[str] = []
    for key, value in found.items():
        name = flag(str(key))
        if name not in known:
            raise UnknownName(f"key of --config {file!r}:", str(key), [n.removeprefix("--") for n in known])
        if value is not None:
            _check_kind(f"--config {file!r}: {key}: {value!r}", hints[known[name].name], value)
        if name == "--tasks":
            tasks = [value] if isinstance(value, str) else list(value or ())
            more += [] if _positional(words) else tasks
        elif value is not None and not {name, name.replace("--", "--no-", 1)} & given:
            more += flag_words(known[name].name, value)
    return more


def _check_kind(said: str, kind: Any, value: Any) -> None:
    """DataError, begun with ``said``, where YAML has read a value as what no such option can be."""
    if kind is bool:
        if not isinstance(value, bool):
            raise DataError(f"{said}: what works is true or false")
        return
    many = get_origin(kind) is tuple
    parts = value if many and isinstance(value, list) else [value]
    kinds = get_args(kind)[:1] if many else (kind, *get_args(kind))
    for part in parts:
        texts = isinstance(part, str)
        numbers = isinstance(part, int | float) and not isinstance(part, bool) and {int, float} & set(kinds)
        if not texts and not numbers:
            wanted = "a number" if {int, float} & set(kinds) else "text (in quotes, where YAML reads something else)"
            raise DataError(f"{said}: what works is {wanted}{', or a list of such' if many else ''}")


def _positional(words: Sequence[str]) -> bool:
    """Whether a command line names tasks: a word that is neither an option nor an option's value."""
    switches = {"--json", "--log-samples", "--no-log-samples"}
    before = ""
    for word in words[1:]:
        if not word.startswith("--") and (not before.startswith("--") or "=" in before or before in switches):
            return True
        before = word
    return False
