"""GINC: what is drawn follows the tables, and exact inference is the sum over all paths."""

import itertools

import numpy as np
import pytest

from kshot.errors import KshotError
from kshot.synth.grammar import DELIMITER, Ginc, best_answers, documents, examples, ginc, inferred

SMALL = ginc(1, vocabulary=4, shape=(2, 3), known=2, unknown=1)


def test_tables_are_what_they_are_called() -> None:
    mixture = ginc(0)
    assert mixture.memory.shape == (10, 10)
    assert (mixture.memory[:, 0] == DELIMITER).all()
    assert mixture.memory[:, 1:].min() >= 1
    assert mixture.memory.max() < 50
    assert mixture.slots.shape == (10, 10, 10)
    for matrix in (*mixture.slots, mixture.entities, *mixture.transitions()[:2]):
        assert matrix.sum(axis=1) == pytest.approx(np.ones(len(matrix)))
        assert matrix.min() >= 0
    # A mixture of permutations says as much of where one comes from as of where one goes.
    assert mixture.slots.sum(axis=1) == pytest.approx(np.ones((10, 10)))
    assert (np.diag(mixture.entities) >= 0.9).all()
    assert np.diag(ginc(0, keep=0.0).entities).max() < 0.9
    assert mixture.start.sum() == pytest.approx(1.0)
    assert mixture.start.max() / mixture.start.min() < 1.2


def test_transitions_of_a_state_are_those_of_its_entity_and_slot() -> None:
    whole = SMALL.transitions()
    for c, (v, s, w, r) in itertools.product(range(3), itertools.product(range(2), range(3), range(2), range(3))):
        assert whole[c, v * 3 + s, w * 3 + r] == pytest.approx(SMALL.entities[v, w] * SMALL.slots[c, s, r])
        assert SMALL.tokens[v * 3 + s] == SMALL.memory[v, s]


def test_the_same_seed_is_the_same_mixture_and_text() -> None:
    assert np.array_equal(ginc(3).memory, ginc(3).memory)
    assert not np.array_equal(ginc(3).memory, ginc(4).memory)
    one, other = documents(SMALL, 5, 6, 40), documents(SMALL, 5, 6, 40)
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    assert not np.array_equal(documents(SMALL, 6, 6, 40)[0], one[0])


def test_documents_are_of_known_concepts_and_follow_their_transitions() -> None:
    # Every token its own state, so that transitions can be counted.
    mixture = ginc(2, vocabulary=200, shape=(2, 4), known=2, unknown=1, keep=0.7)
    mixture = Ginc(vocabulary=8, memory=np.arange(8).reshape(2, 4), slots=mixture.slots, entities=mixture.entities,
                   start=mixture.start, known=2)  # fmt: skip
    found, concepts = documents(mixture, 0, 200, 500)
    assert set(concepts) == {0, 1}
    for c in (0, 1):
        own = found[concepts == c]
        counts = np.zeros((8, 8))
        np.add.at(counts, (own[:, :-1].ravel(), own[:, 1:].ravel()), 1)
        assert counts / counts.sum(axis=1, keepdims=True) == pytest.approx(mixture.transitions()[c], abs=0.02)
    start = np.bincount(found[:, 0], minlength=8) / len(found)
    assert start == pytest.approx(mixture.start, abs=0.1)


@pytest.mark.parametrize(("shots", "length"), [(0, 2), (1, 3), (3, 4)])
def test_prompts_are_examples_with_delimiters_between(shots: int, length: int) -> None:
    found = examples(ginc(0), 1, 50, shots=shots, length=length)
    assert found.tokens.shape == (50, shots * (length + 1) + length - 1)
    for i in range(shots):
        assert (found.tokens[:, i * (length + 1) + length] == DELIMITER).all()
    assert set(found.concepts) <= set(range(5))
    assert (examples(ginc(0), 1, 50, shots=1, length=3, of="unknown").concepts >= 5).all()


def test_examples_of_a_prompt_begin_in_one_slot() -> None:
    mixture = Ginc(vocabulary=8, memory=np.array([[0, 1, 2, 3], [0, 5, 6, 7]]), slots=np.full((2, 4, 4), 0.25),
                   entities=SMALL.entities, start=np.full(8, 1 / 8), known=2)  # fmt: skip
    found = examples(mixture, 0, 40, shots=5, length=3)
    slot_of = {1: 1, 5: 1, 2: 2, 6: 2, 3: 3, 7: 3}
    for row in found.tokens:
        firsts = row[::4]
        assert DELIMITER not in firsts
        assert len({slot_of[int(token)] for token in firsts}) == 1
    entities = {int(token) >= 5 for row in found.tokens for token in row[::4]}
    assert entities == {True, False}, "each with an entity of its own"


def paths(mixture: Ginc, tokens: np.ndarray, concept: int) -> dict[int, float]:
    """The probability of this text and each next token, by all paths of states."""
    whole, found = mixture.transitions()[concept], dict.fromkeys(range(mixture.vocabulary), 0.0)
    states = range(len(mixture.tokens))
    for path in itertools.product(states, repeat=len(tokens) + 1):
        if all(mixture.tokens[z] == token for z, token in zip(path, tokens, strict=False)):
            p = mixture.start[path[0]]
            for one, other in itertools.pairwise(path):
                p *= whole[one, other]
            found[int(mixture.tokens[path[-1]])] += p
    return found


def test_exact_inference_is_the_sum_over_all_paths() -> None:
    texts, _ = documents(SMALL, 0, 4, 3)
    found = inferred(SMALL, texts)
    for b, text in enumerate(texts):
        joint = [paths(SMALL, text, c) for c in range(2)]
        whole = np.array([sum(own.values()) for own in joint]) / 2
        assert found.concepts[b, -1] == pytest.approx(whole / whole.sum(), abs=1e-12)
        expected = np.array([sum(own[w] for own in joint) / 2 for w in range(4)]) / whole.sum()
        assert found.following[b, -1] == pytest.approx(expected, abs=1e-12)
        assert found.likelihood[b].sum() == pytest.approx(np.log(whole.sum()), abs=1e-10)


def test_posteriors_add_up_and_sharpen() -> None:
    mixture = ginc(0)
    texts, concepts = documents(mixture, 1, 60, 80)
    found = inferred(mixture, texts)
    assert found.concepts.sum(axis=2) == pytest.approx(np.ones((60, 80)))
    assert found.following.sum(axis=2) == pytest.approx(np.ones((60, 80)))
    right = found.concepts[np.arange(60), :, concepts].mean(axis=0)
    assert right[0] == pytest.approx(0.2, abs=0.05)
    assert right[-1] > 0.8
    assert np.isfinite(found.likelihood).all()


def test_an_impossible_text_leaves_the_concepts_as_they_were() -> None:
    mixture = Ginc(vocabulary=3, memory=np.array([[0, 1, 2]]), slots=np.stack([np.eye(3)[[1, 2, 0]], np.eye(3)[[2, 0, 1]]]),
                   entities=np.eye(1), start=np.array([0.0, 0.5, 0.5]), known=2)  # fmt: skip
    found = inferred(mixture, np.array([[1, 2, 2, 0]]))
    assert found.concepts[0, 1].tolist() == [1.0, 0.0]
    assert found.likelihood[0, 2] == -np.inf
    assert found.concepts[0, 2].tolist() == [1.0, 0.0]
    assert found.following[0, 2].tolist() == [1.0, 0.0, 0.0]


def test_answers_are_the_most_probable_for_who_knows_the_concept() -> None:
    found = examples(SMALL, 3, 30, shots=0, length=3)
    first = {tuple(row) for row in found.tokens}
    assert len(first) > 1
    for tokens, answer, concept in zip(found.tokens, found.answers, found.concepts, strict=True):
        best = set()
        # The first slot is not in the record: it is one of those that can emit the first token.
        for slot in range(1, 3):
            mass = dict.fromkeys(range(4), 0.0)
            for path in itertools.product(range(6), repeat=3):
                if path[0] % 3 == slot and all(SMALL.tokens[z] == t for z, t in zip(path, tokens, strict=False)):
                    whole = SMALL.transitions()[concept]
                    mass[int(SMALL.tokens[path[2]])] += whole[path[0], path[1]] * whole[path[1], path[2]]
            if sum(mass.values()) > 0:
                best.add(max(mass, key=lambda token: mass[token]))
        assert answer in best


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(KshotError, match="2 tokens and slots"):
        ginc(0, vocabulary=1)
    with pytest.raises(KshotError, match="what works is 2 or more"):
        examples(SMALL, 0, 3, shots=1, length=1)
    with pytest.raises(KshotError, match="give unknown=1 or more"):
        examples(ginc(0, unknown=0), 0, 3, shots=1, length=3, of="unknown")


def own_tokens() -> Ginc:
    """Every state its own token, so that a text tells its states."""
    return Ginc(vocabulary=8, memory=np.arange(8).reshape(2, 4), slots=ginc(2, shape=(10, 4), known=2, unknown=0).slots,
                entities=np.array([[0.7, 0.3], [0.2, 0.8]]), start=np.full(8, 1 / 8), known=2)  # fmt: skip


def test_examples_that_are_not_joined_go_on_as_documents() -> None:
    mixture = own_tokens()
    found = examples(mixture, 0, 3000, shots=3, length=3, joined=0.0)
    counts = np.zeros((2, 8, 8))
    np.add.at(counts, (found.concepts[:, None], found.tokens[:, :-1], found.tokens[:, 1:]), 1)
    assert counts / counts.sum(axis=2, keepdims=True) == pytest.approx(mixture.transitions(), abs=0.03)
    assert (found.tokens[:, 0] % 4 == found.first).all()


def test_the_share_of_joints_is_as_asked() -> None:
    mixture = own_tokens()
    for joined in (0.0, 0.3, 1.0):
        found = examples(mixture, 0, 4000, shots=2, length=3, joined=joined)
        begins = (found.tokens[:, 3] == DELIMITER) & (found.tokens[:, 4] % 4 == found.first)
        # A document too may be at the delimiter and the first slot after it.
        by_chance = examples(mixture, 0, 4000, shots=2, length=3, joined=0.0)
        chance = ((by_chance.tokens[:, 3] == DELIMITER) & (by_chance.tokens[:, 4] % 4 == by_chance.first)).mean()
        assert begins.mean() == pytest.approx(joined + (1 - joined) * chance, abs=0.03)


def test_best_answers_know_where_examples_begin() -> None:
    mixture = own_tokens()
    found = examples(mixture, 0, 300, shots=3, length=3, joined=0.5)
    # The last token is the state, and nothing else matters.
    step = mixture.transitions()[found.concepts, found.tokens[:, -1]]
    assert np.array_equal(found.answers, step.argmax(axis=1))
    # Of a token that two slots share, the text before it tells the slot only as far as it reaches.
    two = Ginc(vocabulary=4, memory=np.array([[0, 1, 1, 2]]), slots=np.eye(4)[[[1, 2, 3, 0]]], entities=np.eye(1),
               start=np.full(4, 1 / 4), known=1)  # fmt: skip
    tokens, none = np.array([[1, 1], [1, 1]]), np.zeros(2, dtype=int)
    begins = np.array([[True, False], [True, True]])
    assert best_answers(two, tokens, none, np.array([1, 1]), begins).tolist() == [2, 1]


def test_by_the_papers_text_every_way_is_possible_and_by_its_code_not() -> None:
    assert (ginc(0).slots > 0).mean() > 0.999
    coded = ginc(0, permutations=10)
    assert 0.25 < (coded.slots == 0).mean() < 0.45
    tokens, _ = documents(coded, 5, 60, 96)
    assert -inferred(coded, tokens).likelihood.mean() < 1.6
    assert -inferred(ginc(0), documents(ginc(0), 5, 60, 96)[0]).likelihood.mean() > 2.2
