"""The rules of the review: each looks at a network and its stages and says what it finds, with its arithmetic.

What each means, and when to ignore it: its page in `pages/`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from poolwise import InvalidValue
from poolwise.design import network_rules, stage_rules
from poolwise.design.graph import Graph
from poolwise.design.stage_rules import Evidence
from poolwise.design.stages import Stage

PAGES = Path(__file__).parent / "pages"


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    rule: its id. severity: "error", "warning" or "info". step: the step's name in the model. message: what is wrong, in
    numbers. page: the rule's page, a file of the installed package that `poolwise rule ID` prints.
    """

    rule: str
    severity: str
    step: str
    message: str
    source: str
    fix: str
    page: str


@dataclass(frozen=True)
class Rule:
    """One rule. find: what it says of a network, as `Evidence`."""

    id: str
    severity: str
    title: str
    source: str
    find: Callable[[Graph, Sequence[Stage]], Iterator[Evidence]]

    @property
    def page(self) -> str:
        """What it means, why, by which source, how to mend it and when to ignore it, as Markdown."""
        return (PAGES / f"{self.id}.md").read_text(encoding="utf-8")


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


def findings(
    graph: Graph, stages: Sequence[Stage], rules: Sequence[Rule], allowed: Mapping[str, Collection[str]] | None = None
) -> list[Finding]:
    """What these rules find in a network. allowed: for patterns of steps' names the rules that say nothing of them."""
    found: list[Finding] = []
    for rule in rules:
        met: dict[tuple[str, str, str], list[str]] = {}
        for step, message, fix, axis in rule.find(graph, stages):
            met.setdefault((step, message, fix), []).append(axis)
        for (step, message, fix), axes in met.items():  # axes that are alike are one finding
            if not _is_allowed(rule, step, allowed or {}):
                said = message.replace("{axes}", " and ".join(dict.fromkeys(axes)))
                page = f"poolwise/design/pages/{rule.id}.md"
                found.append(Finding(rule.id, rule.severity, step, said, rule.source, fix, page))
    return found


def titles() -> dict[str, str]:
    """What each rule finds, in a few words."""
    return {rule.id: rule.title for rule in RULES}


def _is_allowed(rule: Rule, step: str, allowed: Mapping[str, Collection[str]]) -> bool:
    return any(fnmatchcase(step, pattern) and rule.id.startswith(tuple(ids)) for pattern, ids in allowed.items())


RULES = (
    Rule(
        "PW101",
        "warning",
        "elements that no window reads",
        "Dumoulin & Visin 2016, relationship 6",
        stage_rules.never_read,
    ),
    Rule("PW102", "warning", "stride larger than the window", "He et al. 2019, section 4.1", stage_rules.skipping),
    Rule("PW103", "info", "padding consumed on one side", "Alsallakh et al. 2021", stage_rules.one_sided),
    Rule(
        "PW104",
        "info",
        "window not a multiple of the stride",
        "Odena, Dumoulin & Olah 2016",
        stage_rules.uneven_coverage,
    ),
    Rule("PW105", "warning", "adaptive bins that differ", "pytorch #64806", stage_rules.uneven_bins),
    Rule("PW106", "info", "strided without a low-pass filter", "Zhang 2019; Azulay & Weiss 2019", stage_rules.aliasing),
    Rule("PW107", "error", "empty windows", "onnxruntime #16351", stage_rules.empty),
    Rule(
        "PW108",
        "warning",
        "windows mostly padding",
        "onnxruntime #16351; Chen et al. 2017, section 3.3",
        stage_rules.mostly_padding,
    ),
    Rule(
        "PW109",
        "info",
        "frameworks disagree",
        "pytorch #183528; keras #18452; onnx operator AveragePool",
        stage_rules.frameworks,
    ),
    Rule("PW201", "error", "skips that cannot agree", "Ronneberger et al. 2015, section 2", network_rules.unfit),
    Rule("PW202", "warning", "skips of odd sizes", "Ronneberger et al. 2015, section 2", network_rules.odd_skips),
    Rule("PW203", "info", "receptive field beyond the image", "Richter et al. 2021", network_rules.beyond_the_image),
    Rule(
        "PW204",
        "info",
        "receptive field within the image",
        "Araujo et al. 2019; Luo et al. 2016",
        network_rules.within_the_image,
    ),
    Rule("PW205", "info", "flatten and dense", "Lin et al. 2014, section 3.2", network_rules.flattened),
    Rule("PW206", "info", "ReLU and maximum apart", "measured: poolwise accelerate", network_rules.fusible),
)
