"""Min pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from poolwise.op import LAWS, Extremum


@dataclass(frozen=True)
class Min(Extremum):
    """The smallest element of each window: grey-scale erosion, with a stride.

    Any dtype, kept. NaN wins (its index is the last NaN's), ties go to the first tap in row-major order. An empty
    window gives +inf, or an integer dtype's largest value, and passes no gradient.

    Source: Serra, Image Analysis and Mathematical Morphology, 1982, chapter XII.

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.Min(), (2, 2))
    array([[1.]])
    """

    name = "min"
    laws = LAWS
    fill = inf
    largest = False
