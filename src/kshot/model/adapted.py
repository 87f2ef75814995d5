"""What every way of teaching leaves behind: a frozen model, what it reads first, and how a task is written for it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kshot.data.task import Example, Kind
from kshot.data.template import Template
from kshot.errors import DataError, KshotError
from kshot.model import artefact, serve
from kshot.model.classifier import Classifier
from kshot.model.delta import NO_CHANGE, Delta
from kshot.model.demonstrations import Retrieve, shown_texts
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY, Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How something was learned, and what it cost: plain values that go into records and artefacts.

    ``losses`` are those of the batches, in nats per scored token, before each step; ``start`` is the mean over all
    training examples before the first. ``steps`` are those of the fit that is kept; ``seconds``, ``tokens`` and
    ``flops`` count everything that was run for it, the search among them. ``flattened`` says whether the losses had
    stopped falling. ``search`` holds a mapping for each value that was tried, ``chosen`` the one that won.
    """

    parameters: int
    steps: int
    seconds: float
    tokens: int
    flops: float
    start: float
    losses: tuple[float, ...]
    flattened: bool | None
    chosen: Mapping[str, Any] = field(default_factory=dict)
    search: tuple[Mapping[str, Any], ...] = ()
    validation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapted:
    """LM + Prefix + Delta + Template. Scoring, comparing and reporting never ask which method it came from.

    ``demonstrations`` stand before every query, in this order, and ``prefix`` holds their keys and values; where
    ``retrieve`` is given every query has demonstrations of its own instead. ``channel`` asks for P(input | answer)
    in place of P(answer | input) (Min et al. 2022). ``classifier``, where given, answers in the model's place.
    ``labels`` and ``kind`` are those of the task it was fitted to.
    """

    lm: LM
    template: Template
    prefix: Prefix = EMPTY
    delta: Delta = NO_CHANGE
    classifier: Classifier | None = None
    demonstrations: tuple[Example, ...] = ()
    retrieve: Retrieve | None = None
    channel: bool = False
    method: str = ""
    kind: Kind = "classification"
    labels: tuple[str, ...] = ()
    training: Training | None = None
    notes: tuple[str, ...] = ()

    @property
    def reader(self) -> LM:
        """The model as it reads with the change of its weights in force, on top of those ``lm`` has already.

        ModelError where both replace the same weight.
        """
        return self.lm.changed(self.delta)

    @property
    def trainable_parameters(self) -> int:
        """How many numbers were learned; those of a reparametrisation that is left behind after training count."""
        if self.training is not None:
            return self.training.parameters
        return self.classifier.parameters if self.classifier is not None else 0

    @property
    def artefact_bytes(self) -> int:
        """What must be stored to use it again: the text of demonstrations and template (UTF-8), and what was learned."""
        template, prefix = self.template, self.prefix
        shown = shown_texts(template, self.demonstrations, channel=self.channel)
        text = "".join([template.description, template.input, template.delimiter, template.separator, *shown])
        learned = self.delta.nbytes
        if prefix.embeddings is not None:
            learned += prefix.embeddings.numel() * prefix.embeddings.element_size()
        elif prefix.tokens is None:
            learned += prefix.nbytes
        if self.classifier is not None:
            facts = json.dumps(self.classifier.facts(), ensure_ascii=False)
            learned += len(facts.encode()) + sum(array.nbytes for array in self.classifier.arrays().values())
        return len(text.encode()) + learned

    def save(self, directory: str | Path, compiled: bool = False) -> Path:
        """Everything needed to use it again, written as a folder, whole or not at all; returns the folder (``~`` expanded).

        Soft prompts, prefixes and LoRA are kept as PEFT keeps them. ``compiled`` also keeps the keys and values of what
        stands before a query, so that serving one runs no token of it. Raises OutputError (model/artefact.py).
        """
        training = None if self.training is None else asdict(self.training)
        return artefact.write(self, Path(directory).expanduser(), training=training, compiled=compiled)

    def predict(self, texts: Sequence[serve.Query]) -> list[serve.Prediction]:
        """The answers to a list of texts (or of mappings of fields), all from one packed pass; PromptError names a bad one."""
        return serve.predict_together([(self, texts)])[0]


def load_adapted(
    lm: LM,
    directory: str | Path,
    *,
    template: Template | None = None,
    labels: Sequence[str] = (),
    kind: Kind = "classification",
) -> Adapted:
    """What was saved as ``directory``, ready to be used with the model it was taught to: the same to the bit.

    A folder of PEFT's without our ``kshot.json`` does not know how its task is written: it needs ``template`` and
    ``labels`` (``kind`` where it is another), and that it belongs to this model is seen from its shapes alone. Raises
    ModelError for another model, DataError for what is missing, damaged or cannot be read.
    """
    folder = Path(directory).expanduser()
    facts = artefact.facts_of(folder)
    if facts is None:
        if template is None or not (labels or kind != "classification"):
            raise KshotError(
                f"{folder} is an adapter of PEFT without {artefact.FACTS}, so it does not say how its task is written; "
                "give load_adapted template=Template(...) and labels=(...)"
            )
        delta, prefix = artefact.read_adapter(lm, folder)
        return Adapted(lm=lm, template=template, prefix=prefix, delta=delta, kind=kind, labels=tuple(labels))
    if template is not None or labels:
        raise KshotError(f"{folder} brings its own template and labels; give load_adapted none")
    found = artefact.read(lm, folder, facts)
    return Adapted(**{**found, "training": _training(folder, found["training"])})


def _training(folder: Path, said: Mapping[str, Any] | None) -> Training | None:
    try:
        if said is None:
            return None
        return Training(**{**said, "losses": tuple(said["losses"]), "search": tuple(said["search"])})
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / artefact.FACTS} is damaged: training: {error}") from error
