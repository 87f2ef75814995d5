"""Text to tokens and back, with every seam looked at: encode(a) + encode(b) need not be encode(a + b)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kshot.errors import PromptError
from kshot.model.tree import Scored, shared_beginning

# How far back a seam is re-encoded, and how much of that must come out unchanged for the rest to be trusted.
_TAIL, _AGREED = 16, 8


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """A tokenizer, the tokens the model was trained to see first, and the one to start from when there is no text.

    After something that holds the first tokens already ``first`` is empty, and ``held`` are those.
    """

    tokenizer: Any
    first: tuple[int, ...]
    start: int | None
    held: tuple[int, ...] = ()

    def begun(self) -> "Codec":
        """The codec of what stands after the first tokens."""
        return replace(self, first=(), held=self.first or self.held)

    def afresh(self) -> "Codec":
        """The codec of a text of its own."""
        return replace(self, first=self.first or self.held, held=())

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Every text as a whole, without the first tokens."""
        if not texts:
            return []
        if self.tokenizer.is_fast:
            # Straight to the library underneath: thousands of short answers spend most of their time on the way there.
            backend = self.tokenizer.backend_tokenizer
            # A call of the tokenizer with truncation or padding leaves them switched on; each call of it sets them anew.
            if backend.truncation is not None:
                backend.no_truncation()
            if backend.padding is not None:
                backend.no_padding()
            found = backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [tuple(one.ids) for one in found]
        return [tuple(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def decode(self, tokens: Sequence[int]) -> str:
        """Back to text, nothing added and nothing cleaned up."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def after(self, shared: str, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """encode(shared + text) for every text, at the cost of the last few tokens of ``shared`` and of the texts."""
        base, cut = self._cut(shared)
        if cut is None:
            return self.encode([shared + text for text in texts])
        kept, tail = base[: -len(base) + cut[0]] if cut[0] else (), base[cut[0] :]
        found = self.encode([shared[cut[1] :] + text for text in texts])
        # A token of the tail that changed this far from the seam may have changed because of the cut.
        doubtful = [i for i, ids in enumerate(found) if shared_beginning([ids, tail]) < _AGREED]
        whole = self.encode([shared + texts[i] for i in doubtful])
        found = [kept + ids for ids in found]
        for i, ids in zip(doubtful, whole, strict=True):
            found[i] = ids
        return found

    def _cut(self, shared: str) -> tuple[tuple[int, ...], tuple[int, int] | None]:
        """Its tokens, and the (token, character) at which it may be cut without changing them; None for nowhere."""
        if not self.tokenizer.is_fast or not shared:
            return (), None
        encoded = self.tokenizer(shared, add_special_tokens=False, return_offsets_mapping=True)
        base, offsets = tuple(encoded["input_ids"]), encoded["offset_mapping"]
        if len(base) <= _TAIL:
            return base, None
        token = len(base) - _TAIL
        character = offsets[token][0]
        # Several tokens of one character (bytes) share an offset: a cut between them would repeat the character.
        if offsets[token - 1][1] > character or self.encode([shared[character:]])[0] != base[token:]:
            return base, None
        return base, (token, character)

    def continuations(self, shared: str, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> "Continuations":
        """Every answer after its prompt (``shared`` + prompt), as sequences with the answer's tokens to be scored.

        Where the last tokens of a prompt change when an answer follows, all answers of that prompt are scored from the
        last token they have in common: a repaired seam. A prompt that is empty, or of which no token is left by such a
        repair, starts from the model's own start token; PromptError where it has none, or an answer adds no token.
        """
        asked = zip(prompts, answers, strict=True)
        encoded = self.after(shared, [prompt + answer for prompt, own in asked for answer in ("", *own)])
        found: list[tuple[Scored, ...]] = []
        repaired, at = 0, 0
        for own in answers:
            prompt_tokens, wholes = encoded[at], encoded[at + 1 : at + 1 + len(own)]
            at += 1 + len(own)
            start = shared_beginning([prompt_tokens, *wholes])
            repaired += start < len(prompt_tokens)
            # By this prompt alone: what stands beside it in a call must not change what is read.
            first = self.first or (() if start else self._start())
            for answer, whole in zip(own, wholes, strict=True):
                if len(whole) <= start:
                    raise PromptError(
                        f"the answer {answer!r} adds no token after its prompt; give it a visible label word"
                    )
            found.append(tuple(Scored(first + whole, len(first) + start) for whole in wholes))
        return Continuations(tuple(found), repaired)

    def ahead(self, text: str, followed_by: Sequence[str]) -> tuple[tuple[int, ...], str]:
        """As many tokens of ``text`` as stay what they are when any of these follows, and the text that they leave over.

        The tokens, then those of (the rest + what follows), are those of the whole text.
        """
        tokens = self.encode([text])[0]
        wholes = self.after(text, followed_by)
        for length in range(shared_beginning([tokens, *wholes]), 0, -1):
            begun = self.decode(tokens[:length])
            if text.startswith(begun):
                rest = text[len(begun) :]
                if self.encode([rest + more for more in followed_by]) == [whole[length:] for whole in wholes]:
                    return tokens[:length], rest
        return (), text

    def _start(self) -> tuple[int, ...]:
        if self.start is None:
            raise PromptError(
                "the prompt is empty and this model has no start token; add a description to the template"
            )
        return (self.start,)


@dataclass(frozen=True, slots=True)
class Continuations:
    """The scored sequences of every prompt, and how many prompts had a seam repaired."""

    sequences: tuple[tuple[Scored, ...], ...]
    repaired: int
