"""The explorer's module outside a page, in the JavaScript engine that comes with Playwright."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright._impl._driver import compute_driver_executable

PROGRAM = Path(__file__).with_name("explorer.mjs")


@cache
def engine() -> str:
    """The path of Node."""
    return str(compute_driver_executable()[0])


def ask(questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The module's answers: each {"answer": …} or {"fault": …}."""
    done = subprocess.run(
        [engine(), str(PROGRAM)], input=json.dumps(questions), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def grid(array: NDArray[Any]) -> dict[str, Any]:
    """A plane as a question holds it."""
    rows, columns = array.shape
    values = [float(value) if np.isfinite(value) else _word(float(value)) for value in array.ravel()]
    return {"rows": rows, "columns": columns, "dtype": array.dtype.name, "values": values}


def _word(value: float) -> str:
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def floats(values: Sequence[Any], rows: int, columns: int) -> NDArray[np.float64]:
    """The numbers of an answer."""
    return np.array([float(str(value).replace("Infinity", "inf")) for value in values]).reshape(rows, columns)
