"""Maps of short sequences: tables against an obvious computation, groups that share no map, prompts, and exact rivals."""

import itertools
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kshot.errors import KshotError
from kshot.synth.primitives import (
    PRIMITIVES,
    UNSEEN,
    Repertoire,
    Shown,
    Space,
    arbitrary,
    asked_at,
    composed,
    drawn,
    in_turn,
    new_among,
    permuted,
    repertoire,
    tables,
    text,
    vocabulary,
)
from kshot.synth.selection import chosen, look_up, right, selection, together

SPACE = Space(symbols=5, length=4)
SMALL = Space(symbols=4, length=3)
EVERY = list(itertools.product(range(5), repeat=4))


def as_lists(map_: torch.Tensor) -> list[list[int]]:
    return SPACE.sequences(map_).tolist()


@pytest.mark.parametrize(
    ("name", "obvious"),
    [
        ("shift by 1", lambda a, b, c, d: [(i + 1) % 5 for i in (a, b, c, d)]),
        ("reverse", lambda a, b, c, d: [d, c, b, a]),
        ("swap the first two", lambda a, b, c, d: [b, a, c, d]),
        ("rotate", lambda a, b, c, d: [b, c, d, a]),
        ("swap the last two", lambda a, b, c, d: [a, b, d, c]),
        ("mirror", lambda a, b, c, d: [4 - i for i in (a, b, c, d)]),
        ("shift by place", lambda a, b, c, d: [a, (b + 1) % 5, (c + 2) % 5, (d + 3) % 5]),
        ("last is first", lambda a, b, c, d: [a, b, c, a]),
        ("shift by 2", lambda a, b, c, d: [(i + 2) % 5 for i in (a, b, c, d)]),
        ("rotate back", lambda a, b, c, d: [d, a, b, c]),
        ("running sums", lambda a, b, c, d: [a, (a + b) % 5, (a + b + c) % 5, (a + b + c + d) % 5]),
        ("first is last", lambda a, b, c, d: [d, b, c, d]),
        ("shift twice by place", lambda a, b, c, d: [a, (b + 2) % 5, (c + 4) % 5, (d + 6) % 5]),
        ("second is first", lambda a, b, c, d: [a, a, c, d]),
        ("add the first", lambda a, b, c, d: [a, (b + a) % 5, (c + a) % 5, (d + a) % 5]),
        ("shift by 3", lambda a, b, c, d: [(i + 3) % 5 for i in (a, b, c, d)]),
        ("add the last", lambda a, b, c, d: [(a + d) % 5, (b + d) % 5, (c + d) % 5, d]),
        ("double", lambda a, b, c, d: [2 * i % 5 for i in (a, b, c, d)]),
        ("swap the ends", lambda a, b, c, d: [d, b, c, a]),
        ("shift back by place", lambda a, b, c, d: [a, (b - 1) % 5, (c - 2) % 5, (d - 3) % 5]),
        ("differences", lambda a, b, c, d: [a, (b - a) % 5, (c - b) % 5, (d - c) % 5]),
    ],
)
def test_a_primitive_is_what_it_is_called(name: str, obvious: Callable[..., list[int]]) -> None:
    (table,) = tables(SPACE, 0, [(PRIMITIVES | UNSEEN)[name]])
    assert as_lists(table) == [obvious(*x) for x in EVERY]


@pytest.mark.parametrize("seed", range(20))
def test_look_ups_are_permutations_that_differ_and_are_no_shift_or_mirror(seed: int) -> None:
    names = [name for name in PRIMITIVES | UNSEEN if name.startswith("look-up")]
    assert len(names) == 7
    found = [as_lists(row) for row in tables(SPACE, seed, [(PRIMITIVES | UNSEEN)[name] for name in names])]
    permutations = [tuple(ys[EVERY.index((i,) * 4)][0] for i in range(5)) for ys in found]
    assert len(set(permutations)) == 7
    for ys, own in zip(found, permutations, strict=True):
        assert sorted(own) == list(range(5))
        assert ys == [[own[i] for i in x] for x in EVERY]
        assert len({(own[i] - i) % 5 for i in range(5)}) > 1
        assert len({(own[i] + i) % 5 for i in range(5)}) > 1


def test_look_ups_change_with_the_seed_and_nothing_else_does() -> None:
    one, other = (tables(SPACE, seed, list(PRIMITIVES.values())) for seed in (0, 1))
    same = [name for name, a, b in zip(PRIMITIVES, one, other, strict=True) if torch.equal(a, b)]
    assert same == [name for name in PRIMITIVES if not name.startswith("look-up")]


def test_compositions_are_one_map_after_the_other() -> None:
    maps = tables(SPACE, 0, [PRIMITIVES[name] for name in ("shift by place", "rotate", "reverse")])
    found = composed(maps, maps).unflatten(0, (3, 3))
    assert as_lists(found[0, 1])[EVERY.index((1, 2, 3, 4))] == [2, 4, 1, 4], "rotate first, then shift by place"
    assert as_lists(found[1, 0])[EVERY.index((1, 2, 3, 4))] == [3, 0, 2, 1]
    assert torch.equal(found[2, 2], torch.arange(SPACE.size)), "reversed twice"


def test_equal_maps_count_once_and_known_ones_not_at_all() -> None:
    one, two, three, reverse = tables(
        SPACE, 0, [PRIMITIVES["shift by 1"], PRIMITIVES["shift by 2"], lambda space, seed, xs: (xs + 3) % 5,
                   PRIMITIVES["reverse"]],
    )  # fmt: skip
    known = torch.stack([one, two])
    pairs = composed(known, known)
    assert torch.equal(new_among(pairs, known), torch.stack([three, (three + 0)[one]])), "1 + 2 = 2 + 1, and 1 + 1 = 2"
    assert len(new_among(torch.stack([reverse, reverse]), known)) == 1
    assert len(new_among(known, known)) == 0


def keys(maps: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(row) for row in maps.tolist()}


def compositions(own: Repertoire, depth: int) -> set[tuple[int, ...]]:
    """All maps that so many primitives make, by an obvious computation."""
    primitives, found = keys(own.primitives), {tuple(range(own.space.size))}
    for _ in range(depth):
        found = {tuple(outer[y] for y in inner) for outer in primitives for inner in found}
    return found


@pytest.mark.parametrize(("count", "share"), [(4, 0.0), (4, 0.5), (5, 0.75), (4, 1.0)])
def test_no_map_is_in_two_groups_and_each_is_what_its_group_says(count: int, share: float) -> None:
    own = repertoire(SMALL, 3, count=count, share=share)
    groups = {name: keys(getattr(own, name)) for name in ("primitives", "seen", "held_out", "deeper", "unseen")}
    for one, other in itertools.combinations(groups, 2):
        assert not groups[one] & groups[other], (one, other)
    assert all(len(groups[name]) == len(getattr(own, name)) for name in groups)
    nothing = {tuple(range(SMALL.size))}
    pairs = compositions(own, 2) - groups["primitives"] - nothing
    assert groups["seen"] | groups["held_out"] == pairs
    assert len(groups["seen"]) == round(share * len(pairs))
    assert groups["deeper"] == compositions(own, 3) - pairs - groups["primitives"] - nothing - groups["unseen"]
    assert keys(own.trained) == groups["primitives"] | groups["seen"]
    assert keys(own.pairs) == groups["primitives"] | pairs
    assert groups["unseen"], "something is left to ask for"


def test_other_seeds_hold_out_other_compositions_and_more_primitives_are_the_same_and_more() -> None:
    one, other = (repertoire(SPACE, seed, count=4, share=0.5) for seed in (0, 1))
    assert keys(one.held_out) != keys(other.held_out)
    assert torch.equal(repertoire(SPACE, 0, count=8, share=0.5).primitives[:4], one.primitives)


@pytest.mark.parametrize(("count", "share"), [(0, 0.5), (25, 0.5), (4, -0.1), (4, 1.1)])
def test_a_repertoire_that_cannot_be_is_refused(count: int, share: float) -> None:
    with pytest.raises(KshotError, match="what works is 1 to 24, and 0 to 1"):
        repertoire(SPACE, 0, count=count, share=share)


@pytest.mark.parametrize(("symbols", "length"), [(3, 3), (5, 1), (10, 5)])
def test_a_space_that_cannot_be_is_refused(symbols: int, length: int) -> None:
    with pytest.raises(KshotError, match="what works is 2 or more out of 4 or more"):
        Space(symbols=symbols, length=length)


@given(st.integers(4, 8), st.integers(2, 5), st.integers(0, 10**6))
def test_numbers_and_sequences_are_one_another(symbols: int, length: int, number: int) -> None:
    space = Space(symbols=symbols, length=length)
    number %= space.size
    found = space.sequences(torch.tensor([number]))
    assert space.numbers(found).item() == number
    assert sum(s * symbols**i for i, s in enumerate(reversed(found[0].tolist()))) == number


MAPS = repertoire(SMALL, 0, count=4, share=0.5)


def test_prompts_show_maps_and_are_the_same_again_in_any_order() -> None:
    later, first = (drawn(SMALL, MAPS.trained, 0, step, size=50, pairs=6) for step in (3, 0))
    again = drawn(SMALL, MAPS.trained, 0, 3, size=50, pairs=6)
    assert torch.equal(later.xs, again.xs)
    assert torch.equal(later.ys, again.ys)
    for other in (first, drawn(SMALL, MAPS.trained, 1, 3, size=50, pairs=6)):
        assert not torch.equal(other.xs, later.xs)
    for xs, ys, which in zip(later.xs, later.ys, later.which, strict=True):
        assert torch.equal(SMALL.sequences(MAPS.trained[which][SMALL.numbers(xs)]), ys)
        assert len(SMALL.numbers(xs).unique()) == 6, "no input twice"


def test_the_same_prompts_in_another_process() -> None:
    code = (
        "from kshot.synth.primitives import *\n"
        "space = Space(symbols=4, length=3)\n"
        "maps = repertoire(space, 0, count=4, share=0.5).trained\n"
        "print(space.numbers(drawn(space, maps, 5, 7, size=9, pairs=3).ys).tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(SMALL.numbers(drawn(SMALL, MAPS.trained, 5, 7, size=9, pairs=3).ys).tolist())


def test_every_map_and_every_input_is_as_probable() -> None:
    found = drawn(SMALL, MAPS.trained, 0, 0, size=20_000, pairs=2)
    for counts in (found.which.bincount(), SMALL.numbers(found.xs).flatten().bincount()):
        mean = counts.sum().item() / len(counts)
        assert len(counts) in (len(MAPS.trained), SMALL.size)
        assert (counts - mean).abs().max() < 5 * math.sqrt(mean)
    turns = in_turn(SMALL, MAPS.trained, 0, size=3 * len(MAPS.trained) + 1, pairs=2).which.bincount()
    assert sorted(turns.tolist(), reverse=True) == [4] + [3] * (len(MAPS.trained) - 1)


def _symbolwise() -> list[tuple[int, ...]]:
    """Permutations that are a known map, by trying all."""
    every = SMALL.every().tolist()
    made = keys(MAPS.pairs)
    return [own for own in itertools.permutations(range(4))
            if tuple(int(SMALL.numbers(torch.tensor([own[i] for i in x]))) for x in every) in made]  # fmt: skip


def test_permuted_prompts_map_symbols_and_arbitrary_ones_map_nothing() -> None:
    shown = permuted(SMALL, MAPS.pairs, 0, size=200, pairs=8)
    pairs = [set(zip(x.flatten().tolist(), y.flatten().tolist(), strict=True))
             for x, y in zip(shown.xs, shown.ys, strict=True)]  # fmt: skip
    for own in pairs:
        assert len({x for x, _ in own}) == len({y for _, y in own}) == len(own)
    found = {frozenset(own) for own in pairs if len(own) == 4}
    known = _symbolwise()
    assert len(known) > 2
    assert not found & {frozenset(enumerate(own)) for own in known}
    assert len(found) == 24 - len(known), "all that are new, doing nothing among them"
    free = arbitrary(SMALL, 0, size=4_000, pairs=2)
    joint = torch.zeros(4, 4).index_put_(
        (free.xs.flatten(), free.ys.flatten()), torch.ones(free.xs.numel()), accumulate=True
    )
    assert (joint - joint.mean()).abs().max() < 5 * math.sqrt(joint.mean())


def test_permutations_that_are_all_known_are_refused() -> None:
    space = Space(symbols=4, length=2)
    every = torch.stack([space.numbers(torch.tensor(own)[space.every()]) for own in itertools.permutations(range(4))])
    with pytest.raises(KshotError, match="what works is more symbols"):
        permuted(space, every, 0, size=5, pairs=2)


def test_prompts_of_no_map_or_of_too_many_inputs_are_refused() -> None:
    with pytest.raises(KshotError, match="prompts of no map"):
        drawn(SMALL, MAPS.trained[:0], 0, 0, size=3, pairs=2)
    with pytest.raises(KshotError, match="65 different inputs out of 64"):
        drawn(SMALL, MAPS.trained, 0, 0, size=3, pairs=65)


def test_a_text_is_inputs_and_answers_and_is_asked_before_every_symbol_of_an_answer() -> None:
    shown = Shown(torch.tensor([[[0, 1, 2], [3, 3, 0]]]), torch.tensor([[[2, 1, 0], [0, 3, 3]]]), torch.tensor([0]))
    assert text(SMALL, shown).tolist() == [[0, 1, 2, 4, 2, 1, 0, 5, 3, 3, 0, 4, 0, 3]]
    assert asked_at(SMALL, 2).tolist() == [3, 4, 5, 11, 12, 13]
    assert vocabulary(SMALL) == 6
    many = drawn(SMALL, MAPS.trained, 0, 0, size=4, pairs=5)
    asked = asked_at(SMALL, 5)
    assert torch.equal(text(SMALL, many)[:, asked[:-1] + 1], many.ys.flatten(1)[:, :-1])


# --- rivals


def obvious_selection(maps: torch.Tensor, shown: Shown, b: int, k: int, i: int) -> list[float]:
    """Votes for symbol i of answer k of a prompt by maps with the fewest symbols wrong before."""
    made = [SMALL.sequences(row[SMALL.numbers(shown.xs[b])]).flatten().tolist() for row in maps]
    truth, place = shown.ys[b].flatten().tolist(), k * SMALL.length + i
    wrong = [sum(a != t for a, t in zip(own[:place], truth[:place], strict=True)) for own in made]
    best = [own[place] for own, count in zip(made, wrong, strict=True) if count == min(wrong)]
    return [best.count(symbol) / len(best) for symbol in range(SMALL.symbols)]


@pytest.mark.parametrize("group", ["held_out", "seen"])
def test_selection_is_the_votes_of_maps_with_the_fewest_symbols_wrong(group: str) -> None:
    shown = in_turn(SMALL, getattr(MAPS, group), 0, size=6, pairs=4)
    said = selection(SMALL, MAPS.trained)(shown)
    for b, k, i in itertools.product(range(6), range(4), range(3)):
        expected = obvious_selection(MAPS.trained, shown, b, k, i)
        assert said[b, 3 * k + i].tolist() == pytest.approx(expected, abs=1e-6)


def test_who_knows_the_map_is_right_and_selection_finds_it() -> None:
    shown = in_turn(SMALL, MAPS.trained, 0, size=600, pairs=7)
    truth = right(shown, SMALL.symbols)
    assert together(truth, truth, SMALL.length).min() == 1
    accuracy = together(chosen(selection(SMALL, MAPS.trained)(shown)), truth, SMALL.length).mean(dim=0)
    assert accuracy[-1] > 0.99
    assert accuracy[0] < 0.5
    alone = selection(SMALL, MAPS.trained[3:4])(in_turn(SMALL, MAPS.trained[3:4], 0, size=5, pairs=2))
    assert together(chosen(alone), right(in_turn(SMALL, MAPS.trained[3:4], 0, size=5, pairs=2), 4), 3).min() == 1


def test_knowing_how_to_compose_is_worth_something_on_held_out_compositions_alone() -> None:
    rules = {name: selection(SMALL, maps) for name, maps in (("selects", MAPS.trained), ("composes", MAPS.pairs))}
    shown = in_turn(SMALL, MAPS.held_out, 0, size=600, pairs=7)
    truth = right(shown, SMALL.symbols)
    found = {name: together(chosen(rule(shown)), truth, 3)[:, -1].mean() for name, rule in rules.items()}
    assert found["composes"] > 0.99
    assert found["selects"] < 0.5


def test_look_up_says_what_a_symbol_became_before() -> None:
    xs, ys = torch.tensor([[[0, 1, 2], [0, 3, 1]]]), torch.tensor([[[3, 0, 1], [3, 2, 2]]])
    said = look_up(SMALL)(Shown(xs, ys, torch.tensor([0])))[0]
    even = [0.25] * 4
    assert said.tolist() == [even, even, even, [0, 0, 0, 1], even, [1, 0, 0, 0]]
    # Of a symbol that became two things, one each; also within an answer.
    xs, ys = torch.tensor([[[1, 1, 1], [1, 2, 1]]]), torch.tensor([[[0, 3, 3], [3, 0, 0]]])
    said = look_up(SMALL)(Shown(xs, ys, torch.tensor([0])))[0]
    assert said[1].tolist() == [1, 0, 0, 0]
    assert said[2].tolist() == [0.5, 0, 0, 0.5]
    assert said[3].tolist() == pytest.approx([1 / 3, 0, 0, 2 / 3])
    assert said[5].tolist() == pytest.approx([1 / 4, 0, 0, 3 / 4])


def test_look_up_learns_any_map_of_symbols_and_no_other() -> None:
    def accuracy(shown: Shown) -> float:
        return float(together(chosen(look_up(SMALL)(shown)), right(shown, 4), 3)[:, -1].mean())

    assert accuracy(permuted(SMALL, MAPS.pairs, 0, size=500, pairs=8)) > 0.97
    assert accuracy(arbitrary(SMALL, 0, size=4_000, pairs=8)) == pytest.approx(4**-3, abs=0.01)


def test_equal_weights_are_chosen_as_often_each() -> None:
    weights = torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]])
    assert chosen(weights).tolist() == [[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]]
    assert together(chosen(weights), chosen(weights), 2).item() == 0.5


def test_the_future_changes_nothing_that_a_rival_says() -> None:
    shown = in_turn(SMALL, MAPS.held_out, 0, size=20, pairs=4)
    ys = shown.ys.clone()
    ys[:, 2, 1:] = (ys[:, 2, 1:] + 1) % 4
    ys[:, 3] = (ys[:, 3] + 2) % 4
    other = Shown(shown.xs, ys, shown.which)
    for rule in (selection(SMALL, MAPS.trained), look_up(SMALL)):
        assert torch.equal(rule(shown)[:, :8], rule(other)[:, :8])
        assert not torch.equal(rule(shown)[:, 8:], rule(other)[:, 8:])
