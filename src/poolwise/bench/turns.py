"""Times taken in turns, none of them waiting longer than it is worth."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

PAUSE = 0.01  # seconds in which the last contender's spinning threads settle; after 30 ms the processor itself is slow
BRIEF = 0.005  # seconds of a round up to which it says little
QUICK = 0.5  # seconds of a call up to which every round is run
SPENT = 3.0  # seconds that the rounds of a slower one may take
WARM = 2.0  # seconds of an earlier call from which on no further warm-up is needed
ONCE = 5.0  # seconds of a call above which it is not repeated


def in_turns(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    calls: int,
    first: Mapping[str, float] | None = None,
    *,
    brief: int | None = None,
) -> dict[str, list[float]]:
    """Seconds per call of each, in rounds that each start with another, after a warm-up of each.

    In each round, a call that is not timed wakes the threads of who is quick: while it was others' turn they fell
    asleep, and OpenMP's (PyTorch's), which then wait for each other spinning, may take 6 ms to meet again.

    calls: in each round, one after the other. first: the seconds that an earlier call took, where there was one.
    brief: the rounds where everybody's are brief; None: as many as otherwise. (In rounds of some alone the caches would
    hold more.)
    Who is slow has fewer times, at least one; of a call above `ONCE` none are taken.
    """
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        warm = {name: _warm(run, calls, (first or {}).get(name, 0.0)) for name, run in runs.items()}
        if brief is not None and max(warm.values(), default=0.0) <= BRIEF:
            rounds = brief
        wanted = {name: _rounds(seconds, rounds) for name, seconds in warm.items()}
        for turn in range(rounds):
            start = turn % max(len(names), 1)
            for name in names[start:] + names[:start]:
                if turn < wanted[name]:
                    times[name].append(_timed(runs[name], calls, woken=wanted[name] == rounds))
    finally:
        if collecting:
            gc.enable()
    return times


def _warm(run: Callable[[], Any], calls: int, first: float) -> float:
    """The seconds of a round."""
    return first if first > WARM else calls * _timed(run, calls)


def _rounds(seconds: float, most: int) -> int:
    if seconds <= QUICK:
        return most
    return 0 if seconds > ONCE else max(1, min(most, int(SPENT / seconds)))


def _timed(run: Callable[[], Any], calls: int, *, woken: bool = False) -> float:
    time.sleep(PAUSE)
    if woken:
        run()
    begin = time.perf_counter()
    for _ in range(calls - 1):
        run()
    last = run()  # held until the clock has stopped, so that freeing it is not measured
    end = time.perf_counter()
    del last
    return (end - begin) / calls
