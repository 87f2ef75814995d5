"""Decays of momentum thinned by successive halving: all are grown on few tokens, the better half of them on more.

Source: Jamieson and Talwalkar 2016. As many tokens are spent in every round; each network has a schedule of its own, which
ends with its round.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil, log2
from typing import Any

from kshot.errors import NumericError
from kshot.study.pretrain.plan import Arm, arms, planned
from kshot.study.pretrain_settings import LEARNED, PretrainSettings

Grow = Callable[[PretrainSettings, int], Mapping[str, Any]]
"""Settings and the number of a round -> results.json, of documents cut off the text that is learned from."""


def thinned(asked: PretrainSettings, grow: Grow) -> tuple[PretrainSettings, list[str]]:
    """The same settings with the decay of the least loss alone, and how it was found.

    Neither the documents nor the seed are those of the question, so that what is chosen is not judged by what chose it.
    NumericError where training with every decay of a round diverged.
    """
    kind = next(name for name in asked.attention if "momentum" in name)
    left = [arm for arm in arms(asked) if arm.attention == kind]
    whole, seed, notes = planned(asked).tokens, max(asked.seed) + 1, list[str]()
    for number, share in enumerate(shares(len(left)), 1):
        tokens = max(1, int(whole * share))
        only = replace(
            asked, attention=(kind,), eta=tuple(map(_word, left)), seed=(seed,), tokens=tokens, halving=False
        )
        losses = _losses(grow(only, number))
        # A network that diverged has none.
        if not (known := [arm for arm in left if arm.name in losses]):
            raise NumericError(
                f"--halving: none of the decays {', '.join(map(_word, left))} came to a loss on {tokens:,} tokens; try a "
                f"smaller --learning-rate than {planned(only).learning_rate:g}"
            )
        known.sort(key=lambda arm: losses[arm.name])
        told = ", ".join(f"{arm.name} {losses[arm.name]:.4f}" for arm in known)
        notes.append(
            f"decays thinned on {tokens:,} tokens with seed {seed}, nats per token of documents cut off the training text: {told}"
        )
        left = known[: ceil(len(left) / 2)]
    return replace(asked, eta=tuple(map(_word, left)), halving=False), notes


def shares(count: int) -> list[float]:
    """Shares of the tokens that so many networks are thinned on, round after round.

    >>> shares(4), shares(3), shares(1)
    ([0.25, 0.5], [0.25, 0.5], [])
    """
    rounds = ceil(log2(count)) if count > 1 else 0
    return [0.5 ** (rounds - i) for i in range(rounds)]


def _word(arm: Arm) -> str:
    return LEARNED if arm.eta is None else f"{arm.eta:g}"


def _losses(results: Mapping[str, Any]) -> dict[str, float]:
    """The last held-out loss of each network by its name."""
    rows = [row for row in results["kshot"]["measures"] if row["measure"] == "validation_loss"]
    return {row["variant"]: row["value"] for row in rows if row["value"] is not None}
