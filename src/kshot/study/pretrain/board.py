"""Losses for TensorBoard, through the optional library of that name."""

import importlib
import time
from pathlib import Path
from typing import Any

from kshot.errors import KshotError, OutputError
from kshot.study.pretrain.plan import Plan
from kshot.synth.train import Trained

BOARD = "tensorboard"
"""The folder in a run's own where they lie, one folder in it for each network and seed."""


def board_library() -> Any:
    """torch's way to TensorBoard's files; KshotError where the package is not installed."""
    try:
        # an optional package, and seconds to import
        return importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise KshotError(
            "--tensorboard needs the package tensorboard; install it with: pip install tensorboard"
        ) from error


def keep_board(folder: Path, done: Trained, plan: Plan) -> None:
    """The loss of every step, the held-out loss where it was looked at, both by steps, as long ago as each was.

    OutputError where the folder cannot be written.
    """
    began = time.time() - done.seconds
    a_step = done.seconds / max(1, len(done.losses))
    try:
        with board_library().SummaryWriter(str(folder)) as writer:
            for step, loss in enumerate(done.losses, 1):
                writer.add_scalar("loss/train", loss, step, began + a_step * step)
            for at, loss in done.along("validation"):
                writer.add_scalar("loss/held-out", loss, int(at), began + a_step * at)
                writer.add_scalar("tokens", at * plan.batch * plan.context, int(at), began + a_step * at)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
