"""What the array's own framework already does as well."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

from poolwise.call import Call
from poolwise.op import Array, Selection


class Vendor:
    """The framework's own pooling, where it means the same; the framework differentiates it."""

    name: ClassVar[str] = "vendor"
    traced: ClassVar[bool] = True

    def refusal(self, call: Call) -> str | None:
        return call.framework.own_refusal(call)

    def forward(self, operands: Sequence[Array], call: Call) -> tuple[Array, Any]:
        return call.framework.own(operands, call)

    def backward(self, g: Array, kept: Any, call: Call) -> tuple[Array | None, ...]:
        raise NotImplementedError(f"{call.framework.name} differentiates its own operations")

    def kept_bytes(self, call: Call) -> int:
        return 8 * prod(call.geometry.output_shape) if isinstance(call.op, Selection) else 0

    def indices(self, kept: Any, call: Call) -> Array:
        return kept
