"""What the review reads of Keras models: Keras' own counts, and Keras' own shapes."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

import poolwise
import poolwise.keras
from poolwise.design.graph import Graph
from poolwise.design.readers import keras as reader


def sequential() -> Any:
    """LeCun's way, as tutorials build it."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            poolwise.keras.MinPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def branches() -> Any:
    x = keras.Input((33, 35, 3))
    y = layers.ZeroPadding2D(((1, 0), (2, 1)))(x)
    y = layers.SeparableConv2D(8, 3, strides=2)(y)
    a = layers.MaxPooling2D(3, 2, "same")(y)
    b = layers.AveragePooling2D(3, 2, "same")(y)
    inner = keras.Sequential([keras.Input((8, 9, 16)), layers.DepthwiseConv2D(3, padding="same")], name="inner")
    z = inner(inner(layers.Concatenate()([a, b])))
    return keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(z)))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(4, 3, padding="same")
        self.pool = layers.MaxPooling2D(2)
        self.dense = layers.Dense(3)

    def call(self, x: Any) -> Any:
        x = self.conv(x)
        x = self.pool(keras.ops.relu(x) + x)
        return self.dense(keras.ops.mean(x, axis=(1, 2)))


def parameters(graph: Graph) -> int:
    return sum({name: size for step in graph.steps for name, size in step.weights.items()}.values())


def ops(graph: Graph) -> list[str]:
    return [step.op for step in graph.steps]


@pytest.mark.parametrize(("make", "shape"), [(sequential, None), (branches, None), (Subclassed, (2, 17, 19, 3))])
def test_parameters_and_shapes_are_those_that_keras_says(make: Any, shape: Any) -> None:
    model = make()
    graph = reader.graph(model, shape)
    assert parameters(graph) == model.count_params()
    assert all(step.known for step in graph.steps)
    for step in graph.steps:
        if step.reads is not None and graph.values[step.output].axes:
            assert step.reads.output_shape == graph.values[step.output].sizes
            assert step.reads.shape == graph.values[step.inputs[0]].sizes
    given = graph.values[graph.inputs[0]].shape
    assert graph.values[graph.outputs[0]].shape == tuple(model(keras.ops.zeros(given)).shape)


def test_a_sequential_model_layer_by_layer() -> None:
    graph = reader.graph(sequential())
    assert ops(graph) == ["Conv", "Relu", "MaxPool", "Conv", "Relu", "MinPool", "Flatten", "Gemm", "Softmax"]
    # by hand: 26·26·32·9·1, then 7·7·64·9·32, then 3·3·64·10
    assert [step.macs for step in graph.steps if step.macs] == [194_688, 903_168, 5_760]


def test_a_nested_model_called_twice_is_counted_once_and_the_model_stays_as_it_was() -> None:
    model = branches()
    notes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    graph = reader.graph(model)
    assert [step.name.split("/")[0] for step in graph.steps].count("inner") == 2
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == notes


def test_a_subclassed_model_is_followed_through_its_call() -> None:
    assert ops(reader.graph(Subclassed(), (1, 8, 8, 3))) == [
        "Conv",
        "Relu",
        "Add",
        "MaxPool",
        "GlobalAveragePool",
        "Gemm",
    ]


def test_sizes_that_do_not_fit_are_one_clear_fault() -> None:
    with pytest.raises(poolwise.InvalidValue, match="symbolic tensors"):
        reader.graph(sequential(), (1, 3))
    with pytest.raises(poolwise.InvalidValue, match="shapes must be given"):
        reader.graph(Subclassed())


def test_moving_statistics_are_no_parameters() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.BatchNormalization()])
    assert model.count_params() == 12
    assert parameters(reader.graph(model)) == 6  # gamma and beta, as PyTorch and ONNX count


def test_compositions_are_read_where_that_can_be_said() -> None:
    model = keras.Sequential(
        [
            keras.Input((29, 28, 3)),
            poolwise.keras.BalancedPooling2D("max", (3, 2), 3, offsets="end"),
            poolwise.keras.FractionalMaxPooling2D(2, output_ratio=0.7),
            poolwise.keras.MaxBlurPooling2D(2),
            layers.Flatten(),
        ]
    )
    graph = reader.graph(model)
    balanced, fractional, blurred, _ = graph.steps
    assert ops(graph)[:3] == ["MaxPool", "FractionalMaxPooling2D", "MaxBlurPooling2D"]
    assert (balanced.known, fractional.known, blurred.known) == (True, False, False)
    assert balanced.reads == poolwise.Geometry.of((29, 28), window=(3, 2), stride=3, offsets=(2, 2))
    for offsets, found in (("end", False), ("start", True)):
        pool = poolwise.keras.BalancedPooling2D("max", 3, offsets=offsets)
        review = poolwise.design.review(keras.Sequential([keras.Input((29, 29, 3)), pool]))
        assert ("PW101" in {finding.rule for finding in review.findings}) == found


def test_a_composition_is_recorded_as_one() -> None:
    from poolwise.models import record_keras  # noqa: PLC0415
    from poolwise.models.record import Record  # noqa: PLC0415

    model = keras.Sequential([keras.Input((11, 11, 3)), poolwise.keras.BalancedPooling2D("max", 3)])
    record, x = Record(), keras.random.normal((1, 11, 11, 3))
    record_keras.run(model, [keras.ops.convert_to_numpy(x)], record)
    (stage,) = record.stages
    assert "BalancedPooling2D" in stage.name
    assert stage.after.shape == (3, 3, 3)
