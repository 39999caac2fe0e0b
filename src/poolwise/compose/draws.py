"""The random numbers of a composition: given, or drawn by the framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from poolwise.doors import Door, enter
from poolwise.errors import InvalidType, InvalidValue, shown
from poolwise.op import FLOATS, Array


def drawn(door: Door, x: Array, wanted: Sequence[int | None], draws: Any, seed: Any) -> Array:
    """Floats u, 0 ≤ u < 1, of the shape that is wanted, in which a size that no graph knows yet is None."""
    if draws is None:
        if any(size is None for size in wanted):
            raise InvalidValue(f"draws must be given where x has unknown sizes, got none for {tuple(wanted)}")
        return door.drawn(cast("tuple[int, ...]", tuple(wanted)), seed, x)
    if seed is not None:
        raise InvalidValue(f"seed must be None where draws are given, got {seed!r}")
    found, draws = _entered(draws)
    if found.framework is not door.framework:
        raise InvalidType(f"draws must be an array of {door.framework.name}, as x is, got {type(draws).__name__}")
    name = dtype_of(draws)
    if name not in FLOATS:
        raise InvalidType(f"draws must be floats, got {name}")
    if not _agree(tuple(draws.shape), tuple(wanted)):
        raise InvalidValue(f"draws must have the shape {tuple(wanted)}, got {tuple(draws.shape)}")
    if not door.tracing() and door.facts(draws).device == "cpu" and not ((draws >= 0) & (draws < 1)).all():
        raise InvalidValue("draws must be at least 0 and less than 1, got others")
    return draws if name in ("float32", "float64") else door.framework.cast(draws, "float32")


def _entered(draws: Any) -> tuple[Door, Array]:
    try:
        return enter(np.asarray(draws) if isinstance(draws, list | tuple) else draws)
    except (TypeError, ValueError):  # a ragged list is no array, other things no framework's
        raise InvalidType(f"draws must be an array of floats, got {shown(draws)}") from None


def per_axis(shape: Sequence[Any], axes: Sequence[int]) -> tuple[Any, ...]:
    """The shape of draws of which one holds for all planes of an input: (pooled axes,)."""
    del shape
    return (len(axes),)


def per_plane(shape: Sequence[Any], axes: Sequence[int]) -> tuple[Any, ...]:
    """The shape of draws that each plane of an input has for itself: (*the other axes' sizes, pooled axes)."""
    return (*[size for axis, size in enumerate(shape) if axis not in axes], len(axes))


def known(x: Array, pooled: Sequence[int]) -> None:
    """Refuse pooled sizes that only a running graph knows."""
    if any(x.shape[axis] is None for axis in pooled):
        raise InvalidValue(f"x must have known sizes on the pooled axes, got shape {tuple(x.shape)}")


def dtype_of(array: Array) -> str:
    """Its dtype's name, whatever the framework."""
    return str(getattr(array.dtype, "name", array.dtype)).rpartition(".")[2]


def _agree(shape: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether they are equal, as far as sizes are known."""
    if len(shape) != len(wanted):
        return False
    return all(None in (size, asked) or size == asked for size, asked in zip(shape, wanted, strict=True))
