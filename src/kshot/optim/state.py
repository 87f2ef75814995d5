"""Tensors and facts in one file, whole or not at all: where training stands."""

import glob
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kshot.errors import OutputError
from kshot.optim.optimisers import Moments


def keep(path: Path, leaves: Mapping[str, Tensor], moments: Moments, facts: Mapping[str, Any]) -> None:
    """Leaves by name, their moments, and facts as JSON; OutputError where the file cannot be written.

    What was there before stays until all of it is written.
    """
    tensors = {name: leaf.detach().contiguous() for name, leaf in leaves.items()}
    for name, own in moments.items():
        tensors |= {f"moment {kind} {name}": tensor.contiguous() for kind, tensor in own.items()}
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        save_file(tensors, part, metadata={"kshot": json.dumps(dict(facts))})
        # A loss of power must not find the new name on half a file.
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(
            f"cannot keep the state of training in {str(path.parent)!r} ({error}); give a folder that has room"
        ) from error


def part_of(path: Path) -> Path:
    """Where this process writes what is to be ``path`` once all of it is there."""
    return path.with_suffix(f".{os.getpid()}.part")


def sweep(path: Path) -> None:
    """Remove what was left beside ``path`` by processes that were killed while they wrote it; call it while not writing."""
    for part in path.parent.glob(f"{glob.escape(path.stem)}.*.part"):
        process = part.name.removeprefix(f"{path.stem}.").removesuffix(".part")
        # In a container the one that was killed may have had the number of this one.
        if process.isdecimal() and (int(process) == os.getpid() or not psutil.pid_exists(int(process))):
            with suppress(OSError):
                part.unlink(missing_ok=True)


def kept(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """Leaves, moments and facts as they were kept, on ``device``; None where there is no such file, or it cannot be read."""
    if (facts := facts_kept(path)) is None:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError):
        return None
    moments: dict[str, dict[str, Tensor]] = {}
    for name in [n for n in tensors if n.startswith("moment ")]:
        _, kind, leaf = name.split(" ", 2)
        moments.setdefault(leaf, {})[kind] = tensors.pop(name)
    return tensors, moments, facts


def facts_kept(path: Path) -> dict[str, Any] | None:
    """The facts alone, for which no tensor is read; None as above."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["kshot"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None
