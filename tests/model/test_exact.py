"""The engine against its judge: every answer as the plain forward of each whole sequence gives it."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.model.lm import LM
from kshot.model.merge import own_part
from kshot.model.tree import Scored


def small(lm: LM, tokens: int = 64) -> LM:
    return replace(lm, tokens_per_pack=tokens)


@pytest.fixture(scope="module")
def llama() -> LM:
    return zoo.lm("llama")


@pytest.mark.parametrize("name", [*zoo.TREE, *zoo.ROWS])
@pytest.mark.parametrize(("prefix", "queries"), [(0, 3), (37, 4), (5, 1)])
def test_equals_whole_sequences_in_float64(name, prefix, queries):
    lm = small(zoo.lm(name))
    assert lm.route.kind == ("tree" if name in zoo.TREE else "rows"), lm.route.reason
    sequences = zoo.forest(np.random.default_rng(prefix), prefix, queries)
    with torch.no_grad(), zoo.Pure64():
        expected = zoo.judge(lm.model, sequences).numpy()
        found = lm.score(sequences).sums()
    assert np.abs(found - expected).max() < 1e-9


@pytest.mark.parametrize("name", [*zoo.TREE, *zoo.ROWS])
def test_equals_whole_sequences_in_float32(name):
    lm = small(zoo.lm(name, torch.float32))
    sequences = zoo.forest(np.random.default_rng(1), 37, 4)
    with torch.no_grad():
        expected = zoo.judge(lm.model, sequences).numpy()
    assert np.abs(lm.score(sequences).sums() - expected).max() < 1e-4


@pytest.mark.parametrize("name", zoo.TREE)
def test_dense_and_merged_paths_agree(name, monkeypatch):
    lm = zoo.lm(name)
    assert lm.route.kind == "tree"
    sequences = zoo.forest(np.random.default_rng(2), 30, 3)
    merged = lm.score(sequences).sums()
    monkeypatch.setattr("kshot.model.attention._mergeable", lambda *_: False)
    dense = lm.score(sequences).sums()
    # The models' own float32 casts round the two apart; a wrong mask would show in the first digits.
    assert np.abs(merged - dense).max() < 1e-5


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "gemma2", "deepseek-mla"])
def test_gradients_through_a_prefix_equal_those_of_whole_sequences(name):
    lm = small(zoo.lm(name), 48)
    sequences = zoo.forest(np.random.default_rng(3), 12, 3)
    embeddings = lm.model.get_input_embeddings()
    weight = embeddings.weight.requires_grad_(True)
    try:
        with zoo.Pure64():
            (expected,) = torch.autograd.grad(zoo.judge(lm.model, sequences).sum(), weight)
            total = sum(part.logprobs().sum() for part in lm.stream(sequences))
            (found,) = torch.autograd.grad(total, weight)
    finally:
        weight.requires_grad_(False)
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


def test_answers_do_not_depend_on_the_order_of_the_sequences(llama):
    sequences = zoo.forest(np.random.default_rng(4), 9, 5)
    order = np.random.default_rng(5).permutation(len(sequences))
    there = llama.score(sequences).sums()
    back = llama.score([sequences[i] for i in order]).sums()
    assert np.abs(there[order] - back).max() < 1e-12


@settings(max_examples=25, deadline=None)
@given(budget=st.integers(1, 300), rows=st.integers(1, 40), seed=st.integers(0, 1000), taken=st.integers(1, 20))
def test_packing_and_company_change_nothing(llama, budget, rows, seed, taken):
    sequences = zoo.forest(np.random.default_rng(seed), seed % 20, 4)
    alone = llama.score(sequences[:taken]).sums()
    packed = replace(llama, tokens_per_pack=budget, rows_per_pack=rows).score(sequences).sums()[:taken]
    assert np.abs(alone - packed).max() < 1e-12


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 40), seed=st.integers(0, 100))
def test_a_prefix_is_cut_to_what_is_shared_and_stays_as_it_was(llama, length, seed):
    sequences = zoo.forest(np.random.default_rng(seed), 20, 3)
    # Right for the first tokens, then something that no sequence goes on with.
    tokens = (*sequences[0].tokens[: min(length, 20)], *([4] * max(0, length - 20)))
    prefix = llama.prefill(tokens)
    before = [hashlib.sha256(k.numpy().tobytes()).hexdigest() for k in (*prefix.keys, *prefix.values)]
    first, second = llama.score(sequences, prefix).sums(), llama.score(sequences, prefix).sums()
    after = [hashlib.sha256(k.numpy().tobytes()).hexdigest() for k in (*prefix.keys, *prefix.values)]
    assert np.abs(first - llama.score(sequences).sums()).max() < 1e-12
    assert np.array_equal(first, second)
    assert before == after
    assert prefix.length == len(tokens)


def test_a_prefix_without_tokens_stands_before_everything(llama):
    sequences = zoo.forest(np.random.default_rng(6), 15, 3)
    prefix = replace(llama.prefill(sequences[0].tokens[:10]), tokens=None)
    after = [Scored(s.tokens[10:], s.start - 10) for s in sequences]
    assert np.abs(llama.score(after, prefix).sums() - llama.score(sequences).sums()).max() < 1e-12


def test_every_distinct_token_is_run_once(llama):
    sequences = zoo.forest(np.random.default_rng(7), 50, 6)
    distinct = {s.tokens[: i + 1] for s in sequences for i in range(len(s.tokens) - 1)}
    assert llama.score(sequences).tokens == len(distinct)


def test_the_model_is_left_as_it_was(llama):
    def state():
        return {n: hashlib.sha256(p.numpy().tobytes()).hexdigest() for n, p in llama.model.named_parameters()}

    before = state()
    llama.score(zoo.forest(np.random.default_rng(8), 10, 3))
    llama.greedy([(3, 4, 5), (3, 4, 6, 7)], lambda text: False, 4)
    assert state() == before


@pytest.mark.parametrize("guessed", [False, True])
@pytest.mark.parametrize("name", ["gemma3", "bloom"])
def test_greedy_answers_equal_the_plain_argmax(name, guessed):
    lm = zoo.lm(name)
    prompts = [(3, 4, 5, 6), (3, 4, 5, 7, 8), (3, 9)]
    guesses = [(), (5, 5), (6,)]
    if guessed:  # one right to the end, one that goes wrong on the way, one wrong from the start
        right = [tuple(ord(c) - 64 for c in text) for text in lm.greedy(prompts, lambda _: False, 5).texts]
        guesses = [right[0], (*right[1][:2], 3, 3), (right[2][0] + 1,)]
    found = lm.greedy(prompts, lambda text: len(text) >= 5, 10, guess=lambda i, answer: guesses[i][len(answer) :]).texts
    for prompt, answer in zip(prompts, found, strict=True):
        tokens = prompt
        with torch.no_grad():
            while len(tokens) < len(prompt) + 5:
                best = int(lm.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())
                if best == 2:
                    break
                tokens = (*tokens, best)
        assert answer == lm.codec.decode(tokens[len(prompt) :])


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "deepseek-mla"])
@pytest.mark.parametrize("lots", [False, True])
def test_greedy_answers_read_every_token_once(name, lots):
    """Of unequal prompts, with a text's prefix, a free one and none: the plain argmax, and no token is run twice."""
    lm = zoo.lm(name)
    rng = np.random.default_rng(0)
    begun = tuple(rng.integers(3, 90, 9).tolist())
    prompts = [begun + tuple(rng.integers(3, 90, n).tolist()) for n in (12, 1, 7, 20)]
    cut = [p[4:] for p in prompts]
    lm = replace(lm, tokens_per_pack=48) if lots else lm
    lm.model.generation_config.eos_token_id = None
    with zoo.Pure64(), torch.no_grad():
        expected = []
        for prompt in prompts:
            tokens = prompt
            for _ in range(6):
                tokens = (*tokens, int(lm.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
            expected.append(tokens[len(prompt) :])
        right = [lm.codec.decode(answer[: answer.index(2)] if 2 in answer else answer) for answer in expected]
        free = replace(lm.prefill(begun[:4]), tokens=None)
        known = [answer[:2] for answer in expected]
        found = lm.greedy(prompts, lambda _: False, 6)
        assert list(found.texts) == right
        assert list(lm.greedy(cut, lambda _: False, 6, prefix=free).texts) == right
        assert list(lm.greedy(prompts, lambda _: False, 6, prefix=lm.prefill(prompts[0]), known=known).texts) == right
        guessed = lm.greedy(prompts, lambda _: False, 6, guess=lambda i, answer: (*expected[i][len(answer) : 3], 5, 6))
        assert list(guessed.texts) == right
    if not any(2 in answer for answer in expected):
        distinct = {prompt[: i + 1] for prompt in prompts for i in range(len(prompt))}
        assert found.tokens == len(distinct) + 4 * (6 - 1)


def test_without_a_pass_the_model_answers_bit_for_bit_as_before():
    plain, seamed = zoo.model("gemma3", torch.float32), zoo.lm("gemma3", torch.float32).model
    ids = torch.randint(3, 90, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 30:] = 0
    with torch.no_grad():
        assert torch.equal(
            plain(input_ids=ids, attention_mask=mask).logits, seamed(input_ids=ids, attention_mask=mask).logits
        )


def test_a_wrong_seam_is_found_at_load_and_said(monkeypatch):
    # The planted fault: branches see each other.
    monkeypatch.setattr("kshot.model.attention.own_part", lambda d, e, t: own_part(d, np.full_like(e, len(e)), t))
    lm = zoo.lm("llama")
    assert lm.route.kind == "rows"
    assert "differ by" in lm.route.reason
