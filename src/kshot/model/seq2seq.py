"""An encoder-decoder of transformers, T5 above all: read from its folder, as a function of its weights, and saved again."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from kshot.devices import Device, device_of
from kshot.errors import ModelError
from kshot.model.grown import MODEL_FILES
from kshot.model.load import silence
from kshot.model.sealed import replaced
from kshot.model.sources import Source, resolve


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seq2Seq:
    """An encoder-decoder in memory, in float32, its tokenizer, and what it is called; nothing of it is drawn at random."""

    name: str
    hash: str
    model: PreTrainedModel
    tokenizer: Any

    @property
    def parameters(self) -> int:
        return sum(own.numel() for own in self.model.parameters())

    def start(self) -> dict[str, Tensor]:
        """Copies of all weights; one that is read and said with is there once."""
        return {name: own.detach().clone() for name, own in self.model.named_parameters()}

    def says(
        self, weights: Mapping[str, Tensor], tokens: Int[Tensor, "b t"], source: Int[Tensor, "b u"]
    ) -> Float[Tensor, "b t v"]:
        """Logits after ``tokens`` beside a ``source``; what is said begins with the model's own token for that."""
        begin = getattr(self.model.config, "decoder_start_token_id", None)
        read = tokens
        if begin is not None:
            read = torch.cat([torch.full_like(tokens[:, :1], begin), tokens[:, 1:]], dim=1)
        given = {"input_ids": source, "decoder_input_ids": read, "use_cache": False}
        return functional_call(self.model, dict(weights), (), given, strict=False).logits

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """A folder that transformers opens; OutputError where it cannot be written."""
        model = copy.deepcopy(self.model)
        model.load_state_dict({name: own.cpu() for name, own in weights.items()}, strict=False)
        silence()
        with replaced(folder, MODEL_FILES, "config.json") as fresh:
            model.save_pretrained(fresh)
            self.tokenizer.save_pretrained(fresh)


def reads_a_source(name: str) -> bool:
    """Whether the model of that name is an encoder-decoder. ModelError where there is no such model."""
    silence()
    return bool(getattr(_opened(resolve(name), AutoConfig), "is_encoder_decoder", False))


def load_seq2seq(name: str, *, device: Device = "auto") -> Seq2Seq:
    """The encoder-decoder of that name, frozen. Code that comes with a model is never run. Raises ModelError."""
    silence()
    source = resolve(name)
    tokenizer = _opened(source, AutoTokenizer)
    model = _opened(source, AutoModelForSeq2SeqLM, dtype=torch.float32)
    torch.nn.Module.to(model, device_of(device))
    model.eval().requires_grad_(False)
    return Seq2Seq(name=source.name, hash=source.hash, model=model, tokenizer=tokenizer)


def _opened(source: Source, kind: Any, **more: Any) -> Any:
    try:
        return kind.from_pretrained(source.folder, trust_remote_code=False, **more)
    # transformers raises whatever its parts raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model {source.name!r} in {source.folder} cannot be loaded: {first}") from error
