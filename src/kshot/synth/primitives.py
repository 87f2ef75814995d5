"""Maps of short sequences of symbols: primitives, their compositions, and prompts that show a map by demonstrations.

There are few enough inputs to write a map down as a table: what it makes of every one of them. So maps are composed, and
found to be the same, exactly; a composition that is the same map as a primitive, as another composition or as doing
nothing counts once, and the primitive comes first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from kshot.errors import KshotError
from kshot.seeds import torch_stream

Sequences = Int[Tensor, "*b l"]
"""Symbols from 0 on."""
Maps = Int[Tensor, "f x"]
"""Maps as tables: the number (``Space.numbers``) of what each makes of every input, by the number of the input."""

# Tables of more inputs than this would take longer than networks.
_MOST_INPUTS = 65_536
# Permutations to choose look-ups from, of which a few are shifts or reflections.
_DRAWN = 64
# Permutations are drawn so many times as often as asked for, as some are known.
_SPARE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All sequences of ``length`` symbols out of so many. Raises KshotError where there are too few or too many."""

    symbols: int
    length: int

    def __post_init__(self) -> None:
        if self.symbols < 4 or self.length < 2 or self.size > _MOST_INPUTS:
            raise KshotError(
                f"sequences of {self.length} out of {self.symbols} symbols: what works is 2 or more out of 4 or more, "
                f"and {_MOST_INPUTS:,} sequences at most"
            )

    @property
    def size(self) -> int:
        """How many sequences there are."""
        return self.symbols**self.length

    def sequences(self, numbers: Int[Tensor, "*b"]) -> Sequences:
        """Sequences by their numbers: digits, the first symbol the highest."""
        return numbers[..., None] // self._digits() % self.symbols

    def numbers(self, sequences: Sequences) -> Int[Tensor, "*b"]:
        """Their numbers, from 0 to ``size`` less 1."""
        return (sequences * self._digits()).sum(dim=-1)

    def every(self) -> Int[Tensor, "x l"]:
        """All sequences by their numbers."""
        return self.sequences(torch.arange(self.size))

    def _digits(self) -> Int[Tensor, "l"]:
        return self.symbols ** torch.arange(self.length - 1, -1, -1)


Primitive = Callable[[Space, int, Int[Tensor, "x l"]], Int[Tensor, "x l"]]
"""Of a space and a seed, which look-ups alone depend on: inputs to outputs."""


def _shift(by: int) -> Primitive:
    return lambda space, seed, xs: (xs + by) % space.symbols


def _look_up(number: int) -> Primitive:
    return lambda space, seed, xs: _look_ups(space, seed)[number][xs]


def _look_ups(space: Space, seed: int) -> Int[Tensor, "m v"]:
    """Permutations of symbols that differ, none a shift or reflection of them."""
    v = space.symbols
    drawn = torch.rand(_DRAWN, v, generator=torch_stream(seed, "look-ups", v)).argsort(dim=1)
    regular = torch.stack([(c + sign * torch.arange(v)) % v for c in range(v) for sign in (1, -1)])
    new = (drawn[:, None] != torch.cat([regular, drawn])).any(dim=2)
    # Of equal ones the first: what comes later is not compared with.
    new[:, len(regular) :] |= torch.ones(_DRAWN, _DRAWN, dtype=torch.bool).triu()
    return drawn[new.all(dim=1)]


def _by_place(sign: int) -> Primitive:
    return lambda space, seed, xs: (xs + sign * torch.arange(space.length)) % space.symbols


def _exchanged(one: int, other: int) -> Primitive:
    def exchange(space: Space, seed: int, xs: Int[Tensor, "x l"]) -> Int[Tensor, "x l"]:
        ys = xs.clone()
        ys[:, one], ys[:, other] = xs[:, other], xs[:, one]
        return ys

    return exchange


def _last_is_first(space: Space, seed: int, xs: Int[Tensor, "x l"]) -> Int[Tensor, "x l"]:
    return torch.cat([xs[:, :-1], xs[:, :1]], dim=1)


def _added(place: int) -> Primitive:
    def add(space: Space, seed: int, xs: Int[Tensor, "x l"]) -> Int[Tensor, "x l"]:
        ys = (xs + xs[:, place, None]) % space.symbols
        ys[:, place] = xs[:, place]
        return ys

    return add


def _differences(space: Space, seed: int, xs: Int[Tensor, "x l"]) -> Int[Tensor, "x l"]:
    return torch.cat([xs[:, :1], xs[:, 1:] - xs[:, :-1]], dim=1) % space.symbols


PRIMITIVES: Mapping[str, Primitive] = {
    "shift by 1": _shift(1),
    "reverse": lambda space, seed, xs: xs.flip(1),
    "look-up": _look_up(0),
    "swap the first two": _exchanged(0, 1),
    "rotate": lambda space, seed, xs: xs.roll(-1, dims=1),
    "look-up 2": _look_up(1),
    "swap the last two": _exchanged(-2, -1),
    "mirror": lambda space, seed, xs: space.symbols - 1 - xs,
    "shift by place": _by_place(1),
    "last is first": _last_is_first,
    "look-up 3": _look_up(2),
    "shift by 2": _shift(2),
    "rotate back": lambda space, seed, xs: xs.roll(1, dims=1),
    "running sums": lambda space, seed, xs: xs.cumsum(dim=1) % space.symbols,
    "look-up 5": _look_up(4),
    "first is last": lambda space, seed, xs: torch.cat([xs[:, -1:], xs[:, 1:]], dim=1),
    "shift twice by place": _by_place(2),
    "look-up 6": _look_up(5),
    "second is first": lambda space, seed, xs: torch.cat([xs[:, :1], xs[:, :1], xs[:, 2:]], dim=1),
    "add the first": _added(0),
    "look-up 7": _look_up(6),
    "shift by 3": _shift(3),
    "add the last": _added(-1),
    "double": lambda space, seed, xs: 2 * xs % space.symbols,
}
"""Shown in training, the first so many; of four half concern symbols, half places, and of eight too."""

UNSEEN: Mapping[str, Primitive] = {
    "swap the ends": _exchanged(0, -1),
    "look-up 4": _look_up(3),
    "shift back by place": _by_place(-1),
    "differences": _differences,
}
"""Kept out of training altogether."""


def tables(space: Space, seed: int, kinds: Sequence[Primitive]) -> Maps:
    """Primitives as tables."""
    xs = space.every()
    return torch.stack([space.numbers(kind(space, seed, xs)) for kind in kinds])


def composed(outer: Int[Tensor, "o x"], inner: Int[Tensor, "i x"]) -> Maps:
    """Every map of ``outer`` after every one of ``inner``, (o i, x)."""
    return outer[:, inner].flatten(0, 1)


def new_among(maps: Int[Tensor, "m x"], known: Int[Tensor, "k x"]) -> Maps:
    """Those that are no known map, each once, in their order."""
    seen = {row.numpy().tobytes() for row in known}
    kept = []
    for i, row in enumerate(maps):
        if (key := row.numpy().tobytes()) not in seen:
            seen.add(key)
            kept.append(i)
    return maps[kept]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Repertoire:
    """What is shown in training and what is not, every map in one group only.

    ``seen`` and ``held_out`` are compositions of two primitives (a primitive after itself among them), ``deeper`` those of
    three that no two make; ``unseen`` are primitives that no one or two of the known ones make.
    """

    space: Space
    primitives: Int[Tensor, "p x"]
    seen: Int[Tensor, "s x"]
    held_out: Int[Tensor, "h x"]
    deeper: Int[Tensor, "d x"]
    unseen: Int[Tensor, "u x"]

    @property
    def trained(self) -> Maps:
        """All that training draws from, each map as often as any other."""
        return torch.cat([self.primitives, self.seen])

    @property
    def pairs(self) -> Maps:
        """All primitives, and all compositions of two."""
        return torch.cat([self.trained, self.held_out])


def repertoire(space: Space, seed: int, *, count: int, share: float) -> Repertoire:
    """The first ``count`` primitives, and this share of their compositions, drawn by the seed, as seen.

    Raises KshotError for more primitives than there are, for none, and for a share beyond 0 and 1.
    """
    if not 1 <= count <= len(PRIMITIVES) or not 0 <= share <= 1:
        raise KshotError(
            f"{count} primitives and {share:g} of their compositions: what works is 1 to {len(PRIMITIVES)}, and 0 to 1"
        )
    nothing = torch.arange(space.size)[None]
    own = new_among(tables(space, seed, list(PRIMITIVES.values())[:count]), nothing)
    pairs = new_among(composed(own, own), torch.cat([nothing, own]))
    known = torch.cat([nothing, own, pairs])
    order = torch.randperm(len(pairs), generator=torch_stream(seed, "compositions", count))
    shown, hidden = order[: round(share * len(pairs))], order[round(share * len(pairs)) :]
    unseen = new_among(tables(space, seed, list(UNSEEN.values())), known)
    return Repertoire(
        space=space,
        primitives=own,
        seen=pairs[shown.sort().values],
        held_out=pairs[hidden.sort().values],
        deeper=new_among(composed(own, pairs), torch.cat([known, unseen])),
        unseen=unseen,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """b prompts of n demonstrations; ``which`` says what map each prompt shows, -1 where it is of no table."""

    xs: Int[Tensor, "b n l"]
    ys: Int[Tensor, "b n l"]
    which: Int[Tensor, "b"]


def drawn(space: Space, maps: Maps, seed: int, step: int, *, size: int, pairs: int) -> Shown:
    """Prompts of maps that are drawn with equal probability; a pure function of all arguments.

    The inputs of a prompt differ, so that no demonstration is asked for again.
    """
    rng = torch_stream(seed, "maps", step)
    return _of(space, maps, torch.randint(_count(maps), (size,), generator=rng), _inputs(space, rng, size, pairs))


def in_turn(space: Space, maps: Maps, seed: int, *, size: int, pairs: int) -> Shown:
    """Prompts of all maps in turn, in an order that is drawn, so that each is asked as often as any other, but for one."""
    rng = torch_stream(seed, "maps in turn")
    order = torch.randperm(_count(maps), generator=rng)
    return _of(space, maps, order[torch.arange(size) % len(maps)], _inputs(space, rng, size, pairs))


def permuted(space: Space, known: Maps, seed: int, *, size: int, pairs: int) -> Shown:
    """Prompts with a permutation of the symbols of their own each, none a known map: demonstrations show all there is to
    know. Raises KshotError where nearly all permutations are known."""
    rng = torch_stream(seed, "permuted")
    xs = space.sequences(_inputs(space, rng, size, pairs))
    many = torch.rand(_SPARE * size, space.symbols, generator=rng).argsort(dim=1)
    own = many[(many[:, None] != _of_symbols(space, known)).any(dim=2).all(dim=1)][:size]
    if len(own) < size:
        raise KshotError(f"permutations of {space.symbols} symbols: nearly all are known; what works is more symbols")
    return Shown(xs, own.gather(1, xs.flatten(1)).view(xs.shape), torch.full((size,), -1))


def _of_symbols(space: Space, maps: Maps) -> Int[Tensor, "m v"]:
    """What those maps make of symbols that treat every symbol by itself, whatever its place."""
    alone = torch.arange(space.symbols)[:, None].expand(-1, space.length)
    made = space.sequences(maps[:, space.numbers(alone)])[..., 0]
    same = space.numbers(made[:, space.every()]) == maps
    return made[same.all(dim=1)]


def arbitrary(space: Space, seed: int, *, size: int, pairs: int) -> Shown:
    """Prompts of maps that give every input an answer of its own, so that no demonstration says anything of another."""
    rng = torch_stream(seed, "arbitrary")
    xs = space.sequences(_inputs(space, rng, size, pairs))
    return Shown(xs, torch.randint(space.symbols, xs.shape, generator=rng), torch.full((size,), -1))


def _count(maps: Maps) -> int:
    if not len(maps):
        raise KshotError("prompts of no map: what works is a group with one or more")
    return len(maps)


def _inputs(space: Space, rng: Generator, size: int, pairs: int) -> Int[Tensor, "b n"]:
    if pairs > space.size:
        raise KshotError(f"{pairs} different inputs out of {space.size}: what works is as many or fewer")
    return torch.rand(size, space.size, generator=rng).topk(pairs, dim=1).indices


def _of(space: Space, maps: Maps, which: Int[Tensor, "b"], inputs: Int[Tensor, "b n"]) -> Shown:
    outputs = maps[which].gather(1, inputs)
    return Shown(space.sequences(inputs), space.sequences(outputs), which)


def text(space: Space, shown: Shown) -> Int[Tensor, "b t"]:
    """Prompts as tokens, x ; y | x ; y ...: symbols, then a separator and a delimiter; the last token is not written,
    as nothing is asked after it."""
    between = torch.tensor([space.symbols, space.symbols + 1]).expand(*shown.xs.shape[:2], 2)
    rows = torch.cat([shown.xs, between[..., :1], shown.ys, between[..., 1:]], dim=2)
    return rows.flatten(1)[:, :-2]


def asked_at(space: Space, pairs: int) -> Int[Tensor, "m"]:
    """Where in a text the next token is a symbol of an answer, m = pairs * length."""
    begins = torch.arange(pairs)[:, None] * (2 * space.length + 2) + space.length
    return (begins + torch.arange(space.length)).flatten()


def vocabulary(space: Space) -> int:
    """Symbols, the separator and the delimiter."""
    return space.symbols + 2
