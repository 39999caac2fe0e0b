"""What `torch.fx` sees of a pooling: one call, whatever happens inside."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.fx import Proxy


def recorded(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """The call as a node of the graph that is being traced; one of the arguments is a proxy."""
    tracer = next(value.tracer for value in (*arguments, *keywords.values()) if isinstance(value, Proxy))
    return tracer.create_proxy("call_function", function, arguments, keywords)


def recordable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, recorded where one of its arrays is a proxy."""

    @wraps(function)
    def either(*arguments: Any, **keywords: Any) -> Any:
        for value in (*arguments, *keywords.values()):
            if isinstance(value, Proxy):
                return recorded(either, *arguments, **keywords)
        return function(*arguments, **keywords)

    return either
