"""Faults planted in the engine: every answer as the plain forward of each whole sequence gives it.

They are planted after a model that is loaded already: at load it would notice them itself and read one sequence at a
time (tests/model/test_exact.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from planting import Plant, caught, like, suite

from kshot.model import attention, lm, merge, surgery, tree
from kshot.model.lm import LM


def test_a_fault_that_nothing_notices_is_itself_noticed() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        caught(lambda: None, lambda patch: None)


def _judged(model: LM, prefixed: bool = False) -> Callable[[], None]:
    """The comparison of tests/model/test_exact.py, for a model that is loaded already."""
    sequences = zoo.forest(np.random.default_rng(0), 37, 4)
    with torch.no_grad(), zoo.Pure64():
        expected = zoo.judge(model.model, sequences).numpy()
        # Right for 12 tokens, then something that no sequence goes on with.
        prefix = model.prefill((*sequences[0].tokens[:12], *([4] * 15))) if prefixed else lm.EMPTY

    def check() -> None:
        with zoo.Pure64():
            assert np.abs(model.score(sequences, prefix).sums() - expected).max() < 1e-9

    return check


def _uncut_prefix(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lm, "_common", lambda prefix, sequences: prefix.cut(min(s.start - 1 for s in sequences)))


def _wrong_sign(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merge, "torch", like(torch, sigmoid=lambda x: torch.sigmoid(-x)))


def _window_on_packed_places(patch: pytest.MonkeyPatch) -> None:
    in_force = attention.in_force
    patch.setattr(lm, "in_force", lambda current: in_force(replace(current, depth=np.arange(len(current.depth)))))


def _branches_see_each_other(patch: pytest.MonkeyPatch) -> None:
    own_part = merge.own_part
    patch.setattr(attention, "own_part", lambda depth, end, dtype: own_part(depth, np.full_like(end, len(end)), dtype))


def _positions_without_the_prefix(patch: pytest.MonkeyPatch) -> None:
    forward = LM.forward

    def shifted(self: LM, tokens: Any, current: Any, rows: Any) -> Any:
        if current is not None and current.before[0].prefix.length:
            current = replace(current, depth=current.depth - 1)
        return forward(self, tokens, current, rows)

    patch.setattr(LM, "forward", shifted)


@pytest.mark.parametrize(
    ("model", "prefixed", "plant"),
    [
        ("llama", True, _uncut_prefix),
        ("llama", False, _wrong_sign),
        ("mistral", False, _window_on_packed_places),
        ("llama", False, _branches_see_each_other),
        ("llama", False, _positions_without_the_prefix),
    ],
)
def test_faults_of_the_engine(model: str, prefixed: bool, plant: Plant) -> None:
    loaded = zoo.lm(model)
    assert loaded.route.kind == "tree"
    caught(_judged(loaded, prefixed), plant)


def test_a_pack_that_forgets_where_scoring_starts() -> None:
    def one_early(patch: pytest.MonkeyPatch) -> None:
        pack = tree._pack
        patch.setattr(tree, "_pack", lambda *given: replace(found := pack(*given), row_of=np.roll(found.row_of, 1)))

    caught(_judged(zoo.lm("llama")), one_early)


def _paths(change: Callable[[merge.Path], merge.Path]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        cut = merge.own_part

        def changed(*given: Any) -> merge.Own:
            own = cut(*given)
            return replace(own, paths=tuple(change(path) for path in own.paths))

        patch.setattr(suite("model/test_merge.py"), "own_part", changed)

    return plant


@pytest.mark.parametrize(
    "plant",
    [
        _paths(lambda path: replace(path, nodes=path.nodes[:-1])),
        _paths(lambda path: replace(path, begin=path.begin + 1)),
        _paths(lambda path: replace(path, nodes=path.nodes + 1)),
    ],
    ids=["a node short", "begun a node late", "a node further"],
)
def test_faults_of_paths(plant: Plant) -> None:
    check = suite("model/test_merge.py").test_equals_a_softmax_over_everything_seen
    caught(lambda: check("one path far after another", False), plant)


def _demonstrations_that_see_the_one_before(patch: pytest.MonkeyPatch) -> None:
    read = surgery.read_apart
    patch.setattr(suite("model/test_surgery.py"), "read_apart", lambda lm, tokens, owner: read(lm, tokens, owner // 2))


def _turned_the_wrong_way(patch: pytest.MonkeyPatch) -> None:
    turned = surgery.turned
    patch.setattr(surgery, "turned", lambda lm, keys, by: turned(lm, keys, -by))


def _moved_without_turning(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(surgery, "turned", lambda lm, keys, by: keys)


@pytest.mark.parametrize(
    ("check", "given", "plant"),
    [
        (
            "test_a_query_after_demonstrations_read_apart_is_that_of_a_mask_of_blocks",
            ("llama",),
            _demonstrations_that_see_the_one_before,
        ),
        ("test_demonstrations_apart_and_moved_are_those_read_there", ("llama", (2, 0, 1)), _turned_the_wrong_way),
        ("test_moved_demonstrations_keep_what_they_read", ("qwen3",), _moved_without_turning),
    ],
)
def test_faults_of_surgery(check: str, given: tuple[Any, ...], plant: Plant) -> None:
    caught(lambda: getattr(suite("model/test_surgery.py"), check)(*given), plant)
