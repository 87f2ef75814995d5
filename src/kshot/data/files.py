"""A task from a file: ``.jsonl``, ``.csv`` or ``.parquet`` with ``text,label`` or ``input,output``."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from kshot.data.rows import SUFFIXES, Row, rows_of
from kshot.data.task import Example, Kind, Task
from kshot.data.template import Template, input_key
from kshot.errors import DataError, PromptError
from kshot.seeds import digest

TRAIN_SHARE = 0.7

CLASSIFICATION = Template(input="Text: {{text}}\nLabel:")
OPEN = Template(input="{{input}} ->", separator="\n")


def file_task(
    path: str | Path, *, test_path: str | Path | None = None, template: Template | None = None, seed: int = 0
) -> Task:
    """The task of a file: classification where it has ``label``, open where it has ``output``.

    Test examples are those of ``test_path``, else 30 % of each label, chosen by a hash of the example's own content, so
    that the order of the rows does not matter. With a template of your own the other fields may have any names.
    Raises DataError (PromptError where the template does not fit the fields).
    """
    path = Path(path)
    train = rows_of(path)
    test = rows_of(Path(test_path)) if test_path is not None else []
    gold, layout = _layout(train, path, template)
    kind: Kind = "classification" if gold == "label" else "open"
    notes: list[str] = []
    pool = _examples(train, path, gold, layout)
    if test_path is None:
        pool = _distinct(pool, layout, path.name, notes)
        learn, ask = split(pool, layout, stratify=kind == "classification", seed=seed)
    else:
        other = Path(test_path)
        if gold not in test[0].fields:
            raise DataError(
                f"{other}: has no field {gold!r} as {path} has; found {', '.join(map(str, test[0].fields))}"
            )
        learn = [_renamed(example, "train") for example in _distinct(pool, layout, path.name, notes)]
        asked = _distinct(_examples(test, other, gold, layout), layout, other.name, notes)
        ask = [_renamed(example, "test") for example in asked]
        learn = apart(learn, ask, layout, notes)
        if not learn:
            raise DataError(
                f"{path}: every input is in {other} too, so none is left to learn from; give others to test"
            )
    labels = labels_in_order(learn, ask, kind == "classification", str(path))
    return Task(
        name=task_name(path),
        kind=kind,
        labels=labels,
        train=tuple(learn),
        test=tuple(ask),
        template=layout,
        source=str(path) if test_path is None else f"{path}, tested on {test_path}",
        notes=tuple(notes),
    )


def task_name(path: str | Path) -> str:
    """What a task is called by its file or folder; ``train`` and ``data`` say nothing, their folder does.

    >>> task_name("films/train.jsonl"), task_name("films.csv")
    ('films', 'films')
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        return path.resolve().name
    return path.parent.resolve().name if path.stem in {"train", "data"} else path.stem


def split_files(folder: Path) -> tuple[Path, Path | None]:
    """The training examples in a folder, and the test examples beside them; DataError where there are none or several."""
    found = [
        [path for path in sorted(folder.glob(f"{stem}.*")) if path.suffix in SUFFIXES] for stem in ("train", "test")
    ]
    if len(found[0]) != 1 or len(found[1]) > 1:
        names = ", ".join(path.name for path in (*found[0], *found[1])) or "neither"
        wanted = ", ".join(f"train{suffix}" for suffix in SUFFIXES)
        raise DataError(f"folder {str(folder)!r}: needed are one of {wanted} and at most one test file; found {names}")
    return found[0][0], found[1][0] if found[1] else None


def split(
    examples: Iterable[Example], template: Template, *, stratify: bool, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Examples as 70 % train and 30 % test, each in the order given; with ``stratify`` within each label.

    Who goes where is decided by a hash of the rendered input; equal inputs (``input_key``) stay on one side. Two
    different ones are enough for one on each side.
    """
    keyed = [(input_key(template, example.fields), example) for example in examples]
    strata: dict[str | None, dict[str, tuple[int, str]]] = defaultdict(dict)
    for key, example in keyed:
        own, text = strata[example.label if stratify else None], template.render(example.fields)
        rank = digest(seed, "split", text), text
        own[key] = min(rank, own.get(key, rank))
    chosen: set[str] = set()
    for ranks in strata.values():
        ranked = sorted(ranks, key=ranks.__getitem__)
        chosen |= set(ranked[: max(1, min(len(ranked) - 1, round(TRAIN_SHARE * len(ranked))))])
    return [one for key, one in keyed if key in chosen], [one for key, one in keyed if key not in chosen]


def _layout(rows: Sequence[Row], path: Path, template: Template | None) -> tuple[str, Template]:
    """The name of the field with the answer, and the template."""
    fields = rows[0].fields
    for given, gold, standard in (("text", "label", CLASSIFICATION), ("input", "output", OPEN)):
        if gold in fields and (template is not None or given in fields):
            return gold, template or standard
    found = f"{path}: found the fields {', '.join(map(str, fields)) or '(none)'}"
    if template is not None:
        raise DataError(
            f"{found}; a template finds its inputs by itself, but the answer must be called label or output"
        )
    raise DataError(f"{found}; needed are text,label or input,output (or label or output, and a template for the rest)")


def _examples(rows: Sequence[Row], path: Path, gold: str, template: Template) -> list[Example]:
    examples = []
    needed = [name for name in ("text", "input") if template in (CLASSIFICATION, OPEN) and name in rows[0].fields]
    for row in rows:
        if lacking := [name for name in needed if name not in row.fields]:
            found = ", ".join(map(str, row.fields)) or "nothing"
            raise DataError(f"{path}, {row.where}: lacks {', '.join(lacking)}; found {found}")
        label = _answer(row, path, gold)
        if gold == "output":
            ends_with_its_line(template, label, f"{path}, {row.where}")
        fields = {name: value for name, value in row.fields.items() if name != gold}
        for name in ("text", "input"):
            if name in fields and (
                fields[name] is None or fields[name] != fields[name] or not str(fields[name]).strip()
            ):
                raise DataError(f"{path}, {row.where}: {name} is empty; give it text or take the row out")
        try:
            text = template.render(fields)
        except PromptError as error:
            raise PromptError(f"{path}, {row.where}: {error}") from error
        if not text.strip():
            raise DataError(f"{path}, {row.where}: the template gives an empty prompt")
        examples.append(Example(id=row.where.replace(" ", ":"), fields=fields, label=label))
    return examples


def _answer(row: Row, path: Path, gold: str) -> str:
    value = row.fields.get(gold)
    if isinstance(value, bool):
        # as JSON spells it
        value = str(value).lower()
    if isinstance(value, float) and value.is_integer():
        # what became of whole numbers in a column that had a gap
        value = int(value)
    if value is None or (isinstance(value, str) and not value.strip()) or value != value:
        raise DataError(f"{path}, {row.where}: {gold} is empty; give it a value or take the row out")
    if not isinstance(value, (str, int)) and not (gold == "output" and isinstance(value, float)):
        raise DataError(f"{path}, {row.where}: {gold} is {value!r}; what works is text or a whole number")
    return str(value).strip()


def ends_with_its_line(template: Template, answer: str, where: str) -> None:
    """DataError, begun with ``where``, for an open answer that holds a stop sequence: what is said ends there, so it
    could never be right."""
    word = template.words.get(answer, answer)
    for stop in template.stops:
        if stop in word:
            what = "a line break" if stop == "\n" else f"the separator {stop!r}"
            raise DataError(
                f"{where}: output {word[:40]!r} holds {what}, at which an answer ends; write it without, or call it label"
            )


def _distinct(examples: list[Example], template: Template, name: str, notes: list[str]) -> list[Example]:
    """One example for each rendered input: the first."""
    first: dict[str, Example] = {}
    again = other = 0
    for example in examples:
        kept = first.setdefault(input_key(template, example.fields), example)
        if kept is not example:
            again += kept.label == example.label
            other += kept.label != example.label
    if again:
        notes.append(f"{name}: {again} repeated row{'s' * (again > 1)} dropped")
    if other:
        notes.append(f"{name}: {other} row{'s' * (other > 1)} with an input seen before and another answer dropped")
    return list(first.values())


def apart(train: Sequence[Example], test: Sequence[Example], template: Template, notes: list[str]) -> list[Example]:
    """The training examples whose input is not in test, with a note where there are others."""
    asked = {input_key(template, example.fields) for example in test}
    kept = [example for example in train if input_key(template, example.fields) not in asked]
    if len(kept) < len(train):
        notes.append(f"{len(train) - len(kept)} train rows dropped because their input is also in test")
    return kept


def _renamed(example: Example, part: str) -> Example:
    number = example.id.split(":")[-1]
    return Example(id=f"{part}:{number}", fields=example.fields, label=example.label, choices=example.choices)


def labels_in_order(
    train: Sequence[Example], test: Sequence[Example], classification: bool, asked: str
) -> tuple[str, ...]:
    """The labels (of an open task: the answers of the test split), numbers by size and before words; DataError, begun with ``asked``, where they do not fit."""
    if classification and train and not test and len({example.label for example in train}) == len(train):
        raise DataError(
            f"{asked}: every label occurs once ({len(train)} examples), so none can be held out to test; labels must "
            "recur, or the answers be called output"
        )
    if not train or not test:
        raise DataError(f"{asked}: {len(train)} train and {len(test)} test examples remain; both need at least one")
    known = {example.label for example in train if example.label is not None}
    scored = {example.label for example in test if example.label is not None}
    if classification:
        if len(known | scored) == 1:
            raise DataError(f"{asked}: every label is {next(iter(known))!r}; a classification needs at least two")
        if scored - known:
            missing = ", ".join(map(repr, sorted(scored - known)))
            raise DataError(f"{asked}: test has the label {missing}, which train lacks ({', '.join(sorted(known))})")
    found = known | scored if classification else scored
    return tuple(sorted(found, key=lambda one: (not one.isdecimal(), len(one) * one.isdecimal(), one)))
