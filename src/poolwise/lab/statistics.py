"""Means with 95 % intervals, and paired differences: the same seeds on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from scipy.special import stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean of n values and Student's 95 % interval around it; low and high are None where n is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the interval's length."""
        return None if self.high is None else self.high - self.mean


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of a sample's mean.

    >>> interval([1.0, 2.0, 3.0]).half_width.__round__(4)
    2.4841
    """
    n, mean = len(values), fmean(values)
    if n < 2:
        return Interval(mean, None, None, n)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * stdev(values) / sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> Interval | None:
    """The interval of values − reference over the seeds that both have; None where they share none.

    Source: Student, The probable error of a mean, Biometrika 1908.
    """
    shared = sorted(values.keys() & reference.keys())
    return interval([values[seed] - reference[seed] for seed in shared]) if shared else None
