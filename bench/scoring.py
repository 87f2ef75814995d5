"""Few-shot scoring against lm-eval's HF backend: one run, one machine, one model, one task file, both sides warmed up.

    python bench/scoring.py DATA [--queries 500] [--rival-queries 96] [--labels one|many] [--dtype bfloat16|float32] [--rounds 3]

DATA is a folder with SST-2 as ``train.jsonl`` and ``test.jsonl`` (fields text, label). Each side is a process of its own
that stays alive; they take turns, so that both see the same machine. kshot reads all queries in every turn, from text
to log-probabilities, the reading of the demonstrations included. lm-eval gets a part of them in every turn
(``--rival-queries`` in all): it reads every prompt whole, so its time per query does not depend on how many there are;
only its model calls are timed, not the building of its requests. Printed: queries a second, the ratio of the medians,
the share of this machine's GEMM rate (measured in every turn) that the needed arithmetic comes to, peak memory of both,
and the largest difference of a log-probability. In float32 that must be below 1e-3 and the accuracies equal, or the run fails.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

SHOTS, BATCH = 16, 8
CHOICES = {
    "one": ["negative", "positive"],
    "many": [
        "clearly a negative review",
        "clearly a positive review",
        "rather a negative opinion",
        "rather a positive opinion",
    ],
}
YAML = """\
task: bench_sst2
dataset_path: json
dataset_kwargs:
  data_files:
    train: {folder}/train.jsonl
    test: {folder}/test.jsonl
output_type: multiple_choice
training_split: train
test_split: test
fewshot_split: train
fewshot_config:
  sampler: first_n
doc_to_text: "Review: {{{{text}}}}\\nSentiment:"
doc_to_target: "{{{{['negative', 'positive'].index(label)}}}}"
doc_to_choice: {choices}
metric_list:
  - metric: acc
metadata:
  version: 1
"""


def gemm_rate(dtype_name: str) -> float:
    """FLOP/s of a 2048-cube matrix product, the best of a few: what this machine can do in this format right now."""
    import torch

    a = torch.randn(2048, 2048).to(getattr(torch, dtype_name))
    best = float("inf")
    for _ in range(8):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2 * 2048**3 / best


def ours(link: Connection, yaml: str, queries: int, dtype: str, model: str) -> None:
    from kshot import InContext, load_model, load_task
    from kshot.measure.scoring import score

    lm = load_model(model, dtype=dtype)
    task = load_task(yaml)
    work = 0.0
    while (turn := link.recv()) is not None:
        examples = task.test[: turn["queries"]]
        begin = time.perf_counter()
        adapted = InContext(shots=SHOTS, pick="first_n").fit(lm, task, task.train, 0)
        found = score(adapted, task, examples)
        seconds = time.perf_counter() - begin
        work = needed_work(lm, found.tokens, adapted.prefix.length, len(examples))
        table = found.predictions.logprobs.tolist()
        gold = found.predictions.gold.tolist()
        link.send({"seconds": seconds, "n": len(examples), "table": table, "gold": gold, "work": work,
                   "gemm": gemm_rate(dtype), "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})  # fmt: skip


def needed_work(lm, tokens: int, prefix: int, rows: int) -> float:
    """FLOPs that scoring cannot do without: every distinct token through the layers and over the prefix, one head row a query."""
    config = lm.model.config
    embedding = lm.model.get_input_embeddings().weight.numel()
    tied = config.tie_word_embeddings
    layers = lm.parameters - embedding * (1 if tied else 2)
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return 2.0 * layers * tokens + attention * (prefix * (tokens - prefix) + prefix**2 / 2) + 2.0 * embedding * rows


def theirs(link: Connection, yaml: str, queries: int, dtype: str, model: str) -> None:
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kshot.model.sources import resolve

    folder = resolve(model).folder
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    lm = HFLM(pretrained=net, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=BATCH, device="cpu")
    task = TaskManager().load([yaml])["tasks"]["bench_sst2"]
    task.set_config(key="num_fewshot", value=SHOTS)
    task.build_all_requests(limit=queries, rank=0, world_size=1)
    by_doc: dict[int, list] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    while (turn := link.recv()) is not None:
        asked = [i for doc in turn["docs"] for i in sorted(by_doc[doc], key=lambda x: x.idx)]
        begin = time.perf_counter()
        answers = lm.loglikelihood(asked, disable_tqdm=True)
        seconds = time.perf_counter() - begin
        width = len(asked) // len(turn["docs"])
        table = [[a[0] for a in answers[i : i + width]] for i in range(0, len(answers), width)]
        link.send({"seconds": seconds, "n": len(turn["docs"]), "table": table,
                   "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})  # fmt: skip


def start(side, *arguments):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=side, args=(there, *arguments), daemon=True)
    process.start()
    return here


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rival-queries", type=int, default=96)
    parser.add_argument("--labels", choices=CHOICES, default="one")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    folder = asked.data.resolve()
    with tempfile.TemporaryDirectory() as work:
        yaml = Path(work) / "bench_sst2.yaml"
        yaml.write_text(YAML.format(folder=folder, choices=json.dumps(CHOICES[asked.labels])), encoding="utf-8")
        arguments = (str(yaml), asked.queries, asked.dtype, asked.model)
        kshot, rival = start(ours, *arguments), start(theirs, *arguments)
        kshot.send({"queries": 64}), kshot.recv()
        rival.send({"docs": list(range(BATCH))}), rival.recv()
        turns: list[tuple[dict, dict, list[int]]] = []
        each = max(1, asked.rival_queries // asked.rounds)
        for i in range(asked.rounds):
            kshot.send({"queries": asked.queries})
            mine = kshot.recv()
            docs = [d % asked.queries for d in range(i * each, (i + 1) * each)]
            rival.send({"docs": docs})
            turns.append((mine, rival.recv(), docs))
        kshot.send(None), rival.send(None)
    return report(asked, turns)


def report(asked: argparse.Namespace, turns: list[tuple[dict, dict, list[int]]]) -> int:
    mine = [m["n"] / m["seconds"] for m, _, _ in turns]
    other = [r["n"] / r["seconds"] for _, r, _ in turns]
    share = [m["work"] / m["seconds"] / m["gemm"] for m, _, _ in turns]
    apart = max(abs(a - b) for m, r, docs in turns for d, row in zip(docs, r["table"], strict=True)
                for a, b in zip(m["table"][d], row, strict=True))  # fmt: skip
    right = [(best(m["table"][d]) == m["gold"][d], best(row) == m["gold"][d])
             for m, r, docs in turns for d, row in zip(docs, r["table"], strict=True)]  # fmt: skip
    accuracy = [sum(side) / len(right) for side in zip(*right, strict=True)]
    memory = [max(t[side]["rss"] for t in turns) for side in (0, 1)]
    print(
        f"{SHOTS} shots, {len(CHOICES[asked.labels])} labels ({asked.labels} token), {asked.queries} queries, {asked.dtype}, {asked.model}"
    )
    print(f"kshot queries/s       {spread(mine)}")
    print(f"lm-eval queries/s     {spread(other)}   (batch {BATCH}, first_n, {len(right)} of the queries)")
    print(f"ratio, turn by turn   {spread([a / b for a, b in zip(mine, other, strict=True)])}")
    print(f"share of GEMM rate    {spread(share)}   (GEMM {spread([m['gemm'] / 1e9 for m, _, _ in turns])} GFLOP/s)")
    print(f"peak memory, MB       {memory[0] / 1e6:.0f} against {memory[1] / 1e6:.0f}: {memory[0] / memory[1]:.2f}")
    print(f"accuracy              {accuracy[0]:.4f} against {accuracy[1]:.4f} on the queries both answered")
    print(f"largest difference    {apart:.2e} nats")
    if asked.dtype == "float32" and (apart > 1e-3 or accuracy[0] != accuracy[1]):
        print("FAILED: float32 answers differ", file=sys.stderr)
        return 1
    return 0


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def best(row: list[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


if __name__ == "__main__":
    raise SystemExit(main())
