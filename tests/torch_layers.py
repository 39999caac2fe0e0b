"""Every layer of the PyTorch door, once with arguments, and the input that it takes."""

from __future__ import annotations

from typing import Any

import torch

import poolwise.torch
from poolwise.torch.layers import LAYERS

ARGUMENTS: dict[str, dict[str, Any]] = {
    "MaxPool": {"kernel_size": 3, "stride": 2, "padding": 1},
    "AvgPool": {"kernel_size": 3, "stride": 2, "padding": 1},
    "AdaptiveMaxPool": {"output_size": 3},
    "AdaptiveAvgPool": {"output_size": 3},
    "LPPool": {"norm_type": 2, "kernel_size": 2},
    "FractionalMaxPool": {"kernel_size": 2, "output_size": 3},
    "MaxUnpool": {"kernel_size": 2},
    "BalancedPool": {"op": "max", "kernel_size": 2, "stride": 3, "offsets": "end"},
    "PolyphasePool": {"stride": 2},
    "PolyphaseUnpool": {"stride": 2},
    "AdaptiveAvgMaxPool": {"output_size": 3},
    "AdaptiveCatAvgMaxPool": {"output_size": 3},
    "AvgUnpool": {"kernel_size": 3, "stride": 2},
    "SpatialPyramidPool": {"levels": (1, 2)},
    "PyramidPool": {"levels": (2,)},
    "SpaceToDepth": {"block_size": 2},
    "DepthToSpace": {"block_size": 1},
}
SIZES = (7, 8, 6)
EVEN = ("Polyphase", "SpaceToDepth")  # what divides its input into blocks


class Unpooled(torch.nn.Module):
    """A max pool and what undoes it, as an autoencoder has them."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.pool = getattr(poolwise.torch, f"MaxPool{rank}d")(2, return_indices=True)
        self.unpool = LAYERS[f"MaxUnpool{rank}d"](2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, indices = self.pool(x)
        return self.unpool(y, indices, x.shape[2:])


class Resampled(torch.nn.Module):
    """Adaptive polyphase sampling and what undoes it."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.pool = LAYERS[f"PolyphasePool{rank}d"](2, return_indices=True)
        self.unpool = LAYERS[f"PolyphaseUnpool{rank}d"](2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled, phases = self.pool(x)
        return self.unpool(pooled, phases)


class OwnLogits(torch.nn.Module):
    """Local importance pooling, whose logits are the input itself."""

    def __init__(self, pool: torch.nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x, x)


class First(torch.nn.Module):
    """The first of a pyramid's maps."""

    def __init__(self, pyramid: torch.nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pyramid(x)[0]


def apart(name: str) -> tuple[str, int]:
    """A layer's name without its number of axes, and those; two, where it takes any."""
    return (name[:-2], int(name[-2])) if name[-1] == "d" else (name, 2)


def layer_of(name: str) -> torch.nn.Module:
    """The layer with its arguments; an unpooling behind a pooling."""
    stem, rank = apart(name)
    if stem in ("MaxUnpool", "PolyphaseUnpool"):
        return Unpooled(rank) if stem == "MaxUnpool" else Resampled(rank)
    arguments = dict(ARGUMENTS.get(stem, {"kernel_size": 2}))
    if stem == "FractionalMaxPool":
        arguments["_random_samples"] = torch.full((2, 3, rank), 0.4, dtype=torch.float64)
    layer = LAYERS[name](**arguments)
    if stem in ("StochasticPool", "BalancedPool"):
        layer.eval()  # in training each call draws anew
    wrapper = {"PyramidPool": First, "LIPPool": OwnLogits}.get(stem)
    return layer if wrapper is None else wrapper(layer)


def shape_of(name: str) -> tuple[int, ...]:
    """The input's."""
    sizes = SIZES[: apart(name)[1]]
    return (2, 3, *(2 * size for size in sizes)) if name.startswith(EVEN) else (2, 3, *sizes)


def input_of(name: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Distinct numbers of both signs, so that finite differences mean something."""
    shape = shape_of(name)
    numbers = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(0)).reshape(shape)
    return ((numbers - numbers.numel() // 2 + 0.5) / 64).to(dtype)
