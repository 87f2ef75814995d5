"""PEFT's own adapter folders, written and read without PEFT: ``adapter_config.json`` and ``adapter_model.safetensors``.

A soft prompt is ``prompt_embeddings`` (p, e), read in the place of embedded tokens. Prefix tuning is ``prompt_embeddings``
(p, 2 l g d): keys and values of layer after layer as they stand in the cache, so after rotary positions, with the grouped
heads of the model. LoRA is a pair of thin matrices for each linear layer, with the scale alpha / r. As PEFT 0.21 does it.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kshot.errors import DataError, ModelError
from kshot.model.delta import LowRank
from kshot.model.lm import LM

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_READABLE = ("LORA", "P_TUNING", "PREFIX_TUNING", "PROMPT_TUNING")
# Settings of LoRA that say how it was started, trained or found, or that its tensors say again.
_SAID_ELSEWHERE = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "lora_ga_config", "loftq_config", "corda_config",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
# Starts that leave the model's weights as they are; others (PiSSA, OLoRA, LoftQ ...) change them for good.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_LORA_KEY = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight")


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """What a folder holds: the rows of a soft prompt, free keys and values (1, g, p, d) of every layer, or LoRA."""

    rows: Float[Tensor, "p e"] | None = None
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()
    low_rank: Mapping[str, LowRank] = field(default_factory=dict)


def write_soft(folder: Path, lm: LM, rows: Float[Tensor, "p e"]) -> None:
    """The rows of a soft prompt."""
    config = {
        **_common(lm, "PROMPT_TUNING"),
        **_virtual(lm, len(rows), width=rows.shape[1], heads=lm.model.config.get_text_config().num_attention_heads),
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "tokenizer_name_or_path": None,
        "tokenizer_kwargs": None,
    }
    _write(folder, config, {"prompt_embeddings": rows})


def has_one_shape(tensors: Sequence[Tensor]) -> bool:
    """Whether keys and values of all layers have as many heads of the same width, as prefix tuning must in PEFT."""
    return len({(t.shape[1], t.shape[2], t.shape[3]) for t in tensors}) == 1


def write_free(folder: Path, lm: LM, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Free keys and values (1, g, p, d) of every layer; all of one shape (``has_one_shape``)."""
    _, g, p, d = keys[0].shape
    config = {
        **_common(lm, "PREFIX_TUNING"),
        **_virtual(lm, p, width=g * d, heads=g),
        "num_layers": len(keys),
        "encoder_hidden_size": g * d,
        "prefix_projection": False,
        "init_weights": None,
    }
    pairs = torch.stack([t[0] for pair in zip(keys, values, strict=True) for t in pair])
    _write(folder, config, {"prompt_embeddings": pairs.permute(2, 0, 1, 3).reshape(p, -1)})


def write_low_rank(folder: Path, lm: LM, low_rank: Mapping[str, LowRank]) -> None:
    """LoRA; ranks and scales that differ between layers become PEFT's patterns."""
    ranks = {name: len(one.down) for name, one in low_rank.items()}
    alphas = {name: _alpha(one.scale, ranks[name]) for name, one in low_rank.items()}
    r, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    config = {
        **_common(lm, "LORA"),
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {re.escape(name): own for name, own in ranks.items() if own != r},
        "alpha_pattern": {re.escape(name): own for name, own in alphas.items() if own != alpha},
        "target_modules": sorted(low_rank),
        "fan_in_fan_out": any(isinstance(lm.model.get_submodule(name), Conv1D) for name in low_rank),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
    tensors = {}
    for name, one in low_rank.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = one.down
        tensors[f"base_model.model.{name}.lora_B.weight"] = one.up
    _write(folder, config, tensors)


def read(folder: Path, lm: LM) -> Adapter:
    """What PEFT or we have written, on the model's device; everything that stands in it is in force, or it is refused.

    DataError for files that are missing, damaged or of a kind that cannot be read, ModelError where they do not fit
    the model.
    """
    config = _config(folder)
    kind = config.get("peft_type")
    if kind not in _READABLE:
        raise DataError(f"{folder / CONFIG}: peft_type is {kind!r}; what kshot reads is {', '.join(_READABLE)}")
    if (submodules := config.get("num_transformer_submodules")) not in (None, 1):
        raise DataError(f"{folder / CONFIG}: num_transformer_submodules is {submodules}; kshot reads decoders only")
    tensors = _tensors(folder, lm)
    if kind == "LORA":
        return Adapter(low_rank=_low_rank(folder, config, tensors, lm))
    if config.get("modules_to_save"):
        raise DataError(f"{folder / CONFIG}: kshot cannot read modules_to_save={config['modules_to_save']!r}")
    if set(tensors) != {"prompt_embeddings"}:
        others = sorted(set(tensors) - {"prompt_embeddings"})
        what = f"also holds {others[0]!r}" if "prompt_embeddings" in tensors else "holds no prompt_embeddings"
        raise DataError(f"{folder / WEIGHTS} {what}; a {kind} folder holds prompt_embeddings and nothing else")
    table = tensors["prompt_embeddings"]
    if table.dim() != 2 or not len(table):
        raise DataError(f"{folder / WEIGHTS}: prompt_embeddings has the shape {tuple(table.shape)}, not (rows, width)")
    return _free(folder, table, lm) if kind == "PREFIX_TUNING" else _soft(folder, table, lm)


def _soft(folder: Path, table: Tensor, lm: LM) -> Adapter:
    width = lm.embedded((0,)).shape[1]
    if table.shape[1] != width:
        raise ModelError(f"the soft prompt of {folder} has rows of {table.shape[1]} numbers, {lm.name} reads {width}")
    return Adapter(rows=table)


def _free(folder: Path, table: Tensor, lm: LM) -> Adapter:
    with torch.no_grad():
        one = lm.prefill((0,))
    layers, g, d = len(one.keys), one.keys[0].shape[1], one.keys[0].shape[3]
    if not has_one_shape([*one.keys, *one.values]) or table.shape[1] != layers * 2 * g * d:
        raise ModelError(
            f"the prefix of {folder} has {table.shape[1]} numbers a position, and {lm.name} keeps "
            f"{sum(t.numel() for t in (*one.keys, *one.values))} ({layers} layers, 2 x {g} heads of {d})"
        )
    pairs = table.to(lm.dtype).view(len(table), layers, 2, g, d).permute(1, 2, 3, 0, 4)
    keys = tuple(pairs[i, 0][None].contiguous() for i in range(layers))
    return Adapter(keys=keys, values=tuple(pairs[i, 1][None].contiguous() for i in range(layers)))


def _low_rank(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], lm: LM) -> dict[str, LowRank]:
    for name, value in config.items():
        if value and name not in _SAID_ELSEWHERE:
            raise DataError(f"{folder / CONFIG}: kshot cannot read {name}={value!r}")
    if config.get("bias", "none") != "none":
        raise DataError(f"{folder / CONFIG}: kshot cannot read bias={config['bias']!r}; what works is bias='none'")
    if (start := config.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        raise DataError(f"{folder / CONFIG}: init_lora_weights={start!r} has changed the weights of the model itself")
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = _LORA_KEY.fullmatch(key)
        if not found:
            raise DataError(
                f"{folder / WEIGHTS}: kshot cannot read {key!r}; it reads lora_A and lora_B of linear layers"
            )
        halves.setdefault(found[1], {})[found[2]] = tensor
    if not halves:
        raise DataError(f"{folder / WEIGHTS} holds nothing")
    return {name: _one_layer(folder, config, name, own, lm) for name, own in sorted(halves.items())}


def _one_layer(folder: Path, config: Mapping[str, Any], name: str, own: Mapping[str, Tensor], lm: LM) -> LowRank:
    if len(own) < 2:
        raise DataError(f"{folder / WEIGHTS}: {name!r} has lora_{''.join(own)} and lacks the other half")
    try:
        module = lm.model.get_submodule(name)
    except AttributeError:
        raise ModelError(f"{folder} changes the layer {name!r}, which {lm.name} does not have") from None
    if isinstance(module, nn.Linear):
        says, reads = module.weight.shape
    elif isinstance(module, Conv1D):
        reads, says = module.weight.shape
    else:
        raise ModelError(f"{folder} changes {name!r}, which is no linear layer of {lm.name}")
    down, up = own["A"], own["B"]
    if down.shape != (len(down), reads) or up.shape != (says, len(down)):
        raise ModelError(
            f"{folder}: {name!r} has lora_A {tuple(down.shape)} and lora_B {tuple(up.shape)}; the layer of {lm.name} "
            f"reads {reads} numbers and says {says}"
        )
    patterns = config.get("alpha_pattern") or {}
    alpha = next((a for key, a in patterns.items() if re.match(rf"(.*\.)?({key})$", name)), config.get("lora_alpha", 8))
    r = len(down)
    return LowRank(down=down, up=up, scale=float(alpha) / (math.sqrt(r) if config.get("use_rslora") else r))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} holds no {CONFIG}, so it is no PEFT adapter") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise DataError(f"{path} is not a JSON object")
    return config


def _tensors(folder: Path, lm: LM) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file() and (folder / "adapter_model.bin").is_file():
        raise DataError(f"{folder} holds adapter_model.bin, which could run code; save it again as safetensors")
    return finite_tensors(path, device=str(lm.device))


def stored(tensor: Tensor) -> Tensor:
    """The same numbers in memory of their own, as safetensors writes them."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def finite_tensors(path: Path, *, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a safetensors file; DataError where it is missing, damaged, or holds something that is no number."""
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        # In memory of their own: a mapped file may be written over, and some processors round a product by where its
        # factors begin.
        tensors = {name: tensor.clone() for name, tensor in load_file(path, device=device).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(f"{path}: {name!r} holds NaN or infinity")
    return tensors


def _common(lm: LM, kind: str) -> dict[str, Any]:
    return {
        "peft_type": kind,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": lm.name if lm.source in ("hub", "directory") else None,
        "revision": None,
        "inference_mode": True,
    }


def _virtual(lm: LM, length: int, *, width: int, heads: int) -> dict[str, Any]:
    return {
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_attention_heads": heads,
        "num_layers": lm.model.config.get_text_config().num_hidden_layers,
        "num_transformer_submodules": 1,
    }


def _alpha(scale: float, r: int) -> float | int:
    """alpha such that alpha / r is the scale to the last bit, and a plain number where there is one."""
    near = scale * r
    tried = (round(near), round(near, 6), near, math.nextafter(near, math.inf), math.nextafter(near, -math.inf))
    return next((alpha for alpha in tried if alpha / r == scale), near)


def _write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    plain = {name: stored(tensor) for name, tensor in tensors.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})
