"""What `poolwise measure` prints: one model, or two and the difference between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from poolwise.design.intervals import Interval
from poolwise.design.show import times

if TYPE_CHECKING:
    from poolwise.design.compare import Comparison
    from poolwise.design.measure import Measurement
    from poolwise.design.pooled import Pooled


def single(measured: Measurement) -> Group:
    """The figures of one model, then its poolings and what its stages hold."""
    grid = _grid("", "measured", "95 % interval")
    for name, interval in (("circular shifts", measured.circular.interval), ("crops", measured.crops.interval)):
        grid.add_row(_consistency(measured, name), *_shown(measured, interval))
    grid.add_row(f"time of {_counted(measured.batch, 'image')}", _milliseconds(measured.seconds), "")
    parts = [_heading(measured), grid, *_retention([measured]), *_bytes([measured])]
    return Group(*parts, *([Text(measured.note, style="dim")] if measured.note else []))


def both(found: Comparison) -> Group:
    """The figures of two models beside each other."""
    before, after = found.before, found.after
    grid = _grid("", "before", "after", "difference", "95 % interval")
    for name, key, difference in (("circular shifts", "circular", found.circular), ("crops", "crops", found.crops)):
        values = [_shown(each, getattr(each, key).interval)[0] for each in (before, after)]
        grid.add_row(_consistency(before, name), *values, *_shown(before, difference, signed=True))
    grid.add_row("same answer before and after", "", *_shown(before, found.same)[:1], "", _shown(before, found.same)[1])
    ratio = f"{after.seconds / before.seconds:.2f} of it"
    seconds = [_milliseconds(each.seconds) for each in (before, after)]
    grid.add_row(f"time of {_counted(before.batch, 'image')}", *seconds, ratio, "")
    changes = [Text(change) for change in found.changes]
    notes = [Text(each, style="dim") for each in dict.fromkeys((before.note, after.note)) if each]
    pair = [before, after]
    return Group(_heading(before), *changes, grid, *_retention(pair), *_bytes(pair), *notes)


def _heading(measured: Measurement) -> Text:
    settings = measured.settings
    borders = "cut from larger images" if settings.real_borders else f"padded by {settings.reach} zeros on each side"
    what = "the class" if settings.answer == "class" else "the cosine of outputs"
    return Text(
        f"{measured.model} ({measured.framework}) on {_counted(measured.images, 'image')} of {times(measured.shape)}: "
        f"agreement of {what}; {_counted(len(settings.moves), 'circular shift')} of at most "
        f"{_counted(settings.reach, 'pixel')}; two crops of each image, {borders}; seed {settings.seed}. "
        "Intervals are over images."
    )


def _consistency(measured: Measurement, name: str) -> str:
    return f"consistency, {name}"


def _shown(measured: Measurement, interval: Interval, *, signed: bool = False) -> tuple[str, str]:
    """(the number, its bounds), in percent where they are shares, in points where they are differences of shares."""
    cosine = measured.settings.answer == "cosine"
    unit = "" if cosine else " points" if signed else " %"

    def number(value: float) -> str:
        text = f"{value:{'+' if signed else ''}.3f}" if cosine else f"{100 * value:{'+' if signed else ''}.1f}"
        return text.replace("-", "−")

    return f"{number(interval.value)}{unit}", f"{number(interval.low)} … {number(interval.high)}"


def _retention(measured: Sequence[Measurement]) -> list[Any]:
    """What each pooling keeps, a row for each; of two models, one after the other."""
    if not any(each.poolings for each in measured):
        return [Text("No pooling was seen.")]
    names = ("",) if len(measured) == 1 else ("before", "after")
    grid = _grid(
        *(["pooling", "model"] if len(measured) > 1 else ["pooling"]), "op", "size", "peak", "energy", "detail"
    )
    for name, each in zip(names, measured, strict=True):
        for pooling in each.poolings:
            grid.add_row(pooling.name, *([name] if name else []), *_kept(pooling))
    images = min(measured[0].images, measured[0].settings.maps)
    said = f"\nWhat poolings keep of their maps, {_counted(images, 'image')}: the largest value, the mean square, and"
    return [Text(f"{said} fine detail against that of every stride-th cell."), grid]


def _kept(pooling: Pooled) -> tuple[str, ...]:
    kept = pooling.retention
    shares = ["–" if share is None else f"{100 * share:.1f} %" for share in (kept.peak, kept.energy, kept.detail)]
    return pooling.op, f"{times(pooling.input[1:])} → {times(pooling.output[1:])}", *shares


def _bytes(measured: Sequence[Measurement]) -> list[Any]:
    """What the stages of a batch hold."""
    if not any(each.stages for each in measured):
        return []
    names = ("",) if len(measured) == 1 else ("before", "after")
    grid = _grid(
        *(["stage", "model"] if len(measured) > 1 else ["stage"]), "op", "output", "kept, poolwise", "kept, PyTorch"
    )
    for name, each in zip(names, measured, strict=True):
        for stage in each.stages:
            held = (stage.activation, stage.kept_by_poolwise, stage.kept_by_pytorch)
            grid.add_row(stage.step, *([name] if name else []), stage.op, *map(_size, held))
    batch = _counted(measured[0].batch, "image")
    return [Text(f"\nBytes of {batch}: each downsampling stage's output, and what is kept of it for backward."), grid]


def _grid(*titles: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    left = {"", "pooling", "stage", "op", "model"}
    for title in titles:
        grid.add_column(title, justify="left" if title in left else "right", overflow="fold")
    return grid


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _size(count: int) -> str:
    return f"{count / 2**20:,.2f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
