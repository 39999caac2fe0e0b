"""A model on images: how much shifts change its answer, what its poolings keep, what a batch takes and holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from poolwise import Fault, InvalidType, InvalidValue, models
from poolwise.design import shifts
from poolwise.design.images import Preprocess, batch_of
from poolwise.design.intervals import Interval, share
from poolwise.design.readers import read
from poolwise.design.stages import downsampling
from poolwise.models.run import Run, declared, running

Answer = Literal["class", "cosine"]
LOWEST = {"class": 0.0, "cosine": -1.0}


@dataclass(frozen=True)
class Consistency:
    """How answers agree: the share, or the mean cosine, with its interval over images; values: (images, trials)."""

    interval: Interval
    values: NDArray[np.float64] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Held:
    """What one downsampling stage holds for one batch, in bytes: its output, and what is kept of it for backward."""

    step: str
    op: str
    activation: int
    kept_by_poolwise: int
    kept_by_pytorch: int


@dataclass(frozen=True)
class Settings:
    """How it was measured; docs/measure.md says what each is. size: of what the model sees, by axis of position."""

    answer: Answer
    axes: tuple[int, ...]
    size: tuple[int, ...]
    reach: int
    moves: tuple[shifts.Move, ...]
    real_borders: bool
    batch: int
    rounds: int
    seed: int


@dataclass(frozen=True)
class Measurement:
    """A model on images.

    seconds: the median of a batch's times, of settings.batch images or of all if there are fewer. stages: empty where
    the network cannot be read, and `note` says why. answers: to the images as they are.
    """

    model: str
    framework: str
    images: int
    shape: tuple[int, ...]
    settings: Settings
    circular: Consistency
    crops: Consistency
    seconds: float
    stages: tuple[Held, ...]
    note: str
    answers: NDArray[Any] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Plan:
    """The images as every model that is compared sees them: the same shifts, the same crops.

    shown: unmoved. wide: what crops are cut from. corners: where, (axes, N) for each of two.
    """

    settings: Settings
    shown: NDArray[Any]
    wide: NDArray[Any]
    corners: tuple[NDArray[np.int64], NDArray[np.int64]]

    def parts(self) -> Iterator[slice]:
        """The batches."""
        for begin in range(0, len(self.shown), self.settings.batch):
            yield slice(begin, begin + self.settings.batch)


def measure(
    model: Any,
    images: Any,
    *,
    preprocess: Preprocess | None = None,
    answer: Answer = "class",
    axes: Sequence[int] | None = None,
    size: Sequence[int] | None = None,
    reach: int = 2,
    shifts: int = 24,
    batch: int = 32,
    rounds: int = 7,
    seed: int = 0,
) -> Measurement:
    """How a model behaves on images of yours: shift consistency by two protocols, time, bytes.

    model: a torch.nn.Module, a keras model, an onnx.ModelProto; or a name: `net.onnx`, `net.keras`, `module:factory`.
    images: (N, …) in the model's own layout, floats as the model takes them; or whatever `preprocess` makes that of, in
        one call. answer: what must agree: "class", the largest of the model's (N, classes) numbers, or "cosine", the
        cosine between its (N, numbers). axes: those of position; None: (2, …) of PyTorch and ONNX, Keras's by its own
        setting.
    size: what the model takes, by axis of position; None: the images' own. Larger images are cropped to it, and then
        the borders of crops are real; else images are padded with zeros for the crops.
    reach: pixels that images move by at most. shifts: how many circular ones, drawn from all where those are more.
    batch, rounds: images at a time; batches that are timed. seed: of the shifts and crops.

    Raises InvalidType or InvalidValue that names what cannot be, or what the model said to the images.
    Source: Chaman & Dokmanić, CVPR 2021 (circular); Zhang, ICML 2019, section 4 (crops).

    >>> import torch
    >>> convolution = torch.nn.Conv2d(1, 5, 3, padding=1, padding_mode="circular")
    >>> net = torch.nn.Sequential(convolution, torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten())
    >>> measured = measure(net, torch.rand(8, 1, 12, 12))
    >>> measured.circular.interval.value
    1.0
    """
    named, opened = _opened(model)
    plan = planned(
        opened, batch_of(images, preprocess), answer, axes, size, reach=reach, most=shifts, batch=batch,
        rounds=rounds, seed=seed,
    )  # fmt: skip
    return measured(opened, named, plan)


def measured(model: Any, name: str, plan: Plan) -> Measurement:
    """A model by a plan."""
    with running(model) as run:
        answers, circular, crops = _consistent(partial(_answers, run, plan.settings.answer), plan)
        seconds = median(_times(run, plan))
    held, note = _held(model, plan)
    lowest = LOWEST[plan.settings.answer]
    return Measurement(
        name,
        models.kind(model),
        len(plan.shown),
        plan.shown.shape[1:],
        plan.settings,
        Consistency(share(circular, lowest), circular),
        Consistency(share(crops, lowest), crops),
        seconds,
        held,
        note,
        answers,
    )


def planned(
    model: Any,
    images: NDArray[Any],
    answer: Answer,
    axes: Sequence[int] | None,
    size: Sequence[int] | None,
    *,
    reach: int,
    most: int,
    batch: int,
    rounds: int,
    seed: int,
) -> Plan:
    """The arguments, checked; the shifts and crops, drawn."""
    if answer not in LOWEST:
        raise InvalidValue(f"answer must be one of {', '.join(map(repr, LOWEST))}, got {answer!r}")
    for name, number in (("reach", reach), ("shifts", most), ("batch", batch), ("rounds", rounds), ("seed", seed)):
        _whole(name, number, least=0 if name == "seed" else 1)
    positions = _axes(model, images, axes)
    sizes = _size(images, positions, size)
    margins = [images.shape[axis] - count for axis, count in zip(positions, sizes, strict=True)]
    random = np.random.default_rng(seed)
    moves = shifts.some_moves(reach, len(positions), most, random)
    shown = shifts.central(images, sizes, positions)
    _fits(model, shown)
    for count in sizes:
        if count <= 2 * reach:
            raise InvalidValue(f"reach must be less than half of each size, {sizes}, got {reach}")
    wide = images if any(margins) else shifts.padded(images, reach, positions)
    spare = margins if any(margins) else [2 * reach] * len(positions)
    first, second = (np.stack([random.integers(0, each + 1, len(images)) for each in spare]) for _ in range(2))
    settings = Settings(answer, positions, sizes, reach, tuple(moves), any(margins), batch, rounds, seed)
    return Plan(settings, shown, wide, (first, second))


def _opened(model: Any) -> tuple[str, Any]:
    """(its name, the model)."""
    found = models.load(model) if isinstance(model, str | Path) else model
    models.kind(found)
    return str(model) if isinstance(model, str | Path) else type(found).__name__, found


def _whole(name: str, number: Any, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise InvalidType(f"{name} must be a whole number, got {number!r}")
    if number < least:
        raise InvalidValue(f"{name} must be at least {least}, got {number}")


def _axes(model: Any, images: NDArray[Any], axes: Sequence[int] | None) -> tuple[int, ...]:
    if axes is None:
        last = models.kind(model) == "keras" and channels_last()
        return tuple(range(1, images.ndim - 1) if last else range(2, images.ndim))
    found = tuple(int(axis) for axis in axes)
    if not found or len(set(found)) < len(found) or not all(0 < axis < images.ndim for axis in found):
        raise InvalidValue(f"axes must be different ones of 1 … {images.ndim - 1}, got {found}")
    return found


def channels_last() -> bool:
    """Whether Keras's models have channels last, by its own setting."""
    import keras  # noqa: PLC0415 (only where there is a Keras model)

    return keras.config.image_data_format() == "channels_last"


def _size(images: NDArray[Any], axes: tuple[int, ...], size: Sequence[int] | None) -> tuple[int, ...]:
    own = tuple(images.shape[axis] for axis in axes)
    if size is None:
        return own
    sizes = tuple(int(count) for count in size)
    if len(sizes) != len(own) or not all(0 < count <= limit for count, limit in zip(sizes, own, strict=True)):
        raise InvalidValue(f"size must be {len(own)} numbers of at most the images' own, {own}, got {sizes}")
    return sizes


def _fits(model: Any, shown: NDArray[Any]) -> None:
    """Images of another size than the model takes are refused before anything runs."""
    wanted = declared(model)
    given = shown.shape[1:]
    if wanted is not None and (
        len(wanted) != shown.ndim or any(a not in (None, b) for a, b in zip(wanted[1:], given, strict=True))
    ):
        each = "×".join("any" if count is None else str(count) for count in wanted[1:])
        raise InvalidValue(
            f"images must have the size that the model takes, {each}, got {'×'.join(map(str, given))}: "
            "resize them beforehand, or give size to have larger ones cropped"
        )


def _answers(run: Run, answer: Answer, images: NDArray[Any]) -> NDArray[Any]:
    """The class of each image, or its numbers."""
    output = run(images)
    flat = output.reshape(len(output), -1)
    longer = [count for count in output.shape[1:] if count > 1]
    if answer == "cosine":
        return flat
    if len(longer) != 1:
        raise InvalidValue(
            f"model must give (N, classes) numbers, at least 2 classes, for answer='class', got {output.shape}; "
            "answer='cosine' takes any numbers"
        )
    if not np.isfinite(flat).all():
        raise InvalidValue("model must give finite numbers, got NaN or inf among them")
    return flat.argmax(axis=1)


def _consistent(predict: shifts.Predict, plan: Plan) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """(answers to the images, agreement after circular shifts, agreement of crops), batch by batch."""
    settings = plan.settings
    agree: Callable[..., Any] = np.equal if settings.answer == "class" else shifts.cosine
    answers, circular, crops = [], [], []
    for part in plan.parts():
        shown = plan.shown[part]
        answers.append(predict(shown))
        circular.append(shifts.circular(predict, shown, settings.axes, settings.moves, agree))
        corners = [corner[:, part] for corner in plan.corners]
        crops.append(shifts.crops(predict, plan.wide[part], settings.size, settings.axes, corners, agree))
    return np.concatenate(answers), np.concatenate(circular), np.concatenate(crops)[:, None]


def _times(run: Run, plan: Plan) -> list[float]:
    """Seconds of a batch, again and again, after one that is not timed."""
    images = plan.shown[: plan.settings.batch]
    times: list[float] = []
    run(images)
    for _ in range(plan.settings.rounds):
        began = perf_counter()
        run(images)
        times.append(perf_counter() - began)
    return times


def _held(model: Any, plan: Plan) -> tuple[tuple[Held, ...], str]:
    """What each downsampling stage holds for a batch; where nobody can read the network, why."""
    shape = (min(plan.settings.batch, len(plan.shown)), *plan.shown.shape[1:])
    try:
        found = downsampling(read(model, shape))
    except Fault as fault:
        return (), f"bytes by stage are not known: {fault.fact}"
    return tuple(
        Held(stage.step.name, stage.step.op, stage.after.nbytes, stage.kept[0], stage.kept[1]) for stage in found
    ), ""
