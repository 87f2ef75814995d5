"""Every option of ``kshot pretrain`` with its default, in one place."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from kshot.errors import KshotError, UnknownName
from kshot.study.options import flag, option, read, within

_DEFAULT, _SEQ2SEQ = "llama", "t5"
# Names of ``synth.networks.language``: those whose attention can be chosen, and the others.
ATTENDING = ("llama", "transformer", "attention-only", "encoder")
NETWORKS = (*ATTENDING, "rnn", "gru", "lstm", "mamba", "mambaformer", "neural-ngram", _SEQ2SEQ)
# What an objective wants, where it does not go with any network.
_WANTS = {
    "mlm": ("encoder",),
    "span": (_SEQ2SEQ,),
    "denoise": (_SEQ2SEQ,),
    "prefix": ("llama", "transformer", "attention-only", _SEQ2SEQ),
}
# Names of ``synth.networks.mixing``; those with momentum have a decay.
ATTENTIONS = ("softmax", "momentum", "momentum-normalised", "momentum-keys", "linear")
SUMS = ("softmax", "momentum", "momentum-normalised", "momentum-keys")
"""What can be added to the attention of any decoder."""
LEARNED = "learned"
_SHAPED = ("layers", "heads", "width")
_COUNTS = ("tokens", "context", "vocabulary", "batch", *_SHAPED, "accumulate")
# Held-out text is read in windows of a context that move on by half of it.
_LEAST = {"context": 4}
DESIGNED = ("positions", "norm", "mlp")
"""What of a network with attention can be chosen besides it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings:
    """What is grown from texts, and how."""

    tasks: tuple[str, ...] = option(
        (),
        "Texts to learn from: a name of kshot list texts, .txt, .jsonl or .parquet files, folders, hf:org/name. Of a folder with files "
        "train and valid (else test) the second is held out, of anything else a twentieth.",
        word="TEXT",
    )
    start: str | None = option(
        None,
        "A model that is trained further, in the place of a new network; its momentum begins with a gate of 0. An encoder-decoder goes with prefix (LM adaptation), span and denoise.",
    )
    network: str | None = option(
        None,
        "llama, transformer, attention-only, rnn, gru, lstm, mamba, mambaformer, neural-ngram or t5; by default llama, an encoder for mlm, a t5 for span and denoise.",
    )
    attention: tuple[str, ...] = option(
        ("softmax",), "softmax, momentum, momentum-normalised, momentum-keys or linear; each of several is trained."
    )
    eta: tuple[str, ...] = option(
        (LEARNED,), "Decays of momentum between 0 and 1, or learned; each of several is trained."
    )
    halving: bool = option(
        False,
        "Choose among several decays by successive halving: on fewer tokens and documents cut off the training text, the better half goes on to twice as many.",
    )
    objective: Literal["causal", "prefix", "mlm", "span", "denoise"] = option(
        "causal",
        "causal: the next token; prefix: the rest of a text from its beginning (prefix-LM); mlm: masked tokens; span: T5's span corruption; denoise: the whole of a text with masked spans.",
    )
    size: Literal["smoke", "full", "paper"] = option(
        "smoke",
        "How large, and how much is read: a quick trial, a million parameters, or as published (with --network transformer).",
    )
    seed: tuple[int, ...] = option((0,), "Seeds; each begins with its own weights and reads in its own order.")
    tokens: int | None = option(None, "Tokens that training reads, by default as many as the size says.")
    context: int | None = option(None, "Context length in tokens.")
    vocabulary: int | None = option(None, "Tokens of a vocabulary learned from the texts.")
    tokenizer: str | None = option(None, "A model whose vocabulary is taken instead.")
    batch: int | None = option(None, "Sequences of a step.")
    layers: int | None = option(None, "Layers of the network.")
    heads: int | None = option(None, "Attention heads of a layer.")
    width: int | None = option(None, "Hidden size.")
    positions: Literal["learned", "sinusoidal", "rotary", "relative", "none"] | None = option(
        None, "What tells attention where a token stands, by default what the network has."
    )
    norm: Literal["layer", "rms"] | None = option(None, "The norm of layers, by default the network's.")
    mlp: Literal["gelu", "swiglu"] | None = option(
        None, "What layers have besides attention, by default the network's."
    )
    learning_rate: float | None = option(None, "Peak learning rate.")
    schedule: Literal["cosine", "linear", "polynomial", "constant"] | None = option(
        None, "The learning rate after the warm-up, by default cosine, and of the paper's size linear."
    )
    optimiser: Literal["adamw", "adafactor", "sgd"] = option("adamw", "Optimiser of the weights.")
    accumulate: int = option(1, "Parts of a step's sequences that are read one after another (gradient accumulation).")
    sharded: bool = option(
        False, "Weights and optimiser state are sharded over the processes of torchrun (FSDP; untested on GPUs)."
    )
    precision: Literal["float32", "bfloat16"] = option(
        "float32", "Number format of matrix products in training; weights and sums stay in float32."
    )
    compile: bool = option(
        False, "Compile the step of training (torch.compile): half a minute at first; needs a C++ compiler."
    )
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Where networks are trained.")
    tensorboard: bool = option(False, "Losses of every network for TensorBoard, in the folder of the run.")
    output_path: str | None = option(
        None, "Folder of the records and models; the same command goes on where it stopped."
    )


def make_pretrain_settings(**options: Any) -> PretrainSettings:
    """Settings that make sense; UnknownName or KshotError in one line where they do not."""
    asked = read(PretrainSettings, options)
    if not asked["tasks"]:
        raise KshotError("needed is a text to learn from; as in: pretrain notes.txt")
    if asked["start"] is not None:
        _check_start(asked)
    if asked["network"] is None:
        wanted = _WANTS.get(asked["objective"], (_DEFAULT,))
        asked["network"] = _DEFAULT if _DEFAULT in wanted else wanted[0]
    if asked["network"] not in NETWORKS:
        raise UnknownName("network", asked["network"], NETWORKS)
    for name in _COUNTS:
        if asked[name] is not None:
            within(name, asked[name], _LEAST.get(name, 1))
    if asked["vocabulary"] is not None and asked["tokenizer"] is not None:
        raise KshotError("--vocabulary learns a vocabulary and --tokenizer takes one; give one of the two")
    rate = asked["learning_rate"]
    if rate is not None and not (isinstance(rate, int | float) and 0 < rate < math.inf):
        raise KshotError(f"--learning-rate {rate!r}: what works is a number above 0")
    if asked["sharded"] and asked["optimiser"] != "adamw":
        raise KshotError(f"--sharded with --optimiser {asked['optimiser']}: what works is adamw")
    if asked["compile"] and asked["sharded"]:
        raise KshotError("--compile with --sharded: what works is one of the two")
    _check_attention(asked)
    return PretrainSettings(**asked)


def _check_start(asked: dict[str, Any]) -> None:
    given = [name for name in ("network", "vocabulary", "tokenizer", *_SHAPED, *DESIGNED) if asked[name] is not None]
    if given:
        raise KshotError(
            f"{flag(given[0])} with --start {asked['start']}: the model has its own; leave one of the two out"
        )
    if asked["objective"] == "mlm" or any(name not in SUMS for name in asked["attention"]):
        others = [name for name, wanted in _WANTS.items() if _SEQ2SEQ in wanted]
        raise KshotError(
            f"--start: what works is --objective causal and --attention of {', '.join(SUMS)}, and for an encoder-decoder "
            f"--objective of {', '.join(others)}"
        )
    if asked["objective"] != "causal":
        asked["network"] = _SEQ2SEQ


def _check_attention(asked: dict[str, Any]) -> None:
    for name in ("attention", "eta"):
        if not asked[name]:
            raise KshotError(f"{flag(name)} is empty; give at least one")
    for name in asked["attention"]:
        if name not in ATTENTIONS:
            raise UnknownName("kind of attention", name, ATTENTIONS)
    asked["eta"] = tuple(_decay(word) for word in asked["eta"])
    network, others = asked["network"], [name for name in asked["attention"] if name != "softmax"]
    if others and network not in ATTENDING:
        raise KshotError(
            f"--attention {others[0]}: a network {network} has its own way; what works is {', '.join(ATTENDING)}"
        )
    kinds = [name for name in asked["attention"] if "momentum" in name]
    if asked["halving"] and (len(kinds) != 1 or len(asked["eta"]) < 2):
        raise KshotError(
            "--halving thins several decays of one kind of momentum; as in: --attention softmax,momentum --eta 0.3,0.6,learned"
        )
    designed = [name for name in DESIGNED if asked[name] is not None]
    if designed and network not in ATTENDING:
        raise KshotError(
            f"{flag(designed[0])}: a network {network} has its own way; what works is {', '.join(ATTENDING)}"
        )
    objective = asked["objective"]
    alone = network in ("encoder", _SEQ2SEQ) and network not in _WANTS.get(objective, ())
    if alone or network not in _WANTS.get(objective, (network,)):
        fitting = [name for name, wanted in _WANTS.items() if network in wanted] if alone else list(_WANTS[objective])
        raise KshotError(
            f"--network {network} with --objective {objective}: what works is {'--objective' if alone else '--network'} "
            f"{' or '.join(fitting)}"
        )
    if objective == "mlm" and any(name != "linear" for name in others):
        raise KshotError(f"--attention {others[0]} sees only what came before, and an encoder sees all; give softmax")
    if objective == "prefix" and "linear" in others:
        raise KshotError("--objective prefix needs softmax attention, with momentum or without")


def _decay(word: Any) -> str:
    if word == LEARNED:
        return LEARNED
    try:
        eta = float(word)
    except ValueError:
        eta = math.nan
    if not 0 < eta < 1:
        raise KshotError(f"--eta {word}: what works is {LEARNED}, or a number between 0 and 1")
    return f"{eta:g}"
