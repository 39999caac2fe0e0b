"""The lab: the tutorial's questions about pooling as experiments, with a report.

`run` trains the tutorial's CNN once for each kind of pooling and seed, on real digits, and says what came of it.
"""

from importlib import import_module

from poolwise.errors import MissingExtra

try:
    for needed in ("jinja2", "matplotlib", "mlxtend", "PIL", "scipy", "torch"):
        import_module(needed)
except ImportError as cause:
    raise MissingExtra(f'poolwise.lab needs {cause.name}: pip install "poolwise[lab]"') from None

from poolwise.lab.claims import Claim, Comparison, Evidence, Judged, judge
from poolwise.lab.experiment import Config, Result, run_one
from poolwise.lab.runner import run
from poolwise.lab.statistics import Interval
from poolwise.lab.summary import Results
from poolwise.lab.variants import Stage, Variant

__all__ = [
    "Claim",
    "Comparison",
    "Config",
    "Evidence",
    "Interval",
    "Judged",
    "Result",
    "Results",
    "Stage",
    "Variant",
    "judge",
    "run",
    "run_one",
]
