"""Function classes: every figure that a claim is about is there, and what needs no training is so."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kshot.seeds import torch_stream
from kshot.study.synth import function_classes, learners, noisy_classes
from kshot.study.synth.by_examples import Compared, compared, exact
from kshot.study.synth.contenders import equal_network
from kshot.study.synth.experiment import Given, judged
from kshot.study.synth.function_classes import FUNCTION_CLASSES
from kshot.study.synth.growing import asked_prompts, on_prompts
from kshot.study.synth.learners import AROUND, BEYOND, MANY, SPARSE, counts_at
from kshot.study.synth.shifted import CHANGES, after, changed, shifted_errors
from kshot.synth.functions import FEATURES, FUNCTIONS
from kshot.synth.networks import NETWORKS
from kshot.synth.networks.linear_attention import linear_attention
from kshot.synth.networks.network import Weights
from kshot.synth.oracles import least_squares, ridge
from kshot.synth.prompts import Source
from kshot.synth.train import Training

GIVEN = Given(size="smoke", seed=0, say=lambda _: None)
SOURCE = Source(width=4, pairs=9)
MUCH = learners.MUCH
Found = dict[str, dict[str, Any]]


def answered(part: str, seed: int = 0) -> dict[str, Any]:
    return FUNCTION_CLASSES.parts[part].answer(replace(GIVEN, seed=seed))


@pytest.fixture(scope="module")
def found() -> Iterator[Found]:
    """What comes of a hundredth of the smallest size, by part."""
    few, much = Training(steps=3, batch=8), MUCH["smoke"]
    own = {part: replace(each, training=few) for part, each in much.learners.items()}
    with pytest.MonkeyPatch.context() as patch:
        less = replace(much, learners=own, asked=30, fitted=6, descent=3)
        for module in (function_classes, learners, noisy_classes):
            patch.setattr(module, "MUCH", {"smoke": less})
        yield {part: answered(part) for part in FUNCTION_CLASSES.parts}


def test_every_claim_is_about_a_figure_that_is_there(found: Found) -> None:
    rows = [{**row, "task": "x", "seed": 0} for own in found.values() for row in own["rows"]]
    verdicts = judged("x", FUNCTION_CLASSES, rows, "paper")
    assert [row["claim"] for row in verdicts if row["observed"] is None] == []
    assert all(row["must"] for row in verdicts)
    keys = [(row["measure"], row["variant"]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_it_is_the_same_again_and_another_with_another_seed(found: Found) -> None:
    for part in ("noisy", "network", "tree"):
        assert answered(part) == found[part]
    assert answered("noisy", 1) != found["noisy"]


def test_what_needs_no_training(found: Found) -> None:
    by_name = {(row["measure"], row["variant"]): row for own in found.values() for row in own["rows"]}
    for change in CHANGES:
        known = by_name["error", f"linear, {change}, least squares, k = 2d"]
        # Answers are rounded to 1 / 2^24, and weights are as far off as that and the inputs' being alike make them.
        assert known["value"] < 1e-11, "without noise so many examples say all there is to know"
        assert known["n"] == 30
    # Here there are only as many examples as directions, which may be nearly the same.
    assert by_name["error", "linear, half-subspace, least squares, k = d/2"]["value"] < 1e-6
    assert by_name["error", "linear, query-is-an-example, least squares, k = d/2"]["value"] < 1e-12
    assert by_name["error", "linear, none, least squares, k = d/2"]["value"] > 0.2
    assert by_name["error", "tree, greedy tree, k = 5d"]["n"] == 6, "trees are fitted to the first prompts only"
    counts = [row["value"] for (measure, _), row in by_name.items() if measure == "parameters"]
    assert len(counts) == 4
    assert max(counts) <= 1.02 * counts[0]
    assert min(counts) >= 0.98 * counts[0]


def test_pictures_have_a_line_for_everyone(found: Found) -> None:
    for part, own in found.items():
        variants = [row["variant"].split(", ") for row in own["rows"] if row["measure"] == "error"]
        names = {name for word, name, *_ in variants if word == part} - set(CHANGES)
        assert set(own["pictures"][0]["lines"]) == names
        assert own["pictures"][0]["name"] == f"{part}: error"
    assert {len(points) for points in found["linear"]["pictures"][0]["lines"].values()} == {7}
    assert set(found["linear"]["pictures"][1]["lines"]) == set(CHANGES)
    # A tree is fitted at three places.
    assert [k for k, _ in found["tree"]["pictures"][0]["lines"]["greedy tree"]] == [3, 7, 15]


@pytest.mark.parametrize("size", ["smoke", "full", "paper"])
def test_all_sizes_can_be_asked(size: str) -> None:
    much = MUCH[size]
    assert set(much.learners) == set(FUNCTION_CLASSES.parts)
    own = much.learners["networks"]
    names = much.networks[:2] if size == "paper" else much.networks
    networks = {name: equal_network(name, own.source, own.shape) for name in names}
    assert all(network.causal for network in networks.values()), "each is asked after any number of examples"
    for part, own in much.learners.items():
        told = {"network": BEYOND, "tree": BEYOND, "logistic": MANY, "sparse": SPARSE}.get(part, AROUND)
        places = counts_at(own.source, told)
        farthest = 2 * FEATURES if part == "features" else max(places.values())
        assert farthest == own.source.pairs - 1, "the last query is after the greatest number of examples"
        assert min(places.values()) > 0, "every place is after an example or more"
    if size == "full":
        assert (much.learners["linear"].source, much.asked) == (Source(width=5, pairs=11), 1280)


def test_attention_networks_begin_at_one_over_the_root_of_their_width_and_published_ones_as_published() -> None:
    own = MUCH["smoke"].learners["networks"]
    weights = equal_network("transformer", own.source, own.shape).start(torch_stream(0, "start"))
    assert weights["0.qkv.weight"].std().item() == pytest.approx(own.shape.width**-0.5, rel=0.05)
    again = equal_network("transformer", own.source, own.shape).start(torch_stream(0, "start"))
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    assert MUCH["paper"].learners["linear"].shape.begin == 0.02


def test_prompts_are_shown_their_answers_with_noise() -> None:
    """Ridge of the variance is the best there is, and its error is that of the noise and more."""
    source = Source(width=3, pairs=31, noise=0.25)
    says = {"ridge": (exact(ridge(0.25)), 4000), "less": (exact(ridge(0.01)), 4000), "few": (exact(ridge(1.0)), 10)}
    found = compared(GIVEN, "noisy", source, says, {"k = 10": 10})
    asked = asked_prompts(GIVEN, source, 4000)
    by_hand = (ridge(0.25)(asked.xs.double(), asked.ys.double())[:, 10] - asked.ys[:, 10].double()).square() / 3
    assert np.allclose(found.found["ridge"][:, 10], by_hand)
    assert 0.25 / 3 < found.found["ridge"][:, 30].mean() < 1.25 * 0.25 / 3
    assert found.found["few"].shape == (10, 31)
    assert found.greatest_over("less", "ridge")["value"] > 1
    # What both err by the noise hides what one errs more.
    excess = found.excess("less", "ridge")["value"]
    assert excess > 1.1 * found.greatest_over("less", "ridge")["value"]
    assert found.excess("ridge", "ridge")["value"] == pytest.approx(1.0)
    row = found.over("ridge", "few", "k = 10")
    assert row["n"] == 10
    assert row["variant"] == "noisy, ridge over few, k = 10"
    assert row["value"] == pytest.approx(found.found["ridge"][:10, 10].mean() / found.found["few"][:, 10].mean())


def test_other_sources_give_as_many_prompts_as_the_first() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    silent = linear_attention(3)

    def says(weights: Weights, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        seen.append((xs, ys))
        return torch.zeros_like(ys)

    few, first = Training(steps=2, batch=8), Source(function="logistic", width=3, pairs=5)
    other = replace(first, function="linear", noise=0.25)
    on_prompts(GIVEN, replace(silent, says=says), first, few, others=(other,))({}, 1)
    ((xs, ys),) = seen
    assert torch.equal(xs, torch.cat([first.batch(0, 1, 4).xs, other.batch(0, 1, 4).xs]))
    assert (ys[:4].abs() == 1).all()
    assert (ys[4:].abs() != 1).all()


def test_the_greatest_ratio_is_where_means_are_farthest_apart() -> None:
    own, rival = np.array([[1.0, 6.0, 1.0], [3.0, 6.0, 1.0]]), np.array([[2.0, 3.0, 2.0], [2.0, 5.0, 2.0]])
    both = {"own": own, "rival": rival}
    found = Compared(word="x", found=both, beyond=both, places={"first": 0}, seed=0)
    assert found.greatest_over("own", "rival")["value"] == pytest.approx(12 / 8)
    assert found.over("own", "rival", "first")["value"] == pytest.approx(1.0)
    assert [(row["variant"], row["value"]) for row in found.told()["rows"]] == [
        ("x, own, first", 2.0),
        ("x, rival, first", 2.0),
    ]


def test_changes_have_the_same_functions_and_queries_after_every_number_of_pairs() -> None:
    """The query after k pairs is judged by the function of those pairs, and its own answer is not seen."""

    def made(name: str) -> Any:
        return changed(SOURCE, CHANGES[name], torch_stream(0, "changed"), 50)

    (pairs, queries), (three, asked) = made("none"), made("w-times-3")
    assert torch.equal(pairs.xs, three.xs)
    assert torch.equal(queries.xs, asked.xs)
    assert torch.allclose(3 * pairs.ys, three.ys, atol=1e-5)
    assert torch.allclose(3 * queries.ys, asked.ys, atol=1e-5)
    assert torch.equal(made("x-times-2")[0].xs, 2 * pairs.xs)
    assert not torch.equal(pairs.xs, queries.xs)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def listens(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        seen.append((xs, ys))
        return least_squares(xs, ys)

    said = after(listens, pairs, queries, 6)
    ((xs, ys),) = seen
    assert torch.equal(xs[:, :6], pairs.xs[:, :6])
    assert torch.equal(xs[:, 6], queries.xs[:, 6])
    assert (ys[:, 6] == 0).all()
    assert torch.equal(ys[:, :6], pairs.ys[:, :6])
    assert torch.allclose(said, queries.ys[:, 6], atol=1e-3)
    assert said.shape == (50,)


def test_errors_of_shifted_prompts_are_in_the_unit_of_the_class() -> None:
    silent = {"silent": lambda xs, ys: torch.zeros_like(ys)}
    found = shifted_errors(GIVEN, SOURCE, silent, {"k = 2": 2, "k = 8": 8}, 4000)
    assert set(found) == {(change, "silent", place) for change in CHANGES for place in ("k = 2", "k = 8")}
    for change, size in (("none", 1.0), ("half-subspace", 1.0), ("w-times-2", 4.0), ("x-times-1/3", 1 / 9)):
        assert found[change, "silent", "k = 8"].mean() == pytest.approx(size, rel=0.1)


def test_the_classes_and_networks_are_known() -> None:
    for much in MUCH.values():
        assert {own.source.function for own in much.learners.values()} == {
            "linear", "sparse-linear", "relu-network", "decision-tree", "logistic", "random-features",
        }  # fmt: skip
        assert {own.source.function for own in much.learners.values()} <= set(FUNCTIONS)
        assert set(much.networks) <= set(NETWORKS)
        assert much.networks[0] == "transformer"
