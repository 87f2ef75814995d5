"""What one step of gradient descent can reach, by algebra."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best rate of one step on half the mean square, its loss, and the loss of saying 0: half of mean squares."""

    rate: float
    loss: float
    of_nothing: float


def one_step(width: int, pairs: int, reach: float | None = None) -> Optimum:
    """One step from 0 on linear functions w ~ N(0, I) without noise; inputs uniform within ``reach``, or standard normal.

    With S = sum_j x_j x_j' over ``pairs`` N, s2 = E x^2 and m4 = E x^4 of a coordinate, the step says (rate / N) w'S x, and

        loss = 1/2 s2 tr E (I - (rate / N) S)^2 = 1/2 s2 d (1 - 2 rate s2 + rate^2 / N (m4 + (d + N - 2) s2^2)),

    least at rate = N s2 / (m4 + (d + N - 2) s2^2).
    """
    second, fourth = (1.0, 3.0) if reach is None else (reach**2 / 3, reach**4 / 5)
    spread = (fourth + (width + pairs - 2) * second**2) / pairs
    of_nothing = second * width / 2
    return Optimum(second / spread, of_nothing * (1 - second**2 / spread), of_nothing)
