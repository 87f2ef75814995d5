"""Training of Garg's standard model against transformers' GPT-2 in a plain loop, and the S6 scan against its recurrence.

    python bench/synth.py [--steps 6] [--batch 64] [--size standard] [--rounds 3] [--compile]
                          [--precision float32|bfloat16]

Both sides are processes that stay alive, begin at the same weights and see the same batches (linear functions of 20
coordinates, 41 pairs) in turns of so many steps, with AdamW in float32 (bfloat16: products of both sides in it). Theirs is what Garg et al. 2022 did: GPT2Model on
embedded pairs, a linear read-in and read-out, the mean square over all answers. Printed: steps a second, the ratio turn
by turn, and how far apart the losses of all steps are, which must be below 1e-3 (bfloat16: 3e-2), or the run fails. Then tokens a second of
S6's recurrence as it runs here, of the scan in parallel (what runs elsewhere than on the CPU), and of a plain loop over
tokens, at length 1,024, forward and backward.
"""

import argparse
import sys
import time
from multiprocessing.connection import Connection

import torch

from kshot.seeds import torch_stream
from kshot.synth.networks.layers import SIZES
from kshot.synth.networks.mixing import Shape
from kshot.synth.networks.selective import by_scan, selective
from kshot.synth.networks.transformer import transformer
from kshot.synth.prompts import Source
from scoring import spread, start

SOURCE = Source(width=20, pairs=41)
RATE = 1e-4
LENGTH = 1024


def begun(shape: Shape) -> dict[str, torch.Tensor]:
    return transformer(SOURCE.width, SOURCE.pairs, shape).start(torch_stream(0, "start"))


def ours(link: Connection, asked: argparse.Namespace) -> None:
    from kshot.synth.train import Training, squared_error, trained

    shape = SIZES[asked.size]
    network = transformer(SOURCE.width, SOURCE.pairs, shape)
    says = torch.compile(network.says, dynamic=False) if asked.compile else network.says
    weights = begun(shape)
    done = 0
    losses: list[float] = []

    def loss(own: dict[str, torch.Tensor], step: int) -> torch.Tensor:
        found = SOURCE.batch(0, step, asked.batch)
        return squared_error(says(own, found.xs, found.ys), found.ys)

    def watch(step: int, own: dict[str, torch.Tensor], now: float) -> None:
        nonlocal done
        done += 1
        losses.append(now)
        if done % asked.steps == 0:
            link.send({"seconds": time.perf_counter() - began[0], "losses": losses[-asked.steps :]})
            if not link.recv():
                raise SystemExit
            began[0] = time.perf_counter()

    link.recv()
    began = [time.perf_counter()]
    training = Training(steps=1 << 30, learning_rate=RATE, precision=asked.precision)
    trained(weights, loss, training, watch=watch)


def theirs(link: Connection, asked: argparse.Namespace) -> None:
    from transformers import GPT2Config, GPT2Model

    shape = SIZES[asked.size]
    own = begun(shape)
    config = GPT2Config(
        n_positions=2 * SOURCE.pairs, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model = GPT2Model(config)
    names = {
        "norm": "ln_1",
        "mlp_norm": "ln_2",
        "qkv": "attn.c_attn",
        "out": "attn.c_proj",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    }
    state = {"wte.weight": model.wte.weight.detach(), "wpe.weight": own["positions"]}
    state |= {f"ln_f.{kind}": own[f"norm.{kind}"] for kind in ("weight", "bias")}
    for i in range(shape.layers):
        for name, other in names.items():
            matrix = own[f"{i}.{name}.weight"]
            state[f"h.{i}.{other}.weight"] = matrix.T.contiguous() if matrix.ndim == 2 else matrix
            state[f"h.{i}.{other}.bias"] = own[f"{i}.{name}.bias"]
    model.load_state_dict(state)
    read_in, read_out = torch.nn.Linear(SOURCE.width, shape.width), torch.nn.Linear(shape.width, 1)
    for layer, name in ((read_in, "read_in"), (read_out, "read_out")):
        layer.load_state_dict({kind: own[f"{name}.{kind}"] for kind in ("weight", "bias")})
    learned = [p for module in (model, read_in, read_out) for p in module.parameters()]
    optimiser = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.0)
    step = 0
    while link.recv():
        began, losses = time.perf_counter(), []
        for _ in range(asked.steps):
            found = SOURCE.batch(0, step, asked.batch)
            wide = torch.cat([found.ys[..., None], torch.zeros(*found.ys.shape, SOURCE.width - 1)], dim=2)
            tokens = torch.stack([found.xs, wide], dim=2).view(asked.batch, 2 * SOURCE.pairs, SOURCE.width)
            with torch.autocast("cpu", torch.bfloat16, enabled=asked.precision == "bfloat16"):
                said = read_out(model(inputs_embeds=read_in(tokens)).last_hidden_state)[:, ::2, 0]
                loss = (said - found.ys).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            step += 1
        link.send({"seconds": time.perf_counter() - began, "losses": losses})


def scanned(rounds: int) -> tuple[list[float], ...]:
    """Tokens a second of what S6 runs, of the scan and of the loop, forward and backward, turn by turn."""
    rng = torch_stream(0, "scan")
    shapes = ((1, LENGTH, 64), (64, 16), (1, LENGTH, 64), (1, LENGTH, 16), (1, LENGTH, 16))
    step, rate, *rest = (torch.randn(shape, generator=rng) for shape in shapes)
    given = [tensor.requires_grad_(True) for tensor in (0.1 * step.abs(), -rate.exp(), *rest)]

    def one_by_one(
        step: torch.Tensor, rate: torch.Tensor, inner: torch.Tensor, writes: torch.Tensor, reads: torch.Tensor
    ) -> torch.Tensor:
        decay = torch.exp(step[..., None] * rate)
        added = (step * inner)[..., None] * writes[:, :, None]
        state, said = torch.zeros_like(added[:, 0]), []
        for t in range(LENGTH):
            state = decay[:, t] * state + added[:, t]
            said.append((state * reads[:, t, None]).sum(-1))
        return torch.stack(said, dim=1)

    found: tuple[list[float], ...] = ([], [], [])
    for turn in range(1 + rounds):
        for does, own in zip((selective, by_scan, one_by_one), found, strict=True):
            began = time.perf_counter()
            torch.autograd.grad(does(*given).sum(), given)
            # The first turn warms up.
            if turn:
                own.append(LENGTH / (time.perf_counter() - began))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", choices=SIZES, default="standard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    asked = parser.parse_args()
    sides = [start(side, asked) for side in (ours, theirs)]
    turns: list[list[dict]] = []
    for _ in range(1 + asked.rounds):
        turns.append([])
        for side in sides:
            side.send(True)
            turns[-1].append(side.recv())
    for side in sides:
        side.send(False)
    apart = max(abs(a - b) for mine, other in turns for a, b in zip(mine["losses"], other["losses"], strict=True))
    rates = [[asked.steps / turn[side]["seconds"] for turn in turns[1:]] for side in (0, 1)]
    print(f"{asked.size}, batch {asked.batch}, {SOURCE.pairs} pairs of {SOURCE.width} coordinates, {asked.precision}")
    print(f"kshot steps/s         {spread(rates[0])}")
    print(f"transformers steps/s  {spread(rates[1])}")
    print(f"ratio                 {spread([a / b for a, b in zip(*rates, strict=True)])}")
    print(f"losses apart          {apart:.2e}")
    here, fast, slow = scanned(asked.rounds)
    print(f"S6 here tokens/s      {spread(here)}")
    print(f"scan tokens/s         {spread(fast)}")
    print(f"loop tokens/s         {spread(slow)}")
    for name, own in (("S6 here", here), ("scan", fast)):
        print(f"{name + ' / loop':<22}{spread([a / b for a, b in zip(own, slow, strict=True)])}")
    if apart > {"float32": 1e-3, "bfloat16": 3e-2}[asked.precision]:
        print("the losses differ: the two sides do not train the same model", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
