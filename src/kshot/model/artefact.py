"""What was taught, on disk: whole or not at all, bound to the model it was taught to, and the same to the bit when read.

kshot.json                 everything that is text: template, label words, demonstrations, what it cost to learn
adapter_config.json        and adapter_model.safetensors: a soft prompt, a prefix or LoRA as PEFT keeps them
prompt/                    the same of a prefix where the folder itself holds LoRA
weights.safetensors        weights that were fine-tuned, by parameter name
classifier.safetensors     the numbers of a classifier
prefix.safetensors         keys and values of every layer, ready to be attended to (a compiled prefix)
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor

from kshot.data.task import Example
from kshot.data.template import Template
from kshot.errors import DataError, ModelError
from kshot.model import peft_format
from kshot.model.classifier import Classifier, restored
from kshot.model.delta import Delta
from kshot.model.demonstrations import preamble_tokens, read_ahead, retrieval
from kshot.model.identity import identity, same_model
from kshot.model.lm import LM
from kshot.model.peft_format import finite_tensors, stored
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.sealed import intact, put_back, replaced, seal
from kshot.model.taught import Taught

FORMAT = 1
FACTS, WHOLE, CLASSIFIER, COMPILED, PROMPT = (
    "kshot.json",
    "weights.safetensors",
    "classifier.safetensors",
    "prefix.safetensors",
    "prompt",
)
_OURS = {FACTS, WHOLE, CLASSIFIER, COMPILED, PROMPT, peft_format.CONFIG, peft_format.WEIGHTS}


def write(
    taught: Taught, directory: Path, *, training: Mapping[str, Any] | None = None, compiled: bool = False
) -> Path:
    """Everything needed to use it again, as the folder ``directory``; returns it (``~`` expanded).

    An artefact that is there already is replaced. ``compiled`` keeps the keys and values of what stands before a query
    too. OutputError where the folder holds something else or cannot be written, DataError for what JSON cannot hold.
    """
    kind, prefix = _kind(taught.prefix), taught.prefix
    if compiled and kind == "none" and taught.classifier is None and taught.retrieve is None:
        prefix = read_ahead(taught.reader, taught.template, taught.demonstrations, channel=taught.channel)
        kind = _kind(prefix)
    if kind == "free" and not peft_format.has_one_shape([*prefix.keys, *prefix.values]):
        kind = "kept"
    facts = {
        "format": FORMAT,
        "kshot": _version(),
        "model": identity(taught.lm),
        "method": taught.method,
        "kind": taught.kind,
        "labels": list(taught.labels),
        "template": asdict(taught.template),
        "channel": taught.channel,
        "first": list(taught.lm.codec.first),
        "demonstrations": [_written(e) for e in taught.demonstrations],
        "retrieve": _retrieve_facts(taught),
        "prefix": kind,
        "classifier": None if taught.classifier is None else taught.classifier.facts(),
        "training": training,
        "notes": list(taught.notes),
    }
    directory = directory.expanduser()
    with replaced(directory, _OURS, FACTS) as fresh:
        _write_parts(fresh, taught, kind, prefix)
        if (compiled and prefix.length) or kind == "kept":
            facts["compiled"] = {
                "dtype": str(taught.lm.dtype),
                "device": taught.lm.device.type,
                "length": prefix.length,
            }
            _write_compiled(fresh / COMPILED, prefix)
        facts["files"] = {p.relative_to(fresh).as_posix(): seal(p) for p in sorted(fresh.rglob("*")) if p.is_file()}
        (fresh / FACTS).write_text(_json(facts), encoding="utf-8")
    return directory


def _kind(prefix: Prefix) -> str:
    if prefix.embeddings is not None:
        return "soft"
    if not prefix.length:
        return "none"
    return "free" if prefix.tokens is None else "text"


def _write_parts(fresh: Path, taught: Taught, kind: str, prefix: Prefix) -> None:
    lm, delta = taught.lm, taught.delta
    beside = fresh / PROMPT if delta.low_rank else fresh
    if delta.low_rank:
        peft_format.write_low_rank(fresh, lm, delta.low_rank)
    if delta.dense:
        whole = {name: stored(tensor) for name, tensor in delta.dense.items()}
        save_file(whole, fresh / WHOLE, metadata={"format": "pt"})
    if prefix.embeddings is not None:
        peft_format.write_soft(beside, lm, prefix.embeddings)
    elif kind == "free":
        peft_format.write_free(beside, lm, prefix.keys, prefix.values)
    if taught.classifier is not None:
        arrays = {name: np.ascontiguousarray(array) for name, array in taught.classifier.arrays().items()}
        save_arrays(arrays, fresh / CLASSIFIER)


def _write_compiled(path: Path, prefix: Prefix) -> None:
    parts = {f"keys.{i}": tensor for i, tensor in enumerate(prefix.keys)}
    parts |= {f"values.{i}": tensor for i, tensor in enumerate(prefix.values)}
    save_file({name: stored(tensor) for name, tensor in parts.items()}, path)


def _written(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "fields": dict(example.fields),
        "label": example.label,
        "choices": list(example.choices),
    }


def _retrieve_facts(taught: Taught) -> dict[str, Any] | None:
    found = taught.retrieve
    if found is None:
        return None
    plain = {"shots": found.shots, "pick": found.pick, "order": found.order, "seed": found.seed}
    return {**plain, "pool": [_written(e) for e in found.pool]}


def _json(facts: Mapping[str, Any]) -> str:
    try:
        return json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
    except TypeError as error:
        raise DataError(
            f"an artefact holds text, numbers and lists, and a field of a demonstration is more: {error}"
        ) from error


def facts_of(directory: str | Path) -> dict[str, Any] | None:
    """What ``kshot.json`` of an artefact says; None for an adapter of PEFT that has none.

    DataError where there is no artefact, where it is damaged, or where a later kshot has written it.
    """
    folder = Path(directory).expanduser()
    put_back(Path(os.path.realpath(folder)))
    if not folder.is_dir():
        raise DataError(f"artefact {str(directory)!r}: there is no such folder")
    path = folder / FACTS
    if not path.is_file():
        if (folder / peft_format.CONFIG).is_file():
            return None
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise DataError(f"{folder} is no artefact: it holds neither {FACTS} nor {peft_format.CONFIG} (found {found})")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    number = facts.get("format") if isinstance(facts, dict) else None
    if not isinstance(number, int):
        raise DataError(f"{path} names no format, so it was not written by kshot")
    if number > FORMAT:
        raise DataError(
            f"{path} has format {number}, written by kshot {facts.get('kshot')}; this one reads up to {FORMAT}: update kshot"
        )
    return facts


def read(lm: LM, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an Adapted from an artefact's folder, ``training`` as a mapping.

    ModelError where it was taught to another model, or to one that was read with another delta or momentum; DataError
    where a file is missing or damaged.
    """
    try:
        same_model(lm, folder, facts["model"])
        template = Template(**facts["template"])
        shown = tuple(_example(one) for one in facts["demonstrations"])
        found = {name: facts[name] for name in ("method", "kind", "channel", "training")}
        found |= {"labels": tuple(facts["labels"]), "notes": tuple(facts["notes"])}
        first = tuple(facts.get("first", lm.codec.first))
        asked, said, kind, files = facts["retrieve"], facts["classifier"], facts["prefix"], facts["files"]
        for name, known in files.items():
            # a compiled prefix only saves time: who needs the room may remove it
            if name != COMPILED or (folder / name).is_file():
                intact(folder, name, known)
        retrieve = None
        if asked is not None:
            pool = tuple(_example(one) for one in asked["pool"])
            plain = {name: asked[name] for name in ("shots", "pick", "order", "seed")}
            retrieve = retrieval(lm, template, pool, **plain)
        classifier = None if said is None else _classifier(folder / CLASSIFIER, said)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / FACTS} is damaged: {type(error).__name__} {error}") from error
    text = _Text(template, shown, bool(found["channel"]))
    delta, prefix = _learned(lm, folder, files, kind, text, facts.get("compiled"))
    return {
        **found,
        # What begins with the tokens that stand first in a text is followed by texts without them.
        "lm": lm if first == lm.codec.first else replace(lm, codec=replace(lm.codec.begun(), first=first)),
        "template": template,
        "demonstrations": shown,
        "retrieve": retrieve,
        "classifier": classifier,
        "delta": delta,
        "prefix": prefix,
    }


def read_adapter(lm: LM, folder: Path) -> tuple[Delta, Prefix]:
    """What an adapter of PEFT without a ``kshot.json`` changes, and what it puts before a query."""
    found = peft_format.read(folder, lm)
    return Delta(low_rank=found.low_rank), _placed(lm, found)


def _placed(reader: LM, found: peft_format.Adapter) -> Prefix:
    """The keys and values of a soft prompt or a free prefix."""
    if found.rows is None:
        return Prefix(found.keys, found.values) if found.keys else EMPTY
    with torch.no_grad():
        return replace(reader.prefill(found.rows), embeddings=found.rows)


@dataclass(frozen=True, slots=True)
class _Text:
    """What stands before every query in words."""

    template: Template
    shown: tuple[Example, ...]
    channel: bool


def _learned(
    lm: LM, folder: Path, files: Mapping[str, Any], kind: str, text: _Text, compiled: Mapping[str, Any] | None
) -> tuple[Delta, Prefix]:
    found = peft_format.read(folder, lm) if peft_format.WEIGHTS in files else peft_format.Adapter()
    dense = _dense(lm, folder / WHOLE) if WHOLE in files else {}
    delta = Delta(low_rank=found.low_rank, dense=dense)
    if found.low_rank and f"{PROMPT}/{peft_format.WEIGHTS}" in files:
        found = peft_format.read(folder / PROMPT, lm)
    reader = lm.changed(delta)
    kept = _compiled(lm, folder, compiled) if compiled is not None else None
    if kind == "kept":
        if kept is None:
            raise ModelError(
                f"{folder} keeps its prefix in {(compiled or {}).get('dtype')} on {(compiled or {}).get('device')}, and "
                f"{lm.name} is read in {lm.dtype} on {lm.device.type}; load it the same way"
            )
        return delta, kept
    if kept is not None and kind == "text":
        tokens = preamble_tokens(lm, text.template, text.shown, channel=text.channel)
        if len(tokens) == kept.length:
            return delta, replace(kept, tokens=tokens)
    if kept is not None and kind == "soft":
        return delta, replace(kept, embeddings=found.rows)
    if kind == "text":
        return delta, read_ahead(reader, text.template, text.shown, channel=text.channel)
    return delta, _placed(reader, found)


def _compiled(lm: LM, folder: Path, said: Mapping[str, Any]) -> Prefix | None:
    """Keys and values mapped from the disk; None where they are of another number format or device, or were removed."""
    path = folder / COMPILED
    if not path.is_file() or (said["dtype"], said["device"]) != (str(lm.dtype), lm.device.type):
        return None
    try:
        with safe_open(path, framework="pt", device=str(lm.device)) as file:
            layers = range(len(file.keys()) // 2)
            keys, values = (tuple(file.get_tensor(f"{part}.{i}") for i in layers) for part in ("keys", "values"))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if not keys or any(t.dim() != 4 or t.shape[2] != said["length"] for t in (*keys, *values)):
        raise DataError(f"{path} is damaged: its layers do not hold {said['length']} positions each")
    return Prefix(keys, values)


def _dense(lm: LM, path: Path) -> dict[str, Tensor]:
    known = dict(lm.model.named_parameters())
    found = finite_tensors(path, device=str(lm.device))
    for name, tensor in found.items():
        if name not in known:
            raise ModelError(f"{path} holds weights {name!r}, which {lm.name} does not have")
        if tensor.shape != known[name].shape:
            raise ModelError(
                f"{path}: {name!r} has the shape {tuple(tensor.shape)}, that of {lm.name} is {tuple(known[name].shape)}"
            )
    return {name: tensor.to(known[name].dtype) for name, tensor in found.items()}


def _classifier(path: Path, said: Mapping[str, Any]) -> Classifier:
    arrays = load_arrays(path)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path}: {name!r} holds NaN or infinity")
    return restored(said, arrays)


def _example(said: Mapping[str, Any]) -> Example:
    return Example(id=said["id"], fields=said["fields"], label=said["label"], choices=tuple(said["choices"]))


def _version() -> str:
    try:
        return version("kshot")
    except PackageNotFoundError:
        return "unknown"
