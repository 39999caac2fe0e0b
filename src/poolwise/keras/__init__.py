"""The Keras door: Keras's pooling layers under their own names and signatures, and layers for every other operation.

Sliding layers are `<Stem>Pooling1D/2D/3D(pool_size, strides=None, padding="valid", data_format=None, name=None)`,
adaptive ones `Adaptive<Stem>Pooling1D/2D/3D(output_size, data_format=None)`, whatever the version of Keras (it has them
since 3.15), and global ones `Global<Stem>Pooling1D/2D/3D(data_format=None, keepdims=False)`; `MaxPool2D` is
`MaxPooling2D`, and so on.
An operation's own parameters are keywords. All are serialisable and run on each backend: on PyTorch through poolwise's
PyTorch door, on TensorFlow and JAX through the backend's own max and average where those mean the same, else as
gathered windows of `keras.ops`.

What differs from Keras, and where:

- Sizes that cannot work, and a stride of 0, are refused when a layer is made or built; so a layer is built by its first
  input, not when it is made.
- `padding="same"` averages never count padding. Keras on PyTorch repeats border elements into it and counts them
  (keras issues 18452 and 19721); its other backends and all of ours do not.
- Half precision accumulates in float32 on every backend; an average over many taps keeps its last digits.
- An average of integers keeps their dtype and rounds to nearest even (TensorFlow and PyTorch refuse it, JAX makes a
  float32 of it); a sum of integers is 64 bits wide, on JAX only where `jax_enable_x64` is set.
- Every `Global…Pooling1D` takes a mask, as Keras's average does; a masked step is absent.
- TensorFlow's own max drops NaN: a sliding or adaptive max of floats on that backend may give the largest other element
  of a window that holds NaN. Everything else passes NaN on.
- A tie's gradient goes to the first tap in row-major order, in a global max too, where Keras splits it, and in a max of
  volumes on TensorFlow, which gives each of the tied elements all of it.
- An empty batch has an empty gradient in a TensorFlow graph too, where TensorFlow's own max ends the process.
- Adaptive layers exist for every operation, take sizes that only a running graph knows, and give 1 cell, where Keras's
  (3.15) end the process on TensorFlow, and more cells than elements, where those give NaN on JAX.

>>> import numpy, poolwise.keras
>>> x = numpy.array([[1.0, 3.0], [2.0, 4.0]], "float32").reshape(1, 2, 2, 1)
>>> float(poolwise.keras.MaxPooling2D((2, 2))(x)[0, 0, 0, 0])
4.0
>>> float(poolwise.keras.AveragePooling2D((2, 2))(x)[0, 0, 0, 0])
2.5
>>> tuple(poolwise.keras.AdaptiveMaxPooling2D((1, 2))(x).shape)
(1, 1, 2, 1)
"""

from typing import TYPE_CHECKING

from poolwise.errors import MissingExtra

try:
    import keras
except ImportError as cause:
    missing = str(cause.name).partition(".")[0]
    advice = f"pip install {missing}; or name another backend, as in KERAS_BACKEND=torch"
    if missing == "keras":
        advice = 'pip install "poolwise[keras]"'
    raise MissingExtra(f"poolwise.keras needs {missing}: {advice}") from None

from poolwise.keras._door import open_door
from poolwise.keras.composed import COMPOSED
from poolwise.keras.layers import LAYERS

open_door()
globals().update(LAYERS)
globals().update(COMPOSED)

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[keras.layers.Layer]: ...


del keras, open_door
__all__ = [*LAYERS, *COMPOSED]  # pyright: ignore[reportUnsupportedDunderAll]
