"""ReLU and max pooling in one."""

from __future__ import annotations

from dataclasses import dataclass

from poolwise.op import Array, Extras, Extremum, Namespace, Window, take_winner


@dataclass(frozen=True)
class ReLUMax(Extremum):
    """The largest element of each window, or zero where that is larger: what max pooling gives after a ReLU.

    Any dtype, kept. The gradient goes to the winner, and nowhere from a window of no element above zero, whose index
    is −1. NaN wins, as in Max. An empty window gives 0. One byte per output is kept for both steps together, where ReLU
    alone keeps its whole output.

    Source: Nair & Hinton, Rectified linear units improve restricted Boltzmann machines, ICML 2010, for the ReLU; the
    two commute, since both are monotone.

    >>> import poolwise
    >>> poolwise.pool([[-1, -3], [2, 4], [-2, -5], [-4, -6]], poolwise.ReLUMax(), (2, 2))
    array([[4.],
           [0.]])
    """

    name = "relumax"
    laws = frozenset({"monotone", "scale", "order"})
    fill = 0.0
    largest = True

    def chosen(self, w: Window) -> int:
        winner = super().chosen(w)
        return winner if winner >= 0 and not w.values[winner] <= 0 else -1

    def winner(self, xp: Namespace, values: Array, present: Array, extras: Extras) -> Array:
        winner = super().winner(xp, values, present, extras)
        best = take_winner(xp, values, winner)
        return xp.where(best <= 0, -1, winner)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        winner = self.winner(xp, values, present, extras)
        best = take_winner(xp, values, winner)
        return xp.where(winner < 0, xp.zeros_like(best), best)
