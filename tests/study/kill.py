"""A run in a process of its own that is killed at a given moment, again and again: called by test_kill.py.

    python kill.py DELAYS WHOLE KILLED WORDS...

Delays are in seconds, with commas. One run into the folder WHOLE is left alone; one into KILLED is killed after each delay,
and the last left to finish.
The machinery is imported once and each run is a fork of it, so that a kill falls into the run and not into imports.
"""

import os
import signal
import sys
import time

import torch
import transformers.models.auto.modeling_auto
import transformers.models.llama.modeling_llama  # noqa: F401

import kshot.show.report
import kshot.study.pretraining
import kshot.study.run  # noqa: F401
from kshot.cli import status
from kshot.synth import train


def _fork(words: list[str], folder: str) -> int:
    child = os.fork()
    if child == 0:
        os._exit(status([*words, "--output-path", folder]))
    return child


def _left_alone(words: list[str], folder: str) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(_fork(words, folder), 0)[1])


def _main() -> int:
    delays, whole, folder, *words = sys.argv[1:]
    code = _left_alone(words, whole)
    killed = 0
    for delay in map(float, delays.split(",")):
        child = _fork(words, folder)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    code = code or _left_alone(words, folder)
    print(f"killed {killed}", file=sys.stderr)
    return code


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Trainings here take seconds, and are kept as often as that asks for.
    train._SECONDS, train._SHARE = 0.02, 1.0
    sys.exit(_main())
