"""poolwise: every pooling operation on every geometry, with one meaning, at the speed of memory.

>>> import poolwise
>>> poolwise.max_pool([[1, 3], [2, 4]], (2, 2))
array([[4.]])
>>> poolwise.avg_pool([[1, 3], [2, 4]], (2, 2))
array([[2.5]])
"""

from importlib import import_module
from typing import TYPE_CHECKING

from poolwise import ops
from poolwise._version import __version__
from poolwise.api import (
    SHORT_NAMES,
    Explanation,
    PoolFunction,
    adaptive_pool,
    adaptive_pool_backward,
    explain,
    global_pool,
    pool,
    pool_backward,
)
from poolwise.compose import COMPOSITIONS
from poolwise.compose.fractional import fractional_pool
from poolwise.errors import Fault, InvalidType, InvalidValue, MissingExtra
from poolwise.geometry import Geometry
from poolwise.op import Operation
from poolwise.threads import get_num_threads, set_num_threads
from poolwise.unpool import max_unpool

globals().update(SHORT_NAMES)
globals().update({each.function.__name__: each.function for each in COMPOSITIONS})
globals().update({kind.__name__: kind for kind in ops.OPERATIONS})

_ROOMS = ("bench", "design", "explorer", "lab")  # poolwise.design and its like, imported where they are first named


def _room(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"poolwise.{name}")
    raise AttributeError(f"module 'poolwise' has no attribute {name!r}")


if TYPE_CHECKING:
    from poolwise.ops import LIP as LIP
    from poolwise.ops import Blur as Blur
    from poolwise.ops import Gated as Gated
    from poolwise.ops import GeM as GeM
    from poolwise.ops import LogSumExp as LogSumExp
    from poolwise.ops import Lp as Lp
    from poolwise.ops import Max as Max
    from poolwise.ops import Mean as Mean
    from poolwise.ops import Median as Median
    from poolwise.ops import Min as Min
    from poolwise.ops import Mixed as Mixed
    from poolwise.ops import Mode as Mode
    from poolwise.ops import Quantile as Quantile
    from poolwise.ops import ReLUMax as ReLUMax
    from poolwise.ops import Soft as Soft
    from poolwise.ops import Stochastic as Stochastic
    from poolwise.ops import StochasticMean as StochasticMean
    from poolwise.ops import Sum as Sum
    from poolwise.ops import TopKMean as TopKMean

    def __getattr__(name: str) -> PoolFunction: ...

else:
    __getattr__ = _room


__all__ = [
    "Explanation",
    "Fault",
    "Geometry",
    "InvalidType",
    "InvalidValue",
    "MissingExtra",
    "Operation",
    "__version__",
    "adaptive_pool",
    "adaptive_pool_backward",
    "explain",
    "fractional_pool",
    "get_num_threads",
    "global_pool",
    "max_unpool",
    "pool",
    "pool_backward",
    "set_num_threads",
    *SHORT_NAMES,
    *(each.function.__name__ for each in COMPOSITIONS),
    *(kind.__name__ for kind in ops.OPERATIONS),
]
