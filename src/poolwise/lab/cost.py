"""What a network costs for one image: sizes, parameters, multiplications, bytes that training keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from poolwise import Geometry, explain
from poolwise.compose import max_blur_pool
from poolwise.lab.model import first_stage
from poolwise.lab.variants import Stage, Variant

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Cost:
    """Per image, unless it says otherwise.

    sizes: (layer, shape) in the order of computation. parameters: of the whole network. macs: multiplications with
    addition, of convolutions and dense layers. reads: elements that the pooling windows read (one comparison or
    addition each). stage_kept: bytes that the pooling stages keep for backward. step_kept: that a whole step keeps.
    cells: of the first pooled map of one channel. kernel: which of poolwise's kernels pools.
    """

    sizes: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: int
    macs: int
    reads: int
    stage_kept: float
    step_kept: float
    cells: int
    kernel: str


def cost(model: nn.Module, variant: Variant, shape: tuple[int, int, int], batch: int) -> Cost:
    """Measured on one batch of noise; the network's weights and the random state stay as they are."""
    with torch.random.fork_rng(devices=[]):
        x = torch.rand(batch, *shape)
    layers = list(watched(model, x))
    stages = [layer for layer in layers if isinstance(layer[0], Stage)]
    explanations = [explained(variant, entered) for _, entered, _ in stages]
    keeps = [e.kept_bytes if e else stage_bytes(*s[:2]) for e, s in zip(explanations, stages, strict=True)]
    return Cost(
        sizes=tuple((layer_name(module, variant), tuple(left.shape[1:])) for module, _, left in layers),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=sum(multiplications(module, left) for module, _, left in layers_within(model, x)) // batch,
        reads=sum(window_reads(variant, entered) for _, entered, _ in stages) // batch,
        stage_kept=sum(keeps) / batch,
        step_kept=kept_bytes(lambda: model(x), model.parameters()) / batch,
        cells=prod(stages[0][2].shape[2:]),
        kernel=explanations[0].kernel if explanations[0] else "none of ours",
    )


def layer_name(module: nn.Module, variant: Variant) -> str:
    return variant.label if isinstance(module, Stage) else type(module).__name__


def watched(model: nn.Module, x: torch.Tensor) -> Iterator[tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    """(layer, what it was given, what it gave) in the order of computation; a pooling stage is one layer."""
    inside = {id(part) for stage in model.modules() if isinstance(stage, Stage) for part in stage.body.modules()}
    layers = [m for m in model.modules() if isinstance(m, Stage) or (not any(m.children()) and id(m) not in inside)]
    return recorded(model, layers, x)


def layers_within(model: nn.Module, x: torch.Tensor) -> Iterator[tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    """The same for every innermost layer, those of a stage too."""
    return recorded(model, [module for module in model.modules() if not any(module.children())], x)


def recorded(
    model: nn.Module, layers: Iterable[nn.Module], x: torch.Tensor
) -> Iterator[tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    seen: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []

    def note(module: nn.Module, entered: tuple[Any, ...], left: torch.Tensor) -> None:
        seen.append((module, entered[0], left))

    with hooked(layers, note), torch.no_grad():
        model(x)
    return iter(seen)


@contextmanager
def hooked(layers: Iterable[nn.Module], note: Callable[..., None]) -> Iterator[None]:
    """Call `note(layer, inputs, output)` whenever one of the layers computes."""
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_maps(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first pooling stage reads and what it makes of it: (N, channels, …, …) each."""
    stage = first_stage(model)
    assert stage is not None  # `built` saw one
    _, before, after = next(recorded(model, [stage], x))
    return before, after


def multiplications(module: nn.Module, left: torch.Tensor) -> int:
    """Of a convolution or a dense layer for these outputs; other layers count none."""
    if isinstance(module, CONVOLUTIONS):
        return left.numel() * module.weight[0].numel()
    return left.numel() * module.in_features if isinstance(module, nn.Linear) else 0


def window_reads(variant: Variant, entered: torch.Tensor) -> int:
    if variant.composition is not None:
        return composed_reads(variant, entered)
    return 0 if variant.op is None else cells(variant, entered, variant.stride) * variant.window**2


def composed_reads(variant: Variant, entered: torch.Tensor) -> int:
    """Of a max-blur: the max at every position, then the blur's taps at the stride; 0 of what is not known."""
    if variant.composition is None or variant.composition.function is not max_blur_pool:
        return 0
    taps = next(each.default for each in variant.composition.arguments if each.name == "taps")
    return cells(variant, entered, 1) * variant.window**2 + cells(variant, entered, variant.stride) * taps**2


def cells(variant: Variant, entered: torch.Tensor, stride: int) -> int:
    """Cells that a variant's window gives at a stride, of all images and channels."""
    geometry = Geometry.of(tuple(entered.shape), (2, 3), window=(variant.window,) * 2, stride=(stride,) * 2)
    return prod(geometry.output_shape)


def explained(variant: Variant, entered: torch.Tensor) -> Any:
    """poolwise's own account of a pooling; None for a stage that is none."""
    if variant.op is None:
        return None
    return explain(entered, variant.op, (variant.window,) * 2, stride=(variant.stride,) * 2)


def stage_bytes(stage: nn.Module, entered: torch.Tensor) -> int:
    """What a stage that is no pooling keeps: its parameters are not counted."""
    x = entered.detach().requires_grad_()
    return kept_bytes(lambda: stage(x), stage.parameters())


def kept_bytes(compute: Callable[[], torch.Tensor], parameters: Iterable[nn.Parameter]) -> int:
    """Bytes of the distinct memory that autograd holds on to between forward and backward, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    held: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        compute()
    return sum(storage.nbytes() for storage in held.values())
