"""Logistic regression on a few examples, and how strong its penalty should be (scikit-learn)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from kshot.errors import MethodError
from kshot.model.classifier import succession

# scikit-learn's C, the inverse of the weight of the penalty: what cross-validation chooses from, and what stands where
# it cannot choose. All features have a length of about 1, so it means the same for every model and number of terms.
GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)
DEFAULT = 10.0
FOLDS = 5

Lay = Callable[[Int[np.ndarray, "n"]], Any]
"""From the rows that may be looked at to the features of all rows: an array or a sparse matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A regression and how it was found; ``steps`` are those of L-BFGS, 0 where there was nothing to be fitted."""

    weights: Float[np.ndarray, "r n"]
    bias: Float[np.ndarray, "r"]
    steps: int = 0
    converged: bool = True
    c: float | None = None
    search: tuple[dict[str, Any], ...] = ()
    validation: str = ""
    notes: tuple[str, ...] = ()


def regression(lay: Lay, label_of: Int[np.ndarray, "k"], labels: int, c: float | None) -> Fitted:
    """The regression on all rows, its penalty as asked, else chosen by cross-validation, else DEFAULT."""
    rows = np.arange(len(label_of))
    features = lay(rows)
    if labels == 1:
        return Fitted(weights=np.zeros((0, features.shape[1])), bias=np.zeros(0))
    search: list[dict[str, Any]] = []
    said = f"c = {c:g}, as asked" if c is not None else ""
    validation = ""
    if c is None and np.bincount(label_of).min() >= 2:
        folds = _folds(label_of)
        search = [_tried(lay, label_of, folds, value) for value in GRID]
        # Of equals the first: the strongest penalty.
        best = min(search, key=lambda one: one["loss"])
        c = float(best["c"])
        validation = f"{folds.max() + 1}-fold cross-validation within the {len(label_of)} examples"
        said = f"c = {c:g}, the best of {', '.join(f'{v:g}' for v in GRID)} by {validation} ({best['loss']:.3g} nats)"
    elif c is None:
        c = DEFAULT
        said = f"c = {c:g}, the default: a label has a single example, so there is no cross-validation"
    model, converged = _fit(features, label_of, c)
    notes = (said,) if converged else (said, f"the regression had not converged after {int(model.n_iter_.max())} steps")
    return Fitted(
        weights=model.coef_,
        bias=model.intercept_,
        steps=int(model.n_iter_.max()),
        converged=converged,
        c=c,
        search=tuple(search),
        validation=validation,
        notes=notes,
    )


def _folds(label_of: Int[np.ndarray, "k"]) -> Int[np.ndarray, "k"]:
    """The fold of every example: those of a label take turns, so a label with two is in every training part."""
    turn = np.array([(label_of[:i] == label).sum() for i, label in enumerate(label_of)])
    return turn % min(FOLDS, int(turn.max()) + 1)


def _tried(lay: Lay, label_of: Int[np.ndarray, "k"], folds: Int[np.ndarray, "k"], c: float) -> dict[str, Any]:
    """The mean log-loss (nats) and accuracy of one penalty on the examples left out of each fold."""
    losses, right, steps = np.zeros(len(label_of)), np.zeros(len(label_of)), 0
    for fold in range(folds.max() + 1):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        features = lay(inside)
        model, _ = _fit(features[inside], label_of[inside], c)
        logits = model.decision_function(features[outside])
        if logits.ndim == 1:
            logits = np.stack([np.zeros(len(outside)), logits], axis=1)
        table = log_softmax(logits, axis=1)
        losses[outside] = -table[np.arange(len(outside)), label_of[outside]]
        right[outside] = table.argmax(axis=1) == label_of[outside]
        steps += int(model.n_iter_.max())
    return {"c": c, "loss": float(losses.mean()), "accuracy": float(right.mean()), "steps": steps}


def _fit(features: Any, label_of: Int[np.ndarray, "k"], c: float) -> tuple[Any, bool]:
    """The regression, and whether it converged; L-BFGS from zero weights draws nothing at random."""
    # It takes a second to import: whoever prompts and nothing else does not wait for it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(record=True) as caught:
        # With an example for each label, as open tasks have, scikit-learn takes labels for quantities and says so.
        warnings.simplefilter("always")
        model = LogisticRegression(C=c, tol=1e-6, max_iter=2000).fit(features, label_of)
    return model, not any(issubclass(one.category, ConvergenceWarning) for one in caught)


def by_frequency(label_of: Int[np.ndarray, "k"], labels: int) -> Fitted:
    """Without a single term: what is common stays common."""
    said = ("no example has a word in it: the answer is the commonest label",)
    prior = succession(np.bincount(label_of, minlength=labels))
    bias = prior if labels > 2 else prior[1:] - prior[0]
    return Fitted(weights=np.zeros((len(bias), 0)), bias=bias, notes=said)


def check_penalty(c: float | None) -> None:
    if c is not None and not 0 < c < float("inf"):
        raise MethodError(f"asked for c = {c:g}; what works is a number above 0 (the greater, the weaker the penalty)")
