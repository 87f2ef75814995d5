"""What every run has around its cells: how it tells how far it is, where it is kept, and what its folder says of it."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kshot.data.task import Task
from kshot.errors import OutputError
from kshot.model.lm import LM
from kshot.study.options import command, plain
from kshot.study.store import Memory, Store, usable

# The folder in a run's own where what is half done stands.
STATE = ".kshot-state"

OnProgress = Callable[[int, int | None, str], None]
"""``on_progress(done, total, what)``: so many cells of so many, doing what; ``total`` is None where nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run at its end: what results.json holds, the folder it lies in, else the samples themselves."""

    results: dict[str, Any] = field(repr=False)
    directory: Path | None = None
    samples: Sequence[dict[str, Any]] = field(default=(), repr=False)


def begun(word: str, asked: Any, facts: dict[str, Any], notes: Sequence[str], *, typed: Any | None) -> dict[str, Any]:
    """What run.json says of the command ``word``; ``facts`` are its identity and all that its figures depend on.

    ``typed`` are the settings of a command line that repeats it, others than those ``asked`` where these came of a search;
    None where there is none: a run got models or tasks from memory.
    """
    return {
        **facts,
        "version": _version(),
        "date": time.time(),
        "argv": None if typed is None else command(word, typed),
        "settings": plain(asked),
        "notes": list(notes),
    }


def packing(lm: LM) -> list[int]:
    """How much of a model's input goes into a pass, which rounds its figures: a run that is gone on with keeps to it."""
    return [lm.tokens_per_pack, lm.rows_per_pack]


def opened(directory: Path | None, run: dict[str, Any]) -> Store | Memory:
    """The records of a run, kept in a folder where it has one."""
    return Store(directory, run) if directory else Memory(run)


def folder(
    output_path: str | None, beneath: Path | None, names: Sequence[str], model: str, identity: str
) -> Path | None:
    """The folder asked for, else one of the run's own ``beneath`` the one given, else none."""
    if output_path is not None:
        return Path(output_path).expanduser()
    if beneath is None:
        return None
    words = [*names[:3], *([f"and-{len(names) - 3}-more"] if len(names) > 3 else []), Path(model).name, identity[:8]]
    return beneath / "-".join(map(safe_name, words))


def check_folder(output_path: str | None, beneath: Path) -> None:
    """OutputError where the folder asked for, else the one ``beneath`` which a run gets its own, cannot be made and written.

    Before a model is fetched and loaded, which takes minutes. What was there stays as it was.
    """
    asked = str(beneath) if output_path is None else output_path
    try:
        directory = Path(asked).expanduser()
        usable(directory)
        above = directory.absolute()
        while not above.is_dir():
            above = above.parent
        # What a system says of rights is not all: nobody makes a folder in /proc. A name of its own, for several processes.
        os.rmdir(tempfile.mkdtemp(prefix=".kshot-", dir=above))
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"the output folder {asked!r} cannot be made and written ({why}); give another --output-path"
        ) from error


def safe_name(word: str) -> str:
    """A word as a name of files on any system."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in word)


def limit_notes(limit: int | str, tasks: Sequence[Task]) -> list[str]:
    """That not all test examples are asked, for each task of which that is so."""
    return [
        f"{task.name}: {limit} of {len(task.test)} test examples, drawn once for all; --limit all takes them all"
        for task in tasks
        if limit != "all" and int(limit) < len(task.test)
    ]


def silent(done: int, total: int | None, what: str) -> None:
    """Progress that nobody watches."""


def stopped(stop: KeyboardInterrupt, store: Store | Memory, done: int, total: int) -> None:
    """Tell whoever catches Ctrl-C what is finished and where it lies."""
    where = f" in {str(store.directory)!r}" if store.directory else ""
    stop.add_note(f"{done} of {total} cells are finished{where}")


def _version() -> str:
    try:
        return version("kshot")
    except PackageNotFoundError:
        return "unknown"
