"""Weights parted among processes train as copies do, hold half each, and are gone on with to the bit; one alone says so."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kshot.errors import KshotError
from kshot.synth.sharded import parted
from kshot.synth.train import Training


def test_parts_of_two_processes_are_the_whole(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(Path(__file__).with_name("parted.py")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    copies, again, sizes = ([float(word) for word in line.split()] for line in done.stdout.strip().splitlines())
    assert copies[0] < 1e-6
    assert copies[1] < 1e-6
    assert again == [0.0, 0.0, 9.0], "to the bit"
    held, whole = sizes
    assert held <= whole / 2 + 4


def test_one_process_has_nobody_to_part_with() -> None:
    with pytest.raises(KshotError, match="this is one; start them with torchrun"):
        parted({"a": torch.zeros(2)})
    with pytest.raises(KshotError, match="what works is adamw"):
        Training(steps=1, sharded=True, optimiser="sgd")
