"""What consoles print: names and notes as they are; and text without colours, in lines of at most 100 columns."""

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.text import Text

from kshot.show.words import Row

WIDTH = 100


def console(**options: Any) -> Console:
    """A console that prints texts as they are: in names brackets are no markup, and what stands between colons no emoji."""
    return Console(**options, markup=False, emoji=False)


def plain_lines() -> tuple[Console, Callable[[], str]]:
    """A console to print on, and what was printed so far, without blanks at the ends of lines."""
    file = io.StringIO()
    lines = console(file=file, width=WIDTH, color_system=None, highlight=False)
    return lines, lambda: "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def print_notes(kshot: Row, lines: Console) -> None:
    """What has to be said of a record besides, below all else: a note on a line or more."""
    notes = kshot.get("notes") or ()
    if notes:
        lines.print()
    for note in notes:
        lines.print(Text(f"Note: {note}"))
