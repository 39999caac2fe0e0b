"""What `poolwise bench --json FILE` wrote, as Markdown: `python benchmarks/tables.py FILE > FILE.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

OURS, BEHIND = "poolwise", 1.05


def figure(number: float) -> str:
    """Two digits, or as many as it has before the point."""
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}" if number >= 0.995 else f"{number:.2f}"


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (names, ["---"] * len(names), *rows):
        yield "| " + " | ".join(row) + " |"


def entry(row: dict[str, Any], name: str) -> str:
    """Time over the ruler's and, of a peer, over ours; bold where that is faster by more than 5 %."""
    found = row["contenders"].get(name)
    if found is None or found["refused"]:
        return "–"
    told = figure(found["ratio"]) if found.get("ratio") is not None else f"{1e6 * found['median']:.1f} µs"
    if name == OURS:
        return told
    told += f" ({figure(found['poolwise_is_faster_by'])}×)"
    return f"**{told}**" if found["poolwise_is_faster_by"] < 1 / BEHIND else told


def section(rows: Sequence[dict[str, Any]], peers: Sequence[str]) -> Iterator[str]:
    told = [peer for peer in peers if any(entry(row, peer) != "–" for row in rows)]
    names = ["case", "shape", "goal", OURS, *told]
    yield from table(
        names,
        [
            [
                row["case"],
                "×".join(map(str, row["shape"])),
                "–" if row["goal"] is None else f"{row['goal']:g}",
                entry(row, OURS),
                *(entry(row, peer) for peer in told),
            ]
            for row in rows
        ],
    )


def goals(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    def number(value: float | None, unit: str) -> str:
        return "–" if value is None else figure(value) + unit

    rows = [
        [
            goal["what"].strip(),
            goal["over"],
            "–" if goal["goal"] is None else f"{goal['sign']} {goal['goal']:g}{goal['unit']}",
            number(goal["measured"], goal["unit"]),
            {True: "yes", False: "no", None: ""}[goal["met"]],
        ]
        for goal in found
    ]
    yield from table(["what", "over", "goal", "measured", "met"], rows)


def main(path: str) -> None:
    result = json.loads(Path(path).read_text())
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    print(f"`poolwise bench --json`, {machine['date']}; {machine['processor']}, {machine['usable_cores']} cores,")
    print(
        f"{machine['instruction_set']}, {result['threads']} threads each; {versions}. Load before: {result['load']:.1f}."
    )
    peers = list(dict.fromkeys(name for row in result["rows"] for name in row["contenders"] if name != OURS))
    for title, rows in groupby(result["rows"], key=lambda row: row["section"]):
        print(f"\n## {title}\n", *section(list(rows), peers), sep="\n")
    print("\n## Goals\n", *goals(result["goals"]), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
