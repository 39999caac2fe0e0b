"""The engine of whole windows alone, against a copy of its input: `python benchmarks/whole_windows.py`.

Smallest of seven rounds, in turns with the ruler: bytes read and written over the rate at which two threads copy the input.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

import poolwise
from poolwise import Blur, Median, Mode, Operation, Soft

PLACES = {
    "2/2": ((32, 64, 112, 112), (2, 3), 2, 2, 0),
    "3/2 p1": ((32, 64, 112, 112), (2, 3), 3, 2, 1),
    "3/1 p1": ((32, 64, 56, 56), (2, 3), 3, 1, 1),
    "2/2 channels last": ((32, 112, 112, 64), (1, 2), 2, 2, 0),
}
ROWS: tuple[tuple[Operation, str], ...] = (
    (Median(), "float32"),
    (Soft(), "float32"),
    (Blur(), "float32"),
    (Median(), "uint8"),
    (Mode(), "uint8"),
)


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> None:
    poolwise.set_num_threads(2)
    rng = np.random.default_rng(0)
    for name, (shape, axes, window, stride, padding) in PLACES.items():
        for op, dtype in ROWS:
            x = rng.integers(0, 9, shape).astype(dtype) if dtype == "uint8" else rng.random(shape, dtype=dtype)
            to, half = np.empty_like(x), len(x) // 2

            def pool(x=x, op=op, axes=axes, window=window, stride=stride, padding=padding):
                return poolwise.pool(x, op, window, axes=axes, stride=stride, padding=padding, kernel="native")

            def copy(x=x, to=to, half=half):
                other = threading.Thread(target=lambda: np.copyto(to[:half], x[:half]))
                other.start()
                np.copyto(to[half:], x[half:])
                other.join()

            moved = (x.nbytes + pool().nbytes) / (2 * x.nbytes)
            rounds = [(seconds(pool), seconds(copy)) for _ in range(7)]
            own, ruler = (min(times) for times in zip(*rounds, strict=True))
            print(f"{op.name} {name}, {dtype}: {own * 1e3:.2f} ms, {own / (ruler * moved):.1f} of the ruler")


if __name__ == "__main__":
    main()
