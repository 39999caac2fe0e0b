"""What the poolings of a model keep of their maps, on images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from poolwise import Fault, InvalidValue
from poolwise.design.retention import Retention, Tally
from poolwise.design.show import alike
from poolwise.models import said
from poolwise.models.record import Pooling, Record, run


@dataclass(frozen=True)
class Pooled:
    """One pooling of a model. op: in poolwise's words, such as `max 3/2`. input, output: (channels, *sizes)."""

    name: str
    op: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    retention: Retention


@dataclass
class Tallies(Record):
    """Retention, summed up as a model runs; no map is kept."""

    images = slice(None)
    seen: dict[str, Pooled] = field(default_factory=dict[str, Pooled])
    sums: dict[str, Tally] = field(default_factory=dict[str, Tally])

    def add(self, name: str, pooling: Pooling, before: NDArray[Any], after: NDArray[Any], dtype: Any) -> None:
        """One call of a pooling more."""
        named, (one, other) = self.named(name), (before.shape[1:], after.shape[1:])
        tally = self.sums.setdefault(named, Tally())
        if one[0] == other[0] and len(one) == len(other):
            tally.add(before, after, _stride(pooling.arguments, one[1:], other[1:]))
        self.seen[named] = Pooled(named, spelled(pooling), one, other, tally.kept)


def pooled(model: Any, batches: Iterable[NDArray[Any]]) -> tuple[Pooled, ...]:
    """Every pooling that is seen while a model runs on batches, in the order of execution.

    Raises InvalidValue if the model does not run on them.

    >>> import numpy as np, torch
    >>> for each in pooled(torch.nn.MaxPool2d(2), [np.ones((1, 1, 4, 4), np.float32)]):
    ...     print(each.op, each.output, each.retention.peak)
    max 2/2 (1, 2, 2) 1.0
    """
    record = Tallies()
    try:
        run(model, batches, record)
    except Fault:
        raise
    except Exception as cause:  # whatever the user's model raises
        raise InvalidValue(f"model must run while its poolings are watched, got {said(cause)}") from None
    return tuple(record.seen.values())


def spelled(pooling: Pooling) -> str:
    """`max 3/2`, `mean to 7×7`; `?` where poolwise has no name for it."""
    name = pooling.called or "?" if pooling.op is None else pooling.op.name
    if "output_size" in pooling.arguments:
        return f"{name} to {alike([str(size) for size in pooling.arguments['output_size']])}"
    if "window" not in pooling.arguments:
        return name
    window, stride = (alike([str(size) for size in pooling.arguments[key]]) for key in ("window", "stride"))
    return f"{name} {window}/{stride}"


def _stride(arguments: Mapping[str, Any], before: Sequence[int], after: Sequence[int]) -> tuple[int, ...] | None:
    """By axis; of adaptive bins where they are all alike."""
    if "stride" in arguments:
        return tuple(arguments["stride"])
    even = all(n % m == 0 for n, m in zip(before, after, strict=True))
    return tuple(n // m for n, m in zip(before, after, strict=True)) if even else None
