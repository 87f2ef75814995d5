"""From log-probabilities to scores: rules by name, each ``Predictions -> (q, c) table or None``.

A rule returns None where the predictions lack what it needs; ``why_undefined`` says what. Tables are in nats (or nats
a token or character), higher is better, -inf where a query has no such candidate. Everything stays in log space, so
log-probabilities of -1000 are as good as any.

The calibrations divide by a prior over the labels, so they need one set of candidates for all queries.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp

from kshot.data.predictions import Predictions
from kshot.errors import UnknownName

Scores = Float[np.ndarray, "q c"]


def sum_score(predictions: Predictions) -> Scores | None:
    """The log-probability of the whole answer, in nats.

    Claim: the better answer is the one the model would more probably write.
    Formula: log P(answer | prompt) = sum over its tokens of log P(token | all before it).
    Null: the score that every other rule corrects.
    Departures: none: lm-eval's ``acc`` counts this one's argmax.
    Known problems: long and rare answers lose; ways to say the same thing share the probability (Holtzman et al. 2021).
    """
    return None if _no_queries(predictions) else predictions.logprobs.copy()


def token_length_normalized(predictions: Predictions) -> Scores | None:
    """The mean log-probability of the answer's tokens, in nats per token.

    Claim: answers of different length compete fairly token by token.
    Formula: log P(answer | prompt) / number of its tokens (Brown et al. 2020, section 2.4; SGLang's rule of this name).
    Null: where all candidates have equally many tokens, the argmax of ``sum``.
    Departures: none.
    Known problems: depends on the tokenizer; a long answer whose later tokens follow from its first ones is
        preferred. Its softmax is no probability of anything, so log-loss and calibration error have an arbitrary scale.
    """
    if _no_tokens(predictions):
        return None
    return _divided(predictions, predictions.tokens)


def character_length_normalized(predictions: Predictions) -> Scores | None:
    """The log-probability of the answer for each of its characters, in nats a character.

    Claim: answers of different length compete fairly, whatever the tokenizer.
    Formula: log P(answer | prompt) / number of characters of the label word (lm-eval's ``acc_norm``).
    Null: where all candidates have equally many characters, the argmax of ``sum``.
    Departures: none: like lm-eval 0.4.13 it counts Unicode characters, without the delimiter (bytes are its
        ``acc_bytes``).
    Known problems: one Japanese character carries what several Latin ones do; the delimiter's probability is counted
        but not its length; the scale of its softmax is arbitrary.
    """
    if _no_characters(predictions):
        return None
    return _divided(predictions, predictions.characters)


def unconditional_likelihood_normalized(predictions: Predictions) -> Scores | None:
    """How much more probable the prompt makes the answer (pointwise mutual information), in nats.

    Claim: what counts is what the question adds, not how common the answer is; ways to say the same thing no longer
        compete for probability.
    Formula: log P(answer | prompt) - log P(answer | template with an empty input) (Brown et al. 2020, section 2.4,
        with "Answer: " as the second context; Holtzman et al. 2021 call it domain conditional PMI).
    Null: 0 for every candidate if the model ignores the prompt.
    Departures: the second context is the task's own template without demonstrations and with an empty input, not a
        hand-written premise; lm-eval's ``acc_mutual_info`` has an empty one; SGLang's rule of this name divides by the
        number of tokens besides. Ours is the sum.
    Known problems: very rare answers win, their denominator being noise; the context of the denominator is a choice.
        Its softmax is no posterior.
    """
    if _no_unconditional(predictions):
        return None
    assert predictions.unconditional is not None
    return _less(predictions, predictions.unconditional)


def contextual_calibration(predictions: Predictions) -> Scores | None:
    """Log-probabilities over the labels, corrected to be uniform on inputs without content, in nats.

    Claim: what the model prefers when told nothing is bias (of the demonstrations, their order, the label words).
    Formula: q = W p renormalised, W = diag(p_cf)^-1, b = 0; p_cf is the mean label probability over the inputs "N/A",
        "[MASK]" and the empty string, normalised over the labels (Zhao et al. 2021, section 5).
    Null: where p_cf is uniform, the softmax of ``sum``. A bias added to a label's log-probability on every input is
        removed exactly.
    Departures: renormalised by the sum; the paper's softmax(W p) has the same argmax. Probabilities are averaged before
        they are normalised, as in the authors' code. Labels of several tokens count whole; theirs are single tokens.
    Known problems: content-free inputs are not bias-free, and three of them are few; an input that gives all labels more
        probability weighs more in the mean; a label with a tiny p_cf is blown up.
    """
    if _no_content_free(predictions):
        return None
    assert predictions.content_free is not None
    return _over_prior(predictions, _mean_probability(predictions.content_free))


def domain_context_calibration(predictions: Predictions) -> Scores | None:
    """Log-probabilities over the labels, corrected to be uniform on random words of the task, in nats.

    Claim: besides the prompt, the vocabulary of a domain favours some labels; words without order carry that bias alone.
    Formula: P(y | x, C) divided by the mean of P(y | t_i, C) over texts t_i of random words drawn from the test inputs,
        of their average length, 20 in the paper; renormalised (Fei et al. 2023).
    Null: where the prior is uniform, the softmax of ``sum``. A bias added to a label's log-probability on every input
        is removed exactly.
    Departures: as many texts as the predictions hold. Averaged before normalising, as in the authors' code; labels of
        several tokens count whole.
    Known problems: random words of sentiment or topic are not without content; it looks at the test inputs (not at
        their labels); the draw of the words adds noise.
    """
    if _no_domain(predictions):
        return None
    assert predictions.domain is not None
    return _over_prior(predictions, _mean_probability(predictions.domain))


def batch_calibration(predictions: Predictions) -> Scores | None:
    """Log-probabilities over the labels, corrected by the mean prediction over all queries, in nats.

    Claim: the mean of what is predicted for a batch estimates the bias of the prompt; no extra pass is needed.
    Formula: log p(y | x, C) - gamma log p_hat(y | C), gamma = 1, renormalised; p_hat is the mean over the batch of
        p(y | x, C), itself normalised over the labels (Zhou et al. 2024).
    Null: where the mean prediction is uniform, the softmax of ``sum``. A bias added to a label's log-probability is
        removed exactly where that label's probability is the same for all queries, in part otherwise: confident
        predictions hide it (two labels, a batch that mirrors itself: a part, never too much).
    Departures: the batch is all queries scored, labelled or not. The paper's linear form also reads as the mean of
        log-probabilities, which would remove such a bias exactly; some public code does that.
    Known problems: transductive: a query's score depends on the others, and one query alone has none. It takes the
        labels of the batch to be balanced, and pulls predictions that way if they are not.
    """
    if _no_batch(predictions):
        return None
    return levelled(predictions.logprobs)


def levelled(table: Float[np.ndarray, "*m q c"]) -> Float[np.ndarray, "*m q c"]:
    """Log-probabilities over the labels without what is said of all queries alike, for each arrangement by itself.

    The rule is ``batch_calibration``; queries share their candidates.
    """
    prior = _mean_probability(log_softmax(table, axis=-1))[..., None, :]
    # An absent candidate is one of all queries, and stays at -inf.
    less = np.subtract(table, prior, out=np.full(table.shape, -np.inf), where=~np.isneginf(table))
    return log_softmax(less, axis=-1)


SCORES: dict[str, Callable[[Predictions], Scores | None]] = {
    "batch_calibration": batch_calibration,
    "character_length_normalized": character_length_normalized,
    "contextual_calibration": contextual_calibration,
    "domain_context_calibration": domain_context_calibration,
    "sum": sum_score,
    "token_length_normalized": token_length_normalized,
    "unconditional_likelihood_normalized": unconditional_likelihood_normalized,
}


def why_undefined(name: str, predictions: Predictions) -> str:
    """Why the rule ``name`` is None for these predictions, as half a sentence; empty where it is defined.

    Raises UnknownName for a rule that is not in SCORES.
    """
    if name not in _REASONS:
        raise UnknownName("score", name, SCORES)
    return _REASONS[name](predictions)


def _no_queries(predictions: Predictions) -> str:
    return "" if len(predictions.ids) else "there are no queries"


def _no_tokens(predictions: Predictions) -> str:
    unwritten = predictions.present & (predictions.tokens == 0)
    return _no_queries(predictions) or ("the answers are labels of a classifier, not text" if unwritten.any() else "")


def _no_characters(predictions: Predictions) -> str:
    empty = predictions.present & (predictions.characters == 0)
    return _no_tokens(predictions) or ("an answer has no characters" if empty.any() else "")


def _no_unconditional(predictions: Predictions) -> str:
    if _no_queries(predictions) or predictions.unconditional is None:
        return _no_queries(predictions) or "the answers were not scored without their input"
    zero = np.isneginf(predictions.unconditional) & predictions.present
    return "an answer has probability zero without its input" if zero.any() else ""


def _no_content_free(predictions: Predictions) -> str:
    return _no_prior(predictions, predictions.content_free, "content-free inputs")


def _no_domain(predictions: Predictions) -> str:
    return _no_prior(predictions, predictions.domain, "texts of random words")


def _no_batch(predictions: Predictions) -> str:
    if len(predictions.ids) == 1:
        return "one query is no batch"
    return _no_prior(predictions, predictions.logprobs, "queries")


def _no_prior(predictions: Predictions, rows: Float[np.ndarray, "n c"] | None, inputs: str) -> str:
    if _no_queries(predictions):
        return _no_queries(predictions)
    if len(set(predictions.labels)) > 1:
        return "the queries do not share their candidates, so there is no one prior over labels"
    if rows is None or not len(rows):
        return f"no {inputs} were scored"
    names = [repr(label) for c, label in enumerate(predictions.labels[0]) if np.isneginf(rows[:, c]).all()]
    return f"the {inputs} give {', '.join(names)} probability zero" if names else ""


_REASONS: dict[str, Callable[[Predictions], str]] = {
    "batch_calibration": _no_batch,
    "character_length_normalized": _no_characters,
    "contextual_calibration": _no_content_free,
    "domain_context_calibration": _no_domain,
    "sum": _no_queries,
    "token_length_normalized": _no_tokens,
    "unconditional_likelihood_normalized": _no_unconditional,
}


def _divided(predictions: Predictions, lengths: np.ndarray) -> Scores:
    table = np.full(predictions.logprobs.shape, -np.inf)
    return np.divide(predictions.logprobs, lengths, out=table, where=predictions.present)


def _less(predictions: Predictions, bias: np.ndarray) -> Scores:
    # Absent candidates are left at -inf: -inf - -inf would be nan.
    table = np.full(predictions.logprobs.shape, -np.inf)
    return np.subtract(predictions.logprobs, bias, out=table, where=predictions.present)


def _over_prior(predictions: Predictions, prior: Float[np.ndarray, "c"]) -> Scores:
    return _log_posterior(_less(predictions, prior))


def _log_posterior(table: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    return log_softmax(table, axis=1)


def _mean_probability(rows: Float[np.ndarray, "*m n c"]) -> Float[np.ndarray, "*m c"]:
    return logsumexp(rows, axis=-2) - np.log(rows.shape[-2])
