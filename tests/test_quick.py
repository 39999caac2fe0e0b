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


def test_what_a_small_recorded_call_read_may_be_changed_in_place() -> None:
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(4)).requires_grad_()
    for _ in range(2):
        read = x * 1
        y = ours.max_pool2d(read, 2)
        read.add_(1)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert gradient.sum() == 16
