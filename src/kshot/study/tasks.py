"""The tasks that settings name, with the layout they ask for."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from kshot.data import load_task
from kshot.data.files import ends_with_its_line, split
from kshot.data.rows import SUFFIXES
from kshot.data.task import Example, Task
from kshot.data.template import Template, input_key
from kshot.errors import DataError, KshotError, UnknownName
from kshot.study.explain_settings import ExplainSettings
from kshot.study.hypotheses_settings import HypothesesSettings
from kshot.study.settings import Settings

Suggest = Callable[[str], Template | None]
"""The layout for a task by the name it is asked by, where somebody suggests one."""


def tasks_of(
    asked: Settings | ExplainSettings | HypothesesSettings, suggest: Suggest = lambda name: None
) -> tuple[Task, ...]:
    """Every task of the settings, loaded; what is suggested holds where no layout is asked for.

    UnknownName, DataError or PromptError in one line where that fails.
    """
    if asked.test_file is not None and len(asked.tasks) > 1:
        raise KshotError(f"--test-file goes with one task, and {len(asked.tasks)} are asked for")
    layouts = [template_changes(given) for given in asked.template] or [{}]
    found = []
    for name in asked.tasks:
        first, *others = [_laid_out(name, asked.test_file, layout, suggest) for layout in layouts]
        found.append(replace(first, layouts=tuple(other.template for other in others)))
    for name, times in Counter(task.name for task in found).items():
        if times > 1:
            raise DataError(f"{times} of the tasks are called {name!r}; rename a file, or run them one by one")
    return tuple(found)


def apart(tasks: Sequence[Task]) -> tuple[tuple[Task, ...], list[str]]:
    """The tasks with a pool that holds none of their test examples, and a note for each that lost some by it.

    A query is never in its own prompt; what is left out does not depend on how many queries are asked. Inputs are the
    same where a layout shows them alike (``input_key``). A task and its transfers keep the same pool, so that they are
    taught the same. Where demonstrations and queries are the same examples (an lm-eval YAML with one split for both),
    some are kept to be shown and the others asked. PromptError where a layout does not fit the fields.
    """
    found, notes = [], []
    parted = [_parted(task) for task in tasks]
    for task, note in parted:
        notes += [note] if note else []
        asked = {
            key for other, _ in parted if origin(other) == origin(task) for e in other.test for key in _keys(task, e)
        }
        pool = tuple(example for example in task.train if not asked.intersection(_keys(task, example)))
        if lost := len(task.train) - len(pool):
            notes.append(
                f"{task.name}: {lost} of {len(task.train)} training examples are test examples too and are never shown"
            )
        found.append(replace(task, train=pool) if lost else task)
    return tuple(found), notes


def _parted(task: Task) -> tuple[Task, str]:
    """A task whose whole pool is asked too as one with a pool of its own, and a note that says so."""
    asked_too = {example.id: example for example in task.test}
    if not task.train or any(asked_too.get(example.id) != example for example in task.train):
        return task, ""
    labelled = [example for example in task.test if example.label is not None]
    asked, shown = split(labelled, task.template, stratify=task.kind == "classification")
    kept = {example.id for example in shown}
    if not asked or not shown:
        return task, ""
    test = tuple(example for example in task.test if example.id not in kept)
    note = (
        f"{task.name}: demonstrations and queries are the same {len(task.test)} examples; {len(kept)} are kept to be "
        f"shown, drawn by a hash of their input, and the other {len(test)} are asked (lm-eval asks all)"
    )
    return replace(task, train=tuple(shown), test=test), note


def _keys(task: Task, example: Example) -> set[str]:
    """The input of an example in every layout of the task."""
    return {input_key(layout, example.fields) for layout in (task.template, *task.layouts)}


def with_transfers(asked: Settings, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """The tasks, and each once more with the test examples of every task that ``--transfer-to`` names.

    What is learned stays as it is: its training examples, its layout, its label words. DataError where the labels of
    the two, or the fields of their examples, are not the same.
    """
    found = list(tasks)
    for name in asked.transfer_to:
        other = load_task(name)
        for task in tasks:
            if task.name == other.name:
                continue
            if task.kind != other.kind or set(task.labels) != set(other.labels):
                raise DataError(
                    f"--transfer-to {name}: it has the labels {', '.join(other.labels[:6]) or 'of its own'}, and "
                    f"{task.name} has {', '.join(task.labels[:6]) or 'its own'}; both need the same"
                )
            source = f"taught {task.name}, asked {other.name}"
            name = f"{task.name} to {other.name}"
            found.append(replace(task, name=name, test=other.test, source=source, taught=task.name))
    return tuple(found)


def origin(task: Task) -> str:
    """The name of the task that is taught, whatever is asked then."""
    return task.taught or task.name


def _laid_out(name: str, test_file: str | None, layout: dict[str, Any], suggest: Suggest) -> Task:
    if "input" in layout and _is_file(name):
        # A file whose fields have names of their own cannot be read without the layout that uses them.
        return _with_words(load_task(name, test_file=test_file, template=Template(**layout)), layout)
    suggested = suggest(name) if not layout and _is_file(name) else None
    if suggested is not None:
        task = load_task(name, test_file=test_file, template=suggested)
        if set(task.labels) == set(suggested.words):
            return task
    task = load_task(name, test_file=test_file)
    return _with_words(replace(task, template=replace(task.template, **layout)), layout) if layout else task


def _with_words(task: Task, layout: dict[str, Any]) -> Task:
    """The task, where its layout fits its answers: words for labels that it has, open answers that a line can hold."""
    examples = (*task.train, *task.test)
    known = {
        *task.labels,
        *(e.label for e in examples if e.label is not None),
        *(c for e in examples for c in e.choices),
    }
    for label in layout.get("words", {}):
        if label not in known:
            raise UnknownName(f"label of task {task.name!r} in the words of --template", label, known)
    if task.kind == "open":
        for example in examples:
            ends_with_its_line(task.template, example.label or "", f"task {task.name!r}, {example.id}")
    return task


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES or Path(name).is_dir()


def template_changes(given: str) -> dict[str, Any]:
    """What a ``--template`` changes: the input's layout where it is one, else the keys of a YAML file of that name.

    >>> template_changes("Q: {{text}} A:")
    {'input': 'Q: {{text}} A:'}
    """
    if "{{" in given or "{%" in given:
        return {"input": given}
    path = Path(given).expanduser()
    known = {option.name: option for option in fields(Template)}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"--template {given!r}: there is no such file, and a layout would hold a {{{{field}}}}"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"--template {given!r} cannot be read as YAML: {first}") from error
    if not isinstance(found, dict):
        raise DataError(f"--template {given!r} must be a mapping with some of {', '.join(known)}")
    for name, value in found.items():
        if name not in known:
            raise UnknownName(f"key of the template {given!r}", str(name), known)
        if not isinstance(value, dict if name == "words" else str):
            raise DataError(
                f"--template {given!r}: {name} must be {'a mapping of labels to words' if name == 'words' else 'text'}"
            )
    if "words" in found:
        found["words"] = dict(_word(given, label, word) for label, word in found["words"].items())
    return found


def _word(given: str, label: Any, word: Any) -> tuple[str, str]:
    """A label and its word as texts; DataError for what YAML reads as something else, as it does yes and no."""
    # A whole number may be a label, as in files; one that YAML read otherwise than it is written is none of the task's.
    numbered = isinstance(label, int) and not isinstance(label, bool)
    for value, kind in ((label, "label"), (word, "word")):
        if not isinstance(value, str) and not (kind == "label" and numbered):
            raise DataError(
                f"--template {given!r}: words has the {kind} {value!r}, which is not text; put it in quotes"
            )
    return str(label), word
