"""PyTorch's own operator database: its samples and error inputs of every pooling operator, through our functions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import poolwise.torch.functional as ours

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

DATABASE = {
    f"{each.name.removeprefix('nn.functional.')} {each.variant_test_name}".strip(): each
    for each in op_db
    if "pool" in each.name
}
# what of the database is not asked of us, and why
OMITTED = {"max_pool2d_with_indices_backward": "no function of torch.nn.functional, but a part of one"}


def deviates(name: str, sample: Any) -> str | None:
    """Why PyTorch's answer to a sample is not ours, from the list in `poolwise.torch.functional`."""
    divisor = [*sample.args[5:6], sample.kwargs.get("divisor_override")] if name.startswith("avg") else []
    if any(each is not None and each < 1 for each in divisor):
        return "a divisor below 1 is refused"
    draws = sample.kwargs.get("_random_samples")
    if draws is not None and not ((draws >= 0) & (draws < 1)).all():
        return "draws below 0 or from 1 on are refused"
    if "unpool" in name and repeated(sample.args[0], int(name.partition("_unpool")[2][0])):
        return "where indices repeat, only the last has a gradient"
    return None


def repeated(indices: torch.Tensor, rank: int) -> bool:
    planes = indices.flatten(-rank).flatten(0, -2)
    return any(plane.unique().numel() < plane.numel() for plane in planes)


NAMES = [name for name in DATABASE if name not in OMITTED]
each_operator = pytest.mark.parametrize("name", NAMES)


def function_of(name: str) -> Any:
    return getattr(ours, name.partition(" ")[0])


def samples(name: str, dtype: torch.dtype) -> Iterator[Any]:
    yield from DATABASE[name].sample_inputs("cpu", dtype, requires_grad=True)


def test_the_database_holds_every_function() -> None:
    found = {name.partition(" ")[0] for name in NAMES}
    stock = {name for name in ours.__all__ if hasattr(torch.nn.functional, name) and not name.endswith("_with_indices")}
    assert stock - found == {"lp_pool1d", "lp_pool2d", "lp_pool3d"}  # which PyTorch's database lacks
    assert found <= stock


@each_operator
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_samples_give_pytorchs_results_and_gradients(name: str, dtype: torch.dtype) -> None:
    compared = 0
    for sample in samples(name, dtype):
        if deviates(name, sample) is None:
            compare(name, sample, dtype)
            compared += 1
    assert compared


def compare(name: str, sample: Any, dtype: torch.dtype) -> None:
    """In half precision PyTorch rounds every share of a gradient, and we once: there its float32 is the judge."""
    x, keywords = sample.input, dict(sample.kwargs)
    if "fractional" in name and keywords.get("_random_samples") is None:
        draws = torch.rand(x.shape[0] if x.ndim == int(name[-2]) + 2 else 1, x.shape[-int(name[-2]) - 1], int(name[-2]))
        keywords["_random_samples"] = draws.to(dtype)
    twin = x.detach().to(torch.float32 if dtype == torch.bfloat16 else dtype).requires_grad_()
    theirs = {key: value.to(twin.dtype) if key == "_random_samples" else value for key, value in keywords.items()}
    expected = tupled(getattr(torch.nn.functional, name.partition(" ")[0])(twin, *sample.args, **theirs))
    got = tupled(function_of(name)(x, *sample.args, **keywords))
    torch.testing.assert_close(got, (expected[0].to(dtype), *expected[1:]))
    if expected[0].numel():
        g = torch.randn_like(got[0])
        (gradient,) = torch.autograd.grad(got[0], x, g)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected[0], twin, g.to(twin.dtype))[0].to(dtype))


def tupled(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)


@each_operator
def test_what_pytorch_refuses_is_a_value_or_type_error(name: str) -> None:
    if DATABASE[name].error_inputs_func is None:
        return
    for error in DATABASE[name].error_inputs("cpu"):
        sample = error.sample_input
        with pytest.raises((ValueError, TypeError)):
            function_of(name)(sample.input, *sample.args, **sample.kwargs)
