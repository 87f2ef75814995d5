"""How often the battery of ``kshot hypotheses`` names a learner that was planted, and how often it names a wrong one.

    python bench/power.py [--runs 20] [--seeds 20] [--queries 32] [--functions 25] [--draws 8] [--workers 2] [--accounts H1,H2,H3]

The learners are those of tests/study/learners.py: one that selects among known tasks, one that learns by ridge regression
in context, one that composes what it knows; each with three amounts of noise on its votes, so each in three strengths.
A run is a battery of so many seeds; no two runs share one. Printed, as it is kept in docs/results: how much better than
guessing a learner does the task as it is, how often its own account is supported (power), and how often another one is,
or its own is rejected (false). What is "as published" counts for nothing in a verdict and is left out.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "study"))

import learners

from kshot.study.hypotheses import core
from kshot.study.hypotheses.claims import verdicts
from kshot.study.hypotheses.functions import over_functions
from kshot.study.over_seeds import over_seeds

# What a learner of tokens is sure of differs by less than what one is who knows their meaning.
STRENGTHS = {"H1": (0.2, 0.4, 0.8), "H2": (0.03, 0.06, 0.12), "H3": (0.2, 0.4, 0.8)}


def battery(
    account: str, noise: float, seeds: Sequence[int], queries: int, functions: int, draws: int
) -> dict[str, Any]:
    """The verdict on each hypothesis, and macro-F1 above guessing of the task as it is."""
    core.regression_as_published = lambda asked: (
        None
    )  # ninety searches on the scored examples, of which nothing is judged
    rows = []
    for seed in seeds:
        own = learners.asked(learners.Learner(account, noise), seed, queries=queries)
        found = core.core(own, "redrawn", lambda what: None)
        found += over_functions(own, functions, draws, lambda what: None)[0]
        rows += [{"task": "world", "model": own.name, "seed": seed, **row} for row in found]
    several = over_seeds([{**row, "low": None, "high": None} for row in rows])
    able = next(row["value"] for row in several if str(row["variant"]).startswith(core.ABLE))
    lines = verdicts([*several, *rows])
    return {"able": able, "verdicts": {line["hypothesis"]: line["verdict"] for line in lines if line["claim"] is None}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("runs", 20),
        ("seeds", 20),
        ("queries", 32),
        ("functions", 25),
        ("draws", 8),
        ("workers", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--accounts", default=",".join(STRENGTHS))
    asked = parser.parse_args()
    kinds = [(account, noise) for account in asked.accounts.split(",") for noise in STRENGTHS[account]]
    with ProcessPoolExecutor(asked.workers) as pool:
        waiting = {
            (kind, run): pool.submit(
                battery,
                *kind,
                range(run * asked.seeds, (run + 1) * asked.seeds),
                asked.queries,
                asked.functions,
                asked.draws,
            )
            for run, kind in product(range(asked.runs), kinds)
        }
        print(
            f"{asked.runs} runs of {asked.seeds} seeds, {asked.queries} queries, {asked.functions} functions of {asked.draws} draws\n"
        )
        print(
            "| learner | noise | above guessing | named | another supported | its own rejected |\n|---|---|---|---|---|---|"
        )
        for account, noise in kinds:
            found = [waiting[(account, noise), run].result() for run in range(asked.runs)]
            print(
                f"| {account} | {noise:g} | {mean(one['able'] for one in found):.2f} | {_counts(account, found)} |",
                flush=True,
            )


def _counts(account: str, found: Sequence[dict[str, Any]]) -> str:
    """Named, another supported, its own rejected: counts of runs, with exact intervals."""
    counts = Counter[str]()
    for one in found:
        said = one["verdicts"]
        counts["named"] += said[account] == "supported"
        counts["another"] += any(said[name] == "supported" for name in said if name != account)
        counts["rejected"] += said[account] == "rejected"
    return " | ".join(_share(counts[name], len(found)) for name in ("named", "another", "rejected"))


def _share(count: int, runs: int) -> str:
    interval = stats.binomtest(count, runs).proportion_ci()
    return f"{count} of {runs} ({interval.low:.2f} to {interval.high:.2f})"


if __name__ == "__main__":
    main()
