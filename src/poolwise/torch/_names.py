"""The array API's names for PyTorch's functions."""

import array_api_compat.torch as names
import torch

globals().update({name: getattr(names, name) for name in names.__all__ if name != "classes"})


def concat(arrays: list[torch.Tensor], *, axis: int = 0) -> torch.Tensor:
    """As in the array API, in the arrays' dtype under autocast too, which refuses a half that is not its own."""
    device = arrays[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return torch.cat(arrays, axis)
    with torch.autocast(device, enabled=False):
        return torch.cat(arrays, axis)


def sort(x: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    """As in the array API, ascending, equal ones in their order; the exporter to ONNX knows no sort that says so."""
    return (torch.sort(x, axis) if torch.onnx.is_in_onnx_export() else torch.sort(x, dim=axis, stable=True)).values


def take_along_axis(x: torch.Tensor, indices: torch.Tensor, *, axis: int = -1) -> torch.Tensor:
    """As in the array API, for indices that broadcast against x; PyTorch's own would fix symbolic sizes."""
    sizes = list(x.shape)
    sizes[axis] = indices.shape[axis]
    return x.gather(axis, indices.expand(sizes))
