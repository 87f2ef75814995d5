"""GINC: text from a mixture of hidden Markov models, prompts of examples from one of them, and what exact inference says.

A hidden state is an entity and a slot of its properties; a memory says which token they emit, and slot 0 emits the
delimiter. A concept is a way from slot to slot; how entities change is the same for all. A document stays with a
concept. In a prompt examples of one concept stand one after another, each with an entity of its own, where a document
would not have gone from one to the next: that mismatch is the point of the paper.

Source: Xie et al. 2022, appendix F, and their data release.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from kshot.errors import KshotError
from kshot.seeds import stream

DELIMITER = 0
# Ways from slot to slot are mixtures of permutations with weights at this temperature; starts are nearly even.
_SHARP, _EVEN = 0.1, 10.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ginc:
    """The mixture. ``memory[v, s]`` is the token of entity v and slot s; ``slots[c]`` and ``entities`` are transition
    matrices, rows to columns; ``start`` is over states, v * s_count + s. Concepts from ``known`` on are in no document.
    """

    vocabulary: int
    memory: Int[np.ndarray, "v s"]
    slots: Float[np.ndarray, "c s s"]
    entities: Float[np.ndarray, "v v"]
    start: Float[np.ndarray, "z"]
    known: int

    @property
    def tokens(self) -> Int[np.ndarray, "z"]:
        """The token of every state."""
        return self.memory.reshape(-1)

    def transitions(self) -> Float[np.ndarray, "c z z"]:
        """From state to state, for every concept: an entity and a slot change independently."""
        return np.stack([np.kron(self.entities, own) for own in self.slots])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """b prompts of n examples of k tokens, a delimiter after each, then k - 1 tokens of a last one.

    ``tokens`` are (b, n (k + 1) + k - 1); ``answers`` the most probable next token under the prompt's ``concepts`` and
    the slot that its examples begin in, ``first``.
    """

    tokens: Int[np.ndarray, "b t"]
    answers: Int[np.ndarray, "b"]
    concepts: Int[np.ndarray, "b"]
    first: Int[np.ndarray, "b"]


def ginc(
    seed: int,
    *,
    vocabulary: int = 50,
    shape: tuple[int, int] = (10, 10),
    known: int = 5,
    unknown: int = 5,
    keep: float = 0.9,
    permutations: int = 100,
) -> Ginc:
    """A mixture drawn by the seed: entities by slots, ``keep`` the probability that an entity stays (0: drawn anew).

    Ways from slot to slot mix so many ``permutations``: 100 in the paper's text, by which all are possible, and 10 in its
    code, by which a third are not. The published losses of 1.3 nats for 50 tokens are those of the code: by the text
    exact inference itself comes to 2.4.

    As published with 50, 100 or 150 tokens, ten entities of ten slots, five concepts in documents and five in none.
    Raises KshotError for a vocabulary without a token besides the delimiter.
    """
    entities, slots = shape
    if vocabulary < 2 or slots < 2 or known < 1:
        raise KshotError(
            f"{vocabulary} tokens, {slots} slots, {known} concepts: what works is 2 tokens and slots and a concept or more"
        )
    rng = stream(seed, "ginc")
    memory = rng.integers(1, vocabulary, (entities, slots))
    memory[:, 0] = DELIMITER
    ways = np.stack([_mixed(rng, slots, permutations) for _ in range(known + unknown)])
    weights = (rng.random(entities * slots) - 0.5) / _EVEN
    return Ginc(
        vocabulary=vocabulary,
        memory=memory,
        slots=ways,
        entities=keep * np.eye(entities) + (1 - keep) * _mixed(rng, entities, permutations),
        start=_softmax(weights),
        known=known,
    )


def _mixed(rng: np.random.Generator, size: int, permutations: int) -> Float[np.ndarray, "s s"]:
    """A transition matrix: a mixture of permutations."""
    weights = _softmax((rng.random(permutations) - 0.5) / _SHARP)
    return sum((w * np.eye(size)[rng.permutation(size)] for w in weights), np.zeros((size, size)))


def _softmax(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    raised = np.exp(values - values.max())
    return raised / raised.sum()


def documents(mixture: Ginc, seed: int, count: int, length: int) -> tuple[Int[np.ndarray, "b t"], Int[np.ndarray, "b"]]:
    """So many documents of so many tokens, and the concept of each, one of the known; a pure function of all arguments."""
    rng = stream(seed, "documents", count, length)
    concepts = rng.integers(0, mixture.known, count)
    # An entity and a slot go their own ways, which are shorter to draw from than the states.
    entity_steps, slot_steps = mixture.entities.cumsum(axis=1), mixture.slots.cumsum(axis=2)
    state = _drawn(rng, np.broadcast_to(mixture.start.cumsum(), (count, len(mixture.start))))
    entity, slot = np.divmod(state, mixture.memory.shape[1])
    found = np.empty((count, length), dtype=np.int64)
    for t in range(length):
        found[:, t] = mixture.memory[entity, slot]
        entity = _drawn(rng, entity_steps[entity])
        slot = _drawn(rng, slot_steps[concepts, slot])
    return found, concepts


def _drawn(rng: np.random.Generator, steps: Float[np.ndarray, "b n"]) -> Int[np.ndarray, "b"]:
    """One of n for every row of sums of probabilities."""
    found = (rng.random(len(steps))[:, None] >= steps).sum(axis=1)
    return np.minimum(found, steps.shape[1] - 1)


def examples(
    mixture: Ginc,
    seed: int,
    count: int,
    *,
    shots: int,
    length: int,
    of: Literal["known", "unknown"] = "known",
    joined: float = 1.0,
) -> Examples:
    """Prompts of ``shots`` examples of ``length`` tokens; all of a prompt begin in one slot, each with an entity of its own.

    That is so after a share ``joined`` of the examples. After the others the text goes on as a document of the concept
    does, for as many tokens, with or without a delimiter: at 0 a prompt is a document that begins in a slot.
    """
    if length < 2:
        raise KshotError(f"examples of {length} tokens: what works is 2 or more, of which the last is asked for")
    if of == "unknown" and len(mixture.slots) == mixture.known:
        raise KshotError("there is no concept that is in no document; give unknown=1 or more")
    rng = stream(seed, "examples", count, shots, length, of)
    low, high = (0, mixture.known) if of == "known" else (mixture.known, len(mixture.slots))
    concepts = rng.integers(low, high, count)
    first = rng.integers(1, mixture.memory.shape[1], count)
    anew = stream(seed, "joined", count, shots, length, of).random((count, shots + 1)) < joined
    anew[:, 0] = True
    entity_steps, slot_steps = mixture.entities.cumsum(axis=1), mixture.slots.cumsum(axis=2)
    rows = np.empty((count, shots + 1, length + 1), dtype=np.int64)
    entity, slot = np.zeros_like(first), first
    for i in range(shots + 1):
        own = rng.integers(0, len(mixture.memory), count)
        entity, slot = np.where(anew[:, i], own, entity), np.where(anew[:, i], first, slot)
        for t in range(length + 1):
            rows[:, i, t] = mixture.memory[entity, slot]
            entity, slot = _drawn(rng, entity_steps[entity]), _drawn(rng, slot_steps[concepts, slot])
    rows[:, :-1, -1] = np.where(anew[:, 1:], DELIMITER, rows[:, :-1, -1])
    tokens = rows.reshape(count, -1)[:, : shots * (length + 1) + length - 1]
    begins = np.zeros(tokens.shape, dtype=bool)
    begins[:, :: length + 1] = anew
    answers = best_answers(mixture, tokens, concepts, first, begins)
    return Examples(tokens=tokens, answers=answers, concepts=concepts, first=first)


def best_answers(
    mixture: Ginc,
    tokens: Int[np.ndarray, "b t"],
    concepts: Int[np.ndarray, "b"],
    first: Int[np.ndarray, "b"],
    begins: Bool[np.ndarray, "b t"],
) -> Int[np.ndarray, "b"]:
    """The most probable token after texts, for who knows the concept, and where an example ``begins`` in slot ``first``.

    Of entities nobody knows more than the text says. Every text begins with an example.
    """
    v, s = mixture.memory.shape
    anew = np.zeros((len(tokens), v, s))
    anew[np.arange(len(tokens)), :, first] = 1 / v
    belief = anew
    # What stands before an example that all of them begin with is forgotten.
    for t in range(int(np.flatnonzero(begins.all(axis=0))[-1]), tokens.shape[1]):
        belief = np.where(begins[:, t, None, None], anew, belief) * (mixture.memory == tokens[:, t, None, None])
        belief = mixture.entities.T @ belief @ mixture.slots[concepts]
        total = belief.sum(axis=(1, 2), keepdims=True)
        # A delimiter where none could be leaves nothing, until the next example begins.
        belief = belief / np.where(total > 0, total, 1.0)
    mass = np.zeros((len(tokens), mixture.vocabulary))
    np.add.at(mass.T, mixture.tokens, belief.reshape(len(tokens), -1).T)
    return mass.argmax(axis=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inferred:
    """What exact inference says after every token: of the concept, (b, t, c), and of the next token, (b, t, w).

    ``likelihood`` is the log-probability of every token given those before it, in nats, (b, t).
    """

    concepts: Float[np.ndarray, "b t c"]
    following: Float[np.ndarray, "b t w"]
    likelihood: Float[np.ndarray, "b t"]


def inferred(mixture: Ginc, tokens: Int[np.ndarray, "b t"], *, concepts: int | None = None) -> Inferred:
    """The forward algorithm over concept and state, as for a document: what a perfect model of the documents would say.

    The prior is even over the known concepts (or the first so many ``concepts``). Where a text is impossible under all
    of them, as a prompt may be, the concept stays as it was and the state is one of those that emit the token.

    Claim: in-context learning is inference of the latent concept of the documents (Xie et al. 2022).
    """
    transitions = mixture.transitions()[: concepts or mixture.known]
    c, z = transitions.shape[:2]
    emits = mixture.tokens[:, None] == np.arange(mixture.vocabulary)
    belief = np.broadcast_to(mixture.start / c, (len(tokens), c, z))
    of_concepts, following, likelihood = [], [], []
    for t in range(tokens.shape[1]):
        fits = emits[:, tokens[:, t]].T
        joint = belief * fits[:, None]
        total = joint.sum(axis=(1, 2))
        lost = total <= 0
        if lost.any():
            before = belief[lost].sum(axis=2, keepdims=True)
            joint[lost] = before * (fits[lost] / fits[lost].sum(axis=1, keepdims=True))[:, None]
        likelihood.append(np.where(lost, -np.inf, np.log(np.maximum(total, 1e-300))))
        joint = joint / joint.sum(axis=(1, 2), keepdims=True)
        # One product of matrices for every concept.
        belief = (joint.swapaxes(0, 1) @ transitions).swapaxes(0, 1)
        of_concepts.append(joint.sum(axis=2))
        following.append(belief.sum(axis=1) @ emits)
    return Inferred(
        concepts=np.stack(of_concepts, axis=1),
        following=np.stack(following, axis=1),
        likelihood=np.stack(likelihood, axis=1),
    )
