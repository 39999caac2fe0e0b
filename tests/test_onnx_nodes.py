"""ONNX's own pooling tests, and its reference evaluator, through the NumPy functions."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase as NodeTest
from onnx.helper import get_node_attr_value, make_node
from onnx.reference import ReferenceEvaluator

import poolwise

Arrays = Sequence[np.ndarray]

# The node tests of onnx 1.23.2, by operator.
SLIDING = {
    "MaxPool": [
        "test_maxpool_1d_default",
        "test_maxpool_2d_ceil",
        "test_maxpool_2d_ceil_output_size_reduce_by_one",
        "test_maxpool_2d_default",
        "test_maxpool_2d_dilations",
        "test_maxpool_2d_pads",
        "test_maxpool_2d_precomputed_pads",
        "test_maxpool_2d_precomputed_same_upper",
        "test_maxpool_2d_precomputed_strides",
        "test_maxpool_2d_same_lower",
        "test_maxpool_2d_same_upper",
        "test_maxpool_2d_strides",
        "test_maxpool_2d_uint8",
        "test_maxpool_3d_default",
        "test_maxpool_3d_dilations",
        "test_maxpool_3d_dilations_use_ref_impl",
        "test_maxpool_3d_dilations_use_ref_impl_large",
        "test_maxpool_with_argmax_2d_precomputed_pads",
        "test_maxpool_with_argmax_2d_precomputed_strides",
    ],
    "AveragePool": [
        "test_averagepool_1d_default",
        "test_averagepool_2d_ceil",
        "test_averagepool_2d_ceil_last_window_starts_on_pad",
        "test_averagepool_2d_default",
        "test_averagepool_2d_dilations",
        "test_averagepool_2d_pads",
        "test_averagepool_2d_pads_count_include_pad",
        "test_averagepool_2d_precomputed_pads",
        "test_averagepool_2d_precomputed_pads_count_include_pad",
        "test_averagepool_2d_precomputed_same_upper",
        "test_averagepool_2d_precomputed_strides",
        "test_averagepool_2d_same_lower",
        "test_averagepool_2d_same_upper",
        "test_averagepool_2d_strides",
        "test_averagepool_3d_default",
        "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False",
        "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True",
        "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False",
        "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True",
        "test_averagepool_3d_dilations_small",
    ],
}
WHOLE = {
    "GlobalAveragePool": ["test_globalaveragepool", "test_globalaveragepool_precomputed"],
    "GlobalMaxPool": ["test_globalmaxpool", "test_globalmaxpool_precomputed"],
}
UNPOOLING = {"MaxUnpool": ["test_maxunpool_export_without_output_shape"]}
# Its expected output reads the indices over another shape than the output's: see the test that names it.
DISPUTED = {"MaxUnpool": ["test_maxunpool_export_with_output_shape"]}
# Input and expected output are printed to four decimals.
PRINTED = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-4}
NORMS = {
    "LpPool": [
        "test_lppool_1d_default",
        "test_lppool_2d_default",
        "test_lppool_2d_dilations",
        "test_lppool_2d_pads",
        "test_lppool_2d_same_lower",
        "test_lppool_2d_same_upper",
        "test_lppool_2d_strides",
        "test_lppool_3d_default",
    ],
}


@lru_cache(maxsize=1)
def node_tests() -> dict[str, dict[str, NodeTest]]:
    """Every node test of an operator that pools: operator → name → test. Generated once, from ONNX's fixed seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other operators' tests overflow on purpose
        collected = collect_testcases()
    tests: dict[str, dict[str, NodeTest]] = defaultdict(dict)
    for test in collected:
        kinds = {node.op_type for node in test.model.graph.node if "pool" in node.op_type.lower()}
        for kind in kinds:
            tests[kind][test.name] = test
    return tests


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """A node's attribute, or the standard's default."""
    return get_node_attr_value(node, name) if any(each.name == name for each in node.attribute) else default


def padding_of(node: onnx.NodeProto, rank: int) -> Any:
    """`auto_pad`, or `pads`, which lists every axis's begin and then every axis's end."""
    rule = attribute(node, "auto_pad", b"NOTSET").decode()
    pads = attribute(node, "pads", [0] * (2 * rank))
    explicit = tuple(zip(pads[:rank], pads[rank:], strict=True))
    return {"NOTSET": explicit, "VALID": "valid", "SAME_UPPER": "same", "SAME_LOWER": "same_lower"}[rule]


def window_of(node: onnx.NodeProto) -> dict[str, Any]:
    """What MaxPool, AveragePool and MaxUnpool share; ONNX's stride is 1 when it is not given, not the window."""
    window = tuple(attribute(node, "kernel_shape", None))
    rank = len(window)
    return {
        "window": window,
        "stride": tuple(attribute(node, "strides", [1] * rank)),
        "padding": padding_of(node, rank),
        "axes": tuple(range(2, 2 + rank)),
    }


def sliding_of(node: onnx.NodeProto) -> dict[str, Any]:
    """An auto_pad fixes the output's size alone, so that ceil_mode changes nothing there (operator's text, 22)."""
    arguments = window_of(node)
    dilation = tuple(attribute(node, "dilations", [1] * len(arguments["window"])))
    explicit = not isinstance(arguments["padding"], str)
    return {**arguments, "dilation": dilation, "ceil_mode": explicit and bool(attribute(node, "ceil_mode", 0))}


def plane_starts(shape: tuple[int, ...]) -> np.ndarray:
    """The flat position at which each (batch, channel) plane of a whole tensor starts."""
    planes = np.arange(prod(shape[:2]), dtype=np.int64) * prod(shape[2:])
    return planes.reshape(*shape[:2], *[1] * len(shape[2:]))


def over_the_tensor(indices: np.ndarray, shape: tuple[int, ...], storage_order: int) -> np.ndarray:
    """poolwise's indices, flat over the pooled axes, as ONNX's: over the tensor, within a plane in either order."""
    places = np.unravel_index(indices, shape[2:])
    return plane_starts(shape) + np.ravel_multi_index(places, shape[2:], order="F" if storage_order else "C")


def max_pool(node: onnx.NodeProto, inputs: Arrays, kernel: str | None) -> Arrays:
    (x,) = inputs
    if len(node.output) == 1:
        return [poolwise.max_pool(x, **sliding_of(node), kernel=kernel)]
    y, indices = poolwise.max_pool(x, **sliding_of(node), return_indices=True, kernel=kernel)
    return [y, over_the_tensor(indices, x.shape, attribute(node, "storage_order", 0))]


def average_pool(node: onnx.NodeProto, inputs: Arrays, kernel: str | None) -> Arrays:
    (x,) = inputs
    counted = bool(attribute(node, "count_include_pad", 0))
    return [poolwise.avg_pool(x, **sliding_of(node), count_include_pad=counted, kernel=kernel)]


def lp_pool(node: onnx.NodeProto, inputs: Arrays, kernel: None) -> Arrays:
    (x,) = inputs
    return [poolwise.lp_pool(x, **sliding_of(node), p=attribute(node, "p", 2))]


def global_pool(op: poolwise.Operation) -> Callable[[onnx.NodeProto, Arrays, None], Arrays]:
    def pooled(node: onnx.NodeProto, inputs: Arrays, kernel: None) -> Arrays:
        (x,) = inputs
        return [poolwise.global_pool(x, op, axes=tuple(range(2, x.ndim)), keepdims=True)]

    return pooled


def inferred_shape(node: onnx.NodeProto, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What MaxUnpool makes of `shape` when no output_shape is given."""
    arguments = window_of(node)
    per_axis = zip(shape[2:], arguments["window"], arguments["stride"], arguments["padding"], strict=True)
    return (*shape[:2], *[(n - 1) * stride - low - high + taps for n, taps, stride, (low, high) in per_axis])


def max_unpool(node: onnx.NodeProto, inputs: Arrays, kernel: None) -> Arrays:
    y, indices, *given = inputs
    shape = tuple(given[0].tolist()) if given else inferred_shape(node, y.shape)
    output_size = shape[2:] if given else None
    return [poolwise.max_unpool(y, indices - plane_starts(shape), **window_of(node), output_size=output_size)]


TRANSLATIONS: dict[str, Callable[[onnx.NodeProto, Arrays, Any], Arrays]] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool(poolwise.Mean()),
    "GlobalMaxPool": global_pool(poolwise.Max()),
    "MaxUnpool": max_unpool,
    "LpPool": lp_pool,
}


def translated(node: onnx.NodeProto, inputs: Arrays, kernel: str | None = None) -> Arrays:
    """The node, computed by poolwise."""
    return TRANSLATIONS[node.op_type](node, inputs, kernel)


def slack(node: onnx.NodeProto, x: np.ndarray) -> float:
    """None, but for averages and norms 16 roundings of the largest element: ONNX's own are sums in float32."""
    summed = "Average" in node.op_type or "Lp" in node.op_type
    return 16 * np.finfo(np.float32).eps * float(np.abs(x).max()) if summed else 0.0


def assert_same(got: Arrays, expected: Arrays, atol: float) -> None:
    """Shapes, dtypes, and values within `atol`: bit for bit where it is 0."""
    for result, wanted in zip(got, expected, strict=True):
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(result, wanted, rtol=0, atol=atol)


def listed(*tables: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(kind, name) for table in tables for kind, names in table.items() for name in names]


def check(kind: str, name: str, kernel: str | None = None) -> None:
    test = node_tests()[kind][name]
    (node,) = test.model.graph.node
    assert test.data_sets
    for inputs, expected in test.data_sets:
        assert_same(translated(node, inputs, kernel), expected, PRINTED.get(name, slack(node, inputs[0])))


def test_every_node_test_of_a_translated_operator_is_listed_here() -> None:
    collected = [(kind, name) for kind in TRANSLATIONS for name in node_tests()[kind]]
    assert sorted(collected) == sorted(listed(SLIDING, WHOLE, UNPOOLING, DISPUTED, NORMS))


def test_every_operator_that_pools_and_has_node_tests_is_translated() -> None:
    assert set(node_tests()) == set(TRANSLATIONS)


@pytest.mark.parametrize("kernel", ["native", "gathered"])
@pytest.mark.parametrize(("kind", "name"), listed(SLIDING))
def test_a_sliding_window_gives_what_onnx_expects(kind: str, name: str, kernel: str) -> None:
    check(kind, name, kernel)


@pytest.mark.parametrize(("kind", "name"), listed(WHOLE, UNPOOLING, NORMS))
def test_global_pooling_unpooling_and_norms_give_what_onnx_expects(kind: str, name: str) -> None:
    check(kind, name)


@pytest.mark.parametrize(("kind", "name"), listed(DISPUTED))
def test_indices_count_in_the_shape_of_the_unpooled_array(kind: str, name: str) -> None:
    """ONNX's data count them in the shape that is inferred without output_shape, and pad that: onnx issue 2398.

    MaxPool's indices count in the array that was pooled, which output_shape names, so the data contradict the operator
    that they invert; ONNX Runtime (its pull request 2193) and PyTorch count as poolwise does.
    """
    test = node_tests()[kind][name]
    (node,) = test.model.graph.node
    ((inputs, (expected,)),) = test.data_sets
    y, indices, shape = inputs
    session = onnxruntime.InferenceSession(test.model.SerializeToString())
    runtime = session.run(None, dict(zip(node.input, inputs, strict=True)))
    assert_same(translated(node, inputs), runtime, 0)
    places = np.unravel_index(indices, inferred_shape(node, y.shape))
    recounted = np.ravel_multi_index(places, tuple(shape))
    assert_same(translated(node, [y, recounted, shape]), [expected], 0)


# Random geometries, against the reference evaluator. It deviates from the operators' text in the following, which is
# therefore not drawn (onnx 1.23.2, onnx/reference/ops). In all but the last two ONNX Runtime gives what poolwise gives.
# - MaxPool whose strides and dilations are all 1 reads `pads` of two axes in another order than the text's and fails on
#   those of one and of three axes (_op_common_pool.py); so the first stride is at least 2.
# - MaxPool with SAME_LOWER rounds the output's size down and puts the odd padding at the end (op_max_pool.py).
# - AveragePool whose last window of ceil_mode reaches more than one element past the padded input moves every window to
#   the left by half of that, where the text extends the right side only (op_pool_common.py).
# - MaxUnpool with output_shape: as above.
# - AveragePool with an auto_pad leaves dilation out of the padding, and refuses ceil_mode (op_pool_common.py).
# - A SAME padding that the text's formula makes negative (stride larger than window) fails or crops; poolwise takes 0.
DRAWS = range(30)


def draw_node(kind: str, seed: int) -> tuple[onnx.NodeProto, np.ndarray]:
    """A node and its input: one to three pooled axes of prime sizes, uneven padding, dilation, ceil_mode, ties."""
    draw = np.random.default_rng(seed)
    rank = seed % 3 + 1
    sizes = draw.choice([11, 13, 17] if rank < 3 else [5, 7], rank)
    taps = draw.integers(1, 4, rank)
    dilations = draw.integers(1, 3, rank)
    strides = draw.integers(1, 5, rank)
    strides[0] = max(strides[0], 2)
    spans = (taps - 1) * dilations + 1
    pads = draw.integers(0, spans, (2, rank))
    overhang = -(sizes + pads.sum(0) - spans) % strides
    ceil_mode = int(draw.random() < 0.75 and (kind == "MaxPool" or overhang.max() <= 1))
    own = own_attributes(kind, draw)
    node = make_node(
        kind,
        ["x"],
        ["y", "indices"] if kind == "MaxPool" else ["y"],
        kernel_shape=taps.tolist(),
        strides=strides.tolist(),
        dilations=dilations.tolist(),
        pads=pads.ravel().tolist(),
        ceil_mode=ceil_mode,
        **own,
    )
    return node, draw.integers(-9, 10, (2, 3, *sizes)).astype(np.float32)


def own_attributes(kind: str, draw: np.random.Generator) -> dict[str, int]:
    name = {"MaxPool": "storage_order", "AveragePool": "count_include_pad"}[kind]
    return {name: int(draw.integers(2))}


def evaluated(node: onnx.NodeProto, inputs: Arrays) -> Arrays:
    return ReferenceEvaluator(node).run(None, dict(zip(node.input, inputs, strict=True)))


@pytest.mark.parametrize("seed", DRAWS)
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_a_random_geometry_gives_what_the_reference_evaluator_computes(kind: str, seed: int) -> None:
    node, x = draw_node(kind, seed)
    assert_same(translated(node, [x]), evaluated(node, [x]), slack(node, x))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_the_random_geometries_reach_every_attribute(kind: str) -> None:
    nodes = [draw_node(kind, seed)[0] for seed in DRAWS]
    ceiled = [node for node in nodes if attribute(node, "ceil_mode", 0)]
    assert {len(attribute(node, "kernel_shape", [])) for node in ceiled} == {1, 2, 3}
    assert {
        attribute(node, name, None) for name in own_attributes(kind, np.random.default_rng(0)) for node in ceiled
    } == {0, 1}
    assert any(
        low != high for node in nodes for low, high in padding_of(node, len(attribute(node, "kernel_shape", [])))
    )
    assert {dilation for node in nodes for dilation in attribute(node, "dilations", [])} == {1, 2}


@pytest.mark.parametrize("sizes", [(7, 11), (11, 13), (13, 8)])
@pytest.mark.parametrize(
    ("kind", "rule", "attributes"),
    [
        ("MaxPool", "SAME_UPPER", {"dilations": [2, 3], "ceil_mode": 1}),
        ("MaxPool", "VALID", {"dilations": [2, 3], "ceil_mode": 1}),
        ("AveragePool", "SAME_UPPER", {}),
        ("AveragePool", "SAME_LOWER", {}),
        ("AveragePool", "VALID", {}),
    ],
)
def test_an_auto_pad_gives_what_the_reference_evaluator_computes(
    kind: str, rule: str, attributes: dict[str, Any], sizes: tuple[int, int]
) -> None:
    node = make_node(kind, ["x"], ["y"], kernel_shape=[3, 2], strides=[3, 2], auto_pad=rule, **attributes)
    x = np.random.default_rng(0).integers(-9, 10, (2, 3, *sizes)).astype(np.float32)
    assert_same(translated(node, [x]), evaluated(node, [x]), slack(node, x))


@pytest.mark.parametrize("seed", range(12))
def test_a_random_unpooling_gives_what_the_reference_evaluator_computes(seed: int) -> None:
    """Overlapping windows name an element more than once, here with different values: the last one stays."""
    draw = np.random.default_rng(seed)
    rank = seed % 3 + 1
    taps, strides = draw.integers(2, 4, (2, rank))
    pads = draw.integers(0, taps, (2, rank))
    sizes = draw.integers(3, 5, rank) * strides + taps - pads.sum(0)  # no remainder: unpooling gives this size back
    geometry = {"kernel_shape": taps.tolist(), "strides": strides.tolist(), "pads": pads.ravel().tolist()}
    x = draw.integers(-9, 10, (2, 3, *sizes)).astype(np.float32)
    _, indices = evaluated(make_node("MaxPool", ["x"], ["y", "indices"], **geometry), [x])
    inputs = [draw.integers(-9, 10, indices.shape).astype(np.float32), indices]
    node = make_node("MaxUnpool", ["y", "indices"], ["x"], **geometry)
    assert_same(translated(node, inputs), evaluated(node, inputs), 0)
