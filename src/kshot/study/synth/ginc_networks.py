"""GINC with networks: language models grown on documents are asked prompts, beside exact inference.

The mixture is that of the published code, in which a third of the ways from slot to slot are impossible: what joins the
examples of a prompt may then rule out the right concept for exact inference, and ``ruled_out`` says how often it does.
A network is asked for the most probable token after a prompt. A prompt of n examples is the end of one with the most
examples, so that prompts of all n have the same last example and the same answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kshot.seeds import digest
from kshot.study.synth.experiment import Given, Row, Size
from kshot.study.synth.growing import Batch, grown, mean_rows, on_batches, picture, unseen
from kshot.synth.grammar import Examples, Ginc, best_answers, documents, examples, ginc, inferred
from kshot.synth.networks.language import LANGUAGES, Language, cross_entropy
from kshot.synth.networks.mixing import SPREAD, Shape
from kshot.synth.networks.network import Weights
from kshot.synth.train import Training

# As many as the published code mixes, of which the published figures are.
PERMUTATIONS = 10
# Orders are of so many examples of so many tokens.
ORDERED, ORDERED_LENGTH = 4, 5
# Texts go through a network so many at a time where nothing is learned from them.
_AT_ONCE = 256
_FLOOR = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Grows:
    """A network by its kind, and how it is trained."""

    kind: str
    shape: Shape
    training: Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Much:
    """How long documents are (and how long prompts may be), what is trained, and how much is asked of it.

    ``sets`` of examples are asked in all orders, with so many ``queries`` each; ``ablation`` is grown three times.
    """

    length: int
    networks: Mapping[str, Grows]
    ablation: Grows
    lengths: tuple[int, ...]
    shots: tuple[int, ...]
    asked: int
    documents: int
    sets: int
    queries: int


_GPT_WIDTH = 768


def _grows(kind: str, shape: tuple[int, int, int], steps: int, batch: int, learning_rate: float) -> Grows:
    layers, heads, width = shape
    training = Training(
        steps=steps, batch=batch, learning_rate=learning_rate, schedule="cosine", warmup=steps // 20, clip=1.0
    )
    # As wide as GPT-2 it begins as GPT-2 does.
    spread = SPREAD if width >= _GPT_WIDTH else None
    made = Shape(layers=layers, heads=heads, width=width, spread=spread)
    return Grows(kind=kind, shape=made, training=training)


_MUCH: Mapping[Size, Much] = {
    "smoke": Much(
        length=96,
        networks={
            "transformer": _grows("transformer", (2, 2, 64), 900, 16, 5e-3),
            "lstm": _grows("lstm", (1, 1, 96), 1_000, 16, 1e-2),
        },
        ablation=_grows("transformer", (2, 2, 64), 100, 16, 5e-3),
        lengths=(3, 5, 10), shots=(0, 1, 2, 4, 7), asked=300, documents=100, sets=6, queries=10,
    ),
    "full": Much(
        length=192,
        networks={
            "transformer": _grows("transformer", (4, 4, 128), 12_000, 16, 1e-3),
            "lstm": _grows("lstm", (1, 1, 192), 25_000, 16, 3e-3),
        },
        ablation=_grows("transformer", (4, 4, 128), 4_000, 16, 1e-3),
        lengths=(3, 5, 8, 10), shots=(0, 1, 2, 4, 8, 16), asked=1_000, documents=200, sets=20, queries=50,
    ),
    # As published, but for windows that are drawn anew in place of epochs, and a cosine in place of other schedules.
    "paper": Much(
        length=1_024,
        networks={
            "transformer": _grows("transformer", (12, 12, 768), 6_000, 8, 8e-4),
            "lstm": _grows("lstm", (6, 1, 768), 12_000, 8, 1e-3),
        },
        ablation=_grows("transformer", (12, 12, 768), 6_000, 8, 8e-4),
        lengths=(3, 5, 8, 10), shots=(0, 1, 2, 4, 8, 16, 32, 64), asked=2_500, documents=100, sets=20, queries=100,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Speaker:
    """A network with its weights, by its name."""

    name: str
    language: Language
    weights: Weights

    def after(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b t w"]:
        """Probabilities of the token after each of texts, on the CPU."""
        place = self.weights["embedding"].device
        with torch.no_grad():
            parts = [
                self.language.says(self.weights, part.to(place)).softmax(-1).cpu()
                for part in _texts(tokens).split(_AT_ONCE)
            ]
        return torch.cat(parts).double().numpy()

    def last(self, tokens: Int[np.ndarray, "b t"]) -> Float[np.ndarray, "b w"]:
        """The same after the last token alone."""
        return np.concatenate(
            [self.after(part)[:, -1] for part in np.split(tokens, range(_AT_ONCE, len(tokens), _AT_ONCE))]
        )


def _texts(tokens: Int[np.ndarray, "b t"]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(tokens))


def much_of(size: Size) -> Much:
    """How much is done at a size."""
    return _MUCH[size]


def speaker(given: Given, name: str, grows: Grows, mixture: Ginc) -> Speaker:
    """A network that was grown on documents of a mixture; ``name`` names it among those of a part."""
    length = _MUCH[given.size].length
    language = LANGUAGES[grows.kind](mixture.vocabulary, length, grows.shape)

    def make(step: int) -> Batch:
        found, _ = documents(mixture, digest(given.seed, "documents", step) >> 2, grows.training.batch, length)
        return (torch.from_numpy(found),)

    loss = on_batches(
        given, make, grows.training, lambda weights, tokens: cross_entropy(language.says(weights, tokens), tokens)
    )
    return Speaker(name=name, language=language, weights=grown(given, name, language, loss, grows.training).weights)


def shown(found: Examples, shots: int, length: int) -> Int[np.ndarray, "b t"]:
    """Prompts with the last so many of their examples of ``length`` tokens."""
    return found.tokens[:, found.tokens.shape[1] - (shots * (length + 1) + length - 1) :]


def possible(much: Much, length: int) -> tuple[int, ...]:
    """The numbers of examples of ``length`` tokens that fit into a prompt."""
    return tuple(n for n in much.shots if n * (length + 1) + length - 1 <= much.length)


def networks(given: Given) -> dict[str, Any]:
    """A Transformer and an LSTM: prompts of known and unknown concepts, documents, orders; and one against the other."""
    much, mixture = _MUCH[given.size], ginc(given.seed, permutations=PERMUTATIONS)
    speakers = [speaker(given, name, grows, mixture) for name, grows in much.networks.items()]
    given.say("asking")
    rows, drawn = _asked(given, mixture, speakers)
    known, surprise = held(given, mixture, speakers)
    rows += [*known, *_unknown(given, mixture, speakers), *_orders(given, mixture, speakers)]
    for name, values in surprise.items():
        if name not in ("transformer", "exact inference"):
            less = values - surprise["transformer"]
            rows.append(mean_rows("loss_difference", (f"{name} less transformer",), less, given.seed, null=0.0))
    return {"rows": rows, "pictures": drawn}


def _hits(said: Float[np.ndarray, "b w"], found: Examples) -> Float[np.ndarray, "b"]:
    return (said.argmax(axis=1) == found.answers).astype(float)


def _apart(exact: Float[np.ndarray, "*b w"], said: Float[np.ndarray, "*b w"]) -> Float[np.ndarray, "*b"]:
    """The Kullback-Leibler divergence from what is exact to what is said, in nats."""
    return (exact * (np.log(np.maximum(exact, _FLOOR)) - np.log(np.maximum(said, _FLOOR)))).sum(axis=-1)


def _asked(given: Given, mixture: Ginc, speakers: list[Speaker]) -> tuple[list[Row], list[dict[str, Any]]]:
    """Accuracy by length and shots, what examples and their length add, and how far what is said is from what is exact."""
    much, rows, drawn = _MUCH[given.size], [], []
    hits: dict[tuple[str, int, int], np.ndarray] = {}
    for length in much.lengths:
        shots = possible(much, length)
        found = examples(mixture, unseen(given), much.asked, shots=shots[-1], length=length)
        for n in shots:
            tokens, word = shown(found, n, length), f"k={length}, n={n}"
            whole = inferred(mixture, tokens)
            exact = whole.following[:, -1]
            out = (whole.concepts[np.arange(len(tokens)), -1, found.concepts] == 0).astype(float)
            rows.append(mean_rows("ruled_out", ("exact inference", word), out, given.seed))
            said = {"exact inference": exact, **{own.name: own.last(tokens) for own in speakers}}
            for name, probabilities in said.items():
                hits[name, length, n] = own = _hits(probabilities, found)
                rows.append(mean_rows("accuracy", (name, word), own, given.seed))
                if name != "exact inference":
                    same = (probabilities.argmax(axis=1) == exact.argmax(axis=1)).astype(float)
                    rows.append(mean_rows("kl_to_exact", (name, word), _apart(exact, probabilities), given.seed))
                    rows.append(mean_rows("agreement", (name, word), same, given.seed))
    names = ["exact inference", *(own.name for own in speakers)]
    few, many = much.lengths[0], much.lengths[-1]
    for name in names:
        gains = _gains(much, name, hits)
        rows += [mean_rows("accuracy_gain", (name, word), own, given.seed, null=0.0) for word, own in gains.items()]
    most = possible(much, many)[-1]
    for name in names[1:]:
        if name != "transformer":
            less = hits[name, many, most] - hits["transformer", many, most]
            rows.append(
                mean_rows(
                    "accuracy_difference", (f"{name} less transformer", "longest, most"), less, given.seed, null=0.0
                )
            )
    for length in (few, many):
        lines = {name: [(n, float(hits[name, length, n].mean())) for n in possible(much, length)] for name in names}
        drawn.append(picture(f"accuracy, k={length}", x="examples", y="accuracy", lines=lines))
    return rows, drawn


def _gains(much: Much, name: str, hits: Mapping[tuple[str, int, int], np.ndarray]) -> dict[str, np.ndarray]:
    """What the most examples add to none, length by length, and the longest examples to the shortest."""
    few, many = much.lengths[0], much.lengths[-1]
    most = possible(much, many)[-1]
    found = {
        f"k={length}, most examples": hits[name, length, possible(much, length)[-1]] - hits[name, length, 0]
        for length in much.lengths
    }
    return {**found, "longest examples": hits[name, many, most] - hits[name, few, most]}


def held(
    given: Given, mixture: Ginc, speakers: Sequence[Speaker], word: tuple[str, ...] = ()
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """Documents that nobody was grown on: surprise, and distance to exact inference; and surprises, document by document.

    Rows are named by the network, and exact inference by ``word`` besides.
    """
    much = _MUCH[given.size]
    tokens, _ = documents(mixture, unseen(given, "held"), much.documents, much.length)
    exact = inferred(mixture, tokens).following
    surprise, rows = {}, []
    for name, said in [("exact inference", exact), *((own.name, own.after(tokens)) for own in speakers)]:
        right = np.take_along_axis(said[:, :-1], tokens[:, 1:, None], axis=2)[..., 0]
        surprise[name] = -np.log(np.maximum(right, _FLOOR)).mean(axis=1)
        variant = (*word, name, "documents") if name == "exact inference" else (name, "documents")
        rows.append(mean_rows("loss", variant, surprise[name], given.seed, unit="nats"))
        if name != "exact inference":
            same = (said.argmax(axis=2) == exact.argmax(axis=2)).mean(axis=1)
            rows.append(mean_rows("kl_to_exact", (name, "documents"), _apart(exact, said).mean(axis=1), given.seed))
            rows.append(mean_rows("agreement", (name, "documents"), same, given.seed))
    return rows, surprise


def _unknown(given: Given, mixture: Ginc, speakers: list[Speaker]) -> list[Row]:
    """Prompts of concepts that are in no document, of the longest examples."""
    much = _MUCH[given.size]
    length = much.lengths[-1]
    shots = possible(much, length)
    found = examples(mixture, unseen(given), much.asked, shots=shots[-1], length=length, of="unknown")
    known = examples(mixture, unseen(given), much.asked, shots=shots[-1], length=length)
    rows: list[Row] = []
    for own in speakers:
        hits = [_hits(own.last(shown(found, n, length)), found) for n in (shots[0], shots[-1])]
        less = hits[1] - _hits(own.last(known.tokens), known)
        rows += [
            mean_rows("accuracy", (own.name, "unseen concepts", f"k={length}, n={n}"), values, given.seed)
            for n, values in zip((shots[0], shots[-1]), hits, strict=True)
        ]
        rows.append(mean_rows("accuracy_gain", (own.name, "unseen concepts"), hits[1] - hits[0], given.seed, null=0.0))
        rows.append(mean_rows("accuracy_difference", (own.name, "unseen less seen"), less, given.seed, null=0.0))
    return rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sets:
    """Examples with their delimiters, s sets of n, and q queries of each set with their answers."""

    shown: Int[np.ndarray, "s n k1"]
    queries: Int[np.ndarray, "s q t"]
    answers: Int[np.ndarray, "s q"]

    def prompts(self, order: tuple[int, ...]) -> Int[np.ndarray, "b t"]:
        """Every query after the examples of its set in an order, set after set."""
        s, q, _ = self.queries.shape
        before = np.repeat(self.shown[:, list(order)].reshape(s, 1, -1), q, axis=1)
        return np.concatenate([before, self.queries], axis=2).reshape(s * q, -1)


def sets_of(mixture: Ginc, seed: int, sets: int, queries: int) -> Sets:
    """Sets of ORDERED examples of ORDERED_LENGTH tokens; all of a set have one concept and begin in one slot."""
    length, many = ORDERED_LENGTH, ORDERED + queries
    found = examples(mixture, seed, sets, shots=many, length=length)
    blocks = found.tokens[:, : many * (length + 1)].reshape(sets, many, length + 1)
    asked = blocks[:, ORDERED:, : length - 1]
    flat = asked.reshape(-1, length - 1)
    begins = np.zeros(flat.shape, dtype=bool)
    begins[:, 0] = True
    answers = best_answers(mixture, flat, found.concepts.repeat(queries), found.first.repeat(queries), begins)
    return Sets(shown=blocks[:, :ORDERED], queries=asked, answers=answers.reshape(sets, queries))


def _orders(given: Given, mixture: Ginc, speakers: list[Speaker]) -> list[Row]:
    """Accuracy in the best order of a set's examples less that in the worst, the queries the same, set by set.

    Orders are chosen by half of the queries and judged by the other, and the other way round: the best of many that are
    all alike would else be better than the worst by luck.
    """
    much = _MUCH[given.size]
    sets = sets_of(mixture, unseen(given, "orders"), much.sets, much.queries)
    table: dict[str, list[np.ndarray]] = {}
    for order in permutations(range(ORDERED)):
        tokens = sets.prompts(order)
        said = {"exact inference": inferred(mixture, tokens).following[:, -1]}
        for name, probabilities in {**said, **{own.name: own.last(tokens) for own in speakers}}.items():
            hits = probabilities.argmax(axis=1).reshape(sets.answers.shape) == sets.answers
            table.setdefault(name, []).append(hits)
    rows = []
    for name, own in table.items():
        hits = np.array(own, dtype=float)
        rows.append(mean_rows("order_spread", (name,), order_spread(hits), given.seed, null=0.0))
        rows.append(mean_rows("accuracy", (name, "all orders"), hits.mean(axis=(0, 2)), given.seed))
    return rows


def order_spread(hits: Float[np.ndarray, "o s q"]) -> Float[np.ndarray, "s"]:
    """Set by set, how much oftener queries are right in the order that is best for others of the set than in the worst."""
    halves, sets = (hits[:, :, ::2].mean(axis=2), hits[:, :, 1::2].mean(axis=2)), np.arange(hits.shape[1])
    spreads = [
        judging[choosing.argmax(axis=0), sets] - judging[choosing.argmin(axis=0), sets]
        for choosing, judging in (halves, halves[::-1])
    ]
    return np.mean(spreads, axis=0)
