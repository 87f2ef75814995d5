"""``kshot generate``: a model goes on with a text."""

import sys
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from kshot.cli_options import spoken, whole_number
from kshot.errors import KshotError
from kshot.study.options import within

# A number that is none of those that work is told what does, and not taken for a flag.
_WHOLE: dict[str, Any] = {"converter": whole_number, "allow_leading_hyphen": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class GoingOn:
    """How a text goes on, and how many do."""

    prompt: Annotated[
        str,
        Parameter(help="The prompt; without one the model begins a text.", allow_leading_hyphen=True),
    ] = ""
    tokens: Annotated[int, Parameter(help="How many tokens at most.", **_WHOLE)] = 100
    temperature: Annotated[
        float,
        Parameter(help="Sampling temperature; 0: always the most probable token (greedy).", allow_leading_hyphen=True),
    ] = 1.0
    top_k: Annotated[int | None, Parameter(help="Draw from so many of the most probable tokens alone.", **_WHOLE)] = (
        None
    )
    top_p: Annotated[float | None, Parameter(help="Draw from the smallest set with this share of probability.")] = None
    seed: Annotated[int, Parameter(help="Of the draws: the same seed, the same text.", **_WHOLE)] = 0
    count: Annotated[
        int, Parameter(help="How many texts, each with draws of its own, an empty line between.", **_WHOLE)
    ] = 1
    momentum: Annotated[str | None, Parameter(help="Momentum attention of this decay is added: ETA, or ETA:GATE.")] = (
        None
    )
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], Parameter(help="Number format of the weights.")] = "auto"
    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="Where the model runs.")] = "auto"


_AS_IT_IS = GoingOn()


def generate(
    model: Annotated[str, Parameter(help="An embedded name, org/name on the hub, a folder or a .gguf file.")],
    /,
    asked: Annotated[GoingOn, Parameter(name="*")] = _AS_IT_IS,
) -> None:
    """Let a model go on with a text, token by token as they come."""
    within("seed", asked.seed, 0)
    for name, number in (("tokens", asked.tokens), ("count", asked.count)):
        if number < 1:
            raise KshotError(f"--{name} {number}: what works is a whole number, 1 or more")
    # torch and transformers take seconds to import, and help or a mistyped flag needs neither
    from kshot.model.generate import text_of
    from kshot.model.load import load_model, with_stated_momentum
    from kshot.model.sampling import Sampling
    from kshot.seeds import stream

    how = Sampling(temperature=asked.temperature, top_k=asked.top_k, top_p=asked.top_p)
    with spoken():
        lm = with_stated_momentum(load_model(model, dtype=asked.dtype, device=asked.device), asked.momentum)
    for number in range(asked.count):
        pieces = text_of(lm, asked.prompt, how, stream(asked.seed, "generate", number), asked.tokens)
        # A prompt that cannot be gone on with is no text to write.
        begun = next(pieces, "")
        sys.stdout.write(("\n\n" if number else "") + asked.prompt)
        for piece in chain([begun], pieces):
            sys.stdout.write(piece)
            sys.stdout.flush()
    sys.stdout.write("\n")
