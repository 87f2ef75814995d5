"""Ways of teaching. Adding one is a file and a line here."""

from kshot.adapt.classical import Head, Majority, Nearest, Tfidf
from kshot.adapt.method import Method
from kshot.adapt.prompting import InContext, ZeroShot
from kshot.adapt.tuning import FineTune, LoRA, PrefixTuning, SoftPrompt

METHODS: dict[str, type] = {
    "zero-shot": ZeroShot,
    "in-context": InContext,
    "soft-prompt": SoftPrompt,
    "prefix": PrefixTuning,
    "lora": LoRA,
    "fine-tune": FineTune,
    "head": Head,
    "tfidf": Tfidf,
    "nearest": Nearest,
    "majority": Majority,
}

__all__ = [
    "METHODS",
    "FineTune",
    "Head",
    "InContext",
    "LoRA",
    "Majority",
    "Method",
    "Nearest",
    "PrefixTuning",
    "SoftPrompt",
    "Tfidf",
    "ZeroShot",
]
