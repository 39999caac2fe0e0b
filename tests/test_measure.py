"""Measuring a user's model: answers known by hand, intervals that cover, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import poolwise.torch as door
from poolwise.cli import app
from poolwise.design import compare, measure, swapped
from poolwise.design.images import Scaled, load
from poolwise.design.intervals import paired, share, wilson
from poolwise.design.measure import Measurement
from poolwise.design.retention import retention
from poolwise.design.shifts import cosine, every_move, some_moves
from poolwise.errors import Fault, InvalidType, InvalidValue
from poolwise.models.run import running, whole_batches

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "measure.md"
QUICK: dict[str, Any] = {"rounds": 1}


class Looks(nn.Module):
    """Looks at one pixel: class 1 where it is lit."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full((len(x),), 0.5), x[:, 0, 4, 4]], dim=1)


def lit() -> np.ndarray:
    """81 images of 9×9, each with another pixel lit."""
    return np.eye(81, dtype=np.float32).reshape(81, 1, 9, 9)


def circular_net(down: nn.Module, images: np.ndarray) -> nn.Module:
    """Circular convolutions, global mean, and no class that always wins: each has the mean 0 over the images."""
    torch.manual_seed(1)
    first = nn.Conv2d(1, 8, 3, padding=1, padding_mode="circular")
    second = nn.Conv2d(8, 16, 3, padding=1, padding_mode="circular")
    mean, last = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)
    net = nn.Sequential(first, nn.ReLU(), down, second, nn.ReLU(), mean, nn.Flatten(), last).double()
    with torch.no_grad():
        last.bias -= net(torch.from_numpy(images).double()).mean(0)
    return net


def turned(padding: str = "zeros", bias: bool = True) -> nn.Conv2d:
    """Four filters that are one, turned: none of them wins everywhere."""
    torch.manual_seed(4)
    made = nn.Conv2d(1, 4, 3, padding=int(padding == "circular"), padding_mode=padding, bias=bias)
    with torch.no_grad():
        made.weight[:] = torch.stack([made.weight[0].rot90(turns, (1, 2)) for turns in range(4)])
        if bias:
            made.bias.zero_()
    return made


def small_net() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 25, 5))


def random_images(count: int = 40, *size: int) -> np.ndarray:
    return np.random.default_rng(3).random((count, 1, *(size or (28, 28))), dtype=np.float32)


# The protocols.


def test_a_pixel_looked_at_by_hand() -> None:
    found = measure(Looks(), np.tile(lit(), (20, 1, 1, 1)), **QUICK)
    # for each shift two of 81 answers change: of the image lit at the pixel, and of the one that is moved there
    assert found.circular.interval.value == pytest.approx(1 - 2 / 81)
    assert len(found.settings.moves) == 24
    # 25 of 81 pixels are seen by one of the 25 places of a crop, by each crop independently
    expected = 1 - 25 / 81 * 2 * (1 / 25) * (24 / 25)
    assert found.crops.interval.low < expected < found.crops.interval.high
    assert (found.crops.interval.images, found.crops.interval.trials) == (1620, 1)


def test_what_is_circular_all_through_is_consistent() -> None:
    net = nn.Sequential(turned("circular"), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    found = measure(net, random_images(), **QUICK)
    assert found.circular.interval.value == found.circular.interval.high == 1.0
    assert 0.9 < found.circular.interval.low < 1.0  # 40 images do not prove it of all
    assert set(found.circular.values.ravel()) == {1.0}
    assert found.crops.interval.value < 1.0  # zeros come in at the border


class Polyphase(nn.Module):
    """Adaptive polyphase sampling: of the four grids of every second element, the one of the largest norm.

    Source: Chaman & Dokmanić, Truly shift-invariant convolutional neural networks, CVPR 2021.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grids = torch.stack([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], dim=1)
        best = grids.square().sum((2, 3, 4)).argmax(1)
        return grids[torch.arange(len(x)), best]


def test_adaptive_polyphase_sampling_is_consistent_before_training() -> None:
    images = random_images(60, 16, 16)
    strided = measure(circular_net(nn.MaxPool2d(1, 2), images), images, reach=3, shifts=48, **QUICK)
    for sampling in (Polyphase(), door.PolyphasePool2d(2)):
        sampled = measure(circular_net(sampling, images), images, reach=3, shifts=48, **QUICK)
        assert sampled.circular.interval.value == 1.0
        assert set(sampled.circular.values.ravel()) == {1.0}
        assert len(sampled.settings.moves) == 48
    assert strided.circular.interval.high < 1.0  # the same net, the first grid always


def test_max_then_adaptive_polyphase_sampling_is_consistent_too() -> None:
    dense = nn.MaxPool2d(2, 1)
    around = nn.Sequential(nn.CircularPad2d((0, 1, 0, 1)), dense, Polyphase())
    images = random_images(60, 16, 16)
    assert measure(circular_net(around, images), images, **QUICK).circular.interval.value == 1.0
    assert measure(circular_net(nn.MaxPool2d(2), images), images, **QUICK).circular.interval.value < 1.0


def test_shifts_are_all_that_there_are_or_so_many() -> None:
    every = every_move(2, 2)
    assert len(every) == len(set(every)) == 24
    assert (0, 0) not in every
    assert some_moves(2, 2, 24, np.random.default_rng(0)) == every
    drawn = some_moves(9, 2, 50, np.random.default_rng(0))
    assert len(set(drawn)) == 50
    assert (0, 0) not in drawn
    assert {abs(pixels) for move in drawn for pixels in move} == set(range(10))
    assert len(some_moves(1, 3, 99, np.random.default_rng(0))) == 26


def test_crops_out_of_larger_images_have_real_borders() -> None:
    wide = np.zeros((200, 1, 13, 13), np.float32)
    wide[:, :, 6, 6] = 1.0
    found = measure(Looks(), wide, size=(9, 9), **QUICK)
    assert found.settings.real_borders
    assert found.shape == (1, 9, 9)
    assert set(found.answers) == {1}  # the middle of 13 is what the middle 9 have in their middle
    assert found.crops.interval.low < 1 - 2 / 25 * 24 / 25 < found.crops.interval.high


def test_cosine_for_models_that_are_no_classifiers() -> None:
    found = measure(nn.Flatten(), lit(), answer="cosine", **QUICK)
    assert found.circular.interval.value == 0.0  # another pixel is lit
    same = measure(nn.Flatten(), np.ones((5, 1, 9, 9), np.float32), answer="cosine", **QUICK)
    assert same.circular.interval.value == pytest.approx(1.0)
    assert cosine(np.array([[1.0, 0], [0, 0], [0, 0]]), np.array([[-2.0, 0], [0, 0], [1, 0]])).tolist() == [-1, 1, 0]


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, again, other = (measure(small_net(), random_images(), seed=seed, **QUICK) for seed in (0, 0, 1))
    assert (first.circular, first.crops, first.poolings) == (again.circular, again.crops, again.poolings)
    assert np.array_equal(first.crops.values, again.crops.values)
    assert not np.array_equal(first.crops.values, other.crops.values)
    wide, narrow = (measure(small_net(), random_images(), batch=batch, **QUICK) for batch in (40, 7))
    assert np.array_equal(wide.circular.values, narrow.circular.values)
    assert np.array_equal(wide.crops.values, narrow.crops.values)


# Intervals.


@pytest.mark.parametrize(
    ("right", "of", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]
)
def test_wilsons_interval_as_printed(right: int, of: int, low: float, high: float) -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 1998, table I, method 3
    assert wilson(right / of, of) == pytest.approx((low, high), abs=5e-5)
    found = share(np.repeat([[1.0], [0.0]], [right, of - right], axis=0))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("a", "b"), [(9.0, 1.0), (0.5, 0.5), (40.0, 2.0), (2.0, 2.0)])
def test_intervals_of_shares_cover(a: float, b: float) -> None:
    """24 shifts of each of 60 images, which differ among each other: the true share is inside in about 95 of 100."""
    random = np.random.default_rng(0)
    inside = []
    for _ in range(1000):
        each = random.beta(a, b, 60)[:, None]
        found = share(random.binomial(1, each, (60, 24)).astype(float))
        inside.append(found.low <= a / (a + b) <= found.high)
    assert 0.93 < np.mean(inside) <= 0.99


@pytest.mark.parametrize("effect", [0.0, 0.05, 0.3])
def test_intervals_of_differences_cover(effect: float) -> None:
    random = np.random.default_rng(0)
    inside = []
    for _ in range(1000):
        each = random.beta(4, 2, 60)[:, None] * 0.65
        before, after = (random.binomial(1, each + more, (60, 1)).astype(float) for more in (0.0, effect))
        found = paired(after, before)
        inside.append(found.low <= effect <= found.high)
    assert np.mean(inside) > 0.93


def test_few_images_are_told_by_the_width() -> None:
    few, many = (share(np.ones((count, 24))) for count in (5, 500))
    assert few.low < 0.6
    assert many.low > 0.98
    assert paired(np.ones((5, 24)), np.ones((5, 24))).low < -0.25
    assert share(np.ones((1, 24))).low < 0.3


# What poolings keep, what a batch takes and holds.


def test_retention_of_each_pooling() -> None:
    net, images = small_net(), random_images(30)
    found = measure(net, images, batch=8, **QUICK)
    with torch.no_grad():
        first = net[1](net[0](torch.from_numpy(images)))
        second = net[4](net[3](net[2](first)))
    for pooling, before, op in zip(found.poolings, (first, second), ("max 2/2", "max 2/2"), strict=True):
        expected = retention(before.numpy(), nn.functional.max_pool2d(before, 2).numpy(), (2, 2))
        got = pooling.retention
        assert (got.peak, got.energy, got.detail) == pytest.approx(
            (expected.peak, expected.energy, expected.detail), rel=1e-5
        )
        assert pooling.op == op
    assert [(pooling.name, pooling.input, pooling.output) for pooling in found.poolings] == [
        ("2", (4, 26, 26), (4, 13, 13)),
        ("5", (4, 11, 11), (4, 5, 5)),
    ]
    assert measure(net, images, maps=1, **QUICK).poolings != found.poolings


def test_bytes_by_stage() -> None:
    found = measure(small_net(), random_images(10), batch=4, **QUICK)
    assert [(stage.step, stage.op) for stage in found.stages] == [("2", "MaxPool"), ("5", "MaxPool")]
    assert found.stages[0].activation == 4 * 4 * 13 * 13 * 4
    assert found.stages[0].kept_by_poolwise == 4 * 4 * 13 * 13
    assert found.stages[0].kept_by_pytorch == 8 * 4 * 4 * 13 * 13
    assert found.batch == 4
    assert found.seconds > 0


def test_a_model_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.MaxPool2d(2), nn.Flatten())
    net[2].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure(net, random_images(), answer="cosine", **QUICK)
    assert [module.training for module in net] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


# Frameworks.


def onnx_net(batch: int | str = "N") -> onnx.ModelProto:
    """The same as `torch_twin`."""
    weights = torch_twin()[0].weight.detach().numpy()
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        helper.make_node("GlobalAveragePool", ["p"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (("x", [batch, 1, 12, 12]), ("y", [batch, 4, 1, 1]))
    )
    graph = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def torch_twin() -> nn.Sequential:
    return nn.Sequential(turned(bias=False), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))


@pytest.mark.parametrize("batch", ["N", 1, 16])
def test_onnx_models_give_the_same_numbers(batch: int | str) -> None:
    images = random_images(50, 12, 12)
    ours, theirs = measure(torch_twin(), images, **QUICK), measure(onnx_net(batch), images, **QUICK)
    assert np.array_equal(ours.circular.values, theirs.circular.values)
    assert np.array_equal(ours.crops.values, theirs.crops.values)
    assert 0.3 < ours.circular.interval.value < 1.0
    assert (theirs.framework, theirs.model) == ("onnx", "ModelProto")
    assert theirs.poolings[0].name == "pool"
    assert theirs.poolings[0].retention.peak == pytest.approx(ours.poolings[0].retention.peak, rel=1e-5)


@pytest.mark.slow
def test_keras_models_give_the_same_numbers() -> None:
    keras = pytest.importorskip("keras")
    twin = torch_twin()
    layers = (keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.MaxPooling2D(2))
    net = keras.Sequential([keras.Input((12, 12, 1)), *layers, keras.layers.GlobalAveragePooling2D()])
    net.layers[0].set_weights([twin[0].weight.detach().permute(2, 3, 1, 0).numpy()])
    images = random_images(50, 12, 12)
    ours, theirs = measure(twin, images, **QUICK), measure(net, np.moveaxis(images, 1, -1), **QUICK)
    assert np.array_equal(ours.circular.values, theirs.circular.values)
    assert np.array_equal(ours.crops.values, theirs.crops.values)
    assert theirs.settings.axes == (1, 2)
    assert [pooling.op for pooling in theirs.poolings] == ["max 2/2", "mean to 1"]
    with pytest.raises(InvalidType, match="poolings swapped, got one of keras"):
        swapped(net, "max", "mean", np.moveaxis(images, 1, -1))


def test_batches_of_a_fixed_size_are_filled_up() -> None:
    images = random_images(10, 12, 12)
    free, fixed = onnx_net(), onnx_net(4)
    with running(free) as one, running(fixed) as other:
        assert np.allclose(one(images), other(images), atol=1e-6)
    assert [len(part) for part in whole_batches(fixed, images, 32)] == [4, 4]
    assert [len(part) for part in whole_batches(free, images, 3)] == [3, 3, 3, 1]
    assert [len(part) for part in whole_batches(fixed, images[:3], 32)] == [4]


# Before and after.


def test_a_model_beside_itself_does_not_differ() -> None:
    found = compare(small_net(), small_net(), random_images(), **QUICK)
    assert found.circular.value == found.crops.value == 0.0
    assert found.circular.low < 0 < found.circular.high
    assert found.same.value == 1.0


def test_the_difference_is_paired() -> None:
    class Better(Looks):
        """Sees the pixel in two images of three, and nothing in the others."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(
                x * torch.tensor([0.0, 1.0, 1.0]).repeat(-(-len(x) // 3))[: len(x), None, None, None]
            )

    images = np.tile(lit(), (2, 1, 1, 1))[:162]
    found = compare(Looks(), Better(), images, batch=162, **QUICK)
    assert found.circular.value == pytest.approx(
        found.after.circular.values.mean() - found.before.circular.values.mean()
    )
    assert found.circular.value > 0
    assert found.same.value == 1.0 - (np.arange(162) % 3 == 0)[found.before.answers == 1].sum() / 162


@pytest.mark.parametrize("name", ["mean", "strided", "max-blur"])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d((3, 2), stride=(1, 3), padding=(1, 0)),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(2, 2, dilation=2),
        nn.MaxPool1d(2),
        nn.MaxPool3d(2, 1),
        door.MaxPool2d(3, 2, 1),
    ],
    ids=str,
)
def test_swaps_by_name_keep_the_sizes(pool: Any, name: str) -> None:
    rank = int(type(pool).__name__[-2])
    for size in (11, 12, 13):
        x = torch.rand(2, 3, *(size,) * rank, requires_grad=True)
        net = door.swap(nn.Sequential(pool), "max", name)
        y = net(x)
        assert y.shape == pool(x).shape
        assert len(net.poolwise_changes) == 1
        y.sum().backward()
        assert torch.isfinite(x.grad).all()


def test_swaps_by_name_are_what_they_are_called() -> None:
    x = torch.rand(1, 2, 9, 9)
    mean, strided = (door.swap(nn.Sequential(nn.MaxPool2d(3, 2, 1)), "max", name) for name in ("mean", "strided"))
    expected = nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(mean(x), expected)
    assert torch.equal(strided(x), x[:, :, ::2, ::2])
    assert torch.equal(door.swap(nn.Sequential(nn.MaxPool2d(2)), "max", "strided")(x), x[:, :, ::2, ::2][:, :, :4, :4])


def test_swap_shows_before_and_after_and_leaves_the_model() -> None:
    net, images = small_net(), random_images()
    found = swapped(net, "max", "mean", images, **QUICK)
    assert [pooling.op for pooling in found.after.poolings] == ["mean 2/2", "mean 2/2"]
    assert [pooling.op for pooling in found.before.poolings] == ["max 2/2", "max 2/2"]
    assert type(net[2]) is nn.MaxPool2d
    assert len(found.changes) == 2
    assert found.before.circular == measure(net, images, **QUICK).circular
    by_hand = compare(net, door.swap(small_net(), nn.MaxPool2d, nn.AvgPool2d(2)), images, **QUICK)
    assert found.circular == by_hand.circular


def test_fused_gives_the_same_answers_and_keeps_less() -> None:
    found = swapped(small_net(), "relu+max", "fused", random_images(), **QUICK)
    assert found.same.value == 1.0
    assert found.circular.value == 0.0
    assert any("relumax_pool2d" in change for change in found.changes)


@pytest.mark.parametrize("name", ["strided", "max-blur"])
def test_what_is_swapped_in_is_seen(name: str) -> None:
    found = swapped(small_net(), "max", name, random_images(), **QUICK)
    assert [pooling.op for pooling in found.after.poolings] == [f"{name} 2/2"] * 2
    kept = found.after.poolings[0].retention
    assert kept.detail is not None
    assert kept.detail == pytest.approx(1.0) if name == "strided" else kept.detail < 0.6


# What is refused.

HELD = random_images(6)


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(1), x.flatten(1)


class NotFinite(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) * float("nan")


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: measure(3, HELD), InvalidType, "model must be a torch.nn.Module, a keras model or an onnx"),
        (lambda: measure("net.pt", HELD), InvalidValue, "model must be .*got 'net.pt'"),
        (lambda: measure(small_net(), (HELD * 255).astype(np.uint8)), InvalidValue, "floats .* got uint8"),
        (lambda: measure(small_net(), "folder"), InvalidType, "images must be an array of numbers, got str"),
        (lambda: measure(small_net(), HELD[0]), InvalidValue, r"model must run on images of shape \(1, 28, 28\)"),
        (lambda: measure(small_net(), HELD[0, 0]), InvalidValue, r"images must be \(N, channels, .*got \(28, 28\)"),
        (lambda: measure(small_net(), HELD[:0]), InvalidValue, r"images must be .*got \(0, 1, 28, 28\)"),
        (lambda: measure(small_net(), HELD * np.nan), InvalidValue, "images must be finite"),
        (lambda: measure(small_net(), random_images(3, 30, 30)), InvalidValue, "model must run on images of shape"),
        (lambda: measure(onnx_net(), random_images(3, 14, 14)), InvalidValue, "takes, 1×12×12, got 1×14×14"),
        (lambda: measure(onnx_net(), random_images(3, 14, 14), size=(13, 13)), InvalidValue, "1×12×12, got 1×13×13"),
        (lambda: measure(small_net(), HELD, size=(40, 40)), InvalidValue, r"size must be 2 numbers of at most .*28"),
        (lambda: measure(small_net(), HELD, answer="top5"), InvalidValue, "answer must be one of 'class', 'cosine'"),
        (lambda: measure(small_net(), HELD, reach=14), InvalidValue, "reach must be less than half .*got 14"),
        (lambda: measure(small_net(), HELD, reach=0), InvalidValue, "reach must be at least 1, got 0"),
        (lambda: measure(small_net(), HELD, shifts=2.5), InvalidType, "shifts must be a whole number, got 2.5"),
        (lambda: measure(small_net(), HELD, batch=0), InvalidValue, "batch must be at least 1, got 0"),
        (lambda: measure(small_net(), HELD, axes=(2, 2)), InvalidValue, "axes must be different ones of 1 … 3"),
        (lambda: measure(small_net(), HELD, speed=1), InvalidType, "options must be of answer, .*got 'speed'"),
        (lambda: measure(Pair(), HELD), InvalidType, "model must give one array, got 2 of them"),
        (lambda: measure(NotFinite(), HELD), InvalidValue, "model must give finite numbers"),
        (lambda: measure(nn.Conv2d(1, 2, 3), HELD), InvalidValue, r"\(N, classes\) .*got \(6, 2, 26, 26\)"),
        (
            lambda: measure(nn.Sequential(nn.Flatten(), nn.Linear(784, 1)), HELD),
            InvalidValue,
            r"at least 2 classes.*\(6, 1\)",
        ),
        (lambda: measure(small_net(), HELD, preprocess=lambda x: x[:2]), InvalidValue, "as many images as it takes, 6"),
        (
            lambda: measure(small_net(), HELD, preprocess=lambda x: x.no()),
            InvalidValue,
            "preprocess must work on images",
        ),
        (lambda: swapped(onnx_net(), "max", "mean", random_images(3, 12, 12)), InvalidType, "got one of onnx"),
        (
            lambda: swapped(small_net(), "max", "median", HELD),
            InvalidValue,
            "names must be one of max:mean, .*got max:median",
        ),
        (lambda: swapped(nn.Flatten(), "max", "mean", HELD), InvalidValue, "a place for max:mean, got Flatten"),
        (
            lambda: swapped(nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "max", "mean", HELD),
            InvalidValue,
            "without return_indices=True, got one with it: MaxPool2d",
        ),
        (lambda: compare(small_net(), Looks(), random_images(3, 9, 9)), InvalidValue, "model must run on images"),
    ],
)
def test_bad_input_gets_one_clear_error(call: Callable[[], Any], kind: type[Fault], text: str) -> None:
    with pytest.raises(kind, match=text) as raised:
        call()
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


# Images.


def test_pictures_become_bytes(tmp_path: Path) -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for name in ("b", "a"):
        Image.fromarray(grey + (name == "b")).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    assert np.array_equal(load(tmp_path), np.stack([grey, grey + 1])[:, None])
    assert load(tmp_path, channels_last=True).shape == (2, 4, 6, 1)
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "c.png")
    assert load(tmp_path).shape == (3, 3, 4, 6)
    Image.fromarray(grey[:3]).save(tmp_path / "d.png")
    with pytest.raises(InvalidValue, match=r"one size, got a.png of 6×4, d.png of 6×3"):
        load(tmp_path)


def test_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    images = random_images(3)
    np.save(tmp_path / "x.npy", images)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(3))
    assert np.array_equal(load(tmp_path / "x.npy"), images)
    assert np.array_equal(load(tmp_path / "x.npz"), images)
    np.savez(tmp_path / "y.npz", a=images, b=images)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    (tmp_path / "torn.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])
    (tmp_path / "empty").mkdir()
    for name, text in [("y.npz", "got a, b"), ("objects.npy", "saved by NumPy"), ("torn.npy", "saved by NumPy")]:
        with pytest.raises(InvalidValue, match=text):
            load(tmp_path / name)
    for name in ("nothing.npy", "empty", "x.zip"):
        with pytest.raises(InvalidValue, match="images must be"):
            load(tmp_path / name)


def test_scaling_is_what_is_said() -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 5), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (bytes_ / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(Scaled(1 / 255, mean, std)(bytes_), expected, atol=1e-6)
    last = Scaled(1 / 255, mean, std, channels=-1)(np.moveaxis(bytes_, 1, -1))
    assert np.allclose(np.moveaxis(last, -1, 1), expected, atol=1e-6)
    with pytest.raises(InvalidValue, match="mean must be 1 number, or one for each of 3 channels"):
        Scaled(1.0, (0.0, 0.0))(bytes_)
    with pytest.raises(InvalidValue, match="std above 0"):
        Scaled(1.0, std=(0.0,))


# The shell.


def shell(*words: str) -> Result:
    return CliRunner().invoke(app, ["measure", *words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and images, and the one to be in."""
    (tmp_path / "nets_to_measure.py").write_text(
        "import torch\ndef make():\n    torch.manual_seed(0)\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), "
        "torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(4 * 25, 5))\n"
    )
    np.save(tmp_path / "images.npy", random_images(20, 12, 12))
    np.save(tmp_path / "bytes.npy", (random_images(20, 12, 12) * 255).astype(np.uint8))
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(np.load(tmp_path / "bytes.npy")):
        Image.fromarray(image[0]).save(tmp_path / "pictures" / f"{number:02}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_text_says_what_was_measured(folder: Path) -> None:
    done = shell("nets_to_measure:make", "--images", "images.npy", "--rounds", "1")
    assert done.exit_code == 0, done.output
    for words in (
        "nets_to_measure:make (pytorch) on 20 images",
        "circular shifts",
        "crops",
        "95 % interval",
        "max 2/2",
    ):
        assert words in " ".join(done.stdout.split())


def test_a_folder_of_pictures_is_the_same_as_its_bytes(folder: Path) -> None:
    words = ("--scale", "1/255", "--mean", "0.5", "--std", "0.25", "--format", "json", "--rounds", "1")
    found = [shell("nets_to_measure:make", "--images", name, *words) for name in ("bytes.npy", "pictures")]
    one, other = (json.loads(done.stdout) for done in found)
    assert one["shift_consistency"] == other["shift_consistency"]
    by_hand = measure("nets_to_measure:make", (np.load("bytes.npy") / 255 - 0.5) / 0.25, **QUICK)
    assert one["shift_consistency"]["circular"]["value"] == pytest.approx(by_hand.circular.interval.value)


def test_swap_at_the_shell(folder: Path) -> None:
    words = ("nets_to_measure:make", "--images", "images.npy", "--swap", "max:mean", "--rounds", "1")
    text, data = shell(*words), shell(*words, "--format", "json")
    assert text.exit_code == data.exit_code == 0, text.output
    assert "before" in text.stdout and "after" in text.stdout and "difference" in text.stdout
    found = json.loads(data.stdout)
    assert [each["op"] for each in found["after"]["poolings"]] == ["mean 2/2"]
    assert found["changes"] == ["2: torch.nn.MaxPool2d → poolwise.torch.Pool"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere:make", "--images", "images.npy"], "model must be importable, got 'nowhere:make'"),
        (["nets_to_measure:make", "--images", "nothing"], "images must be a folder of pictures, an .npy or an .npz"),
        (["nets_to_measure:make", "--images", "bytes.npy"], "images of uint8 must come with a scale"),
        (["nets_to_measure:make", "--images", "pictures", "--mean", "0.5"], "images of uint8 must come with a scale"),
        (["nets_to_measure:make", "--images", "images.npy", "--scale", "x"], "scale must be a number such as 0.5"),
        (
            ["nets_to_measure:make", "--images", "images.npy", "--swap", "max"],
            "swap must be two names such as max:mean",
        ),
        (
            ["nets_to_measure:make", "--images", "images.npy", "--swap", "max:min"],
            "swap: names must be one of max:mean, max:strided, max:max-blur, relu+max:fused",
        ),
        (["nets_to_measure:make", "--images", "images.npy", "--size", "3by4"], "size must be whole numbers"),
        (["nets_to_measure:make", "--images", "images.npy", "--size", "9x9"], "model must run on images of shape"),
        (["nets_to_measure:make", "--images", "images.npy", "--answer", "yes"], "answer must be one of"),
        (["model.onnx", "--images", "images.npy", "--swap", "max:mean"], "got one of onnx"),
    ],
)
def test_the_shell_refuses_in_one_line(folder: Path, words: list[str], text: str) -> None:
    onnx.save(onnx_net(), folder / "model.onnx")
    done = shell(*words)
    assert done.exit_code == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def keys(data: Any) -> set[str]:
    """Every name in a JSON value."""
    if isinstance(data, dict):
        return {*data, *(name for value in data.values() for name in keys(value))}
    return {name for value in data for name in keys(value)} if isinstance(data, list) else set()


def test_every_entry_of_the_json_is_documented() -> None:
    found = swapped(small_net(), "max", "mean", HELD, **QUICK).data()
    assert json.loads(json.dumps(found)) == found
    told = set(re.findall(r"`([a-z_]+)`", DOCS.read_text()))
    assert keys(found) <= told, keys(found) - told
    assert found["schema"] == 1


def test_a_measurement_is_a_value() -> None:
    found = measure(small_net(), HELD, **QUICK)
    assert isinstance(found, Measurement)
    assert found.named("mine").model == "mine"
    assert found.data()["images"] == {"count": 6, "shape": [1, 28, 28]}
