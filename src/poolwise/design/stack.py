"""The language in which a stack of layers is written on the command line, and the geometry of each layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from textwrap import fill
from typing import ClassVar, NoReturn, TypeAlias

from poolwise import Fault, Geometry, InvalidValue, ops

Pads: TypeAlias = str | tuple[tuple[int, int], ...]

MAX_SIZE = 10_000_000  # elements per axis: what is never read is counted element by element
MAX_AXES = 8
POOLINGS = {name: kind.name for kind in ops.OPERATIONS for name in (kind.stems[0], kind.name)}
ALL_NAMES = ("conv", *POOLINGS, *(f"{form}{name}" for form in ("adaptive", "global") for name in ("", *POOLINGS)))
NAMES = sorted(ALL_NAMES, key=len, reverse=True)


def _listed(names: Iterable[str]) -> str:
    """Lines of the column in which things are explained."""
    return fill(", ".join(names), width=79, initial_indent=" " * 9, subsequent_indent=" " * 9)


GRAMMAR = f"""\
An input, then layers, in the order in which data meets them.

input    28x28          sizes of the pooled axes (one or two numbers)
         3x224x224      channels first, where there are three or four numbers
         64x64x64:1     sizes:channels, for any number of axes
layer    NAME WINDOW [/STRIDE] [PADDING] [dDILATION] [ceil] [:CHANNELS], written without spaces
NAME     conv, or a pooling:
{_listed(POOLINGS)}
WINDOW   3 or 3x5       one number stands for every axis
STRIDE   /2 or /2x1     when left out: a pooling's window, 1 for conv
PADDING  p1, p1x2, p0+1 (before+after, as in p0+1x1+1), same, same_lower, valid
CHANNELS conv3:32       channels that a convolution gives
or       adaptive7, adaptiveavg7x5, global, globalmax   (an output size; one cell)
"""

NUMBERS = re.compile(r"[0-9]+(?:x[0-9]+)*")
PADS = re.compile(r"[0-9]+(?:\+[0-9]+)?(?:x[0-9]+(?:\+[0-9]+)?)*")


@dataclass(frozen=True)
class Input:
    """What enters the stack. channels: None where they were not given."""

    sizes: tuple[int, ...]
    channels: int | None = None


@dataclass(frozen=True)
class Layer:
    """One layer, as it was written and as it was understood; a tuple of one number stands for every axis.

    name: "conv" or an operation's name; "" where only the geometry was given. text: the word on the command line.
    """

    text: str
    name: str
    window: tuple[int, ...] = ()
    stride: tuple[int, ...] | None = None
    padding: Pads = ((0, 0),)
    dilation: tuple[int, ...] = (1,)
    ceil_mode: bool = False
    channels: int | None = None

    form: ClassVar[str] = "sliding"

    def geometry(self, sizes: tuple[int, ...]) -> Geometry:
        """What each output cell reads of an input of these sizes."""
        rank = len(sizes)
        padding = self.padding if isinstance(self.padding, str) else _each(self.padding, rank)
        return Geometry.of(
            sizes,
            window=_each(self.window, rank),
            stride=None if self.stride is None else _each(self.stride, rank),
            padding=padding,
            dilation=_each(self.dilation, rank),
            ceil_mode=self.ceil_mode,
        )


@dataclass(frozen=True)
class Adaptive(Layer):
    """A pooling to a given output size, which stands in `window`."""

    form: ClassVar[str] = "adaptive"

    def geometry(self, sizes: tuple[int, ...]) -> Geometry:
        return Geometry.adaptive(sizes, output_size=_each(self.window, len(sizes)))


@dataclass(frozen=True)
class Global(Layer):
    """A pooling to one cell."""

    form: ClassVar[str] = "global"

    def geometry(self, sizes: tuple[int, ...]) -> Geometry:
        return Geometry.whole(sizes, tuple(range(len(sizes))))


def parse(words: Sequence[str]) -> tuple[Input, list[Layer]]:
    """The input and the layers that the words name (see `GRAMMAR`).

    Raises InvalidValue, which names the word, its place, the place inside the word, and what is allowed there.

    >>> parse(["28x28:1", "conv3:32", "max2/2"])[0]
    Input(sizes=(28, 28), channels=1)
    """
    if not words:
        raise InvalidValue("stack must start with an input such as 28x28, got nothing", "shapes")
    given = _input(_Word(words[0], 1))
    return given, [_layer(_Word(text, number), len(given.sizes)) for number, text in enumerate(words[1:], start=2)]


class _Word:
    """One word of the command line, read from left to right."""

    def __init__(self, text: str, number: int) -> None:
        self.text = text
        self.number = number
        self.at = 0

    def take(self, text: str) -> bool:
        """Whether the rest starts with `text`, which is then read."""
        found = self.text.startswith(text, self.at)
        self.at += len(text) if found else 0
        return found

    def match(self, pattern: re.Pattern[str], wanted: str) -> str:
        """What stands here by the pattern; a fault where nothing does."""
        found = pattern.match(self.text, self.at)
        if found is None:
            self.fail(wanted)
        self.at = found.end()
        return found.group()

    def numbers(self, wanted: str, *, least: int = 1) -> tuple[int, ...]:
        """Numbers joined by x, each at least `least`."""
        start = self.at
        numbers = tuple(int(part[:20]) for part in self.match(NUMBERS, wanted).split("x"))
        if min(numbers) < least or max(numbers) > MAX_SIZE:
            self.at = start
            self.fail(f"numbers from {least} to {MAX_SIZE}")
        return numbers

    def number_of(self, what: str) -> int:
        """One number."""
        start = self.at
        number, *more = self.numbers(f"a number of {what}")
        if more:
            self.at = start
            self.fail(f"one number of {what}")
        return number

    def ends(self) -> bool:
        return self.at == len(self.text)

    def fail(self, wanted: str) -> NoReturn:
        """A fault that says where the word stops being understood."""
        rest = self.text[self.at :] or "its end"
        place = f"character {self.at + 1} ({rest})"
        raise InvalidValue(f"word {self.number}, {self.text!r}: expected {wanted} at {place}", "shapes")


def _input(word: _Word) -> Input:
    numbers = word.numbers("sizes such as 28x28")
    if word.take(":"):
        given = Input(numbers, word.number_of("channels"))
    elif len(numbers) in (3, 4):
        given = Input(numbers[1:], numbers[0])
    else:
        given = Input(numbers)
    if not word.ends():
        word.fail("nothing more, or :CHANNELS" if given.channels is None else "nothing more")
    if len(given.sizes) > MAX_AXES or (given.channels is None and len(numbers) > 2):
        word.at = 0
        word.fail("one or two sizes, channels and two or three sizes, or sizes:channels")
    return given


def _layer(word: _Word, rank: int) -> Layer:
    name = next((name for name in NAMES if word.take(name)), None)
    if name is None:
        word.fail(f"one of conv, {', '.join(POOLINGS)}, adaptive…, global…")
    for form, kind in (("adaptive", Adaptive), ("global", Global)):
        if name.startswith(form):
            bare = kind(word.text, POOLINGS.get(name.removeprefix(form), ""))
            return _whole(word, bare, rank) if kind is Global else _adaptive(word, bare, rank)
    return _sliding(word, POOLINGS.get(name, name), rank)


def _whole(word: _Word, layer: Layer, rank: int) -> Layer:
    if not word.ends():
        word.fail("nothing more: a global pooling has no window")
    return replace(layer, window=(1,) * rank)


def _adaptive(word: _Word, layer: Layer, rank: int) -> Layer:
    sizes = _fitting(word, rank, "an output size such as 7 or 7x7")
    if not word.ends():
        word.fail("nothing more after the output size")
    return replace(layer, window=sizes)


def _sliding(word: _Word, name: str, rank: int) -> Layer:
    window = _fitting(word, rank, "a window such as 3 or 3x5")
    layer = Layer(word.text, name, window, stride=(1,) if name == "conv" else None)
    if word.take("/"):
        layer = replace(layer, stride=_fitting(word, rank, "a stride such as 2 or 2x1"))
    seen: set[str] = set()
    while not word.ends():
        layer = _modified(word, layer, rank, seen)
    return layer


def _modified(word: _Word, layer: Layer, rank: int, seen: set[str]) -> Layer:
    """The layer with the next padding, dilation, rounding or number of channels; each may be said once."""
    mark = next((mark for mark in MODIFIERS if word.text.startswith(mark, word.at)), "")
    field, read = MODIFIERS.get(mark, ("", _read_yes))
    meaningless = "ceil_mode" if layer.name == "conv" else "channels"
    if not mark or field in seen or field == meaningless:
        word.fail(_allowed(layer, seen))
    word.take(mark)
    seen.add(field)
    return replace(layer, **{field: read(word, rank, mark)})


def _allowed(layer: Layer, seen: set[str]) -> str:
    last = ("channels", ":CHANNELS") if layer.name == "conv" else ("ceil_mode", "ceil")
    marks = {"padding": "p1, same, same_lower, valid", "dilation": "d2", last[0]: last[1]}
    return ", ".join([mark for field, mark in marks.items() if field not in seen] + ["or the end"])


def _read_padding(word: _Word, rank: int, mark: str) -> tuple[tuple[int, int], ...]:
    start = word.at
    parts = word.match(PADS, "a padding such as 1, 1x2 or 0+1").split("x")
    pads = tuple((int(low[:20]), int((high or low)[:20])) for low, _, high in (part.partition("+") for part in parts))
    if len(pads) not in (1, rank) or max(map(max, pads)) > MAX_SIZE:
        word.at = start
        word.fail(f"1 or {rank} paddings of at most {MAX_SIZE}")
    return pads


def _read_dilation(word: _Word, rank: int, mark: str) -> tuple[int, ...]:
    return _fitting(word, rank, "a dilation such as 2")


def _read_channels(word: _Word, rank: int, mark: str) -> int:
    return word.number_of("channels")


def _read_name(word: _Word, rank: int, mark: str) -> str:
    return mark


def _read_yes(word: _Word, rank: int, mark: str) -> bool:
    return True


MODIFIERS = {
    "same_lower": ("padding", _read_name),
    "same": ("padding", _read_name),
    "valid": ("padding", _read_name),
    "ceil": ("ceil_mode", _read_yes),
    "p": ("padding", _read_padding),
    "d": ("dilation", _read_dilation),
    ":": ("channels", _read_channels),
}


def _fitting(word: _Word, rank: int, wanted: str) -> tuple[int, ...]:
    """Numbers, one for every axis or one for all."""
    start = word.at
    numbers = word.numbers(wanted)
    if len(numbers) not in (1, rank):
        word.at = start
        word.fail(f"1 or {rank} numbers, as the input has {rank} axes,")
    return numbers


def _each(numbers: tuple, rank: int) -> tuple:
    return numbers * rank if len(numbers) == 1 else numbers


def placed(layer: Layer, number: int, sizes: tuple[int, ...]) -> Geometry:
    """The layer's geometry; a fault says which layer does not fit which sizes."""
    try:
        return layer.geometry(sizes)
    except Fault as fault:
        size = "x".join(map(str, sizes))
        raise InvalidValue(f"word {number}, {layer.text!r} on {size}: {fault.fact}", "shapes") from None
