"""Which classes of functions does a network learn to learn from a prompt? (Garg et al. 2022)

A prompt is k examples of a function and a query. Errors are squares of what is missing to the answer as it is shown,
noise and all, divided by d coordinates, by 3 of sparse functions and by 1 of trees, as published, and by no more where
inputs or functions are scaled. Intervals are of 95 per cent over prompts, those of the paper of 90. Below the paper's
size there are fewer coordinates and smaller networks, and the rate falls; numbers of examples are rounded down.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from kshot.study.figures import figure
from kshot.study.synth.by_examples import compared, exact
from kshot.study.synth.contenders import equal_network
from kshot.study.synth.experiment import Claim, Experiment, Given, Part
from kshot.study.synth.growing import mean_rows, picture, ratio_row
from kshot.study.synth.learners import AROUND, BEYOND, MUCH, SPARSE, counts_at, learned, trained_to_say
from kshot.study.synth.noisy_classes import NOISY_CLAIMS, NOISY_PARTS
from kshot.study.synth.shifted import shifted_errors
from kshot.synth.networks.network import parameters
from kshot.synth.oracles import averaging, least_squares, nearest, on_features
from kshot.synth.regressors import LASSO_PENALTY, boosted_trees, greedy_tree, lasso, small_network
from kshot.synth.train import Training

_OF = "Garg et al. 2022"
# The published depths of trees for inputs and for their signs.
_DEPTH, _DEPTH_OF_SIGNS = 2, 4

_LEAST_SQUARES, _NEAREST, _AVERAGING = exact(least_squares), exact(nearest(3)), exact(averaging)


def _linear(given: Given) -> dict[str, Any]:
    """Linear functions without noise, and prompts that are not like those of training."""
    much = MUCH[given.size]
    own, says = much.learners["linear"], learned(given, "linear")
    places = counts_at(own.source, AROUND)
    rivals = {"transformer": says, "least squares": _LEAST_SQUARES, "3-nearest": _NEAREST, "averaging": _AVERAGING}
    found = compared(given, "linear", own.source, {name: (one, much.asked) for name, one in rivals.items()}, places)
    told = found.told()
    told["rows"].append(found.over("transformer", "averaging", "k = 2d"))
    asked = {name: rivals[name] for name in ("transformer", "least squares")}
    shifted = shifted_errors(given, own.source, asked, places, much.asked)
    told["rows"] += [mean_rows("error", ("linear", *key), values, given.seed) for key, values in shifted.items()]
    for one, other, place in (
        ("half-subspace", "none", "k = d/2"),
        ("query-is-an-example", "none", "k = d"),
        ("w-times-3", "x-times-3", "k = 2d"),
    ):
        values, under = (shifted[name, "transformer", place] for name in (one, other))
        variant = ("linear", f"{one} over {other}", place)
        told["rows"].append(ratio_row("error_ratio", variant, values, under, given.seed, null=1.0))
    told["pictures"].append(
        picture(
            "linear: error of the transformer, shifted",
            x="examples",
            y="error",
            lines={
                change: [(k, float(shifted[change, "transformer", place].mean())) for place, k in places.items()]
                for change in dict.fromkeys(name for name, _, _ in shifted)
            },
            log_y=True,
        )
    )
    return told


def _sparse(given: Given) -> dict[str, Any]:
    """Linear functions of three coordinates, against what knows that they are few."""
    much = MUCH[given.size]
    own = much.learners["sparse"]
    places = counts_at(own.source, SPARSE)
    rivals = {
        "transformer": (learned(given, "sparse"), much.asked),
        "least squares": (_LEAST_SQUARES, much.asked),
        "lasso": (lasso(LASSO_PENALTY, list(places.values())), much.fitted),
    }
    found = compared(given, "sparse", own.source, rivals, places)
    told = found.told()
    ratios = [found.over("transformer", name, "k = d/2") for name in ("least squares", "lasso")]
    return told | {"rows": [*told["rows"], *ratios]}


def _network(given: Given) -> dict[str, Any]:
    """Networks of a hidden layer, against one that is fitted to a prompt; and both on linear functions."""
    much = MUCH[given.size]
    own = much.learners["network"]
    places = counts_at(own.source, BEYOND)
    # As in the paper's appendix; its code takes 100 steps of 100 examples instead.
    descent = Training(steps=much.descent, batch=10, learning_rate=5e-3)
    rivals = {
        "transformer": (learned(given, "network"), much.asked),
        "least squares": (_LEAST_SQUARES, much.asked),
        "3-nearest": (_NEAREST, much.asked),
        "small network": (small_network(list(places.values()), training=descent, seed=given.seed), much.fitted),
    }
    found = compared(given, "network", own.source, rivals, places)
    linear = compared(given, "network asked linear", replace(own.source, function="linear"), rivals, places)
    told, also = found.told(), linear.told()
    ratios = [found.over("transformer", name, "k = 5d") for name in ("least squares", "3-nearest", "small network")]
    return {"rows": [*told["rows"], *also["rows"], *ratios], "pictures": told["pictures"] + also["pictures"]}


def _tree(given: Given) -> dict[str, Any]:
    """Decision trees, against trees that are fitted to a prompt, to its inputs and to their signs."""
    much = MUCH[given.size]
    own = much.learners["tree"]
    places = counts_at(own.source, BEYOND)
    at = list(places.values())
    fitted = {
        "greedy tree": greedy_tree(_DEPTH, at),
        "boosted trees": boosted_trees(at),
        "greedy tree on signs": on_features(greedy_tree(_DEPTH_OF_SIGNS, at), torch.sign),
        "boosted trees on signs": on_features(boosted_trees(at), torch.sign),
    }
    rivals = {
        "transformer": (learned(given, "tree"), much.asked),
        "3-nearest": (_NEAREST, much.asked),
        **{name: (one, much.fitted) for name, one in fitted.items()},
    }
    found = compared(given, "tree", own.source, rivals, places)
    told = found.told()
    # Of few coordinates a tree of signs knows all there is to know, and nothing is so many times that.
    ratios = [found.over("transformer", name, "k = 5d") for name in fitted if name != "greedy tree on signs"]
    return told | {"rows": [*told["rows"], *ratios]}


def _networks(given: Given) -> dict[str, Any]:
    """Networks with as many parameters as the transformer has, on linear functions."""
    much = MUCH[given.size]
    own = much.learners["networks"]
    # As deep as they are published for it, as wide as makes them equal.
    made = {name: equal_network(name, own.source, own.shape) for name in much.networks}
    says = {name: trained_to_say(given, f"networks {name}", own, network) for name, network in made.items()}
    asked = {name: (one, much.asked) for name, one in says.items()} | {"least squares": (_LEAST_SQUARES, much.asked)}
    found = compared(given, "networks", own.source, asked, counts_at(own.source, AROUND))
    told = found.told()
    counts = {name: parameters(network.start(torch.Generator())) for name, network in made.items()}
    counted = [
        figure("parameters", ("networks", name), value=float(count), null=float(counts["transformer"]))
        for name, count in counts.items()
    ]
    ratios = [found.over(name, "transformer", "k = 2d") for name in made if name != "transformer"]
    return told | {"rows": [*told["rows"], *counted, *ratios]}


# What is said of a ratio of errors, which is at most 1 then.
_RATIOS: Mapping[str, str] = {
    "linear, transformer over averaging, k = 2d": "it does better than averaging (published: 0.0006 for it)",
    "linear, half-subspace over none, k = d/2":
        "inputs of half the space need fewer examples (published: 0.036 at k = d/2)",
    "linear, query-is-an-example over none, k = d":
        "a query that was an example is answered better than another (published: 0.001 against 0.02)",
    "linear, w-times-3 over x-times-3, k = 2d":
        "weights three times as large do less harm than such inputs (published: 0.0278 against 0.58)",
    "sparse, transformer over least squares, k = d/2": "of sparse functions it knows more than least squares",
    "network, transformer over small network, k = 5d":
        "networks are learned as well as by one that is fitted (published: 0.17 for both)",
    "tree, transformer over greedy tree, k = 5d":
        "trees are learned better than by one that is grown greedily (published: 0.12 against 0.80)",
    "tree, transformer over boosted trees, k = 5d": "trees are learned better than by boosting (published: 0.12 against 0.62)",
}  # fmt: skip


def _ratio(variant: str, text: str, *, most: float = 1.0, source: str = _OF, **more: Any) -> Claim:
    return Claim(text=text, source=source, measure="error_ratio", variant=variant, most=most, **more)


FUNCTION_CLASSES = Experiment(
    about="error against the number of examples, for each class of functions and kind of network, and shifted prompts",
    source=_OF,
    much=MUCH,
    parts={
        **{
            name: Part(asks=asks, answer=answer, minutes={"smoke": 0.3, "full": full})
            for name, asks, answer, full in (
                ("linear", "linear functions without noise, and shifted prompts", _linear, 40.0),
                ("sparse", "linear functions of three coordinates, against lasso", _sparse, 30.0),
                ("network", "networks of a hidden layer, against one that is fitted", _network, 30.0),
                ("tree", "decision trees, against trees that are fitted", _tree, 30.0),
                ("networks", "other networks of as many parameters, on linear functions", _networks, 40.0),
            )
        },
        **NOISY_PARTS,
    },
    claims=(
        Claim(
            text="after twice as many examples as coordinates a linear function is known (published: 0.0006 of 20)",
            source=_OF,
            measure="error",
            variant="linear, transformer, k = 2d",
            most=0.005,
        ),
        _ratio(
            "sparse, transformer over lasso, k = d/2",
            "of sparse functions it knows about as much as lasso, to a quarter (published: 0.09 against 0.08)",
            most=1.25,
        ),
        _ratio(
            "tree, transformer over boosted trees on signs, k = 5d",
            "trees of many coordinates are learned better than by boosting of signs (published: 0.12 against 0.31)",
            at=("paper",),
        ),
        *(_ratio(variant, text) for variant, text in _RATIOS.items()),
        *NOISY_CLAIMS,
    ),
)
