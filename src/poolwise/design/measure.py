"""A model on images: how much shifts change its answer, what its poolings keep, what a batch takes and holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from rich.console import Group

from poolwise import Fault, InvalidType, InvalidValue, __version__, models
from poolwise.design import shifts, show_measured
from poolwise.design.images import Preprocess, batch_of
from poolwise.design.intervals import LEVEL, Interval, share
from poolwise.design.pooled import Pooled, pooled
from poolwise.design.readers import read
from poolwise.design.stages import downsampling
from poolwise.models.run import Run, declared, running, whole_batches

SCHEMA = 1
SETTLED = 0.01  # seconds in which the threads of the model before stop spinning
Answer = Literal["class", "cosine"]
LOWEST = {"class": 0.0, "cosine": -1.0}


class Options(TypedDict, total=False):
    """What `measure` and `compare` take beside models and images; see `measure`."""

    answer: Answer
    axes: Sequence[int] | None
    size: Sequence[int] | None
    reach: int
    shifts: int
    maps: int
    batch: int
    rounds: int
    seed: int


DEFAULTS = Options(answer="class", axes=None, size=None, reach=2, shifts=24, maps=64, batch=32, rounds=7, seed=0)


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
    """How it was measured: the arguments of `measure`, checked.

    size: of what the model sees, by axis of position. moves: the circular shifts. real_borders: whether crops were cut
    from larger images, instead of padded ones.
    """

    answer: Answer
    axes: tuple[int, ...]
    size: tuple[int, ...]
    reach: int
    moves: tuple[shifts.Move, ...]
    real_borders: bool
    batch: int
    rounds: int
    maps: int
    seed: int


@dataclass(frozen=True)
class Measurement:
    """A model on images.

    poolings: those that were seen, with what they keep of their maps. seconds: the median of a batch's times, of
    settings.batch images or of all if there are fewer. stages: empty where the network cannot be read, and `note` says
    why. answers: to the images as they are.
    """

    model: str
    framework: str
    images: int
    shape: tuple[int, ...]
    settings: Settings
    circular: Consistency
    crops: Consistency
    poolings: tuple[Pooled, ...]
    seconds: float
    stages: tuple[Held, ...]
    note: str
    answers: NDArray[Any] = field(repr=False, compare=False)

    def data(self) -> dict[str, Any]:
        """Everything as JSON's own types; docs/measure.md says what each entry means."""
        settings = asdict(self.settings)
        settings["moves"] = [list(move) for move in self.settings.moves]
        return {
            "schema": SCHEMA,
            "poolwise": __version__,
            "model": self.model,
            "framework": self.framework,
            "images": {"count": self.images, "shape": list(self.shape)},
            "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
            "interval": {"level": LEVEL, "over": "images"},
            "shift_consistency": {"circular": asdict(self.circular.interval), "crops": asdict(self.crops.interval)},
            "poolings": [_pooling_data(each) for each in self.poolings],
            "time": {"batch": self.batch, "seconds": self.seconds},
            "stages": [asdict(stage) for stage in self.stages],
            "note": self.note,
        }

    @property
    def batch(self) -> int:
        """The images of the batch that was timed."""
        return min(self.images, self.settings.batch)

    def text(self) -> Group:
        """The same for a terminal."""
        return show_measured.single(self)

    def named(self, name: str) -> Measurement:
        """The same of a model that is called so."""
        return replace(self, model=name)


def _pooling_data(pooling: Pooled) -> dict[str, Any]:
    return {
        "name": pooling.name,
        "op": pooling.op,
        "input": list(pooling.input),
        "output": list(pooling.output),
        **asdict(pooling.retention),
    }


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
    model: Any, images: Any, *, preprocess: Preprocess | None = None, **options: Unpack[Options]
) -> Measurement:
    """How a model behaves on images of yours: shift consistency by two protocols, what poolings keep, time, bytes.

    model: a torch.nn.Module, a keras model, an onnx.ModelProto; or a name: `net.onnx`, `net.keras`, `module:factory`.
    images: (N, …) in the model's own layout, floats as the model takes them; or anything of which `preprocess` makes
        that, in one call.
    answer: what must agree: "class" (default), the place of the largest of the model's (N, classes) numbers, or
        "cosine", the cosine between its (N, …) numbers.
    axes: those of position; by default (2, …) of PyTorch and ONNX, Keras's by its own setting.
    size: what the model takes, by axis of position; by default the images' own. Larger images are cropped to it, and
        then what crops see at their borders is real; else images are padded with zeros for the crops.
    reach: pixels that images move by at most (2). shifts: how many circular ones (24), drawn where there are more.
    maps: images whose feature maps are looked at (64). batch: images at a time (32). rounds: batches that are timed
        (7). seed: of shifts and crops (0).

    Raises InvalidType or InvalidValue that names what cannot be, or what the model said to the images.
    Source: Chaman & Dokmanić, CVPR 2021 (circular); Zhang, ICML 2019, section 4 (crops).

    >>> import torch
    >>> convolution = torch.nn.Conv2d(1, 5, 3, padding=1, padding_mode="circular")
    >>> net = torch.nn.Sequential(convolution, torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten())
    >>> measure(net, torch.rand(8, 1, 12, 12)).circular.interval.value
    1.0
    """
    subject = opened(model)
    plan = planned(subject.model, batch_of(images, preprocess), options)
    (found,) = measured([subject], plan)
    return found


@dataclass(frozen=True)
class Subject:
    """A model that is measured, and how it is called."""

    name: str
    model: Any


def opened(model: Any) -> Subject:
    """What a model, or the name of one, stands for."""
    if isinstance(model, str | Path):
        return Subject(str(model), models.load(model))
    models.kind(model)
    return Subject(type(model).__name__, model)


def measured(subjects: Sequence[Subject], plan: Plan) -> list[Measurement]:
    """Models by one plan; they are timed in turns."""
    answer = plan.settings.answer
    with ExitStack() as stack:
        runs = [stack.enter_context(running(subject.model)) for subject in subjects]
        found = [_consistent(partial(_answers, run, answer), plan) for run in runs]
        seconds = [median(times) for times in _times(runs, plan)]
    return [_whole_of(*each, plan) for each in zip(subjects, found, seconds, strict=True)]


def _whole_of(subject: Subject, found: tuple[Any, Any, Any], seconds: float, plan: Plan) -> Measurement:
    answers, circular, crops = found
    settings, lowest = plan.settings, LOWEST[plan.settings.answer]
    stages, note = _held(subject.model, plan)
    return Measurement(
        subject.name,
        models.kind(subject.model),
        len(plan.shown),
        plan.shown.shape[1:],
        settings,
        Consistency(share(circular, lowest), circular),
        Consistency(share(crops, lowest), crops),
        pooled(subject.model, whole_batches(subject.model, plan.shown[: settings.maps], settings.batch)),
        seconds,
        stages,
        note,
        answers,
    )


def planned(model: Any, images: NDArray[Any], options: Options) -> Plan:
    """The options, checked; the shifts and crops, drawn."""
    asked: Any = {**DEFAULTS, **options}
    for name in asked:
        if name not in DEFAULTS:
            raise InvalidType(f"options must be of {', '.join(DEFAULTS)}, got {name!r}")
    if asked["answer"] not in LOWEST:
        raise InvalidValue(f"answer must be one of {', '.join(map(repr, LOWEST))}, got {asked['answer']!r}")
    for name in ("reach", "shifts", "maps", "batch", "rounds", "seed"):
        _check_whole(name, asked[name], least=0 if name == "seed" else 1)
    positions = _axes(model, images, asked["axes"])
    sizes = _size(images, positions, asked["size"])
    shown = shifts.central(images, sizes, positions)
    _fits(model, shown)
    if min(sizes) <= 2 * asked["reach"]:
        raise InvalidValue(f"reach must be less than half of each size, {sizes}, got {asked['reach']}")
    return _drawn(images, shown, positions, sizes, asked)


def _drawn(
    images: NDArray[Any], shown: NDArray[Any], axes: tuple[int, ...], sizes: tuple[int, ...], asked: dict[str, Any]
) -> Plan:
    reach, random = asked["reach"], np.random.default_rng(asked["seed"])
    moves = shifts.some_moves(reach, len(axes), asked["shifts"], random)
    margins = [images.shape[axis] - count for axis, count in zip(axes, sizes, strict=True)]
    wide = images if any(margins) else shifts.padded(images, reach, axes)
    spare = margins if any(margins) else [2 * reach] * len(axes)
    first, second = (np.stack([random.integers(0, each + 1, len(images)) for each in spare]) for _ in range(2))
    same = {name: asked[name] for name in ("answer", "reach", "batch", "rounds", "maps", "seed")}
    settings = Settings(axes=axes, size=sizes, moves=tuple(moves), real_borders=any(margins), **same)
    return Plan(settings, shown, wide, (first, second))


def _check_whole(name: str, number: Any, least: int) -> None:
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


def _times(runs: Sequence[Run], plan: Plan) -> list[list[float]]:
    """Seconds of a batch by each, in turns."""
    images = plan.shown[: plan.settings.batch]
    rounds = [[_seconds(run, images) for run in runs] for _ in range(plan.settings.rounds)]
    return [list(times) for times in zip(*rounds, strict=True)]


def _seconds(run: Run, images: NDArray[Any]) -> float:
    """Of a batch, after one that wakes threads which fell asleep while it was the other's turn, and is not timed."""
    sleep(SETTLED)
    run(images)
    began = perf_counter()
    run(images)
    return perf_counter() - began


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
