"""From a name to a frozen model that is ready to read: weights, tokenizer, number format, route, memory."""

import inspect
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from kshot.devices import Device, device_of, keep_buffers
from kshot.errors import KshotError, ModelError
from kshot.model.attention import install, keeps_rows
from kshot.model.lm import LM, Route
from kshot.model.momentum import MOMENTUM, Momentum, kept_momentum
from kshot.model.sources import Source, in_bfloat16, resolve
from kshot.model.tokens import Codec
from kshot.model.tree import Scored
from kshot.seeds import stream

DType = Literal["auto", "float32", "bfloat16", "float64"]

MODEL = "smollm2-135m"

# A pack longer than this gains nothing (the linear layers reach the machine's rate before) and costs memory.
_PACK = 4096
# Bytes of logits that a pass may hold at once: with larger vocabularies they, and not the layers, fill the memory.
_LOGITS = 160_000_000
# Bytes that eager attention holds at its peak for a score of one head: measured on Gemma 2, seven times a float32.
_EAGER_BYTES = 28
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.6, torch.float16: 0.1}
"""Largest difference of a log-probability, in nats, by which two ways of computing the same thing may round apart."""


def load_model(name: str = MODEL, *, dtype: DType = "auto", device: Device = "auto") -> LM:
    """The frozen model of that name: embedded, ``org/name`` on the hub, a directory, or a ``.gguf`` file.

    ``dtype`` auto is bfloat16 where the processor or the GPU is fast at it, else float32; ``device`` auto is cuda where
    there is one. Code that comes with a model is never run. Raises ModelError or UnknownName.
    """
    silence()
    return open_model(resolve(name), dtype=dtype, device=device)


def open_model(source: Source, *, dtype: DType = "auto", device: Device = "auto") -> LM:
    """The same from a folder that is already here."""
    silence()
    place = device_of(device)
    number = _dtype(dtype, place)
    _refuse_foreign_code(source)
    try:
        folder = in_bfloat16(source) if number is torch.bfloat16 else source.folder
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=number, trust_remote_code=False)
    except KshotError:
        raise
    except Exception as error:
        # transformers raises whatever its parts raise; the user needs the name, the folder and the first line.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model {source.name!r} in {source.folder} cannot be loaded: {first}") from error
    torch.nn.Module.to(model, place)
    momentum = kept_momentum(source.folder, place)
    lm = frozen(model, tokenizer, source, check=True)
    return lm if momentum is None else replace(lm, momentum=_fitting(momentum, lm))


def with_stated_momentum(lm: LM, said: str | None) -> LM:
    """The same model with momentum of one decay for all heads, said as ``ETA`` or ``ETA:GATE``; the gate is 1 by default.

    Nothing said leaves it as it is. KshotError for what is no such pair of numbers.
    """
    if said is None:
        return lm
    eta, _, gate = said.partition(":")
    try:
        decay, times = float(eta), float(gate or 1)
    except ValueError:
        decay, times = math.nan, math.nan
    if not 0 < decay < 1 or not math.isfinite(times):
        raise KshotError(f"--momentum {said}: what works is a decay between 0 and 1, or with a gate, as in 0.3:0.05")
    full = partial(torch.full, lm.value_heads, device=lm.device)
    return replace(lm, momentum=Momentum(decay=full(decay), gate=full(times)))


def _fitting(momentum: Momentum, lm: LM) -> Momentum:
    """The momentum itself; ModelError where it is not that of this model."""
    layers, heads = lm.value_heads
    if momentum.decay.shape != (layers, heads):
        raise ModelError(
            f"model {lm.name!r} has {layers} layers of {heads} key-value heads, and its {MOMENTUM} is of "
            f"{' by '.join(map(str, momentum.decay.shape))}; remove it to read the model without"
        )
    return momentum


def frozen(model: PreTrainedModel, tokenizer: Any, source: Source, *, check: bool = True) -> LM:
    """An LM around a model that is in memory. ``check`` compares the packed route with the plain one before use."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"model {source.name!r} is an encoder-decoder; kshot reads with decoder-only models")
    model.eval().requires_grad_(False)
    keep_buffers()
    parameter = next(model.parameters())
    if parameter.dtype in (torch.bfloat16, torch.float16):
        _head_in_float32(model)
    # A model that also sees keeps what is said of its texts in a part of its configuration.
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    tokens, rows = _budget(model, parameter)
    lm = LM(
        name=source.name,
        caption=source.caption,
        hash=source.hash,
        source=source.kind,
        model=model,
        codec=_codec(tokenizer),
        route=_route(model),
        dtype=parameter.dtype,
        device=parameter.device,
        context=context if isinstance(context, int) and context > 0 else None,
        tokens_per_pack=tokens,
        rows_per_pack=rows,
    )
    if lm.route.kind == "rows":
        return lm
    install(model)
    return _checked(lm) if check else lm


def silence() -> None:
    """transformers tells of every file it reads; who watches a run is told by its own progress bar."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _refuse_foreign_code(source: Source) -> None:
    config = source.folder / "config.json"
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"model {source.name!r}: {config} cannot be read as JSON: {error}") from error
    if "auto_map" in settings and "model_type" not in settings:
        raise ModelError(f"model {source.name!r} needs code of its own; kshot runs only models that transformers knows")


def _dtype(asked: DType, device: torch.device) -> torch.dtype:
    if asked == "auto":
        fast = (
            torch.cuda.is_bf16_supported()
            if device.type == "cuda"
            else torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        )
        return torch.bfloat16 if fast else torch.float32
    return getattr(torch, asked)


def _codec(tokenizer: Any) -> Codec:
    """The tokens a model was trained to see first are those its tokenizer puts before a text, no more and no fewer."""
    plain, full = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    first = tuple(full[: full.index(plain[0])]) if plain and plain[0] in full else ()
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return Codec(tokenizer, first, start)


# Layer types (config.layer_types) whose work on a token is attention to the tokens before it and nothing else.
_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
# Rotary scaling that depends on the length of the whole text: a prefix computed alone differs from the same one read on.
_LENGTH_DEPENDENT = {"dynamic", "longrope"}


def _route(model: PreTrainedModel) -> Route:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - _ATTENTION_LAYERS
    rope = getattr(config, "rope_parameters", None) or {}
    ropes = {str(r.get("rope_type")) for r in ([rope] if "rope_type" in rope else rope.values()) if isinstance(r, dict)}
    if kinds:
        return Route("rows", f"layers of type {', '.join(sorted(kinds))} carry a state that branches cannot share")
    if getattr(model, "_is_stateful", False):
        return Route("rows", "recurrent layers carry a state that branches cannot share")
    if not model._can_set_attn_implementation():
        return Route("rows", "its attention does not go through transformers' attention interface")
    if ropes & _LENGTH_DEPENDENT:
        return Route(
            "rows", f"rotary scaling {', '.join(sorted(ropes & _LENGTH_DEPENDENT))} depends on the length of the text"
        )
    if "position_ids" not in inspect.signature(model.forward).parameters or not keeps_rows(model):
        return Route("rows", "it takes no positions, or gives no chosen rows of logits")
    return Route("tree", "every distinct token is run once")


def _checked(lm: LM) -> LM:
    """The LM itself, or the same on the ``rows`` route where packed and plain answers differ by more than rounding."""
    rng = stream(0, "self-check")
    vocabulary = lm.model.config.get_text_config().vocab_size
    with _short_windows(lm.model.config) as window:
        room = max(2, lm.context or 1 << 30)
        length = max(1, min(room - 8, max(48, window + 24)))

        def draw(n: int) -> tuple[int, ...]:
            return tuple(rng.integers(0, vocabulary, n).tolist())

        trunk = draw(length)
        sequences = []
        for size in (1, 5, 3):
            query = (trunk + draw(size))[: max(1, room - 2)]
            sequences += [Scored((query + draw(n))[:room], len(query)) for n in (1, 2)]
        try:
            packed = lm.score(sequences).sums()
            plain = replace(lm, route=Route("rows", "self-check")).score(sequences).sums()
        except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            return replace(lm, route=Route("rows", f"its packed pass fails: {str(error).splitlines()[0]}"))
    difference = float(np.abs(packed - plain).max())
    if difference <= ROUNDING[lm.dtype]:
        return lm
    return replace(
        lm, route=Route("rows", f"packed and plain answers differ by {difference:.2g} nats on random tokens")
    )


@contextmanager
def _short_windows(config: Any) -> Iterator[int]:
    """Long attention windows shortened while a check runs, so that it outgrows them; yields the longest one in force."""
    text = config.get_text_config()
    names = [n for n in ("sliding_window", "attention_chunk_size") if isinstance(getattr(text, n, None), int)]
    before = {n: getattr(text, n) for n in names}
    for n in names:
        if before[n] > 1024:
            setattr(text, n, 8)
    try:
        yield max((getattr(text, n) for n in names), default=0)
    finally:
        for n, value in before.items():
            setattr(text, n, value)


def _head_in_float32(model: PreTrainedModel) -> None:
    """Logits of a 16-bit model in float32: rounded to 8 bits they would tie where labels differ by a few per cent.

    The weights stay as they are; a slice of the vocabulary at a time is widened, so the head costs no second copy.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return

    def forward(hidden: Tensor) -> Tensor:
        wide, slices = hidden.float(), head.weight.split(8192)
        if not wide.numel():
            # What is only read ahead asks for no row; widening the weights for none would take longer than the reading.
            return wide.new_zeros(*wide.shape[:-1], len(head.weight))
        if torch.is_grad_enabled():
            logits = torch.cat([nn.functional.linear(wide, rows.float()) for rows in slices], dim=-1)
        else:
            # Written in place: the parts and their joint copy would stand side by side in memory.
            logits = wide.new_empty(*wide.shape[:-1], len(head.weight))
            for i, rows in enumerate(slices):
                torch.matmul(wide, rows.float().T, out=logits[..., i * 8192 : i * 8192 + len(rows)])
        return logits if head.bias is None else logits + head.bias.float()

    head.forward = forward  # type: ignore[method-assign, assignment]


def _budget(model: PreTrainedModel, parameter: Tensor) -> tuple[int, int]:
    """Tokens and scored rows a pack may have: a quarter of the free memory at most, in powers of two.

    Eager attention writes down every head's score of every pair of tokens: there they are counted too, of a pack that
    stands after as much as itself.
    Powers of two, and a ceiling that any ordinary machine reaches, keep the packing (and so the rounding) the same
    from run to run.
    """
    config = model.config.get_text_config()
    width = getattr(config, "hidden_size", 1024)
    inner = max(getattr(config, "intermediate_size", None) or 0, 4 * width)
    free = torch.cuda.mem_get_info()[0] if parameter.device.type == "cuda" else psutil.virtual_memory().available
    per_token = (3 * inner + 12 * width) * max(parameter.element_size(), 4)
    per_row = 3 * 4 * config.vocab_size
    per_pair = 2 * _EAGER_BYTES * getattr(config, "num_attention_heads", 0) if _is_eager(model) else 0
    # The greatest t of which per_token t + per_pair t^2 is an eighth of what is free.
    tokens = min(_PACK, int(2 * free / 8 / (per_token + math.sqrt(per_token**2 + 4 * per_pair * free / 8))))
    rows = min(_LOGITS // (4 * config.vocab_size), int(free / 8 / per_row))
    return tuple(max(16, 1 << (max(n, 1).bit_length() - 1)) for n in (tokens, rows))  # type: ignore[return-value]


def _is_eager(model: PreTrainedModel) -> bool:
    return str(model.config._attn_implementation or "eager").removeprefix("kshot-") == "eager"
