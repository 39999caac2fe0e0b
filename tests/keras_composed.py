"""Facts about the Keras layers of compositions on one backend; `test_keras.py` runs this once for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import poolwise
import poolwise.keras as door
from keras_backend import COMPILES, gradient, numpy_of, run
from poolwise.compose import COMPOSITIONS
from poolwise.keras.composed import COMPOSED, composed_name

RANDOM = np.random.default_rng(3)
SIZES = {1: (8,), 2: (8, 12), 3: (4, 6, 8)}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "MaxBlurPooling": {"pool_size": 3, "strides": 2, "padding": 1, "taps": (1, 3, 1)},
    "BalancedPooling": {"op": "avg", "pool_size": 3, "strides": 4, "padding": 1, "offsets": "end"},
    "PolyphasePooling": {"strides": 2, "p": 3.0},
    "AverageMaxPooling": {"pool_size": 3, "strides": 2, "ceil_mode": True},
    "CatAverageMaxPooling": {"pool_size": 2},
    "AdaptiveAverageMaxPooling": {"output_size": 2},
    "AdaptiveCatAverageMaxPooling": {"output_size": 2},
    "AverageUnpooling": {"pool_size": 3, "strides": 2},
    "SpatialPyramidPooling": {"levels": (1, 2)},
    "PyramidPooling": {"levels": (1, 2), "op": "max"},
    "SpaceToDepth": {"block_size": 2, "mode": "DCR"},
    "DepthToSpace": {"block_size": 2},
}
WORDS = {"pool_size": "window", "strides": "stride"}  # Keras's words for a function's arguments
ONE = [each for each in COMPOSITIONS if each.inputs == 1 and (each.draws is None or each.rests)]
each_one = pytest.mark.parametrize("composition", ONE, ids=lambda each: each.keras)


def layer_of(composition: Any, rank: int = 2, data_format: str = "channels_last") -> Any:
    name = composed_name(composition, rank if composition.ranked else None)
    return getattr(door, name)(**ARGUMENTS[composition.keras], data_format=data_format)


def image(composition: Any, rank: int = 2, data_format: str = "channels_last") -> Any:
    channels = 2 ** (rank + 1) if composition.keras == "DepthToSpace" else 3
    shape = (2, *SIZES[rank], channels) if data_format == "channels_last" else (2, channels, *SIZES[rank])
    return RANDOM.normal(size=shape).astype("float32")


def by_numpy(composition: Any, x: Any, rank: int, data_format: str) -> Any:
    given = {WORDS.get(name, name): value for name, value in ARGUMENTS[composition.keras].items()}
    first = 1 if data_format == "channels_last" else 2
    places: dict[str, Any] = {"axes": tuple(range(first, first + rank))}
    if composition.over_channels:
        places["channel_axis"] = -1 if first == 1 else 1
    return composition.function(x.astype("float64"), **given, **places)


def close(got: Any, expected: Any) -> None:
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
    for ours, theirs in pairs:
        np.testing.assert_allclose(numpy_of(ours), theirs, rtol=1e-5, atol=1e-5)


def outputs(layer: Any, x: Any) -> Any:
    return layer(x) if isinstance(layer, door.PyramidPooling2D) else run(layer, x)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@each_one
def test_values_are_numpys(composition: Any, data_format: str) -> None:
    ranks = (1, 2) if composition.keras == "PyramidPooling" else (1, 2, 3)
    for rank in ranks if data_format == "channels_last" or not COMPILES else (2,):
        layer, x = layer_of(composition, rank, data_format), image(composition, rank, data_format)
        expected = by_numpy(composition, x, rank, data_format)
        close(keras.tree.map_structure(numpy_of, layer(x)), expected)
        shape = layer.compute_output_shape(x.shape)
        assert shape == (tuple(y.shape for y in expected) if isinstance(expected, tuple) else expected.shape)


@each_one
def test_layers_are_saved_with_their_model(composition: Any, tmp_path: Path) -> None:
    layer, x = layer_of(composition), image(composition)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    first, second = (keras.tree.flatten(one.predict(x, verbose=0)) for one in (model, loaded))
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    close(tuple(first), tuple(keras.tree.flatten(by_numpy(composition, x, 2, "channels_last"))))


@each_one
def test_gradients_follow_the_values(composition: Any) -> None:
    layer, x, rng = layer_of(composition), image(composition), np.random.default_rng(9)
    if composition.keras == "PyramidPooling":
        return
    x = (rng.permutation(x.size).reshape(x.shape) / 100 + 0.005).astype("float32")  # no step makes another the largest
    y = run(layer, x)
    g = rng.normal(size=y.shape).astype("float32")
    slopes = np.asarray(gradient(layer, x, g))
    step = rng.normal(size=x.shape) * 1e-4
    either = [(by_numpy(composition, x + sign * step, 2, "channels_last") * g).sum() for sign in (1, -1)]
    np.testing.assert_allclose((slopes * step).sum(), (either[0] - either[1]) / 2, rtol=2e-3, atol=2e-6)


def test_unknown_sizes_stay_unknown() -> None:
    for layer, expected in (
        (door.MaxBlurPooling2D(2), (None, None, None, 3)),
        (door.PolyphasePooling2D(2), (None, None, None, 3)),
        (door.SpatialPyramidPooling2D((1, 2)), (None, 15)),
        (door.SpaceToDepth(2), (None, None, None, 12)),
        (door.AdaptiveCatAverageMaxPooling2D(3), (None, 3, 3, 6)),
    ):
        assert layer(keras.Input((None, None, 3))).shape == expected
        assert layer.compute_output_shape((None, None, None, 3)) == expected


def test_polyphase_unpooling_is_the_inverse() -> None:
    x = RANDOM.normal(size=(2, 6, 8, 3)).astype("float32")
    pooled, indices = door.PolyphasePooling2D(2, return_indices=True)(x)
    back = numpy_of(door.PolyphaseUnpooling2D(2)(pooled, indices))
    assert back.shape == x.shape
    np.testing.assert_array_equal(back[back != 0], x[back != 0])
    assert (back != 0).sum() == numpy_of(pooled).size
    inputs = keras.Input((6, 8, 3))
    model = keras.Model(inputs, door.PolyphaseUnpooling2D(2)(*door.PolyphasePooling2D(2, return_indices=True)(inputs)))
    np.testing.assert_allclose(model.predict(x, verbose=0), back)


def test_functions_take_the_backends_tensors() -> None:
    x = RANDOM.normal(size=(2, 6, 8, 3)).astype("float32")
    y = poolwise.max_blur_pool(keras.ops.convert_to_tensor(x), 2, axes=(1, 2), where=x > 0)
    np.testing.assert_allclose(numpy_of(y), poolwise.max_blur_pool(x, 2, axes=(1, 2), where=x > 0), rtol=1e-5)


def test_half_precision_is_kept() -> None:
    for composition in ONE:
        layer = getattr(door, composed_name(composition, 2 if composition.ranked else None))
        made = layer(**ARGUMENTS[composition.keras], dtype="mixed_float16")
        for y in keras.tree.flatten(made(image(composition))):
            assert keras.backend.standardize_dtype(y.dtype) == "float16"


REFUSED = (
    (door.MaxBlurPooling2D, TypeError, "MaxBlurPooling2D: pool_size must be given"),
    (lambda: door.MaxBlurPooling2D(2, colour=1), ValueError, "Unrecognized keyword arguments"),
    (lambda: door.MaxBlurPooling2D(2, data_format="x"), ValueError, "MaxBlurPooling2D: data_format must be"),
    (lambda: door.MaxBlurPooling2D(9).build((1, 8, 8, 1)), ValueError, "MaxBlurPooling2D: pool_size must fit"),
    (lambda: door.MaxBlurPooling2D(2, taps=0).build((1, 8, 8, 1)), ValueError, "taps must be at least 1"),
    (
        lambda: door.MaxBlurPooling2D(2)(np.zeros((4, 4, 1), "f")),
        ValueError,
        "MaxBlurPooling2D: inputs must have 4 axes",
    ),
    (lambda: door.PolyphasePooling2D(2).build((1, 7, 8, 1)), ValueError, "PolyphasePooling2D: strides must divide"),
    (lambda: door.SpaceToDepth(2)(np.zeros((4, 4), "f")), ValueError, "SpaceToDepth: inputs must have at least 3 axes"),
    (lambda: door.SpatialPyramidPooling2D(op=poolwise.Max()), TypeError, "op must be the name of an operation"),
)


@pytest.mark.parametrize(("make", "kind", "text"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refused_in_one_line(make: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make()


def test_every_composition_has_its_layers() -> None:
    for composition in COMPOSITIONS:
        for rank in (1, 2, 3) if composition.ranked else (None,):
            layer = getattr(door, composed_name(composition, rank))
            assert layer is COMPOSED[composed_name(composition, rank)]
            assert layer.__name__ in door.__all__
            assert "Raises" in layer.__doc__ or "what is raised" in layer.__doc__ or "arguments are" in layer.__doc__


@pytest.mark.parametrize("op", [poolwise.Max(), poolwise.Mean()], ids=repr)
def test_fractional_pooling_of_the_backends_tensors_is_that_of_arrays(op):
    rng = np.random.default_rng(3)
    x, draws = rng.random((2, 3, 9, 8), "f4"), rng.random((2, 3, 2), "f4")
    expected = poolwise.fractional_pool(x, op, (2, 3), (4, 3), draws=draws)
    given, drawn = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(draws)
    y = poolwise.fractional_pool(given, op, (2, 3), (4, 3), draws=drawn)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(y), expected, rtol=1e-6)
