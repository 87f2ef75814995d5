"""GINC without a network: when does exact inference find the concept of a prompt that no document could be?

After a share of the examples the next begins as published, by a delimiter and an entity of its own in the slot that all
begin in; after the others the text goes on as a document of the concept would. What the tokens of an example but its
first say for the right concept is the signal; what the delimiter and the next first token say against it is the error.
Both are differences of log-probabilities to one other concept, in nats an example, and their sum over a prompt is all
that the posterior depends on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kshot.study.synth.experiment import Given, Row, Size
from kshot.study.synth.growing import mean_rows, picture, unseen
from kshot.synth.grammar import Examples, Ginc, examples, ginc, inferred

# A posterior below it is it: there, nothing is left to be learned of a concept.
_FLOOR = 1e-300
# The share of a posterior with which a concept has won against all others.
_WON = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Much:
    """What is swept, and how many prompts are asked at each place."""

    lengths: tuple[int, ...]
    joined: tuple[float, ...]
    shots: tuple[int, ...]
    asked: int


INFERRED: Mapping[Size, _Much] = {
    "smoke": _Much(lengths=(3, 5, 10), joined=(0.0, 0.5, 1.0), shots=(0, 1, 4, 16), asked=360),
    "full": _Much(
        lengths=(3, 5, 8, 10), joined=(0.0, 0.25, 0.5, 0.75, 1.0), shots=(0, 1, 2, 4, 8, 16, 32), asked=2_500
    ),
    "paper": _Much(
        lengths=(3, 5, 8, 10), joined=(0.0, 0.25, 0.5, 0.75, 1.0), shots=(0, 1, 2, 4, 8, 16, 32, 64), asked=2_500
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What prompts say for their concept against each other one, in nats: (b, c), 0 against itself.

    ``signal`` is the mean over examples of what their tokens but the first say; ``error`` that of what the joints after
    them say, its sign turned; ``posterior`` the right concept's at the end, (b,).
    """

    signal: Float[np.ndarray, "b c"]
    error: Float[np.ndarray, "b c"]
    posterior: Float[np.ndarray, "b"]


def evidence(posteriors: Float[np.ndarray, "b t c"], concepts: Int[np.ndarray, "b"], length: int) -> Evidence:
    """The evidence of prompts of one example or more of ``length`` tokens, from the posterior after every token."""
    rows, (b, t, c) = np.arange(len(concepts)), posteriors.shape
    logs = np.log(np.maximum(posteriors, _FLOOR))
    said = np.diff(logs[rows, :, concepts][..., None] - logs, axis=1, prepend=0.0)
    shots = (t - length + 1) // (length + 1)
    # Token by token of every example and its delimiter, and the first token of the next.
    shown = said[:, : shots * (length + 1)].reshape(b, shots, length + 1, c)
    following = said[:, length + 1 :: length + 1]
    return Evidence(
        signal=shown[:, :, 1:length].sum(axis=2).mean(axis=1),
        error=-(shown[:, :, length] + following).mean(axis=1),
        posterior=posteriors[rows, -1, concepts],
    )


def mismatch(given: Given) -> dict[str, Any]:
    """Posterior and accuracy by length, joints and shots; signal against error, and what they foresee."""
    much, mixture = INFERRED[given.size], ginc(given.seed)
    rows: list[Row] = []
    foreseen: list[_Case] = []
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for length in much.lengths:
        for joined in much.joined:
            word = (f"k={length}", f"{joined:g} joined")
            given.say(f"exact inference, {', '.join(word)}")
            right: dict[int, np.ndarray] = {}
            for shots in much.shots:
                found = examples(mixture, unseen(given), much.asked, shots=shots, length=length, joined=joined)
                said = inferred(mixture, found.tokens)
                right[shots] = said.concepts[np.arange(much.asked), -1, found.concepts]
                hits = (said.following[:, -1].argmax(axis=1) == found.answers).astype(float)
                rows.append(
                    mean_rows("posterior", (*word, f"n={shots}"), right[shots], given.seed, null=1 / mixture.known)
                )
                rows.append(mean_rows("accuracy", ("exact inference", *word, f"n={shots}"), hits, given.seed))
            most = much.shots[-1]
            gain = right[most] - right[much.shots[0]]
            rows.append(mean_rows("posterior_gain", (*word, "most examples"), gain, given.seed, null=0.0))
            own, held = _weighed(mixture, found, evidence(said.concepts, found.concepts, length))
            foreseen += held
            rows += [mean_rows(name, word, values, given.seed, unit="nats an example") for name, values in own.items()]
            lines.setdefault(f"k={length}", {})[word[1]] = [(n, float(values.mean())) for n, values in right.items()]
    return {
        "rows": rows + _foreseen(foreseen, given.seed),
        "pictures": [
            picture(f"posterior of the right concept, {name}", x="examples", y="posterior", lines=own)
            for name, own in lines.items()
        ],
    }


@dataclass(frozen=True, slots=True)
class _Case:
    """Prompts of a concept and a first slot, at one length and share of joints: whether the concept was foreseen to win,
    and whether it did."""

    concept: int
    slot: int
    foreseen: bool
    won: bool


def _foreseen(cases: Sequence[_Case], seed: int) -> list[Row]:
    """How often signal against error foresaw who won, and how much oftener than who says of every case what most are.

    The gain's interval is over concepts and slots: what one does at one length it does at the next.
    """
    right = np.array([one.foreseen == one.won for one in cases], dtype=float)
    won = np.array([one.won for one in cases])
    most = won if won.mean() >= 0.5 else ~won
    which = [(one.concept, one.slot) for one in cases]
    groups = [np.array([own == key for own in which]) for key in dict.fromkeys(which)]
    gains = np.array([(right - most)[own].mean() for own in groups])
    return [
        mean_rows("foreseen", ("signal against error",), right, seed, null=float(most.mean())),
        mean_rows("foreseen_gain", ("over saying what most are",), gains, seed, null=0.0),
    ]


def _weighed(mixture: Ginc, found: Examples, own: Evidence) -> tuple[dict[str, np.ndarray], list[_Case]]:
    """Signal and error against the rival that is hardest to tell, prompt by prompt, and whom they foresaw to win.

    Prompts of one concept and first slot are a case. Its rival, and whether the signal is greater than the error, are
    read off one half of its prompts; signal, error and posterior that count are those of the other.
    """
    signal, error, foreseen = [], [], []
    half = np.arange(len(found.concepts)) % 2 == 0
    for concept in range(mixture.known):
        for slot in range(1, mixture.memory.shape[1]):
            case = (found.concepts == concept) & (found.first == slot)
            seen, asked = case & half, case & ~half
            if not seen.any() or not asked.any():
                continue
            margin = (own.signal - own.error)[seen].mean(axis=0)
            margin[concept] = np.inf
            rival = int(margin.argmin())
            signal.append(own.signal[asked, rival])
            error.append(own.error[asked, rival])
            won = bool(own.posterior[asked].mean() > _WON)
            foreseen.append(_Case(concept, slot, bool(margin[rival] > 0), won))
    named = {"signal": np.concatenate(signal), "error": np.concatenate(error)}
    return {**named, "margin": named["signal"] - named["error"]}, foreseen
