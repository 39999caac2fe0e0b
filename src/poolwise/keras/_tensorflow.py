"""The largest elements of TensorFlow's tensors, where the gradients of TensorFlow's own maximum are not ours."""

from __future__ import annotations

from typing import Any, cast

import tensorflow as tf
from keras import ops

from poolwise.op import Array

try:  # it has no public name
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext as in_xla  # noqa: N813
except ImportError:
    in_xla = None

LAYOUTS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def max_pool(x: Array, *rules: Any, **layout: Any) -> Array:
    """`keras.ops.max_pool`, for a graph of which somebody may export the result, or take the gradient.

    An exporter sees the maximum alone; a gradient computes it once more, if the tensor may be empty.
    """
    if _has_elements(x):
        return _first_of_equals(x, *rules, **layout)

    @tf.custom_gradient
    def pooled(x: Array) -> tuple[Array, Any]:
        def backward(g: Array) -> Array:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = trained_max_pool(x, *rules, **layout)
            return tape.gradient(y, x, g)

        return _first_of_equals(x, *rules, **layout), backward

    return pooled(x)


def trained_max_pool(x: Array, *rules: Any, **layout: Any) -> Array:
    """The same for a graph whose gradient is taken.

    oneDNN's gradient of a maximum, which serves graphs on a CPU, ends the process at an empty tensor (TensorFlow 2.21):
    so it meets none. Padding by nothing and slicing everything pass the tensor on as it is, without a copy.
    """
    if _has_elements(x):
        return _first_of_equals(x, *rules, **layout)
    sizes = tf.shape(x)
    held = tf.pad(x, tf.maximum(tf.constant([[0, 1]]) - tf.expand_dims(sizes, 1), 0))
    held.set_shape([size or None for size in x.shape])
    pooled = _first_of_equals(held, *rules, **layout)
    y = tf.slice(pooled, tf.zeros_like(sizes), tf.minimum(tf.shape(pooled), sizes))
    y.set_shape([after if before else before for before, after in zip(x.shape, pooled.shape, strict=True)])
    return y


def _has_elements(x: Array) -> bool:
    """Whether that is known, or oneDNN does not serve."""
    return tf.executing_eagerly() or all(x.shape) or _compiled() is True


def _compiled() -> bool | None:
    """Whether XLA compiles the graph that is traced; None: perhaps parts of it."""
    if tf.executing_eagerly():
        return False
    return None if in_xla is None or tf.config.optimizer.get_jit() else in_xla(tf.compat.v1.get_default_graph())


def _first_of_equals(
    x: Array, window: tuple[int, ...], strides: tuple[int, ...], padding: str, data_format: str
) -> Array:
    """The largest elements, the gradient of equal ones to the first in row-major order.

    One axis after another, from the last, finds that too. Three at a time do not on a CPU, where each of the equals has
    the whole gradient, unless oneDNN serves or XLA compiles the graph; there padded axes do not, two at a time either.
    """
    rank = len(window)
    if {*window, *strides} == {1}:
        return x
    if data_format == "channels_first":
        x = tf.transpose(x, (0, *range(2, rank + 2), 1))
        y = _first_of_equals(x, window, strides, padding, "channels_last")
        return tf.transpose(y, (0, rank + 1, *range(1, rank + 1)))
    by_xla = _compiled() is True and padding == "valid" and x.dtype != tf.float64
    if rank > 2 and not by_xla:
        return _plane_by_plane(x, window, strides, padding)
    if rank == 2 and 1 not in window and padding != "valid" and _compiled() is not False:
        x = tf.nn.max_pool2d(x, (1, window[1]), (1, strides[1]), padding.upper())
        window, strides = (window[0], 1), (strides[0], 1)
    return tf.nn.max_pool(x, window, strides, padding.upper(), LAYOUTS[rank])


def _plane_by_plane(x: Array, window: tuple[int, ...], strides: tuple[int, ...], padding: str) -> Array:
    """Of three axes the last two, then the first, the two written as one."""
    last = padding, "channels_last"
    batch, depth, height, width, channels = _sizes(x)
    planes = tf.reshape(x, (batch * depth, height, width, channels))
    planes = _first_of_equals(planes, window[1:], strides[1:], *last)
    _, height, width, _ = _sizes(planes)
    columns = tf.reshape(planes, (batch, depth, height * width, channels))
    columns = _first_of_equals(columns, (window[0], 1), (strides[0], 1), *last)
    return tf.reshape(columns, (batch, _sizes(columns)[1], height, width, channels))


def _sizes(x: Array) -> tuple[Any, ...]:
    """Of each axis; a tensor where only a running graph knows it."""
    return cast("Any", ops.shape(x))
