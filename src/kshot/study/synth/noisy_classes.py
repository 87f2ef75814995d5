"""Classes of functions whose answers are noisy, against the mean of the posterior, which nobody errs less than.

Errors are of answers with their noise, which all have; ``excess_ratio`` is of what both err beyond it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kshot.study.synth.by_examples import compared, exact
from kshot.study.synth.contenders import equal_network
from kshot.study.synth.experiment import Claim, Given, Part
from kshot.study.synth.learners import AROUND, MANY, MUCH, NOISE, NOISE_OF_FEATURES, counts_at, learned, trained_to_say
from kshot.synth.functions import FEATURES, features
from kshot.synth.oracles import Predictor, averaging, least_squares, logistic_regression, nearest, on_features, ridge
from kshot.synth.prompts import Source

# Of functions of features numbers of examples are told in features, of which there are as many at every width.
_BY_FEATURES = {"k = m/2": FEATURES // 2, "k = m": FEATURES, "k = 2m": 2 * FEATURES}


def _against_best(
    given: Given, word: str, source: Source, places: Mapping[str, int], best: str, rivals: Mapping[str, Predictor]
) -> dict[str, Any]:
    """The transformer among rivals, and over the best of them where that is greatest."""
    asked = MUCH[given.size].asked
    found = compared(given, word, source, {name: (one, asked) for name, one in rivals.items()}, places)
    told = found.told()
    return told | {"rows": [*told["rows"], found.greatest_over("transformer", best), found.excess("transformer", best)]}


def _noisy(given: Given) -> dict[str, Any]:
    """Linear functions with noise."""
    rivals = {
        "transformer": learned(given, "noisy"),
        "ridge": exact(ridge(NOISE)),
        "least squares": exact(least_squares),
        "averaging": exact(averaging),
    }
    own = MUCH[given.size].learners["noisy"]
    return _against_best(given, "noisy", own.source, counts_at(own.source, AROUND), "ridge", rivals)


def _features(given: Given) -> dict[str, Any]:
    """Functions that are linear in features which no prompt shows: one map for all prompts, learned in training."""
    rivals = {
        "transformer": learned(given, "features"),
        "ridge on features": exact(on_features(ridge(NOISE_OF_FEATURES), features)),
        "ridge on inputs": exact(ridge(NOISE_OF_FEATURES)),
        "3-nearest": exact(nearest(3)),
    }
    source = MUCH[given.size].learners["features"].source
    return _against_best(given, "features", source, _BY_FEATURES, "ridge on features", rivals)


def _logistic(given: Given) -> dict[str, Any]:
    """One network for prompts of linear and of logistic functions, half of each, and nothing says which a prompt is."""
    own = MUCH[given.size].learners["logistic"]
    linear = replace(own.source, function="linear", noise=NOISE)
    says = trained_to_say(given, "logistic", own, equal_network("transformer", own.source, own.shape), others=(linear,))
    found = _against_best(
        given,
        "logistic",
        own.source,
        counts_at(own.source, MANY),
        "posterior",
        {
            "transformer": says,
            "posterior": exact(logistic_regression()),
            "logistic regression": exact(logistic_regression(draws=0)),
            "ridge": exact(ridge(1.0)),
        },
    )
    also = _against_best(
        given,
        "logistic asked linear",
        linear,
        counts_at(own.source, MANY),
        "ridge",
        {"transformer": says, "ridge": exact(ridge(NOISE)), "least squares": exact(least_squares)},
    )
    return {name: found[name] + also[name] for name in found}


NOISY_PARTS: Mapping[str, Part] = {
    name: Part(asks=asks, answer=answer, minutes={"smoke": 0.3, "full": full})
    for name, asks, answer, full in (
        ("noisy", "linear functions with noise, against ridge", _noisy, 12.0),
        ("logistic", "linear and logistic functions by one network, against the best rule for each", _logistic, 20.0),
        ("features", "functions of hidden features, against who knows these", _features, 25.0),
    )
}


def _nearly_best(variant: str, text: str, source: str, *, beyond_noise: bool = False) -> Claim:
    """Of errors, or of what of them is not the noise of answers, which all have."""
    measure, place = "error_ratio", "where it is greatest"
    if beyond_noise:
        measure, place = "excess_ratio", "where it is greatest, without noise"
    return Claim(text=text, source=source, measure=measure, variant=f"{variant}, {place}", most=1.25)


NOISY_CLAIMS = (
    _nearly_best(
        "noisy, transformer over ridge",
        "with noise it is nearly as good as the mean of the posterior, after any number of examples",
        "Akyürek et al. 2023",
    ),
    # Answers of -1 and 1 are so noisy that a third of the right answer errs but a fifth more.
    _nearly_best(
        "logistic, transformer over posterior",
        "a network of linear and logistic functions is nearly the best rule for logistic ones, noise of answers aside",
        "Bai et al. 2023",
        beyond_noise=True,
    ),
    _nearly_best(
        "logistic asked linear, transformer over ridge",
        "a network of linear and logistic functions is nearly the best rule for linear ones",
        "Bai et al. 2023",
    ),
    _nearly_best(
        "features, transformer over ridge on features",
        "of functions of hidden features it is nearly ridge regression on these",
        "this project, after Guo et al. 2024",
    ),
)
