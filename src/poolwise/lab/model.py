"""The networks that are trained: the tutorial's, or the user's own."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from poolwise import InvalidType, InvalidValue
from poolwise.lab.variants import Stage
from poolwise.named import factory

PoolFactory: TypeAlias = Callable[[int], Stage]
Factory: TypeAlias = Callable[[PoolFactory, tuple[int, int, int], int], nn.Module]


def tutorial(pool: PoolFactory, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The tutorial's CNN: 32 convolutions 3×3, ReLU, pooling, flatten, one dense layer (logits)."""
    channels, height, width = shape
    features = nn.Sequential(nn.Conv2d(channels, 32, 3), nn.ReLU(), pool(32), nn.Flatten())
    with torch.no_grad():
        size = features(torch.zeros(1, channels, height, width)).shape[1]
    return nn.Sequential(*features, nn.Linear(size, classes))


def find(name: str | None) -> Factory:
    """The factory called `module:factory`; None: the tutorial's CNN. The current folder is importable.

    The factory is called as `factory(pool, shape, classes)`: `pool(channels)` makes a pooling stage to put into the
    network, as often as it pools; shape is (channels, height, width) of an image; classes how many there are. It
    returns a `torch.nn.Module` that takes (N, channels, height, width) float32 in 0…1 and gives (N, classes) logits.
    """
    return tutorial if name is None else factory(name)


def built(name: str | None, pool: PoolFactory, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A network that was tried on one blank image."""
    try:
        model = find(name)(pool, shape, classes)
        with torch.no_grad():
            output = model(torch.zeros(2, *shape))
    except (InvalidValue, InvalidType):
        raise
    except Exception as cause:  # whatever the user's factory or network raises
        raise InvalidValue(f"model must work on images of shape {shape}, got {type(cause).__name__}: {cause}") from None
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != (2, classes):
        raise InvalidValue(f"model must give ({classes},) logits per image, got {getattr(output, 'shape', output)!s}")
    if first_stage(model) is None:
        raise InvalidValue("model must put at least one pool(channels) into its network, got none")
    return model


def first_stage(model: nn.Module) -> Stage | None:
    """The first pooling of a network."""
    return next((module for module in model.modules() if isinstance(module, Stage)), None)


def source_digest(name: str | None) -> str:
    """A content hash of the user's module, so that runs of an edited model are other runs."""
    if name is None:
        return ""
    file = inspect.getsourcefile(inspect.unwrap(find(name)))
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
