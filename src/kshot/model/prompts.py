"""Inputs and the answers that compete for them, as token sequences: shared by scoring, training and serving."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kshot.data.template import Template
from kshot.errors import PromptError
from kshot.model.tokens import Codec, Continuations
from kshot.model.tree import Scored


@dataclass(frozen=True, slots=True)
class Prompt:
    """An input after its preamble (description and demonstrations), and the labels whose answers compete for it."""

    preamble: str
    fields: Mapping[str, Any]
    labels: tuple[str, ...]


def continuations(
    codec: Codec, template: Template, prompts: Sequence[Prompt], *, channel: bool = False
) -> Continuations:
    """Every answer after every prompt, or every input after every answer for the channel.

    Prompts with one preamble are encoded together. PromptError where two labels become the same tokens.
    """
    by_preamble: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_preamble.setdefault(prompt.preamble, []).append(i)
    found: list[tuple[Scored, ...]] = [()] * len(prompts)
    repaired = 0
    for preamble, members in by_preamble.items():
        texts = [template.render(prompts[i].fields) for i in members]
        if channel:
            for i, text in zip(members, texts, strict=True):
                heads = [channel_head(template, label) for label in prompts[i].labels]
                part = codec.continuations(preamble, heads, [[text]] * len(heads))
                found[i] = tuple(own[0] for own in part.sequences)
                repaired += part.repaired > 0
            continue
        answers = [[template.answer(label) for label in prompts[i].labels] for i in members]
        part = codec.continuations(preamble, texts, answers)
        repaired += part.repaired
        for i, own in zip(members, part.sequences, strict=True):
            found[i] = own
    for prompt, own in zip(prompts, found, strict=True):
        _distinct(prompt.labels, own)
    return Continuations(tuple(found), repaired)


def channel_head(template: Template, label: str) -> str:
    """What stands before an input when it is the input that is scored: the bare answer on a line of its own."""
    return template.answer(label).strip() + "\n"


def _distinct(labels: Sequence[str], sequences: Sequence[Scored]) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for label, sequence in zip(labels, sequences, strict=True):
        if sequence.tokens in seen:
            raise PromptError(
                f"labels {seen[sequence.tokens]!r} and {label!r} become the same tokens; give them different words"
            )
        seen[sequence.tokens] = label
