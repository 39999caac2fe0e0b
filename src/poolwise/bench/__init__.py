"""poolwise beside the other frameworks, each against the speed of a copy.

`run` measures, `show` prints, `goals` sums up; `benchmarks/README.md` says how the numbers are made.
"""

from poolwise.bench.cases import CASES, FULL, QUICK, Bins, Case, Size, Sliding
from poolwise.bench.compare import Change, Earlier, earlier
from poolwise.bench.contenders import CONTENDERS, Attempt, Contender
from poolwise.bench.goals import Goal, goals, report
from poolwise.bench.measure import Entry, Result, Row, run
from poolwise.bench.show import progress, show, show_cases, show_changes

__all__ = [
    "CASES",
    "CONTENDERS",
    "FULL",
    "QUICK",
    "Attempt",
    "Bins",
    "Case",
    "Change",
    "Contender",
    "Earlier",
    "Entry",
    "Goal",
    "Result",
    "Row",
    "Size",
    "Sliding",
    "earlier",
    "goals",
    "progress",
    "report",
    "run",
    "show",
    "show_cases",
    "show_changes",
]
