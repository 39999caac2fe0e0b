"""Does a small translation change the answer?  Two protocols, and what pooling keeps of a map."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch.nn.functional import pad

Predict = Callable[[torch.Tensor], torch.Tensor]
REACH = 2  # pixels


def circular_consistency(predict: Predict, images: torch.Tensor, reach: int = REACH) -> float:
    """Share of (image, shift) pairs with the answer of the image itself, over all circular shifts of ≤ reach pixels.

    predict: (N, channels, height, width) → (N,) classes. images: float32.
    Source: Chaman & Dokmanić, Truly shift-invariant convolutional neural networks, CVPR 2021, section 5.
    """
    unmoved = predict(images)
    moves = [move for move in product(range(-reach, reach + 1), repeat=2) if move != (0, 0)]
    agreeing = [(predict(images.roll(move, (2, 3))) == unmoved).float().mean().item() for move in moves]
    return sum(agreeing) / len(agreeing)


def crop_consistency(predict: Predict, images: torch.Tensor, reach: int = REACH) -> float:
    """Share of images of which two random crops, each of the image's size, get the same answer.

    The image is padded with zeros by `reach` on every side before it is cropped (28×28 out of 32×32); the crops are
    the same for every model. Source: Zhang, Making convolutional networks shift-invariant again, ICML 2019, section 4.
    """
    generator = torch.Generator().manual_seed(0)
    padded = pad(images, (reach,) * 4)
    size = (images.shape[2], images.shape[3])
    first, second = (cropped(padded, size, 2 * reach, generator) for _ in range(2))
    return (predict(first) == predict(second)).float().mean().item()


def cropped(padded: torch.Tensor, size: tuple[int, int], spare: int, generator: torch.Generator) -> torch.Tensor:
    """One random crop of each image."""
    corner = torch.randint(0, spare + 1, (2, len(padded)), generator=generator)
    rows, columns = (corner[axis][:, None] + torch.arange(size[axis]) for axis in (0, 1))
    image = torch.arange(len(padded))[:, None, None, None]
    channel = torch.arange(padded.shape[1])[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
