"""Token sequences that share beginnings, laid out so that every distinct token is run once.

What all sequences begin with is the *trunk*; it becomes a Prefix. The rest is a forest, written down in depth-first
order and cut into *packs* that a model runs as one row each. In depth-first order the descendants of a node are the
interval [node, end): node j is seen by node i exactly when j <= i < end[j].
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True, slots=True)
class Scored:
    """A token sequence whose tokens from ``start`` on are scored. ``start`` is at least 1: a token needs one before it."""

    tokens: tuple[int, ...]
    start: int

    def __post_init__(self) -> None:
        assert 1 <= self.start < len(self.tokens), f"start {self.start} of {len(self.tokens)} tokens"


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """One row of branches: n nodes in depth-first order, and what is read off it.

    ``depth`` counts from the end of the trunk. ``rows`` are the nodes whose next token is scored. The scored tokens of
    all sequences stand one after another: token i of them is ``targets[i]`` after row ``row_of[i]``; those of sequence
    ``members[j]`` are ``bounds[j]`` to ``bounds[j + 1]``.
    """

    tokens: Int[np.ndarray, "t"]
    depth: Int[np.ndarray, "t"]
    end: Int[np.ndarray, "t"]
    rows: Int[np.ndarray, "s"]
    row_of: Int[np.ndarray, "n"]
    targets: Int[np.ndarray, "n"]
    members: Int[np.ndarray, "m"]
    bounds: Int[np.ndarray, "m1"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The trunk and the packs of a set of sequences; ``distinct`` counts the tokens to run, the trunk's among them."""

    trunk: tuple[int, ...]
    packs: tuple[Pack, ...]

    @property
    def distinct(self) -> int:
        return len(self.trunk) + sum(len(pack.tokens) for pack in self.packs)


def shared_beginning(sequences: Iterable[Sequence[int]]) -> int:
    """The number of tokens with which all sequences begin.

    >>> shared_beginning([(1, 2, 3), (1, 2, 4), (1, 2)])
    2
    """
    iterator = iter(sequences)
    first = next(iterator, ())
    length = len(first)
    for other in iterator:
        # Slices compare at the speed of C; only a mismatch is looked for token by token.
        if other[:length] != first[:length]:
            length = next((i for i, (a, b) in enumerate(zip(first, other, strict=False)) if a != b), len(other))
        if length == 0:
            break
    return length


def plan(sequences: Sequence[Scored], *, tokens_per_pack: int, rows_per_pack: int, trunk: bool = True) -> Plan:
    """Trunk and packs for these sequences, each pack of at most so many nodes and scored rows, or one sequence.

    Without a ``trunk`` every pack begins with what its sequences share: a pass less, and a graph of its own for each.

    The parent of every scored token is in a pack, so a trunk needs no head. The last token of a sequence is only ever
    a target. A sequence that meets the end of a pack is repeated from the trunk on in the next one.
    """
    if not sequences:
        return Plan((), ())
    shared = min(shared_beginning([s.tokens for s in sequences]), min(s.start for s in sequences) - 1) if trunk else 0
    order = sorted(range(len(sequences)), key=lambda j: sequences[j].tokens)
    packs: list[Pack] = []
    members: list[int] = []
    nodes = rows = 0
    before: tuple[int, ...] = ()
    marked: set[int] = set()  # the depths of the path before at which a row stands
    for j in order:
        path = sequences[j].tokens[shared:-1]
        keep = shared_beginning([path, before])
        scored = set(range(sequences[j].start - 1 - shared, len(path)))
        known = {depth for depth in marked if depth < keep}
        if members and (nodes + len(path) - keep > tokens_per_pack or rows + len(scored - known) > rows_per_pack):
            packs.append(_pack([(k, sequences[k]) for k in members], shared))
            members, nodes, rows, keep, known = [], 0, 0, 0, set()
        members.append(j)
        nodes += len(path) - keep
        rows += len(scored - known)
        before, marked = path, known | scored
    packs.append(_pack([(k, sequences[k]) for k in members], shared))
    return Plan(sequences[0].tokens[:shared], tuple(packs))


def _pack(members: list[tuple[int, Scored]], shared: int) -> Pack:
    tokens: list[int] = []
    depth: list[int] = []
    end: list[int] = []
    path: list[int] = []
    row_nodes: dict[int, int] = {}
    row_of: list[int] = []
    targets: list[int] = []
    bounds = [0]
    before: tuple[int, ...] = ()
    for _, sequence in members:
        current = sequence.tokens[shared:-1]
        keep = shared_beginning([current, before])
        for node in path[keep:]:
            end[node] = len(tokens)
        del path[keep:]
        for token in current[keep:]:
            depth.append(len(path))
            path.append(len(tokens))
            tokens.append(token)
            end.append(-1)
        for at in range(sequence.start - 1 - shared, len(current)):
            row_of.append(row_nodes.setdefault(path[at], len(row_nodes)))
        targets.extend(sequence.tokens[sequence.start :])
        bounds.append(len(targets))
        before = current
    for node in path:
        end[node] = len(tokens)
    return Pack(
        tokens=np.array(tokens),
        depth=np.array(depth),
        end=np.array(end),
        rows=np.fromiter(row_nodes, dtype=np.int64, count=len(row_nodes)),
        row_of=np.array(row_of),
        targets=np.array(targets),
        members=np.array([j for j, _ in members]),
        bounds=np.array(bounds),
    )


def paths(pack: Pack) -> list[list[int]]:
    """For every member the nodes that it runs through, from the first after the trunk to the last row."""
    ends = pack.rows[pack.row_of[pack.bounds[1:] - 1]].tolist()
    wanted = set(ends)
    path: list[int] = []
    found: dict[int, list[int]] = {}
    for node, depth in enumerate(pack.depth.tolist()):
        path[depth:] = [node]
        if node in wanted:
            found[node] = path.copy()
    return [found[end] for end in ends]


def joined(packs: Sequence[Pack], first_members: Sequence[int]) -> Pack:
    """Packs as one, side by side; the members of each count from its ``first_members``."""
    nodes = _starts([len(p.tokens) for p in packs])
    rows = _starts([len(p.rows) for p in packs])
    targets = _starts([len(p.targets) for p in packs])
    bounds = [p.bounds[1:] + at for p, at in zip(packs, targets, strict=True)]
    return Pack(
        tokens=np.concatenate([p.tokens for p in packs]),
        depth=np.concatenate([p.depth for p in packs]),
        end=np.concatenate([p.end + at for p, at in zip(packs, nodes, strict=True)]),
        rows=np.concatenate([p.rows + at for p, at in zip(packs, nodes, strict=True)]),
        row_of=np.concatenate([p.row_of + at for p, at in zip(packs, rows, strict=True)]),
        targets=np.concatenate([p.targets for p in packs]),
        members=np.concatenate([p.members + at for p, at in zip(packs, first_members, strict=True)]),
        bounds=np.concatenate([np.zeros(1, dtype=np.int64), *bounds]),
    )


def _starts(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths))]


def ancestors_or_self(end: Int[np.ndarray, "t"]) -> Bool[np.ndarray, "t t"]:
    """[i, j] is True where node j is node i or one of its ancestors.

    >>> ancestors_or_self(np.array([3, 2, 3])).astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    """
    node = np.arange(len(end))
    return (node[None, :] <= node[:, None]) & (node[:, None] < end[None, :])


def runs(depth: Int[np.ndarray, "t"], *, length: int) -> list[tuple[int, int]]:
    """Depth-first order cut into intervals of at most ``length`` nodes, where the branches that are cut are shortest.

    A cut before a node of depth 0 parts whole branches; before any other it leaves that many ancestors behind.

    >>> runs(np.array([0, 1, 0, 0, 1, 2, 3]), length=4)
    [(0, 3), (3, 7)]
    """
    found: list[tuple[int, int]] = []
    begin = 0
    while len(depth) - begin > length:
        # Not before half the length: short runs cost as much as full ones.
        low = begin + (length + 1) // 2
        window = depth[low : begin + length + 1]
        stop = low + len(window) - 1 - int(np.argmin(window[::-1]))
        found.append((begin, stop))
        begin = stop
    return [*found, (begin, len(depth))]
