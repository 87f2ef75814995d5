"""Teaching by the prompt alone: nothing, or demonstrations."""

from dataclasses import dataclass, replace

from kshot.adapt.examples import PER_QUERY
from kshot.data.pick import order as reorder
from kshot.data.pick import pick
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import PromptError
from kshot.model.adapted import Adapted
from kshot.model.demonstrations import read_ahead, retrieval
from kshot.model.lm import LM
from kshot.model.prefix import Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShot:
    """The query alone after the template's description."""

    template: Template | None = None
    channel: bool = False

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        return _untaught(lm, task, "zero-shot", self.template, channel=self.channel)


@dataclass(frozen=True, slots=True, kw_only=True)
class InContext:
    """``shots`` of the examples, picked and ordered, before every query (Brown et al. 2020).

    ``pick`` names how they are chosen (data/pick.py); ``order`` 0 is as picked, any other number another permutation of
    the same set; ``ids`` are the examples of pick="fixed".
    """

    shots: int
    pick: str = "random"
    order: int = 0
    ids: tuple[str, ...] = ()
    template: Template | None = None
    channel: bool = False

    def fit(self, lm: LM, task: Task, examples: tuple[Example, ...], seed: int) -> Adapted:
        adapted = _untaught(lm, task, "in-context", self.template, channel=self.channel)
        if self.pick in PER_QUERY:
            made = retrieval(
                lm, adapted.template, examples, shots=self.shots, pick=self.pick, order=self.order, seed=seed
            )
            return replace(adapted, retrieve=made)
        chosen = pick(examples, self.shots, self.pick, seed, labels=task.labels, ids=self.ids)
        shown = reorder(chosen, self.order, seed)
        if any(example.label is None for example in shown):
            raise PromptError(f"task {task.name!r}: a demonstration needs an answer, and one of those picked has none")
        adapted = replace(adapted, demonstrations=shown)
        return replace(adapted, prefix=read(adapted))


def read(adapted: Adapted) -> Prefix:
    """Keys and values of the demonstrations, or an empty prefix where the model cannot keep them or read so much.

    Scoring cuts it to what it really shares with the queries: the last token may change when a query follows.
    """
    return read_ahead(adapted.reader, adapted.template, adapted.demonstrations, channel=adapted.channel)


def _untaught(lm: LM, task: Task, method: str, template: Template | None, *, channel: bool) -> Adapted:
    """The model as it is, with the task's own layout unless there is another."""
    return Adapted(
        lm=lm,
        template=template or task.template,
        channel=channel,
        method=method,
        kind=task.kind,
        labels=task.labels,
    )
