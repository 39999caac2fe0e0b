"""The one place where time is taken: contenders in turns, beside a copy, after their outputs were compared."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, log
from statistics import median
from typing import Any

import numpy as np

from poolwise import InvalidValue, Median, __version__
from poolwise.bench.apart import APART, Apart
from poolwise.bench.cases import FULL, Case, Size, matches, matching
from poolwise.bench.contenders import Attempt, Contender, present
from poolwise.bench.problem import Problem, known, problems
from poolwise.bench.ruler import Ruler
from poolwise.bench.truth import Numbers
from poolwise.bench.turns import in_turns
from poolwise.doctor import Machine, machine, usable_cores
from poolwise.op import Selection

OURS = "poolwise"
TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5, "float64": 1e-12}  # sums in another order, roots, exp
MIDDLE = 2.0**-24  # of a median: the mean of two elements below 1 is rounded once


@dataclass(frozen=True)
class Entry:
    """One contender's times in one case, in seconds per call. refused: why it was not timed.

    rounds: how many times were taken; 0: one call was so long that its only time is that of the call compared.
    """

    median: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    rounds: int = 0
    refused: str = ""


@dataclass(frozen=True)
class Row:
    """One case. ideal: seconds in which a copy would move its bytes (for a tiny call there is none)."""

    case: Case
    shape: tuple[int, ...]
    bytes: int
    goal: float | None
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

    @property
    def figure(self) -> float | None:
        """What the goal is about: our time over the ideal; of a tiny call over PyTorch's."""
        if not self.case.tiny:
            return self.ratio(OURS)
        faster = self.speed_up("PyTorch")
        return 1 / faster if faster else None


@dataclass(frozen=True)
class Result:
    """A whole run. missing: what is not installed, with how to install it. apart: what `apart.APART` measured.

    load: how many processes wanted a processor in the minute before, where the system tells; a quiet machine has 0.
    """

    machine: Machine
    threads: int
    size: Size
    versions: dict[str, str]
    missing: dict[str, str]
    rows: tuple[Row, ...]
    apart: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    load: float | None = None

    @property
    def sound(self) -> bool:
        """Whether poolwise's own output was right wherever it has one."""
        return not any(row.entries[OURS].refused for row in self.rows if OURS in row.entries)

    @property
    def peers(self) -> list[str]:
        """The other contenders that took part."""
        return [name for name in self.versions if name != OURS]

    def of(self, *sections: str) -> list[Row]:
        """The rows of some sections."""
        return [row for row in self.rows if row.case.section in sections]

    def data(self) -> dict[str, Any]:
        """Every number, as JSON's own types; times in seconds."""
        return {
            "poolwise": __version__,
            "machine": asdict(self.machine),
            "load": self.load,
            "threads": self.threads,
            "size": asdict(self.size),
            "versions": self.versions,
            "missing": self.missing,
            "rows": [_record(row) for row in self.rows],
            "apart": self.apart,
        }


def _record(row: Row) -> dict[str, Any]:
    contenders = {
        name: {**asdict(entry), "ratio": row.ratio(name), "poolwise_is_faster_by": row.speed_up(name)}
        for name, entry in row.entries.items()
    }
    case = row.case
    about = {name: getattr(case, name) for name in ("section", "task", "order", "dtype")}
    numbers = {"bytes": row.bytes, "goal": row.goal, "ideal": row.ideal, "ruler_bytes_per_second": row.ruler}
    return {"case": case.name, **about, "shape": list(row.shape), **numbers, "contenders": contenders}


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
    apart = [each for each in APART if matches(each.name, cases)]
    wanted = matching(cases, [each.name for each in apart])
    threads = usable_cores() if threads is None else threads
    if not 1 <= threads <= usable_cores():
        raise InvalidValue(f"threads must be between 1 and {usable_cores()}, got {threads}", "bench")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    contenders, missing = present(threads)
    unknown = {case.dtype for case in wanted if not known(case.dtype)}
    missing |= {f"NumPy's {dtype}": "pip install ml_dtypes" for dtype in unknown}
    wanted = [case for case in wanted if case.dtype not in unknown]
    total = len(wanted) + len(apart)
    rows = _rows(wanted, contenders, threads, size, lambda name, done: said(name, done, total))
    versions = {one.name: one.version() for one in contenders}
    found = _apart(apart, contenders, size, lambda name, done: said(name, len(wanted) + done, total))
    return Result(machine(), threads, size, versions, missing, tuple(rows), found, load)


def _rows(
    wanted: Sequence[Case],
    contenders: Sequence[Contender],
    threads: int,
    size: Size,
    said: Callable[[str, int], object],
) -> list[Row]:
    """In the table's order, whatever the order in which they are measured."""
    rows: dict[Case, Row] = {}
    with Ruler(threads) as ruler:
        for done, problem in enumerate(problems(wanted, size)):
            said(problem.case.name, done)
            rows[problem.case] = _row(problem, contenders, ruler, size)
    return [rows[case] for case in wanted]


def _apart(
    apart: Sequence[Apart], contenders: Sequence[Contender], size: Size, said: Callable[[str, int], object]
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for done, each in enumerate(apart):
        said(each.name, done)
        found |= {each.key: each.measure(contenders, size)}
    return found


def _row(given: Problem, contenders: Sequence[Contender], ruler: Ruler, size: Size) -> Row:
    case = given.case
    attempts, refused, first = _admitted(given, contenders)
    rulers = {} if case.tiny else ruler.of(given.x)
    runs = rulers | {name: attempt.run for name, attempt in attempts.items()}
    times = in_turns(runs, size.rounds, _calls(case, size), first, brief=size.brief)
    copied = [median(times.pop(name)) for name in rulers]
    rate = 2 * given.x.nbytes / min(copied) if copied else None
    timed = {name: _entry(taken, first.get(name)) for name, taken in times.items()}
    entries = {one.name: (timed | refused)[one.name] for one in contenders if one.name in timed | refused}
    return Row(case, given.x.shape, given.bytes, given.goal, given.bytes / rate if rate else None, rate, entries)


def _calls(case: Case, size: Size) -> int:
    """How many calls follow one another in a round."""
    if case.tiny:
        return size.calls
    return max(size.calls // 20, 1) if case.resident else 1


def _entry(taken: Sequence[float], first: float | None) -> Entry:
    return Entry(median(taken), min(taken), max(taken), len(taken)) if taken else Entry(first, first, first)


def _admitted(
    given: Problem, contenders: Sequence[Contender]
) -> tuple[dict[str, Attempt], dict[str, Entry], dict[str, float]]:
    """Whose outputs are right, why others are refused, and the seconds that each answer took."""
    attempts: dict[str, Attempt] = {}
    refused: dict[str, Entry] = {}
    first: dict[str, float] = {}
    for contender in (one for one in contenders if one.serves(given.case)):
        try:
            attempt = contender.attempt(given)
            begin = time.perf_counter()
            outputs = attempt.outputs()
            first[contender.name] = time.perf_counter() - begin
            reason = wrong(outputs, given)
        except Exception as fault:  # one contender's failure must not end the others' measurement
            attempt, reason = None, f"{type(fault).__name__}: {fault}"
        if attempt is None or reason:
            refused[contender.name] = Entry(refused=reason)
        else:
            attempts[contender.name] = attempt
    return attempts, refused, first


def wrong(outputs: Sequence[Numbers], given: Problem) -> str:
    """What is wrong with a contender's outputs, "" for nothing."""
    for what, got, expected in zip(("output", "gradient"), outputs, given.truth, strict=False):
        if got.shape != expected.shape:
            return f"its {what} has shape {got.shape} instead of {expected.shape}"
        if got.dtype != expected.dtype:
            return f"its {what} has dtype {got.dtype} instead of {expected.dtype}"
        error = _furthest(got, expected)
        if not _allowed(error, expected, _tolerance(given.case, what)):
            return f"its {what} is wrong by up to {error:.3g}"
    return "" if len(outputs) == len(given.truth) else f"it gives {len(outputs)} outputs instead of {len(given.truth)}"


def _furthest(got: Numbers, expected: Numbers) -> float:
    """The largest difference; a part of the batch at a time, which fits a cache better."""
    return float(np.max([_difference(one, other) for one, other in zip(got, expected, strict=True)]))


def _difference(one: Numbers, other: Numbers) -> float:
    exact = np.float32 if other.dtype == np.float32 else np.float64
    if other.dtype.kind not in "iu":
        return float(np.abs(one.astype(exact) - other.astype(exact)).max())
    unequal = one != other  # float64 does not tell all 64-bit integers apart
    return max(float(unequal.any()), float(np.abs(one[unequal].astype(exact) - other[unequal]).max(initial=0)))


def _tolerance(case: Case, what: str) -> float:
    """None for integers, nor where the output is one of the elements; a gradient may be a sum."""
    if what == "output" and isinstance(case.op, Selection | Median):
        return MIDDLE if isinstance(case.op, Median) else 0.0
    return TOLERANCE.get(case.dtype, 0.0)


def _allowed(error: float, expected: Numbers, tolerance: float) -> bool:
    """Whether it is small enough, or small beside the largest number; NaN is never allowed."""
    return error <= tolerance or error <= tolerance * float(np.abs(expected.astype(np.float64)).max())
