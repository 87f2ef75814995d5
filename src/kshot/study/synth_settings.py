"""Every option of ``kshot synth`` with its default, in one place."""

from dataclasses import dataclass
from typing import Any, Literal

from kshot.errors import UnknownName
from kshot.study.options import option, read

# Names of ``synth.EXPERIMENTS``.
NAMES = (
    "linear-attention-is-gradient-descent",
    "function-classes",
    "task-diversity",
    "which-algorithm",
    "ginc",
    "architectures",
    "composition",
    "scaling",
    "prompt-tuning",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSettings:
    """What is asked of small models that are grown here."""

    tasks: tuple[str, ...] = option(
        NAMES[:1], "Experiments by name; list shows them and does nothing else.", word="EXPERIMENT"
    )
    size: Literal["smoke", "full", "paper"] = option(
        "smoke", "How much is trained: a quick trial, as much as claims need on two cores, or as published."
    )
    seed: tuple[int, ...] = option((0,), "Seeds; each draws its own functions, weights and prompts.")
    parts: tuple[str, ...] = option((), "What is asked of each experiment, by default all of it.")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Where networks are trained; prompts are drawn on the CPU.")
    output_path: str | None = option(None, "Folder of the records; the same command goes on where it stopped.")


def make_synth_settings(**options: Any) -> SynthSettings:
    """Settings that make sense; UnknownName or KshotError in one line where they do not."""
    asked = read(SynthSettings, options)
    for name in asked["tasks"]:
        if name not in NAMES:
            raise UnknownName("experiment", name, NAMES)
    return SynthSettings(**asked)
