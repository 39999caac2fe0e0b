"""The gathered kernel: taps as slices or taken, in runs of rows of any size, and the gradients of what they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cases import CASES, OPERATIONS, WITH_ARRAYS, call_of, operands_of, same
from poolwise import GeM, LogSumExp, Lp, Max, Median, Mixed, Operation, Soft, Stochastic, max_pool, pool, sum_pool
from poolwise.kernels import gathered
from poolwise.kernels.gathered import Gathered, gather
from poolwise.op import Selection, Window

torch = pytest.importorskip("torch")
KERNEL = Gathered()


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("op", [*OPERATIONS, *WITH_ARRAYS], ids=repr)
@pytest.mark.parametrize("case", CASES)
def test_runs_and_slices_change_nothing(
    case: str, op: Operation, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, operands = call_of(case, op, "float64", masked=masked), operands_of(case, "float64", masked=masked, op=op)
    y, kept = KERNEL.forward(operands, call)
    indices = KERNEL.indices(kept, call) if isinstance(op, Selection) else None
    for name, value in (("CACHED", 1), ("SLICED", 0)):
        monkeypatch.setattr(gathered, name, value)
        other, also = KERNEL.forward(operands, call)
        same(other, y, scale=8)
        if indices is not None:
            same(KERNEL.indices(also, call), indices)


def test_a_window_without_padding_has_every_tap() -> None:
    (windows,) = gather(operands_of("2/2", "float64"), call_of("2/2", Max(), "float64"))
    assert windows.present.shape == (1,)
    assert windows.values.strides[-1] > max(windows.values.strides[1:-1]), "taps lie one behind the other"


@pytest.mark.parametrize("layout", [(0, 1, 2), (1, 2, 0)], ids=["plain", "last first"])
def test_taps_lie_as_the_input_does(layout: tuple[int, ...]) -> None:
    x = np.arange(120.0).reshape(np.array((4, 5, 6))[list(layout)]).transpose(np.argsort(layout))
    y = pool(x, GeM(2.5), (2, 2), kernel="gathered")
    assert y.strides == np.empty(np.array(y.shape)[list(layout)]).transpose(np.argsort(layout)).strides


@pytest.mark.parametrize(
    ("window", "stride", "padding", "size"),
    [((2,), 2, 0, 7), ((3,), 2, 1, 8), ((3,), 1, 1, 6), ((2,), 3, 0, 8), ((1,), 5, 0, 9), ((3,), 2, 0, 8)],
    ids=str,
)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("op", [Mixed(), GeM()], ids=repr)
def test_a_recorded_call_gives_the_same(
    op: Operation, window: Any, stride: int, padding: int, size: int, dilation: int
) -> None:
    rules: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "kernel": "gathered"}
    x = torch.rand((2, size), dtype=torch.float64, requires_grad=True)
    y = pool(x, op, window, **rules)
    torch.testing.assert_close(y.detach(), pool(x.detach(), op, window, **rules), rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda each: pool(each, op, window, **rules), (x,))
    assert torch.autograd.gradgradcheck(lambda each: pool(each, op, window, **rules), (x,))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("row", "where", "won"),
    [
        ([1, 3, 3, 2], None, 1),
        ([-INF, -INF, -INF, -INF], None, 0),
        ([-INF, -INF, -INF, -INF], [False, False, True, True], 2),
        ([INF, 1, INF, 0], None, 0),
        ([5, 3, 3, 9], [False, True, True, False], 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("transformed", [False, True], ids=["", "transformed"])
def test_the_part_of_the_maximum_goes_to_the_first_of_the_largest(
    row: list[float], where: Any, won: int, transformed: bool
) -> None:
    mask = None if where is None else torch.tensor(where)

    def pooled(x: Any) -> Any:
        return pool(x, Mixed(1.0), (4,), where=mask, kernel="gathered").sum()

    x = torch.tensor(row, dtype=torch.float64, requires_grad=True)
    (grad,) = (torch.func.grad(pooled)(x),) if transformed else torch.autograd.grad(pooled(x), x)
    assert grad.tolist() == [float(tap == won) for tap in range(4)]
    tangents = [torch.func.jvp(pooled, (x.detach(),), (torch.eye(4, dtype=x.dtype)[tap],))[1] for tap in range(4)]
    assert torch.stack(tangents).tolist() == grad.tolist()


def test_elements_at_eps_have_a_gradient_and_those_below_have_none() -> None:
    x = torch.tensor([0.5, 0.25, 0.1, NAN], requires_grad=True)
    y = pool(x, GeM(1, eps=0.25), (3,), stride=1, kernel="gathered")
    assert torch.isnan(y[1])
    assert torch.autograd.grad(y[0], x)[0].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0])


@pytest.mark.parametrize("row", [[1, 3, 3, 2], [INF, 1, INF, 0], [-INF, -INF, -INF, -INF]], ids=str)
@pytest.mark.parametrize("op", [LogSumExp(2.0), Soft(2.0)], ids=repr)
def test_infinite_scores_share_the_gradient(op: Operation, row: list[float]) -> None:
    x = torch.tensor(row, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(pool(x, op, (4,), kernel="gathered"), x)
    expected, *_ = op.window_grad(Window(np.array(row, np.float64), np.arange(4)[:, None], 4, 4, {}, (4,)), 1.0)
    np.testing.assert_allclose(grad.numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("kernel", ["native", "gathered", "reference"])
def test_sums_wrap_as_numpys_do(kernel: str) -> None:
    half, most = np.array([2**63, 2**63, 2**63, 7], np.uint64), np.array([2**63 - 1, 2, -1, -1])
    np.testing.assert_array_equal(sum_pool(half, (2,), kernel=kernel), np.array([0, 2**63 + 7], np.uint64))
    np.testing.assert_array_equal(sum_pool(most, (2,), kernel=kernel), [-(2**63) + 1, -2])


@pytest.mark.parametrize("op", [Lp(7), Mixed(0.5), Stochastic(), Max(), Median()], ids=repr)
@pytest.mark.parametrize("layout", [(0, 2, 3, 1), (3, 2, 1, 0)], ids=["channels last", "backwards"])
def test_results_lie_in_memory_as_the_input_does(op: Operation, layout: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).standard_normal([(2, 4, 12, 10)[axis] for axis in layout])
    x = values.transpose(np.argsort(layout))
    y = pool(x, op, (3, 2), axes=(2, 3), kernel="gathered")
    assert y.transpose(layout).flags.c_contiguous
    tensor = torch.from_numpy(x).requires_grad_()
    for recorded in (tensor, tensor.detach()):
        out = pool(recorded, op, (3, 2), axes=(2, 3), kernel="gathered")
        assert out.permute(layout).is_contiguous()
    if op == Max():
        _, flat = max_pool(tensor, (3, 2), axes=(2, 3), return_indices=True, kernel="gathered")
        assert flat.permute(layout).is_contiguous()
