"""A small task in the tokens of a tokenizer that is trained on it: real seams, words of one token and of several."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.model.tokens import Codec
from kshot.transform.lexicon import Lexicon
from kshot.transform.thesaurus import ORDERS, chains
from kshot.transform.written import Written, written

LAYOUT = Template(input="Review: {{text}}\nSentiment:", separator="\n\n")
TURNS = "{% for turn in messages %}{{ turn.role }}:\n{{ turn.content }}<end>\n{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
_GOOD, _BAD = (
    ["bright", "happy", "lovely", "splendid", "warm", "witty"],
    ["awful", "boring", "dreadful", "dull", "stale", "weak"],
)
_PLAIN = ["acting", "camera", "film", "music", "plot", "scene", "story", "voice"]


def films(n: int = 60) -> Task:
    """Reviews of four words, two of which tell."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        label = ("negative", "positive")[i % 2]
        telling = rng.choice(_GOOD if label == "positive" else _BAD, size=2)
        words = rng.permutation([*telling, *rng.choice(_PLAIN, size=2)])
        rows.append(Example(id=f"{i}", fields={"text": " ".join(words)}, label=label))
    half = n // 2
    return Task(
        name="films",
        kind="classification",
        labels=("negative", "positive"),
        train=tuple(rows[:half]),
        test=tuple(rows[half:]),
        template=LAYOUT,
    )


@lru_cache
def words() -> tuple[str, ...]:
    """Words that can stand for a label: any, some that are related to the labels, a chain of synonyms of each."""
    others = [
        "table",
        "river",
        "seven",
        "paper",
        "cloud",
        "green",
        "stone",
        "music",
        "bad",
        "good",
        "sad",
        "happy",
        "excellent",
        "terrible",
    ]
    whole = [next(c for c in chains(label) if len(c) == ORDERS) for label in ("negative", "positive")]
    return tuple(dict.fromkeys([*others, *(link.word for chain in whole for link in chain)]))


@lru_cache
def codec() -> Codec:
    """A byte-level tokenizer that knows the words of the task, those that stand for labels, and little else."""
    bare = (*_GOOD, *_BAD, *_PLAIN, "negative", "positive", *words())
    said = [*bare, *(f" {word}" for word in bare)]
    texts = [LAYOUT.demonstration(e.fields, str(e.label)) for e in films().train]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*texts, *said * 20], vocab_size=1600, min_frequency=2, special_tokens=["<end>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<end>", chat_template=TURNS)
    return Codec(tokenizer, (), None)


def tokens(task: Task | None = None, **more: Any) -> Written:
    """The task in tokens, with a lexicon whose probabilities are made up."""
    task = task or films()
    found = written(task, LAYOUT, codec(), task.train, task.test, **more)
    ids = np.array([own[0] for own in codec().encode([f" {word}" for word in words()])])
    own = Lexicon(ids, words(), np.log(np.linspace(0.1, 0.4, len(ids))))
    return replace(found, lexicon=own, outside=("the plot of a river", "seven green stone tables"))
