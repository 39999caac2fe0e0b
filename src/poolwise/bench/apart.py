"""What is measured apart from the cases: the tutorial's step, importing, threads, what is kept for backward."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from poolwise.bench.cases import CASES, Case, Size
from poolwise.bench.contenders import Contender, PyTorch
from poolwise.bench.problem import made
from poolwise.bench.ruler import RULER, Ruler
from poolwise.bench.turns import in_turns
from poolwise.doctor import usable_cores

SCALED = ("max 2/2 NCHW forward", "max 3/1 p1 NCHW forward", "avg 13/1 p6 NCHW forward")


@dataclass(frozen=True)
class Apart:
    """A measurement of its own kind. name: what `--cases` matches. key: the result's name in JSON.

    measure: takes the contenders, ours among them, and the size; {"skipped": why} where it cannot be.
    """

    name: str
    key: str
    measure: Callable[[Sequence[Contender], Size], dict[str, Any]]


def _tutorial(contenders: Sequence[Contender], size: Size) -> dict[str, Any]:
    """What `accelerate` saves the tutorial's CNN."""
    torch = _pytorch(contenders)
    if torch is None:
        return {"skipped": "PyTorch is not installed"}
    return import_module("poolwise.bench.accelerated").tutorial(torch.threads, rounds=3 * size.rounds).data()


def _kept(contenders: Sequence[Contender], size: Size) -> dict[str, Any]:
    """Bytes per output between forward and backward."""
    if _pytorch(contenders) is None:
        return {"skipped": "PyTorch is not installed"}
    return import_module("poolwise.bench.accelerated").kept_per_output()


def _pytorch(contenders: Sequence[Contender]) -> Contender | None:
    return next((one for one in contenders if isinstance(one, PyTorch)), None)


def _imports(contenders: Sequence[Contender], size: Size) -> dict[str, Any]:
    """Seconds of an import in a fresh interpreter, the interpreter's own start apart."""
    rounds: dict[str, list[float]] = {name: [] for name in ("numpy", "poolwise", "poolwise.max_pool")}
    with TemporaryDirectory() as compiled:
        for turn in range(size.rounds + 1):
            for name, taken in rounds.items():
                seconds = _importing(name, compiled)
                if turn:  # the first reads the files, and compiles them
                    taken.append(seconds)
    return {name: median(taken) for name, taken in rounds.items()}


def _importing(name: str, compiled: str) -> float:
    """Both from bytecode, wherever they are installed; a name after the dot is looked up too."""
    task = f"import {name.partition('.')[0]}; {name}"
    program = f"from time import perf_counter as now; begin = now(); {task}; print(now() - begin)"
    setting = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=setting | {"PYTHONPYCACHEPREFIX": compiled},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout)


def _scaling(contenders: Sequence[Contender], size: Size) -> dict[str, Any]:
    """Seconds of a call by one thread and by two; ideal: in which a copy by two would move its bytes."""
    if usable_cores() < 2:
        return {"skipped": "only one core is usable"}
    ours = next(one for one in contenders if one.name == "poolwise")
    seconds: dict[str, dict[str, float]] = {}
    ideal: dict[str, float] = {}
    with _restored(ours), Ruler(2) as ruler:
        for given in (made(_case(name), size) for name in SCALED):
            run, copy = ours.attempt(given).run, ruler.of(given.x)[RULER]
            runs = {str(count): partial(_restrained, ours, count, run) for count in (1, 2)} | {RULER: copy}
            times = {name: median(taken) for name, taken in in_turns(runs, size.rounds, 1).items()}
            ideal[given.case.name] = times.pop(RULER) * given.bytes / (2 * given.x.nbytes)
            seconds[given.case.name] = times
    return {"seconds": seconds, "ideal": ideal}


@contextmanager
def _restored(contender: Contender) -> Iterator[None]:
    try:
        yield
    finally:
        contender.restrain(contender.threads)


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def _restrained(contender: Contender, threads: int, run: Callable[[], Any]) -> Any:
    contender.restrain(threads)
    return run()


APART: tuple[Apart, ...] = (
    Apart("tutorial CNN training step", "tutorial", _tutorial),
    Apart("kept for backward", "kept", _kept),
    Apart("import poolwise", "imports", _imports),
    Apart("scaling from one thread to two", "scaling", _scaling),
)
