"""Runs lines of Keras on arrays, for test_explorer_frameworks: JSON on standard input and output."""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np


def ran(question: dict[str, Any]) -> Any:
    x = np.array(question["x"], np.float32)[None, :, :, None]
    names: dict[str, Any] = {"x": keras.ops.convert_to_tensor(x), "keras": keras}
    exec(question["code"], names)
    return keras.ops.convert_to_numpy(names["y"])[0, :, :, 0].tolist()


if __name__ == "__main__":
    json.dump([ran(question) for question in json.load(sys.stdin)], sys.stdout)
