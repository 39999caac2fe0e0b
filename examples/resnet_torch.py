"""A ResNet-18 before and after `poolwise.torch.accelerate`: the same outputs, its step time, its peak memory.

    python examples/resnet_torch.py                # or: --batch 16 --side 224 --rounds 9

The network is written out here (He et al., Deep residual learning, CVPR 2016, table 1) with random weights and images:
time and memory do not depend on them.
"""

# ruff: noqa: T201  (what it prints is what it is for)

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn

from poolwise.bench.accelerated import saving
from poolwise.torch import accelerate


class Block(nn.Module):
    """Two convolutions and the way around them."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        same = stride == 1 and inputs == planes
        self.downsample = (
            None if same else nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
        )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + identity)


class ResNet18(nn.Module):
    """The stem with its max pool, four stages of two blocks, a global mean, one dense layer."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = (64, 64, 128, 256, 512)
        self.stages = nn.Sequential(
            *[
                nn.Sequential(Block(inputs, planes, 1 if planes == 64 else 2), Block(planes, planes, 1))
                for inputs, planes in pairwise(widths)
            ]
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.stages(x))
        return self.fc(torch.flatten(x, 1))


def peak(accelerated: bool, batch: int, side: int) -> float:
    """MiB that one training step adds to the process, at its peak; measured in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (accelerated, batch, side))


def _peak(accelerated: bool, batch: int, side: int) -> float:
    torch.manual_seed(0)
    model = ResNet18()
    model = accelerate(model) if accelerated else model
    model(torch.randn(2, 3, 64, 64)).sum().backward()  # what is loaded once is not the step's
    x = torch.randn(batch, 3, side, side)
    before = _resident()
    model(x).square().mean().backward()
    return _resident() - before


def _resident() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    parser = argparse.ArgumentParser(description="A ResNet-18's training step before and after accelerate.")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    # first, because Linux lets a new process inherit the largest size of the one that starts it
    peaks = [peak(accelerated, given.batch, given.side) for accelerated in (False, True)]
    torch.manual_seed(0)
    model, x = ResNet18(), torch.randn(given.batch, 3, given.side, given.side)

    ours = accelerate(deepcopy(model)).eval()
    for change in ours.poolwise_changes:
        print(change)
    with torch.no_grad():
        difference = (ours(x) - model.eval()(x)).abs().max().item()
    print(f"outputs: largest difference {difference:.1e}")

    result = saving(model, x, rounds=given.rounds)
    for name, (before, after) in (("training step", result.training), ("inference", result.inference)):
        print(f"{name}: {1e3 * before:.0f} ms → {1e3 * after:.0f} ms ({after / before:.2f})")
    kept = [count / 2**20 for count in result.kept]
    print(f"kept for backward: {kept[0]:.0f} MiB → {kept[1]:.0f} MiB")
    print(f"peak memory of a step: {peaks[0]:.0f} MiB → {peaks[1]:.0f} MiB")


if __name__ == "__main__":
    main()
