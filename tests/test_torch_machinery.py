"""Every layer of the PyTorch door under autograd, the compiler, the exporters and torch.func."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as stock
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import forward_ad
from torch.export import Dim

import poolwise
import poolwise.torch
import poolwise.torch.functional as ours
from poolwise import Blur, GeM, LogSumExp, Lp, Max, Mean, Median, Mode, Quantile, Soft, Sum, TopKMean
from poolwise.torch.layers import LAYERS
from torch_layers import EVEN, input_of, layer_of, shape_of

each_layer = pytest.mark.parametrize("name", LAYERS)
# What takes seconds is asked of every layer over two axes, and of those that stand in for PyTorch's over one and three.
SLOWLY = [name for name in LAYERS if hasattr(torch.nn, name) or name.endswith("2d")]
# A pooling with arrays beside its input is compiled for the sizes that it meets, and anew for others.
LEARNED = ("GeM", "Gated", "Mixed")
SIZED = (*LEARNED, "LIP")
SYMBOLIC = [name for name in SLOWLY if not name.startswith(SIZED)]
each_layer_slowly = pytest.mark.parametrize("name", SLOWLY)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its exporters and compilers
        yield


def larger(name: str) -> torch.Tensor:
    """An input of other sizes than the layer's example."""
    shape = (5, 3, *(size + (4 if name.startswith(EVEN) else 3) for size in shape_of(name)[2:]))
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def agree(name: str, got: torch.Tensor, eager: torch.Tensor) -> None:
    """Bit for bit; but for weighted sums and norms, which other kernels add in another order."""
    near = {"rtol": 2**-50 if "LPPool" in name else 0, "atol": 0}
    torch.testing.assert_close(got, eager, **({} if "Blur" in name else near))


def free(name: str) -> torch.nn.Module:
    """The layer without what ties it to its example's batch."""
    layer = layer_of(name)
    if "Fractional" in name:
        layer._random_samples = None
    return layer.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*SLOWLY, *(f"{stem}Pool{rank}d" for stem in ("Min", "Sum", "ReLUMax") for rank in (1, 3))]
)
def test_first_second_and_forward_derivatives(name: str) -> None:
    channels = 1 if name.endswith("3d") else 2  # every element takes a pass, and a second derivative another
    layer, x = layer_of(name), input_of(name)[:1, :channels]
    if "Fractional" in name:
        layer._random_samples = layer._random_samples[:1, :channels]
    x = x.contiguous().requires_grad_()
    assert torch.autograd.gradcheck(layer, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(layer, x, check_fwd_over_rev=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SLOWLY if "Fractional" not in name])  # whose draws are one batch's
def test_transforms_of_torch_func(name: str) -> None:
    layer, x = layer_of(name), input_of(name)
    torch.testing.assert_close(torch.vmap(lambda each: layer(each[None])[0])(x), layer(x))
    loss = torch.func.grad(lambda t: layer(t).square().sum())
    torch.testing.assert_close(torch.vmap(lambda each: loss(each[None])[0])(x), loss(x))
    tangent = torch.ones_like(x)
    step = 1e-6
    pushed = torch.func.jvp(layer, (x,), (tangent,))[1]
    torch.testing.assert_close(pushed, (layer(x + step) - layer(x - step)) / (2 * step), rtol=1e-6, atol=1e-6)
    twice = torch.func.grad(lambda t: loss(t).square().sum())(x)
    assert twice.shape == x.shape
    assert twice.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dynamic"),
    [(name, dynamic) for name in SLOWLY for dynamic in (False, True) if name.endswith("2d") or not dynamic],
)
def test_it_compiles_into_one_graph(name: str, dynamic: bool) -> None:
    layer, x = layer_of(name), input_of(name).requires_grad_()
    y = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=dynamic)(x)
    agree(name, y, layer(x))
    got, expected = (torch.autograd.grad(out.square().sum(), x)[0] for out in (y, layer(x)))
    torch.testing.assert_close(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SYMBOLIC if "Fractional" not in name])
def test_one_dynamic_graph_serves_every_size(name: str) -> None:
    graphs = 0

    def counting(graph: torch.fx.GraphModule, _: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    layer = layer_of(name)
    compiled = torch.compile(layer, backend=counting, fullgraph=True, dynamic=True)
    for x in (input_of(name), larger(name), larger(name)[:, :2].contiguous()):
        agree(name, compiled(x), layer(x))
    assert graphs == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MaxPool2d", "AvgPool2d", "LPPool2d", "AdaptiveAvgPool2d", "ReLUMaxPool2d"])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
def test_inductor_gives_the_same(name: str, form: torch.memory_format) -> None:
    layer, x = layer_of(name), input_of(name).to(memory_format=form).requires_grad_()
    y = torch.compile(lambda t: layer(t * 2) + 1, fullgraph=True)(x)
    torch.testing.assert_close(y, layer(x * 2) + 1)
    got, expected = (torch.autograd.grad(out.square().sum(), x)[0] for out in (y, layer(x * 2) + 1))
    torch.testing.assert_close(got, expected)


@pytest.mark.slow
@each_layer_slowly
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
def test_export_with_a_dynamic_batch(name: str, strict: bool) -> None:
    layer, x = free(name), input_of(name)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=strict)
    more = torch.cat([x, -x, x])
    torch.manual_seed(0)
    expected = layer(more)
    torch.manual_seed(0)
    agree(name, program.module()(more), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", SYMBOLIC)
def test_export_with_dynamic_sizes(name: str) -> None:
    layer, x = free(name), input_of(name)
    sizes = {0: Dim.DYNAMIC, **dict.fromkeys(range(2, x.ndim), Dim.DYNAMIC)}
    program = torch.export.export(layer, (x,), dynamic_shapes=(sizes,))
    torch.manual_seed(0)
    expected = layer(larger(name))
    torch.manual_seed(0)
    agree(name, program.module()(larger(name)), expected)


@pytest.mark.slow
@each_layer_slowly
def test_plain_onnx_export_runs_in_onnx_runtime(name: str) -> None:
    import onnxruntime  # noqa: PLC0415

    layer, x = layer_of(name).eval().float(), input_of(name, torch.float32)
    program = torch.onnx.export(layer, (x,), dynamo=True, verbose=False)
    assert {node.domain for node in program.model.graph} <= {""}  # standard operators only
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), layer(x))


@each_layer
def test_symbolic_tracing_records_a_call(name: str) -> None:
    layer, x = layer_of(name), input_of(name)
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(layer))
    agree(name, traced(x), layer(x))
    agree(name, pickle.loads(pickle.dumps(traced))(x), layer(x))
    called = {node.target.__module__ for node in traced.graph.nodes if node.op == "call_function"}
    assert "poolwise.torch.functional" in called, traced.code
    assert called <= {"poolwise.torch.functional", "builtins", "_operator"}, traced.code


def test_functions_and_accelerated_models_are_traced() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.pool = torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(2)
            self.gem = poolwise.torch.GeMPool2d(2)
            self.min = poolwise.torch.Pool(poolwise.Min(), (2, 2), stride=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.pool(torch.relu(self.first(x)))
            x = ours.avg_pool2d(self.gem(x.abs()), 2, count_include_pad=False)
            return ours.lp_pool2d(stock.max_pool2d(self.min(x), 2, 1), 2.0, 2)

    net, x = Net(), torch.randn(2, 3, 40, 40)
    for model in (net, poolwise.torch.accelerate(net)):
        traced = torch.fx.symbolic_trace(model)
        torch.testing.assert_close(traced(x), net(x))
        assert "first" in dict(traced.named_modules())
        assert any(node.target is ours.avg_pool2d for node in traced.graph.nodes), traced.code


def test_arrays_by_name_and_operands_alone_are_traced() -> None:
    x, gate = torch.rand(1, 2, 8, 8), torch.tensor(3.0)

    def named(x: torch.Tensor) -> torch.Tensor:
        return ours.lp_pool2d(input=x, norm_type=2.0, kernel_size=2)

    def beside(p: torch.Tensor) -> torch.Tensor:
        return ours.gem_pool2d(x, 2, p=p)

    for function, given in ((named, x), (beside, gate)):
        torch.testing.assert_close(torch.fx.symbolic_trace(function)(given), function(given))


@each_layer
def test_layers_copy_pickle_and_print(name: str) -> None:
    layer, x = layer_of(name), input_of(name)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), layer(x))
        assert repr(twin) == repr(layer)
    assert bool(layer.state_dict()) == name.startswith(("Fractional", *LEARNED))  # PyTorch's own keeps its draws there
    assert name in repr(layer)


@each_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_dtypes_are_kept_and_autocast_changes_nothing_else(name: str, dtype: torch.dtype) -> None:
    layer, x = layer_of(name), input_of(name, dtype)
    if "Fractional" in name:
        layer._random_samples = layer._random_samples.to(dtype)
    y = layer(x)
    assert y.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x), y)


@each_layer
def test_meta_tensors_have_shapes_only(name: str) -> None:
    layer, x = layer_of(name), input_of(name)
    if "Fractional" in name:
        layer._random_samples = layer._random_samples.to("meta")
    if name.startswith(LEARNED):
        layer = layer.to("meta")
    y = layer(x.to("meta"))
    assert y.is_meta
    assert y.shape == layer_of(name)(x).shape


@each_layer
def test_activation_checkpointing_gives_the_same_gradient(name: str) -> None:
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

    layer, x = layer_of(name), input_of(name).requires_grad_()
    y = checkpoint(lambda t: layer(t * 2), x, use_reentrant=False)
    got, expected = (torch.autograd.grad(out.square().sum(), x)[0] for out in (y, layer(x * 2)))
    torch.testing.assert_close(got, expected)


@each_layer
def test_deterministic_algorithms_are_all_there_are(name: str) -> None:
    layer, x = layer_of(name), input_of(name).requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (torch.autograd.grad(layer(x).square().sum(), x)[0] for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first, second)


@each_layer
def test_hooks_are_called(name: str) -> None:
    layer, x = layer_of(name), input_of(name)
    seen: list[torch.Size] = []
    layer.register_forward_hook(lambda *given: seen.append(given[-1].shape))
    assert seen == [layer(x).shape]


MASK = torch.rand(8, generator=torch.Generator().manual_seed(0)) > 0.3
CHANNELS_LAST = torch.randn(2, 5, 7, 8, generator=torch.Generator().manual_seed(0)).to(
    memory_format=torch.channels_last
)


@pytest.mark.slow
@pytest.mark.parametrize("x", [CHANNELS_LAST.contiguous(), CHANNELS_LAST], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("where", [None, MASK], ids=["", "masked"])
@pytest.mark.parametrize("op", [Max(), Sum(), Mean()], ids=repr)
def test_the_registered_operators_are_sound(op: poolwise.Operation, where: Any, x: torch.Tensor) -> None:
    from poolwise.torch._operator import _encoded, sliding  # noqa: PLC0415

    text = _encoded(op, sliding, ((3, 2), 2, 1, 1, True, "absent", None), None)
    y, kept = torch.ops.poolwise.pool(x, where, text, True)
    shape, order = list(x.shape), [0, 2, 3, 1] if x is CHANNELS_LAST else [0, 1, 2, 3]
    torch.library.opcheck(torch.ops.poolwise.pool, (x.clone().requires_grad_(), where, text, True))
    torch.library.opcheck(torch.ops.poolwise.pool, (x, where, text, False))
    mask = None if isinstance(op, Max) else where
    torch.library.opcheck(torch.ops.poolwise.pool_backward, (torch.ones_like(y), kept, mask, text, shape, order))
    if isinstance(op, Max):
        torch.library.opcheck(torch.ops.poolwise.indices, (kept, text, shape))


@pytest.mark.slow
@pytest.mark.parametrize("op", [Max(), Mean(), Lp(3)], ids=repr)
@pytest.mark.parametrize("padding_mode", ["absent", "circular"])
def test_masks_and_padding_modes_compile_too(op: poolwise.Operation, padding_mode: Any) -> None:
    x = input_of("MaxPool2d").requires_grad_()
    mask = torch.rand(7, 8, generator=torch.Generator().manual_seed(0)) > 0.3

    def pooled(t: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        y = poolwise.pool(t, op, (3, 2), stride=2, padding=1, padding_mode=padding_mode, where=where)
        return torch.where(torch.isfinite(y), y, 0)

    y = torch.compile(pooled, backend="aot_eager", fullgraph=True)(x, mask)
    torch.testing.assert_close(y, pooled(x, mask))
    got, expected = (torch.autograd.grad(out.square().sum(), x)[0] for out in (y, pooled(x, mask)))
    torch.testing.assert_close(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "op", [Lp(2), Lp(3), GeM(3.0), Median(), Quantile(0.3), Soft(), LogSumExp(), Blur(), TopKMean(2), Mode()], ids=repr
)
def test_inductor_compiles_the_second_size_too(op: poolwise.Operation) -> None:
    """For which it takes every size as a symbol, also those of windows that overlap."""

    def pooled(t: torch.Tensor) -> torch.Tensor:
        return poolwise.pool(t, op, (3, 2), axes=(2, 3), stride=2)

    torch.compiler.reset()
    compiled = torch.compile(pooled)
    for height, width in ((11, 12), (13, 16), (20, 15)):
        x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height)).requires_grad_()
        y, expected = compiled(x), pooled(x)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in (y, expected)))


@pytest.mark.parametrize("op", [GeM(3.0), TopKMean(2), Quantile(0.3), Max()], ids=repr)
def test_one_graph_of_bins_serves_every_batch(op: poolwise.Operation) -> None:
    """The operation's own numbers are constants of it, which the compiler would make symbols of."""
    graphs = 0

    def counting(graph: torch.fx.GraphModule, _: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    def pooled(t: torch.Tensor) -> torch.Tensor:
        return poolwise.adaptive_pool(t, op, (3, 2), axes=(2, 3))

    compiled = torch.compile(pooled, backend=counting, fullgraph=True, dynamic=True)
    for batch in (2, 3, 5):
        x = torch.rand(batch, 3, 7, 8, generator=torch.Generator().manual_seed(batch))
        torch.testing.assert_close(compiled(x), pooled(x))
    assert graphs == 1


@pytest.mark.parametrize("op", [LogSumExp(), Lp(3), Soft()], ids=repr)
def test_a_graph_that_runs_as_it_was_read_has_every_derivative(op: poolwise.Operation) -> None:
    def pooled(t: torch.Tensor) -> torch.Tensor:
        return poolwise.pool(t, op, (2, 2), axes=(2, 3), stride=1)

    x = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    compiled = torch.compile(pooled, backend="eager", fullgraph=True)
    twice = []
    for run in (compiled, pooled):
        (first,) = torch.autograd.grad(run(x).square().sum(), x, create_graph=True)
        twice.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*twice)
    with forward_ad.dual_level():
        tangents = [
            forward_ad.unpack_dual(run(forward_ad.make_dual(x.detach(), x.detach()))) for run in (compiled, pooled)
        ]
    torch.testing.assert_close(tangents[0].tangent, tangents[1].tangent)


def test_what_the_registered_operator_does_not_do_is_compiled_of_pytorchs() -> None:
    """Indices of a mode, and padding that holds elements, whose gradient some sizes have no kernel for."""
    x = torch.rand(2, 3, 9, 10, generator=torch.Generator().manual_seed(1))

    def modes(t: torch.Tensor) -> Any:
        return poolwise.mode_pool(t, (2, 2), return_indices=True)

    for got, expected in zip(torch.compile(modes, backend="aot_eager", fullgraph=True)(x), modes(x), strict=True):
        torch.testing.assert_close(got, expected)

    def folded(t: torch.Tensor) -> torch.Tensor:
        return poolwise.pool(t, Blur(), (3, 3), axes=(2, 3), padding=40, padding_mode="circular")

    compiled = torch.compile(folded, backend="aot_eager", dynamic=True)
    for each in (x.clone().requires_grad_(), x[:, :, 1:].clone().requires_grad_()):
        torch.testing.assert_close(compiled(each), folded(each))


def test_compiled_whole_windows_are_one_call_of_the_compiled_module() -> None:
    x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1)).requires_grad_()
    calls: list[str] = []

    def spy(graph: torch.fx.GraphModule, _: Any) -> Any:
        calls.extend([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return make_boxed_func(graph.forward)

    compiled = torch.compile(
        lambda t: ours.median_pool2d(t, 3, 2), backend=aot_autograd(fw_compiler=spy, bw_compiler=spy), fullgraph=True
    )
    compiled(x).sum().backward()
    assert [call for call in calls if "poolwise" in call] == ["poolwise.pool.default", "poolwise.pool_backward.default"]


def test_compositions_of_channels_last_compile_for_symbolic_sizes() -> None:
    x = torch.rand(2, 3, 12, 14, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    compiled = torch.compile(lambda t: ours.max_blur_pool2d(t, 2, 2), backend="aot_eager", fullgraph=True, dynamic=True)
    for each in (x, x[:, :, 2:]):
        torch.testing.assert_close(compiled(each), ours.max_blur_pool2d(each, 2, 2))


def test_indices_compile_too() -> None:
    x = input_of("MaxPool2d")
    for function in (
        lambda t: ours.max_pool2d(t, 3, 2, 1, return_indices=True),
        lambda t: ours.adaptive_max_pool2d_with_indices(t, 3),
    ):
        got = torch.compile(function, backend="aot_eager", fullgraph=True)(x)
        torch.testing.assert_close(got, function(x))


def test_windows_that_follow_from_the_input_compile() -> None:
    def pooled(t: torch.Tensor) -> torch.Tensor:
        return ours.avg_pool2d(t, t.shape[2:]) + ours.adaptive_avg_pool2d(t, (t.shape[2] // 7, 1))

    compiled = torch.compile(pooled, backend="aot_eager", fullgraph=True, dynamic=True)
    for x in (input_of("AvgPool2d"), input_of("AvgPool2d")[..., 1:]):
        torch.testing.assert_close(compiled(x), pooled(x))


@pytest.mark.parametrize("rank", [2, 3])
def test_channels_last_is_kept_in_eager_mode_and_by_the_compiler(rank: int) -> None:
    form = torch.channels_last if rank == 2 else torch.channels_last_3d
    x = torch.randn(2, 8, *(6,) * rank).to(memory_format=form).requires_grad_()
    for name in ("max_pool", "avg_pool", "adaptive_avg_pool", "relumax_pool"):
        function = getattr(ours, f"{name}{rank}d")
        for run in (function, torch.compile(function, backend="aot_eager", fullgraph=True)):
            y = run(x, 2)
            assert y.is_contiguous(memory_format=form), name
            (gradient,) = torch.autograd.grad(y.square().sum(), x)
            assert gradient.is_contiguous(memory_format=form), name


def test_without_a_gradient_nothing_is_kept() -> None:
    x = torch.randn(1, 2, 8, 8)
    graphs: list[torch.fx.Graph] = []

    def spy(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph.graph)
        return graph.forward

    torch.compile(lambda t: ours.max_pool2d(t, 2), backend=spy, fullgraph=True)(x)
    (call,) = [node for node in graphs[0].nodes if "poolwise" in str(node.target)]
    assert call.args[-1] is False
    assert torch.ops.poolwise.pool(*call.args[:0], x, *call.args[1:])[1].numel() == 0


def test_a_max_keeps_one_byte_per_output_under_the_compiler() -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    sizes: list[int] = []
    compiled = torch.compile(lambda t: ours.max_pool2d(t, 2), backend="aot_eager", fullgraph=True)
    compiled(x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
        compiled(x)
    assert sum(sizes) == 2 * 3 * 4 * 4


@pytest.mark.slow
@pytest.mark.parametrize("padding", [0, 1, ((1, 2), (0, 1))], ids=str)
@pytest.mark.parametrize(("ceil_mode", "dilation"), [(False, 1), (True, 1), (True, 2)])
@pytest.mark.parametrize("padding_mode", ["absent", "circular", "reflect", "replicate"])
def test_windows_of_symbolic_sizes_are_the_same_windows(
    padding: Any, ceil_mode: bool, dilation: int, padding_mode: str
) -> None:
    class Norm(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            arguments = {"padding": padding, "ceil_mode": ceil_mode, "dilation": dilation}
            y = poolwise.lp_pool(x, (3, 2), p=3, stride=2, padding_mode=padding_mode, **arguments)
            return y + poolwise.blur_pool(x, (3, 2), stride=2, padding_mode=padding_mode, **arguments)

    x = input_of("LPPool2d")
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(Norm(), (x,), dynamic_shapes=(sizes,)).module()
    for given in (x, larger("LPPool2d"), larger("LPPool2d")[:, :, 1:, :-2].contiguous()):
        torch.testing.assert_close(program(given), Norm()(given))


def test_an_exported_program_is_saved_and_loaded() -> None:
    layer, x, file = poolwise.torch.MaxPool2d(3, 2, 1), input_of("MaxPool2d"), io.BytesIO()
    torch.export.save(torch.export.export(layer, (x,)), file)
    file.seek(0)
    torch.testing.assert_close(torch.export.load(file).module()(x), stock.max_pool2d(x, 3, 2, 1))
