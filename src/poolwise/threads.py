"""The one piece of global state: how many threads the native kernel uses."""

from __future__ import annotations

import operator

from poolwise import _native
from poolwise.errors import InvalidType, InvalidValue


def set_num_threads(count: int) -> None:
    """Use at most `count` ≥ 1 threads in the native kernel (PyTorch tensors follow `torch.set_num_threads`).

    >>> set_num_threads(get_num_threads())
    """
    if isinstance(count, bool):
        raise InvalidType(f"count must be an int, got {count!r}", "set_num_threads")
    try:
        number = operator.index(count)
    except TypeError:
        raise InvalidType(f"count must be an int, got {count!r}", "set_num_threads") from None
    if not 1 <= number <= 1024:
        raise InvalidValue(f"count must be between 1 and 1024, got {count!r}", "set_num_threads")
    _native.set_num_threads(number)


def get_num_threads() -> int:
    """How many threads the native kernel may use; at first, the processors this process may run on.

    >>> get_num_threads() >= 1
    True
    """
    return _native.get_num_threads()
