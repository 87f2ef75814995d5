"""What kshot says when it cannot go on.

    KshotError                one line: what was asked, what was found, what would work
    ├── UnknownName           a task, method, model or option that does not exist; names the nearest that do
    ├── DataError             a file or a data set that cannot be read as a task
    ├── ModelError            a model that cannot be found, loaded or trusted
    ├── PromptError           a prompt, label or template that cannot be put to this model
    ├── MethodError           a way of teaching that does not apply here, or that came to no result
    ├── OutputError           an output folder that cannot be used
    └── NumericError          the model answered with something that is not a number

Every one of them is a fault of the input: the command line prints the line and exits with 2. Anything else that
escapes is a fault of ours and exits with 1. Foreign exceptions become ours where they are understood, cause kept.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class KshotError(Exception):
    """The base of every error a user can mend."""


class UnknownName(KshotError):
    """An unknown name, with the nearest known ones.

    >>> str(UnknownName("task", "capitols", ["capitals", "plurals"]))
    "unknown task 'capitols'; did you mean 'capitals'? known: capitals, plurals"
    """

    def __init__(self, kind: str, asked: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(asked, known, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        super().__init__(f"unknown {kind} {asked!r}; {hint}known: {', '.join(known)}")


class DataError(KshotError):
    """A file or a data set that cannot be read as a task."""


class ModelError(KshotError):
    """A model that cannot be found, loaded or trusted."""


class PromptError(KshotError):
    """A prompt, label or template that cannot be put to this model."""


class MethodError(KshotError):
    """A way of teaching that does not apply here, or that came to no result; a run marks the cell and goes on."""


class OutputError(KshotError):
    """An output folder that cannot be used."""


class NumericError(KshotError):
    """The model answered with something that is not a number."""
