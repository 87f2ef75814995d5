"""Where networks run."""

import ctypes
from typing import Literal

import torch

from kshot.errors import ModelError

Device = Literal["auto", "cpu", "cuda"]


def device_of(asked: Device) -> torch.device:
    """The device by its name; auto is a GPU where torch finds one. ModelError where a GPU was asked for and there is none."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise ModelError("device cuda was asked for and torch finds none; use --device cpu")
    return torch.device(asked)


def keep_buffers() -> None:
    """Ask glibc to keep large freed buffers: returned to the kernel, every pass pays for its pages again."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 30)
    except (OSError, AttributeError):
        return
