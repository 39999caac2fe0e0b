"""What the explorer is asked to pool, read from the text that its page writes: `op=max&window=2x2&padding=same`.

`static/state.js` writes and reads the same spelling; the tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints
from urllib.parse import unquote

from poolwise import Geometry, InvalidValue, Operation, adaptive_pool, adaptive_pool_backward, pool, pool_backward
from poolwise.ops import OPERATIONS

KINDS = {kind.name: kind for kind in OPERATIONS}
NAMED_PADDINGS = ("valid", "same", "same_lower")


@dataclass(frozen=True)
class Asked:
    """An operation and a geometry. adaptive: whether `arguments` are `adaptive_pool`'s instead of `pool`'s."""

    op: Operation
    adaptive: bool
    arguments: Mapping[str, Any]

    def geometry(self, shape: tuple[int, ...]) -> Geometry:
        """What every output cell reads of a plane."""
        return (Geometry.adaptive if self.adaptive else Geometry.of)(shape, **self.arguments)

    def forward(self, x: Any) -> Any:
        """Pool the last two axes."""
        function = adaptive_pool if self.adaptive else pool
        return function(x, self.op, **self.arguments)

    def backward(self, g: Any, x: Any) -> Any:
        """The gradient at x."""
        function = adaptive_pool_backward if self.adaptive else pool_backward
        found = function(g, x, self.op, **self.arguments)
        return found[0] if isinstance(found, tuple) else found  # behind it those of the operation's own arrays


def read(text: str) -> Asked:
    """The pooling that a text describes; InvalidValue where it describes none."""
    given = parted(text)
    op = read_op(unquote(given.get("op", "max")))
    if "global" in given:
        return Asked(op, True, {"output_size": (1, 1)})
    if "adaptive" in given:
        bins = given.get("bins", "overlapping")
        return Asked(op, True, {"output_size": _two("adaptive", given["adaptive"]), "bins": bins})
    arguments: dict[str, Any] = {"window": _two("window", given.get("window", "2x2"))}
    if "stride" in given:
        arguments["stride"] = _two("stride", given["stride"])
    if "padding" in given:
        arguments["padding"] = _padding(given["padding"])
    if "dilation" in given:
        arguments["dilation"] = _two("dilation", given["dilation"])
    if given.get("ceil") == "1":
        arguments["ceil_mode"] = True
    if "mode" in given:
        arguments["padding_mode"] = given["mode"]
    return Asked(op, False, arguments)


def parted(text: str, between: str = "&", within: str = "=") -> dict[str, str]:
    """`a=1&b=2` as a dictionary."""
    pairs = (part.partition(within) for part in text.split(between) if part)
    return {name: value for name, _, value in pairs}


def read_op(text: str) -> Operation:
    """The operation that `lp(p:3)` spells."""
    name, _, rest = text.removesuffix(")").partition("(")
    if name not in KINDS:
        raise InvalidValue(f"op must be one of {', '.join(KINDS)}, got {text!r}")
    known = {field.name for field in fields(cast("Any", KINDS[name]))}
    given = parted(rest, ",", ":")
    if set(given) - known:
        raise InvalidValue(f"op {name} must have parameters among {sorted(known)}, got {text!r}")
    return KINDS[name](**{key: _value(value) for key, value in given.items()})


def write(op: Operation, arguments: Mapping[str, Any]) -> str:
    """The text of a pooling over two axes: `pool`'s arguments, or `adaptive_pool`'s."""
    parts = [f"op={write_op(op)}"]
    if "output_size" in arguments:
        size = _pair(arguments["output_size"])
        parts.append("global=1" if size == (1, 1) else f"adaptive={_joined(size)}")
        if size != (1, 1) and arguments.get("bins", "overlapping") != "overlapping":
            parts.append(f"bins={arguments['bins']}")
        return "&".join(parts)
    window = _pair(arguments["window"])
    parts.append(f"window={_joined(window)}")
    if arguments.get("stride") is not None:
        parts.append(f"stride={_joined(_pair(arguments['stride']))}")
    padding = _written_padding(arguments.get("padding", 0))
    parts.extend([f"padding={padding}"] if padding else [])
    if _pair(arguments.get("dilation", 1)) != (1, 1):
        parts.append(f"dilation={_joined(_pair(arguments['dilation']))}")
    parts.extend(["ceil=1"] if arguments.get("ceil_mode") else [])
    if arguments.get("padding_mode", "absent") != "absent":
        parts.append(f"mode={arguments['padding_mode']}")
    return "&".join(parts)


def write_op(op: Operation) -> str:
    """`lp(p:3)`: the name, and the parameters that are not as by default."""
    own = [(field.name, getattr(op, field.name), field.default) for field in fields(cast("Any", op))]
    given = [(name, value) for name, value, default in own if value is not None and value != default]
    told = ",".join(
        f"{name}:{str(value).lower() if isinstance(value, bool) else _number(value)}" for name, value in given
    )
    return f"{op.name}({told})" if told else op.name


def described() -> list[dict[str, Any]]:
    """Every operation that an address can say, with no array beside the input, as the page needs to know it."""
    return [
        {
            "name": kind.name,
            "kind": kind.__name__,
            "stems": kind.stems,
            "formula": _formula(kind),
            "parameters": _parameters(kind),
        }
        for kind in OPERATIONS
        if not kind().operands
    ]


def _formula(kind: type[Operation]) -> str:
    """What an operation is, in the first words of its docstring."""
    first = " ".join((kind.__doc__ or "").split("\n\n", maxsplit=1)[0].split())
    return first.partition(": ")[0].rstrip(".")


def _parameters(kind: type[Operation]) -> list[dict[str, Any]]:
    hints = get_type_hints(kind)
    return [
        {
            "name": field.name,
            "type": getattr(hints[field.name], "__name__", "float"),
            "default": None if field.default is MISSING else field.default,
            **({"choices": list(get_args(hints[field.name]))} if get_origin(hints[field.name]) is Literal else {}),
        }
        for field in fields(cast("Any", kind))
    ]


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text.replace("Infinity", "inf"))
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def _number(value: Any) -> str:
    """As JavaScript writes it."""
    if value == float("inf"):
        return "Infinity"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _two(name: str, text: str) -> tuple[int, int]:
    try:
        first, second = map(int, text.split("x"))
    except ValueError:
        raise InvalidValue(f"{name} must be two whole numbers such as 2x2, got {text!r}") from None
    return first, second


def _padding(text: str) -> Any:
    if text in NAMED_PADDINGS:
        return text
    try:
        (top, bottom), (left, right) = (map(int, axis.split("-")) for axis in text.split("x"))
    except ValueError:
        raise InvalidValue(f"padding must be same, same_lower, valid or such as 1-1x0-2, got {text!r}") from None
    return (top, bottom), (left, right)


def _pair(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    return (1, pair[0]) if len(pair) == 1 else pair


def _joined(pair: tuple[int, int]) -> str:
    return "x".join(map(str, pair))


def _written_padding(padding: Any) -> str:
    if isinstance(padding, str):
        return padding
    sides = [
        (side, side) if isinstance(side, int) else tuple(side)
        for side in ([padding] * 2 if isinstance(padding, int) else padding)
    ]
    sides = [(0, 0), *sides] if len(sides) == 1 else sides
    return "x".join(f"{low}-{high}" for low, high in sides) if any(map(any, sides)) else ""
