"""What `poolwise.torch.accelerate` saves a model: the time of a step, and the bytes that wait for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from statistics import median, quantiles
from typing import Any, cast

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn
from torch.utils._pytree import tree_leaves

from poolwise import InvalidType, InvalidValue, named
from poolwise.bench.turns import ONCE, in_turns
from poolwise.torch import Change, accelerate

ROUNDS = 7
NAMES = ("PyTorch", "poolwise")
SPREAD = "Medians; in brackets the quartiles of the rounds' ratios, between which half of them lie."


@dataclass(frozen=True)
class Times:
    """Seconds of each round, of both in the same one."""

    stock: tuple[float, ...]
    poolwise: tuple[float, ...]

    @property
    def medians(self) -> tuple[float, float]:
        return median(self.stock), median(self.poolwise)

    @property
    def ratio(self) -> tuple[float, float, float]:
        """The median of the rounds' ratios, and the quartiles, between which half of them lie."""
        ratios = [after / before for before, after in zip(self.stock, self.poolwise, strict=False)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return middle, low, high

    def data(self) -> dict[str, Any]:
        """Every number, as JSON's own types."""
        figures = zip(
            ("stock", "poolwise", "ratio", "ratio_low", "ratio_high"), (*self.medians, *self.ratio), strict=True
        )
        return {**dict(figures), "rounds": len(self.poolwise)}


@dataclass(frozen=True)
class Saving:
    """A model before and after. kept: the bytes between forward and backward."""

    changes: tuple[Change, ...]
    training: Times
    inference: Times
    kept: tuple[int, int]

    def data(self) -> dict[str, Any]:
        """Every number, as JSON's own types; times are medians."""
        return {
            "changes": [vars(change) for change in self.changes],
            "training_step_s": self.training.data(),
            "inference_s": self.inference.data(),
            "kept_bytes": dict(zip(("stock", "poolwise"), self.kept, strict=True)),
        }


def measured(name: str, shape: str, *, rounds: int = ROUNDS, threads: int | None = None) -> Saving:
    """`saving` of the model that `module:factory` makes, on random images of a shape such as 8x3x224x224.

    Raises InvalidValue or InvalidType that says which of the two cannot be, or what the model said to the shape.
    """
    sizes, found = named.shape(shape), named.factory(name)
    torch.manual_seed(0)
    model = found if isinstance(found, nn.Module) else named.made(found)
    if not isinstance(model, nn.Module):
        raise InvalidType(f"model must be a torch.nn.Module, got {type(model).__name__}")
    x = torch.randn(sizes)
    try:
        with torch.no_grad():
            deepcopy(model)(x)
    except Exception as cause:  # whatever the user's network raises
        raise InvalidValue(f"model must take the input {shape}, got {type(cause).__name__}: {cause}") from None
    return saving(model, x, rounds=rounds, threads=threads)


def show(result: Saving, console: Console) -> None:
    """What was changed, and a table of what it saves."""
    if not result.changes:
        console.print("Nothing to change: no max, average or adaptive pooling of PyTorch's own was found.")
        return
    for change in result.changes:
        console.print(str(change), highlight=False, markup=False)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("", "PyTorch", "poolwise", "of PyTorch's"):
        grid.add_column(title, justify="right" if title else "left", no_wrap=True)
    for title, times in (("training step", result.training), ("inference", result.inference)):
        grid.add_row(title, *map(_milliseconds, times.medians), _with_spread(times))
    before, after = result.kept
    grid.add_row("kept for backward", _bytes(before), _bytes(after), f"{after / max(before, 1):.2f}")
    console.print()
    console.print(grid)
    console.print(Text(SPREAD, style="dim"))


def _with_spread(times: Times) -> str:
    ratio, low, high = times.ratio
    return f"{ratio:.2f} ({low:.2f} … {high:.2f}), {len(times.poolwise)} rounds" if low < high else f"{ratio:.2f}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.0995 else f"{1e3 * seconds:.0f} ms"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def saving(model: nn.Module, x: torch.Tensor, *, rounds: int = ROUNDS, threads: int | None = None) -> Saving:
    """Measure a model beside its accelerated copy, in turns, after their outputs and gradients were compared.

    model: takes x and gives a tensor, or tensors in lists and dicts. x: one batch. Neither is changed.
    threads: PyTorch's; None: as they are. Raises InvalidValue if the two do not agree.
    """
    stock, ours = deepcopy(model), accelerate(deepcopy(model))
    if threads is not None:
        torch.set_num_threads(threads)
    _compare(stock, ours, x)
    training = in_turns({"stock": _step(stock, x), "poolwise": _step(ours, x)}, rounds, 1)
    kept = (_kept(stock, x), _kept(ours, x))
    inference = in_turns({"stock": _forward(stock, x), "poolwise": _forward(ours, x)}, rounds, 1)
    times = [Times(tuple(taken["stock"]), tuple(taken["poolwise"])) for taken in (training, inference)]
    if not all(each.stock and each.poolwise for each in times):
        raise InvalidValue(f"input must be a batch whose step takes at most {ONCE:g} s, got one that takes longer")
    return Saving(cast("Any", ours).poolwise_changes, times[0], times[1], kept)


def tutorial(threads: int, *, rounds: int) -> Saving:
    """The tutorial's CNN on a batch of 256 digits' size."""
    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 13 * 13, 10))
    return saving(model, torch.randn(256, 1, 28, 28), rounds=rounds, threads=threads)


def _step(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward, backward, and plain gradient descent."""
    model.train()
    parameters = [*model.parameters()] or [torch.zeros(0, requires_grad=True)]  # a model may have nothing to learn
    optimiser = torch.optim.SGD(parameters, lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        _loss(model(x)).backward()
        optimiser.step()

    return step


def _forward(model: nn.Module, x: torch.Tensor) -> Callable[[], Any]:
    model.eval()

    def forward() -> Any:
        with torch.inference_mode():
            return model(x)

    return forward


def _loss(y: Any) -> torch.Tensor:
    parts = [leaf for leaf in tree_leaves(y) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    if not parts:
        raise InvalidType(f"model must give a floating tensor, got {type(y).__name__}")
    return torch.stack([part.float().square().mean() for part in parts]).sum()


def _compare(stock: nn.Module, ours: nn.Module, x: torch.Tensor) -> None:
    answers: list[list[torch.Tensor]] = []
    for model in (stock, ours):
        twin = deepcopy(model).train()
        torch.manual_seed(0)
        loss = _loss(twin(x))
        loss.backward()
        answers.append([loss.detach(), *(p.grad for p in twin.parameters() if p.grad is not None)])
    try:
        torch.testing.assert_close(answers[1], answers[0], rtol=1e-3, atol=1e-5)
    except AssertionError as cause:
        raise InvalidValue(f"model must give the same accelerated, got another result ({cause})") from None


def _kept(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes of the distinct memory that one forward pass saves for backward, the parameters and the input apart."""
    model.train()
    return held_bytes(lambda: model(x), (*model.parameters(), *model.buffers(), x))


def held_bytes(run: Callable[[], Any], own: Iterable[torch.Tensor] = ()) -> int:
    """Bytes of the distinct memory that a forward pass saves for backward, `own`'s apart."""
    known = {each.untyped_storage().data_ptr() for each in own}
    held: dict[int, int] = {}

    def hold(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            held[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda t: t):
        y = run()
    total = sum(held.values())  # while what is held is alive: freed memory is given out again
    del y
    return total


def kept_per_output() -> dict[str, Any]:
    """Bytes that wait for backward per output, the input too where it is kept."""
    x = torch.randn(2, 8, 56, 56, requires_grad=True)
    stock: Any = torch.nn.functional
    ours: Any = import_module("poolwise.torch.functional")
    functions = {
        "max": (stock.max_pool2d, ours.max_pool2d),
        "mean": (stock.avg_pool2d, ours.avg_pool2d),
        "ReLU + max": (lambda x, window: stock.max_pool2d(stock.relu(x), window), ours.relumax_pool2d),
    }
    outputs = x.numel() // 4
    return {
        name: {who: held_bytes(partial(function, x, 2)) / outputs for who, function in zip(NAMES, pair, strict=True)}
        for name, pair in functions.items()
    }
