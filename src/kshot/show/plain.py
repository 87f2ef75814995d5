"""Text that is the same in a terminal, a pipe and a file: no colours, and lines of at most 100 columns."""

import io
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from kshot.show.words import Row

WIDTH = 100


def plain_lines() -> tuple[Console, Callable[[], str]]:
    """A console to print on, and what was printed so far, without blanks at the ends of lines."""
    file = io.StringIO()
    console = Console(file=file, width=WIDTH, color_system=None, highlight=False)
    return console, lambda: "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def print_notes(kshot: Row, console: Console) -> None:
    """What has to be said of a record besides, below all else: a note on a line or more."""
    notes = kshot.get("notes") or ()
    if notes:
        console.print()
    for note in notes:
        console.print(Text(f"Note: {note}"))
