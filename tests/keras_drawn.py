"""Facts about the Keras layers that draw, on one backend; `test_keras.py` runs this once for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import poolwise
import poolwise.keras as door
from keras_backend import gradient, numpy_of

RANDOM = np.random.default_rng(3)
SIZES = {1: (8,), 2: (8, 12), 3: (4, 6, 8)}
WORDS = {"pool_size": "window", "strides": "stride"}  # Keras's words for a function's arguments
DRAWN = ("BalancedPooling", "FractionalMaxPooling", "FractionalAveragePooling")
FRACTIONAL = {"FractionalMaxPooling": poolwise.Max(), "FractionalAveragePooling": poolwise.Mean()}
each_drawn = pytest.mark.parametrize("stem", DRAWN)


def drawn_layer(stem: str, rank: int = 2, **more: Any) -> Any:
    given = {"op": "max", "pool_size": 2, "strides": 3} if stem == "BalancedPooling" else {"pool_size": 2}
    ratio = {} if stem == "BalancedPooling" or "output_size" in more else {"output_ratio": 0.7}
    return getattr(door, f"{stem}{rank}D")(**given, **ratio, **more)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("stem", FRACTIONAL)
def test_fractional_layers_place_windows_by_what_they_draw(stem: str, data_format: str) -> None:
    for rank, outputs in ((1, (5,)), (2, (5, 8)), (3, (2, 4, 5))):
        x, axes = RANDOM.normal(size=(2, *SIZES[rank], 3)).astype("float32"), tuple(range(1, 1 + rank))
        if data_format == "channels_first":
            x, axes = np.moveaxis(x, -1, 1), tuple(range(2, 2 + rank))
        for sizes in ({}, {"output_size": outputs}):
            layer = drawn_layer(stem, rank, seed=5, data_format=data_format, **sizes)
            draws = keras.random.uniform((2, 3, rank), dtype="float32", seed=keras.random.SeedGenerator(5))
            asked = outputs if sizes else tuple(int(0.7 * size) for size in SIZES[rank])
            rules: dict[str, Any] = {"draws": numpy_of(draws), "axes": axes}
            expected = poolwise.fractional_pool(x, FRACTIONAL[stem], 2, asked, **rules)
            for training in (None, True):  # as PyTorch's, they draw in evaluation too
                twin = type(layer).from_config(layer.get_config())
                np.testing.assert_allclose(numpy_of(twin(x, training=training)), expected, rtol=1e-5, atol=1e-6)
            assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *expected.shape[1:])
            assert layer.compute_output_shape(x.shape) == expected.shape


def test_fractional_max_tells_where() -> None:
    x = RANDOM.permutation(2 * 9 * 8 * 3).reshape(2, 9, 8, 3).astype("float32")
    y, indices = door.FractionalMaxPooling2D(2, output_ratio=0.7, return_indices=True)(x)
    planes = np.moveaxis(x, -1, 1).reshape(2, 3, 72)
    found = np.take_along_axis(planes, np.moveaxis(numpy_of(indices), -1, 1).reshape(2, 3, 30).astype(int), 2)
    np.testing.assert_array_equal(found.reshape(2, 3, 6, 5), np.moveaxis(numpy_of(y), -1, 1))


@each_drawn
def test_a_seed_repeats_and_calls_differ(stem: str) -> None:
    x = RANDOM.normal(size=(2, 10, 10, 3)).astype("float32")
    one, two, other = (drawn_layer(stem, seed=seed) for seed in (3, 3, 4))
    ours = [numpy_of(one(x, training=True)) for _ in range(6)]
    for y in ours:
        np.testing.assert_array_equal(numpy_of(two(x, training=True)), y)
    assert len({y.tobytes() for y in ours}) > 1
    assert any((numpy_of(other(x, training=True)) != y).any() for y in ours)
    assert one.get_config()["seed"] == 3


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ({"op": "max", "pool_size": 3}, (11, 10)),
        ({"op": "avg", "pool_size": 3, "strides": 4, "padding": 1}, (12, 9)),
        (
            {"op": "median", "pool_size": (3, 2), "strides": (3, 4), "padding": ((1, 0), (0, 1)), "dilation": 2},
            (12, 11),
        ),
        ({"op": "max", "pool_size": 2, "strides": 4, "ceil_mode": True}, (9, 9)),
        ({"op": "sum", "pool_size": 3, "strides": 4, "padding": 2, "padding_mode": "reflect"}, (12, 13)),
    ],
    ids=str,
)
def test_balanced_layers_draw_every_offset_and_rest_in_the_middle(arguments: dict[str, Any], sizes: Any) -> None:
    x = RANDOM.normal(size=(2, *sizes, 3)).astype("float32")
    given = {WORDS.get(name, name): value for name, value in arguments.items()}
    op, rules = given.pop("op"), {"axes": (1, 2), **given}
    left = [table.slack for table in poolwise.Geometry.of(x.shape, **rules).tables]
    offsets = [(i, j) for i in range(-4, 5) for j in range(-4, 5)]
    offsets = [each for each in offsets if all(min(u, 0) <= r <= max(u, 0) for r, u in zip(each, left, strict=True))]
    assert len(offsets) > 1
    every = [poolwise.balanced_pool(x.astype("float64"), op, offsets=each, **rules) for each in offsets]
    layer, seen = door.BalancedPooling2D(**arguments, seed=1), set()
    for _ in range(60):
        y = numpy_of(layer(x, training=True))
        here = {each for each, expected in zip(offsets, every, strict=True) if np.allclose(y, expected, atol=1e-4)}
        assert here
        seen |= here
    assert seen == set(offsets)
    middle = poolwise.balanced_pool(x.astype("float64"), op, offsets="middle", **rules)
    for training in (None, False):
        np.testing.assert_allclose(numpy_of(layer(x, training=training)), middle, rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *middle.shape[1:])
    draws = keras.ops.convert_to_tensor(np.array([0.99, 0.01], "float32"))
    y = poolwise.balanced_pool(keras.ops.convert_to_tensor(x), op, draws=draws, **rules)
    np.testing.assert_allclose(numpy_of(y), every[offsets.index((left[0], 0))], rtol=1e-5, atol=1e-5)
    weight = RANDOM.normal(size=y.shape).astype("float32")
    slopes = gradient(lambda values: poolwise.balanced_pool(read(values), op, draws=draws, **rules), x, weight)
    step = RANDOM.normal(size=x.shape) * 1e-4
    rules["offsets"] = (left[0], 0)
    either = [(poolwise.balanced_pool(x + sign * step, op, **rules) * weight).sum() for sign in (1, -1)]
    np.testing.assert_allclose((slopes * step).sum(), (either[0] - either[1]) / 2, rtol=2e-3, atol=2e-6)


def read(tensor: Any) -> Any:
    """TensorFlow's variable as a tensor."""
    return tensor.read_value() if hasattr(tensor, "read_value") else tensor


@pytest.mark.parametrize("stem", FRACTIONAL)
def test_fractional_gradients_follow_the_values(stem: str) -> None:
    x, draws = RANDOM.normal(size=(2, 9, 8, 3)).astype("float32"), RANDOM.random((2, 3, 2)).astype("float32")
    layer, drawn = drawn_layer(stem), keras.ops.convert_to_tensor(draws)
    weight = RANDOM.normal(size=(2, 6, 5, 3)).astype("float32")
    slopes = gradient(lambda values: layer.composed(values, draws=drawn), x, weight)
    step, rules = RANDOM.normal(size=x.shape) * 1e-4, {"axes": (1, 2), "draws": draws}
    either = [
        (poolwise.fractional_pool(x + sign * step, FRACTIONAL[stem], 2, (6, 5), **rules) * weight).sum()
        for sign in (1, -1)
    ]
    np.testing.assert_allclose((slopes * step).sum(), (either[0] - either[1]) / 2, rtol=2e-3, atol=2e-6)


class Losses(keras.callbacks.Callback):
    """The losses of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(float(logs["loss"]))


@each_drawn
def test_a_model_draws_while_it_fits_and_is_saved(stem: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10, 10, 2))
    hidden = keras.layers.Conv2D(3, 1, use_bias=False)(inputs)
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(drawn_layer(stem, seed=2)(hidden)))
    model, losses = keras.Model(inputs, outputs), Losses()
    model.compile(keras.optimizers.SGD(0.0), "mse")  # nothing is learned: only the draws change the loss
    x = RANDOM.normal(size=(7, 10, 10, 2)).astype("float32")
    model.fit(x, np.zeros((7, 1)), epochs=12, batch_size=7, shuffle=False, verbose=0, callbacks=[losses])
    assert len({round(loss, 5) for loss in losses.seen}) > 2
    model.compile(keras.optimizers.SGD(0.01), "mse")
    before = [numpy_of(weight) for weight in model.trainable_weights]
    model.fit(x, np.ones((7, 1)), epochs=2, batch_size=4, verbose=0)  # a last batch of another size
    after = [numpy_of(weight) for weight in model.trainable_weights]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert again.layers[2].get_config() == model.layers[2].get_config()
    if stem == "BalancedPooling":  # at rest in evaluation
        first, second, third = (each.predict(x, verbose=0) for each in (again, model, model))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(second, third)


@each_drawn
def test_drawn_layers_keep_half_precision_and_unknown_sizes(stem: str) -> None:
    layer = drawn_layer(stem, dtype="mixed_float16")
    x = RANDOM.normal(size=(2, 10, 10, 3)).astype("float32")
    for training in (False, True):
        assert keras.backend.standardize_dtype(layer(x, training=training).dtype) == "float16"
    assert drawn_layer(stem)(keras.Input((None, None, 3))).shape == (None, None, None, 3)


def test_without_slack_a_balanced_layer_is_the_plain_one() -> None:
    x = RANDOM.normal(size=(2, 8, 12, 3)).astype("float32")
    for op, plain in (("max", door.MaxPooling2D(2)), ("avg", door.AveragePooling2D(2))):
        layer = door.BalancedPooling2D(op, 2)
        for training in (False, True):
            np.testing.assert_array_equal(numpy_of(layer(x, training=training)), numpy_of(plain(x)))


REFUSED = (
    (
        lambda: door.BalancedPooling2D("max", 2, seed=-1),
        TypeError,
        "BalancedPooling2D: seed must be None, an int of at",
    ),
    (
        lambda: door.BalancedPooling2D("max", 3, offsets=3).build((1, 8, 8, 1)),
        ValueError,
        "BalancedPooling2D: offsets must be between 0 and 2 on axis 1, got 3",
    ),
    (lambda: door.BalancedPooling2D("best", 3).build((1, 8, 8, 1)), ValueError, "BalancedPooling2D: op must be one of"),
    (
        lambda: door.BalancedPooling2D("max", 3)(np.zeros((4, 4, 1), "f"), training=True),
        ValueError,
        "BalancedPooling2D: inputs must have 4 axes",
    ),
    (
        lambda: door.FractionalMaxPooling2D(2).build((1, 8, 8, 1)),
        ValueError,
        "FractionalMaxPooling2D: output_size or output_ratio must be given",
    ),
    (
        lambda: door.FractionalMaxPooling2D(2, output_ratio=1.5).build((1, 8, 8, 1)),
        ValueError,
        "output_ratio must be between 0 and 1, got 1.5",
    ),
    (
        lambda: door.FractionalMaxPooling2D(2, output_ratio=1).build((1, 8, 8, 1)),
        TypeError,
        "output_ratio must be made of floats, got 1",
    ),
    (
        lambda: door.FractionalAveragePooling2D(2, 8).build((1, 8, 8, 1)),
        ValueError,
        "FractionalAveragePooling2D: output_size must be at most 7 on axis 1",
    ),
)


@pytest.mark.parametrize(("make", "kind", "text"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refused_in_one_line(make: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make()
