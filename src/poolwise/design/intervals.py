"""95 % intervals over images: of a share, and of what a share changed by.

The shifts of one image are not independent of each other, its images are: the image is the unit, and what is known is
how much images differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Interval:
    """A mean over images, and the 95 % interval around it.

    images: how many. trials: how many times each was tried.
    """

    value: float
    low: float
    high: float
    images: int
    trials: int


def share(values: NDArray[np.float64], lowest: float = 0.0) -> Interval:
    """Of numbers between `lowest` and 1, (images, trials): Wilson's score interval of as many images as they are worth.

    Where images differ less among each other than those that either always or never agree would, they are worth more
    than their number, at most images × trials; Wilson's interval stands where a bootstrap over images has no width, at
    100 %. One trial for each image makes it Wilson's own.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927; the worth: Korn &
    Graubard, Confidence intervals for proportions with small expected number of positive counts estimated from survey
    data, Survey Methodology 1998.

    >>> all_alike = share(np.ones((20, 24)))
    >>> all_alike.value, round(all_alike.low, 3), all_alike.high
    (1.0, 0.839, 1.0)
    """
    images, trials = values.shape
    each = (values.mean(axis=1) - lowest) / (1 - lowest)
    mean = float(each.mean())
    low, high = (lowest + (1 - lowest) * bound for bound in wilson(mean, _worth(each, trials)))
    return Interval(lowest + (1 - lowest) * mean, low, high, images, trials)


def _worth(each: NDArray[np.float64], trials: int) -> float:
    """How many images that either always or never agree would tell as much."""
    images, mean = len(each), float(each.mean())
    if images < 2 or mean in (0.0, 1.0):
        return images
    spread = float(each.var(ddof=1))
    most = images * trials
    return most if spread == 0 else min(most, max(images, images * mean * (1 - mean) / spread))


def wilson(mean: float, count: float) -> tuple[float, float]:
    """The score interval of a share of so many."""
    squared = Z * Z / count
    centre = (mean + squared / 2) / (1 + squared)
    half = sqrt(Z * Z * mean * (1 - mean) / count + squared * squared / 4) / (1 + squared)
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


def paired(after: NDArray[np.float64], before: NDArray[np.float64], lowest: float = 0.0) -> Interval:
    """Of what each image changed by, (images, trials) both: after − before, image by image.

    Two images more are thought of, of which one half got all better, one half all worse and one stayed, so that no
    difference among few images is not taken for none.

    Source: Agresti & Min, Simple improved confidence intervals for comparing matched proportions, Statistics in
    Medicine 2005.

    >>> got_better = paired(np.ones((50, 1)), np.zeros((50, 1)))
    >>> got_better.value, round(got_better.low, 2), got_better.high
    (1.0, 0.9, 1.0)
    """
    width = 1 - lowest
    each = (after.mean(axis=1) - before.mean(axis=1)) / width
    images = len(each)
    centre = float(each.sum()) / (images + 2)
    spread = (float(np.square(each).sum()) + 1) / (images + 2) - centre * centre
    half = Z * sqrt(spread / (images + 2))
    mean = float(each.mean())
    low, high = max(-1.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))
    return Interval(width * mean, width * low, width * high, images, after.shape[1])
