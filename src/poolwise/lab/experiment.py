"""One run: a pure function of its configuration and the images, so that any executor, anywhere, can compute it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from poolwise.lab.cost import cost, first_maps
from poolwise.lab.data import Dataset, Part
from poolwise.lab.model import built
from poolwise.lab.retention import Retention, retention
from poolwise.lab.shifts import circular_consistency, crop_consistency
from poolwise.lab.variants import parse

AT_ONCE = 100  # images per forward pass without gradients: their maps stay in the cache (250 take twice as long)
SHIFTED = 500  # test images that are shifted by every step: 24 forward passes each
MAPS_MEASURED = 200  # test images whose maps are measured
PICTURED = 3  # test images whose maps are kept for the report


@dataclass(frozen=True)
class Config:
    """All that a run depends on beside the images; equal configurations give equal results.

    data, code: content hashes of the images and of the code that computes. model: `module:factory` or None.
    rate: Adam's learning rate. batch: images per step.
    """

    variant: str
    seed: int
    epochs: int
    data: str
    code: str
    model: str | None = None
    batch: int = 64
    rate: float = 1e-3

    @property
    def key(self) -> str:
        """The content hash under which the run is kept."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Epoch:
    """After one pass over the training images: shares of right answers, mean cross-entropies in nats."""

    train_accuracy: float
    test_accuracy: float
    train_loss: float
    test_loss: float


@dataclass(frozen=True, eq=False)
class Maps:
    """Some test images with the first pooling's maps, for pictures.

    images: (K, channels, height, width) uint8. before, after: (K, maps, …, …) float16.
    """

    images: NDArray[np.uint8]
    before: NDArray[np.float16]
    after: NDArray[np.float16]


@dataclass(frozen=True)
class Result:
    """What was measured in one run; per image where `Cost` says so.

    step_seconds: median of all training steps. circular, crops: shift consistency. peak, energy, detail: see
    `Retention`; None where maps before and after do not belong together. seconds: the whole run. threads: PyTorch's.
    """

    config: Config
    sizes: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: int
    macs: int
    reads: int
    stage_kept: float
    step_kept: float
    cells: int
    kernel: str
    epochs: tuple[Epoch, ...]
    step_seconds: float
    circular: float
    crops: float
    peak: float | None
    energy: float | None
    detail: float | None
    seconds: float
    threads: int
    maps: Maps = field(compare=False, repr=False)

    @property
    def last(self) -> Epoch:
        """After the last epoch."""
        return self.epochs[-1]

    @property
    def train_accuracy(self) -> float:
        """Share of right answers on the training images at the end."""
        return self.last.train_accuracy

    @property
    def test_accuracy(self) -> float:
        """Share of right answers on the test images at the end."""
        return self.last.test_accuracy

    @property
    def gap(self) -> float:
        """Train accuracy minus test accuracy at the end."""
        return self.train_accuracy - self.test_accuracy


def run_one(config: Config, data: Dataset) -> Result:
    """Train one network and measure it. The caller's random state is left as it was."""
    began = perf_counter()
    variant = parse(config.variant)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = built(config.model, variant.stage, data.shape, len(data.classes))
        costs = cost(model, variant, data.shape, config.batch)
        epochs, steps = train(model, config, data)
    model.eval()
    images, predict = as_input(data.test), partial(predicted, model)
    kept = Retention(None, None, None)
    before, after = first_maps(model, images[spread(len(images), MAPS_MEASURED)])
    if variant.family != "convolution" and before.shape[1] == after.shape[1]:
        kept = retention(before, after, variant.stride)
    return Result(
        config=config,
        **{name: getattr(costs, name) for name in costs.__dataclass_fields__},
        epochs=epochs,
        step_seconds=median(steps),
        circular=circular_consistency(predict, images[spread(len(images), SHIFTED)]),
        crops=crop_consistency(predict, images),
        **asdict(kept),
        maps=pictured(model, data),
        seconds=perf_counter() - began,
        threads=torch.get_num_threads(),
    )


def train(model: nn.Module, config: Config, data: Dataset) -> tuple[tuple[Epoch, ...], list[float]]:
    """Adam on cross-entropy; (what each epoch gave, seconds of each step)."""
    optimizer = torch.optim.Adam(model.parameters(), config.rate)
    order = torch.Generator().manual_seed(config.seed)
    images, labels = as_input(data.train), torch.from_numpy(data.train.labels)
    epochs, steps = [], []
    for _ in range(config.epochs):
        model.train()
        for chosen in torch.randperm(len(images), generator=order).split(config.batch):
            began = perf_counter()
            step(model, optimizer, images[chosen], labels[chosen])
            steps.append(perf_counter() - began)
        epochs.append(evaluated(model.eval(), data))
    return tuple(epochs), steps


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad()
    cross_entropy(model(x), y).backward()
    optimizer.step()


def evaluated(model: nn.Module, data: Dataset) -> Epoch:
    train_accuracy, train_loss = accuracy_and_loss(model, data.train)
    test_accuracy, test_loss = accuracy_and_loss(model, data.test)
    return Epoch(train_accuracy, test_accuracy, train_loss, test_loss)


def accuracy_and_loss(model: nn.Module, part: Part) -> tuple[float, float]:
    logits = torch.cat(list(forward(model, as_input(part))))
    labels = torch.from_numpy(part.labels)
    return (logits.argmax(1) == labels).float().mean().item(), cross_entropy(logits, labels).item()


def predicted(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The likeliest class of each image."""
    return torch.cat([logits.argmax(1) for logits in forward(model, images)])


@torch.no_grad()
def forward(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Iterator[torch.Tensor]:
    for some in images.split(AT_ONCE):
        yield model(some)


def as_input(part: Part) -> torch.Tensor:
    """Images as float32 in 0…1."""
    return torch.from_numpy(part.images).float() / 255


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many positions, evenly over all (test images stand class by class)."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def pictured(model: nn.Module, data: Dataset) -> Maps:
    """The first test image of a few classes, and their maps."""
    classes = (np.arange(PICTURED) * 2 + 2) % len(data.classes)
    index = [int(np.flatnonzero(data.test.labels == kind)[0]) for kind in classes]
    before, after = first_maps(model, as_input(data.test)[index])
    halves = [np.asarray(maps.cpu().numpy(), dtype=np.float16) for maps in (before, after)]
    return Maps(data.test.images[index], *halves)


def with_seed(config: Config, seed: int) -> Config:
    """The same run from another start."""
    return replace(config, seed=seed)


def result_from(record: dict[str, Any], maps: Maps) -> Result:
    """A result as it was before `asdict` and JSON."""
    rebuilt = {
        "config": Config(**record["config"]),
        "sizes": tuple((name, tuple(shape)) for name, shape in record["sizes"]),
        "epochs": tuple(Epoch(**epoch) for epoch in record["epochs"]),
    }
    return Result(**{**record, **rebuilt, "maps": maps})
