"""What is grown: a network of a shape, trained on so many tokens, once for each kind of attention that is asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from kshot.devices import together
from kshot.model.further import Further
from kshot.model.grown import saves
from kshot.model.lm import LM
from kshot.model.momentum import kind_of
from kshot.model.sealed import replaced
from kshot.model.seq2seq import Seq2Seq
from kshot.study.pretrain_settings import DESIGNED, LEARNED, PretrainSettings
from kshot.synth.networks.encoder_decoder import encoder_decoder
from kshot.synth.networks.language import DESIGNS, LANGUAGES, Beside, Language, Texts, layered
from kshot.synth.networks.layers import Design
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.network import Weights
from kshot.synth.train import Training

_SOFTMAX = "softmax"
WEIGHTS, _VOCABULARY = "weights.safetensors", "tokenizer.json"
"""Files of a network that no other program opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A network's shape, and how much is read at a time and in all: ``batch`` rows of ``context`` tokens a step.

    ``warmup`` is a share of the steps; ``betas`` and ``eps`` are AdamW's, ``clip`` is the greatest norm of a gradient.
    ``design`` is what layers with attention have in place of their network's own. The rows of a step are read in
    ``accumulate`` parts by each process. Validation reads ``looked`` rows at each of ``looks`` along training, and at the
    end documents of at most ``judged`` tokens in all, which several texts share; ``texts`` are copied and gone on with, for
    half a context or ``further`` tokens, and ``pairs`` found again.
    """

    shape: Shape
    vocabulary: int
    context: int
    batch: int
    tokens: int
    learning_rate: float
    schedule: str = "cosine"
    warmup: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip: float = 1.0
    precision: str = "float32"
    optimiser: str = "adamw"
    accumulate: int = 1
    looks: int = 8
    looked: int = 32
    judged: int | None = None
    texts: int = 64
    further: int | None = None
    pairs: int = 256
    design: tuple[tuple[str, str], ...] = ()
    sharded: bool = False
    compiled: bool = False

    @property
    def steps(self) -> int:
        return max(1, round(self.tokens / (self.batch * self.context)))

    @property
    def contexts(self) -> tuple[int, ...]:
        """Lengths at which text is read at the end: a quarter, a half, and all that training read at once."""
        return tuple(sorted({max(4, self.context // part) for part in (4, 2, 1)}))

    @property
    def training(self) -> Training:
        """As the loop has it; weights decay as is usual for language models."""
        return Training(
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            warmup=round(self.warmup * self.steps),
            weight_decay=0.1,
            decay_of="matrices",
            betas=self.betas,
            eps=self.eps,
            clip=self.clip,
            precision="bfloat16" if self.precision == "bfloat16" else "float32",
            optimiser=self.optimiser,
            parts=self.accumulate * together()[1],
            sharded=self.sharded,
        )


PLANS: Mapping[str, Plan] = {
    "smoke": Plan(
        shape=Shape(layers=2, heads=4, width=128, spread=None),
        vocabulary=1_024,
        context=128,
        batch=16,
        tokens=500_000,
        learning_rate=3e-3,
        judged=20_000,
    ),
    "full": Plan(
        shape=Shape(layers=4, heads=4, width=128, spread=None),
        vocabulary=2_048,
        context=256,
        batch=32,
        tokens=4_000_000,
        learning_rate=3e-3,
        looks=16,
        looked=64,
        judged=200_000,
    ),
    # Dai et al. 2023, section 5, of a network "transformer"; vocabulary and weight decay are not stated there.
    "paper": Plan(
        shape=Shape(layers=24, heads=16, width=1_024),
        vocabulary=50_257,
        context=1_024,
        batch=512,
        tokens=500_000 * 512 * 1_024,
        learning_rate=3e-4,
        schedule="linear",
        warmup=0.04,
        betas=(0.9, 0.98),
        eps=1e-6,
        clip=2.0,
        looks=24,
        looked=256,
    ),
}


# Of a model that is trained further; its shape is its own.
FURTHER: Mapping[str, Plan] = {
    "smoke": replace(
        PLANS["smoke"],
        batch=4,
        tokens=4_096,
        learning_rate=1e-4,
        looks=3,
        looked=4,
        judged=2_000,
        texts=4,
        further=8,
        pairs=4,
    ),
    "full": replace(
        PLANS["full"],
        batch=4,
        tokens=100_000,
        learning_rate=1e-4,
        looks=8,
        looked=16,
        judged=20_000,
        texts=8,
        further=32,
        pairs=32,
    ),
    "paper": replace(PLANS["paper"], batch=64, tokens=1_000_000_000, learning_rate=1e-4),
}


def planned(asked: PretrainSettings) -> Plan:
    """The plan of a size with what the settings say otherwise."""
    plan = (PLANS if asked.start is None else FURTHER)[asked.size]
    shape = {name: getattr(asked, name) for name in ("layers", "heads", "width") if getattr(asked, name) is not None}
    own = ("tokens", "context", "vocabulary", "batch", "learning_rate", "schedule")
    given = {name: getattr(asked, name) for name in own if getattr(asked, name) is not None}
    return replace(
        plan,
        shape=replace(plan.shape, **shape),
        precision=asked.precision,
        optimiser=asked.optimiser,
        accumulate=asked.accumulate,
        sharded=asked.sharded,
        compiled=asked.compile,
        design=tuple((name, getattr(asked, name)) for name in DESIGNED if getattr(asked, name) is not None),
        **given,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One network among those that are compared: a kind, its attention, and the decay of its momentum (None: learned)."""

    network: str
    attention: str = _SOFTMAX
    eta: float | None = None

    @property
    def name(self) -> str:
        """What it is called where others differ in nothing but attention.

        >>> Arm(network="llama", attention="momentum", eta=0.6).name
        'momentum 0.6'
        """
        if "momentum" in self.attention:
            return f"{self.attention} {LEARNED if self.eta is None else f'{self.eta:g}'}"
        return self.attention if self.network in DESIGNS else self.network

    def language(self, vocabulary: int, plan: Plan) -> Language:
        """The network; KshotError for parts that do not go together."""
        length, shape = plan.context, plan.shape
        if self.network == "t5":
            return encoder_decoder(vocabulary, length, shape)
        if self.network not in DESIGNS:
            return LANGUAGES[self.network](vocabulary, length, shape)
        return layered(vocabulary, length, shape, replace(self.design(plan), mixing=self.attention, eta=self.eta))

    def design(self, plan: Plan) -> Design:
        """Of a network with attention: its own, with what the plan has in its place."""
        chosen: dict[str, Any] = dict(plan.design)
        return replace(DESIGNS[self.network], **chosen)

    def saves(self, plan: Plan) -> bool:
        """Whether transformers has such a network, so that it can be saved for other commands."""
        own = self.network not in DESIGNS or self.design(plan) == DESIGNS[self.network]
        return own and saves(self.network, self.attention)


def _further(arm: Arm, lm: LM) -> Further:
    return Further(lm=lm, kind=kind_of(arm.attention), eta=arm.eta)


def saved_further(arm: Arm, start: LM | Seq2Seq, weights: Mapping[str, Tensor], folder: Path) -> None:
    """What came of it, in a folder that transformers opens, and ``load_model`` if it is a decoder. OutputError."""
    (start if isinstance(start, Seq2Seq) else _further(arm, start)).save(weights, folder)


def saved_plain(weights: Mapping[str, Tensor], folder: Path, facts: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """A network that transformers has no like of: its weights, with ``facts`` as JSON under ``kshot`` in the file's own
    metadata, and its vocabulary; whole or not at all, OutputError where it cannot be written."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
    with replaced(folder, (WEIGHTS, _VOCABULARY), WEIGHTS) as fresh:
        save_file(tensors, fresh / WEIGHTS, metadata={"kshot": json.dumps(dict(facts))})
        (fresh / _VOCABULARY).write_text(tokenizer.to_str(), encoding="utf-8")


def further(arm: Arm, start: LM | Seq2Seq) -> Language:
    """A model that is trained further, as a network with the attention of an arm. ModelError as ``Further``."""
    if isinstance(start, Seq2Seq):

        def reads(weights: Weights, tokens: Texts, source: Beside) -> Tensor:
            assert source is not None, "its objectives have one"
            # What it knows at a token is what it says there.
            return start.says(weights, tokens, source)

        return Language(start=lambda rng: start.start(), reads=reads, head=lambda weights, known: known)
    own = _further(arm, start)
    return Language(
        start=lambda rng: own.start(),
        reads=lambda weights, tokens, beside: own.reads(weights, tokens),
        head=own.head,
        table=own.table,
        goes_on=own.goes_on if own.lm.route.kind == "tree" else None,
    )


def arms(asked: PretrainSettings) -> tuple[Arm, ...]:
    """Every network that is grown: each kind of attention, those with momentum once for each decay."""
    return tuple(
        Arm(network=str(asked.network), attention=attention, eta=None if eta == LEARNED else float(eta))
        for attention in asked.attention
        for eta in (asked.eta if "momentum" in attention else (LEARNED,))
    )
