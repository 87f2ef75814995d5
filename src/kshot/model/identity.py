"""Which model something was taught to: its weights, and what it is read with that these do not say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kshot.errors import ModelError
from kshot.model.lm import LM

_WORDS = {"delta": "change of weights", "momentum": "momentum"}


def identity(lm: LM) -> dict[str, str | None]:
    """As ``kshot.json`` has it: name, caption, hash and kind of a model, and the hashes of its delta and momentum.

    None where it has none of these.
    """
    return {
        "name": lm.name,
        "caption": lm.caption,
        "hash": lm.hash,
        "kind": lm.source,
        "delta": lm.delta.hash if lm.delta else None,
        "momentum": None if lm.momentum is None else lm.momentum.hash,
    }


def same_model(lm: LM, folder: Path, said: Mapping[str, Any]) -> None:
    """ModelError unless what is in ``folder`` was taught to this model, read with the same delta and momentum."""
    own = identity(lm)
    if said["hash"] != own["hash"]:
        raise ModelError(
            f"{folder} was taught to the model {said['name']!r} (hash {said['hash'][:12]}), and this one is {lm.name!r} "
            f"(hash {lm.hash[:12]}); load that one"
        )
    for name in _WORDS:
        # artefacts of before this was written down do not say
        if (known := said.get(name, own[name])) != own[name]:
            raise ModelError(
                f"{folder} was taught to {lm.name!r} with {_told(name, known)}, and this one is read with "
                f"{_told(name, own[name])}; read it as it was"
            )


def _told(name: str, known: str | None) -> str:
    return f"no {_WORDS[name]}" if known is None else f"a {_WORDS[name]} of its own (hash {known[:12]})"
