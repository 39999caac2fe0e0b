"""A result on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from poolwise.bench.measure import OURS, Result, Row, geometric_mean
from poolwise.doctor import facts_table

TITLES = {"forward": "forward", "indices": "forward + indices", "training": "forward + backward"}
MEAN_GOALS = {"forward": 1.15, "indices": 1.25, "training": 1.2}
STEP_GOAL = 0.65
SPEED_GOALS = {
    "forward": {"PyTorch": 7, "ONNX Runtime": 3, "JAX": 5},
    "training": {"PyTorch": 8, "JAX": 12},
}


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that names the case being measured; nothing where the console is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading the frameworks", total=None)
        yield lambda name, done, of: bar.update(task, description=name, completed=done, total=of)


def show(result: Result, console: Console) -> None:
    """The machine's facts, the table, the tiny calls, and the geometric means."""
    console.print(facts_table(result.machine))
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    console.print(f"{versions}\n{result.threads} threads each, medians of {result.size.rounds} rounds, float32")
    console.print()
    if result.of(*TITLES):
        console.print(_table(result))
        console.print()
    if result.of("tiny", "tiny recorded"):
        console.print(_tiny_table(result))
        console.print()
    if result.tutorial is not None:
        console.print(_tutorial(result.tutorial), highlight=False)
        console.print()
    for line in _notes(result):
        console.print(line, highlight=False, markup=False)


def _table(result: Result) -> Table:
    """Times over the ruler's, and in brackets how many times faster ours is."""
    grid = _grid("time / ruler\n(speed-up)", ["goal", OURS, *result.peers])
    for task, title in TITLES.items():
        rows = result.of(task)
        if rows:
            grid.add_row(f"[bold]{title}[/bold]")
            for row in rows:
                grid.add_row(f"{row.case.label} {row.case.layout}", *_cells(row, result.peers))
    return grid


def _grid(first: str, names: Sequence[str]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column(first, no_wrap=True)
    for name in names:
        grid.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    return grid


def _cells(row: Row, peers: Sequence[str]) -> list[str]:
    return [f"{row.goal:g}", _own(row, row.ratio(OURS)), *(_peer(row, name) for name in peers)]


def _own(row: Row, ratio: float | None) -> str:
    if ratio is None:
        return _absent(row, OURS)
    colour = "green" if ratio <= row.goal else "yellow"
    return f"[{colour}]{ratio:.2f}[/{colour}]"


def _peer(row: Row, name: str) -> str:
    ratio, faster = row.ratio(name), row.speed_up(name)
    if ratio is None:
        return _absent(row, name)
    return f"{_short(ratio)} ({_short(faster)}×)" if faster else _short(ratio)


def _absent(row: Row, name: str) -> str:
    return "[red]wrong[/red]" if name in row.entries else "–"


def _short(number: float) -> str:
    """One decimal, none from 10 on."""
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"


def _tiny_table(result: Result) -> Table:
    """Microseconds of a tiny call."""
    rows = result.of("tiny", "tiny recorded")
    names = [OURS, *(name for name in result.peers if any(row.time(name) for row in rows))]
    grid = _grid("1×1×8×8, µs a call", ["goal", *names])
    for row in rows:
        kind = "recorded for backward" if row.case.task == "tiny recorded" else "no gradient"
        times = [_absent(row, name) if (time := row.time(name)) is None else f"{1e6 * time:.1f}" for name in names]
        goal = row.time("PyTorch")
        grid.add_row(f"{row.case.label}, {kind}", f"{1e6 * row.goal * goal:.1f}" if goal else "–", *times)
    return grid


def _tutorial(saved: Mapping[str, Any]) -> str:
    step, kept = saved["training_step_s"], saved["kept_bytes"]
    ratio = step["poolwise"] / step["stock"]
    colour = "green" if ratio <= STEP_GOAL else "yellow"
    times = f"{1e3 * step['stock']:.1f} ms in PyTorch, {1e3 * step['poolwise']:.1f} ms after accelerate"
    return (
        f"the tutorial's CNN, a training step of 256 images: {times}, [{colour}]{ratio:.2f}[/{colour}] "
        f"(goal {STEP_GOAL}); kept for backward {kept['stock'] / 2**20:.1f} MiB, {kept['poolwise'] / 2**20:.1f} MiB"
    )


def _notes(result: Result) -> Iterator[str]:
    """The geometric means, what the ruler was, who is missing, and who was refused."""
    for task, title in TITLES.items():
        rows = result.of(task)
        mean = geometric_mean([row.ratio(OURS) for row in rows])
        if mean is not None:
            yield f"{title}, geometric means: {mean:.2f} of the ruler (goal {MEAN_GOALS[task]:g})"
            faster = ", ".join(_faster(task, rows, result.peers))
            if faster:
                yield f"  speed-up over {faster}"
    rates = sorted(row.ruler / 1e9 for row in result.rows if row.ruler)
    if rates:
        yield f"the ruler: a copy by {result.threads} threads, {rates[0]:.1f} to {rates[-1]:.1f} GB/s read and written"
    shapes = {f"{'×'.join(map(str, row.shape))} ({row.case.layout})": None for row in result.of(*TITLES)}
    yield from (f"input: {shape}" for shape in shapes)
    for name, how in result.missing.items():
        yield f"missing: {name} ({how})"
    for row in result.rows:
        for name, entry in row.entries.items():
            if entry.refused:
                yield f"not timed: {name} on {row.case.name}: {' '.join(entry.refused.split())[:200]}"


def _faster(task: str, rows: Sequence[Row], peers: Sequence[str]) -> Iterator[str]:
    for name in peers:
        mean = geometric_mean([row.speed_up(name) for row in rows])
        goal = SPEED_GOALS.get(task, {}).get(name)
        if mean is not None:
            yield f"{name} {_short(mean)}×" + (f" (goal {goal})" if goal else "")
