"""Three runs side by side: every number is that of whole prompts, at the right token."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import zoo
from small import films

from kshot.adapt.learners import whole_weights
from kshot.data.template import Template
from kshot.errors import MethodError, ModelError
from kshot.measure.similarity import sim_aou
from kshot.model.delta import NO_CHANGE, Delta
from kshot.model.lm import LM
from kshot.model.trace import traced
from kshot.study import likeness as likeness_module
from kshot.study import three_runs as runs_module
from kshot.study.likeness import likeness, trained
from kshot.study.three_runs import POSITIONS, RUNS, Texts, texts, walked

LAYOUTS = {
    "plain": Template(input="{{text}}\n:", separator="\n"),
    "described": Template(input="{{text}}\n:", separator=" # ", description="Films. "),
    "words": Template(input="{{text}}?", separator="\n\n", delimiter="", words={"bad": "no", "good": "yes"}),
}


def setting(lm: LM, layout: str = "plain", queries: int = 5) -> Texts:
    task = replace(films(), template=LAYOUTS[layout])
    return texts(lm, task, task.template, task.train[:3], task.test[:queries])


def change(lm: LM, scale: float = 0.02) -> Delta:
    learner = whole_weights(lm, ("k_proj", "v_proj"))
    drawn = torch.Generator().manual_seed(1)
    noise = {n: leaf + scale * torch.randn(leaf.shape, generator=drawn).to(leaf) for n, leaf in learner.leaves.items()}
    return learner.placed(noise).delta


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_prompts_end_with_the_query_text(tiny_lm: LM, layout: str) -> None:
    asked = setting(tiny_lm, layout)
    template, decode = LAYOUTS[layout], tiny_lm.codec.decode
    assert not asked.left_out
    for query, alone, after, shared, (prompt, answer) in zip(
        asked.queries, asked.alone, asked.after, asked.shared, asked.positions, strict=True
    ):
        text = template.render(query.fields) + template.answer("bad")
        assert alone[-shared:] == after[-shared:]
        assert decode(alone[-shared:]) == text
        assert decode(alone) == template.description + text
        assert (answer, decode(alone[: len(alone) + prompt + 1])) == (
            -1,
            template.description + template.render(query.fields),
        )
        shown = template.preamble([template.demonstration(e.fields, e.label) for e in films().train[:3]])
        assert decode(asked.tokens + after) == shown + text
    for a in range(3):
        said = decode([t for t, owner in zip(asked.tokens, asked.owner, strict=True) if owner == a])
        assert said.startswith(template.demonstration(films().train[a].fields, films().train[a].label).lstrip())


@pytest.mark.parametrize("few", [1, 2, 16])
def test_what_is_seen_is_what_whole_prompts_leave_behind(few: int, tiny_lm: LM) -> None:
    asked, delta = setting(tiny_lm), change(tiny_lm)
    batches = list(walked(tiny_lm, asked, delta, few=few))
    assert len(batches) == -(-len(asked.queries) // few)
    whole = [asked.tokens + after for after in asked.after]
    runs = {
        "zero-shot": list(traced(tiny_lm, asked.alone, asked.positions)),
        "fine-tuned": list(traced(replace(tiny_lm, delta=delta), asked.alone, asked.positions)),
        "in-context": list(traced(tiny_lm, whole, asked.positions)),
    }
    p = len(asked.tokens)
    for s in range(len(POSITIONS)):
        for run in RUNS:
            outputs = np.concatenate([batch[s].outputs[run] for batch in batches])
            assert outputs == pytest.approx(np.stack([one.outputs[:, s] for one in runs[run]]), abs=1e-4)
            maps = [m for batch in batches for m in batch[s].maps[run]]
            for i, found in enumerate(maps):
                last = asked.positions[i][s] + 1
                scores = runs[run][i].to_own[:, :, s]
                stop = scores.shape[-1] + last
                assert np.isfinite(found).all(), "up to the position, and no token after it"
                assert found == pytest.approx(scores[:, :, stop - found.shape[-1] : stop], abs=1e-4)
                assert found.shape[-1] == asked.shared[i] + last
        to_demonstrations = [m for batch in batches for m in batch[s].to_demonstrations]
        for found, one in zip(to_demonstrations, runs["in-context"], strict=True):
            assert found == pytest.approx(one.to_own[:, :, s, :p], abs=1e-4)
        last_queries = [m for batch in batches for m in batch[s].last_queries]
        for found, one in zip(last_queries, runs["fine-tuned"], strict=True):
            assert found == pytest.approx(one.queries[:, :, s], abs=1e-4)


def test_queries_of_two_readings_are_left_out(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runs_module._candidates
    calls: list[int] = []

    def changed(answers):
        return tuple(replace(one, tokens=(*one.tokens[:-3], 9, *one.tokens[-2:])) for one in answers)

    def other(*given):
        found = first(*given)
        calls.append(1)
        # After the demonstrations the last token of query 1 is another.
        return found if len(calls) % 2 else [changed(a) if i == 1 or not found[1:] else a for i, a in enumerate(found)]

    monkeypatch.setattr(runs_module, "_candidates", other)
    task = films()
    asked = texts(tiny_lm, task, task.template, task.train[:3], task.test[:3])
    assert asked.left_out == (task.test[1].id,)
    assert asked.queries == (task.test[0], task.test[2])
    with pytest.raises(MethodError, match="no query is tokenised alike alone and after the demonstrations"):
        texts(tiny_lm, task, task.template, task.train[:3], task.test[1:2])


def learned(lm: LM, asked: Texts, delta: Delta):
    """Query vectors drawn at random for the demonstrations' own tokens."""
    rows = [tuple(t for t, o in zip(asked.tokens, asked.owner, strict=True) if o == a)[:-1] for a in range(3)]
    shape = next(iter(traced(lm, asked.alone[:1], asked.positions[:1]))).queries.shape
    rng = np.random.default_rng(0)
    queries = [rng.normal(size=(shape[0], shape[1], len(row), shape[3])) for row in rows]
    return trained(asked, delta, rows, queries)


def test_training_tokens_are_those_that_stand_in_the_prefix(tiny_lm: LM) -> None:
    asked = setting(tiny_lm)
    found = learned(tiny_lm, asked, NO_CHANGE)
    for a in range(3):
        at = np.flatnonzero(asked.owner == a)
        assert found.places[found.owner == a].tolist() == at[:-1].tolist()
    assert found.queries.shape[2] == len(found.places) == len(found.owner)
    other = trained(asked, NO_CHANGE, [asked.tokens[:2], (250,), ()], [np.zeros((1, 1, n, 2)) for n in (2, 1, 0)])
    assert other.places.tolist() == [0, 1]


def test_rows_of_every_measure(tiny_lm: LM) -> None:
    asked, delta = setting(tiny_lm), change(tiny_lm)
    rows = likeness(tiny_lm, asked, learned(tiny_lm, asked, delta), seed=0, named=("rate corrected",))
    by_name = {(row["measure"], row["variant"], row["layer"]): row for row in rows}
    assert len(by_name) == len(rows)
    layers = tiny_lm.model.config.num_hidden_layers
    assert {row["measure"] for row in rows} == {
        "sim_aou",
        "sim_am",
        "sim_am_delta",
        "kendall",
        "example_kendall",
        "top_k_recall",
    }
    assert all(row["variant"].startswith("rate corrected, ") for row in rows)
    assert {row["layer"] for row in rows} == {None, *range(layers)}
    (batch,) = walked(tiny_lm, asked, delta)
    for s, position in enumerate(POSITIONS):
        zsl, ft, icl = (batch[s].outputs[run] for run in RUNS)
        expected = sim_aou(icl, zsl, ft, normalised=False).values
        row = by_name["sim_aou", f"rate corrected, {position}, raw, null: lengths kept", None]
        assert row["value"] == pytest.approx(expected.mean())
        assert (row["n"], row["low"] <= row["value"] <= row["high"]) == (5, True)
        normal = by_name["sim_aou", f"rate corrected, {position}, normalised, null: lengths kept", None]
        assert 0 < normal["null"] < 0.5
        after = by_name["sim_am", f"rate corrected, {position}, after fine-tuning", 0]
        assert after["null"] is not None
    assert all(a is not b for a, b in pairwise(rows))


def test_few_at_a_time_changes_no_value(tiny_lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, delta = setting(tiny_lm), change(tiny_lm)
    given = learned(tiny_lm, asked, delta)
    one = likeness(tiny_lm, asked, given, seed=0)
    monkeypatch.setattr(likeness_module, "walked", lambda *a: walked(*a, few=2))
    other = likeness(tiny_lm, asked, given, seed=0)
    assert [row["value"] for row in other] == pytest.approx([row["value"] for row in one], abs=1e-6, nan_ok=True)


def test_without_a_change_there_is_no_update(tiny_lm: LM) -> None:
    asked = setting(tiny_lm)
    rows = likeness(tiny_lm, asked, learned(tiny_lm, asked, NO_CHANGE), seed=0)
    updates = [row for row in rows if row["measure"] in ("sim_aou", "sim_am_delta") and row["layer"] is None]
    assert updates
    assert all(row["value"] is None and row["reason"] for row in updates)


def test_a_model_without_attention_to_see(tiny_lm: LM) -> None:
    lm = replace(zoo.lm("bloom"), codec=tiny_lm.codec)
    with pytest.raises(ModelError):
        next(walked(lm, setting(tiny_lm), NO_CHANGE))
