"""What the review reads of PyTorch models: published figures, and sizes that a real run has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from torch import nn

import poolwise.torch
from poolwise import Lp
from poolwise.design.graph import Graph
from poolwise.design.readers import pytorch
from review_models import VGG16, DenseNet121, InceptionV3, ResNet50, UNet, made

PUBLISHED = [  # parameters, and multiplications of convolutions and dense layers for one image
    (VGG16, (1, 3, 224, 224), 138_357_544, 15_470_264_320),
    (ResNet50, (1, 3, 224, 224), 25_557_032, 4_089_184_256),
    (DenseNet121, (1, 3, 224, 224), 7_978_856, None),
    (UNet, (1, 1, 572, 572), 31_030_658, None),
]


def parameters(graph: Graph) -> int:
    return sum({name: size for step in graph.steps for name, size in step.weights.items()}.values())


@pytest.mark.parametrize(
    ("kind", "shape", "count", "macs"), PUBLISHED, ids=lambda value: getattr(value, "__name__", "")
)
def test_parameters_and_macs_are_the_published_ones(kind: Any, shape: Any, count: int, macs: int | None) -> None:
    graph = pytorch.graph(made(kind), shape)
    assert all(step.known for step in graph.steps)
    assert parameters(graph) == count
    assert macs is None or sum(step.macs for step in graph.steps) == macs


@pytest.mark.parametrize(("auxiliary", "count"), [(True, 27_161_264), (False, 23_834_568)])
def test_inception_has_the_published_parameters_with_its_second_head_and_without(auxiliary: bool, count: int) -> None:
    graph = pytorch.graph(made(InceptionV3, auxiliary), (1, 3, 299, 299))
    assert all(step.known for step in graph.steps)
    assert parameters(graph) == count
    assert len(graph.outputs) == 1 + auxiliary


@pytest.mark.parametrize(
    ("kind", "shape"), [(InceptionV3, (1, 3, 299, 299)), (ResNet50, (1, 3, 97, 97)), (VGG16, (1, 3, 224, 224))]
)
def test_sizes_are_those_of_a_run(kind: Any, shape: tuple[int, ...]) -> None:
    model = made(kind).eval()
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            module.register_forward_hook(
                lambda _, inputs, y, name=name: seen.update({name: (tuple(inputs[0].shape), tuple(y.shape))})
            )
    model(torch.empty(shape, device="meta"))
    graph = pytorch.graph(model, shape)
    read = {step.name: step for step in graph.steps if step.reads is not None}
    assert set(read) == set(seen)
    for name, (before, after) in seen.items():
        assert read[name].reads.shape == before[2:]
        assert read[name].reads.output_shape == after[2:]


class Calls(nn.Module):
    """Modules, functions, poolwise's own layers, one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding="same")
        self.own = poolwise.torch.MaxPool2d(2)
        self.kept = nn.MaxPool2d(2, return_indices=True)
        self.norm = nn.LPPool2d(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.own(self.conv(self.conv(x))))
        x = F.max_pool2d(self.kept(x)[0], 2)
        x = self.norm(F.pad(x, (0, 1, 1, 0)))
        return x[:, :, ::2].mean((2, 3))


def test_calls_of_functions_count_as_modules_do() -> None:
    model = Calls()
    graph = pytorch.graph(model, (1, 4, 40, 40))
    ops = ["Conv", "Conv", "MaxPool", "MaxPool", "MaxPool", "Pad", "LpPool", "Slice", "GlobalAveragePool"]
    assert [step.op for step in graph.steps] == ops
    assert [step.name for step in graph.steps][:4] == ["conv", "conv #2", "own", "kept"]
    assert graph.steps[4].name.startswith("forward: max_pool2d (test_review_pytorch.py:")
    assert graph.steps[6].pooling == Lp(3)
    assert parameters(graph) == sum(each.numel() for each in model.parameters())
    assert model.training


def test_every_step_gives_the_sizes_that_its_reads_say() -> None:
    graph = pytorch.graph(Calls(), (1, 4, 40, 40))
    for step in graph.steps:
        value = graph.values[step.output]
        if step.reads is not None and value.axes:
            assert step.reads.output_shape == value.sizes
            assert step.reads.shape == graph.values[step.inputs[0]].sizes


class Opaque(nn.Module):
    """Leaves NumPy's way between two poolings, where torch.export cannot follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(opaque(F.max_pool2d(x, 2)), 2)


@torch.fx.wrap
def opaque(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(x.numpy() + 1)


def test_what_only_runs_is_named_and_the_rest_is_read() -> None:
    graph = pytorch.graph(Opaque(), (1, 2, 16, 16))
    assert [(step.op, step.known) for step in graph.steps] == [("MaxPool", True), ("opaque", False), ("MaxPool", True)]
    assert graph.values[graph.outputs[0]].shape == (1, 2, 4, 4)


def test_a_model_that_does_not_run_is_one_clear_fault() -> None:
    """Its own error is told once; what each way cannot follow, by itself."""
    with pytest.raises(
        poolwise.InvalidValue, match=r"trace on \[\(1, 5, 8, 8\)\], got RuntimeError: Given groups=1"
    ) as told:
        pytorch.graph(nn.Conv2d(3, 4, 3), (1, 5, 8, 8))
    assert str(told.value).count("Given groups=1") == 1
    with pytest.raises(poolwise.InvalidValue, match=r"torch\.export: .*torch\.fx: "):
        pytorch.graph(Branching(), (1, 3, 8, 8))


class Branching(nn.Module):
    """Goes by the data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, 2 if x.sum() > 0 else 3)


@pytest.mark.parametrize("count", [2, 3])
def test_inputs_that_the_model_does_not_take_are_refused(count: int) -> None:
    with pytest.raises(poolwise.InvalidValue, match=rf"once for each input of the model \(input\), got {count}$"):
        pytorch.graph(nn.Sequential(nn.MaxPool2d(2)), [(1, 3, 8, 8)] * count)
