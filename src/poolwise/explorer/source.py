"""What the explorer shows: arrays cut into planes, and a model's poolings, in the form that its page reads."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise import InvalidType, InvalidValue
from poolwise.explorer.state import described

IN_PAGE = 1 << 22  # numbers that travel into the page with it; of larger arrays it asks for what is looked at
WIRES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class Item:
    """One array to look at.

    values: (channels, rows, columns). channels: their names. picture: whether it is one, shown in grey or in colour.
    call: the text of the pooling that it comes with, "" for none.
    after: (channels, rows, columns) that a model's own pooling made of it. note: what there is to say about it.
    """

    name: str
    values: NDArray[Any]
    channels: tuple[str, ...]
    picture: bool = False
    call: str = ""
    after: NDArray[Any] | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Source:
    """All that one explorer shows. start: the state's text in the beginning. credit: whose pictures these are.

    network: makes the strip of the model whose poolings these are, when somebody asks for it.
    """

    title: str
    items: tuple[Item, ...]
    start: str = ""
    credit: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    network: Callable[[], dict[str, Any]] | None = None

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return sum(item.values.size + (0 if item.after is None else item.after.size) for item in self.items)

    def data(self, most: int = IN_PAGE) -> dict[str, Any]:
        """The page's JSON, with all numbers in it if there are at most so many; else the page asks for them."""
        inside = self.size <= most
        return {
            "title": self.title,
            "credit": self.credit,
            "start": self.start,
            "operations": described(),
            "items": [_item(item, inside) for item in self.items],
            "answers": dict(self.answers),
            "network": self.network is not None,
        }


def _item(item: Item, inside: bool) -> dict[str, Any]:
    return {
        **planes(item.values, inside),
        "name": item.name,
        "channels": list(item.channels),
        "picture": item.picture,
        "call": item.call or None,
        "note": item.note,
        "after": None if item.after is None else planes(item.after, inside),
    }


def planes(values: NDArray[Any], inside: bool = True) -> dict[str, Any]:
    """(channels, rows, columns) as the page reads them; without the numbers where it is to ask for them."""
    low, high = span(values)
    rows, columns = values.shape[1:]
    facts = {"rows": rows, "columns": columns, "dtype": values.dtype.name, "low": low, "high": high}
    return {**facts, "data": [packed(plane) for plane in values] if inside else None}


def packed(plane: NDArray[Any]) -> dict[str, Any]:
    """(rows, columns) with its bytes in base64, little-endian, in the first dtype of `WIRES` that holds it."""
    name = plane.dtype.name
    wire = name if name in WIRES else "float64"
    data = np.ascontiguousarray(plane, np.dtype(wire).newbyteorder("<")).tobytes()
    rows, columns = plane.shape
    return {"rows": rows, "columns": columns, "dtype": name, "wire": wire, "data": base64.b64encode(data).decode()}


def span(values: NDArray[Any]) -> tuple[float, float]:
    """The smallest and the largest finite number; 0 and 0 where there is none."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def array_item(name: str, array: Any, *, call: str = "") -> Item:
    """An array of any rank: the last two axes are rows and columns, all before them channels.

    (height, width, 3 or 4) bytes are a colour picture; its fourth channel is left out.
    Raises InvalidType for what is no array of numbers, InvalidValue for an empty one.
    """
    values = _numbers(array)
    if values.dtype == np.uint8 and values.ndim == 3 and values.shape[2] in (3, 4) and values.shape[0] > 4:
        return picture_item(name, np.moveaxis(values[..., :3], 2, 0), call=call)
    values = values.reshape(-1, *((1,) * (2 - values.ndim) + values.shape)[-2:])
    if min(values.shape[1:]) < 2:  # a window of 2×2, with which all others begin, does not fit
        call = call or f"op=max&window={'x'.join(str(min(2, size)) for size in values.shape[1:])}"
    return Item(name, values, tuple(map(str, range(len(values)))), call=call)


def picture_item(name: str, values: NDArray[Any], *, call: str = "", note: str = "") -> Item:
    """A picture: (1 or 3, height, width)."""
    channels = COLOURS if len(values) == len(COLOURS) else ("grey",)
    return Item(name, np.ascontiguousarray(values), channels, True, call, note=note)


def _numbers(array: Any) -> NDArray[Any]:
    detach = getattr(array, "detach", None)
    given = detach().cpu() if detach is not None else array
    if str(getattr(given, "dtype", "")) == "torch.bfloat16":
        given = given.float()
    try:
        values = np.asarray(given)
    except (TypeError, ValueError) as cause:
        raise InvalidType(f"x must be an array of numbers, got {type(array).__name__} ({cause})") from None
    if values.dtype.kind not in "biuf" and values.dtype.name != "bfloat16":
        raise InvalidType(f"x must be an array of numbers, got {type(array).__name__} of {values.dtype}")
    if not values.size or not values.ndim:
        raise InvalidValue(f"x must have at least 1 axis and 1 element, got shape {values.shape}")
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values.astype(np.float32) if values.dtype.name in ("float16", "bfloat16") else _native(values)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def titled(items: Sequence[Item], title: str, *, credit: str = "", start: str = "") -> Source:
    """A source of these items; InvalidValue if there are none."""
    if not items:
        raise InvalidValue(f"{title}: nothing to look at")
    return Source(title, tuple(items), start, credit)
