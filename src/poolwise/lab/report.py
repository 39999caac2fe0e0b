"""The report: one HTML file with everything in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from poolwise.explorer.page import embedded, module, style
from poolwise.lab.claims import MARGIN, REFUTED, SUPPORTED, UNDECIDED, Judged
from poolwise.lab.figures import bars, curves, dots, sheets
from poolwise.lab.measures import MEASURE, MEASURES
from poolwise.lab.provenance import facts
from poolwise.lab.summary import Results

COSTS = ("parameters", "macs", "stage_kept", "step_kept", "step_seconds", "cells")
OUTCOMES = ("test_accuracy", "gap", "circular", "crops")
RETENTION = ("peak", "energy", "detail")
CLASSES = {SUPPORTED: "yes", REFUTED: "no", UNDECIDED: "open"}


def write(results: Results, judged: Sequence[Judged]) -> None:
    """Write the report where the results say."""
    results.report.write_text(rendered(results, judged), encoding="utf-8")


def rendered(results: Results, judged: Sequence[Judged]) -> str:
    """The page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = files("poolwise.lab").joinpath("templates", "report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(**page(results, judged))


def page(results: Results, judged: Sequence[Judged]) -> dict[str, Any]:
    """All that the template shows."""
    first, shown = results.runs[0], sheets(results)
    return {
        "results": results,
        "first": first,
        "judged": judged,
        "verdict_class": CLASSES,
        "tally": [(verdict, sum(j.verdict == verdict for j in judged)) for verdict in CLASSES],
        "sheets": shown,
        "maps": Markup(embedded([sheet.pairs for sheet in shown])),
        "module": Markup(module()),
        "explorer_style": Markup(style()),
        "curves": curves(results),
        "outcomes": [dots(results, key) for key in OUTCOMES],
        "retention": [dots(results, key) for key in RETENTION],
        "costs": [bars(results, key) for key in COSTS],
        "tables": tables(results),
        "measures": MEASURES,
        "stages": [(variant.label, results.of(variant.name)[0].sizes) for variant in results.variants],
        "kernels": [(v.label, results.of(v.name)[0].kernel) for v in results.variants if v.op is not None],
        "threads": sorted({result.threads for result in results.runs}),
        "margin": MARGIN,
        "facts": facts(),
        "today": date.today().isoformat(),
    }


def tables(results: Results) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
    """(caption, headings, rows) of each table."""
    seeds = len(results.seeds)
    made = [
        (f"Mean and 95 % interval over the seeds, n = {seeds}", means(results, "outcome", "retention")),
        ("Costs: exact, the same for every seed; step time is measured", means(results, "cost", "time")),
    ]
    if seeds > 1 and len(results.variants) > 1:
        caption = f"Difference to {results.reference.label}, paired by seed: mean and 95 % interval, n = {seeds}"
        made.insert(1, (caption, differences(results)))
    return [(caption, headings, rows) for caption, (headings, rows) in made]


def means(results: Results, *kinds: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    shown = [measure for measure in MEASURES if measure.kind in kinds]
    rows = [(v.label, [(m, results.mean(v.name, m.key)) for m in shown]) for v in results.variants]
    cells = [(label, ["—" if x is None else m.with_interval(x) for m, x in row]) for label, row in rows]
    return [heading(measure.key) for measure in shown], cells


def differences(results: Results) -> tuple[list[str], list[tuple[str, list[str]]]]:
    shown = [measure for measure in MEASURES if measure.kind != "cost"]
    others = [variant for variant in results.variants if variant is not results.reference]
    rows = [(v.label, [(m, results.difference(v.name, m.key)) for m in shown]) for v in others]
    cells = [(label, ["—" if x is None else m.difference_with_interval(x) for m, x in row]) for label, row in rows]
    return [heading(measure.key) for measure in shown], cells


def heading(key: str) -> str:
    measure = MEASURE[key]
    return f"{measure.label}, {measure.unit}" if measure.unit else measure.label


def beside(report: Path) -> Path:
    """The results store's place when none was named."""
    return report.with_name("lab.sqlite")
