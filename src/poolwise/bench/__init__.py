"""poolwise beside the other frameworks, each against the speed of a copy.

`run` measures, `show` prints; `benchmarks/README.md` says how the numbers are made.
"""

from poolwise.bench.cases import CASES, FULL, QUICK, Case, Size
from poolwise.bench.contenders import CONTENDERS, Attempt, Contender
from poolwise.bench.measure import Entry, Result, Row, run
from poolwise.bench.show import progress, show

__all__ = [
    "CASES",
    "CONTENDERS",
    "FULL",
    "QUICK",
    "Attempt",
    "Case",
    "Contender",
    "Entry",
    "Result",
    "Row",
    "Size",
    "progress",
    "run",
    "show",
]
