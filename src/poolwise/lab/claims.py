"""The tutorial's claims, one by one, with what was measured and the verdict that follows from the numbers.

The rule, the same for every run: a claim is a set of comparisons, each a paired difference that the claim says lies on
one side of a bound. A comparison is supported when its whole 95 % interval lies there, not supported when the whole
interval lies on the other side, else not decided by these runs. A claim is supported when all its comparisons are, not
supported when any of them is not, else not decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from poolwise.lab.measures import MEASURE
from poolwise.lab.statistics import Interval
from poolwise.lab.summary import Results
from poolwise.lab.variants import NONE, parse

Verdict = Literal["supported", "not supported", "not decided by these runs"]
SUPPORTED: Verdict = "supported"
REFUTED: Verdict = "not supported"
UNDECIDED: Verdict = "not decided by these runs"
MAX, MEAN = "max2/2", "mean2/2"
MARGIN = 0.01  # one point of accuracy: a loss that would matter


@dataclass(frozen=True)
class Comparison:
    """`variant` has less (side −1) or more (side 1) of `measure` than `to`, by more than `bound`."""

    measure: str
    variant: str
    to: str
    side: Literal[-1, 1]
    bound: float = 0.0


@dataclass(frozen=True)
class Claim:
    """What the tutorial says, what stands for it here, and what to keep in mind."""

    says: str
    comparisons: tuple[Comparison, ...]
    note: str = ""


@dataclass(frozen=True)
class Evidence:
    """One comparison as measured."""

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Judged:
    """A claim with its evidence and verdict."""

    claim: Claim
    evidence: tuple[Evidence, ...]
    verdict: Verdict


def _against_none(measure: str, side: Literal[-1, 1], bound: float = 0.0) -> tuple[Comparison, ...]:
    return tuple(Comparison(measure, variant, NONE, side, bound) for variant in (MAX, MEAN))


CLAIMS = (
    Claim("Pooling makes the feature maps smaller.", _against_none("cells", -1)),
    Claim(
        "Pooling retains the important features.",
        _against_none("test_accuracy", 1, -MARGIN),
        "Read here as: test accuracy is not more than one point below that without pooling.",
    ),
    Claim(
        "Max pooling captures the prominent features.",
        (Comparison("peak", MAX, MEAN, 1),),
        "Read here as: it keeps more of a map's peak than average pooling does. Max 2/2 keeps all of it by "
        "construction when its windows cover the map.",
    ),
    Claim(
        "Average pooling smooths.",
        (Comparison("detail", MEAN, NONE, -1), Comparison("detail", MEAN, MAX, -1)),
        "Read here as: less fine detail is left than picking every second cell would leave (100 %, as without "
        "pooling), and less than after max pooling.",
    ),
    Claim(
        "Pooling leaves fewer parameters.",
        _against_none("parameters", -1),
        "Pooling itself has none: the dense layer behind it reads fewer cells.",
    ),
    Claim(
        "Pooling takes less computation.",
        _against_none("macs", -1),
        "Multiplications with addition; what the pooling windows read is listed as window reads.",
    ),
    Claim(
        "Pooling therefore takes less time.",
        _against_none("step_seconds", -1),
        "What the claim before suggests, but does not promise: pooling moves memory too, forward and backward.",
    ),
    Claim(
        "Pooling makes the network invariant to small translations.",
        (*_against_none("circular", 1), *_against_none("crops", 1)),
        "Read here as: more consistent than without pooling. Invariant, strictly, would be 100 %.",
    ),
    Claim(
        "Pooling reduces overfitting.",
        _against_none("gap", -1),
        "Read here as: a smaller gap between train and test accuracy than without pooling.",
    ),
)


def judge(results: Results) -> tuple[Judged, ...]:
    """Every claim against these runs."""
    return tuple(judged(claim, results) for claim in CLAIMS)


def judged(claim: Claim, results: Results) -> Judged:
    evidence = tuple(measured(comparison, results) for comparison in claim.comparisons)
    return Judged(claim, evidence, combined(item.verdict for item in evidence))


def combined(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several comparisons: all must hold, and one that fails decides."""
    found = set(verdicts)
    return REFUTED if REFUTED in found else UNDECIDED if UNDECIDED in found else SUPPORTED


def verdict(difference: Interval, comparison: Comparison) -> Verdict:
    """Where the interval lies; a single run of a number that chance can change decides nothing."""
    if difference.low is None or difference.high is None:
        return UNDECIDED
    near, far = sorted((difference.low * comparison.side, difference.high * comparison.side))
    bound = comparison.bound * comparison.side
    return SUPPORTED if near > bound else REFUTED if far <= bound else UNDECIDED


def measured(comparison: Comparison, results: Results) -> Evidence:
    """A comparison in words and numbers."""
    measure = MEASURE[comparison.measure]
    name, to = (parse(variant).label for variant in (comparison.variant, comparison.to))
    ours, theirs = (results.mean(variant, measure.key) for variant in (comparison.variant, comparison.to))
    difference = results.difference(comparison.variant, measure.key, comparison.to)
    if ours is None or theirs is None or difference is None:
        return Evidence(f"{measure.label}: {name} and {to} were not both run.", UNDECIDED)
    if not results.varies(measure):
        difference = exact(difference)
    unit = f" {measure.unit}" if measure.unit else ""
    text = f"{measure.label}: {name} {measure.number(ours.mean)}{unit}, {to} {measure.number(theirs.mean)}{unit}"
    spread = ""
    if results.varies(measure):
        spread = f"; difference {measure.difference(difference.mean)} {between(comparison.measure, difference)}"
    return Evidence(f"{text}{spread}.", verdict(difference, comparison))


def exact(difference: Interval) -> Interval:
    """A number that no seed changes has no spread, even in a single run."""
    return Interval(difference.mean, difference.mean, difference.mean, difference.n)


def between(measure: str, difference: Interval) -> str:
    if difference.low is None or difference.high is None:
        return "(one seed: no interval)"
    low, high = (MEASURE[measure].difference(bound) for bound in (difference.low, difference.high))
    return f"[{low}, {high}]"
