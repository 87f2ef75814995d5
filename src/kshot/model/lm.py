"""A frozen language model: every distinct token of what it is asked is run once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from kshot.errors import ModelError
from kshot.model.attention import Before, Pass, in_force, keeps_rows, with_momentum
from kshot.model.branches import Branches, lots
from kshot.model.delta import NO_CHANGE, Delta, call
from kshot.model.momentum import Momentum
from kshot.model.prefix import EMPTY, Prefix
from kshot.model.said import Answers, Part, Scores, agreed, no_number
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
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer: the tokenizer's end of a text, and those that the model is generated with, among
        them the end of a turn (Gemma's <end_of_turn>, Llama 3's <|eot_id|>)."""
        settings = getattr(self.model, "generation_config", None)
        said = getattr(settings, "eos_token_id", None)
        every = [self.codec.tokenizer.eos_token_id, *(said if isinstance(said, list | tuple) else [said])]
        return frozenset(int(token) for token in every if token is not None)

    def changed(self, delta: Delta) -> "LM":
        """The model with these weights changed too. ModelError where one of them is another already (Delta.under)."""
        return replace(self, delta=self.delta.under(delta)) if delta else self

    def momentum_in_force(self) -> AbstractContextManager[None]:
        """Within this block its attention is what ``momentum`` says; ModelError where its attention cannot be reached."""
        if self.momentum is not None and self.route.kind == "rows":
            raise ModelError(f"{self.name} has no attention that momentum could be added to ({self.route.reason})")
        return with_momentum(self.momentum)

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
                    raise no_number(self.name, self.dtype)
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

        Returns the answers as text and the number of tokens run. A token of ``ends`` ends an answer too. ``prefix``
        is used as in ``score``. ``known`` are the first tokens of every answer, where they have been read off already.
        ``guess(i, answer)`` says how answer i might go on: as far as the model says the same, a single pass reads it
        all, and a wrong guess costs nothing but its tokens.
        """
        eos = self.ends
        answers = list(known) or [()] * len(prompts)

        def ended(i: int) -> bool:
            answer = answers[i]
            return bool(answer) and (answer[-1] in eos or len(answer) >= limit or done(self.codec.decode(answer)))

        spent = 0
        with torch.no_grad():
            open_ = [i for i in range(len(prompts)) if not ended(i)]
            shared, begun, spent = self._begun([prompts[i] for i in open_], prefix)
            for lot in lots(open_, {i: len(prompts[i]) - begun + limit for i in open_}, self.tokens_per_pack):
                branches = Branches(shared, begun)
                while lot:
                    ahead = {i: guess(i, answers[i])[: limit - len(answers[i]) - 1] for i in lot}
                    asked = {
                        i: Scored((*prompts[i], *answers[i], *ahead[i], 0), len(prompts[i]) + len(answers[i]))
                        for i in lot
                    }
                    for found, tokens in self._said(asked, ahead, branches):
                        spent += tokens
                        for i, token in ((i, token) for i, said in found.items() for token in said):
                            if not ended(i):
                                answers[i] += (token,)
                    lot = [i for i in lot if not ended(i)]
        texts = (self.codec.decode(a[:-1] if a and a[-1] in eos else a) for a in answers)
        return Answers(tuple(texts), spent)

    def _begun(self, prompts: Sequence[tuple[int, ...]], prefix: Prefix) -> tuple[Prefix, int, int]:
        """What all prompts begin with as a prefix, how many of their tokens are in it, and how many were run for it."""
        if self.route.kind == "rows" or not prompts:
            return prefix, 0, 0
        # The last token of a prompt is left: the answer is read off it.
        shared = min(shared_beginning(prompts), *(len(prompt) - 1 for prompt in prompts))
        known = 0
        if prefix.tokens is not None:
            prefix = _common(prefix, [Scored((*prompt, 0), len(prompt)) for prompt in prompts])
            known = prefix.length
        return self.prefill(prompts[0][known:shared], prefix), shared, shared - known

    def _said(
        self, asked: Mapping[int, Scored], ahead: Mapping[int, tuple[int, ...]], branches: Branches
    ) -> Iterator[tuple[dict[int, tuple[int, ...]], int]]:
        """What the model says next of the texts asked for, as far as the guess was right, and the tokens run for it."""
        if self.route.kind == "rows":
            numbers = list(asked)
            for part in self.stream(list(asked.values()), branches.shared):
                yield {numbers[j]: agreed(said, ahead[numbers[j]]) for j, said in part.by_member()}, part.tokens
            return
        passes = branches.passes(asked, tokens_per_pack=self.tokens_per_pack, rows_per_pack=self.rows_per_pack)
        for pack, current in passes:
            logits = self.forward(pack.tokens, current, pack.rows)
            part = Part(logits, pack.row_of, pack.targets, pack.members, pack.bounds, len(pack.tokens))
            found = {i: agreed(said, ahead[i]) for i, said in part.by_member()}
            # The last token that was said has not been read, and what was guessed wrong does not belong to the text.
            branches.keep(pack, current, {i: asked[i].start + len(said) - 1 for i, said in found.items()})
            yield found, part.tokens

    def forward(
        self, read: Int[np.ndarray, "t"] | Float[Tensor, "t e"], current: Pass | None, rows: Int[np.ndarray, "s"]
    ) -> Float[Tensor, "s v"]:
        """The logits at ``rows`` of one pass over tokens, or rows in their place; without ``current`` a plain causal one.

        Both with ``delta`` and ``momentum``; ModelError for momentum in a model whose attention cannot be reached.
        """
        momentum = self.momentum_in_force()
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
        if current is not None:
            asked["position_ids"] = torch.from_numpy(current.positions)[None].to(self.device)
        with in_force(current), momentum:
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


def _common(prefix: Prefix, sequences: Sequence[Scored]) -> Prefix:
    """As much of a text's prefix as all sequences begin with, leaving each a token to score from."""
    shared = shared_beginning([prefix.tokens or (), *(s.tokens for s in sequences)])
    return prefix.cut(min([shared, *(s.start - 1 for s in sequences)]))
