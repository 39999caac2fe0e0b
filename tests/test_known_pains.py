"""What users of other libraries asked for in public, each named after its issue (see docs for what was said there)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import poolwise
from poolwise.torch import functional


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_softpool_12_nan_for_large_activations(dtype: str) -> None:
    x = torch.tensor([[[1e4, -1e4], [9990.0, 0.0]]], dtype=getattr(torch, dtype)).requires_grad_()
    y = functional.soft_pool2d(x, 2)
    y.sum().backward()
    assert y.dtype == x.dtype
    assert float(y.detach()) == pytest.approx(1e4, rel=1e-2)
    assert torch.isfinite(x.grad).all()
    if dtype != "bfloat16":
        assert np.isfinite(poolwise.soft_pool(x.detach().numpy(), (2, 2))).all()


def test_pytorch_45009_median_and_mode_pooling() -> None:
    x = torch.tensor([[[1.0, 9.0, 2.0, 2.0], [2.0, 3.0, 7.0, 7.0]]])
    assert functional.median_pool2d(x, 2).tolist() == [[[2.5, 4.5]]]
    y, index = functional.mode_pool2d(x.to(torch.uint8), 2, return_indices=True)
    assert (y.tolist(), index.tolist()) == ([[[1, 2]]], [[[0, 2]]])
    assert functional.median_pool3d(torch.rand(1, 2, 4, 4, 4), 2).shape == (1, 2, 2, 2, 2)


def test_pytorch_184037_lp_of_zeros_and_of_negative_sums_is_no_nan() -> None:
    for p in (1, 2, 3, 4.5):
        x = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [-3.0, 1.0], [0.0, -1.0]]]).requires_grad_()
        y = functional.lp_pool2d(x, p, 2)
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(x.grad).all()
        assert (x.grad[0, :2] == 0).all()


@pytest.mark.parametrize("name", ["min", "max", "median"])
def test_gdal_3683_overviews_by_minimum_maximum_and_median_with_no_data(name: str) -> None:
    tile = np.random.default_rng(0).integers(0, 2**16 - 1, (512, 384), np.uint16)
    known = np.random.default_rng(1).random(tile.shape) < 0.9
    overview = getattr(poolwise, f"{name}_pool")(tile, (2, 2), where=known)
    assert overview.dtype == tile.dtype
    assert overview.shape == (256, 192)
    for row, column in ((0, 0), (17, 31), (255, 191)):
        block = (slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
        held = np.sort(tile[block][known[block]])
        if len(held):
            assert overview[row, column] == held[{"min": 0, "max": -1, "median": (len(held) - 1) // 2}[name]]


def test_timm_and_kornia_pool_with_log_sum_exp_and_median_only_globally_or_at_stride_one() -> None:
    x = torch.rand(2, 3, 9, 11)
    assert functional.logsumexp_pool2d(x, (3, 2), (2, 3), 1, ceil_mode=True).shape == (2, 3, 5, 4)
    assert functional.median_pool2d(x, 3, 2, 1, dilation=2).shape == (2, 3, 4, 5)
    assert poolwise.adaptive_pool(x, poolwise.Median(), (4, 5)).shape == (2, 3, 4, 5)
