"""A step of training against PEFT (soft prompt, LoRA) or transformers (fine-tuning) in a plain loop, on the same rows.

    python bench/tuning.py DATA [--method soft-prompt|lora|fine-tune] [--length 100] [--dtype float32|bfloat16] [--steps 3] [--rounds 3]

DATA is a folder with SST-2 as ``train.jsonl`` (fields text, label). Each side is a process of its own that stays alive;
they take turns, so that both see the same machine. A step is a batch of 16 rows: loss of the label's token, gradient,
AdamW. The rival does what a plain loop does: rows padded to the longest of the batch, the model's own loss with every
other token masked. Both start from the same rows, thin matrices or weights, and the gradients of the first step are
compared: in float32 they must agree to 1e-5 of their norm (fine-tuning: of three weights), or the run fails.
Printed: seconds a step, the ratio turn by turn, peak memory of both, tokens a step.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

BATCH, RANK, ALPHA = 16, 8, 16
LAYOUT = "Review: {}\nSentiment:"
# Of fine-tuning's weights these gradients are compared: one near each end, and one that is small.
WATCHED = (
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "model.norm.weight",
)


def rows_of(folder: Path, count: int) -> list[tuple[str, str]]:
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    return [(LAYOUT.format(row["text"]), " " + row["label"]) for row in map(json.loads, lines)]


def first_rows(length: int, width: int) -> np.ndarray:
    """Where both soft prompts begin: rows of about the size of the embeddings."""
    return np.random.default_rng(0).normal(0.0, 0.13, (length, width)).astype(np.float32)


def ours(link: Connection, asked: argparse.Namespace) -> None:
    import torch

    from kshot import load_model
    from kshot.adapt.learners import low_rank, soft_rows, whole_weights
    from kshot.adapt.train import Recipe, Until, advance, begin, gradients
    from kshot.model.tree import Scored

    lm = load_model(asked.model, dtype=asked.dtype)
    texts = rows_of(asked.data, BATCH * 8)
    rows = []
    for prompt, answer in texts:
        before, whole = lm.codec.encode([prompt, prompt + answer])
        rows.append(Scored(whole, len(before)))
    if asked.method == "soft-prompt":
        width = lm.embedded((0,)).shape[1]
        learner = soft_rows(lm, torch.from_numpy(first_rows(asked.length, width)))
    elif asked.method == "lora":
        learner = low_rank(lm, ("all-linear",), RANK, ALPHA, seed=0)
    else:
        learner = whole_weights(lm, ("all",))
    recipe = Recipe(learning_rate=1e-4, batch=BATCH, clip=0.0)
    leaves = {name: leaf.clone().requires_grad_(True) for name, leaf in learner.leaves.items()}
    loss, cost = gradients(lm, learner, leaves, rows[:BATCH])
    link.send({"loss": loss, "tokens": cost.tokens, "down": down_of(learner.leaves), "grads": grads_of(asked, leaves)})
    del leaves
    state = begin(learner)
    while (turn := link.recv()) is not None:
        until = Until(steps=state.step + turn["steps"])
        began = time.perf_counter()
        state = advance(lm, learner, recipe, rows, state, until=until, seed=0)
        seconds = (time.perf_counter() - began) / turn["steps"]
        link.send({"seconds": seconds, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def down_of(leaves) -> dict[str, np.ndarray]:
    return {name: leaf.numpy() for name, leaf in leaves.items() if name.endswith(".down")}


def grads_of(asked: argparse.Namespace, leaves) -> dict[str, np.ndarray]:
    if asked.method == "soft-prompt":
        return {"prompt": leaves["prompt"].grad.numpy()}
    kept = WATCHED if asked.method == "fine-tune" else [name for name in leaves if name.endswith(".up")]
    return {name: leaves[name].grad.float().numpy() for name in kept}


def theirs(link: Connection, asked: argparse.Namespace) -> None:
    import torch
    from peft import LoraConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kshot.model.sources import resolve

    folder = resolve(asked.model).folder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, asked.dtype))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    down = link.recv()["down"]
    if asked.method == "soft-prompt":
        model = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=asked.length))
        prompt = model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            prompt.copy_(torch.from_numpy(first_rows(*prompt.shape)))
    elif asked.method == "lora":
        model = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
        )
        with torch.no_grad():
            for name, values in down.items():
                layer = model.base_model.model.get_submodule(name.removesuffix(".down"))
                layer.lora_A["default"].weight.copy_(torch.from_numpy(values))
    model.train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=1e-4, weight_decay=0.0)
    texts = rows_of(asked.data, BATCH * 8)

    def batch(step: int) -> dict[str, torch.Tensor]:
        chosen = [texts[(step * BATCH + i) % len(texts)] for i in range(BATCH)]
        ids = [tokenizer(prompt + answer)["input_ids"] for prompt, answer in chosen]
        known = [len(tokenizer(prompt)["input_ids"]) for prompt, _ in chosen]
        wide = max(map(len, ids))
        pad = tokenizer.pad_token_id or tokenizer.eos_token_id
        return {
            "input_ids": torch.tensor([row + [pad] * (wide - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (wide - len(row)) for row in ids]),
            "labels": torch.tensor(
                [[-100] * n + row[n:] + [-100] * (wide - len(row)) for n, row in zip(known, ids, strict=True)]
            ),
        }

    first = batch(0)
    loss = model(**first).loss
    loss.backward()
    grads = {}
    if asked.method == "soft-prompt":
        grads["prompt"] = prompt.grad.float().numpy()
    elif asked.method == "lora":
        for name in down:
            layer = model.base_model.model.get_submodule(name.removesuffix(".down"))
            grads[name.removesuffix("down") + "up"] = layer.lora_B["default"].weight.grad.float().numpy()
    else:
        known = dict(model.named_parameters())
        grads = {name: known[name].grad.float().numpy() for name in WATCHED}
    before = asked.length if asked.method == "soft-prompt" else 0
    link.send({"loss": float(loss.detach()), "tokens": first["input_ids"].numel() + BATCH * before, "grads": grads})
    optimiser.zero_grad()
    del loss
    step = 0
    while (turn := link.recv()) is not None:
        began = time.perf_counter()
        for _ in range(turn["steps"]):
            loss = model(**batch(step)).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            step += 1
        seconds = (time.perf_counter() - began) / turn["steps"]
        link.send({"seconds": seconds, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def start(side, asked: argparse.Namespace) -> Connection:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=side, args=(there, asked), daemon=True).start()
    return here


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", choices=["soft-prompt", "lora", "fine-tune"], default="soft-prompt")
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    kshot, rival = start(ours, asked), start(theirs, asked)
    mine = kshot.recv()
    rival.send({"down": mine["down"]})
    other = rival.recv()
    turns: list[tuple[dict, dict]] = []
    for turn in range(asked.rounds + 1):
        kshot.send({"steps": asked.steps})
        found = kshot.recv()
        rival.send({"steps": asked.steps})
        both = (found, rival.recv())
        # The first turn warms both up.
        turns += [both] if turn else []
    kshot.send(None), rival.send(None)
    return report(asked, mine, other, turns)


def report(asked: argparse.Namespace, mine: dict, other: dict, turns: list[tuple[dict, dict]]) -> int:
    show = lambda values: f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"  # noqa: E731
    apart = max(float(np.linalg.norm(mine["grads"][n] - g) / np.linalg.norm(g)) for n, g in other["grads"].items())
    memory = [max(t[side]["rss"] for t in turns) for side in (0, 1)]
    what = f"{asked.method}, {asked.length} soft tokens" if asked.method == "soft-prompt" else asked.method
    print(f"{what}, batch {BATCH}, {asked.dtype}, {asked.model}")
    print(f"kshot seconds a step  {show([m['seconds'] for m, _ in turns])}   ({mine['tokens']} tokens)")
    print(
        f"rival seconds a step  {show([r['seconds'] for _, r in turns])}   ({other['tokens']} tokens, padding among them)"
    )
    print(f"ratio, turn by turn   {show([r['seconds'] / m['seconds'] for m, r in turns])}")
    print(f"peak memory, MB       {memory[0] / 1e6:.0f} against {memory[1] / 1e6:.0f}: {memory[0] / memory[1]:.2f}")
    print(f"loss of the first     {mine['loss']:.6f} against {other['loss']:.6f}")
    print(f"gradients differ by   {apart:.2e} of their norm")
    if asked.dtype == "float32" and apart > 1e-5:
        print("FAILED: float32 gradients differ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
