"""The cells of a run: every way of teaching, with all that is drawn for it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kshot.adapt.course import Course
from kshot.adapt.examples import PER_QUERY
from kshot.data.task import Task
from kshot.errors import KshotError
from kshot.measure.ensemble import ENSEMBLES
from kshot.study.settings import Settings
from kshot.study.ways import Way, built, option_names, read_way, trained

# Ways of picking in which a seed draws nothing.
_SEEDLESS = (*PER_QUERY, "first_n", "fixed")

# Quality against quantity: so many times the examples, some of them wrong.
NOISY_TIMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One thing to be measured: a task, a way of teaching, and what is drawn for it. ``order`` 0 is as picked."""

    task: str
    method: str
    shots: int
    seed: int
    order: int
    params: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    @property
    def title(self) -> str:
        """How a progress bar calls it."""
        more = [f"order {self.order}"] if self.order else []
        more += [f"{name} {self.params[name]}" for name in ("noise", "draw") if name in self.params]
        more += [f"template {self.params['template']}"] if "template" in self.params else []
        more += [f"ensemble of {self.params['ensemble']}"] if "ensemble" in self.params else []
        return ", ".join([f"{self.task}: {self.method}@{self.shots}", f"seed {self.seed}", *more])


def cells_of(asked: Settings, tasks: Sequence[Task]) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """The cells that settings ask for, in the order in which they run, and notes on what does not apply.

    What is taught once and asked of several tasks comes one after another.

    A method without examples runs once, with the first seed; one with examples runs for every number of shots and
    seed, and in-context learning for the first seed in further orders as well, where the way of picking leaves any.
    With several layouts all of that runs in each. Where something is trained, every way of learning is also given four
    times the examples with some wrong labels, as far as that is no more than the most examples asked for. Ensembles
    are cells of their own, for every seed and rule.
    """
    # Also where nothing is trained: what cannot be read is a slip.
    Course(budget=asked.budget)
    ways = [read_way(text) for text in asked.methods]
    taught = [way for way in ways if "shots" in option_names(way.method)]
    bare = [way for way in ways if way not in taught]
    cells: list[Cell] = []
    notes: dict[str, None] = {}
    for task in (task for task in tasks if not task.taught):
        family = [task, *(other for other in tasks if other.taught == task.name)]
        for way, k in [*((w, 0) for w in bare), *((w, k) for w in taught for k in _shots(asked, task))]:
            cells += [
                cell for same in zip(*(_group(asked, own, way, k) for own in family), strict=True) for cell in same
            ]
        if len(family) <= len(asked.transfer_to):
            notes[f"--transfer-to {task.name}: that is the task itself, which is asked in any case"] = None
        notes |= dict.fromkeys(_notes(asked, task, taught, bare))
    if not cells:
        raise KshotError(
            f"nothing to run: {', '.join(asked.methods)} with {', '.join(map(str, asked.num_fewshot))} shots; "
            "give --num-fewshot a number above 0, or --methods zero-shot"
        )
    return tuple(cells), tuple(notes)


def _group(asked: Settings, task: Task, way: Way, shots: int) -> list[Cell]:
    """The cells of one way and number of shots: every draw and order in every layout, then what is combined of them."""
    pick = _pick(asked, task)
    names = option_names(way.method)
    params: dict[str, Any] = dict(way.options)
    if "shots" in names:
        params |= {"pick": pick} | ({"ids": list(asked.ids)} if asked.ids else {})
    if trained(way.method):
        params |= {"budget": asked.budget, "validation": asked.validation}
    if asked.scoring == "channel":
        if "channel" not in names:
            raise KshotError(f"--scoring channel goes with zero-shot and in-context, and {way.method} is asked for")
        params |= {"scoring": "channel"}
    layouts: list[dict[str, Any]] = [{}]
    if task.layouts:
        layouts = [{"template": number} for number in range(1, len(task.layouts) + 2)]
    draws_nothing = pick in _SEEDLESS and not trained(way.method)
    seeds = asked.seed if shots and not draws_nothing else asked.seed[:1]
    orders = _orders(asked, pick, shots) if "order" in names else 1
    draws = [(seed, 0) for seed in seeds] + [(seeds[0], order) for order in range(1, orders)]

    def cell(seed: int, order: int = 0, k: int = shots, **more: Any) -> Cell:
        return Cell(task=task.name, method=way.method, shots=k, seed=seed, order=order, params=params | more)

    cells = [cell(seed, order, **layout) for layout in layouts for seed, order in draws]
    if _noisy(asked, task, way, shots):
        cells += [cell(seed, k=NOISY_TIMES * shots, noise=asked.noise) for seed in seeds]
    of = {"orders": orders, "templates": len(layouts), "draws": asked.draws if trained(way.method) else 1, "none": 1}
    if of[asked.ensemble] > 1:
        # answers that are written out can only be counted
        rules = ("majority-vote",) if task.kind == "open" else tuple(ENSEMBLES)
        for layout in layouts if asked.ensemble != "templates" else [{}]:
            more = {**layout, "ensemble": asked.ensemble, "members": of[asked.ensemble]}
            cells += [cell(seed, **more, rule=rule) for rule in rules for seed in seeds]
    return cells


def _noisy(asked: Settings, task: Task, way: Way, shots: int) -> bool:
    """Whether this many examples are set against four times as many with some wrong labels."""
    learns = "shots" in option_names(way.method)
    anything_trained = any(trained(read_way(text).method) for text in asked.methods)
    return (
        learns
        and anything_trained
        and asked.noise > 0
        and asked.pick != "fixed"
        and NOISY_TIMES * shots <= max(_shots(asked, task), default=0)
    )


def members(cell: Cell) -> tuple[Cell, ...]:
    """The cells whose predictions are combined into those of an ensemble, without ids; any other cell is its own member."""
    of = cell.params.get("ensemble")
    if of is None:
        return (replace(cell, id=""),)
    own = {name: value for name, value in cell.params.items() if name not in ("ensemble", "rule", "members")}
    numbers = range(cell.params["members"])
    if of == "orders":
        return tuple(replace(cell, id="", params=own, order=order) for order in numbers)
    if of == "draws":
        return tuple(replace(cell, id="", params=own | ({"draw": number} if number else {})) for number in numbers)
    return tuple(replace(cell, id="", params=own | {"template": number + 1}) for number in numbers)


def _pick(asked: Settings, task: Task) -> str:
    return asked.pick if asked.pick != "auto" else task.pick or "random"


def _shots(asked: Settings, task: Task) -> tuple[int, ...]:
    """Numbers of demonstrations; fixed ones are as many as are named, and by default a task's own number counts too."""
    if asked.pick == "fixed":
        return (len(asked.ids),)
    own = {task.num_fewshot or 0} if asked.num_fewshot == Settings().num_fewshot else set()
    more = sorted(own - set(asked.num_fewshot))
    return tuple(k for k in (*asked.num_fewshot, *more) if k > 0)


def _notes(asked: Settings, task: Task, taught: Sequence[Way], bare: Sequence[Way]) -> list[str]:
    notes, pick, shots = [], _pick(asked, task), _shots(asked, task)
    how = f"--pick {pick}" if asked.pick == pick else f"{task.name}: its own pick {pick}"
    if not taught and shots and 0 not in asked.num_fewshot:
        names = ", ".join(way.method for way in bare)
        notes.append(f"{names}: has no demonstrations, so --num-fewshot does not apply")
    if taught and not bare and 0 in asked.num_fewshot:
        notes.append("0 shots: that is the method zero-shot, which --methods leaves out")
    if pick in PER_QUERY and any("order" not in option_names(way.method) for way in taught):
        notes.append(f"{how} chooses demonstrations for each query; what learns from examples gets as many at random")
    if taught and pick == "fixed":
        notes.append(f"--pick fixed: {len(asked.ids)} demonstrations are named, so --num-fewshot does not apply")
    if taught and pick in _SEEDLESS and len(asked.seed) > 1:
        notes.append(f"{how} draws nothing, so one seed stands for all")
    if taught and pick in PER_QUERY and asked.orders > 1:
        notes.append(f"{how} gives every query demonstrations of its own, nearest last: no other orders")
    if asked.ensemble == "orders" and not any(_orders(asked, pick, k) > 1 for k in shots if taught):
        notes.append(f"--ensemble orders: {task.name} has nothing in more than one order, so nothing is combined")
    if asked.ensemble == "draws" and not any(trained(way.method) for way in taught):
        notes.append("--ensemble draws: nothing that --methods names is trained, so nothing is combined")
    if asked.ensemble == "templates" and not task.layouts:
        notes.append(f"--ensemble templates: {task.name} has one template, so nothing is combined; repeat --template")
    return notes


def _orders(asked: Settings, pick: str, shots: int) -> int:
    if pick in PER_QUERY:
        return 1
    return min(asked.orders, math.factorial(min(shots, 10)))


def recipe(cell: Cell, task: Task, **more: Any) -> Any:
    """The method (kshot.adapt.Method) that a cell asks for, with those options that it has; ``more`` are further ones."""
    options = {
        **cell.params,
        "shots": cell.shots,
        "order": cell.order,
        "ids": tuple(cell.params.get("ids", ())),
        "channel": cell.params.get("scoring") == "channel",
        "template": (task.template, *task.layouts)[cell.params.get("template", 1) - 1],
        **more,
    }
    return built(cell.method, options)
