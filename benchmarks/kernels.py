"""The compiled kernels alone, on memory that is reused: `python benchmarks/kernels.py [GLOB ...]`.

Without frameworks, fresh outputs and calls from Python around it, a change of a kernel shows. Each line: time over the
ruler's (a copy of the input by as many threads, see README.md) and milliseconds, medians of 7 rounds in turns; for the
forward pass, for the one that keeps offsets, and for backward.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from statistics import median
from typing import Any

import numpy as np

from poolwise import _native

THREADS = _native.get_num_threads()
LARGE, HALF, WIDE = (32, 64, 112, 112), (32, 64, 56, 56), (8, 32, 128, 128)
WORK = 3e7  # bytes of input per measurement, so that small arrays are called more often

# name: shape, pooled axes, window (0: all of the axis), stride, padding
GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, int, int]] = {
    "2/2": (LARGE, (2, 3), 2, 2, 0),
    "3/2 p1": (LARGE, (2, 3), 3, 2, 1),
    "3/3": (LARGE, (2, 3), 3, 3, 0),
    "3/1 p1": (HALF, (2, 3), 3, 1, 1),
    "7/2 p3": (LARGE, (2, 3), 7, 2, 3),
    "2/2 channels last": ((32, 112, 112, 64), (1, 2), 2, 2, 0),
    "3/2 p1 channels last": ((32, 112, 112, 64), (1, 2), 3, 2, 1),
    "3/1 p1 channels last": ((32, 56, 56, 64), (1, 2), 3, 1, 1),
    "2/2 rows of 14": ((64, 512, 14, 14), (2, 3), 2, 2, 0),
    "3/2 p1 rows of 7": ((64, 512, 7, 7), (2, 3), 3, 2, 1),
    "5/1 p2 rows of 13": ((8, 512, 13, 13), (2, 3), 5, 1, 2),
    "13/1 p6 rows of 20": ((8, 512, 20, 20), (2, 3), 13, 1, 6),
    **{f"{k}x{k}/1": (WIDE, (2, 3), k, 1, k // 2) for k in (3, 7, 15, 31, 63)},
    "global 14x14": ((32, 512, 14, 14), (2, 3), 0, 1, 0),
    "global 112x112": (LARGE, (2, 3), 0, 1, 0),
    "1-D 2/2": ((64, 64, 16000), (2,), 2, 2, 0),
    "3-D 2/2": ((4, 32, 32, 64, 64), (2, 3, 4), 2, 2, 0),
    "3-D 3/1 p1": ((4, 32, 32, 64, 64), (2, 3, 4), 3, 1, 1),
    "in the cache 2/2": ((1, 64, 56, 56), (2, 3), 2, 2, 0),
    "in the cache 3/1 p1": ((1, 64, 56, 56), (2, 3), 3, 1, 1),
}
DTYPES = ("float32", "float16", "uint8", "float64")


def copier(x: np.ndarray[Any, Any], pool: ThreadPoolExecutor) -> Callable[[], object]:
    """The ruler: a copy by all threads into memory that is there."""
    source = x.reshape(-1)
    parts = list(zip(np.array_split(np.zeros_like(source), THREADS), np.array_split(source, THREADS), strict=True))
    return lambda: [done.result() for done in [pool.submit(np.copyto, *part) for part in parts]]


def table(size: int, window: int, stride: int, padding: int) -> tuple[Any, ...]:
    """One pooled axis as the module wants it."""
    window = window or size
    output = (size + 2 * padding - window) // stride + 1
    return output, -padding, stride, 1, window, padding, padding, "absent"


def passes(
    body: str, geometry: str, dtype: str
) -> tuple[np.ndarray[Any, Any], dict[str, tuple[Callable[[], object], int]]]:
    """The input, and each pass with the bytes that it must move."""
    shape, axes, window, stride, padding = GEOMETRIES[geometry]
    tables = [table(shape[axis], window, stride, padding) for axis in axes]
    outputs = list(shape)
    for axis, entries in zip(axes, tables, strict=True):
        outputs[axis] = entries[0]
    plan = _native.Plan(body, dtype, shape, axes, tables, range(len(shape)), count_include_pad=True)
    random = np.random.default_rng(0)
    x, g = (((random.random(size, np.float32) - 0.5) * 100).astype(dtype) for size in (shape, outputs))
    y, gx = np.zeros_like(g), np.zeros_like(x)
    kept = np.zeros(outputs, plan.kept_dtype) if plan.kept_dtype else None
    found = {"forward": (lambda: plan.forward(x, y, threads=THREADS), x.nbytes + y.nbytes)}
    moved = x.nbytes + y.nbytes + (0 if kept is None else kept.nbytes)
    if kept is not None:
        plan.forward(x, y, kept)
        found["with offsets"] = (lambda: plan.forward(x, y, kept, threads=THREADS), moved)
    if x.dtype.kind == "f":
        found["backward"] = (lambda: plan.backward(g, gx, kept, threads=THREADS), moved)
    return x, found


def measured(runs: list[Callable[[], object]], calls: int) -> list[float]:
    """Median seconds of each, in turns, after a warm-up."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(8):
        for run, taken in zip(runs, times, strict=True):
            begin = time.perf_counter()
            for _ in range(calls):
                run()
            if turn:
                taken.append((time.perf_counter() - begin) / calls)
    return [median(taken) for taken in times]


def main(patterns: list[str]) -> None:
    """Measure what the patterns name, everything where there is none."""
    print(f"{_native.instruction_set()}, {THREADS} threads")
    with ThreadPoolExecutor(THREADS) as pool:
        for geometry in GEOMETRIES:
            for body in ("max", "mean"):
                for dtype in DTYPES if geometry in ("2/2", "3/2 p1") else DTYPES[:1]:
                    name = f"{body} {geometry}, {dtype}"
                    if patterns and not any(fnmatch(name, pattern) for pattern in patterns):
                        continue
                    x, runs = passes(body, geometry, dtype)
                    copied, *times = measured(
                        [copier(x, pool), *(run for run, _ in runs.values())], max(1, int(WORK / x.nbytes))
                    )
                    rate = 2 * x.nbytes / copied
                    shown = (
                        f"{what} {1e3 * taken:8.2f} ms {taken * rate / moved:6.2f}"
                        for (what, (_, moved)), taken in zip(runs.items(), times, strict=True)
                    )
                    print(f"{name:36} {rate / 1e9:5.1f} GB/s  {'   '.join(shown)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
