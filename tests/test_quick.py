"""Calls made before: the same results, the same refusals, whatever was known."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as stock

import poolwise.torch
import poolwise.torch.functional as ours
from poolwise import InvalidType, InvalidValue
from poolwise.torch import _quick
from poolwise.torch._quick import Quick

CALLS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "max": lambda f, x: f.max_pool2d(x, 3, 2, 1),
    "max of a tuple": lambda f, x: f.max_pool2d(x, (3, 2), ceil_mode=True),
    "avg": lambda f, x: f.avg_pool2d(x, 3, 2, 1),
    "avg without the padding": lambda f, x: f.avg_pool2d(x, 3, 2, 1, False, False),
    "avg over 5": lambda f, x: f.avg_pool2d(x, 2, divisor_override=5),
    "adaptive max": lambda f, x: f.adaptive_max_pool2d(x, (3, 2)),
    "adaptive avg": lambda f, x: f.adaptive_avg_pool2d(x, 3),
}
X = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
INPUTS: dict[str, Callable[[], torch.Tensor]] = {
    "plain": X.clone,
    "channels last": lambda: X.clone(memory_format=torch.channels_last),
    "every second": lambda: X.repeat_interleave(2, 3)[..., ::2],
    "double": X.double,
    "bfloat16": X.bfloat16,
    "negated view": lambda: torch.imag(torch.complex(X, -X).conj()),
    "parameter": lambda: torch.nn.Parameter(X.clone()),
    "large": lambda: torch.randn(4, 8, 64, 64, generator=torch.Generator().manual_seed(1)),
    "small": X[:1, :2].clone,
    "small, channels last": lambda: X[:1].clone(memory_format=torch.channels_last),
    "small, transposed": lambda: X[:1].clone().transpose(2, 3),
    "small parameter": lambda: torch.nn.Parameter(X[:1].clone()),
    "small, not a leaf": lambda: X[:1].clone().requires_grad_() * 1,
}


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("call", CALLS)
def test_the_second_call_gives_what_the_first_one_gave(call: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = INPUTS[given]()
    x = x if x.requires_grad else x.detach().requires_grad_()
    expected = CALLS[call](stock, x.detach())
    first = CALLS[call](ours, x)
    known = sum(map(len, _all_known()))
    with monkeypatch.context() as patch:
        if given != "negated view":
            patch.setattr(ours, "pooled", None)  # the long way is closed
        second, third = CALLS[call](ours, x), CALLS[call](ours, x.detach())
    assert sum(map(len, _all_known())) == known
    for y in (first, second, third):
        torch.testing.assert_close(y, expected)
        assert y.stride() == first.stride()
    gradients = [torch.autograd.grad(y.float().square().sum(), x)[0] for y in (first, second)]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def _all_known() -> list[dict[Any, Any]]:
    return [
        cell.cell_contents.known
        for name in ours.__all__
        for cell in getattr(ours, name).__closure__ or ()
        if isinstance(cell.cell_contents, Quick)
    ]


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda x: ours.max_pool2d(x, 2.0), InvalidType),
        (lambda x: ours.max_pool2d(x, True), InvalidType),
        (lambda x: ours.max_pool2d(x, (2, 2.0)), InvalidType),
        (lambda x: ours.max_pool2d(x, 2, 1.0), InvalidType),
        (lambda x: ours.max_pool2d(x, 2, ceil_mode=0), InvalidType),
        (lambda x: ours.max_pool2d(x, 2, return_indices=0), InvalidType),
        (lambda x: ours.max_pool2d(x.to_sparse(), 2), InvalidType),
        (lambda x: ours.max_pool2d(x, 2, padding=2), InvalidValue),
        (lambda x: ours.adaptive_avg_pool2d(x, 2.0), InvalidType),
    ],
)
def test_what_is_equal_to_a_known_call_and_wrong_is_refused(call: Callable[[Any], Any], fault: type[Exception]) -> None:
    for _ in range(2):
        ours.max_pool2d(X, 2)
        ours.max_pool2d(X, (2, 2))
        ours.max_pool2d(X, 2, 1)
        ours.adaptive_avg_pool2d(X, 2)
    with pytest.raises(fault):
        call(X)


def test_equal_sizes_are_known_whatever_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(1, 2, 6, 9, generator=torch.Generator().manual_seed(7))
    sizes = [2, 3]
    expected = ours.max_pool2d(x, sizes, [1, 2])
    other = ours.max_pool2d(x, sizes)
    with monkeypatch.context() as patched:
        patched.setattr(ours, "_served", lambda *_: pytest.fail("the call is known"))
        for window, stride in (([2, 3], (1, 2)), (torch.Size([2, 3]), [1, 2]), ((2, 3), torch.Size([1, 2]))):
            assert ours.max_pool2d(x, window, stride).equal(expected)
        assert ours.max_pool2d(x, torch.ones(2, 3).shape).equal(other)
    sizes[1] = 4
    assert ours.max_pool2d(x, sizes).equal(torch.nn.functional.max_pool2d(x, (2, 4)))
    assert ours.max_pool2d(x, [2, 3], [3, 1]).equal(torch.nn.functional.max_pool2d(x, (2, 3), (3, 1)))  # not None
    for wrong in ([2, 3.0], (2, True), [2, [3]]):
        with pytest.raises((InvalidType, InvalidValue)):
            ours.max_pool2d(x, wrong)


def test_a_layers_own_tuple_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(1, 1, 7, 5)
    windows = [(3, size) for size in (2, 2)]  # equal, and two objects
    assert windows[0] is not windows[1]
    expected = [ours.max_pool2d(x, window) for window in windows]
    with monkeypatch.context() as patched:
        patched.setattr(Quick, "_equal", lambda *_: pytest.fail("it is known by its objects"))
        for window in windows:
            assert ours.max_pool2d(x, window).equal(expected[0])


def test_every_derivative_of_a_known_call() -> None:
    x = (torch.randperm(30).double() / 4).reshape(1, 1, 5, 6).requires_grad_()
    for call in (
        lambda t: ours.max_pool2d(t, 2, 1),
        lambda t: ours.max_pool2d(t, 2),
        lambda t: ours.avg_pool2d(t, 2, 1),
    ):
        y = call(x)
        assert torch.autograd.gradcheck(call, x, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(call, x, check_fwd_over_rev=True)
        torch.testing.assert_close(torch.vmap(call)(x.expand(3, 1, 1, 5, 6)), call(x).expand(3, *y.shape))


def test_a_known_call_keeps_one_byte_per_output() -> None:
    x = X.clone().requires_grad_()
    sizes: list[int] = []
    for _ in range(2):
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            y = ours.max_pool2d(x, 2)
        assert sizes == [y.numel()]


@pytest.mark.parametrize("small", [False, True])
def test_an_input_changed_in_place_has_its_gradient_or_a_refusal(small: bool) -> None:
    x = (X[:1, :2] if small else X).clone().requires_grad_()
    (expected,) = torch.autograd.grad(ours.max_pool2d(x, 2).square().sum(), x)
    loss = ours.max_pool2d(x, 2).square().sum()
    with torch.no_grad():
        x.neg_()
    if small:  # PyTorch's own operation records it, and keeps it
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    else:
        torch.testing.assert_close(torch.autograd.grad(loss, x)[0], expected, rtol=0, atol=0)


GRADIENTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "plain": torch.Tensor.clone,
    "channels last": lambda g: g.to(memory_format=torch.channels_last),
    "every second": lambda g: g.repeat_interleave(2, 3)[..., ::2],
    "one number for all": lambda g: g[:1, :1, :1, :1].expand(g.shape),
    "negated view": lambda g: torch.imag(torch.complex(g, -g).conj()),
    "parameter": torch.nn.Parameter,
}


@pytest.mark.parametrize("given", GRADIENTS)
@pytest.mark.parametrize("call", ["max", "avg"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_known_call(call: str, given: str, layout: torch.memory_format) -> None:
    x = X.clone(memory_format=layout).requires_grad_()
    g = GRADIENTS[given](torch.randn(CALLS[call](ours, x).shape, generator=torch.Generator().manual_seed(2)))
    twin = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(CALLS[call](stock, twin), twin, g)
    for again in (False, True):
        (gradient,) = torch.autograd.grad(CALLS[call](ours, x), x, g, create_graph=again)
        torch.testing.assert_close(gradient, expected)
        assert gradient.stride() == x.stride()
        assert gradient.requires_grad == (again and g.requires_grad)


@pytest.mark.parametrize(
    ("change", "fault"), [(torch.Tensor.int, InvalidType), (lambda kept: kept[..., :1].contiguous(), InvalidValue)]
)
def test_what_hooks_did_to_what_a_known_call_kept_is_seen(
    change: Callable[[torch.Tensor], torch.Tensor], fault: type[Exception]
) -> None:
    x = X.clone().requires_grad_()
    ours.max_pool2d(x, 2)
    with torch.autograd.graph.saved_tensors_hooks(change, lambda kept: kept):
        y = ours.max_pool2d(x, 2)
    with pytest.raises(fault, match="kept must"):
        y.sum().backward()


def test_indices_are_never_forgotten() -> None:
    ours.max_pool2d(X, 2)
    assert isinstance(ours.max_pool2d(X, 2, return_indices=True), tuple)
    assert isinstance(ours.max_pool2d(X, 2), torch.Tensor)


WITH_INDICES: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "max": lambda f, x: f.max_pool2d(x, 3, 2, 1, return_indices=True),
    "max of a tuple": lambda f, x: f.max_pool2d(x, (3, 2), ceil_mode=True, return_indices=True),
    "max by its other name": lambda f, x: f.max_pool2d_with_indices(x, 2),
    "adaptive max": lambda f, x: f.adaptive_max_pool2d(x, (3, 2), return_indices=True),
    "adaptive max by its other name": lambda f, x: f.adaptive_max_pool2d_with_indices(x, 4, False),
}


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("call", WITH_INDICES)
def test_the_second_call_gives_the_same_indices(call: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = INPUTS[given]()
    x = x if x.requires_grad else x.detach().requires_grad_()
    expected, where = WITH_INDICES[call](stock, x.detach())
    first = WITH_INDICES[call](ours, x)
    with monkeypatch.context() as patch:
        if given != "negated view":
            patch.setattr(ours, "pooled", None)  # the long way is closed
        second, third = WITH_INDICES[call](ours, x), WITH_INDICES[call](ours, x.detach())
    with torch.inference_mode():
        fourth = WITH_INDICES[call](ours, x)
    for y, indices in (first, second, third, fourth):
        torch.testing.assert_close(y, expected)
        assert indices.equal(where)
        assert (y.stride(), indices.stride()) == (first[0].stride(), first[1].stride())
        assert not indices.requires_grad
    assert second[0].requires_grad
    assert not third[0].requires_grad
    gradients = [torch.autograd.grad(y.float().square().sum(), x)[0] for y, _ in (first, second)]
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_indices_of_known_calls_are_pytorchs(rank: int, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(rank)
    pool, own = getattr(ours, f"max_pool{rank}d"), getattr(stock, f"max_pool{rank}d")

    def drawn(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=rng))

    for _ in range(12):
        window, dilation = drawn(1, 4), drawn(1, 3)
        shape = (drawn(1, 3), drawn(1, 40), *(drawn(window * dilation + 1, 14) for _ in range(rank)))
        arguments = (window, drawn(1, 5), drawn(0, window // 2 + 1), dilation, bool(drawn(0, 2)))
        for again in range(3):
            x = torch.randint(-3, 4, shape, generator=rng).to(dtype)  # with ties
            x = torch.where(torch.rand(shape, generator=rng) < 0.1 * again, torch.nan, x)
            y, indices = pool(x, *arguments, return_indices=True)
            expected, where = own(x, *arguments, return_indices=True)
            torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
            assert indices.equal(where)
            with_gradient = pool(x.requires_grad_(), *arguments, return_indices=True)
            assert with_gradient[1].equal(where)
            g = torch.randint(-3, 4, y.shape, generator=rng).to(dtype)
            (gx,) = torch.autograd.grad(with_gradient[0], x, g)
            twin = x.detach().requires_grad_()
            (wanted,) = torch.autograd.grad(own(twin, *arguments), twin, g)
            torch.testing.assert_close(gx, wanted)


def with_indices(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return ours.max_pool2d(x, 2, 1, return_indices=True)


def test_every_derivative_of_a_known_call_with_indices() -> None:
    x = (torch.randperm(30).double() / 4).reshape(1, 1, 5, 6).requires_grad_()
    for _ in range(2):
        _, indices = with_indices(x)
    alone = lambda t: with_indices(t)[0]  # noqa: E731
    assert torch.autograd.gradcheck(alone, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(alone, x, check_fwd_over_rev=True)
    many = x.detach().expand(3, 1, 1, 5, 6)
    y, mapped = torch.vmap(with_indices)(many)
    assert mapped.equal(indices.expand(3, *indices.shape))
    torch.testing.assert_close(y, alone(x).detach().expand(3, *indices.shape))
    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(jacobian(alone, x, vectorize=True), jacobian(alone, x))


def test_indices_of_a_known_call_may_be_changed_and_have_no_gradient() -> None:
    class Stop(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: torch.Tensor) -> torch.Tensor:
            return y.clone()

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> None:
            return None

    x = X.clone().requires_grad_()
    expected = torch.autograd.grad(with_indices(x)[0].square().sum(), x)[0]
    for _ in range(2):
        y, indices = with_indices(x)
        indices.fill_(-7)
        torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], expected, rtol=0, atol=0)
        y, _ = with_indices(x)
        stopped = torch.autograd.grad(Stop.apply(y).sum() + x.sum(), x)[0]
        torch.testing.assert_close(stopped, torch.ones_like(x))


def test_hooks_see_what_a_known_call_with_indices_keeps() -> None:
    x, sizes = X.clone().requires_grad_(), list[int]()
    for _ in range(2):
        sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            y, _ = with_indices(x)
        assert sizes == [y.numel()]
    for change, fault in ((torch.Tensor.int, InvalidType), (lambda kept: kept[..., :1].contiguous(), InvalidValue)):
        with torch.autograd.graph.saved_tensors_hooks(change, lambda kept: kept):
            y, _ = with_indices(x)
        with pytest.raises(fault, match="kept must"):
            y.sum().backward()


def test_modes_see_the_operations_of_a_known_call_with_indices() -> None:
    from torch._subclasses import FakeTensorMode  # noqa: PLC0415
    from torch.fx.experimental.proxy_tensor import make_fx  # noqa: PLC0415

    with_indices(X)
    with FakeTensorMode() as mode:
        assert [each.shape for each in with_indices(mode.from_tensor(X))] == [(2, 3, 8, 7)] * 2
    assert all(each.is_meta for each in with_indices(X.to("meta")))
    graph, other = make_fx(with_indices)(X), X.flip(3)
    for got, wanted in zip(graph(other), with_indices(other), strict=True):
        assert got.equal(wanted)


def test_outputs_of_known_calls_have_memory_of_their_own() -> None:
    for shape in ((1, 2, 8, 8), (2, 8, 128, 128), (4, 16, 128, 128)):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(6))
        with_indices(x)
        held = [with_indices(x), with_indices(-x), with_indices(x)]
        for (y, indices), sign in zip(held, (1, -1, 1), strict=True):
            expected, where = stock.max_pool2d(sign * x, 2, 1, return_indices=True)
            assert y.equal(expected)
            assert indices.equal(where)


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_quick, "MOST", 8)
    for batch in range(1, 40):
        ours.sum_pool1d(torch.ones(batch, 1, 4), 2)
    assert max(len(known) for known in _all_known() if known) < 2000
    (quick,) = [c.cell_contents for c in ours.sum_pool1d.__closure__ if isinstance(c.cell_contents, Quick)]
    assert len(quick.known) <= 8


def test_many_threads_share_what_is_known() -> None:
    expected, wrong = stock.max_pool2d(X, 2), []

    def work() -> None:
        wrong.extend(1 for _ in range(300) if not torch.equal(ours.max_pool2d(X, 2), expected))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_dispatch_mode_and_fake_tensors_go_the_long_way() -> None:
    from torch._subclasses import FakeTensorMode  # noqa: PLC0415

    ours.max_pool2d(X, 2)
    with FakeTensorMode() as mode:
        assert ours.max_pool2d(mode.from_tensor(X), 2).shape == (2, 3, 4, 4)
    assert ours.max_pool2d(X.to("meta"), 2).is_meta
    assert poolwise.torch.MaxPool2d(2)(X).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    "name", [name for name in INPUTS if name not in ("negated view", "parameter", "small parameter")]
)
@pytest.mark.parametrize("call", CALLS)
def test_gradients_of_known_calls_may_be_batched(call: str, name: str) -> None:
    x = INPUTS[name]()
    x = x if x.requires_grad else x.requires_grad_()
    CALLS[call](ours, x)
    y = CALLS[call](ours, x)
    several = torch.randn(3, *y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype)
    (batched,) = torch.autograd.grad(y, x, several, is_grads_batched=True, retain_graph=True)
    for g, got in zip(several, batched, strict=True):
        torch.testing.assert_close(got, torch.autograd.grad(y, x, g, retain_graph=True)[0])


SMALL: dict[str, tuple[int, tuple[int, ...], tuple[Any, ...]]] = {
    "two axes": (2, (1, 1, 8, 8), (2,)),
    "two axes, padded, rounded up": (2, (2, 2, 7, 9), (3, 3, 1, 1, True)),
    "two axes that differ": (2, (1, 2, 9, 8), ((2, 3), (3, 4), (1, 0))),
    "gaps in windows": (2, (1, 2, 9, 11), (2, 3, 0, 2)),
    "three axes": (3, (1, 2, 4, 5, 6), (2,)),
}


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.detach().contiguous().view(torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SMALL)
def test_a_small_recorded_maximum_is_the_same_bit_by_bit(name: str, dtype: torch.dtype) -> None:
    rank, shape, arguments = SMALL[name]
    pool, rng = getattr(ours, f"max_pool{rank}d"), torch.Generator().manual_seed(3)
    for special in (0.0, float("nan"), float("-inf"), float("inf"), -0.0):
        x = torch.randint(-2, 3, shape, generator=rng).to(dtype)
        x = torch.where(torch.rand(shape, generator=rng) < 0.6, special, x).to(dtype).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):  # who has a hand in what is kept
            pool(x, *arguments)
            expected = pool(x, *arguments)
        y = pool(x, *arguments)
        assert y.grad_fn is not None and expected.grad_fn is not None
        assert "MaxPool" in str(y.grad_fn) + str(y.grad_fn.next_functions)
        assert "MaxPool" not in str(expected.grad_fn)
        assert torch.equal(bits(y), bits(expected))
        assert y.stride() == expected.stride()
        g = torch.randn(y.shape, generator=rng).to(dtype)
        g = torch.where(torch.rand(y.shape, generator=rng) < 0.3, -0.0, g).to(dtype)
        gradients = [torch.autograd.grad(each, x, g)[0] for each in (y, expected)]
        assert torch.equal(*map(bits, gradients))


@pytest.mark.parametrize(
    ("shape", "dtype", "own"),
    [
        ((1, 1, 16, 16), torch.float32, True),
        ((1, 1, 16, 17), torch.float32, False),
        ((1, 1, 8, 8), torch.float16, False),
        ((1, 16, 16), torch.float32, False),
    ],
)
def test_who_records_a_small_maximum(shape: tuple[int, ...], dtype: torch.dtype, own: bool) -> None:
    x = torch.rand(shape).to(dtype).requires_grad_()
    for _ in range(2):
        y = ours.max_pool2d(x, 2)
    assert ("MaxPool2D" in str(y.grad_fn)) == own


def test_a_small_maximum_is_checkpointed() -> None:
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(5)).requires_grad_()
    for again in (False, True, True):
        y = checkpoint(ours.max_pool2d, x, 2, use_reentrant=False) if again else ours.max_pool2d(x, 2)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert gradient.sum() == 16
