"""Every option of ``kshot evaluate-lm`` with its default, in one place."""

from dataclasses import dataclass
from typing import Any, Literal

from kshot.errors import KshotError
from kshot.study.options import option, read, within

CONTEXTS = (256, 512, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What a model is asked about texts; the first word names the model."""

    tasks: tuple[str, ...] = option(
        (),
        "A model by name, folder or .gguf file, then texts: .txt, .jsonl or .parquet files, or folders.",
        word="MODEL TEXT",
    )
    context: tuple[int, ...] = option(
        CONTEXTS,
        "Context lengths in tokens, the model's start token among them; default lengths that exceed the model's are left out.",
    )
    stride: int | None = option(None, "How far a window moves on; by default half of the context.")
    limit: int | Literal["all"] = option(20_000, "Tokens of each text, from its beginning.")
    momentum: str | None = option(None, "Momentum attention of this decay is added: ETA, or ETA:GATE (gate 1).")
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = option("auto", "Number format of the weights.")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Where the model runs.")
    output_path: str | None = option(None, "Folder of the records; the same command goes on where it stopped.")

    @property
    def model(self) -> str:
        return self.tasks[0]

    @property
    def texts(self) -> tuple[str, ...]:
        return self.tasks[1:]


def make_evaluate_settings(**options: Any) -> EvaluateSettings:
    """Settings that make sense; UnknownName or KshotError in one line where they do not."""
    asked = read(EvaluateSettings, options)
    if len(asked["tasks"]) < 2:
        given = " ".join(asked["tasks"]) or "nothing"
        raise KshotError(
            f"needed are a model and a text, and {given} is given; as in: evaluate-lm smollm2-135m notes.txt"
        )
    for context in asked["context"]:
        within("context", context, 2)
    if asked["stride"] is not None:
        within("stride", asked["stride"], 1)
    if asked["limit"] != "all":
        within("limit", asked["limit"], 1, ", or all")
    return EvaluateSettings(**asked)
