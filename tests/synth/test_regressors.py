"""Rivals fitted to each prompt: what they are is what scikit-learn and an obvious fit say, and nothing looks ahead."""

import numpy as np
import pytest
import torch

from kshot.synth.oracles import Predictor, least_squares, on_features
from kshot.synth.prompts import Source
from kshot.synth.regressors import boosted_trees, greedy_tree, lasso, small_network
from kshot.synth.train import Training

AT = (0, 1, 5, 9)
EVERY: dict[str, Predictor] = {
    "lasso": lasso(0.1, AT),
    "tree": greedy_tree(4, AT),
    "signs": on_features(greedy_tree(4, AT), torch.sign),
    "boosted": boosted_trees(AT),
    "network": small_network(AT, hidden=8, training=Training(steps=20, batch=10, learning_rate=5e-3)),
}


def prompts(function: str = "linear", size: int = 3, **more) -> tuple[torch.Tensor, torch.Tensor]:
    found = Source(function=function, width=4, pairs=10, **more).batch(0, 0, size)
    return found.xs.double(), found.ys.double()


@pytest.mark.parametrize("name", EVERY)
def test_it_answers_where_it_is_asked_from_what_came_before(name: str) -> None:
    xs, ys = prompts()
    said = EVERY[name](xs, ys)
    assert said.isfinite().nonzero()[:, 1].unique().tolist() == list(AT)
    assert (said[:, 0] == 0).all()
    other, answers = xs.clone(), ys.clone()
    other[:, 6:] += 1.0
    answers[:, 5:] -= 2.0
    assert torch.equal(EVERY[name](other, answers)[:, [0, 1, 5]], said[:, [0, 1, 5]])
    assert torch.equal(EVERY[name](xs, ys)[:, AT], said[:, AT]), "the same again"


def test_lasso_without_a_penalty_is_least_squares_and_with_much_is_nothing() -> None:
    xs, ys = prompts(noise=0.1)
    assert torch.allclose(lasso(1e-9, (9,))(xs, ys)[:, 9], least_squares(xs, ys)[:, 9], atol=1e-5)
    assert (lasso(1e3, (9,))(xs, ys)[:, 9] == 0).all()


def test_lasso_meets_its_own_condition() -> None:
    xs, ys = prompts("sparse-linear")
    x, y = xs[0, :9].numpy(), ys[0, :9].numpy()
    w = np.array(
        [
            lasso(0.1, (9,))(torch.cat([xs[:1, :9], torch.eye(4)[None, i : i + 1].double()], 1), ys[:1])[0, 9]
            for i in range(4)
        ]
    )
    slope = x.T @ (y - x @ w) / 9
    assert (np.abs(slope) <= 0.1 + 1e-4).all()
    assert slope[w != 0] == pytest.approx(0.1 * np.sign(w[w != 0]), abs=1e-4)


def test_a_deep_tree_knows_what_it_was_shown() -> None:
    xs, ys = prompts("decision-tree")
    seen = torch.cat([xs[:, :9], xs[:, 3:4]], dim=1)
    assert torch.allclose(greedy_tree(20, (9,))(seen, ys)[:, 9], ys[:, 3])


def test_a_small_network_fits_each_prompt_by_itself() -> None:
    xs, ys = prompts("relu-network")
    says = small_network((9,), hidden=40, training=Training(steps=1500, batch=9, learning_rate=5e-3))
    seen = torch.cat([xs[:, :9], xs[:, 3:4]], dim=1)
    assert torch.allclose(says(seen, ys)[:, 9], ys[:, 3], atol=0.3)
    # Prompts side by side are fitted as they are alone: only what is drawn for them depends on their place.
    twice = torch.cat([xs[:1], xs[:1] * 2])
    assert torch.isfinite(says(twice, torch.cat([ys[:1], ys[:1] * 2]))[:, 9]).all()
