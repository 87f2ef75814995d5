"""Several prompts for one question become one answer: rules by name, each ``members -> Predictions``.

Members are Predictions of the same queries and candidates after different prompts (orders of the demonstrations,
layouts). Queries that a member left out are left out of all.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from kshot.data.predictions import Predictions
from kshot.errors import PromptError, UnknownName

Table = Float[np.ndarray, "n c"]


def combine(members: Sequence[Predictions], rule: str) -> Predictions:
    """What the members say together by one of ``ENSEMBLES``, the same for the same members in the same order.

    Open answers are the majority of the members' greedy answers under every rule (of equally frequent ones that of the
    earliest member). Raises UnknownName for a rule that does not exist, PromptError where the members' templates
    write an open answer in different words, so that answers cannot be counted together.
    """
    if rule not in ENSEMBLES:
        raise UnknownName("rule to combine prompts", rule, ENSEMBLES)
    assert members, "an ensemble has members"
    together = _on_common_queries(members)
    found = ENSEMBLES[rule](together)
    if found.greedy is None:
        return found
    for other in together[1:]:
        for one, two in zip(found.gold_text, other.gold_text, strict=True):
            if one != two:
                raise PromptError(
                    f"an ensemble counts open answers, and its templates write one as {one!r} and as {two!r}; "
                    "give them the same words"
                )
    said = zip(*(member.greedy or () for member in together), strict=True)
    # a Counter keeps the order in which answers came
    return replace(found, greedy=tuple(Counter(answers).most_common(1)[0][0] for answers in said))


def mean_log_probability(members: Sequence[Predictions]) -> Predictions:
    """The mean over members of each candidate's log-probability, in nats.

    Claim: what one wording or order of the prompt favours by accident is evened out by the others.
    Formula: s(answer) = 1/K sum over members i of log P(answer | prompt i), equal weights (Jiang et al. 2020, who
        average the log-probabilities of the K best of their prompts).
    Null: equal members give the member back. A bias that one member has towards a label counts for 1/K of it.
    Departures: all members count, none is chosen on training data; answers of several tokens count whole. Rows for
        content-free inputs, random words and empty inputs are averaged in the same way, lengths are rounded means.
    Known problems: a product of probabilities: a member that finds the right answer all but impossible rules it out;
        a layout under which all answers have low and widely spread log-probabilities outweighs the others.
    """
    first = members[0]
    return replace(
        first,
        logprobs=_mean([member.logprobs for member in members]),
        tokens=_mean_length([member.tokens for member in members]),
        characters=_mean_length([member.characters for member in members]),
        unconditional=_mean_of_all([member.unconditional for member in members]),
        content_free=_mean_of_all([member.content_free for member in members]),
        domain=_mean_of_all([member.domain for member in members]),
    )


def majority_vote(members: Sequence[Predictions]) -> Predictions:
    """The share of members whose best candidate it is, as a log-probability; ties go to the greater mean.

    Claim: a mistake that few prompts make is outvoted, however sure they are of it.
    Formula: the answer is argmax of v, the number of members whose greatest log-probability it has (Lester et al. 2021,
        table 3, who let five prompts vote); of equals the one with the greater mean log-probability. The table holds
        log((v + m / 2) / (K + 1 / 2)), m the softmax over the candidates of that mean: half a vote is shared by it.
    Null: members that agree are repeated, and one of K members changes an answer only if it decides between equals.
    Departures: Lester et al. vote on generated text of trained prompts, and say nothing of ties; ours is over orders or
        layouts of written ones. The half vote keeps the log-loss finite and decides ties.
    Known problems: how sure a member is does not count, so confidence comes in steps of 1/K. A vote has no length and no
        unconditional probability: lengths are 1, and calibrations that need rows of other inputs are undefined.
    """
    first = members[0]
    mean = _mean([member.logprobs for member in members])
    present = first.present
    table = np.full(mean.shape, -np.inf)
    if mean.size:
        rows = np.arange(len(mean))
        votes = np.zeros(mean.shape)
        for member in members:
            votes[rows, member.logprobs.argmax(axis=1)] += 1
        with np.errstate(divide="ignore"):
            shares = np.logaddexp(np.log(votes), log_softmax(mean, axis=1) - np.log(2))
        table[present] = (shares - np.log(len(members) + 0.5))[present]
        winner = np.where(votes == votes.max(axis=1, keepdims=True), mean, -np.inf).argmax(axis=1)
        # Means of equals may lie too far below the best one's to be seen beside whole votes: then a last bit decides.
        above = np.nextafter(table.max(axis=1), np.inf)
        table[rows, winner] = np.where(table.argmax(axis=1) == winner, table[rows, winner], above)
    # A classifier's labels have no length, and a vote gives them none.
    ones = (first.tokens > 0).astype(np.int64)
    return replace(
        first, logprobs=table, tokens=ones, characters=ones, unconditional=None, content_free=None, domain=None
    )


ENSEMBLES: dict[str, Callable[[Sequence[Predictions]], Predictions]] = {
    "majority-vote": majority_vote,
    "mean-log-probability": mean_log_probability,
}


def _on_common_queries(members: Sequence[Predictions]) -> list[Predictions]:
    common = set(members[0].ids).intersection(*(member.ids for member in members))
    return [member if len(common) == len(member.ids) else _only(member, common) for member in members]


def _only(member: Predictions, kept: set[str]) -> Predictions:
    rows = [q for q, name in enumerate(member.ids) if name in kept]
    return replace(
        member,
        ids=tuple(member.ids[q] for q in rows),
        labels=tuple(member.labels[q] for q in rows),
        logprobs=member.logprobs[rows],
        tokens=member.tokens[rows],
        characters=member.characters[rows],
        gold=member.gold[rows],
        unconditional=None if member.unconditional is None else member.unconditional[rows],
        greedy=None if member.greedy is None else tuple(member.greedy[q] for q in rows),
        gold_text=tuple(member.gold_text[q] for q in rows) if member.gold_text else (),
    )


def _mean(tables: Sequence[Table]) -> Table:
    # equal tables give themselves to the bit: a sum of K numbers over K need not
    return tables[0] if all(np.array_equal(t, tables[0]) for t in tables) else np.mean(np.stack(tables), axis=0)


def _mean_of_all(tables: Sequence[Table | None]) -> Table | None:
    known = [table for table in tables if table is not None]
    return _mean(known) if len(known) == len(tables) and len({table.shape for table in known}) == 1 else None


def _mean_length(tables: Sequence[Int[np.ndarray, "q c"]]) -> Int[np.ndarray, "q c"]:
    return np.rint(np.mean(np.stack(tables), axis=0)).astype(np.int64)
