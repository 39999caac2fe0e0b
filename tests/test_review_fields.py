"""What cells see, behind steps that enlarge: held against where the gradient of a cell is not zero."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from poolwise.design.graph import Graph
from poolwise.design.readers import read
from poolwise.design.stages import seen

SIZE = 37


def fields(graph: Graph) -> tuple[list[int], list[int]]:
    """For each cell of the network's one output the first and the last input element that it sees."""
    views = seen(graph)[graph.outputs[0]]
    assert views is not None
    cells = views[0].cells(graph.values[graph.outputs[0]].sizes[0])
    return cells.starts.tolist(), cells.ends.tolist()


def clipped(found: tuple[list[int], list[int]]) -> tuple[list[int], list[int]]:
    return [max(each, 0) for each in found[0]], [min(each, SIZE - 1) for each in found[1]]


def by_gradient(model: nn.Module) -> tuple[list[int], list[int]]:
    model = model.double()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1)  # all of one sign, so that nothing cancels
    x = torch.ones(1, 1, SIZE, dtype=torch.float64, requires_grad=True)
    ranges = []
    for cell in model(x)[0, 0]:
        (gradient,) = torch.autograd.grad(cell, x, retain_graph=True)
        read = torch.nonzero(gradient[0, 0]).flatten()
        ranges.append((int(read[0]), int(read[-1])))
    starts, ends = zip(*ranges, strict=True)
    return list(starts), list(ends)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose1d(1, 1, 2, 2),
        nn.ConvTranspose1d(1, 1, 4, 2, 1),
        nn.ConvTranspose1d(1, 1, 3, 2, 1, output_padding=1),
        nn.ConvTranspose1d(1, 1, 3, 1, 2, dilation=2),
        nn.ConvTranspose1d(1, 1, 5, 3, 2, output_padding=2),
        nn.Upsample(scale_factor=2),
        nn.Upsample(size=31),
        nn.Upsample(scale_factor=2, mode="linear"),
    ],
    ids=str,
)
def test_what_an_enlarged_map_sees_is_where_its_gradient_is(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 3), nn.AvgPool1d(2), layer, nn.Conv1d(1, 1, 3))
    assert clipped(fields(read(model, (1, 1, SIZE)))) == by_gradient(model)


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(1, 1, 5, padding=2), nn.Conv1d(2, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :36]
        y = nn.functional.interpolate(nn.functional.avg_pool1d(self.one(x), 2), scale_factor=2)
        return self.two(torch.cat([x, y], 1))


def test_a_skip_over_an_enlarged_map_sees_what_either_sees() -> None:
    starts, ends = by_gradient(Skip())
    found = fields(read(Skip(), (1, 1, SIZE)))
    assert ([max(each, 0) for each in found[0]], [min(each, 35) for each in found[1]]) == (starts, ends)


def test_keras_and_onnx_say_the_same() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((SIZE, 1)), layers.AveragePooling1D(2), layers.Conv1DTranspose(1, 4, 2, padding="same")]
    )
    torch_model = nn.Sequential(nn.AvgPool1d(2), nn.ConvTranspose1d(1, 1, 4, 2, 1))
    held = onnx.numpy_helper.from_array(np.ones((1, 1, 4), "f4"), "w")
    nodes = [
        helper.make_node("AveragePool", ["x"], ["a"], kernel_shape=[2], strides=[2]),
        helper.make_node("ConvTranspose", ["a", "w"], ["y"], strides=[2], pads=[1, 1], kernel_shape=[4]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [held])
    exchanged = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    expected = by_gradient(torch_model)
    assert clipped(fields(read(torch_model, (1, 1, SIZE)))) == expected
    assert clipped(fields(read(model, (1, SIZE, 1)))) == expected
    assert clipped(fields(read(exchanged, (1, 1, SIZE)))) == expected
