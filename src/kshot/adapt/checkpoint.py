"""Where a fit stands, on disk: tensors as safetensors, the rest as JSON beside them, whole or not at all."""

import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kshot.adapt.train import State
from kshot.errors import OutputError
from kshot.optim.state import keep, kept, part_of, sweep

log = logging.getLogger("kshot")

# A checkpoint is written when this much time has passed, and this many times as long as the last one took to write.
_SECONDS, _SHARE = 15.0, 20.0

# Before the names of the leaves of the best look.
_BEST = "best "


@dataclass(slots=True)
class Keeper:
    """Keeps the states of one run of training in ``folder`` under ``name``; without a folder it keeps nothing.

    ``key`` says what is trained: a state of something else, or one that cannot be read, is not gone on with. ``device``
    is where it is trained.
    """

    folder: Path | None
    name: str
    key: str
    _last: float = field(default_factory=time.monotonic)
    _took: float = 0.0
    _warned: bool = False
    device: torch.device = field(default=torch.device("cpu"), kw_only=True)

    def found(self) -> State | None:
        """The last state that was kept, None where there is none of this run."""
        if self.folder is None:
            return None
        found = kept(self._path, self.device)
        if found is None or found[2].pop("key", None) != self.key:
            return None
        leaves, moments, facts = found
        try:
            losses, looks = tuple(facts.pop("losses")), tuple(tuple(look) for look in facts.pop("looks"))
            best = {name.removeprefix(_BEST): leaves.pop(name) for name in list(leaves) if name.startswith(_BEST)}
            return State(leaves=leaves, moments=moments, losses=losses, looks=looks, best=best, **facts)
        except (KeyError, TypeError):
            return None

    def offer(self, state: State) -> None:
        """Keep the state if enough time has passed since the last one; where it cannot be written that is said once."""
        if self.folder is None or time.monotonic() - self._last <= max(_SECONDS, _SHARE * self._took):
            return
        try:
            self.keep(state)
        except OutputError as error:
            self._last = time.monotonic()
            if not self._warned:
                log.warning("%s; training goes on, and would begin again if it were stopped", error)
            self._warned = True

    def keep(self, state: State) -> None:
        """Keep the state; OutputError where it cannot be written."""
        if self.folder is None:
            return
        began = time.monotonic()
        facts = {"step": state.step, "losses": state.losses, "looks": state.looks, "seconds": state.seconds}
        facts |= {"tokens": state.tokens, "flops": state.flops, "key": self.key}
        best = {f"{_BEST}{name}": leaf for name, leaf in state.best.items()}
        keep(self._path, {**state.leaves, **best}, state.moments, facts)
        self._last, self._took = time.monotonic(), time.monotonic() - began

    def done(self) -> None:
        """Forget the state: what it led to is kept elsewhere."""
        if self.folder is not None:
            self._path.unlink(missing_ok=True)
            sweep(self._path)

    @property
    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}.safetensors"


def read_json(path: Path, key: str) -> Any:
    """What was kept under this key, else None."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found["value"] if isinstance(found, Mapping) and found.get("key") == key else None


def write_json(path: Path, key: str, value: Any) -> None:
    """Keep a JSON value under a key; OutputError where it cannot be written."""
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path)
        part.write_text(json.dumps({"key": key, "value": value}), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {str(path)!r} ({error.strerror}); give a folder that has room") from error
