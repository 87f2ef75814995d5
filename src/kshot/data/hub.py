"""Data sets of the hub, through the optional library ``datasets``."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kshot.errors import DataError

log = logging.getLogger("kshot")


def load_hub(name: str, config: str | None, kwargs: dict[str, Any], asked: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of every split of a data set by its name on the hub (or of a local folder), labels as stored.

    DataError that begins with ``asked`` where ``datasets`` is not installed or cannot find or read it.
    """
    return {split: list(rows) for split, rows in dataset(name, config, kwargs, asked).items()}


def dataset(name: str, config: str | None, kwargs: dict[str, Any], asked: str) -> dict[str, Any]:
    """The data set itself: its splits by name, each with ``features``. Code of a data set is never run."""
    if not name:
        raise DataError(f"{asked} names no data set; write hf:org/name or hf:org/name:config")
    try:
        # an optional package, and seconds to import
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(f"{asked} needs the package datasets; install it with: pip install datasets") from error
    log.info("looking for the data set %s on the hub (fetched once)", name)
    library.disable_progress_bars()
    try:
        with _quiet():
            return dict(library.load_dataset(name, config, **kwargs))
    # the library raises errors of its own, of the network client and of every file format
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise DataError(f"{asked} cannot be loaded ({reason}); check its name, its config and the network") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what these libraries say on their way, as that they try again: how it ends is told in one line."""
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
