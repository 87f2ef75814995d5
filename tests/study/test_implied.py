"""Demonstrations as a change of weights: with the query text of either pass, and as demonstrations are added."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import films

from kshot.data.template import Template
from kshot.errors import ModelError
from kshot.measure.implicit import effective_rank
from kshot.model.lm import LM
from kshot.model.trace import Trace, traced
from kshot.study import implied as module
from kshot.study.compared import Row, Setting
from kshot.study.implied import IN_CONTEXT, ZERO_SHOT, implied, read_alone

LAYOUTS = {
    "plain": Template(input="{{text}}\n:", separator="\n"),
    "described": Template(input="{{text}}\n:", separator=" # ", description="Films. "),
    "words": Template(input="{{text}}?", separator="\n\n", delimiter="", words={"bad": "no", "good": "yes"}),
}


def setting(lm: LM, layout: str = "plain") -> Setting:
    task = replace(films(), template=LAYOUTS[layout])
    return Setting(
        lm=lm, task=task, template=task.template, demonstrations=task.train[:4], queries=task.test[:3], seed=0
    )


def held(asked: Setting) -> tuple[Any, list[Trace]]:
    own = asked.texts()
    prefix = asked.lm.prefill(own.tokens)
    return prefix, list(traced(asked.lm, own.after, [at[:1] for at in own.positions], prefix))


def found(rows: Sequence[Row], measure: str, variant: str) -> dict[int | None, Row]:
    return {row["layer"]: row for row in rows if (row["measure"], row["variant"]) == (measure, variant)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_alone_the_text_is_the_same_in_the_first_layer_only(tiny_lm: LM, layout: str) -> None:
    asked = setting(tiny_lm, layout)
    prefix, after = held(asked)
    alone = read_alone(tiny_lm, asked.texts(), prefix, after)
    for layer, same in ((0, True), (1, False)):
        for i, (values, keys) in enumerate(alone[layer]):
            seen = values.shape[1]
            assert seen == after[i].keys.shape[2] + asked.texts().positions[i][0] + 1, "up to the position"
            pairs = ((values, after[i].values), (keys, after[i].keys))
            apart = max(float((one - torch.from_numpy(other[layer, :, :seen])).abs().max()) for one, other in pairs)
            assert (apart < 1e-5) == same, "above it the text has read the demonstrations"


@pytest.mark.parametrize("by", [-1, 1])
def test_a_text_moved_to_the_place_beside_it_is_caught(tiny_lm: LM, by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.turned
    monkeypatch.setattr(module, "turned", lambda lm, keys, places: right(lm, keys, places + by))
    with pytest.raises(AssertionError):
        test_alone_the_text_is_the_same_in_the_first_layer_only(tiny_lm, "plain")


def test_both_forms_are_told_and_agree_in_the_first_layer(tiny_lm: LM) -> None:
    rows, _ = implied(setting(tiny_lm))
    for measure in ("relaxed_cosine", "relaxed_r2", "relaxed_r2_centred"):
        one, other = (found(rows, measure, variant) for variant in (IN_CONTEXT, ZERO_SHOT))
        assert set(one) == set(other) == {None, 0, 1}
        assert one[0]["value"] == pytest.approx(other[0]["value"], abs=1e-4)
        assert one[0]["null"] == pytest.approx(other[0]["null"], abs=1e-4), "the same draws"
        assert abs(one[1]["value"] - other[1]["value"]) > 1e-3
        assert all(row["unit"] == "over heads" for row in (*one.values(), *other.values()))


def test_where_keys_cannot_be_moved_it_is_said(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(lm: LM, keys: Any, places: Any) -> Any:
        raise ModelError("keys of tiny cannot be moved")

    monkeypatch.setattr(module, "turned", none)
    rows, _ = implied(setting(tiny_lm))
    (row,) = found(rows, "relaxed_r2", ZERO_SHOT).values()
    assert (row["value"], row["reason"]) == (None, "keys of tiny cannot be moved")
    assert found(rows, "relaxed_r2", IN_CONTEXT)[None]["value"] is not None


def test_norm_and_rank_as_demonstrations_are_added(tiny_lm: LM) -> None:
    asked = setting(tiny_lm)
    rows, pictures = implied(asked)
    prefix, _ = held(asked)
    owner = asked.texts().owner
    for layer in range(2):
        for n in range(1, 5):
            own = owner < n
            heads = effective_rank(prefix.values[layer][0][:, own], prefix.keys[layer][0][:, own], owner[own].tolist())
            whole = np.mean([head[-1] for head in heads])
            assert pictures["effective_rank"]["layers"][layer][n - 1] == pytest.approx(whole)
    assert pictures["effective_rank"]["x"] == pictures["update_norm"]["x"] == [1, 2, 3, 4]
    for measure in ("update_norm", "effective_rank"):
        last = [layer[-1] for layer in pictures[measure]["layers"]]
        assert [found(rows, measure, "")[layer]["value"] for layer in range(2)] == last
