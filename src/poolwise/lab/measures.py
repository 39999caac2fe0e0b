"""What is told of each variant: one table that the terminal, the report and the claims all read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from poolwise.lab.experiment import Result
from poolwise.lab.statistics import Interval

Kind = Literal["cost", "time", "outcome", "retention"]


@dataclass(frozen=True)
class Measure:
    """One number of a run.

    key: the name of the result's attribute. short: the label in narrow tables.
    unit: what follows it. scale: what it is multiplied by to be shown in that unit. digits: shown after the point.
    of: the number itself, None where the variant has none.
    """

    key: str
    label: str
    short: str
    kind: Kind
    unit: str
    scale: float
    digits: int
    meaning: str

    def of(self, result: Result) -> float | None:
        """The number itself; None where the variant has none."""
        return getattr(result, self.key)

    def number(self, value: float) -> str:
        """The number as shown, without its unit."""
        return f"{value * self.scale:,.{self.digits}f}".replace("-", "−")

    def difference(self, value: float) -> str:
        """A difference as shown, with its sign."""
        text = self.number(value)
        is_zero = not text.strip("−0.,")
        return text.strip("−") if is_zero else text if value < 0 else f"+{text}"

    def with_interval(self, value: Interval) -> str:
        """`97.1 ± 0.4`; the mean alone where nothing varies or n is 1."""
        half = value.half_width
        return self.number(value.mean) + (f" ± {self.number(half)}" if half else "")

    def difference_with_interval(self, value: Interval) -> str:
        half = value.half_width
        return self.difference(value.mean) + (f" ± {self.number(half)}" if half else "")


_COSTS = (
    ("cells", "Map size", "map", "cells", "Cells of one channel after the first pooling.", 1, 0),
    ("parameters", "Parameters", "params", "", "Learned numbers of the whole network.", 1, 0),
    (
        "macs",
        "MACs",
        "MACs",
        "",
        "Multiplications with addition for one image, in convolutions and dense layers.",
        1,
        0,
    ),
    (
        "reads",
        "Window reads",
        "reads",
        "",
        "Elements that the pooling windows read for one image: one comparison or addition each.",
        1,
        0,
    ),
    (
        "stage_kept",
        "Kept by pooling",
        "pool keeps",
        "KiB",
        "Memory that the pooling stage itself holds for backward, per image.",
        1 / 1024,
        1,
    ),
    (
        "step_kept",
        "Kept by step",
        "step keeps",
        "KiB",
        "All memory that one training step holds for backward, per image; parameters not counted.",
        1 / 1024,
        1,
    ),
)
_SHARES: tuple[tuple[str, str, str, Kind, str, str], ...] = (
    ("train_accuracy", "Train accuracy", "train", "outcome", "%", "Right answers on the training images."),
    ("test_accuracy", "Test accuracy", "test", "outcome", "%", "Right answers on the test images."),
    ("gap", "Generalisation gap", "gap", "outcome", "pts", "Train accuracy minus test accuracy, after the last epoch."),
    (
        "circular",
        "Consistency, circular",
        "circular",
        "outcome",
        "%",
        "Same answer after a circular shift: all shifts of at most 2 pixels, of up to 500 test images spread evenly "
        "over the classes.",
    ),
    (
        "crops",
        "Consistency, crops",
        "crops",
        "outcome",
        "%",
        "Same answer for two random crops of the image padded by 2 pixels on each side.",
    ),
    (
        "peak",
        "Peak kept",
        "peak",
        "retention",
        "%",
        "The pooled map's largest value over the map's own, averaged over maps.",
    ),
    ("energy", "Energy kept", "energy", "retention", "%", "The pooled maps' mean square over the maps' own."),
    (
        "detail",
        "Fine detail",
        "fine detail",
        "retention",
        "%",
        "Energy above a quarter cycle per cell in the pooled maps, over that in the same maps with every "
        "stride-th cell picked and nothing pooled. Below 100 %, pooling smooths.",
    ),
)


def _share(key: str, label: str, short: str, kind: Kind, unit: str, meaning: str) -> Measure:
    return Measure(key, label, short, kind, unit, 100, 1, meaning)


MEASURES = (
    *(
        Measure(k, label, short, "cost", unit, scale, digits, says)
        for k, label, short, unit, says, scale, digits in _COSTS
    ),
    Measure(
        "step_seconds",
        "Step time",
        "step",
        "time",
        "ms",
        1000,
        1,
        "Median time of a training step (one batch: forward, backward, Adam).",
    ),
    *(_share(*row) for row in _SHARES),
)
MEASURE = {measure.key: measure for measure in MEASURES}
