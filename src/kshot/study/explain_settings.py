"""Every option of ``kshot explain`` with its default, in one place."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from kshot.errors import KshotError
from kshot.study.options import check_shared, option, read, within

# What is answered where nothing else is asked for, and the open questions: names of ``explain.PARTS``.
MEASURED = ("rates", "runs", "controls", "layer-causal", "implied", "attribution", "orders")
WHY = ("why-learning-4", "why-learning-16", "why-learning-64", "why-labels", "why-order")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainSettings:
    """What is asked of an explanation; None leaves a number to the size."""

    tasks: tuple[str, ...] = option(
        ("country-continent",), "Built-in names, files, folders, lm-eval YAML or hf:org/name."
    )
    model: str = option("smollm2-135m", "An embedded name, org/name on the hub, a folder or a .gguf file.")
    size: Literal["smoke", "medium", "full"] = option(
        "smoke", "How much is asked: minutes for a task, about an hour for six, or everything."
    )
    num_fewshot: int | None = option(
        None, "Demonstrations; by default 8 (smoke) or 32, and no more than were published for a task of that name."
    )
    limit: int | Literal["all"] | None = option(None, "Queries of each task; by default 30, 100 or all, by size.")
    seed: tuple[int, ...] = option((0,), "Seeds; each draws demonstrations of its own.")
    parts: tuple[str, ...] = option(
        MEASURED,
        "What is answered (see: kshot list parts); the questions why are answered by interventions, and need several seeds.",
    )
    learning_rate: float | None = option(
        None,
        "Of the fine-tuning baseline; by default chosen from 36 as published and on validation (smoke: 0.005).",
    )
    template: tuple[str, ...] = option(
        (),
        "Layout of an input (Jinja, with {{field}}) or a YAML file of a whole template; by default as published, else the task's.",
    )
    test_file: str | None = option(None, "Test examples of a task that is a file; else a part of it is held out.")
    arrays: bool = option(False, "Keep what was traced of every query of the runs, as safetensors (megabytes each).")
    dtype: Literal["float32", "bfloat16", "float64"] = option(
        "float32", "Number format of the weights; bfloat16 loses small steps of fine-tuning."
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Where the model runs.")
    output_path: str | None = option(None, "Folder of the records; the same command goes on where it stopped.")


def make_explain_settings(**options: Any) -> ExplainSettings:
    """Settings that make sense; UnknownName or KshotError in one line where they do not."""
    asked = read(ExplainSettings, options)
    if asked["num_fewshot"] is not None:
        within("num_fewshot", asked["num_fewshot"], 2)
    check_shared(asked, (*MEASURED, *WHY))
    rate = asked["learning_rate"]
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate < math.inf):
        raise KshotError(f"--learning-rate {rate!r}: what works is a number above 0")
    return ExplainSettings(**asked)
