"""What a sceptic would try first: a plain classifier on the same k examples (scikit-learn).

None of them asks the model for an answer. A task whose questions have answers of their own cannot be put to them; an open
one can, and is answered by the answers of the examples.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kshot.adapt.examples import given
from kshot.adapt.regression import Fitted, by_frequency, check_penalty, regression
from kshot.data.task import Example, Task
from kshot.data.template import Template, content
from kshot.errors import MethodError, PromptError, UnknownName
from kshot.model.adapted import Adapted, Training
from kshot.model.classifier import (
    Classifier,
    Frequencies,
    HiddenNeighbours,
    HiddenRegression,
    WordNeighbours,
    WordRegression,
)
from kshot.model.hidden import fitting, inputs, last_hidden, mean_hidden
from kshot.model.lm import LM
from kshot.model.terms import unit_of, units

# A feature that hardly varies among the examples is not blown up beyond this share of the mean (root mean square) spread.
_LEAST_SPREAD = 0.1

NEARNESS = {"bm25": "words in common, by BM25", "hidden": "cosine of the model's hidden states"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """The commonest label of the examples, for every query; of equally common ones the first of the task's labels.

    P(label) = (count + 1) / (examples + labels), Laplace's rule of succession.
    """

    shots: int
    pick: str = "random"
    ids: tuple[str, ...] = ()
    template: Template | None = None

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        blank = _blank("majority", lm, task, self.template)
        chosen = given(task, examples, shots=self.shots, how=self.pick, seed=seed, ids=self.ids)
        labels, label_of = _labels(task, chosen)
        counts = np.bincount(label_of, minlength=len(labels))
        return replace(blank, classifier=Frequencies(labels=labels, counts=counts), notes=_unseen(task, labels, chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The label of the most similar of the examples, by the model's hidden states or by the words (``by``, of NEARNESS).

    With more ``neighbours`` they vote; how votes become log-probabilities is told in model/classifier.votes. Hidden
    states are the mean over the tokens of the rendered input without the description.
    """

    shots: int
    pick: str = "random"
    ids: tuple[str, ...] = ()
    template: Template | None = None
    neighbours: int = 1
    by: str = "hidden"

    def __post_init__(self) -> None:
        """What cannot be is said before anything runs."""
        if self.by not in NEARNESS:
            raise UnknownName("kind of nearness", self.by, NEARNESS)
        if self.neighbours < 1:
            raise MethodError(
                f"asked for the {self.neighbours} nearest examples; what works is a whole number from 1 on"
            )

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        blank = _blank("nearest", lm, task, self.template)
        chosen = given(task, examples, shots=self.shots, how=self.pick, seed=seed, ids=self.ids)
        if self.neighbours > len(chosen):
            raise MethodError(
                f"task {task.name!r}: asked for the {self.neighbours} nearest of {len(chosen)} examples; "
                f"what works is 1 to {len(chosen)}"
            )
        labels, label_of = _labels(task, chosen)
        known: dict[str, Any] = {"labels": labels, "neighbours": self.neighbours, "label_of": label_of}
        classifier: Classifier
        if self.by == "hidden":
            embeddings, _ = _readable(
                task, lambda: mean_hidden(lm, fitting(lm, inputs(lm, blank.template, chosen, described=False)))
            )
            classifier = HiddenNeighbours(**known, embeddings=embeddings)
        else:
            classifier = WordNeighbours(**known, texts=_contents(blank.template, chosen))
        return replace(blank, classifier=classifier, notes=_unseen(task, labels, chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Logistic regression on the frozen model's last hidden state, at the last token of the rendered input.

    The input stands after the template's description and without demonstrations: what the model's own head would read
    before the answer. Features are standardised over the examples and divided by the root of their number. ``c`` is the
    inverse of the penalty's weight: None takes the best of GRID by cross-validation within the examples (log-loss,
    FOLDS folds; adapt/regression.py) where every label that has examples has two, else DEFAULT.
    """

    shots: int
    pick: str = "random"
    ids: tuple[str, ...] = ()
    template: Template | None = None
    c: float | None = None

    def __post_init__(self) -> None:
        """What cannot be is said before anything runs."""
        check_penalty(self.c)

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        began = time.perf_counter()
        blank = _blank("head", lm, task, self.template)
        chosen = given(task, examples, shots=self.shots, how=self.pick, seed=seed, ids=self.ids)
        labels, label_of = _labels(task, chosen)
        hidden, tokens = _readable(task, lambda: last_hidden(lm, fitting(lm, inputs(lm, blank.template, chosen))))

        def lay(rows: Int[np.ndarray, "n"]) -> Float[np.ndarray, "k e"]:
            mean, scale = _standard(hidden[rows])
            return (hidden - mean) / scale

        found = regression(lay, label_of, len(labels), self.c)
        mean, scale = _standard(hidden)
        classifier = HiddenRegression(
            labels=labels, shots=len(chosen), mean=mean, scale=scale, weights=found.weights, bias=found.bias
        )
        notes = (*_unseen(task, labels, chosen), *found.notes)
        adapted = replace(blank, classifier=classifier, notes=notes)
        return replace(adapted, training=_training(adapted, found, tokens, began))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tfidf:
    """Logistic regression on tf-idf of what an example puts into the template; the model is not asked.

    Terms are words and pairs of neighbouring words; one to three neighbouring characters where most letters of the
    examples belong to scripts that do not part words by blanks. tf-idf is scikit-learn's: count times
    ln((1 + k) / (1 + examples with the term)) + 1, at unit length. ``c`` is as in Head.
    """

    shots: int
    pick: str = "random"
    ids: tuple[str, ...] = ()
    template: Template | None = None
    c: float | None = None

    def __post_init__(self) -> None:
        """What cannot be is said before anything runs."""
        check_penalty(self.c)

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        began = time.perf_counter()
        blank = _blank("tfidf", lm, task, self.template)
        chosen = given(task, examples, shots=self.shots, how=self.pick, seed=seed, ids=self.ids)
        labels, label_of = _labels(task, chosen)
        texts = _contents(blank.template, chosen)
        unit = unit_of(texts)
        counted = [units(text, unit) for text in texts]
        terms: tuple[str, ...]
        found, terms, idf = by_frequency(label_of, len(labels)), (), np.zeros(0)
        if any(counted):

            def lay(rows: Int[np.ndarray, "n"]) -> Any:
                seen = [counted[row] for row in rows]
                return _vectorizer().fit(seen if any(seen) else counted).transform(counted)

            found = regression(lay, label_of, len(labels), self.c)
            fitted = _vectorizer().fit(counted)
            terms, idf = tuple(fitted.get_feature_names_out().tolist()), fitted.idf_
        classifier = WordRegression(
            labels=labels, shots=len(chosen), unit=unit, terms=terms, idf=idf, weights=found.weights, bias=found.bias
        )
        notes = (*_unseen(task, labels, chosen), *_spelt(unit, terms), *found.notes)
        adapted = replace(blank, classifier=classifier, notes=notes)
        return replace(adapted, training=_training(adapted, found, 0, began))


def _training(adapted: Adapted, found: Fitted, tokens: int, began: float) -> Training | None:
    """What the fit cost: tokens and FLOPs are the model's (2 for each parameter and token), the regression's are small.

    L-BFGS has no batches, so there are no losses of them; ``start`` is the loss of zero weights, ln(labels).
    """
    classifier = adapted.classifier
    if classifier is None or not found.steps:
        return None
    return Training(
        parameters=classifier.parameters,
        steps=found.steps,
        seconds=time.perf_counter() - began,
        tokens=tokens,
        flops=2.0 * adapted.lm.parameters * tokens,
        start=float(np.log(len(classifier.labels))),
        losses=(),
        flattened=found.converged,
        chosen={"c": found.c},
        search=found.search,
        validation=found.validation,
    )


def _blank(name: str, lm: LM, task: Task, template: Template | None) -> Adapted:
    """The task's names and layout without anything learned; MethodError where it has no common labels."""
    if task.kind == "choice":
        raise MethodError(
            f"task {task.name!r}: every question has answers of its own, and {name} learns labels that all share; "
            "try in-context or lora"
        )
    return Adapted(lm=lm, template=template or task.template, method=name, kind=task.kind, labels=task.labels)


def _labels(task: Task, chosen: Sequence[Example]) -> tuple[tuple[str, ...], Int[np.ndarray, "k"]]:
    """The labels that have examples, in the task's order, and which of them each example has.

    Those of an open task are in the order of the examples: its own labels are the answers of the test.
    """
    said = [str(example.label) for example in chosen]
    first = task.labels if task.kind == "classification" else ()
    labels = tuple(dict.fromkeys(label for label in (*first, *said) if label in said))
    return labels, np.array([labels.index(label) for label in said])


def _unseen(task: Task, labels: tuple[str, ...], chosen: Sequence[Example]) -> tuple[str, ...]:
    """What is said where some answer has no example."""
    if task.kind == "open":
        if len(chosen) == 1:
            return ("open answers: only the answer of the one example can be given",)
        answers = f"{len(labels)} answers" if len(labels) > 1 else "one answer"
        return (f"open answers: only the {answers} of the {len(chosen)} examples can be given",)
    if missing := [label for label in task.labels if label not in labels]:
        floor = 1 / (len(chosen) + len(labels) + len(missing))
        names = ", ".join(map(repr, missing))
        return (f"no example of {names}: never the answer, with probability {floor:.2g} for each",)
    return ()


def _spelt(unit: str, terms: Sequence[str]) -> tuple[str, ...]:
    apart = "words of these texts are not parted by blanks, so neighbouring characters are counted"
    return (apart,) if unit == "characters" and terms else ()


def _contents(template: Template, chosen: Sequence[Example]) -> tuple[str, ...]:
    return tuple(content(template, example.fields) for example in chosen)


def _vectorizer() -> Any:
    # scikit-learn takes a second to import: whoever prompts and nothing else does not wait for it.
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer=list)


def _standard(hidden: Float[np.ndarray, "k e"]) -> tuple[Float[np.ndarray, "e"], Float[np.ndarray, "e"]]:
    """Mean, and the scale that gives every feature unit spread and every row a length of about 1."""
    spread = hidden.std(axis=0)
    usual = float(np.sqrt(np.mean(spread**2))) or 1.0
    return hidden.mean(axis=0), np.maximum(spread, _LEAST_SPREAD * usual) * np.sqrt(hidden.shape[1])


def _readable(task: Task, read: Callable[[], tuple[Float[np.ndarray, "k e"], int]]) -> tuple[Any, int]:
    """What ``read`` returns; an example that the model cannot read is a method that does not apply."""
    try:
        return read()
    except PromptError as error:
        raise MethodError(f"task {task.name!r}: an example cannot be learned from: {error}") from error
