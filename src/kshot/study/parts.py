"""Questions that are answered in parts: a cell for each part, task and seed, on record as soon as it is answered."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from kshot.data.task import Task
from kshot.errors import MethodError, ModelError, NumericError, PromptError
from kshot.model.lm import LM

log = logging.getLogger("kshot")

Say = Callable[[str], None]
Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One part of the question for one task and seed; ``asks`` is what the part is called, ``needs`` what comes before it."""

    task: str
    seed: int
    part: str
    asks: str = ""
    needs: str = ""
    id: str = ""

    @property
    def title(self) -> str:
        return f"{self.task}, seed {self.seed}: {self.asks or self.part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part by its name, and what answers it: rows, notes, pictures and anything that the parts that need it read.

    ``answer`` is given the study, the setting of a task and seed, the lines of other parts by name, and whom to tell.
    """

    name: str
    answer: Callable[[Any, Any, Mapping[str, Any], Say], Line] = field(repr=False)
    needs: str = ""


Parts = Mapping[str, Part]


@runtime_checkable
class Parted(Protocol):
    """A study that is answered in parts: its model, its tasks, and the setting in which a task is asked with a seed."""

    @property
    def lm(self) -> LM: ...

    @property
    def tasks(self) -> tuple[Task, ...]: ...

    def setting(self, task: Task, seed: int) -> Any: ...


def with_needed(parts: Parts, asked: Sequence[str]) -> tuple[str, ...]:
    """The names that are asked for and those that they need before them, in the order of ``parts``."""
    needed = {parts[name].needs for name in asked}
    return tuple(name for name in parts if name in asked or name in needed)


def answered(study: Parted, parts: Parts, cell: Cell, before: Mapping[str, Line], say: Say) -> Line:
    """The line of a cell; ``before`` are the lines of its task and seed by part. What does not apply is a line that says so."""
    task = next(task for task in study.tasks if task.name == cell.task)
    began = time.perf_counter()
    found: Line = {}
    failed = None
    try:
        setting = study.setting(task, cell.seed)
        if not setting.queries:
            raise MethodError(f"task {task.name!r} has no labelled test examples to ask")
        found = parts[cell.part].answer(study, setting, before, say)
    except (MethodError, ModelError, NumericError, PromptError) as error:
        failed = str(error)
    rows = [{"task": cell.task, "model": study.lm.name, "seed": cell.seed, **row} for row in found.pop("rows", [])]
    line = {"id": cell.id, "task": cell.task, "seed": cell.seed, "part": cell.part, "rows": rows, "notes": [], **found}
    return {**line, "seconds": time.perf_counter() - began, "failed": failed}


def notes_of(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """What parts had to say, and which came to nothing and why; the same words of several once."""
    said = []
    for line in lines:
        said += [f"{line['task']}: {note}" for note in line.get("notes") or ()]
        if line["failed"]:
            said.append(f"{line['task']}, seed {line['seed']}, {line['part']}: {line['failed']}")
    return list(dict.fromkeys(said))


def digest_of(value: Any) -> str:
    """The SHA-256 of a value as JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def duration(seconds: float) -> str:
    """Roughly, in words.

    >>> duration(20.0), duration(700.0), duration(9000.0), duration(2.5e6)
    ('less than a minute', 'about 12 minutes', 'about 2.5 hours', 'about 29 days')
    """
    if seconds < 50:
        return "less than a minute"
    if seconds < 5000:
        minutes = max(1, round(seconds / 60))
        return f"about {minutes} minute{'s' if minutes > 1 else ''}"
    if seconds < 3 * 86400:
        return f"about {seconds / 3600:.1f} hours"
    return f"about {seconds / 86400:.0f} days"
