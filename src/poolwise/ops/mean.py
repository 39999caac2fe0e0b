"""Average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from poolwise.errors import InvalidType, InvalidValue
from poolwise.op import LAWS, Array, Extras, Namespace, Operation, Window, checked_number, is_integer

Rounding = Literal["nearest", "truncate"]


@dataclass(frozen=True)
class Mean(Operation):
    """The average of each window.

    count_include_pad: divide by the taps inside the declared padding too (never by ceil's overhang).
    divisor: divide by this number (≥ 1) instead.
    rounding: of an integer mean: "nearest" (half to even) or "truncate" (towards zero, as PyTorch does).

    Floats keep their dtype (half precision accumulates in float32); integers keep theirs, computed exactly; bool is
    refused. An empty window gives 0 where padding counts, else NaN (integers: 0).

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.B.

    >>> import poolwise
    >>> poolwise.pool([[1, 3], [2, 4]], poolwise.Mean(), (2, 2))
    array([[2.5]])
    """

    count_include_pad: bool = False
    divisor: float | None = None
    rounding: Rounding = "nearest"

    name = "mean"
    stems = ("avg", "Avg", "Average")
    laws = LAWS
    linear_gradient = True

    def __post_init__(self) -> None:
        if not isinstance(self.count_include_pad, bool):
            raise InvalidType(f"count_include_pad must be True or False, got {self.count_include_pad!r}")
        if self.divisor is not None:
            checked_number("divisor", self.divisor, least=1, most=2**53)
        if self.rounding not in get_args(Rounding):
            raise InvalidValue(f'rounding must be "nearest" or "truncate", got {self.rounding!r}')

    def window(self, w: Window) -> Any:
        divisor = self._divisor(len(w.values), w.count)
        if w.values.dtype.kind == "f":
            return np.sum(w.values) / np.float64(divisor)
        if not divisor:
            return 0
        from fractions import Fraction  # noqa: PLC0415 (it takes a tenth of the time in which poolwise is imported)

        mean = Fraction(sum(map(int, w.values))) / Fraction(divisor)
        return round(mean) if self.rounding == "nearest" else int(mean)

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        return (np.full(len(w.values), g) / self._divisor(len(w.values), w.count),)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        if is_integer(values):
            return self._integer(xp, values, present, count)
        held = xp.sum(xp.where(present, xp.ones_like(values), xp.zeros_like(values)), axis=-1)
        return xp.sum(values, axis=-1) / self._divisor(held, count)

    def result_dtype(self, dtype: str) -> str:
        if dtype == "bool":
            raise InvalidType("x must not be bool for a mean (sum counts), got bool")
        return dtype

    def _divisor(self, present: Any, count: Any) -> Any:
        if self.divisor is not None:
            return self.divisor
        return count if self.count_include_pad else present

    def working_dtype(self, dtype: str) -> str:
        if dtype == "uint64":
            return dtype
        return "int64" if dtype.startswith(("int", "uint")) else super().working_dtype(dtype)

    def _integer(self, xp: Namespace, values: Array, present: Array, count: Array) -> Array:
        """Exact, even where the sum would overflow: quotients and remainders are summed apart."""
        held = xp.sum(xp.where(present, xp.ones_like(values), xp.zeros_like(values)), axis=-1)
        divisor = self._divisor(held, count)
        if self.divisor is not None and self.divisor != int(self.divisor):
            mean = xp.sum(values, axis=-1) / self.divisor
            return xp.round(mean) if self.rounding == "nearest" else xp.trunc(mean)
        divisor = xp.where(divisor > 0, divisor, 1) if self.divisor is None else int(self.divisor) + 0 * held
        quotients = values // xp.expand_dims(divisor, axis=-1)
        remainder = xp.sum(values - quotients * xp.expand_dims(divisor, axis=-1), axis=-1)
        floor = xp.sum(quotients, axis=-1) + remainder // divisor
        remainder = remainder % divisor
        if self.rounding == "truncate":
            up = (floor < 0) & (remainder > 0)
        else:
            up = (remainder > divisor - remainder) | ((remainder == divisor - remainder) & (floor % 2 == 1))
        mean = xp.where(up, floor + 1, floor)
        return mean if self.divisor is None else _saturated(xp, mean, xp.sum(values / self.divisor, axis=-1))


def _saturated(xp: Namespace, wrapped: Array, near: Array) -> Array:
    """Integers known modulo their dtype's range, and nearly: what the range cannot hold becomes its end."""
    limits = np.iinfo(str(wrapped.dtype).removeprefix("torch."))
    excess = near - wrapped / 1
    half = 2.0 ** (limits.bits - 1)
    return xp.where(excess > half, int(limits.max), xp.where(excess < -half, int(limits.min), wrapped))
