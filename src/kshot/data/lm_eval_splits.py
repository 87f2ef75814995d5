"""The rows behind an lm-eval task: local files read as the library ``datasets`` reads them, or that library itself."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet

from kshot.data.hub import load_hub
from kshot.data.rows import decoded, nearest, plain_rows, read_rows
from kshot.errors import DataError

FORMATS = ("json", "csv", "parquet")
DATASET_KWARGS = ("data_files", "data_dir", "revision", "trust_remote_code")

Rows = list[dict[str, Any]]


def load_splits(config: Mapping[str, Any], path: Path) -> dict[str, Rows]:
    """The rows of every split that the data have, by its name.

    Relative ``data_files`` start at ``dataset_kwargs.data_dir``, else at the working directory, as in lm-eval; where
    nothing is there, at the folder of the YAML file. Types of columns are inferred per file and cast to those of the
    first, as ``datasets`` does. ``trust_remote_code`` has no effect: no code of a data set is ever run.
    """
    kwargs = {name: value for name, value in (config.get("dataset_kwargs") or {}).items() if value is not None}
    kwargs.pop("trust_remote_code", None)
    kind = config.get("dataset_path")
    if not isinstance(kind, str):
        raise DataError(
            f"{path}: dataset_path is {kind!r}; what works is {', '.join(FORMATS)} or a data set of the hub"
        )
    if kind not in FORMATS:
        name = config.get("dataset_name")
        return load_hub(kind, str(name) if name is not None else None, kwargs, f"{path}: dataset_path {kind!r}")
    given = kwargs.get("data_files")
    if not given:
        raise DataError(f"{path}: dataset_path is {kind}, and dataset_kwargs.data_files does not say which files")
    if "revision" in kwargs:
        raise DataError(f"{path}: the field dataset_kwargs.revision is not supported for local files; leave it out")
    base = Path(str(kwargs.get("data_dir", "")))
    tables: dict[str, pa.Table] = {}
    first: pa.Schema | None = None
    for split, names in (given if isinstance(given, dict) else {"train": given}).items():
        parts = []
        for name in names if isinstance(names, list) else [names]:
            table = _table(_found(str(name), base, path), kind)
            first = first or table.schema
            parts.append(_cast(table, first, f"{path}: {name}"))
        tables[str(split)] = pa.concat_tables(parts)
    return {split: plain_rows(table, f"{path}: {split}") for split, table in tables.items()}


def _found(name: str, base: Path, path: Path) -> Path:
    if "://" in name or any(letter in name for letter in "*?["):
        raise DataError(f"{path}: data_files names {name!r}; what works are local files, each by its name")
    for place in (base / name, path.parent / base / name):
        if place.is_file():
            return place
    raise DataError(f"{path}: data_files names {name!r}, and there is no such file{nearest(base / name)}")


def _table(path: Path, kind: str) -> pa.Table:
    try:
        if kind == "parquet":
            return pyarrow.parquet.read_table(path)
        if kind == "csv":
            decoded(path, path.read_bytes())
            # 40 MB of memory, and only this one format needs it
            import pandas as pd

            return pa.Table.from_pandas(pd.read_csv(path), preserve_index=False)
        return _json(path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as {kind} ({str(error).splitlines()[0]})") from error


def _json(path: Path) -> pa.Table:
    text = decoded(path, path.read_bytes())
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    elif path.suffix == ".jsonl":
        rows = read_rows(path)
    else:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: holds no list of JSON objects; one object a line is needed")
    # Arrow's reader decides the types of columns, as it does inside `datasets`
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    return pyarrow.json.read_json(io.BytesIO(data), pyarrow.json.ReadOptions(block_size=len(data) + 1))


def _cast(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    if more := [name for name in table.column_names if name not in schema.names]:
        raise DataError(f"{where}: has the column {more[0]!r}, which the first file lacks ({', '.join(schema.names)})")
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataError(
            f"{where}: has other types of columns than the first file ({str(error).splitlines()[0]})"
        ) from error
