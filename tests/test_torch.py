"""The PyTorch door, with PyTorch as the oracle."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as stock
from torch._subclasses.fake_tensor import FakeTensorMode

import poolwise
import poolwise.torch
import poolwise.torch.functional as ours
from cases import CASES, OPERATIONS, operands_of, same, takes
from poolwise import InvalidType, InvalidValue, Lp, Max, Mean
from poolwise.torch.layers import LAYERS, STOCK

# function, sizes of a batch of planes, keyword arguments: what PyTorch accepts
ACCEPTED: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("max_pool1d", (2, 3, 17), {"kernel_size": 3}),
    ("max_pool1d", (3, 17), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}),
    ("max_pool2d", (2, 3, 7, 11), {"kernel_size": 2}),
    ("max_pool2d", (3, 7, 11), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    ("max_pool2d", (2, 3, 7, 11), {"kernel_size": [3], "stride": [2], "padding": [1], "ceil_mode": True}),
    ("max_pool2d", (2, 3, 13, 11), {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 3}),
    ("max_pool3d", (2, 3, 5, 7, 6), {"kernel_size": 2, "stride": (1, 2, 2)}),
    ("max_pool3d", (2, 5, 7, 6), {"kernel_size": (3, 2, 1), "padding": (1, 1, 0)}),
    ("avg_pool1d", (2, 3, 17), {"kernel_size": 3, "padding": 1}),
    ("avg_pool1d", (3, 17), {"kernel_size": 4, "stride": 3, "ceil_mode": True, "count_include_pad": False}),
    ("avg_pool2d", (2, 3, 7, 11), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("avg_pool2d", (2, 3, 7, 11), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("avg_pool2d", (2, 3, 7, 11), {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    ("avg_pool2d", (3, 7, 11), {"kernel_size": (2, 3), "divisor_override": 5}),
    ("avg_pool3d", (2, 3, 5, 7, 6), {"kernel_size": 2, "padding": 1}),
    ("avg_pool3d", (2, 3, 5, 7, 6), {"kernel_size": (2, 3, 2), "stride": 2, "divisor_override": 3}),
    ("adaptive_max_pool1d", (2, 3, 17), {"output_size": 5}),
    ("adaptive_max_pool2d", (2, 3, 7, 11), {"output_size": (3, None)}),
    ("adaptive_max_pool3d", (2, 3, 5, 7, 6), {"output_size": 2}),
    ("adaptive_avg_pool1d", (3, 17), {"output_size": 5}),
    ("adaptive_avg_pool2d", (2, 3, 7, 11), {"output_size": (3, 11)}),
    ("adaptive_avg_pool2d", (2, 3, 8, 12), {"output_size": 4}),
    ("adaptive_avg_pool3d", (2, 3, 5, 7, 6), {"output_size": (None, 2, 3)}),
]
NAMES = [f"{name} {arguments}" for name, _, arguments in ACCEPTED]
each_accepted = pytest.mark.parametrize(("name", "shape", "arguments"), ACCEPTED, ids=NAMES)
on_each_device = pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])


def sample(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers with ties; order decides nothing but the index."""
    return (torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(0)) / 4).to(dtype)


@each_accepted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_values_and_gradients_are_pytorchs(
    name: str, shape: tuple[int, ...], arguments: dict[str, Any], dtype: torch.dtype
) -> None:
    wide = torch.float32 if dtype.itemsize == 2 else dtype  # in half precision PyTorch rounds every share, and we once
    x, twin = sample(shape, dtype).requires_grad_(), sample(shape, wide).requires_grad_()
    y, expected = getattr(ours, name)(x, **arguments), getattr(stock, name)(twin, **arguments)
    torch.testing.assert_close(y, expected.to(dtype))
    g = sample(tuple(y.shape), dtype)
    y.backward(g)
    expected.backward(g.to(wide))
    torch.testing.assert_close(x.grad, twin.grad.to(dtype))


@each_accepted
def test_indices_are_pytorchs(name: str, shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    if "max" in name:
        y, indices = getattr(ours, name)(sample(shape), **arguments, return_indices=True)
        expected, where = getattr(stock, name)(sample(shape), **arguments, return_indices=True)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(indices, where)
    else:
        with pytest.raises(TypeError):
            getattr(ours, name)(sample(shape), **arguments, return_indices=True)


@each_accepted
def test_without_a_gradient_the_same(name: str, shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    torch.testing.assert_close(
        getattr(ours, name)(sample(shape), **arguments), getattr(stock, name)(sample(shape), **arguments)
    )


@pytest.mark.parametrize("name", [name for name in LAYERS if name[:-2] in STOCK])
def test_signatures_are_pytorchs(name: str) -> None:
    assert issubclass(LAYERS[name], getattr(torch.nn, name))
    assert inspect.signature(LAYERS[name]) == inspect.signature(getattr(torch.nn, name))


@pytest.mark.parametrize("name", [f"{kind}_pool{rank}d" for kind in ("max", "avg") for rank in (1, 2, 3)])
def test_functions_take_pytorchs_arguments_in_pytorchs_order(name: str) -> None:
    parameters = list(inspect.signature(getattr(ours, name)).parameters)
    if name.startswith("max"):
        documented = ["input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"]
    else:
        documented = ["input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"]
    assert parameters == documented


BUILT_IN = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d")  # whose signatures Python cannot read


@pytest.mark.parametrize("name", [name for name in ours.__all__ if hasattr(stock, name) and name not in BUILT_IN])
def test_functions_have_pytorchs_parameters_and_defaults(name: str) -> None:
    written = getattr(
        stock, f"{name}_with_indices", getattr(stock, name)
    )  # behind PyTorch's dispatch by return_indices
    theirs = inspect.signature(written).parameters
    mine = inspect.signature(getattr(ours, name)).parameters
    assert list(mine) == list(theirs)
    assert [each.default for each in mine.values()] == [each.default for each in theirs.values()]


def test_the_profiler_shows_a_pooling_by_its_name() -> None:
    x = sample((1, 2, 8, 8)).requires_grad_()
    ours.max_pool2d(x, 2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        ours.max_pool2d(x, 2)
        ours.lp_pool2d(x, 7, 2)
    names = {event.key for event in profiled.key_averages()}
    assert {"poolwise::max_pool (native)", "poolwise::lp_pool (gathered)"} <= names


@pytest.mark.parametrize("op", OPERATIONS, ids=repr)
@pytest.mark.parametrize("case", CASES)
@on_each_device
def test_a_tensor_is_pooled_as_the_reference_pools_its_array(device: str, case: str, op: poolwise.Operation) -> None:
    shape, arguments = CASES[case]
    for dtype in filter(partial(takes, op), ("float32", "float64", "int64", "uint8")):
        x = operands_of(case, dtype)[0]
        y = poolwise.pool(torch.from_numpy(x).to(device), op, **arguments)
        assert y.device.type == device
        same(y.numpy(force=True), poolwise.pool(x, op, **arguments, kernel="reference"), scale=8 * 30)


@pytest.mark.parametrize("op", OPERATIONS, ids=repr)
@pytest.mark.parametrize("case", ["3/2 p1", "uneven padding", "dilated", "channels last", "reflect", "empty windows"])
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@on_each_device
def test_gradients_are_the_references_on_every_geometry(
    device: str, case: str, op: poolwise.Operation, masked: bool
) -> None:
    shape, arguments = CASES[case]
    numbers = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape) / 8.0
    mask = operands_of(case, "float64", masked=True)[1] if masked else None
    x = torch.from_numpy(numbers).to(device).requires_grad_()
    y = poolwise.pool(x, op, **arguments, where=None if mask is None else torch.from_numpy(mask).to(device))
    g = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y.backward(g.to(device))
    expected = _reference_gradient(case, op, numbers, mask, g.numpy())
    finite = np.isfinite(expected)
    np.testing.assert_allclose(x.grad.numpy(force=True)[finite], expected[finite], rtol=1e-12, atol=1e-12)


def _reference_gradient(case: str, op: poolwise.Operation, x: Any, mask: Any, g: Any) -> Any:
    from cases import call_of  # noqa: PLC0415
    from poolwise.reference import Reference  # noqa: PLC0415

    call = call_of(case, op, "float64", masked=mask is not None)
    return Reference().backward(g, (x,) if mask is None else (x, mask), call)[0]


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "max 2/2": lambda x: ours.max_pool2d(x, 2),
    "max 3/1 dilated": lambda x: ours.max_pool2d(x, 2, 1, 1, 2),
    "min 2/1": lambda x: ours.min_pool2d(x, 2, 1),
    "avg 3/1 p1": lambda x: ours.avg_pool2d(x, 3, 1, 1),
    "sum 2/2": lambda x: ours.sum_pool2d(x, 2),
    "adaptive avg": lambda x: ours.adaptive_avg_pool2d(x, (3, 4)),
    "adaptive max": lambda x: ours.adaptive_max_pool2d(x, (3, 4)),
}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def distinct(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """No ties, so that finite differences mean something."""
    numbers = torch.randperm(int(np.prod(shape)), generator=torch.Generator().manual_seed(0))
    return (numbers.reshape(shape) / 8).to(dtype)


@each_function
def test_first_second_and_forward_derivatives(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = distinct(1, 2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(function, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, x, check_fwd_over_rev=True, check_rev_over_rev=True)


@each_function
def test_transforms_of_torch_func(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x, tangent = distinct(3, 2, 5, 6), torch.ones(3, 2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(function)(x), function(x))
    torch.testing.assert_close(torch.vmap(function, in_dims=1)(x), function(x.movedim(1, 0)))
    once = torch.func.grad(lambda t: (function(t) ** 2).sum())(x)
    torch.testing.assert_close(torch.vmap(torch.func.grad(lambda t: (function(t) ** 2).sum()))(x), once)
    jacobian = torch.func.jacrev(function)(x[0])
    torch.testing.assert_close(torch.func.jacfwd(function)(x[0]), jacobian)
    pushed = torch.func.jvp(function, (x[0],), (tangent[0],))[1]
    torch.testing.assert_close(pushed, jacobian.sum((-3, -2, -1)))


@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format], ids=str)
def test_the_memory_format_is_kept(form: torch.memory_format) -> None:
    x = sample((2, 8, 6, 10)).to(memory_format=form).requires_grad_()
    y = ours.max_pool2d(x, 2)
    assert y.is_contiguous(memory_format=form)
    torch.testing.assert_close(y, stock.max_pool2d(x, 2))
    y.sum().backward()
    assert x.grad.is_contiguous(memory_format=form)


def test_a_max_keeps_one_byte_per_output_for_backward_and_a_mean_nothing() -> None:
    x = torch.rand(2, 3, 8, 8, requires_grad=True)

    def kept(pool: Callable[..., torch.Tensor]) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            pool(x, 2)
        return sum(sizes)

    assert kept(ours.max_pool2d) == 2 * 3 * 4 * 4
    assert kept(ours.avg_pool2d) == 0
    assert kept(stock.max_pool2d) > 8 * 2 * 3 * 4 * 4


def test_pool_layer_takes_any_operation() -> None:
    layer = poolwise.torch.Pool(Mean(count_include_pad=True), (2, 2), padding=1)
    x = sample((2, 3, 7, 11))
    torch.testing.assert_close(layer(x), stock.avg_pool2d(x, 2, padding=1))
    assert "Mean(count_include_pad=True" in repr(layer)
    with pytest.raises(InvalidType, match="Pool: unexpected argument stirde=1"):
        poolwise.torch.Pool(Max(), (2, 2), stirde=1)


def test_a_further_operations_layer_returns_indices_where_it_picks_an_element() -> None:
    x = sample((2, 3, 7, 11))
    y, indices = poolwise.torch.MinPool2d(2, return_indices=True)(x)
    expected, where = stock.max_pool2d(-x, 2, return_indices=True)
    torch.testing.assert_close(y, -expected)
    torch.testing.assert_close(indices, where)
    with pytest.raises(InvalidValue, match="picks no element"):
        poolwise.torch.SumPool2d(2, return_indices=True)(x)


def test_meta_and_fake_tensors_have_shapes_only() -> None:
    from torch._subclasses import FakeTensorMode  # noqa: PLC0415

    assert ours.max_pool2d(torch.empty(1, 2, 8, 8, device="meta"), 2).shape == (1, 2, 4, 4)
    with FakeTensorMode() as mode:
        y = ours.avg_pool2d(mode.from_tensor(torch.empty(1, 2, 8, 8)), 2)
    assert y.shape == (1, 2, 4, 4)


def test_a_subclass_of_tensor_is_a_tensor() -> None:
    x = torch.nn.Parameter(sample((1, 1, 4, 4)))
    torch.testing.assert_close(ours.max_pool2d(x, 2), stock.max_pool2d(x, 2))
    assert ours.max_pool2d(x, 2).requires_grad


def test_a_mask_and_padding_modes_have_gradients() -> None:
    x = distinct(1, 1, 4, 4).requires_grad_()
    mask = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) > 0.4
    assert torch.autograd.gradcheck(
        lambda t: poolwise.pool(t, Max(), (2, 2), stride=1, padding=1, padding_mode="circular", where=mask), x
    )


def test_empty_windows_have_a_backward() -> None:
    x = torch.rand(1, 1, 2, 2, requires_grad=True)  # PyTorch itself aborts in this backward
    y = ours.max_pool2d(x, 2, 1, 1, dilation=3)
    assert torch.isneginf(y).all()
    y.backward(torch.ones_like(y))
    assert (x.grad == 0).all()


@pytest.mark.parametrize(
    ("make", "fault", "text"),
    [
        (lambda x: ours.max_pool2d(x, 0), InvalidValue, "max_pool2d: kernel_size must be at least 1, got 0"),
        (lambda x: ours.max_pool2d(x, 2, 0), InvalidValue, "max_pool2d: stride must be at least 1, got 0"),
        (
            lambda x: ours.max_pool2d(x, 2, padding=2),
            InvalidValue,
            "padding must be at most half of kernel_size 2, got 2",
        ),
        (lambda x: ours.max_pool2d(x, 9), InvalidValue, "kernel_size must fit the padded input"),
        (lambda x: ours.max_pool2d(x, (2, 2, 2)), InvalidValue, "kernel_size must have 2 entries"),
        (lambda x: ours.max_pool2d(x[0, 0], 2), InvalidValue, "input must have 3 or 4 axes, got shape"),
        (lambda x: ours.max_pool2d(x.to(torch.complex64), 2), InvalidType, "got torch.complex64"),
        (lambda x: ours.max_pool2d(x.to_sparse(), 2), InvalidType, "dense tensor"),
        (
            lambda x: ours.avg_pool2d(x, 2, divisor_override=0),
            InvalidValue,
            "divisor_override must be at least 1, got 0",
        ),
        (lambda x: ours.adaptive_avg_pool2d(x, ()), InvalidValue, "output_size must be an int or 2 entries"),
        (lambda x: ours.adaptive_avg_pool2d(x, 9 * 10**18), InvalidValue, "output_size"),
        (lambda x: ours.min_pool2d(x, 2, temperature=1), InvalidType, "min_pool2d: unexpected argument temperature=1"),
    ],
)
def test_what_is_refused(make: Callable[[torch.Tensor], Any], fault: type[Exception], text: str) -> None:
    with pytest.raises(fault) as caught:
        make(torch.rand(1, 2, 4, 4))
    assert text in str(caught.value)


# Where we differ from PyTorch, on purpose: the list in `poolwise.torch.functional`.


def test_lp_is_the_norm_where_pytorch_sums_signed_powers() -> None:
    x = torch.tensor([[[-3.0, -4.0, 1.0, 2.0]]])
    torch.testing.assert_close(ours.lp_pool1d(x, 3, 2), torch.tensor([[[91.0 ** (1 / 3), 9.0 ** (1 / 3)]]]))
    assert stock.lp_pool1d(x, 3, 2).isnan().any()
    torch.testing.assert_close(ours.lp_pool1d(x, 2, 2), stock.lp_pool1d(x, 2, 2))
    x = torch.tensor([[[3.0, 4.0, 12.0]]])
    torch.testing.assert_close(ours.lp_pool1d(x, 1, 2, ceil_mode=True), torch.tensor([[[7.0, 12.0]]]))
    torch.testing.assert_close(stock.lp_pool1d(x, 1, 2, ceil_mode=True), torch.tensor([[[7.0, 24.0]]]))


@pytest.mark.parametrize("norm_type", [1.0, 1.5, 2, 3.5, float("inf")])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lp_of_positive_numbers_is_pytorchs(norm_type: float, rank: int) -> None:
    x = sample((2, 3, 7, 8, 6)[: rank + 2], torch.float64).abs().add(0.25).requires_grad_()
    got, expected = (getattr(f, f"lp_pool{rank}d")(x, norm_type, 2, 1) for f in (ours, stock))
    torch.testing.assert_close(got, expected)
    if norm_type != float("inf"):  # PyTorch gives ties to the first, too, but rounds powers otherwise
        torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (got, expected)))


def test_the_norm_of_nothing_but_zeros_has_a_gradient_of_zero() -> None:
    x = torch.zeros(1, 1, 4, requires_grad=True)
    assert torch.equal(torch.autograd.grad(ours.lp_pool1d(x, 2, 2).sum(), x)[0], torch.zeros(1, 1, 4))


def test_a_large_norm_does_not_overflow_on_the_way() -> None:
    x = torch.tensor([[[3e30, 4e30]]])
    torch.testing.assert_close(ours.lp_pool1d(x, 2, 2), torch.tensor([[[5e30]]]))


def test_where_unpool_indices_repeat_only_the_last_has_a_gradient() -> None:
    y = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    indices = torch.tensor([[[4, 1, 4]]])
    x = ours.max_unpool1d(y, indices, 2)
    assert x.tolist() == [[[0, 2, 0, 0, 3, 0]]]
    assert torch.autograd.grad(x, y, torch.arange(6.0).reshape(1, 1, 6))[0].tolist() == [[[0, 1, 4]]]


@pytest.mark.parametrize("bad", [-1, 6, 10**9])
def test_an_unpool_index_outside_is_refused(bad: int) -> None:
    with pytest.raises(InvalidValue, match=f"max_unpool1d: indices must be between 0 and 5, .* got {bad};"):
        ours.max_unpool1d(torch.ones(1, 1, 3), torch.tensor([[[0, bad, 2]]]), 2)


FRACTIONAL: list[tuple[Callable[[torch.Tensor], Any], type[Exception], str]] = [
    (lambda x: ours.fractional_max_pool2d(x, 2), InvalidValue, "output_size or output_ratio must be given"),
    (lambda x: ours.fractional_max_pool2d(x, 2, 2, 0.5), InvalidValue, "output_size or output_ratio must be given"),
    (lambda x: ours.fractional_max_pool2d(x.tolist(), 2, 2), InvalidType, "input must be a tensor, got list"),
    (lambda x: ours.fractional_max_pool2d(x, 2, 7), InvalidValue, "output_size must be at most 6 on axis 2"),
    (lambda x: ours.fractional_max_pool2d(x, 8, 1), InvalidValue, "window must fit the input's 7 on axis 2"),
    (
        lambda x: ours.fractional_max_pool2d(x, 2, output_ratio=1.5),
        InvalidValue,
        "output_ratio must be between 0 and 1",
    ),
    (lambda x: ours.fractional_max_pool2d(x, 2, output_ratio=1), InvalidType, "output_ratio must be made of floats"),
    (lambda x: ours.fractional_max_pool2d(x, [], 2), InvalidValue, "window must have 2 entries"),
    (
        lambda x: ours.fractional_max_pool2d(x, 2, 3, _random_samples=torch.rand(2, 3, 1)),
        InvalidValue,
        r"_random_samples must have the shape \(2, 3, 2\), got \(2, 3, 1\)",
    ),
    *(
        (
            lambda x, draw=draw: ours.fractional_max_pool2d(x, 2, 3, _random_samples=torch.full((2, 3, 2), draw)),
            InvalidValue,
            "draws must be at least 0 and less than 1",
        )
        for draw in (float("nan"), 1e9, -5.0, 1.0)
    ),
]


@pytest.mark.parametrize(("make", "fault", "text"), FRACTIONAL)
def test_fractional_pooling_refuses(make: Callable[[torch.Tensor], Any], fault: type[Exception], text: str) -> None:
    with pytest.raises(fault, match=text):
        make(sample((2, 3, 7, 9)))


def test_fractional_pooling_draws_as_pytorch_does() -> None:
    x = sample((2, 3, 17, 13), torch.float64)
    torch.manual_seed(3)
    expected, where = stock.fractional_max_pool2d(x, (2, 3), output_ratio=(0.5, 0.7), return_indices=True)
    torch.manual_seed(3)
    y, indices = ours.fractional_max_pool2d(x, (2, 3), output_ratio=(0.5, 0.7), return_indices=True)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(indices, where)


KEEPING_THE_INPUT = (  # whose compiled gradients need it
    *(poolwise.Lp(2), poolwise.Soft(), poolwise.Soft(5.0), poolwise.LogSumExp(2.0), poolwise.StochasticMean()),
    *(poolwise.GeM(), poolwise.GeM(2.5), poolwise.Lp(3)),
)
IN_ORDER = (poolwise.Median(), poolwise.Quantile(0.3), poolwise.TopKMean(2))  # and are constants but at ties


@pytest.mark.parametrize("op", [*KEEPING_THE_INPUT, *IN_ORDER, poolwise.Blur()], ids=repr)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_compiled_gradients_of_whole_windows_are_those_of_pytorchs_operations(
    op: poolwise.Operation, form: torch.memory_format
) -> None:
    x = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(1)).to(memory_format=form).requires_grad_()
    pools = [
        partial(poolwise.pool, op=op, window=(3, 3), axes=(2, 3), stride=2, padding=1, kernel=kernel)
        for kernel in ("native", "gathered")
    ]
    g = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    own, wanted = (torch.autograd.grad(pool(x), x, g)[0] for pool in pools)
    torch.testing.assert_close(own, wanted)
    assert own.is_contiguous(memory_format=form)


@pytest.mark.parametrize("grad", [False, True])
def test_a_learned_number_is_a_parameter_where_nobody_asks_for_its_gradient(grad: bool) -> None:
    layer, x = poolwise.torch.GeMPool2d((5, 7), p=2.5), torch.rand(2, 3, 5, 7)
    with torch.profiler.profile() as seen, torch.set_grad_enabled(grad):
        y = layer(x)
    assert any(f"({'gathered' if grad else 'native'})" in event.key for event in seen.key_averages())
    torch.testing.assert_close(y, poolwise.pool(x, poolwise.GeM(2.5), (5, 7), axes=(2, 3)))
    assert y.requires_grad == grad
    with torch.no_grad():
        layer.p.fill_(0.5)  # as a parameter it would be refused
        torch.testing.assert_close(layer(x), x.sqrt().mean((2, 3), keepdim=True) ** 2)


def test_modes_that_record_see_pytorchs_operations() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx  # noqa: PLC0415

    first, second = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    pools: tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor], ...] = (
        lambda x, p: ours.gem_pool2d(x, 2, p=p),
        lambda x, p: ours.lip_pool2d(x, 2, logits=x * p),
        lambda x, p: ours.soft_pool2d(x, 2) + p,
        lambda x, p: ours.max_pool2d(x, 2) * p,
    )
    for pool in pools:
        pool(first, torch.tensor(1.0))  # known from here on
        graph = make_fx(pool)(first, torch.tensor(3.0))
        torch.testing.assert_close(graph(second, torch.tensor(2.0)), pool(second, torch.tensor(2.0)))


def test_logits_of_inference_mode_are_taken() -> None:
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    with torch.inference_mode():
        logits = torch.randn(2, 3, 6, 6)
    (own,) = torch.autograd.grad(ours.lip_pool2d(x, 2, logits=logits).sum(), x)
    (wanted,) = torch.autograd.grad(ours.lip_pool2d(x, 2, logits=logits.clone()).sum(), x)
    torch.testing.assert_close(own, wanted)


def test_an_operand_alone_has_a_gradient() -> None:
    x = torch.randn(2, 3, 6, 6)
    logits, p = torch.randn(2, 3, 6, 6, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    for y, operand in ((ours.lip_pool2d(x, 2, logits=logits), logits), (ours.gem_pool2d(x, 2, p=p), p)):
        (alone,) = torch.autograd.grad(y.sum(), operand)
        x.requires_grad_()
        beside = ours.lip_pool2d(x, 2, logits=logits) if operand is logits else ours.gem_pool2d(x, 2, p=p)
        torch.testing.assert_close(alone, torch.autograd.grad(beside.sum(), operand)[0])
        assert alone.abs().sum() > 0
        x.requires_grad_(False)


@pytest.mark.parametrize("op", KEEPING_THE_INPUT, ids=repr)
def test_compiled_gradients_of_whole_windows_are_differentiated_again(op: poolwise.Operation) -> None:
    def pool(x: torch.Tensor) -> torch.Tensor:
        return poolwise.pool(
            x, op, (2, 2), axes=(1, 2), stride=1, padding=1, kernel="native" if x.dtype is torch.float32 else None
        )

    x = torch.randn(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradgradcheck(pool, (x,))
    single = x.detach().float().requires_grad_()
    (gx,) = torch.autograd.grad(pool(single).sum(), single, create_graph=True)
    (second,) = torch.autograd.grad((gx**2).sum(), single)
    (gx,) = torch.autograd.grad(pool(x).sum(), x, create_graph=True)
    torch.testing.assert_close(second, torch.autograd.grad((gx**2).sum(), x)[0].float(), rtol=1e-4, atol=1e-5)
    tangent = torch.ones_like(single)
    moved = torch.func.jvp(pool, (single.detach(),), (tangent,))[1]
    torch.testing.assert_close(moved, torch.func.jvp(pool, (x.detach(),), (tangent.double(),))[1].float())


FORMS = (torch.contiguous_format, torch.channels_last)
SHAPES = ((2, 3, 7, 9), (3, 1, 9), (2, 1, 1, 1), ())


def lip(x: torch.Tensor, logits: torch.Tensor, **words: Any) -> torch.Tensor:
    arguments = {"window": (3, 3), "axes": (2, 3), "stride": 2, "padding": 1, **words}
    return poolwise.pool(x, poolwise.LIP(), **arguments, operands={"logits": logits})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_compiled_gradients_of_the_input_and_the_logits_are_those_of_pytorchs_operations(
    form: torch.memory_format, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 7, 9, generator=random).to(dtype, memory_format=form).requires_grad_()
    logits = torch.randn(shape, generator=random).to(dtype).requires_grad_()
    g = torch.randn(2, 3, 4, 5, generator=random).to(dtype)
    assert poolwise.explain(x, poolwise.LIP(), (3, 3), axes=(2, 3), stride=2, padding=1).kernel == "native"
    own = torch.autograd.grad(lip(x, logits, kernel="native"), (x, logits), g)
    wanted = torch.autograd.grad(lip(x.double(), logits.double()), (x, logits), g.double())
    for got, exact in zip(own, wanted, strict=True):
        assert got.shape == exact.shape and got.dtype == dtype
        torch.testing.assert_close(got, exact)
    assert own[0].is_contiguous(memory_format=form)
    alone = torch.autograd.grad(lip(x.detach(), logits), logits, g)[0]  # where the input has no gradient
    torch.testing.assert_close(alone, own[1], rtol=0, atol=0)
    alone = torch.autograd.grad(lip(x, logits.detach()), x, g)[0]
    torch.testing.assert_close(alone, own[0], rtol=0, atol=0)


def test_compiled_gradients_of_logits_are_differentiated_again() -> None:
    x, logits = (torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))

    def second(x: torch.Tensor, logits: torch.Tensor, **words: Any) -> tuple[torch.Tensor, ...]:
        x, logits = x.requires_grad_(), logits.requires_grad_()
        first = torch.autograd.grad(lip(x, logits, **words).square().sum(), (x, logits), create_graph=True)
        return torch.autograd.grad(sum((each**2).sum() for each in first), (x, logits))

    torch.testing.assert_close(second(x, logits, kernel="native"), second(x, logits, kernel="gathered"))
    found: list[torch.Tensor] = []
    for kernel in ("native", "gathered"):  # one tensor may be both
        (gx,) = torch.autograd.grad(lip(x, x, kernel=kernel).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad((gx**2).sum(), x)[0])
    torch.testing.assert_close(found[0], found[1])
    for run in (torch.func.grad, torch.func.jacfwd):
        moved = run(lambda x, logits: lip(x, logits).sum(), (0, 1))(x.detach(), logits.detach())
        torch.testing.assert_close(moved, torch.autograd.grad(lip(x, logits).sum(), (x, logits)))


def test_logits_without_memory_of_their_own_are_pooled_all_the_same() -> None:
    x = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    negated = torch.complex(x, x + 1).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(lip(x, negated), lip(x, negated.clone()))
    marked = x.as_subclass(type("Marked", (torch.Tensor,), {}))
    assert type(lip(x, marked)) is type(marked)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert lip(x, torch.empty_like(x)).shape == (2, 3, 4, 5)


@pytest.mark.parametrize("function", ["soft_pool2d", "lp_pool2d", "blur_pool2d"])
def test_functions_called_again_have_the_same_gradients(function: str) -> None:
    """A call that is known may go a shorter way."""
    pool = getattr(ours, function)
    arguments = (2.0, 2) if function == "lp_pool2d" else (2,)
    x = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(4)).requires_grad_()
    grads = [torch.autograd.grad(pool(x, *arguments).square().sum(), x)[0] for _ in range(3)]
    torch.testing.assert_close(grads[0], torch.autograd.grad(pool(x.double(), *arguments).square().sum(), x)[0])
    assert grads[0].equal(grads[1]) and grads[0].equal(grads[2])


@pytest.mark.parametrize(
    "op", [*KEEPING_THE_INPUT, *IN_ORDER, poolwise.Blur(), poolwise.Max(), poolwise.Mean()], ids=repr
)
def test_jacobians_that_autograd_batches(op: poolwise.Operation) -> None:
    def pool(x: torch.Tensor) -> torch.Tensor:
        return poolwise.pool(x, op, (2, 2), axes=(1, 2), stride=1)

    x = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(5))
    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(jacobian(pool, x, vectorize=True), jacobian(pool, x))


@pytest.mark.parametrize("op", [poolwise.Lp(3), poolwise.Blur(), poolwise.Max(), poolwise.Mean()], ids=repr)
@pytest.mark.parametrize("mode", ["reverse-mode", "forward-mode"])
def test_hessians_that_autograd_batches(op: poolwise.Operation, mode: str) -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        return poolwise.pool(x, op, (2, 2), axes=(1, 2), stride=1).pow(3).sum()

    x = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = torch.autograd.functional.hessian(loss, x)
    got = torch.autograd.functional.hessian(loss, x, vectorize=True, outer_jacobian_strategy=mode)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("op", [poolwise.Lp(3), poolwise.Blur(), poolwise.Max(), poolwise.Mean()], ids=repr)
def test_batched_jacobians_have_derivatives(op: poolwise.Operation) -> None:
    def cubes(x: torch.Tensor) -> torch.Tensor:
        return poolwise.pool(x, op, (2, 2), axes=(1, 2), stride=1).pow(3)

    found = []
    for batched in (False, True):
        x = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()
        torch.autograd.functional.jacobian(cubes, x, create_graph=True, vectorize=batched).pow(2).sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(*found)


def test_explain_says_that_more_is_kept_where_pytorch_records() -> None:
    own, theirs = (str(poolwise.explain(torch.ones(4, 8, 8), op, (3, 3))) for op in (Max(), Lp(7)))
    assert "kept for backward: 16 bytes (1 per output)\n" in own
    assert "kept for backward: at least 1024 bytes (64 per output), and what torch records\n" in theirs
