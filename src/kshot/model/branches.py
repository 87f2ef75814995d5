"""Texts that grow side by side after what they all begin with: what has been read of each is kept, and not read again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kshot.model.attention import Before, Pass
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.tree import Pack, Scored, joined, paths, plan


@dataclass(slots=True, eq=False)
class Branches:
    """``shared`` stands before all texts and holds the first ``begun`` tokens of each; ``own[i]`` is what has been read
    of text i after it. One copy of what is shared, however many texts there are."""

    shared: Prefix
    begun: int
    own: dict[int, Prefix] = field(default_factory=dict)

    def passes(
        self, asked: Mapping[int, Scored], *, tokens_per_pack: int, rows_per_pack: int
    ) -> Iterator[tuple[Pack, Pass]]:
        """Packs of what has not been read yet of each text, and the pass for each; members are the numbers of texts.

        Texts of which nothing has been read share what more they begin with; the others are one branch each.
        """
        fresh, begun = ([i for i in asked if (i in self.own) is known] for known in (False, True))
        found = plan(
            [self._rest(asked[i], i) for i in fresh],
            tokens_per_pack=tokens_per_pack,
            rows_per_pack=rows_per_pack,
            trunk=False,
        )
        for pack in found.packs:
            yield self._pass(replace(pack, members=np.array(fresh)[pack.members]), [])
        together: list[Pack] = []
        for i in begun:
            (pack,) = plan([self._rest(asked[i], i)], tokens_per_pack=1, rows_per_pack=1, trunk=False).packs
            if together and sum(len(one.tokens) for one in (*together, pack)) > min(tokens_per_pack, rows_per_pack):
                yield self._side_by_side(together)
                together = []
            together.append(replace(pack, members=np.array([i])))
        if together:
            yield self._side_by_side(together)

    def keep(self, pack: Pack, current: Pass, count: Mapping[int, int]) -> None:
        """Keeps of what the pass has read that which makes each text's own so many tokens of it read."""
        captured = current.captured or {}
        for i, path in zip(pack.members.tolist(), paths(pack), strict=True):
            nodes = path[: count[i] - self.read(i)]
            keys, values = ([captured[layer][side][:, :, nodes] for layer in sorted(captured)] for side in (0, 1))
            self.own[i] = self.own.get(i, EMPTY).join(keys, values, None)

    def read(self, i: int) -> int:
        """How many tokens of text i have been read."""
        return self.begun + (self.own[i].length if i in self.own else 0)

    def _rest(self, text: Scored, i: int) -> Scored:
        return Scored(text.tokens[self.read(i) :], text.start - self.read(i))

    def _side_by_side(self, packs: Sequence[Pack]) -> tuple[Pack, Pass]:
        own, at = [], 0
        for pack in packs:
            own.append(Before(self.own[int(pack.members[0])], at, at + len(pack.tokens), self.shared.length))
            at += len(pack.tokens)
        return self._pass(joined(packs, [0] * len(packs)), own)

    def _pass(self, pack: Pack, own: Sequence[Before]) -> tuple[Pack, Pass]:
        before = (Before(self.shared, 0, len(pack.tokens)), *own)
        return pack, Pass(before, pack.depth, pack.end, captured={})


def lots(texts: Sequence[int], needs: Mapping[int, int], most: int) -> Iterator[list[int]]:
    """As many texts at a time as need ``most`` tokens together, one at least.

    >>> list(lots([0, 2, 3], {0: 3, 2: 2, 3: 9}, most=6))
    [[0, 2], [3]]
    """
    lot: list[int] = []
    for i in texts:
        if lot and sum(needs[j] for j in (*lot, i)) > most:
            yield lot
            lot = []
        lot.append(i)
    if lot:
        yield lot
