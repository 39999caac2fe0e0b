"""What every time is held against: a copy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from poolwise.bench.truth import Numbers

RULER = "ruler"
ONE_THREAD = "ruler of one thread"
SMALL = 4 << 20  # bytes below which handing parts to threads may cost more than they save


class Ruler:
    """A copy of an array, by as many threads, into memory that is already there."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Ruler:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    def of(self, x: Numbers) -> dict[str, Callable[[], None]]:
        """The copies of x to be timed: the fastest rules. NumPy lets go of the interpreter's lock while it copies."""
        source = x.reshape(-1).view(np.uint8)
        target = np.zeros_like(source)
        parts = list(zip(np.array_split(target, self.threads), np.array_split(source, self.threads), strict=True))

        def alone() -> None:
            np.copyto(target, source)

        def copy() -> None:
            for done in [self.pool.submit(np.copyto, *part) for part in parts]:
                done.result()

        if self.threads == 1:
            return {RULER: alone}
        return {RULER: copy, ONE_THREAD: alone} if x.nbytes < SMALL else {RULER: copy}
