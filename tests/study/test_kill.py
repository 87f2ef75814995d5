"""SIGKILL at random moments: the same command goes on, and the result is the same to the bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cats import TIMED, TINY
from small import calm, films_file, words_file

from kshot.seeds import stream

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def _run(folder: Path, most: float, count: int, words: list[str], command: str = "run") -> None:
    """Runs into ``folder``: one as it is, ``whole``, and one that is killed, ``killed``."""
    kill = Path(__file__).with_name("kill.py")
    delays = stream(0, "kills").uniform(0.05, most, size=count).round(3).tolist()
    folders = [str(folder / name) for name in ("whole", "killed")]
    asked = [sys.executable, str(kill), ",".join(map(str, delays)), *folders, command, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    killed = int(done.stderr.strip().splitlines()[-1].removeprefix("killed "))
    assert killed >= 2, f"the runs ended before they could be killed: {done.stderr}"


def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    tasks = [str(films_file(tmp_path)), str(words_file(tmp_path))]
    words = [*tasks, "--model", str(tiny_model_dir), "--dtype", "float32", "--num-fewshot", "0,2", "--seed", "0,1"]
    _run(tmp_path, 1.2, 6, words)
    for name in ("samples.jsonl",):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found = {name: _record(tmp_path / name) for name in ("whole", "killed")}
    assert found["whole"] == found["killed"]
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        "artefacts",
        "records.jsonl",
        "report.html",
        "results.json",
        "run.json",
        "samples.jsonl",
    ]


def test_networks_whose_training_is_killed_again_and_again_are_the_same_to_the_bit(file: Path, tmp_path: Path) -> None:
    words = [str(file), "--device", "cpu", "--attention", "softmax,momentum", "--eta", "0.5"]
    words += [word for name, value in {**TINY, "tokens": 6_000}.items() for word in (f"--{name}", str(value))]
    _run(tmp_path, 1.5, 4, words, "pretrain")
    for name in ("softmax-0", "momentum-0.5-0"):
        whole, killed = (tmp_path / run / "models" / name / "model.safetensors" for run in ("whole", "killed"))
        assert killed.read_bytes() == whole.read_bytes()
    found = [
        json.loads((tmp_path / run / "results.json").read_text())["kshot"]["measures"] for run in ("whole", "killed")
    ]
    whole, killed = ([row for row in own if row["measure"] not in TIMED] for own in found)
    assert killed == whole


def _record(folder: Path) -> object:
    """results.json without time and memory, and without the name of the folder, which is not the same here."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    ours = results["kshot"]
    ours["argv"] = [word for word in ours["argv"] if str(folder) not in word]
    ours["settings"].pop("output_path")
    return calm(results)
