"""Which framework does an array belong to?  A registry of doors, and NumPy's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from poolwise.call import Call, Framework, Kernel, memory_order
from poolwise.errors import InvalidType, InvalidValue
from poolwise.geometry import Geometry
from poolwise.memory import lent
from poolwise.op import DTYPES, FLOATS, Array, Operation

Build = Callable[..., Geometry]  # a shape and a pooling's arguments -> its geometry


class Facts(NamedTuple):
    """What a call needs to know of an array."""

    shape: tuple[int, ...]
    dtype: str
    layout: tuple[int, ...]
    device: str


class Door(Protocol):
    """One framework's way in and out."""

    @property
    def framework(self) -> Framework:
        """How to handle the door's arrays."""
        ...

    def facts(self, x: Array) -> Facts:
        """What the array is; InvalidType if no kernel could serve it."""
        ...

    def mask(self, where: Any, x: Array) -> Array:
        """The mask as an array that broadcasts against x; InvalidType or InvalidValue if it cannot be one."""
        ...

    def operand(self, name: str, value: Any, x: Array) -> Array:
        """What was given for an operand, as an array of the door's beside x; InvalidType if it cannot be one."""
        ...

    def number(self, array: Array) -> float | None:
        """The number that is all the array holds, where nobody asks for its gradient; None: keep the array."""
        ...

    def drawn(self, shape: tuple[int, ...], seed: Any, x: Array) -> Array:
        """Random numbers u, 0 ≤ u < 1, beside x, from a seed, the framework's generator, or None: others every time."""
        ...

    def keeps(self, x: Array) -> bool:
        """Whether a gradient may be asked for, so that forward must keep what backward needs."""
        ...

    def run(self, kernel: Kernel, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        """kernel.forward, differentiable in the framework's own way."""
        ...

    def indices(self, kernel: Kernel, kept: Any, call: Call) -> Array:
        """kernel.indices, in the framework's own way."""
        ...

    def tracing(self) -> bool:
        """Whether the framework records operations instead of computing, so that `trace` must serve."""
        ...

    def trace(
        self,
        operands: Sequence[Array],
        names: tuple[str, ...],
        op: Operation,
        build: Build,
        arguments: tuple[Any, ...],
        kernel: str | None,
        return_indices: bool,
    ) -> Any:
        """The pooling in operations that the framework can record; it draws what is None among the operands."""
        ...


def _empty(shape: tuple[int, ...], dtype: str) -> Array:
    memory = lent(prod(shape) * np.dtype(dtype).itemsize)
    return np.empty(shape, dtype) if memory is None else np.frombuffer(memory, dtype).reshape(shape)


class NumpyFramework:
    """NumPy's arrays."""

    name = "numpy"
    xp = np

    def empty(self, shape: tuple[int, ...], dtype: str, layout: tuple[int, ...], like: Array) -> Array:
        del like
        if layout == tuple(range(len(shape))):
            return _empty(shape, dtype)
        return _empty(tuple(shape[axis] for axis in layout), dtype).transpose(np.argsort(layout))

    def constant(self, array: Any, like: Array) -> Array:
        del like
        return array

    def cast(self, array: Array, dtype: str) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return array if array.dtype == dtype else array.astype(dtype)

    def dense(self, array: Array, layout: tuple[int, ...]) -> Array:
        return np.require(array.transpose(layout), requirements=("C", "A")).transpose(np.argsort(layout))

    def spread(self, array: Array, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(array, shape)

    def native_forward(self, plan: Any, arrays: tuple[Any, ...]) -> None:
        plan.forward(*map(_buffer, arrays))

    def native_backward(self, plan: Any, arrays: tuple[Any, ...]) -> None:
        plan.backward(*map(_buffer, arrays))

    def native_indices(self, plan: Any, kept: Array, flat: Array) -> None:
        plan.indices(kept, flat)

    def own_refusal(self, call: Call) -> str | None:
        return "NumPy has no pooling of its own"

    def own(self, operands: Sequence[Array], call: Call) -> tuple[Array, Array | None]:
        raise NotImplementedError("NumPy has no pooling of its own")


def _buffer(array: Any) -> Any:
    """What the native module takes for an array: itself, or bfloat16's bits, whose dtype buffers cannot name."""
    return array.view(np.uint16) if array is not None and array.dtype.name == "bfloat16" else array


class NumpyDoor:
    """NumPy arrays, and everything that NumPy turns into one (a list of numbers is float64)."""

    framework = NumpyFramework()

    def facts(self, x: Array) -> Facts:
        order = tuple(range(x.ndim)) if x.flags.c_contiguous else memory_order(x.shape, x.strides)
        return Facts(x.shape, x.dtype.name, order, "cpu")

    def mask(self, where: Any, x: Array) -> Array:
        try:
            mask = np.asarray(where)
        except ValueError as cause:
            raise InvalidValue(f"where must be a boolean array, got a ragged sequence ({cause})") from None
        if mask.dtype != bool:
            raise InvalidType(f"where must be boolean, got {mask.dtype}")
        check_mask_shape(mask.shape, x.shape)
        return mask

    def operand(self, name: str, value: Any, x: Array) -> Array:
        try:
            array = np.asarray(value)
        except ValueError as cause:
            raise InvalidValue(f"{name} must be an array, got a ragged sequence ({cause})") from None
        if not isinstance(value, np.ndarray) and array.dtype.kind in "iu":
            array = array.astype(np.float64)  # as a list of x's
        if array.dtype.name not in FLOATS:
            raise InvalidType(f"{name} must have one of the dtypes {', '.join(FLOATS)}, got {array.dtype}")
        return array

    def number(self, array: Array) -> float | None:
        return float(array.item()) if array.size == 1 else None

    def drawn(self, shape: tuple[int, ...], seed: Any, x: Array) -> Array:
        return (seed if isinstance(seed, np.random.Generator) else np.random.default_rng(checked_seed(seed))).random(
            shape
        )

    def keeps(self, x: Array) -> bool:
        return False

    def run(self, kernel: Kernel, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        return kernel.forward(operands, call)

    def indices(self, kernel: Kernel, kept: Any, call: Call) -> Array:
        return kernel.indices(kept, call)

    def tracing(self) -> bool:
        return False

    def trace(
        self,
        operands: Sequence[Array],
        names: tuple[str, ...],
        op: Operation,
        build: Build,
        arguments: tuple[Any, ...],
        kernel: str | None,
        return_indices: bool,
    ) -> Any:
        raise NotImplementedError("NumPy computes at once")


NUMPY = NumpyDoor()
_doors: dict[type, Door] = {np.ndarray: NUMPY}
_frameworks = {"torch": "torch"}  # the root package of an array's type -> the door's module

_WITHOUT_DOOR = ("jax", "jaxlib", "tensorflow")


def register(kind: type, door: Door) -> None:
    """Arrays of this type enter by this door."""
    _doors[kind] = door


def enter(x: Any) -> tuple[Door, Array]:
    """The door of x, and x as that door's array.

    A framework's door is opened when the first of its arrays is seen; by then the framework is loaded.
    """
    door = _doors.get(type(x))
    if door is not None and door is not NUMPY:
        return door, x
    if type(x) is np.ndarray and x.dtype.isnative:
        return _checked(x)
    roots = [parent.__module__.partition(".")[0] for parent in type(x).__mro__]
    for root in _frameworks.keys() & roots:
        import_module(f"poolwise.{_frameworks[root]}")
    for parent in type(x).__mro__:
        if parent in _doors and parent is not np.ndarray:
            _doors[type(x)] = _doors[parent]
            return _doors[parent], x
    if not set(_WITHOUT_DOOR).isdisjoint(roots):
        raise InvalidType(f"x must be a NumPy array or a PyTorch tensor, got {type(x).__name__}; pass numpy.asarray(x)")
    return _checked(_as_numpy(x))


def _checked(x: Array) -> tuple[Door, Array]:
    if x.dtype.name not in DTYPES:
        raise InvalidType(f"x must have one of the dtypes {', '.join(DTYPES)}, got {x.dtype}")
    if x.ndim == 0:
        raise InvalidValue(f"x must have at least 1 axis, got a 0-d array ({x[()]!r})")
    return NUMPY, x


def _as_numpy(x: Any) -> Array:
    if isinstance(x, np.ma.MaskedArray):
        raise InvalidType("x must not be a numpy.ma array (its mask would be lost), got one; pass where=~mask")
    if not isinstance(x, np.ndarray | list | tuple | np.generic) and not hasattr(x, "__array__"):
        raise InvalidType(f"x must be an array, got {type(x).__name__}")
    try:
        array = np.asarray(x)
    except ValueError as cause:
        raise InvalidValue(f"x must be an array, got a ragged sequence ({cause})") from None
    if isinstance(x, list | tuple) and array.dtype.kind in "iu":
        return array.astype(np.float64)  # a list has no dtype to keep: [[1, 3], [2, 4]] averages to 2.5
    return array.astype(array.dtype.newbyteorder("=")) if array.dtype.kind in "iuf" else array


def check_mask_shape(mask: Sequence[int], shape: Sequence[int]) -> None:
    """Refuse a mask that does not broadcast against the input."""
    short = len(shape) - len(mask)
    if short < 0 or any(m not in (1, n) for m, n in zip(mask, tuple(shape)[max(short, 0) :], strict=True)):
        raise InvalidValue(f"where must broadcast against x of shape {tuple(shape)}, got shape {tuple(mask)}")


def check_operand_shape(name: str, given: Sequence[int], wanted: Sequence[int]) -> None:
    """Refuse an operand that does not broadcast against the shape that it lies over."""
    short = len(wanted) - len(given)
    if short < 0 or any(m not in (1, n) for m, n in zip(given, tuple(wanted)[max(short, 0) :], strict=True)):
        raise InvalidValue(f"{name} must broadcast against the shape {tuple(wanted)}, got {tuple(given)}")


def checked_seed(seed: Any) -> int | None:
    """A seed that is None or an int of at least 0; InvalidType for anything else."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0):
        raise InvalidType(f"seed must be None, an int of at least 0 or the framework's generator, got {seed!r}")
    return None if seed is None else int(seed)
