"""Who is measured: poolwise, and the libraries that users have, each asked in its own usual way for fresh outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

import poolwise
from poolwise import Blur, GeM, LogSumExp, Lp, Max, Mean, Median, Mode, ReLUMax, Soft
from poolwise.bench import composed
from poolwise.bench.cases import Bins, Case, MaxBlur, Sliding
from poolwise.bench.problem import Problem
from poolwise.bench.truth import Numbers
from poolwise.doctor import usable_cores, version_of

INTEGERS = ("uint8", "int8", "int32")
UNSIGNED = ("uint32", "uint64")  # PyTorch holds them, and computes next to nothing with them


@dataclass(frozen=True)
class Attempt:
    """run: what is timed. outputs: the answer as NumPy arrays in the problem's memory order, to be compared."""

    run: Callable[[], Any]
    outputs: Callable[[], tuple[Numbers, ...]]


class Contender:
    """Somebody who may serve a case. A new one is one class, named in `CONTENDERS`."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]  # the packages, by the name they are imported by
    distributions: ClassVar[tuple[str, ...]]  # the names under which they may be installed

    def __init__(self, threads: int) -> None:
        """Load the framework and hold it to so many threads."""
        self.threads = threads

    @classmethod
    def missing(cls) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(name for name in cls.needs if find_spec(name) is None)

    @classmethod
    def version(cls) -> str:
        """What is installed, "" where that cannot be told."""
        return next((found for found in map(version_of, cls.distributions) if found), "")

    def serves(self, case: Case) -> bool:
        """Whether it has such an operation, on such an array."""
        raise NotImplementedError

    def attempt(self, problem: Problem) -> Attempt:
        """How it solves a problem that it serves."""
        raise NotImplementedError

    def restrain(self, threads: int) -> None:
        """Hold it to another number of threads, where that can be changed."""
        raise NotImplementedError


class _Torch(Contender):
    """PyTorch's tensors, by functions of `torch.nn.functional`'s names."""

    functions: ClassVar[str]

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.torch = import_module("torch")
        self.restrain(threads)
        for function in ("exp", "log", "sqrt", "tanh"):
            # by one thread first: two that meet in MKL's first call may compute it coarsely (pytorch #188792)
            getattr(self.torch, function)(self.torch.ones(1))
        self.own = import_module(self.functions)

    def restrain(self, threads: int) -> None:
        self.torch.set_num_threads(threads)
        poolwise.set_num_threads(threads)

    def serves(self, case: Case) -> bool:
        return True

    def attempt(self, problem: Problem) -> Attempt:
        case = problem.case
        x, g = (self._tensor(array, case) for array in (problem.x, problem.g))
        x.requires_grad_(case.gradient)
        operands = {name: self._tensor(array, case) for name, array in problem.operands.items()}
        function, *further = self._asked(case, x, operands)
        arguments = (x, *further)

        def forward() -> Any:
            return function(*arguments)

        def training() -> Any:
            y = function(*arguments)
            return y, self.torch.autograd.grad(y, x, g)[0]

        def outputs() -> tuple[Numbers, ...]:
            answer = training() if case.gradient else (forward(),)
            return tuple(self._array(part, case) for part in answer)

        return Attempt(training if case.task == "training" else forward, outputs)

    def _asked(self, case: Case, x: Any, operands: Mapping[str, Any]) -> tuple[Any, ...]:
        """The function, and its arguments after the tensor."""
        op, places, stem = case.op, case.places, case.op.stems[0]
        if isinstance(places, Bins):
            return getattr(self.own, f"adaptive_{stem}_pool{case.rank}d"), places.output
        function = getattr(self.own, f"{stem}_pool{case.rank}d")
        if isinstance(op, Lp):
            return function, op.p, places.window, places.stride
        return function, places.window, places.stride, places.padding

    def _tensor(self, array: Numbers, case: Case) -> Any:
        """The array's memory as a tensor with the channels in front, as PyTorch has them."""
        if case.dtype == "bfloat16":
            tensor = self.torch.from_numpy(array.view(np.uint16)).view(self.torch.bfloat16)
        else:
            tensor = self.torch.from_numpy(array)
        return tensor if case.layout == "first" else tensor.movedim(-1, 1)

    def _array(self, tensor: Any, case: Case) -> Numbers:
        tensor = tensor.detach() if case.layout == "first" else tensor.detach().movedim(1, -1)
        if case.dtype != "bfloat16":
            return tensor.numpy()
        return tensor.view(self.torch.uint16).numpy().view(import_module("ml_dtypes").bfloat16)


class Poolwise(_Torch):
    """poolwise through its PyTorch door; on NumPy's arrays where PyTorch does not compute with such numbers."""

    name = "poolwise"
    needs = ("torch", "array_api_compat")
    distributions = ("poolwise",)
    functions = "poolwise.torch.functional"

    def attempt(self, problem: Problem) -> Attempt:
        if problem.case.dtype in UNSIGNED:
            return PoolwiseNumPy(self.threads).attempt(problem)
        return super().attempt(problem)

    def _asked(self, case: Case, x: Any, operands: Mapping[str, Any]) -> tuple[Any, ...]:
        function, *arguments = super()._asked(case, x, operands)
        keywords = {**_parameters(case), **operands}
        return (partial(function, **keywords) if keywords else function, *arguments)


def _parameters(case: Case) -> dict[str, Any]:
    """What is unusual of the operation, and of the geometry."""
    op, places = case.op, case.places
    reflected = {"padding_mode": places.mode} if isinstance(places, Sliding) and places.mode != "absent" else {}
    if isinstance(op, Max | Mean | Lp):  # by PyTorch's own names and defaults
        return reflected
    return reflected | {name: value for name, value in vars(op).items() if value != getattr(type(op)(), name)}


class PoolwiseNumPy(Contender):
    """poolwise on NumPy's arrays, where PyTorch is not installed; forward only."""

    name = "poolwise"
    needs = ()
    distributions = ("poolwise",)

    def serves(self, case: Case) -> bool:
        return not case.gradient

    def restrain(self, threads: int) -> None:
        poolwise.set_num_threads(threads)

    def attempt(self, problem: Problem) -> Attempt:
        self.restrain(self.threads)
        forward = self._asked(problem.x, problem.case, problem.operands)
        return Attempt(forward, lambda: (forward(),))

    def _asked(self, x: Numbers, case: Case, operands: Mapping[str, Numbers]) -> Callable[[], Any]:
        op, places, axes = case.op, case.places, case.axes
        if isinstance(places, Bins):
            assert not isinstance(op, MaxBlur)
            return lambda: poolwise.adaptive_pool(x, op, places.output, axes=axes)
        options: dict[str, Any] = {"stride": places.stride, "padding": places.padding, "axes": axes}
        window = (places.window,) * case.rank
        if isinstance(op, MaxBlur):
            return partial(poolwise.max_blur_pool, x, window, **options)
        return partial(poolwise.pool, x, op, window, padding_mode=places.mode, operands=operands or None, **options)


class PyTorch(_Torch):
    """PyTorch's own operations, and what its users make of them."""

    name = "PyTorch"
    needs = ("torch",)
    distributions = ("torch",)
    functions = "torch.nn.functional"

    def serves(self, case: Case) -> bool:
        if isinstance(case.op, Mean):
            return case.dtype not in INTEGERS
        return isinstance(case.op, Max | Lp) or (case.dtype not in UNSIGNED and composed.composes(case))

    def _asked(self, case: Case, x: Any, operands: Mapping[str, Any]) -> tuple[Any, ...]:
        if not isinstance(case.op, Max | Mean | Lp):
            return (composed.composed(self.torch, case, x, operands),)
        if isinstance(case.places, Bins) and case.places.whole:  # a reduction is faster than its adaptive pooling
            reduction = self.torch.amax if isinstance(case.op, Max) else self.torch.mean
            return reduction, tuple(range(2, 2 + case.rank)), True
        return super()._asked(case, x, operands)


class Kornia(PyTorch):
    """kornia's filters, which are its own or PyTorch's convolution, and have a border of their own."""

    name = "kornia"
    needs = ("kornia", "torch")
    distributions = ("kornia",)

    def serves(self, case: Case) -> bool:
        """Its medians are one for each element, its blurs over zeros, which can be taken out again."""
        places = case.places
        if not isinstance(places, Sliding) or case.layout != "first" or case.rank != 2 or case.dtype != "float32":
            return False
        if isinstance(case.op, Median):
            return case.task == "forward" and places == Sliding(places.window, 1) and places.window % 2 == 1
        return isinstance(case.op, Blur) and places.mode == "absent" and 2 * places.padding + 1 == places.window

    def _asked(self, case: Case, x: Any, operands: Mapping[str, Any]) -> tuple[Any, ...]:
        filters, places = import_module("kornia.filters"), case.places
        assert isinstance(places, Sliding)
        if isinstance(case.op, Median):
            inner = slice(places.window // 2, -(places.window // 2))
            return (lambda x: filters.median_blur(x, places.window)[..., inner, inner],)
        whole = composed.restoring(self.torch, places, tuple(x.shape))
        return (lambda x: filters.blur_pool2d(x, places.window, places.stride).mul_(whole),)


class OnnxRuntime(Contender):
    """ONNX Runtime's CPU provider on a model of the pooling's node: NCHW, forward only."""

    name = "ONNX Runtime"
    needs = ("onnxruntime", "onnx")
    distributions = ("onnxruntime",)
    types: ClassVar[dict[str, str]] = {
        "float16": "FLOAT16",
        "float32": "FLOAT",
        "float64": "DOUBLE",
        "uint8": "UINT8",
        "int8": "INT8",
    }

    def serves(self, case: Case) -> bool:
        if case.layout != "first" or case.task != "forward" or not isinstance(case.op, Max | Mean | Lp | ReLUMax):
            return False
        if isinstance(case.places, Bins) and not case.places.whole:
            return False
        sliding_max = isinstance(case.op, Max) and isinstance(case.places, Sliding)
        return case.dtype in (self.types if sliding_max else ("float16", "float32"))

    def attempt(self, problem: Problem) -> Attempt:
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = runtime.InferenceSession(self._model(problem), options, providers=["CPUExecutionProvider"])
        given = {"x": runtime.OrtValue.ortvalue_from_numpy(problem.x)}

        def forward() -> Any:
            return session.run_with_ort_values(["y"], given)[0]

        return Attempt(forward, lambda: (forward().numpy(),))

    def _model(self, problem: Problem) -> bytes:
        onnx = import_module("onnx")
        helper, kind = onnx.helper, getattr(onnx.TensorProto, self.types[problem.case.dtype])
        ends = [helper.make_tensor_value_info(n, kind, a.shape) for n, a in (("x", problem.x), ("y", problem.g))]
        graph = helper.make_graph(list(self._nodes(problem.case, helper)), "pool", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        return model.SerializeToString()

    def _nodes(self, case: Case, helper: Any) -> Iterator[Any]:
        word = {"avg": "Average", "lp": "Lp"}.get(case.op.stems[0], "Max")
        if not isinstance(case.places, Sliding):
            yield helper.make_node(f"Global{word}Pool", ["x"], ["y"])
            return
        attributes = self._attributes(case, case.places)
        if isinstance(case.op, ReLUMax):
            yield helper.make_node("Relu", ["x"], ["r"])
            yield helper.make_node("MaxPool", ["r"], ["y"], **attributes)
        else:
            yield helper.make_node(f"{word}Pool", ["x"], ["y"], **attributes)

    def _attributes(self, case: Case, places: Sliding) -> dict[str, Any]:
        numbers = {"kernel_shape": [places.window], "strides": [places.stride], "pads": [places.padding] * 2}
        own = {"lp": {"p": 2}, "avg": {"count_include_pad": 1}}.get(case.op.stems[0], {})
        return {name: entries * case.rank for name, entries in numbers.items()} | own


class Jax(Contender):
    """`jax.lax.reduce_window` under `jit`, in either memory order; it keeps no indices."""

    name = "JAX"
    needs = ("jax",)
    distributions = ("jax",)

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        os.environ["NPROC"] = str(threads)  # what XLA sizes its pool of threads by, when it starts
        os.environ.setdefault("JAX_PLATFORMS", "cpu")

    @cached_property
    def jax(self) -> Any:
        return import_module("jax")

    def serves(self, case: Case) -> bool:
        """JAX has no float64 unless it is set up so, its means of integers are floats, and it has no uneven bins."""
        if case.tiny or case.task == "indices" or case.dtype == "float64":
            return False
        if isinstance(case.op, Mean) and case.dtype in INTEGERS:
            return False
        if not isinstance(case.op, Max | Mean | ReLUMax | Lp | Soft | LogSumExp | GeM):
            return False
        return case.places.mode == "absent" if isinstance(case.places, Sliding) else case.places.whole

    def attempt(self, problem: Problem) -> Attempt:
        case, jax = problem.case, self.jax
        x, g = (jax.device_put(array) for array in (problem.x, problem.g))
        forward = self._function(case, problem.x.dtype)

        def training(x: Any, g: Any) -> Any:
            y, back = jax.vjp(forward, x)
            return y, back(g)[0]

        arguments = (x, g) if case.gradient else (x,)
        compiled = jax.jit(training if case.gradient else lambda x: (forward(x),))

        def run() -> Any:
            return jax.block_until_ready(compiled(*arguments))

        return Attempt(run, lambda: tuple(np.asarray(part) for part in run()))

    def _function(self, case: Case, dtype: np.dtype[Any]) -> Callable[[Any], Any]:
        op, axes, places, nn = case.op, case.axes, case.places, self.jax.nn
        if isinstance(places, Bins):
            return lambda x: (x.max if isinstance(op, Max) else x.mean)(axes, keepdims=True)
        if not isinstance(op, Max | ReLUMax):
            return self._of_sums(case, places, self._windows(case, places, "add", np.zeros((), dtype)))
        least = np.array(np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf, dtype)
        largest = self._windows(case, places, "max", least)
        return (lambda x: largest(nn.relu(x))) if isinstance(op, ReLUMax) else largest

    def _of_sums(self, case: Case, places: Sliding, summed: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What windows' sums are enough for; their padding adds 0."""
        op, jnp, taps = case.op, self.jax.numpy, places.window**case.rank
        if isinstance(op, Lp):
            return lambda x: summed(x * x) ** 0.5
        if isinstance(op, Soft):
            return lambda x: summed(x * jnp.exp(x)) / summed(jnp.exp(x))
        if isinstance(op, LogSumExp):
            return lambda x: jnp.log(summed(jnp.exp(x)))
        if isinstance(op, GeM) and (power := op.p):
            return lambda x: (summed(jnp.maximum(x, op.eps) ** power) / taps) ** (1 / power)
        return lambda x: summed(x) / taps

    def _windows(self, case: Case, places: Sliding, what: str, empty: Any) -> Callable[[Any], Any]:
        ndim, lax = case.rank + 2, self.jax.lax
        window, strides, pads = [1] * ndim, [1] * ndim, [(0, 0)] * ndim
        for axis in case.axes:
            window[axis], strides[axis], pads[axis] = places.window, places.stride, (places.padding, places.padding)
        return lambda x: lax.reduce_window(x, empty, getattr(lax, what), window, strides, pads)


class TensorFlow(Contender):
    """`tf.nn`'s poolings in a `tf.function`, channels last."""

    name = "TensorFlow"
    needs = ("tensorflow",)
    distributions = ("tensorflow", "tensorflow-cpu", "tensorflow-macos")

    @cached_property
    def tf(self) -> Any:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _quiet():
            tf = import_module("tensorflow")
        settings = tf.config.threading
        if self.threads != (settings.get_intra_op_parallelism_threads() or usable_cores()):
            settings.set_intra_op_parallelism_threads(self.threads)  # an error once TensorFlow has computed something
        return tf

    def serves(self, case: Case) -> bool:
        if case.layout != "last" or case.task not in ("forward", "training") or case.dtype != "float32":
            return False
        return isinstance(case.op, Max | Mean) and (isinstance(case.places, Sliding) or case.places.whole)

    def attempt(self, problem: Problem) -> Attempt:
        case, tf = problem.case, self.tf
        x, g = (tf.convert_to_tensor(array) for array in (problem.x, problem.g))
        forward = self._function(case)

        def training(x: Any, g: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = forward(x)
            return y, tape.gradient(y, x, output_gradients=g)

        arguments = (x, g) if case.gradient else (x,)
        compiled = tf.function(training if case.gradient else lambda x: (forward(x),))
        return Attempt(lambda: compiled(*arguments), lambda: tuple(part.numpy() for part in compiled(*arguments)))

    def _function(self, case: Case) -> Callable[[Any], Any]:
        tf, places, axes = self.tf, case.places, case.axes
        if isinstance(places, Bins):
            reduction = tf.reduce_max if isinstance(case.op, Max) else tf.reduce_mean
            return lambda x: reduction(x, axes, keepdims=True)
        pads = [[0, 0], *([places.padding] * 2 for _ in axes), [0, 0]]
        if isinstance(case.op, Max):
            return lambda x: tf.nn.max_pool2d(x, places.window, places.stride, pads)
        if not places.padding:
            return lambda x: tf.nn.avg_pool2d(x, places.window, places.stride, "VALID")
        # its own padding of a mean does not count
        return lambda x: tf.nn.avg_pool2d(tf.pad(x, pads), places.window, places.stride, "VALID")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what compiled code writes to standard error: no setting keeps it silent while it is being loaded."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Images(Contender):
    """A library of images: NumPy's arrays, one thread, forward, windows that tile the image."""

    def serves(self, case: Case) -> bool:
        plain = case.task == "forward" and case.layout == "first" and case.dtype != "bfloat16"
        return plain and self.tiles(case)

    def tiles(self, case: Case) -> bool:
        """Whether it pools such tiles, of such numbers."""
        raise NotImplementedError

    def attempt(self, problem: Problem) -> Attempt:
        forward = self._asked(problem.x, problem.case)
        return Attempt(forward, lambda: (np.ascontiguousarray(forward()),))

    def _asked(self, x: Numbers, case: Case) -> Callable[[], Numbers]:
        raise NotImplementedError


class ScikitImage(_Images):
    """`skimage.measure.block_reduce`; its means and medians of integers are float64."""

    name = "scikit-image"
    needs = ("skimage",)
    distributions = ("scikit-image",)

    def tiles(self, case: Case) -> bool:
        if not isinstance(case.op, Max | Mean | Median) or (not isinstance(case.op, Max) and case.dtype in INTEGERS):
            return False
        places = case.places
        return places.whole if isinstance(places, Bins) else _tiling(case, places)

    def _asked(self, x: Numbers, case: Case) -> Callable[[], Numbers]:
        reduce = import_module("skimage.measure").block_reduce
        reduction = {"max": np.max, "mean": np.mean, "median": np.median}[case.op.name]
        sides = x.shape[2:] if isinstance(case.places, Bins) else (case.places.window,) * case.rank
        covered = x[
            (..., *(slice(n - n % side) for n, side in zip(x.shape[2:], sides, strict=True)))
        ]  # it fills up with 0
        return lambda: reduce(covered, (1, 1, *sides), reduction)


class TinyBrain(_Images):
    """tinybrain's halving of images and volumes, whose arrays are Fortran's: x, y, z, channel."""

    name = "tinybrain"
    needs = ("tinybrain",)
    distributions = ("tinybrain",)

    def tiles(self, case: Case) -> bool:
        places = case.places
        if not isinstance(places, Sliding) or places.window != 2 or not _tiling(case, places):
            return False
        averages = isinstance(case.op, Mean) and case.rank > 1 and case.dtype != "float16"
        return averages or isinstance(case.op, Max | Mode)

    def _asked(self, x: Numbers, case: Case) -> Callable[[], Numbers]:
        names = {"max": "with_max_pooling", "mean": "with_averaging", "mode": "segmentation"}
        function = getattr(import_module("tinybrain"), f"downsample_{names[case.op.name]}")
        factor = (2,) * case.rank
        stacked = case.rank == 3 and isinstance(case.op, Mode)  # of several channels it writes beyond its memory
        image = x.reshape(-1, *x.shape[3 if stacked else 2 :]).T
        pooled = (*x.shape[:2], *(n // 2 for n in x.shape[2:]))
        return lambda: function(image, factor)[0].T.reshape(pooled)  # a view


def _tiling(case: Case, places: Sliding) -> bool:
    """Whether the windows cover each side once."""
    return places.window == places.stride and not places.padding and not any(n % places.window for n in case.shape[2:])


CONTENDERS: tuple[type[Contender], ...] = (
    Poolwise,
    PoolwiseNumPy,
    PyTorch,
    OnnxRuntime,
    Jax,
    TensorFlow,
    ScikitImage,
    TinyBrain,
    Kornia,
)


def present(threads: int, kinds: Sequence[type[Contender]] = CONTENDERS) -> tuple[list[Contender], dict[str, str]]:
    """The contenders that can run, one of each name, and how to install what the others lack."""
    found: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for kind in kinds:
        lacking = kind.missing()
        if lacking:
            packages = {"skimage": "scikit-image"}
            missing[kind.name] = f"pip install {' '.join(packages.get(name, name) for name in lacking)}"
        elif kind.name not in found:
            found[kind.name] = kind(threads)
    return list(found.values()), {name: how for name, how in missing.items() if name not in found}
