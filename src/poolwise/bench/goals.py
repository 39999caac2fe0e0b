"""The project's goals beside what a run measured: means over groups of rows, and single numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from poolwise.bench.cases import AIMLESS, WHOLE, WINDOWS, same
from poolwise.bench.measure import OURS, Result, Row, geometric_mean
from poolwise.bench.problem import FRESH_GOAL
from poolwise.bench.ruler import RULER

BEHIND = 1.05  # how many times as fast as ours a peer may be, and still count as equal
Sign = Literal["≤", "≥", ""]

GROUPS: dict[str, Callable[[Row], bool]] = {
    "forward": lambda row: row.case.section in ("forward", "odd sizes", "short rows"),
    "forward, in the cache": lambda row: row.case.section == "cache resident",
    "with indices": lambda row: row.case.section == "indices",
    "training": lambda row: row.case.section == "training",
    "training, small planes": lambda row: row.case.section == "small planes",
    "ReLU + max": lambda row: row.case.section == "relu" and row.case.task == "forward",
    "ReLU + max, training": lambda row: row.case.section == "relu" and row.case.task == "training",
    "other dtypes": lambda row: row.case.section == "dtypes",
    "1-D and 3-D": lambda row: row.case.section == "1-D and 3-D",
    "median, mode, soft, Lp, blur": lambda row: row.case.section in WHOLE,
    "adaptive, global": lambda row: row.case.section == "others",
    "without a goal": lambda row: row.case.section == AIMLESS[0],
    "without a goal, training": lambda row: row.case.section == AIMLESS[1],
}
MEAN_GOALS = {"forward": 1.15}  # tighter than the rows' own, of those whose goal is 1.25
SPEED_GOALS = {
    "forward": {"PyTorch": 7, "ONNX Runtime": 3, "JAX": 5},
    "training": {"PyTorch": 8, "JAX": 12},
    "windows 3 to 63": {"PyTorch": 40, "ONNX Runtime": 6},
}
LARGEST_OVER_SMALLEST = 3
KEPT = {"max": 1, "mean": 0, "ReLU + max": 1}
STEP, TINY, IMPORT, SCALING = 0.65, 2, 1.2, 1.8


@dataclass(frozen=True)
class Goal:
    """What, which way and how far, what was measured, and in words where there is more to say.

    over: what a mean is over, the ruler or a peer; "" for a number that is no mean over rows.
    """

    what: str
    sign: Sign
    goal: float | None
    measured: float | None
    unit: str = ""
    said: str = ""
    over: str = ""

    @property
    def met(self) -> bool | None:
        """None where there is no goal, or nothing was measured."""
        if self.goal is None or self.measured is None:
            return None
        return self.measured >= self.goal if self.sign == "≥" else self.measured <= self.goal

    def data(self) -> dict[str, Any]:
        return {**vars(self), "met": self.met}


def goals(result: Result) -> list[Goal]:
    """Every goal that the run has something to say about, in the order of the project's table."""
    parts = (_groups, _windows, _kept, _tutorial, _tiny, _imports, _scaling, _all_rows)
    return [goal for part in parts for goal in part(result)]


def report(result: Result) -> dict[str, Any]:
    """What `--json` writes: every number, and the goals."""
    return {**result.data(), "goals": [goal.data() for goal in goals(result)]}


def _groups(result: Result) -> Iterator[Goal]:
    for name, belongs in GROUPS.items():
        rows = [row for row in result.rows if belongs(row)]
        aims = sorted({row.goal for row in rows}, key=lambda goal: goal or 0)
        for goal in aims:
            alike = [row for row in rows if row.goal == goal]
            mean = geometric_mean([row.ratio(OURS) for row in alike])
            what = f"{name}, > 32 MiB" if goal == FRESH_GOAL and len(aims) > 1 else name
            sign = "≤" if goal else ""
            yield Goal(what, sign, MEAN_GOALS.get(what, goal), mean, said=f"mean of {len(alike)}", over=RULER)
        yield from _speed_ups(name, rows, result.peers)


def _speed_ups(name: str, rows: Sequence[Row], peers: Iterable[str]) -> Iterator[Goal]:
    for peer in peers:
        against = [row for row in rows if row.speed_up(peer)]
        if against:
            goal = SPEED_GOALS.get(name, {}).get(peer)
            mean = geometric_mean([row.speed_up(peer) for row in against])
            yield Goal(name, "≥" if goal else "", goal, mean, "×", f"mean of {len(against)}", peer)


def _windows(result: Result) -> Iterator[Goal]:
    rows = [row for row in result.of("large windows") if row.case.task == "forward"]
    for word in dict.fromkeys(row.case.op.stems[0] for row in rows):
        times = {row.case.places: row.time(OURS) for row in rows if row.case.op.stems[0] == word}
        small, large = times.get(same(WINDOWS[0])), times.get(same(WINDOWS[-1]))
        if small and large:
            what = f"{word}: window {WINDOWS[-1]}×{WINDOWS[-1]} over {WINDOWS[0]}×{WINDOWS[0]}"
            yield Goal(what, "≤", LARGEST_OVER_SMALLEST, large / small, "×")
    yield from _speed_ups("windows 3 to 63", rows, result.peers)


def _kept(result: Result) -> Iterator[Goal]:
    for name, goal in KEPT.items():
        if name in result.apart.get("kept", {}):
            kept = result.apart["kept"][name]
            yield Goal(f"bytes kept per output, {name}", "≤", goal, kept[OURS], said=f"PyTorch {kept['PyTorch']:g}")


def _tutorial(result: Result) -> Iterator[Goal]:
    saved = result.apart.get("tutorial", {})
    if "training_step_s" in saved:
        step, kept = saved["training_step_s"], saved["kept_bytes"]
        times = f"{1e3 * step['stock']:.1f} → {1e3 * step[OURS]:.1f} ms"
        bytes_ = f"{kept['stock'] / 2**20:.1f} → {kept[OURS] / 2**20:.1f} MiB"
        yield Goal("tutorial's training step, accelerated", "≤", STEP, step[OURS] / step["stock"], "×", times)
        yield Goal("  kept for backward in it", "", None, kept[OURS] / max(kept["stock"], 1), "×", bytes_)


def _tiny(result: Result) -> Iterator[Goal]:
    for row in result.of("tiny"):
        kind = "recorded for backward" if row.case.gradient else "no gradient"
        yield Goal(f"a tiny call over PyTorch's, {kind}", "≤", TINY, row.figure, "×")


def _imports(result: Result) -> Iterator[Goal]:
    seconds = result.apart.get("imports")
    if seconds:
        for name, goal in (("poolwise", IMPORT), ("poolwise.max_pool", None)):
            said = f"{1e3 * seconds['numpy']:.0f} → {1e3 * seconds[name]:.0f} ms"
            what = "import poolwise over import numpy" if goal else "  with its first function"
            yield Goal(what, "≤", goal, seconds[name] / seconds["numpy"], "×", said)


def _scaling(result: Result) -> Iterator[Goal]:
    found = result.apart.get("scaling", {})
    if "skipped" in found:
        yield Goal("two threads over one", "≥", SCALING, None, "×", found["skipped"])
    for name, seconds in found.get("seconds", {}).items():
        what = f"two threads over one, {name.removesuffix(' forward')}"
        ratio = seconds["2"] / found["ideal"][name]
        yield Goal(what, "≥", SCALING, seconds["1"] / seconds["2"], "×", f"two at {ratio:.2f} of the ruler")


def _all_rows(result: Result) -> Iterator[Goal]:
    aimed = [row for row in result.rows if row.goal and row.figure]
    if aimed:
        beyond = sum(row.figure > row.goal for row in aimed if row.figure and row.goal)
        yield Goal("rows beyond their own goal", "≤", 0, beyond, " rows", f"of {len(aimed)}")
    faster = behind(result)
    if result.peers and result.rows:
        yield Goal("rows where a peer is more than 5 % faster", "≤", 0, len(faster), " rows", "tiny calls apart")


def behind(result: Result) -> dict[str, dict[str, float]]:
    """Row → the peers that are more than 5 % faster, and how many times. A tiny call has a goal of its own."""
    found: dict[str, dict[str, float]] = {}
    for row in (row for row in result.rows if not row.case.tiny):
        speeds = {peer: 1 / speed for peer in result.peers if (speed := row.speed_up(peer))}
        ahead = {peer: speed for peer, speed in speeds.items() if speed > BEHIND}
        if ahead:
            found[row.case.name] = ahead
    return found
