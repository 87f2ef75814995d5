"""What experiments share: a network is grown on prompts, and it and its rivals are held against the truth pair by pair."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kshot.devices import together
from kshot.measure.intervals import mean_interval, wilson
from kshot.optim.state import facts_kept, keep, kept
from kshot.seeds import digest, torch_stream
from kshot.study.figures import figure
from kshot.study.parts import digest_of
from kshot.study.synth.experiment import Given, Row
from kshot.synth.networks.language import Language
from kshot.synth.networks.network import Network, Weights
from kshot.synth.prompts import Prompts, Source
from kshot.synth.train import Curriculum, Kept, Look, Loss, Trained, Training, squared_error, trained

Batch = tuple[Tensor, ...]
Line = Sequence[tuple[int | float, float]]

# Prompts go through a network so many at a time where nothing is learned from them.
_AT_ONCE = 1024
# Training tells so many times how it goes.
_TELLS = 200
# What names may hold and files may not.
_NO_PATH = str.maketrans(" /", "--")
_BARS = "▁▂▃▄▅▆▇█"


def grown(
    given: Given,
    word: str,
    network: Network | Language,
    loss: Loss,
    training: Training,
    *,
    looks: int = 8,
    look: Look | None = None,
) -> Trained:
    """The network after training from a start of the seed; ``word`` names it among those of a part.

    ``look`` is shown the weights after the first step, the last, and as many more as make ``looks``, ever farther
    apart. Training that was stopped goes on from its last state, and one that was done is done. Raises NumericError.
    """
    at = {round(training.steps ** (i / looks)) for i in range(looks + 1)}
    told, losses = max(1, training.steps // _TELLS), []

    def watch(step: int, weights: Weights, now: float) -> None:
        losses.append(now)
        if step % told == 0 or step == training.steps:
            given.say(f"{word}, step {step:,} of {training.steps:,}, loss {now:.4g} {curve(losses)}")

    def seen(step: int, weights: Callable[[], Weights]) -> Mapping[str, float] | None:
        return look(step, weights()) if look is not None and step in at else None

    start = network.start(torch_stream(given.seed, "start", word))
    shapes = digest_of({name: list(tensor.shape) for name, tensor in start.items()})
    key = f"{word} {given.seed} {training} {shapes} {given.question}"
    place = Kept(given.place / f"{word.translate(_NO_PATH)}-{given.seed}.safetensors", key) if given.place else None
    start = {name: tensor.to(given.device) for name, tensor in start.items()}
    with torch.enable_grad():
        return trained(start, loss, training, place=place, watch=watch, look=seen)


def spent(place: Path | None, seed: int) -> float:
    """Seconds of training that a part's folder holds: what earlier calls took, that were stopped."""
    found = [facts_kept(path) or {} for path in place.glob(f"*-{seed}.safetensors")] if place is not None else []
    return sum((float(facts.get("seconds", 0.0)) for facts in found), start=0.0)


def settled(states: Path, networks: Path) -> None:
    """States of trainings that are done become the networks alone, in another folder: weights, and losses as facts.

    OutputError where they cannot be written; then the states stay.
    """
    for path in sorted(states.rglob("*.safetensors")):
        if (found := kept(path)) is not None:
            weights, _, facts = found
            keep(networks / path.relative_to(states), weights, {}, facts)
    shutil.rmtree(states, ignore_errors=True)


def curve(losses: Sequence[float], width: int = 16) -> str:
    """Losses as a line of text: means of stretches of equal length, from the greatest to the least on a log scale.

    >>> curve([8.0, 4.0, 2.0, 1.0])
    '█▆▃▁'
    """
    stretches = np.array_split(np.asarray(losses, dtype=np.float64), min(width, len(losses)))
    heights = np.log(np.maximum([stretch.mean() for stretch in stretches], 1e-30))
    reach = heights.max() - heights.min()
    levels = np.round((heights - heights.min()) / reach * (len(_BARS) - 1)) if reach > 0 else np.zeros(len(heights))
    return "".join(_BARS[int(level)] for level in levels)


def on_prompts(
    given: Given,
    network: Network,
    source: Source,
    training: Training,
    *,
    curriculum: Curriculum | None = None,
    others: Sequence[Source] = (),
) -> Loss:
    """The mean squared error of what a network says of the prompts of a step; ``others`` give as many as the first."""
    sources = (source, *others)

    def make(step: int) -> Batch:
        width, pairs = source.width, source.pairs
        active, shown = curriculum.at(step, width, pairs) if curriculum is not None else (width, pairs)
        few = {} if curriculum is None else {"pairs": shown, "active": active}
        found = [each.batch(given.seed, step, training.batch // len(sources), **few) for each in sources]
        return torch.cat([each.xs for each in found]), torch.cat([each.ys for each in found])

    return on_batches(given, make, training, lambda weights, xs, ys: squared_error(network.says(weights, xs, ys), ys))


def on_batches(given: Given, make: Callable[[int], Batch], training: Training, loss: Callable[..., Tensor]) -> Loss:
    """``loss(weights, *batch)`` with the batch of a number, which is drawn in a thread while the one before is read."""
    ahead: dict[int, Any] = {}
    thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
    # Each of several processes reads its own.
    world = together()[1]

    def taken(weights: Weights, number: int) -> Tensor:
        batch = ahead.pop(number).result() if number in ahead else make(number)
        ahead.clear()
        if number + world < training.steps * training.parts:
            ahead[number + world] = thread.submit(make, number + world)
        else:
            thread.shutdown(wait=False)
        return loss(weights, *(tensor.to(given.device) for tensor in batch))

    return taken


def unseen(given: Given, purpose: str = "asked") -> int:
    """A seed that no training has, for prompts of a purpose."""
    return digest(given.seed, purpose) >> 2


def answers(network: Network, weights: Weights, xs: Float[Tensor, "b n d"], ys: Float[Tensor, "b n"]) -> Tensor:
    """What a network says of prompts, (b, s), without a graph, on the CPU in float64; any number of them."""
    place = next(iter(weights.values())).device
    with torch.no_grad():
        parts = [
            network.says(weights, some.to(place), shown.to(place)).double().cpu()
            for some, shown in zip(xs.split(_AT_ONCE), ys.split(_AT_ONCE), strict=True)
        ]
    return torch.cat(parts)


def predictor(network: Network, weights: Weights) -> Callable[[Tensor, Tensor], Tensor]:
    """A network with weights as a rival is: inputs and answers -> what is said of every answer."""
    return partial(answers, network, weights)


def errors(said: Float[Tensor, "b n"], truth: Float[Tensor, "b n"], unit: float = 1.0) -> Float[np.ndarray, "b n"]:
    """Squared errors after 0, 1, 2 ... pairs, in units of ``unit``; float64."""
    return ((said.double() - truth.double()).square() / unit).numpy()


def line(values: Float[np.ndarray, "b n"], *, begin: int = 0) -> Line:
    """Means by the number of pairs before, for a picture; places where nothing was said are left out."""
    means = values.mean(axis=0)
    return [(float(k + begin), float(mean)) for k, mean in enumerate(means) if np.isfinite(mean)]


def mean_rows(measure: str, variant: Sequence[str], values: Float[np.ndarray, "b"], seed: int, **more: Any) -> Row:
    """A row of a mean over prompts with its interval; values that are no numbers do not count.

    The interval is Wilson's where every value is 0 or 1, which a share of all or of none has one by, else that of ``mean_interval``.
    """
    known = values[np.isfinite(values)]
    share = np.isin(known, (0.0, 1.0)).all()
    low, high = (wilson(known.sum(), len(known)) if share else mean_interval(known, seed)) or (None, None)
    reason = None if len(known) else "there is no such value"
    value = float(known.mean()) if len(known) else None
    return figure(measure, variant, value=value, low=low, high=high, n=len(known), reason=reason, **more)


def ratio_row(
    measure: str,
    variant: Sequence[str],
    over: Float[np.ndarray, "b"],
    under: Float[np.ndarray, "b"],
    seed: int,
    **more: Any,
) -> Row:
    """A row of a ratio of two means over the same prompts; what one prompt adds to either is seen by the interval.

    The interval is that of the mean of r + (over - r under) / mean(under), r the ratio, which they average to (the
    delta method). Over a mean of 0 there is no ratio.
    """
    mean = under.mean()
    if mean == 0:
        return mean_rows(measure, variant, np.full(len(under), np.nan), seed, **more)
    value = over.mean() / mean
    return mean_rows(measure, variant, value + (over - value * under) / mean, seed, **more)


def cosine_row(
    measure: str, variant: Sequence[str], one: Float[np.ndarray, "b n"], other: Float[np.ndarray, "b n"], seed: int
) -> Row:
    """A row of the cosine of what two predictors say of prompts, all answers together: how alike they are at any scale.

    The interval is that of the mean of c (1 + ab / AB - aa / 2 AA - bb / 2 BB), c the cosine, aa, ab and bb the sums of a
    prompt and AA, AB and BB their means (the delta method). Beside who says nothing there is no cosine.
    """
    ab, aa, bb = (one * other).sum(axis=1), (one * one).sum(axis=1), (other * other).sum(axis=1)
    size = np.sqrt(aa.mean() * bb.mean())
    if size == 0:
        return mean_rows(measure, variant, np.full(len(one), np.nan), seed)
    value = ab.mean() / size
    around = value + ab / size - value * (aa / aa.mean() + bb / bb.mean()) / 2
    return mean_rows(measure, variant, around, seed, null=0.0)


def way_row(
    measure: str,
    variant: Sequence[str],
    from_first: Float[np.ndarray, "b"],
    from_second: Float[np.ndarray, "b"],
    between: Float[np.ndarray, "b"],
    seed: int,
) -> Row:
    """A row of where a predictor stands between two others: 0 at the first, 1 at the second, above 1/2 nearer to this.

    All are squared distances over the same prompts. (|f - a|^2 - |f - b|^2) / |a - b|^2 is twice the way less 1,
    whatever f misses across the line from a to b (law of cosines).
    """
    return ratio_row(measure, variant, between + from_first - from_second, 2 * between, seed, null=0.5)


def picture(
    name: str, *, x: str, y: str, lines: Mapping[str, Line], log_x: bool = False, log_y: bool = False
) -> dict[str, Any]:
    """A picture of lines by their names, as it goes into a record; ``x`` and ``y`` say what the axes are."""
    plain = {own: [[float(at), float(value)] for at, value in points] for own, points in lines.items()}
    return {"name": name, "x": x, "y": y, "log_x": log_x, "log_y": log_y, "lines": plain}


def asked_prompts(given: Given, source: Source, count: int) -> Prompts:
    """Prompts that no training sees."""
    return source.batch(unseen(given), 0, count)
