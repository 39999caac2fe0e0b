"""Call: all that a kernel ever sees of one pooling, hashable; and what a framework and a kernel promise each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np

from poolwise.errors import InvalidType, InvalidValue
from poolwise.geometry import Geometry
from poolwise.op import DTYPES, FLOATS, Array, Namespace, Operation

INPUT = "input"
WHERE = "where"


class Framework(Protocol):
    """How to handle one framework's arrays. A singleton for each; the doors bring theirs."""

    @property
    def name(self) -> str:
        """The framework's name."""
        ...

    @property
    def xp(self) -> Namespace:
        """The framework's functions under the array API's names."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: str, layout: tuple[int, ...], like: Array) -> Array:
        """A fresh array with axes stored in the order `layout`, beside `like`."""
        ...

    def constant(self, array: Any, like: Array) -> Array:
        """A NumPy array as the framework's own, beside `like`."""
        ...

    def cast(self, array: Array, dtype: str) -> Array:
        """The array in another dtype."""
        ...

    def dense(self, array: Array, layout: tuple[int, ...]) -> Array:
        """The array itself if memory holds its axes densely in the order `layout`, else such a copy."""
        ...

    def spread(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array over an input of that shape, without a copy."""
        ...

    def own_refusal(self, call: Call) -> str | None:
        """Why the framework's own pooling operations do not give this call's result; None: they do."""
        ...

    def own(self, operands: Sequence[Array], call: Call) -> tuple[Array, Array | None]:
        """The framework's own operation: the output, and flat indices where a selection's call keeps them."""
        ...


class ShowsMemory(Framework, Protocol):
    """A framework whose arrays the native module can read and write.

    arrays: x or g, y or gx, kept, mask; of a plan that is paired also its second input, backward its gradient too.
    """

    def native_forward(self, plan: Any, arrays: tuple[Any, ...]) -> None:
        """plan.forward on the arrays' memory."""
        ...

    def native_backward(self, plan: Any, arrays: tuple[Any, ...]) -> None:
        """plan.backward on the arrays' memory."""
        ...

    def native_indices(self, plan: Any, kept: Array, flat: Array) -> None:
        """plan.indices on the arrays' memory."""
        ...


@dataclass(frozen=True)
class Call:
    """One pooling of one kind of array.

    operands: the operands' names, the input first. dtypes: theirs, in step.
    layout: the input's axes in the order in which memory holds them, slowest first.
    keep: whether backward, or an index, will be asked for.
    """

    op: Operation
    geometry: Geometry
    framework: Framework
    dtypes: tuple[str, ...]
    layout: tuple[int, ...]
    device: str = "cpu"
    operands: tuple[str, ...] = (INPUT,)
    keep: bool = False

    def __post_init__(self) -> None:
        if self.dtypes[0] not in DTYPES:
            raise InvalidType(f"x must have one of the dtypes {', '.join(DTYPES)}, got {self.dtypes[0]}")
        self.op.result_dtype(self.dtypes[0])
        missing = [name for name in self.op.operands if name not in self.operands]
        if missing:
            raise InvalidType(f"{self.op!r} needs the operand {missing[0]!r}, got only {self.operands}")
        for name, dtype in zip(self.operands, self.dtypes, strict=True):
            if name in self.op.operands and dtype not in FLOATS:
                raise InvalidType(f"{name} must have one of the dtypes {', '.join(FLOATS)}, got {dtype}")
        reason = self.op.refusal(self.geometry)
        if reason is not None:
            raise InvalidValue(f"{self.op!r} means nothing here: {reason}")

    @cached_property
    def _hash(self) -> int:
        return hash((self.op, self.geometry, self.framework, self.dtypes, self.layout, self.device, self.keep))

    def __hash__(self) -> int:  # once: a call is looked up at every use
        return self._hash

    @property
    def dtype(self) -> str:
        """The input's dtype."""
        return self.dtypes[0]

    @cached_property
    def result_dtype(self) -> str:
        """The output's dtype."""
        return self.op.result_dtype(self.dtypes[0])

    @property
    def masked(self) -> bool:
        """Whether the operand `where` says which elements are there."""
        return WHERE in self.operands

    @property
    def input_bytes(self) -> int:
        """What the input takes in memory."""
        itemsize = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        return prod(self.geometry.shape) * itemsize

    def over(self, name: str) -> str:
        """What the operand of that name lies over."""
        return self.op.over(name)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape against which the operand of that name broadcasts."""
        return shape_over(self.geometry, self.over(name))

    def part(self, operands: Sequence[Array], name: str) -> Array:
        """The operand of that name."""
        return operands[self.operands.index(name)]


class Kernel(Protocol):
    """One way to compute a call."""

    name: ClassVar[str]
    traced: ClassVar[bool]  # made of the framework's own operations, which it differentiates and compiles by itself

    def refusal(self, call: Call) -> str | None:
        """Why this kernel does not serve the call, in a sentence; None: it does."""
        ...

    def forward(self, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        """The output, and what backward needs (None unless call.keep)."""
        ...

    def backward(self, g: Array, kept: Any, call: Call) -> tuple[Array | None, ...]:
        """One gradient per operand, None for a mask."""
        ...

    def kept_bytes(self, call: Call) -> int:
        """The bytes that stay in memory between forward and backward."""
        ...

    def indices(self, kept: Any, call: Call) -> Array:
        """int64, the output's shape: the winner's flat position over the pooled axes, −1 in an empty window."""
        ...


def shape_over(geometry: Geometry, over: str) -> tuple[int, ...]:
    """The input's shape with the sizes of the input, the output or the window on its pooled axes."""
    sizes = {"input": geometry.sizes, "output": geometry.outputs, "window": geometry.window}[over]
    shape = list(geometry.shape)
    for axis, size in zip(geometry.axes, sizes, strict=True):
        shape[axis] = size
    return tuple(shape)


@lru_cache(maxsize=4096)
def memory_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """The axes in the order in which memory holds them, slowest first; where several would do, the plain order."""
    axes = tuple(range(len(shape)))
    moving = [axis for axis in axes if shape[axis] != 1]
    if 0 in shape or any(strides[axis] == 0 for axis in moving):
        return axes
    ordered = sorted(moving, key=lambda axis: (-abs(strides[axis]), axis))
    return axes if ordered == moving else (*(axis for axis in axes if shape[axis] == 1), *ordered)
