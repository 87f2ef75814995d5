"""What was traced of every query, kept as files for who wants to measure something else."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from kshot.errors import OutputError
from kshot.study.three_runs import POSITIONS, RUNS, Seen

Keep = Callable[[int, tuple[Seen, ...]], None]
"""Gets a few queries at a time, with the number of those before them."""


def keep_arrays(folder: Path, queries: Sequence[str], before: int, seen: tuple[Seen, ...]) -> None:
    """Write a few queries as ``folder``/BEFORE.safetensors, float64; their ids, with line breaks, are in its metadata.

    For each of POSITIONS: ``outputs.RUN`` (q, l, e), ``last_queries`` (q, l, h, d), and of each query i
    ``to_demonstrations.i`` (l, h, p) and ``maps.RUN.i`` (l, h, t). OutputError where they cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for position, own in zip(POSITIONS, seen, strict=True):
        at = position.replace(" ", "_")
        arrays[f"{at}.last_queries"] = np.stack(own.last_queries)
        arrays |= {f"{at}.to_demonstrations.{i}": one for i, one in enumerate(own.to_demonstrations)}
        for run in RUNS:
            arrays[f"{at}.outputs.{run}"] = own.outputs[run]
            arrays |= {f"{at}.maps.{run}.{i}": one for i, one in enumerate(own.maps[run])}
    path = folder / f"{before:06d}.safetensors"
    count = len(seen[0].to_demonstrations)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The format takes rows as they lie in memory.
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(whole, path, metadata={"queries": "\n".join(queries[before : before + count])})
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}); leave out --arrays or make room"
        ) from error
