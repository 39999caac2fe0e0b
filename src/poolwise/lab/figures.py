"""The report's pictures: curves, intervals, bars, and feature maps before and after."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from poolwise import Operation
from poolwise.explorer.maps import pair, pairs
from poolwise.lab.experiment import Result
from poolwise.lab.measures import MEASURE, Measure
from poolwise.lab.statistics import Interval
from poolwise.lab.summary import Results
from poolwise.lab.svg import FIRST, INK, MUTED, SECOND, canvas, inline
from poolwise.lab.variants import Variant

PALETTE = "cividis"  # even steps of lightness, for every kind of colour vision


@dataclass(frozen=True)
class Picture:
    """A drawing with what it shows. title: may be empty. svg: one element."""

    title: str
    svg: str


@dataclass(frozen=True)
class Tile:
    """A small bitmap. source: a data address. alt: what it shows."""

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Sheet:
    """One digit: how its map looks before and after each variant's pooling.

    columns: (variant, tile before, tile after). pairs: the same with their numbers, for the explorer's module.
    """

    title: str
    image: Tile
    columns: tuple[tuple[str, Tile, Tile], ...]
    pairs: dict[str, Any]


def curves(results: Results) -> list[Picture]:
    """Accuracy after each epoch, one drawing per variant on a common scale."""
    every = [value for result in results.runs for e in result.epochs for value in (e.train_accuracy, e.test_accuracy)]
    floor = max(0.0, np.floor(min(np.quantile(every, 0.03), 0.95) * 20) / 20)
    return [curve(results, variant, floor) for variant in results.variants]


def curve(results: Results, variant: Variant, floor: float) -> Picture:
    figure, axes = canvas(2.0, left=0.13, bottom=0.19)
    runs = results.of(variant.name)
    epochs = np.arange(1, len(runs[0].epochs) + 1)
    for part, colour, style in (("train_accuracy", SECOND, (0, (4, 2))), ("test_accuracy", FIRST, "solid")):
        values = 100 * np.array([[getattr(epoch, part) for epoch in run.epochs] for run in runs])
        axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.22, linewidth=0)
        axes.plot(epochs, values.mean(0), color=colour, linewidth=1.8, linestyle=style, marker="o", markersize=2.2)
    axes.set_ylim(100 * floor, 100.8)
    axes.set_xlim(0.6, epochs[-1] + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch", color=MUTED, labelpad=2)
    last = [results.mean(variant.name, key) for key in ("train_accuracy", "test_accuracy")]
    train, test = (MEASURE["test_accuracy"].with_interval(value) for value in last if value)
    alt = f"Accuracy of {variant.label} after each epoch; at the end {train} % in training, {test} % in the test."
    return Picture(variant.label, inline(figure, alt))


def dots(results: Results, key: str) -> Picture:
    """Every seed, the mean and its interval, one line per variant."""
    measure = MEASURE[key]
    shown = [variant for variant in results.variants if results.values(variant.name, key)]
    figure, axes = rows(shown)
    for row, variant in enumerate(shown):
        colour = FIRST if variant is results.reference else INK
        values = [measure.scale * value for value in results.values(variant.name, key).values()]
        axes.scatter(values, [row + 0.24] * len(values), s=7, color=MUTED, linewidths=0)
        mean = results.mean(variant.name, key)
        assert mean is not None  # shown are those with values
        span(axes, measure, mean, row, colour)
    axes.margins(x=0.06)
    return Picture(titled(measure), inline(figure, spoken(results, shown, measure)))


def span(axes: Axes, measure: Measure, mean: Interval, row: int, colour: str) -> None:
    if mean.low is not None and mean.high is not None:
        axes.plot([measure.scale * mean.low, measure.scale * mean.high], [row, row], color=colour, linewidth=1.6)
    axes.scatter([measure.scale * mean.mean], [row], s=30, color=colour, zorder=3, linewidths=0)


def bars(results: Results, key: str) -> Picture:
    """One bar per variant, from zero."""
    measure = MEASURE[key]
    figure, axes = rows(results.variants, 0.06)
    means = [results.mean(variant.name, key) for variant in results.variants]
    lengths = [measure.scale * mean.mean if mean else 0.0 for mean in means]
    colours = [FIRST if variant is results.reference else MUTED for variant in results.variants]
    axes.barh(range(len(lengths)), lengths, height=0.52, color=colours)
    longest = max(lengths) or 1.0
    for row, (mean, length) in enumerate(zip(means, lengths, strict=True)):
        said = measure.number(mean.mean) if mean else "—"
        axes.text(length + 0.02 * longest, row, said, va="center", color=INK, fontsize=9)
    axes.set_xlim(0, 1.42 * longest)
    axes.set_xticks([])
    axes.grid(visible=False)
    return Picture(titled(measure), inline(figure, spoken(results, results.variants, measure)))


def rows(variants: Sequence[Variant], beneath: float = 0.24) -> tuple[Figure, Axes]:
    """An empty drawing with one line per variant, and so many inches beneath for the scale."""
    height = 0.18 + beneath + 0.3 * len(variants)
    figure, axes = canvas(height, bottom=beneath / height)
    axes.set_yticks(range(len(variants)), [variant.label for variant in variants])
    axes.set_ylim(len(variants) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    return figure, axes


def titled(measure: Measure) -> str:
    return f"{measure.label}, {measure.unit}" if measure.unit else measure.label


def spoken(results: Results, variants: Sequence[Variant], measure: Measure) -> str:
    """The numbers of a drawing as a sentence."""
    means = [(variant.label, results.mean(variant.name, measure.key)) for variant in variants]
    return f"{titled(measure)}: " + "; ".join(f"{name} {measure.with_interval(mean)}" for name, mean in means if mean)


def sheets(results: Results) -> list[Sheet]:
    """Feature maps of the first seed's networks: per picture one channel, the same in every network."""
    runs = [results.of(variant.name)[0] for variant in results.variants]
    count = len(runs[0].maps.images)
    taken: list[int] = []
    for picture in range(count):
        taken.append(telling_channel(runs, picture, taken))
    return [sheet(results, runs, picture, channel) for picture, channel in enumerate(taken)]


def telling_channel(runs: list[Result], picture: int, taken: list[int]) -> int:
    """The channel with the most contrast in every network at once, one not shown yet."""
    contrast = np.min([relative(run.maps.before[picture].astype(np.float32)) for run in runs], axis=0)
    if len(taken) < len(contrast):
        contrast[taken] = -1
    return int(contrast.argmax())


def relative(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each map's standard deviation over the largest of its network's."""
    deviation = maps.std((1, 2))
    return deviation / (deviation.max() or 1)


def sheet(results: Results, runs: list[Result], picture: int, channel: int) -> Sheet:
    columns, shown = [], []
    for variant, run in zip(results.variants, runs, strict=True):
        before, after = (maps[picture, channel].astype(np.float32) for maps in (run.maps.before, run.maps.after))
        scale = scales(variant, before, after)
        tiles = zip((before, after), ("before", "after"), scale, strict=True)
        columns.append((variant.label, *(tile(maps, f"{when} {variant.label}", each) for maps, when, each in tiles)))
        shown.append(pair(variant.label, before, after, scale, pooling(variant)))
    image = runs[0].maps.images[picture]
    name = f"Test image {picture + 1}"
    digit = Tile(address(np.moveaxis(image, 0, 2)), name)
    return Sheet(f"{name}, channel {channel}", digit, tuple(columns), pairs(shown))


def pooling(variant: Variant) -> tuple[Operation, dict[str, Any]] | None:
    """What leads from a variant's first map to its second, where it is a pooling."""
    if variant.op is None:
        return None
    return variant.op, {"window": (variant.window,) * 2, "stride": (variant.stride,) * 2}


def scales(
    variant: Variant, before: NDArray[np.float32], after: NDArray[np.float32]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """One scale for a map and its pooled map; two for a convolution, whose result is another quantity."""
    if variant.family == "convolution":
        return scale_of(before), scale_of(after)
    return scale_of(before, after), scale_of(before, after)


def scale_of(*maps: NDArray[np.float32]) -> tuple[float, float]:
    """What is shown darkest and brightest."""
    return min(0.0, *(float(m.min()) for m in maps)), max(float(m.max()) for m in maps) or 1.0


def tile(maps: NDArray[np.float32], when: str, scale: tuple[float, float]) -> Tile:
    low, high = scale
    size = f"{maps.shape[0]}×{maps.shape[1]}"
    pixels = (255 * colormaps[PALETTE]((maps - low) / (high - low))[..., :3]).round().astype(np.uint8)
    return Tile(address(pixels), f"Feature map {when}, {size}", size)


def address(pixels: NDArray[np.uint8]) -> str:
    """(height, width, 1, 3 or 4) pixels as a PNG inside an address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
