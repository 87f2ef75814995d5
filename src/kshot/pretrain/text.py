"""Text to grow language models on: documents of files, and which of them are held out."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from kshot.errors import DataError
from kshot.seeds import digest

SUFFIXES = (".txt", ".jsonl", ".parquet", ".txt.gz", ".jsonl.gz")
END = "<|endoftext|>"
"""Between two documents: a line of its own in a file of plain text, a token where texts are tokens."""

# A document is held out when its hash falls into this share.
_HELD_OUT = 0.05
_FIELD = "text"
_HALF = re.compile(r"[\ud800-\udfff]")
# Files of a folder that is parted already: train.txt, valid.2.jsonl.gz, test-00000-of-00002.parquet.
_PART = re.compile(r"(train|valid|validation|dev|test)(?:[-_.]?\d.*)?")


def documents(path: str | Path) -> Iterator[str]:
    """The documents of a file one after another, none of them empty; those of a folder, file by file in order of names.

    A file of plain text is one document, or several with END on lines of their own between them; JSON lines and
    parquet have one a row, in the field ``text``. DataError, with the place, for what cannot be read.
    """
    path = Path(path).expanduser()
    files = _files(path)
    for file in files:
        for document in _documents(file):
            if document.strip():
                yield document


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """A folder that is parted already: files to learn from, files held out, and files that are not read."""

    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    unread: tuple[Path, ...] = ()


def parted(path: Path) -> Parted | None:
    """The files of a folder with files called train, and valid (validation, dev) or else test; each may be in shards.

    None where there is no such folder, or it lacks one of both. Of valid and test the first is held out, and the other is
    not read: whoever has both keeps the test for later.
    """
    if not path.is_dir():
        return None
    by_part: dict[str, list[Path]] = {}
    for file in sorted(own for own in path.iterdir() if own.name.endswith(SUFFIXES)):
        by_part.setdefault(_part_of(file), []).append(file)
    held = next((name for name in ("valid", "validation", "dev", "test") if name in by_part), None)
    if "train" not in by_part or held is None:
        return None
    unread = [file for name, files in by_part.items() if name not in ("train", held) for file in files]
    return Parted(train=tuple(by_part["train"]), valid=tuple(by_part[held]), unread=tuple(unread))


def split(found: Sequence[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Documents to learn from and documents held out, a twentieth by a hash of each, so that their order says nothing.

    A single document is cut where a paragraph ends, else a line, so that a twentieth stands after it. DataError where
    there is nothing to part.
    """
    if not found:
        raise DataError("the text is empty; what works is a file with words in it")
    if len(found) == 1:
        (text,) = found
        at = _cut(text, round(len(text) * (1 - _HELD_OUT)))
        parts = [text[:at]], [text[at:]]
    else:
        draws = [digest(seed, "held out", text) / 2**64 for text in found]
        least = min(range(len(found)), key=draws.__getitem__)
        out = {i for i, draw in enumerate(draws) if draw < _HELD_OUT} or {least}
        parts = [t for i, t in enumerate(found) if i not in out], [t for i, t in enumerate(found) if i in out]
    if not all(any(text.strip() for text in part) for part in parts):
        raise DataError(
            f"{len(found)} document{'s' * (len(found) > 1)} of {sum(map(len, found))} characters: too little to hold any "
            "of it out; what works is a longer text, or files of your own to be tested on"
        )
    return parts


def _part_of(file: Path) -> str:
    """The part of a text that a file is called after; empty for any other name."""
    suffix = max((own for own in SUFFIXES if file.name.endswith(own)), key=len)
    found = _PART.fullmatch(file.name.removesuffix(suffix))
    return found[1] if found else ""


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.name.endswith(SUFFIXES)]
        if not files:
            raise DataError(f"folder {str(path)!r} has no text; what works is {', '.join(SUFFIXES)}")
        return files
    if not path.is_file():
        raise DataError(f"there is no text {str(path)!r}; what works is a file, or a folder of {', '.join(SUFFIXES)}")
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{str(path)!r} is of no kind that is read as text; what works is {', '.join(SUFFIXES)}")
    return [path]


def _documents(file: Path) -> Iterator[str]:
    try:
        if file.suffix == ".parquet":
            yield from _of_parquet(file)
            return
        with _opened(file) as stream:
            rows = _of_lines(stream, file) if ".jsonl" in file.suffixes[-2:] else _of_plain(stream)
            yield from rows
    except UnicodeDecodeError as error:
        raise DataError(
            f"{str(file)!r} is not UTF-8 (byte 0x{error.object[error.start]:02x}); what works is text in UTF-8, as "
            "iconv -t utf-8 writes it"
        ) from error
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{str(file)!r} cannot be read ({reason})") from error


def _opened(file: Path) -> TextIOWrapper:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8")
    return file.open(encoding="utf-8")


def _of_plain(stream: TextIOWrapper) -> Iterator[str]:
    lines: list[str] = []
    for line in stream:
        if line.strip() == END:
            yield "".join(lines)
            lines = []
        else:
            lines.append(line)
    yield "".join(lines)


def _of_lines(stream: TextIOWrapper, file: Path) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{str(file)!r}, line {number}: no JSON ({error.msg})") from error
        if not isinstance(row, dict) or not isinstance(row.get(_FIELD), str):
            raise DataError(f"{str(file)!r}, line {number}: needed is an object with {_FIELD!r} as a string")
        # JSON can spell half of a character, which no tokenizer reads.
        if (half := _HALF.search(row[_FIELD])) is not None:
            raise DataError(
                f"{str(file)!r}, line {number}: \\u{ord(half[0]):04x} is half of a character; what works is text in UTF-8"
            )
        yield row[_FIELD]


def _of_parquet(file: Path) -> Iterator[str]:
    table = pyarrow.parquet.ParquetFile(file)
    names = table.schema_arrow.names
    if _FIELD not in names:
        raise DataError(f"{str(file)!r} has no column {_FIELD!r}; found {', '.join(names) or 'none'}")
    for batch in table.iter_batches(columns=[_FIELD]):
        for value in batch.column(0).to_pylist():
            if not isinstance(value, str):
                raise DataError(f"{str(file)!r}: column {_FIELD!r} holds {value!r}, which is no text")
            yield value


def _cut(text: str, near: int) -> int:
    """The end of the last paragraph before, else of the last line, else just there."""
    for mark in ("\n\n", "\n"):
        at = text.rfind(mark, len(text) // 2, near)
        if at >= 0:
            return at + len(mark)
    return near
