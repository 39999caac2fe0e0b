"""The figures of a stage as columns of a table: what each is called, what it means, how it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from poolwise.design.graph import Value
from poolwise.design.show import LINES, SIDES, alike, times
from poolwise.design.stages import Stage
from poolwise.design.trace import Span


class Cell(NamedTuple):
    """What stands in the table. value: the whole number behind a shortened one."""

    text: str
    value: int | None = None


class Column(NamedTuple):
    """One figure of every stage. group: what it is about; help: what it means."""

    name: str
    group: str
    help: str
    cell: Callable[[Stage], Cell]


def window(stage: Stage) -> str:
    tables: Sequence[Any] = stage.geometry.tables
    taps = alike([str(each) for each in stage.geometry.window])
    if any(table.kind != "regular" for table in tables):
        return f"≤{taps}, uneven"
    steps, gaps = (alike([str(getattr(table, name)) for table in tables]) for name in ("step", "dilation"))
    return f"{taps}/{steps}" + ("" if gaps == "1" else f", dilation {gaps}")


def size(value: Value) -> str:
    """Channels @ sizes; where there are no positions, all sizes but the batch's."""
    if not value.axes:
        return times(value.shape[1:])
    return times(value.sizes) if value.channels is None else f"{value.channels}@{times(value.sizes)}"


def strides(stage: Stage) -> str:
    return _seen(stage, "≈", lambda span: f"{span.jump:.0f}" if span.jump >= 10 or span.even else f"{span.jump:.2g}")


def fields(stage: Stage) -> str:
    return _seen(stage, "≤", lambda span: str(span.field))


def _seen(stage: Stage, about: str, said: Callable[[Span], str]) -> str:
    """By axis; about: what stands before a figure that differs from cell to cell."""
    if stage.spans is None:
        return "?"
    return ("" if all(span.even for span in stage.spans) else about) + alike([said(span) for span in stage.spans])


def _starts(stage: Stage) -> str:
    return _seen(stage, "", lambda span: str(span.first).replace("-", "−"))


def _never_read(stage: Stage) -> str:
    edges = [(unread.before, unread.after) for unread in stage.unread]
    gaps = [f"{unread.between} {line}" for unread, line in _named(stage.unread, LINES) if unread.between]
    between = [f"{' and '.join(gaps)} between windows"] if gaps else []
    return ", ".join([*_sided(edges), *between]) or "–"


def _padding(stage: Stage) -> str:
    return ", ".join(_sided([(pads.low, pads.high) for pads in stage.pads])) or "–"


def _padding_read(stage: Stage) -> str:
    if not any(pads.low or pads.high for pads in stage.pads):
        return "–"
    return ", ".join(_sided([(pads.low_read, pads.high_read) for pads in stage.pads])) or "none of it"


def _sided(pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Such as 3 top, 2 bottom, 3 left, 2 right."""
    every = {count for pair in pairs for count in pair}
    if len(every) == 1 and len(pairs) > 1:
        return [f"{count} on every side" for count in every if count]
    named = _named(pairs, SIDES)
    return [f"{count} {side}" for pair, sides in named for count, side in zip(pair, sides, strict=True) if count]


def _named(axes: Sequence[Any], names: dict[int, Any]) -> list[tuple[Any, Any]]:
    """Each axis with what it is called."""
    called = names.get(len(axes), [names[1][0]] * len(axes))
    return list(zip(axes, called, strict=True))


def _percent(share: float) -> str:
    if share == 0:
        return "–"
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"


def short(number: int, unit: str = "") -> Cell:
    for power, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= power:
            return Cell(f"{number / power:.3g} {letter}{unit}", number)
    return Cell(f"{number} {unit}".strip(), number)


COLUMNS = (
    Column("operation", "", "What the stage does, in ONNX’s words.", lambda s: Cell(s.step.op)),
    Column("window / stride", "", "Elements that one window reads, and elements from one window to the next.",
           lambda s: Cell(window(s))),
    Column("size in", "", "Channels @ sizes before the stage.", lambda s: Cell(size(s.before))),
    Column("size out", "", "Channels @ sizes after it.", lambda s: Cell(size(s.after))),
    Column("stride so far", "what a cell sees", "Elements of the network’s input from one cell to the next.",
           lambda s: Cell(strides(s))),
    Column("receptive field", "what a cell sees", "Elements of the network’s input that one cell sees, along an axis.",
           lambda s: Cell(fields(s))),
    Column("starts at", "what a cell sees", "Where the first cell’s receptive field begins; negative: in the padding.",
           lambda s: Cell(_starts(s))),
    Column("never read", "what windows reach", "Elements before the stage that no window of it reads, by side.",
           lambda s: Cell(_never_read(s))),
    Column("padding", "what windows reach", "What is declared around the elements.", lambda s: Cell(_padding(s))),
    Column("padding read", "what windows reach", "How much of it windows reach, by side.",
           lambda s: Cell(_padding_read(s))),
    Column("windows touching padding", "what windows reach", "Their share of all windows.",
           lambda s: Cell(_percent(s.touching))),
    Column("empty windows", "what windows reach", "Windows that read padding alone.",
           lambda s: Cell(f"{s.empty:,}" if s.empty else "–")),
    Column("parameters", "what it costs", "Of the stage and of all steps since the stage before it.",
           lambda s: short(s.parameters)),
    Column("MACs", "what it costs", "Multiplications that are added up, of the same steps, for the whole batch.",
           lambda s: short(s.macs)),
    Column("comparisons", "what it costs", "Of a maximum: one fewer than taps for every output.",
           lambda s: short(s.comparisons)),
    Column("additions", "what it costs", "Of a mean, counted in the same way.", lambda s: short(s.additions)),
    Column("activation", "memory", "Bytes of the stage’s output.", lambda s: short(s.after.nbytes, "B")),
    Column("kept by poolwise", "memory", "Bytes that poolwise keeps of the stage for the backward pass.",
           lambda s: short(s.kept[0], "B")),
    Column("kept by PyTorch", "memory", "Bytes that PyTorch keeps for it.", lambda s: short(s.kept[1], "B")),
)  # fmt: skip
