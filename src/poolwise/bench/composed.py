"""What PyTorch has no function for, as its users write it with those that it has.

An entry of `COMPOSED` prepares what a module would keep, a blur's weights for one, and gives a function of the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import comb
from typing import Any, NamedTuple, TypeAlias

from poolwise import (
    LIP,
    Blur,
    Gated,
    GeM,
    LogSumExp,
    Median,
    Mixed,
    Mode,
    Quantile,
    ReLUMax,
    Soft,
    StochasticMean,
    TopKMean,
)
from poolwise.bench.cases import Case, MaxBlur, Pooling, Sliding

Function: TypeAlias = Callable[[Any], Any]


class Task(NamedTuple):
    """What a composition is asked for. shape: the tensor's. operands: as tensors."""

    places: Sliding
    shape: tuple[int, ...]
    dtype: str
    operands: Mapping[str, Any]

    @property
    def taps(self) -> int:
        return self.places.window ** (len(self.shape) - 2)


Prepare: TypeAlias = Callable[[Any, Any, Task], Function]


def composes(case: Case) -> bool:
    """Whether a composition gives the case's result: among unfolded elements none can be absent."""
    padded = isinstance(case.places, Sliding) and case.places.padding
    return type(case.op) in COMPOSED and not (padded and isinstance(case.op, UNFOLDED))


def composed(torch: Any, case: Case, x: Any, operands: Mapping[str, Any]) -> Function:
    """The function of a tensor like x."""
    assert isinstance(case.places, Sliding)
    return COMPOSED[type(case.op)](torch, case.op, Task(case.places, tuple(x.shape), case.dtype, operands))


def unfolded(x: Any, places: Sliding) -> Any:
    """The windows' elements on the last axis."""
    rank = x.ndim - 2
    for axis in range(2, x.ndim):
        x = x.unfold(axis, places.window, places.stride)
    return x.flatten(2 + rank)


def binomial(torch: Any, taps: int) -> Any:
    """The weights of a blur in two dimensions, (1, 1, taps, taps)."""
    line = torch.tensor([float(comb(taps - 1, tap)) for tap in range(taps)])
    return ((line[:, None] * line) / line.sum() ** 2)[None, None]


def restoring(torch: Any, places: Sliding, shape: tuple[int, ...]) -> Any:
    """1 / the weights that stand inside the input, for each output of a blur over zeros."""
    inside = torch.ones(1, 1, *shape[2:])
    return 1 / torch.nn.functional.conv2d(inside, binomial(torch, places.window), None, places.stride, places.padding)


def _relu_max(torch: Any, op: ReLUMax, task: Task) -> Function:
    largest = _max(torch, task.places)
    return lambda x: largest(x.relu())


def _median(torch: Any, op: Median, task: Task) -> Function:
    """`median` is the lower of the middle two; ours of floats is their mean."""
    taps = task.taps
    if taps % 2 or task.dtype != "float32":
        return lambda x: unfolded(x, task.places).median(-1).values
    return lambda x: unfolded(x, task.places).sort(-1).values[..., taps // 2 - 1 : taps // 2 + 1].mean(-1)


def _mode(torch: Any, op: Mode, task: Task) -> Function:
    return lambda x: unfolded(x, task.places).mode(-1).values


def _quantile(torch: Any, op: Quantile, task: Task) -> Function:
    return lambda x: unfolded(x, task.places).quantile(op.q, -1)


def _top_mean(torch: Any, op: TopKMean, task: Task) -> Function:
    return lambda x: unfolded(x, task.places).topk(op.k, -1).values.mean(-1)


def _soft(torch: Any, op: Soft, task: Task) -> Function:
    """As the paper's PyTorch code, in which the divisors of the two means cancel."""
    mean = _mean(torch, task.places)

    def soft(x: Any) -> Any:
        weights = x.exp()
        return mean(x * weights) / mean(weights)

    return soft


def _lip(torch: Any, op: LIP, task: Task) -> Function:
    """As the paper's code."""
    mean, logits = _mean(torch, task.places), task.operands["logits"]

    def lip(x: Any) -> Any:
        weights = logits.exp()
        return mean(x * weights) / mean(weights)

    return lip


def _logsumexp(torch: Any, op: LogSumExp, task: Task) -> Function:
    mean = _mean(torch, task.places)
    return lambda x: (mean(x.exp()) * task.taps).log()


def _gem(torch: Any, op: GeM, task: Task) -> Function:
    """As it is copied from one repository to another."""
    assert op.p is not None
    mean, power = _mean(torch, task.places), op.p
    return lambda x: mean(x.clamp(min=op.eps).pow(power)).pow(1 / power)


def _stochastic_mean(torch: Any, op: StochasticMean, task: Task) -> Function:
    mean = _mean(torch, task.places)

    def weighted(x: Any) -> Any:
        positive = x.relu()
        total = mean(positive)
        return torch.where(total > 0, mean(positive * positive) / total, mean(x))

    return weighted


def _mixed(torch: Any, op: Mixed, task: Task) -> Function:
    largest, mean, part = _max(torch, task.places), _mean(torch, task.places), op.a
    assert part is not None
    return lambda x: part * largest(x) + (1 - part) * mean(x)


def _gated(torch: Any, op: Gated, task: Task) -> Function:
    largest, mean = _max(torch, task.places), _mean(torch, task.places)
    gate = _filter(torch, task.operands["gate"][None, None], task)

    def gated(x: Any) -> Any:
        part = gate(x).sigmoid()
        return part * largest(x) + (1 - part) * mean(x)

    return gated


def _blur(torch: Any, op: Blur, task: Task) -> Function:
    """A convolution by channels: over a reflected border as in the paper, or over zeros, which are taken out again."""
    places = task.places
    blur = _filter(torch, binomial(torch, places.window), task)
    if places.mode == "reflect":
        return lambda x: blur(torch.nn.functional.pad(x, (places.padding,) * 4, "reflect"))
    if not places.padding:
        return blur
    whole = restoring(torch, places, task.shape)
    return lambda x: blur(x).mul_(whole)


def _max_blur(torch: Any, op: MaxBlur, task: Task) -> Function:
    """As the paper's code."""
    largest = _max(torch, Sliding(task.places.window, 1))
    reflected = Sliding(op.taps, task.places.stride, op.taps // 2, "reflect")
    blur = _blur(torch, Blur(), task._replace(places=reflected))
    return lambda x: blur(largest(x))


def _mean(torch: Any, places: Sliding) -> Function:
    return lambda x: torch.nn.functional.avg_pool2d(x, places.window, places.stride, places.padding)


def _max(torch: Any, places: Sliding) -> Function:
    return lambda x: torch.nn.functional.max_pool2d(x, places.window, places.stride, places.padding)


def _filter(torch: Any, weights: Any, task: Task) -> Function:
    """The same weights on every channel; padding that is reflected is there already."""
    places, channels = task.places, task.shape[1]
    padding, each = 0 if places.mode == "reflect" else places.padding, weights.repeat(channels, 1, 1, 1)
    return lambda x: torch.nn.functional.conv2d(x, each, None, places.stride, padding, 1, channels)


UNFOLDED = (Median, Mode, Quantile, TopKMean)
COMPOSED: dict[type[Pooling], Prepare] = {
    ReLUMax: _relu_max,
    Median: _median,
    Mode: _mode,
    Quantile: _quantile,
    TopKMean: _top_mean,
    Soft: _soft,
    LIP: _lip,
    LogSumExp: _logsumexp,
    GeM: _gem,
    StochasticMean: _stochastic_mean,
    Mixed: _mixed,
    Gated: _gated,
    Blur: _blur,
    MaxBlur: _max_blur,
}
