"""The findings in SARIF 2.1.0, the format in which code hosts and editors take them.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) version 2.1.0, 2020. Where the standard leaves a
choice, it is made so that GitHub's code scanning takes the file: a line for every file, a fingerprint for every result.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from poolwise import __version__
from poolwise.design.graph import Graph
from poolwise.design.rules import RULES, Finding, Rule
from poolwise.named import factory

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "info": "note"}
GITHUB = {"error": "error", "warning": "warning", "info": "recommendation"}  # its words for the same
FRAMEWORKS = ("torch", "keras", "onnx", "poolwise")

Place: TypeAlias = tuple[str, int] | None  # a file and a line of it


def data(graph: Graph, findings: Sequence[Finding], origin: Place) -> dict[str, Any]:
    """A whole log of one run, as JSON's own types. origin: where the model comes from."""
    numbers = {rule.id: number for number, rule in enumerate(RULES)}
    places = {step.name: _placed(step.attributes.get("source")) for step in graph.steps}
    driver = {"name": "poolwise", "version": __version__, "rules": [_rule(rule) for rule in RULES]}
    results = [
        _result(finding, numbers[finding.rule], places.get(finding.step) or origin, print_)
        for finding, print_ in zip(findings, _fingerprints(graph, findings), strict=True)
    ]
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"poolwise/{re.sub('[^0-9A-Za-z_.-]+', '-', graph.name)}/"},
        "columnKind": "utf16CodeUnits",
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def origin(model: Any) -> Place:
    """The file of a model, or where what makes it is written; None where that is no file."""
    if not isinstance(model, str | Path):
        return _written(type(model))
    if Path(model).is_file():
        return str(model), 1
    module = sys.modules.get(str(model).partition(":")[0])
    found = _written(factory(str(model)))
    return found or ((module.__file__, 1) if module is not None and module.__file__ else None)


def _written(made: Any) -> Place:
    """Where a function or a class is written, unless that is a framework's own."""
    if str(getattr(made, "__module__", "")).partition(".")[0] in FRAMEWORKS:
        return None
    try:
        return inspect.getfile(made), max(1, inspect.getsourcelines(made)[1])
    except (OSError, TypeError):  # typed at a prompt, or built in
        return None


def _placed(source: Any) -> Place:
    """What a reader says of a functional call: `file:line`."""
    file, _, line = str(source or "").rpartition(":")
    return (file, int(line)) if file and line.isdecimal() else None


def _rule(rule: Rule) -> dict[str, Any]:
    page = rule.page
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in re.findall(r"\w+", rule.title)),
        "shortDescription": {"text": f"{rule.title[0].upper()}{rule.title[1:]}."},
        "fullDescription": {"text": _first(page)},
        "help": {"text": _plain(page), "markdown": page},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
        "properties": {
            "problem.severity": GITHUB[rule.severity],
            "precision": "very-high",
            "source": rule.source,
            "tags": ["downsampling", "pooling"],
        },
    }


def _first(page: str) -> str:
    """The page's first paragraph: what the rule finds."""
    paragraphs = [part for part in page.split("\n\n") if part.strip() and not part.startswith("#")]
    return " ".join(_plain(paragraphs[0].removeprefix("**What.** ")).split())


def _plain(page: str) -> str:
    """Markdown without its marks."""
    return re.sub(r"^#+ |\*\*|`", "", page, flags=re.MULTILINE)


def _result(finding: Finding, number: int, place: Place, fingerprint: str) -> dict[str, Any]:
    logical = {"name": finding.step, "fullyQualifiedName": finding.step, "kind": "module"}
    physical = {} if place is None else {"physicalLocation": _physical(*place)}
    return {
        "ruleId": finding.rule,
        "ruleIndex": number,
        "level": LEVELS[finding.severity],
        "message": {"text": _literal(f"{finding.step}: {finding.message}. Fix: {finding.fix}. ({finding.source})")},
        "locations": [{**physical, "logicalLocations": [logical]}],
        "partialFingerprints": {"poolwise/v1": fingerprint, "primaryLocationLineHash": f"{fingerprint[:16]}:1"},
        "properties": {"evidence": finding.message, "fix": finding.fix, "source": finding.source},
    }


def _literal(text: str) -> str:
    """Text in which a model's names make no link and ask for no argument (sections 3.11.5 and 3.11.6)."""
    return re.sub(r"([\[\]\\])", r"\\\1", text).replace("{", "{{").replace("}", "}}")


def _physical(file: str, line: int) -> dict[str, Any]:
    """A file below the current folder relative to it, as a repository's root; any other as it is."""
    path, root = Path(file).resolve(), Path.cwd().resolve()
    inside = path.is_relative_to(root)
    artifact = {"uri": quote(path.relative_to(root).as_posix()), "uriBaseId": "%SRCROOT%"} if inside else {}
    return {"artifactLocation": artifact or {"uri": path.as_uri()}, "region": {"startLine": line}}


def _fingerprints(graph: Graph, findings: Sequence[Finding]) -> Iterator[str]:
    """One for each: the same as long as the rule finds something at the step, whatever its numbers are then."""
    met: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        met[finding.rule, finding.step] += 1
        said = (graph.framework, graph.name, finding.rule, finding.step, str(met[finding.rule, finding.step]))
        yield sha256("\0".join(said).encode(errors="surrogatepass")).hexdigest()
