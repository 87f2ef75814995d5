"""Layouts, label words and numbers of demonstrations as published, so that a study can be repeated as it was."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kshot.data.files import task_name
from kshot.data.task import Task
from kshot.data.template import Template
from kshot.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """How a study put one task: its layout and label words, how many demonstrations, and the layout of its released code.

    ``template`` is the paper's, ``one_line`` the code's. ``shots`` is the number that was left after the limit of the
    authors' model on the length of a text.
    """

    template: Template
    shots: int
    one_line: Template


# The released code ends a demonstration with the end-of-text token of its models. A layout is text for any tokenizer,
# so a line break, one token too, stands in its place.
_BETWEEN = "\n"


def _published(paper: str, code: str, words: Mapping[str, str], shots: int = 32) -> Published:
    template = Template(input=paper, words=dict(words), delimiter=" ", separator=_BETWEEN)
    return Published(template=template, shots=shots, one_line=replace(template, input=code))


_TOPICS = "Classify the news articles into the categories of World, Sports, Business, and Technology."
_POLARITY = {"negative": "Negative", "positive": "Positive"}

DAI_2023: dict[str, Published] = {
    "sst2": _published("Sentence: {{text}}\nLabel:", "Sentence: {{text}} Label:", _POLARITY),
    "sst5": _published(
        "Sentence: {{text}}\nLabel:",
        "Sentence: {{text}} Label:",
        {
            "very negative": "terrible",
            "negative": "bad",
            "neutral": "neutral",
            "positive": "good",
            "very positive": "great",
        },
    ),
    "mr": _published("Review: {{text}}\nSentiment:", "Review: {{text}} Sentiment:", _POLARITY),
    "subj": _published(
        "Input: {{text}}\nType:",
        "Input: {{text}} Type:",
        {"objective": "objective", "subjective": "subjective"},
    ),
    "agnews": _published(
        f"{_TOPICS}\nNews: {{{{text}}}}\nType:",
        f"{_TOPICS} Article: {{{{text}}}} Answer:",
        {"World": "World", "Sports": "Sports", "Business": "Business", "Sci/Tech": "Technology"},
        shots=22,
    ),
    "cb": _published(
        "{{premise}}\nQuestion: {{hypothesis}} True, False, or Neither?\nAnswer:",
        "{{premise}} Question: {{hypothesis}}. True, False, or Neither? Answer:",
        {"entailment": "True", "contradiction": "False", "neutral": "Neither"},
        shots=19,
    ),
}
"""Dai et al. 2023, Table 8, by the name of the task; ``words`` names every label. Inputs are in the field ``text``, those
of cb in ``premise`` and ``hypothesis``."""


def suggested(name: str) -> Template | None:
    """The layout of Dai et al. 2023 for a task by its name, file or folder; None where there is none."""
    return named({task: found.template for task, found in DAI_2023.items()}, name)


def _li(layout: str, **words: str) -> Template:
    return Template(input=layout, words={name.replace("_", "/"): word for name, word in words.items()}, separator="\n")


_FEELING = _li("Review: {{text}}\nSentiment:", negative="negative", positive="positive")
LI_2024: dict[str, Template] = {
    "sst2": _FEELING,
    "cr": _FEELING,
    "agnews": _li(
        "News: {{text}}\nNews type:", World="world", Sports="sports", Business="business", Sci_Tech="science"
    ),
}
"""Li et al. 2024, released code, by the name of the task. There a line break begins every demonstration, and the blank
stands before the answer's delimiter; here the one stands between demonstrations, the other before the answer."""


def named(layouts: Mapping[str, Template], name: str) -> Template | None:
    """The layout for a task by its name, file or folder; None where there is none."""
    return layouts.get(task_name(name))


def published(task: Task) -> Published:
    """How Dai et al. 2023 put this task, found by its name; DataError where they did not, or the labels are others."""
    if task.name not in DAI_2023:
        raise DataError(
            f"task {task.name!r} is none that Dai et al. 2023 published a layout of; those are {', '.join(sorted(DAI_2023))}"
        )
    found = DAI_2023[task.name]
    if set(task.labels) != set(found.template.words):
        raise DataError(
            f"task {task.name!r} has the labels {_listed(task.labels) or 'none'}, and the published layout puts "
            f"{_listed(found.template.words)}; rename the labels (known tasks: {', '.join(sorted(DAI_2023))})"
        )
    return found


def _listed(labels: Mapping[str, str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(map(repr, labels)))
