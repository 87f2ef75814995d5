"""Cells in processes of their own: the same lines as in one, in the order of need, and nobody left behind."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from small import calm, films

from kshot.errors import KshotError, OutputError, UnknownName
from kshot.model.lm import LM
from kshot.study.explain_settings import make_explain_settings
from kshot.study.explaining import explain
from kshot.study.parts import Cell, Line, Say
from kshot.study.side_by_side import Room, answers, room_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cells are answered side by side on Linux")

CELLS = tuple(
    Cell(task="films", seed=seed, part=part, needs=needs)
    for seed in (0, 1)
    for part, needs in (("rates", ""), ("runs", "rates"), ("orders", ""))
)


def all_of(
    answer: Callable[[Cell, Say], Line], cells: tuple[Cell, ...] = CELLS, processes: int = 2
) -> tuple[list[tuple[Cell, Line]], list[str]]:
    told: list[str] = []
    found = list(answers(cells, answer, lambda cell, what: told.append(f"{cell.part} {what}"), Room(processes, 1)))
    return found, told


def nobody_left() -> bool:
    return not psutil.Process().children()


@pytest.mark.parametrize("processes", [2, 4])
def test_each_cell_is_answered_once_elsewhere_and_after_what_it_needs(processes: int) -> None:
    def answer(cell: Cell, say: Say) -> Line:
        say("half way")
        return {"process": os.getpid(), "threads": torch.get_num_threads(), "word": "味\ud800"}

    found, told = all_of(answer, processes=processes)
    order = [(cell.seed, cell.part) for cell, _ in found]
    assert sorted(order) == sorted((cell.seed, cell.part) for cell in CELLS)
    for seed in (0, 1):
        assert order.index((seed, "rates")) < order.index((seed, "runs"))
    own = [line["process"] for _, line in found]
    assert len({*own, os.getpid()}) == len(CELLS) + 1, "a process for each"
    assert {line["threads"] for _, line in found} == {1}
    assert {line["word"] for _, line in found} == {"味\ud800"}
    assert told.count("orders half way") == 2
    assert nobody_left()


def test_what_a_cell_needs_is_there_when_it_begins() -> None:
    held: dict[tuple[int, str], str] = {}

    def answer(cell: Cell, say: Say) -> Line:
        return {"said": cell.part, "before": held.get((cell.seed, cell.needs))}

    with closing(answers(CELLS, answer, lambda cell, what: None, Room(3, 1))) as found:
        for cell, line in found:
            held[cell.seed, cell.part] = line["said"]
            assert line["before"] == (cell.needs or None)


def test_many_threads_of_a_pass_do_not_wait_for_a_team_that_is_gone() -> None:
    table = torch.randn(600, 600)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # A team of threads in this process.
        (table @ table).exp().sum()
        found = list(
            answers(
                CELLS[:2],
                lambda cell, say: {"sum": float((table @ table).exp().clamp(max=1.0).sum())},
                lambda cell, what: None,
                Room(2, 2),
            )
        )
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OutputError("the disk is full"), OutputError),
        (UnknownName("task", "film", ["films"]), UnknownName),
        (ValueError("a fault"), RuntimeError),
    ],
)
def test_what_goes_wrong_in_a_process_is_raised_here(error: Exception, raised: type) -> None:
    def answer(cell: Cell, say: Say) -> Line:
        if cell.part == "orders":
            raise error
        time.sleep(0.2)
        return {}

    with pytest.raises(raised) as found:
        all_of(answer)
    assert str(error) in str(found.value)
    assert nobody_left()


def test_a_process_that_is_killed_is_said_with_its_cell() -> None:
    def answer(cell: Cell, say: Say) -> Line:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(KshotError, match=r"'films, seed 0: rates' was killed by signal 9.*OMP_NUM_THREADS=1"):
        all_of(answer, CELLS[:1])
    assert nobody_left()


def test_what_is_logged_there_is_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    def answer(cell: Cell, say: Say) -> Line:
        logging.getLogger("kshot").info("fetched %s", cell.part)
        return {}

    with caplog.at_level(logging.INFO, logger="kshot"):
        all_of(answer, CELLS[:1])
    assert "fetched rates" in caplog.messages


def test_left_early_it_leaves_nobody_behind() -> None:
    def answer(cell: Cell, say: Say) -> Line:
        time.sleep(0.05 if cell.part == "rates" else 60)
        return {}

    begun = time.perf_counter()
    with closing(answers(CELLS, answer, lambda cell, what: None, Room(3, 1))) as found:
        next(found)
    assert nobody_left()
    assert time.perf_counter() - begun < 30


def test_whoever_kills_the_run_kills_its_processes() -> None:
    code = (
        "import os, time\n"
        "from kshot.study.parts import Cell\n"
        "from kshot.study.side_by_side import Room, answers\n"
        "def answer(cell, say):\n"
        "    say(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "for _ in answers([Cell(task='t', seed=s, part='p') for s in (0, 1)], answer,\n"
        "                 lambda cell, what: print(what, flush=True), Room(2, 1)): pass\n"
    )
    own = []
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        while len(own) < 2:
            if (line := run.stdout.readline().strip()).isdigit():
                own.append(int(line))
        run.kill()
    for _ in range(100):
        if not any(psutil.pid_exists(pid) for pid in own):
            return
        time.sleep(0.1)
    pytest.fail("processes of a run that was killed go on")


def test_room_is_the_same_whenever_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert room_for(1000, "cpu", CELLS) == Room(3, 2), "one more than tasks and seeds"
    assert room_for(1000, "cpu", CELLS[:1]) == Room(1, 8)
    assert room_for(1000, "cuda", CELLS) == Room(1, 8)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("All", (), {"total": 5 * 2**30})())
    assert room_for(1000, "cpu", CELLS) == Room(2, 4), "as many as fit"
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    assert room_for(1000, "cpu", CELLS) == Room(1, 1)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert room_for(1000, "cpu", CELLS) == Room(1, 8)


def test_a_run_in_processes_is_the_same_to_the_bit(
    tiny_lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    asked = make_explain_settings(
        num_fewshot=3, limit=4, learning_rate=0.01, parts=("rates", "runs", "implied", "orders")
    )

    def run(room: Room, out: Path) -> dict[str, Any]:
        monkeypatch.setattr("kshot.study.inquiry.room_for", lambda *given: room)
        own = replace(asked, output_path=str(out))
        return explain(own, model=tiny_lm, tasks=(films(20),)).results["kshot"]

    one, two = run(Room(1, 1), tmp_path / "one"), run(Room(2, 1), tmp_path / "two")
    assert calm(two["measures"]) == calm(one["measures"])
    assert calm(two["cells"]) == calm(one["cells"])
    lines = (tmp_path / "two" / "records.jsonl").read_text("utf-8").splitlines()
    # What is long begins first.
    assert {json.loads(line)["part"] for line in lines} == {"rates", "runs", "implied", "orders"}
