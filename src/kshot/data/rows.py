"""The rows of a ``.jsonl``, ``.csv`` or ``.parquet`` file, each with the words that say where it stands."""

import csv
import io
import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from kshot.errors import DataError

SUFFIXES = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """A row with the words that say where it stands in its file."""

    where: str
    fields: dict[str, Any]


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file, in its order; DataError that names the line (parquet: the row) where it cannot be read."""
    return [row.fields for row in rows_of(Path(path))]


def rows_of(path: Path) -> list[Row]:
    """The same, each with where it stands."""
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: cannot read a file that ends in {path.suffix!r}; what works is {', '.join(SUFFIXES)}")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    rows = readers[path.suffix.lower()](path, data)
    if not rows:
        raise DataError(f"{path}: holds no rows; one line for each example is needed")
    return rows


def missing(path: Path) -> DataError:
    """What to say of a file that is not there."""
    return DataError(f"{path}: there is no such file{nearest(path)}")


def nearest(path: Path) -> str:
    """A hint for a missing file: the names in its folder that are nearly the same."""
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    names = [other.name for other in path.parent.iterdir()]
    near = get_close_matches(path.name, names, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def decoded(path: Path, data: bytes) -> str:
    """The bytes of a file as UTF-8 text, with or without a byte order mark; DataError with the first wrong byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; save it as UTF-8"
        ) from error


def _jsonl(path: Path, data: bytes) -> list[Row]:
    rows = []
    # not splitlines: JSON text may hold line separators of Unicode
    for number, line in enumerate(decoded(path, data).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise DataError(f"{path}, line {number}: is not JSON ({reason}); one object a line is needed") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: holds a JSON {type(value).__name__}; an object is needed")
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{path}, line {number}: holds half a character (a lone surrogate, \\ud800 to \\udfff); write it whole"
            ) from error
        rows.append(Row(f"line {number}", value))
    return rows


def _csv(path: Path, data: bytes) -> list[Row]:
    text = decoded(path, data)
    # Python refuses cells above 131,072 characters unless told otherwise; no cell is longer than the file.
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    header: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not header:
                header = [name.strip() for name in cells]
                if len(set(header)) < len(header):
                    raise DataError(f"{path}: its first line names a field twice ({', '.join(header)})")
            elif len(cells) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: has {len(cells)} cells where the first line names {len(header)} "
                    f"({', '.join(header)}); put text with commas in quotes"
                )
            else:
                rows.append(Row(f"line {reader.line_num}", dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error
    finally:
        csv.field_size_limit(before)
    return rows


def _parquet(path: Path, data: bytes) -> list[Row]:
    if not data:
        return []
    try:
        table = pyarrow.parquet.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is not a readable parquet file ({str(error).splitlines()[0]})") from error
    return [Row(f"row {number}", fields) for number, fields in enumerate(plain_rows(table, str(path)), start=1)]


def plain_rows(table: pa.Table, where: str) -> list[dict[str, Any]]:
    """The rows of an Arrow table, text that is stored as plain bytes as text; DataError, begun with ``where``, where it is
    not UTF-8."""
    rows = table.to_pylist()
    for number, row in enumerate(rows, start=1):
        for name, value in row.items():
            row[name] = _as_text(value, f"{where}, row {number}: {name}")
    return rows


def _as_text(value: Any, where: str) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where} holds bytes that are not UTF-8 text; save the column as text or leave it out"
            ) from error
    if isinstance(value, dict):
        return {name: _as_text(inner, where) for name, inner in value.items()}
    return [_as_text(inner, where) for inner in value] if isinstance(value, list) else value
