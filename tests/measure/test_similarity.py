"""ICL against fine-tuning, against slow loops in float64, cases done by hand, and simulated nulls; what holds for all."""

import dataclasses
import math

import numpy as np
import pytest
from traced_runs import OWNERS, E, L, Q, maps, one, outputs, plain_cosine, standard_error, token_maps

from kshot.measure import similarity
from kshot.measure.attention_ranks import (
    example_kendall,
    kendall,
    kendall_null,
    top_k_recall,
)
from kshot.measure.intervals import wilson
from kshot.measure.per_layer import summary
from kshot.measure.similarity import (
    rec2ftp,
    repeatability,
    sim_am,
    sim_am_delta,
    sim_am_permuted,
    sim_aou,
    sim_aou_aligned_null,
    sim_aou_null,
    sim_aou_published_null,
    sim_aou_raw_null,
    sim_aou_simulated_null,
)


def plain_sim_aou(icl, zsl, ft, normalised):
    found = np.zeros(icl.shape[:2])
    for q, layer in np.ndindex(*found.shape):
        runs = [run[q, layer].astype(float) for run in (icl, zsl, ft)]
        if normalised:
            runs = [run / math.sqrt(sum(run**2)) for run in runs]
        found[q, layer] = plain_cosine(runs[0] - runs[1], runs[2] - runs[1])
    return found


def plain_sim_am(a, b):
    return np.array(
        [
            [
                sum(plain_cosine(x[layer, h], y[layer, h]) for h in range(x.shape[1])) / x.shape[1]
                for layer in range(len(x))
            ]
            for x, y in zip(a, b, strict=True)
        ]
    )


def row(*values):
    """One query and one layer."""
    return np.array([[values]], dtype=np.float64)


# Rec2FTP

ZSL = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
FT = np.array([1, 0, 1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
ICL = np.array([1, 1, 1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)


def test_rec2ftp_by_hand():
    # Fine-tuning corrects four of the eight wrong ones, in-context learning three of these and four of the eight.
    found = rec2ftp(ZSL, FT, ICL)
    assert (found.value, found.expected, found.n, found.wrong) == (0.75, 0.5, 4, 8)
    assert (found.low, found.high) == wilson(3, 4)
    assert found.reason is None


def test_rec2ftp_expects_what_independence_gives():
    # ICL is right on every query that zero-shot has right, and on 30 % of the others, whatever fine-tuning does.
    rng = np.random.default_rng(0)
    n = 40_000
    zsl, ft = rng.random(n) < 0.6, rng.random(n) < 0.5
    icl = zsl | (rng.random(n) < 0.3)
    found = rec2ftp(zsl, ft, icl)
    assert found.value == pytest.approx(found.expected, abs=4 * math.sqrt(0.3 * 0.7 / found.n))
    assert found.value == pytest.approx(0.3, abs=0.03)
    assert icl.mean() > 0.7


@pytest.mark.parametrize(
    ("zsl", "ft", "reason", "expected"),
    [
        ([1, 0], [1, 0], "fine-tuning corrected no query", 1.0),
        ([1, 1], [1, 0], "zero-shot has no query wrong", None),
        ([], [], "zero-shot has no query wrong", None),
    ],
)
def test_rec2ftp_without_a_denominator_is_none_and_says_why(zsl, ft, reason, expected):
    found = rec2ftp(np.array(zsl, dtype=bool), np.array(ft, dtype=bool), np.ones(len(zsl), dtype=bool))
    assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)
    assert (found.reason, found.expected) == (reason, expected)


def test_repeatability_by_hand():
    # Six of ten are right or wrong alike; two independent passes, right on 5 and 7 of 10, would be on half of them.
    once = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    again = np.array([1, 1, 1, 1, 0, 1, 1, 1, 0, 0], dtype=bool)
    found = repeatability(once, again)
    assert (found.value, found.n) == (0.6, 10)
    assert found.expected == pytest.approx(0.5)
    assert (found.low, found.high) == wilson(6, 10)
    assert repeatability(once, once).value == repeatability(~once, ~once).value == 1.0
    assert repeatability(once[:0], once[:0]).value is None


def test_rec2ftp_does_not_know_the_order_of_queries():
    places = np.random.default_rng(1).permutation(len(ZSL))
    assert rec2ftp(ZSL[places], FT[places], ICL[places]) == rec2ftp(ZSL, FT, ICL)


# SimAOU


def test_sim_aou_by_hand():
    # z = (1, 0), updates (0, 1) and (0, -1): opposite. Normalised they share 1/sqrt(2) - 1 along z.
    runs = row(1, 1), row(1, 0), row(1, -1)
    assert one(sim_aou(*runs, normalised=False)) == pytest.approx(-1, abs=1e-15)
    assert one(sim_aou(*runs, normalised=True)) == pytest.approx(-math.sqrt(0.5), abs=1e-15)
    # Orthogonal updates with |r|^2 = 3 |z|^2, the example of the critique.
    runs = row(2, math.sqrt(12), 0), row(2, 0, 0), row(2, 0, math.sqrt(12))
    assert one(sim_aou(*runs, normalised=False)) == pytest.approx(0, abs=1e-15)
    assert one(sim_aou(*runs, normalised=True)) == pytest.approx(0.25, abs=1e-15)
    assert one(sim_aou_null(*runs)) == pytest.approx(0.25, abs=1e-15)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_sim_aou_is_that_of_loops(normalised, kind):
    runs = [run.astype(kind) for run in outputs()]
    found = sim_aou(*runs, normalised=normalised)
    assert found.values.dtype == np.float64
    assert found.defined.all()
    assert found.left_out == 0
    assert np.abs(found.values - plain_sim_aou(*runs, normalised)).max() < 1e-12


@pytest.mark.parametrize("normalised", [False, True])
def test_sim_aou_of_identical_runs_is_one(normalised):
    icl, zsl, _ = outputs()
    assert sim_aou(icl, zsl, icl, normalised=normalised).values == pytest.approx(1, abs=1e-12)


def test_sim_aou_of_opposite_updates_is_minus_one():
    icl, zsl, _ = outputs()
    assert sim_aou(icl, zsl, 2 * zsl - icl, normalised=False).values == pytest.approx(-1, abs=1e-12)


def test_normalised_sim_aou_does_not_know_the_length_of_outputs():
    icl, zsl, ft = outputs()
    other = sim_aou(7 * icl, zsl, ft, normalised=True).values
    assert other == pytest.approx(sim_aou(icl, zsl, ft, normalised=True).values, abs=1e-12)
    assert np.abs(sim_aou(7 * icl, zsl, ft, normalised=False).values - other).max() > 0.1


def test_an_update_of_no_length_has_no_direction():
    icl, zsl, ft = outputs()
    icl[0, 1] = zsl[0, 1]
    ft[2, 0] = zsl[2, 0] * (1 + 1e-9)
    ft[3, 2] = zsl[3, 2] * 2
    zsl[4, 1] = 0
    raw, normalised = (sim_aou(icl, zsl, ft, normalised=n) for n in (False, True))
    assert np.argwhere(~raw.defined).tolist() == [[0, 1], [2, 0]]
    assert raw.left_out == 2
    # Doubling an output moves it, but not once it is normalised; an output of zeros cannot be normalised.
    assert np.argwhere(~normalised.defined).tolist() == [[0, 1], [2, 0], [3, 2], [4, 1]]
    for found in (raw, normalised, sim_aou_null(icl, zsl, ft)):
        assert np.isfinite(found.values).all()
        assert found.left_out == (~found.defined).sum()
    assert (sim_aou_null(icl, zsl, ft).defined == normalised.defined).all()
    assert sim_aou(icl, zsl, ft, normalised=False, rounding=0.0).defined[2, 0]


def test_the_null_of_sim_aou_is_that_of_loops():
    icl, zsl, ft = outputs()
    found = sim_aou_null(icl, zsl, ft).values
    for q, layer in np.ndindex(Q, L):
        z = sum(zsl[q, layer] ** 2)
        s1, s2 = (math.sqrt(1 + sum((run[q, layer] - zsl[q, layer]) ** 2) / z) for run in (icl, ft))
        assert found[q, layer] == pytest.approx(0.5 * math.sqrt((1 - 1 / s1) * (1 - 1 / s2)), abs=1e-14)


def test_unrelated_updates_of_the_observed_lengths_give_the_null():
    icl, zsl, ft = outputs(q=300, layers=2, e=2048)
    drawn = sim_aou_simulated_null(icl, zsl, ft, seed=1)
    off = drawn.values - sim_aou_null(icl, zsl, ft).values
    # 1/e bounds the part of the error that more draws would not lessen.
    bound = 4 * standard_error(off) + 1 / 2048
    assert abs(off.mean()) < bound < 0.005
    assert sim_aou_null(icl, zsl, ft).values.mean() > 0.05


def test_unrelated_updates_agree_in_nothing_when_raw():
    icl, zsl, ft = outputs(q=300, layers=2, e=1024)
    drawn = sim_aou_simulated_null(icl, zsl, ft, seed=2, normalised=False).values
    mean, deviation = sim_aou_raw_null(1024)
    assert (mean, deviation) == (0.0, 1 / 32)
    assert abs(drawn.mean()) < 4 * deviation / math.sqrt(drawn.size)
    assert drawn.std() == pytest.approx(deviation, rel=4 / math.sqrt(2 * drawn.size))


@pytest.mark.parametrize("normalised", [True, False])
def test_the_aligned_null_is_what_is_shared_along_the_zero_shot_output(normalised):
    """Updates with a common part along z and orthogonal, unrelated rests: SimAOU is the null, exactly."""
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.normal(size=(Q, L, E, 3)))[0]
    z, one, other = (3 * basis[..., 0], *(basis[..., i] for i in (1, 2)))
    icl, ft = (z + a * z + b * rest for (a, b), rest in zip(((-0.4, 1.3), (-0.7, 0.6)), (one, other), strict=True))
    found = sim_aou(icl, z, ft, normalised=normalised)
    null = sim_aou_aligned_null(icl, z, ft, normalised=normalised)
    assert null.values == pytest.approx(found.values, abs=1e-12)
    assert found.values.min() > 0.05
    along = -0.4 * 3 / math.hypot(0.4 * 3, 1.3) * -0.7 * 3 / math.hypot(0.7 * 3, 0.6)
    if not normalised:
        assert null.values == pytest.approx(np.full((Q, L), along), abs=1e-12)
    upright = [z + b * rest for b, rest in ((1.3, one), (0.6, other))]
    expected = sim_aou_null(upright[0], z, upright[1]).values if normalised else np.zeros((Q, L))
    assert sim_aou_aligned_null(upright[0], z, upright[1], normalised=normalised).values == pytest.approx(
        expected, abs=1e-12
    )


def test_the_simulated_null_keeps_the_lengths(monkeypatch):
    icl, zsl, ft = outputs()
    seen = []
    monkeypatch.setattr(similarity, "sim_aou", lambda *runs, **more: seen.append(runs) or sim_aou(*runs, **more))
    sim_aou_simulated_null(icl, zsl, ft, seed=0)
    for drawn, run in ((seen[0][0], icl), (seen[0][2], ft)):
        length = np.linalg.norm(run - zsl, axis=-1)
        assert np.linalg.norm(drawn - zsl, axis=-1) == pytest.approx(length, rel=1e-12)
        assert np.abs(drawn - run).max() > 0.1


@pytest.mark.parametrize("normalised", [False, True])
def test_the_published_null_is_the_cosine_with_noise_that_is_not_centred(normalised):
    icl, zsl, _ = outputs(q=100, layers=2, e=1024)
    icl = icl + 0.5
    found = sim_aou_published_null(icl, zsl, 3, normalised=normalised).values
    runs = [run / np.linalg.norm(run, axis=-1, keepdims=True) if normalised else run for run in (icl, zsl)]
    update = runs[0] - runs[1]
    ones = update.sum(axis=-1) / np.linalg.norm(update, axis=-1) / 32
    off = found - math.sqrt(3) / 2 * ones
    assert abs(off.mean()) < 4 * standard_error(off) + 0.002
    assert found.mean() > 0.1
    assert np.abs(found).max() < 1


# SimAM


def test_sim_am_by_hand():
    # Heads: the same direction (cosine 1) and a right angle (cosine 0).
    a = [np.array([[[0.1, 0.2], [1.0, 0.0]]])]
    b = [np.array([[[0.2, 0.4], [0.0, 3.0]]])]
    assert one(sim_am(a, b)) == pytest.approx(0.5, abs=1e-15)
    # Updates of head 0: (1, 0) and (0, 1); of head 1: (1, 1) and (-1, -1).
    zsl = [np.array([[[5.0, 5.0], [0.0, 1.0]]])]
    icl, ft = [zsl[0] + [[[1, 0], [1, 1]]]], [zsl[0] + [[[0, 1], [-1, -1]]]]
    assert one(sim_am_delta(icl, zsl, ft)) == pytest.approx(-0.5, abs=1e-12)


def test_sim_am_is_that_of_loops():
    icl, zsl, ft = maps()
    assert np.abs(sim_am(icl, ft).values - plain_sim_am(icl, ft)).max() < 1e-12
    updates = [[run - z for run, z in zip(runs, zsl, strict=True)] for runs in (icl, ft)]
    assert np.abs(sim_am_delta(icl, zsl, ft).values - plain_sim_am(*updates)).max() < 1e-12


def test_padding_with_zeros_as_published_changes_no_cosine():
    icl, _, ft = maps()
    padded = [[np.pad(m, ((0, 0), (0, 0), (9 - m.shape[-1], 0))) for m in runs] for runs in (icl, ft)]
    assert sim_am(*padded).values == pytest.approx(sim_am(icl, ft).values, abs=1e-12)


def test_sim_am_of_identical_runs_is_one():
    icl, zsl, _ = maps()
    assert sim_am(icl, icl).values == pytest.approx(1, abs=1e-12)
    assert sim_am_delta(icl, zsl, icl).values == pytest.approx(1, abs=1e-12)


def test_heads_without_a_direction_are_left_out_and_counted():
    icl, zsl, ft = maps()
    whole = sim_am_delta(icl, zsl, ft)
    assert whole.left_out == 0
    icl[0][1, 2] = zsl[0][1, 2]
    ft[3][2] = zsl[3][2]
    found = sim_am_delta(icl, zsl, ft)
    assert found.left_out == 1 + 4
    assert np.argwhere(~found.defined).tolist() == [[3, 2]]
    rest = [runs[0][1:2, [0, 1, 3]] - zsl[0][1:2, [0, 1, 3]] for runs in (icl, ft)]
    assert found.values[0, 1] == pytest.approx(plain_sim_am(rest[:1], rest[1:])[0, 0], abs=1e-12)
    empty = sim_am([np.ones((L, 4, 0))], [np.ones((L, 4, 0))])
    assert (empty.left_out, empty.defined.any()) == (4 * L, False)


def test_the_permuted_map_has_one_order_for_all_heads_and_layers_of_a_query():
    rng = np.random.default_rng(0)
    a, b = ([np.tile(rng.normal(size=t), (L, 4, 1)) for t in (20, 30)] for _ in range(2))
    found = sim_am_permuted(a, b, 0).values
    assert found == pytest.approx(np.repeat(found[:, :1], L, axis=1), abs=1e-12)
    assert np.abs(found - sim_am(a, b).values).min() > 1e-3
    assert np.abs(sim_am_permuted(a, b, 1).values - found).min() > 1e-4


def test_a_permuted_map_agrees_in_its_offset_only():
    rng = np.random.default_rng(0)
    a = [rng.normal(size=(2, 4, 40)) for _ in range(200)]
    found = sim_am_permuted(a, a, 0).values
    # One of 40 tokens stays where it is, on average.
    assert abs(found.mean() - 1 / 40) < 4 * standard_error(found.mean(axis=1))
    raised = [m + 3 for m in a]
    # The cosine of two unrelated maps with mean 3 and deviation 1 is 9/10.
    assert sim_am_permuted(raised, raised, 0).values.mean() == pytest.approx(0.9, abs=0.01)


# What holds for all


def permutations():
    """Every measure on queries in two orders."""
    places = np.random.default_rng(1).permutation(Q)
    icl, zsl, ft = outputs()
    for normalised in (False, True):
        yield (
            sim_aou(icl, zsl, ft, normalised=normalised),
            sim_aou(icl[places], zsl[places], ft[places], normalised=normalised),
            places,
        )
    yield sim_aou_null(icl, zsl, ft), sim_aou_null(icl[places], zsl[places], ft[places]), places
    many = maps()
    moved = [[runs[i] for i in places] for runs in many]
    yield sim_am(many[0], many[2]), sim_am(moved[0], moved[2]), places
    yield sim_am_delta(*many), sim_am_delta(*moved), places
    two = token_maps()
    moved = [[runs[i] for i in places] for runs in two]
    for published in (False, True):
        yield kendall(*two, published=published), kendall(*moved, published=published), places
        before, after = (example_kendall(*runs, OWNERS, published=published) for runs in (two, moved))
        yield before, after, places
    yield top_k_recall(*two, 5), top_k_recall(*moved, 5), places


def test_permuting_queries_changes_nothing():
    for before, after, places in permutations():
        assert np.array_equal(after.values, before.values[places])
        assert (after.left_out, after.tied, after.pairs) == (before.left_out, before.tied, before.pairs)
        one, other = (summary(found.values, 0, defined=found.defined) for found in (before, after))
        assert other.each == tuple(one.each[i] for i in places)
        assert dataclasses.replace(one, each=()) == dataclasses.replace(other, each=())


def test_nothing_is_written_to_and_nulls_repeat_themselves():
    runs, many, two = outputs(), maps(), token_maps()
    for array in (*runs, *(m for own in (*many, *two) for m in own)):
        array.flags.writeable = False
    nulls = [
        lambda seed: sim_aou_published_null(runs[0], runs[1], seed),
        lambda seed: sim_aou_simulated_null(*runs, seed=seed),
        lambda seed: sim_am_permuted(many[0], many[2], seed),
        lambda seed: kendall_null(two[0], seed),
    ]
    for null in nulls:
        assert np.array_equal(null(0).values, null(0).values)
        assert not np.array_equal(null(0).values, null(1).values)
    sim_aou(*runs, normalised=True)
    sim_aou_null(*runs)
    sim_am_delta(*many)
    example_kendall(*two, OWNERS, published=True)


def test_no_queries_at_all():
    none = np.zeros((0, L, E))
    for found in (sim_aou(none, none, none, normalised=True), sim_am([], []), kendall([], []), top_k_recall([], [], 5)):
        assert len(found.values) == 0
        assert summary(found.values, 0, defined=found.defined).value is None


def test_what_is_found_cannot_be_assigned():
    with pytest.raises(dataclasses.FrozenInstanceError):
        rec2ftp(ZSL, FT, ICL).value = 1.0
