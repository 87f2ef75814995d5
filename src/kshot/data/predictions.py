"""What a scored model leaves behind, before anyone asks how good it is."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Log-probabilities of every candidate answer of every query, in nats, and what calibration needs from the same pass.

    Row q belongs to query ``ids[q]``; its candidates are ``labels[q]``, padded on the right to the width of the table
    with log-probability -inf and length 0 where queries have different numbers of candidates.

    - ``logprobs``: the sum over the answer's tokens of log P(token | all before it), float64;
    - ``tokens`` / ``characters``: lengths of the answers (characters: of the label word, without its delimiter); 0 where
      a classifier answered and no text was scored;
    - ``gold``: index of the right candidate, -1 where the query is unlabelled;
    - ``unconditional``: log P(answer | the template with an empty input, no demonstrations), for PMI; None if not asked;
    - ``content_free``: rows for content-free inputs ("N/A", "[MASK]", the empty string) after the same demonstrations,
      each over the candidates of a query; only where all queries share their candidates and their prompt;
    - ``domain``: the same for inputs made of random words of the test inputs (Fei et al. 2023);
    - ``greedy``: the greedy answer as text, for open tasks; None otherwise.
    """

    ids: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    logprobs: Float[np.ndarray, "q c"]
    tokens: Int[np.ndarray, "q c"]
    characters: Int[np.ndarray, "q c"]
    gold: Int[np.ndarray, "q"]
    unconditional: Float[np.ndarray, "q c"] | None = None
    content_free: Float[np.ndarray, "f c"] | None = None
    domain: Float[np.ndarray, "m c"] | None = None
    greedy: tuple[str, ...] | None = None
    gold_text: tuple[str | None, ...] = field(default=())

    @property
    def present(self) -> Bool[np.ndarray, "q c"]:
        """Where a query has a candidate."""
        counts = np.array([len(own) for own in self.labels], dtype=np.int64)
        return np.arange(self.logprobs.shape[1])[None, :] < counts[:, None]
