"""What processes of torchrun do in test_sharded.py: a network trained in parts, stopped and gone on with; rank 0 prints."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from kshot.seeds import torch_stream
from kshot.synth import train
from kshot.synth.sharded import parted
from kshot.synth.train import Kept, Trained, Training, trained

START = {
    "a.weight": torch.randn(6, 4, generator=torch_stream(0, "a")),
    "a.bias": torch.zeros(6),
    "b": torch.randn(3, 6, generator=torch_stream(0, "b")),
}


class Stop(Exception):
    pass


def loss(weights: train.Weights, number: int) -> Tensor:
    xs = torch.randn(5, 4, generator=torch_stream(number, "xs"))
    return (
        (torch.nn.functional.linear(xs, weights["a.weight"], weights["a.bias"]).tanh() @ weights["b"].T).square().mean()
    )


def run(sharded: bool, place: Kept | None = None, stop: int | None = None) -> Trained:
    training = Training(
        steps=9, batch=4, learning_rate=0.05, clip=1.0, weight_decay=0.1, decay_of="matrices", parts=4, sharded=sharded
    )

    def watch(step: int, weights: train.Weights, now: float) -> None:
        if step == stop:
            raise Stop

    return trained(START, loss, training, place=place, watch=watch)


def main() -> None:
    dist.init_process_group("gloo")
    train._SECONDS = train._SHARE = 0.0
    folder = Path(sys.argv[1])
    copies, parts = run(False), run(True)
    place = folder / "state.safetensors"
    try:
        run(True, Kept(place, "key"), stop=6)
    except Stop:
        dist.barrier()
    again = run(True, Kept(place, "key"))
    leaves = parted({name: own.clone() for name, own in START.items()}).leaves
    held = sum(own.to_local().numel() for own in leaves.values() if isinstance(own, DTensor))
    if dist.get_rank() == 0:
        for one, other in ((copies, parts), (parts, again)):
            apart = max(float((one.weights[name] - other.weights[name]).abs().max()) for name in START)
            print(apart, max(abs(a - b) for a, b in zip(one.losses, other.losses, strict=True)), len(other.losses))
        print(held, sum(own.numel() for own in START.values()))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
