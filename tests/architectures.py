"""Real architectures, small, in the ways people write them: modules, functional calls, branches, skips."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from torch import Tensor, nn


class Residual(nn.Module):
    """He et al. 2016, figure 2."""

    def __init__(self, planes: int, stride: int) -> None:
        super().__init__()
        inputs = planes // stride
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = nn.Conv2d(inputs, planes, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """The stem conv, norm, ReLU, max pool 3/2, then blocks and a global mean."""

    def __init__(self, planes: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, planes, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Residual(planes, 1), Residual(planes, 1))
        self.layer2 = nn.Sequential(Residual(2 * planes, 2), Residual(2 * planes, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(2 * planes, 10)

    def _forward_impl(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.relu(x)
        x = self.maxpool(x)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_impl(x)


class VGG(nn.Module):
    """Simonyan & Zisserman 2015: one long `Sequential`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, planes in ((3, 8), (8, 8), (8, 16)):
            layers += [nn.Conv2d(inputs, planes, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(nn.Linear(16 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


class DenseNet(nn.Module):
    """Huang et al. 2017: lists of features, functional dropout that depends on the mode, average pools between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 8, 3, padding=1)
        self.pool0 = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.ModuleList([nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(3)])
        self.drop_rate = 0.2
        self.transition = nn.Sequential(
            nn.BatchNorm2d(20), nn.ReLU(inplace=True), nn.Conv2d(20, 10, 1), nn.AvgPool2d(2)
        )
        self.classifier = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv0(x), inplace=True)
        features = [self.pool0(x)]
        for layer in self.layers:
            new = layer(torch.cat(features, 1))
            if self.drop_rate > 0:
                new = F.dropout(new, p=self.drop_rate, training=self.training)
            features.append(new)
        x = self.transition(torch.cat(features, 1))
        x = F.adaptive_avg_pool2d(F.relu(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class Inception(nn.Module):
    """Szegedy et al. 2015, 2016: branches of pools and convolutions, in functions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.b1 = nn.Conv2d(8, 4, 1)
        self.b3 = nn.Conv2d(8, 4, 3, stride=2)
        self.bp = nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x), inplace=True), kernel_size=3, stride=2)
        pooled = self.bp(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        x = torch.cat([self.b1(x), pooled], 1)
        grid = [self.b3(x), F.max_pool2d(x, kernel_size=3, stride=2)]
        x = torch.cat([F.relu(grid[0]), grid[1], grid[0]], 1)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.fc(x.flatten(1))


class UNet(nn.Module):
    """Ronneberger et al. 2015: what is pooled is also passed across, so no ReLU may be joined."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)])
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ModuleList([nn.ConvTranspose2d(16, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.join = nn.ModuleList([nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)])
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for conv in self.down:
            x = torch.relu(conv(x))
            skips.append(x)
            x = self.pool(x)
        x = torch.relu(self.bottom(x))
        for up, join, skip in zip(self.up, self.join, reversed(skips)):  # noqa: B905 (as people write it)
            x = torch.relu(join(torch.cat([skip, up(x)], dim=1)))
        return self.head(x)


class SPP(nn.Module):
    """He et al. 2014, as YOLO has it: three pools of one input, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(3, 8, 1)
        self.cv2 = nn.Conv2d(32, 4, 1)
        self.m = nn.ModuleList([nn.MaxPool2d(kernel_size=k, stride=1, padding=k // 2) for k in (5, 9, 13)])
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.cv1(x))
        return self.act(self.cv2(torch.cat([x] + [m(x) for m in self.m], 1)))


class Tutorial(nn.Module):
    """PyTorch's own first CNN: pools before ReLUs and after, all functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.dropout = nn.Dropout2d()
        self.fc1 = nn.Linear(20 * 13 * 13, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.max_pool2d(F.relu(self.dropout(self.conv2(x))), 2)
        x = x.view(-1, 20 * 13 * 13)
        x = F.dropout(F.relu(self.fc1(x)), training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


# architecture -> pools replaced where they stand, ReLUs joined with a max pool
ARCHITECTURES: dict[type[nn.Module], tuple[int, int]] = {
    ResNet: (2, 1),
    VGG: (4, 3),
    DenseNet: (3, 1),
    Inception: (3, 1),
    UNet: (1, 0),
    SPP: (3, 0),
    Tutorial: (0, 2),
}
