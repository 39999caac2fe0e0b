"""Operations by their names, which a saved model can hold."""

from __future__ import annotations

from typing import Any

from poolwise.errors import InvalidType, InvalidValue
from poolwise.op import Operation
from poolwise.ops import OPERATIONS

KINDS = {name: kind for kind in OPERATIONS for name in (kind.name, kind.stems[0])}


def operation(op: Any) -> Operation:
    """The operation, or the one of that name."""
    if isinstance(op, Operation):
        return op
    if not isinstance(op, str):
        raise InvalidType(f"op must be an operation such as Max(), or the name of one, got {op!r}")
    if op not in KINDS:
        raise InvalidValue(f"op must be one of {', '.join(sorted(KINDS))}, got {op!r}")
    try:
        return KINDS[op]()
    except TypeError:
        raise InvalidValue(f"op must be made with its parameters where it has no defaults, got {op!r}") from None
