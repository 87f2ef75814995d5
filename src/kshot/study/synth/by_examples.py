"""A network and its rivals by how many examples they were shown: errors on the same prompts, their rows and picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from kshot.study.synth.experiment import Given, Row
from kshot.study.synth.growing import asked_prompts, errors, line, mean_rows, picture, ratio_row
from kshot.synth.oracles import Predictor
from kshot.synth.prompts import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Squared errors after 0, 1, 2 ... examples, by name, prompt by prompt, in the unit of the class of functions.

    ``beyond`` are those against answers without their noise. ``word`` says what was asked, ``places`` name the numbers of
    examples that are told. A rival that was asked fewer prompts was asked the first of them.
    """

    word: str
    found: Mapping[str, Float[np.ndarray, "_ n"]]
    beyond: Mapping[str, Float[np.ndarray, "_ n"]]
    places: Mapping[str, int]
    seed: int

    def told(self) -> dict[str, Any]:
        """What a part returns: an ``error`` of each at each place, and the picture of all."""
        rows = [
            mean_rows("error", (self.word, name, place), values[:, k], self.seed)
            for name, values in self.found.items()
            for place, k in self.places.items()
        ]
        lines = {name: line(values) for name, values in self.found.items()}
        return {"rows": rows, "pictures": [picture(f"{self.word}: error", x="examples", y="error", lines=lines)]}

    def over(self, own: str, rival: str, place: str) -> Row:
        """``error_ratio``: the mean error of one over that of another at a place, on the prompts that both were asked."""
        return self._over(own, rival, self.places[place], place)

    def greatest_over(self, own: str, rival: str) -> Row:
        """The same at the number of examples where it is greatest on these prompts."""
        ratios = self.found[own].mean(axis=0) / self.found[rival].mean(axis=0)
        return self._over(own, rival, int(ratios.argmax()), "where it is greatest")

    def excess(self, own: str, rival: str) -> Row:
        """``excess_ratio`` where it is greatest: the same of what both err beyond the noise, which nobody can foresee."""
        over, under = (self.beyond[name] for name in (own, rival))
        k = int((over.mean(axis=0) / under.mean(axis=0)).argmax())
        variant = (self.word, f"{own} over {rival}", "where it is greatest, without noise")
        return ratio_row("excess_ratio", variant, over[:, k], under[:, k], self.seed, null=1.0)

    def _over(self, own: str, rival: str, k: int, place: str) -> Row:
        b = min(len(self.found[own]), len(self.found[rival]))
        over, under = (self.found[name][:b, k] for name in (own, rival))
        return ratio_row("error_ratio", (self.word, f"{own} over {rival}", place), over, under, self.seed, null=1.0)


def compared(
    given: Given,
    word: str,
    source: Source,
    rivals: Mapping[str, tuple[Predictor, int]],
    places: Mapping[str, int],
) -> Compared:
    """All of these on prompts that no training sees: each with how many of them it is asked."""
    asked = asked_prompts(given, source, max(count for _, count in rivals.values()))
    unit = source.functions.unit(source.width)
    said = {name: says(asked.xs[:count], asked.ys[:count]) for name, (says, count) in rivals.items()}
    found, beyond = (
        {name: errors(own, truth[: len(own)], unit) for name, own in said.items()} for truth in (asked.ys, asked.means)
    )
    return Compared(word=word, found=found, beyond=beyond, places=places, seed=given.seed)


def exact(rival: Predictor) -> Predictor:
    """The same in float64."""
    return lambda xs, ys: rival(xs.double(), ys.double())
