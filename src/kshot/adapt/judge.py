"""Examples as rows to learn from, and how well others are answered meanwhile."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kshot.adapt.train import Placed, flops_of
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError
from kshot.model.lm import LM
from kshot.model.prompts import Prompt, continuations
from kshot.model.tokens import Codec
from kshot.model.tree import Scored, shared_beginning


def gold_rows(lm: LM, task: Task, template: Template, examples: Sequence[Example], *, whole: bool) -> list[Scored]:
    """Each example with its right answer to be scored, or with all of its tokens where ``whole``.

    Seams are those of scoring. An open answer is learned together with the token that ends it there: where the
    separator changes the answer's last tokens, with those that both make.
    """
    own = [(e.label or "",) if task.kind == "open" else task.candidates(e) for e in examples]
    for example, labels in zip(examples, own, strict=True):
        if example.label not in labels:
            raise MethodError(
                f"task {task.name!r}: example {example.id!r} has the answer {example.label!r}, which is not a label"
            )
    prompts = [Prompt(template.description, e.fields, labels) for e, labels in zip(examples, own, strict=True)]
    found = continuations(lm.codec, template, prompts).sequences
    rows = [ours[labels.index(e.label or "")] for e, labels, ours in zip(examples, own, found, strict=True)]
    if task.kind == "open":
        texts = [template.description + template.render(e.fields) + template.answer(e.label or "") for e in examples]
        rows = [_ended(lm.codec, text, template.separator, row) for text, row in zip(texts, rows, strict=True)]
    if whole:
        first = max(1, len(lm.codec.first))
        rows = [Scored(row.tokens, first) for row in rows]
    return rows


def _ended(codec: Codec, text: str, separator: str, row: Scored) -> Scored:
    """The row of a text and of what begins the separator after it."""
    # Not the separator by itself: some tokenizers begin every text with a blank.
    alone, ended = codec.after(text, ["", separator])
    same = shared_beginning([alone, ended])
    more = range(same + 1, len(ended) + 1)
    stop = next((i for i in more if len(codec.decode(ended[i:])) < len(separator)), same)
    kept = row.tokens[: len(row.tokens) - (len(alone) - same)]
    return Scored(kept + ended[same:stop], min(row.start, len(kept)))


def check_room(lm: LM, rows: Sequence[Scored], prefix: int) -> None:
    """MethodError where the longest row does not fit after a prefix of this length."""
    longest = max(len(row.tokens) for row in rows)
    if lm.context is not None and prefix + longest > lm.context:
        before = f"{prefix} positions before the text and " if prefix else ""
        raise MethodError(
            f"{before}the longest example of {longest} tokens do not fit {lm.name}, which reads {lm.context}; "
            "shorten the prompt or the examples"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The loss of rows (nats per scored token), and what it cost to ask for it."""

    loss: float
    seconds: float
    tokens: int
    flops: float


def mean_loss(lm: LM, placed: Placed, rows: Sequence[Scored]) -> Asked:
    """The mean over all scored tokens of the rows. MethodError where they do not fit, NumericError for no number."""
    began = time.perf_counter()
    check_room(lm, rows, placed.prefix.length)
    found = lm.changed(placed.delta).score(rows, placed.prefix)
    logprobs, tokens = np.concatenate(found.logprobs), found.tokens + placed.read
    flops = flops_of(lm, tokens, len(logprobs), 0, passes=1)
    return Asked(loss=-float(logprobs.mean()), seconds=time.perf_counter() - began, tokens=tokens, flops=flops)


@dataclass(slots=True)
class Judge:
    """The validation examples of a search; ``look`` counts its calls and what they cost."""

    lm: LM
    task: Task
    template: Template
    examples: Sequence[Example]
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    looks: int = 0
    _rows: list[list[Scored]] = field(default_factory=list)

    def look(self, placed: Placed, step: int) -> tuple[int, float, float | None]:
        """The step, the mean loss of the right answers (nats), and the share of queries answered right.

        Where labels compete the loss is that of the right one among them; an open answer's is its mean per token, and
        nothing is said of its accuracy.
        """
        began = time.perf_counter()
        rows = self.asked()
        found = self.lm.changed(placed.delta).score([row for own in rows for row in own], placed.prefix)
        tokens = found.tokens + placed.read
        self.looks += 1
        self.tokens += tokens
        self.flops += flops_of(self.lm, tokens, len(rows), 0, passes=1)
        if self.task.kind == "open":
            self.seconds += time.perf_counter() - began
            return step, -float(np.concatenate(found.logprobs).mean()), None
        sums, at = found.sums(), 0
        losses, right = [], []
        for example, own in zip(self.examples, rows, strict=True):
            table = sums[at : at + len(own)]
            at += len(own)
            gold = self.task.candidates(example).index(example.label or "")
            losses.append(float(np.logaddexp.reduce(table) - table[gold]))
            right.append(int(table.argmax()) == gold)
        self.seconds += time.perf_counter() - began
        return step, float(np.mean(losses)), float(np.mean(right))

    def asked(self) -> list[list[Scored]]:
        """What is read for each validation example: its answers, one after the other."""
        if not self._rows:
            if self.task.kind == "open":
                rows = gold_rows(self.lm, self.task, self.template, self.examples, whole=False)
                self._rows = [[row] for row in rows]
            else:
                labels = [self.task.candidates(e) for e in self.examples]
                prompts = [
                    Prompt(self.template.description, e.fields, own)
                    for e, own in zip(self.examples, labels, strict=True)
                ]
                found = continuations(self.lm.codec, self.template, prompts).sequences
                self._rows = [list(own) for own in found]
        return self._rows
