"""What is left of a feature map after pooling: `poolwise.design.retention`, on tensors."""

from __future__ import annotations

import torch

from poolwise.design import retention as arrays
from poolwise.design.retention import Retention

__all__ = ["Retention", "retention"]


def retention(before: torch.Tensor, after: torch.Tensor, stride: int) -> Retention:
    """Of maps (N, channels, height, width) before and after the same pooling, channel by channel."""
    return arrays.retention(before.numpy(), after.numpy(), (stride, stride))
