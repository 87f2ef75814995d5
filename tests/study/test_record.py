"""What scoring leaves behind becomes figures and samples, undefined where they are undefined."""

from dataclasses import replace

import numpy as np
import pytest
from small import films, words

from kshot.data.predictions import Predictions
from kshot.data.task import Task
from kshot.errors import NumericError
from kshot.measure.scoring import Outcome
from kshot.model.adapted import Adapted
from kshot.model.lm import LM
from kshot.study.cells import Cell
from kshot.study.record import GREEDY, OPEN_CANDIDATES, record

CELL = Cell(task="t", method="zero-shot", shots=0, seed=0, order=0, id="c")


def _predictions(
    task: Task, logprobs: list[list[float]], gold: list[int], greedy: tuple[str, ...] | None = None
) -> Predictions:
    examples = task.test[: len(gold)]
    table = np.array(logprobs, dtype=np.float64)
    return Predictions(
        ids=tuple(example.id for example in examples),
        labels=tuple(task.candidates(example) for example in examples),
        logprobs=table,
        tokens=np.ones(table.shape, dtype=np.int64),
        characters=np.ones(table.shape, dtype=np.int64),
        gold=np.array(gold),
        greedy=greedy,
        gold_text=tuple(example.label for example in examples),
    )


def _outcome(predictions: Predictions) -> Outcome:
    return Outcome(predictions=predictions, tokens=7, repaired=1, dropped=2, skipped=("x",))


def test_figures_of_a_closed_task(tiny_lm: LM) -> None:
    task = films()
    adapted = Adapted(lm=tiny_lm, template=task.template)
    outcome = _outcome(_predictions(task, [[-1, -2], [-1, -2], [-2, -1]], [0, 1, -1]))
    found, samples = record(CELL, adapted, task, task.test[:4], outcome, 1.5)
    # wrong, right, unlabelled, and one that was not asked
    assert found.right == "10--"
    figures = found.figures
    assert (figures["n"], figures["accuracy"], figures["score"]) == (2, 0.5, "sum")
    assert figures["accuracy_low"] < 0.5 < figures["accuracy_high"]
    assert figures["confusion"] == {"labels": ["bad", "good"], "counts": [[1, 0], [1, 0]]}
    assert (figures["tokens"], figures["repaired_seams"], figures["dropped_demonstrations"], figures["skipped"]) == (
        7,
        1,
        2,
        1,
    )
    assert figures["scores"]["contextual_calibration"] is None
    assert figures["undefined"]["contextual_calibration"] == "no content-free inputs were scored"
    assert [sample["right"] for sample in samples] == [True, False, None]
    assert samples[0]["logprobs"] == {"bad": -1.0, "good": -2.0}


def test_an_open_task_counts_the_greedy_answer_and_keeps_the_best_candidates(tiny_lm: LM) -> None:
    task = words(60)
    rng = np.random.default_rng(0)
    table = -rng.random((3, 60)) - 1
    gold = [30, 31, 32]
    table[0, 30] = -99.0
    predictions = _predictions(task, table.tolist(), gold, ("w30s", "w31", "other"))
    adapted = Adapted(lm=tiny_lm, template=task.template)
    found, samples = record(CELL, adapted, task, task.test[:3], _outcome(predictions), 1.0)
    assert (found.right, found.figures["accuracy"], found.figures["score"]) == ("100", pytest.approx(1 / 3), GREEDY)
    assert found.figures["scores"]["sum"]["accuracy"] == np.mean(table.argmax(1) == gold)
    assert found.figures["scores"]["sum"]["macro_f1"] is None
    best = {task.labels[int(c)] for c in np.argsort(-table[0])[:OPEN_CANDIDATES]}
    assert set(samples[0]["logprobs"]) == best | {"w30s"}
    assert (samples[0]["pred"], samples[0]["greedy"]) == ("w30s", "w30s")


def test_nobody_knows_the_answers(tiny_lm: LM) -> None:
    task = films()
    predictions = replace(_predictions(task, [[-1, -2]], [-1]), gold_text=(None,))
    found, _ = record(
        CELL, Adapted(lm=tiny_lm, template=task.template), task, task.test[:1], _outcome(predictions), 1.0
    )
    figures = found.figures
    keys = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss", "ece", "confusion")
    assert [figures[key] for key in keys] == [None] * 7
    assert (figures["n"], figures["calibration"]) == (0, [])


def test_a_right_answer_without_probability_is_an_error(tiny_lm: LM) -> None:
    task = films()
    outcome = _outcome(_predictions(task, [[-np.inf, -2]], [0]))
    with pytest.raises(NumericError, match="score of -inf"):
        record(CELL, Adapted(lm=tiny_lm, template=task.template), task, task.test[:1], outcome, 1.0)
