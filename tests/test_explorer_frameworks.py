"""What the page says of PyTorch, Keras, JAX and ONNX, held to them; and the lines of code it shows, run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import poolwise
from explorer_node import ask, floats, grid
from poolwise.explorer import state
from test_keras import QUICKLY

OPS = ("max", "mean", "mean(count_include_pad:true)", "mean(divisor:3)", "min", "sum", "lp(p:3)", "relumax")
GEOMETRIES = (
    "window=2x2",
    "window=3x2&stride=2x1",
    "window=3x3&stride=2x2&padding=1-1x1-1",
    "window=3x3&stride=2x2&padding=1-1x1-1&ceil=1",
    "window=3x3&stride=2x2&padding=0-1x1-0",
    "window=3x3&stride=1x1&padding=2-2x2-2",
    "window=3x3&padding=same",
    "window=3x3&stride=2x2&padding=same",
    "window=4x4&stride=3x3&padding=same_lower",
    "window=2x2&dilation=3x2&stride=1x1",
    "window=3x3&dilation=2x2&stride=1x1&padding=2-2x2-2",
    "window=3x3&stride=1x1&padding=1-1x1-1&mode=reflect",
    "adaptive=3x4",
    "adaptive=3x4&bins=disjoint",
    "global=1",
)
X = np.random.default_rng(3).standard_normal((9, 11)).astype(np.float32)
CALLS = tuple(f"op={op}&{geometry}" for op in OPS for geometry in GEOMETRIES)


@cache
def said(framework: str) -> dict[str, dict[str, Any]]:
    """What the page says that the framework makes of each call."""
    answers = ask(
        [
            {"do": "meaning", "framework": framework, "input": grid(X), "call": call}
            for call in CALLS
            if "lp" not in call and "relumax" not in call
        ]
    )
    calls = [call for call in CALLS if "lp" not in call and "relumax" not in call]
    return {
        call: answer.get("answer", {"refusal": answer.get("fault")})
        for call, answer in zip(calls, answers, strict=True)
    }


def numbers(call: str) -> dict[str, Any]:
    """The numbers that a user typed, by name."""
    pooling = state.read(call)
    return {"op": pooling.op, **pooling.arguments}


def held(framework: str, run: Callable[[dict[str, Any]], Any]) -> tuple[int, int]:
    """Every meaning compared with the framework's own answer; (served, refused)."""
    served = refused = 0
    for call, answer in said(framework).items():
        given = numbers(call)
        if answer["refusal"] is not None:
            assert refuses(run, given), f"{framework} serves {call}, and the page says: {answer['refusal']}"
            refused += 1
            continue
        expected = np.asarray(run(given), float)
        found = floats(answer["values"], answer["rows"], answer["columns"])
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6, err_msg=f"{framework}: {call}")
        served += 1
    return served, refused


def refuses(run: Callable[[dict[str, Any]], Any], given: dict[str, Any]) -> bool:
    """Whether the framework, each in its own way, does not serve the call."""
    try:
        run(given)
    except Exception:
        return True
    return False


class Unwritable(Exception):
    """The framework has no argument for it."""


def only(given: dict[str, Any], **plain: Any) -> None:
    """Refuse what has no argument in the framework."""
    for name, default in plain.items():
        if given.get(name, default) != default:
            raise Unwritable(name)


def op_name(given: dict[str, Any], known: dict[type, str]) -> str:
    if type(given["op"]) not in known:
        raise Unwritable("op")
    return known[type(given["op"])]


def test_pytorch_makes_of_the_numbers_what_the_page_says() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X)[None, None]

    def run(given: dict[str, Any]) -> Any:
        name = op_name(given, {poolwise.Max: "max", poolwise.Mean: "avg"})
        if "output_size" in given:
            only(given, bins="overlapping")
            if getattr(given["op"], "divisor", None):
                raise Unwritable("divisor")
            return getattr(torch.nn.functional, f"adaptive_{name}_pool2d")(x, given["output_size"])[0, 0]
        padding = given.get("padding", ((0, 0), (0, 0)))
        only(given, padding_mode="absent")
        if isinstance(padding, str) or any(low != high for low, high in padding):
            raise Unwritable("padding")
        keywords = {
            "stride": given.get("stride"),
            "padding": [low for low, _ in padding],
            "ceil_mode": given.get("ceil_mode", False),
        }
        if name == "max":
            keywords["dilation"] = given.get("dilation", 1)
        else:
            only(given, dilation=(1, 1))
            keywords["divisor_override"] = given["op"].divisor
        return getattr(torch.nn.functional, f"{name}_pool2d")(x, given["window"], **keywords)[0, 0]

    served, refused = held("pytorch", run)
    assert served > 20
    assert refused > 10


def test_jax_makes_of_the_numbers_what_the_page_says() -> None:
    jax = pytest.importorskip("jax")
    lax, jnp = jax.lax, jax.numpy

    def run(given: dict[str, Any]) -> Any:
        """flax.linen.pooling: reduce_window with unit dilation, strides of 1 by default, a mean over window size."""
        name = op_name(given, {poolwise.Max: "max", poolwise.Mean: "mean", poolwise.Min: "min"})
        if name == "mean" and given["op"].divisor:
            raise Unwritable("divisor")
        if "output_size" in given:  # Equinox's AdaptivePool: numpy.array_split's bins, one reduction each
            reduce = {"max": np.max, "min": np.min, "mean": np.mean}[name]
            rows, columns = given["output_size"]
            return [[reduce(part) for part in np.array_split(band, columns, 1)] for band in np.array_split(X, rows, 0)]
        only(given, dilation=(1, 1), ceil_mode=False, padding_mode="absent")
        padding = given.get("padding", "valid")
        padding = padding.upper() if isinstance(padding, str) else padding
        start, step = {"max": (-jnp.inf, lax.max), "min": (jnp.inf, lax.min), "mean": (0.0, lax.add)}[name]
        y = lax.reduce_window(X, start, step, given["window"], given.get("stride", (1, 1)), padding)
        return y / np.prod(given["window"]) if name == "mean" else y

    served, refused = held("jax", run)
    assert served > 20
    assert refused > 10


def test_onnx_makes_of_the_numbers_what_the_page_says() -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")

    def run(given: dict[str, Any]) -> Any:
        kind = op_name(given, {poolwise.Max: "MaxPool", poolwise.Mean: "AveragePool"})
        if kind == "AveragePool" and given["op"].divisor:
            raise Unwritable("divisor")
        if "output_size" in given:
            only(given, output_size=(1, 1))
            return evaluated(onnx, runtime, onnx.helper.make_node(f"Global{kind}", ["x"], ["y"]))
        only(given, padding_mode="absent")
        keywords: dict[str, Any] = {"kernel_shape": given["window"]}
        padding = given.get("padding", "valid")
        if isinstance(padding, str):
            keywords["auto_pad"] = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID"}[padding]
        else:
            keywords["pads"] = [low for low, _ in padding] + [high for _, high in padding]
        keywords |= {
            name: given[key] for name, key in (("strides", "stride"), ("dilations", "dilation")) if key in given
        }
        return evaluated(
            onnx,
            runtime,
            onnx.helper.make_node(kind, ["x"], ["y"], ceil_mode=int(given.get("ceil_mode", 0)), **keywords),
        )

    served, refused = held("onnx", run)
    assert served > 20
    assert refused > 5


def evaluated(onnx: Any, runtime: Any, node: Any, opset: int = 22) -> Any:
    """A graph of one node on X, by ONNX Runtime."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1, 1, *X.shape])], [value("y", 1, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": X[None, None]})[0][0, 0]


def keras_runs(lines: list[str]) -> list[Any]:
    environment = {**os.environ, **QUICKLY, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("explorer_keras.py"))],
        input=json.dumps([{"x": X.tolist(), "code": code} for code in lines]),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_keras_makes_of_the_numbers_what_the_page_says_and_runs_its_code() -> None:
    pytest.importorskip("tensorflow")
    served = {call: answer for call, answer in said("keras").items() if answer["refusal"] is None}
    assert set(served) == {call for call in said("keras") if keras_can(numbers(call))}
    shown = {call: text for call, text in codes("keras").items() if not text.startswith("#")}
    results = keras_runs([keras_line(numbers(call)) for call in served] + list(shown.values()))
    for (call, answer), expected in zip(served.items(), results, strict=False):
        found = floats(answer["values"], answer["rows"], answer["columns"])
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6, err_msg=call)
    for (call, _), found in zip(shown.items(), results[len(served) :], strict=True):
        np.testing.assert_allclose(found, state.read(call).forward(X), rtol=2e-6, atol=2e-6, err_msg=call)
    assert len(served) > 10
    assert len(shown) > 20


def keras_can(given: dict[str, Any]) -> bool:
    """What a Keras layer has arguments for."""
    if type(given["op"]) not in (poolwise.Max, poolwise.Mean) or getattr(given["op"], "divisor", None):
        return False
    plain = not given.get("ceil_mode") and given.get("dilation", (1, 1)) == (1, 1)
    return (
        plain
        and given.get("padding", "valid") in ("valid", "same")
        and given.get("bins", "overlapping") == "overlapping"
    )


def keras_line(given: dict[str, Any]) -> str:
    name = "Max" if isinstance(given["op"], poolwise.Max) else "Average"
    if given.get("output_size") == (1, 1):
        return f"y = keras.layers.Global{name}Pooling2D(keepdims=True)(x)"
    if "output_size" in given:
        return f"y = keras.layers.Adaptive{name}Pooling2D({given['output_size']})(x)"
    arguments = f"{given['window']}, strides={given.get('stride')}, padding={given.get('padding', 'valid')!r}"
    return f"y = keras.layers.{name}Pooling2D({arguments})(x)"


# ---- the lines of code ----


@cache
def codes(language: str) -> dict[str, str]:
    about = {one["name"]: one for one in state.described()}
    asked = [
        {"do": "code", "language": language, "call": call, "sizes": X.shape, "about": about[state.read(call).op.name]}
        for call in CALLS
    ]
    return {call: answer["answer"] for call, answer in zip(CALLS, ask(asked), strict=True)}


def executed(code: str, x: Any) -> Any:
    names: dict[str, Any] = {"x": x}
    exec(code, names)
    return names["y"]


@pytest.mark.parametrize("call", CALLS)
def test_the_numpy_lines_run(call: str) -> None:
    np.testing.assert_array_equal(executed(codes("numpy")[call], X), state.read(call).forward(X))


def test_the_pytorch_lines_run() -> None:
    torch = pytest.importorskip("torch")
    for call, code in codes("pytorch").items():
        y = executed(code, torch.from_numpy(X)[None, None])
        np.testing.assert_allclose(y[0, 0], state.read(call).forward(X), rtol=2e-6, atol=2e-6, err_msg=call)
    assert sum("torch.nn.functional" in code for code in codes("pytorch").values()) > 10


def test_the_jax_lines_run() -> None:
    jax = pytest.importorskip("jax")
    shown = {call: code for call, code in codes("jax").items() if not code.startswith("#")}
    for call, code in shown.items():
        y = executed(code, jax.numpy.asarray(X)[None, None])
        np.testing.assert_allclose(y[0, 0], state.read(call).forward(X), rtol=2e-6, atol=2e-6, err_msg=call)
    assert len(shown) > 50


def test_the_onnx_lines_run() -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    shown = {call: code for call, code in codes("onnx").items() if not code.startswith("#")}
    for call, code in shown.items():
        names: dict[str, Any] = {}
        exec(code, names)
        opset = 20 if names["node"].op_type == "GlobalLpPool" else 22  # the runtime has no newer one of it
        y = evaluated(onnx, runtime, names["node"], opset)
        np.testing.assert_allclose(y, state.read(call).forward(X), rtol=2e-6, atol=2e-6, err_msg=call)
    assert len(shown) > 30


def test_where_a_framework_has_no_words_its_block_says_so() -> None:
    for language in ("keras", "jax", "onnx"):
        for code in codes(language).values():
            assert re.search(r"^(y|node) = ", code, re.MULTILINE) or re.fullmatch(r"# .+\.", code)
