"""Lines in, answers out: queries from a stream or a file, answered as they arrive."""

import codecs
import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kshot.errors import DataError, KshotError, ModelError
from kshot.model.adapted import Adapted, load_adapted
from kshot.model.artefact import facts_of
from kshot.model.load import Device, DType, load_model
from kshot.model.serve import Prediction, Query, answer_together
from kshot.model.taught import Taught

# How many queries share a packed pass: more gain little speed, and the first answers wait for them.
TOGETHER = 64

Format = Literal["lines", "jsonl", "csv"]


@dataclass(frozen=True, slots=True)
class Line:
    """A query with the number of its line, or what is wrong with that line."""

    number: int
    query: Query | KshotError


@contextmanager
def opened(file: str) -> Iterator[tuple[io.BufferedIOBase, Format]]:
    """A file, or standard input for ``-``, and its format: ``jsonl`` and ``csv`` by suffix.

    Anything else is lines of text, among which JSON objects may stand. DataError where it cannot be read.
    """
    if file == "-":
        yield sys.stdin.buffer, "lines"  # type: ignore[misc]
        return
    path, known = Path(file).expanduser(), {".jsonl": "jsonl", ".csv": "csv"}
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{file!r} cannot be read: {error.strerror}") from error
    with stream:
        yield stream, known.get(path.suffix.lower(), "lines")  # type: ignore[misc]


def served(directory: str, model: str | None, *, dtype: DType, device: Device) -> Adapted:
    """An artefact with its model: ``model``, or the one that it names. KshotError where either cannot be loaded."""
    facts = facts_of(directory)
    if facts is None:
        raise DataError(
            f"{directory} is an adapter of PEFT without kshot.json, so it does not say how its task is written; open it "
            "with kshot.load_adapted(lm, folder, template=..., labels=...) and save that"
        )
    try:
        name = model or str(facts["model"]["name"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{directory}: kshot.json is damaged: it names no model") from error
    try:
        lm = load_model(name, dtype=dtype, device=device)
    except KshotError as error:
        if model is not None:
            raise
        raise ModelError(f"{directory} was taught to {name!r}: {error}; --model says where that is") from error
    return load_adapted(lm, directory)


def answer_stream(taught: Taught, stream: io.BufferedIOBase, form: Format) -> Iterator[list[dict[str, Any]]]:
    """The records of a stream, lot by lot, as its lines arrive."""
    for lot in queries(stream, form):
        yield answers(taught, lot)


def queries(stream: io.BufferedIOBase, form: Format) -> Iterator[list[Line]]:
    """The queries of a stream, in lots of at most ``TOGETHER``: what has arrived so far, without waiting for more.

    Lines with nothing but white space are left out. A CSV file is read as a whole, for its cells may hold line breaks.
    """
    if form == "csv":
        rows = list(_csv_rows(stream.read()))
        yield from _lots(rows)
        return
    number, rest = 0, b""
    while block := stream.read1(1 << 16):
        *whole, rest = (rest + block).split(b"\n")
        yield from _lots([_line(number + i, line, form) for i, line in enumerate(whole, 1)])
        number += len(whole)
    yield from _lots([_line(number + 1, rest, form)])


def _lots(lines: Iterable[Line | None]) -> Iterator[list[Line]]:
    kept = [line for line in lines if line is not None]
    for begin in range(0, len(kept), TOGETHER):
        yield kept[begin : begin + TOGETHER]


def answers(taught: Taught, lot: list[Line]) -> list[dict[str, Any]]:
    """A record for each line: ``line`` (its number, from 1), ``id`` where it has one, and ``label``, ``probability`` and
    ``logprobs`` (nats), or ``error`` with what is wrong with it."""
    asked = [line.query for line in lot if not isinstance(line.query, KshotError)]
    found = iter(answer_together([(taught, asked)])[0])
    records = []
    for line in lot:
        record: dict[str, Any] = {"line": line.number}
        if isinstance(line.query, dict) and "id" in line.query:
            record["id"] = line.query["id"]
        one = line.query if isinstance(line.query, KshotError) else next(found)
        records.append(record | (_said(one) if isinstance(one, Prediction) else {"error": " ".join(str(one).split())}))
    return records


def _said(one: Prediction) -> dict[str, Any]:
    # JSON knows no infinity
    logprobs = {name: value if math.isfinite(value) else None for name, value in one.logprobs.items()}
    return {"label": one.label, "probability": one.probability, "logprobs": logprobs}


def _line(number: int, data: bytes, form: Format) -> Line | None:
    if number == 1:
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        return Line(number, DataError(f"is not UTF-8: byte {data[error.start]:#04x} at {error.start + 1}"))
    if not text.strip():
        return None
    if form == "lines" and not text.lstrip().startswith("{"):
        return Line(number, text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Line(number, text if form == "lines" else DataError(f"is not JSON: {error}"))
    if isinstance(found, dict):
        return Line(number, found)
    return Line(number, text if form == "lines" else DataError("is JSON and no object; give {field: value}"))


def _csv_rows(data: bytes) -> Iterator[Line]:
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"the CSV file is not UTF-8: byte {data[error.start]:#04x} at {error.start + 1}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = cells
            elif len(cells) != len(header):
                yield Line(reader.line_num, DataError(f"has {len(cells)} cells, and the header names {len(header)}"))
            else:
                yield Line(reader.line_num, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of the CSV file: {error}") from error
