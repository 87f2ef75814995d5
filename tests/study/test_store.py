"""The folder of a run keeps what it has, whatever happens while it is written."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.errors import OutputError
from kshot.study import store as module
from kshot.study.store import Store

RUN: dict[str, Any] = {"identity": "abc", "facts": {"model": "m", "tasks": {"t": {"hash": "h"}}}}


def _fill(folder: Path, cells: int, begin: int = 0) -> None:
    with Store(folder, RUN) as store:
        for i in range(begin, cells):
            store.append({"id": f"c{i}", "text": "é\n\ud800"}, [{"cell": f"c{i}", "n": j} for j in range(i % 3)])


def test_nothing_is_written_before_the_first_record(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with Store(folder, RUN):
        assert not (tmp_path / "a").exists()


def test_records_name_the_bytes_of_their_samples(tmp_path: Path) -> None:
    _fill(tmp_path, 4)
    data = (tmp_path / "samples.jsonl").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_bytes().splitlines()]
    assert [line["id"] for line in lines] == ["c0", "c1", "c2", "c3"]
    assert lines[0]["samples"] is None
    assert lines[0]["text"] == "é\n\ud800"
    for i in (1, 2):
        begin, end = lines[i]["samples"]
        assert [json.loads(line)["cell"] for line in data[begin:end].splitlines()] == [f"c{i}"] * i
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == RUN


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_the_bytes_a_kill_leaves_the_rest_is_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = tmp_path_factory.mktemp("whole")
    _fill(whole, 6)
    wanted = {name: (whole / name).read_bytes() for name in ("records.jsonl", "samples.jsonl")}
    torn = tmp_path_factory.mktemp("torn")
    # A kill leaves a beginning of the records, and samples at least as far as the last whole record names.
    records = wanted["records.jsonl"][: data.draw(st.integers(0, len(wanted["records.jsonl"])), label="records")]
    named = [json.loads(line)["samples"] for line in records.split(b"\n")[:-1]]
    least = max((bounds[1] for bounds in named if bounds), default=0)
    samples = wanted["samples.jsonl"][: data.draw(st.integers(least, len(wanted["samples.jsonl"])), label="samples")]
    (torn / "run.json").write_bytes((whole / "run.json").read_bytes())
    (torn / "records.jsonl").write_bytes(records)
    (torn / "samples.jsonl").write_bytes(samples)
    with Store(torn, RUN) as store:
        held = len(store.lines)
    assert held == len(named)
    _fill(torn, 6, begin=held)
    assert {name: (torn / name).read_bytes() for name in wanted} == wanted


def test_another_start_speaks_for_itself_and_keeps_to_the_first(tmp_path: Path) -> None:
    first = {
        **RUN,
        "date": 1.0,
        "packing": [64, 16],
        "argv": ["kshot", "run", "a"],
        "settings": {"save": True},
        "notes": ["old"],
    }
    with Store(tmp_path, first) as store:
        store.append({"id": "c0"}, [])
    own = {"argv": ["kshot", "run", "a", "--no-save"], "settings": {"save": False}, "notes": []}
    with Store(tmp_path, {**first, "date": 2.0, "packing": [1, 1], **own}) as store:
        assert store.run == {**first, **own}
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == first


def test_records_whose_samples_were_lost_are_asked_again(tmp_path: Path) -> None:
    _fill(tmp_path, 6)
    os.truncate(tmp_path / "samples.jsonl", 5)
    with Store(tmp_path, RUN) as store:
        assert [line["id"] for line in store.lines] == ["c0"]
    assert (tmp_path / "samples.jsonl").read_bytes() == b""


def test_a_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    _fill(tmp_path, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = {"identity": "xyz", "facts": {"model": "m", "tasks": {"t": {"hash": "k"}}}}
    with pytest.raises(OutputError) as caught:
        Store(tmp_path, other)
    assert str(caught.value) == (
        f"'{tmp_path}' belongs to a different run (tasks t hash: h there, k here); "
        "give another --output-path, or the same question as before"
    )
    with pytest.raises(OutputError, match="different run \\(other methods, shots, seeds or orders\\)"):
        Store(tmp_path, {**RUN, "identity": "xyz"})
    facts = {"model": "m", "tasks": {"t": {"hash": "h", "description": ""}}}
    with pytest.raises(OutputError, match="different run \\(tasks t description: nothing there, '' here\\)"):
        Store(tmp_path, {"identity": "xyz", "facts": facts})
    with pytest.raises(OutputError, match="different run \\(tasks: t there, a, b here\\)"):
        Store(tmp_path, {"identity": "xyz", "facts": {"model": "n", "tasks": {"a": {}, "b": {}}}})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_of_another_command_names_both(tmp_path: Path) -> None:
    with Store(tmp_path, {**RUN, "argv": ["kshot", "run", "t"]}) as store:
        store.append({"id": "c0"}, [])
    with pytest.raises(OutputError, match="different run \\(kshot run there, kshot explain here\\)"):
        Store(tmp_path, {"identity": "x", "facts": {"size": "smoke"}, "argv": ["kshot", "explain", "t"]})


def test_what_is_no_run_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(OutputError, match="holds records and no run\\.json that says whose"):
        Store(tmp_path, RUN)
    for text in ("[]", "null", "7", '{"argv": ["kshot"]}', '{"argv": {}, "facts": []}', "{"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(OutputError, match="cannot be read as a run of kshot"):
            Store(tmp_path, RUN)
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    (tmp_path / "records.jsonl").write_text('{"id": 1, "samples": null}\nnonsense\n{"id": 2, "samples": null}\n')
    with pytest.raises(OutputError, match="line 2 is not JSON"):
        Store(tmp_path, RUN)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    _fill(tmp_path, 1)
    with Store(tmp_path, RUN), pytest.raises(OutputError) as caught:
        Store(tmp_path, RUN)
    assert (
        str(caught.value) == f"another run is writing to '{tmp_path}'; wait for its end or give another --output-path"
    )
    with Store(tmp_path, RUN) as store:
        assert len(store.lines) == 1


def test_a_file_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OutputError) as caught:
        Store(file, RUN)
    assert str(caught.value) == f"the output folder '{file}' is a file; give --output-path a folder"
    with pytest.raises(OutputError) as caught:
        Store(file / "below", RUN)
    assert str(caught.value) == f"the output folder '{file / 'below'}' lies in '{file}', which is a file"
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The administrator may write anywhere, so the refusal is put in their mouth.
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with pytest.raises(OutputError) as caught:
        Store(tmp_path / "out", RUN)
    assert (
        str(caught.value)
        == f"the output folder '{tmp_path / 'out'}' cannot be written ('{tmp_path}' is read-only for you)"
    )


@pytest.mark.parametrize("spared", [0, 1, 2])
def test_a_full_disk_loses_nothing(spared: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full in the middle of the samples, of the record, or of the results: the finished cells are there afterwards."""
    _fill(tmp_path, 2)
    write, calls = module._write, []

    def full(handle: int, data: bytes) -> None:
        calls.append(data)
        if len(calls) > spared:
            write(handle, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(handle, data)

    def last_cell(store: Store) -> None:
        store.append({"id": "c2"}, [{"cell": "c2", "n": 0}, {"cell": "c2", "n": 1}])
        store.write("results.json", {"a": 1})

    with Store(tmp_path, RUN) as store:
        monkeypatch.setattr(module, "_write", full)
        with pytest.raises(OutputError) as caught:
            last_cell(store)
    cells = 3 if spared == 2 else 2
    assert str(caught.value) == (
        f"the disk of '{tmp_path}' is full; the {cells} finished cells are safe: "
        "make room, and the same command goes on from there"
    )
    monkeypatch.setattr(module, "_write", write)
    with Store(tmp_path, RUN) as store:
        assert len(store.lines) == cells
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.jsonl", "run.json", "samples.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_disk_that_really_is_full(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").symlink_to("/dev/full")
    with Store(tmp_path, RUN) as store, pytest.raises(OutputError, match="is full; the 0 finished cells are safe"):
        store.append({"id": "c"}, [{"cell": "c"}])


def test_not_a_number_never_reaches_a_record(tmp_path: Path) -> None:
    with Store(tmp_path, RUN) as store, pytest.raises(ValueError, match="not JSON compliant"):
        store.append({"id": "c", "accuracy": float("nan")}, [])
