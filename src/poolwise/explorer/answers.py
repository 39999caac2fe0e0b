"""What the page asks of Python: pooled planes, gradients, and tiles of what is too large to send; by poolwise."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise import Fault, InvalidValue, Mean, explain, pool
from poolwise.explorer.source import Source, packed, span
from poolwise.explorer.state import Asked, parted, read

TILE = 256
KEPT_BYTES = 1 << 29
MOST_CELLS = 1 << 26
MOST_GATHERED = 1 << 28  # taps; more of them, without a fast kernel, take longer than somebody waits
_PLACE = ("level", "row", "column")
MOST_LOOPED = 1 << 18  # windows, where a gradient goes through them one at a time


class Answers:
    """Answers to one page about one source. What was computed is kept, up to half a gigabyte of it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._kept: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self._lock = Lock()
        self._kinds: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "field": self._field,
            "tile": self._tile,
            "change": self._change,
            "network": self._network,
        }

    def answer(self, kind: str, query: str) -> dict[str, Any]:
        """The answer to `kind?query`; a Fault says what was wrong with the question."""
        if kind not in self._kinds:
            raise InvalidValue(f"a question must be one of {', '.join(self._kinds)}, got {kind!r}")
        with self._lock:
            return self._kinds[kind](parted(query))

    def _field(self, asked: Mapping[str, str]) -> dict[str, Any]:
        grid = self._grid(asked)
        low, high = span(grid)
        return {"rows": grid.shape[0], "columns": grid.shape[1], "dtype": grid.dtype.name, "low": low, "high": high}

    def _tile(self, asked: Mapping[str, str]) -> dict[str, Any]:
        level, row, column = (_whole(asked, name) for name in ("level", "row", "column"))
        grid = self._reduced(asked, min(level, 24))
        tile = grid[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        if not tile.size:
            raise InvalidValue(f"row and column must name a tile of the grid {grid.shape}, got {row} and {column}")
        return packed(tile)

    def _change(self, asked: Mapping[str, str]) -> dict[str, Any]:
        still = {name: value for name, value in asked.items() if name != "shift"}
        inputs = [self._grid({**some, "what": "input"}) for some in (still, asked)]
        outputs = [self._grid({**some, "what": "output"}) for some in (still, asked)]
        return {"input": changed(*inputs), "output": changed(*outputs)}

    def _network(self, _: Mapping[str, str]) -> dict[str, Any]:
        if self.source.network is None:
            raise InvalidValue("network must be asked of a model, and these are arrays")
        return self.source.network()

    # ---- grids ----

    def _grid(self, asked: Mapping[str, str]) -> NDArray[Any]:
        text = "&".join(f"{name}={value}" for name, value in sorted(asked.items()) if name not in _PLACE)
        return self._once(text, lambda: self._made(asked))

    def _made(self, asked: Mapping[str, str]) -> NDArray[Any]:
        what = asked.get("what", "input")
        plane = self._plane(asked, what)
        if what == "after":
            return plane
        down, right = _shift(asked)
        plane = np.roll(plane, (down, right), (0, 1)) if down or right else plane
        if what == "input":
            return plane
        pooling = read("&".join(f"{name}={value}" for name, value in asked.items()))
        if what == "output":
            plane = taken(pooling, plane)
            return affordable(pooling, plane).forward(plane)
        if what == "gradient":
            return gradient(pooling, plane)
        raise InvalidValue(f"what must be input, output, gradient or after, got {what!r}")

    def _plane(self, asked: Mapping[str, str], what: str) -> NDArray[Any]:
        item, channel = _whole(asked, "item"), _whole(asked, "channel")
        if item >= len(self.source.items):
            raise InvalidValue(f"item must be less than {len(self.source.items)}, got {item}")
        shown = self.source.items[item]
        values = shown.after if what == "after" else shown.values
        if values is None or channel >= len(values):
            raise InvalidValue(f"channel must be one of {shown.name}'s, got {channel}")
        return values[channel]

    def _reduced(self, asked: Mapping[str, str], level: int) -> NDArray[Any]:
        """The grid with every 2^level × 2^level elements averaged."""
        grid = self._grid(asked)
        if level == 0:
            return grid
        side = 2**level
        name = "&".join(f"{key}={value}" for key, value in sorted(asked.items()) if key not in ("row", "column"))
        floats = grid if grid.dtype.kind == "f" else grid.astype(np.float32)
        window = tuple(min(side, size) for size in grid.shape)
        return self._once(name, lambda: pool(floats, Mean(), window, stride=(side, side), ceil_mode=True))

    def _once(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if name not in self._kept:
            self._kept[name] = make()
            while sum(grid.nbytes for grid in self._kept.values()) > KEPT_BYTES and len(self._kept) > 1:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]


def taken(pooling: Asked, plane: NDArray[Any]) -> NDArray[Any]:
    """The plane in a dtype that the operation takes: a picture's bytes as floats, where it takes floats only."""
    try:
        pooling.op.result_dtype(plane.dtype.name)
    except Fault:
        return plane.astype(np.float32)
    return plane


def affordable(pooling: Asked, plane: NDArray[Any]) -> Asked:
    """The pooling, unless somebody would wait for it in vain."""
    geometry = pooling.geometry(plane.shape)
    cells, taps = prod(geometry.output_shape), prod(geometry.window)
    if cells > MOST_CELLS:
        raise InvalidValue(f"the output would have {cells:,} cells, and is shown up to {MOST_CELLS:,}; pad less")
    if cells * taps > MOST_GATHERED and not native(pooling, plane):
        raise InvalidValue(f"{pooling.op!r} would read {cells * taps:,} taps, too many to wait for; look at less")
    return pooling


def native(pooling: Asked, plane: NDArray[Any]) -> bool:
    """Whether the fast kernel serves it."""
    window = pooling.geometry(plane.shape).window  # bins or windows, the kernel serves both or neither
    return explain(plane, pooling.op, tuple(map(min, window, plane.shape))).kernel == "native"


def gradient(pooling: Asked, plane: NDArray[Any]) -> NDArray[Any]:
    """What a gradient of one at every output brings to every element."""
    x = plane if plane.dtype.kind == "f" else plane.astype(np.float64)
    y = affordable(pooling, x).forward(x)
    if y.size > MOST_LOOPED and not native(pooling, x):
        raise InvalidValue(f"the gradient of {pooling.op!r} takes too long for {y.size:,} windows; look at less")
    return pooling.backward(np.ones_like(y), x)


def changed(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Σ|after − before| / Σ|before| over the numbers that are finite in both."""
    a, b = before.astype(np.float64), after.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.abs(b - a)
    here = np.isfinite(gap)
    whole = np.abs(a[here]).sum()
    return float(gap[here].sum() / whole) if whole else 0.0


def _whole(asked: Mapping[str, str], name: str) -> int:
    text = asked.get(name, "0")
    if not text.isdecimal() or len(text) > 9:
        raise InvalidValue(f"{name} must be a whole number, got {text!r}")
    return int(text)


def _shift(asked: Mapping[str, str]) -> tuple[int, int]:
    try:
        down, right = map(int, asked.get("shift", "0x0").split("x"))
    except ValueError:
        raise InvalidValue(f"shift must be two whole numbers such as 1x0, got {asked['shift']!r}") from None
    return down, right


def prepared(source: Source, questions: Iterable[str]) -> dict[str, Any]:
    """Answers to some questions, by question; those that have none are left out."""
    answers = Answers(source)
    found: dict[str, Any] = {}
    for question in questions:
        kind, _, query = question.partition("?")
        with suppress(Fault):
            found[question] = answers.answer(kind, query)
    return found
