"""Experiments by their names. Adding one is a file and a line here."""

from kshot.study.catalogue.labels import LABELS
from kshot.study.catalogue.learning import LEARNING
from kshot.study.catalogue.order import ORDER
from kshot.study.catalogue.question import Question

QUESTIONS: dict[str, Question] = {"learning": LEARNING, "labels": LABELS, "order": ORDER}

__all__ = ["QUESTIONS", "Question"]
