"""Gradients of the packed step against those of one row after another, and of PEFT's own models."""

import math
import warnings
from dataclasses import replace

import plain
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.adapt.learners import free_prefix, low_rank, mapped_prefix, random_prefix, soft_rows, whole_weights
from kshot.adapt.train import Diverged, Learner, Recipe, Until, advance, batch_at, begin, gradients
from kshot.errors import KshotError, UnknownName
from kshot.model.lm import LM
from kshot.model.tree import Scored
from kshot.seeds import torch_stream

NAMES = ("llama", "gpt2", "mistral", "gemma2")


@pytest.fixture(scope="module", params=NAMES)
def lm(request) -> LM:
    return zoo.lm(request.param)


@pytest.fixture(scope="module")
def llama() -> LM:
    return zoo.lm("llama")


def noise(*shape: int, scale: float = 0.3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_stream(0, "noise", *shape), dtype=torch.float64) * scale


def by_rows(learner: Learner, made) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of ``made(leaves)``, a loss by the bare model."""
    leaves = {name: leaf.detach().clone().requires_grad_(True) for name, leaf in learner.leaves.items()}
    loss = made(leaves)
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return float(loss.detach()), dict(zip(leaves, grads, strict=True))


def packed(lm: LM, learner: Learner, batch: list[Scored], **more) -> tuple[float, dict[str, torch.Tensor]]:
    leaves = {name: leaf.detach().clone().requires_grad_(True) for name, leaf in learner.leaves.items()}
    loss, _ = gradients(lm, learner, leaves, batch, **more)
    return loss, {name: leaf.grad for name, leaf in leaves.items()}


def agree(lm: LM, learner: Learner, batch: list[Scored], made, bound: float = 1e-9, **more) -> None:
    with zoo.Pure64():
        expected, wanted = by_rows(learner, made)
        found, grads = packed(lm, learner, batch, **more)
    assert found == pytest.approx(expected, rel=bound)
    plain.close(grads, wanted, bound)


@pytest.mark.parametrize("length", [1, 20, 100])
def test_soft_prompt(lm: LM, length: int) -> None:
    batch = plain.rows(length)
    learner = soft_rows(lm, noise(length, 32))
    agree(lm, learner, batch, lambda leaves: plain.loss(lm.model, batch, prompt=leaves["prompt"]))


@pytest.mark.parametrize("tokens", [8, 37, 64])
def test_several_packs_are_one(lm: LM, tokens: int) -> None:
    """The prompt is read in several parts too."""
    batch, few = plain.rows(3), replace(lm, tokens_per_pack=tokens, rows_per_pack=5)
    learner = soft_rows(few, noise(20, 32))
    agree(few, learner, batch, lambda leaves: plain.loss(lm.model, batch, prompt=leaves["prompt"]))


@pytest.mark.parametrize("tokens", [16, 4096])
def test_divergence_from_the_frozen_model(lm: LM, tokens: int) -> None:
    batch, few = plain.rows(4), replace(lm, tokens_per_pack=tokens)
    learner = soft_rows(few, noise(5, 32))
    made = lambda leaves: plain.loss(lm.model, batch, kl=0.7, prompt=leaves["prompt"])  # noqa: E731
    agree(few, learner, batch, made, kl=0.7)


def test_loss_on_all_tokens(lm: LM) -> None:
    batch = [replace(row, start=1) for row in plain.rows(5)]
    learner = soft_rows(lm, noise(5, 32))
    agree(lm, learner, batch, lambda leaves: plain.loss(lm.model, batch, prompt=leaves["prompt"]))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("length", [1, 20])
def test_free_prefix(name: str, length: int) -> None:
    lm, batch = zoo.lm(name), plain.rows(length)
    start = random_prefix(lm, lm.prefill((4, 5, 6)), length, seed=0)
    n = len(start.keys)

    def made(leaves):
        keys, values = ([leaves[f"{part}.{i}"] for i in range(n)] for part in ("keys", "values"))
        return plain.loss(lm.model, batch, keys=keys, values=values)

    agree(lm, free_prefix(lm, start), batch, made)


def through_the_network(lm: LM, leaves, start, from_nothing: bool):
    """Position by position, part by part."""
    n, parts = len(start.keys), [*start.keys, *start.values]
    said = [[] for _ in parts]
    for row in leaves["rows"]:
        inner = torch.tanh(leaves["inner.weight"] @ row + leaves["inner.bias"])
        at = 0
        for i, part in enumerate(parts):
            size = part.shape[1] * part.shape[3]
            outer = leaves["outer.weight"][at : at + size] @ inner + leaves["outer.bias"][at : at + size]
            said[i].append(outer.reshape(part.shape[1], part.shape[3]))
            at += size
    moved = [torch.stack(own, dim=1)[None] for own in said]
    if not from_nothing:
        moved = [one + was for one, was in zip(moved, parts, strict=True)]
    return {"keys": moved[:n], "values": moved[n:]}


@pytest.mark.parametrize("from_nothing", [True, False])
def test_prefix_through_its_network(llama: LM, from_nothing: bool) -> None:
    batch, start = plain.rows(6), llama.prefill((4, 5, 6, 7))
    learner = mapped_prefix(llama, start, 6, seed=0, from_nothing=from_nothing)
    # Away from zero, where half of the gradients would be nothing.
    leaves = {name: leaf + noise(*leaf.shape, scale=0.1) for name, leaf in learner.leaves.items()}
    learner = replace(learner, leaves=leaves)

    def made(own):
        return plain.loss(llama.model, batch, **through_the_network(llama, own, start, from_nothing))

    agree(llama, learner, batch, made)


@pytest.mark.parametrize("asked", [("all-linear",), ("q_proj", "c_attn", "down_proj")])
def test_low_rank(lm: LM, asked: tuple[str, ...]) -> None:
    known = {name.rsplit(".", 1)[-1] for name, _ in lm.model.named_modules()}
    asked = tuple(name for name in asked if name == "all-linear" or name in known)
    batch, learner = plain.rows(7), low_rank(lm, asked, 3, 5.0, seed=0)
    learner = replace(learner, leaves={n: leaf + noise(*leaf.shape, scale=0.1) for n, leaf in learner.leaves.items()})
    names = sorted({name.rsplit(".", 1)[0] for name in learner.leaves})

    def made(leaves):
        thin = {name: (leaves[f"{name}.down"], leaves[f"{name}.up"]) for name in names}
        return plain.loss(lm.model, batch, weights=plain.with_thin(lm.model, thin, 5.0 / 3))

    agree(lm, learner, batch, made)


@pytest.mark.parametrize("asked", [("all",), ("last-1",), ("k_proj", "v_proj"), ("norm", "ln_f")])
def test_whole_weights(lm: LM, asked: tuple[str, ...]) -> None:
    """GPT-2's head is its table: one weight, whose gradient is that of both."""
    words = {word for name, _ in lm.model.named_parameters() for word in name.split(".")}
    asked = tuple(name for name in asked if name in ("all", "last-1") or name in words)
    if not asked:
        pytest.skip("it has no weights of these names")
    batch, learner = plain.rows(8), whole_weights(lm, asked)
    agree(lm, learner, batch, lambda leaves: plain.loss(lm.model, batch, weights=leaves))


def test_tied_weights_are_one(llama: LM) -> None:
    lm = zoo.lm("gpt2")
    assert "lm_head.weight" not in whole_weights(lm, ("all",)).leaves
    assert "lm_head.weight" in whole_weights(llama, ("all",)).leaves


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), tokens=st.integers(1, 200))
def test_neither_order_nor_company_changes_a_gradient(llama: LM, seed: int, tokens: int) -> None:
    """A row counts for itself whoever stands beside it, and padding is nowhere."""
    batch = plain.rows(seed, 4)
    learner = soft_rows(llama, noise(6, 32))
    order = torch.randperm(len(batch), generator=torch_stream(seed, "order")).tolist()
    with zoo.Pure64():
        _, there = packed(llama, learner, batch)
        _, back = packed(replace(llama, tokens_per_pack=tokens), learner, [batch[i] for i in order])
        alone = [packed(llama, learner, [row])[1]["prompt"] * (len(row.tokens) - row.start) for row in batch]
    plain.close(back, there, 1e-12)
    together = sum(alone) / sum(len(row.tokens) - row.start for row in batch)
    plain.close({"prompt": together}, there, 1e-12)


def test_bloom_without_prefixes_learns_all_the_same() -> None:
    lm, batch = zoo.lm("bloom"), plain.rows(9)
    learner = whole_weights(lm, ("dense",))
    agree(lm, learner, batch, lambda leaves: plain.loss(lm.model, batch, weights=leaves))


# PEFT


def theirs(net, config, fill):
    """The model of PEFT's with its leaves filled, and those of its parameters that learn."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(net, config(peft))
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in learned.items():
            parameter.copy_(fill(name, parameter))
    return model.eval(), learned


def by_peft(model, batch) -> torch.Tensor:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in batch:
        ids = torch.tensor([row.tokens])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT tells that it ignores positions where it makes the same itself
            out = model(input_ids=ids, position_ids=torch.arange(len(row.tokens))[None]).logits[0]
        now = out[-len(row.tokens) :].double().log_softmax(-1)
        at = range(row.start, len(row.tokens))
        total, count = total - sum(now[i - 1, row.tokens[i]] for i in at), count + len(at)
    return total / count


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("length", [1, 20, 100])
def test_soft_prompt_as_peft(name: str, length: int) -> None:
    lm, batch = zoo.lm(name, torch.float32), plain.rows(length)
    rows = noise(length, 32).float()
    model, learned = theirs(
        zoo.model(name, torch.float32),
        lambda peft: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length, token_dim=32,
                                             num_layers=3, num_attention_heads=4),
        lambda *_: rows,
    )  # fmt: skip
    loss = by_peft(model, batch)
    (wanted,) = torch.autograd.grad(loss, list(learned.values()))
    found, grads = packed(lm, soft_rows(lm, rows), batch)
    assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    plain.close(grads, {"prompt": wanted}, 1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_free_prefix_as_peft(name: str) -> None:
    """PEFT keeps the keys and values of all layers in one row for each position."""
    lm, batch, length = zoo.lm(name, torch.float32), plain.rows(11), 7
    start = random_prefix(lm, lm.prefill((4, 5, 6)), length, seed=0)
    parts = [part for pair in zip(start.keys, start.values, strict=True) for part in pair]
    flat = torch.cat([part[0].transpose(0, 1).reshape(length, -1) for part in parts], dim=1)
    groups, width = start.keys[0].shape[1], start.keys[0].shape[3]
    model, learned = theirs(
        zoo.model(name, torch.float32),
        lambda peft: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length, num_layers=3,
                                             num_attention_heads=groups, token_dim=groups * width),
        lambda *_: flat,
    )  # fmt: skip
    loss = by_peft(model, batch)
    (wanted,) = torch.autograd.grad(loss, list(learned.values()))
    found, grads = packed(lm, free_prefix(lm, start), batch)
    assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    blocks = wanted.split(groups * width, dim=1)
    expected = {}
    for i in range(3):
        for part, block in (("keys", blocks[2 * i]), ("values", blocks[2 * i + 1])):
            expected[f"{part}.{i}"] = block.unflatten(1, (groups, width)).transpose(0, 1)[None]
    plain.close(grads, expected, 1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_low_rank_as_peft(name: str) -> None:
    lm, batch = zoo.lm(name, torch.float32), plain.rows(12)
    learner = low_rank(lm, ("all-linear",), 3, 5.0, seed=0)
    leaves = {n: leaf + noise(*leaf.shape, scale=0.1).float() for n, leaf in learner.leaves.items()}
    ours = {"lora_A": "down", "lora_B": "up"}

    def mine(theirs_: str) -> str:
        layer, part, *_ = theirs_.removeprefix("base_model.model.").rsplit(".", 3)
        return f"{layer}.{ours[part]}"

    model, learned = theirs(
        zoo.model(name, torch.float32),
        lambda peft: peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5.0, target_modules="all-linear"),
        lambda n, _: leaves[mine(n)],
    )
    loss = by_peft(model, batch)
    wanted = torch.autograd.grad(loss, list(learned.values()))
    found, grads = packed(lm, replace(learner, leaves=leaves), batch)
    assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    plain.close(grads, {mine(n): grad for n, grad in zip(learned, wanted, strict=True)}, 1e-5)


# The loop


def test_a_step_is_the_gradient_times_the_rate(llama: LM) -> None:
    batch, learner = plain.rows(1), soft_rows(llama, noise(3, 32))
    _, grads = packed(llama, learner, batch)
    recipe = Recipe(optimiser="sgd", learning_rate=0.25, clip=0.0, batch=99)
    after = advance(llama, learner, recipe, batch, begin(learner), until=Until(steps=1), seed=0)
    moved = learner.leaves["prompt"] - after.leaves["prompt"]
    assert (moved - 0.25 * grads["prompt"]).abs().max() < 1e-12
    clipped = advance(llama, learner, replace(recipe, clip=1e-3), batch, begin(learner), until=Until(steps=1), seed=0)
    assert float((learner.leaves["prompt"] - clipped.leaves["prompt"]).norm()) == pytest.approx(0.25e-3)


def test_the_loss_falls_and_what_it_cost_is_counted(llama: LM) -> None:
    batch, learner = plain.rows(1), soft_rows(llama, noise(3, 32))
    found = advance(llama, learner, Recipe(learning_rate=0.02), batch, begin(learner), until=Until(steps=20), seed=0)
    assert found.losses[-1] < found.losses[0] - 0.5
    distinct = {row.tokens[: i + 1] for row in batch for i in range(len(row.tokens) - 1)}
    assert found.tokens == 20 * (3 + len(distinct))
    assert found.step == 20 == len(found.losses)
    assert found.flops > 0


def test_what_cannot_be_learned_from_is_said() -> None:
    for options, said in (
        ({"optimiser": "adam"}, "unknown optimiser 'adam'; did you mean 'adamw'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
    ):
        with pytest.raises(UnknownName, match=said):
            Recipe(**options)
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(KshotError, match=r"learning rate .*: what works is a number above 0"):
            Recipe(learning_rate=value)
    for name in ("clip", "kl", "weight_decay"):
        with pytest.raises(KshotError, match=r"-1.*: what works is a number from 0 on"):
            Recipe(**{name: -1.0})
    with pytest.raises(KshotError, match="batch 0: what works is a whole number from 1 on"):
        Recipe(batch=0)


def test_divergence_names_step_and_value(llama: LM) -> None:
    batch, learner = plain.rows(1), soft_rows(llama, noise(3, 32))
    recipe = Recipe(optimiser="sgd", learning_rate=1e300, clip=0.0)
    with pytest.raises(Diverged, match=r"^diverged at step 2: .* nan with sgd at learning rate 1e\+300; try a smaller"):
        advance(llama, learner, recipe, batch, begin(learner), until=Until(steps=9), seed=0)


def test_a_bad_start_has_not_diverged(llama: LM) -> None:
    """Random models may be far worse than guessing before anything is learned."""
    batch = plain.rows(2)
    hard = whole_weights(llama, ("lm_head",))
    hard = replace(hard, leaves={name: 9 * leaf for name, leaf in hard.leaves.items()})
    loss, _ = packed(llama, hard, batch)
    assert loss > 2 * math.log(zoo.VOCABULARY)
    found = advance(llama, hard, Recipe(learning_rate=1e-3), batch, begin(hard), until=Until(steps=3), seed=0)
    assert found.losses[0] == pytest.approx(loss)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 40), batch=st.integers(1, 20), seed=st.integers(0, 99), passes=st.integers(0, 3))
def test_every_pass_reads_every_row_once(n: int, batch: int, seed: int, passes: int) -> None:
    per_pass = -(-n // batch)
    read = [i for step in range(per_pass) for i in batch_at(n, batch, passes * per_pass + step, seed)]
    assert sorted(read) == list(range(n))


def test_in_order_the_rows_come_as_they_are() -> None:
    assert [batch_at(5, 2, step, None) for step in range(4)] == [[0, 1], [2, 3], [4], [0, 1]]


def test_one_pass_in_order_is_a_step_for_each_row(llama: LM) -> None:
    rows, learner = plain.rows(3)[:3], soft_rows(llama, noise(3, 32))
    recipe = Recipe(optimiser="sgd", learning_rate=0.1, batch=1, batches="in-order", clip=0.0)
    found = advance(llama, learner, recipe, rows, begin(learner), until=Until(steps=3), seed=0)
    state = begin(learner)
    for row in rows:
        state = advance(llama, learner, recipe, [row], state, until=Until(steps=state.step + 1), seed=1)
    assert found.losses == state.losses
    assert torch.equal(found.leaves["prompt"], state.leaves["prompt"])
    other = advance(
        llama, learner, replace(recipe, batches="shuffled"), rows, begin(learner), until=Until(steps=3), seed=0
    )
    assert other.losses != found.losses
