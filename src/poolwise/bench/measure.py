"""The one place where time is taken: contenders in turns, beside a copy, after their outputs were compared."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import import_module
from math import exp, log
from statistics import median
from typing import Any

import numpy as np

from poolwise import InvalidValue, __version__
from poolwise.bench.cases import FULL, TUTORIAL, Case, Data, Floats, Problem, Size, made, matches, matching
from poolwise.bench.contenders import Attempt, Contender, present
from poolwise.doctor import Machine, machine, usable_cores, version_of

RULER = "ruler"
OURS = "poolwise"
PAUSE = 0.01  # seconds in which the last contender's spinning threads settle
TOLERANCE = 1e-5  # of values below 1; sums of nine in another order


@dataclass(frozen=True)
class Entry:
    """One contender's times in one case, in seconds per call. refused: why it was not timed."""

    median: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    refused: str = ""


@dataclass(frozen=True)
class Row:
    """One case. ideal: seconds in which a copy would move its bytes (for a tiny call there is none)."""

    case: Case
    shape: tuple[int, ...]
    bytes: int
    goal: float
    ideal: float | None
    ruler: float | None
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])

    def ratio(self, name: str) -> float | None:
        """A contender's time over the ideal."""
        time = self.time(name)
        return time / self.ideal if time and self.ideal else None

    def speed_up(self, name: str) -> float | None:
        """How many times as long as ours another's call takes."""
        own, other = self.time(OURS), self.time(name)
        return other / own if own and other else None

    def time(self, name: str) -> float | None:
        """A contender's median, None where it was not timed."""
        entry = self.entries.get(name)
        return entry.median if entry else None


@dataclass(frozen=True)
class Result:
    """A whole run. missing: contenders that are not installed, with how to install them."""

    machine: Machine
    threads: int
    size: Size
    versions: dict[str, str]
    missing: dict[str, str]
    rows: tuple[Row, ...]
    tutorial: dict[str, Any] | None = None  # what `accelerate` saves the tutorial's CNN, where PyTorch is installed

    @property
    def sound(self) -> bool:
        """Whether poolwise's own output was right wherever it has one."""
        return not any(row.entries[OURS].refused for row in self.rows if OURS in row.entries)

    @property
    def peers(self) -> list[str]:
        """The other contenders that took part."""
        return [name for name in self.versions if name != OURS]

    def of(self, *tasks: str) -> list[Row]:
        """The rows of some tasks."""
        return [row for row in self.rows if row.case.task in tasks]

    def data(self) -> dict[str, Any]:
        """Every number, as JSON's own types; times in seconds."""
        return {
            "poolwise": __version__,
            "machine": asdict(self.machine),
            "threads": self.threads,
            "size": asdict(self.size),
            "versions": self.versions,
            "missing": self.missing,
            "rows": [self._record(row) for row in self.rows],
            "tutorial": self.tutorial,
            "geometric_means": {task: self._means(task) for task in ("forward", "indices", "training")},
        }

    def _record(self, row: Row) -> dict[str, Any]:
        contenders = {
            name: {**asdict(entry), "ratio": row.ratio(name), "poolwise_is_faster_by": row.speed_up(name)}
            for name, entry in row.entries.items()
        }
        about = {"case": row.case.name, "task": row.case.task, "layout": row.case.layout, "shape": list(row.shape)}
        numbers = {"bytes": row.bytes, "goal": row.goal, "ideal": row.ideal, "ruler_bytes_per_second": row.ruler}
        return {**about, **numbers, "contenders": contenders}

    def _means(self, task: str) -> dict[str, Any]:
        rows = self.of(task)
        ratios = {name: geometric_mean([row.ratio(name) for row in rows]) for name in self.versions}
        faster = {name: geometric_mean([row.speed_up(name) for row in rows]) for name in self.peers}
        return {"ratio": ratios, "poolwise_is_faster_by": faster}


def geometric_mean(numbers: Sequence[float | None]) -> float | None:
    """Of the numbers that are there, None where there is none."""
    there = [number for number in numbers if number]
    return exp(sum(map(log, there)) / len(there)) if there else None


def run(
    *,
    cases: str = "*",
    threads: int | None = None,
    size: Size = FULL,
    said: Callable[[str, int, int], object] = lambda *_: None,
) -> Result:
    """Measure the cases whose name holds the pattern, with every contender that is installed.

    threads: for each contender and for the ruler; None: every core this process may use.
    said: told each case's name before it is measured, how many are done, and how many there are.
    Raises InvalidValue where no case matches, or where there are fewer cores than threads.
    """
    wanted = matching(cases)
    threads = usable_cores() if threads is None else threads
    if not 1 <= threads <= usable_cores():
        raise InvalidValue(f"threads must be between 1 and {usable_cores()}, got {threads}", "bench")
    contenders, missing = present(threads)
    rows: list[Row] = []
    data: Data | None = None
    with Ruler(threads) as ruler:
        for number, case in enumerate(wanted):
            said(case.name, number, len(wanted))
            if data is None or not case.shares(data.case):
                data = made(case, size)
            rows.append(_row(Problem(case, data), contenders, ruler, size))
    versions = {one.name: __version__ if one.name == OURS else version_of(one.version_of) for one in contenders}
    tutorial = None
    if matches(TUTORIAL, cases) and "PyTorch" in versions:
        said(TUTORIAL, len(wanted), len(wanted))
        tutorial = import_module("poolwise.bench.accelerated").tutorial(threads, rounds=3 * size.rounds).data()
    return Result(machine(), threads, size, versions, missing, tuple(rows), tutorial)


class Ruler:
    """A copy of an array, by as many threads, into memory that is already there."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Ruler:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    def of(self, x: Floats) -> Callable[[], None]:
        """The copy of x; NumPy lets go of the interpreter's lock while it copies."""
        source, target = x.reshape(-1), np.zeros(x.size, x.dtype)
        if self.threads == 1:
            return lambda: np.copyto(target, source)
        parts = list(zip(np.array_split(target, self.threads), np.array_split(source, self.threads), strict=True))

        def copy() -> None:
            for done in [self.pool.submit(np.copyto, *part) for part in parts]:
                done.result()

        return copy


def _row(given: Problem, contenders: Sequence[Contender], ruler: Ruler, size: Size) -> Row:
    case = given.case
    attempts: dict[str, Attempt] = {}
    entries: dict[str, Entry] = {}
    for contender in contenders:
        attempt, refused = _admitted(contender, given)
        if attempt is not None:
            attempts[contender.name] = attempt
        elif refused:
            entries[contender.name] = Entry(refused=refused)
    runs = {name: attempt.run for name, attempt in attempts.items()}
    if case.tiny:
        times = in_turns(runs, size.rounds, size.calls)
    else:
        times = in_turns({RULER: ruler.of(given.x), **runs}, size.rounds, 1)
    copied = times.pop(RULER, None)
    rate = 2 * given.x.nbytes / median(copied) if copied else None
    entries |= {name: Entry(median(taken), min(taken), max(taken)) for name, taken in times.items()}
    ordered = {one.name: entries[one.name] for one in contenders if one.name in entries}
    return Row(case, given.x.shape, given.bytes, given.goal, given.bytes / rate if rate else None, rate, ordered)


def _admitted(contender: Contender, given: Problem) -> tuple[Attempt | None, str]:
    """The contender's attempt if its outputs are right; else why it is not timed, "" where it has no such operation."""
    try:
        attempt = contender.attempt(given)
        reason = _wrong(attempt.outputs(), given) if attempt is not None else ""
    except Exception as fault:  # one contender's failure must not end the others' measurement
        return None, f"{type(fault).__name__}: {fault}"
    return (None, reason) if reason else (attempt, "")


def _wrong(outputs: Sequence[Floats], given: Problem) -> str:
    """What is wrong with a contender's outputs, "" for nothing."""
    for what, got, expected in zip(("output", "gradient"), outputs, given.truth, strict=False):
        if got.shape != expected.shape:
            return f"its {what} has shape {got.shape} instead of {expected.shape}"
        error = float(np.abs(got - expected).max())
        if not error <= TOLERANCE:  # a NaN is wrong, too
            return f"its {what} is wrong by up to {error:.3g}"
    return "" if len(outputs) == len(given.truth) else f"it gives {len(outputs)} outputs instead of {len(given.truth)}"


def in_turns(runs: dict[str, Callable[[], Any]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds per call of each, in rounds that each start with another, after a warm-up of each."""
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(-1, rounds):
            start = turn % max(len(names), 1)
            for name in names[start:] + names[:start]:
                taken = _timed(runs[name], calls)
                if turn >= 0:
                    times[name].append(taken)
    finally:
        if collecting:
            gc.enable()
    return times


def _timed(run: Callable[[], Any], calls: int) -> float:
    time.sleep(PAUSE)
    begin = time.perf_counter()
    for _ in range(calls - 1):
        run()
    last = run()  # held until the clock has stopped, so that freeing it is not measured
    end = time.perf_counter()
    del last
    return (end - begin) / calls
