"""The compiled module's interface (csrc/module.cc)."""

from collections.abc import Sequence
from typing import Any

class Plan:
    kept_dtype: str
    result_dtype: str
    has_gradient: bool
    keeps_input: bool
    paired: bool
    input_size: int
    output_size: int
    def __init__(
        self,
        body: str,
        dtype: str,
        shape: Sequence[int],
        axes: Sequence[int],
        tables: list[tuple[Any, ...]],
        order: Sequence[int],
        count_include_pad: bool = False,
        divisor: float = 0.0,
        truncate: bool = False,
        parameter: float = 1.0,
        least: float = 0.0,
        weights: Sequence[Sequence[float]] = (),
    ) -> None: ...
    def forward(
        self, x: Any, y: Any, kept: Any = None, mask: Any = None, beside: Any = None, threads: int = 0
    ) -> None: ...
    def backward(
        self,
        g: Any,
        gx: Any,
        kept: Any = None,
        mask: Any = None,
        beside: Any = None,
        to_beside: Any = None,
        threads: int = 0,
    ) -> None: ...
    def indices(self, kept: Any, out: Any, threads: int = 0) -> None: ...
    def forward_at(
        self,
        x: int,
        y: int,
        kept: int = 0,
        mask: int = 0,
        x_strides: Sequence[int] | None = None,
        mask_strides: Sequence[int] | None = None,
        threads: int = 0,
        beside: int = 0,
    ) -> None: ...
    def backward_at(
        self,
        g: int,
        gx: int,
        kept: int = 0,
        mask: int = 0,
        mask_strides: Sequence[int] | None = None,
        threads: int = 0,
        beside: int = 0,
        to_beside: int = 0,
    ) -> None: ...
    def indices_at(self, kept: int, out: int, threads: int = 0) -> None: ...

def unpool(
    itemsize: int,
    outer: int,
    inputs: int,
    outputs: int,
    inner: int,
    from_: Any,
    indices: Any,
    to: Any,
    threads: int = 0,
) -> int: ...
def unpool_backward(
    itemsize: int,
    outer: int,
    inputs: int,
    outputs: int,
    inner: int,
    from_: Any,
    indices: Any,
    to: Any,
    threads: int = 0,
) -> int: ...

class Buffer:
    """So many bytes that are written to, by the buffer protocol; what they hold is left over from others."""

    def __init__(self, size: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def bodies() -> list[str]: ...
def whole_bodies() -> list[str]: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def use_instruction_set(name: str) -> None: ...
def use_row_order(name: str) -> None: ...
