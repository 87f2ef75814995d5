"""Task selection taken at its word: Bayes over a pool of known tasks, with the model's own likelihoods (Xie et al. 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from kshot.data.builtin import RELATIONS
from kshot.rivals.pool import entropy, mixture, posterior
from kshot.study.figures import figure
from kshot.study.hypotheses.asking import Answers, Asked, Row, answer_rows, contrast_row
from kshot.study.hypotheses.core import ALTERED, ORIGINAL
from kshot.study.parts import Say
from kshot.transform import TRANSFORMS
from kshot.transform.draw import draw
from kshot.transform.written import Piece, Tokens, Written

BEYOND = "response-altered is answered better in context than by any known task"
# How many examples stand for a task of the pool, and how many queries are asked after each.
_EXAMPLES, _QUERIES = 8, 32


def selected(asked: Asked, say: Say) -> tuple[list[Row], dict[str, Any]]:
    """Rows of how sure the demonstrations make of a known task, and of what Bayes over the pool answers.

    The pool is the built-in relations, each told by eight of its own examples in the task's layout, and the task itself,
    told by eight of its examples that stand in no prompt here.
    """
    rows: list[Row] = []
    pictures: dict[str, Any] = {}
    own_words = replace(asked.written, queries=asked.written.queries[:_QUERIES])
    drawn = draw(own_words, asked.shots, asked.seed, "fixed")
    contexts = {**_relations(own_words), asked.task.name: _itself(own_words, drawn)}
    for name in (ORIGINAL, ALTERED):
        written = TRANSFORMS[name](own_words, asked.seed)
        shown = [written.pool[i] for i in drawn[0].tolist()]
        own = Answers(asked.table(written, drawn), written.gold, drawn)
        logs, tables = _by_task(asked, written, shown, contexts, say)
        by_bayes = Answers(mixture(logs[-1], tables), written.gold, drawn)
        rows += answer_rows((name, "in context"), own, asked.seed)
        rows += answer_rows((name, "Bayes over known tasks"), by_bayes, asked.seed)
        sure = entropy(logs)
        counts = [i for i in dict.fromkeys((0, 1, 2, 4, 8, 16, len(shown))) if i <= len(shown)]
        rows += [
            figure("entropy", (name, f"{i} demonstrations"), value=float(sure[i]), unit="nats", n=len(contexts))
            for i in counts
        ]
        pictures[name] = {"tasks": list(contexts), "posterior": np.exp(logs).round(6).tolist()}
    rows.append(contrast_row(BEYOND, own, by_bayes, asked.seed))
    return rows, {"pool": pictures}


def _by_task(
    asked: Asked, written: Written, shown: Sequence[Piece], contexts: Mapping[str, Tokens], say: Say
) -> tuple[Float[np.ndarray, "n1 t"], Float[np.ndarray, "t q c"]]:
    """log p(task | demonstrations) one by one, and what each task answers to the queries."""
    gold = np.array([piece.gold for piece in shown], dtype=np.int64)
    loglik, tables = [], []
    for name, context in contexts.items():
        say(f"known task {name}")
        prompts = [written.asked(context, piece) for piece in (*shown, *written.queries)]
        table = asked.scored(prompts, _EXAMPLES)
        loglik.append(table[: len(shown)][np.arange(len(gold)), gold])
        tables.append(table[len(shown) :])
    return posterior(np.array(loglik).T), np.array(tables)


def _relations(written: Written) -> dict[str, Tokens]:
    found = {}
    for name, load in RELATIONS.items():
        examples = load().train[:_EXAMPLES]
        pieces = [
            (*written.write(str(e.fields["input"])), *written.say(str(e.label)), *written.separator) for e in examples
        ]
        found[name] = (*written.first, *written.description, *(token for piece in pieces for token in piece))
    return found


def _itself(written: Written, drawn: Int[np.ndarray, "q k"]) -> Tokens:
    taken = set(drawn.ravel().tolist())
    return written.before([piece for i, piece in enumerate(written.pool) if i not in taken][:_EXAMPLES])
