"""The rules that look at one stage: what its windows read of its input and of its padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from poolwise import Blur, Max, Mean, ReLUMax
from poolwise.design.graph import Graph, Step
from poolwise.design.stages import Pads, Stage
from poolwise.design.trace import Unread
from poolwise.geometry import Regular

AXES = {1: ("columns",), 2: ("rows", "columns"), 3: ("slices", "rows", "columns")}


class Evidence(NamedTuple):
    """What a rule says of a step. message: what is wrong, {axes} for the axes' names; fix: how to mend it."""

    step: str
    message: str
    fix: str
    axis: str = ""


def along(step: Step, number: int, message: str, fix: str) -> Evidence:
    """What is said of one axis of a step that reads windows."""
    rank = len(step.reads.tables) if step.reads else 0
    return Evidence(step.name, message, fix, AXES[rank][number] if rank in AXES else f"elements of axis {number}")


def sliding(stage: Stage) -> Iterator[tuple[int, Regular, Unread, Pads]]:
    """The axes that a window slides over."""
    for number, table in enumerate(stage.geometry.tables):
        if isinstance(table, Regular):
            yield number, table, stage.unread[number], stage.pads[number]


def rest(table: Regular) -> tuple[int, int]:
    """A window's span, and how many elements are left behind the last one, padding included."""
    span = (table.taps - 1) * table.dilation + 1
    return span, (table.size + table.low + table.high - span) % table.step


def _cut_off(table: Regular, unread: Unread) -> int:
    """How many elements one more window would begin to reach; those before it lie in the last gap."""
    return min(unread.after, max(0, table.size - (table.start + table.output * table.step)))


def never_read(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table, unread, _pads in sliding(stage):
            lost = _cut_off(table, unread)
            if not lost or table.offset or stage.step.op in ("Slice", "Pad"):
                continue  # what crops is meant to leave something out, and balanced pooling reads it in training
            span, left = rest(table)
            message = (
                f"{lost} of {table.size} {{axes}} are in no window: "
                f"({table.size} + {table.low + table.high} − {span}) mod {table.step} = {left}"
                f"{f', of which {left - lost} are padding or between windows' if left > lost else ''}"
            )
            fix = f"pad {table.step - left} more at the end, crop the input by {left}"
            yield along(stage.step, number, message, fix + (", or set ceil_mode=True" if stage.step.pooling else ""))


def skipping(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table, unread, _pads in sliding(stage):
            gaps = unread.between + unread.after - _cut_off(table, unread)
            if table.dilation == 1 and table.step > table.taps and gaps:
                message = (
                    f"the stride {table.step} is larger than the window {table.taps}: {gaps} of "
                    f"{table.size} {{axes}} lie between windows"
                )
                fix = (
                    f"a window of {table.step}, or before it a mean of {table.step} that takes the stride, so that "
                    "this step takes 1"
                )
                yield along(stage.step, number, message, fix)


def one_sided(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table, _unread, pads in sliding(stage):
            left = rest(table)[1]
            if left and pads.low == pads.high and pads.low_read != pads.high_read:
                message = (
                    f"of {pads.low} + {pads.high} padded {{axes}} windows read {pads.low_read} before "
                    f"and {pads.high_read} after the input: size {table.size}, window {table.taps}, stride {table.step}"
                )
                size = table.size + table.step - left
                fix = f"an input whose size here is {size} consumes both sides' padding alike"
                yield along(stage.step, number, message, fix)


def uneven_coverage(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table, _unread, _pads in sliding(stage):
            weighted = isinstance(stage.step.pooling, Blur)  # whose weights even it out
            if table.dilation == 1 and 1 < table.step < table.taps and table.taps % table.step and not weighted:
                low, high = table.taps // table.step, -(-table.taps // table.step)
                message = (
                    f"{table.taps} mod {table.step} = {table.taps % table.step}: some {{axes}} are "
                    f"in {low} window{'s' * (low > 1)}, some in {high}"
                )
                yield along(stage.step, number, message, f"a window of {high * table.step}")


def uneven_bins(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table in enumerate(stage.geometry.tables):
            if not isinstance(table, Regular) and table.size % table.output:
                message = (
                    f"{table.size} {{axes}} into {table.output} bins: {table.size} mod {table.output} = "
                    f"{table.size % table.output}, so that bins overlap, differ in size, and cannot be exported as a "
                    "pooling"
                )
                fix = f"an input of {table.size // table.output * table.output or table.output} here"
                yield along(stage.step, number, message, fix)


def aliasing(graph: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    smooth = _smoothed(graph)
    for stage in stages:
        if stage.step.inputs[0] in smooth:
            continue
        strides = [getattr(table, "step", 1) for table in stage.geometry.tables]
        is_conv = stage.step.op == "Conv"
        moves = max(strides) > 1 and max(stage.geometry.outputs) > 1
        if moves and (is_conv or isinstance(stage.step.pooling, Max | ReLUMax)):
            what = "a convolution" if is_conv else "a maximum"
            message = f"{what} is taken at one of {max(strides)} positions with no low-pass filter before it"
            fix = "the same at stride 1, then a blur of that stride; it is a partial cure"
            yield Evidence(stage.step.name, message, fix)


def _smoothed(graph: Graph) -> set[str]:
    """The values that come out of a low-pass filter: a mean or a blur."""
    return {
        step.output
        for step in graph.steps
        if isinstance(step.pooling, Mean | Blur) and step.reads and max(step.reads.window) > 1
    }


def empty(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        if stage.empty and stage.step.pooling is not None:
            message = f"{stage.empty} of {prod(stage.geometry.outputs)} windows read padding alone"
            yield Evidence(stage.step.name, message, "less padding, or ceil_mode=False")


def mostly_padding(graph: Graph, _: Sequence[Stage]) -> Iterator[Evidence]:
    """Of every step that reads windows, whether it downsamples or not."""
    for step in graph.steps:
        for number, table in enumerate(step.reads.tables if step.reads else ()):
            if not isinstance(table, Regular) or table.mode != "absent":
                continue
            present = table.table().present
            mostly = present[(present > 0) & (2 * present < table.taps)]
            if len(mostly):
                message = (
                    f"{len(mostly)} of {table.output} windows hold more padding than {{axes}}: "
                    f"one has {mostly.min()} of its {table.taps} taps on the input"
                )
                less = "a smaller dilation" if table.dilation > 1 else "less padding, or ceil_mode=False"
                yield along(step, number, message, less)


def frameworks(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    """What PyTorch, TensorFlow/Keras and ONNX make differently of the same arguments."""
    for stage in stages:
        yield from _divisor(stage)
        for number, table, _unread, _pads in sliding(stage):
            yield from _rounding(stage, number, table)
            yield from _same(stage, number, table)


def _rounding(stage: Stage, number: int, table: Regular) -> Iterator[Evidence]:
    span, left = rest(table)
    down = (table.size + table.low + table.high - span) // table.step + 1
    up = down + bool(left)
    if not stage.step.attributes.get("ceil_mode") or up == down:
        return
    if table.output == up:
        message = f"rounded up there are {up} {{axes}}, rounded down {down}: TensorFlow and Keras have no ceil_mode"
    else:
        message = (
            f"the last of {up} windows would start in the padding: PyTorch drops it and gives {down} {{axes}}, "
            "ONNX before opset 22 keeps it"
        )
    yield along(stage.step, number, message, f"ceil_mode=False and {table.step - left} more padding at the end")


def _same(stage: Stage, number: int, table: Regular) -> Iterator[Evidence]:
    if table.high != table.low + 1 or (table.step == 1 and table.taps % 2 == 0):
        return
    message = (
        f"padded by {table.low} before and {table.high} after, as SAME does: PyTorch's padding={table.high} gives as "
        f"many {{axes}}, each read from {table.high - table.low} earlier"
    )
    yield along(stage.step, number, message, "a padding layer before it that says both sides, alike in every framework")


def _divisor(stage: Stage) -> Iterator[Evidence]:
    op, taps = stage.step.pooling, prod(stage.geometry.window)
    if not isinstance(op, Mean) or op.divisor is not None or not stage.touching:
        return
    present = prod(int(table.table(0, 1).present[0]) for table in stage.geometry.tables)
    if present in (0, taps):
        return
    if op.count_include_pad:
        own, other, whose = taps, present, "the default of TensorFlow, Keras and ONNX"
    else:
        own, other, whose = present, taps, "PyTorch's default"
    message = f"the first window's mean is divided by {own}; {whose} divides by {other}"
    yield Evidence(stage.step.name, message, "no padding, or count_include_pad said in both")
