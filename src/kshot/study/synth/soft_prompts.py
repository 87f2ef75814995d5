"""A frozen encoder-decoder is taught a label task by rows before its input, or by all of its weights, and what it then says.

The input is a passage and the question after it, with no word of the task; the target is the label alone, or after a
sentinel, as a model that has seen nothing but hidden spans would say it. Emitted is the most probable token of all.

Source: Lester et al. 2021, sections 2 and 3.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from kshot.seeds import stream, torch_stream
from kshot.study.synth.experiment import Given
from kshot.study.synth.growing import grown, on_batches
from kshot.synth.labelled import Labelled, Passages
from kshot.synth.networks.encoder_decoder import encoder_decoder, read_beside
from kshot.synth.networks.language import Language
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Weights
from kshot.synth.train import Training

PROMPT = "prompt"
Init = Literal["random", "vocabulary", "labels"]
# Passages are answered so many at a time.
_AT_ONCE = 512
# Lester et al. 2021, section 3.2.
_SPREAD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frozen:
    """A model of the text with its weights; ``sentinel``: every target stands after the first of them."""

    text: Labelled
    shape: Shape
    weights: Weights
    sentinel: bool = False

    def before(self) -> tuple[int, ...]:
        """What stands before a label."""
        return self.text.spans[:1] if self.sentinel else ()

    def known(self, weights: Weights, passages: Int[Tensor, "b t"], said: Int[Tensor, "b n"]) -> Float[Tensor, "b n v"]:
        """Logits after what was said of passages; ``weights`` are the model's, and a prompt where there is one."""
        asked = nn.functional.pad(passages, (0, 1), value=self.text.question)
        source = nn.functional.embedding(asked, weights["embedding"])
        if PROMPT in weights:
            rows = weights[PROMPT].expand(len(source), -1, -1)
            source = torch.cat([rows, source], dim=1)
        language = encoder_decoder(self.text.vocabulary, self.text.tokens, self.shape)
        return language.head(weights, read_beside(weights, self.shape, said, source))


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a model is taught: by ``length`` rows that begin as ``init`` says, or by all of its weights where there are none."""

    length: int = 0
    init: Init = "labels"

    @property
    def name(self) -> str:
        """How it is called on record.

        >>> Way(length=20).name
        'prompt of 20, labels'
        """
        return f"prompt of {self.length}, {self.init}" if self.length else "all weights"


def taught(
    given: Given, word: str, frozen: Frozen, task: str, way: Way, learned: Passages, training: Training
) -> Weights:
    """The model's weights with what was learned from passages and their labels; ``word`` names it among those of a part."""
    own = frozen.weights
    first = torch.full((training.batch, 1), frozen.text.end)
    before = torch.tensor(frozen.before(), dtype=torch.long).expand(training.batch, -1)
    labels = torch.tensor(frozen.text.labels[task])[torch.from_numpy(learned.answers)]
    passages = torch.from_numpy(learned.tokens)

    def make(step: int) -> tuple[Tensor, ...]:
        some = torch.from_numpy(stream(given.seed, "taught", task, step).integers(0, len(passages), training.batch))
        target = torch.cat([before, labels[some, None]], dim=1)
        return passages[some], torch.cat([first, target[:, :-1]], dim=1), target

    def loss(weights: Weights, shown: Tensor, read: Tensor, target: Tensor) -> Tensor:
        logits = frozen.known({**own, **weights}, shown, read)
        return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())

    def start(rng: Generator) -> dict[str, Tensor]:
        return {PROMPT: prompt_rows(frozen, task, way, given.seed)} if way.length else dict(own)

    learner = Language(start=start, reads=lambda *_: torch.empty(0), head=lambda *_: torch.empty(0))
    return {**own, **grown(given, word, learner, on_batches(given, make, training, loss), training).weights}


def prompt_rows(frozen: Frozen, task: str, way: Way, seed: int) -> Float[Tensor, "p e"]:
    """Rows to begin with: even in [-0.5, 0.5], embeddings of the mixture's tokens, or those of labels and then of tokens."""
    table, rng = frozen.weights["embedding"].cpu(), torch_stream(seed, "soft-prompt", way.init, way.length)
    if way.init == "random":
        return _SPREAD * (2 * torch.rand(way.length, table.shape[1], generator=rng) - 1)
    tokens = frozen.text.mixture.vocabulary
    # None twice while there are others.
    drawn = torch.cat([torch.randperm(tokens, generator=rng) for _ in range(-(-way.length // tokens))])
    rows = table[drawn]
    if way.init == "labels":
        rows = torch.cat([table[list(frozen.text.labels[task])], rows])
    return rows[: way.length].clone()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Emitted:
    """Of every passage: whether the right label was emitted, whether any of the task's was, whether a sentinel was in its
    place, and whether the right one was the most probable of the task's."""

    right: Bool[np.ndarray, "b"]
    legal: Bool[np.ndarray, "b"]
    sentinel: Bool[np.ndarray, "b"]
    among: Bool[np.ndarray, "b"]


def emitted(frozen: Frozen, weights: Weights, task: str, asked: Passages) -> Emitted:
    """What is said of passages, token by token and the most probable each time."""
    text, place = frozen.text, weights["embedding"].device
    labels = torch.tensor(text.labels[task])
    last, chosen = [], []
    with torch.no_grad():
        for shown in torch.from_numpy(asked.tokens).to(place).split(_AT_ONCE):
            said = torch.full((len(shown), 1), text.end, device=place)
            for _ in frozen.before():
                said = torch.cat([said, frozen.known(weights, shown, said)[:, -1:].argmax(-1)], dim=1)
            logits = frozen.known(weights, shown, said)[:, -1].cpu()
            last.append(logits.argmax(-1))
            chosen.append(logits[:, labels].argmax(-1))
    token, which = torch.cat(last).numpy(), torch.cat(chosen).numpy()
    return Emitted(
        right=token == labels.numpy()[asked.answers],
        legal=np.isin(token, labels.numpy()),
        sentinel=np.isin(token, text.spans),
        among=which == asked.answers,
    )
