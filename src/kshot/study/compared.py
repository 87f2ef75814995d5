"""Does in-context learning act as fine-tuning on the same demonstrations does? One set of them, every figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kshot.adapt.descent import one_pass
from kshot.adapt.judge import gold_rows
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.measure.intervals import wilson
from kshot.measure.similarity import rec2ftp
from kshot.model.demonstrations import read_ahead
from kshot.model.lm import LM
from kshot.study.figures import figure
from kshot.study.finetuned import Rates, right_answers
from kshot.study.likeness import likeness, trained
from kshot.study.three_runs import Texts, texts

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """A task in its layout, the demonstrations of a seed in their order, and the queries."""

    lm: LM
    task: Task
    template: Template
    demonstrations: tuple[Example, ...]
    queries: tuple[Example, ...]
    seed: int

    def texts(self) -> Texts:
        return texts(self.lm, self.task, self.template, self.demonstrations, self.queries)


def answered_right(setting: Setting) -> dict[str, np.ndarray]:
    """Which queries are answered right without demonstrations, and behind them."""
    lm, task, template, queries = setting.lm, setting.task, setting.template, setting.queries
    shown = setting.demonstrations
    prefix = read_ahead(lm, template, shown)
    return {
        "zero-shot": right_answers(lm, task, template, queries),
        "in-context": right_answers(lm, task, template, queries, demonstrations=shown, prefix=prefix),
    }


def accuracy_rows(right: Mapping[str, np.ndarray], named: Sequence[str] = ()) -> list[Row]:
    """The share of right answers of every run, with Wilson's interval."""
    rows = []
    for run, own in right.items():
        low, high = wilson(int(own.sum()), len(own)) or (None, None)
        rows.append(figure("accuracy", (*named, run), value=float(own.mean()), low=low, high=high, n=len(own)))
    return rows


def rate_rows(found: Rates) -> list[Row]:
    """The learning rates chosen, and by how much the published choice flatters itself."""
    return [
        figure("learning_rate", ("published",), value=found.published),
        figure("learning_rate", ("corrected",), value=found.corrected),
        figure("optimism", (), value=found.optimism, null=0.0),
    ]


def compared(
    setting: Setting,
    rate: float,
    right: Mapping[str, np.ndarray],
    *,
    named: Sequence[str] = (),
    watch: Callable[[str], None] | None = None,
) -> list[Row]:
    """Fine-tuned at this rate: its accuracy, Rec2FTP, and the likeness of both ways of learning inside the model.

    ``right`` are the answers of the two other runs on the same queries; ``named`` words go into every variant.
    """
    lm, task, template, shown = setting.lm, setting.task, setting.template, setting.demonstrations
    say = watch or (lambda what: None)
    say("fine-tuning on the demonstrations")
    done = one_pass(lm, task, template, shown, rate, record=True)
    assert done.queries is not None
    tuned = right_answers(lm, task, template, setting.queries, done.delta)
    rows = accuracy_rows({"fine-tuned": tuned}, named)
    again = rec2ftp(right["zero-shot"], tuned, right["in-context"])
    rows.append(
        figure(
            "rec2ftp", named, value=again.value, low=again.low, high=again.high, null=again.expected, n=again.n,
            reason=again.reason,
        )
    )  # fmt: skip
    say("tracing the three runs")
    asked = setting.texts()
    first = len(lm.codec.first)
    read = [row.tokens[first:] for row in gold_rows(lm, task, template, shown, whole=True)]
    own = [queries[:, :, first:] for queries in done.queries]
    return rows + likeness(lm, asked, trained(asked, done.delta, read, own), seed=setting.seed, named=named)
