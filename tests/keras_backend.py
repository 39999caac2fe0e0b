"""Facts about poolwise.keras on the one backend that KERAS_BACKEND names; `test_keras.py` runs this once for each."""

from __future__ import annotations

import importlib
import inspect
import io
import itertools
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import poolwise
import poolwise.keras as door
from cases import takes
from poolwise.keras.layers import LAYERS, layers_of
from poolwise.op import Operation

BACKEND = keras.backend.backend()
RANDOM = np.random.default_rng(7)
SIZES = {1: (11,), 2: (7, 10), 3: (5, 6, 4)}
OPERATIONS = tuple(kind for kind in poolwise.ops.OPERATIONS if kind is not poolwise.LIP)  # it needs a second tensor
KERAS_STEMS = ("Max", "Average")
CONFIGS = (
    {"pool_size": 2},
    {"pool_size": 3, "strides": 1},
    {"pool_size": 3, "strides": 2, "padding": "same"},
    {"pool_size": 2, "strides": 3, "padding": "same"},
    {"pool_size": 4, "strides": 1, "padding": "SAME"},
)


RANKS = (1, 2, 3)
FORMS = ("", "Adaptive", "Global")
OUTPUTS = (1, 3, 4, 13)  # fewer cells than elements, one of them dividing a size, and more
PLACED = (poolwise.Blur, poolwise.Gated)  # which mean nothing on bins that differ
COMPILES = BACKEND != "torch"  # each graph by itself, for up to a second


def met(first: tuple[Any, ...], *others: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Every combination; where each is compiled, every one of the first with every one of each of the others."""
    if not COMPILES:
        return list(itertools.product(first, *others))
    most = max(map(len, others))
    return [
        (one, *(other[(i + turn * k) % len(other)] for turn, other in enumerate(others)))
        for k, one in enumerate(first)
        for i in range(most)
    ]


def named(given: Any) -> str:
    return given.name if isinstance(given, type) else str(given)


def numpy_of(tensor: Any) -> Any:
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32") if "bfloat16" in str(tensor.dtype) else tensor)


def output(layer: Any, x: Any) -> Any:
    """The layer's output; JAX compiles it as one, for each of its operations alone takes longer."""
    if BACKEND != "jax":
        return layer(x)
    if isinstance(layer, keras.layers.Layer) and not layer.built:  # weights are made before anything is compiled
        layer.build(x.shape)
    return importlib.import_module("jax").jit(layer)(x)


def run(layer: Any, x: Any) -> Any:
    """The same as a NumPy array."""
    return numpy_of(output(layer, x))


def images(rank: int, data_format: str = "channels_last") -> Any:
    shape = (2, *SIZES[rank], 3) if data_format == "channels_last" else (2, 3, *SIZES[rank])
    return RANDOM.normal(size=shape).astype("float32")


def reference(x: Any, layer: Any) -> Any:
    """poolwise's float64 loops over windows, for a layer that is no composition."""
    x, op = np.asarray(x, np.float64), layer.op if layer.kind.evaluated is None else layer.kind.evaluated()
    rules: dict[str, Any] = {"axes": layer.axes, "kernel": "reference"}
    rules["operands"] = {name: np.asarray(numpy_of(getattr(layer, name)), np.float64) for name in op.operands}
    if hasattr(layer, "output_size"):
        return poolwise.adaptive_pool(x, op, layer.output_size, **rules)
    if not hasattr(layer, "pool_size"):
        y = poolwise.pool(x, op, tuple(x.shape[axis] for axis in layer.axes), **rules)
        return y if layer.keepdims else y.squeeze(layer.axes)
    return poolwise.pool(x, op, layer.pool_size, stride=layer.strides, padding=layer.padding, **rules)


def gradient(layer: Any, x: Any, weight: Any) -> Any:
    """The gradient of Σ weight · layer(x) with respect to x, by the backend's own means."""
    if BACKEND == "tensorflow":
        tf = importlib.import_module("tensorflow")
        tensor = tf.Variable(x)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(tensor) * weight)
        return tape.gradient(total, tensor).numpy()
    if BACKEND == "jax":
        jax = importlib.import_module("jax")
        return np.asarray(jax.jit(jax.grad(lambda values: (layer(values) * weight).sum()))(x))
    tensor = keras.ops.convert_to_tensor(x).requires_grad_(True)
    (layer(tensor) * keras.ops.convert_to_tensor(weight)).sum().backward()
    return tensor.grad.numpy()


def central_differences(f: Callable[[Any], float], x: Any, step: float = 1e-4) -> Any:
    slopes = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        high, low = x.copy(), x.copy()
        high[place] += step
        low[place] -= step
        slopes[place] = (f(high) - f(low)) / (2 * step)
    return slopes


def made(name: str, /, **more: Any) -> Any:
    """The layer of that name, with usual arguments."""
    usual: dict[str, Any] = {"pool_size": 3, "strides": 2, "padding": "same"}
    if name.startswith("Adaptive"):
        usual = {"output_size": 3}
    return getattr(door, name)(**({} if name.startswith("Global") else usual), **more)


def image(*rows: Any, dtype: str = "float32") -> Any:
    return np.array(rows, dtype)[None, ..., None]


# Names and signatures


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("prefix", FORMS)
@pytest.mark.parametrize("stem", KERAS_STEMS)
def test_signatures_are_kerass(stem: str, prefix: str, rank: int) -> None:
    name = f"{prefix}{stem}Pooling{rank}D"
    if not hasattr(keras.layers, name):
        pytest.skip(f"Keras {keras.__version__} has no {name}")
    ours, theirs = (inspect.signature(getattr(module, name).__init__) for module in (door, keras.layers))
    assert [(p.name, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.kind) for p in theirs.parameters.values()
    ]
    assert [p.default for p in ours.parameters.values()] == [p.default for p in theirs.parameters.values()]


def test_every_operation_has_layers_and_short_names() -> None:
    for kind in OPERATIONS:
        for rank in (1, 2, 3):
            for prefix in FORMS:
                layer = getattr(door, f"{prefix}{kind.stems[2]}Pooling{rank}D")
                assert layer is getattr(door, f"{prefix}{kind.stems[1]}Pool{rank}D")
                assert issubclass(layer, keras.layers.Layer)
    assert set(door.__all__) <= set(dir(door))


# Values


def test_kerass_average_on_pytorch_still_reads_padding() -> None:
    """Why `test_sliding_values_are_kerass` leaves it out: keras issues 18452 and 19721."""
    theirs = numpy_of(keras.layers.AveragePooling1D(2, 1, "same")(image([1.0, 3.0])[:, 0])).ravel().tolist()
    theirs_uneven = numpy_of(keras.layers.AveragePooling1D(4, 1, "same")(image([1.0, 3.0, 8.0])[:, 0])).ravel().tolist()
    assert theirs == [2, 3]
    assert theirs_uneven == ([3.25, 5.0, 6.75] if BACKEND == "torch" else [4, 4, 5.5])
    assert numpy_of(door.AveragePooling1D(4, 1, "same")(image([1.0, 3.0, 8.0])[:, 0])).ravel().tolist() == [4, 4, 5.5]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("stem", "config", "rank"), met(KERAS_STEMS, CONFIGS, RANKS), ids=str)
def test_sliding_values_are_kerass(stem: str, rank: int, config: dict[str, Any], data_format: str) -> None:
    if (BACKEND, stem, config.get("padding", "valid").lower()) == ("torch", "Average", "same"):
        return
    name, x = f"{stem}Pooling{rank}D", images(rank, data_format)
    ours = getattr(door, name)(**config, data_format=data_format)
    theirs = getattr(keras.layers, name)(**{**config, "padding": ours.padding}, data_format=data_format)
    np.testing.assert_allclose(run(ours, x), run(theirs, x), rtol=2e-6, atol=2e-6)
    assert ours.compute_output_shape(x.shape) == theirs.compute_output_shape(x.shape)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stem", KERAS_STEMS)
def test_global_values_are_kerass(stem: str, rank: int, data_format: str, keepdims: bool) -> None:
    name, x = f"Global{stem}Pooling{rank}D", images(rank, data_format)
    ours, theirs = (
        getattr(module, name)(data_format=data_format, keepdims=keepdims) for module in (door, keras.layers)
    )
    np.testing.assert_allclose(run(ours, x), run(theirs, x), rtol=2e-6, atol=2e-6)
    assert ours.compute_output_shape(x.shape) == theirs.compute_output_shape(x.shape)


@pytest.mark.skipif(not hasattr(keras.layers, "AdaptiveMaxPooling1D"), reason="Keras has them since 3.15")
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("stem", "outputs", "rank"), met(KERAS_STEMS, (3, 4), RANKS), ids=str)
def test_adaptive_values_are_kerass(stem: str, outputs: int, rank: int, data_format: str) -> None:
    """Of 1 cell Keras's own end the process on TensorFlow, of more cells than elements they give NaN on JAX."""
    name, x = f"Adaptive{stem}Pooling{rank}D", images(rank, data_format)
    ours, theirs = (getattr(module, name)(outputs, data_format) for module in (door, keras.layers))
    np.testing.assert_allclose(run(ours, x), run(theirs, x), rtol=2e-6, atol=2e-6)
    assert ours.compute_output_shape(x.shape) == theirs.compute_output_shape(x.shape)
    assert {**ours.get_config(), "name": ""} == {**theirs.get_config(), "name": ""}


@pytest.mark.parametrize(("kind", "outputs", "rank"), met(OPERATIONS, OUTPUTS, RANKS), ids=named)
def test_adaptive_values_are_the_references(kind: type[Operation], outputs: int, rank: int) -> None:
    layer, x = getattr(door, f"Adaptive{kind.stems[2]}Pooling{rank}D")(outputs), images(rank)
    if kind in PLACED and any(size % outputs for size in SIZES[rank]):
        with pytest.raises(ValueError, match=f"{type(layer).__name__}: .*these bins differ in size"):
            layer(x)
        return
    y = run(layer, x)
    np.testing.assert_allclose(y, reference(x, layer), rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape(x.shape) == y.shape


@pytest.mark.parametrize(("kind", "config", "rank"), met(OPERATIONS, CONFIGS, RANKS), ids=named)
def test_sliding_values_are_the_references(kind: type[Operation], rank: int, config: dict[str, Any]) -> None:
    layer, x = getattr(door, f"{kind.stems[2]}Pooling{rank}D")(**config), images(rank)
    y = run(layer, x)
    np.testing.assert_allclose(y, reference(x, layer), rtol=1e-5, atol=2e-6)
    assert layer.compute_output_shape(x.shape) == y.shape


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.name)
def test_global_values_are_the_references(kind: type[Operation], rank: int) -> None:
    layer, x = getattr(door, f"Global{kind.stems[2]}Pooling{rank}D")(keepdims=True), images(rank)
    y = run(layer, x)
    np.testing.assert_allclose(y, reference(x, layer), rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape(x.shape) == y.shape


@pytest.mark.parametrize(
    ("kind", "dtype", "rank"), met(OPERATIONS, ("float16", "bfloat16", "float64"), RANKS), ids=named
)
def test_every_float_works(kind: type[Operation], rank: int, dtype: str) -> None:
    x = keras.ops.cast(images(rank), dtype)
    layers = [getattr(door, f"{kind.stems[2]}Pooling{rank}D")(2, padding="same", dtype=dtype)]
    if kind not in PLACED:
        layers.append(getattr(door, f"Adaptive{kind.stems[2]}Pooling{rank}D")(3, dtype=dtype))
    for layer in layers:
        y = output(layer, x)
        assert keras.backend.standardize_dtype(y.dtype) == keras.backend.standardize_dtype(x.dtype)
        exact, near = reference(numpy_of(x), layer), {"float16": 1e-3, "bfloat16": 8e-3}.get(dtype, 1e-6)
        np.testing.assert_allclose(numpy_of(y), exact, rtol=near, atol=1e-6)


def test_half_precision_accumulates_in_float32() -> None:
    x = RANDOM.uniform(0, 1, (1, 4096, 1)).astype("float16")
    for layer in (door.AveragePooling1D(4096, dtype="float16"), door.GlobalAveragePooling1D(dtype="float16")):
        assert abs(float(run(layer, x).ravel()[0]) - x.astype("float64").mean()) < 3e-4


def test_averages_of_many_taps_err_by_at_most_4_ulp() -> None:
    x = RANDOM.uniform(0, 1, (2, 99, 99, 3)).astype("float32")
    for layer in (
        door.AveragePooling2D(24),
        door.AveragePooling2D((3, 33)),
        door.AveragePooling2D(33),
        door.AdaptiveAveragePooling2D(7),
        door.AdaptiveAveragePooling2D((1, 2)),
        door.AdaptiveAveragePooling2D(1),
    ):
        exact = reference(x, layer)
        assert (np.abs(run(layer, x) - exact) / exact).max() <= 4 * 2.0**-23, layer.get_config()


def test_integers_keep_their_meaning() -> None:
    x = image([1, 2, 2, 2], [3, 4, 3, 3], dtype="int32")  # means 2.5 and 2.5: to even
    assert run(door.AveragePooling2D(2, dtype="int32"), x).ravel().tolist() == [2, 2]
    assert run(door.MaxPooling2D(2, dtype="int32"), x).ravel().tolist() == [4, 3]
    assert run(door.MinPooling2D(2, padding="same", dtype="int32"), x).ravel().tolist() == [1, 2]
    assert run(door.GlobalMinPooling2D(dtype="int32"), x).ravel().tolist() == [1]
    assert run(door.GlobalSumPooling2D(dtype="int32"), x).ravel().tolist() == [20]
    assert run(door.AdaptiveMaxPooling2D((1, 3), dtype="int32"), x).ravel().tolist() == [4, 4, 3]
    assert run(door.AdaptiveSumPooling2D((1, 3), dtype="int32"), x).ravel().tolist() == [10, 11, 10]


def test_integers_of_every_width_are_numpys() -> None:
    widths = (
        ("int8", "int16", "int32", "uint8") if BACKEND == "torch" else ("int8", "int16", "int32", "uint8", "uint32")
    )
    for dtype in widths:
        values = np.arange(36, dtype=dtype).reshape(1, 6, 6, 1) - np.asarray(0 if dtype.startswith("u") else 18, dtype)
        for kind in filter(lambda kind: takes(kind(), dtype), OPERATIONS):
            layer = getattr(door, f"{kind.stems[2]}Pooling2D")(3, 2, "same")
            exact = poolwise.pool(values, kind(), (3, 3), stride=2, padding="same", axes=(1, 2))
            y = output(layer, keras.ops.convert_to_tensor(values))
            np.testing.assert_array_equal(numpy_of(y), exact)
            assert layer(keras.Input((6, 6, 1), dtype=dtype)).dtype == keras.backend.standardize_dtype(y.dtype)


def test_nan_passes_except_where_the_docstring_says() -> None:
    x = image([1, np.nan, 2, 3], [4, 5, 6, 7])
    for kind in OPERATIONS:
        glob = run(getattr(door, f"Global{kind.stems[2]}Pooling2D")(), x)
        assert np.isnan(glob).all(), kind
        if BACKEND == "tensorflow" and kind.name == "max":
            continue
        slid = run(getattr(door, f"{kind.stems[2]}Pooling2D")(2), x).ravel()
        assert np.isnan(slid).tolist() == [True, False], kind


def test_the_layers_own_parameters_are_the_operations() -> None:
    x = image([1, 2], [3, 4])
    counted = door.AveragePooling2D(2, 1, "same", count_include_pad=True)
    assert run(counted, x).ravel().tolist() == [2.5, 1.5, 1.75, 1.0]
    assert run(door.AveragePooling2D(2, divisor=2), x).item() == 5.0
    assert counted.get_config()["count_include_pad"] is True
    with pytest.raises(ValueError, match=r"AveragePooling2D: divisor must be between 1"):
        door.AveragePooling2D(2, divisor=0.5)


# What operations learn, need and draw


def test_what_is_learned_is_a_weight_that_starts_from_its_keyword() -> None:
    x = images(2)
    for name, start, shape in (("GeM", {"p": 2.5}, ()), ("Mixed", {"a": 0.25}, ()), ("Gated", {}, (3, 2, 1))):
        layer = getattr(door, f"{name}Pooling2D")((3, 2), **start)
        np.testing.assert_allclose(run(layer, x), reference(x, layer), rtol=1e-5, atol=1e-6)
        assert [(weight.name, tuple(weight.shape)) for weight in layer.trainable_weights] == [
            (layer.op.operands[0], shape)
        ]
        again = keras.layers.deserialize(keras.layers.serialize(layer))
        assert again.get_config() == layer.get_config()
        assert start.items() <= layer.get_config().items()
    each = door.GeMPooling2D(2, p=[2.0, 3.0, 4.0])  # one for each channel
    np.testing.assert_allclose(run(each, x), reference(x, each), rtol=1e-5, atol=1e-6)
    assert each.get_config()["p"] == [2.0, 3.0, 4.0]
    with pytest.raises(ValueError, match=r"GeMPooling2D: p must be at least 1, got 0"):
        door.GeMPooling2D(2, p=0)
    with pytest.raises(ValueError, match="GlobalGatedPooling2D: inputs must have known sizes where gate is learned"):
        door.GlobalGatedPooling2D()(keras.Input((None, None, 3)))


def test_what_is_learned_learns_and_is_saved(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 2))
    pooled = door.GatedPooling2D(2)(door.GeMPooling2D(2, 1, "same")(inputs))
    model = keras.Model(inputs, door.GlobalMixedPooling2D()(pooled))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    before = [numpy_of(weight) for weight in model.trainable_weights]
    x = RANDOM.uniform(0.1, 1, (9, 8, 8, 2)).astype("float32")
    model.fit(x, x.mean((1, 2)), epochs=3, verbose=0)
    after = [numpy_of(weight) for weight in model.trainable_weights]
    assert len(after) == 3
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_logits_come_with_the_inputs(config: dict[str, Any]) -> None:
    x, logits = images(2), images(2)
    for layer in (door.LIPPooling2D(**config), door.GlobalLIPPooling2D(keepdims=True)):
        rules: dict[str, Any] = {"axes": (1, 2), "kernel": "reference", "logits": logits.astype("float64")}
        window = getattr(layer, "pool_size", (7, 10))
        if hasattr(layer, "pool_size"):
            rules |= {"stride": layer.strides, "padding": layer.padding}
        exact = poolwise.lip_pool(x.astype("float64"), window, **rules)
        np.testing.assert_allclose(numpy_of(layer(x, logits=logits)), exact, rtol=1e-5, atol=1e-6)
        soft = getattr(door, type(layer).__name__.replace("LIP", "Soft"))(
            **({"keepdims": True} if "Global" in type(layer).__name__ else config)
        )
        np.testing.assert_allclose(numpy_of(layer(x, logits=x)), numpy_of(soft(x)), rtol=1e-5, atol=1e-6)
    one, two = keras.Input((None, None, 3)), keras.Input((None, None, 3))
    model = keras.Model([one, two], door.LIPPooling2D(**config)(one, logits=two))
    exact = numpy_of(door.LIPPooling2D(**config)(x, logits=logits))
    np.testing.assert_allclose(model.predict([x, logits], verbose=0), exact, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"LIPPooling2D: logits must be given by name"):
        door.LIPPooling2D(2)(x)
    with pytest.raises(ValueError, match="logits must broadcast against the shape"):
        door.LIPPooling2D(2)(x, logits=logits[:, :5])


def test_draws_repeat_with_their_seed_and_rest_in_evaluation() -> None:
    x = RANDOM.uniform(0, 1, (2, 8, 8, 3)).astype("float32")
    for make in (
        lambda seed: door.StochasticPooling2D(2, seed=seed),
        lambda seed: door.GlobalStochasticPooling2D(seed=seed),
    ):
        first, second, third = make(3), make(3), make(4)
        one, two = numpy_of(first(x, training=True)), numpy_of(second(x, training=True))
        np.testing.assert_array_equal(one, two)
        assert (numpy_of(third(x, training=True)) != one).any()
        assert (numpy_of(first(x, training=True)) != one).any()
        assert np.isin(one, x).all()
        np.testing.assert_allclose(run(first, x), reference(x, first), rtol=1e-5)
        assert first.get_config()["seed"] == 3
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, door.StochasticPooling2D(2, padding="same", seed=1)(inputs, training=True))
    assert np.isin(numpy_of(model(x[:, :7], training=True)), x).all()


# Gradients


@pytest.mark.parametrize("prefix", FORMS)
@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.name)
def test_gradients_are_the_references_slopes(kind: type[Operation], prefix: str) -> None:
    if prefix == "Adaptive" and kind in PLACED:
        return
    layer = made(f"{prefix}{kind.stems[2]}Pooling2D")
    x = RANDOM.permutation(40).reshape(1, 4, 5, 2).astype("float32") / 10 + 0.05  # 0 is an edge of some
    weight = RANDOM.normal(size=run(layer, x).shape).astype("float32")
    slopes = central_differences(lambda values: float((reference(values, layer) * weight).sum()), x.astype("float64"))
    np.testing.assert_allclose(gradient(layer, x, weight), slopes, rtol=1e-4, atol=1e-4)


TIED = (
    {"pool_size": 2},
    {"pool_size": 3, "strides": 1},
    {"pool_size": 2, "strides": 1, "padding": "same"},
    {"pool_size": 3, "strides": 2, "padding": "same"},
    {"output_size": 3},
)
WAYS: dict[str, tuple[int, bool] | None] = {"as it is": None}
if BACKEND == "tensorflow":
    tf = importlib.import_module("tensorflow")
    WAYS |= {  # a graph that does not know so many of the first sizes, and whether XLA compiles it
        "graph": (0, False),
        "graph of any batch": (1, False),
        "graph of any size": (5, False),
        "XLA": (0, True),
        "XLA of any batch": (1, True),
    }


def both(layer: Any, x: Any, weight: Any, way: str, training: bool | None = None) -> tuple[Any, Any]:
    """layer(x), and the gradient of Σ weight · layer(x), computed in one of the backend's ways."""
    if BACKEND != "tensorflow":
        return run(layer, x), gradient(layer, x, weight)

    def call(x: Any, weight: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        return y, tape.gradient(y, x, weight)

    layer.build(x.shape)
    if (graph := WAYS[way]) is not None:
        sizes = [None if axis < graph[0] else size for axis, size in enumerate(x.shape)]
        call = tf.function(call, [tf.TensorSpec(sizes), tf.TensorSpec(None)], jit_compile=graph[1])
    return tuple(each.numpy() for each in call(tf.constant(x), tf.constant(weight)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("config", TIED, ids=str)
def test_a_maximums_ties_go_to_the_first_tap(config: dict[str, Any], rank: int, way: str) -> None:
    form, formats = "Adaptive" if "output_size" in config else "", ("channels_last", "channels_first")
    for data_format, offset, training in zip(formats, (0, -5), (True, None), strict=True):
        layer = getattr(door, f"{form}MaxPooling{rank}D")(**config, data_format=data_format)
        x = RANDOM.integers(0, 3, images(rank, data_format).shape).astype("float32") + offset
        weight = RANDOM.integers(1, 9, layer.compute_output_shape(x.shape)).astype("float32")
        if form:
            exact = poolwise.adaptive_pool_backward(weight, x, poolwise.Max(), layer.output_size, axes=layer.axes)
        else:
            rules: dict[str, Any] = {"stride": layer.strides, "padding": layer.padding, "axes": layer.axes}
            exact = poolwise.pool_backward(weight, x, poolwise.Max(), layer.pool_size, **rules)
        np.testing.assert_array_equal(both(layer, x, weight, way, training)[1], exact)


@pytest.mark.parametrize("name", ["MinPooling2D", "GlobalMaxPooling2D", "GlobalMinPooling2D", "AdaptiveMinPooling2D"])
def test_a_ties_gradient_goes_to_the_first_tap(name: str) -> None:
    layer = getattr(door, name)() if "Global" in name else getattr(door, name)(1 if "Adaptive" in name else 2)
    x = np.zeros((1, 2, 2, 1), "float32")
    slopes = gradient(layer, x, np.ones(run(layer, x).shape, "float32"))
    assert slopes.ravel().tolist() == [1, 0, 0, 0]


MAXIMA = [f"{form}MaxPooling{rank}D" for form in ("", "Adaptive") for rank in RANKS]
OTHERS = [f"{form}{stem}Pooling2D" for form in FORMS for stem in ("Average", "Min")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*MAXIMA, *OTHERS, "GlobalMaxPooling2D"])
def test_a_batch_of_none_has_a_gradient_of_none(name: str, way: str) -> None:
    """Where TensorFlow's own maximum ends the process."""
    layer, x = made(name), np.zeros((0, *(8,) * int(name[-2]), 3), "float32")
    for training in (None, True) if name in MAXIMA else (None,):
        y, slopes = both(layer, x, np.zeros(layer.compute_output_shape(x.shape), "float32"), way, training)
        assert y.shape == layer.compute_output_shape(x.shape)
        assert slopes.shape == x.shape


# Keras's machinery


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_config_round_trips(name: str) -> None:
    layer = made(name, name="a")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("name", [f"{p}{s}Pooling2D" for p in ("", "Global") for s in KERAS_STEMS])
def test_config_is_kerass(name: str) -> None:
    sliding = {} if "Global" in name else {"pool_size": (3, 2)}
    ours, theirs = (getattr(module, name)(**sliding, name="a").get_config() for module in (door, keras.layers))
    assert ours == theirs


def small_model(pooling: Any) -> keras.Sequential:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(4, (3, 3), activation="relu"),
            pooling.MaxPooling2D((2, 2), strides=2),
            pooling.AveragePooling2D((2, 2), strides=1, padding="same"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def trained(pooling: Any) -> list[Any]:
    model = small_model(pooling)
    model.compile("sgd", "sparse_categorical_crossentropy")
    draws = np.random.default_rng(1)
    x, y = draws.normal(size=(21, 12, 12, 1)).astype("float32"), draws.integers(0, 3, 21)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False)  # a last batch of another size
    return model.get_weights()


def test_training_ends_where_kerass_own_layers_end() -> None:
    for ours, theirs in zip(trained(door), trained(keras.layers), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_saved_model_loads_in_safe_mode(tmp_path: Path) -> None:
    model = small_model(door)
    model.add(keras.layers.Reshape((3, 1, 1)))
    model.add(door.AdaptiveMaxPooling2D((2, 1)))
    model.add(door.MinPooling2D((2, 1)))
    model.add(door.GlobalSumPooling2D())
    x = RANDOM.normal(size=(5, 12, 12, 1)).astype("float32")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.name)
def test_unknown_sizes_stay_unknown_and_any_size_works(kind: type[Operation], padding: str) -> None:
    slid = getattr(door, f"{kind.stems[2]}Pooling2D")(3, 2, padding)
    reduced = getattr(door, f"Global{(poolwise.Max if kind is poolwise.Gated else kind).stems[2]}Pooling2D")()
    adapted = getattr(door, f"Adaptive{(poolwise.Max if kind in PLACED else kind).stems[2]}Pooling2D")((3, 2))
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, [slid(inputs), reduced(inputs), adapted(inputs)])
    assert model.output_shape == [(None, None, None, 3), (None, 3), (None, 3, 2, 3)]
    for sizes in ((7, 9), (4, 6)):
        x = RANDOM.normal(size=(2, *sizes, 3)).astype("float32")
        for y, layer in zip(model.predict(x, verbose=0), (slid, reduced, adapted), strict=True):
            np.testing.assert_allclose(y, reference(x, layer), rtol=1e-5, atol=1e-5)


if BACKEND == "tensorflow":  # the only one whose graphs have sizes that no trace knows

    @pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.name)
    def test_a_graph_that_knows_no_size_gives_the_same(kind: type[Operation]) -> None:
        layers = [getattr(door, f"{kind.stems[2]}Pooling2D")(**config) for config in CONFIGS]
        if kind not in PLACED:
            layers += [getattr(door, f"Adaptive{kind.stems[2]}Pooling2D")(outputs) for outputs in OUTPUTS]
        for layer in layers:
            graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, None), tf.float32)])
            x = images(2)
            np.testing.assert_allclose(graph(x).numpy(), reference(x, layer), rtol=1e-5, atol=1e-5)


def test_mixed_precision_computes_in_half_and_declares_it() -> None:
    for policy, dtype in (("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16")):
        for kind in OPERATIONS:
            layer = getattr(door, f"{kind.stems[2]}Pooling2D")(2, dtype=policy)
            assert layer(keras.Input((8, 8, 1))).dtype == dtype
            assert keras.backend.standardize_dtype(output(layer, images(2)).dtype) == dtype


def test_data_format_is_the_configurations() -> None:
    before = keras.config.image_data_format()
    try:
        for data_format in ("channels_first", "channels_last"):
            keras.config.set_image_data_format(data_format)
            assert door.MaxPooling2D().data_format == data_format
            assert door.GlobalMinPooling1D().axes == ((2,) if data_format == "channels_first" else (1,))
    finally:
        keras.config.set_image_data_format(before)


def test_keras_arguments_pass_through() -> None:
    layer = door.MinPooling2D(name="low", trainable=False, dtype="float64", activity_regularizer="l2")
    assert (layer.name, layer.trainable, layer.compute_dtype) == ("low", False, "float64")
    with pytest.raises(ValueError, match="Unrecognized keyword arguments passed to MinPooling2D"):
        door.MinPooling2D(colour="red")


def test_a_mask_makes_steps_absent() -> None:
    x = np.array([[[1.0], [5.0], [9.0]], [[2.0], [4.0], [-6.0]]], "float32")
    mask = np.array([[True, True, False], [True, False, True]])
    for name, expected in (("Max", [5, 2]), ("Min", [1, -6]), ("Average", [3, -2]), ("Sum", [6, -4])):
        layer = getattr(door, f"Global{name}Pooling1D")()
        assert numpy_of(layer(x, mask=mask)).ravel().tolist() == expected


def test_an_embeddings_mask_arrives_as_in_keras() -> None:
    words = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    embedding = keras.layers.Embedding(5, 4, mask_zero=True)
    for data_format in ("channels_last", "channels_first"):
        vectors = embedding(words)
        mask = keras.ops.not_equal(words, 0)
        if data_format == "channels_first":
            vectors = keras.ops.transpose(vectors, (0, 2, 1))
        ours, theirs = (m.GlobalAveragePooling1D(data_format)(vectors, mask=mask) for m in (door, keras.layers))
        np.testing.assert_allclose(numpy_of(ours), numpy_of(theirs), rtol=1e-6)
    model = keras.Sequential([keras.Input((4,)), embedding, door.GlobalAveragePooling1D()])
    theirs = keras.layers.GlobalAveragePooling1D()(embedding(words), mask=keras.ops.not_equal(words, 0))
    np.testing.assert_allclose(model.predict(words, verbose=0), numpy_of(theirs), rtol=1e-6)


# What cannot work

TOO_LARGE = (
    r'MaxPooling2D: pool_size must be at most the size of each pooled axis where padding is "valid", got \(3, 3\)'
)
LOW = np.zeros((1, 2, 5, 1), "float32")
REFUSED: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = (
    (lambda: door.MaxPooling2D(0), ValueError, "MaxPooling2D: pool_size must be .* each at least 1, got 0"),
    (lambda: door.MaxPooling2D((2, 2, 2)), ValueError, r"pool_size must be an int or 2 ints.*got \(2, 2, 2\)"),
    (lambda: door.MaxPooling2D(2.5), TypeError, r"pool_size must be an int or a tuple of 2 ints, got 2.5"),
    (lambda: door.MinPooling1D(True), TypeError, "MinPooling1D: pool_size must be made of ints, got True"),
    (lambda: door.AveragePooling2D(2, 0), ValueError, "AveragePooling2D: strides must be .* at least 1, got 0"),
    (lambda: door.SumPooling3D(2, (1, 1, -1)), ValueError, r"SumPooling3D: strides must be.*got \(1, 1, -1\)"),
    (lambda: door.MaxPooling2D(2, 2, "full"), ValueError, 'padding must be "valid" or "same", got \'full\''),
    (lambda: door.MaxPooling2D(2, 2, 1), TypeError, 'padding must be "valid" or "same", got 1'),
    (lambda: door.MaxPooling2D(2, data_format="NHWC"), ValueError, "data_format must be .* got 'NHWC'"),
    (lambda: door.GlobalMaxPooling2D("NHWC"), ValueError, "GlobalMaxPooling2D: data_format must be"),
    (lambda: door.GlobalMaxPooling2D(keepdims=1), TypeError, "keepdims must be True or False, got 1"),
    (lambda: door.MaxPooling2D(3).build((None, *LOW.shape[1:])), ValueError, f"^{TOO_LARGE}"),
    (lambda: door.MaxPooling2D(3)(LOW), ValueError, f"^{TOO_LARGE}"),
    (lambda: door.MaxPooling2D(3)(keras.Input((2, 5, 1))), ValueError, f"^{TOO_LARGE}"),
    (
        lambda: door.MaxPooling2D(3).build((None, 2, 5)),
        ValueError,
        r"inputs must have 4 axes, got shape \(None, 2, 5\)",
    ),
    (lambda: door.MaxPooling2D(2)(LOW[0]), ValueError, "expected ndim=4, found ndim=3"),
    (lambda: door.GlobalMaxPooling2D().build((2, 0, 5, 1)), ValueError, r"at least 1 element.*\(2, 0, 5, 1\)"),
    (lambda: door.AdaptiveMaxPooling2D(0), ValueError, "AdaptiveMaxPooling2D: output_size must be .* least 1, got 0"),
    (
        lambda: door.AdaptiveMaxPooling1D(-3),
        ValueError,
        "output_size must be an int or 1 ints, each at least 1, got -3",
    ),
    (lambda: door.AdaptiveAveragePooling3D((2, 2)), ValueError, r"output_size must be an int or 3 ints.*got \(2, 2\)"),
    (lambda: door.AdaptiveMaxPooling2D((2, 0)), ValueError, r"output_size must be .* at least 1, got \(2, 0\)"),
    (lambda: door.AdaptiveMaxPooling2D(2.0), TypeError, "output_size must be an int or a tuple of 2 ints, got 2.0"),
    (lambda: door.AdaptiveMaxPooling2D((2, None)), TypeError, r"tuple of 2 ints, got \(2, None\)"),
    (lambda: door.AdaptiveMaxPooling2D("2"), TypeError, "output_size must be .* ints, got '2'"),
    (lambda: door.AdaptiveMaxPooling2D(True), TypeError, "output_size must be made of ints, got True"),
    (lambda: door.AdaptiveMaxPooling2D(2, "NHWC"), ValueError, "AdaptiveMaxPooling2D: data_format must be"),
    (lambda: door.AdaptiveMaxPooling2D(9 * 10**18)(LOW), ValueError, "AdaptiveMaxPooling2D: output_size .*9000000000"),
    (lambda: door.AdaptiveMaxPooling2D(2)(LOW[0]), ValueError, "expected ndim=4, found ndim=3"),
    (lambda: door.AdaptiveMaxPooling2D(2).build((2, 0, 5, 1)), ValueError, r"at least 1 element.*\(2, 0, 5, 1\)"),
    (lambda: door.AveragePooling2D(2, dtype="bool")(LOW.astype(bool)), TypeError, "must not be bool for a mean"),
)


@pytest.mark.parametrize(("make", "kind", "text"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refused_in_one_line(make: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make()


def test_a_later_size_that_cannot_work_is_refused_too() -> None:
    layer = door.MaxPooling2D(3)
    layer(np.zeros((1, 6, 6, 1), "float32"))
    with pytest.raises(ValueError, match="pool_size must be at most"):
        layer(np.zeros((1, 2, 6, 1), "float32"))


def test_a_batch_of_none_is_pooled_to_none() -> None:
    x = np.zeros((0, 4, 4, 3), "float32")
    for kind in OPERATIONS:
        assert run(getattr(door, f"{kind.stems[2]}Pooling2D")(2), x).shape == (0, 2, 2, 3)
        assert run(getattr(door, f"Global{kind.stems[2]}Pooling2D")(), x).shape == (0, 3)


# One more operation, as CONTRIBUTING says: its own text and a place in the list, no third file


@dataclass(frozen=True)
class TestedRange(Operation):
    """factor · (largest − smallest): what no framework has."""

    factor: float = 1.0
    name = "testedrange"
    __test__ = False

    def window(self, w: Any) -> Any:
        return self.factor * (w.values.max() - w.values.min()) if len(w.values) else np.nan

    def gathered(self, xp: Any, values: Any, present: Any, count: Any, extras: Any) -> Any:
        largest = xp.max(xp.where(present, values, -np.inf), axis=-1)
        return self.factor * (largest - xp.min(xp.where(present, values, np.inf), axis=-1))


def test_an_operation_from_the_list_has_every_layer() -> None:
    layers = layers_of(TestedRange)
    assert {"TestedRangePooling2D", "TestedRangePool1D", "GlobalTestedRangePooling3D"} <= set(layers)
    layer = layers["TestedRangePooling2D"](3, 2, "same", factor=2.0)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    x = images(2)
    assert again.op == TestedRange(2.0)
    np.testing.assert_allclose(run(again, x), reference(x, layer), rtol=1e-5)
    whole = layers["GlobalTestedRangePooling2D"](factor=3.0)
    np.testing.assert_allclose(run(whole, x), reference(x, whole), rtol=1e-5)


# Keras's own tests, with our layers in the place of Keras's

OWN = ("max_pooling", "average_pooling", "global_max_pooling", "global_average_pooling")
OWN = (*OWN, "adaptive_pooling1d", "adaptive_pooling2d", "adaptive_pooling3d")


@pytest.mark.parametrize("module", OWN)
def test_kerass_own_tests(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = pytest.importorskip(f"keras.src.layers.pooling.{module}_test")
    own = [name for name in door.__all__ if hasattr(tests.layers, name)]
    assert any("Adaptive" in name for name in own) == hasattr(keras.layers, "AdaptiveMaxPooling1D")
    for name in own:
        monkeypatch.setattr(tests.layers, name, getattr(door, name))
    case = importlib.import_module("keras.src.testing").TestCase
    run = case.run_layer_test
    # Ours are built when they see a size, since there a size is refused; and every global 1-D one takes a mask.
    masks = {door.GlobalMaxPooling1D: True}

    def adapted(self: Any, layer: Any, *arguments: Any, **expected: Any) -> None:
        expected.pop("assert_built_after_instantiation", None)
        if layer in masks:
            expected["supports_masking"] = masks[layer]
        run(self, layer, *arguments, **expected)

    monkeypatch.setattr(case, "run_layer_test", adapted)
    text = io.StringIO()
    result = unittest.TextTestRunner(text).run(unittest.defaultTestLoader.loadTestsFromModule(tests))
    assert result.testsRun > 0
    assert result.wasSuccessful(), text.getvalue()
