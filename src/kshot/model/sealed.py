"""A folder that is written whole or not at all, and whose files are known by their size and content."""

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from kshot.errors import DataError, OutputError
from kshot.packages import sweep

# Larger files are known by their size, and by what safetensors looks at: hashing them would take longer than loading.
_HASHED = 64 << 20


def seal(path: Path) -> dict[str, Any]:
    """The size of a file in bytes, and the SHA-256 of one up to 64 MiB."""
    size = path.stat().st_size
    return {"bytes": size} | ({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if size <= _HASHED else {})


def intact(folder: Path, name: str, known: Mapping[str, Any]) -> None:
    """DataError unless the file is there as it was sealed."""
    path = folder / name
    if not path.is_file():
        raise DataError(f"{folder} is damaged: {name} is missing; save it again")
    if (size := path.stat().st_size) != known["bytes"]:
        raise DataError(f"{folder} is damaged: {name} has {size} bytes of {known['bytes']}; save it again")
    if seal(path) != known:
        raise DataError(f"{folder} is damaged: {name} is not what was saved; save it again")


@contextmanager
def replaced(directory: Path, ours: Collection[str], mark: str) -> Iterator[Path]:
    """A new folder beside ``directory`` that takes its name, and the place of its like there, when the block ends well.

    Its like holds the file ``mark`` and nothing that is not among ``ours``; OutputError where something else is in the
    way, or the disk is full or cannot be written. Nothing half-made ever has the name.
    """
    target = Path(os.path.realpath(directory.expanduser()))
    put_back(target)
    _refuse_strangers(directory, target, ours, mark)
    fresh: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, f".{target.name}")
        for left in _moved_away(target) if target.is_dir() else ():
            shutil.rmtree(left, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
        yield fresh
        for path in fresh.rglob("*"):
            # safetensors writes files for their owner alone
            path.chmod(0o755 if path.is_dir() else 0o644)
            # A loss of power must not find the new name on files that are not there.
            sync(path)
        fresh.chmod(0o755)
        sync(fresh)
        _take_place(fresh, target)
        sync(target.parent)
    except Exception as error:
        # tokenizers tells of a full disk with a plain Exception
        if not isinstance(error, OSError | SafetensorError) and type(error) is not Exception:
            raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputError(f"cannot write {directory}: {why}; nothing was changed") from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def sync(path: Path) -> None:
    """What a file or a folder holds survives a loss of power from here on; folders where the system has such a thing."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_place(fresh: Path, target: Path) -> None:
    if not target.is_dir():
        os.replace(fresh, target)
        return
    old = fresh.with_name(fresh.name.replace(".partial-", ".old-"))
    try:
        os.replace(target, old)
        os.replace(fresh, target)
    except BaseException:
        # Whatever stops it between the two, an interrupt too: the old one has its name again.
        put_back(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def put_back(target: Path) -> None:
    """Gives a folder its name back that was moved out of the way by a save that was killed before it could put another
    in its place; nothing where there is one of that name, or none was moved."""
    with suppress(OSError):
        if not target.exists() and (found := _moved_away(target)):
            os.replace(max(found, key=lambda path: path.stat().st_mtime_ns), target)


def _moved_away(target: Path) -> list[Path]:
    """Folders that had this name once."""
    return list(target.parent.glob(f".{glob.escape(target.name)}.old-*"))


def _refuse_strangers(directory: Path, target: Path, ours: Collection[str], mark: str) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(f"cannot save as {directory}: that is a file; name a new folder")
    names = {path.name for path in target.iterdir()} if target.is_dir() else set()
    strange = names - set(ours) if mark in names else names
    if strange:
        some = ", ".join(sorted(strange)[:3])
        raise OutputError(f"cannot save as {directory}: the folder holds something else ({some}); name a new one")
