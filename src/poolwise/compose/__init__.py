"""Poolings made of public calls, one file each, and an explicit list.

What needs two geometries, another number of channels, or positions that depend on data or are drawn. To add one, write
its file and name it in `COMPOSITIONS`: the doors make a function and a layer of it for each number of axes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from poolwise.compose.avg_unpool import avg_unpool
from poolwise.compose.avgmax import adaptive_avgmax_pool, adaptive_catavgmax_pool, avgmax_pool, catavgmax_pool
from poolwise.compose.balanced import balanced_pool
from poolwise.compose.draws import per_axis, per_plane
from poolwise.compose.fractional import fractional_avg_pool, fractional_max_pool
from poolwise.compose.max_blur import max_blur_pool
from poolwise.compose.polyphase import polyphase_pool, polyphase_unpool
from poolwise.compose.pyramid import pyramid_pool, spatial_pyramid_pool
from poolwise.compose.space_to_depth import depth_to_space, space_to_depth
from poolwise.errors import Fault, InvalidType, shown

PLACED = ("axes", "channel_axis", "where", "draws", "kernel")  # what a layer's door knows, or has no word for


@dataclass(frozen=True)
class Composition:
    """A public function, and how the doors call the layers that they make of it.

    function: its first `inputs` parameters are arrays, which a layer is called with; the others, but for those in
        `PLACED`, are the layer's arguments, in their order.
    torch: the PyTorch layers' name, to which the number of axes is added (`MaxBlurPool` → `MaxBlurPool2d`); None:
        PyTorch has its own.
    keras: the Keras layers' (`MaxBlurPooling` → `MaxBlurPooling2D`).
    ranked: False: one layer serves any number of axes, and its name is used as it is.
    draws: the shape of the function's argument `draws`, random numbers u, 0 ≤ u < 1, for an input's shape and its
        pooled axes; beside it the function has `seed`. A layer draws in training.
    rests: an argument that says where what is drawn stands in evaluation, and what it is where a layer is given none;
        None: a layer draws in evaluation too.
    """

    function: Callable[..., Any]
    torch: str | None
    keras: str
    inputs: int = 1
    ranked: bool = True
    draws: Callable[[Sequence[Any], Sequence[int]], Sequence[Any]] | None = None
    rests: tuple[str, Any] | None = None

    arguments: tuple[inspect.Parameter, ...] = field(init=False)  # a layer's
    over_channels: bool = field(init=False)  # whether the function asks where the channels are

    def __post_init__(self) -> None:
        parameters = list(inspect.signature(self.function).parameters.values())[self.inputs :]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        own = tuple(each.replace(kind=kind) for each in parameters if each.name not in PLACED)
        object.__setattr__(self, "arguments", own)  # now: what is computed at first use stops PyTorch's compiler
        object.__setattr__(self, "over_channels", any(each.name == "channel_axis" for each in parameters))

    def given(
        self, said: str, words: Mapping[str, str], positional: Sequence[Any], keywords: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Every argument by the function's own name; words: what a door calls some of them."""
        names = [words.get(each.name, each.name) for each in self.arguments]
        if len(positional) > len(names):
            raise InvalidType(f"at most {len(names)} arguments may be given, got {len(positional)}", said)
        asked = {**dict(zip(names, positional, strict=False)), **keywords}
        unknown = [name for name in keywords if name not in names or name in names[: len(positional)]]
        if unknown:
            raise InvalidType(f"unexpected argument {unknown[0]}={shown(keywords[unknown[0]])}", said)
        found: dict[str, Any] = {}
        for name, each in zip(names, self.arguments, strict=True):
            if name not in asked and each.default is inspect.Parameter.empty:
                raise InvalidType(f"{name} must be given", said)
            found[each.name] = asked.get(name, each.default)
        return found

    def drawing(self, training: bool) -> bool:
        """Whether a layer draws."""
        return self.draws is not None and (training or self.rests is None)

    def at_rest(self, arguments: Mapping[str, Any], training: bool) -> dict[str, Any]:
        """The arguments of a call, out of a layer's: what is drawn in training stands still in evaluation."""
        if self.rests is None:
            return {**arguments}
        name, place = self.rests
        if training:
            return {**arguments, name: None}
        return {**arguments, "seed": None, name: place if arguments[name] is None else arguments[name]}

    def run(self, said: str, words: Mapping[str, str], arrays: Sequence[Any], arguments: Mapping[str, Any]) -> Any:
        """The function's result; its faults in the door's words."""
        try:
            return self.function(*arrays, **arguments)
        except Fault as fault:
            first, space, rest = fault.fact.partition(" ")
            raise type(fault)(f"{words.get(first, first)}{space}{rest}", said) from None


COMPOSITIONS: tuple[Composition, ...] = (
    Composition(max_blur_pool, "MaxBlurPool", "MaxBlurPooling"),
    Composition(balanced_pool, "BalancedPool", "BalancedPooling", draws=per_axis, rests=("offsets", "middle")),
    Composition(fractional_max_pool, None, "FractionalMaxPooling", draws=per_plane),
    Composition(fractional_avg_pool, None, "FractionalAveragePooling", draws=per_plane),
    Composition(polyphase_pool, "PolyphasePool", "PolyphasePooling"),
    Composition(polyphase_unpool, "PolyphaseUnpool", "PolyphaseUnpooling", inputs=2),
    Composition(avgmax_pool, "AvgMaxPool", "AverageMaxPooling"),
    Composition(catavgmax_pool, "CatAvgMaxPool", "CatAverageMaxPooling"),
    Composition(adaptive_avgmax_pool, "AdaptiveAvgMaxPool", "AdaptiveAverageMaxPooling"),
    Composition(adaptive_catavgmax_pool, "AdaptiveCatAvgMaxPool", "AdaptiveCatAverageMaxPooling"),
    Composition(avg_unpool, "AvgUnpool", "AverageUnpooling"),
    Composition(spatial_pyramid_pool, "SpatialPyramidPool", "SpatialPyramidPooling"),
    Composition(pyramid_pool, "PyramidPool", "PyramidPooling"),
    Composition(space_to_depth, "SpaceToDepth", "SpaceToDepth", ranked=False),
    Composition(depth_to_space, "DepthToSpace", "DepthToSpace", ranked=False),
)
