"""The dual form, exactly: attention without softmax is a linear layer and a change of its weights (Dai et al. 2023, section 3).

Everything is of one layer and in the number format of what is given. Keys and values have g heads, queries h; query
head i reads key-value head i // (h / g), so all query heads of a group share one weight change. Keys and queries are
those that attention uses, after norms and rotary positions: k_i = R_i W_K x_i and q = R_m W_Q x. R_m^T R_i depends on
m - i alone, so a weight change depends on where its demonstrations stand, and its query on where it stands after them:
both are taken from one prompt, or moved to where they would stand in it (``moved``). Values carry their bias, if any.

One sign: an error signal is E_i = -rate dJ/dF(x_i), and dW = sum_i E_i x_i^T is *added*. Where demonstrations take the
place of training inputs, v_i stands for E_i and k_i for x_i, and the rate is part of v_i.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kshot.errors import NumericError

OutputGradient = Callable[[Tensor], Tensor]
"""dJ/dF of a loss: the outputs of all inputs (t, n) -> the derivative of the loss with respect to each, (t, n)."""


def linear_attention(
    values: Float[Tensor, "g t dv"], keys: Float[Tensor, "g t dk"], query: Float[Tensor, "h s dk"]
) -> Float[Tensor, "h s dv"]:
    """Attention without softmax and scaling: what it says for every query head and position.

    Claim: over [demonstrations ; query text] it equals (W_ZSL + dW_ICL) q, to rounding: reading demonstrations is a
        change of weights (Dai et al. 2023, section 3).
    Formula: sum_i v_i (k_i . q), over tokens i; head i of the query with key-value head i // (h / g).
    Null: none; it is an identity. Zero for values that are zero.
    Departures: grouped heads, rotary positions, norms of keys and biases of values, which the paper leaves out.
    Known problems: every token is seen by every query: leave out what a mask would hide.
    """
    grouped = _grouped(query, keys.shape[0])
    scores = torch.einsum("gnsd,gtd->gnst", grouped, keys)
    return torch.einsum("gnst,gtw->gnsw", scores, values).flatten(0, 1)


def weight_update(values: Float[Tensor, "g t dv"], keys: Float[Tensor, "g t dk"]) -> Float[Tensor, "g dv dk"]:
    """dW_ICL: the change of weights that the demonstrations' tokens amount to, one matrix per key-value head.

    Claim: the values of demonstrations act as meta-gradients, their keys as training inputs (Dai et al. 2023,
        section 3).
    Formula: dW_ICL = sum_i v_i k_i^T, v_i = W_V x'_i and k_i = R_i W_K x'_i.
    Null: the zero matrix where there are no demonstrations.
    Departures: the keys are rotated, so the same demonstrations elsewhere in the prompt are another change.
    Known problems: exact for linear attention only; ``kshot.measure.implicit.relaxed`` says how far the real one is.
    """
    return torch.einsum("gtw,gtd->gwd", values, keys)


def zero_shot_weight(values: Float[Tensor, "g t dv"], keys: Float[Tensor, "g t dk"]) -> Float[Tensor, "g dv dk"]:
    """W_ZSL: the weights that the query text alone amounts to, in the same form, per key-value head.

    Claim: without demonstrations linear attention applies W_ZSL to the query (Dai et al. 2023, section 3).
    Formula: W_ZSL = sum_i v_i k_i^T over the tokens of the query text.
    Null: none; it is the form of ``weight_update`` on other tokens.
    Departures: the paper has one W_ZSL. Above the first layer the text's keys and values differ between the prompt
        with demonstrations and the one without: it is whichever is given.
    Known problems: keys of a prompt without demonstrations stand further left: see ``moved``.
    """
    return weight_update(values, keys)


def applied(weights: Float[Tensor, "g dv dk"], query: Float[Tensor, "h s dk"]) -> Float[Tensor, "h s dv"]:
    """W q for every query head, with the matrix of its key-value head."""
    return torch.einsum("gwd,gnsd->gnsw", weights, _grouped(query, weights.shape[0])).flatten(0, 1)


def moved(vectors: Float[Tensor, "g t d"], by: int, frequencies: Float[Tensor, "f"]) -> Float[Tensor, "g t d"]:
    """Rotated keys or queries as they would be ``by`` positions further right (left where negative).

    ``frequencies`` are the model's, in radians per position, one for each pair of coordinates; coordinate i is paired
    with i + f, as in Llama and most others, and coordinates from 2 f on are not rotated. Rotations add up (Su et al.
    2021, section 3.2), so this is exact where the vectors themselves do not depend on their position: in the first
    layer. Models with learned or added positions have nothing to move.
    """
    half = frequencies.shape[0]
    assert 2 * half <= vectors.shape[-1], f"{half} frequencies for vectors of width {vectors.shape[-1]}"
    angle = (by * frequencies.double()).to(vectors.device)
    cosine, sine = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
    first, second, rest = vectors.split([half, half, vectors.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """A course of u steps: the weights before the first and after each, and the error signals of each step.

    ``signals[j]`` are -rate dJ/dF at ``weights[j]``, and weights[j + 1] = weights[j] + sum_i signals[j, i] x_i^T.
    """

    weights: Float[Tensor, "u1 n m"]
    signals: Float[Tensor, "u t n"]


def descent(
    weights: Float[Tensor, "n m"],
    inputs: Float[Tensor, "t m"],
    targets: Float[Tensor, "t n"] | OutputGradient,
    *,
    learning_rate: float,
    steps: int,
    momentum: float = 0.0,
) -> Descent:
    """Steps of gradient descent on a linear layer F(x) = W x, each on all inputs: all weights and error signals.

    ``targets`` are those of the squared loss; for any other loss a function that gives dJ/dF. NumericError where the
    weights grow beyond all numbers.

    Claim: the rival that linear attention is compared with (Dai et al. 2023, section 3; Irie et al. 2022).
    Formula: W_(j+1) = W_j + U_j, U_j = momentum U_(j-1) + sum_i E_ji x_i^T, E_ji = -rate dJ/dF(x_i) at W_j. The squared
        loss is J = 1/2 sum_i |F(x_i) - y_i|^2, so that E_ji = rate (y_i - W_j x_i).
    Null: error signals are zero where the layer fits its targets already.
    Departures: the loss is a sum over inputs, not a mean: a mean over t of them has the same steps at t times the rate.
    Known problems: the squared loss diverges from a rate of 2 / (largest singular value of the inputs)^2 on.
    """
    assert steps >= 0, f"{steps} steps"
    current, course, signals, speed = weights, [weights], [], torch.zeros_like(weights)
    for step in range(1, steps + 1):
        outputs = inputs @ current.T
        gradient = outputs - targets if isinstance(targets, Tensor) else targets(outputs)
        assert gradient.shape == outputs.shape, f"dJ/dF is {tuple(gradient.shape)}, outputs {tuple(outputs.shape)}"
        signals.append(-learning_rate * gradient)
        speed = momentum * speed + signals[-1].T @ inputs
        current = current + speed
        if not current.isfinite().all():
            raise NumericError(
                f"gradient descent at a learning rate of {learning_rate:g} left all numbers at step {step} of {steps}; "
                "try a smaller one"
            )
        course.append(current)
    empty = weights.new_zeros(0, len(inputs), len(weights))
    return Descent(torch.stack(course), torch.stack(signals) if signals else empty)


def as_attention(
    weights: Float[Tensor, "n m"],
    signals: Float[Tensor, "u t n"],
    inputs: Float[Tensor, "t m"],
    query: Float[Tensor, "s m"],
    momentum: float = 0.0,
) -> Float[Tensor, "s n"]:
    """What the layer says after the steps that left these error signals, as attention to its training inputs.

    ``weights`` are those before the first step.

    Claim: gradient descent on a linear layer has a dual form (Dai et al. 2023, section 3; Irie et al. 2022).
    Formula: W_u x = W_0 x + LinearAttention(E, X', x), with E the error signals of all steps one after another, each at
        its own step's weights, and the inputs X' once for every step. With momentum m every step j adds, to what its own
        tokens say, the decayed sum over those before it, sum_(i < j) m^(j - i) v_i, v_i what the tokens of step i say of
        x: the second term of momentum attention (section 5), its values weighed by their keys.
    Null: W_0 x, where there were no steps.
    Departures: the paper writes one step; later ones are further tokens. Its decayed sum is of values alone, which is
        this one where every key says 1 of the query.
    Known problems: none: it is an identity, to rounding.
    """
    keys = inputs.repeat(signals.shape[0], 1)[None]
    said = query @ weights.T + linear_attention(signals.flatten(0, 1)[None], keys, query[None])[0]
    if momentum:
        decayed = torch.zeros_like(said)
        for own in signals:
            said = said + decayed
            decayed = momentum * (decayed + linear_attention(own[None], inputs[None], query[None])[0])
    return said


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Softmax attention in two parts: output = (1 - share) query_text + share demonstrations, exactly.

    ``share`` is lambda, in [0, 1]. A part holds zeros where the position sees none of its tokens: there it is not
    defined, ``sees_demonstrations`` or ``sees_text`` is False, and its weight is 0.
    """

    share: Float[Tensor, "h s"]
    demonstrations: Float[Tensor, "h s dv"]
    query_text: Float[Tensor, "h s dv"]
    sees_demonstrations: Bool[Tensor, "h s"]
    sees_text: Bool[Tensor, "h s"]

    @property
    def output(self) -> Float[Tensor, "h s dv"]:
        """Both parts together again."""
        share = self.share[..., None]
        return (1 - share) * self.query_text + share * self.demonstrations


def split(scores: Float[Tensor, "h s t"], values: Float[Tensor, "g t dv"], of_prefix: int, *, start: int = 0) -> Split:
    """Softmax attention parted into what demonstrations say and what the query text says, for every head.

    ``scores`` are scaled and before the softmax, -inf where a token is not seen. Tokens ``start`` to ``of_prefix`` - 1
    are the demonstrations'; those before (start token, description) count to the query text, as they do without
    demonstrations. NumericError where a position sees no token at all, or a score is NaN.

    Claim: demonstrations add to the zero-shot attention with a weight lambda per head and query; exact, unlike the
        linear form (He et al. 2022, section 3.1, for any prefix).
    Formula: lambda = sum over demonstrations exp(s_i) / sum over all tokens exp(s_i), and
        Attn = (1 - lambda) Attn(query text) + lambda Attn(demonstrations).
    Null: for scores without any preference, lambda is the demonstrations' share of the tokens that are seen.
    Departures: the start token is counted where the caller says; lambda often depends on it more than on anything else.
    Known problems: a large lambda on tokens with small values does little: read it beside the norms of the parts.
        A model with sinks is split exactly where its sink is given as one more token before ``start`` with value 0;
        caps are exact where ``scores`` are given after them.
    """
    length = scores.shape[-1]
    assert 0 <= start <= of_prefix <= length, f"demonstrations from {start} to {of_prefix} of {length} tokens"
    place = torch.arange(length, device=scores.device)
    shown = (place >= start) & (place < of_prefix)
    demonstrations, of_shown = _attended(scores[..., shown], values[:, shown])
    query_text, of_text = _attended(scores[..., ~shown], values[:, ~shown])
    share = torch.sigmoid(of_shown - of_text)
    if share.isnan().any():
        raise NumericError(
            f"{int(share.isnan().sum())} of {share.numel()} softmaxes cannot be split: a score is NaN, or no token is "
            "seen; give scores of positions that see themselves"
        )
    return Split(share, demonstrations, query_text, of_shown > -torch.inf, of_text > -torch.inf)


def _attended(
    scores: Float[Tensor, "h s t"], values: Float[Tensor, "g t dv"]
) -> tuple[Float[Tensor, "h s dv"], Float[Tensor, "h s"]]:
    """Softmax attention to some of the tokens, zero where none is seen, and the log-sum-exp of their scores."""
    total = scores.logsumexp(dim=-1)
    # Subtracting -inf from -inf would make NaN of a part that is merely empty.
    weights = (scores - total.masked_fill(total == -torch.inf, 0)[..., None]).exp()
    return torch.einsum("gnst,gtw->gnsw", _grouped(weights, values.shape[0]), values).flatten(0, 1), total


def _grouped(query: Float[Tensor, "h s d"], heads: int) -> Float[Tensor, "g n s d"]:
    """The query heads beside the key-value head that they read."""
    assert query.shape[0] % heads == 0, f"{query.shape[0]} query heads cannot share {heads} key-value heads"
    return query.unflatten(0, (heads, -1))
