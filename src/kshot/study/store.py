"""The folder of a run: what is in it stays, whatever happens while it is written.

``run.json`` says what the folder is for. ``samples.jsonl`` and ``records.jsonl`` only grow: the samples of a cell
first, then its record, which names their bytes; both reach the disk before the next cell begins. Whatever a kill
leaves after the last whole record is cut off when the folder is opened again. Other files are written beside
themselves and then take their place.
"""

import errno
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kshot.errors import OutputError
from kshot.model.sealed import sync

try:
    import fcntl
except ImportError:  # Windows has no such lock: there a second run in one folder is not noticed
    fcntl = None  # type: ignore[assignment]

# What two starts in one folder may have otherwise.
_OF_A_START = ("argv", "settings", "notes")

RUN, RECORDS, SAMPLES, RESULTS = "run.json", "records.jsonl", "samples.jsonl", "results.json"


class Store:
    """The records of one run in ``directory``, those of an earlier start included.

    ``run`` is what the folder is for, a JSON value with ``identity`` and ``facts``; where the folder holds such a run
    already, ``run`` becomes the one it began with, with the command, settings and notes of this start.
    Nothing is written before the first record. OutputError where the folder belongs to another run, is in use, or cannot
    be written. To be closed; a context manager.
    """

    def __init__(self, directory: Path, run: Mapping[str, Any]) -> None:
        self.directory = directory
        self.run = dict(run)
        self.lines: list[dict[str, Any]] = []
        self._end = 0
        self._lock: int | None = None
        usable(directory)
        if directory.is_dir():
            self._begin()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def append(self, line: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Keep the record of a cell and its samples; returns the record as kept, with the bytes of its samples.

        When this returns they survive a kill and a loss of power. OutputError where they cannot be written.
        """
        try:
            if self._lock is None:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._begin()
            if not (self.directory / RUN).exists():
                self._replace(RUN, _pretty(self.run))
            data = b"".join(_line(sample) for sample in samples)
            begin, end = self._end, self._end + len(data)
            kept = {**line, "samples": [begin, end] if samples else None}
            if data:
                _append(self.directory / SAMPLES, data)
            _append(self.directory / RECORDS, _line(kept))
        except OSError as error:
            raise OutputError(_cannot(self.directory, error, len(self.lines))) from error
        self._end = end
        self.lines.append(kept)
        return kept

    def write(self, name: str, value: Any) -> Path:
        """A JSON file in the folder, whole or not at all."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._replace(name, _pretty(value))
        except OSError as error:
            raise OutputError(_cannot(self.directory, error, len(self.lines))) from error
        return self.directory / name

    def _begin(self) -> None:
        """Take hold of the folder and read what is in it."""
        try:
            self._lock = _locked(self.directory)
            self._check_owner()
            self._read()
            for left in self.directory.glob(".*.json.*.part"):
                left.unlink()
        except OSError as error:
            self.close()
            raise OutputError(_cannot(self.directory, error, len(self.lines))) from error
        except OutputError:
            self.close()
            raise

    def _check_owner(self) -> None:
        path = self.directory / RUN
        if not path.exists():
            if (self.directory / RECORDS).exists() or (self.directory / RESULTS).exists():
                raise OutputError(
                    f"{str(self.directory)!r} holds records and no {RUN} that says whose; give another --output-path"
                )
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            differing = _differing(found, self.run)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise OutputError(f"{str(path)!r} cannot be read as a run of kshot; give another --output-path") from error
        if differing:
            raise OutputError(
                f"{str(self.directory)!r} belongs to a different run ({differing}); "
                "give another --output-path, or the same question as before"
            )
        # What the folder holds is of the first start; what is told of it is of this one.
        self.run = {**found, **{name: self.run[name] for name in _OF_A_START if name in self.run}}

    def _read(self) -> None:
        """The whole records; after the last of them both files are cut off."""
        path, samples = self.directory / RECORDS, self.directory / SAMPLES
        data = path.read_bytes() if path.exists() else b""
        held = samples.stat().st_size if samples.exists() else 0
        whole = 0
        self.lines, self._end = [], 0
        for number, raw in enumerate(data.split(b"\n")[:-1], 1):
            try:
                line = json.loads(raw)
            except ValueError as error:
                raise OutputError(f"{str(path)!r}, line {number} is not JSON; give another --output-path") from error
            end = (line["samples"] or [0, self._end])[1]
            if end > held:
                break
            self.lines.append(line)
            self._end = end
            whole += len(raw) + 1
        for file, size in ((path, whole), (samples, self._end)):
            if file.exists() and file.stat().st_size > size:
                os.truncate(file, size)

    def _replace(self, name: str, text: str) -> None:
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=self.directory)
        try:
            try:
                _write(handle, text.encode("utf-8", "backslashreplace"))
                os.fsync(handle)
            finally:
                os.close(handle)
            # mkstemp makes files for their owner alone; records may be shared
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.directory / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        # A new name survives a loss of power only when its folder has reached the disk too.
        sync(self.directory)


class Memory:
    """The same promises without a folder: records of a run that nobody asked to keep."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self.directory: Path | None = None
        self.run = dict(run)
        self.lines: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def append(self, line: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Keep the record of a cell and its samples; returns the record as kept."""
        kept = {**line, "samples": None}
        self.lines.append(kept)
        self.samples += [dict(sample) for sample in samples]
        return kept

    def write(self, name: str, value: Any) -> None:
        """Nothing: there is no folder."""


def usable(directory: Path) -> None:
    """OutputError where the folder, or the nearest one above it that exists, plainly cannot be written."""
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"the output folder {str(directory)!r} is a file; give --output-path a folder")
    above = directory.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise OutputError(f"the output folder {str(directory)!r} lies in {str(above)!r}, which is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(
            f"the output folder {str(directory)!r} cannot be written ({str(above)!r} is read-only for you)"
        )


def _locked(directory: Path) -> int:
    """A handle that keeps other runs out of the folder as long as this process lives."""
    if fcntl is None:
        return os.open(os.devnull, os.O_RDONLY)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise OutputError(
            f"another run is writing to {str(directory)!r}; wait for its end or give another --output-path"
        ) from error
    return handle


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What tells two runs apart, in words, what is plainest first; nothing where they are the same."""
    words = [(run.get("argv") or ["kshot", ""])[1] for run in (before, now)]
    if all(words) and words[0] != words[1]:
        return f"kshot {words[0]} there, kshot {words[1]} here"
    of = [list(run["facts"].get("tasks") or ()) for run in (before, now)]
    if sorted(of[0]) != sorted(of[1]):
        return f"tasks: {', '.join(of[0]) or 'none'} there, {', '.join(of[1]) or 'none'} here"
    found, asked = _flat(before["facts"]), _flat(now["facts"])
    names = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
    if not names:
        return "" if before["identity"] == now["identity"] else "other methods, shots, seeds or orders"
    short = [f"{n}: {_shown(found.get(n))} there, {_shown(asked.get(n))} here" for n in names[:3]]
    return "; ".join(short) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _flat(facts: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _flat(value, f"{before}{name} ") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    if text != text.strip() or not text:
        # quoted, so that it is seen
        text = repr(text)
    return text if len(text) <= 20 else text[:8] + "..."


def _cannot(directory: Path, error: OSError, cells: int) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk of {str(directory)!r} is full; the {cells} finished cells are safe: "
            "make room, and the same command goes on from there"
        )
    return f"cannot write to {str(directory)!r} ({error.strerror or error}); give another --output-path"


def _append(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    try:
        _write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _line(value: Mapping[str, Any]) -> bytes:
    # Half surrogates become escapes, which JSON reads back as what they were.
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
