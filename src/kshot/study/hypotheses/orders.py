"""Synonyms of synonyms as answers: does what is learned fall with the order (Li et al. 2024)?"""

from typing import Any

from kshot.errors import PromptError
from kshot.study.figures import figure
from kshot.study.hypotheses.asking import Answers, Asked, Row, answer_rows, contrast_row
from kshot.study.parts import Say
from kshot.transform.draw import Protocol
from kshot.transform.inputs import label_as_input
from kshot.transform.responses import synonyms
from kshot.transform.thesaurus import ORDERS, way_to
from kshot.transform.written import Written

FALLS = "label words are answered better with synonyms than with synonyms of a high order"
# There are only as many different label words as labels, so their answers vary with the demonstrations alone.
_PROTOCOLS: dict[str, Protocol] = {"memory": "redrawn", "task": "fixed"}


Words = dict[str, dict[str, list[Any]]]
"""By order the ``synonyms`` that stood for the labels, and the ``senses`` through which each was come by (``way_to``)."""


def by_order(asked: Asked, say: Say) -> tuple[list[Row], Words]:
    """Label words answered by synonyms of order 1 to 5, and the task itself so answered; with the words that were drawn."""
    rows: list[Row] = []
    words: Words = {"synonyms": {}, "senses": {}}
    written: dict[tuple[int, str], Written] = {}
    for order in range(1, ORDERS + 1):
        for name, transform in (
            ("memory", label_as_input().then(synonyms(order))),
            ("task", synonyms(order)),
        ):
            try:
                written[order, name] = asked.altered(transform)
            except PromptError as error:
                rows.append(figure("macro_f1", _variant(order, name), value=None, reason=str(error)))
                continue
            drawn = written[order, name].words
            words["synonyms"][str(order)] = list(drawn)
            words["senses"][str(order)] = [
                [f"{link.word}/{link.sense}" for link in way_to(label, end, order)]
                for label, end in zip(asked.written.words, drawn, strict=True)
            ]
    say("synonyms of all orders")
    answers = asked.all_answers([(own, _PROTOCOLS[name]) for (_, name), own in written.items()])
    memory: dict[int, Answers] = {}
    for (order, name), found in zip(written, answers, strict=True):
        rows += answer_rows(_variant(order, name), found, asked.seed)
        if name == "memory":
            memory[order] = found
    if len(memory) > 1:
        rows.append(contrast_row(FALLS, memory[min(memory)], memory[max(memory)], asked.seed))
    return rows, words


def _variant(order: int, name: str) -> tuple[str, str]:
    return f"{order}-fold synonyms", name
