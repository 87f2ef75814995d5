"""The linear map from a label word's embedding to its answer's, by gradient descent: what a linear learner makes of tau_g."""

import numpy as np
from jaxtyping import Float, Int


def by_descent(
    inputs: Float[np.ndarray, "c e"],
    outputs: Float[np.ndarray, "c e"],
    counts: Int[np.ndarray, "c"],
    steps: int | None,
) -> Float[np.ndarray, "c c"]:
    """How near the image of each label's word is to the embedding of each answer: minus the squared distance, (query, option).

    ``counts`` says how often each label is demonstrated; ``steps`` are those of gradient descent from a map that is
    nought, on the mean of |W x - y|^2 / 2 over the demonstrations, each as long as the curvature allows (1 over its
    greatest eigenvalue); None is the limit, the least-squares map of least norm. Float64 throughout.

    Source: tau_g-Linear of Li et al. 2024, whose embeddings, loss and step size are not known; they take as many steps
    as the model has layers.
    """
    k = counts.sum()
    weights = counts / max(1, k)
    gram = inputs @ inputs.T
    # W = sum_i a_i x_i^T; the rows of a are coefficients on the inputs, so that everything happens in c x c.
    root = np.sqrt(weights)
    values, vectors = np.linalg.eigh(root[:, None] * gram * root[None, :])
    values = np.clip(values, 0.0, None)
    top = values.max(initial=0.0)
    if top <= 0:
        share = np.zeros_like(values)
    elif steps is None:
        share = np.where(values > top * 1e-10, 1.0 / np.where(values > top * 1e-10, values, 1.0), 0.0)
    else:
        # sum over t < T of eta (1 - eta v)^t, the descent's own geometric series.
        share = np.array([(1 - (1 - v / top) ** steps) / v if v > top * 1e-14 else steps / top for v in values])
    solved = vectors @ (share[:, None] * vectors.T)
    fitted = (gram * root[None, :]) @ solved @ (root[:, None] * outputs)
    return -((fitted[:, None, :] - outputs[None, :, :]) ** 2).sum(axis=-1)
