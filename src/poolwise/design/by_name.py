"""`poolwise measure`: what the shell names, opened and measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from poolwise import InvalidValue, models
from poolwise.design import images as pictures
from poolwise.design.compare import Comparison, swapped
from poolwise.design.measure import Measurement, channels_last, measure

BYTES = "such as --scale 1/255, or --scale 1 where the model takes them as they are"


def measured_by_name(
    model: str,
    images: Path,
    *,
    swap: str | None = None,
    scale: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    trust: bool = False,
    **options: Any,
) -> Measurement | Comparison:
    """A model on a folder of pictures, an .npy or an .npz; with `swap`, such as "max:mean", before and after it.

    scale, mean, std: (x · scale − mean) / std, as text, one number or one for each channel; bytes need a scale, and
    nothing is scaled unless one of them is given. trust: whether a file may run its own code. options: as in `measure`.

    Raises InvalidValue or InvalidType that names what cannot be.
    """
    what = None if swap is None else _pair(swap)
    opened = models.load(model, trust=trust)
    last = _channels_last(opened, options)
    batch = pictures.load(images, channels_last=last)
    given: dict[str, Any] = {"preprocess": _scaled(batch, scale, mean, std, -1 if last else 1), **options}
    found = measure(opened, batch, **given) if what is None else swapped(opened, *what, batch, **given)
    return found.named(model)


def _pair(swap: str) -> tuple[str, str]:
    what, colon, with_ = swap.partition(":")
    if not (what and colon and with_):
        raise InvalidValue(f"swap must be two names such as max:mean, got {swap!r}")
    return what, with_


def _channels_last(model: Any, options: Mapping[str, Any]) -> bool:
    axes = options.get("axes")
    return 1 in axes if axes else models.kind(model) == "keras" and channels_last()


def _scaled(
    batch: NDArray[Any], scale: str | None, mean: str | None, std: str | None, channels: int
) -> pictures.Scaled | None:
    if scale is None and batch.dtype.kind != "f":
        raise InvalidValue(f"images of {batch.dtype} must come with a scale: {BYTES}")
    if scale is None and mean is None and std is None:
        return None
    return pictures.Scaled(
        pictures.number("scale", scale or "1"),
        pictures.numbers("mean", mean or "0"),
        pictures.numbers("std", std or "1"),
        channels,
    )
