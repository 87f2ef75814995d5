"""A classifier's answers as Predictions: for metrics and reports it is a way of teaching like any other."""

from collections.abc import Sequence

import numpy as np

from kshot.data.predictions import Predictions
from kshot.data.task import Example, Task
from kshot.errors import PromptError
from kshot.measure.outcome import Outcome, Overlength
from kshot.model.adapted import Adapted
from kshot.model.classifier import over


def classified(
    adapted: Adapted, task: Task, examples: Sequence[Example], *, overlength: Overlength = "drop-demo"
) -> Outcome:
    """The log-probability of every candidate of every example, in nats, by ``adapted.classifier``.

    A candidate that the classifier has seen no example of gets what model/classifier.over gives it. No answer is written
    out, so lengths are 0, nothing is known of other inputs, and the rules that need either are undefined. Open tasks are
    answered by the most probable label of all that the classifier knows, among the candidates or not. Raises PromptError
    where an example is longer than the model reads, unless ``overlength`` is "skip".
    """
    classifier = adapted.classifier
    assert classifier is not None, "asked a model without a classifier to classify"
    lm, template = adapted.lm, adapted.template
    kept: list[Example] = list(examples)
    skipped: tuple[str, ...] = ()
    if overlength == "skip" and lm.context is not None:
        kept, skipped = _readable(adapted, examples, lm.context)
    table, tokens = classifier.logprobs(lm, template, kept)
    # Of equals the first of the labels, as everywhere.
    best = [classifier.labels[int(row.argmax())] for row in table]
    spoken = tuple(template.answer(label).strip() for label in best)
    logprobs = over(classifier, table, task.labels)
    predictions = Predictions(
        ids=tuple(example.id for example in kept),
        labels=(task.labels,) * len(kept),
        logprobs=logprobs,
        tokens=np.zeros(logprobs.shape, dtype=np.int64),
        characters=np.zeros(logprobs.shape, dtype=np.int64),
        gold=np.array([task.labels.index(e.label) if e.label in task.labels else -1 for e in kept], dtype=np.int64),
        greedy=spoken if task.kind == "open" and kept else None,
        gold_text=tuple(None if e.label is None else template.answer(e.label).strip() for e in kept),
    )
    return Outcome(predictions=predictions, tokens=tokens, skipped=skipped)


def _readable(adapted: Adapted, examples: Sequence[Example], limit: int) -> tuple[list[Example], tuple[str, ...]]:
    """The examples that the model can read, and the ids of the others; PromptError where none is left."""
    assert adapted.classifier is not None
    needs = adapted.classifier.needs(adapted.lm, adapted.template, examples)
    kept = [e for e, need in zip(examples, needs, strict=True) if need <= limit]
    if examples and not kept:
        raise PromptError(
            f"the shortest input needs {min(needs)} tokens and {adapted.lm.name} reads {limit}; no query is left"
        )
    return kept, tuple(e.id for e, need in zip(examples, needs, strict=True) if need > limit)
