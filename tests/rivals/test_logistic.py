"""Logistic regression on tokens: what it learns, what it may not look at, and the published one beside it."""

from dataclasses import replace

import letters
import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from kshot.errors import MethodError
from kshot.rivals import logistic
from kshot.rivals.logistic import PENALTIES, corrected, published
from kshot.transform import TRANSFORMS
from kshot.transform.draw import draw

OWN = letters.tokens(letters.films(240))


def right(table: np.ndarray) -> float:
    return float((table.argmax(axis=1) == OWN.gold).mean())


def test_words_that_tell_are_learned() -> None:
    assert right(corrected(OWN, draw(OWN, 32, 0, "redrawn"), 0)) > 0.9


def test_each_query_has_the_regression_of_its_own_demonstrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "PENALTIES", (0.5,))
    drawn = draw(OWN, 12, 1, "redrawn")
    table = corrected(OWN, drawn, 0)
    for q in range(5):

        def counts(pieces):
            return np.array([np.bincount(piece.input, minlength=OWN.vocabulary) for piece in pieces])

        shown = [OWN.pool[i] for i in drawn[q]]
        model = LogisticRegression(C=0.5, max_iter=10_000).fit(counts(shown), [piece.shown for piece in shown])
        expected = model.predict_log_proba(counts([OWN.queries[q]]))[0]
        assert np.abs(table[q] - expected).max() < 1e-3


def test_a_permuted_vocabulary_changes_nothing() -> None:
    """It knows no language: only what goes together counts."""
    drawn = draw(OWN, 16, 0, "fixed")
    altered = TRANSFORMS["prompt-altered"](OWN, 3)
    assert np.abs(corrected(OWN, drawn, 0) - corrected(altered, drawn, 0)).max() < 1e-4


def test_other_names_of_labels_change_nothing() -> None:
    drawn = draw(OWN, 16, 0, "fixed")
    assert np.array_equal(corrected(OWN, drawn, 0), corrected(TRANSFORMS["response-altered"](OWN, 3), drawn, 0))


def test_no_query_is_looked_at() -> None:
    """The penalty and every other answer stay what they are whatever one query says."""
    drawn = draw(OWN, 16, 0, "fixed")
    changed = replace(OWN, queries=(replace(OWN.queries[0], input=OWN.pool[0].input, gold=1), *OWN.queries[1:]))
    assert np.array_equal(corrected(OWN, drawn, 0)[1:], corrected(changed, drawn, 0)[1:])


def test_a_label_that_was_not_shown_is_not_answered() -> None:
    only = np.array([i for i, piece in enumerate(OWN.pool) if piece.gold == 1][:6])
    table = corrected(OWN, np.repeat(only[None], len(OWN.queries), axis=0), 0)
    assert table[:, 1].tolist() == [0.0] * len(OWN.queries)
    assert (table[:, 0] < -10).all()


def test_a_pool_of_demonstrations_alone_has_a_penalty_too() -> None:
    few = replace(OWN, pool=OWN.pool[:8])
    table = corrected(few, np.repeat(np.arange(8)[None], len(OWN.queries), axis=0), 0)
    assert np.isfinite(table).all()


def test_demonstrations_without_answers_are_refused() -> None:
    with pytest.raises(MethodError, match="without answers teach a regression nothing"):
        corrected(TRANSFORMS["inputs-only"](OWN, 0), draw(OWN, 4, 0, "fixed"), 0)


TASK = letters.films(240)
TEXTS, GOLD = [str(e.fields["text"]) for e in TASK.test], OWN.gold
SHOWN = [str(e.fields["text"]) for e in TASK.train[:20]]
LABELS = np.array([piece.gold for piece in OWN.pool[:20]])


def test_as_published_it_is_the_best_of_the_grid_on_the_scored_examples() -> None:
    found = published(SHOWN, LABELS, TEXTS, GOLD)
    assert found.penalty in PENALTIES
    assert found.macro_f1 > 0.9
    # Chosen so, it gains from labels that nothing can be learned of.
    noise = np.random.default_rng(0).integers(2, size=len(GOLD))
    chosen = [published(SHOWN, np.random.default_rng(s).permutation(LABELS), TEXTS, noise).macro_f1 for s in range(4)]
    assert np.mean(chosen) > 0.5


def test_texts_without_words_are_read_by_characters() -> None:
    found = published(["好好", "坏坏"] * 4, np.array([0, 1] * 4), ["好", "坏"], np.array([0, 1]))
    assert found.macro_f1 == 1.0


def test_the_solvers_of_the_published_grid_seek_one_optimum() -> None:
    rng = np.random.default_rng(0)
    features = sparse.csr_matrix(rng.poisson(0.5, size=(20, 12)).astype(float))
    fits = [
        LogisticRegression(C=0.1, solver=solver, max_iter=100_000, tol=1e-7, random_state=0).fit(features, LABELS).coef_
        for solver in ("lbfgs", "saga", "sag")
    ]
    assert np.abs(fits[0] - fits[1]).max() < 1e-3
    assert np.abs(fits[0] - fits[2]).max() < 1e-3
