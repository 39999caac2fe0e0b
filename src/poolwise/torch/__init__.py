"""The PyTorch door: `torch.nn`'s max, average and adaptive modules, and a module for every other operation.

>>> import torch, poolwise.torch
>>> x = torch.tensor([[[[1.0, 3.0], [2.0, 4.0]]]])
>>> poolwise.torch.MaxPool2d(2)(x).item(), poolwise.torch.AvgPool2d(2)(x).item()
(4.0, 2.5)

`poolwise.pool` imports this when it meets the first tensor. A function that it is in and that `torch.compile(…,
fullgraph=True)` reads needs the import before.
"""

from typing import TYPE_CHECKING

from poolwise.errors import MissingExtra

try:
    import array_api_compat
    import torch
except ImportError as cause:
    raise MissingExtra(f'poolwise.torch needs {cause.name}: pip install "poolwise[torch]"') from None

from poolwise import unpool
from poolwise.doors import register
from poolwise.torch._bridge import TorchDoor
from poolwise.torch._unpool import unpooled

register(torch.Tensor, TorchDoor())
unpool.register(TorchDoor.framework.name, unpooled)

from poolwise.torch import functional  # noqa: E402  (after the door is open)
from poolwise.torch._accelerate import Change, accelerate, swap  # noqa: E402
from poolwise.torch.layers import LAYERS, Pool  # noqa: E402

globals().update(LAYERS)

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[torch.nn.Module]: ...


del array_api_compat, unpool
__all__ = ["Change", "Pool", "accelerate", "functional", "swap", *LAYERS]
