"""Plain classifiers that answer in the place of the model's own words: what a sceptic would try first.

Each is what was learned, as values that can be written down and read back without loss: ``facts`` are JSON, ``arrays``
are NumPy's, and ``restored(facts, arrays)`` gives the same answers to the bit. How they are fitted is told in
adapt/classical.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from kshot.data.pick import bm25_index
from kshot.data.task import Example
from kshot.data.template import Template, content
from kshot.errors import ModelError, UnknownName
from kshot.model.hidden import fitting, inputs, last_hidden, mean_hidden
from kshot.model.lm import LM
from kshot.model.terms import Unit, units

Answered = tuple[Float[np.ndarray, "q c"], int]


@runtime_checkable
class Classifier(Protocol):
    """What was learned from examples, as values that can be written down: ``facts`` as JSON and ``arrays`` by name."""

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows: those of its examples, in the order of its columns."""
        ...

    @property
    def shots(self) -> int:
        """How many examples it learned from."""
        ...

    def needs(self, lm: LM, template: Template, examples: Sequence[Example]) -> list[int]:
        """How many tokens the model has to read at once for each example; 0 where it reads nothing."""
        ...

    def logprobs(self, lm: LM, template: Template, examples: Sequence[Example]) -> Answered:
        """log P(label | example) in nats for the labels it knows, and how many tokens the model ran for them.

        PromptError where an example is longer than the model reads.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """What it is, as JSON knows it, without its arrays; ``kind`` is its name in CLASSIFIERS."""
        ...

    def arrays(self) -> Mapping[str, np.ndarray]:
        """The numbers it learned."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frequencies:
    """How often each label stands among the examples; the same answer for every query.

    P(label) = (count + 1) / (examples + labels): Laplace's rule of succession.
    """

    labels: tuple[str, ...]
    counts: Int[np.ndarray, "c"]

    @property
    def parameters(self) -> int:
        return self.counts.size

    @property
    def shots(self) -> int:
        return int(self.counts.sum())

    def needs(self, lm: LM, template: Template, examples: Sequence[Example]) -> list[int]:
        return [0] * len(examples)

    def logprobs(self, lm: LM, template: Template, examples: Sequence[Example]) -> Answered:
        return np.tile(succession(self.counts), (len(examples), 1)), 0

    def facts(self) -> dict[str, Any]:
        return {"kind": "frequencies", "labels": list(self.labels)}

    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"counts": self.counts}

    @classmethod
    def of(cls, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Frequencies":
        return cls(labels=tuple(facts["labels"]), counts=arrays["counts"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HiddenRegression:
    """Logistic regression on (hidden - mean) / scale, hidden being what ``last_hidden`` says of a rendered input.

    The input stands after the template's description, without demonstrations. Two labels have one row of weights, one
    label has none.
    """

    labels: tuple[str, ...]
    shots: int
    mean: Float[np.ndarray, "e"]
    scale: Float[np.ndarray, "e"]
    weights: Float[np.ndarray, "r e"]
    bias: Float[np.ndarray, "r"]

    @property
    def parameters(self) -> int:
        """Weights and biases; means and scales are taken from the examples, not fitted to their labels."""
        return self.weights.size + self.bias.size

    def needs(self, lm: LM, template: Template, examples: Sequence[Example]) -> list[int]:
        return [len(tokens) for tokens in inputs(lm, template, examples)]

    def logprobs(self, lm: LM, template: Template, examples: Sequence[Example]) -> Answered:
        if len(self.labels) == 1 or not examples:
            return np.zeros((len(examples), len(self.labels))), 0
        hidden, tokens = last_hidden(lm, fitting(lm, inputs(lm, template, examples)))
        return _posterior((hidden - self.mean) / self.scale @ self.weights.T + self.bias, len(self.labels)), tokens

    def facts(self) -> dict[str, Any]:
        return {"kind": "hidden-regression", "labels": list(self.labels), "shots": self.shots}

    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"mean": self.mean, "scale": self.scale, "weights": self.weights, "bias": self.bias}

    @classmethod
    def of(cls, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "HiddenRegression":
        own = {name: arrays[name] for name in ("mean", "scale", "weights", "bias")}
        return cls(labels=tuple(facts["labels"]), shots=facts["shots"], **own)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordRegression:
    """Logistic regression on counts of ``terms`` times ``idf``, each text at unit length; other terms do not count.

    A text is what an example puts into the template (``content``); its terms are those of ``units``. Two labels have
    one row of weights, one label has none.
    """

    labels: tuple[str, ...]
    shots: int
    unit: Unit
    terms: tuple[str, ...]
    idf: Float[np.ndarray, "n"]
    weights: Float[np.ndarray, "r n"]
    bias: Float[np.ndarray, "r"]

    @property
    def parameters(self) -> int:
        """Weights and biases; the weights of the terms are counted, not fitted to labels."""
        return self.weights.size + self.bias.size

    def needs(self, lm: LM, template: Template, examples: Sequence[Example]) -> list[int]:
        return [0] * len(examples)

    def logprobs(self, lm: LM, template: Template, examples: Sequence[Example]) -> Answered:
        column = {term: at for at, term in enumerate(self.terms)}
        logits = np.tile(self.bias, (len(examples), 1))
        for row, example in enumerate(examples):
            found = Counter(column[u] for u in units(content(template, example.fields), self.unit) if u in column)
            if not found:
                continue
            at = np.array(list(found))
            values = np.array([found[c] for c in found]) * self.idf[at]
            logits[row] += self.weights[:, at] @ (values / np.linalg.norm(values))
        return _posterior(logits, len(self.labels)), 0

    def facts(self) -> dict[str, Any]:
        own = {"labels": list(self.labels), "shots": self.shots, "unit": self.unit, "terms": list(self.terms)}
        return {"kind": "word-regression", **own}

    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"idf": self.idf, "weights": self.weights, "bias": self.bias}

    @classmethod
    def of(cls, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "WordRegression":
        own = {name: arrays[name] for name in ("idf", "weights", "bias")}
        terms = tuple(facts["terms"])
        return cls(labels=tuple(facts["labels"]), shots=facts["shots"], unit=facts["unit"], terms=terms, **own)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HiddenNeighbours:
    """The labels of the examples whose hidden states (``mean_hidden``) are most similar, by cosine (``votes``).

    An input is rendered by the template, without its description. ``embeddings`` are at unit length.
    """

    labels: tuple[str, ...]
    neighbours: int
    label_of: Int[np.ndarray, "k"]
    embeddings: Float[np.ndarray, "k e"]

    @property
    def parameters(self) -> int:
        """None: the examples are kept as they are."""
        return 0

    @property
    def shots(self) -> int:
        return len(self.label_of)

    def needs(self, lm: LM, template: Template, examples: Sequence[Example]) -> list[int]:
        return [len(tokens) for tokens in inputs(lm, template, examples, described=False)]

    def logprobs(self, lm: LM, template: Template, examples: Sequence[Example]) -> Answered:
        if not examples:
            return np.zeros((0, len(self.labels))), 0
        embeddings, tokens = mean_hidden(lm, fitting(lm, inputs(lm, template, examples, described=False)))
        return votes(embeddings @ self.embeddings.T, self.label_of, len(self.labels), self.neighbours), tokens

    def facts(self) -> dict[str, Any]:
        return {"kind": "hidden-neighbours", "labels": list(self.labels), "neighbours": self.neighbours}

    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"label_of": self.label_of, "embeddings": self.embeddings}

    @classmethod
    def of(cls, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "HiddenNeighbours":
        own = {name: arrays[name] for name in ("label_of", "embeddings")}
        return cls(labels=tuple(facts["labels"]), neighbours=facts["neighbours"], **own)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordNeighbours:
    """The labels of the examples whose words are most like the query's, by BM25 (``votes``); ``texts`` as ``content`` is."""

    labels: tuple[str, ...]
    neighbours: int
    label_of: Int[np.ndarray, "k"]
    texts: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """None: the examples are kept as they are."""
        return 0

    @property
    def shots(self) -> int:
        return len(self.label_of)

    def needs(self, lm: LM, template: Template, examples: Sequence[Example]) -> list[int]:
        return [0] * len(examples)

    def logprobs(self, lm: LM, template: Template, examples: Sequence[Example]) -> Answered:
        pool = [Example(id=str(at), fields={"text": text}, label=None) for at, text in enumerate(self.texts)]
        similarity = bm25_index(pool, Template(input="{{text}}"))
        asked = [Example(id="", fields={"text": content(template, example.fields)}, label=None) for example in examples]
        table = np.array([similarity(query, pool) for query in asked]).reshape(len(examples), len(pool))
        return votes(table, self.label_of, len(self.labels), self.neighbours), 0

    def facts(self) -> dict[str, Any]:
        own = {"labels": list(self.labels), "neighbours": self.neighbours, "texts": list(self.texts)}
        return {"kind": "word-neighbours", **own}

    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"label_of": self.label_of}

    @classmethod
    def of(cls, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "WordNeighbours":
        labels, texts = tuple(facts["labels"]), tuple(facts["texts"])
        return cls(labels=labels, neighbours=facts["neighbours"], label_of=arrays["label_of"], texts=texts)


CLASSIFIERS: dict[str, Any] = {
    "frequencies": Frequencies,
    "hidden-neighbours": HiddenNeighbours,
    "hidden-regression": HiddenRegression,
    "word-neighbours": WordNeighbours,
    "word-regression": WordRegression,
}


def restored(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Classifier:
    """The classifier with these facts and arrays. UnknownName for its kind, ModelError where something is missing."""
    kind = str(facts.get("kind"))
    if kind not in CLASSIFIERS:
        raise UnknownName("kind of classifier", kind, CLASSIFIERS)
    try:
        return CLASSIFIERS[kind].of(facts, arrays)
    except KeyError as error:
        raise ModelError(f"the stored classifier ({kind}) lacks {error}; save it again") from error


def over(
    classifier: Classifier, table: Float[np.ndarray, "q c"], candidates: Sequence[str]
) -> Float[np.ndarray, "q m"]:
    """Log-probabilities over ``candidates``, in nats, from those over the labels that the classifier knows.

    A candidate without an example gets P = 1 / (examples + labels), the succession rule for what was never seen, and
    the labels it knows share the rest: so it is never the answer, and never impossible.
    """
    unseen = [name for name in candidates if name not in classifier.labels]
    floor = 1 / (classifier.shots + len(classifier.labels) + len(unseen))
    column = {name: at for at, name in enumerate(classifier.labels)}
    known = table + np.log1p(-floor * len(unseen))
    found = np.full((len(table), len(candidates)), np.log(floor))
    for at, name in enumerate(candidates):
        if name in column:
            found[:, at] = known[:, column[name]]
    return found


def succession(counts: Int[np.ndarray, "c"]) -> Float[np.ndarray, "c"]:
    """log P(label) = log((count + 1) / (examples + labels)): Laplace's rule of succession."""
    return np.log(counts + 1) - np.log(counts.sum() + counts.size)


def votes(
    similarities: Float[np.ndarray, "q k"], label_of: Int[np.ndarray, "k"], labels: int, neighbours: int
) -> Float[np.ndarray, "q c"]:
    """log P(label) from the labels of the ``neighbours`` most similar of k examples; of equals the earlier is nearer.

    P = (v + m) / (neighbours + 1): v are the votes of a label, and m shares one vote more among all c labels, as c,
    c - 1, ..., 1 in the order in which the nearest example of each comes. That decides ties and leaves no label without
    probability. How much nearer one is than another does not count: cosines and BM25 have scales of their own.
    """
    order = np.argsort(-similarities, axis=1, kind="stable")
    ranked = label_of[order]
    counts = np.stack([(ranked[:, :neighbours] == c).sum(axis=1) for c in range(labels)], axis=1)
    first = np.stack([(ranked == c).argmax(axis=1) for c in range(labels)], axis=1)
    place = first.argsort(axis=1).argsort(axis=1)
    share = (labels - place) / (labels * (labels + 1) / 2)
    return np.log(counts + share) - np.log(neighbours + 1)


def _posterior(logits: Float[np.ndarray, "q r"], labels: int) -> Float[np.ndarray, "q c"]:
    """log P(label); with two labels the logit is that of the second against the first."""
    if labels <= 2:
        logits = np.concatenate([np.zeros((len(logits), 1)), logits], axis=1)
    return log_softmax(logits, axis=1)
