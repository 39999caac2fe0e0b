"""What is recorded of a model's run, whatever its framework: its poolings in poolwise's words, and what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from math import prod
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from poolwise import Fault, Operation, adaptive_pool, pool
from poolwise.models import kind


@dataclass(frozen=True, eq=False)
class Stage:
    """One pooling of a model, as it ran.

    name: its place in the model, or the function that was called; with a number from the second time on.
    op: poolwise's operation; None where it has none that means the same.
    arguments: keywords of `poolwise.pool` over the last axes, or {"output_size": …} of `poolwise.adaptive_pool`.
    before, after: (channels, *sizes) of the batch's first image, channels first whatever the model's layout.
    note: why there is no op, or how the model's own pooling differs from poolwise's; "" where nothing is to be said.
    """

    name: str
    op: Operation | None
    arguments: Mapping[str, Any]
    before: NDArray[Any]
    after: NDArray[Any]
    note: str = ""


class Pooling(NamedTuple):
    """What a framework's pooling is in poolwise's words. called: its name, where it is no operation."""

    op: Operation | None
    arguments: Mapping[str, Any]
    note: str = ""
    called: str = ""


@dataclass
class Record:
    """The stages so far. inside: how deep the run is in poolings, of which only the outermost is a stage.

    images: those of the batch that `add` is given.
    """

    images: ClassVar[slice] = slice(0, 1)
    stages: list[Stage] = field(default_factory=list[Stage])
    times: Counter[str] = field(default_factory=Counter[str])
    inside: int = 0

    def add(self, name: str, pooling: Pooling, before: NDArray[Any], after: NDArray[Any], dtype: Any) -> None:
        """One more; before, after: (N, channels, *sizes); dtype: the model's own, before it became NumPy's."""
        one, other = before[0], after[0]
        notes = [pooling.note, _difference(pooling, one, other, 1e-2 if "16" in str(dtype) else 1e-4)]
        note = "; ".join(filter(None, notes))
        self.stages.append(Stage(self.named(name), pooling.op, pooling.arguments, one, other, note))

    def begin(self) -> None:
        """A batch comes."""
        self.times.clear()

    def named(self, name: str) -> str:
        """The name, with a number from its second time on."""
        self.times[name] += 1
        return name if self.times[name] == 1 else f"{name} #{self.times[name]}"


def _difference(pooling: Pooling, before: NDArray[Any], after: NDArray[Any], tolerance: float) -> str:
    """How the model's own result differs from poolwise's; "" if it does not."""
    if pooling.op is None:
        return ""
    function: Any = adaptive_pool if "output_size" in pooling.arguments else pool
    try:
        ours = function(before, pooling.op, **pooling.arguments)
    except Fault as fault:
        return f"poolwise refuses this: {fault}"
    if ours.shape != after.shape:
        return f"poolwise gives the shape {ours.shape}, the model {after.shape}"
    a, b = ours.astype(np.float64), after.astype(np.float64)
    largest = np.abs(b[np.isfinite(b)]).max(initial=0)
    wrong = int((~np.isclose(a, b, rtol=tolerance, atol=tolerance * largest, equal_nan=True)).sum())
    nan = ", where it reads NaN" if np.isnan(before.astype(np.float64)).any() else ""
    return f"differs from poolwise in {wrong} of {after.size} outputs{nan}" if wrong else ""


def windows(
    rank: int, window: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False
) -> dict[str, Any]:
    """`poolwise.pool`'s arguments, with an entry for each axis."""
    taps = each_axis(window, rank)
    sides = padding if isinstance(padding, str) else tuple(each_axis(side, 2) for side in each_axis(padding, rank))
    return {
        "window": taps,
        "stride": taps if stride is None or stride in ([], ()) else each_axis(stride, rank),
        "padding": sides,
        "dilation": each_axis(dilation, rank),
        "ceil_mode": bool(ceil_mode),
    }


def each_axis(value: Any, count: int) -> tuple[Any, ...]:
    """One entry for each axis; one may stand for all."""
    entries = tuple(value) if isinstance(value, Sequence) else (value,)
    return entries * count if len(entries) == 1 else entries


def pooling_of(
    kind: type[Operation], given: Mapping[str, Any], arguments: Mapping[str, Any], note: str = ""
) -> Pooling:
    """The operation with those of its parameters that are given; none where it refuses them, or takes arrays."""
    own = {each.name: given[each.name] for each in fields(cast("Any", kind)) if given.get(each.name) is not None}
    learned = {name: value for name, value in own.items() if hasattr(value, "shape")}
    own |= {name: float(value) for name, value in learned.items() if prod(value.shape) == 1}
    arrays = [each.name for each in kind.arrays if each.name not in own or hasattr(own[each.name], "shape")]
    arrays = [name for name in arrays if not hasattr(kind, name) or name in learned]  # not one by default
    if arrays:
        return Pooling(None, arguments, f"it takes an array beside its input, {arrays[0]}", kind.name)
    try:
        return Pooling(kind(**own), arguments, note)
    except Fault as fault:
        return Pooling(None, {}, f"not poolwise's {kind.__name__}: {fault}")


def run(model: Any, batches: Iterable[NDArray[Any]], record: Record) -> None:
    """Run a model on batches, every pooling told to the record, by the file here that knows its framework."""
    import_module(f"poolwise.models.record_{kind(model)}").run(model, batches, record)
