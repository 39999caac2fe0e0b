"""The review of a whole network: its downsampling stages, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from poolwise import __version__
from poolwise.design.graph import Graph
from poolwise.design.readers import read
from poolwise.design.rules import Finding, chosen, findings
from poolwise.design.show import alike, lost, times
from poolwise.design.stages import Stage, downsampling, totals

SCHEMA = 1
WIDE = 110  # columns of a terminal in which the whole table fits
COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}


@dataclass(frozen=True)
class Review:
    """A network, its downsampling stages in the order of execution, and the findings."""

    graph: Graph
    stages: tuple[Stage, ...]
    findings: tuple[Finding, ...]

    def data(self) -> dict[str, Any]:
        """Everything as JSON's own types; docs/review.md says what each entry means."""
        parameters, macs = totals(self.graph)
        return {
            "schema": SCHEMA,
            "poolwise": __version__,
            "model": self.graph.name,
            "framework": self.graph.framework,
            "inputs": [list(self.graph.values[name].shape) for name in self.graph.inputs],
            "totals": {"steps": len(self.graph.steps), "parameters": parameters, "macs": macs},
            "unknown": sorted({step.op for step in self.graph.steps if not step.known}),
            "stages": [_record(stage) for stage in self.stages],
            "findings": [asdict(finding) for finding in self.findings],
        }

    def text(self, width: int = 120) -> Group:
        """The table, the findings and the totals, for a terminal of so many columns."""
        parameters, macs = totals(self.graph)
        unknown = sorted({step.op for step in self.graph.steps if not step.known})
        counts = [
            _counted(len(self.stages), "downsampling stage"),
            _counted(len(self.graph.steps), "step"),
            _counted(parameters, "parameter"),
            f"{macs:,} MACs for this batch",
            _counted(len(self.findings), "finding"),
        ]
        parts = [
            *([_table(self.stages, wide=width >= WIDE)] if self.stages else []),
            *(_said(finding) for finding in self.findings),
            Text(f"{'; '.join(counts)}."),
        ]
        return Group(*parts, *([Text(f"Not known, and reviewed around: {', '.join(unknown)}.")] if unknown else []))


def review(
    model: Any, shape: Sequence[int] | None = None, *, select: Collection[str] = (), ignore: Collection[str] = ()
) -> Review:
    """What is wrong with the downsampling of a network.

    model: a torch.nn.Module, a keras model, an onnx.ModelProto; or a name: `net.onnx`, `net.keras`, `module:factory`.
    shape: the batch's, in the model's own layout, such as (1, 3, 224, 224); None: the one that the model declares.
    select, ignore: rules, or the beginnings of their names, such as "PW1"; docs/rules.md has them all.

    Raises InvalidType for what is no model; InvalidValue for a damaged file, a shape that does not fit or is missing,
    an unknown rule; MissingExtra if the model's framework is not installed.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.MaxPool2d(2), torch.nn.MaxPool2d(2))
    >>> for finding in review(net, (1, 1, 29, 29), ignore=["PW106"]).findings:
    ...     print(finding.rule, finding.step, finding.message)
    PW101 1 1 of 27 rows and columns are in no window: (27 + 0 − 2) mod 2 = 1
    PW101 2 1 of 13 rows and columns are in no window: (13 + 0 − 2) mod 2 = 1
    """
    rules = chosen(select, ignore)
    graph = read(model, shape)
    stages = downsampling(graph)
    return Review(graph, tuple(stages), tuple(findings(graph, stages, rules)))


def _record(stage: Stage) -> dict[str, Any]:
    tables: Sequence[Any] = stage.geometry.tables
    return {
        "step": stage.step.name,
        "op": stage.step.op,
        "input": list(stage.before.shape),
        "output": list(stage.after.shape),
        "window": list(stage.geometry.window),
        "stride": [getattr(table, "step", None) for table in tables],
        "dilation": [getattr(table, "dilation", 1) for table in tables],
        "total_stride": None if stage.spans is None else [span.jump for span in stage.spans],
        "receptive_field": None if stage.spans is None else [span.field for span in stage.spans],
        "receptive_field_start": None if stage.spans is None else [span.first for span in stage.spans],
        "never_read": [asdict(unread) for unread in stage.unread],
        "padding": [[pads.low, pads.high] for pads in stage.pads],
        "padding_read": [[pads.low_read, pads.high_read] for pads in stage.pads],
        "windows_touching_padding": stage.touching,
        "empty_windows": stage.empty,
        "parameters": stage.parameters,
        "macs": stage.macs,
        "comparisons": stage.comparisons,
        "additions": stage.additions,
        "activation_bytes": stage.after.nbytes,
        "kept_bytes": {"poolwise": stage.kept[0], "pytorch": stage.kept[1]},
    }


def _table(stages: Sequence[Stage], *, wide: bool) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("stage", overflow="fold", min_width=12)
    grid.add_column("op", overflow="fold", min_width=7)
    more = ("touch\npadding", "parameters", "MACs") if wide else ()
    for name in ("window", "size", "stride\nso far", "receptive\nfield", "never\nread", *more):
        grid.add_column(name, justify="right", no_wrap=True)
    for stage in stages:
        grid.add_row(*_cells(stage)[: len(grid.columns)])
    return grid


def _cells(stage: Stage) -> tuple[str, ...]:
    tables: Sequence[Any] = stage.geometry.tables
    spans = stage.spans
    unread = [str(lost(each)) for each in stage.unread]
    steps = alike([str(getattr(table, "step", "~")) for table in tables])
    return (
        stage.step.name,
        stage.step.op,
        f"{alike([str(taps) for taps in stage.geometry.window])}/{steps}",
        f"{times(stage.before.sizes)} → {times(stage.after.sizes)}",
        "?" if spans is None else alike([f"{span.jump:g}" for span in spans]),
        "?" if spans is None else alike([str(span.field) for span in spans]),
        "–" if set(unread) == {"0"} else alike(unread),
        f"{100 * stage.touching:.0f} %",
        _short(stage.parameters),
        _short(stage.macs),
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _short(number: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _said(finding: Finding) -> Text:
    text = Text(f"{finding.rule} ")
    text.append(finding.severity, style=COLOURS[finding.severity])
    text.append(f" {finding.step}: {finding.message}. Fix: {finding.fix}. ({finding.source})")
    return text
