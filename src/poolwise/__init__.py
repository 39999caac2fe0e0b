"""poolwise: every pooling operation on every geometry, with one meaning, at the speed of memory.

>>> import poolwise
>>> poolwise.max_pool([[1, 3], [2, 4]], (2, 2))
array([[4.]])
>>> poolwise.avg_pool([[1, 3], [2, 4]], (2, 2))
array([[2.5]])
"""

from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING

from poolwise._version import __version__ as __version__

# Each name is fetched where it is first used (PEP 562), so that importing poolwise costs next to nothing.
_NAMES = {
    "api": (
        "Explanation",
        "adaptive_pool",
        "adaptive_pool_backward",
        "explain",
        "global_pool",
        "pool",
        "pool_backward",
    ),
    "compose.fractional": ("fractional_pool",),
    "errors": ("Fault", "InvalidType", "InvalidValue", "MissingExtra"),
    "geometry": ("Geometry",),
    "op": ("Operation",),
    "threads": ("get_num_threads", "set_num_threads"),
    "unpool": ("max_unpool",),
}
_HOME = {name: home for home, names in _NAMES.items() for name in names}
_CORE = {"api", "call", "choose", "compose", "doors", "errors", "geometry", "kernels", "memory", "op", "ops"}
_CORE |= {"reference", "threads", "unpool"}
_ROOMS = _CORE | {"bench", "design", "explorer", "lab"}  # those named last may need an extra


def _lists() -> "Iterator[dict[str, object]]":
    """What has its name from a list: a function of each operation, the operations, the compositions."""
    yield import_module("poolwise.api").SHORT_NAMES
    yield {each.__name__: each for each in import_module("poolwise.ops").OPERATIONS}
    functions = [each.function for each in import_module("poolwise.compose").COMPOSITIONS]
    yield {each.__name__: each for each in functions}


def _public() -> list[str]:
    return list(dict.fromkeys([*sorted({"__version__", *_HOME}), *chain.from_iterable(_lists())]))


def _fetched(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"poolwise.{name}")
    if name in _HOME:
        found = getattr(import_module(f"poolwise.{_HOME[name]}"), name)
    elif name == "__all__":
        found = _public()
    else:
        known = () if name.startswith("_") else _lists()
        found = next((names[name] for names in known if name in names), None)
        if found is None:
            raise AttributeError(f"module 'poolwise' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_CORE, *_public()})


if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolwise.api import Explanation as Explanation
    from poolwise.api import PoolFunction
    from poolwise.api import adaptive_pool as adaptive_pool
    from poolwise.api import adaptive_pool_backward as adaptive_pool_backward
    from poolwise.api import explain as explain
    from poolwise.api import global_pool as global_pool
    from poolwise.api import pool as pool
    from poolwise.api import pool_backward as pool_backward
    from poolwise.compose.fractional import fractional_pool as fractional_pool
    from poolwise.errors import Fault as Fault
    from poolwise.errors import InvalidType as InvalidType
    from poolwise.errors import InvalidValue as InvalidValue
    from poolwise.errors import MissingExtra as MissingExtra
    from poolwise.geometry import Geometry as Geometry
    from poolwise.op import Operation as Operation
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
    from poolwise.threads import get_num_threads as get_num_threads
    from poolwise.threads import set_num_threads as set_num_threads
    from poolwise.unpool import max_unpool as max_unpool

    __all__: list[str]

    def __getattr__(name: str) -> PoolFunction: ...

else:
    __getattr__ = _fetched
