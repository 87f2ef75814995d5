"""A pretrained model as a function of its weights: what is trained further, with momentum attention or as it is."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from transformers import Cache, DynamicCache

from kshot.errors import ModelError
from kshot.model.attention import with_momentum
from kshot.model.grown import MODEL_FILES
from kshot.model.lm import LM
from kshot.model.load import ROUNDING, silence
from kshot.model.momentum import Kind, Momentum, keep_momentum
from kshot.model.sealed import replaced
from kshot.model.tree import Scored
from kshot.seeds import stream

# A gate is so many times its weight: by steps that suit a model's own weights it would stay where it begins.
_GATE = 20.0
_DECAY, _GATED = "momentum.decay", "momentum.gate"
# Tokens on which a model is held against itself.
_COMPARED = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Further:
    """A decoder, and what is added to its attention: nothing, or a ``kind`` of momentum behind a gate that begins at 0, so
    that the model says what it said. ``eta`` is the decay of all heads; None: each learns its own, from a half.

    A model with momentum of its own goes on from that. ModelError where what is asked for would lose it, for a model whose
    attention cannot be reached where momentum is asked for, and for one that would begin by saying what it did not say.
    """

    lm: LM
    kind: Kind | None = None
    eta: float | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.lm.route.kind == "rows":
            raise ModelError(
                f"{self.lm.name} has no attention that momentum could be added to ({self.lm.route.reason})"
            )
        self._refuse_another_momentum()
        self._compare()

    def start(self) -> dict[str, Tensor]:
        """Copies of all weights, and those of the momentum."""
        return {name: own.detach().clone() for name, own in self._begun().items()}

    def _begun(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = dict(self.lm.model.named_parameters())
        if self.kind is not None:
            own, (layers, heads) = self.lm.momentum, self.lm.value_heads
            gate = torch.zeros(layers, heads, device=self.lm.device)
            decay = torch.full_like(gate, 0.5)
            if own is not None:
                gate, decay = torch.ones_like(gate) if own.gate is None else own.gate, own.decay
            # As vectors: weight decay of matrices leaves them alone.
            found[_GATED] = gate.flatten() / _GATE
            if self.eta is None:
                found[_DECAY] = decay.flatten().logit(eps=1e-6)
        return found

    def momentum_of(self, weights: Mapping[str, Tensor]) -> Momentum | None:
        """What attention gets; differentiable in the weights."""
        if self.kind is None:
            return None
        gate = _GATE * weights[_GATED].view(self.lm.value_heads)
        decay = weights[_DECAY].sigmoid().view_as(gate) if self.eta is None else torch.full_like(gate, self.eta)
        return Momentum(decay=decay, gate=gate, kind=self.kind)

    @property
    def table(self) -> str:
        """The name of the weights that a token is looked up in."""
        weight = self.lm.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor), "tokens are looked up in a table"
        return self._name(weight)

    def reads(self, weights: Mapping[str, Tensor], tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        """What the model knows at each token of texts, before its head."""
        found: Tensor = self._layers(weights, {"input_ids": tokens, "use_cache": False}).last_hidden_state
        return found

    def goes_on(
        self, weights: Mapping[str, Tensor], tokens: Int[Tensor, "b t"], past: Cache | None
    ) -> tuple[Float[Tensor, "b t e"], Cache]:
        """The same of tokens after a past (None: after none), and the past of those that come next; packed routes alone."""
        # Reading writes into it, and whoever reads a second time from here must find it as it was. Momentum is of all
        # tokens: a cache made for the model would keep those of a window alone.
        kept = DynamicCache() if past is None else copy.deepcopy(past)
        said = self._layers(weights, {"input_ids": tokens, "past_key_values": kept, "use_cache": True})
        return said.last_hidden_state, kept

    def _layers(self, weights: Mapping[str, Tensor], asked: dict[str, Any]) -> Any:
        model = self.lm.model
        prefix = f"{model.base_model_prefix}."
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        with with_momentum(self.momentum_of(weights)):
            return functional_call(model.base_model, own, (), asked)

    def head(self, weights: Mapping[str, Tensor], known: Float[Tensor, "*b e"]) -> Float[Tensor, "*b v"]:
        """Logits, as the model itself makes them of what it knows: scaled, capped, or whatever else it does."""
        model, rows = self.lm.model, known.reshape(1, -1, known.shape[-1])
        # The model without its layers: what they found is given in their place.
        rest = copy.copy(model)
        rest._modules = {**model._modules, model.base_model_prefix: _Known(rows)}
        own = {name: weights[self._name(tensor)] for name, tensor in rest.named_parameters()}
        read = torch.zeros(rows.shape[:2], dtype=torch.long, device=rows.device)
        logits = functional_call(rest, own, (), {"input_ids": read, "use_cache": False}).logits
        return logits.reshape(*known.shape[:-1], logits.shape[-1])

    def _name(self, parameter: Tensor) -> str:
        """Of a matrix that is looked up, too, it is the first of all names."""
        return next(name for name, own in self.lm.model.named_parameters() if own is parameter)

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """A folder that transformers and ``load_model`` open, the momentum beside; OutputError where it cannot be written."""
        model = copy.deepcopy(self.lm.model)
        plain = {name: own.cpu() for name, own in weights.items() if name not in (_DECAY, _GATED)}
        model.load_state_dict(plain, strict=False)
        silence()
        with replaced(folder, MODEL_FILES, "config.json") as fresh:
            model.save_pretrained(fresh)
            self.lm.codec.tokenizer.save_pretrained(fresh)
            if (momentum := self.momentum_of(weights)) is not None:
                keep_momentum(momentum, fresh)

    def _refuse_another_momentum(self) -> None:
        """ModelError where the model has momentum of its own and another, or none, is asked for."""
        own = self.lm.momentum
        if own is None:
            return
        if self.kind != own.kind:
            raise ModelError(
                f"attention {self.kind or 'softmax'} was asked for, and {self.lm.name} has {own.kind} of its own; what works is "
                f"--attention {own.kind}"
            )
        if self.eta is not None and not torch.allclose(own.decay, torch.full_like(own.decay, self.eta), atol=1e-6):
            raise ModelError(
                f"eta {self.eta:g} was asked for, and {self.lm.name} has decays of its own; what works is --eta learned"
            )

    def _compare(self) -> None:
        """ModelError unless a few tokens are scored as the model scores them."""
        length = min(_COMPARED, self.lm.context or _COMPARED)
        vocabulary = self.lm.model.config.get_text_config().vocab_size
        tokens = tuple(stream(0, "further").integers(0, vocabulary, length).tolist())
        weights, read = self._begun(), torch.tensor([tokens], device=self.lm.device)
        try:
            with torch.no_grad():
                said = self.head(weights, self.reads(weights, read))[0, :-1].double().log_softmax(-1)
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"{self.lm.name} cannot be trained further: {first}; what works is a decoder of layers and a head"
            ) from error
        found = said.gather(1, read[0, 1:, None])[:, 0].cpu().numpy()
        apart = float(np.abs(found - self.lm.score([Scored(tokens, 1)]).logprobs[0]).max())
        if not apart <= ROUNDING[self.lm.dtype]:
            raise ModelError(
                f"{self.lm.name} cannot be trained further: what begins is {apart:.2g} nats from what it says; what works "
                "is a decoder of layers and a head, without an adapter"
            )


class _Known(nn.Module):
    """What stands in the place of all layers, and of a decoder among them, and gives what is known already."""

    def __init__(self, known: Tensor) -> None:
        nn.Module.__init__(self)
        self.known = known

    @property
    def decoder(self) -> "_Known":
        return self

    def forward(self, *_: Any, **__: Any) -> "_Found":
        return _Found((self.known,))


class _Found(tuple[Tensor]):
    """What is known, by its name in transformers or as the first of all; anything else that layers may give is None."""

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        return None
