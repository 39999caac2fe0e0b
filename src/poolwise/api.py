"""The public functions: sugar over one way in, `pooled`, which plans a call once and runs it."""

# Users pass anything: what the types promise is checked at run time too.
# pyright: reportUnnecessaryIsInstance=false, reportUnnecessaryComparison=false

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from poolwise.call import INPUT, WHERE, Call, Framework, shape_over
from poolwise.choose import Choice, choose, refusals
from poolwise.doors import NUMPY, Build, Door, Facts, check_operand_shape, enter
from poolwise.errors import Fault, InvalidType, InvalidValue, shown
from poolwise.geometry import BinRule, Geometry, Offsets, Padding, PaddingMode, Whole
from poolwise.op import FLOATS, Array, Operation, Selection
from poolwise.ops import OPERATIONS


def pool(
    x: Any,
    op: Operation,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    ceil_mode: bool = False,
    padding_mode: PaddingMode = "absent",
    axes: Whole | None = None,
    where: Any = None,
    operands: Mapping[str, Any] | None = None,
    kernel: str | None = None,
) -> Any:
    """Pool an array: slide a window over some of its axes and let `op` make one number of each window.

    x: array of any rank ≥ 1, of any framework that has a door, bool, integer or floating; the pooled axes not empty.
        A list of numbers is taken as float64.
    op: what becomes of a window: `Max()`, `Mean()`, ….
    window: taps per pooled axis, a tuple (a bare int only together with `axes`).
    stride: step per axis; None: the window.
    padding: an int, one per axis, (low, high) per axis, "valid", "same" or "same_lower". Padding is absence, not zero.
    dilation: distance between taps.
    ceil_mode: round the output size up, but drop a last window that would start in the right padding.
    padding_mode: "absent", or "circular", "reflect", "replicate": what the taps in the padding read.
    axes: the pooled axes; None: the last len(window). Everything else is batch.
    where: boolean mask that broadcasts against x; where False an element is absent.
    operands: the arrays that `op` needs beside x, by name: floats that broadcast against x, whose pooled axes have the
        input's, the output's or the window's sizes, as `op` says. What an operation draws may be left out; then "seed",
        an int or the framework's generator, makes it repeat.
    kernel: "native", "vendor", "gathered" or "reference"; None: the first that serves the call (see `explain`).

    Returns an array of x's own type, in x's memory order; its pooled axes have the sizes ⌊(n + pads − span) / s⌋ + 1.
    Raises InvalidValue (a ValueError) or InvalidType (a TypeError) that names the argument, before any work is done.

    Source of the size rule: Dumoulin & Visin, A guide to convolution arithmetic for deep learning, 2016, chapter 3.

    >>> import numpy as np, poolwise
    >>> pool(np.arange(16.0).reshape(4, 4), poolwise.Max(), (2, 2))
    array([[ 5.,  7.],
           [13., 15.]])
    """
    arguments = (window, stride, padding, dilation, ceil_mode, padding_mode, axes)
    return pooled("pool", x, op, sliding, arguments, where, kernel, operands)


def adaptive_pool(
    x: Any,
    op: Operation,
    output_size: Whole,
    *,
    axes: Whole | None = None,
    bins: BinRule = "overlapping",
    where: Any = None,
    operands: Mapping[str, Any] | None = None,
    return_indices: bool = False,
    kernel: str | None = None,
) -> Any:
    """Pool to a given output size: bin i of m covers ⌊i·n/m⌋ … ⌈(i+1)·n/m⌉ of the n elements (PyTorch's rule).

    output_size: cells per pooled axis, a tuple (a bare int only together with `axes`).
    bins: "overlapping", as above, or "disjoint": the first n mod m bins are one longer (Equinox's rule).
    return_indices: also return int64 flat positions over the pooled axes (operations that pick an element).
    The rest as in `pool`.

    >>> import numpy as np, poolwise
    >>> adaptive_pool(np.arange(7.0), poolwise.Mean(), (3,))
    array([1., 3., 5.])
    """
    arguments = (output_size, axes, bins)
    return pooled("adaptive_pool", x, op, adaptive, arguments, where, kernel, operands, return_indices=return_indices)


def global_pool(
    x: Any,
    op: Operation,
    *,
    axes: Whole,
    keepdims: bool = False,
    where: Any = None,
    operands: Mapping[str, Any] | None = None,
) -> Any:
    """Pool each of `axes` to one cell, and drop those axes unless `keepdims`.

    Source: Lin, Chen & Yan, Network in network, 2014, section 3.2.

    >>> import numpy as np, poolwise
    >>> global_pool(np.ones((2, 3, 4, 4)), poolwise.Sum(), axes=(2, 3))
    array([[16., 16., 16.],
           [16., 16., 16.]])
    """
    if not isinstance(keepdims, bool):
        raise InvalidType(f"keepdims must be True or False, got {keepdims!r}", "global_pool")
    y = pooled("global_pool", x, op, whole, (axes,), where, None, operands)
    if keepdims:
        return y
    pooled_axes = Geometry.whole(tuple(y.shape), axes).axes
    return y.reshape([size for axis, size in enumerate(y.shape) if axis not in pooled_axes])


def pool_backward(
    g: Any,
    x: Any,
    op: Operation,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    ceil_mode: bool = False,
    padding_mode: PaddingMode = "absent",
    axes: Whole | None = None,
    where: Any = None,
    operands: Mapping[str, Any] | None = None,
    kernel: str | None = None,
) -> Any:
    """The gradient of Σ g · pool(x, …) for a NumPy array x: the backward pass of `pool`, where no framework keeps one.

    g: floats of the pooled output's shape. x: floats. The other arguments, and what is raised, are `pool`'s.
    Returns an array of x's shape and dtype; for an operation that has operands a pair, of that and a dictionary of
    theirs. (PyTorch and Keras differentiate `pool` themselves.)

    >>> import numpy as np, poolwise
    >>> pool_backward([[1.0]], [[1.0, 3.0], [2.0, 4.0]], poolwise.Max(), (2, 2))
    array([[0., 0.],
           [0., 1.]])
    """
    arguments = (window, stride, padding, dilation, ceil_mode, padding_mode, axes)
    return _backward("pool_backward", g, x, op, sliding, arguments, where, kernel, operands)


def adaptive_pool_backward(
    g: Any,
    x: Any,
    op: Operation,
    output_size: Whole,
    *,
    axes: Whole | None = None,
    bins: BinRule = "overlapping",
    where: Any = None,
    operands: Mapping[str, Any] | None = None,
    kernel: str | None = None,
) -> Any:
    """The gradient of Σ g · adaptive_pool(x, …) for a NumPy array x; as `pool_backward`.

    >>> import numpy as np, poolwise
    >>> adaptive_pool_backward(np.ones(1), np.arange(4.0), poolwise.Mean(), (1,))
    array([0.25, 0.25, 0.25, 0.25])
    """
    arguments = (output_size, axes, bins)
    return _backward("adaptive_pool_backward", g, x, op, adaptive, arguments, where, kernel, operands)


def _backward(
    function: str,
    g: Any,
    x: Any,
    op: Operation,
    build: Build,
    arguments: tuple[Any, ...],
    where: Any,
    kernel: str | None,
    given: Mapping[str, Any] | None,
) -> Any:
    try:
        (door, x), (its_door, g) = enter(x), enter(g)
        if door is not NUMPY or its_door is not NUMPY:
            raise InvalidType(f"x and g must be NumPy arrays, got {door.framework.name} and {its_door.framework.name}")
        if x.dtype.name not in FLOATS or g.dtype.name not in FLOATS:
            raise InvalidType(f"x and g must be floats for a gradient, got {x.dtype} and {g.dtype}")
        operands = entered(door, x, where, op, given, build, arguments)
        call, choice = _plan(door, x, op, build, arguments, operands, kernel, keep=True)
        if g.shape != call.geometry.output_shape:
            raise InvalidValue(f"g must have the output's shape {call.geometry.output_shape}, got {g.shape}")
    except Fault as fault:
        raise fault.within(function) from None
    _, kept = choice.kernel.forward(operands.arrays, call)
    grads = choice.kernel.backward(np.ascontiguousarray(g, x.dtype), kept, call)
    own = {name: grad for name, grad in zip(call.operands, grads, strict=True) if name in op.operands}
    return (grads[0], own) if own else grads[0]


@dataclass(frozen=True, repr=False)
class Explanation:
    """Which kernel serves a call, and why each other one does not.

    kernel: its name, when gradients are wanted. refusals: every other kernel's reason. kept_bytes: what stays in memory
    for backward; of the gathered kernel the input or the indices alone, beside which a framework that records its own
    operations keeps what they need. forward_kernel: the kernel's name where nothing is kept.
    """

    call: Call
    kernel: str
    refusals: Mapping[str, str]
    kept_bytes: int
    forward_kernel: str

    def __str__(self) -> str:
        call, outputs, alone = self.call, prod(self.call.geometry.output_shape), self.forward_kernel
        recorded = self.kernel == "gathered" and call.framework.name != "numpy"  # as the framework's own operations
        kept = f"{self.kept_bytes} bytes ({self.kept_bytes / max(outputs, 1):g} per output)"
        lines = [
            f"{call.op!r} on {call.framework.name} {call.dtype} ({call.device})",
            f"kernel: {self.kernel}" + (f" (without a gradient: {alone})" if alone != self.kernel else ""),
            *(f"  not {name}: {reason}" for name, reason in self.refusals.items()),
            "kept for backward: " + (f"at least {kept}, and what {call.framework.name} records" if recorded else kept),
            str(call.geometry),
        ]
        return "\n".join(lines)

    __repr__ = __str__  # a session shows it as it is read


def explain(
    x: Any,
    op: Operation,
    window: Whole,
    *,
    stride: Whole | None = None,
    padding: Padding = 0,
    dilation: Whole = 1,
    ceil_mode: bool = False,
    padding_mode: PaddingMode = "absent",
    axes: Whole | None = None,
    where: Any = None,
    kernel: str | None = None,
) -> Explanation:
    """Which kernel `pool` would take for these arguments when gradients are wanted, and why no other.

    A small maximum that PyTorch's functions have met before autograd may record as PyTorch's own, the same bit by bit.

    >>> import numpy as np, poolwise
    >>> explain(np.ones((8, 8), "float16"), poolwise.Max(), (3, 3)).kernel
    'native'
    """
    arguments = (window, stride, padding, dilation, ceil_mode, padding_mode, axes)
    try:
        door, x = enter(x)
        operands = _likely(entered(door, x, where, None, None, sliding, arguments), op, door.facts(x).dtype)
        call, choice = _plan(door, x, op, sliding, arguments, operands, kernel, keep=True)
        _, alone = _plan(door, x, op, sliding, arguments, operands, kernel, keep=False)
    except Fault as fault:
        raise fault.within("explain") from None
    answers = refusals(call)
    later = f"not asked: {choice.kernel.name} was named" if kernel else f"not needed: {choice.kernel.name} comes first"
    others = {name: reason or later for name, reason in answers.items() if name != choice.kernel.name}
    return Explanation(call, choice.kernel.name, others, choice.kernel.kept_bytes(call), alone.kernel.name)


class PoolFunction(Protocol):
    """A short name: `pool` with its operation fixed; the operation's parameters are keywords."""

    __name__: str

    def __call__(
        self,
        x: Any,
        window: Whole,
        *,
        stride: Whole | None = None,
        padding: Padding = 0,
        dilation: Whole = 1,
        ceil_mode: bool = False,
        padding_mode: PaddingMode = "absent",
        axes: Whole | None = None,
        where: Any = None,
        kernel: str | None = None,
        **parameters: Any,
    ) -> Any: ...


def short_name(kind: type[Operation]) -> PoolFunction:
    """The public function of one operation: `max_pool(x, window, *, <its parameters>, <pool's>)`."""
    name = f"{kind.stems[0]}_pool"
    parameters = _parameters(kind)

    def function(
        x: Any,
        window: Whole,
        *,
        stride: Whole | None = None,
        padding: Padding = 0,
        dilation: Whole = 1,
        ceil_mode: bool = False,
        padding_mode: PaddingMode = "absent",
        axes: Whole | None = None,
        where: Any = None,
        kernel: str | None = None,
        **given: Any,
    ) -> Any:
        return_indices = given.pop("return_indices", False) if issubclass(kind, Selection) else False
        arguments = (window, stride, padding, dilation, ceil_mode, padding_mode, axes)
        op, operands = apart(name, kind, given)
        return pooled(name, x, op, sliding, arguments, where, kernel, operands, return_indices=return_indices)

    _dress(function, name, kind, parameters)
    return cast("PoolFunction", function)


def named(function: str, kind: type[Operation], given: Mapping[str, Any]) -> Operation:
    """The operation with these parameters; a fault says by which function it was asked for."""
    known = _names_of_parameters(kind)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InvalidType(f"unexpected argument {unknown[0]}={shown(given[unknown[0]])}", function)
    try:
        return kind(**given)
    except Fault as fault:
        raise fault.within(function) from None


def _names_of_parameters(kind: type[Operation]) -> frozenset[str]:
    return _PARAMETERS[kind] if kind in _PARAMETERS else frozenset(field.name for field in fields(cast("Any", kind)))


def apart(function: str, kind: type[Operation], given: Mapping[str, Any]) -> tuple[Operation, dict[str, Any]]:
    """The operation with these parameters, and the operands among them: an array in a parameter's place is one."""
    if len(kind.arrays) == 0:  # PyTorch's compiler reads this, and knows no truth of a tuple of values
        return named(function, kind, given), {}
    own = _names_of_parameters(kind)
    rest: dict[str, Any] = dict(given)
    operands: dict[str, Any] = {}
    if "seed" in rest and any(each.drawn for each in kind.arrays):
        operands["seed"] = rest.pop("seed")
    for name in [each.name for each in kind.arrays if each.name in rest]:
        if name not in own:
            operands[name] = rest.pop(name)
        elif rest[name] is not None and not isinstance(rest[name], int | float | str | np.integer | np.floating):
            operands[name], rest[name] = rest[name], None
    return named(function, kind, rest), operands


def usual_start(kind: type[Operation], name: str, otherwise: float) -> float:
    """What a layer's own array of that name starts from where nobody says: the parameter it stands for has a value."""
    defaults = [field.default for field in fields(cast("Any", kind)) if field.name == name]
    return otherwise if defaults in ([], [None]) else cast("float", defaults[0])


def _parameters(kind: type[Operation]) -> list[inspect.Parameter]:
    own = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=field.type,
        )
        for field in fields(cast("Any", kind))
    ]
    names = {parameter.name for parameter in own}
    own.extend(
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if each.drawn else inspect.Parameter.empty,
            annotation="Any",
        )
        for each in kind.arrays
        if each.name not in names
    )
    if any(each.drawn for each in kind.arrays):
        own.append(inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Any"))
    if issubclass(kind, Selection):
        own.append(
            inspect.Parameter("return_indices", inspect.Parameter.KEYWORD_ONLY, default=False, annotation="bool")
        )
    return own


def _dress(function: Callable[..., Any], name: str, kind: type[Operation], own: list[inspect.Parameter]) -> None:
    """The name, signature and docstring that help() and editors show."""
    general = list(inspect.signature(pool).parameters.values())
    positional, keywords = [general[0], general[2]], [each for each in general[3:] if each.name != "operands"]
    function.__name__ = function.__qualname__ = name
    function.__module__ = "poolwise"
    cast("Any", function).__signature__ = inspect.Signature([*positional, *own, *keywords], return_annotation="Any")
    function.__doc__ = f"`pool` with `{kind.__name__}`.\n\n{inspect.getdoc(kind)}\n\nThe other arguments are `pool`'s."


_PARAMETERS = {kind: frozenset(field.name for field in fields(cast("Any", kind))) for kind in OPERATIONS}
_PLAIN = {int, str, bool, type(None)}
SHORT_NAMES: dict[str, PoolFunction] = {f"{kind.stems[0]}_pool": short_name(kind) for kind in OPERATIONS}


def sliding(
    shape: tuple[int, ...],
    window: Whole,
    stride: Whole | None,
    padding: Padding,
    dilation: Whole,
    ceil_mode: bool,
    padding_mode: PaddingMode,
    axes: Whole | None,
    offsets: Offsets = "start",
) -> Geometry:
    """Builder of sliding windows, from `pool`'s arguments in their order, and where they start."""
    return Geometry.of(
        shape,
        axes,
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        padding_mode=padding_mode,
        offsets=offsets,
    )


def adaptive(shape: tuple[int, ...], output_size: Whole, axes: Whole | None, bins: BinRule) -> Geometry:
    """Builder of adaptive bins."""
    return Geometry.adaptive(shape, axes, output_size=output_size, bins=bins)


def whole(shape: tuple[int, ...], axes: Whole) -> Geometry:
    """Builder of one window over each axis."""
    return Geometry.whole(shape, axes)


def pooled(
    function: str,
    x: Any,
    op: Operation,
    build: Build,
    arguments: tuple[Any, ...],
    where: Any,
    kernel: str | None,
    given: Mapping[str, Any] | None = None,
    *,
    return_indices: bool = False,
) -> Any:
    """Enter by x's door, plan, run, and answer in x's own type."""
    try:
        if not isinstance(return_indices, bool):
            raise InvalidType(f"return_indices must be True or False, got {return_indices!r}")
        if return_indices and not isinstance(op, Selection):
            raise InvalidValue(f"return_indices must be False for {op!r}, which picks no element, got True")
        door, x = enter(x)
        operands = entered(door, x, where, op, given, build, arguments)
        if door.tracing():
            return door.trace(operands.arrays, operands.names, op, build, arguments, kernel, return_indices)
        keep = return_indices or door.keeps(x)
        if operands.dtypes:
            op, operands = _with_numbers(door, op, operands)
            keep = keep or any(map(door.keeps, operands.arrays))
        call, choice = _plan(door, x, op, build, arguments, operands, kernel, keep=keep)
    except Fault as fault:
        raise fault.within(function) from None
    y, kept = door.run(choice.kernel, operands.arrays, call)
    return (y, door.indices(choice.kernel, kept, call)) if return_indices else y


class Operands(NamedTuple):
    """The arrays of a call, the input first; what they are called; the dtypes of those behind input and mask."""

    arrays: tuple[Array, ...]
    names: tuple[str, ...]
    dtypes: tuple[str, ...] = ()


def entered(
    door: Door,
    x: Array,
    where: Any,
    op: Operation | None,
    given: Mapping[str, Any] | None,
    build: Build,
    arguments: tuple[Any, ...],
) -> Operands:
    """The input, the mask and what the operation needs beside them, as the door's arrays."""
    operands = Operands((x,), (INPUT,)) if where is None else Operands((x, door.mask(where, x)), (INPUT, WHERE))
    if not given and len(getattr(op, "arrays", ())) == 0:
        return operands
    if not isinstance(op, Operation):
        raise InvalidType(f"op must be an operation such as Max(), got {op!r}")
    if given is not None and not isinstance(given, Mapping):
        raise InvalidType(f"operands must be a dictionary of arrays, got {given!r}")
    found = _found(door, x, op, dict(given or {}), build, arguments)
    dtypes = [door.facts(array).dtype if array is not None else "float32" for array in found.values()]
    return Operands((*operands.arrays, *found.values()), (*operands.names, *found), tuple(dtypes))


def _with_numbers(door: Door, op: Operation, operands: Operands) -> tuple[Operation, Operands]:
    """Where the one operand is one number and nobody asks for its gradient, it is the parameter that it stands for."""
    name = op.operands[0]
    number = door.number(operands.arrays[-1]) if len(op.operands) == 1 and hasattr(op, name) else None
    if number is not None:
        with suppress(Fault):  # of an operand more numbers may mean something
            op = replace(cast("Any", op), **{name: number})
            kept = len(operands.names) - len(operands.dtypes)
            operands = Operands(operands.arrays[:kept], operands.names[:kept])
    return op, operands


def _found(
    door: Door, x: Array, op: Operation, given: dict[str, Any], build: Build, arguments: tuple[Any, ...]
) -> dict[str, Array]:
    """Each operand that the operation needs: given, or drawn; None where a framework that records must draw it."""
    needed = [each for each in op.arrays if each.name in op.operands]
    draws = any(each.drawn for each in needed)
    seed = given.pop("seed", None) if draws else None
    unknown = [name for name in given if name not in op.operands]
    if unknown:
        raise InvalidType(f"unexpected operand {unknown[0]} for {op!r}, whose operands are {op.operands}")
    found: dict[str, Array] = {}
    for each in needed:
        value = given.get(each.name)
        if value is None and not each.drawn:
            raise InvalidType(f"{each.name} must be given for {op!r}, got none")
        if each.drawn and value is not None and seed is not None:
            raise InvalidValue(f"seed must be None where {each.name} are given, got {seed!r}")
        if value is not None:
            found[each.name] = door.operand(each.name, value, x)
            if each.drawn:
                _check_drawn(door, each.name, found[each.name])
        elif door.tracing():
            if seed is not None:
                raise InvalidValue(f"seed must be None where {door.framework.name} records operations, got {seed!r}")
            found[each.name] = None
        else:
            shape = shape_over(build(tuple(x.shape), *arguments), each.over)
            found[each.name] = door.drawn(shape, seed, x)
    return found


def _check_drawn(door: Door, name: str, draws: Array) -> None:
    if not door.tracing() and door.facts(draws).device == "cpu" and not ((draws >= 0) & (draws < 1)).all():
        raise InvalidValue(f"{name} must be at least 0 and less than 1, got others")


def _likely(operands: Operands, op: Operation, dtype: str) -> Operands:
    """With operands that nobody has given, as floats like the input."""
    own = op.operands if isinstance(op, Operation) else ()
    return Operands(operands.arrays, (*operands.names, *own), (dtype,) * len(own))


def _plan(
    door: Door,
    x: Array,
    op: Operation,
    build: Build,
    arguments: tuple[Any, ...],
    operands: Operands,
    kernel: str | None,
    *,
    keep: bool,
) -> tuple[Call, Choice]:
    if not isinstance(op, Operation):
        raise InvalidType(f"op must be an operation such as Max(), got {op!r}")
    if kernel is not None and not isinstance(kernel, str):
        raise InvalidType(f"kernel must be None or a kernel's name, got {kernel!r}")
    kinds = tuple(map(type, arguments))
    exact = _PLAIN.issuperset(kinds) or all(map(_exact, arguments))
    if not exact and all(map(_exact, settled := tuple(map(_settled, arguments)))):
        exact, arguments, kinds = True, settled, tuple(map(type, settled))
    plan = planned if exact else planned.__wrapped__
    names, dtypes = operands.names, operands.dtypes
    facts = door.facts(x)
    for array in operands.arrays[1:]:
        if facts.device == "cpu":  # every array must be one whose memory a kernel can read
            facts = facts._replace(device=door.facts(array).device)
    call, choice = plan(door.framework, facts, op, build, arguments, kinds, names, kernel, keep, dtypes)
    for name, array in zip(names[1:], operands.arrays[1:], strict=False):
        if dtypes and name != WHERE:
            check_operand_shape(name, tuple(array.shape), call.shape_of(name))
    return call, choice


@lru_cache(maxsize=4096)
def planned(
    framework: Framework,
    facts: Facts,
    op: Operation,
    build: Build,
    arguments: tuple[Hashable, ...],
    kinds: tuple[type, ...],
    operands: tuple[str, ...],
    kernel: str | None,
    keep: bool,
    extras: tuple[str, ...] = (),
) -> tuple[Call, Choice]:
    """The call and its kernel; equal arguments of equal kinds (1, 1.0 and True are equal) are planned once."""
    del kinds
    geometry = build(facts.shape, *arguments)
    dtypes = (facts.dtype, "bool")[: len(operands) - len(extras)] + extras
    call = Call(op, geometry, framework, dtypes, facts.layout, facts.device, operands, keep)
    return call, choose(call, kernel)


def _settled(argument: Any) -> Any:
    """Lists, and a tensor's sizes, as tuples; NumPy's integers as Python's."""
    if isinstance(argument, list | tuple):
        return tuple(map(_settled, cast("Any", argument)))
    return int(cast("Any", argument)) if isinstance(argument, np.integer) else argument


def _exact(argument: Any) -> bool:
    """Whether equal arguments mean the same, so that a plan may be remembered: no 1.0 or True inside a tuple."""
    if type(argument) is tuple:
        entries = cast("tuple[Any, ...]", argument)
        return all(type(entry) is int or (type(entry) is tuple and _exact(entry)) for entry in entries)
    return argument is None or isinstance(argument, int | str)
