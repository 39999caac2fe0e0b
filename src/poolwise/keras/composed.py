"""Keras layers made from the list of compositions."""

from __future__ import annotations

import inspect
from math import lcm
from typing import Any, cast

import keras

from poolwise.compose import COMPOSITIONS, Composition
from poolwise.doors import checked_seed
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.keras._reach import Shape
from poolwise.keras.layers import DATA_FORMATS, PACKAGE, RANKS, one_of
from poolwise.op import Operation

WORDS = {"x": "inputs", "window": "pool_size", "stride": "strides"}  # what Keras calls an argument

BATCHES = (2, 3)  # stand for a batch that is not known yet
LEAST, MOST = 96, 4096  # between which a size stands that is not known yet


class Composed(keras.layers.Layer):
    """Base of the layers made of compositions.

    data_format: "channels_last" or "channels_first"; None: `keras.config.image_data_format()`.
    """

    composition: Composition
    rank: int | None

    def __init__(
        self, *arguments: Any, data_format: str | None = None, name: str | None = None, **keywords: Any
    ) -> None:
        said = type(self).__name__
        names = {WORDS.get(each.name, each.name) for each in self.composition.arguments}
        own = {key: keywords.pop(key) for key in names & set(keywords)}
        given = self.composition.given(said, WORDS, arguments, own)
        if data_format is not None:
            data_format = one_of(said, "data_format", data_format, DATA_FORMATS)
        for key, value in given.items():
            if isinstance(value, Operation):
                raise InvalidType(
                    f"{key} must be the name of an operation, which a model can save, got {value!r}", said
                )
        super().__init__(name=name, **keywords)
        self.arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        self.data_format = data_format or keras.config.image_data_format()

    def composed(self, *inputs: Any, **more: Any) -> Any:
        """The composition's result; more: arguments of this call in the place of the layer's."""
        inputs = tuple(each.read_value() if hasattr(each, "read_value") else each for each in inputs)
        rank = len(inputs[0].shape) - 2
        if rank != (self.rank or rank) or rank < 1:
            raise InvalidValue(
                f"inputs must have {'at least 3' if self.rank is None else self.rank + 2} axes, "
                f"got shape {tuple(inputs[0].shape)}",
                type(self).__name__,
            )
        places: dict[str, Any] = {"axes": self.axes(rank)}
        if self.composition.over_channels:
            places["channel_axis"] = rank + 1 if self.data_format == "channels_last" else 1
        return self.composition.run(type(self).__name__, WORDS, inputs, {**self.arguments, **more, **places})

    def axes(self, rank: int) -> tuple[int, ...]:
        """The pooled axes of an input."""
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + rank))

    def compute_output_spec(self, *inputs: Any, **keywords: Any) -> Any:
        """The output's shape and dtype, from the input's; a size that an unknown size changes is unknown."""
        try:
            first, second = (
                keras.Operation.compute_output_spec(self, *(_known(each, *sizes) for each in inputs), **keywords)
                for sizes in zip(BATCHES, self._stand_ins(), strict=True)
            )
        except Fault as fault:  # Keras says more about itself than about what is wrong
            raise type(fault)(fault.fact.rpartition("\n\n")[2], fault.function) from None
        return keras.tree.map_structure(_common, first, second)

    def _stand_ins(self) -> tuple[int, int]:
        """Two sizes for one that is not known yet: multiples of each number among the arguments, larger than all."""
        numbers = [each for each in keras.tree.flatten(self.arguments) if type(each) is int and 0 < each <= MOST]
        multiple = lcm(*numbers) if lcm(*numbers) <= MOST else max(numbers)
        size = multiple * -(-max(LEAST, 4 * max(numbers, default=1)) // multiple)
        return size, 2 * size

    def shape_of(self, *inputs: keras.KerasTensor) -> Any:
        """The shape of the output; a size that is None stays None."""
        return keras.tree.map_structure(lambda spec: tuple(spec.shape), self.compute_output_spec(*inputs))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs: Keras's own keys and the arguments."""
        own = {WORDS.get(name, name): value for name, value in self.arguments.items()}
        return {**super().get_config(), **own, "data_format": self.data_format}


def _known(tensor: Any, batch: int, size: int) -> keras.KerasTensor:
    """The tensor with these sizes for unknown ones."""
    unknown = [batch, *[size] * (len(tensor.shape) - 1)]
    shape = [stand_in if each is None else each for stand_in, each in zip(unknown, tensor.shape, strict=True)]
    return keras.KerasTensor(shape, dtype=tensor.dtype)


def _common(first: keras.KerasTensor, second: keras.KerasTensor) -> keras.KerasTensor:
    """What is known of both."""
    shape = [a if a == b else None for a, b in zip(first.shape, second.shape, strict=True)]
    return keras.KerasTensor(shape, dtype=first.dtype)


class ComposedPooling(Composed):
    """Base of those that read one tensor."""

    def call(self, inputs: Any) -> Any:
        """(batch, …sizes, channels), or the channels first."""
        return self.composed(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        """The shape of the output; a size that is None stays None."""
        return self.shape_of(keras.KerasTensor(input_shape, dtype=self.compute_dtype))

    def build(self, input_shape: Shape) -> None:
        """Refuse sizes that cannot work."""
        self.compute_output_shape(input_shape)
        self.built = True


class DrawnPooling(ComposedPooling):
    """Base of those that draw: from `seed`, an int, or else from Keras's own."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        try:
            seed = checked_seed(self.arguments["seed"])
        except Fault as fault:
            raise fault.within(type(self).__name__) from None
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """(batch, …sizes, channels), or the channels first."""
        more = self.composition.at_rest({**self.arguments, "seed": None}, bool(training))
        if self.composition.drawing(bool(training)) and (rank := len(inputs.shape) - 2) >= 1:
            shape = cast("Any", self.composition.draws)(cast("Any", keras.ops.shape(inputs)), self.axes(rank))
            more["draws"] = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return self.composed(inputs, **more)


class ComposedUnpooling(Composed):
    """Base of those that read a second tensor."""

    def call(self, inputs: Any, indices: Any) -> Any:
        """The tensor, and what its pooling returned beside it."""
        return self.composed(inputs, indices)

    def compute_output_shape(self, inputs_shape: Shape, indices_shape: Shape) -> Any:
        """The shape of the output; a size that is None stays None."""
        second = keras.KerasTensor(indices_shape, dtype="int32")
        return self.shape_of(keras.KerasTensor(inputs_shape, dtype=self.compute_dtype), second)

    def build(self, inputs_shape: Shape, indices_shape: Shape) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refuse sizes that cannot work."""
        self.compute_output_shape(inputs_shape, indices_shape)
        self.built = True


def composed_layer(composition: Composition, rank: int | None) -> type[Composed]:
    """The layer of a composition over `rank` axes: `MaxBlurPooling2D(pool_size, strides=None, …, taps=3)`."""
    name = composed_name(composition, rank)
    reading = ComposedPooling if composition.inputs == 1 else ComposedUnpooling
    base = reading if composition.draws is None else DrawnPooling
    says = (inspect.getdoc(composition.function) or "").partition("\n\n>>>")[0]  # the example is NumPy's
    more_said = (inspect.getdoc(Composed) or "").partition("\n\n")[2]
    own = [each.replace(name=WORDS.get(each.name, each.name)) for each in composition.arguments]
    more = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
        for key in ("data_format", "name")
    ]
    facts = {
        "composition": composition,
        "rank": rank,
        "__signature__": inspect.Signature([*own, *more, inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)]),
        "__doc__": f"{says}\n\n{more_said}",
        "__module__": "poolwise.keras",
        "__qualname__": name,
    }
    return cast("type[Composed]", keras.saving.register_keras_serializable(package=PACKAGE)(type(name, (base,), facts)))


def composed_name(composition: Composition, rank: int | None) -> str:
    """The layer's name."""
    return f"{composition.keras}{'' if rank is None else f'{rank}D'}"


COMPOSED: dict[str, type[Composed]] = {
    composed_name(each, rank): composed_layer(each, rank)
    for each in COMPOSITIONS
    for rank in (RANKS if each.ranked else (None,))
}
