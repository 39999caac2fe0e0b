"""A run beside an earlier one's JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolwise import InvalidValue
from poolwise.bench.measure import OURS, Result

CHANGED = 0.10  # what a noisy machine does by itself


@dataclass(frozen=True)
class Change:
    """One row's figure then and now: time over a copy's; of a tiny call over PyTorch's."""

    case: str
    then: float
    now: float

    @property
    def quotient(self) -> float:
        return self.now / self.then

    @property
    def notable(self) -> bool:
        """Whether it changed by more than 10 %, up or down."""
        return not 1 - CHANGED <= self.quotient <= 1 + CHANGED


@dataclass(frozen=True)
class Earlier:
    """What a file holds. figures: by the case's name and its shape, as cases of one name may differ in size."""

    path: Path
    date: str
    figures: dict[tuple[str, tuple[int, ...]], float]

    def changes(self, result: Result) -> list[Change]:
        """The rows that both runs have."""
        rows = [(row.case.name, self.figures.get((row.case.name, row.shape)), row.figure) for row in result.rows]
        return [Change(name, then, now) for name, then, now in rows if then and now]


def earlier(path: Path) -> Earlier:
    """Read what `--json` wrote. Raises InvalidValue for a file that is something else."""
    try:
        report = json.loads(path.read_text())
        figures = {(row["case"], tuple(row["shape"])): _figure(row["contenders"]) for row in report["rows"]}
        date = str(report["machine"]["date"])
    except OSError as fault:
        raise _refusal(path, fault.strerror or "unreadable") from None
    except ValueError:
        raise _refusal(path, "no JSON") from None
    except (KeyError, TypeError, AttributeError):
        raise _refusal(path, "another JSON") from None
    return Earlier(path, date, {key: figure for key, figure in figures.items() if figure})


def _figure(contenders: dict[str, dict[str, Any]]) -> float | None:
    ratio = contenders.get(OURS, {}).get("ratio")
    faster = contenders.get("PyTorch", {}).get("poolwise_is_faster_by")
    return float(ratio) if ratio else 1 / float(faster) if faster else None


def _refusal(path: Path, found: str) -> InvalidValue:
    return InvalidValue(
        f"compare must be a file that `poolwise bench --json` wrote, got {str(path)!r} ({found})", "bench"
    )
