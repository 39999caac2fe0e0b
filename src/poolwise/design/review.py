"""The review of a whole network: its downsampling stages, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from poolwise import MissingExtra, __version__
from poolwise.design import sarif
from poolwise.design.fitting import fitting
from poolwise.design.graph import Graph
from poolwise.design.readers import read
from poolwise.design.rules import Finding, chosen, findings, titles
from poolwise.design.show import alike, times
from poolwise.design.stages import Stage, downsampling, totals
from poolwise.design.trace import Span

SCHEMA = 1
COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}


@dataclass(frozen=True)
class Review:
    """A network, its downsampling stages in the order of execution, and the findings.

    origin: the file and the line that the model comes from; None where that is no file.
    """

    graph: Graph
    stages: tuple[Stage, ...]
    findings: tuple[Finding, ...]
    origin: sarif.Place = None

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
            *(_tables(self.stages, width) if self.stages else []),
            *_said(self.findings),
            *([Text("What a rule means, and when to ignore it: poolwise rule ID.\n")] if self.findings else []),
            Text(f"{'; '.join(counts)}."),
        ]
        return Group(*parts, *([Text(f"Not known, and reviewed around: {', '.join(unknown)}.")] if unknown else []))

    def sarif(self) -> dict[str, Any]:
        """The findings in SARIF 2.1.0, as JSON's own types: what code hosts and editors take."""
        return sarif.data(self.graph, self.findings, self.origin)

    def html(self) -> str:
        """One HTML file that needs no network: the network as a strip, the findings, every figure.

        Raises MissingExtra without `poolwise[explore]`.
        """
        try:
            from poolwise.design.html import html  # noqa: PLC0415 (the explorer, which no other format needs)
        except ModuleNotFoundError as cause:
            raise MissingExtra(f'the page needs {cause.name}: pip install "poolwise[explore]"') from None
        return html(self.graph, self.stages, self.findings)


def review(
    model: Any,
    shape: Sequence[Any] | None = None,
    *,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    allowed: Mapping[str, Collection[str]] | None = None,
    trust: bool = False,
) -> Review:
    """What is wrong with the downsampling of a network.

    model: a torch.nn.Module, a keras model, an onnx.ModelProto; or a name: `net.onnx`, `net.keras`, `module:factory`.
    shape: the batch's, in the model's own layout, such as (1, 3, 224, 224), or one for each input; None: what the model
    declares. select, ignore: rules, or the beginnings of their names, such as "PW1"; docs/rules.md has them all.
    allowed: for patterns of steps' names, such as "layer4.*", the rules that say nothing of them. trust: whether a
    model file may run its own code.

    Raises InvalidType for what is no model; InvalidValue for a damaged file, a shape that does not fit or is missing,
    an unknown rule; MissingExtra if the model's framework is not installed.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.MaxPool2d(2), torch.nn.MaxPool2d(2))
    >>> for finding in review(net, (1, 1, 29, 29), select=["PW101"]).findings:
    ...     print(finding.rule, finding.step, finding.message)
    PW101 1 1 of 27 rows and columns are in no window: (27 + 0 − 2) mod 2 = 1
    PW101 2 1 of 13 rows and columns are in no window: (13 + 0 − 2) mod 2 = 1
    """
    rules = chosen(select, ignore)
    for ids in (allowed or {}).values():
        chosen(ids)  # refuses what is no rule
    graph = read(model, shape, trust=trust)
    stages = downsampling(graph)
    return Review(graph, tuple(stages), tuple(findings(graph, stages, rules, allowed)), sarif.origin(model))


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


def _tables(stages: Sequence[Stage], width: int) -> list[Any]:
    names = [stage.step.name for stage in stages]
    reading = (
        "Never read, padding read: before + after; ~: between windows. Fields start in the padding where negative."
    )
    cost = "Parameters and MACs: of the stage and of the steps since the one before it. Kept: bytes for backward."
    told: list[Any] = []
    for groups, note in ((READS, reading), (COSTS, cost)):
        columns = [{head: [cell(stage) for stage in stages] for head, cell in group.items()} for group in groups]
        told += [fitting("stage", names, columns, width), Text(f"{note}\n", style="dim")]
    return told


def _window(stage: Stage) -> str:
    tables: Sequence[Any] = stage.geometry.tables
    steps = alike([str(getattr(table, "step", "~")) for table in tables])
    return f"{alike([str(taps) for taps in stage.geometry.window])}/{steps}"


def _spans(stage: Stage, said: Callable[[Span], str]) -> str:
    return alike([said(span) for span in stage.spans]) if stage.spans else "?"


def _sides(before: int, after: int, between: int = 0) -> str:
    """Such as 0+1, or 0+1 and 14 in gaps."""
    return f"{before}+{after}" + (f"~{between}" if between else "")


def _nothing_or(parts: list[str]) -> str:
    return "–" if set(parts) == {"0+0"} else alike(parts)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _short(number: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


READS: tuple[dict[str, Callable[[Stage], str]], ...] = (
    {
        "op": lambda s: s.step.op,
        "window": _window,
        "size": lambda s: f"{times(s.before.sizes)} → {times(s.geometry.outputs)}",
    },
    {
        "stride\nso far": lambda s: _spans(s, lambda span: f"{span.jump:g}"),
        "receptive\nfield": lambda s: _spans(s, lambda span: str(span.field)),
        "starts\nat": lambda s: _spans(s, lambda span: str(span.first).replace("-", "−")),
    },
    {
        "never\nread": lambda s: _nothing_or([_sides(u.before, u.after, u.between) for u in s.unread]),
        "padding\nread": lambda s: _nothing_or([_sides(pads.low_read, pads.high_read) for pads in s.pads]),
        "touch\npadding": lambda s: f"{100 * s.touching:.0f} %",
    },
)
COSTS: tuple[dict[str, Callable[[Stage], str]], ...] = (
    {
        "parameters": lambda s: _short(s.parameters),
        "MACs": lambda s: _short(s.macs),
        "compared\nor added": lambda s: _short(s.comparisons + s.additions),
    },
    {
        "activation\nbytes": lambda s: _short(s.after.nbytes),
        "kept\npoolwise": lambda s: _short(s.kept[0]),
        "kept\nPyTorch": lambda s: _short(s.kept[1]),
    },
)


def _said(findings: Sequence[Finding]) -> Iterator[Text | Padding]:
    """By rule; a message that several steps share once, and a fix behind all that it mends."""
    rules: dict[str, dict[str, dict[str, list[Finding]]]] = {}
    for finding in findings:
        rules.setdefault(finding.rule, {}).setdefault(finding.fix, {}).setdefault(finding.message, []).append(finding)
    for rule, fixes in rules.items():
        first = next(each for each in findings if each.rule == rule)
        head = Text(f"{rule} ", style="bold")
        head.append(first.severity, style=COLOURS[first.severity])
        yield head.append(f" {titles()[rule]} ({first.source})", style="not bold")
        for fix, messages in fixes.items():
            for message, group in messages.items():
                steps = ", ".join(dict.fromkeys(each.step for each in group))
                yield Padding(Text(f"{steps}: {message}."), (0, 0, 0, 2), expand=False)
            yield Padding(Text(f"Fix: {fix}."), (0, 0, 0, 4), expand=False)
