"""The page's own arithmetic is the reference's: the same cases through Python and through the module in Node."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import poolwise
from explorer_node import ask, floats, grid
from poolwise.explorer import state
from poolwise.explorer.answers import changed
from poolwise.ops import OPERATIONS

OPS = ("max", "min", "sum", "mean", "mean(count_include_pad:true)", "mean(divisor:3)", "mean(rounding:truncate)")
GEOMETRIES = (
    "window=2x2",
    "window=3x2&stride=2x1",
    "window=3x3&stride=2x2&padding=1-1x1-1",
    "window=3x3&stride=2x2&padding=0-2x3-1&ceil=1",
    "window=2x3&dilation=3x2&stride=1x2&padding=1-0x2-2",
    "window=5x5&stride=3x3&padding=same",
    "window=4x3&stride=3x2&padding=same_lower",
    "window=2x2&stride=3x3",
    "window=1x1&stride=4x5&padding=3-3x3-3",
    "window=7x6&stride=1x1&padding=valid",
    "window=3x3&stride=1x1&padding=4-4x4-4&mode=circular",
    "window=3x4&stride=2x1&padding=5-3x9-2&mode=reflect",
    "window=4x4&stride=3x3&padding=2-2x2-2&mode=replicate&ceil=1",
    "adaptive=3x4",
    "adaptive=5x5&bins=disjoint",
    "adaptive=9x13",
    "global=1",
)
SIZES = ((7, 6), (9, 7), (1, 11), (13, 17))
REFUSED = (
    "window=9x2",
    "window=3x3&dilation=4x4",
    "adaptive=20x20&bins=disjoint",
    "window=1x7",
)


def plane(size: tuple[int, int], dtype: str, seed: int = 0) -> Any:
    """Small numbers with ties; among floats also NaN and infinities."""
    rng = np.random.default_rng(seed)
    low = 0 if dtype.startswith("u") else -4
    x = rng.integers(low, 5, size).astype(dtype)
    if x.dtype.kind == "f":
        x += (rng.integers(0, 8, size) / 8).astype(dtype)
        x.flat[rng.integers(0, x.size, 2)] = [np.nan, -np.inf]
    return x


def cases() -> list[tuple[Any, str]]:
    made = []
    for number, (op, geometry, size) in enumerate(itertools.product(OPS, GEOMETRIES, SIZES)):
        dtype = ("float32", "uint8", "float64", "int16")[number % 4]
        made.append((plane(size, dtype, number), f"op={op}&{geometry}"))
    return made


def test_forward_backward_winners_and_coverage_are_the_references() -> None:
    asked = cases()
    served = 0
    for (x, call), said in zip(
        asked, ask([{"do": "pooled", "input": grid(x), "call": call} for x, call in asked]), strict=True
    ):
        pooling = state.read(call)
        try:
            y = forward(pooling, x)
        except poolwise.Fault as fault:
            assert said.get("fault", "").partition(" ")[0] == fault.fact.partition(" ")[0].partition("_")[0], call
            continue
        served += 1
        answer = said["answer"]
        found = floats(answer["values"], answer["rows"], answer["columns"])
        assert answer["dtype"] == y.dtype.name, call
        tolerance = 1e-6 if y.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(found, y.astype(float), rtol=tolerance, atol=tolerance, err_msg=call)
        looked = floats(answer["looks"], answer["rows"], answer["columns"])
        np.testing.assert_allclose(looked, y.astype(float), rtol=tolerance, atol=tolerance, err_msg=call)
        geometry = (
            poolwise.Geometry.adaptive(
                x.shape, output_size=pooling.arguments["output_size"], bins=pooling.arguments.get("bins", "overlapping")
            )
            if pooling.adaptive
            else poolwise.Geometry.of(x.shape, **pooling.arguments)
        )
        assert [list(axis) for axis in geometry.coverage()] == answer["coverage"], call
        gradient = floats(answer["gradient"], *x.shape)
        exact = x.astype(np.float64)
        np.testing.assert_allclose(gradient, pooling.backward(np.ones(y.shape), exact), rtol=1e-12, err_msg=call)
        if call.startswith(("op=max", "op=min")):
            assert answer["winners"] == list(winners(pooling, x).ravel()), call
    assert served > len(asked) * 0.8


def forward(pooling: state.Asked, x: Any) -> Any:
    """The reference's answer."""
    function = poolwise.adaptive_pool if pooling.adaptive else poolwise.pool
    return function(x, pooling.op, **pooling.arguments, kernel="reference")


def winners(pooling: state.Asked, x: Any) -> Any:
    if pooling.adaptive:
        return poolwise.adaptive_pool(x, pooling.op, **pooling.arguments, return_indices=True)[1]
    name = {"max": poolwise.max_pool, "min": poolwise.min_pool}[pooling.op.name]
    return name(x, **pooling.arguments, return_indices=True)[1]


@pytest.mark.parametrize(
    "call",
    [
        *(f"op=max&{geometry}" for geometry in REFUSED),
        "op=mean(divisor:0)&window=2x2",
        "op=mean(divisor:-3)&window=2x2",
        "op=mean(rounding:up)&window=2x2",
    ],
)
def test_the_page_refuses_what_python_refuses(call: str) -> None:
    x = np.zeros((5, 5))
    with pytest.raises(poolwise.InvalidValue):
        state.read(call).forward(x)
    (said,) = ask([{"do": "pooled", "input": grid(x), "call": call}])
    assert said["fault"]


def test_a_shift_and_its_change_are_numpys() -> None:
    x = plane((9, 8), "uint8")
    call = "op=max&window=3x3&stride=2x2&padding=1-1x0-0"
    shifts = [(0, 0), (1, 0), (-2, 3), (9, -8), (20, 1)]
    for (down, right), said in zip(
        shifts, ask([{"do": "shift", "input": grid(x), "shift": s, "call": call} for s in shifts]), strict=True
    ):
        moved = np.roll(x, (down, right), (0, 1))
        assert np.array_equal(floats(said["answer"]["moved"], *x.shape), moved)
        assert said["answer"]["input"] == pytest.approx(changed(x, moved))
        pooled = [state.read(call).forward(each) for each in (x, moved)]
        assert said["answer"]["output"] == pytest.approx(changed(*pooled))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_both_sides_spell_a_pooling_alike(geometry: str) -> None:
    texts = [
        f"op={state.write_op(op)}&{geometry}" for op in (poolwise.Max(), poolwise.Lp(3), poolwise.Lp(float("inf")))
    ]
    texts += [f"op={op}&{geometry}" for op in OPS]
    for text, said in zip(texts, ask([{"do": "call", "text": text} for text in texts]), strict=True):
        pooling = state.read(text)
        assert said["answer"].replace("&padding=valid", "") == state.write(pooling.op, pooling.arguments).replace(
            "&padding=valid", ""
        )


def test_a_state_comes_back_as_it_was_written() -> None:
    texts = [
        "view=compare&item=2&channel=-1&op=lp(p:3)&window=3x3&other=mean(count_include_pad:true)&cell=outputx4x5",
        "view=shift&item=0&channel=0&op=max&window=2x2&stride=1x1&shift=-3x2&place=0.25x0.5x8&theme=dark",
        "view=frameworks&item=0&channel=0&op=mean&adaptive=3x2&bins=disjoint&framework=onnx",
        "view=code&item=0&channel=1&op=max&global=1",
    ]
    for text, said in zip(texts, ask([{"do": "state", "text": text} for text in texts]), strict=True):
        assert set(said["answer"].split("&")) == set(text.split("&"))
        (again,) = ask([{"do": "state", "text": said["answer"]}])
        assert again["answer"] == said["answer"]


@pytest.mark.parametrize(
    "text", ["view=nothing", "window=0x2", "padding=1", "cell=outputx-1x2", "place=axbxc", "op=", "shift=1", "=", "%%%"]
)
def test_a_misspelt_address_leaves_the_rest_standing(text: str) -> None:
    (said,) = ask([{"do": "state", "text": f"item=3&{text}"}])
    assert said["answer"].startswith("view=windows&item=3&channel=0&op=max&window=2x2")


def test_every_operation_of_the_library_is_described_to_the_page() -> None:
    described = {about["name"]: about for about in state.described()}
    assert list(described) == [kind.name for kind in OPERATIONS if not kind().operands]
    assert {kind.name for kind in OPERATIONS} - set(described) == {"lip", "gated", "stochastic"}
    assert described["mean"]["parameters"][2]["choices"] == ["nearest", "truncate"]
    assert described["lp"]["formula"] == "The p-norm of each window, (Σ|x|^p)^(1/p)"
