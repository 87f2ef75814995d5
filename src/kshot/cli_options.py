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
from cyclopts import UNSET, App, ArgumentCollection, Parameter, Token

from kshot.errors import DataError, KshotError, UnknownName
from kshot.study.options import REPEATED, flag, flag_words, unbroken

# The parameter of --tasks, as which tasks stand in lm-eval's commands.
_BY_FLAG = "tasks_by_flag"
# Options of lm-eval that are none of ours, and what works here.
_OF_LM_EVAL = {
    "--model-args": "--model with a name, a folder or a .gguf file, and --dtype and --device",
    "--batch-size": "to leave it out, since queries are packed into the memory that is free",
    "--apply-chat-template": "a --template FILE with the turns written out (kshot hypotheses --parts chat compares the two)",
}


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
    """A function as the command line sees it: an option for each field of ``kind``, with its help and its default.

    It is called with what was given, and with what ``--config`` says of the rest.
    """

    def command(*tasks: str, **options: Any) -> None:
        by_flag, file = options.pop(_BY_FLAG, None), options.pop("config", None)
        if tasks or by_flag is not None:
            options["tasks"] = (*tasks, *(by_flag or ()))
        does(**({} if file is None else _configured(file, kind)) | options)

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
    if word == "TASK":
        said = "Tasks with commas, as lm-eval has them."
        by_flag = Parameter(name="--tasks", help=said, converter=_listed, n_tokens=1, negative=(), show_default=False)
        found.append(_keyword(_BY_FLAG, (), Annotated[tuple[str, ...], by_flag]))
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


def spelt(argv: Sequence[str], app: App) -> list[str]:
    """The words of a command line with the underscores of lm-eval's options as hyphens; what is no option stays."""
    # The library has --help and --version for commands, too.
    if not argv or argv[0].startswith("-") or argv[0] not in app:
        return list(argv)
    options = app[argv[0]].assemble_argument_collection()
    words, of_an_option = [argv[0]], False
    for at, word in enumerate(argv[1:], 1):
        if word == "--" and not of_an_option:
            # All that follows is no option.
            return [*words, *argv[at:]]
        name, sign, value = word.partition("=")
        name = name.replace("_", "-")
        alone = None if of_an_option or not word.startswith("--") else _stands_alone(name, options)
        words.append(word if alone is None else name + sign + value)
        of_an_option = alone is False and not sign
    return words


def _stands_alone(name: str, options: ArgumentCollection) -> bool | None:
    """Whether an option takes no value after it; None where there is no such option."""
    try:
        _, _, implied = options.match(name)
    except ValueError:
        return None
    return implied is not UNSET


def unknown(command: str, word: str, kind: Any) -> str | None:
    """What works in the place of an option that a command lacks, in one line; None where there is nothing to say."""
    name = word.partition("=")[0].replace("_", "-")
    if name == "--config" and kind is None:
        return f"kshot {command} has no --config; give its options one by one"
    if name in _OF_LM_EVAL and command == "run":
        return f"{name} is an option of lm-eval; what works here is {_OF_LM_EVAL[name]}"
    return None


class _AsWritten(yaml.SafeLoader):
    """YAML in which a number is the word that it is written as, as on a command line."""


for _kind in ("int", "float", "timestamp"):
    _AsWritten.add_constructor(f"tag:yaml.org,2002:{_kind}", lambda _, node: str(node.value))


def _configured(file: str, kind: Any) -> dict[str, Any]:
    """The options that a YAML file gives, read as those of a command line are."""
    try:
        # What safe_load makes, but for numbers.
        found = yaml.load(Path(file).expanduser().read_text(encoding="utf-8"), Loader=_AsWritten)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise DataError(f"--config {file!r} cannot be read as YAML: {why}") from error
    if not isinstance(found, dict):
        raise DataError(f"--config {file!r} must be a mapping of options to values, as in: num-fewshot: [0, 4]")
    known, hints = {flag(option.name): option.name for option in fields(kind)}, get_type_hints(kind)
    given: dict[str, Any] = {}
    words: list[str] = []
    for key, value in found.items():
        if flag(str(key)) not in known:
            raise UnknownName(f"key of --config {file!r}:", str(key), [name.removeprefix("--") for name in known])
        name = known[flag(str(key))]
        if value is None:
            continue
        _check_kind(f"--config {file!r}: {key}: {value!r}", hints[name], value)
        if name == "tasks":
            given[name] = (value,) if isinstance(value, str) else tuple(value)
        else:
            words += flag_words(name, value)
    return given | _read(words, kind)


def _read(words: Sequence[str], kind: Any) -> dict[str, Any]:
    """Words of a command line as options of ``kind``."""
    reader = App(help_flags=(), version_flags=())
    reader.default(as_command(lambda **options: None, kind))
    _, bound, _ = reader.parse_args(words, exit_on_error=False, print_error=False)
    return dict(bound.kwargs)


def _check_kind(said: str, kind: Any, value: Any) -> None:
    """DataError, begun with ``said``, where YAML has read a value as what no such option can be."""
    if kind is bool:
        if not isinstance(value, bool):
            raise DataError(f"{said}: what works is true or false")
        return
    many = get_origin(kind) is tuple
    if not all(isinstance(part, str) for part in (value if many and isinstance(value, list) else [value])):
        kinds = get_args(kind)[:1] if many else (kind, *get_args(kind))
        wanted = "a number" if {int, float} & set(kinds) else "text (in quotes, where YAML reads something else)"
        raise DataError(f"{said}: what works is {wanted}{', or a list of such' if many else ''}")
