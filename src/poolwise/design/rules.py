"""The rules of the review: each looks at the stages of a network and says what it finds, with its arithmetic.

What each means, and when to ignore it: docs/rules.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from poolwise import InvalidValue, Max, ReLUMax
from poolwise.design.graph import Graph
from poolwise.design.stages import Pads, Stage
from poolwise.design.trace import Unread
from poolwise.geometry import Regular

# a stage; the axis that it is about, None for all; what is wrong, with {axes} for its name; how to mend it
Evidence: TypeAlias = tuple[Stage, int | None, str, str]
AXES = {1: ("columns",), 2: ("rows", "columns"), 3: ("slices", "rows", "columns")}


@dataclass(frozen=True)
class Finding:
    """What a rule found. rule: its id; severity: "error", "warning" or "info"; step: the step's name in the model."""

    rule: str
    severity: str
    step: str
    message: str
    source: str
    fix: str


@dataclass(frozen=True)
class Rule:
    """One rule. find: what it says of each stage of a network, as `Evidence`."""

    id: str
    severity: str
    title: str
    source: str
    find: Callable[[Graph, Sequence[Stage]], Iterator[Evidence]]


def chosen(select: Collection[str] = (), ignore: Collection[str] = ()) -> list[Rule]:
    """The rules that were asked for; select: ids or their beginnings, all where empty; ignore: the same, left out.

    Raises InvalidValue for an id that no rule begins with.
    """
    for name, asked in (("select", select), ("ignore", ignore)):
        for prefix in asked:
            if not prefix or not any(rule.id.startswith(prefix) for rule in RULES):
                allowed = ", ".join(rule.id for rule in RULES)
                raise InvalidValue(f"{name} must name rules ({allowed}) or their beginnings, got {prefix!r}", "review")
    wanted, unwanted = tuple(select) or ("",), tuple(ignore)
    return [rule for rule in RULES if rule.id.startswith(wanted) and not rule.id.startswith(unwanted)]


def findings(graph: Graph, stages: Sequence[Stage], rules: Sequence[Rule]) -> list[Finding]:
    """What these rules find in a network."""
    found: list[Finding] = []
    for rule in rules:
        met: dict[tuple[int, str, str], list[str]] = {}
        stage_of: dict[int, Stage] = {}
        for stage, axis, message, fix in rule.find(graph, stages):
            stage_of[id(stage)] = stage
            met.setdefault((id(stage), message, fix), []).append("" if axis is None else _axis(stage, axis))
        for (stage, message, fix), axes in met.items():  # axes that are alike are one finding
            said = message.replace("{axes}", " and ".join(axes))
            found.append(Finding(rule.id, rule.severity, stage_of[stage].step.name, said, rule.source, fix))
    return found


def _axis(stage: Stage, number: int) -> str:
    rank = len(stage.geometry.tables)
    return AXES[rank][number] if rank in AXES else f"elements of axis {number}"


def _regular(stage: Stage) -> Iterator[tuple[int, Regular, Unread, Pads]]:
    """The axes that a window slides over."""
    for number, table in enumerate(stage.geometry.tables):
        if isinstance(table, Regular):
            yield number, table, stage.unread[number], stage.pads[number]


def _rest(table: Regular) -> tuple[int, int]:
    """A window's span, and how many elements are left behind the last one, padding included."""
    span = (table.taps - 1) * table.dilation + 1
    return span, (table.size + table.low + table.high - span) % table.step


def _cut_off(table: Regular, unread: Unread) -> int:
    """How many elements one more window would begin to reach; those before it lie in the last gap."""
    return min(unread.after, max(0, table.size - (table.start + table.output * table.step)))


def _never_read(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table, unread, _pads in _regular(stage):
            lost = _cut_off(table, unread)
            if not lost or stage.step.op in ("Slice", "Pad"):
                continue  # what crops is meant to leave something out
            span, rest = _rest(table)
            message = (
                f"{lost} of {table.size} {{axes}} are in no window: "
                f"({table.size} + {table.low + table.high} − {span}) mod {table.step} = {rest}"
                f"{f', of which {rest - lost} are padding or between windows' if rest > lost else ''}"
            )
            fix = f"pad {table.step - rest} more at the end, crop the input by {rest}"
            yield stage, number, message, fix + (", or set ceil_mode=True" if stage.step.pooling is not None else "")


def _skipping(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table, unread, _pads in _regular(stage):
            gaps = unread.between + unread.after - _cut_off(table, unread)
            if table.dilation == 1 and table.step > table.taps and gaps:
                message = (
                    f"the stride {table.step} is larger than the window {table.taps}: {gaps} of "
                    f"{table.size} {{axes}} lie between windows"
                )
                yield (
                    stage,
                    number,
                    message,
                    f"a window of {table.step}, or a {table.step}×{table.step} mean before the step",
                )


def _one_sided(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table, _unread, pads in _regular(stage):
            rest = _rest(table)[1]
            if rest and pads.low == pads.high and pads.low_read != pads.high_read:
                message = (
                    f"of {pads.low} + {pads.high} padded {{axes}} windows read {pads.low_read} before "
                    f"and {pads.high_read} after the input: size {table.size}, window {table.taps}, stride {table.step}"
                )
                yield (
                    stage,
                    number,
                    message,
                    f"an input whose size here is {table.size + table.step - rest} consumes both sides' padding alike",
                )


def _uneven_coverage(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table, _unread, _pads in _regular(stage):
            if table.dilation == 1 and 1 < table.step < table.taps and table.taps % table.step:
                low, high = table.taps // table.step, -(-table.taps // table.step)
                message = (
                    f"{table.taps} mod {table.step} = {table.taps % table.step}: some {{axes}} are "
                    f"in {low} windows, some in {high}"
                )
                yield stage, number, message, f"a window of {high * table.step}"


def _uneven_bins(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        for number, table in enumerate(stage.geometry.tables):
            if not isinstance(table, Regular) and table.size % table.output:
                message = (
                    f"{table.size} {{axes}} into {table.output} bins: {table.size} mod {table.output} = "
                    f"{table.size % table.output}, so bins overlap, differ in size, and cannot be exported as a pooling"
                )
                yield (
                    stage,
                    number,
                    message,
                    f"an input of {table.size // table.output * table.output or table.output} here",
                )


def _aliasing(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        strides = [getattr(table, "step", 1) for table in stage.geometry.tables]
        is_conv = stage.step.op == "Conv"
        moves = max(strides) > 1 and max(stage.geometry.outputs) > 1
        if moves and (is_conv or isinstance(stage.step.pooling, Max | ReLUMax)):
            what = "a convolution" if is_conv else "a maximum"
            message = f"{what} is taken at one of {max(strides)} positions with no low-pass filter before it"
            yield stage, None, message, "the same at stride 1, then a blur of that stride; it is a partial cure"


def _empty(_: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    for stage in stages:
        if stage.empty and stage.step.pooling is not None:
            cells = 1
            for output in stage.geometry.outputs:
                cells *= output
            yield (
                stage,
                None,
                f"{stage.empty} of {cells} windows read padding alone",
                "less padding, or ceil_mode=False",
            )


RULES = (
    Rule("PW101", "warning", "elements that no window reads", "Dumoulin & Visin 2016, relationship 6", _never_read),
    Rule("PW102", "warning", "stride larger than the window", "He et al. 2019, section 4.1", _skipping),
    Rule("PW103", "info", "padding consumed on one side", "Alsallakh et al. 2021", _one_sided),
    Rule("PW104", "info", "window not a multiple of the stride", "Odena, Dumoulin & Olah 2016", _uneven_coverage),
    Rule("PW105", "warning", "adaptive bins that differ", "pytorch #64806", _uneven_bins),
    Rule("PW106", "info", "strided without a low-pass filter", "Zhang 2019; Azulay & Weiss 2019", _aliasing),
    Rule("PW107", "error", "empty windows", "onnxruntime #16351", _empty),
)
