"""Every option of ``kshot hypotheses`` with its default, in one place."""

from dataclasses import dataclass
from typing import Any, Literal

from kshot.study.options import check_shared, option, read, within

# Names of ``hypotheses.PARTS``, in the order in which they are answered.
BATTERY = (
    "published", "fast", "labels", "shots", "right-share", "permuted-share", "functions", "synonyms", "copying", "pool",
    "chat", "relations",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class HypothesesSettings:
    """What is asked of the battery; None and nothing leave a number to the size."""

    tasks: tuple[str, ...] = option(("bbc-headlines",), "Built-in names, files, folders or hf:org/name, with labels.")
    model: str = option("smollm2-135m", "An embedded name, org/name on the hub, a folder or a .gguf file.")
    size: Literal["smoke", "medium", "full"] = option(
        "smoke", "How much is asked: a quick trial, twenty seeds of 32 queries, or as much as was published."
    )
    num_fewshot: int | None = option(None, "Demonstrations; by default 8, 16 or 32, by size.")
    limit: int | Literal["all"] | None = option(None, "Queries drawn for each seed; by default 10, 32 or 256, by size.")
    seed: tuple[int, ...] = option((), "Seeds; each draws its own pool, queries and functions; by default 7 or 20.")
    parts: tuple[str, ...] = option(
        (), "What is asked (see: kshot list parts); by default what every verdict rests on (smoke), or all."
    )
    template: tuple[str, ...] = option(
        (),
        "Layout of an input (Jinja, with {{field}}) or a YAML file of a whole template; by default as published, else the task's.",
    )
    test_file: str | None = option(None, "Test examples of a task that is a file; else a part of it is held out.")
    dtype: Literal["float32", "bfloat16", "float64"] = option("bfloat16", "Number format of the weights.")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Where the model runs.")
    output_path: str | None = option(None, "Folder of the records; the same command goes on where it stopped.")


def make_hypotheses_settings(**options: Any) -> HypothesesSettings:
    """Settings that make sense; UnknownName or KshotError in one line where they do not."""
    asked = read(HypothesesSettings, options)
    if asked["num_fewshot"] is not None:
        within("num_fewshot", asked["num_fewshot"], 1)
    check_shared(asked, BATTERY)
    return HypothesesSettings(**asked)
