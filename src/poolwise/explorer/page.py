"""The explorer's page: its ES module as one text, and the HTML around it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from poolwise import InvalidValue, Mean, pool
from poolwise.explorer.answers import TILE, prepared
from poolwise.explorer.source import Item, Source
from poolwise.explorer.state import described, parted, read

# In the order in which each needs only those before it
PARTS = ("pooling", "colour", "board", "fields", "state", "frameworks", "scene", "controls", "network", "explorer")
HERE = ("max", "min", "mean", "sum")  # what the module computes itself
FILE_POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
SERVED_POLICY = FILE_POLICY + "; connect-src 'self'"
LARGEST_FILE = 1 << 23  # numbers in a saved file
LARGEST_PICTURE = 1 << 17  # of a picture in it, about which all operations' answers are some twenty times as many
SMALL_PICTURE = 1 << 14  # of one that stays as it is
MOST_REDUCED = 16


def static(name: str) -> str:
    """A file of the folder `static`."""
    return files("poolwise.explorer").joinpath("static", name).read_text(encoding="utf-8")


@cache
def module() -> str:
    """The parts as one ES module: what one takes from another is in the same text, so the imports go.

    It can stand inside a script element.
    """
    return "\n".join(_part(name) for name in PARTS).replace("</script", "<\\/script")


def _part(name: str) -> str:
    text = re.sub(r"^import \{[^}]*\} from \"\./\w+\.js\";\n", "", static(f"{name}.js"), flags=re.MULTILINE)
    return (
        text if name == PARTS[-1] else re.sub(r"^export (?=class|const|function|async)", "", text, flags=re.MULTILINE)
    )


@cache
def host(name: str) -> str:
    """A file of `static` that is no part of the module, as text to stand behind it."""
    return _part(name).replace("</script", "<\\/script")


@cache
def style() -> str:
    """The module's style sheet."""
    return static("explorer.css")


def html(source: dict[str, Any], *, nonce: str, served: bool) -> str:
    """The whole page. served: whether it may ask for more; a file may not, of anybody."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    text = files("poolwise.explorer").joinpath("templates", "page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        title=source["title"],
        policy=(SERVED_POLICY if served else FILE_POLICY).format(nonce),
        nonce=nonce,
        style=Markup(style()),
        source=Markup(embedded(source)),
        module=Markup(module()),
        served=served,
    )


def embedded(source: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(source, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def saved(source: Source, state: str, *, nonce: str = "poolwise") -> str:
    """One file with everything in it: the arrays, and what Python alone can compute, for the pooling in `state`.

    Pictures too large for a file are reduced, and say so. Raises InvalidValue if other arrays are.
    """
    source = fitting(source)
    data = source.data(LARGEST_FILE)
    data["start"] = state or source.start
    whole = [] if source.network is None else ["network?"]
    data["answers"] = prepared(source, [*questions(source, data["start"]), *whole])
    return html(data, nonce=nonce, served=False)


def answered(source: Source) -> dict[str, Any]:
    """The page's JSON with what only Python computes of the poolings that the arrays come with."""
    data = source.data(LARGEST_FILE)
    calls = [(number, item, *item.call.removeprefix("op=").split("&", 1)) for number, item in enumerate(source.items)]
    asked = [
        question
        for number, item, op, rest in calls
        if read_name(op) not in HERE
        for question in _asked(number, item, [op], rest)
    ]
    data["answers"] = prepared(source, asked)
    return data


def fitting(source: Source) -> Source:
    """The source with its pictures averaged down to what a file holds, with all operations' answers about them."""
    factor = 1
    while _too_large(small := replace(source, items=tuple(reduced(item, factor) for item in source.items))):
        factor += 1
        if not any(item.picture for item in source.items) or factor > MOST_REDUCED:
            told = f"{source.title} has {source.size:,} numbers, and a file holds at most {LARGEST_FILE:,}"
            raise InvalidValue(f"{told}; save less of it")
    return small


def _too_large(source: Source) -> bool:
    drawn = max((item.values.size for item in source.items if item.picture), default=0)
    return source.size > LARGEST_FILE or drawn > LARGEST_PICTURE


def reduced(item: Item, factor: int) -> Item:
    """A picture of which every factor × factor elements are averaged; what is small, and no picture: as it is."""
    if factor == 1 or not item.picture or item.values.size <= SMALL_PICTURE:
        return item
    values = pool(item.values, Mean(), (factor, factor), ceil_mode=True)
    return replace(
        item, values=values, note="; ".join(filter(None, [item.note, f"reduced {factor}×{factor} for this file"]))
    )


def questions(source: Source, state: str) -> list[str]:
    """What a page without Python would ask for: every operation beyond its own four, on the pooling of each item."""
    beyond = [about["name"] for about in described() if about["name"] not in HERE]
    asked: list[str] = []
    for number, item in enumerate(source.items):
        for call in {item.call, _call(state)} - {""}:
            rest = call.partition("&")[2]
            named = call.partition("&")[0].removeprefix("op=")
            ops = [*([named] if read_name(named) in beyond else []), *beyond]
            asked.extend(_asked(number, item, list(dict.fromkeys(ops)), rest))
    return asked


def _asked(number: int, item: Item, ops: Sequence[str], rest: str) -> list[str]:
    """What is asked about operations on one geometry of an item."""
    return [
        f"{kind}?item={number}&channel={channel}&what={what}&op={op}&{rest}{tile}"
        for op in ops
        for channel in range(min(len(item.values), 3))
        for what in ("output", "gradient")
        for kind, tile in _pieces(item)
    ]


def read_name(op: str) -> str:
    """The name in `lp(p:3)`."""
    return op.partition("(")[0]


def _call(state: str) -> str:
    """The pooling's part of a state's text."""
    names = ("op", "global", "adaptive", "bins", "window", "stride", "padding", "dilation", "ceil", "mode")
    parts = parted(state)
    parts.setdefault("op", "max")
    if not {"window", "adaptive", "global"} & set(parts):
        parts["window"] = "2x2"
    read("&".join(f"{name}={parts[name]}" for name in names if name in parts))
    return "&".join(f"{name}={parts[name]}" for name in names if name in parts)


def _pieces(item: Item) -> list[tuple[str, str]]:
    rows, columns = (-(-size // TILE) for size in item.values.shape[1:])
    tiles = [f"&level=0&row={row}&column={column}" for row in range(rows) for column in range(columns)]
    return [("field", ""), *(("tile", tile) for tile in tiles)]
