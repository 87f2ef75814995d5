"""Other words in the place of the label words: arbitrary tokens, or words that say the same, the contrary, something near."""

from collections.abc import Sequence
from dataclasses import replace

from kshot.errors import PromptError
from kshot.seeds import stream
from kshot.transform.thesaurus import files_folder, of_label
from kshot.transform.transform import Transform, but
from kshot.transform.words import WORDS, Relation
from kshot.transform.written import Written

# Of two arbitrary answers none is so many times as probable as the other after an empty input.
FACTOR = 2.0


def response_altered(*, screened: bool = True) -> Transform:
    """tau_RA: every label's answer becomes an arbitrary single token, in demonstrations and as an option.

    The tokens are distinct and no label's own, and none is FACTOR times as probable as another after an empty input;
    without the screen they are any. Source: Li et al. 2024, whose released code neither screens nor keeps them distinct.
    """

    def apply(written: Written, seed: int) -> Written:
        rng, count = stream(seed, "response-altered", written.name), len(written.labels)
        own = frozenset(token for answer in written.answers for token in answer)
        tokens = written.lexicon.alike(count, FACTOR, rng, own) if screened else written.lexicon.any(count, rng, own)
        return answering(written, [written.lexicon.spelt(token) for token in tokens])

    return Transform("response-altered" if screened else "response-altered, any tokens", but("label space"), apply)


def related(relation: Relation) -> Transform:
    """Every label's answer becomes a word that is a synonym, an antonym or a keyword of it: one of ten, drawn by the seed.

    Words that are several tokens of this model are left out. PromptError where none is left, or the lists have no words
    for a label. Source: Li et al. 2024, most of whose lists these are.
    """

    def apply(written: Written, seed: int) -> Written:
        rng = stream(seed, "related", relation, written.name)
        chosen: list[str] = []
        for word in written.words:
            known = WORDS[relation].get(word.lower(), ())
            if not known:
                has = ", ".join(WORDS[relation])
                raise PromptError(
                    f"task {written.name!r}: no {relation} of {word!r} is known; there are some of {has}; --template gives label words"
                )
            taken = (*chosen, *written.words)
            single = [other for other in known if other in written.lexicon.words and other not in taken]
            if not single:
                raise PromptError(
                    f"task {written.name!r}: no {relation} of {word!r} is one token of this model, of "
                    f"{', '.join(known)}; give another label word with --template"
                )
            chosen.append(str(rng.choice(single)))
        return answering(written, chosen)

    return Transform(relation, but("label space"), apply)


def synonyms(order: int) -> Transform:
    """Every label's answer becomes a synonym of a synonym ... of it, ``order`` times over, drawn by the seed.

    Of the chains that are known (``thesaurus``) one whose word of that order is one token of this model and no label's
    own. PromptError where there is none. Source: Li et al. 2024, whose map of synonyms is not known.
    """

    def apply(written: Written, seed: int) -> Written:
        rng = stream(seed, "synonyms", order, written.name)
        chosen: list[str] = []
        for word in written.words:
            known = of_label(word)
            if not known:
                raise PromptError(
                    f"task {written.name!r}: no synonym of {word!r} is known, whatever its order; give a label word that "
                    f"is in WordNet, whose files are looked for in {files_folder()} (KSHOT_WORDNET names another folder)"
                )
            taken = (*chosen, *written.words)
            ends = dict.fromkeys(chain[order - 1].word for chain in known if len(chain) >= order)
            single = [end for end in ends if end in written.lexicon.words and end not in taken]
            if not single:
                raise PromptError(
                    f"task {written.name!r}: no synonym of order {order} of {word!r} is one token of this model, of the "
                    f"{len(ends)} that are known; give another label word with --template"
                )
            chosen.append(str(rng.choice(single)))
        return answering(written, chosen)

    return Transform(f"synonyms of order {order}", but("label space"), apply)


def random_words() -> Transform:
    """Random words as the labels of demonstrations, while the options of a query stay. Source: Min et al. 2022."""

    def apply(written: Written, seed: int) -> Written:
        rng = stream(seed, "random-words", written.name)
        own = frozenset(token for answer in written.options for token in answer)
        tokens = written.lexicon.any(len(written.labels), rng, own)
        return replace(written, answers=tuple(written.say(written.lexicon.spelt(token)) for token in tokens))

    return Transform("random English words", but("label space"), apply)


def answering(written: Written, words: Sequence[str]) -> Written:
    """The task with these words as its answers, in demonstrations and as options."""
    answers = tuple(written.say(word) for word in words)
    return replace(written, answers=answers, options=answers, words=tuple(words))
