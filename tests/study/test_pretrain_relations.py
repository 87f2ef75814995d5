"""Text of facts, and what is asked of it: a reader who knows the facts and the relation is right, others are not always."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cats import asked, rows_of

from kshot.model.tree import Scored
from kshot.pretrain.relations import KINDS, Facts, fact_documents, facts
from kshot.study.pretrain import corpus as corpora
from kshot.study.pretrain import relations as module
from kshot.study.pretrain.corpus import Tokens, corpus_of, in_tokens
from kshot.study.pretrain.plan import PLANS
from kshot.study.pretraining import pretrain
from kshot.synth.networks.language import Language

KNOWN = facts()
LANGUAGE = Language(start=lambda rng: {}, reads=lambda *_: torch.zeros(0), head=lambda *_: torch.zeros(0))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(corpora, "_DRAWN", 100)
        patch.setattr(corpora, "_HELD_OUT", 5)
        return in_tokens(corpus_of(["relations"]), 1_000, None, hides=False, at_most=True)


def pairs(text: str) -> list[tuple[str, str]]:
    return [(word, said) for word, _, said in (own.partition(": ") for own in text.splitlines())]


def test_a_document_states_one_relation_and_nothing_that_is_new() -> None:
    texts = fact_documents(KNOWN, 0, 200)
    kinds = set()
    for text in texts:
        own = pairs(text)
        (kind,) = [kind for kind in KINDS if all(KNOWN.trained[kind].get(word) == said for word, said in own)]
        kinds.add(kind)
        assert len({word for word, _ in own}) == 12
        assert not any(word in KNOWN.new[kind] for word, _ in own)
    assert kinds == set(KINDS)
    assert fact_documents(KNOWN, 0, 200)[:7] == texts[:7]
    assert fact_documents(KNOWN, 1, 7) != texts[:7]
    assert all(KNOWN.new[kind] for kind in KINDS)


def reader(tokens: Tokens, says: Callable[[str, list[tuple[str, str]]], bool]) -> Callable[..., list[np.ndarray]]:
    """In the place of a network: 0 of the last line of every text where it would say so, else less."""

    def said_of(language: Language, weights: object, scored: Sequence[Scored]) -> list[np.ndarray]:
        found = []
        for one in scored:
            *shown, last = pairs(tokens.tokenizer.decode(list(one.tokens[1:])))
            assert tokens.tokenizer.decode(list(one.tokens[one.start :])).strip() == last[1]
            found.append(np.array([0.0 if says(last[0], [*shown, last]) else -1.0]))
        return found

    return said_of


def accuracies(tokens: Tokens, monkeypatch: pytest.MonkeyPatch, says: Callable[..., bool]) -> dict[str, float]:
    monkeypatch.setattr(module, "said_of", reader(tokens, says))
    plan = replace(PLANS["smoke"], pairs=60, context=400)
    rows, pictures = module.relations(LANGUAGE, {}, tokens, plan, ("it", 0))
    assert set(pictures[0]["lines"]) == {"it, trained pairs", "it, new pairs"}
    assert all(row["null"] == 1 / 8 for row in rows)
    return {row["variant"].removeprefix("it, "): row["value"] for row in rows}


def fits(known: Facts, own: list[tuple[str, str]]) -> bool:
    return any(all(known.answer(kind, word) == said for word, said in own) for kind in KINDS)


def test_knowing_the_facts_and_the_relation_is_enough_from_an_example_on(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = accuracies(tokens, monkeypatch, lambda word, own: fits(KNOWN, own))
    assert all(found[f"{which}, 8 examples"] == 1 for which in ("trained pairs", "new pairs"))
    assert found["trained pairs, 1 example"] > 0.9, "some capitals are called as their currency's country is"


def test_knowing_the_input_or_the_relation_alone_is_not(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_input(word: str, own: list[tuple[str, str]]) -> bool:
        others = [KNOWN.answer(kind, word) for kind in reversed(KINDS)]
        return own[-1][1] == next(said for said in others if said is not None)

    def of_relation(word: str, own: list[tuple[str, str]]) -> bool:
        kinds = [kind for kind in KINDS if all(KNOWN.answer(kind, one) == said for one, said in own[:-1])]
        among = sorted({said for kind in kinds for said in KNOWN.trained[kind].values()})
        return bool(among) and own[-1][1] == among[0]

    for says in (of_input, of_relation):
        found = accuracies(tokens, monkeypatch, lambda word, own, says=says: says(word, own))
        assert found["trained pairs, 8 examples"] < 0.6


def test_options_are_eight_with_the_right_one_first() -> None:
    for which in (KNOWN.trained, KNOWN.new):
        for prompt, options in module._asked(KNOWN, which, 50, 2):
            word = prompt.rpartition("\n")[2].removesuffix(":")
            assert len(set(options)) == 8
            assert any(KNOWN.answer(kind, word) == options[0] and word in which[kind] for kind in KINDS)
            assert word not in prompt.rpartition("\n")[0].replace(": ", "\n").splitlines()


def test_a_run_asks_for_the_facts_of_its_text_beside_others(file: Path) -> None:
    ours = pretrain(asked(file, tasks=(str(file), "relations"), context=64)).results
    rows = rows_of(ours)
    assert 0 <= rows["relation_accuracy", "softmax, trained pairs, 0 examples", 0]["value"] <= 1
    assert not any(row["measure"] == "relation_accuracy" for row in pretrain(asked(file)).results["kshot"]["measures"])
