"""Where networks run, and how many processes that train one network find one another."""

import ctypes
import os
import shutil
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from kshot.errors import ModelError

Device = Literal["auto", "cpu", "cuda"]

# The others wait so long while the first process evaluates alone; of one that ended torchrun ends all at once.
_WAITS = timedelta(days=7)


def compiles() -> bool:
    """Whether ``torch.compile`` finds what it makes programs for the processor with."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.is_file() and any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++")))


def device_of(asked: Device) -> torch.device:
    """The device by its name; auto is a GPU where torch finds one, and of processes of torchrun each has its own.

    ModelError where a GPU was asked for and there is none, or where there are fewer than processes.
    """
    found = torch.cuda.is_available()
    if asked == "cpu" or (asked == "auto" and not found):
        return torch.device("cpu")
    if not found:
        raise ModelError("device cuda was asked for and torch finds none; use --device cpu")
    # The number of this process among those of its machine.
    own = os.environ.get("LOCAL_RANK")
    if own is None:
        return torch.device("cuda")
    if int(own) >= (count := torch.cuda.device_count()):
        raise ModelError(
            f"a GPU for process {int(own) + 1} of this machine was asked for and torch finds {count}; start as many "
            "processes as GPUs, or use --device cpu"
        )
    return torch.device("cuda", int(own))


def together() -> tuple[int, int]:
    """The number of this process among those that work together, and how many they are; (0, 1) of one alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextmanager
def gathered(device: torch.device) -> Iterator[None]:
    """Processes that torchrun has started find one another, and part at the end; one alone does nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not dist.is_available():
        yield
        return
    if device.type == "cuda":
        # Messages go from the device that is set, which would be the first for all.
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_WAITS)
    try:
        yield
    finally:
        dist.destroy_process_group()


def summed(weights: Mapping[str, Tensor], value: float) -> float:
    """The sum over all processes of a value, returned, and of the gradients of weights, left in their place.

    One message for all gradients: many small ones wait for one another.
    """
    names = sorted(weights)
    device = weights[names[0]].device
    parts = [
        weights[name].grad if weights[name].grad is not None else torch.zeros_like(weights[name]) for name in names
    ]
    whole = torch.cat([torch.tensor([value], device=device), *(own.flatten() for own in parts if own is not None)])
    dist.all_reduce(whole)
    for name, own in zip(names, whole[1:].split([weights[name].numel() for name in names]), strict=True):
        weights[name].grad = own.view_as(weights[name]).clone()
    return float(whole[0])


def added(value: float, device: torch.device) -> float:
    """The sum of a number over all processes."""
    found = torch.tensor([value], device=device)
    dist.all_reduce(found)
    return float(found)


def told(number: int, device: torch.device) -> int:
    """The number that the first process gives, in all of them."""
    found = torch.tensor([number], device=device)
    if together()[1] > 1:
        dist.broadcast(found, 0)
    return int(found)


def machine_rate(device: torch.device, precision: torch.dtype, size: int = 1024, rounds: int = 5) -> float:
    """Operations a second at which this machine multiplies matrices with the threads it has, measured now: the best of a
    few large products, the first of which warms up."""
    a, b = (torch.ones(size, size, dtype=precision, device=device) for _ in range(2))
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        product = a @ b
        # Reading a number waits for the device.
        float(product[0, 0])
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds[1:])


def memory_rate(device: torch.device, size: int = 1 << 27, rounds: int = 5) -> float:
    """Bytes a second that this machine's memory gives and takes, measured now: the best of a few copies of so many bytes."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        target.copy_(source)
        float(target[0])
        seconds.append(time.perf_counter() - began)
    return 2 * size / min(seconds[1:])


def keep_buffers() -> None:
    """Ask glibc to keep large freed buffers: returned to the kernel, every pass pays for its pages again."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 30)
    except (OSError, AttributeError):
        return
