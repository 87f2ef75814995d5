"""Teaching by training: a soft prompt, a prefix, thin changes of weights, or the weights themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from kshot.adapt.course import Course, Make, Start
from kshot.adapt.examples import given
from kshot.adapt.initial import Material, check_start, initial_rows
from kshot.adapt.learn import Learned, learn
from kshot.adapt.learners import (
    cut_or_repeated,
    free_prefix,
    low_rank,
    mapped_prefix,
    random_prefix,
    soft_rows,
    whole_weights,
)
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import MethodError, ModelError, UnknownName
from kshot.model.adapted import Adapted, shown_texts
from kshot.model.lm import LM
from kshot.model.prefix import Prefix

# The optimiser of each (AdamW where none is named), and the grid that it is tried with where no learning rate is given.
_SOFT = Course(optimiser="adafactor", grid=(0.003, 0.03, 0.3))
_PREFIX = Course(grid=(1e-4, 1e-3, 1e-2))
_THIN = Course(grid=(1e-4, 3e-4, 1e-3))
_WHOLE = Course(grid=(1e-5, 3e-5, 1e-4))

# The loss of such rows says little: their answers can be read off. What was held out stood nowhere.
_SEEN = ("it is initialised from its own training examples, so its training loss begins low",)

PREFIX_INITS = ("demonstrations", "random", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftPrompt:
    """A few embeddings learned in front of the input, everything else frozen (Lester et al. 2021).

    ``length`` rows begin as ``init`` says (adapt/initial.py); 0 stands for all of a text or of the demonstrations.
    """

    shots: int
    pick: str = "random"
    ids: tuple[str, ...] = ()
    template: Template | None = None
    length: int = 20
    init: str = "labels"
    norm: str = "as-drawn"
    text: str = ""
    course: Course = _SOFT

    def __post_init__(self) -> None:
        """What cannot be is said before anything runs."""
        check_start(self.init, self.length or None, self.norm)
        if self.init == "text" and not self.text:
            raise MethodError("a soft prompt with init=text needs a text with at least one token; give text=...")

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        template = self.template or task.template
        _keeps_prefixes("soft-prompt", lm)

        def make(taught: tuple[Example, ...]) -> Start:
            layout, tokens, begun = template, tuple[int, ...](), False
            if self.init == "demonstrations":
                tokens, layout = read_first(lm, template, taught, examples)
                begun = self.length == 0 or self.length >= len(tokens)
            answers = tuple(template.answer(label) for label in task.labels) if task.kind != "open" else ()
            found = initial_rows(
                lm,
                self.init if answers or self.init != "labels" else "vocabulary",
                self.length or None,
                seed=seed,
                draw=self.course.draw,
                norm=self.norm,
                material=Material(answers=answers, text=self.text, tokens=tokens),
            )
            notes = (*found.notes, *_SEEN) if self.init == "demonstrations" else found.notes
            return Start(learner=soft_rows(lm, found.rows), template=layout, notes=notes, begun=begun)

        shown = given(task, examples, shots=self.shots, how=self.pick, seed=seed, ids=self.ids)
        key = repr((self.length, self.init, self.norm, self.text, template))
        return _adapted("soft-prompt", task, learn(lm, task, shown, make, self.course.over(_SOFT), seed=seed, key=key))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixTuning:
    """Keys and values of every layer learned in front of the input (Li and Liang 2021).

    They begin at random (normal, with the mean and deviation of each layer's own), as those of a ``text``, or as those
    of the examples as demonstrations: then step 0 is in-context learning itself. ``network`` is the width of the small
    network through which they are learned; 0 learns them freely.
    """

    shots: int
    pick: str = "random"
    ids: tuple[str, ...] = ()
    template: Template | None = None
    length: int = 0
    init: str = "demonstrations"
    text: str = ""
    network: int = 0
    course: Course = _PREFIX

    def __post_init__(self) -> None:
        """What cannot be is said before anything runs."""
        if self.init not in PREFIX_INITS:
            raise UnknownName("initialisation of a prefix", self.init, PREFIX_INITS)
        for name, value in (("length", self.length), ("network", self.network)):
            if value < 0:
                raise MethodError(f"a prefix with {name} {value}: what works is a whole number from 0 on")
        if self.init == "text" and not self.text:
            raise MethodError("a prefix with init=text needs a text with at least one token; give text=...")

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        template = self.template or task.template
        _keeps_prefixes("prefix", lm)
        drawn = _drawn(seed, self.course)

        def make(taught: tuple[Example, ...]) -> Start:
            start, layout, begun = self._start(lm, template, taught, examples, drawn)
            if not start.length:
                raise MethodError(
                    f"a prefix of no position holds nothing; give length=20 or demonstrations to {lm.name}"
                )
            learner = free_prefix(lm, start)
            if self.network:
                learner = mapped_prefix(lm, start, self.network, seed=drawn, from_nothing=self.init == "random")
            notes = _SEEN if self.init == "demonstrations" else ()
            return Start(learner=learner, template=layout, notes=notes, begun=begun)

        shown = given(task, examples, shots=self.shots, how=self.pick, seed=seed, ids=self.ids)
        key = repr((self.length, self.init, self.text, self.network, template))
        course = self.course.over(_PREFIX)
        return _adapted("prefix", task, learn(lm, task, shown, make, course, seed=seed, key=key))

    def _start(
        self, lm: LM, template: Template, taught: tuple[Example, ...], pool: Sequence[Example], seed: int
    ) -> tuple[Prefix, Template, bool]:
        """Keys and values to start from, the layout after them, and whether they hold the beginning of a text."""
        first = lm.codec.first
        with torch.no_grad():
            if self.init == "demonstrations":
                tokens, layout = read_first(lm, template, taught, pool)
                kept = tokens[-self.length :] if self.length else tokens
                return _read(lm, kept), layout, len(kept) == len(tokens)
            text = self.text or template.preamble(shown_texts(template, taught))
            tokens = (*first, *lm.codec.encode([text])[0])
            length = self.length or (len(tokens) if self.init == "text" else 20)
            like = _read(lm, cut_or_repeated(tokens, length))
            if self.init == "text":
                return like, template, length >= len(first)
            return random_prefix(lm, like, length, seed=seed), template, False


def _read(lm: LM, tokens: tuple[int, ...]) -> Prefix:
    if lm.context is not None and len(tokens) >= lm.context:
        raise MethodError(
            f"a prefix of {len(tokens)} positions leaves no room for a query: {lm.name} reads {lm.context} tokens in "
            "all; give a length well below that"
        )
    return lm.prefill(tokens)


def _drawn(seed: int, course: Course) -> int:
    """Another seed for every further draw."""
    return seed + 1_000_003 * course.draw


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA:
    """Thin changes learned beside linear layers (Hu et al. 2022): ``targets`` by name, or all-linear."""

    shots: int
    pick: str = "random"
    ids: tuple[str, ...] = ()
    template: Template | None = None
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("all-linear",)
    course: Course = _THIN

    def __post_init__(self) -> None:
        """What cannot be is said before anything runs."""
        if self.rank < 1:
            raise MethodError(f"lora of rank {self.rank}: what works is a whole number from 1 on")
        if not self.targets:
            raise MethodError("lora with no targets learns nothing; give targets=all-linear, or linear layers by name")

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        template = self.template or task.template

        def make(taught: tuple[Example, ...]) -> Start:
            drawn = _drawn(seed, self.course)
            return Start(learner=low_rank(lm, self.targets, self.rank, self.alpha, seed=drawn), template=template)

        return _weights("lora", self, lm, task, examples, seed, make)


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """The weights themselves learned: all, those of the last layers (last-2), or those of named modules (k_proj)."""

    shots: int
    pick: str = "random"
    ids: tuple[str, ...] = ()
    template: Template | None = None
    weights: tuple[str, ...] = ("all",)
    course: Course = _WHOLE

    def __post_init__(self) -> None:
        """What cannot be is said before anything runs."""
        if not self.weights:
            raise MethodError("fine-tune with no weights learns nothing; give weights=all, last-2, or modules by name")

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        template = self.template or task.template

        def make(taught: tuple[Example, ...]) -> Start:
            return Start(learner=whole_weights(lm, self.weights), template=template)

        return _weights("fine-tune", self, lm, task, examples, seed, make)


def _weights(
    name: Literal["lora", "fine-tune"],
    method: LoRA | FineTune,
    lm: LM,
    task: Task,
    examples: tuple[Example, ...],
    seed: int,
    make: Make,
) -> Adapted:
    shown = given(task, examples, shots=method.shots, how=method.pick, seed=seed, ids=method.ids)
    key = repr(replace(method, course=Course(), shots=1))
    course = method.course.over(type(method)(shots=method.shots).course)
    return _adapted(name, task, learn(lm, task, shown, make, course, seed=seed, key=key))


def _adapted(name: str, task: Task, learned: Learned) -> Adapted:
    return Adapted(
        lm=learned.lm,
        template=learned.template,
        prefix=learned.placed.prefix,
        delta=learned.placed.delta,
        method=name,
        kind=task.kind,
        labels=task.labels,
        training=learned.training,
        notes=learned.notes,
    )


def read_first(
    lm: LM, template: Template, shown: Sequence[Example], queries: Sequence[Example]
) -> tuple[tuple[int, ...], Template]:
    """The tokens of demonstrations that stay what they are whatever query follows, and the layout of what is left.

    Tokens and layout together say what the demonstrations and a query say in one text.
    """
    text = template.preamble(shown_texts(template, tuple(shown)))
    tokens, rest = lm.codec.ahead(text, [template.render(e.fields) for e in queries[:_PROBES]])
    return (*lm.codec.first, *tokens), replace(template, description=rest)


# So many queries show where a seam lies.
_PROBES = 64


def _keeps_prefixes(name: str, lm: LM) -> None:
    try:
        if lm.route.kind == "rows":
            lm.prefill((0,))
    except ModelError as error:
        raise MethodError(f"{name} does not apply: {error}") from error
