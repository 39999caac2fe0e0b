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
}
SIZES = (7, 8, 6)


class Unpooled(torch.nn.Module):
    """A max pool and what undoes it, as an autoencoder has them."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.pool = getattr(poolwise.torch, f"MaxPool{rank}d")(2, return_indices=True)
        self.unpool = LAYERS[f"MaxUnpool{rank}d"](2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, indices = self.pool(x)
        return self.unpool(y, indices, x.shape[2:])


def layer_of(name: str) -> torch.nn.Module:
    """The layer with its arguments; an unpooling behind a pooling."""
    stem, rank = name[:-2], int(name[-2])
    if stem == "MaxUnpool":
        return Unpooled(rank)
    arguments = dict(ARGUMENTS.get(stem, {"kernel_size": 2}))
    if stem == "FractionalMaxPool":
        arguments["_random_samples"] = torch.full((2, 3, rank), 0.4, dtype=torch.float64)
    return LAYERS[name](**arguments)


def shape_of(name: str) -> tuple[int, ...]:
    """The input's."""
    return (2, 3, *SIZES[: int(name[-2])])


def input_of(name: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Distinct numbers of both signs, so that finite differences mean something."""
    shape = shape_of(name)
    numbers = torch.randperm(torch.Size(shape).numel(), generator=torch.Generator().manual_seed(0)).reshape(shape)
    return ((numbers - numbers.numel() // 2 + 0.5) / 64).to(dtype)
