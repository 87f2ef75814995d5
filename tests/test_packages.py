"""Wheels: fetched once, checked, unpacked whole or not at all, never run."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kshot import packages
from kshot.errors import KshotError, OutputError
from kshot.packages import Wheel, built_once, cache_dir, joined, pip_download, wheel_file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("thing/__init__.py", "raise SystemExit('was run')")
        file.writestr("thing/data/a.txt", "one")
        file.writestr("thing/data/deep/b.txt", "two")
    return path


def pinned(archive: Path, *members: str, sha256: str = "") -> Wheel:
    sha256 = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
    return Wheel(package="thing", version="1.0", sha256=sha256, members=members)


def copying(archive: Path, calls: list[str]):
    def download(requirement: str, folder: Path) -> None:
        calls.append(requirement)
        shutil.copy(archive, folder)

    return download


def test_a_member_is_fetched_once_and_then_comes_from_the_cache(archive):
    calls: list[str] = []
    wheel = pinned(archive, "thing/data/")
    for _ in range(2):
        folder = wheel_file(wheel, "thing/data/", download=copying(archive, calls))
        assert (folder / "a.txt").read_text() == "one"
        assert (folder / "deep" / "b.txt").read_text() == "two"
    assert wheel_file(wheel, "thing/data/a.txt", offline=True).read_text() == "one"
    assert calls == ["thing==1.0"]
    assert not list(cache_dir().rglob("__init__.py"))


def test_a_wrong_hash_names_both_and_keeps_nothing(archive, cache):
    with pytest.raises(KshotError, match=r"sha256 expected 0{64}, found [0-9a-f]{64}; nothing of it was kept"):
        wheel_file(pinned(archive, "thing/data/a.txt", sha256="0" * 64), "x", download=copying(archive, []))
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "thing/../../out.txt", "C:out.txt"])
def test_a_member_that_points_outside_is_refused(tmp_path, name):
    archive = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, "bad")
    with pytest.raises(KshotError, match="points out of its folder; nothing was unpacked"):
        wheel_file(pinned(archive, name), name, download=copying(archive, []))
    assert not list(tmp_path.rglob("out.txt"))


def test_a_missing_member_and_a_broken_archive_are_said(archive, tmp_path):
    with pytest.raises(KshotError, match=r"holds no 'thing/none\.txt'"):
        wheel_file(pinned(archive, "thing/none.txt"), "thing/none.txt", download=copying(archive, []))
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"not a zip")
    with pytest.raises(KshotError, match="not a readable wheel"):
        wheel_file(pinned(broken, "thing/a"), "thing/a", download=copying(broken, []))


def test_nothing_cached_and_no_network_is_one_line(archive, cache):
    with pytest.raises(KshotError, match=r"thing 1\.0 is not in the cache .* and the network is off") as error:
        wheel_file(pinned(archive, "thing/data/"), "thing/data/", offline=True)
    assert "\n" not in str(error.value)


def test_pip_that_finds_nothing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(KshotError, match=r"cannot fetch kshot-no-such==1 from the package registry") as error:
        pip_download("kshot-no-such==1", tmp_path)
    assert "\n" not in str(error.value)


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path, monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", f"{sys.executable}: No module named pip\n")

    monkeypatch.setattr(packages.subprocess, "run", run)
    with pytest.raises(KshotError, match=r"has none; install it with: .* -m ensurepip"):
        pip_download("thing==1.0", tmp_path)


def test_the_cache_must_be_a_folder_that_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot write to the cache .*set KSHOT_CACHE"):
        cache_dir()


def test_the_default_cache_is_the_platforms(tmp_path, monkeypatch):
    monkeypatch.delenv("KSHOT_CACHE")
    monkeypatch.setattr(packages.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    assert cache_dir() == tmp_path / "kshot"


def test_a_full_disk_is_ours_to_explain_and_leaves_nothing(tmp_path):
    def build():
        with built_once(tmp_path / "made") as fresh:
            (fresh / "half").write_text("x")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        build()
    assert list(tmp_path.iterdir()) == []


def test_pieces_are_one_file_in_their_order_while_the_block_lasts(tmp_path):
    pieces = [tmp_path / "b", tmp_path / "a"]
    for path, text in zip(pieces, ("first ", "second"), strict=True):
        path.write_text(text)
    with joined(pieces, "whole.gguf") as whole:
        assert (whole.name, whole.read_text()) == ("whole.gguf", "first second")
    assert not whole.exists()
    with joined(pieces[:1], "whole.gguf") as whole:
        assert whole == pieces[0]
    assert pieces[0].exists()


def test_pieces_that_do_not_fit_on_the_disk_are_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    pieces = [tmp_path / "a", tmp_path / "b"]
    for path in pieces:
        path.write_text("x")
    monkeypatch.setattr(packages.shutil, "copyfileobj", full)
    with (
        pytest.raises(OutputError, match=r"cannot write whole\.gguf .*No space left.*set TMPDIR"),
        joined(pieces, "whole.gguf"),
    ):
        pass


def test_of_two_builders_the_first_wins(tmp_path):
    target = tmp_path / "made"
    with built_once(target) as slow:
        (slow / "who").write_text("slow")
        with built_once(target) as quick:
            (quick / "who").write_text("quick")
    assert (target / "who").read_text() == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_kill_while_unpacking_leaves_no_half_folder(tmp_path):
    target = tmp_path / "made"
    code = (
        "import os, pathlib, sys\n"
        "from kshot.packages import built_once\n"
        "with built_once(pathlib.Path(sys.argv[1])) as fresh:\n"
        "    (fresh / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == -9
    assert not target.exists()
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    with built_once(target) as fresh:
        (fresh / "whole").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "whole"]
