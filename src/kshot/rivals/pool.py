"""Bayes over a pool of known tasks: which of them the demonstrations are of, and what they answer together."""

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp


def posterior(loglik: Float[np.ndarray, "n t"]) -> Float[np.ndarray, "n1 t"]:
    """log p(task | the first i demonstrations), i from 0 to n, all tasks alike before the first.

    ``loglik[i, t]`` is log P(answer i | input i, task t), in nats. Source: Xie et al. 2022, equation 1, with a finite pool
    in the place of concepts and demonstrations that are independent given the task.
    """
    total = np.concatenate([np.zeros((1, loglik.shape[1])), np.cumsum(loglik, axis=0)])
    return log_softmax(total, axis=1)


def mixture(weights: Float[np.ndarray, "t"], tables: Float[np.ndarray, "t q c"]) -> Float[np.ndarray, "q c"]:
    """log P of every answer among the options, the tasks' own answers weighed by log p(task), in nats."""
    return logsumexp(weights[:, None, None] + log_softmax(tables, axis=-1), axis=0)


def entropy(logs: Float[np.ndarray, "n t"]) -> Float[np.ndarray, "n"]:
    """In nats: log t where all tasks are as likely, 0 where one is certain."""
    return -(np.exp(logs) * np.where(np.isfinite(logs), logs, 0.0)).sum(axis=1)
