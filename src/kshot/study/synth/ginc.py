"""Is learning in context the inference of a latent concept? (Xie et al. 2022)

Text from a mixture of hidden Markov models with 50 tokens, drawn anew for every seed, against the exact posterior. Exact
inference alone is asked about the mixture of the paper's text, networks about that of its code (grammar.ginc).
Networks are far smaller than the published GPT-2 of 12 layers and documents shorter: windows of a document, each of which
begins as a document does, drawn anew at every step. Where transitions are random, they are even; the one concept of the
documents is one of the five of the prompts.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kshot.adapt.prompting import InContext
from kshot.data.task import Example, Task
from kshot.data.template import Template
from kshot.measure.scoring import score
from kshot.model.grown import grown_lm
from kshot.study.figures import figure
from kshot.study.synth.experiment import SIZES, Claim, Experiment, Given, Part, Row, Size
from kshot.study.synth.ginc_mismatch import INFERRED, mismatch
from kshot.study.synth.ginc_networks import (
    ORDERED,
    PERMUTATIONS,
    Sets,
    Speaker,
    held,
    much_of,
    networks,
    possible,
    sets_of,
    shown,
    speaker,
)
from kshot.study.synth.growing import mean_rows, unseen
from kshot.synth.grammar import Ginc, examples, ginc, inferred

_OF = "Xie et al. 2022"
_ONE, _RANDOM, _NO_ENTITY = "one concept", "random transitions", "entities do not stay"


def _cases(seed: int) -> Mapping[str, tuple[Ginc, Ginc]]:
    """The mixtures of documents and of prompts, by what is missing."""
    mixture, without = (ginc(seed, permutations=PERMUTATIONS, keep=keep) for keep in (0.9, 0.0))
    entities, slots = mixture.memory.shape
    even = replace(
        mixture,
        slots=np.full_like(mixture.slots, 1 / slots),
        entities=np.full_like(mixture.entities, 1 / entities),
    )
    return {_ONE: (replace(mixture, known=1), mixture), _RANDOM: (even, mixture), _NO_ENTITY: (without, without)}


def _ablations(given: Given) -> dict[str, Any]:
    """A Transformer of documents without what is to be inferred, asked prompts of the longest examples.

    Beside its accuracy stands that of exact inference for such documents.
    """
    much, rows = much_of(given.size), list[Row]()
    length = much.lengths[-1]
    shots = possible(much, length)
    for name, (read, asked) in _cases(given.seed).items():
        own = speaker(given, name, much.ablation, read)
        found = examples(asked, unseen(given), much.asked, shots=shots[-1], length=length)
        hits = {}
        for n in shots:
            tokens = shown(found, n, length)
            exact = inferred(read, tokens).following[:, -1].argmax(axis=1) == found.answers
            hits[n] = (own.last(tokens).argmax(axis=1) == found.answers).astype(float)
            word = f"k={length}, n={n}"
            rows.append(mean_rows("accuracy", (name, word), hits[n], given.seed, null=float(exact.mean())))
        gain = hits[shots[-1]] - hits[shots[0]]
        rows.append(mean_rows("accuracy_gain", (name,), gain, given.seed, null=0.0))
        # Who has learned nothing of its documents learns nothing in context either.
        rows += held(given, read, [own], (name,))[0]
    return {"rows": rows}


def words(count: int) -> tuple[str, ...]:
    """Token by token what it is called: the delimiter, a ... z, aa ...

    >>> words(29)[:3], words(29)[-3:]
    (('/', 'a', 'b'), ('z', 'aa', 'ab'))
    """
    found = ["/"]
    for i in range(count - 1):
        word = ""
        while i >= 0:
            word, i = chr(ord("a") + i % 26) + word, i // 26 - 1
        found.append(word)
    return tuple(found)


def _task(sets: Sets, number: int, names: tuple[str, ...]) -> Task:
    """A set of examples as a task whose labels are words."""

    def example(own: str, tokens: list[int], answer: int) -> Example:
        return Example(id=own, fields={"text": " ".join(names[w] for w in tokens)}, label=names[answer])

    queries = zip(sets.queries[number].tolist(), sets.answers[number].tolist(), strict=True)
    return Task(
        name=f"ginc-{number}",
        kind="classification",
        labels=names[1:],
        train=tuple(example(f"shown-{i}", row[:-2], row[-2]) for i, row in enumerate(sets.shown[number].tolist())),
        test=tuple(example(f"query-{i}", row, answer) for i, (row, answer) in enumerate(queries)),
        template=Template(input="{{text}}", separator=f" {names[0]} "),
    )


def _engine(given: Given) -> dict[str, Any]:
    """A grown Transformer as the LM of ordinary tasks, in context, against the same network asked directly."""
    much, mixture = much_of(given.size), ginc(given.seed, permutations=PERMUTATIONS)
    # What is asked, whether both ways say the same, hangs little on how much was learned.
    training = replace(much.ablation.training, steps=much.ablation.training.steps // 4)
    own = speaker(given, "engine", replace(much.ablation, training=training), mixture)
    sets = sets_of(mixture, unseen(given, "orders"), much.sets, much.queries)
    return {"rows": asked_both_ways(own, much.ablation.shape.heads, sets, mixture.vocabulary)}


def asked_both_ways(own: Speaker, heads: int, sets: Sets, vocabulary: int) -> list[Row]:
    """How often the engine's answer is the network's own, and how far their log-probabilities are apart at most.

    Answers are words other than the delimiter, so both are judged among those.
    """
    names = words(vocabulary)
    lm = grown_lm({name: tensor.cpu() for name, tensor in own.weights.items()}, heads, names)
    tables = []
    for number in range(len(sets.queries)):
        task = _task(sets, number, names)
        adapted = InContext(shots=ORDERED, pick="first_n").fit(lm, task, task.train, 0)
        tables.append(score(adapted, task, task.test, calibration=False).predictions.logprobs)
    by_engine = np.concatenate(tables)
    with torch.no_grad():
        direct = np.log(own.last(sets.prompts(tuple(range(ORDERED)))))[:, 1:]
    same = (by_engine.argmax(axis=1) == direct.argmax(axis=1)).mean()
    apart = np.abs(by_engine - direct).max()
    return [
        figure("agreement", ("engine and network",), value=float(same), n=len(direct)),
        figure("greatest_difference", ("engine against network",), value=float(apart), unit="nats", n=len(direct)),
        figure(
            "accuracy",
            ("engine", "in context"),
            value=float((by_engine.argmax(axis=1) + 1 == sets.answers.ravel()).mean()),
            n=len(direct),
        ),
    ]


_ALL: tuple[Size, ...] = ("smoke", "full", "paper")
_INFERENCE = (
    Claim(
        text="whether the concept of a prompt is found follows from signal against error more often than from always "
        "guessing the commoner outcome",
        source=_OF,
        measure="foreseen_gain",
        variant="over saying what most are",
        least=0.0,
        at=_ALL,
    ),
    Claim(
        text="where a prompt goes on as a document does, the transitions between examples are no evidence against the concept",
        source=_OF,
        measure="error",
        variant="k=5, 0 joined",
        most=0.0,
        at=_ALL,
    ),
    Claim(
        text="examples joined as published make an error",
        source=_OF,
        measure="error",
        variant="k=5, 1 joined",
        least=0.0,
        at=_ALL,
    ),
    *(
        Claim(
            text=f"examples of {length} tokens find the concept all the same, the more of them the better",
            source=_OF,
            measure="posterior_gain",
            variant=f"k={length}, 1 joined, most examples",
            least=0.0,
            at=_ALL,
        )
        for length in (3, 10)
    ),
)
_NETWORKS = (
    *(
        Claim(
            text=f"accuracy of the {word} grows with the number of examples (published, 64 of 10 tokens: {published})",
            source=_OF,
            measure="accuracy_gain",
            variant=f"{name}, k=10, most examples",
            least=0.0,
        )
        for name, word, published in (
            ("transformer", "Transformer", "69.5 to 81.2 % with 12 layers"),
            ("lstm", "LSTM", "91.7 to 95.8 %"),
        )
    ),
    *(
        Claim(
            text=f"accuracy of the {word} grows with the length of examples (published, 64 of 3 and of 10 tokens: {published})",
            source=_OF,
            measure="accuracy_gain",
            variant=f"{name}, longest examples",
            least=0.0,
        )
        for name, word, published in (
            ("transformer", "Transformer", "51.9 and 81.2 % with 12 layers"),
            ("lstm", "LSTM", "45.2 and 95.8 %"),
        )
    ),
    Claim(
        text="the LSTM is more accurate (published: 95.8 against 81.2 % of 12 layers)",
        source=_OF,
        measure="accuracy_difference",
        variant="lstm less transformer, longest, most",
        least=0.0,
    ),
    Claim(
        text="the loss of the LSTM is no lower all the same (published: 1.35 against 1.33)",
        source=_OF,
        measure="loss_difference",
        variant="lstm less transformer",
        least=0.0,
        at=("paper",),
    ),
    Claim(
        text="examples of concepts that are in no document teach nothing (published: flat at 9 to 17 %)",
        source=_OF,
        measure="accuracy_gain",
        variant="transformer, unseen concepts",
        most=0.05,
    ),
    Claim(
        text="prompts of unseen concepts are answered worse than those of known ones",
        source=_OF,
        measure="accuracy_difference",
        variant="transformer, unseen less seen",
        most=0.0,
    ),
    Claim(
        text="the order of examples changes accuracy (published: by 10 to 40 points)",
        source=_OF,
        measure="order_spread",
        variant="transformer",
        least=0.1,
    ),
)
_WITHOUT = (
    Claim(
        text="by a network of one concept nothing is learned in context (published: flat at 20 to 25 %)",
        source=_OF,
        measure="accuracy_gain",
        variant=_ONE,
        most=0.05,
    ),
    Claim(
        text="by a network of random transitions nothing is learned in context (published: accuracies of 0 to 1.8 %)",
        source=_OF,
        measure="accuracy_gain",
        variant=_RANDOM,
        most=0.05,
    ),
    Claim(
        text="by a network of documents without persistent entities nothing is learned in context (published, 10 tokens: 30.7 to 28.1 %)",
        source=_OF,
        measure="accuracy_gain",
        variant=_NO_ENTITY,
        most=0.05,
    ),
)
_LEARNED = tuple(
    Claim(
        text=f"{name}: the network has learned its documents all the same, to a tenth of a nat a token of exact inference",
        source="this project",
        measure="kl_to_exact",
        variant=f"{name}, documents",
        most=0.1,
    )
    for name in (_ONE, _RANDOM, _NO_ENTITY)
)
_ENGINE = (
    Claim(
        text="answers to ordinary tasks in context are the network's own",
        source="this project",
        measure="agreement",
        variant="engine and network",
        least=1.0,
        at=_ALL,
    ),
    Claim(
        text="log-probabilities of answers to ordinary tasks are the network's own",
        source="this project",
        measure="greatest_difference",
        variant="engine against network",
        most=1e-4,
        at=_ALL,
    ),
)

GINC = Experiment(
    about="learning in context as inference of a latent concept: GINC, exact inference, Transformer and LSTM",
    source=_OF,
    parts={
        name: Part(asks=asks, answer=answer, minutes={"smoke": smoke, "full": full})
        for name, asks, answer, smoke, full in (
            ("mismatch", "when exact inference finds the concept of a prompt that is no document", mismatch, 0.3, 5.0),
            (
                "networks",
                "a Transformer and an LSTM: examples, their length and order, unseen concepts",
                networks,
                1.1,
                125.0,
            ),
            (
                "ablations",
                "documents of one concept, of random transitions, without persistent entities",
                _ablations,
                0.3,
                85.0,
            ),
            ("engine", "the same answers through ordinary tasks and prompts", _engine, 0.1, 7.0),
        )
    },
    claims=(*_INFERENCE, *_NETWORKS, *_WITHOUT, *_LEARNED, *_ENGINE),
    much={size: (much_of(size), INFERRED[size]) for size in SIZES},
)
