"""Text with label tasks: batches are pure functions, answers are those of a slow reading, and no token is two things."""

import numpy as np
import pytest

from kshot.errors import KshotError, UnknownName
from kshot.synth.grammar import inferred
from kshot.synth.labelled import TASKS, labelled, passages_of, texts

TEXT = labelled(0, length=6, passages=3, sentinels=4)


def test_the_same_step_gives_the_same_documents() -> None:
    assert np.array_equal(texts(TEXT, 1, 7, 5), texts(TEXT, 1, 7, 5))
    assert not np.array_equal(texts(TEXT, 1, 7, 5), texts(TEXT, 1, 8, 5))
    assert not np.array_equal(texts(TEXT, 1, 7, 5), texts(TEXT, 2, 7, 5))


def test_every_token_is_one_thing() -> None:
    parts = [range(TEXT.mixture.vocabulary), [TEXT.question], *TEXT.labels.values(), TEXT.spans, [TEXT.end]]
    every = [token for part in parts for token in part]
    assert sorted(every) == list(range(TEXT.vocabulary))


def test_documents_ask_one_question_throughout_and_answer_it() -> None:
    rows = texts(TEXT, 0, 0, 200)
    assert rows.shape == (200, TEXT.tokens)
    assert (rows[:, -1] == TEXT.end).all()
    kinds = []
    for row in rows:
        passages = row[:-1].reshape(TEXT.passages, TEXT.length + 2)
        assert (passages[:, -2] == TEXT.question).all()
        [kind] = {name for name, own in TEXT.labels.items() for token in passages[:, -1] if token in own}
        kinds.append(kind)
        labels = [TEXT.labels[kind].index(token) for token in passages[:, -1]]
        if kind != "concept":
            assert labels == [int(own[0 if kind == "first" else -3]) % 3 for own in passages]
    assert min(kinds.count(name) for name in TASKS) > 40


def test_labels_of_concepts_are_what_exact_inference_finds() -> None:
    long = labelled(0, length=40, passages=1, sentinels=4)
    found = passages_of(long, "concept", 3, 300)
    assert (found.exact.argmax(axis=1) == found.answers).mean() > 0.99
    assert np.allclose(found.exact, inferred(long.mixture, found.tokens).concepts[:, -1])
    rows = [row for row in texts(long, 0, 0, 300) if row[-2] in long.labels["concept"]]
    posterior = inferred(long.mixture, np.array(rows)[:, : long.length]).concepts[:, -1]
    labels = [long.labels["concept"].index(row[-2]) for row in rows]
    assert (posterior.argmax(axis=1) == labels).mean() > 0.99


def test_groups_of_passages() -> None:
    for task, place in (("first", 0), ("last", -1)):
        found = passages_of(TEXT, task, 3, 50)
        assert np.array_equal(found.answers, found.tokens[:, place] % 3)
        assert np.array_equal(found.exact.argmax(axis=1), found.answers)


def test_what_does_not_go() -> None:
    with pytest.raises(UnknownName, match="middle"):
        passages_of(TEXT, "middle", 0, 1)
    with pytest.raises(KshotError, match="a passage of 2 tokens"):
        labelled(0, length=1, passages=1, sentinels=4)
