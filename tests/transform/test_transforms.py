"""What each transform changes and keeps."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import letters
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kshot.data import load_task
from kshot.errors import PromptError
from kshot.transform import TRANSFORMS
from kshot.transform.draw import draw
from kshot.transform.inputs import label_as_input, permutation, prompt_altered
from kshot.transform.lexicon import NO_WORDS, Lexicon
from kshot.transform.mapping import right_share
from kshot.transform.responses import FACTOR, related, response_altered
from kshot.transform.thesaurus import ORDERS, chains
from kshot.transform.words import WORDS
from kshot.transform.written import Written

OWN = letters.tokens()
seeds = st.integers(0, 10_000)
names = pytest.mark.parametrize("name", TRANSFORMS)


def prompts(written: Written) -> list:
    return written.prompts(draw(written, 8, 0, "redrawn"))


@names
@settings(max_examples=20)
@given(seed=seeds)
def test_the_seed_determines_all(name: str, seed: int) -> None:
    transform = TRANSFORMS[name]
    assert prompts(transform(OWN, seed)) == prompts(transform(OWN, seed))


@names
def test_what_is_said_to_be_kept_is_kept(name: str) -> None:
    transform = TRANSFORMS[name]
    changed = transform(OWN, 1)
    assert len(changed.pool) == len(OWN.pool)
    assert changed.gold.tolist() == OWN.gold.tolist()
    pairs = list(zip(OWN.pool, changed.pool, strict=True))
    inputs = all(old.input == new.input for old, new in pairs)
    labels = (changed.answers, changed.options) == (OWN.answers, OWN.options) and pairs[0][1].shown is not None
    shown = all(new.shown == new.gold for _, new in pairs) and inputs_tell(OWN, changed)
    form = all(new.input and new.shown is not None for _, new in pairs)
    kept = {"input distribution": inputs, "label space": labels, "mapping": shown, "format": form}
    assert transform.keeps == {what for what, holds in kept.items() if holds}


def inputs_tell(old: Written, new: Written) -> bool:
    """Whether what stood as an input with a label still goes with one that is its own, everywhere the same way."""
    table: dict[tuple[int, ...], set[int]] = {}
    for before, after in zip(old.pool, new.pool, strict=True):
        table.setdefault(after.input, set()).add(before.gold)
    # Of texts of elsewhere the same stand with both labels, and inputs of nothing with all.
    return all(len(labels) == 1 for labels in table.values())


@names
def test_nothing_is_written_to(name: str) -> None:
    before = (OWN.pool, OWN.queries, OWN.answers, OWN.options, OWN.separator, OWN.write("a plot"))
    TRANSFORMS[name](OWN, 0)
    assert before == (OWN.pool, OWN.queries, OWN.answers, OWN.options, OWN.separator, OWN.write("a plot"))


@given(seed=seeds, share=st.floats(0.0, 1.0), protected=st.sampled_from(["answers", "layout"]))
def test_a_permutation_can_be_undone(seed: int, share: float, protected: str) -> None:
    table = permutation(OWN, seed, share, protected)
    assert sorted(table.tolist()) == list(range(OWN.vocabulary))
    back = np.argsort(table)
    altered = prompt_altered(share, protected)(OWN, seed)
    for old, new in zip((*OWN.pool, *OWN.queries), (*altered.pool, *altered.queries), strict=True):
        assert tuple(back[list(new.input)].tolist()) == old.input
    kept = {token for answer in OWN.answers for token in answer} | OWN.special
    if protected == "layout":
        kept |= {*OWN.write(""), *OWN.separator}
    assert all(table[token] == token for token in kept)


@given(seed=seeds, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_smaller_share_is_part_of_a_greater_one(seed: int, shares: tuple[float, float]) -> None:
    less, more = (permutation(OWN, seed, share, "answers") for share in sorted(shares))
    free = OWN.vocabulary - len(OWN.special) - len(OWN.answers)
    moved = [set(np.flatnonzero(table != np.arange(len(table))).tolist()) for table in (less, more)]
    # A token may fall on its own place by chance, which makes both sides rather smaller.
    assert len(moved[1]) <= round(max(shares) * free)
    assert len(moved[0] - moved[1]) <= 8


def test_the_whole_vocabulary_moves() -> None:
    """As many tokens as a random permutation leaves in their places: about one."""
    stayed = [int((permutation(OWN, seed, 1.0, "answers") == np.arange(OWN.vocabulary)).sum()) for seed in range(200)]
    kept = len(OWN.special) + len(OWN.answers)
    assert abs(np.mean(stayed) - kept - 1) < 0.3


def test_the_same_token_moves_to_the_same_place_everywhere() -> None:
    altered = TRANSFORMS["prompt-altered"](OWN, 5)
    table = permutation(OWN, 5, 1.0, "answers")
    assert altered.separator == tuple(table[list(OWN.separator)].tolist())
    assert altered.write("the plot") == tuple(table[list(OWN.write("the plot"))].tolist())


@given(seed=seeds)
def test_arbitrary_answers_are_distinct_and_alike_in_probability(seed: int) -> None:
    altered = response_altered()(OWN, seed)
    said = [answer[0] for answer in altered.answers]
    assert len(set(said)) == len(said)
    assert not set(said) & {token for answer in OWN.answers for token in answer}
    prior = [OWN.lexicon.prior[OWN.lexicon.tokens.tolist().index(token)] for token in said]
    assert max(prior) - min(prior) < np.log(FACTOR)
    assert [OWN.say(word) for word in altered.words] == list(altered.answers)


def test_every_word_comes_up_as_an_arbitrary_answer() -> None:
    found = Counter(word for seed in range(300) for word in response_altered()(OWN, seed).words)
    assert set(found) == set(OWN.lexicon.words)


@given(seed=seeds)
def test_response_altered_is_memory_after_the_task(seed: int) -> None:
    """tau_RA = tau_g after tau: the same g, asked with the label that tau gives."""
    altered, memory = response_altered()(OWN, seed), TRANSFORMS["memory-random"](OWN, seed)
    assert (altered.answers, altered.options, altered.words) == (memory.answers, memory.options, memory.words)
    for own, piece in zip(altered.queries, memory.queries, strict=True):
        assert piece.input == OWN.write(OWN.words[own.gold])
        assert memory.answers[piece.gold] == altered.answers[own.gold]


@given(first=st.sampled_from(list(TRANSFORMS)), second=st.sampled_from(list(TRANSFORMS)), seed=seeds)
def test_any_two_can_be_composed(first: str, second: str, seed: int) -> None:
    one, other = TRANSFORMS[first], TRANSFORMS[second]
    try:
        composed = one.then(other)(OWN, seed)
    except PromptError as error:
        # A word that is arbitrary has no synonym.
        if "known" not in str(error):
            raise
        return
    assert one.then(other).keeps == one.keeps & other.keeps
    assert prompts(composed) == prompts(other(one(OWN, seed), seed))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_so_many_labels_of_every_prompt_are_right(share: float) -> None:
    own = right_share(share)(OWN, 0)
    for row in draw(own, 8, 1, "redrawn"):
        right = [own.pool[i].shown == own.pool[i].gold for i in row]
        assert sum(right) == round(8 * share)


def test_wrong_labels_are_drawn_from_all_others() -> None:
    task = letters.films(300)
    three = replace(task, labels=("negative", "positive", "table"))
    own = right_share(0.0)(letters.tokens(three), 0)
    shown = Counter((piece.gold, piece.shown) for piece in own.pool)
    assert all(gold != other for gold, other in shown)
    assert len(shown) == 4
    assert min(shown.values()) > 20


def test_labels_as_often_as_right_follow_the_pool() -> None:
    task = letters.films(400)
    most = replace(task, train=tuple(e for i, e in enumerate(task.train) if e.label == "positive" or i % 8 == 0))
    gold = np.mean([e.label == "positive" for e in most.train])
    for name, expected in (("true-distribution", gold), ("random-labels", 0.5)):
        shown = [piece.shown for seed in range(30) for piece in TRANSFORMS[name](letters.tokens(most), seed).pool]
        assert abs(np.mean(shown) - expected) < 0.04
    dealt = TRANSFORMS["permuted-labels"](letters.tokens(most), 0)
    assert Counter(piece.shown for piece in dealt.pool) == Counter(piece.gold for piece in dealt.pool)


def test_one_label_for_all() -> None:
    found = [{piece.shown for piece in TRANSFORMS["constant-label"](OWN, seed).pool} for seed in range(40)]
    assert all(len(shown) == 1 for shown in found)
    assert {0, 1} == set().union(*found)


def test_random_words_are_shown_and_not_asked() -> None:
    own = TRANSFORMS["random-english-words"](OWN, 0)
    assert own.options == OWN.options
    assert not set(own.answers) & set(OWN.options)


def test_labels_only_and_inputs_only() -> None:
    decode = letters.codec().decode
    (one, _), *_ = TRANSFORMS["labels-only"](OWN, 0).prompts(draw(OWN, 3, 0, "fixed"))
    assert decode(one.tokens).count("Review:") == 1
    assert decode(one.tokens).count("\n\n") == 3
    (one, _), *_ = TRANSFORMS["inputs-only"](OWN, 0).prompts(draw(OWN, 3, 0, "fixed"))
    assert decode(one.tokens).count("Sentiment:\n\n") == 3


def test_texts_of_elsewhere_are_about_as_long() -> None:
    long = "the plot of a river and seven green stone tables in a cloud of paper and music and seven more"
    own = replace(OWN, outside=("a plot", long))
    expected = OWN.write("a plot")
    assert all(piece.input == expected for piece in TRANSFORMS["out-of-domain"](own, 0).pool)
    # However far away all are.
    only = replace(OWN, outside=(long * 40,))
    assert TRANSFORMS["out-of-domain"](only, 0).pool[0].input == OWN.write(long * 40)


def test_related_words_are_of_the_lists_and_one_token() -> None:
    for name, negative, positive in (("memory-synonym", {"bad", "sad"}, {"good", "happy"}),):
        found = [TRANSFORMS[name](OWN, seed).words for seed in range(40)]
        assert {words[0] for words in found} == negative
        assert {words[1] for words in found} == positive
    found = [TRANSFORMS["memory-antonym"](OWN, seed).words for seed in range(40)]
    assert {words[0] for words in found} == {"good", "happy"}


def test_sections_of_the_bbc_have_words_that_go_with_them() -> None:
    task = load_task("bbc-headlines")
    sections = [task.template.words.get(label, label).lower() for label in task.labels]
    lists = [set(WORDS["keyword"][name]) for name in sections]
    assert [len(own) for own in lists] == [10] * 5
    # A word that goes with two sections would tell neither.
    assert all(not one & other for i, one in enumerate(lists) for other in lists[:i])
    assert not set(sections) & set.union(*lists)


@pytest.mark.parametrize("order", range(1, ORDERS + 1))
def test_a_synonym_of_an_order_ends_a_chain_of_that_length(order: int) -> None:
    for label, word in zip(OWN.words, TRANSFORMS[f"synonym-order-{order}"](OWN, 3).words, strict=True):
        assert word in {chain[order - 1].word for chain in chains(label) if len(chain) >= order}
        assert word in OWN.lexicon.words


def test_what_does_not_apply_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # WordNet's files would know a river.
    monkeypatch.setenv("KSHOT_WORDNET", str(tmp_path))
    chains.cache_clear()
    strange = replace(OWN, words=("river", "cloud"))
    with pytest.raises(PromptError, match="no synonym of 'river' is known; there are some of negative, positive"):
        related("synonym")(strange, 0)
    with pytest.raises(
        PromptError, match=r"no keyword of 'negative' is one token of this model, of poor, .*; give another label word"
    ):
        related("keyword")(replace(OWN, lexicon=NO_WORDS), 0)
    with pytest.raises(
        PromptError,
        match=r"no synonym of order 2 of 'negative' is one token of this model, of the [0-9]+ that are known",
    ):
        TRANSFORMS["synonym-order-2"](replace(OWN, lexicon=NO_WORDS), 0)
    with pytest.raises(PromptError, match=r"no synonym of 'river' is known, whatever its order; .*KSHOT_WORDNET names"):
        TRANSFORMS["synonym-order-2"](strange, 0)
    with pytest.raises(PromptError, match="2 words of one token were asked for, and there are 0; ask fewer labels"):
        response_altered(screened=False)(replace(OWN, lexicon=NO_WORDS), 0)
    with pytest.raises(PromptError, match="no texts of elsewhere"):
        TRANSFORMS["out-of-domain"](replace(OWN, outside=()), 0)
    few = Lexicon(np.array([1, 2]), ("a", "b"), np.array([-9.0, -1.0]))
    with pytest.raises(PromptError, match="of the 2 words that are one token no 2 lie within a factor of 2"):
        response_altered()(replace(OWN, lexicon=few), 0)
    chains.cache_clear()


def test_the_label_word_is_asked_under_a_permutation_too() -> None:
    """Permuted first, the word of a label is written in permuted tokens when it becomes the input."""
    altered = prompt_altered().then(label_as_input())(OWN, 3)
    table = permutation(OWN, 3, 1.0, "answers")
    assert altered.queries[0].input == tuple(table[list(OWN.write(OWN.words[OWN.queries[0].gold]))].tolist())
