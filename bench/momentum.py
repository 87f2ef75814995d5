"""What momentum attention costs: a training step with it, without it, and with its sum as a matrix of all pairs of tokens.

    python bench/momentum.py [--layers 4] [--width 256] [--heads 4] [--lengths 256,1024,4096,8192] [--tokens 8192] [--rounds 5]

Language models of the same shape in float32 (1,024 tokens of vocabulary), a loss and its gradient over so many tokens a
step whatever the length, each of the three in turn. Printed for each length: milliseconds a step, and the two with momentum over the one without,
turn by turn. Before that the two ways must give the same loss and gradient (1e-4 of its norm), or the run fails.
"""

import argparse
import sys
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from kshot.seeds import torch_stream
from kshot.synth.networks import mixing
from kshot.synth.networks.language import LANGUAGES, cross_entropy
from kshot.synth.networks.mixing import Shape
from scoring import spread

VOCABULARY = 1024


def all_pairs(values: Tensor, decay: Tensor, *, times: Tensor) -> Tensor:
    """Velocities by the matrix whose entry t, i is decay^(t - 1 - i): what plain code would do."""
    steps = torch.arange(values.shape[-2])
    apart = steps[:, None] - 1 - steps
    weights = torch.where(apart >= 0, decay[:, None, None] ** apart.clamp(min=0), 0.0)
    return (times[:, None, None] * weights) @ values


def step(kind: str, shape: Shape, tokens: Tensor) -> Callable[[], tuple[float, Tensor]]:
    """A loss and its gradient as one vector, of weights that are the same for all kinds."""
    language = LANGUAGES[kind](VOCABULARY, tokens.shape[1], shape)
    weights = {
        name: tensor.requires_grad_(True) for name, tensor in language.start(torch_stream(0, "bench start")).items()
    }

    def taken() -> tuple[float, Tensor]:
        loss = cross_entropy(language.says(weights, tokens), tokens)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        return float(loss.detach()), torch.cat([gradient.flatten() for gradient in gradients])

    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("layers", 4), ("width", 256), ("heads", 4), ("tokens", 8192), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lengths", default="256,1024,4096,8192")
    asked = parser.parse_args()
    shape = Shape(layers=asked.layers, heads=asked.heads, width=asked.width)
    for length in map(int, asked.lengths.split(",")):
        rows = max(1, asked.tokens // length)
        tokens = torch.randint(VOCABULARY, (rows, length), generator=torch_stream(0, "bench tokens", length))
        plain, own = (step(kind, shape, tokens) for kind in ("transformer", "momentum-transformer"))
        naive = patch.object(mixing, "velocities", all_pairs)
        seconds: dict[str, list[float]] = {"without": [], "with": [], "all pairs": []}
        found = {}
        for turn in range(1 + asked.rounds):
            for name, does in (("without", plain), ("with", own), ("all pairs", own)):
                if name == "all pairs":
                    naive.start()
                began = time.perf_counter()
                found[name] = does()
                # The first turn warms up.
                if turn:
                    seconds[name].append(time.perf_counter() - began)
                if name == "all pairs":
                    naive.stop()
        (loss, gradient), (other, against) = found["with"], found["all pairs"]
        apart = float((gradient - against).norm() / against.norm())
        print(f"length {length}, {rows} rows")
        for name, own_seconds in seconds.items():
            over = spread([a / b for a, b in zip(own_seconds, seconds["without"], strict=True)])
            print(f"  {name:<10} {spread([1e3 * one for one in own_seconds])} ms, {over} of the step without")
        if abs(loss - other) > 1e-4 or apart > 1e-4:
            print(f"both ways differ: losses by {loss - other:.2e}, gradients by {apart:.2e}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
