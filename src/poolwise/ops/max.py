"""Max pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from poolwise.op import LAWS, Extremum


@dataclass(frozen=True)
class Max(Extremum):
    """The largest element of each window.

    Any dtype, kept. NaN wins (its index is the last NaN's), ties go to the first tap in row-major order. An empty
    window gives −inf, or an integer dtype's smallest value, and passes no gradient.

    Source: Ranzato et al., Unsupervised learning of invariant feature hierarchies, CVPR 2007, section 3.

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.Max(), (2, 2))
    array([[4.]])
    """

    name = "max"
    laws = LAWS
    fill = -inf
    largest = True
