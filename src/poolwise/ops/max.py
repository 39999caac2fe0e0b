"""Max pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from poolwise.op import LAWS, Array, Extremum, Namespace, take_winner


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


def largest(xp: Namespace, values: Array, present: Array) -> Array:
    """The element of each window that `Max` chooses, to which its gradient goes; absent taps have −inf or the least."""
    if xp is np:  # which differentiates nothing
        return np.max(values, axis=-1)
    own = getattr(xp, "largest", None)
    return own(values, present) if own else take_winner(xp, values, Max().winner(xp, values, present, {}))
