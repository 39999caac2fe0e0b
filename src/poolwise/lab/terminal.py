"""What the terminal shows: progress while it runs, then the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from poolwise.lab.claims import REFUTED, SUPPORTED, Judged, Verdict
from poolwise.lab.experiment import Result
from poolwise.lab.measures import MEASURE
from poolwise.lab.summary import Results
from poolwise.lab.variants import parse

STYLE: dict[Verdict, str] = {SUPPORTED: "green", REFUTED: "red"}
MARK: dict[Verdict, str] = {SUPPORTED: "✓", REFUTED: "✗"}
COSTS = ("cells", "parameters", "macs", "reads", "stage_kept", "step_kept", "step_seconds")
OUTCOMES = ("train_accuracy", "test_accuracy", "gap", "circular", "crops")
RETENTION = ("peak", "energy", "detail")
DIFFERENCES = ("step_seconds", "test_accuracy", "gap", "circular", "crops")
Advance = Callable[[Result], None]


@contextmanager
def progress(console: Console, total: int, done: int) -> Iterator[Advance]:
    """A bar on a terminal, a line per run elsewhere; call what it gives with each finished run."""
    if console.is_terminal:
        with bar(console, total, done) as advance:
            yield advance
    else:
        yield lines(console, total, done)


@contextmanager
def bar(console: Console, total: int, done: int) -> Iterator[Advance]:
    columns = (
        SpinnerColumn(),
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as shown:
        task = shown.add_task("training", total=total, completed=done)

        def advance(result: Result) -> None:
            shown.update(
                task, advance=1, description=f"{parse(result.config.variant).label}, seed {result.config.seed}"
            )

        yield advance


def lines(console: Console, total: int, done: int) -> Advance:
    finished = done

    def advance(result: Result) -> None:
        nonlocal finished
        finished += 1
        console.print(
            f"run {finished}/{total}: {parse(result.config.variant).label}, seed {result.config.seed}: "
            f"test accuracy {result.last.test_accuracy:.1%}, {result.seconds:.1f} s; {total - finished} left",
            highlight=False,
        )

    return advance


def show(console: Console, results: Results, judged: Sequence[Judged]) -> None:
    """The tables, the claims, and where the report is."""
    seeds = len(results.seeds)
    heading = f"{counted(len(results.variants), 'variant')} × {counted(seeds, 'seed')}, {results.data.name}"
    console.print(f"\n[bold]{heading}[/bold]", highlight=False)
    tables = {
        "What it costs, per image": table(results, COSTS),
        f"What comes of it: mean ± 95 % interval, n = {seeds}": table(results, OUTCOMES),
        "What is left of a feature map": table(results, RETENTION),
    }
    if seeds > 1 and len(results.variants) > 1:
        title = f"Difference to {results.reference.label}: paired by seed, mean ± 95 % interval"
        tables[title] = difference_table(results)
    for title, shown in tables.items():  # a table breaks a title of its own at its own width
        console.print(f"\n[bold]{title}[/bold]", highlight=False)
        console.print(shown)
    show_claims(console, judged)


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def table(results: Results, keys: Sequence[str]) -> Table:
    shown = headed(keys)
    for variant in results.variants:
        means = [(MEASURE[key], results.mean(variant.name, key)) for key in keys]
        shown.add_row(variant.label, *("—" if mean is None else m.with_interval(mean) for m, mean in means))
    return shown


def difference_table(results: Results) -> Table:
    reference = results.reference
    shown = headed(DIFFERENCES)
    for variant in results.variants:
        if variant is not reference:
            pairs = [(MEASURE[key], results.difference(variant.name, key)) for key in DIFFERENCES]
            shown.add_row(variant.label, *("—" if d is None else m.difference_with_interval(d) for m, d in pairs))
    return shown


def headed(keys: Sequence[str]) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("", no_wrap=True)
    for key in keys:
        measure = MEASURE[key]
        shown.add_column(f"{measure.short} {measure.unit}".strip().replace(" ", "\n"), justify="right", no_wrap=True)
    return shown


def show_claims(console: Console, judged: Sequence[Judged]) -> None:
    console.print("\n[bold]The tutorial's claims[/bold]")
    for item in judged:
        line = Text(f"{MARK.get(item.verdict, '?')} {item.claim.says} ")
        line.append(item.verdict, STYLE.get(item.verdict, "yellow"))
        console.print(line, soft_wrap=True)
        for evidence in item.evidence:
            console.print(Text(f"    {evidence.text}", style="dim"), soft_wrap=True)
