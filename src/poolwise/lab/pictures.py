"""The picture of feature maps that the README shows: `python -m poolwise.lab.pictures docs/pictures`.

The runs come from the same store as the report's; what is missing is trained.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from poolwise.lab.figures import PALETTE, scales, telling_channel
from poolwise.lab.runner import run
from poolwise.lab.summary import Results

NAME = "feature-maps.png"
DIGITS = 2  # test images shown


def feature_maps(results: Results, target: Path) -> Path:
    """Digits, and their maps before and after each pooling, as one PNG of at most 150 KB in the folder `target`."""
    runs = [results.of(variant.name)[0] for variant in results.variants]
    figure = Figure(figsize=(1.55 * (len(runs) + 1), 3.42 * DIGITS), facecolor="white")
    grid = figure.subplots(2 * DIGITS, len(runs) + 1)
    taken: list[int] = []
    for digit in range(DIGITS):
        taken.append(telling_channel(runs, digit, taken))
        show(grid[2 * digit, 0], runs[0].maps.images[digit, 0], "digit", palette="gray")
        grid[2 * digit + 1, 0].axis("off")
        for column, (variant, run_) in enumerate(zip(results.variants, runs, strict=True), 1):
            before, after = (maps[digit, taken[-1]].astype(np.float32) for maps in (run_.maps.before, run_.maps.after))
            pair = zip(("before", "after"), (before, after), scales(variant, before, after), strict=True)
            for row, (when, maps, scale) in enumerate(pair, 2 * digit):
                show(grid[row, column], maps, when, scale)
            if digit == 0:
                grid[0, column].set_title(variant.label, fontsize=11, pad=6)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.95, bottom=0.03, wspace=0.06, hspace=0.16)
    target.mkdir(parents=True, exist_ok=True)
    figure.savefig(target / NAME, dpi=110)
    return target / NAME


def show(
    axes: Axes,
    image: NDArray[Any],
    what: str,
    scale: tuple[float, float] | tuple[None, None] = (None, None),
    palette: str = PALETTE,
) -> None:
    """One map, its size beneath."""
    axes.imshow(image, cmap=palette, vmin=scale[0], vmax=scale[1], interpolation="nearest")
    axes.set_xlabel(f"{what}, {image.shape[0]}×{image.shape[1]}", fontsize=9, color="0.35", labelpad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def main(arguments: Sequence[str]) -> None:
    """Train what is missing, and write the picture into the folder named."""
    target = Path(arguments[0] if arguments else "docs/pictures")
    print(feature_maps(run(seeds=1), target))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
