"""All runs of one experiment, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from poolwise.lab.data import Dataset
from poolwise.lab.experiment import Result
from poolwise.lab.measures import MEASURE, Measure
from poolwise.lab.statistics import Interval, interval, paired
from poolwise.lab.variants import REFERENCE, Variant


@dataclass(frozen=True, eq=False)
class Results:
    """What `run` gives back.

    runs: every run of the experiment, variant by variant, seed by seed. fresh: how many were trained now (the others
    were in the store). seconds: how long that took. report, store: the files.
    """

    variants: tuple[Variant, ...]
    runs: tuple[Result, ...]
    data: Dataset
    fresh: int
    seconds: float
    report: Path
    store: Path

    @property
    def reference(self) -> Variant:
        """What the others are compared with: max 2/2, or the first variant where it is not among them."""
        return next((variant for variant in self.variants if variant.name == REFERENCE), self.variants[0])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that every variant was run with."""
        return tuple(sorted({result.config.seed for result in self.runs}))

    def of(self, variant: str) -> tuple[Result, ...]:
        """The runs of one variant, by seed."""
        return tuple(result for result in self.runs if result.config.variant == variant)

    def values(self, variant: str, measure: str) -> dict[int, float]:
        """seed → number, of the runs that have it."""
        numbers = {result.config.seed: MEASURE[measure].of(result) for result in self.of(variant)}
        return {seed: number for seed, number in numbers.items() if number is not None}

    def mean(self, variant: str, measure: str) -> Interval | None:
        """Mean and 95 % interval over the seeds; None where the variant has no such number."""
        values = self.values(variant, measure)
        return interval(list(values.values())) if values else None

    def difference(self, variant: str, measure: str, to: str | None = None) -> Interval | None:
        """Paired difference to another variant (None: the reference), over the seeds of both."""
        other = self.reference.name if to is None else to
        return paired(self.values(variant, measure), self.values(other, measure))

    def varies(self, measure: Measure) -> bool:
        """Whether a seed can change the number: costs are exact, the same in every run."""
        return measure.kind != "cost"


def label(variants: Sequence[Variant], name: str) -> str:
    """How a variant is shown."""
    return next(variant.label for variant in variants if variant.name == name)
