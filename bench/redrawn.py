"""Few-shot prompts that share nothing, against lm-eval's HF backend: demonstrations drawn anew for every query.

    python bench/redrawn.py DATA [--queries 48] [--shots 16] [--labels one|many] [--dtype bfloat16|float32] [--rounds 3] [--model smollm2-135m]

DATA is a folder with SST-2 as ``train.jsonl`` and ``test.jsonl`` (fields text, label). The protocol of Li et al. 2024: no
beginning is common to two queries, so nothing can be read once for many. What is left to save: labels read after one
prompt and not each after its own, no padding, the head only where a token is scored. Each side is a process that stays
alive; both are given the same texts in turns, and answer all of them in every turn, from text to log-probabilities.
Printed: tokens of the prompts a second (each prompt counted once on either side), the ratio turn by turn, peak memory,
and the largest difference of a log-probability, which in float32 must be below 1e-3, or the run fails.
"""

import argparse
import json
import random
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from scoring import BATCH, CHOICES, spread, start


def drawn(folder: Path, queries: int, shots: int, labels: list[str]) -> list[tuple[str, str]]:
    """(what stands before the query, its text), the demonstrations of each drawn by themselves."""
    train, test = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("train", "test")
    )
    rng = random.Random(0)
    found = []
    for query in test[:queries]:
        shown = rng.sample(train, shots)
        words = [labels[e["label"] == "positive"] for e in shown]
        texts = [f"Review: {e['text']}\nSentiment: {word}\n\n" for e, word in zip(shown, words, strict=True)]
        found.append(("".join(texts), query["text"]))
    return found


def ours(link: Connection, prompts: list[tuple[str, str]], labels: list[str], dtype: str, model: str) -> None:
    from kshot import Template, load_model
    from kshot.model.prompts import Prompt, continuations

    lm, layout = load_model(model, dtype=dtype), Template(input="Review: {{text}}\nSentiment:")
    tokens = sum(map(len, lm.codec.encode([before + layout.render({"text": text}) for before, text in prompts])))
    while link.recv():
        begin = time.perf_counter()
        asked = [Prompt(before, {"text": text}, tuple(labels)) for before, text in prompts]
        sequences = [s for own in continuations(lm.codec, layout, asked).sequences for s in own]
        table = lm.score(sequences).sums().reshape(len(prompts), len(labels))
        _answer(link, time.perf_counter() - begin, table.tolist(), tokens)


def theirs(link: Connection, prompts: list[tuple[str, str]], labels: list[str], dtype: str, model: str) -> None:
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kshot.model.sources import resolve

    folder = resolve(model).folder
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    lm = HFLM(pretrained=net, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=BATCH, device="cpu")
    asked = [
        Instance("loglikelihood", {}, (f"{before}Review: {text}\nSentiment:", f" {label}"), i)
        for before, text in prompts
        for i, label in enumerate(labels)
    ]
    while link.recv():
        begin = time.perf_counter()
        answers = [answer[0] for answer in lm.loglikelihood(asked, disable_tqdm=True)]
        table = [answers[i : i + len(labels)] for i in range(0, len(answers), len(labels))]
        _answer(link, time.perf_counter() - begin, table, 0)


def _answer(link: Connection, seconds: float, table: list[list[float]], tokens: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    link.send({"seconds": seconds, "table": table, "tokens": tokens, "rss": peak})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--queries", type=int, default=48)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--labels", choices=CHOICES, default="one")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    labels = CHOICES[asked.labels]
    prompts = drawn(asked.data, asked.queries, asked.shots, labels)
    sides = [start(side, prompts, labels, asked.dtype, asked.model) for side in (ours, theirs)]
    turns = []
    # The first turn warms up.
    for _ in range(1 + asked.rounds):
        answers = []
        for side in sides:
            side.send(True)
            answers.append(side.recv())
        turns.append(answers)
    for side in sides:
        side.send(False)
    return report(asked, turns[1:])


def report(asked: argparse.Namespace, turns: list[list[dict]]) -> int:
    tokens = turns[0][0]["tokens"]
    seconds = [[turn[side]["seconds"] for turn in turns] for side in (0, 1)]
    pairs = [(a, b) for mine, other in turns for one, two in zip(mine["table"], other["table"], strict=True)
             for a, b in zip(one, two, strict=True)]  # fmt: skip
    apart = max(abs(a - b) for a, b in pairs)
    memory = [max(turn[side]["rss"] for turn in turns) for side in (0, 1)]
    print(
        f"{asked.shots} shots drawn for each of {asked.queries} queries, {len(CHOICES[asked.labels])} labels ({asked.labels} token), {tokens} tokens, {asked.dtype}, {asked.model}"
    )
    print(f"kshot tokens/s        {spread([tokens / s for s in seconds[0]])}")
    print(f"lm-eval tokens/s      {spread([tokens / s for s in seconds[1]])}   (batch {BATCH})")
    print(f"ratio, turn by turn   {spread([b / a for a, b in zip(*seconds, strict=True)])}")
    print(f"peak memory, MB       {memory[0] / 1e6:.0f} against {memory[1] / 1e6:.0f}: {memory[0] / memory[1]:.2f}")
    print(f"largest difference    {apart:.2e} nats")
    if asked.dtype == "float32" and apart > 1e-3:
        print("FAILED: float32 answers differ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
