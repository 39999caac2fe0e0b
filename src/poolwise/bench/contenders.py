"""Who is measured: poolwise, and the frameworks that users have, each asked in its own usual way for fresh outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

import poolwise
from poolwise import Max
from poolwise.bench.cases import Case, Floats, Problem


@dataclass(frozen=True)
class Attempt:
    """run: what is timed. outputs: the answer as NumPy arrays in the problem's memory order, to be compared."""

    run: Callable[[], Any]
    outputs: Callable[[], tuple[Floats, ...]]


class Contender:
    """Somebody who may serve a case. A new one is one class, named in `CONTENDERS`."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]  # the packages, by the name they are imported by
    version_of: ClassVar[str]  # the distribution whose version is reported

    def __init__(self, threads: int) -> None:
        """Load the framework and hold it to so many threads."""
        self.threads = threads

    @classmethod
    def missing(cls) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(name for name in cls.needs if find_spec(name) is None)

    def attempt(self, problem: Problem) -> Attempt | None:
        """How this contender solves the problem; None where it has no such operation."""
        raise NotImplementedError


class _Torch(Contender):
    """PyTorch's tensors, by functions of `torch.nn.functional`'s names."""

    functions: ClassVar[str]

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.torch = import_module("torch")
        self.torch.set_num_threads(threads)
        poolwise.set_num_threads(threads)
        self.own = import_module(self.functions)

    def attempt(self, problem: Problem) -> Attempt:
        case = problem.case
        x, g = (self._tensor(array, case) for array in (problem.x, problem.g))
        x.requires_grad_(case.gradient)
        function = self.own.max_pool2d if isinstance(case.op, Max) else self.own.avg_pool2d
        arguments = (x, case.window, case.stride, case.padding)

        def forward() -> Any:
            return function(*arguments)

        def training() -> Any:
            y = function(*arguments)
            return y, self.torch.autograd.grad(y, x, g)[0]

        def outputs() -> tuple[Floats, ...]:
            answer = training() if case.gradient else (forward(),)
            return tuple(self._array(part, case) for part in answer)

        return Attempt(training if case.task == "training" else forward, outputs)

    def _tensor(self, array: Floats, case: Case) -> Any:
        tensor = self.torch.from_numpy(array)
        return tensor if case.layout == "NCHW" else tensor.permute(0, 3, 1, 2)

    def _array(self, tensor: Any, case: Case) -> Floats:
        tensor = tensor.detach()
        return (tensor if case.layout == "NCHW" else tensor.permute(0, 2, 3, 1)).numpy()


class Poolwise(_Torch):
    """poolwise through its PyTorch door."""

    name = "poolwise"
    needs = ("torch", "array_api_compat")
    version_of = "poolwise"
    functions = "poolwise.torch.functional"


class PoolwiseNumPy(Contender):
    """poolwise on NumPy's arrays, where PyTorch is not installed; forward only."""

    name = "poolwise"
    needs = ()
    version_of = "poolwise"

    def attempt(self, problem: Problem) -> Attempt | None:
        case = problem.case
        if case.gradient:
            return None
        poolwise.set_num_threads(self.threads)
        window, options = (case.window,) * 2, {"stride": case.stride, "padding": case.padding, "axes": case.axes}

        def forward() -> Any:
            return poolwise.pool(problem.x, case.op, window, **options)

        return Attempt(forward, lambda: (forward(),))


class PyTorch(_Torch):
    """PyTorch's own operations."""

    name = "PyTorch"
    needs = ("torch",)
    version_of = "torch"
    functions = "torch.nn.functional"


class OnnxRuntime(Contender):
    """ONNX Runtime's CPU provider on a model of one node: NCHW, forward only."""

    name = "ONNX Runtime"
    needs = ("onnxruntime", "onnx")
    version_of = "onnxruntime"

    def attempt(self, problem: Problem) -> Attempt | None:
        case = problem.case
        if case.layout != "NCHW" or case.task != "forward":
            return None
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = runtime.InferenceSession(self._model(problem), options, providers=["CPUExecutionProvider"])
        given = {"x": runtime.OrtValue.ortvalue_from_numpy(problem.x)}

        def forward() -> Any:
            return session.run_with_ort_values(["y"], given)[0]

        return Attempt(forward, lambda: (forward().numpy(),))

    def _model(self, problem: Problem) -> bytes:
        case, helper = problem.case, import_module("onnx").helper
        attributes = {"kernel_shape": [case.window] * 2, "strides": [case.stride] * 2, "pads": [case.padding] * 4}
        if isinstance(case.op, Max):
            node = helper.make_node("MaxPool", ["x"], ["y"], **attributes)
        else:
            node = helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=1, **attributes)
        float32 = import_module("onnx").TensorProto.FLOAT
        ends = [helper.make_tensor_value_info(n, float32, a.shape) for n, a in (("x", problem.x), ("y", problem.g))]
        graph = helper.make_graph([node], "pool", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        return model.SerializeToString()


class Jax(Contender):
    """`jax.lax.reduce_window` under `jit`, in either memory order; it keeps no indices."""

    name = "JAX"
    needs = ("jax",)
    version_of = "jax"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        os.environ["NPROC"] = str(threads)  # what XLA sizes its pool of threads by, when it starts
        os.environ.setdefault("JAX_PLATFORMS", "cpu")

    @cached_property
    def jax(self) -> Any:
        return import_module("jax")

    def attempt(self, problem: Problem) -> Attempt | None:
        case, jax = problem.case, self.jax
        if case.tiny or case.task == "indices":
            return None
        x, g = (jax.device_put(array) for array in (problem.x, problem.g))
        forward = self._function(case)

        def training(x: Any, g: Any) -> Any:
            y, back = jax.vjp(forward, x)
            return y, back(g)[0]

        arguments = (x, g) if case.gradient else (x,)
        compiled = jax.jit(training if case.gradient else lambda x: (forward(x),))

        def run() -> Any:
            return jax.block_until_ready(compiled(*arguments))

        return Attempt(run, lambda: tuple(np.asarray(part) for part in run()))

    def _function(self, case: Case) -> Callable[[Any], Any]:
        lax = self.jax.lax
        window, strides, pads = ([1] * 4, [1] * 4, [(0, 0)] * 4)
        for axis in case.axes:
            window[axis], strides[axis], pads[axis] = case.window, case.stride, (case.padding, case.padding)
        if isinstance(case.op, Max):
            return lambda x: lax.reduce_window(x, -np.inf, lax.max, window, strides, pads)
        return lambda x: lax.reduce_window(x, 0.0, lax.add, window, strides, pads) / case.window**2


CONTENDERS: tuple[type[Contender], ...] = (Poolwise, PoolwiseNumPy, PyTorch, OnnxRuntime, Jax)


def present(threads: int, kinds: Sequence[type[Contender]] = CONTENDERS) -> tuple[list[Contender], dict[str, str]]:
    """The contenders that can run, one of each name, and how to install what the others lack."""
    found: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for kind in kinds:
        lacking = kind.missing()
        if lacking:
            missing[kind.name] = f"pip install {' '.join(lacking)}"
        elif kind.name not in found:
            found[kind.name] = kind(threads)
    return list(found.values()), {name: how for name, how in missing.items() if name not in found}
