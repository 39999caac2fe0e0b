"""What is compared: a name, and the pooling stage that it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, cast

import torch
from torch import nn

from poolwise import InvalidType, InvalidValue, Operation
from poolwise.compose import COMPOSITIONS, Composition
from poolwise.compose.named import KINDS
from poolwise.ops import OPERATIONS
from poolwise.torch import Pool
from poolwise.torch.layers import LAYERS

Family = Literal["none", "convolution", "pooling"]
NONE, STRIDED, REFERENCE = "none", "strided", "max2/2"
DEFAULT = (NONE, STRIDED, REFERENCE, "mean2/2", "max3/2")
_SPELLING = re.compile(r"([a-z_]+?)(\d+)(?:/(\d+))?")


class Stage(nn.Module):
    """Where a model pools; the lab watches what goes in and what comes out.

    Shape: (N, channels, height, width) → (N, channels, smaller, smaller).
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@dataclass(frozen=True)
class Variant:
    """One way to pool.

    name: how it is asked for (`max2/2`). label: how it is shown (`max 2/2`). op: None unless it is one operation.
    composition: what it is made of where it is several (`maxblur2/2`).
    """

    name: str
    label: str
    family: Family
    op: Operation | None = None
    window: int = 1
    stride: int = 1
    composition: Composition | None = None

    def stage(self, channels: int) -> Stage:
        """A fresh stage for maps of so many channels."""
        if self.op is not None and self.op.arrays:  # what it learns or draws is the module's
            return Stage(LAYERS[f"{self.op.stems[1]}Pool2d"](self.window, stride=self.stride))
        if self.op is not None:
            return Stage(Pool(self.op, (self.window, self.window), stride=(self.stride, self.stride)))
        if self.composition is not None:
            return Stage(LAYERS[f"{self.composition.torch}2d"](self.window, stride=self.stride))
        if self.family == "none":
            return Stage(nn.Identity())
        # 2×2/2 with a ReLU: the "All-CNN" of Springenberg et al., Striving for simplicity, 2015, section 2
        return Stage(nn.Sequential(nn.Conv2d(channels, channels, 2, stride=2), nn.ReLU()))


FIXED = {
    NONE: Variant(NONE, "no pooling", "none"),
    STRIDED: Variant(STRIDED, "strided convolution", "convolution", window=2, stride=2),
}
COMPOSED = {
    each.function.__name__.removesuffix("_pool").replace("_", ""): each
    for each in COMPOSITIONS
    if each.ranked and each.inputs == 1 and [argument.name for argument in each.arguments[:2]] == ["window", "stride"]
}


def parse(name: str) -> Variant:
    """`none`, `strided`, or a pooling with its window and stride: `max2/2`, `mean3/2`, `min2`, `max-blur2/2`."""
    if not isinstance(name, str):
        raise InvalidType(f"variants must be names, got {name!r}")
    spelled = name.strip().lower().replace(" ", "").replace("-", "")
    match = _SPELLING.fullmatch(spelled)
    if spelled in FIXED:
        return FIXED[spelled]
    if match is None or match[1] not in KINDS.keys() | COMPOSED.keys():
        known = ", ".join([*FIXED, *(f"{stem}2/2" for stem in (*(kind.name for kind in OPERATIONS), *COMPOSED))])
        raise InvalidValue(f"variants must be of {known} (any window/stride), or 'all', got {name!r}")
    window, stride = int(match[2]), int(match[3] or match[2])
    if window < 1 or stride < 1:
        raise InvalidValue(f"variants must have a window and a stride of at least 1, got {name!r}")
    if match[1] in COMPOSED:
        made = COMPOSED[match[1]]
        label = f"{made.function.__name__.removesuffix('_pool').replace('_', '-')} {window}/{stride}"
        return Variant(f"{match[1]}{window}/{stride}", label, "pooling", None, window, stride, made)
    kind = KINDS[match[1]]
    if not stands_alone(kind):
        raise InvalidValue(f"variants must be operations without further parameters or operands, got {name!r}")
    return Variant(f"{kind.name}{window}/{stride}", f"{kind.name} {window}/{stride}", "pooling", kind(), window, stride)


def stands_alone(kind: type[Operation]) -> bool:
    """Whether an operation can be made from its name: every parameter has a default, every array is a module's own."""
    needed = [f for f in fields(cast("Any", kind)) if f.default is MISSING and f.default_factory is MISSING]
    return not needed and all(each.learned or each.drawn for each in kind.arrays)


def chosen(names: Sequence[str] | None) -> tuple[Variant, ...]:
    """The variants asked for, each once; None: the five of the tutorial's questions; `all`: every operation too."""
    if names is not None and not names:
        raise InvalidValue("variants must name at least one variant, got none")
    if isinstance(names, str):
        names = names.split(",")
    stems = (*(kind.name for kind in OPERATIONS if stands_alone(kind)), *COMPOSED)
    every = (*DEFAULT, *(f"{stem}2/2" for stem in stems))
    listed = [given for name in names or DEFAULT for given in (every if name == "all" else (name,))]
    return tuple({variant.name: variant for variant in map(parse, listed)}.values())
