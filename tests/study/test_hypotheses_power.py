"""The battery names the learner that was planted: power and false verdicts over learners, strengths and runs."""

from collections import Counter

import learners
import pytest

from kshot.study.hypotheses.claims import verdicts
from kshot.study.hypotheses.core import core
from kshot.study.hypotheses.functions import over_functions
from kshot.study.over_seeds import over_seeds


def judged(account: str, noise: float, seeds: range, *, queries: int = 64, functions: int = 20) -> dict[str, str]:
    """The verdict on each hypothesis, of a battery with these seeds."""
    rows = []
    for seed in seeds:
        own = learners.asked(learners.Learner(account, noise), seed, queries=queries)
        found = core(own, "redrawn", lambda what: None)
        found += over_functions(own, functions, 4, lambda what: None)[0]
        rows += [{"task": "world", "model": own.name, "seed": seed, **row} for row in found]
    several = over_seeds([{**row, "low": None, "high": None} for row in rows])
    return {line["hypothesis"]: line["verdict"] for line in verdicts([*several, *rows]) if line["claim"] is None}


# Votes of a learner of tokens differ by less than those of who knows what they mean.
NOISE = {"H1": 0.3, "H2": 0.05, "H3": 0.3}


@pytest.mark.parametrize("account", learners.ACCOUNTS)
def test_a_planted_learner_is_named(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ninety searches on the scored examples, of which nothing is judged.
    monkeypatch.setattr("kshot.study.hypotheses.core.regression_as_published", lambda asked: None)
    found = judged(account, NOISE[account], range(10), queries=32, functions=10)
    assert found[account] == "supported"
    assert {name for name, said in found.items() if said == "supported"} == {account}
    assert Counter(found.values())["rejected"] >= 1
