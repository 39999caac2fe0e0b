"""A result on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from poolwise.bench.apart import APART
from poolwise.bench.cases import CASES, SECTIONS
from poolwise.bench.compare import CHANGED, Change, Earlier
from poolwise.bench.goals import BEHIND, Goal, behind, goals
from poolwise.bench.measure import OURS, Result, Row
from poolwise.bench.ruler import RULER
from poolwise.doctor import facts_table

LEGEND = (
    "Time over that of a copy of the same bytes; in brackets how many times as long as poolwise's.\n"
    "[green]Green[/green]: within the goal; [yellow]yellow[/yellow]: beyond it; "
    "[red]red[/red]: a peer that is more than 5 % faster."
)

SHORTER = {"TensorFlow": "Tensor-Flow", "tinybrain": "tiny-brain", OURS: "pool-wise"}  # where space is tight
TIGHTEST = 2
BUSY = 0.5
BUSY_WARNING = (
    "The machine was not quiet before (a load of {:.1f}). Do not trust these numbers: whose threads wait "
    "for each other loses far more by it than the rest."
)


def show_cases(console: Console) -> None:
    """What `--cases` can name: of each section its cases, a pooling and what follows it, and the single numbers."""
    console.print("A case is a pooling and what its line begins with, such as [bold]max 2/2 NCHW forward[/bold].")
    for section, title in SECTIONS.items():
        endings: dict[str, list[str]] = {}
        for case in CASES:
            if case.section == section:
                endings.setdefault(case.name.removeprefix(case.label).strip(), []).append(case.label)
        console.print(Text(f"\n{title}", style="bold"))
        for ending, labels in endings.items():
            console.print(Padding(Text.assemble((f"{ending}: ", "cyan"), ", ".join(labels)), (0, 0, 0, 2)))
    console.print(Text("\nsingle numbers", style="bold"))
    console.print(Padding(Text(", ".join(each.name for each in APART)), (0, 0, 0, 2)))


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that names the case being measured; nothing where the console is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading the frameworks", total=None)
        yield lambda name, done, of: bar.update(task, description=name, completed=done, total=of)


def show(result: Result, console: Console) -> None:
    """The machine's facts, a table for each section, the goals, and what there is to note."""
    console.print(facts_table(result.machine))
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    rounds = " to ".join(str(each) for each in dict.fromkeys((result.size.rounds, result.size.brief)))
    console.print(f"{versions}\n{_threads(result)} each, medians of {rounds} rounds", highlight=False)
    if result.load is not None and result.load > BUSY:
        console.print(f"[yellow]{BUSY_WARNING.format(result.load)}[/yellow]", highlight=False)
    if result.of(*(name for name in SECTIONS if name != "tiny")):
        console.print(f"\n{LEGEND}", highlight=False)
    for name, title in SECTIONS.items():
        rows = result.of(name)
        if rows:
            console.print()
            make = partial(_tiny_table if name == "tiny" else _table, title, rows, result)
            console.print(_fitting(make, console))
    _print_goals(goals(result), result.peers, console)
    _print_notes(result, console)


def _print_goals(found: Sequence[Goal], peers: Sequence[str], console: Console) -> None:
    means, numbers = [goal for goal in found if goal.over], [goal for goal in found if not goal.over]
    if means:
        console.print()
        console.print(_fitting(partial(_means_table, means, peers), console))
    if numbers:
        console.print()
        console.print(_goals_table(numbers))


def show_changes(result: Result, then: Earlier, console: Console) -> None:
    """Each row's figure then and now, and which changed by more than 10 %."""
    changes = then.changes(result)
    console.print(f"\n[bold]since {then.date}[/bold] ({then.path})", highlight=False)
    if not changes:
        console.print("No row of the file was measured now, on the same shape.")
        return
    console.print(_changes_table(changes))
    notable = [change for change in changes if change.notable]
    others = len(result.rows) - len(changes)
    without = f"; {others} of the rows above are not in the file" if others else ""
    console.print(f"{len(notable)} of {len(changes)} rows changed by more than {CHANGED:.0%}{without}", highlight=False)
    for change in sorted(notable, key=lambda change: change.quotient, reverse=True):
        console.print(f"  {change.case}: {_verdict(change)}", highlight=False)


def _threads(result: Result) -> str:
    return "1 thread" if result.threads == 1 else f"{result.threads} threads"


def _fitting(make: Callable[[int], Table], console: Console) -> Table:
    """The table as the console holds it: as it is, or with long names on two lines, or without its brackets too."""
    wide = console.options.update(width=1000)
    tables = (make(tightness) for tightness in range(TIGHTEST))
    fitting = (table for table in tables if console.measure(table, options=wide).maximum <= console.width)
    return next(fitting, None) or make(TIGHTEST)


def _table(title: str, rows: Sequence[Row], result: Result, tight: int) -> Table:
    """A section: the rows under their shapes, and a column for each peer that has something to say."""
    peers = [name for name in result.peers if any(name in row.entries for row in rows)]
    grid = _grid(title, ["goal", OURS, *peers], tight)
    for shape, alike in groupby(rows, _logical):
        grid.add_row(f"[dim]{'×'.join(map(str, shape))}[/dim]")
        for row in alike:
            grid.add_row(f" {_about(row, rows)}", *_cells(row, peers, tight))
    return grid


def _logical(row: Row) -> tuple[int, ...]:
    """Channels first, whatever the order in memory."""
    return row.shape if row.case.layout == "first" else (row.shape[0], row.shape[-1], *row.shape[1:-1])


def _about(row: Row, rows: Sequence[Row]) -> str:
    """What neither the section's title nor what is usual says."""
    usual = {"order": "NCHW", "task": rows[0].case.task}
    told = [name for name, value in usual.items() if any(getattr(other.case, name) != value for other in rows)]
    words = [row.case.label, *(getattr(row.case, name) for name in told), row.case.dtype]
    return " ".join(words).removesuffix(" float32").removesuffix(" forward")


def _grid(first: str, names: Sequence[str], tight: int = 0) -> Table:
    crowded = tight or len(names) > 6  # a hundred columns hold every peer only so
    names = [SHORTER.get(name, name) for name in names] if tight else names
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 0 if crowded else 1))
    tall = any(map(_broken, names))  # headers stand at the top: the title belongs beside the last line
    grid.add_column("\n" * (tall and "\n" not in first) + first, no_wrap=tight < TIGHTEST)
    for name in names:
        grid.add_column(_broken(name) or "\n" * tall + name, justify="right", no_wrap=True)
    return grid


def _broken(name: str) -> str:
    """A name of two words on two lines, "" for one word."""
    first, between, second = name.partition("-" if "-" in name else " ")
    return f"{first}{between.strip()}\n{second}" if second else ""


def _cells(row: Row, peers: Sequence[str], tight: int) -> list[str]:
    goal = f"{row.goal:g}" if row.goal else "–"
    return [goal, _own(row, row.ratio(OURS)), *(_peer(row, name, tight) for name in peers)]


def _own(row: Row, ratio: float | None) -> str:
    if ratio is None:
        return _absent(row, OURS)
    said = f"{ratio:.2f}" if ratio < 99.5 else f"{ratio:.0f}"
    return _coloured(said, None if row.goal is None else ratio <= row.goal)


def _coloured(said: str, met: bool | None) -> str:
    colour = {True: "green", False: "yellow", None: "default"}[met]
    return f"[{colour}]{said}[/{colour}]"


def _peer(row: Row, name: str, tight: int) -> str:
    ratio, faster = row.ratio(name), row.speed_up(name)
    if ratio is None:
        return _absent(row, name)
    if not faster:
        return _short(ratio)
    colour = "red" if faster * BEHIND < 1 else "dim"
    if tight == TIGHTEST:
        return f"[{colour}]{_short(ratio)}[/{colour}]"
    return f"{_short(ratio)} [{colour}]{f'({_short(faster)}×)':>6}[/{colour}]"  # brackets under one another


def _absent(row: Row, name: str) -> str:
    return "[red]refused[/red]" if name in row.entries else "[dim]–[/dim]"


def _short(number: float) -> str:
    """Two digits, or what stands before the point; no zero there."""
    if number < 0.995:
        return f"{number:.2f}".removeprefix("0")
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"


def _tiny_table(title: str, rows: Sequence[Row], result: Result, tight: int) -> Table:
    """Microseconds of a tiny call."""
    names = [OURS, *(name for name in result.peers if any(row.time(name) for row in rows))]
    grid = _grid(f"{title}, 1×1×8×8, µs", ["goal", *names], tight)
    for row in rows:
        kind = "recorded for backward" if row.case.gradient else "no gradient"
        times = [_absent(row, name) if (time := row.time(name)) is None else f"{1e6 * time:.1f}" for name in names]
        base = row.time("PyTorch")
        goal = f"{1e6 * row.goal * base:.1f}" if base and row.goal else "–"
        met = None if row.figure is None or row.goal is None else row.figure <= row.goal
        grid.add_row(f" {row.case.label}, {kind}", goal, _coloured(times[0], met), *times[1:])
    return grid


def _means_table(found: Sequence[Goal], peers: Sequence[str], tight: int) -> Table:
    """Groups of rows: time over the ruler, and speed-ups over peers; in brackets the goal."""
    cells = {(goal.what, goal.over): _mean(goal, tight) for goal in found}
    columns = [name for name in (RULER, *peers) if any(goal.over == name for goal in found)]
    grid = _grid("geometric means", columns, tight)
    for what in dict.fromkeys(goal.what for goal in found):
        grid.add_row(_inset(what), *(cells.get((what, name), "[dim]–[/dim]") for name in columns))
    return grid


def _inset(text: str) -> Padding:
    """Its further lines too, where it is broken."""
    return Padding(text, (0, 0, 0, 1))


def _mean(goal: Goal, tight: int) -> str:
    if goal.measured is None:
        return "[dim]–[/dim]"
    said = f"{goal.measured:.2f}" if goal.over == RULER else f"{_short(goal.measured)}{goal.unit}"
    aim = f" [dim]({goal.goal:g})[/dim]" if goal.goal is not None and tight < TIGHTEST else ""
    return _coloured(said, goal.met) + aim


def _goals_table(found: Sequence[Goal]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 2))
    grid.add_column("single numbers")
    for name in ("goal", "measured"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for goal in found:
        measured = "–" if goal.measured is None else _coloured(_number(goal.measured, goal.unit), goal.met)
        grid.add_row(_inset(goal.what), _aim(goal), measured, f"[dim]{goal.said}[/dim]")
    return grid


def _aim(goal: Goal) -> str:
    if goal.goal is None:
        return "–"
    return "none" if goal.unit == " rows" else f"{goal.sign} {goal.goal:g}{goal.unit}"


def _number(measured: float, unit: str) -> str:
    if unit in ("", " rows"):
        return f"{measured:g}"
    return f"{measured:.2f}{unit}" if measured < 9.95 else f"{measured:.0f}{unit}"


def _changes_table(changes: Sequence[Change]) -> Table:
    grid = _grid("time over a copy's", ["then", "now", "now / then"])
    for change in changes:
        quotient = f"{change.quotient:.2f}"
        said = _coloured(quotient, change.quotient < 1) if change.notable else quotient
        grid.add_row(f" {change.case}", f"{change.then:.2f}", f"{change.now:.2f}", said)
    return grid


def _verdict(change: Change) -> str:
    if change.quotient > 1:
        return f"{change.quotient:.2f} times as slow"
    return f"{1 / change.quotient:.2f} times as fast"


def _print_notes(result: Result, console: Console) -> None:
    ahead = behind(result)
    if ahead:
        console.print()
        console.print(_behind_table(ahead))
    notes = list(_notes(result))
    if notes:
        console.print()
    for line in notes:
        console.print(line, highlight=False, markup=False)


def _behind_table(ahead: Mapping[str, Mapping[str, float]]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 1))
    grid.add_column("where a peer is more than 5 % faster", no_wrap=True)
    grid.add_column("how many times as fast")
    for case, peers in ahead.items():
        grid.add_row(f" {case}", ", ".join(f"{name} {speed:.2f}" for name, speed in peers.items()))
    return grid


def _notes(result: Result) -> Iterator[str]:
    """What the ruler was, who is missing, and who was refused."""
    rates = sorted(row.ruler / 1e9 for row in result.rows if row.ruler)
    if rates:
        yield f"the ruler: a copy by {_threads(result)}, {rates[0]:.1f} to {rates[-1]:.1f} GB/s read and written"
    for name, how in result.missing.items():
        yield f"missing: {name} ({how})"
    for key, found in result.apart.items():
        if "skipped" in found:
            yield f"not measured: {key}: {found['skipped']}"
    for row in result.rows:
        for name, entry in row.entries.items():
            if entry.refused:
                yield f"not timed: {name} on {row.case.name}: {' '.join(entry.refused.split())[:200]}"
