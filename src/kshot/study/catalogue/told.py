"""Demonstrations as tokens that no query changes, and what is answered after whatever was made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from kshot.adapt.tuning import read_first
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.errors import PromptError
from kshot.model.demonstrations import demonstration_of_tokens
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.prompts import Prompt, continuations
from kshot.study.compared import Setting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """Demonstrations in one order: ``tokens``, for each the place of its demonstration, and the layout of what follows."""

    lm: LM
    task: Task
    queries: tuple[Example, ...]
    tokens: tuple[int, ...]
    owner: Int[np.ndarray, "t"]
    layout: Template

    def answers(self, prefix: Prefix, more: Sequence[Example] = ()) -> Float[np.ndarray, "q c"]:
        """log P of every candidate of every query after ``prefix``, in nats; ``more`` inputs are rows after the queries.

        PromptError where a query does not fit after it.
        """
        begun = replace(self.lm, codec=self.lm.codec.begun())
        return _answers(begun, self.task, self.layout, (*self.queries, *more), prefix)


def told(setting: Setting, shown: Sequence[Example], template: Template | None = None) -> Told:
    """These demonstrations in the layout of a setting, or in another."""
    lm, layout = setting.lm, template or setting.template
    tokens, rest = read_first(lm, layout, shown, setting.queries)
    owner = demonstration_of_tokens(lm.codec, layout, tuple(shown))[: len(tokens)]
    return Told(lm=lm, task=setting.task, queries=setting.queries, tokens=tokens, owner=owner, layout=rest)


def alone(setting: Setting) -> Float[np.ndarray, "q c"]:
    """The same without demonstrations."""
    return _answers(setting.lm, setting.task, setting.template, setting.queries, EMPTY)


def _answers(lm: LM, task: Task, layout: Template, queries: Sequence[Example], prefix: Prefix) -> np.ndarray:
    prompts = [Prompt(layout.description, query.fields, task.candidates(query)) for query in queries]
    found = continuations(lm.codec, layout, prompts).sequences
    sequences = [sequence for own in found for sequence in own]
    longest = prefix.length + max((len(s.tokens) for s in sequences), default=0)
    if lm.context is not None and longest > lm.context:
        raise PromptError(
            f"the longest prompt needs {longest} tokens and {lm.name} reads {lm.context}; show fewer demonstrations"
        )
    sums = lm.score(sequences, prefix).sums()
    table = np.full((len(found), max((len(own) for own in found), default=0)), -np.inf)
    table[np.arange(table.shape[1]) < np.array([len(own) for own in found])[:, None]] = sums
    return table
