"""The door of Keras's TensorFlow and JAX tensors, so that poolwise's functions take what a layer is called with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from poolwise import doors
from poolwise.api import planned
from poolwise.call import INPUT, WHERE, Call, Kernel
from poolwise.doors import Build, Facts, check_mask_shape, checked_seed
from poolwise.errors import InvalidType, InvalidValue
from poolwise.keras._framework import BACKEND, KERAS
from poolwise.keras._windows import dtype_of
from poolwise.op import DTYPES, FLOATS, Array, Operation

UNKNOWN = 4096  # stands for a size that only the running graph knows: larger than windows are


class KerasDoor:
    """Tensors of Keras's backend enter and leave here; every call is made of operations that the backend records."""

    framework = KERAS

    def facts(self, x: Array) -> Facts:
        if (name := dtype_of(x)) not in DTYPES:
            raise InvalidType(f"x must have one of the dtypes {', '.join(DTYPES)}, got {name}")
        if not len(x.shape):
            raise InvalidValue("x must have at least 1 axis, got a 0-d tensor")
        shape = tuple(UNKNOWN if size is None else int(size) for size in x.shape)
        return Facts(shape, name, tuple(range(len(shape))), BACKEND)

    def mask(self, where: Any, x: Array) -> Array:
        mask: Any = ops.convert_to_tensor(where)
        if dtype_of(mask) != "bool":
            raise InvalidType(f"where must be boolean, got {dtype_of(mask)}")
        check_mask_shape(mask.shape, x.shape)
        return mask

    def operand(self, name: str, value: Any, x: Array) -> Array:
        array = ops.convert_to_tensor(value)
        if dtype_of(array) not in FLOATS:
            raise InvalidType(f"{name} must have one of the dtypes {', '.join(FLOATS)}, got {dtype_of(array)}")
        return array

    def number(self, array: Array) -> float | None:
        return None

    def drawn(self, shape: tuple[int, ...], seed: Any, x: Array) -> Array:
        own = isinstance(seed, keras.random.SeedGenerator)
        return keras.random.uniform(shape, dtype="float32", seed=seed if own else checked_seed(seed))

    def keeps(self, x: Array) -> bool:
        return False

    def run(self, kernel: Kernel, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        return kernel.forward(operands, call)

    def indices(self, kernel: Kernel, kept: Any, call: Call) -> Array:
        return kernel.indices(kept, call)

    def tracing(self) -> bool:
        return True

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
        x, facts = operands[0], self.facts(operands[0])
        if any(array is None for array in operands):
            raise InvalidValue(f"what {op!r} draws must be given where {BACKEND} records operations, got none")
        own = tuple(dtype_of(each) for each, name in zip(operands, names, strict=True) if name not in (INPUT, WHERE))
        call, choice = planned.__wrapped__(KERAS, facts, op, build, arguments, (), names, kernel, return_indices, own)
        if any(x.shape[axis] is None for axis in call.geometry.axes):
            raise InvalidValue(f"x must have known sizes on the pooled axes, got shape {tuple(x.shape)}")
        y, kept = choice.kernel.forward(operands, call)
        return (y, choice.kernel.indices(kept, call)) if return_indices else y


def open_door() -> None:
    """Let poolwise's functions know the backend's tensors; PyTorch's have a door of their own."""
    if BACKEND == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 (only where it is the backend, so installed)

        doors.register(tf.Tensor, KerasDoor())
    if BACKEND == "jax":
        import jax  # noqa: PLC0415
        from jax.core import Tracer  # noqa: PLC0415

        doors.register(type(jax.numpy.zeros(())), KerasDoor())
        doors.register(Tracer, KerasDoor())
