"""A step that is parted, within a process and among those of torchrun or accelerate, is the same step."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cats import TIMED, TINY, asked

from kshot.errors import KshotError
from kshot.study.pretraining import pretrain

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node"]
ACCELERATE = [
    *("accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"),
    *("--dynamo_backend", "no", "--num_processes"),
]


def launched(launcher: list[str], processes: int, file: Path, out: Path, *more: str) -> dict[str, Any]:
    """What processes come to together that a launcher has started."""
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    words += ["--device", "cpu", "--attention", "softmax,momentum"]
    command = [
        sys.executable,
        "-m",
        *launcher,
        str(processes),
        "-m",
        "kshot",
        "pretrain",
        str(file),
        *words,
        *more,
        "--output-path",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    # One of them speaks.
    assert done.stdout.count("Report:") == 1
    found: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))["kshot"]
    return found


def test_two_processes_come_to_what_one_does(file: Path, tmp_path: Path) -> None:
    one = pretrain(asked(file, attention=("softmax", "momentum"))).results["kshot"]
    for name, launcher, more in (("copies", ACCELERATE, []), ("parts", TORCHRUN, ["--sharded"])):
        two = launched(launcher, 2, file, tmp_path / name, *more)
        for slow, fast in zip(one["measures"], two["measures"], strict=True):
            if slow["measure"] not in TIMED and slow["value"] is not None:
                assert fast["value"] == pytest.approx(slow["value"], rel=1e-3, abs=1e-3), (name, slow["variant"])
        curves = [[own["lines"] for own in run["pictures"] if "tokens" in own["name"]] for run in (one, two)]
        for slow, fast in zip(*curves, strict=True):
            for word, points in slow.items():
                assert np.array(fast[word]) == pytest.approx(np.array(points), rel=1e-4)
        assert all((tmp_path / name / cell["saved"]).is_dir() for cell in two["cells"] if "saved" in cell)


def test_a_step_in_parts_is_the_same_step(file: Path) -> None:
    whole, parts = (pretrain(asked(file, accumulate=n)).results["kshot"]["measures"] for n in (1, 4))
    for one, other in zip(whole, parts, strict=True):
        if one["measure"] not in TIMED:
            assert other["value"] == pytest.approx(one["value"], rel=1e-4), one["measure"]
    with pytest.raises(KshotError, match="4 prompts in 3 parts"):
        pretrain(asked(file, accumulate=3))
