"""Every path of the compiled engines against NumPy: rows that slide, taps that double, gradients gathered or scattered.

Each case is pooled by every instruction set, over one copy of its planes and over so many that threads share them.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import pickle
import threading
from typing import NamedTuple

import numpy as np
import pytest

import poolwise
from poolwise.memory import LARGE, lent
from test_native_module import DTYPES, FOLDS, INTEGERS, MEANS, SETS, same

_native = pytest.importorskip("poolwise._native")

SHARED = 2 << 20  # bytes or taps of a call that seven threads share (csrc/run.cc)
STREAMED = 16 << 20  # bytes of an output that is written past the caches (csrc/lines.h)


class Axis(NamedTuple):
    """A pooled axis, as a plan's table; where each tap of each cell reads it (-1: nowhere); how many taps count."""

    size: int
    table: tuple
    places: np.ndarray
    counting: np.ndarray


class Case(NamedTuple):
    outer: int
    axes: tuple[Axis, ...]
    inner: int = 1

    def shape(self, part, outer=None):
        """Of the input (0) or the output (1)."""
        sizes = (len(axis.places) if part else axis.size for axis in self.axes)
        return (self.outer if outer is None else outer, *sizes, self.inner)


def regular(size, window, step=1, pad=0, dilation=1, mode="absent"):
    output = (size + 2 * pad - (window - 1) * dilation - 1) // step + 1
    at = -pad + step * np.arange(output)[:, None] + dilation * np.arange(window)
    counting = ((at >= -pad) & (at < size + pad)).sum(1)
    table = (output, -pad, step, dilation, window, pad, pad, mode)
    return Axis(size, table, np.vectorize(FOLDS[mode])(at, size), counting)


def uneven(size, output):
    """Adaptive bins, which overlap where the output does not divide the size."""
    first = np.arange(output) * size // output
    count = -(-np.arange(1, output + 1) * size // output) - first
    tap = np.arange(count.max())
    spans = np.stack([first, count], axis=1)[None].astype(np.int64)
    return Axis(size, (len(tap), spans), np.where(tap < count[:, None], first[:, None] + tap, -1), count)


def bins(size, *spans):
    """These bins: where each begins, and how many elements it has."""
    first, count = np.array(spans).T
    tap = np.arange(max(1, count.max()))
    table = (len(tap), np.array(spans, np.int64)[None])
    return Axis(size, table, np.where(tap < count[:, None], first[:, None] + tap, -1), count)


def plane(rows, columns, inner=1, outer=3):
    return Case(outer, (rows, columns), inner)


def volume(planes, rows, columns, inner=1):
    return Case(2, (planes, rows, columns), inner)


SLIDING = {
    "sliding": plane(regular(31, 9), regular(13, 3)),
    "sliding 8, padded": plane(regular(29, 8, 1, 4), regular(19, 2)),
    "sliding 8 by 2": plane(regular(41, 8, 2, 3), regular(11, 3, 2, 1)),
    "sliding 11 by 2, padded": plane(regular(37, 11, 2, 5), regular(17, 3, 1, 1)),
    "sliding 13 by 4": plane(regular(61, 13, 4, 6), regular(7, 2)),
    "sliding, taller than the array": plane(regular(7, 13, 1, 6), regular(5, 3, 1, 1)),
    "sliding and doubling": plane(regular(23, 9), regular(29, 12)),
    "sliding, channels 3": plane(regular(23, 9, 1, 4), regular(7, 3, 1, 1), 3),
    "sliding, channels 17, stride 2": plane(regular(21, 8, 1, 2), regular(7, 3, 2, 1), 17, 1),
    "sliding, words": plane(regular(33, 16, 1, 7), regular(29, 16, 1, 7), 1, 2),
    "sliding, two planes": volume(regular(5, 2), regular(27, 9, 1, 4), regular(11, 3, 1, 1)),
    "sliding, blocks of padding": plane(regular(20, 9, 1, 13), regular(17, 3, 1, 1)),
    "sliding by 2, two planes": volume(regular(5, 2, 2, 1), regular(27, 9, 2, 4), regular(11, 2, 2)),
    "sliding, three planes, words": volume(regular(4, 3, 1, 1), regular(19, 9, 1, 4), regular(19, 11, 1, 5)),
    "63 x 63": plane(regular(67, 63, 1, 2), regular(69, 63), 1, 2),
    "63 x 63, padded": plane(regular(9, 63, 1, 31), regular(8, 63, 1, 31), 1, 2),
}
DOUBLING = {
    **{f"doubling {w}": Case(3, (regular(61, w, 1, w // 3),)) for w in (8, 9, 12, 15, 16, 31)},
    **{f"doubling {w}, two rows": plane(regular(7, 2, 2), regular(61, w, 1, w // 3)) for w in (8, 9, 12, 15, 16, 31)},
    **{f"doubling {w} by {s}": plane(regular(4, 2), regular(83, w, s, 3)) for w in (8, 15) for s in (2, 3, 5)},
    **{f"doubling {w}, dilated": plane(regular(3, 2), regular(71, w, 1, 4, 3)) for w in (8, 9, 15)},
    "doubling 9, dilated, by 2": plane(regular(3, 2), regular(71, 9, 2, 4, 3)),
    **{
        f"doubling {w}, channels {c}": plane(regular(3, 2), regular(41, w, 1, 3), c, 1)
        for w in (9, 16)
        for c in (3, 17)
    },
    **{
        f"doubling 12, channels {c}, by {s}": plane(regular(3, 1), regular(43, 12, s, 3), c, 1)
        for c in (3, 17)
        for s in (2, 5)
    },
}
ALONG = {
    **{f"along {w} by {s}": plane(regular(9, 2), regular(83, w, s, 3)) for w in (15, 16, 31) for s in range(1, 6)},
    "doubling 15, rows of 32": plane(regular(9, 2), regular(32, 15, 1, 7)),
    "along 15, rows of 33": plane(regular(9, 2), regular(33, 15, 1, 7)),
    "along 17, whole packs": plane(regular(7, 2), regular(64, 17, 1, 8)),
    "along 71, more padding than row": plane(regular(5, 3, 1, 1), regular(35, 71, 1, 35)),
    "along 17 by 5, columns that nobody reads": plane(regular(5, 2), regular(47, 17, 5)),
    "along 16 by 2, of which 32 columns are read": plane(regular(9, 2), regular(33, 16, 2)),
    "along 15, in pieces": Case(3, (regular(301, 15, 1, 7),)),
    "along 16 by 3, in pieces": Case(3, (regular(701, 16, 3, 7),)),
    "along, rows slide": plane(regular(33, 17, 1, 8), regular(45, 17, 1, 8)),
    "along, rows slide by 2": plane(regular(33, 17, 2, 8), regular(45, 19, 3, 9)),
    "along, two planes": volume(regular(5, 2), regular(19, 9, 1, 4), regular(41, 17, 1, 8)),
    **{f"along 16, channels {c}": plane(regular(3, 2), regular(41, 16, 1, 3), c, 1) for c in (8, 9, 17)},
    "doubling 16, channels 2": plane(regular(3, 2), regular(41, 16, 1, 3), 2, 1),
    **{f"along 19, channels 9, by {s}": plane(regular(3, 1), regular(43, 19, s, 3), 9, 1) for s in (2, 5)},
}
CHUNKS = {
    "chunks, 3/1": plane(regular(3, 3, 1, 1), regular(20011, 3, 1, 1), 1, 1),
    "chunks, 9/1": plane(regular(3, 1), regular(20011, 9, 1, 4), 1, 1),
    "chunks, 3/2": plane(regular(5, 3, 2, 1), regular(20011, 3, 2, 1), 1, 1),
    "chunks, 3/3": plane(regular(3, 2), regular(20011, 3, 3), 1, 1),
    "chunks, 9/5": plane(regular(3, 1), regular(20011, 9, 5, 4), 1, 1),
    "chunks, channels 3": plane(regular(3, 2), regular(8009, 3, 1, 1), 3, 1),
    "chunks, channels 17, 3/2": plane(regular(3, 1), regular(2003, 3, 2, 1), 17, 1),
    "chunks, channels 64, 2/2": plane(regular(5, 2, 2), regular(1001, 2, 2), 64, 1),
}
LONG = {
    "chunks, sliding": plane(regular(40, 9, 1, 4), regular(8009, 3, 1, 1), 1, 1),
    "chunks, rows and columns slide": plane(regular(14, 9, 1, 4), regular(8009, 17, 1, 8), 1, 1),
    "chunks, columns slide by 2": Case(3, (regular(40009, 17, 2, 8),)),
    "chunks, columns slide, channels 9": plane(regular(3, 1), regular(2003, 17, 1, 8), 9, 1),
    "chunks, columns slide, channels 9, by 2": plane(regular(3, 1), regular(4001, 17, 2, 8), 9, 1),
    "chunks, sliding and doubling": plane(regular(14, 9), regular(8009, 9, 1, 2), 1, 1),
}
BANDS = {
    f"rows of {n}, {min(n, 3)}/{s}": plane(regular(5, 3, 1, 1), regular(n, min(n, 3), s, int(n > 4)))
    for n in (1, 2, 3, 5, 7, 8, 12, 16, 17, 20)
    for s in range(1, 6)
}
CELLS = {
    **{f"3/{s}": plane(regular(9, 3, s, 1), regular(150, 3, s, 1)) for s in range(1, 6)},
    **{f"5/{s}, narrow": plane(regular(13, 5, s, 2), regular(19, 5, s, 2)) for s in range(1, 6)},
    **{f"2/{s}, gaps": plane(regular(13, 2, s), regular(17, 2, s)) for s in (3, 4, 5)},
    **{f"3/{s}, channels {c}": plane(regular(9, 3, s, 1), regular(13, 3, s, 1), c) for s in (1, 2, 4) for c in (3, 17)},
    "3/1, channels 3, wide": plane(regular(5, 3, 1, 1), regular(67, 3, 1, 1), 3),
    "3-D, 3/1": volume(regular(4, 3, 1, 1), regular(5, 3, 1, 1), regular(101, 3, 1, 1)),
    "3-D, 3/2": volume(regular(5, 3, 2, 1), regular(7, 3, 2, 1), regular(101, 3, 2, 1)),
    "3-D, 3/3, channels 3": volume(regular(5, 2, 3), regular(7, 3, 3), regular(11, 3, 3), 3),
    **{
        f"windows of padding alone, rows of {n}": plane(regular(5, 2, 1, 3), regular(n, 2, 1, 3))
        for n in (4, 5, 10, 43, 90)
    },
    "windows of padding alone, channels 3": plane(regular(5, 2, 1, 3), regular(9, 2, 1, 3), 3),
    "dilated, by 2": plane(regular(13, 3, 2, 2, 2), regular(107, 3, 2, 2, 3)),
    **{
        f"{w}/{s}, far apart": plane(regular(9, 2), regular(211, w, s, 1))
        for w, s in ((4, 4), (5, 5), (7, 7), (8, 8), (9, 8), (16, 16), (12, 20), (17, 30))
    },
    "7/1, wide": plane(regular(11, 7, 1, 3), regular(131, 7, 1, 3)),
    "7/3, wide": plane(regular(11, 7, 3, 3), regular(131, 7, 3, 3)),
}
UNEVEN = {
    "bins": plane(uneven(17, 5), uneven(23, 7)),
    "bins, channels 3": plane(uneven(17, 5), uneven(23, 7), 3),
    "bins, channels 17": plane(uneven(7, 5), uneven(11, 4), 17, 1),
    "more bins than elements": plane(uneven(3, 7), uneven(5, 11)),
    "bins of rows alone": plane(uneven(17, 5), regular(101, 3, 1, 1)),
    "bins of columns alone": plane(regular(11, 9, 1, 4), uneven(101, 13)),
    "bins, 3-D": volume(uneven(5, 2), uneven(7, 3), uneven(11, 4)),
    "bins of many": plane(uneven(37, 2), uneven(43, 2)),
    "one bin": plane(uneven(7, 1), uneven(9, 1)),
    "bins of rows of 31": plane(uneven(9, 4), uneven(31, 7)),
    "bins of rows of 32": plane(uneven(9, 4), uneven(32, 7)),
    "empty bins": plane(bins(9, (0, 0), (0, 3), (3, 0), (5, 4)), bins(13, (0, 2), (2, 0), (2, 5), (13, 0))),
    "an empty bin of one element": volume(bins(1, (0, 0)), regular(4, 2, 2), regular(8, 2, 2)),
}
FEW = {
    "31 x 31": plane(regular(39, 31), regular(41, 31, 1, 2), 1, 2),
    "31 x 31, padded": plane(regular(17, 31, 1, 15), regular(13, 31, 1, 15), 1, 2),
    "31 x 31, channels 17": plane(regular(33, 31), regular(34, 31), 17, 1),
    "31 x 31 by 8, bands of rows": plane(regular(401, 31, 23), regular(409, 31, 17), 1, 1),
    "windows far apart": plane(regular(40, 2, 9), regular(50, 2, 9)),
    "windows far apart, channels 35": plane(regular(20, 2, 9), regular(29, 2, 9), 35, 1),
    "300 taps, dilated": plane(regular(41, 15, 2, 0, 2), regular(53, 20, 3, 0, 2)),
    "global": plane(regular(37, 37), regular(41, 41)),
    "global, small": plane(regular(3, 3), regular(5, 5)),
    "global, channels 3": plane(regular(7, 7), regular(9, 9), 3),
    "global, channels 35": plane(regular(7, 7), regular(9, 9), 35, 1),
    "global, a long row": Case(2, (regular(3001, 3001),)),
    "global, 3-D": volume(regular(3, 3), regular(5, 5), regular(37, 37)),
    "over the last axis alone": plane(regular(9, 2), regular(37, 37)),
    "over the last axis alone, channels 3": plane(regular(9, 3, 2, 1), regular(37, 37), 3),
}
WHOLE_ROWS = {
    **{
        f"whole rows of {n}": Case(70, (regular(n, n),))
        for n in (4, 5, 8, 9, 15, 16, 17, 33, 49, 63, 64, 65, 67, 129, 130, 257, 1000)
    },
    "whole rows, in two planes": volume(regular(2, 2), regular(3, 2), regular(37, 37)),
    "whole rows, some in the padding": plane(regular(5, 3, 1, 2), regular(37, 37)),
    "whole rows, one window of three of five": plane(regular(5, 3, 3), regular(37, 37), 1, 70),
    "whole rows, one window, dilated": plane(regular(5, 2, 9, 0, 3), regular(16, 16), 1, 7),
    "whole rows, one window in two planes": volume(regular(3, 2, 5), regular(5, 2, 9), regular(37, 37)),
}
IN_PLACE = {  # rows that are read as they lie; the last one is not, as no array follows it
    **{
        f"{w}/{s}, rows of {n}": Case(5, (regular(n, w, s),))
        for n in (511, 512, 1000)
        for w, s in ((1, 1), (1, 3), (2, 2), (3, 1), (3, 2), (3, 3), (4, 4), (5, 5), (6, 7), (8, 8), (9, 8), (12, 13))
    },
    "2/2, channels 17, rows of 40": Case(5, (regular(40, 2, 2),), 17),
    "3/2, rows of 600, every second": plane(regular(7, 1, 2), regular(600, 3, 2)),
    "9/1, rows of 600": Case(5, (regular(600, 9),)),
    **{
        f"{w}/{s}, rows of {n}": Case(5, (regular(n, w, s),))
        for w, s, n in ((2, 9, 1000), (2, 400, 1000), (4, 40, 1000), (2, 1000, 100_000))
    },
    "9/9, rows of 12": Case(70, (regular(12, 9, 9),)),
    "9/9, rows of 27": Case(70, (regular(27, 9, 9),)),
    "12/13, rows of 27": Case(70, (regular(27, 12, 13),)),
}
EXPANDED = {  # small planes, and rows with few ends of windows
    **{
        f"3-D of {n}, {w}/{s}": volume(*[regular(n, w, s, w // 3)] * 3)
        for n in (4, 7, 12)
        for w, s in ((2, 2), (3, 2), (3, 3))
    },
    "3-D bins": volume(uneven(4, 3), uneven(4, 1), uneven(5, 2)),
    "windows as large as planes": plane(regular(4, 7, 7, 3), regular(4, 7, 7, 3), 1, 70),
    "rows of 7, one window": Case(70, (regular(7, 7),)),
    "rows of 50, 8/8": Case(70, (regular(50, 8, 8),)),
    "few bins in a row": Case(3, (uneven(2003, 7),)),
    "few bins in a longer row": Case(3, (uneven(9001, 7),)),
    "few windows in a row": Case(3, (regular(9000, 2000, 1500, 700),)),
    "few bins, empty ones": Case(3, (bins(5000, (0, 0), (0, 2000), (1900, 200), (2100, 0), (3000, 1999)),)),
    "one winner, channels 9": plane(regular(17, 17), regular(19, 19), 9),
    "one winner of many": Case(2, (regular(5003, 5003),)),
    "one winner of many, in parts": Case(2, (regular(20_011, 20_011),)),
    "one winner of many, channels 17": plane(regular(97, 97), regular(101, 101), 17, 2),
}
AT_ONCE = {  # windows of channels that are reduced in one step, where all their rows are there
    "2/2, channels 5": plane(regular(9, 2, 2), regular(11, 2, 2), 5),
    "2/2, channels 16, padded": plane(regular(9, 2, 2, 1), regular(11, 2, 2, 1), 16, 1),
    "2/3, channels 17, in two planes": volume(regular(3, 1, 2), regular(7, 2, 3), regular(8, 2, 3), 17),
    "2/1, channels 50": plane(regular(5, 2, 1), regular(6, 2, 1), 50, 1),
    "3/2, channels 33, dilated": plane(regular(11, 3, 2, 2, 2), regular(13, 3, 2, 2, 3), 33, 1),
    "3/3, channels 20, padding at both ends": plane(regular(7, 3, 3, 1), regular(8, 3, 3, 1), 20, 1),
    "3/2, channels 64, one row": plane(regular(3, 3, 2), regular(9, 3, 2, 1), 64, 1),
}
PICKED = {  # planes so small that a few packs hold them
    **{
        f"planes of {n}, {w}/{s}": plane(regular(n, w, s, w // 3), regular(n, w, s, w // 3))
        for n in (3, 4, 5, 6, 7, 8, 10)
        for w, s in ((2, 2), (3, 2), (3, 3))
    },
    **{f"planes of {n}, {w}/1": plane(regular(n, w), regular(n, w)) for n in (2, 3, 4, 5) for w in (1, 2)},
    **{f"planes of {n}, 2/1": plane(regular(n, 2), regular(n, 2)) for n in (6, 7, 8)},
    "planes of 5 by 6, 2/1": plane(regular(5, 2), regular(6, 2)),  # so many picks as packs of eight lanes may take
    "planes of 7, 3/1": plane(regular(7, 3), regular(7, 3)),
    "planes of 5, 2/2, dilated": plane(regular(5, 2, 2, 1, 3), regular(5, 2, 2, 1, 3)),
    "planes of 4 by 7, 3 by 2": plane(regular(4, 3, 2, 1), regular(7, 2, 3)),
    "planes of 1, 3/1, taps of padding alone": plane(regular(1, 3, 1, 1), regular(1, 3, 1, 1)),
    "planes of 3 by 1, 2/1, taps of padding alone": plane(regular(3, 2), regular(1, 2, 1, 1)),
    "planes of 2, 3/4, padding alone": plane(regular(2, 3, 4, 3), regular(2, 3, 4, 3)),
    "planes of 7, a column that nobody reads": plane(regular(7, 2, 3), regular(7, 1, 3)),
    "rows of 7 alone, 3/2": Case(5, (regular(7, 3, 2, 1),)),
    "rows of 16 alone, 2/2": Case(5, (regular(16, 2, 2),)),
    **{f"volumes of {n}, 2/{s}": volume(*[regular(n, 2, s)] * 3) for n in (2, 3) for s in (1, 2)},
    "volumes of 3, 2/2, padded": volume(*[regular(3, 2, 2, 1)] * 3),
    "windows of sixteen taps": plane(regular(4, 4, 2, 1), regular(5, 4, 3)),
}
JOINED = {  # windows that read whole rows, which are short: what they read lies in one piece
    **{
        f"{w}/{s}, whole rows of {n}": plane(regular(29, w, s, w // 3), regular(n, n))
        for n in (1, 2, 7, 16)
        for w, s in ((2, 2), (3, 1), (6, 5))
    },
    "3/2, whole rows of 2": plane(regular(29, 3, 2, 1), regular(2, 2)),
    "1/1, whole rows of 4": plane(regular(29, 1), regular(4, 4)),
    "dilated, whole rows of 2": plane(regular(29, 3, 2, 2, 2), regular(2, 2)),
    "bins of whole rows of 3": plane(uneven(17, 5), regular(3, 3)),
    "one bin, not all, of whole rows of 2": plane(bins(9, (3, 4)), regular(2, 2)),
    "whole rows of 20, a row further each": plane(regular(40, 20), regular(20, 20)),
    "empty bins of whole rows of 2": plane(bins(9, (0, 0), (0, 3), (3, 0), (5, 4)), regular(2, 2)),
    "2/2, whole planes of 2 by 3": volume(regular(9, 2, 2), regular(2, 2), regular(3, 3)),
    "3/2, planes of 1": volume(regular(9, 3, 2, 1), regular(1, 1), regular(1, 1)),
    "3/1, rows of 1, in planes": volume(regular(4, 2, 1), regular(9, 3, 1, 1), regular(1, 1)),
    "2/2, rows of 1, channels 3": plane(regular(9, 2, 2), regular(1, 1), 3),
    "windows of padding alone, rows of 1": plane(regular(5, 2, 1, 3), regular(1, 1)),
}
FOLDED = {
    f"{mode}, {name}": case
    for mode, fold in ((mode, functools.partial(regular, mode=mode)) for mode in FOLDS if mode != "absent")
    for name, case in {
        "3/1": plane(fold(9, 3, 1, 1), fold(150, 3, 1, 1)),
        "3/2": plane(fold(9, 3, 2, 1), fold(67, 3, 2, 1)),
        "5/3, dilated": plane(fold(17, 5, 3, 4, 2), fold(41, 5, 3, 4, 2)),
        "rows of 7": plane(fold(7, 3, 2, 1), fold(7, 3, 2, 1)),
        "rows alone": plane(fold(9, 3, 1, 1), regular(37, 3, 1, 1)),
        "columns alone": plane(regular(9, 3, 1, 1), fold(37, 3, 1, 1)),
        "sliding and doubling": plane(fold(27, 9, 1, 4), fold(31, 11, 1, 5)),
        "channels 3": plane(fold(9, 3, 2, 1), fold(13, 3, 2, 1), 3),
        "channels 17": plane(fold(7, 3, 1, 1), fold(11, 5, 1, 2), 17),
        "3-D": volume(fold(4, 3, 1, 1), fold(5, 3, 1, 1), fold(21, 3, 1, 1)),
        "along 17": plane(fold(27, 9, 1, 4), fold(39, 17, 1, 8)),
        "along 17 by 3, channels 8": plane(fold(5, 2), fold(39, 17, 3, 8), 8, 1),
        "columns that nobody reads": plane(fold(9, 3, 1, 1), fold(40, 3, 5, 2)),
        "chunks": plane(regular(3, 2), fold(20011, 3, 1, 1), 1, 1),
    }.items()
}
CASES = {
    **SLIDING,
    **DOUBLING,
    **ALONG,
    **CHUNKS,
    **BANDS,
    **CELLS,
    **UNEVEN,
    **FEW,
    **WHOLE_ROWS,
    **IN_PLACE,
    **EXPANDED,
    **AT_ONCE,
    **PICKED,
    **JOINED,
    **FOLDED,
}
SOME = [
    "3/2, whole rows of 2",
    "bins of whole rows of 3",
    "sliding 11 by 2, padded",
    "sliding, two planes",
    "doubling 9, two rows",
    "doubling 15 by 2",
    "doubling 12, channels 3, by 2",
    "along 15 by 2",
    "along 16 by 2, of which 32 columns are read",
    "along 15, in pieces",
    "along 16 by 3, in pieces",
    "along, rows slide",
    "along 16, channels 9",
    "rows of 7, 3/1",
    "rows of 12, 3/2",
    "3/4",
    "8/8, far apart",
    "9/8, far apart",
    "3/1, channels 3",
    "3/2, channels 17",
    "3-D, 3/2",
    "bins, channels 3",
    "31 x 31",
    "global, channels 3",
    "whole rows of 67",
    "rows of 7, one window",
    "3/3, rows of 1000",
    "8/8, rows of 1000",
    "few bins in a row",
    "3-D bins",
    "3-D of 7, 3/2",
    "9/9, rows of 12",
    "9/9, rows of 27",
    "12/13, rows of 27",
    "whole rows, one window of three of five",
    "2/2, channels 16, padded",
    "3/2, channels 33, dilated",
    "2/1, channels 50",
    "planes of 4, 2/2",
    "planes of 7, 3/2",
    "planes of 8, 3/3",
    "planes of 5, 2/2, dilated",
    "planes of 1, 3/1, taps of padding alone",
    "planes of 3 by 1, 2/1, taps of padding alone",
    "rows of 7 alone, 3/2",
    "volumes of 3, 2/2, padded",
]


# ---- the oracle ----


@functools.cache
def taps_of(case):
    """The flat index that each tap of each window reads, -1: none; and how many taps count."""
    flat, counting = np.zeros((1, 1), int), np.ones(1, int)
    for axis in {**CASES, **LONG}[case].axes:
        both = np.where(
            (flat < 0)[:, None, :, None] | (axis.places < 0)[None, :, None, :],
            -1,
            flat[:, None, :, None] * axis.size + axis.places[None, :, None, :],
        )
        flat = both.reshape(len(flat) * len(axis.places), -1)
        counting = np.outer(counting, axis.counting).ravel()
    return flat, counting


def selected(case, body, x, g):
    """y, kept offsets, flat indices, gx of x and g shaped (outer, everything pooled, inner).

    The last NaN wins, else the first best.
    """
    flat, _ = taps_of(case)
    sign, there, inner = 1 if body == "max" else -1, flat >= 0, x.shape[2]
    y, kept, at, gx = np.empty(g.shape), np.empty(g.shape, int), np.empty(g.shape, int), np.empty(x.shape)
    for o, elements in enumerate(x):
        values = np.concatenate([sign * elements, np.full((1, inner), -np.inf)])[flat]
        nan = np.isnan(values)
        most = np.where(nan, -np.inf, values).max(1)
        first = ((values == most[:, None]) & there[:, :, None]).argmax(1)
        best = np.where(nan.any(1), flat.shape[1] - 1 - nan[:, ::-1].argmax(1), first)
        nobody = ~there.any(1)[:, None]
        y[o] = sign * np.where(nan.any(1), np.nan, most)
        kept[o] = np.where(nobody, -1, best)
        at[o] = np.where(nobody, -1, np.take_along_axis(flat, best, 1))
        gx[o] = sent(at[o], g[o], len(elements))
    return y, kept, at, gx


def sent(at, g, n):
    """What n elements are sent by cells (cells, inner) that send g to the element `at`, where that is one."""
    inner = g.shape[1]
    to = np.where(at < 0, n, at) * inner + np.arange(inner)
    return np.bincount(to.ravel(), g.ravel(), (n + 1) * inner)[: n * inner].reshape(n, inner)


def summed(case, body, x, g, count_include_pad=False, divisor=0.0):
    """y and gx in float64."""
    flat, counting = taps_of(case)
    present = (flat >= 0).sum(1)
    by = (
        np.ones(len(flat))
        if body == "sum"
        else divisor + 0 * present
        if divisor
        else counting
        if count_include_pad
        else present
    )
    y, gx = np.empty(g.shape), np.empty(x.shape)
    for o, elements in enumerate(x):
        with np.errstate(divide="ignore", invalid="ignore"):  # a mean of nothing
            y[o] = np.concatenate([elements, np.zeros((1, x.shape[2]))])[flat].sum(1) / by[:, None]
            shares = (g[o] / by[:, None])[:, None]
        share = np.broadcast_to(shares, (*flat.shape, x.shape[2]))
        gx[o] = sent(flat.reshape(-1, 1), share.reshape(-1, x.shape[2]), len(elements))
    return y, gx


# ---- pooling ----


def plan_of(case, body, dtype, copies=1, **words):
    shape = case.shape(0, case.outer * copies)
    tables = [axis.table for axis in case.axes]
    return _native.Plan(body, dtype, shape, range(1, 1 + len(tables)), tables, range(len(shape)), **words)


def copies_of(case, name):
    """So many that threads share the work."""
    cells = math.prod(case.shape(1))
    cost = max(4 * (cells + math.prod(case.shape(0))), cells * taps_of(name)[0].shape[1])
    return min(-(-SHARED // cost), 10_000 if name in PICKED else 1000)


def arrays(name, special=False, seed=0):
    """Small integers, so that ties are common and sums exact; with `special` also NaN, infinities and -0."""
    case, rng = {**CASES, **LONG}[name], np.random.default_rng(seed + len(name))
    shapes = [(case.outer, math.prod(case.shape(part)[1:-1]), case.inner) for part in (0, 1)]
    x = rng.integers(-4, 5, shapes[0]).astype("f8")
    if special:
        x = np.where(rng.random(x.shape) < 0.1, rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.0], x.shape), x)
    return case, x, rng.integers(-9, 10, shapes[1]).astype("f8")


def guarded(n, dtype, lead=3):
    """n elements to write, off the lines of the caches, and a check that nothing around them was written."""
    memory, mark = np.full(n + 160, 77, dtype), np.array(77).astype(dtype)

    def untouched():
        assert (memory[: 64 + lead] == mark).all() and (memory[64 + lead + n :] == mark).all()

    return memory[64 + lead :][:n], untouched


def pooled(p, case, x, g, threads=0):
    """y without offsets, y, kept, gx: all that there is, each as one row for each plane."""
    outer = len(x) // case.outer * case.outer
    results, checks = [], []

    def fresh(like, part, dtype):
        flat, check = guarded(like.size, dtype)
        checks.append(check)
        results.append(flat.reshape(outer, -1))
        return flat.reshape(case.shape(part, outer))

    x, g = x.reshape(case.shape(0, outer)), g.reshape(case.shape(1, outer))
    p.forward(x, fresh(g, 1, x.dtype), threads=threads)
    y, kept = fresh(g, 1, x.dtype), fresh(g, 1, p.kept_dtype) if p.kept_dtype else None
    p.forward(x, y, kept, threads=threads)
    p.backward(g, fresh(x, 0, x.dtype), kept, threads=threads)
    for check in checks:
        check()
    return results


def each_way(case, name, body, dtype, x, g, **words):
    """What every instruction set gives for one copy of the planes, and for many by 1, 2 and 7 threads.

    By two the rows are read in order, else together: they give the same bits.
    """
    many = copies_of(case, name)
    for copies, threads in [(1, (1,)), *([(many, (1, 2, 7))] if many > 1 else [(1, (2, 7))])]:
        p = plan_of(case, body, dtype, copies, **words)
        spread = [np.concatenate([array.astype(dtype)] * copies) for array in (x, g)]
        for instructions, n in itertools.product(SETS, threads):
            _native.use_instruction_set(instructions)
            _native.use_row_order("in order" if n == 2 else "together")
            yield [part.reshape(copies, case.outer, -1) for part in pooled(p, case, *spread, n)]


@pytest.fixture(autouse=True)
def as_it_was():
    before = _native.instruction_set()
    yield
    _native.use_instruction_set(before)
    _native.use_row_order("auto")


# ---- values ----


def check_selection(name, body, special, dtypes=DTYPES):
    case, x, g = arrays(name, special)
    y, kept, _, gx = (part.reshape(case.outer, -1) for part in selected(name, body, x, g))
    for dtype in dtypes:
        wanted = [
            y.astype(dtype),
            y.astype(dtype),
            kept.astype(plan_of(case, body, dtype).kept_dtype),
            gx.astype(dtype),
        ]
        for results in each_way(case, name, body, dtype, x, g):
            for got, right in zip(results, wanted, strict=True):
                everywhere = np.broadcast_to(right, got.shape)
                if not np.array_equal(got, everywhere, equal_nan=got.dtype.kind == "f"):  # which is quicker
                    same(got, everywhere)


def check_sum(name, body, words, dtypes=DTYPES):
    """The first result is right, and all others are the same to the last bit."""
    case, x, g = arrays(name)
    y, gx = (part.reshape(case.outer, -1) for part in summed(name, body, x, g, **words))
    magnitude = summed(name, body, x, abs(g), **words)[1].reshape(case.outer, -1)
    for dtype in dtypes:
        results = list(each_way(case, name, body, dtype, x, g, **words))
        first = [part[0] for part in results[0]]
        same(first[0], y.astype(dtype), ulp=0 if body == "sum" else 1)
        ulp = 0 if body == "sum" else 5 if dtype == "float32" else 64
        assert (abs(first[2] - gx) <= ulp * np.finfo(dtype).eps * magnitude).all()
        for alone, again, gradient in results:
            assert all(((part == first[0]) | (np.isnan(part) & np.isnan(first[0]))).all() for part in (alone, again))
            assert (gradient == first[2]).all()


@pytest.mark.parametrize(
    ("body", "special", "dtypes"), [("max", False, DTYPES), ("max", True, DTYPES), ("min", True, ["float32"])]
)
@pytest.mark.parametrize("name", CASES)
def test_selections_are_those_of_the_oracle(name, body, special, dtypes):
    check_selection(name, body, special, dtypes)


SUMS = {
    "sum": ("sum", {}, DTYPES),
    "mean": ("mean", MEANS["present"], DTYPES),
    "padding counts": ("mean", MEANS["padding counts"], ["float32"]),
    "divisor": ("mean", MEANS["divisor"], ["float32"]),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [*itertools.product(CASES, ["sum", "mean"]), *itertools.product(SOME, ["padding counts", "divisor"])],
)
def test_sums_are_those_of_the_oracle(name, kind):
    check_sum(name, *SUMS[kind])


@pytest.mark.parametrize("name", LONG)
def test_long_rows_that_slide_are_cut(name):
    check_selection(name, "max", True, ["float32"])
    check_sum(name, "mean", MEANS["present"], ["float32"])


@pytest.mark.parametrize("zeros", [False, True], ids=["", "mostly -0"])
@pytest.mark.parametrize("body", ["max", "sum", "mean"])
@pytest.mark.parametrize("name", [*SOME, "sliding, blocks of padding", *CHUNKS, *LONG])
def test_no_bit_depends_on_the_threads_or_the_instruction_set(name, body, zeros):
    case, x, g = arrays(name)
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal(x.shape), rng.standard_normal(g.shape)
    if zeros:
        x[rng.random(x.shape) < 0.99] = -0.0
    results = [
        [part[copy].tobytes() for part in parts]
        for parts in each_way(case, name, body, "float32", x, g)
        for copy in (0, -1)
    ]
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("window", [4096, 4097])  # up to the first columns slide, beyond they double
def test_means_of_thousands_of_columns(window):
    x = np.random.default_rng(5).standard_normal((3, 9001)).astype("f4")
    sums = np.pad(x.astype("f8"), [(0, 0), (window // 2 + 1, window // 2)]).cumsum(1)
    wanted = (sums[:, window:] - sums[:, :-window]) / window
    results = []
    for name in SETS:
        _native.use_instruction_set(name)
        results.append(
            poolwise.avg_pool(x, (window,), stride=1, padding=window // 2, count_include_pad=True, kernel="native")
        )
        np.testing.assert_allclose(results[-1], wanted, rtol=1e-6, atol=1e-7)
    assert all((result == results[0]).all() for result in results)


LIE_OTHERWISE = ("whole rows of 17", "whole rows, some in the padding", "3/1, whole rows of 7", "6/5, whole rows of 2")


@pytest.mark.parametrize("body", ["max", "mean"])
@pytest.mark.parametrize("name", [*PICKED, *AT_ONCE, *LIE_OTHERWISE])
def test_arrays_that_lie_otherwise_are_as_dense_ones(name, body):
    case, rng = CASES[name]._replace(outer=50), np.random.default_rng(7)
    p, shape = plan_of(case, body, "float32"), case.shape(0)
    x = rng.standard_normal(shape).astype("f4")
    spread, moved = np.zeros((2 * shape[0], *shape[1:]), "f4"), np.zeros(x.size + 1, "f4")[1:].reshape(shape)
    wide = np.zeros((*shape[:2], shape[2] + 3, *shape[3:]), "f4")
    others = {
        "every second": spread[::2],
        "backwards": spread[: shape[0]][::-1],
        "moved": moved,
        "wide": wide[:, :, : shape[2]],
    }
    bytes_apart = np.zeros(x.nbytes + 1, "u1")[1:].view("f4").reshape(shape)
    for instructions in SETS:
        _native.use_instruction_set(instructions)
        wanted = np.empty(case.shape(1), "f4")
        kept, known = (np.empty(wanted.shape, p.kept_dtype) if body == "max" else None for _ in range(2))
        p.forward(x, wanted, known)
        for how, other in (others | {"unaligned": bytes_apart}).items():
            other[...] = x
            y = np.empty_like(wanted)
            if body == "max":
                p.forward(other, y, kept)
                assert kept.tobytes() == known.tobytes(), how
            p.forward(other, y)
            if body == "mean":  # cells may serve, which add in another order
                np.testing.assert_allclose(y, wanted, rtol=2e-6, atol=1e-6)
            else:
                assert y.tobytes() == wanted.tobytes(), how
        same_plane = np.broadcast_to(x[:1], shape)
        p.forward(same_plane, y)
        p.forward(np.ascontiguousarray(same_plane), wanted)
        assert y.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtypes", [("float32", "float64", "float16"), ("int8", "int32")], ids=["floats", "integers"])
@pytest.mark.parametrize(
    "name", [*WHOLE_ROWS, "5/5, rows of 511", "9/8, rows of 1000", "few bins in a row", "5/5, narrow"]
)
def test_what_is_not_above_zero_wins_nothing(name, dtypes):
    case, x, g = arrays(name, special="float32" in dtypes)
    x[case.outer // 2 :] -= 4  # most of whose windows have nothing above 0
    y, kept = (part.reshape(case.outer, -1) for part in selected(name, "max", x, g)[:2])
    nobody = y <= 0
    for dtype, instructions, threads in itertools.product(dtypes, SETS, (1, 7)):
        _native.use_instruction_set(instructions)
        p = plan_of(case, "relumax", dtype)
        found, places = (np.empty(case.shape(1), kind) for kind in (dtype, p.kept_dtype))
        p.forward(x.astype(dtype).reshape(case.shape(0)), found, places, threads=threads)
        same(found.reshape(y.shape), np.where(nobody, 0, y).astype(dtype))
        same(places.reshape(y.shape), np.where(nobody, -1, kept).astype(p.kept_dtype))


# ---- half precision ----


def halves(values, dtype):
    """As the compiled module takes them, the nearest ones; bfloat16 as its bits."""
    if dtype == "float16":
        return values.astype("f2")
    bits = values.astype("f4").view("u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2")


def numbers(array, dtype):
    return array.astype("f8") if dtype == "float16" else (array.astype("u4") << 16).view("f4").astype("f8")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("body", ["max", "sum", "mean"])
@pytest.mark.parametrize("name", [*SOME, "63 x 63, padded", "bins of many", "5/1, narrow"])
def test_half_precision_is_rounded_once(name, body, dtype):
    case, x, g = arrays(name)
    y, gx = [selected(name, body, x, g)[i] for i in (0, 3)] if body == "max" else summed(name, body, x, g)
    copies = 40 if name in PICKED else 1  # so many as those engines ask for
    p = plan_of(case, body, dtype, copies)
    x, g, y, gx = (np.concatenate([part.reshape(case.outer, -1)] * copies) for part in (x, g, y, gx))
    for instructions, threads in itertools.product(SETS, (1, 7)):
        _native.use_instruction_set(instructions)
        alone, *_, gradient = pooled(p, case, halves(x, dtype), halves(g, dtype), threads)
        for got, wanted in [(alone, y), (gradient, gx)]:
            nearest, step = (
                numbers(halves(wanted.reshape(got.shape), dtype), dtype),
                2.0 ** (-10 if dtype == "float16" else -7),
            )
            assert (
                abs(numbers(got, dtype) - nearest) <= (step * abs(nearest) + 1e-3 * step if body == "mean" else 0)
            ).all()


def quotients(x, divisor):
    """By a mean over single elements."""
    y, one = np.empty_like(x), regular(x.size, 1, 1).table
    _native.Plan("mean", "float32", x.shape, [0], [one], [0], divisor=divisor).forward(x, y)
    return y


@pytest.mark.parametrize("divisor", [7, 49])
def test_means_are_quotients_of_whatever_float32_holds(divisor):
    """Made from reciprocals: of all significands, in as many exponents as there are others left."""
    every = np.arange(2**23, dtype="u4")
    x = (every | ((1 + every % 254) << 23)).view("f4")
    for instructions in SETS:
        _native.use_instruction_set(instructions)
        for here in (x, (every | np.uint32(127 << 23)).view("f4")):
            assert (quotients(here, divisor).view("u4") == (here / np.float32(divisor)).view("u4")).all()


@pytest.mark.parametrize("divisor", [*range(1, 132), 1000, 2.5, 0.3, 2.0**-100, 2.0**-130, 1e-20, 1e30])
def test_means_of_rare_numbers_are_quotients(divisor):
    rng = np.random.default_rng(0)
    rare = np.array([0, -0.0, 1, -3e-38, 1e-45, 3e38, -np.inf, np.inf, np.nan], "f4")
    x = np.concatenate(
        [np.repeat(rare, 37), rng.choice(rare, 999), rng.standard_normal(3001).astype("f4"), [-0.0] * 64]
    )
    x = x.astype("f4")
    with np.errstate(over="ignore", under="ignore"):
        wanted = x / np.float32(divisor)
    for instructions in SETS:
        _native.use_instruction_set(instructions)
        y = quotients(x, divisor)
        np.testing.assert_array_equal(y, wanted)
        assert (np.signbit(y) == np.signbit(wanted))[~np.isnan(wanted)].all()


# ---- norms ----


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *itertools.product([*CASES, *LONG], ["float32"]),
        *itertools.product([*SOME, *WHOLE_ROWS, *AT_ONCE], ["float64"]),
        *itertools.product(SOME, ["float16", "bfloat16"]),
    ],
)
def test_norms_are_those_of_the_oracle(name, dtype):
    case, x, g = arrays(name)
    squares, _ = summed(name, "sum", x * x, g)
    copies = copies_of(case, name)
    for instructions, (n, threads) in itertools.product(SETS, [(1, 1), *((copies, n) for n in (1, 2, 7))]):
        _native.use_instruction_set(instructions)
        many = np.concatenate([x.astype(dtype) if dtype in ("float32", "float64") else halves(x, dtype)] * n)
        flat, untouched = guarded(n * g.size, many.dtype)
        plan_of(case, "norm", dtype, n).forward(
            many.reshape(case.shape(0, n * case.outer)), flat.reshape(case.shape(1, n * case.outer)), threads=threads
        )
        untouched()
        wanted = np.sqrt(squares).ravel()
        wanted = wanted.astype(dtype) if dtype in ("float32", "float64") else halves(wanted.astype("f4"), dtype)
        assert (flat.reshape(n, -1) == wanted).all()


def test_a_norm_neither_overflows_nor_vanishes_nor_hides_nan():
    x = np.array([[3e38, -3e38, 0, 0], [1e-44, 0, 0, 0], [np.nan, np.inf, 1, 2], [-np.inf, 1, 1, 1]], "f4")
    y = poolwise.lp_pool(x, 2, axes=1, kernel="native")
    same(y, poolwise.lp_pool(x, 2, axes=1, kernel="reference"))


# Shape, and arguments of pool, of each way in which windows lie.
NORMS = {
    "2x2": ((3, 9, 20), {"window": (2, 2)}),
    "overlapping, padded": ((2, 7, 9), {"window": (3, 3), "stride": 2, "padding": 1}),
    "channels last": ((4, 9, 8, 5), {"window": (3, 2), "stride": 1, "axes": (1, 2)}),
    "all of a row": ((3, 40), {"window": (40,), "axes": (1,)}),
    "sliding": ((2, 30, 30), {"window": (9, 9), "stride": 1}),
    "small planes": ((30, 8, 8), {"window": (2, 2), "axes": (1, 2)}),
    "dilated": ((3, 30), {"window": (5,), "dilation": 2, "axes": (1,)}),
}


def rare(shape, kind, rng):
    """Numbers whose squares overflow, vanish or are none, alone and beside others."""
    x = rng.standard_normal(shape)
    if kind == "anything":
        some = [0, -0.0, 1, -2, np.inf, -np.inf, np.nan, 1.7e308, -1.7e308, 5e-324, 1e-200]
        return rng.choice(some, shape, p=[0.2, 0.1, 0.2, 0.1, 0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 0.04])
    scales = {"large": 1e200, "small": 1e-200, "tiny": 1e-320, "zeros": 1e-310}
    x *= scales[kind] if kind in scales else 10.0 ** rng.integers(-320, 300, shape)
    return np.where(rng.random(shape) < 0.7, 0, x) if kind == "zeros" else x


@pytest.mark.parametrize("kind", ["large", "small", "tiny", "zeros", "mixed", "anything"])
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_float64_neither_overflow_nor_vanish(name, kind):
    (shape, arguments), rng = NORMS[name], np.random.default_rng(len(kind))
    x = rare(shape, kind, rng)
    where = rng.random(shape) < 0.6
    for instructions, mask in itertools.product(SETS, (None, where)):
        _native.use_instruction_set(instructions)
        with np.errstate(all="ignore"):
            wanted = poolwise.lp_pool(x, where=mask, kernel="reference", **arguments)
            y = poolwise.lp_pool(x, where=mask, kernel="native", **arguments)
            np.testing.assert_allclose(y, wanted, rtol=1e-14, atol=1e-323)
            g = rng.standard_normal(y.shape)
            own, gradient = (
                poolwise.pool_backward(g, x, poolwise.Lp(), where=mask, kernel=kernel, **arguments)
                for kernel in ("native", "reference")
            )
            np.testing.assert_allclose(own, gradient, rtol=1e-12, atol=1e-13)


def test_norms_are_computed_again_by_any_number_of_threads():
    x = np.random.default_rng(0).standard_normal((64, 90, 91)) * 10.0 ** np.linspace(-310, 307, 64)[:, None, None]
    y = [np.empty((64, 45, 45)) for _ in range(3)]
    plan = _native.Plan(
        "norm", "float64", x.shape, (1, 2), [regular(90, 2, 2).table, regular(91, 2, 2).table], range(3)
    )
    for threads, out in zip((1, 2, 7), y, strict=True):
        plan.forward(x, out, threads=threads)
    assert (y[0] == y[1]).all()
    assert (y[0] == y[2]).all()
    np.testing.assert_allclose(
        y[0][::9], poolwise.lp_pool(x[::9], window=(2, 2), kernel="reference"), rtol=1e-14, atol=1e-323
    )


def test_a_step_beyond_all_that_there_is():
    assert poolwise.max_pool(np.arange(10.0).reshape(5, 2), (2, 2), stride=(2**62, 1), kernel="native") == [[3.0]]


def test_small_numbers_beside_large_norms_have_their_gradient():
    x = np.array([2.0**410, 2.0**-500, np.nan, 1, 2.0**-420, 2.0**-430, -(2.0**900), 2.0**-100])
    g = np.array([1.0, 2.0, -3.0, 2.0**80])
    own, wanted = (
        poolwise.pool_backward(g, x, poolwise.Lp(), (2,), kernel=kernel) for kernel in ("native", "reference")
    )
    np.testing.assert_allclose(own, wanted, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("rare", [0.0, np.nan])
def test_gradients_of_norms_are_the_same_bits_everywhere(dtype, rare):
    rng = np.random.default_rng(1)
    x, g = rng.standard_normal((8, 130, 131)), rng.standard_normal((8, 129, 130))
    x[-1, -1, -1] = rare
    bits = {"float32": "u4", "float64": "u8"}.get(dtype, "u2")
    x, g = (halves(a.astype("f4"), dtype) if bits == "u2" else a.astype(dtype) for a in (x, g))
    p = _native.Plan("norm", dtype, x.shape, (1, 2), [regular(130, 2).table, regular(131, 2).table], range(3))
    found = []
    for instructions, threads in itertools.product(SETS, (1, 2, 7)):
        _native.use_instruction_set(instructions)
        p.backward(g, gx := np.empty_like(x), x, threads=threads)
        found.append(gx.view(bits))
    for gx in found[1:]:
        assert (gx[:7] == found[0][:7]).all()
        assert (gx[7, :-2] == found[0][7, :-2]).all()


@pytest.mark.parametrize("scale", [1.0, 2.0**600, 2.0**-600])
def test_norms_of_many_equal_numbers_are_right_to_a_unit_or_two(scale):
    for instructions, n in itertools.product(SETS, (49, 1024)):
        _native.use_instruction_set(instructions)
        y = poolwise.lp_pool(np.full((1, n), 0.1 * scale), (n,), axes=(1,), kernel="native")
        wanted = float(np.sqrt(np.longdouble(n)) * np.longdouble(0.1)) * scale
        assert abs(y[0, 0] - wanted) <= 2 * np.spacing(wanted)


def test_what_a_norm_does_not_serve_is_said():
    with pytest.raises(poolwise.InvalidValue, match="squares of more than 1024 float64 would lose too much"):
        poolwise.lp_pool(np.ones((2, 1025)), (1025,), axes=1, kernel="native")
    with pytest.raises(ValueError, match="dtype must be a float's for a norm, got int32"):
        _native.Plan("norm", "int32", (4,), [0], [regular(4, 2, 2).table], [0])
    p = _native.Plan("norm", "float32", (4,), [0], [regular(4, 2, 2).table], [0])
    with pytest.raises(ValueError, match="kept must be the input for this operation, got none"):
        p.backward(np.ones(2, "f4"), np.ones(4, "f4"))


# ---- integers ----


def whole(case, name, body, x, **words):
    """Exact integers: a mean to the nearest, ties to the even one, or towards zero."""
    flat, _ = taps_of(name)
    there, planes = (flat >= 0)[None, :, :, None], x.reshape(case.outer, -1, case.inner).astype("i8")
    values = planes[:, flat]
    if body in ("max", "min"):
        return (
            values.max(2, where=there, initial=-(2**62)) if body == "max" else values.min(2, where=there, initial=2**62)
        )
    total, count = values.sum(2, where=there), there.sum(2)
    if body == "sum":
        return total
    count = int(words["divisor"]) if "divisor" in words else count
    if words.get("truncate"):
        return np.sign(total) * (abs(total) // count)
    quotient, rest = np.divmod(total, count)
    return quotient + ((2 * rest > count) | ((2 * rest == count) & (quotient % 2 == 1)))


WHOLE = {
    "max": ("max", {}),
    "min": ("min", {}),
    "sum": ("sum", {}),
    "mean": ("mean", {}),
    "truncated": ("mean", {"truncate": True}),
    "divisor": ("mean", {"divisor": 3.0}),
}


@pytest.mark.parametrize(
    ("dtype", "kind"), [*itertools.product(INTEGERS, WHOLE), ("bool", "max"), ("bool", "min"), ("bool", "sum")]
)
@pytest.mark.parametrize("name", SOME)
def test_integers_are_exact(name, kind, dtype):
    body, words = WHOLE[kind]
    case, rng = CASES[name], np.random.default_rng(len(name))
    limits = np.iinfo("i1" if dtype == "bool" else dtype)
    low, high = max(limits.min, -(2**40)), min(limits.max, 2**40)
    x = rng.integers(low, high, case.shape(0), "i8", endpoint=True)
    x = np.where(rng.random(x.shape) < 0.5, rng.integers(max(low, -3), 4, x.shape), x)
    x = x > 0 if dtype == "bool" else x.astype(dtype)
    wanted = whole(case, name, body, x, **words)
    if body != "sum" and dtype != "bool":
        wanted = wanted.clip(limits.min, min(limits.max, 2**62))
    p = plan_of(case, body, dtype, **words)
    for instructions in SETS:
        _native.use_instruction_set(instructions)
        y, untouched = guarded(p.output_size, p.result_dtype)
        p.forward(x, y.reshape(case.shape(1)))
        untouched()
        same(y.astype("i8"), wanted.ravel())
        if p.kept_dtype:
            kept = np.empty(case.shape(1), p.kept_dtype)
            p.forward(x, again := np.empty_like(y).reshape(case.shape(1)), kept)
            same(again.ravel(), y)
            offsets = kept.reshape(case.outer, -1, case.inner).astype("i8")
            at = np.take_along_axis(taps_of(name)[0][None, :, :, None], offsets[:, :, None], 2)[:, :, 0]
            same(np.take_along_axis(x.reshape(case.outer, -1, case.inner).astype("i8"), at, 1).ravel(), wanted.ravel())


# ---- kept offsets are not trusted ----


@pytest.mark.parametrize("close", [False, True], ids=["any number", "about the window"])
@pytest.mark.parametrize(
    "name", [*SOME, *UNEVEN, *FEW, "5/3, narrow", "2/3, gaps", "3/3", "3/1", "63 x 63", "chunks, 3/1", "chunks, 3/3"]
)
def test_a_wrong_offset_sends_nothing_and_nothing_is_written_outside(name, close):
    case, x, g = arrays(name)
    flat, _ = taps_of(name)
    p, rng = plan_of(case, "max", "float32"), np.random.default_rng(2)
    limits, taps = np.iinfo(p.kept_dtype), flat.shape[1]
    low, high = (max(limits.min, -taps), min(limits.max, 2 * taps)) if close else (limits.min, limits.max)
    kept = rng.integers(low, high, g.shape, p.kept_dtype, endpoint=True)
    known = (kept >= 0) & (kept < taps)
    at = np.where(
        known,
        np.take_along_axis(flat[None, :, :, None], np.where(known, kept, 0).astype(int)[:, :, None], 2)[:, :, 0],
        -1,
    )
    wanted = np.stack([sent(at[o], g[o], x.shape[1]) for o in range(case.outer)])
    for instructions, threads in itertools.product(SETS, (1, 7)):
        _native.use_instruction_set(instructions)
        gx, untouched = guarded(x.size, "f4")
        p.backward(
            g.astype("f4").reshape(case.shape(1)),
            gx.reshape(case.shape(0)),
            kept.reshape(case.shape(1)),
            threads=threads,
        )
        untouched()
        same(gx, wanted.ravel())


# ---- outputs that are written past the caches ----


def padded(x, case, value):
    return np.pad(x, [(0, 0), *((-axis.table[1], -axis.table[1]) for axis in case.axes), (0, 0)], constant_values=value)


def tap_of(array, case, tap):
    """What one tap of every window reads, of a padded array."""
    slices = (slice(t, t + a.table[2] * (a.table[0] - 1) + 1, a.table[2]) for t, a in zip(tap, case.axes, strict=True))
    return array[(slice(None), *slices)]


def taps(case):
    return itertools.product(*(range(axis.table[4]) for axis in case.axes))


def divisors(case):
    """Of every cell, the taps that are there."""
    counts = [(axis.places >= 0).sum(1).astype("f4") for axis in case.axes]
    return functools.reduce(np.multiply.outer, counts)[None, ..., None]


LARGE_OUTPUTS = {
    "3/1": ("max", "float32", plane(regular(2051, 3, 1, 1), regular(2053, 3, 1, 1), 1, 1)),
    "3/1, mean": ("mean", "float32", plane(regular(2051, 3, 1, 1), regular(2053, 3, 1, 1), 1, 1)),
    "short rows": ("max", "float32", plane(regular(5, 2), regular(7, 3, 1, 1), 1, 150_001)),
    "short rows, mean": ("mean", "float32", plane(regular(5, 3, 1, 1), regular(7, 3, 1, 1), 1, 120_011)),
    "rows of one": ("max", "float32", plane(regular(3, 2), regular(2, 2), 1, 2_200_001)),
    "sums of bytes": ("sum", "uint8", plane(regular(1451, 2), regular(1453, 3, 1, 1), 1, 1)),
    "folded": ("sum", "uint8", Case(2_150_001, (regular(8, 8),))),
    "3/2, bytes": ("max", "uint8", plane(regular(4099, 1), regular(8209, 3, 2, 1), 1, 1)),
    "sliding and doubling": ("max", "float32", plane(regular(2069, 9), regular(2063, 9, 1, 2), 1, 1)),
    "channels 3, 2/2": ("max", "float32", plane(regular(1201, 1), regular(2371, 2, 2), 3, 1)),
    "planes of 7, 3/2": ("max", "float32", plane(regular(7, 3, 2, 1), regular(7, 3, 2, 1), 1, 270_001)),
    "planes of 4, 2/2, mean": ("mean", "float32", plane(regular(4, 2, 2), regular(4, 2, 2), 1, 1_100_003)),
    "channels 64, 2/2, mean": ("mean", "float32", plane(regular(411, 2, 2), regular(701, 2, 2), 64, 1)),
    "rows that are cut": ("max", "float32", plane(regular(113, 3, 1, 1), regular(40009, 3, 1, 1), 1, 1)),
    "rows that are cut, mean": ("mean", "float32", plane(regular(337, 3, 1, 1), regular(13007, 3, 1, 1), 1, 1)),
    "rows that are cut, 5/4": ("max", "float32", plane(regular(211, 1), regular(80021, 5, 4, 2), 1, 1)),
    "rows that are cut, 9/8": ("mean", "float32", plane(regular(1051, 1), regular(32051, 9, 8, 2), 1, 1)),
    "rows that are cut, along": ("mean", "float32", plane(regular(211, 1), regular(20011, 17, 1, 8), 1, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE_OUTPUTS)
def test_large_outputs_are_right_to_the_last_byte(name):
    body, dtype, case = LARGE_OUTPUTS[name]
    x = np.random.default_rng(3).integers(0, 99, case.shape(0)).astype(dtype)
    p = plan_of(case, body, dtype)
    around = padded(x if body == "max" else x.astype("f4"), case, 0)
    parts = (tap_of(around, case, tap) for tap in taps(case))
    wanted = functools.reduce(np.maximum if body == "max" else np.add, parts)
    wanted = (wanted / divisors(case) if body == "mean" else wanted).ravel()
    for threads, lead in [(1, 0), (2, 3), (7, 5)]:
        y, untouched = guarded(p.output_size, p.result_dtype, lead)
        assert y.nbytes >= STREAMED or name == "channels 3, 2/2"
        p.forward(x, y.reshape(case.shape(1)), threads=threads)
        untouched()
        assert (y == wanted).all() if body != "mean" else np.allclose(y, wanted, rtol=2e-7, atol=0)


LARGE_GRADIENTS = {
    "2/2, wide": ("max", plane(regular(2051, 2, 2), regular(2053, 2, 2), 1, 1)),
    "3/1, wide": ("max", plane(regular(2051, 3, 1, 1), regular(2053, 3, 1, 1), 1, 1)),
    "3/3, wide": ("max", plane(regular(2051, 3, 3), regular(2053, 3, 3), 1, 1)),
    "3/4, wide": ("max", plane(regular(2051, 3, 4), regular(2053, 3, 4), 1, 1)),
    "5/5, wide": ("max", plane(regular(2051, 3, 3), regular(2053, 5, 5, 2), 1, 1)),
    "4/5, wide, mean": ("mean", plane(regular(2051, 3, 3), regular(2053, 4, 5), 1, 1)),
    "2/2, narrow": ("max", plane(regular(9, 2, 2), regular(7, 2, 2), 1, 70_001)),
    "3/1, narrow, channels 3": ("max", plane(regular(5, 3, 1, 1), regular(7, 3, 1, 1), 3, 40_009)),
    "2/2, narrow, mean": ("mean", plane(regular(9, 3, 2, 1), regular(7, 3, 2, 1), 1, 70_001)),
    "2/2, wide, mean": ("mean", plane(regular(2051, 2, 2), regular(2053, 2, 2), 1, 1)),
    "3/2, channels 3, mean": ("mean", plane(regular(1201, 3, 2, 1), regular(1213, 3, 2, 1), 3, 1)),
    "global, mean": ("mean", plane(regular(9, 9), regular(7, 7), 1, 70_001)),
    "global": ("max", plane(regular(9, 9), regular(7, 7), 1, 70_001)),
    "global, channels 64": ("max", plane(regular(9, 9), regular(7, 7), 64, 1100)),
    "global, channels 256, in parts": ("max", Case(70, (regular(257, 257),), 256)),
    "global, channels 512": ("max", Case(40, (regular(257, 257),), 512)),
    "9 x 9, scattered": ("max", plane(regular(2051, 9, 9), regular(2053, 9, 9), 1, 1)),
    "31 x 31, scattered": ("max", plane(regular(2051, 31, 40), regular(2053, 31, 40), 1, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE_GRADIENTS)
def test_large_gradients_are_right_to_the_last_byte(name):
    body, case = LARGE_GRADIENTS[name]
    p, rng = plan_of(case, body, "float32"), np.random.default_rng(4)
    g = rng.integers(-9, 10, case.shape(1)).astype("f4")
    kept = rng.integers(0, 1000 if p.kept_dtype == "int32" else 11, g.shape, p.kept_dtype) if p.kept_dtype else None
    around = padded(np.zeros(case.shape(0), "f4"), case, 0)
    share = g / divisors(case) if body == "mean" else g
    for number, tap in enumerate(taps(case)):
        part = tap_of(around, case, tap)
        np.add(part, share, out=part, where=True if kept is None else kept == number)
    low = [-axis.table[1] for axis in case.axes]
    wanted = around[(slice(None), *(slice(n, n + axis.size) for n, axis in zip(low, case.axes, strict=True)))].ravel()
    for threads, lead in [(1, 0), (2, 3), (7, 5)]:
        gx, untouched = guarded(p.input_size, "f4", lead)
        assert gx.nbytes >= STREAMED
        p.backward(g, gx.reshape(case.shape(0)), kept, threads=threads)
        untouched()
        assert (gx == wanted).all() if body == "max" else np.allclose(gx, wanted, rtol=1e-6, atol=1e-5)


# ---- memory for large outputs ----

ROOM = LARGE + 12345


def address(buffer):
    return np.frombuffer(buffer, "u1").ctypes.data


def test_memory_that_is_free_is_lent_again():
    buffer = lent(ROOM)
    first = address(buffer)
    np.frombuffer(buffer, "u1")[:] = 7
    del buffer
    assert address(again := lent(ROOM)) == first
    assert len(memoryview(again)) == ROOM and not memoryview(again).readonly


def test_memory_in_use_is_lent_to_nobody_else():
    arrays = [np.frombuffer(lent(ROOM), "u1") for _ in range(3)]
    for number, array in enumerate(arrays):
        array[:: 1 << 12] = number
    assert [set(array[:: 1 << 12].tolist()) for array in arrays] == [{0}, {1}, {2}]


def test_memory_is_lent_until_the_last_view_of_it_is_gone():
    view = np.frombuffer(lent(ROOM), "u1")[5:50]
    view[:] = 3
    other = np.frombuffer(lent(ROOM), "u1")
    other[:100] = 4
    assert (view == 3).all()


def test_what_an_allocator_does_as_well_is_left_to_it():
    assert lent(0) is None and lent(LARGE) is None and lent(LARGE + 1) is not None


@pytest.mark.parametrize("size", [-1, -(2**62)])
def test_a_negative_size_is_refused(size):
    with pytest.raises(ValueError, match=f"at least 0, got {size}"):
        _native.Buffer(size)


@pytest.mark.parametrize("size", [2**62, 2**63 - 1])
def test_more_memory_than_there_is_is_refused(size):
    with pytest.raises(MemoryError):
        _native.Buffer(size)


@pytest.mark.parametrize("size", [0, 1, 4097, (2 << 20) + 1])
def test_memory_of_any_size_is_lent(size):
    array = np.frombuffer(_native.Buffer(size), "u1") if size else np.empty(0)
    array[:] = 5
    assert array.size == size and len(memoryview(_native.Buffer(size))) == size


def filled(rounds=30):
    """Whether nobody else writes into what is lent to this caller."""
    for number in range(rounds):
        arrays = [np.frombuffer(_native.Buffer(size << 20), "u1") for size in (3, 3, 5)]
        for array in arrays:
            array[:: 1 << 12] = marks = (threading.get_ident() + number) % 251
        if any((array[:: 1 << 12] != marks).any() for array in arrays):
            return False
    return True


def test_threads_share_no_memory():
    right = []
    callers = [threading.Thread(target=lambda: right.append(filled())) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert right == [True] * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_memory_of_its_own():
    kept = np.frombuffer(lent(ROOM), "u1")
    kept[:] = 1
    lent(ROOM)  # one that is free when the child begins
    child = os.fork()
    if child == 0:
        mine = np.frombuffer(lent(ROOM), "u1")
        mine[:] = 2
        os._exit(0 if (kept == 1).all() and (mine == 2).all() and filled(3) else 1)
    mine = np.frombuffer(lent(ROOM), "u1")
    mine[:] = 3
    assert os.waitpid(child, 0)[1] == 0
    assert (kept == 1).all() and (mine == 3).all()


def large_input():
    """x, and its maxima over windows of 1 x 3 at stride 1, which are more than LARGE."""
    x = np.random.default_rng(5).integers(0, 2**15, (5, 1000, 2099)).astype("f4")
    return x, np.maximum(np.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])


@pytest.mark.slow
def test_large_arrays_are_as_any_others():
    x, wanted = large_input()
    y = poolwise.max_pool(x, (1, 3), stride=1)
    z = poolwise.max_pool(-x, (1, 3), stride=1)
    del x
    assert y.nbytes > LARGE and y.flags.writeable and y.flags.c_contiguous and not np.shares_memory(y, z)
    del z
    poolwise.max_pool(np.zeros((5, 1000, 2099), "f4"), (1, 3), stride=1)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(y)), wanted)
    row = y[3]
    del y
    poolwise.max_pool(np.zeros((5, 1000, 2099), "f4"), (1, 3), stride=1)
    row += 1
    np.testing.assert_array_equal(row, wanted[3] + 1)


@pytest.mark.slow
def test_large_arrays_whose_channels_are_last_are_as_any_others():
    x, _ = large_input()
    last = np.ascontiguousarray(x[:, :, :2080].reshape(5, 1000, 520, 4).transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    y = poolwise.max_pool(last, (1, 2), stride=1, axes=(1, 2))
    assert y.nbytes > LARGE // 2 and y.flags.writeable
    np.testing.assert_array_equal(y, np.maximum(last[:, :, :-1], last[:, :, 1:]))


@pytest.mark.slow
def test_large_tensors_are_as_any_others():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("poolwise.torch.functional")
    array, wanted = large_input()
    x = torch.from_numpy(array).requires_grad_()
    y = functional.max_pool2d(x, (1, 3), 1)
    y.sum().backward()
    gradient = x.grad
    assert gradient.sum().item() == pytest.approx(y.numel(), rel=1e-6) and gradient.min() >= 0 and gradient.max() <= 3
    y = y.detach()
    del x, array
    functional.max_pool2d(torch.zeros(5, 1000, 2099), (1, 3), 1)
    assert torch.equal(y, torch.from_numpy(wanted)) and torch.equal(y.clone(), y)
    assert torch.equal(pickle.loads(pickle.dumps(y)), y)
    row = y[3]
    del y
    functional.max_pool2d(torch.zeros(5, 1000, 2099), (1, 3), 1)
    row.add_(1)
    assert torch.equal(row, torch.from_numpy(wanted[3] + 1))


# ---- windows over all of an axis, whose rows are cut in pieces ----


@pytest.mark.parametrize("inner", [1, 3, 8, 9])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int32"])
@pytest.mark.parametrize("name", SETS)
def test_a_window_over_all_of_an_axis_meets_each_element_once(name: str, dtype: str, inner: int) -> None:
    _native.use_instruction_set(name)
    rng = np.random.default_rng(inner)
    for size in (*range(8, 20), *range(60, 135), 200, 511, 513):
        x = rng.permutation(size * 2 * inner).reshape(2, size, inner) % 251
        x = x.astype(dtype)
        table = [(1, 0, size, 1, size, 0, 0, "absent")]
        most = _native.Plan("max", dtype, x.shape, (1,), table, range(3))
        y, kept = np.empty((2, 1, inner), dtype), np.empty((2, 1, inner), most.kept_dtype)
        most.forward(x, y, kept)
        np.testing.assert_array_equal(y[:, 0], x.max(1))
        np.testing.assert_array_equal(kept[:, 0], x.argmax(1).astype(most.kept_dtype))
        if dtype in ("float32", "float64"):
            mean = _native.Plan("sum", dtype, x.shape, (1,), table, range(3))
            mean.forward(x, y)
            np.testing.assert_array_equal(y[:, 0], x.sum(1))


def test_a_buffer_that_was_not_made_has_no_memory() -> None:
    with pytest.raises(BufferError):
        memoryview(_native.Buffer.__new__(_native.Buffer))


@pytest.mark.parametrize("divisor", [0.5, 1.0, 3.0])
def test_a_given_divisor_divides_the_gradient_too(divisor: float) -> None:
    axis = (7, -1, 1, 1, 3, 1, 1, "absent")
    plan = _native.Plan("mean", "float64", (1, 7, 7), (1, 2), [axis, axis], range(3), divisor=divisor)
    plain = _native.Plan("sum", "float64", (1, 7, 7), (1, 2), [axis, axis], range(3))
    g, gx, sums = np.random.default_rng(0).standard_normal((1, 7, 7)), np.empty((1, 7, 7)), np.empty((1, 7, 7))
    plan.backward(g, gx)
    plain.backward(g, sums)
    np.testing.assert_allclose(gx, sums / divisor, rtol=1e-14)


def test_far_starts_and_dilations_have_no_mirror_and_need_none() -> None:
    far = (1, -(2**61), 1, 2**61, 2, 2**61, 0, "absent")
    plan = _native.Plan("sum", "float32", (2, 5), (1,), [far], range(2))
    x, y = np.arange(10, dtype="f4").reshape(2, 5), np.empty((2, 1), "f4")
    plan.forward(x, y)
    np.testing.assert_array_equal(y[:, 0], x[:, 0])


def test_plans_of_many_uneven_bins_are_made_at_once() -> None:
    first = np.arange(60_000)
    spans = np.stack([first, np.ones_like(first)], -1)[None]
    plan = _native.Plan("mean", "float32", (60_000,), (0,), [(1, spans)], range(1))
    x = np.arange(60_000, dtype="f4")
    plan.forward(x, y := np.empty_like(x))
    plan.backward(x, gx := np.empty_like(x))
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(gx, x)


def test_a_large_tensor_from_kept_memory_is_not_resized_in_place() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("poolwise.torch.functional")
    y = functional.max_pool2d(torch.zeros(1, 1, 3000, 3000), 3, 1, 1)
    larger = (2, *y.shape)
    assert y.clone().resize_(larger).shape == larger
    assert not y.untyped_storage().resizable()
    with pytest.raises(RuntimeError, match="not resizable"):
        y.resize_(larger)  # which leaves y with a shape that its memory has not: it is not to be read any more


# ---- rows in order ----

WINDOWS_IN_ORDER = [(2, 2, 0), (3, 2, 1), (3, 3, 0), (4, 3, 1), (7, 2, 3), (3, 4, 0)]  # taps, stride, padding


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8"])
@pytest.mark.parametrize(("taps", "stride", "padding"), WINDOWS_IN_ORDER)
@pytest.mark.parametrize("size", [(24, 112), (17, 301)])
def test_rows_in_order_give_the_bits_of_rows_together(size, taps, stride, padding, dtype):
    rng = np.random.default_rng(taps)
    x = (30 * rng.standard_normal((3, *size))).astype(dtype)
    holes = x if dtype == "uint8" else np.where(rng.random(x.shape) < 0.02, np.nan, x).astype(dtype)
    functions = ["max_pool", "min_pool", "avg_pool", "sum_pool"]
    if dtype != "uint8":
        functions += ["blur_pool", "lp_pool", "gem_pool"]

    def pooled_by(function, x, **words):
        return getattr(poolwise, function)(x, (taps, taps), stride=stride, padding=padding, **words)

    def everything(order):
        _native.use_row_order(order)
        y, indices = pooled_by("max_pool", holes, return_indices=True)
        return [pooled_by(function, x).tobytes() for function in functions] + [np.isnan(y).tobytes(), indices.tobytes()]

    for instructions in SETS:
        _native.use_instruction_set(instructions)
        assert everything("in order") == everything("together")
