"""What is left of a feature map after pooling: its peak, its energy, its fine detail."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Retention:
    """Over the maps that are not blank; None where all are.

    peak: the pooled map's largest value over the map's own, averaged. energy: the pooled maps' mean square over the
    maps' own. detail: fine detail of the pooled maps over that of the same maps with every stride-th cell picked and
    nothing pooled: below 1, pooling smooths.
    """

    peak: float | None
    energy: float | None
    detail: float | None


def retention(before: torch.Tensor, after: torch.Tensor, stride: int) -> Retention:
    """Of maps (N, channels, height, width) before and after the same pooling, channel by channel."""
    old, new = (maps.flatten(0, 1).double() for maps in (before, after))
    alive = old.amax((1, 2)) > 0
    if not alive.any():
        return Retention(None, None, None)
    old, new = old[alive], new[alive]
    picked = old[:, ::stride, ::stride][:, : new.shape[1], : new.shape[2]]
    return Retention(
        peak=(new.amax((1, 2)) / old.amax((1, 2))).mean().item(),
        energy=(new.square().mean() / old.square().mean()).item(),
        detail=(fine_detail(new) / fine_detail(picked)).item(),
    )


def fine_detail(maps: torch.Tensor) -> torch.Tensor:
    """Energy above a quarter cycle per cell on either axis: the upper half of what the grid can carry."""
    power = torch.fft.fft2(maps).abs().square()
    rows, columns = (torch.fft.fftfreq(size).abs() > 0.25 for size in maps.shape[1:])
    return (power * (rows[:, None] | columns)).mean()
