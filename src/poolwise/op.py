"""What an operation must say about itself.

An operation is a frozen value. It knows one window (`window`, `window_grad`), an array of windows (`gathered`), and
which dtypes and geometries it means something on. It knows nothing of strides, padding, frameworks or devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from poolwise.errors import InvalidType, InvalidValue
from poolwise.geometry import Geometry

Array: TypeAlias = Any  # an array of whichever framework `xp` belongs to
Extras: TypeAlias = Mapping[str, Any]  # the operands beside the input, or their parts, by name
Namespace: TypeAlias = Any  # that framework's functions, under the names of the array API
WEIGHTS = "weights"  # among the extras: what `Operation.weights` says of each tap

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("bool", *INTEGERS, *FLOATS)
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # of what float32 holds
LAWS = frozenset({"monotone", "shift", "scale", "order", "constant", "bounded"})
_WORKING = {
    "bool": "uint8",
    "uint16": "int32",  # PyTorch has no maximum of the wider unsigned integers
    "uint32": "int64",
    "float16": "float32",
    "bfloat16": "float32",
}


@dataclass(frozen=True)
class Operand:
    """An array that an operation needs beside the input.

    name: what it is called; a parameter of that name is None where the array is meant.
    over: it broadcasts against the input, on whose pooled axes it has the input's sizes, the output's or the window's.
    learned: whether a layer holds one of its own, which starts from the parameter of that name, or from `start`.
    drawn: whether it is random numbers u, 0 ≤ u < 1, which a door draws where none are given.
    """

    name: str
    over: Literal["input", "output", "window"]
    learned: bool = False
    start: float = 0.0
    drawn: bool = False


@dataclass(frozen=True, eq=False)
class Window:
    """One window, as the reference sees it.

    values: (present,) its elements in row-major order, as float64 (integers as exact 64-bit integers).
    positions: (present, axes) where in the window each of them stands.
    size: the number of taps, absent ones included.
    count: the number of taps that count for a mean that includes padding.
    extras: the other operands' parts for this window, by name: a number for each present element, or one for a window.
    shape: the taps per axis.
    """

    values: NDArray[Any]
    positions: NDArray[np.int64]
    size: int
    count: int
    extras: Extras = field(default_factory=dict[str, Any])
    shape: tuple[int, ...] = ()


class Operation:
    """Base of every operation: a frozen dataclass whose fields are its static parameters.

    name: what it is called; `<name>_pool`, `<Class>Pool2d` and `<Class>Pooling2D` follow from it and the class's name.
    stems: (function, PyTorch layer, Keras layer) where a framework's users know it by other words.
    arrays: the arrays it may need beside the input.
    evaluated: the operation that layers put in its place when a model is evaluated; None: itself.
    fill: what stands in for an absent tap in `gathered`; neutral for the operation.
    laws: what always holds of its floats, among "monotone" (no element grows and the result shrinks), "shift" (x + c
        gives c more), "scale" (c·x for c > 0 gives c times as much), "order" (where an element stands does not matter),
        "constant" (of equal elements it is that) and "bounded" (neither below the least element nor above the largest);
        `tests/test_laws.py` holds it to them. positive: they are for elements above 0.
    separable: whether the result is Σ w·x / Σ w, so that one axis may be done after another.
    linear_gradient: whether the gradient depends on the input only through what forward kept.
    root_of: the operation of the elements' pth powers whose result's pth root it is; None: it is no such root.
    wraps: whether integers that the result's dtype cannot hold wrap around, as NumPy's sums do; else they saturate.
    """

    name: ClassVar[str]
    stems: ClassVar[tuple[str, str, str]]
    arrays: ClassVar[tuple[Operand, ...]] = ()
    evaluated: ClassVar[type[Operation] | None] = None
    fill: ClassVar[float] = 0.0
    laws: ClassVar[frozenset[str]] = frozenset()
    positive: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    linear_gradient: ClassVar[bool] = False
    root_of: ClassVar[Operation | None] = None
    wraps: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls) and "stems" not in vars(cls):
            cls.stems = (cls.name, cls.__name__, cls.__name__)

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the arrays it needs beside the input: those that no parameter of its own stands for."""
        return tuple([each.name for each in self.arrays if getattr(self, each.name, None) is None])

    def over(self, name: str) -> str:
        """What the operand of that name lies over."""
        return next(each.over for each in self.arrays if each.name == name)

    def window(self, w: Window) -> Any:
        """The result for one window: the definition of the operation."""
        raise NotImplementedError(f"{type(self).__name__}.window")

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        """The gradient of g · window(w): for `w.values`, then for each of `operands`."""
        raise NotImplementedError(f"{type(self).__name__}.window_grad")

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        """The results for an array of windows; the last axis holds the taps, absent ones filled with `fill`.

        present: whether a tap is there, broadcasting against values; one True where all taps of all windows are.
        extras holds the operands by name, with an axis of taps unless they lie over the output, 0 where the input's
        element is absent if they lie over that, and under "weights" what `weights` says of each tap.
        """
        raise NotImplementedError(f"{type(self).__name__}.gathered")

    def weights(self, taps: Any, xp: Namespace = np) -> Array | None:
        """What each tap of one axis weighs, where its place matters; None: it does not.

        taps: how many there are; a tensor of the framework whose functions xp has, where only a running graph knows it.
        A tap of several axes weighs the product. `gathered` finds it in extras["weights"].
        """
        del taps, xp
        return None

    def refusal(self, geometry: Geometry) -> str | None:
        """Why the operation means nothing on this geometry, in a sentence; None: it does."""
        del geometry
        return None

    def result_dtype(self, dtype: str) -> str:
        """The result's dtype for an input's; InvalidType where there is none. By default floats, kept."""
        if dtype not in FLOATS:
            raise InvalidType(f"x must have one of the dtypes {', '.join(FLOATS)} for {self!r}, got {dtype}")
        return dtype

    def working_dtype(self, dtype: str) -> str:
        """The dtype in which `gathered` computes: half precision accumulates in float32."""
        return _WORKING.get(dtype, dtype)


class Selection(Operation):
    """An operation whose result is one of the window's elements, so that it has an index."""

    linear_gradient = True

    def chosen(self, w: Window) -> int:
        """Which of `w.values` is the result, −1 in an empty window."""
        raise NotImplementedError(f"{type(self).__name__}.chosen")

    def winner(self, xp: Namespace, values: Array, present: Array, extras: Extras) -> Array:
        """The same for an array of windows: a position on the last axis."""
        raise NotImplementedError(f"{type(self).__name__}.winner")

    def window(self, w: Window) -> Any:
        chosen = self.chosen(w)
        return w.values[chosen] if chosen >= 0 else self.fill

    def window_grad(self, w: Window, g: float) -> tuple[NDArray[Any], ...]:
        won = np.where(np.arange(len(w.values)) == self.chosen(w), g, 0.0)
        return won, *(np.zeros(np.shape(w.extras[name])) for name in self.operands)

    def gathered(self, xp: Namespace, values: Array, present: Array, count: Array, extras: Extras) -> Array:
        return take_winner(xp, values, self.winner(xp, values, present, extras))

    def result_dtype(self, dtype: str) -> str:
        return dtype


class Extremum(Selection):
    """The first element that no other beats; NaN beats every number, and the last NaN every other."""

    largest: ClassVar[bool]

    def chosen(self, w: Window) -> int:
        nans = np.flatnonzero(np.isnan(w.values))
        if len(nans):
            return int(nans[-1])
        return int((np.argmax if self.largest else np.argmin)(w.values)) if len(w.values) else -1

    def winner(self, xp: Namespace, values: Array, present: Array, extras: Extras) -> Array:
        best = (xp.max if self.largest else xp.min)(values, axis=-1, keepdims=True)
        first = first_true(xp, present & (values == best))
        return first if is_integer(values) else last_nan_or(xp, values, present, first)


def last_nan_or(xp: Namespace, values: Array, present: Array, first: Array) -> Array:
    """Position of the last NaN on the last axis, `first` where there is none."""
    last = last_true(xp, xp.isnan(values) & present)
    return xp.where(last >= 0, last, first)


def first_true(xp: Namespace, mask: Array) -> Array:
    """Position of the first True on the last axis, −1 where there is none."""
    own = getattr(xp, "first_true", None)
    if own:
        return own(mask)
    if xp is np:
        taps = mask.shape[-1]
        rank = np.max(mask * np.arange(taps, 0, -1, dtype=np.int32), axis=-1)  # an argmax has a branch for each tap
        return np.where(rank > 0, taps - rank, -1)
    return xp.where(xp.any(mask, axis=-1), xp.argmax(xp.where(mask, 1, 0), axis=-1), -1)


def last_true(xp: Namespace, mask: Array) -> Array:
    """Position of the last True on the last axis, −1 where there is none."""
    from_the_end = first_true(xp, xp.flip(mask, axis=-1))
    taps = mask.shape[-1]
    taps = xp.shape(mask)[-1] if taps is None else taps  # None in a TensorFlow graph of unknown sizes
    return xp.where(from_the_end >= 0, taps - 1 - from_the_end, -1)


def take_winner(xp: Namespace, values: Array, winner: Array) -> Array:
    """The element at `winner` on the last axis; in an empty window the fill that stands first."""
    position = xp.expand_dims(xp.where(winner < 0, 0, winner), axis=-1)
    return xp.squeeze(xp.take_along_axis(values, position, axis=-1), axis=-1)


def everywhere(present: Array) -> bool:
    """Whether every tap of every window is known to be there."""
    return len(present.shape) == 1


def number_held(xp: Namespace, values: Array, present: Array) -> Any:
    """How many elements each window holds, in the values' dtype."""
    return values.shape[-1] if everywhere(present) else xp.sum(_ones(xp, values, present), axis=-1)


def there(xp: Namespace, values: Array, present: Array) -> Array:
    """The values, 0 where there is none; what stands there is finite."""
    return values if everywhere(present) else values * _ones(xp, values, present)


def _ones(xp: Namespace, values: Array, present: Array) -> Array:
    """1 where a tap is there, else 0."""
    return xp.where(present, xp.ones((), dtype=values.dtype), xp.zeros((), dtype=values.dtype))


def lowered(xp: Namespace, values: Array, present: Array) -> Array:
    """The values, −inf where there is none."""
    if everywhere(present):
        return values
    return values + xp.where(present, xp.zeros((), dtype=values.dtype), -np.inf)  # whose gradient has no branch


def at_least(xp: Namespace, values: Array, least: float) -> Array:
    """The values, those below `least` raised to it, which then have no gradient. NaN stays."""
    own = getattr(xp, "at_least", None)
    return own(values, least) if own else xp.where(values < least, least, values)


def held_fixed(xp: Namespace, values: Array) -> Array:
    """The values as constants, of which a result does not depend."""
    own = getattr(xp, "stop_gradient", None)
    return own(values) if own else values


def is_integer(values: Array) -> bool:
    """Whether an array, of any framework, holds integers."""
    return "int" in str(values.dtype)


def tap_weights(op: Operation, window: Sequence[Any], xp: Namespace = np) -> Array | None:
    """What each tap of a window of this shape weighs, in row-major order; None: the operation does not weigh them."""
    product = 1
    for taps in window:
        weights = op.weights(taps, xp)
        if weights is None:
            return None
        product = weights if isinstance(product, int) else xp.expand_dims(product, axis=-1) * weights
        product = xp.reshape(product, (-1,))
    return product


def checked_number(name: str, value: object, *, least: float, most: float = np.inf) -> None:
    """Refuse a parameter that is no number, NaN, or outside least ≤ value ≤ most."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidType(f"{name} must be a number, got {value!r}")
    if not least <= value <= most:
        allowed = f"at least {least}" if most == np.inf else f"between {least} and {most}"
        raise InvalidValue(f"{name} must be {allowed}, got {value!r}")
