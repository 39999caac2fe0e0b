"""Designing a network: sizes, strides and receptive fields through a stack of poolings and convolutions.

>>> from poolwise.design import parse, trace
>>> [stage.output for stage in trace(*parse(["28x28", "conv3", "max2/2"]))]
[(26, 26), (13, 13)]
"""

from poolwise.design.by_name import measured_by_name
from poolwise.design.compare import Comparison, compare, swapped
from poolwise.design.measure import Measurement, measure
from poolwise.design.review import Review, review
from poolwise.design.rules import RULES, Finding
from poolwise.design.stack import GRAMMAR, Input, Layer, parse
from poolwise.design.trace import Span, Stage, Unread, trace

__all__ = [
    "GRAMMAR",
    "RULES",
    "Comparison",
    "Finding",
    "Input",
    "Layer",
    "Measurement",
    "Review",
    "Span",
    "Stage",
    "Unread",
    "compare",
    "measure",
    "measured_by_name",
    "parse",
    "review",
    "swapped",
    "trace",
]
