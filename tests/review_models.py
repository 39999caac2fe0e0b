"""Networks as their papers write them, for the review: no weights are drawn, so that they are made at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from torch import Tensor, nn


def made(kind: Callable[..., nn.Module], *arguments: object) -> nn.Module:
    """A model without numbers: parameters have shapes only."""
    with torch.device("meta"):
        return kind(*arguments)


class VGG16(nn.Module):
    """Simonyan & Zisserman 2015, configuration D."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for planes, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(channels, planes, 3, padding=1), nn.ReLU(inplace=True)]
                channels = planes
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        dense = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
        self.classifier = nn.Sequential(*dense, nn.Linear(4096, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class Bottleneck(nn.Module):
    """He et al. 2016, figure 5, the stride in the 3×3."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != 4 * planes:
            conv = nn.Conv2d(inputs, 4 * planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * planes))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet50(nn.Module):
    """He et al. 2016, table 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, (planes, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
            blocks: list[nn.Module] = []
            for place in range(count):
                blocks.append(Bottleneck(inputs, planes, 2 if number > 1 and place == 0 else 1))
                inputs = 4 * planes
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Dense(nn.Module):
    """One layer of a dense block: BN-ReLU-conv 1×1, BN-ReLU-conv 3×3, joined to what came in."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 128, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class DenseNet121(nn.Module):
    """Huang et al. 2017, table 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.norm0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels = 64
        layers: list[nn.Module] = []
        for block, count in enumerate((6, 12, 24, 16)):
            layers += [Dense(channels + 32 * place) for place in range(count)]
            channels += 32 * count
            if block < 3:
                half = nn.Conv2d(channels, channels // 2, 1, bias=False)
                layers += [nn.BatchNorm2d(channels), nn.ReLU(), half, nn.AvgPool2d(2)]
                channels //= 2
        self.blocks, self.norm5 = nn.Sequential(*layers), nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm0(self.conv0(x))), 3, 2, 1)
        return self.classifier(F.relu(self.norm5(self.blocks(x))).mean((2, 3)))


class UNet(nn.Module):
    """Ronneberger et al. 2015, figure 1 (unpadded convolutions, skips cropped)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        self.down = nn.ModuleList(_twice(before, after) for before, after in zip([1, *widths], widths, strict=False))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(before, after, 2, 2) for before, after in pairs)
        self.join = nn.ModuleList(_twice(before, after) for before, after in pairs)
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = up(x)
            cut = (skip.shape[2] - x.shape[2]) // 2
            x = join(torch.cat([skip[:, :, cut : cut + x.shape[2], cut : cut + x.shape[3]], x], 1))
        return self.last(x)


def _twice(inputs: int, planes: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, planes, 3), nn.ReLU(), nn.Conv2d(planes, planes, 3), nn.ReLU())


class Unit(nn.Module):
    """Convolution, norm, ReLU: what every arm of Inception-v3 is made of."""

    def __init__(self, inputs: int, planes: int, kernel: int | tuple[int, int], stride: int = 1, padding=0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, planes, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(planes, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Arms(nn.Module):
    """Parallel arms, joined; `split` arms end in two that share what came before."""

    def __init__(self, *arms: nn.Module) -> None:
        super().__init__()
        self.arms = nn.ModuleList(arms)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([arm(x) for arm in self.arms], 1)


def _row(inputs: int, *units: tuple) -> nn.Sequential:
    made: list[nn.Module] = []
    for planes, *rest in units:
        made.append(Unit(inputs, planes, *rest))
        inputs = planes
    return nn.Sequential(*made)


def _mean() -> nn.Module:
    return nn.AvgPool2d(3, 1, 1)


def _grid35(n: int, pooled: int) -> Arms:
    last = nn.Sequential(_mean(), Unit(n, pooled, 1))
    five = _row(n, (48, 1), (64, 5, 1, 2))
    return Arms(Unit(n, 64, 1), five, _row(n, (64, 1), (96, 3, 1, 1), (96, 3, 1, 1)), last)


def _grid17(c: int) -> Arms:
    row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    long = _row(768, (c, 1), (c, *column), (c, *row), (c, *column), (192, *row))
    last = nn.Sequential(_mean(), Unit(768, 192, 1))
    return Arms(Unit(768, 192, 1), _row(768, (c, 1), (c, *row), (192, *column)), long, last)


def _grid8(n: int) -> Arms:
    def ends() -> Arms:
        return Arms(Unit(384, 384, (1, 3), 1, (0, 1)), Unit(384, 384, (3, 1), 1, (1, 0)))

    three = nn.Sequential(Unit(n, 384, 1), ends())
    double = nn.Sequential(Unit(n, 448, 1), Unit(448, 384, 3, 1, 1), ends())
    return Arms(Unit(n, 320, 1), three, double, nn.Sequential(_mean(), Unit(n, 192, 1)))


class InceptionV3(nn.Module):
    """Szegedy et al. 2016, table 1; auxiliary: with the head that helps in training."""

    def __init__(self, auxiliary: bool = False) -> None:
        super().__init__()
        stem = [Unit(3, 32, 3, 2), Unit(32, 32, 3), Unit(32, 64, 3, 1, 1), nn.MaxPool2d(3, 2)]
        stem += [Unit(64, 80, 1), Unit(80, 192, 3), nn.MaxPool2d(3, 2)]
        to17 = Arms(Unit(288, 384, 3, 2), _row(288, (64, 1), (96, 3, 1, 1), (96, 3, 2)), nn.MaxPool2d(3, 2))
        seven = _row(768, (192, 1), (192, (1, 7), 1, (0, 3)), (192, (7, 1), 1, (3, 0)), (192, 3, 2))
        to8 = Arms(_row(768, (192, 1), (320, 3, 2)), seven, nn.MaxPool2d(3, 2))
        grids = [_grid35(192, 32), _grid35(256, 64), _grid35(288, 64), to17]
        self.body = nn.Sequential(*stem, *grids, *(_grid17(c) for c in (128, 160, 160, 192)))
        self.tail = nn.Sequential(to8, _grid8(1280), _grid8(2048), nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten())
        self.fc = nn.Linear(2048, 1000)
        self.auxiliary = None
        if auxiliary:
            head = [nn.AvgPool2d(5, 3), Unit(768, 128, 1), Unit(128, 768, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            self.auxiliary = nn.Sequential(*head, nn.Linear(768, 1000))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.body(x)
        y = self.fc(self.tail(x))
        return y if self.auxiliary is None else (y, self.auxiliary(x))
