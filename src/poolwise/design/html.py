"""A review as one HTML file that opens from disk: the network's strip, the findings with their pages, every figure.

The strip and the windows of a stage are the explorer's module, which this file alone of the room may import.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from numpy.typing import NDArray

from poolwise import Fault, Mean, Operation, __version__, adaptive_pool
from poolwise.design.columns import COLUMNS, Cell, short
from poolwise.design.graph import Graph, Value
from poolwise.design.rules import RULES, Finding, Rule
from poolwise.design.show import times
from poolwise.design.small import small
from poolwise.design.stages import Stage, totals
from poolwise.design.strip import SEVERITIES, given, network, two
from poolwise.explorer import page, state
from poolwise.explorer.inputs import SAMPLES, address, samples
from poolwise.explorer.source import Item, Source

POLICY = "default-src 'none'; script-src '{0}'; style-src '{1}'; img-src data:; base-uri 'none'; form-action 'none'"
FRAMEWORKS = {"pytorch": "PyTorch", "keras": "Keras", "onnx": "ONNX"}
LARGEST_DIGIT = 64  # an input of one channel and at most this size is shown as a digit
STAND_IN = Mean(count_include_pad=True)


def html(graph: Graph, stages: Sequence[Stage], findings: Sequence[Finding]) -> str:
    """The whole file."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_text("review.html.j2"))
    style = f"\n{page.style()}\n{_text('review.css')}"
    picture = _picture(given(graph))
    shown = _shown(graph, stages, findings, picture)
    script = f"\n{page.module()}\n{page.host('review')}\nreviewed(document);\n"
    return template.render(
        graph=graph,
        version=__version__,
        framework=FRAMEWORKS.get(graph.framework, graph.framework),
        inputs=[times(graph.values[name].shape) for name in graph.inputs],
        facts=_facts(graph, stages),
        tally=[(severity, sum(each.severity == severity for each in findings)) for severity in SEVERITIES],
        unknown=sorted({step.op for step in graph.steps if not step.known}),
        stages=[_about(stage, findings) for stage in stages],
        columns=COLUMNS,
        rows=[[column.cell(stage) for column in COLUMNS] for stage in stages],
        groups=_groups(stages, findings),
        credit=picture.credit,
        data=Markup(page.embedded(shown)),
        style=Markup(style),
        script=Markup(script),
        policy=POLICY.format(_hash(script), _hash(style)),
    )


def _text(name: str) -> str:
    return files("poolwise.design").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a policy lets through: this text and no other, whatever a model's names try."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


# ---- what the page's script shows ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """What the input might be. address: "" for none; plane: its grey levels, of which the small arrays are made."""

    address: str
    smooth: bool
    plane: NDArray[np.uint8]
    credit: str


def _shown(graph: Graph, stages: Sequence[Stage], findings: Sequence[Finding], picture: Picture) -> dict[str, Any]:
    found = [_item(stage, picture.plane) for stage in stages]
    items = [item for item in found if item is not None]
    numbers = iter(range(len(items)))
    return {
        "network": network(graph, stages, findings, picture.address, smooth=picture.smooth),
        "source": page.answered(Source(graph.name, tuple(items), "view=windows")),
        "items": [None if item is None else next(numbers) for item in found],
        "start": _start(stages, findings),
    }


def _start(stages: Sequence[Stage], findings: Sequence[Finding]) -> int:
    """The stage to begin with: the first that has one of the gravest findings that any has."""
    names = [stage.step.name for stage in stages]
    for severity in SEVERITIES[:2]:
        found = [names.index(each.step) for each in findings if each.severity == severity and each.step in names]
        if found:
            return min(found)
    return 0


# ---- pictures and small arrays ---------------------------------------------------------------------------------------


def _picture(value: Value) -> Picture:
    """The explorer's photograph or digit, if the network's input might be one."""
    photograph, digit = (item.values for item in samples().items)
    credit = [f"Picture: {words}." for _, words in SAMPLES.values()]
    is_digit = value.channels == 1 and max(value.sizes, default=0) <= LARGEST_DIGIT
    plane = digit[0] if is_digit else _grey(photograph)
    if len(value.axes) != 2 or value.channels not in (1, 3):
        return Picture("", True, plane, "")
    if is_digit:
        return Picture(address(digit), False, plane, credit[1])
    return Picture(address(plane[None] if value.channels == 1 else photograph), True, plane, credit[0])


def _grey(photograph: NDArray[Any]) -> NDArray[np.uint8]:
    return photograph.mean(axis=0).round().astype(np.uint8)


def _item(stage: Stage, plane: NDArray[np.uint8]) -> Item | None:
    """The stage's windows on a small array, as the explorer shows them; None where it cannot."""
    found = small(stage.geometry)
    if found is None:
        return None
    sizes, arguments = found
    op = _shown_as(stage.step.pooling)
    words = [
        "" if sizes == tuple(two(stage.before.sizes, 1)) else f"instead of {times(stage.before.sizes)}",
        "" if op == stage.step.pooling else f"a mean stands for the {stage.step.op}",
    ]
    values = adaptive_pool(plane, Mean(), sizes)[None]
    said = "; ".join(filter(None, words))
    return Item(stage.step.name, values, ("grey",), picture=True, call=state.write(op, arguments), note=said)


def _shown_as(op: Operation | None) -> Operation:
    """The operation, unless there is none or an address cannot say it."""
    if op is None or op.operands:
        return STAND_IN
    try:
        return op if state.read_op(state.write_op(op)) == op else STAND_IN
    except Fault:
        return STAND_IN


# ---- what the page says ----------------------------------------------------------------------------------------------


def _facts(graph: Graph, stages: Sequence[Stage]) -> list[tuple[str, Cell]]:
    parameters, macs = totals(graph)
    sizes = given(graph).sizes
    last = next((stage for stage in reversed(stages) if prod(stage.after.sizes) > 1), None)
    return [
        ("downsampling stages", Cell(str(len(stages)))),
        ("steps", Cell(f"{len(graph.steps):,}")),
        ("parameters", short(parameters)),
        ("MACs for this batch", short(macs)),
        *([("sizes", Cell(f"{times(sizes)} → {times(last.after.sizes)}"))] if last and sizes else []),
    ]


def _about(stage: Stage, findings: Sequence[Finding]) -> dict[str, Any]:
    """What stands beside the picture when a stage is chosen."""
    own = [each for each in findings if each.step == stage.step.name]
    return {
        "name": stage.step.name,
        "facts": [(column.name, column.cell(stage)) for column in COLUMNS],
        "findings": sorted(own, key=lambda each: SEVERITIES.index(each.severity)),
    }


def _groups(stages: Sequence[Stage], findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings by severity, in it by rule, in that by what mends them."""
    rules = [(rule, [each for each in findings if each.rule == rule.id]) for rule in RULES]
    return [
        {"severity": severity, "rules": [_rule(rule, found, stages) for rule, found in rules if _any(found, severity)]}
        for severity in SEVERITIES
        if any(each.severity == severity for each in findings)
    ]


def _any(found: Sequence[Finding], severity: str) -> bool:
    return any(each.severity == severity for each in found)


def _rule(rule: Rule, found: Sequence[Finding], stages: Sequence[Stage]) -> dict[str, Any]:
    numbers = {stage.step.name: number for number, stage in enumerate(stages)}
    fixes: dict[str, dict[str, list[tuple[str, int | None]]]] = {}
    for each in found:
        steps = fixes.setdefault(each.fix, {}).setdefault(each.message, [])
        steps.append((each.step, numbers.get(each.step)))
    return {"id": rule.id, "title": rule.title, "source": rule.source, "count": len(found), "fixes": fixes,
            "page": _page(rule)}  # fmt: skip


def _page(rule: Rule) -> Markup:
    """The rule's page without its title; HTML in it would stand as text."""
    body = "\n".join(_after_title(rule.page.splitlines()))
    return Markup(MarkdownIt("commonmark", {"html": False}).render(body))


def _after_title(lines: Sequence[str]) -> Iterator[str]:
    yield from (line for number, line in enumerate(lines) if number or not line.startswith("# "))
