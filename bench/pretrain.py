"""Growing a language model against plain torch code of the same model, and against transformers' Trainer.

    python bench/pretrain.py [--layers 6] [--heads 6] [--width 384] [--vocabulary 2048] [--lengths 256,1024] [--tokens 8192]
                             [--steps 3] [--rounds 3] [--precision float32|bfloat16]

A GPT-2 of about ten million parameters, the same weights, batches and AdamW on three sides: ``synth.train`` as ``kshot
pretrain`` runs it, a module of attention and MLPs in a loop as one writes it by hand, and GPT2LMHeadModel with Trainer.
Each side is a process that stays alive and takes so many steps in its turn. Printed for each length: tokens a second and
ratios turn by turn, how far apart the losses of all steps are (1e-3, bfloat16 3e-2, or the run fails), and MFU: the
arithmetic of six operations a parameter and token, and of attention, over what this machine multiplies matrices at,
measured here in the same number format.
"""

import argparse
import math
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from kshot.devices import keep_buffers, machine_rate
from kshot.seeds import torch_stream
from kshot.study.pretrain.plan import PLANS
from kshot.study.pretrain.speed import operations
from kshot.synth.networks.language import LANGUAGES
from kshot.synth.networks.mixing import Shape
from scoring import spread, start

RATE, DECAY = 3e-4, 0.1
BETAS = (0.9, 0.95)


def shape_of(asked: argparse.Namespace) -> Shape:
    return Shape(layers=asked.layers, heads=asked.heads, width=asked.width)


def begun(asked: argparse.Namespace, length: int) -> dict[str, Tensor]:
    language = LANGUAGES["transformer"](asked.vocabulary, length, shape_of(asked))
    return language.start(torch_stream(0, "start"))


def rows_of(asked: argparse.Namespace, length: int, step: int) -> Tensor:
    """Rows of a step, and one token more."""
    rng = torch_stream(0, "rows", step)
    return torch.randint(asked.vocabulary, (max(1, asked.tokens // length), length + 1), generator=rng)


def answer(link: Connection, began: float, losses: list[float]) -> bool:
    link.send({"seconds": time.perf_counter() - began, "losses": losses})
    return bool(link.recv())


def ours(link: Connection, asked: argparse.Namespace, length: int) -> None:
    from kshot.study.pretrain.growing import loss_of
    from kshot.synth.train import Training, trained

    language = LANGUAGES["transformer"](asked.vocabulary, length, shape_of(asked))
    losses: list[float] = []
    # As kshot pretrain does.
    keep_buffers()
    link.recv()
    began = [time.perf_counter()]

    def loss(own: dict[str, Tensor], step: int) -> Tensor:
        rows = rows_of(asked, length, step)
        return loss_of(language, own, rows[:, :-1], rows[:, 1:])

    def watch(step: int, own: dict[str, Tensor], now: float) -> None:
        losses.append(now)
        if step % asked.steps == 0:
            if not answer(link, began[0], losses[-asked.steps :]):
                raise SystemExit
            began[0] = time.perf_counter()

    training = Training(
        steps=1 << 30, learning_rate=RATE, weight_decay=DECAY, betas=BETAS, clip=1.0, precision=asked.precision
    )
    trained(begun(asked, length), loss, training, watch=watch)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        b, t, e = hidden.shape
        q, k, v = (
            part.view(b, t, self.heads, e // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm(hidden)).split(e, dim=2)
        )
        said = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        hidden = hidden + self.out(said.transpose(1, 2).contiguous().view(b, t, e))
        return hidden + self.down(nn.functional.gelu(self.up(self.mlp_norm(hidden)), approximate="tanh"))


class Plain(nn.Module):
    """The same network as one writes it by hand."""

    def __init__(self, asked: argparse.Namespace, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(asked.vocabulary, asked.width)
        self.positions = nn.Embedding(length, asked.width)
        self.blocks = nn.ModuleList(Block(asked.width, asked.heads) for _ in range(asked.layers))
        self.norm = nn.LayerNorm(asked.width)

    def forward(self, read: Tensor, said: Tensor) -> Tensor:
        hidden = self.embedding(read) + self.positions(torch.arange(read.shape[1]))
        for block in self.blocks:
            hidden = block(hidden)
        logits = self.norm(hidden) @ self.embedding.weight.T
        return nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), said.reshape(-1))


def by_hand(link: Connection, asked: argparse.Namespace, length: int) -> None:
    model = Plain(asked, length)
    own = begun(asked, length)
    names = {"embedding.weight": own["embedding"], "positions.weight": own["positions"]}
    names |= {f"norm.{kind}": own[f"norm.{kind}"] for kind in ("weight", "bias")}
    names |= {f"blocks.{name}": tensor for name, tensor in own.items() if name[0].isdigit()}
    model.load_state_dict(names)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True)
    step, more = 0, bool(link.recv())
    while more:
        began, losses = time.perf_counter(), []
        for _ in range(asked.steps):
            rows = rows_of(asked, length, step)
            with torch.autocast("cpu", torch.bfloat16, enabled=asked.precision == "bfloat16"):
                loss = model(rows[:, :-1], rows[:, 1:])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
            step += 1
        more = answer(link, began, losses)


def by_trainer(link: Connection, asked: argparse.Namespace, length: int) -> None:
    import tempfile

    from transformers import Trainer, TrainerCallback, TrainingArguments

    from kshot.model.grown import as_transformers

    model = as_transformers(begun(asked, length), asked.heads)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    losses: list[float] = []

    class Rows(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            step = 0
            while True:
                for row in rows_of(asked, length, step):
                    yield {"input_ids": row[:-1], "labels": row[1:]}
                step += 1

    class Turns(TrainerCallback):
        def __init__(self) -> None:
            self.began, self.ready = 0.0, False

        def on_step_begin(self, *given: Any, **more: Any) -> None:
            if not self.ready:
                link.recv()
                self.ready, self.began = True, time.perf_counter()

        def on_step_end(self, given: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step % asked.steps == 0:
                if not answer(link, self.began, losses[-asked.steps :]):
                    raise SystemExit
                self.began = time.perf_counter()

    class Own(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *given: Any, **more: Any) -> Tensor:
            # Theirs moves the labels by one itself; here they are moved already.
            logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), inputs["labels"].flatten())
            losses.append(float(loss.detach()))
            return loss

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=1 << 30, per_device_train_batch_size=max(1, asked.tokens // length),
            learning_rate=RATE, lr_scheduler_type="constant", weight_decay=DECAY, adam_beta1=BETAS[0], adam_beta2=BETAS[1],
            max_grad_norm=1.0, use_cpu=True, bf16=asked.precision == "bfloat16", report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, optim="adamw_torch_fused",
        )  # fmt: skip
        Own(model=model, args=arguments, train_dataset=Rows(), callbacks=[Turns()]).train()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = (
        ("layers", 6),
        ("heads", 6),
        ("width", 384),
        ("vocabulary", 2048),
        ("tokens", 8192),
        ("steps", 3),
        ("rounds", 3),
    )
    for name, value in sizes:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lengths", default="256,1024")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    asked = parser.parse_args()
    rate = machine_rate(torch.device("cpu"), getattr(torch, asked.precision), size=2048)
    print(f"products of matrices in {asked.precision}: {rate / 1e9:.0f} billion operations a second")
    apart = max(measured(asked, int(length), rate) for length in asked.lengths.split(","))
    bound = 1e-3 if asked.precision == "float32" else 3e-2
    if apart > bound or math.isnan(apart):
        print(f"FAILED: losses are {apart:.2e} apart", file=sys.stderr)
        return 1
    return 0


def measured(asked: argparse.Namespace, length: int, rate: float) -> float:
    """The three sides at a length, in turns; returns how far apart their losses are."""
    sides = {"kshot": ours, "plain torch": by_hand, "Trainer": by_trainer}
    links = {name: start(side, asked, length) for name, side in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    apart = 0.0
    # The first turn warms up.
    for turn in range(1 + asked.rounds):
        losses = {}
        for name, link in links.items():
            link.send(True)
            found = link.recv()
            losses[name] = found["losses"]
            if turn:
                seconds[name].append(found["seconds"])
        apart = max(
            apart,
            *(abs(a - b) for other in list(sides)[1:] for a, b in zip(losses["kshot"], losses[other], strict=True)),
        )
    for link in links.values():
        link.send(False)
    own = operations(begun(asked, length), replace(PLANS["smoke"], context=length))
    tokens = asked.steps * max(1, asked.tokens // length) * length
    print(f"length {length}, {max(1, asked.tokens // length)} rows a step, {asked.precision}")
    for name, spent in seconds.items():
        pace = [tokens / one for one in spent]
        mfu = spread([100 * own * one / rate for one in pace])
        ratio = spread([a / b for a, b in zip(spent, seconds["kshot"], strict=True)])
        print(f"  {name:<12} {spread(pace)} tokens/s, MFU {mfu} %, kshot is {ratio} times as fast")
    print(f"  losses of all steps at most {apart:.1e} apart")
    return apart


if __name__ == "__main__":
    raise SystemExit(main())
