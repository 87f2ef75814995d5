"""A pretrained model as a function of its weights: what is trained further, with momentum attention or as it is."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from kshot.errors import ModelError
from kshot.model.attention import with_momentum
from kshot.model.grown import MODEL_FILES
from kshot.model.lm import LM
from kshot.model.load import silence
from kshot.model.momentum import Momentum, keep_momentum
from kshot.model.sealed import replaced

# A gate is so many times its weight: by steps that suit a model's own weights it would stay where it begins.
_GATE = 20.0
_DECAY, _GATED = "momentum.decay", "momentum.gate"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Further:
    """A decoder, and what is added to its attention: nothing, or momentum behind a gate that begins at 0, so that the model
    says what it said. ``eta`` is the decay of all heads; None: each learns its own, from a half.

    ModelError for a model whose attention cannot be reached where momentum is asked for.
    """

    lm: LM
    momentum: bool = False
    normalised: bool = False
    eta: float | None = None

    def __post_init__(self) -> None:
        if self.momentum and self.lm.route.kind == "rows":
            raise ModelError(
                f"{self.lm.name} has no attention that momentum could be added to ({self.lm.route.reason})"
            )

    def start(self) -> dict[str, Tensor]:
        """Copies of all weights, and those of the momentum."""
        found = {name: own.detach().clone() for name, own in self.lm.model.named_parameters()}
        if self.momentum:
            zeros = torch.zeros(*self.lm.value_heads)
            found |= {_GATED: zeros} | ({_DECAY: zeros.clone()} if self.eta is None else {})
        return found

    def momentum_of(self, weights: Mapping[str, Tensor]) -> Momentum | None:
        """What attention gets; differentiable in the weights."""
        if not self.momentum:
            return None
        gate = _GATE * weights[_GATED]
        decay = weights[_DECAY].sigmoid() if self.eta is None else torch.full_like(gate, self.eta)
        return Momentum(decay=decay, gate=gate, normalised=self.normalised)

    def reads(self, weights: Mapping[str, Tensor], tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        """What the model knows at each token of texts, before its head."""
        model = self.lm.model
        prefix = f"{model.base_model_prefix}."
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        with with_momentum(self.momentum_of(weights)):
            said = functional_call(model.base_model, own, (), {"input_ids": tokens, "use_cache": False})
        return said.last_hidden_state

    def head(self, weights: Mapping[str, Tensor], known: Float[Tensor, "*b e"]) -> Float[Tensor, "*b v"]:
        """Logits."""
        module = self.lm.model.get_output_embeddings()
        assert isinstance(module, nn.Linear), "a decoder's head is a matrix"
        bias = None if module.bias is None else weights[self._name(module.bias)]
        return nn.functional.linear(known, weights[self._name(module.weight)], bias)

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
