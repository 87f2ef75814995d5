"""How long an explanation will take: a few queries and demonstrations are timed, and the parts counted in them.

The counts were fitted to the parts of measured runs (SST-2, 8 demonstrations, 30 queries; the open questions with 16 and
200); a forecast is meant to tell minutes from hours.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kshot.adapt.descent import one_pass
from kshot.data.task import Task
from kshot.errors import MethodError, ModelError, NumericError, PromptError
from kshot.measure.attribution import EXACT
from kshot.study.catalogue.learning import SHOTS as LEARNING_SHOTS
from kshot.study.compared import Setting
from kshot.study.explain import Study
from kshot.study.finetuned import right_answers
from kshot.study.parts import Cell
from kshot.study.sizes import Size

Work = tuple[float | int, float | int]
"""So many queries are asked, and so many steps of fine-tuning taken."""

# So many queries and demonstrations are timed, after one of each that warms up: of fewer short queries a pass is mostly
# what it costs whatever it reads.
_TIMED_QUERIES, _TIMED_STEPS = 32, 4
# One comparison traces every query in three runs, which answer it, too.
_COMPARED = 4.5
# A step for every token of a demonstration against one for all of them.
_TOKEN_BY_TOKEN = 10.0


def seconds_to_go(study: Study, cells: Sequence[Cell]) -> list[float] | None:
    """About how many seconds each of these cells takes; None where no task could be timed."""
    paces = {task.name: _pace(study, task) for task in study.tasks if any(cell.task == task.name for cell in cells)}
    if all(pace is None for pace in paces.values()):
        return None
    return [_seconds(study, cell, paces[cell.task]) for cell in cells]


def _seconds(study: Study, cell: Cell, pace: tuple[Setting, float, float] | None) -> float:
    if pace is None:
        return 0.0
    setting, a_query, a_step = pace
    asked, steps = _WORK[cell.part](study.size, len(setting.queries), len(setting.demonstrations))
    return asked * a_query + steps * a_step


def _pace(study: Study, task: Task) -> tuple[Setting, float, float] | None:
    """The setting of the first seed, and the seconds of a query and of a step of fine-tuning."""
    try:
        setting = study.setting(task, study.seeds[0])
        lm, template = setting.lm, setting.template
        queries, shown = setting.queries[:_TIMED_QUERIES], setting.demonstrations[:_TIMED_STEPS]
        right_answers(lm, task, template, queries[:1])
        one_pass(lm, task, template, shown[:1], 1e-6)
        begun = time.perf_counter()
        right_answers(lm, task, template, queries)
        between = time.perf_counter()
        one_pass(lm, task, template, shown, 1e-6)
        return setting, (between - begun) / len(queries), (time.perf_counter() - between) / len(shown)
    except (MethodError, ModelError, NumericError, PromptError):
        # The parts will say why.
        return None


def _rates(size: Size, queries: int, shots: int) -> Work:
    grid = len(size.grid)
    # A quarter by all, another by about three quarters of them, half by about half.
    return (0.7 * grid * (queries + size.validation), grid * shots) if grid > 1 else (0.0, 0.0)


def _runs(size: Size, queries: int, shots: int) -> Work:
    rates = min(2, len(size.grid))
    # Fine-tuned once more, a rounding away.
    return rates * (_COMPARED + 1) * queries, 2 * rates * shots


def _controls(size: Size, queries: int, shots: int) -> Work:
    return 4 * _COMPARED * _of_controls(size, queries), 4 * shots


def _of_controls(size: Size, queries: int) -> int:
    return queries if size.controls is None else min(size.controls, queries)


def _layer_causal(size: Size, queries: int, shots: int) -> Work:
    few = min(size.layer_causal, shots)
    return 2 * _COMPARED * _of_controls(size, queries), (_TOKEN_BY_TOKEN + 1) * few


def _attribution(size: Size, queries: int, shots: int) -> Work:
    own = min(size.effort.queries, queries)
    subsets = 2**shots if shots <= EXACT else 2 * size.effort.pairs * shots
    # A query after a prefix that is there costs about half of one alone, which has its own beginning to read.
    return 0.6 * own * (subsets + shots) + 2 * own, 2.0 * own


def _orders(size: Size, queries: int, shots: int) -> Work:
    return 1.5 * size.effort.orders * min(size.effort.queries, queries), 0.0


def _learning(examples: int, size: Size, queries: int, shots: int) -> Work:
    # Three rates for the whole budget, a search and a fit; two prefixes likewise, each step of which reads twice as much.
    return 7.0 * queries, 60.0 * min(16, examples)


_WORK: Mapping[str, Callable[[Size, int, int], Work]] = {
    "rates": _rates,
    "runs": _runs,
    "controls": _controls,
    "implied": lambda size, queries, shots: (2.0 * queries, 0.0),
    "attribution": _attribution,
    "orders": _orders,
    "layer-causal": _layer_causal,
    "why-labels": lambda size, queries, shots: (6.0 * queries, 0.0),
    "why-order": lambda size, queries, shots: (10.0 * queries, 0.0),
    **{f"why-learning-{shots}": partial(_learning, shots) for shots in LEARNING_SHOTS},
}
"""What each part asks, for so many queries and demonstrations."""
