"""What is left of a feature map after pooling: its peak, its energy, its fine detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Retention:
    """Over the maps that are not blank; None where all are, or where there is nothing to compare.

    peak: the pooled map's largest value over the map's own, averaged. energy: the pooled maps' mean square over the
    maps' own. detail: fine detail of the pooled maps over that of the same maps with every stride-th cell picked and
    nothing pooled: below 1, pooling smooths.
    """

    peak: float | None
    energy: float | None
    detail: float | None


@dataclass
class Tally:
    """Retention over any number of batches: sums over the maps so far. A map is blank without a number above 0."""

    maps: int = 0
    peaks: float = 0.0
    energy: tuple[float, float] = (0.0, 0.0)
    detail: tuple[float, float] = (0.0, 0.0)

    def add(self, before: NDArray[Any], after: NDArray[Any], stride: Sequence[int] | None) -> None:
        """Maps (N, channels, *sizes) before and after one pooling, channel by channel.

        stride: by axis; None where it cannot be said: then detail is not known.
        """
        old, new = (maps.reshape(-1, *maps.shape[2:]).astype(np.float64) for maps in (before, after))
        axes = tuple(range(1, old.ndim))
        alive = old.max(axes) > 0
        old, new = old[alive], new[alive]
        self.maps += len(old)
        self.peaks += float((new.max(axes) / old.max(axes)).sum())
        self.energy = _added(self.energy, np.square(old).mean(axes), np.square(new).mean(axes))
        if stride is not None:
            picked = old[:, *(slice(None, n * s, s) for n, s in zip(new.shape[1:], stride, strict=True))]
            self.detail = _added(self.detail, fine_detail(picked), fine_detail(new))

    @property
    def kept(self) -> Retention:
        """All maps so far."""
        if not self.maps:
            return Retention(None, None, None)
        return Retention(self.peaks / self.maps, _ratio(self.energy), _ratio(self.detail))


def retention(before: NDArray[Any], after: NDArray[Any], stride: Sequence[int] | None) -> Retention:
    """Of maps (N, channels, *sizes) before and after one pooling.

    >>> maps = np.array([[[[0.0, 2.0], [0.0, 0.0]]]])
    >>> retention(maps, maps.max((2, 3), keepdims=True), (2, 2))
    Retention(peak=1.0, energy=4.0, detail=None)
    """
    tally = Tally()
    tally.add(before, after, stride)
    return tally.kept


def fine_detail(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energy of each map above a quarter cycle per cell on any axis: the upper half of what the grid can carry."""
    axes = tuple(range(1, maps.ndim))
    power = np.square(np.abs(np.fft.fftn(maps, axes=axes)))
    fine = np.zeros(maps.shape[1:], bool)
    for axis, size in enumerate(maps.shape[1:]):
        fine |= (np.abs(np.fft.fftfreq(size)) > 0.25).reshape([-1 if each == axis else 1 for each in range(fine.ndim)])
    return (power * fine).mean(axes)


def _added(sums: tuple[float, float], before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float]:
    return sums[0] + float(before.sum()), sums[1] + float(after.sum())


def _ratio(sums: tuple[float, float]) -> float | None:
    return sums[1] / sums[0] if sums[0] > 0 else None
