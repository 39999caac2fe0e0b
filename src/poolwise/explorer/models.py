"""The poolings of a user's own model, PyTorch, Keras or ONNX: its feature maps before and after each, from one run.

What each pooling is, is said in poolwise's words and then held against what the model computed; where the two differ,
the stage's note says so. A framework is imported only where a model of its kind, or a file of one, is at hand.
"""
# ruff: noqa: PLC0415 (imports inside the functions, for the reason above)

from __future__ import annotations

import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial, wraps
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from poolwise import Fault, InvalidType, InvalidValue, Lp, Max, Mean, MissingExtra, Operation, adaptive_pool, ops, pool
from poolwise.named import current_folder, factory

Shape = tuple[int | None, ...]
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".h5", ".hdf5")
MOST = 1 << 28  # numbers that are made where no images are given: 1 GiB of them
NAMES = "a .onnx or .keras file or module:factory"


@dataclass(frozen=True, eq=False)
class Stage:
    """One pooling of a model, as it ran.

    name: its place in the model, or the function that was called; with a number from the second time on.
    op: poolwise's operation; None where it has none that means the same.
    arguments: keywords of `poolwise.pool` over the last axes, or {"output_size": …} of `poolwise.adaptive_pool`.
    before, after: (channels, *sizes) of the batch's first image, channels first whatever the model's layout.
    note: why there is no op, or how the model's own pooling differs from poolwise's; "" where nothing is to be said.
    """

    name: str
    op: Operation | None
    arguments: Mapping[str, Any]
    before: NDArray[Any]
    after: NDArray[Any]
    note: str = ""


class Pooling(NamedTuple):
    """What a framework's pooling is in poolwise's words."""

    op: Operation | None
    arguments: Mapping[str, Any]
    note: str = ""


@dataclass
class Record:
    """The stages so far. inside: how deep the run is in poolings, of which only the outermost is a stage."""

    stages: list[Stage] = field(default_factory=list[Stage])
    times: Counter[str] = field(default_factory=Counter[str])
    inside: int = 0

    def add(self, name: str, pooling: Pooling, before: NDArray[Any], after: NDArray[Any], dtype: Any) -> None:
        """One more; dtype: the model's own, before it became NumPy's."""
        self.times[name] += 1
        named = name if self.times[name] == 1 else f"{name} #{self.times[name]}"
        notes = [pooling.note, _difference(pooling, before, after, 1e-2 if "16" in str(dtype) else 1e-4)]
        self.stages.append(Stage(named, pooling.op, pooling.arguments, before, after, "; ".join(filter(None, notes))))


def stages(model: Any, images: Any = None, *, input_shape: tuple[int, ...] | None = None) -> list[Stage]:
    """Run a model once on a batch and record every pooling, in the order of execution.

    model: a torch.nn.Module, a keras model or layer, an onnx.ModelProto, or what `load` takes; left as it was.
    images: the batch as the model takes it: NCHW for PyTorch and ONNX, Keras in the model's own layout; floats are cast
        to the model's dtype. None: random numbers in [0, 1) of `input_shape`, or of the shape that the model declares.

    PyTorch runs in eval mode without gradients; modules and calls of functions are seen, in TorchScript neither, in an
    exported program only PyTorch's. Keras runs eagerly (twice if it is not built); layers are seen, `keras.ops` is not.
    ONNX: the main graph and the model's own functions.

    Raises InvalidType for what is no model, InvalidValue if it does not run on the batch or has no pooling.
    """
    model = load(model) if isinstance(model, str | Path) else model
    framework = _framework(model)
    batch = _batch(images, input_shape, _declared(model))
    record = Record()
    try:
        _RUNS[framework](model, batch, record)
    except Exception as cause:  # whatever the user's model raises
        raise InvalidValue(f"model must run on images of shape {batch.shape}, got {_said(cause)}") from None
    if not record.stages:
        raise InvalidValue(f"model must have a pooling, got {type(model).__name__}, in which none was seen")
    return record.stages


def input_shape(model: Any) -> Shape | None:
    """The batch's shape that a model declares: a dynamic batch is 1, other dynamic sizes None. None: it declares none.

    Raises InvalidType for what is no model, InvalidValue for a model of several inputs.
    """
    return _declared(model)


def load(name: str | Path) -> Any:
    """The model of a name: `model.onnx`, `model.keras`, or `module:factory`, which is called.

    Raises InvalidValue for any other name, and for a file that is damaged or would run code; InvalidType if the factory
    makes no model; MissingExtra if the framework is not installed.
    """
    path, suffix = Path(name), Path(name).suffix.lower()
    if suffix in PICKLES:
        raise InvalidValue(
            f"model must be {NAMES}, got {str(name)!r}: a pickle runs code when it is opened; give module:factory"
        )
    if suffix in _LOADERS:
        if not path.is_file():
            raise InvalidValue(f"model must be a file that exists, got {str(name)!r}")
        return _LOADERS[suffix](path)
    if ":" not in str(name):
        raise InvalidValue(f"model must be {NAMES}, got {str(name)!r}")
    return _made(str(name))


def _made(name: str) -> Any:
    """The model that `module:attribute` is, or makes."""
    found = factory(name)
    try:
        _framework(found)
    except InvalidType:
        try:
            with current_folder():
                found = found()
        except Exception as cause:  # whatever the user's factory raises
            raise InvalidValue(f"model must be made by {name}(), got {_said(cause)}") from None
    _framework(found)
    return found


def _framework(model: Any) -> str:
    """Which framework a model is of, by the names of its classes, so that nothing is imported to know."""
    classes = {(base.__module__.partition(".")[0], base.__name__) for base in type(model).__mro__}
    for framework, name in (("keras", "Layer"), ("torch", "Module"), ("onnx", "ModelProto")):
        if (framework, name) in classes:  # Keras on PyTorch is both of the first two
            return framework
    kinds = "a torch.nn.Module, a keras model or an onnx.ModelProto"
    raise InvalidType(f"model must be {kinds}, got {type(model).__name__}")


def _declared(model: Any) -> Shape | None:
    shape = {"torch": lambda _: None, "keras": _keras_shape, "onnx": _onnx_shape}[_framework(model)](model)
    return shape and (1 if shape[0] is None else shape[0], *shape[1:])


def _batch(images: Any, shape: Sequence[int] | None, declared: Shape | None) -> NDArray[Any]:
    """The images, checked; or random ones of the shape that is known."""
    if images is None:
        known = declared if shape is None else shape
        if known is None or None in known:
            raise InvalidValue(f"images or input_shape must be given for a model that declares {_written(known)}")
        if not all(isinstance(size, int) and size > 0 for size in known):
            raise InvalidValue(f"input_shape must be made of ints, each at least 1, got {known}")
        if prod(cast("Any", known)) > MOST:
            raise InvalidValue(f"input_shape must be of at most {MOST:,} numbers, got {known}")
        images = np.random.default_rng(0).random(cast("Any", known), np.float32)
    try:
        array = np.asarray(images)
    except (TypeError, ValueError, RuntimeError) as cause:  # a ragged list, a tensor on another device
        raise InvalidType(f"images must be an array of numbers, got {type(images).__name__} ({_said(cause)})") from None
    if array.dtype.kind not in "biuf" or not array.size:
        raise InvalidValue(f"images must be an array of numbers, got {array.dtype} of shape {array.shape}")
    for wanted in filter(None, (shape, declared and (None, *declared[1:]))):
        if len(array.shape) != len(wanted) or any(b not in (None, a) for a, b in zip(array.shape, wanted, strict=True)):
            raise InvalidValue(f"images must have {_written(wanted)}, got {array.shape}")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _written(shape: Sequence[int | None] | None) -> str:
    sizes = ["any" if size is None else str(size) for size in shape or ()]
    return f"the shape ({', '.join(sizes)})" if sizes else "no shape"


def _said(cause: Exception) -> str:
    """A framework's error in one line, without colours, the arguments that Keras adds, and a long middle."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).partition("Arguments received by")[0]
    line = " ".join(f"{type(cause).__name__}: {text}".split())
    return line if len(line) <= 300 else f"{line[:120]} … {line[-170:]}"


def _difference(pooling: Pooling, before: NDArray[Any], after: NDArray[Any], tolerance: float) -> str:
    """How the model's own result differs from poolwise's; "" if it does not."""
    if pooling.op is None:
        return ""
    function: Any = adaptive_pool if "output_size" in pooling.arguments else pool
    try:
        ours = function(before, pooling.op, **pooling.arguments)
    except Fault as fault:
        return f"poolwise refuses this: {fault}"
    if ours.shape != after.shape:
        return f"poolwise gives the shape {ours.shape}, the model {after.shape}"
    a, b = ours.astype(np.float64), after.astype(np.float64)
    largest = np.abs(b[np.isfinite(b)]).max(initial=0)
    wrong = int((~np.isclose(a, b, rtol=tolerance, atol=tolerance * largest, equal_nan=True)).sum())
    nan = ", where it reads NaN" if np.isnan(before.astype(np.float64)).any() else ""
    return f"differs from poolwise in {wrong} of {after.size} outputs{nan}" if wrong else ""


def _windows(
    rank: int, window: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False
) -> dict[str, Any]:
    """`poolwise.pool`'s arguments, with an entry for each axis."""
    taps = _each(window, rank)
    return {
        "window": taps,
        "stride": taps if stride is None or stride in ([], ()) else _each(stride, rank),
        "padding": padding if isinstance(padding, str) else tuple(_each(side, 2) for side in _each(padding, rank)),
        "dilation": _each(dilation, rank),
        "ceil_mode": bool(ceil_mode),
    }


def _each(value: Any, count: int) -> tuple[Any, ...]:
    """One entry for each axis; one may stand for all."""
    entries = tuple(value) if isinstance(value, Sequence) else (value,)
    return entries * count if len(entries) == 1 else entries


def _pooling(kind: type[Operation], given: Mapping[str, Any], arguments: Mapping[str, Any], note: str = "") -> Pooling:
    """The operation with those of its parameters that are given; none where it refuses them."""
    own = {each.name: given[each.name] for each in fields(cast("Any", kind)) if given.get(each.name) is not None}
    try:
        return Pooling(kind(**own), arguments, note)
    except Fault as fault:
        return Pooling(None, {}, f"not poolwise's {kind.__name__}: {fault}")


# ---- PyTorch ----

_POSITIONS = {  # the arguments of PyTorch's functions after the input, in their order
    "max": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "avg": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    "lp": ("norm_type", "kernel_size", "stride", "ceil_mode"),
    "adaptive_max": ("output_size",),
    "adaptive_avg": ("output_size",),
    "fractional_max": (),
}
_FUNCTION = re.compile(rf"({'|'.join(_POSITIONS)})_pool([123])d(?:_with_indices)?(?:\.\w+)?")
_MODULE = re.compile(r"(Adaptive|Fractional)?(Max|Avg|LP)Pool([123])d")
_MODULES_OF = ("torch.nn.modules.pooling", "poolwise.torch", "poolwise.torch.layers")


class Call(NamedTuple):
    """A pooling by PyTorch's names: the function's first words, the pooled axes, its arguments, and who computes it."""

    stem: str
    rank: int
    given: Mapping[str, Any]
    stock: bool = True


def _run_torch(model: Any, batch: NDArray[Any], record: Record) -> None:
    import torch

    x = torch.from_numpy(np.ascontiguousarray(batch))
    like = next((each for each in model.parameters() if each.is_floating_point()), x)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(setattr, module, "training", module.training)
            module.training = False  # `eval` may be a method of the user's, which changes more
            asked = _asked(module)
            if asked is not None:
                path = re.sub(r"(^|\.)_orig_mod\b", "", name).lstrip(".")  # torch.compile's own
                stack.enter_context(_hooked(module, path or type(module).__name__, asked, record))
        for context in (_own_calls(record), _stock_calls(record), torch.no_grad()):
            stack.enter_context(context)
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        model(x.to(like.device, like.dtype if x.is_floating_point() else x.dtype))


def _asked(module: Any) -> Call | None:
    """None for what is no pooling, and for a subclass with a `forward` of its own: what that calls is seen."""
    base = next((base for base in type(module).__mro__ if base.__module__ in _MODULES_OF), None)
    if base is None or type(module).forward is not base.forward or "forward" in vars(module):
        return None
    if base.__name__ == "Pool":
        return Call("", len(module.window), {"op": module.op, "window": module.window, **module.arguments})
    if hasattr(base, "kind"):
        given = {**vars(module), **module.parameters_of_operation}
        return Call(module.kind.stems[0], int(base.__name__[-2]), given)
    found = _MODULE.fullmatch(base.__name__)
    stem = "_".join(filter(None, found.groups()[:2])).lower() if found else ""
    return found and Call(stem, int(found[3]), vars(module), base.__module__ == _MODULES_OF[0])


@contextmanager
def _hooked(module: Any, name: str, asked: Call, record: Record) -> Iterator[None]:
    """Sees the calls of a pooling module."""

    def enter(module: Any, inputs: Any, keywords: Any) -> None:
        record.inside += 1

    def leave(module: Any, inputs: Any, keywords: Any, output: Any) -> None:
        record.inside -= 1
        if output is not None:  # it raised nothing
            _add_torch(record, name, asked, (*inputs, *keywords.values())[0], output)

    before = module.register_forward_pre_hook(enter, with_kwargs=True)
    with before, module.register_forward_hook(leave, with_kwargs=True, always_call=True):
        yield


@contextmanager
def _stock_calls(record: Record) -> Iterator[None]:
    """Sees the calls of PyTorch's own functions."""
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            keywords = kwargs or {}
            output = func(*args, **keywords)
            found = _FUNCTION.fullmatch(getattr(func, "__name__", ""))
            if found is not None and not record.inside:
                x, *rest = args or (keywords["input"],)
                given = {**dict(zip(_POSITIONS[found[1]], rest, strict=False)), **keywords}
                _add_torch(record, f"{found[1]}_pool{found[2]}d", Call(found[1], int(found[2]), given), x, output)
            return output

    with Mode():
        yield


@contextmanager
def _own_calls(record: Record) -> Iterator[None]:
    """Sees the calls of `poolwise.torch.functional` in their frames: a model may hold its functions by any name."""
    own: Any = sys.modules.get("poolwise.torch.functional")
    names = [name for name in getattr(own, "__all__", ()) if re.search(r"(?<!un)pool[123]d$", name)]
    codes = {getattr(own, name).__code__ for name in names}

    def profile(frame: Any, event: str, output: Any) -> None:
        if frame.f_code not in codes or event not in ("call", "return"):
            return
        record.inside += 1 if event == "call" else -1
        if event == "return" and output is not None and not record.inside:
            given = {**frame.f_locals, **frame.f_locals.get("parameters", {})}
            stem, _, rank = given["name"].partition("_pool")
            _add_torch(record, given["name"], Call(stem, int(rank[0]), given, False), given["input"], output)

    before = sys.getprofile()
    if codes:
        sys.setprofile(profile)
    try:
        yield
    finally:
        if codes:
            sys.setprofile(before if callable(before) else None)  # cProfile's cannot be set again


def _add_torch(record: Record, name: str, asked: Call, x: Any, output: Any) -> None:
    y = output[0] if isinstance(output, tuple) else output  # the indices come second
    record.add(name, _torch_pooling(asked, x.shape), _from_torch(x, asked.rank), _from_torch(y, asked.rank), x.dtype)


def _torch_pooling(asked: Call, shape: Sequence[int]) -> Pooling:
    stem, rank, given, stock = asked
    if not stem:
        return _general_pooling(given, len(shape))
    if stem.startswith("fractional"):
        return Pooling(None, {}, "its windows lie at random places")
    kind = {kind.stems[0]: kind for kind in ops.OPERATIONS}[stem.removeprefix("adaptive_")]
    if stem.startswith("adaptive"):
        sizes = zip(_each(given["output_size"], rank), shape[-rank:], strict=True)
        return Pooling(kind(), {"output_size": tuple(n if m is None else m for m, n in sizes)})
    known = {"count_include_pad": True, "divisor": given.get("divisor_override"), "p": given.get("norm_type")}
    names = {"stride", "padding", "dilation", "ceil_mode"} & set(given)
    arguments = _windows(rank, given["kernel_size"], **{name: given[name] for name in names})
    signed = stem == "lp" and stock and given["norm_type"] % 2
    note = "PyTorch sums signed powers where poolwise sums powers of magnitudes" if signed else ""
    return _pooling(kind, {**known, **given}, arguments, note)


def _general_pooling(given: Mapping[str, Any], ndim: int) -> Pooling:
    """Of `poolwise.torch.Pool`, whose arguments are `poolwise.pool`'s."""
    rank, axes = len(given["window"]), given.get("axes")
    if given.get("where") is not None:
        return Pooling(None, {}, "a mask leaves some elements out")
    if axes is not None and [axis % ndim for axis in _each(axes, rank)] != list(range(ndim - rank, ndim)):
        return Pooling(None, {}, f"it pools the axes {axes}, not the last")
    names = {"stride", "padding", "dilation", "ceil_mode"} & set(given)
    arguments = _windows(rank, given["window"], **{name: given[name] for name in names})
    return Pooling(given["op"], {**arguments, "padding_mode": given.get("padding_mode", "absent")})


def _from_torch(x: Any, rank: int) -> NDArray[Any]:
    """(channels, *sizes) of the first image, copied: what follows may work in place."""
    first = (x[0] if x.ndim > rank + 1 else x).detach().cpu()
    values = (first.float() if str(first.dtype) == "torch.bfloat16" else first).numpy()
    return np.array(values.reshape(-1, *values.shape[values.ndim - rank :]))


# ---- Keras ----

_LAYER = re.compile(r"(Global|Adaptive)?(\w+?)Pooling([123])D")


def _run_keras(model: Any, batch: NDArray[Any], record: Record) -> None:
    inputs = getattr(model, "inputs", None)
    x = batch.astype(inputs[0].dtype) if inputs else batch
    if not all(layer.built for layer in model._flatten_layers()):
        model(x)  # which traces the layers that it builds, with no numbers to see
    with ExitStack() as stack:
        for layer in model._flatten_layers():
            found = next(filter(None, map(_layer_class, type(layer).__mro__)), None)
            if found is not None:  # set past Keras, which would take notice
                stack.callback(partial(_restored, layer, vars(layer).get("call")))
                vars(layer)["call"] = _recorded(layer, found, record)
        model(x)


def _restored(layer: Any, call: Any) -> None:
    if call is None:
        del vars(layer)["call"]
    else:
        vars(layer)["call"] = call


def _layer_class(base: type) -> re.Match[str] | None:
    """The parts of the name of a pooling class of Keras or poolwise."""
    return _LAYER.fullmatch(base.__name__) if base.__module__.partition(".")[0] in ("keras", "poolwise") else None


def _recorded(layer: Any, found: re.Match[str], record: Record) -> Callable[..., Any]:
    """The layer's `call`, recorded."""
    call, pooling, rank = layer.call, _keras_pooling(layer, found), int(found[3])

    @wraps(call)
    def recorded(inputs: Any, *arguments: Any, **keywords: Any) -> Any:
        outputs = call(inputs, *arguments, **keywords)
        masked = any(each is not None for each in (*arguments, keywords.get("mask")))
        told = Pooling(None, {}, "a mask leaves some steps out") if masked else pooling
        before, after = (_from_keras(x, layer.data_format, rank) for x in (inputs, outputs))
        record.add(f"{layer.name} ({type(layer).__name__})", told, before, after, inputs.dtype)
        return outputs

    return recorded


def _keras_pooling(layer: Any, found: re.Match[str]) -> Pooling:
    base: Any = next(base for base in type(layer).__mro__ if _layer_class(base))
    form, stem, rank = found[1], found[2], int(found[3])
    if type(layer).call is not base.call:
        return Pooling(None, {}, f"{type(layer).__name__} has a call of its own")
    op = getattr(layer, "op", None) or {"Max": Max(), "Average": Mean()}[stem]
    if form:
        return Pooling(op, {"output_size": (1,) * rank if form == "Global" else _each(layer.output_size, rank)})
    return Pooling(op, _windows(rank, layer.pool_size, layer.strides, "same" if layer.padding == "same" else 0))


def _from_keras(x: Any, data_format: str, rank: int) -> NDArray[Any]:
    """(channels, *sizes) of the first image; the channels of a global pooling get axes of size 1."""
    import keras

    first = np.array(keras.ops.convert_to_numpy(x))[0]
    first = first.astype(np.float32) if first.dtype.name == "bfloat16" else first
    if first.ndim == 1:
        return first.reshape(-1, *(1,) * rank)
    return np.ascontiguousarray(np.moveaxis(first, -1, 0)) if data_format == "channels_last" else first


def _keras_shape(model: Any) -> Shape | None:
    shape = getattr(model, "input_shape", None)
    if shape is not None and not (isinstance(shape, tuple) and all(isinstance(size, int | None) for size in shape)):
        raise InvalidValue(f"model must take one input, got inputs of the shapes {shape}")
    return shape


def _load_keras(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise InvalidValue(f"model must be a .keras archive, got {str(path)!r}, which is damaged or something else")
    try:
        import keras

        import poolwise.keras  # noqa: F401  (its layers may be in the file)
    except ImportError as cause:
        raise MissingExtra(f'a .keras file needs {cause.name}: pip install "poolwise[keras]"') from None
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as cause:  # whatever a damaged file leads to
        if "Lambda" in str(cause):
            fact = f"model must be without Lambda layers, whose code a file would run, got {str(path)!r}"
            raise InvalidValue(f"{fact}; give module:factory") from None
        raise InvalidValue(f"model must be a .keras archive, got {str(path)!r} ({_said(cause)})") from None


# ---- ONNX ----

_NODE = re.compile(r"(Global)?(Max|Average|Lp)Pool")
_AUTO_PAD = {b"SAME_UPPER": "same", b"SAME_LOWER": "same_lower", b"VALID": 0}


def _run_onnx(model: Any, batch: NDArray[Any], record: Record) -> None:
    """Runs a copy of the model whose outputs are what its poolings take and give."""
    import onnx
    from onnx import inliner, numpy_helper

    given = _onnx_input(model)
    x = batch.astype(onnx.helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type))
    copy = inliner.inline_local_functions(model)
    found = [(place, node) for place, node in enumerate(copy.graph.node) if _is_onnx_pooling(node)]
    values = {given.name: x, **{each.name: numpy_helper.to_array(each) for each in copy.graph.initializer}}
    names = dict.fromkeys(name for _, node in found for name in (node.input[0], node.output[0]))
    asked = [name for name in names if name not in values]
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked)
    values.update(zip(asked, _onnx_outputs(copy, asked, {given.name: x}) if asked else (), strict=True))
    for place, node in found:
        before, after = values[node.input[0]][0], values[node.output[0]][0]
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        pooling = _onnx_pooling(node.op_type, attributes, before.ndim - 1)
        record.add(node.name or f"{node.op_type}_{place}", pooling, before, after, before.dtype)


def _onnx_outputs(model: Any, names: list[str], feeds: dict[str, NDArray[Any]]) -> Sequence[Any]:
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return cast("Any", ReferenceEvaluator(model).run(names, feeds))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, and need not be printed too
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(names, feeds)


def _is_onnx_pooling(node: Any) -> bool:
    return node.domain in ("", "ai.onnx") and _NODE.fullmatch(node.op_type) is not None


def _onnx_pooling(name: str, given: Mapping[str, Any], rank: int) -> Pooling:
    """By ONNX's attributes; where none is given the stride is 1."""
    whole, stem = cast("re.Match[str]", _NODE.fullmatch(name)).groups()
    kind: type[Operation] = {"Max": Max, "Average": Mean, "Lp": Lp}[stem]
    own = {"count_include_pad": bool(given.get("count_include_pad", 0)), "p": given.get("p", 2)}
    if whole:
        return _pooling(kind, own, {"output_size": (1,) * rank})
    pads = given.get("pads") or (0,) * 2 * rank
    padding = _AUTO_PAD.get(given.get("auto_pad", b""), tuple(zip(pads[:rank], pads[rank:], strict=True)))
    steps, gaps = given.get("strides") or 1, given.get("dilations") or 1
    return _pooling(kind, own, _windows(rank, given["kernel_shape"], steps, padding, gaps, given.get("ceil_mode")))


def _onnx_input(model: Any) -> Any:
    """The one input; initialisers that are listed as inputs are none."""
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    if len(inputs) != 1:
        raise InvalidValue(f"model must take one input, got {', '.join(each.name for each in inputs) or 'none'}")
    return inputs[0]


def _onnx_shape(model: Any) -> Shape | None:
    sizes = _onnx_input(model).type.tensor_type.shape.dim
    return tuple(each.dim_value if each.dim_value > 0 else None for each in sizes) or None


def _load_onnx(path: Path) -> Any:
    try:
        import onnx
        from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model
    except ImportError as cause:
        raise MissingExtra(f"a .onnx file needs {cause.name}: pip install onnx onnxruntime") from None
    folder = path.resolve().parent
    try:
        model = onnx.load(path, load_external_data=False)
        for location in {ExternalDataInfo(each).location for each in model.graph.initializer if each.external_data}:
            beside = (folder / location).resolve()
            if not (beside.is_relative_to(folder) and beside.is_file()):
                raise InvalidValue(f"model must have its data in files beside it, got {location!r} in {str(path)!r}")
        load_external_data_for_model(model, str(folder))
        onnx.checker.check_model(model)
    except InvalidValue:
        raise
    except Exception as cause:  # whatever a damaged file leads to
        raise InvalidValue(f"model must be an ONNX file, got {str(path)!r} ({_said(cause)})") from None
    return model


_RUNS = {"torch": _run_torch, "keras": _run_keras, "onnx": _run_onnx}
_LOADERS = {".onnx": _load_onnx, ".keras": _load_keras}
