"""Logistic regression on the tokens of demonstrations: what can be learned from them without knowing any language."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from kshot.errors import MethodError
from kshot.seeds import stream
from kshot.transform.written import Piece, Written

# The grid of the released code of Li et al. 2024.
PENALTIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_CHARACTERS, _WORDS = (1, 2, 3, 4), (1, 2)
_MOST_CHARACTERS, _MOST_WORDS, _STEPS = 50_000, 10_000, 10_000
# log P of a label that no demonstration showed.
_NEVER = -50.0
# The penalty is chosen on so many draws of demonstrations, and on so many other examples of the pool after each.
_DRAWS, _ASKED = 8, 32
# Where the pool holds no others.
_DEFAULT = 1.0


def corrected(written: Written, drawn: Int[np.ndarray, "q k"], seed: int) -> Float[np.ndarray, "q c"]:
    """log P of every label (nats) by a regression on how often each token occurs in the demonstrations of each query.

    The tokens are those that a model would read, permuted where theirs are; the penalty is the one of PENALTIES with the
    least log-loss on examples of the pool that are not among the demonstrations, over other draws of as many. No query
    is looked at. Corrects Li et al. 2024 (released code), see ``published``.
    """
    counted = _Counted.of(written)
    penalty = _chosen(counted, drawn.shape[1], stream(seed, "regression", written.name))
    table = np.empty((len(written.queries), len(written.labels)))
    rows, which = np.unique(drawn, axis=0, return_inverse=True)
    for i, row in enumerate(rows):
        asked = np.flatnonzero(which.ravel() == i)
        table[asked] = counted.answered(row, counted.queries[asked], penalty)
    return table


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    """How often each token occurs in the inputs of the pool and of the queries, and the label that each shows."""

    pool: sparse.csr_matrix
    queries: sparse.csr_matrix
    shown: Int[np.ndarray, "n"]
    labels: int

    @staticmethod
    def of(written: Written) -> "_Counted":
        if any(piece.shown is None for piece in written.pool):
            raise MethodError(f"task {written.name!r}: demonstrations without answers teach a regression nothing")
        shown = np.array([piece.shown for piece in written.pool], dtype=np.int64)
        pool, queries = (_counts(pieces, written.vocabulary) for pieces in (written.pool, written.queries))
        return _Counted(pool, queries, shown, len(written.labels))

    def answered(
        self, rows: Int[np.ndarray, "k"], asked: sparse.csr_matrix, penalty: float
    ) -> Float[np.ndarray, "q c"]:
        """log P of every label for rows of counts, learned from some of the pool."""
        found = np.full((asked.shape[0], self.labels), _NEVER)
        labels = self.shown[rows]
        known = np.unique(labels)
        if len(known) == 1:
            found[:, known] = 0.0
            return found
        features = self.pool[rows]
        # Of a token that no demonstration has nothing is learned: its weight is nought.
        seen = np.unique(features.indices)
        # A few hundred columns: sparse ones would take longer than the fit.
        model = _fitted(features[:, seen].toarray(), labels, penalty)
        logits = model.decision_function(asked[:, seen].toarray())
        if logits.ndim == 1:
            logits = np.stack([np.zeros(len(logits)), logits], axis=1)
        found[:, known] = log_softmax(logits, axis=1)
        return found


def _counts(pieces: Sequence[Piece], vocabulary: int) -> sparse.csr_matrix:
    lengths = [len(piece.input) for piece in pieces]
    columns = np.array([token for piece in pieces for token in piece.input], dtype=np.int64)
    rows = np.repeat(np.arange(len(pieces)), lengths)
    return sparse.csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(pieces), vocabulary))


def _chosen(counted: _Counted, shots: int, rng: np.random.Generator) -> float:
    if len(counted.shown) <= shots:
        return _DEFAULT
    losses = dict.fromkeys(PENALTIES, 0.0)
    for _ in range(_DRAWS):
        order = rng.permutation(len(counted.shown))
        rows, rest = order[:shots], order[shots : shots + _ASKED]
        for penalty in losses:
            found = counted.answered(rows, counted.pool[rest], penalty)
            losses[penalty] -= float(found[np.arange(len(rest)), counted.shown[rest]].sum())
    # Of equals the strongest penalty.
    return min(losses, key=losses.__getitem__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The best macro-F1 on the scored examples that any cell of the grid has, and which cell that was."""

    macro_f1: float
    penalty: float
    characters: int
    words: int


def published(
    shown: Sequence[str], labels: Int[np.ndarray, "k"], asked: Sequence[str], gold: Int[np.ndarray, "q"]
) -> Published:
    """The rival as published: words and characters of the text as it stands, the grid chosen on the scored examples.

    Counts of runs of up to 1 or 2 words (without English stop words) beside those of up to 1 to 4 characters. Source:
    Li et al. 2024, released code, which takes the greatest macro-F1 of the grid on the test set and, for the prompt-altered
    task too, the text before it was altered: both faults are kept here. Departs in that only L-BFGS is run: the
    other solvers of the grid seek the same optimum.
    """
    found = []
    for characters, words in product(_CHARACTERS, _WORDS):
        parts = (
            CountVectorizer(analyzer="char", ngram_range=(1, characters), max_features=_MOST_CHARACTERS),
            CountVectorizer(stop_words="english", ngram_range=(1, words), max_features=_MOST_WORDS),
        )
        features, others = [], []
        for part in parts:
            try:
                features.append(part.fit_transform(shown))
                others.append(part.transform(asked))
            except ValueError:
                # Texts of stop words alone, or in a script without blanks, have no words: the characters are left.
                continue
        for penalty in PENALTIES:
            model = _fitted(sparse.hstack(features, "csr"), labels, penalty)
            score = float(f1_score(gold, model.predict(sparse.hstack(others, "csr")), average="macro"))
            found.append(Published(macro_f1=score, penalty=penalty, characters=characters, words=words))
    return max(found, key=lambda one: one.macro_f1)


def _fitted(
    features: sparse.csr_matrix | np.ndarray, labels: Int[np.ndarray, "k"], penalty: float
) -> LogisticRegression:
    with warnings.catch_warnings():
        # A weak penalty on few examples that can be told apart has its optimum far out; where the steps end there is near enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=_STEPS).fit(features, labels)
