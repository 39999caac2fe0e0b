"""PyTorch's pooling modules under their own names, and one for every other operation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, cast

import torch

from poolwise.api import apart, pool, usual_start
from poolwise.compose import COMPOSITIONS, Composition
from poolwise.doors import checked_seed
from poolwise.errors import Fault, InvalidType, InvalidValue, shown
from poolwise.op import Operation
from poolwise.ops import OPERATIONS
from poolwise.torch import functional
from poolwise.torch._symbolic import Proxy, recorded

STOCK = ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "LPPool", "FractionalMaxPool", "MaxUnpool")


class Pool(torch.nn.Module):
    """Any operation as a module: `poolwise.pool` over the last len(window) axes.

    op: the operation. window: taps per pooled axis, a tuple; the other arguments are `poolwise.pool`'s.
    Shape: (…, *sizes) → (…, *outputs). Raises InvalidValue or InvalidType at the call, as `poolwise.pool` does.

    >>> import poolwise, torch
    >>> Pool(poolwise.Min(), (2, 2))(torch.tensor([[1.0, 3.0], [2.0, 4.0]]))
    tensor([[1.]])
    """

    def __init__(self, op: Operation, window: Any, **arguments: Any) -> None:
        super().__init__()
        if not isinstance(op, Operation):
            raise InvalidType(f"op must be an operation such as Max(), got {op!r}", "Pool")
        unknown = set(arguments) - set(inspect.signature(pool).parameters)
        if unknown:
            raise InvalidType(f"unexpected argument {min(unknown)}={shown(arguments[min(unknown)])}", "Pool")
        self.op = op
        self.window = window
        self.arguments = arguments

    def forward(self, x: torch.Tensor) -> Any:
        if isinstance(x, Proxy):
            return recorded(pool, x, self.op, self.window, **self.arguments)
        return pool(x, self.op, self.window, **self.arguments)

    def extra_repr(self) -> str:
        return ", ".join([repr(self.op), repr(self.window), *(f"{k}={v!r}" for k, v in self.arguments.items())])


class OperationPool(torch.nn.Module):
    """Base of the modules of operations that PyTorch lacks.

    What an operation learns is a parameter of the module, which starts from the keyword of its name: a number, or a
    tensor such as one number for each channel, of shape (channels, 1, 1). What it needs with every call follows the
    input there. What it draws, from PyTorch's generator or from seed (an int or a generator), it draws in training.
    """

    kind: type[Operation]
    rank: int
    function: Callable[..., Any]
    evaluated: Callable[..., Any] | None

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        padding_mode: str = "absent",
        **parameters: Any,
    ) -> None:
        super().__init__()
        self._learn(kernel_size, parameters)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode
        self.return_indices = return_indices
        self.padding_mode = padding_mode
        self.parameters_of_operation = parameters

    def _learn(self, kernel_size: Any, parameters: dict[str, Any]) -> None:
        """Check the parameters, and take those that are learned from among them."""
        op, starts = apart(type(self).__name__, self.kind, parameters)
        if isinstance(starts.get("seed"), int):
            parameters["seed"] = torch.Generator().manual_seed(starts["seed"])
        for each in self.kind.arrays:
            start = starts.get(each.name, getattr(op, each.name, None))
            if not each.learned:
                if start is not None:
                    raise InvalidType(f"{each.name} must come with the input, got {shown(start)}", type(self).__name__)
                continue
            parameters.pop(each.name, None)
            start = usual_start(self.kind, each.name, each.start) if start is None else start
            value = self._start(each.name, start)
            if each.over == "window" and value.ndim == 0:
                value = value.expand(kernel_size if isinstance(kernel_size, Sequence) else (kernel_size,) * self.rank)
            self.register_parameter(each.name, torch.nn.Parameter(value.detach().clone()))

    def _start(self, name: str, start: Any) -> torch.Tensor:
        try:
            value = torch.as_tensor(start, dtype=torch.get_default_dtype())
        except (RuntimeError, TypeError, ValueError):
            raise InvalidType(f"{name} must be a number or a tensor, got {shown(start)}", type(self).__name__) from None
        if not value.is_meta and not value.isfinite().all():
            raise InvalidValue(f"{name} must be finite where it is learned, got {shown(start)}", type(self).__name__)
        return value

    def _operands(self, given: Sequence[torch.Tensor], named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        learned = {each.name: getattr(self, each.name) for each in self.kind.arrays if each.learned}
        needed = [each.name for each in self.kind.arrays if not each.learned]
        if len(given) > len(needed):
            raise InvalidType(f"input must be followed by {needed}, got {len(given)} more", type(self).__name__)
        behind = dict(zip(needed, given, strict=False))
        if twice := sorted(behind.keys() & named.keys()):
            raise InvalidType(f"{twice[0]} must be given once, got it after the input and by name", type(self).__name__)
        return {**learned, **behind, **named}

    def forward(self, input: torch.Tensor, *given: torch.Tensor, **named: torch.Tensor) -> Any:
        operands = self._operands(given, named) if len(self.kind.arrays) > 0 else {}
        evaluated = type(self).evaluated
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices)
        if evaluated is not None and not self.training and not operands:
            return evaluated(input, *window, padding_mode=self.padding_mode)
        further = {**self.parameters_of_operation, **operands}
        return type(self).function(input, *window, padding_mode=self.padding_mode, **further)

    def extra_repr(self) -> str:
        own = {name: getattr(self, name) for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")}
        if self.padding_mode != "absent":
            own["padding_mode"] = repr(self.padding_mode)
        learned = {name: _told(value) for name, value in self.named_parameters(recurse=False)}
        return ", ".join(
            f"{name}={value}" for name, value in {**own, **self.parameters_of_operation, **learned}.items()
        )


def _told(learned: torch.Tensor) -> str:
    return f"{learned.item():.4g}" if learned.ndim == 0 and not learned.is_meta else f"{tuple(learned.shape)} learned"


class Composed(torch.nn.Module):
    """Base of the modules made of compositions."""

    composition: Composition
    rank: int | None
    function: Callable[..., Any]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__()
        given = self.composition.given(type(self).__name__, functional.WORDS, arguments, keywords)
        if self.composition.draws is not None:
            given["seed"] = self._generator(given["seed"])
        for name, value in given.items():
            setattr(self, functional.WORDS.get(name, name), value)

    def _generator(self, seed: Any) -> torch.Generator | None:
        """What a layer goes on drawing from; None: PyTorch's own."""
        try:
            number = None if isinstance(seed, torch.Generator) else checked_seed(seed)
        except Fault as fault:
            raise fault.within(type(self).__name__) from None
        return seed if number is None else torch.Generator().manual_seed(number)

    def composed(self, *inputs: torch.Tensor) -> Any:
        """The composition's result."""
        given = {
            each.name: getattr(self, functional.WORDS.get(each.name, each.name)) for each in self.composition.arguments
        }
        given = self.composition.at_rest(given, self.training)
        if any(isinstance(each, Proxy) for each in inputs):
            words = {functional.WORDS.get(name, name): value for name, value in given.items()}
            return recorded(type(self).function, *inputs, **words)
        return functional.composed(self.composition, type(self).__name__, self.rank, inputs, given)

    def extra_repr(self) -> str:
        names = [functional.WORDS.get(each.name, each.name) for each in self.composition.arguments]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class ComposedPool(Composed):
    """Base of the modules of compositions that read one array."""

    def forward(self, input: torch.Tensor) -> Any:
        return self.composed(input)


class ComposedUnpool(Composed):
    """Base of the modules of compositions that read a second array."""

    def forward(self, input: torch.Tensor, indices: torch.Tensor) -> Any:
        return self.composed(input, indices)


def stock_layer(name: str) -> type[torch.nn.Module]:
    """PyTorch's own module with poolwise computing: same arguments, attributes, pickles and `isinstance`."""
    base = getattr(torch.nn, name)
    compute = getattr(functional, _snake(name))
    known = inspect.signature(base.__init__).parameters
    own = [key for key in inspect.signature(compute).parameters if key in known]

    def forward(self: Any, input: torch.Tensor) -> Any:
        return compute(input, *[getattr(self, name) for name in own])

    def unpool(self: Any, input: torch.Tensor, indices: torch.Tensor, output_size: Any = None) -> Any:
        return compute(input, indices, *[getattr(self, name) for name in own], output_size)

    way = unpool if name.startswith("MaxUnpool") else forward
    doc = f"`torch.nn.{name}`, the same arguments, computed by poolwise."
    return type(name, (base,), {"forward": way, "__doc__": doc, "__module__": "poolwise.torch"})


def operation_layer(kind: type[Operation], rank: int) -> type[OperationPool]:
    """The module of one operation and number of axes: `LogSumExpPool2d(kernel_size, …, *, temperature=1.0)`."""
    name = f"{kind.stems[1]}Pool{rank}d"
    own = ", ".join(field.name for field in fields(cast("Any", kind)))
    doc = f"{(kind.__doc__ or '').strip()}\n\nArguments as `MaxPool{rank}d`" + (f"; keywords: {own}." if own else ".")
    facts: dict[str, Any] = {"kind": kind, "rank": rank, "__doc__": doc, "__module__": "poolwise.torch"}
    resting = kind.evaluated
    facts["function"] = _function(kind, rank)
    facts["evaluated"] = None if resting is None else _function(resting, rank)
    return type(name, (OperationPool,), facts)


def _function(kind: type[Operation], rank: int) -> Any:
    return staticmethod(getattr(functional, f"{kind.stems[0]}_pool{rank}d"))


def composed_layer(composition: Composition, rank: int | None) -> type[Composed]:
    """The module of a composition over `rank` axes: `MaxBlurPool2d(kernel_size, stride=None, …, taps=3)`."""
    signature = inspect.Signature(
        [each.replace(name=functional.WORDS.get(each.name, each.name)) for each in composition.arguments]
    )
    doc = (inspect.getdoc(composition.function) or "").partition("\n\n>>>")[0]
    function = staticmethod(getattr(functional, functional.name_of(composition, rank)))
    facts = {"composition": composition, "rank": rank, "function": function, "__signature__": signature}
    name = composed_name(composition, rank)
    base = ComposedPool if composition.inputs == 1 else ComposedUnpool
    return cast("type[Composed]", type(name, (base,), {**facts, "__doc__": doc, "__module__": "poolwise.torch"}))


def composed_name(composition: Composition, rank: int | None) -> str:
    """The module's name."""
    return f"{composition.torch}{'' if rank is None else f'{rank}d'}"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


LAYERS: dict[str, type[torch.nn.Module]] = {
    f"{name}{rank}d": stock_layer(f"{name}{rank}d")
    for name in STOCK
    for rank in functional.RANKS
    if hasattr(torch.nn, f"{name}{rank}d")
}
LAYERS.update(
    {
        f"{kind.stems[1]}Pool{rank}d": operation_layer(kind, rank)
        for kind in OPERATIONS
        for rank in functional.RANKS
        if f"{kind.stems[1]}Pool{rank}d" not in LAYERS
    }
)
LAYERS.update(
    {
        composed_name(each, rank): composed_layer(each, rank)
        for each in COMPOSITIONS
        for rank in (functional.RANKS if each.ranked else (None,))
        if each.torch is not None
    }
)
