"""Keras layers made from the list of operations: sliding, adaptive and global ones, in one to three dimensions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, cast

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from poolwise.api import apart, usual_start
from poolwise.call import INPUT, Call
from poolwise.errors import Fault, InvalidType, InvalidValue, shown
from poolwise.geometry import Geometry
from poolwise.keras._framework import BACKEND, KERAS, available
from poolwise.keras._reach import Adapt, Reach, Shape, Slide, geometry_of
from poolwise.keras._windows import dtype_of, reduced, slid
from poolwise.op import Operation
from poolwise.ops import OPERATIONS

RANKS = (1, 2, 3)
PACKAGE = "poolwise"
PADDINGS = ("valid", "same")
DATA_FORMATS = ("channels_last", "channels_first")
_FLOAT = "float32"  # what sizes are checked with: every operation takes it


class OperationLayer(keras.layers.Layer):
    """Base of all: an operation, and where an input's pooled axes are.

    What an operation learns is a weight of the layer, which starts from the keyword of its name: a number, or an array
    such as one number for each channel. What it needs with every call is a keyword there. What it draws, from `seed`,
    it draws in training.
    """

    kind: type[Operation]
    rank: int

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        names = {field.name for field in fields(cast("Any", self.kind))} | {each.name for each in self.kind.arrays}
        own = {name: kwargs.pop(name) for name in sorted(names) if name in kwargs}
        draws = any(each.drawn for each in self.kind.arrays)
        seed = kwargs.pop("seed", None) if draws else None
        self._named(data_format)
        super().__init__(**kwargs)
        self.op, self.starts = self._learning(own)
        self.seed_generator = keras.random.SeedGenerator(seed) if draws else None
        self.seed = seed
        self.data_format = data_format.lower() if data_format else keras.config.image_data_format()
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2)

    def _learning(self, own: dict[str, Any]) -> tuple[Operation, dict[str, Any]]:
        """The operation, and what the weights that stand for parameters of it start from."""
        said = type(self).__name__
        op, given = apart(said, self.kind, own)
        learned = [each for each in self.kind.arrays if each.learned]
        unknown = [name for name in given if name not in {each.name for each in learned}]
        if unknown:
            raise InvalidType(f"{unknown[0]} must come with the inputs, got {shown(given[unknown[0]])}", said)
        starts = {each.name: given.get(each.name, getattr(op, each.name, None)) for each in learned}
        for each in learned:
            if starts[each.name] is None:
                starts[each.name] = usual_start(self.kind, each.name, each.start)
            if not np.isfinite(np.asarray(starts[each.name], _FLOAT)).all():
                fact = f"{each.name} must be finite where it is learned, got {shown(starts[each.name])}"
                raise InvalidValue(fact, said)
        starts = {
            name: start if isinstance(start, int | float) else np.asarray(start, _FLOAT)
            for name, start in starts.items()
        }
        meant = {name: None for name in starts if hasattr(op, name)}
        return replace(cast("Any", op), **meant), starts

    def _learn(self, window: Sequence[int | None]) -> None:
        """Make the weights; `window`: the sizes of one that lies over the window."""
        for each in self.kind.arrays:
            if not each.learned:
                continue
            start = np.asarray(self.starts[each.name], _FLOAT)
            if each.over == "window" and not start.ndim:
                if None in window:
                    raise InvalidValue(
                        f"inputs must have known sizes where {each.name} is learned, got {tuple(window)}"
                    )
                behind = (1,) if self.data_format == "channels_last" else ()
                start = np.full((*cast("Any", window), *behind), start)
            weight = self.add_weight(
                name=each.name, shape=start.shape, initializer=_constant(start), dtype=_FLOAT, autocast=False
            )
            setattr(self, each.name, weight)

    def _pooling(
        self, given: dict[str, Any], training: Any, cells: Callable[[], Any]
    ) -> tuple[Operation, dict[str, Any]]:
        """The operation of this call, and its operands; cells: the output's sizes, for what is drawn."""
        drawn = [each.name for each in self.op.arrays if each.drawn and each.name not in given]
        if drawn and not training and self.kind.evaluated is not None:
            return self.kind.evaluated(), {}
        for name in drawn:
            given[name] = keras.random.uniform(cells(), seed=self.seed_generator)
        operands = {name: getattr(self, name) for name in self.starts}
        operands |= {name: given.pop(name, None) for name in self.op.operands if name not in self.starts}
        missing = [*given, *(name for name, array in operands.items() if array is None)]
        if missing:
            name = missing[0]
            absent = f"{name} must be given by name, as in layer(inputs, {name}={name}), got none"
            fact = f"unexpected argument {name}" if name in given else absent
            raise InvalidType(fact, type(self).__name__)
        return self.op, {name: ops.convert_to_tensor(array) for name, array in operands.items()}

    def _named(self, data_format: Any) -> None:
        if data_format is not None:
            one_of(type(self).__name__, "data_format", data_format, DATA_FORMATS)

    @property
    def axes(self) -> tuple[int, ...]:
        """The pooled axes of an input."""
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + self.rank))

    def build(self, input_shape: Shape) -> None:
        """Refuse sizes that cannot work, as far as they are known."""
        try:
            self.compute_output_shape(input_shape)
            self._learn(self._window(input_shape))
        except Fault as fault:
            raise fault.within(type(self).__name__) from None
        self.built = True

    def _window(self, shape: Shape) -> Sequence[int | None]:
        """The taps per pooled axis."""
        return [shape[axis] for axis in self.axes]

    def compute_output_spec(self, inputs: Any, **_: Any) -> keras.KerasTensor:
        """The output's shape and dtype, from the input's."""
        dtype = available(self.op.result_dtype(dtype_of(inputs)))
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs: Keras's own keys, and each parameter of the operation that is not its default."""
        own = {
            field.name: getattr(self.op, field.name)
            for field in fields(cast("Any", self.kind))
            if field.name not in self.starts
            and (field.default is MISSING or getattr(self.op, field.name) != field.default)
        }
        defaults = {each.name: getattr(self.kind, each.name, each.start) for each in self.kind.arrays}
        learned = {
            name: start if isinstance(start, int | float) else start.tolist()
            for name, start in self.starts.items()
            if not isinstance(start, int | float) or start != defaults[name]
        }
        seeded = {} if self.seed is None else {"seed": self.seed}
        return {**super().get_config(), "data_format": self.data_format, **own, **learned, **seeded}

    def _sizes(self, shape: Shape) -> list[int | None]:
        """The pooled sizes of an input's shape."""
        if len(shape) != self.rank + 2:
            raise InvalidValue(f"inputs must have {self.rank + 2} axes, got shape {tuple(shape)}")
        sizes = [shape[axis] for axis in self.axes]
        if 0 in sizes:
            raise InvalidValue(f"inputs must have at least 1 element on each pooled axis, got shape {tuple(shape)}")
        return sizes

    def _checked(self, geometry: Geometry) -> None:
        """Let the operation refuse the geometry."""
        names = (INPUT, *self.op.operands)
        dtypes = (_FLOAT,) * len(names)
        Call(self.op, geometry, KERAS, dtypes, tuple(range(len(geometry.shape))), BACKEND, names)


class WindowedPooling(OperationLayer):
    """Base of the layers with several windows along an axis."""

    @property
    def reach(self) -> Reach:
        """What the windows read, but for the sizes."""
        raise NotImplementedError(f"{type(self).__name__}.reach")

    def call(self, inputs: Any, *, training: Any = None, **operands: Any) -> Any:
        """(batch, …sizes, channels) → (batch, …outputs, channels), or the channels first."""
        self._sizes(inputs.shape)
        op, operands = self._pooling(operands, training, lambda: self.reach.cells(cast("Any", ops.shape(inputs))))
        return slid(inputs, op, self.reach, operands, training)

    def _window(self, shape: Shape) -> Sequence[int | None]:
        return self.reach.taps(shape)

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """The shape of the output; a size that follows from one that is None is None."""
        self._sizes(input_shape)
        self._checked(geometry_of(input_shape, self.reach))
        return tuple(self.reach.cells(input_shape))


class SlidingPooling(WindowedPooling):
    """Base of the layers that slide a window.

    pool_size: taps per pooled axis, an int or a tuple. strides: steps; None: pool_size.
    padding: "valid", or "same": as many as cover the input, ⌈n / stride⌉; padding is absence, never zeros.
    data_format: "channels_last" or "channels_first"; None: `keras.config.image_data_format()`.
    """

    def __init__(
        self,
        pool_size: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        said = type(self).__name__
        self._named(data_format)
        taps = _each(said, "pool_size", pool_size, self.rank)
        steps = taps if strides is None else _each(said, "strides", strides, self.rank)
        rule = one_of(said, "padding", padding, PADDINGS)
        super().__init__(data_format, name=name, **kwargs)
        self.pool_size = taps
        self.strides = steps
        self.padding = rule

    @property
    def reach(self) -> Slide:
        """What the windows read, but for the sizes."""
        return Slide(self.axes, self.pool_size, self.strides, self.padding)

    def _sizes(self, shape: Shape) -> list[int | None]:
        sizes = super()._sizes(shape)
        if self.padding == "valid":
            for size, taps in zip(sizes, self.pool_size, strict=True):
                if size is not None and taps > size:
                    raise InvalidValue(
                        f'pool_size must be at most the size of each pooled axis where padding is "valid", '
                        f"got {self.pool_size} on inputs of shape {tuple(shape)}"
                    )
        return sizes

    def get_config(self) -> dict[str, Any]:
        own = {"pool_size": self.pool_size, "strides": self.strides, "padding": self.padding}
        return {**super().get_config(), **own}


class AdaptivePooling(WindowedPooling):
    """Base of the layers whose output has a given size: of m cells, cell i reads ⌊i·n/m⌋ … ⌈(i+1)·n/m⌉ of n elements.

    output_size: cells per pooled axis, an int or a tuple, each at least 1; there may be more cells than elements.
    data_format: "channels_last" or "channels_first"; None: `keras.config.image_data_format()`.

    (batch, …sizes, channels) → (batch, …output_size, channels), or the channels first, in the dtype that the operation
    makes of the input's. Raises InvalidValue or InvalidType with the argument's name, its value and what is allowed.

    Source: He et al., Spatial pyramid pooling in deep convolutional networks, ECCV 2014, section 3.1.

    >>> import numpy, poolwise.keras
    >>> x = numpy.arange(7, dtype="float32").reshape(1, 7, 1)
    >>> [float(y) for y in poolwise.keras.AdaptiveAveragePooling1D(3)(x)[0, :, 0]]
    [1.0, 3.0, 5.0]
    """

    def __init__(self, output_size: int | Sequence[int], data_format: str | None = None, **kwargs: Any) -> None:
        said = type(self).__name__
        self._named(data_format)
        cells = _each(said, "output_size", output_size, self.rank)
        super().__init__(data_format, **kwargs)
        self.output_size = cells

    @property
    def reach(self) -> Adapt:
        """What the windows read, but for the sizes."""
        return Adapt(self.axes, self.output_size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_size": self.output_size}


class GlobalPooling(OperationLayer):
    """Base of the layers with one window over each pooled axis.

    data_format: "channels_last" or "channels_first"; None: `keras.config.image_data_format()`.
    keepdims: keep the pooled axes, with size 1.
    """

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        if not isinstance(keepdims, bool):
            raise InvalidType(f"keepdims must be True or False, got {keepdims!r}", type(self).__name__)
        super().__init__(data_format, **kwargs)
        self.keepdims = keepdims

    def call(self, inputs: Any, *, training: Any = None, **operands: Any) -> Any:
        """(batch, …sizes, channels) → (batch, channels), or with keepdims the pooled axes of size 1."""
        return self._whole(inputs, None, training, operands)

    def _whole(self, inputs: Any, where: Any, training: Any, operands: dict[str, Any]) -> Any:
        self._sizes(inputs.shape)
        op, operands = self._pooling(operands, training, lambda: self._cells(inputs))
        return reduced(inputs, op, self.axes, self.keepdims, where, operands)

    def _cells(self, inputs: Any) -> list[Any]:
        return [1 if axis in self.axes else size for axis, size in enumerate(cast("Any", ops.shape(inputs)))]

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        """The shape of the output; a size that is None stays None."""
        self._sizes(input_shape)
        self._checked(Geometry.whole([1 if size is None else size for size in input_shape], self.axes))
        shape = [(axis, 1 if axis in self.axes else size) for axis, size in enumerate(input_shape)]
        return tuple(size for axis, size in shape if self.keepdims or axis not in self.axes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "keepdims": self.keepdims}


class MaskedGlobalPooling(GlobalPooling):
    """The one-dimensional ones: a mask (batch, steps) says which steps are there."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(data_format, keepdims, **kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None, *, training: Any = None, **operands: Any) -> Any:
        """(batch, steps, channels) → (batch, channels); a masked step is absent, not zero."""
        where = None
        if mask is not None:
            where = ops.expand_dims(ops.cast(mask, "bool"), 2 if self.data_format == "channels_last" else 1)
        return self._whole(inputs, where, training, operands)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The steps are gone, and their mask with them."""


def _constant(value: NDArray[Any]) -> Callable[..., Any]:
    """A weight's initializer that gives this array."""

    def constant(shape: Any, dtype: Any = None) -> Any:
        del shape
        return ops.convert_to_tensor(value, dtype)

    return constant


def one_of(layer: str, name: str, value: Any, allowed: Sequence[str]) -> str:
    """One of some words, in whichever case, as Keras takes them."""
    expected = " or ".join(f'"{word}"' for word in allowed)
    if not isinstance(value, str):
        raise InvalidType(f"{name} must be {expected}, got {value!r}", layer)
    if value.lower() not in allowed:
        raise InvalidValue(f"{name} must be {expected}, got {value!r}", layer)
    return value.lower()


def _each(layer: str, name: str, value: Any, rank: int) -> tuple[int, ...]:
    """One int ≥ 1 per pooled axis."""
    given = (value,) * rank if hasattr(value, "__index__") else value
    if not isinstance(given, Sequence) or not all(hasattr(entry, "__index__") for entry in given):
        raise InvalidType(f"{name} must be an int or a tuple of {rank} ints, got {value!r}", layer)
    if any(isinstance(entry, bool) for entry in given):
        raise InvalidType(f"{name} must be made of ints, got {value!r}", layer)
    if len(given) != rank or any(entry < 1 for entry in given):
        raise InvalidValue(f"{name} must be an int or {rank} ints, each at least 1, got {value!r}", layer)
    return tuple(int(entry) for entry in given)


def _with_default(default: Any) -> Callable[..., None]:
    """An `__init__` whose pool_size may be left out."""

    def __init__(  # noqa: N807
        self: Any,
        pool_size: Any = default,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        SlidingPooling.__init__(self, pool_size, strides, padding, data_format, name, **kwargs)

    return __init__


def sliding_layer(kind: type[Operation], rank: int) -> type[SlidingPooling]:
    """`<Stem>Pooling<rank>D`; pool_size has Keras's default, where Keras has the layer, else that of its max."""
    name = f"{kind.stems[2]}Pooling{rank}D"
    model = getattr(keras.layers, name, getattr(keras.layers, f"MaxPooling{rank}D"))
    default = inspect.signature(model.__init__).parameters["pool_size"].default
    body = {} if default is inspect.Parameter.empty else {"__init__": _with_default(default)}
    return cast("type[SlidingPooling]", _registered(name, SlidingPooling, kind, rank, body))


def adaptive_layer(kind: type[Operation], rank: int) -> type[AdaptivePooling]:
    """`Adaptive<Stem>Pooling<rank>D`."""
    name = f"Adaptive{kind.stems[2]}Pooling{rank}D"
    return cast("type[AdaptivePooling]", _registered(name, AdaptivePooling, kind, rank, {}))


def global_layer(kind: type[Operation], rank: int) -> type[GlobalPooling]:
    """`Global<Stem>Pooling<rank>D`."""
    base = MaskedGlobalPooling if rank == 1 else GlobalPooling
    return cast("type[GlobalPooling]", _registered(f"Global{kind.stems[2]}Pooling{rank}D", base, kind, rank, {}))


def _registered(name: str, base: type, kind: type[Operation], rank: int, body: dict[str, Any]) -> type:
    """The class, which a saved model finds by its name."""
    says = (inspect.getdoc(kind) or "").partition("\n\n>>>")[0]  # the example is NumPy's
    doc = f"{says}\n\n{inspect.getdoc(base)}"
    facts = {"kind": kind, "rank": rank, "__doc__": doc, "__module__": "poolwise.keras", "__qualname__": name}
    layer = type(name, (base,), {**body, **facts})
    return cast("type", keras.saving.register_keras_serializable(package=PACKAGE)(layer))


FORMS: dict[str, Callable[[type[Operation], int], type[OperationLayer]]] = {
    "": sliding_layer,
    "Adaptive": adaptive_layer,
    "Global": global_layer,
}


def layers_of(kind: type[Operation]) -> dict[str, type[OperationLayer]]:
    """All layers of one operation, under Keras's names and its shorter ones (`MaxPool2D`)."""
    layers: dict[str, type[OperationLayer]] = {}
    for rank in RANKS:
        for prefix, make in FORMS.items():
            layer = make(kind, rank)
            layers[f"{prefix}{kind.stems[2]}Pooling{rank}D"] = layer
            layers[f"{prefix}{kind.stems[1]}Pool{rank}D"] = layer
    return layers


LAYERS: dict[str, type[OperationLayer]] = {
    name: layer for kind in OPERATIONS for name, layer in layers_of(kind).items()
}
