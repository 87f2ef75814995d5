"""What grown language models are asked in context: by a network that copies, one that says nothing, and one that infers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.study.pretrain import corpus as corpora
from kshot.study.pretrain.corpus import Corpus, Tokens, corpus_of, in_tokens, words_of
from kshot.study.pretrain.going_on import going_on
from kshot.study.pretrain.in_context import in_context
from kshot.study.pretrain.plan import PLANS, Plan
from kshot.synth.grammar import inferred
from kshot.synth.networks.language import Language

PLAN: Plan = replace(PLANS["smoke"], context=60)
Answer = Callable[[np.ndarray], np.ndarray]
WEIGHTS = {"none": torch.zeros(1)}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(corpora, "_DRAWN", 200)
        patch.setattr(corpora, "_HELD_OUT", 5)
        return in_tokens(corpus_of(["ginc"]), 1_000, None, hides=False, at_most=True)


def network(tokens: Tokens, answer: Answer) -> Language:
    """A network whose logits are those of ``answer`` of one text, (t,) -> (t, v)."""
    size = tokens.marks.vocabulary

    def reads(weights: dict[str, Tensor], texts: Tensor, seen: Tensor | None) -> Tensor:
        return torch.from_numpy(np.stack([answer(row) for row in texts.numpy()]))

    def head(weights: dict[str, Tensor], known: Tensor) -> Tensor:
        assert known.shape[-1] == size
        return known

    return Language(start=lambda rng: {}, reads=reads, head=head)


def asked(tokens: Tokens, answer: Answer) -> dict[tuple[str, str], dict[str, object]]:
    rows, pictures = in_context(network(tokens, answer), WEIGHTS, tokens, PLAN, ("it", 0))
    assert all(np.isfinite(value) for own in pictures for line in own["lines"].values() for _, value in line)
    return {(row["measure"], row["variant"]): row for row in rows}


def test_who_says_nothing_is_at_chance(tokens: Tokens) -> None:
    size = tokens.marks.vocabulary
    rows = asked(tokens, lambda row: np.zeros((len(row), size), dtype=np.float32))
    words = len(np.unique(tokens.corpus.mixture.memory)) if tokens.corpus.mixture else 0
    assert rows["copy_nats", "it"]["null"] == pytest.approx(np.log(words)), "a token for each word, and no other"
    assert rows["copy_nats", "it"]["value"] == pytest.approx(np.log(size))
    for distance in (2, 4, 8, 16, 32):
        assert rows["nats_by_distance", f"it, {distance} tokens before"]["value"] == pytest.approx(np.log(size))
    assert ("nats_by_distance", "it, 64 tokens before") not in rows, "it reads no text of that length"
    assert rows["order_flips", "it, 8 examples"]["value"] == 0.0


def test_who_copies_is_right_at_every_distance(tokens: Tokens) -> None:
    size = tokens.marks.vocabulary

    def copies(row: np.ndarray) -> np.ndarray:
        found = np.zeros((len(row), size), dtype=np.float32)
        for t in range(len(row)):
            # Of a small vocabulary a token comes again by chance: two of them seldom.
            alike = [i for i in range(t) if row[i] == row[t]]
            closer = [i for i in alike if i and row[i - 1] == row[t - 1]]
            if alike:
                found[t, row[(closer or alike)[-1] + 1]] = 30.0
        return found

    rows = asked(tokens, copies)
    assert rows["copy_accuracy", "it"]["value"] > 0.9
    for distance in (2, 4, 8, 16, 32):
        assert rows["nats_by_distance", f"it, {distance} tokens before"]["value"] < 1e-6


@pytest.mark.parametrize("text", ["ababab", "aaaa"])
def test_a_text_of_few_kinds_of_tokens_is_asked_no_pairs(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path))
    corpus = Corpus(name="few", train=(text,), valid=(text,))
    few = in_tokens(corpus, 257, None, hides=False, at_most=True)
    rows = asked(few, lambda row: np.zeros((len(row), 257), dtype=np.float32))
    assert {measure for measure, _ in rows} == {"copy_nats", "copy_accuracy"}


def test_who_infers_answers_prompts_as_exact_inference_does(tokens: Tokens) -> None:
    mixture, size = tokens.corpus.mixture, tokens.marks.vocabulary
    assert mixture is not None
    used = np.unique(mixture.memory)
    ids = {i: tokens.tokenizer.encode(word).ids[0] for i, word in enumerate(words_of(mixture)) if i in used}
    back = {number: i for i, number in ids.items()}

    def infers(row: np.ndarray) -> np.ndarray:
        found = np.zeros((len(row), size), dtype=np.float32)
        if all(number in back for number in row[1:]):
            text = np.array([[back[number] for number in row[1:]]])
            found[-1, list(ids.values())] = inferred(mixture, text).following[0, -1, list(ids)]
        return found

    rows, pictures = in_context(network(tokens, infers), WEIGHTS, tokens, PLAN, ("it", 0))
    (drawn,) = [own for own in pictures if own["name"] == "prompts of the mixture answered"]
    assert drawn["lines"]["it"] == drawn["lines"]["exact inference"]
    (flips,) = [row for row in rows if row["measure"] == "order_flips"]
    assert 0 < flips["value"] < 0.5, "exact inference sees an order, too"


def test_who_copies_repeats_itself_and_who_draws_evenly_does_not(tokens: Tokens) -> None:
    size = tokens.marks.vocabulary

    def says(row: np.ndarray) -> np.ndarray:
        found = np.zeros((len(row), size), dtype=np.float32)
        # The most probable next token is always the same, and only by a little.
        found[:, 7] = 0.1
        return found

    rows, (drawn,) = going_on(network(tokens, says), WEIGHTS, tokens, PLAN, ("it", 0))
    by_way = {row["variant"]: row["value"] for row in rows if row["measure"] == "repeated"}
    assert by_way["it, greedy"] == pytest.approx(1 - 1 / 27), "one run of four, 27 times"
    assert by_way["it, as it is"] < 0.01
    assert 0 <= by_way["it, held-out text"] < 0.5
    ((points),) = drawn["lines"].values()
    assert sum(share for _, share in points) == pytest.approx(1.0)
