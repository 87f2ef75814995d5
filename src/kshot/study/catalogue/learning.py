"""Why is in-context learning worse, or better, than fine-tuning on the same examples, and from how many on?"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from jaxtyping import Float

from kshot.adapt.course import Course
from kshot.adapt.method import Method
from kshot.adapt.prompting import InContext
from kshot.adapt.tuning import FineTune, PrefixTuning
from kshot.errors import MethodError
from kshot.measure.arrangements import gold_columns
from kshot.measure.calibrate import levelled
from kshot.measure.scoring import score
from kshot.study.catalogue.question import Question, Rival, Say, condition_rows, contrast_rows, gold_logprobs
from kshot.study.catalogue.told import told
from kshot.study.compared import Row, Setting

SHOTS = (4, 16, 64)
_NAME = "why_learning"
_BUDGET = "20steps"
_RATES = (1e-5, 3e-5, 1e-4)
_AHEAD, _TILT = "in-context is ahead of fine-tuned", "bias costs in-context more than fine-tuned"
_CHOICE, _FORM = "fine-tuned at its best rate is ahead of in-context", "a trained prefix is ahead of fine-tuned"
_START, _MORE = (
    "a prefix begun as demonstrations is ahead of one begun at random",
    "a trained prefix is ahead of in-context",
)


def _answer(setting: Setting, say: Say, *, shots: int) -> list[Row]:
    task, seed = setting.task, setting.seed
    pool = sum(example.label is not None for example in task.train)
    if pool < shots:
        raise MethodError(
            f"task {task.name!r} has {pool} labelled training examples, and {shots} are to be learned from"
        )
    gold = gold_columns(task, setting.queries)
    tables: dict[str, np.ndarray] = {}
    for name, method in _methods(setting, shots).items():
        say(f"{name}, {shots} examples")
        adapted = method.fit(setting.lm, task, task.train, seed)
        found = score(adapted, task, setting.queries, overlength="error", seed=seed, calibration=False).predictions
        tables[name], tables[f"{name}, calibrated"] = found.logprobs, levelled(found.logprobs)
    right = {name: (own.argmax(axis=1) == gold).astype(np.float64) for name, own in tables.items()}
    gain = {name: right[f"{name}, calibrated"] - right[name] for name in ("in-context", "fine-tuned")}
    contrasts = {
        _AHEAD: right["in-context"] - right["fine-tuned"],
        _CHOICE: _at_best_rate(right, gold_logprobs(tables, gold)) - right["in-context"],
        _TILT: gain["in-context"] - gain["fine-tuned"],
        _FORM: right["prefix"] - right["fine-tuned"],
        _START: right["prefix"] - right["prefix begun at random"],
        _MORE: right["prefix"] - right["in-context"],
    }
    rows = condition_rows(_NAME, tables, gold, seed) + contrast_rows(_NAME, contrasts, seed, "")
    return [{**row, "variant": f"{row['variant']}, {shots} examples"} for row in rows]


def _at_best_rate(
    right: Mapping[str, Float[np.ndarray, "q"]], logprobs: Mapping[str, Float[np.ndarray, "q"]]
) -> Float[np.ndarray, "q"]:
    """Which queries are right at the best rate: of every other query the best is found on the queries between them.

    The best on the very queries would be ahead by the choice alone.
    """
    tuned, found = [_tuned(rate) for rate in _RATES], np.empty(len(right[_tuned(_RATES[0])]))
    for half in (0, 1):
        others = {name: logprobs[name][1 - half :: 2].sum() for name in tuned}
        found[half::2] = right[max(tuned, key=others.__getitem__)][half::2]
    return found


def _methods(setting: Setting, shots: int) -> dict[str, Method]:
    template = setting.template
    examples = InContext(shots=shots).fit(setting.lm, setting.task, setting.task.train, setting.seed).demonstrations
    length = len(told(setting, examples).tokens)
    as_they_are = {
        _tuned(rate): FineTune(
            shots=shots, template=template, course=Course(budget=_BUDGET, learning_rate=rate, validation="none")
        )
        for rate in _RATES
    }
    prefix = Course(budget=_BUDGET, grid=(1e-4, 1e-3, 1e-2))
    return {
        "in-context": InContext(shots=shots, template=template),
        "fine-tuned": FineTune(shots=shots, template=template, course=Course(budget=_BUDGET, grid=_RATES)),
        "prefix": PrefixTuning(shots=shots, template=template, course=prefix),
        "prefix begun at random": PrefixTuning(
            shots=shots, template=template, init="random", length=length, course=prefix
        ),
        **as_they_are,
    }


def _tuned(rate: float) -> str:
    return f"fine-tuned for the whole budget at {rate:g}"


LEARNING = Question(
    asks="Why is in-context learning worse, or better, than fine-tuning on the same examples, and from how many on?",
    prediction="With 4 examples in-context learning is ahead, with 64 fine-tuning: a prompt gives the task at once and "
    "then takes in little more. If the account holds, what descent adds to a prompt's own keys and values (a prefix begun "
    "as demonstrations) should be ahead of both.",
    rivals=(
        Rival(
            mechanism="A prompt teaches more from so few examples",
            intervention="the same examples, shown and fine-tuned on (all weights, rate and steps chosen on held-out ones)",
            contrast=_AHEAD,
        ),
        Rival(
            mechanism="Fine-tuning only chooses its rate badly from so few examples",
            intervention="it is given all examples to learn from, and for each half of the queries the rate that is best on the other half",
            contrast=_CHOICE,
        ),
        Rival(
            mechanism="In-context learning is held back by a bias towards labels",
            intervention="both are calibrated by the queries; what in-context learning gains by it is more",
            contrast=_TILT,
        ),
        Rival(
            mechanism="Keys and values before the query learn more from few examples than weights do",
            intervention="the same loss, steps and choice for a prefix, begun as the demonstrations",
            contrast=_FORM,
        ),
        Rival(
            mechanism="What a prefix learns rests on the demonstrations that it began as",
            intervention="as many keys and values begin at random",
            contrast=_START,
        ),
        Rival(
            mechanism="Reading is not learning: the demonstrations' keys and values are not those that descent would choose",
            intervention="they are trained on the same examples",
            contrast=_MORE,
        ),
    ),
    parts={f"why-learning-{shots}": partial(_answer, shots=shots) for shots in SHOTS},
)
