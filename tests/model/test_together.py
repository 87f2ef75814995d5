"""Sequences after different prefixes in one pass: as one prefix at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.model import attention
from kshot.model.lm import LM
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.tree import Scored, ancestors_or_self, joined, plan
from kshot.seeds import torch_stream

NAMES = ("llama", "gpt2", "mistral", "gemma2", "gemma3")


def soft(lm: LM, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(length, 32, generator=torch_stream(seed, "rows", length), dtype=torch.float64)


def groups(lm: LM, rows: list[torch.Tensor]) -> list[tuple[list[Scored], Prefix]]:
    """A group for each soft prompt, one without any, and one after a text that it shares."""
    rng = np.random.default_rng(0)
    found = [(zoo.forest(rng, 3 + i, 2), lm.prefill(own)) for i, own in enumerate(rows)]
    shared = zoo.forest(rng, 12, 2)
    return [*found, (zoo.forest(rng, 5, 1), EMPTY), (shared, lm.prefill(shared[0].tokens[:9]))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("tokens", "rows"), [(4096, 4096), (40, 9)])
@pytest.mark.parametrize("merge", [True, False])
def test_as_one_at_a_time(name: str, tokens: int, rows: int, merge: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = zoo.lm(name)
    if not merge:
        monkeypatch.setattr(attention, "_mergeable", lambda *_: False)
    with zoo.Pure64(), torch.no_grad():
        asked = groups(lm, [soft(lm, length) for length in (1, 5, 20)])
        alone = [lm.score(sequences, prefix).sums() for sequences, prefix in asked]
        found = replace(lm, tokens_per_pack=tokens, rows_per_pack=rows).score_together(asked).sums()
        back = lm.score_together(asked[::-1]).sums()
    assert np.abs(found - np.concatenate(alone)).max() < 1e-9
    assert np.abs(back - np.concatenate(alone[::-1])).max() < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_as_the_bare_model_reads_each(name: str) -> None:
    """The prompt's rows before the embedded tokens, one sequence at a time."""
    lm = zoo.lm(name)
    with zoo.Pure64(), torch.no_grad():
        prompts = [soft(lm, length) for length in (1, 5, 20)]
        asked = groups(lm, prompts)[:3]
        found = iter(lm.score_together(asked).sums())
        for (sequences, _), prompt in zip(asked, prompts, strict=True):
            for one in sequences:
                ids = torch.tensor([one.tokens])
                read = torch.cat([prompt[None], lm.model.get_input_embeddings()(ids)], dim=1)
                now = lm.model(inputs_embeds=read, use_cache=False).logits[0, len(prompt) :].log_softmax(-1)
                expected = sum(float(now[i - 1, one.tokens[i]]) for i in range(one.start, len(one.tokens)))
                assert abs(next(found) - expected) < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_each_prefix(name: str) -> None:
    lm = zoo.lm(name)
    rows = [soft(lm, length) for length in (1, 5, 20)]

    def total(together: bool) -> list[torch.Tensor]:
        leaves = [own.clone().requires_grad_(True) for own in rows]
        asked = groups(lm, leaves)
        parts = lm.stream_together(asked) if together else (p for s, prefix in asked for p in lm.stream(s, prefix))
        return list(torch.autograd.grad(sum(part.logprobs().sum() for part in parts), leaves))

    with zoo.Pure64():
        there, back = total(True), total(False)
    # A window may be too short for anything to be seen of a prompt.
    assert any(float(own.abs().max()) > 0 for own in back)
    for found, expected in zip(there, back, strict=True):
        assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_fewer_passes_than_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = zoo.lm("llama")
    asked = groups(lm, [soft(lm, 5), soft(lm, 20)])
    forward, passes = LM.forward, []
    monkeypatch.setattr(LM, "forward", lambda self, *a: passes.append(1) or forward(self, *a))
    lm.score_together(asked)
    # What the sequences of a group begin with is read once for each group.
    assert len(passes) == 1 + len(asked)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_joined_packs_are_packs_side_by_side(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    forests = [zoo.forest(rng, 2, size) for size in sizes]
    packs = [plan(own, tokens_per_pack=1 << 20, rows_per_pack=1 << 20).packs[0] for own in forests]
    firsts = np.cumsum([0, *(len(own) for own in forests)])[:-1].tolist()
    found = joined(packs, firsts)
    seen, at = ancestors_or_self(found.end), 0
    for pack, first, own in zip(packs, firsts, forests, strict=True):
        here = slice(at, at + len(pack.tokens))
        assert np.array_equal(seen[here, here], ancestors_or_self(pack.end))
        assert not seen[here, :at].any()
        assert not seen[here, here.stop :].any()
        assert np.array_equal(found.depth[here], pack.depth)
        at = here.stop
        for j, sequence in enumerate(own):
            member = int(np.flatnonzero(found.members == first + j)[0])
            begin, stop = found.bounds[member], found.bounds[member + 1]
            assert tuple(found.targets[begin:stop]) == sequence.tokens[sequence.start :]
            before = found.tokens[found.rows[found.row_of[begin:stop]]]
            assert tuple(before) == sequence.tokens[sequence.start - 1 : -1]
