"""A frozen language model: every distinct token of what it is asked is run once."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from kshot.errors import ModelError, NumericError
from kshot.model.attention import Before, Pass, in_force, with_momentum
from kshot.model.delta import NO_CHANGE, Delta, call
from kshot.model.momentum import Momentum
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.said import Answers, Part, Scores, agreed
from kshot.model.tokens import Codec
from kshot.model.tree import Pack, Scored, joined, plan, shared_beginning

_NOTHING = np.zeros(0)

OnProgress = Callable[[int, int], None]
Group = tuple[Sequence[Scored], Prefix]
"""Sequences and what stands before them."""


def _no_guess(i: int, answer: tuple[int, ...]) -> tuple[int, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Route:
    """How sequences reach this model, and why: ``tree`` packs branches after a prefix, ``rows`` runs each one whole."""

    kind: Literal["tree", "rows"]
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class LM:
    """A frozen model with its tokenizer. Nothing here changes its weights; ``delta`` is read on top of them, and with
    ``momentum`` its attention is momentum attention.

    ``context`` is the number of tokens it can read, None where it has no limit. ``tokens_per_pack`` and
    ``rows_per_pack`` bound the memory of a pass; they change its numbers by rounding only.
    """

    name: str
    caption: str
    hash: str
    source: str
    model: PreTrainedModel
    codec: Codec
    route: Route
    dtype: torch.dtype
    device: torch.device
    context: int | None
    tokens_per_pack: int
    rows_per_pack: int
    delta: Delta = NO_CHANGE
    momentum: Momentum | None = None

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def value_heads(self) -> tuple[int, int]:
        """Layers, and heads of keys and values in each."""
        config = self.model.config.get_text_config()
        return config.num_hidden_layers, getattr(config, "num_key_value_heads", None) or config.num_attention_heads

    def prefill(self, text: Sequence[int] | Float[Tensor, "p e"], prefix: Prefix = EMPTY) -> Prefix:
        """A longer prefix: tokens, or rows in the place of embedded tokens, read after ``prefix``.

        Keeps the graph where gradients are enabled. ModelError where a model's keys and values cannot be kept.
        """
        if len(text) and self.route.kind == "rows":
            raise ModelError(f"{self.name} reads every sequence whole ({self.route.reason}): nothing can be read ahead")
        for begin in range(0, len(text), self.tokens_per_pack):
            _, prefix = self._read_on(text[begin : begin + self.tokens_per_pack], prefix, np.arange(0))
        return prefix

    def read_on(self, tokens: Sequence[int], prefix: Prefix = EMPTY) -> tuple[Float[Tensor, "v"], Prefix]:
        """The logits of what comes after one token or more that are read after ``prefix``, and the prefix with them."""
        assert len(tokens), "there is something to read"
        prefix = self.prefill(tokens[:-1], prefix)
        logits, longer = self._read_on(tokens[-1:], prefix, np.arange(1))
        return logits[0], longer

    def _read_on(
        self, part: Sequence[int] | Float[Tensor, "p e"], prefix: Prefix, rows: Int[np.ndarray, "s"]
    ) -> tuple[Float[Tensor, "s v"], Prefix]:
        n = len(part)
        current = Pass((Before(prefix, 0, n),), np.arange(n), np.full(n, n), captured={})
        logits = self.forward(part if isinstance(part, Tensor) else np.array(part), current, rows)
        captured = current.captured or {}
        layers = sorted(captured)
        known = None if isinstance(part, Tensor) else tuple(part)
        carried = tuple(current.carried[i] for i in layers) if current.carried else None
        keys, values = ([captured[i][side] for i in layers] for side in (0, 1))
        return logits, prefix.join(keys, values, known, carried)

    def embedded(self, tokens: Sequence[int]) -> Float[Tensor, "t e"]:
        """The rows that the model looks up for tokens, float32 at least: what a soft prompt that says the same would hold."""
        table = self.model.get_input_embeddings()
        rows = table(torch.tensor(list(tokens), dtype=torch.long, device=self.device)).detach()
        return rows.to(torch.promote_types(self.dtype, torch.float32))

    def score(
        self, sequences: Sequence[Scored], prefix: Prefix = EMPTY, on_progress: OnProgress | None = None
    ) -> "Scores":
        """The log-probability of every scored token, in nats, float64; the order of the sequences changes nothing.

        A prefix that knows its tokens is a memory of what the sequences begin with: they are given whole, and it is
        cut to what it shares with all of them. Any other prefix stands before them, and they start after it.
        """
        return self.score_together([(sequences, prefix)], on_progress)

    def score_together(self, groups: Sequence[Group], on_progress: OnProgress | None = None) -> "Scores":
        """The same for sequences after different prefixes, side by side in the same passes; group after group."""
        count = sum(len(sequences) for sequences, _ in groups)
        with torch.no_grad():
            found: list[np.ndarray] = [_NOTHING] * count
            best: list[np.ndarray] = [_NOTHING] * count
            tokens = 0
            for part in self.stream_together(groups, on_progress):
                tokens += part.tokens
                values = part.logprobs().cpu().numpy()
                if np.isnan(values).any():
                    raise NumericError(f"{self.name} answered with NaN in {self.dtype}; try --dtype float32")
                said = part.best()
                for j, begin, end in zip(part.members, part.bounds, part.bounds[1:], strict=False):
                    found[j], best[j] = values[begin:end], said[begin:end]
        return Scores(tuple(found), tuple(best), tokens)

    def stream(
        self,
        sequences: Sequence[Scored],
        prefix: Prefix = EMPTY,
        on_progress: OnProgress | None = None,
        *,
        trunk: bool = True,
    ) -> Iterator["Part"]:
        """The same, pack by pack and with its graph: what training and greedy answers are made of.

        Without a ``trunk`` the graphs of two packs meet in ``prefix`` and in ``delta`` only (tree.plan).
        """
        return self.stream_together([(sequences, prefix)], on_progress, trunk=trunk)

    def stream_together(
        self, groups: Sequence[Group], on_progress: OnProgress | None = None, *, trunk: bool = True
    ) -> Iterator["Part"]:
        """The same for several groups: the members of a part count through the sequences of all of them."""
        if self.route.kind == "rows":
            if any(prefix.length and prefix.tokens is None for _, prefix in groups):
                raise ModelError(f"{self.name} reads every sequence whole ({self.route.reason}): no prefix but text")
            yield from self._rows([sequence for sequences, _ in groups for sequence in sequences], on_progress)
            return
        laid: list[_Laid] = []
        done = first = 0
        for sequences, prefix in groups:
            shared = _common(prefix, sequences) if prefix.tokens is not None else prefix
            if shared.tokens:
                sequences = [Scored(s.tokens[shared.length :], s.start - shared.length) for s in sequences]
            found = plan(sequences, tokens_per_pack=self.tokens_per_pack, rows_per_pack=self.rows_per_pack, trunk=trunk)
            after = self.prefill(found.trunk, shared)
            done += len(found.trunk)
            laid += [(pack, after, first) for pack in found.packs]
            first += len(sequences)
        spent, total = done, done + sum(len(pack.tokens) for pack, _, _ in laid)
        for together in self._side_by_side(laid):
            pack, current = _as_one(together)
            logits = self.forward(pack.tokens, current, pack.rows)
            yield Part(logits, pack.row_of, pack.targets, pack.members, pack.bounds, spent + len(pack.tokens))
            spent, done = 0, done + len(pack.tokens)
            if on_progress is not None:
                on_progress(done, total)

    def _side_by_side(self, laid: Sequence["_Laid"]) -> Iterator[list["_Laid"]]:
        """As many packs at a time as one pass may hold."""
        together: list[_Laid] = []
        for one in laid:
            packs = [pack for pack, _, _ in (*together, one)]
            tokens, rows = sum(len(p.tokens) for p in packs), sum(len(p.rows) for p in packs)
            if together and (tokens > self.tokens_per_pack or rows > self.rows_per_pack):
                yield together
                together = []
            together.append(one)
        if together:
            yield together

    def _rows(self, sequences: Sequence[Scored], on_progress: OnProgress | None) -> Iterator["Part"]:
        """One sequence at a time, whole; sequences that differ in their last token only are one row."""
        together: dict[tuple[int, ...], list[int]] = {}
        for j, sequence in enumerate(sequences):
            together.setdefault(sequence.tokens[:-1], []).append(j)
        for done, (tokens, members) in enumerate(together.items(), 1):
            packs = plan([sequences[j] for j in members], tokens_per_pack=1 << 30, rows_per_pack=1 << 30).packs
            pack: Pack = packs[0]
            skipped = len(tokens) - len(pack.tokens)
            logits = self.forward(np.array(tokens), None, pack.rows + skipped)
            yield Part(logits, pack.row_of, pack.targets, np.array(members)[pack.members], pack.bounds, len(tokens))
            if on_progress is not None:
                on_progress(done, len(together))

    def greedy(
        self,
        prompts: Sequence[tuple[int, ...]],
        done: Callable[[str], bool],
        limit: int,
        *,
        prefix: Prefix = EMPTY,
        known: Sequence[tuple[int, ...]] = (),
        guess: Callable[[int, tuple[int, ...]], tuple[int, ...]] = _no_guess,
    ) -> "Answers":
        """The most probable token again and again after every prompt, until ``done(text)`` or ``limit`` tokens.

        Returns the answers as text and the number of tokens run. An end-of-text token ends an answer too. ``prefix``
        is used as in ``score``. ``known`` are the first tokens of every answer, where they have been read off already.
        ``guess(i, answer)`` says how answer i might go on: as far as the model says the same, a single pass reads it
        all, and a wrong guess costs nothing but its tokens.
        """
        eos = {self.codec.tokenizer.eos_token_id}
        answers = list(known) or [()] * len(prompts)

        def ended(answer: tuple[int, ...]) -> bool:
            return bool(answer) and (answer[-1] in eos or len(answer) >= limit or done(self.codec.decode(answer)))

        open_ = [i for i, answer in enumerate(answers) if not ended(answer)]
        spent = 0
        with torch.no_grad():
            if self.route.kind == "tree" and prefix.tokens is not None and prompts:
                # Read once what all prompts begin with: every step would read it again.
                first = [Scored((*p, 0), len(p)) for p in prompts]
                prefix = _common(prefix, first)
                shared = min(shared_beginning(prompts), *(len(p) - 1 for p in prompts))
                spent += max(0, shared - prefix.length)
                prefix = self.prefill(prompts[0][prefix.length : shared], prefix)
            while open_:
                ahead = [guess(i, answers[i])[: limit - len(answers[i]) - 1] for i in open_]
                asked = [
                    Scored((*prompts[i], *answers[i], *rest, 0), len(prompts[i]) + len(answers[i]))
                    for i, rest in zip(open_, ahead, strict=True)
                ]
                for part in self.stream(asked, prefix):
                    spent += part.tokens
                    best = part.best()
                    for j, begin, stop in zip(part.members, part.bounds, part.bounds[1:], strict=False):
                        for token in agreed(best[begin:stop].tolist(), ahead[j]):
                            if not ended(answers[open_[j]]):
                                answers[open_[j]] += (token,)
                open_ = [i for i in open_ if not ended(answers[i])]
        texts = (self.codec.decode(a[:-1] if a and a[-1] in eos else a) for a in answers)
        return Answers(tuple(texts), spent)

    def forward(
        self, read: Int[np.ndarray, "t"] | Float[Tensor, "t e"], current: Pass | None, rows: Int[np.ndarray, "s"]
    ) -> Float[Tensor, "s v"]:
        """The logits at ``rows`` of one pass over tokens, or rows in their place; without ``current`` a plain causal one.

        ModelError where momentum is asked of a model whose attention cannot be reached.
        """
        if self.momentum is not None and self.route.kind == "rows":
            raise ModelError(f"{self.name} has no attention that momentum could be added to ({self.route.reason})")
        kept = torch.from_numpy(rows).to(self.device)
        if isinstance(read, Tensor):
            asked: dict[str, Any] = {"inputs_embeds": read[None].to(self.device, self.dtype)}
        else:
            asked = {"input_ids": torch.from_numpy(read)[None].to(self.device)}
        # All ones: without it transformers takes repeated positions for packed documents and rewrites the mask.
        asked |= {"attention_mask": torch.ones(1, len(read), dtype=torch.long, device=self.device), "use_cache": False}
        if not keeps_rows(self.model):
            return call(self.model, self.delta, **asked).logits[0, kept]
        asked["logits_to_keep"] = kept
        if current is None:
            return call(self.model, self.delta, **asked).logits[0]
        asked["position_ids"] = torch.from_numpy(current.positions)[None].to(self.device)
        with in_force(current), with_momentum(self.momentum):
            return call(self.model, self.delta, **asked).logits[0]


_Laid = tuple[Pack, Prefix, int]
"""A pack, what stands before it, and from where its members count."""


def _as_one(together: Sequence[_Laid]) -> tuple[Pack, Pass]:
    pack = joined([one for one, _, _ in together], [first for _, _, first in together]) if together[1:] else None
    only, _, first = together[0]
    pack = pack or replace(only, members=only.members + first)
    before, at = [], 0
    for one, prefix, _ in together:
        before.append(Before(prefix, at, at + len(one.tokens)))
        at += len(one.tokens)
    return pack, Pass(tuple(before), pack.depth, pack.end)


def keeps_rows(model: PreTrainedModel) -> bool:
    """Whether the model can be told at which positions its head is wanted; one that cannot gives all, on the rows route."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _common(prefix: Prefix, sequences: Sequence[Scored]) -> Prefix:
    """As much of a text's prefix as all sequences begin with, leaving each a token to score from."""
    shared = shared_beginning([prefix.tokens or (), *(s.tokens for s in sequences)])
    return prefix.cut(min([shared, *(s.start - 1 for s in sequences)]))
