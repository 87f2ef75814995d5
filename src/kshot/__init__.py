"""Teach frozen language models by their prompts, and find out what that teaching really is.

    import kshot
    result = kshot.compare("plurals", shots=(0, 4), limit=50)
    print(result)

Names are imported when they are first used: torch and transformers take seconds, and ``kshot --help`` needs neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kshot.adapt import (
        FineTune,
        Head,
        InContext,
        LoRA,
        Majority,
        Method,
        Nearest,
        PrefixTuning,
        SoftPrompt,
        Tfidf,
        ZeroShot,
    )
    from kshot.adapt.course import Course
    from kshot.api import compare, explain, hypotheses
    from kshot.data import load_task
    from kshot.data.predictions import Predictions
    from kshot.data.task import Example, Task
    from kshot.data.template import Template
    from kshot.errors import (
        DataError,
        KshotError,
        MethodError,
        ModelError,
        NumericError,
        OutputError,
        PromptError,
        UnknownName,
    )
    from kshot.measure.scoring import Outcome, score
    from kshot.model.adapted import Adapted, load_adapted
    from kshot.model.lm import LM
    from kshot.model.load import load_model
    from kshot.model.prefix import Prefix
    from kshot.model.serve import Prediction
    from kshot.show.result import Explanation, Result

_WHERE = {
    "Adapted": "kshot.model.adapted",
    "Course": "kshot.adapt.course",
    "DataError": "kshot.errors",
    "Example": "kshot.data.task",
    "Explanation": "kshot.show.result",
    "FineTune": "kshot.adapt",
    "Head": "kshot.adapt",
    "InContext": "kshot.adapt",
    "KshotError": "kshot.errors",
    "LM": "kshot.model.lm",
    "LoRA": "kshot.adapt",
    "Majority": "kshot.adapt",
    "Method": "kshot.adapt",
    "MethodError": "kshot.errors",
    "ModelError": "kshot.errors",
    "Nearest": "kshot.adapt",
    "NumericError": "kshot.errors",
    "Outcome": "kshot.measure.scoring",
    "OutputError": "kshot.errors",
    "Prediction": "kshot.model.serve",
    "Predictions": "kshot.data.predictions",
    "Prefix": "kshot.model.prefix",
    "PrefixTuning": "kshot.adapt",
    "PromptError": "kshot.errors",
    "Result": "kshot.show.result",
    "SoftPrompt": "kshot.adapt",
    "Task": "kshot.data.task",
    "Template": "kshot.data.template",
    "Tfidf": "kshot.adapt",
    "UnknownName": "kshot.errors",
    "ZeroShot": "kshot.adapt",
    "compare": "kshot.api",
    "explain": "kshot.api",
    "hypotheses": "kshot.api",
    "load_adapted": "kshot.model.adapted",
    "load_model": "kshot.model.load",
    "load_task": "kshot.data",
    "score": "kshot.measure.scoring",
}

__all__ = [
    "LM",
    "Adapted",
    "Course",
    "DataError",
    "Example",
    "Explanation",
    "FineTune",
    "Head",
    "InContext",
    "KshotError",
    "LoRA",
    "Majority",
    "Method",
    "MethodError",
    "ModelError",
    "Nearest",
    "NumericError",
    "Outcome",
    "OutputError",
    "Prediction",
    "Predictions",
    "Prefix",
    "PrefixTuning",
    "PromptError",
    "Result",
    "SoftPrompt",
    "Task",
    "Template",
    "Tfidf",
    "UnknownName",
    "ZeroShot",
    "compare",
    "explain",
    "hypotheses",
    "load_adapted",
    "load_model",
    "load_task",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kshot' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
