"""Tasks by name: built in, from outside, or from a file."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kshot.data.builtin import RELATIONS
from kshot.data.corpora import bbc_headlines, boolq, commonsense_qa, hub_task, piqa
from kshot.data.files import file_task, split_files
from kshot.data.lm_eval import yaml_task
from kshot.data.rows import SUFFIXES, missing, nearest
from kshot.data.task import Example, Kind, Task
from kshot.data.template import Template
from kshot.errors import DataError, UnknownName


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEntry:
    """A task that has a name: how to load it, and what can be said of it without loading it."""

    load: Callable[[], Task]
    about: str
    kind: Kind
    needs_network: bool


def _relation(name: str, load: Callable[[], Task]) -> TaskEntry:
    return TaskEntry(load=load, about=f"a relation: {name.replace('-', ' ')}", kind="open", needs_network=False)


def _corpus(load: Callable[[], Task], kind: Kind) -> TaskEntry:
    return TaskEntry(load=load, about=(load.__doc__ or "").splitlines()[0], kind=kind, needs_network=True)


TASKS: dict[str, TaskEntry] = {name: _relation(name, load) for name, load in RELATIONS.items()} | {
    "bbc-headlines": _corpus(bbc_headlines, "classification"),
    "boolq": _corpus(boolq, "classification"),
    "piqa": _corpus(piqa, "choice"),
    "commonsense-qa": _corpus(commonsense_qa, "choice"),
}

_YAML = (".yaml", ".yml")


def load_task(
    name_or_path: str | Path, *, test_file: str | Path | None = None, template: Template | str | None = None
) -> Task:
    """The task of a built-in name, a .jsonl, .csv or .parquet file, a folder with ``train`` and ``test`` as such files,
    an lm-eval .yaml, or ``hf:org/name[:config]``.

    ``test_file`` holds the test examples of a file; ``template`` (a text is its input) replaces the suggested layout.
    Raises UnknownName with the nearest names, DataError or PromptError.
    """
    name, path = str(name_or_path), Path(name_or_path)
    check_task(name)
    layout = Template(input=template) if isinstance(template, str) else template
    load: Callable[[], Task]
    if name in TASKS:
        load = TASKS[name].load
    elif name.startswith("hf:"):
        load = partial(hub_task, name, template=layout)
    elif path.suffix.lower() in SUFFIXES:
        return file_task(path, test_path=test_file, template=layout)
    elif path.is_dir():
        train, test = split_files(path)
        return file_task(train, test_path=test_file or test, template=layout)
    else:
        load = partial(yaml_task, path)
    if test_file is not None:
        raise DataError(f"task {name!r} has a test split of its own; a test file goes with {', '.join(SUFFIXES)}")
    task = load()
    return task if layout is None else replace(task, template=layout)


def check_task(name: str) -> None:
    """UnknownName with the nearest names, or DataError, for what can be no task; nothing is loaded."""
    path = Path(name)
    if name in TASKS or name.startswith("hf:") or path.is_dir():
        return
    if path.suffix.lower() in (*SUFFIXES, *_YAML):
        if not path.exists():
            raise missing(path)
        return
    if path.exists() or path.suffix or len(path.parts) > 1:
        hint = "" if path.exists() else nearest(path)
        raise DataError(
            f"task {name!r} is no file that can be read{hint}; what works is {', '.join([*SUFFIXES, *_YAML])}"
        )
    raise UnknownName("task", name, TASKS)


def task_hash(task: Task) -> str:
    """A hash of all of a task that changes numbers: its examples in their order, its labels and its template.

    Its name, source and notes do not count, nor do further layouts and the author's way of showing demonstrations.
    """
    layout = task.template
    parts: list[Any] = [task.kind, task.labels, layout.input, dict(layout.words), layout.delimiter, layout.separator]
    parts += [layout.description, *(list(map(_plain, rows)) for rows in (task.train, task.validation, task.test))]
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(example: Example) -> list[Any]:
    return [example.id, dict(example.fields), example.label, example.choices]
