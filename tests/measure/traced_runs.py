"""Attention outputs and maps of three runs that were made up, and what loops make of them."""

import math

import numpy as np

Q, L, E = 7, 3, 16
LENGTHS = (5, 2, 9, 4, 6, 3, 8)


def outputs(seed=0, q=Q, layers=L, e=E):
    """Attention outputs of three runs, the last two near the first."""
    rng = np.random.default_rng(seed)
    zsl = rng.normal(size=(q, layers, e)) * rng.uniform(0.5, 3, (q, layers, 1))
    common = rng.normal(size=(q, layers, e))
    icl, ft = (zsl + common + rng.normal(size=(q, layers, e)) * rng.uniform(0.2, 2, (q, layers, 1)) for _ in range(2))
    return icl, zsl, ft


def maps(seed=0, h=4):
    """Scores of three runs over the tokens of the query text."""
    rng = np.random.default_rng(seed)
    zsl = [rng.normal(size=(L, h, t)) for t in LENGTHS]
    common = [rng.normal(size=m.shape) for m in zsl]
    icl, ft = ([z + c + rng.normal(size=z.shape) for z, c in zip(zsl, common, strict=True)] for _ in range(2))
    return icl, zsl, ft


def token_maps(seed=0, n=12, scale=1.0):
    rng = np.random.default_rng(seed)
    icl = [rng.normal(size=(L, n)) for _ in range(Q)]
    return [scale * m for m in icl], [scale * (m + rng.normal(size=m.shape)) for m in icl]


# Which demonstration each token belongs to; their numbers are any.
OWNERS = np.array([4, 4, 4, 0, 0, 9, 9, 9, 9, 2, 2, 2])


def plain_cosine(a, b):
    a, b = [float(x) for x in a], [float(x) for x in b]
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def one(found):
    assert found.values.shape == (1, 1)
    assert found.defined.all()
    return found.values[0, 0]


def standard_error(values):
    return values.std(ddof=1) / math.sqrt(values.size)
