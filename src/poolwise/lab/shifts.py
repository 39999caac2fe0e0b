"""Does a small translation change the answer?  The two protocols of `poolwise.design.shifts`, on tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch

from poolwise.design.shifts import Images, circular, crops, every_move, padded

Predict = Callable[[torch.Tensor], torch.Tensor]
REACH = 2  # pixels
AXES = (2, 3)


def circular_consistency(predict: Predict, images: torch.Tensor, reach: int = REACH) -> float:
    """Share of (image, shift) pairs with the answer of the image itself, over all circular shifts of ≤ reach pixels.

    predict: (N, channels, height, width) → (N,) classes. images: float32.
    Source: Chaman & Dokmanić, Truly shift-invariant convolutional neural networks, CVPR 2021, section 5.
    """
    return float(circular(_on_arrays(predict), images.numpy(), AXES, every_move(reach, len(AXES))).mean())


def crop_consistency(predict: Predict, images: torch.Tensor, reach: int = REACH) -> float:
    """Share of images of which two random crops, each of the image's size, get the same answer.

    The image is padded with zeros by `reach` on every side before it is cropped (28×28 out of 32×32); the crops are
    the same for every model. Source: Zhang, Making convolutional networks shift-invariant again, ICML 2019, section 4.
    """
    generator = torch.Generator().manual_seed(0)
    corners = [torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator).numpy() for _ in range(2)]
    wide = padded(images.numpy(), reach, AXES)
    return float(crops(_on_arrays(predict), wide, images.shape[2:], AXES, corners).mean())


def _on_arrays(predict: Predict) -> Callable[[Images], Images]:
    return lambda images: predict(torch.from_numpy(images)).numpy()
