"""The SHA-256 of large files, computed once: known again by where a file lies, its size and when it was last changed."""

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kshot.errors import OutputError
from kshot.packages import cache_dir

# A file changed again within the grain of the file system's clock would not show it: so fresh a one is not remembered.
_SETTLED_NS = 2_000_000_000


def file_digest(path: Path) -> str:
    """The SHA-256 of all of a file, in hexadecimal; of one that is as it was at the last call, from the cache.

    The cache only saves time: what is missing, damaged or cannot be written there is computed again. OSError where the
    file cannot be read.
    """
    seen = path.stat()
    known = {"size": seen.st_size, "changed": [seen.st_mtime_ns, seen.st_ctime_ns]}
    entry = _entry(path.resolve())
    if entry is not None and (found := _kept(entry, known)):
        return found
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if entry is not None and time.time_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns) > _SETTLED_NS:
        _keep(entry, {**known, "sha256": digest})
    return digest


def _entry(path: Path) -> Path | None:
    """Where what is known of a file is kept; None where there is no cache to write to."""
    try:
        return cache_dir() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    except OutputError:
        return None


def _kept(entry: Path, known: dict[str, Any]) -> str | None:
    try:
        found = json.loads(entry.read_text(encoding="utf-8"))
        digest = found.pop("sha256")
        right = found == known and len(bytes.fromhex(digest)) == hashlib.sha256().digest_size
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return digest if right else None


def _keep(entry: Path, facts: dict[str, Any]) -> None:
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        # whole or not at all: several processes may look at one model
        handle, fresh = tempfile.mkstemp(prefix=entry.name, dir=entry.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(facts, file)
        os.replace(fresh, entry)
