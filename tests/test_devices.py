"""Which device a process gets, and how processes find one another; no GPU is needed, as torch is asked in its place."""

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from kshot.devices import device_of, gathered
from kshot.errors import ModelError


def gpus(patch: pytest.MonkeyPatch, count: int, rank: str | None) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: count > 0)
    patch.setattr(torch.cuda, "device_count", lambda: count)
    patch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        patch.setenv("LOCAL_RANK", rank)


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_every_process_has_a_gpu_of_its_own(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4, None)
    assert device_of(asked) == torch.device("cuda")
    gpus(monkeypatch, 4, "2")
    assert device_of(asked) == torch.device("cuda", 2)
    assert device_of("cpu") == torch.device("cpu")
    gpus(monkeypatch, 2, "2")
    with pytest.raises(ModelError, match="a GPU for process 3 of this machine was asked for and torch finds 2; start"):
        device_of(asked)


def test_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0, "1")
    assert device_of("auto") == torch.device("cpu")
    with pytest.raises(ModelError, match="device cuda was asked for and torch finds none"):
        device_of("cuda")


@pytest.mark.parametrize(
    ("device", "told"),
    [(torch.device("cuda", 1), [torch.device("cuda", 1), "nccl", "end"]), (torch.device("cpu"), ["gloo", "end"])],
)
def test_the_device_is_set_before_processes_find_one_another(
    device: torch.device, told: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def begins(backend: str, timeout: timedelta) -> None:
        # The first may evaluate for hours while the others wait.
        assert timeout >= timedelta(days=1)
        seen.append(backend)

    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(dist, "init_process_group", begins)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: seen.append("end"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    with gathered(device):
        assert seen == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    with gathered(device):
        assert seen == told[:-1]
    assert seen == told
