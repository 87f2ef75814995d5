"""Every part of the battery for every task and seed, on record as it is answered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from kshot.data.task import Example, Task
from kshot.data.template import filled
from kshot.errors import MethodError
from kshot.model.chat import as_chat
from kshot.model.lm import LM
from kshot.seeds import stream
from kshot.study.experiment import standing
from kshot.study.explain import task_facts
from kshot.study.hypotheses.asking import Asked, Row
from kshot.study.hypotheses.chat import in_chat
from kshot.study.hypotheses.copying import copying
from kshot.study.hypotheses.core import core
from kshot.study.hypotheses.functions import over_functions
from kshot.study.hypotheses.labels import ablated, by_share_permuted, by_share_right, by_shots
from kshot.study.hypotheses.orders import by_order
from kshot.study.hypotheses.pool import selected
from kshot.study.hypotheses.relations import composed
from kshot.study.hypotheses.scale import OF_SEEDS, Scale
from kshot.study.parts import Cell, Line, Part, Say, digest_of, with_needed
from kshot.study.place import safe_name
from kshot.transform.lexicon import Lexicon, lexicon
from kshot.transform.written import Tokens, written


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Battery:
    """All that the parts share: the model, the tasks, how much is asked, and the words of one token by task.

    ``place`` is where what is half answered is kept, if anywhere.
    """

    lm: LM
    tasks: tuple[Task, ...]
    scale: Scale
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    lexicons: Mapping[str, Lexicon] = field(default_factory=dict, repr=False)
    place: Path | None = None

    @property
    def identity(self) -> str:
        """The SHA-256 of all that the figures depend on, in hexadecimal."""
        return digest_of([cell.id for cell in self.cells()])

    def cells(self) -> tuple[Cell, ...]:
        """Every part, named by all that its figures depend on."""
        said = asdict(self.scale).items()
        asked = {name: value for name, value in said if name not in OF_SEEDS and value is not None}
        about = {task.name: [task_facts(task, task.template), self.elsewhere.get(task.name)] for task in self.tasks}
        return tuple(
            Cell(
                task=task.name,
                seed=seed,
                part=part,
                asks=PARTS[part].name,
                needs=PARTS[part].needs,
                id=digest_of([standing(self.lm), asked, about[task.name], seed, part])[:12],
            )
            for task in self.tasks
            for seed in self.scale.seeds
            for part in with_needed(PARTS, self.scale.parts)
            if seed in self.scale.seeds_of(part) and (part not in OF_MODEL or task is self.tasks[0])
        )

    def with_words(self) -> "Battery":
        """The battery with the words of one token, which are the same for every part and seed of a task."""
        found = {}
        for task in self.tasks:
            before = (*self.lm.codec.first, *self.lm.codec.encode([_empty(task)])[0])
            found[task.name] = lexicon(self.lm, self.lm.codec, task.template.delimiter, before)
        return replace(self, lexicons=found)

    def setting(self, task: Task, seed: int) -> Asked:
        """The pool and the queries of a seed, in tokens."""
        lm = self.lm
        pool = _drawn(task.train, self.scale.pool, seed, "pool", task.name)
        queries = _drawn(task.test, self.scale.limit, seed, "queries", task.name)
        if not queries:
            raise MethodError(f"task {task.name!r} has no labelled test examples to ask")
        words, outside = self.lexicons[task.name], self.elsewhere.get(task.name, ())
        direct, channel = (
            replace(written(task, task.template, lm.codec, pool, queries, channel=way), lexicon=words, outside=outside)
            for way in (False, True)
        )
        return Asked(
            reader=lm,
            name=lm.name,
            task=task,
            template=task.template,
            pool=pool,
            queries=queries,
            written=direct,
            channel=channel,
            seed=seed,
            shots=self.scale.shots,
            context=lm.context,
            layers=int(lm.model.config.get_text_config().num_hidden_layers),
            embedded=partial(_mean_rows, lm),
        )


def _drawn(examples: Sequence[Example], count: int | str, seed: int, *purpose: str) -> tuple[Example, ...]:
    """So many labelled examples, drawn by the seed."""
    labelled = [example for example in examples if example.label is not None]
    order = stream(seed, *purpose).permutation(len(labelled)).tolist()
    return tuple(labelled[i] for i in (order if count == "all" else order[: int(count)]))


def _empty(task: Task) -> str:
    """The layout around an empty input."""
    return task.template.description + task.template.render(filled((*task.train, *task.test)[0].fields, ""))


def _mean_rows(lm: LM, texts: Sequence[Tokens]) -> Float[np.ndarray, "n e"]:
    return np.stack([lm.embedded(tokens).double().mean(dim=0).cpu().numpy() for tokens in texts])


def _rows(answer: Callable[[Asked, Say], list[Row]]) -> Callable[..., Line]:
    return lambda battery, asked, before, say: {"rows": answer(asked, say), "notes": asked.notes}


def _functions(battery: Battery, asked: Asked, before: Mapping[str, Any], say: Say) -> Line:
    if battery.scale.over is not None:
        asked = replace(battery, scale=replace(battery.scale, limit=battery.scale.over)).setting(asked.task, asked.seed)
    scale, place = battery.scale, None
    if battery.place is not None:
        place = battery.place / f"{safe_name(asked.task.name)}-{asked.seed}-functions.safetensors"
    rows, pictures = over_functions(asked, scale.functions, scale.draws, say, place)
    return {"rows": rows, "pictures": pictures}


def _pool(battery: Battery, asked: Asked, before: Mapping[str, Any], say: Say) -> Line:
    rows, pictures = selected(asked, say)
    return {"rows": rows, "pictures": pictures}


def _chat(battery: Battery, asked: Asked, before: Mapping[str, Any], say: Say) -> Line:
    task = replace(asked.task, template=as_chat(battery.lm.codec, asked.template))
    chatted = replace(battery, tasks=(task,)).with_words().setting(task, asked.seed)
    return {"rows": in_chat(asked, chatted, say), "notes": chatted.notes}


def _orders(battery: Battery, asked: Asked, before: Mapping[str, Any], say: Say) -> Line:
    rows, words = by_order(asked, say)
    return {"rows": rows, "pictures": words}


# What is asked of the model and not of a task: once, whatever tasks there are.
OF_MODEL = ("relations",)

PARTS: Mapping[str, Part] = {
    "published": Part(
        name="altered tasks, demonstrations drawn anew for every query",
        answer=_rows(lambda asked, say: core(asked, "redrawn", say)),
    ),
    "fast": Part(
        name="altered tasks, the same demonstrations for all queries",
        answer=_rows(lambda asked, say: core(asked, "fixed", say)),
    ),
    "labels": Part(name="what of a demonstration matters", answer=_rows(ablated)),
    "shots": Part(name="altered tasks with more and more demonstrations", answer=_rows(by_shots)),
    "right-share": Part(name="altered tasks with more and more right labels", answer=_rows(by_share_right)),
    "permuted-share": Part(name="more and more of the vocabulary permuted", answer=_rows(by_share_permuted)),
    "functions": Part(name="which functions of labels are learned", answer=_functions),
    "synonyms": Part(name="synonyms of synonyms as answers", answer=_orders),
    "copying": Part(name="without the heads that copy", answer=_rows(copying)),
    "pool": Part(name="which of the known tasks the demonstrations are of", answer=_pool),
    "chat": Part(name="altered tasks as a conversation", answer=_chat),
    "relations": Part(name="one relation after another", answer=_rows(composed)),
}
