"""Sum pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.op import FLOATS, Array, Extras, Namespace, Operation, Window


@dataclass(frozen=True)
class Sum(Operation):
    """The sum of each window.

    Floats keep their dtype (half precision accumulates in float32); integers widen to 64 bits; bool counts. An empty
    window gives 0.

    Source: Boureau, Ponce & LeCun, A theoretical analysis of feature pooling in visual recognition, ICML 2010.

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.Sum(), (2, 2))
    array([[10.]])
    """

    name = "sum"
    laws = frozenset({"monotone", "scale", "order"})
    linear_gradient = True
    wraps = True

    def window(self, w: Window) -> Any:
        return np.sum(w.values)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        return (np.full(len(w.values), g),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        return xp.sum(values, axis=-1)

    def result_dtype(self, dtype: str) -> str:
        if dtype in FLOATS:
            return dtype
        return "uint64" if dtype.startswith("u") else "int64"

    def working_dtype(self, dtype: str) -> str:
        result = self.result_dtype(dtype)
        # the same bits, and not every device adds unsigned numbers
        return "int64" if result == "uint64" else super().working_dtype(result)
