"""What is grown on what: the question of ``kshot pretrain`` as cells."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from kshot.measure.perplexity import Reading, reading
from kshot.model.grown import as_codec
from kshot.model.lm import LM
from kshot.model.seq2seq import Seq2Seq
from kshot.study.experiment import ENGINE
from kshot.study.parts import Cell, digest_of
from kshot.study.pretrain.corpus import Tokens
from kshot.study.pretrain.plan import Arm, Plan, further
from kshot.study.synth.experiment import Size
from kshot.synth.networks.language import Language

FLOOR = "n-gram"
"""The part that grows nothing: what counting comes to."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pretraining:
    """Networks to be grown on a text, or a model to be trained further from its ``start``; ``directory`` is the folder of
    the run, where it has one; ``board``: losses are kept for TensorBoard; ``choosing``: nothing is asked of them but their
    loss."""

    tokens: Tokens
    plan: Plan
    arms: tuple[Arm, ...]
    objective: str
    size: Size
    seeds: tuple[int, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    directory: Path | None = None
    start: LM | Seq2Seq | None = None
    board: bool = False
    choosing: bool = False

    @property
    def identity(self) -> str:
        """The SHA-256 of all that the figures depend on, in hexadecimal."""
        return digest_of([cell.id for cell in self.cells()])

    def cells(self) -> tuple[Cell, ...]:
        """The floor, and every network with every seed."""
        name, facts = self.tokens.corpus.name, [ENGINE, self.tokens.hash, self.plan, self.objective]
        facts += [] if self.start is None else [self.start.hash]
        grown = [(seed, arm.name, arm) for seed in self.seeds for arm in self.arms]
        asked = [(self.seeds[0], FLOOR, None), *grown] if self.asks else grown
        return tuple(
            Cell(task=name, seed=seed, part=part, asks=part, id=digest_of([facts, part, arm, seed])[:12])
            for seed, part, arm in asked
        )

    @property
    def asks(self) -> bool:
        """Whether more than their loss is asked of what is grown, which causal networks alone can tell."""
        return self.objective == "causal" and not self.choosing

    def language(self, arm: Arm) -> Language:
        """The network of an arm. KshotError for parts that do not go together."""
        if self.start is not None:
            return further(arm, self.start)
        return arm.language(self.tokens.marks.vocabulary, self.plan)

    def readings(self) -> tuple[Reading, ...]:
        """How held-out text is read at the end, at each length of context; of several texts as many tokens are judged."""
        codec = as_codec(self.tokens.tokenizer, self.tokens.end)
        texts = self.tokens.corpus.held_out
        return tuple(reading(codec, texts, context, limit=self.plan.judged) for context in self.plan.contexts)
