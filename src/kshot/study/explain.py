"""What the demonstrations did: every part of the question for every task and seed, on record as it is answered."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kshot.data.pick import pick
from kshot.data.predictions import Predictions
from kshot.data.published import DAI_2023, published
from kshot.data.task import Example, Task
from kshot.data.template import Template, content
from kshot.errors import MethodError, ModelError, NumericError
from kshot.measure.calibrate import token_length_normalized
from kshot.model.lm import LM
from kshot.model.untrained import untrained
from kshot.seeds import stream
from kshot.study.attributed import attributed, ordered, sampled
from kshot.study.catalogue import QUESTIONS
from kshot.study.catalogue.question import answered_part
from kshot.study.compared import (
    Row,
    Setting,
    accuracy_rows,
    answered_right,
    compared,
    controlled,
    layer_causal,
    rate_rows,
    with_shuffled_labels,
)
from kshot.study.experiment import layout_facts, queries, standing
from kshot.study.explain_settings import MEASURED
from kshot.study.finetuned import Rates, rates
from kshot.study.implied import implied
from kshot.study.parts import Cell, Part, Say, digest_of, with_needed
from kshot.study.place import safe_name
from kshot.study.record import samples_of
from kshot.study.sizes import Size

# A pass that answers fewer queries alike when its weights begin a rounding away is said not to repeat.
_REPEATS = 0.95

# What of a size the choice of a learning rate does not depend on.
_LATER = ("effort", "controls", "layer_causal", "attributed")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """All that the parts of a question share: the model, the tasks in their layouts, how much is asked.

    ``other`` is a task whose demonstrations are shown to a task that is asked alone, as a control. ``parts`` are names
    of PARTS; what a part needs of another is asked with it. ``arrays`` is the folder of what the runs leave behind, where
    it is kept.
    """

    lm: LM
    tasks: tuple[Task, ...]
    size: Size
    seeds: tuple[int, ...]
    other: Task | None = None
    parts: tuple[str, ...] = MEASURED
    arrays: Path | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """The parts to be answered, those that others need before them."""
        return with_needed(PARTS, self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(task.name for task in self.tasks)

    @property
    def identity(self) -> str:
        """The SHA-256 of all that the figures depend on, in hexadecimal."""
        return digest_of([cell.id for cell in self.cells()])

    def cells(self) -> tuple[Cell, ...]:
        """Every part, named by all that its figures depend on."""
        facts = standing(self.lm)
        return tuple(
            Cell(
                task=task.name,
                seed=seed,
                part=part,
                asks=PARTS[part].name,
                needs=PARTS[part].needs,
                id=digest_of([facts, self._asked(part), *self._read(task, part), seed, part])[:12],
            )
            for task in self.tasks
            for seed in self.seeds
            for part in self.asked
        )

    def _asked(self, part: str) -> dict[str, Any]:
        """What of the size a part depends on: a learning rate is chosen once for runs of any effort."""
        size = asdict(self.size)
        if part == "runs" and self.arrays is not None:
            # Answered without them it is not yet what is asked for.
            size["arrays"] = True
        return {name: size[name] for name in size if part != "rates" or name not in _LATER}

    def _read(self, task: Task, part: str) -> list[dict[str, Any]]:
        """What of the tasks a part of the question for this one reads."""
        other = self.another(task) if part == "controls" else None
        return [task_facts(own, self.layout(own)) for own in (task, other) if own is not None]

    def another(self, task: Task) -> Task | None:
        """The task whose demonstrations are shown to queries of this one: the next in turn, else ``other``."""
        if len(self.tasks) > 1:
            return self.tasks[(self.names.index(task.name) + 1) % len(self.tasks)]
        return self.other if self.other is not None and self.other.name != task.name else None

    def setting(self, task: Task, seed: int) -> Setting:
        """The demonstrations of a seed and the queries, in the layout that was published for the task, else its own."""
        return Setting(
            lm=self.lm,
            task=task,
            template=self.layout(task),
            demonstrations=pick(task.train, self._shots(task), "random", seed, labels=task.labels),
            queries=tuple(q for q in queries(task, self.size.limit) if q.label is not None),
            seed=seed,
        )

    def taught_by_another(self, setting: Setting) -> Setting:
        """The same queries with demonstrations of another task in its layout; MethodError where there is none.

        A query is never in its own prompt: tasks of one source may share their texts.
        """
        other = self.another(setting.task)
        # What stands in an input, without the words of either layout.
        asked = {content(setting.template, query.fields) for query in setting.queries}
        labelled = () if other is None else tuple(e for e in other.train if e.label is not None)
        pool = tuple(e for e in labelled if other and content(self.layout(other), e.fields) not in asked)
        if other is None or not pool:
            what = "no other task was given" if other is None else f"task {other.name!r} has no labelled examples"
            raise MethodError(f"{what}; explain two tasks or more")
        shots = min(len(setting.demonstrations), self._shots(other), len(pool))
        shown = pick(pool, shots, "random", setting.seed, labels=other.labels)
        return replace(setting, demonstrations=shown, shown_task=other, shown_in=self.layout(other))

    def layout(self, task: Task) -> Template:
        """How the task is written here."""
        return layout_of(task)[0] if self.size.as_published else task.template

    def _shots(self, task: Task) -> int:
        return min(self.size.shots, layout_of(task)[1]) if self.size.capped else self.size.shots

    def validation(self, setting: Setting) -> tuple[Example, ...]:
        """Training examples that are no demonstrations, drawn from the seed."""
        taken = {example.id for example in setting.demonstrations}
        rest = [e for e in setting.task.train if e.label is not None and e.id not in taken]
        order = stream(setting.seed, "explain-validation").permutation(len(rest))
        return tuple(rest[i] for i in order[: self.size.validation].tolist())


def layout_of(task: Task) -> tuple[Template, int]:
    """The layout and greatest number of demonstrations that were published for a task of this name and these labels."""
    if task.name in DAI_2023 and set(task.labels) == set(DAI_2023[task.name].template.words):
        found = published(task)
        return found.template, found.shots
    return task.template, len(task.train)


def task_facts(task: Task, layout: Template) -> dict[str, Any]:
    """What of a task in this layout its figures depend on."""
    own = [[e.id, dict(e.fields), e.label] for e in (*task.train, *task.test)]
    written = layout_facts(replace(task, template=layout, layouts=()))
    return {"name": task.name, "labels": list(task.labels), "examples": digest_of(own), **written}


def _rates(study: Study, setting: Setting, before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    grid = study.size.grid
    if len(grid) == 1:
        given = (
            f"fine-tuning has the learning rate {grid[0]:g} that was given: none was chosen, so figures at the published "
            "and at the corrected rate are one"
        )
        return {"rows": [], "rates": {"published": grid[0], "corrected": grid[0]}, "notes": [given]}
    asked = setting.queries, study.validation(setting)
    found: Rates = rates(
        setting.lm, setting.task, setting.template, setting.demonstrations, asked, grid=grid, watch=say
    )
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(found).items()}
    return {"rows": rate_rows(found), "rates": plain}


def _runs(study: Study, setting: Setting, before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Accuracies, and what can be had of the comparison: not every model has keys and values that can be tuned alone."""
    samples: list[dict[str, Any]] = []
    notes: list[str] = []
    rows: list[Row] = []
    right: dict[str, Any] = {}
    try:
        for rate, words in _by_rate(_chosen(before)).items():
            folder = (
                study.arrays / f"{safe_name(setting.task.name)}-{setting.seed}-{'-'.join(words)}"
                if study.arrays
                else None
            )
            keep = partial(_told, setting, samples, " and ".join(words))
            found, right = compared(replace(setting, keep=keep, arrays=folder), rate, right, watch=say)
            for word in words:
                rows += [_also(row, word) for row in found]
            notes += [
                _astray(row, rate) for row in found if row["measure"] == "repeatability" and row["value"] < _REPEATS
            ]
    except (MethodError, ModelError, NumericError) as error:
        notes.append(f"in-context learning is not set against fine-tuning: {error}")
    right = right or answered_right(replace(setting, keep=partial(_told, setting, samples, "")))
    return {"rows": accuracy_rows(right) + rows, "samples": samples, "notes": notes}


def _astray(row: Row, rate: float) -> str:
    return (
        f"fine-tuning at learning rate {rate:g} does not repeat: from weights a rounding error away it gives "
        f"{row['value'] * row['n']:.0f} of {row['n']} queries the same answer, so its figures are one outcome of several"
    )


def _told(setting: Setting, samples: list[dict[str, Any]], rate: str, run: str, found: Predictions) -> None:
    """A line for every query of a run, judged as it is here: by the mean log-probability of an answer's tokens."""
    table = token_length_normalized(found)
    assert table is not None
    how = f", {rate} rate" if run == "fine-tuned" else ""
    shots = 0 if run == "zero-shot" else len(setting.demonstrations)
    named = {"task": setting.task.name, "method": run + how, "shots": shots, "seed": setting.seed, "order": 0}
    right = [bool(best == gold) for best, gold in zip(table.argmax(axis=1), found.gold, strict=True)]
    samples += samples_of(named, setting.template, setting.task, setting.queries, found, right, table=table)


def _controls(study: Study, setting: Setting, before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    fewer, said = _of_fewer(study, setting, "controls")
    controls: dict[str, Callable[[], Setting]] = {
        "untrained": lambda: replace(fewer, lm=untrained(setting.lm, setting.seed)),
        "trained embeddings": lambda: replace(fewer, lm=untrained(setting.lm, setting.seed, keep_embeddings=True)),
        "shuffled labels": lambda: with_shuffled_labels(fewer),
        "another task": lambda: study.taught_by_another(fewer),
    }
    rows, notes = controlled(fewer, _chosen(before)["corrected"], controls, watch=say)
    return {"rows": rows, "notes": said + notes}


def _layer_causal(study: Study, setting: Setting, before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    fewer, said = _of_fewer(study, setting, "layer-causal gradient descent")
    rows, notes = layer_causal(fewer, _chosen(before)["corrected"], study.size.layer_causal, watch=say)
    return {"rows": rows, "notes": said + notes}


def _of_fewer(study: Study, setting: Setting, what: str) -> tuple[Setting, list[str]]:
    """The setting with as many queries as what stands beside the runs is asked, and a note where that is not all."""
    asked, every = study.size.controls, len(setting.queries)
    if asked is None or asked >= every:
        return setting, []
    return replace(setting, queries=setting.queries[:asked]), [f"{what}: the first {asked} of {every} queries"]


def _implied(study: Study, setting: Setting, before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    rows, pictures = implied(setting)
    return {"rows": rows, "pictures": pictures}


def _attribution(study: Study, setting: Setting, before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    rows, pictures = attributed(setting, study.size.effort, watch=say)
    rounded = "Shapley values are sampled, and read as gradients are in 16-bit products where the processor has them"
    return {"rows": rows, "pictures": pictures, "notes": [rounded] if sampled(setting) else []}


def _orders(study: Study, setting: Setting, before: Mapping[str, Any], say: Say) -> dict[str, Any]:
    rows, pictures = ordered(setting, study.size.effort)
    rounded = "orders are read in 16-bit products where the processor has them"
    return {"rows": rows, "pictures": pictures, "notes": [rounded] if sampled(setting) else []}


def _why(
    part: Callable[[Setting, Say], list[Row]], study: Study, setting: Setting, before: Mapping[str, Any], say: Say
) -> dict[str, Any]:
    return {"rows": answered_part(part, setting, say)}


PARTS: Mapping[str, Part] = {
    "rates": Part(name="the learning rate of fine-tuning", answer=_rates),
    "runs": Part(name="in-context learning against fine-tuning", answer=_runs, needs="rates"),
    "controls": Part(name="controls: untrained model, shuffled labels, another task", answer=_controls, needs="rates"),
    "layer-causal": Part(name="layer-causal gradient descent", answer=_layer_causal, needs="rates"),
    "implied": Part(name="demonstrations as a change of weights", answer=_implied),
    "attribution": Part(name="what each demonstration did", answer=_attribution),
    "orders": Part(name="what their order did", answer=_orders),
    **{
        name: Part(name=question.asks, answer=partial(_why, part))
        for question in QUESTIONS.values()
        for name, part in question.parts.items()
    },
}


def _chosen(before: Mapping[str, Any]) -> Mapping[str, float]:
    line = before["rates"]
    if line.get("failed"):
        raise MethodError(f"no learning rate to fine-tune with: {line['failed']}")
    return {word: float(line["rates"][word]) for word in ("published", "corrected")}


def _by_rate(chosen: Mapping[str, float]) -> dict[float, list[str]]:
    """The words for a rate; where both choices fell on the same one it is run once."""
    found: dict[float, list[str]] = {}
    for word in ("published", "corrected"):
        found.setdefault(chosen[word], []).append(word)
    return found


def _also(row: Row, word: str) -> Row:
    return {**row, "variant": ", ".join(filter(None, (word, row["variant"])))}
