"""Geometries that nobody chose: random poolings of PyTorch's, in turns with its own, to find where ours are slower.

`python benchmarks/gaps.py [--seed 1] [--count 1500] [--least 0.1] [--shown 40] [--json FILE]`. The seed draws function,
one to three axes, sizes, window, stride, padding, dilation, ceil mode, dtype, order of the axes, gradient.
Before they are timed, outputs and indices are compared with PyTorch's, of halves with those of float32, and gradients
of float32 and float64 (not norms where ceil's windows hang over, which PyTorch scales). A time is the lower quartile
of 5 to 60 calls, so that a busy machine disturbs less; two threads, fresh outputs. `bench` measures what people are
known to run; this looks for what it forgot.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional

import poolwise.torch.functional

DTYPES = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16}
NEAR = {"f32": 1e-5, "f64": 1e-12, "f16": 2**-10, "bf16": 2**-7}  # relatively, and of numbers about 1
KINDS = ("max", "max", "max indices", "avg", "avg", "adaptive max", "adaptive avg", "global max", "global avg", "lp")
SIZES = {
    1: (7, 50, 64, 100, 128, 256, 1000, 4096, 16000),
    2: (4, 7, 8, 13, 14, 16, 20, 28, 32, 56, 64, 112, 113, 128, 224, 256),
    3: (4, 8, 16, 32, 64),
}
MOST = 1 << 23  # elements
SLOWER = 1.05


class Pooling(NamedTuple):
    kind: str
    function: str
    shape: tuple[int, ...]
    arguments: tuple[Any, ...]
    dtype: str
    channels_last: bool
    gradient: bool

    def __str__(self) -> str:
        words = [self.function, f"{'×'.join(map(str, self.shape))}", str(self.arguments), self.dtype]
        return " ".join(words + ["channels last"] * self.channels_last + ["gradient"] * self.gradient)


def drawn(rng: random.Random) -> Pooling:
    """Windows are the same along each axis, but for one in seven; half the strides are 1, 2 or the window."""
    kind, d = rng.choice(KINDS), rng.choice((1, 2, 2, 2, 3))
    d = min(d, 2) if kind == "lp" else d
    sizes = [rng.choice(SIZES[d])] * d
    if d == 2 and rng.random() < 0.3:
        sizes[1] = rng.choice((4, 7, 13, 28, 57, 100, 300))
    channels = rng.choice((1, 3, 8, 16, 17, 32, 64, 128, 256, 512))
    planes = 2 ** rng.uniform(12, 22.5) / (channels * math.prod(sizes))
    window = [rng.choice((1, 2, 2, 2, 3, 3, 3, 4, 5, 7, 8, 9, 13))] * d
    if d > 1 and rng.random() < 0.15:
        window[rng.randrange(d)] = rng.choice((1, 2, 3, 4))
    stride = rng.choice((1, 2, window[0], window[0], rng.randint(1, 6)))
    padding = min(rng.choice((0, 0, window[0] // 2)), min(window) // 2)
    dilation, ceil = rng.choice((1,) * 9 + (2,)), rng.random() < 0.2
    outputs = [max(1, min(n, rng.choice((1, 2, 3, 5, 6, 7, 8, 14, n // 2, n)))) for n in sizes]
    arguments: dict[str, tuple[Any, ...]] = {
        "max": (tuple(window), stride, padding, dilation, ceil),
        "max indices": (tuple(window), stride, padding, dilation, ceil, True),
        "avg": (tuple(window), stride, padding, ceil, rng.random() < 0.5),
        "lp": (2.0, window[0] if d == 1 else tuple(window), stride, ceil),  # which takes an int alone on one axis
        "adaptive": (tuple(outputs),),
        "global": ((1,) * d,),
    }
    name = {"adaptive": f"adaptive_{kind[-3:]}", "global": f"adaptive_{kind[-3:]}", "max": "max"}.get(
        kind.split()[0], kind
    )
    return Pooling(
        kind,
        f"{name}_pool{d}d",
        (max(1, int(planes)), channels, *sizes),
        arguments.get(kind, arguments.get(kind.split()[0], ())),
        rng.choice(("f32",) * 4 + ("f64", "f16", "bf16")),
        d > 1 and rng.random() < 0.25,
        rng.random() < 0.35,
    )


def only(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


def call(function: Callable[..., Any], x: torch.Tensor, pooling: Pooling, g: torch.Tensor) -> Callable[[], object]:
    def with_gradient() -> object:
        return torch.autograd.grad(only(function(x, *pooling.arguments)), x, g)

    return with_gradient if pooling.gradient else lambda: function(x, *pooling.arguments)


def wide(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


def compare(pooling: Pooling, got: Any, wanted: Any) -> None:
    """Raises AssertionError where they differ."""
    pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) and isinstance(wanted, tuple) else [(got, wanted)]
    near = NEAR[pooling.dtype]
    for own, theirs in pairs:
        torch.testing.assert_close(
            own.to(theirs.dtype), theirs, rtol=near, atol=near, equal_nan=True, msg=lambda said: f"{pooling}: {said}"
        )


def measured(pooling: Pooling) -> tuple[float, float] | None:
    """Milliseconds of ours and of PyTorch's; None for what PyTorch refuses."""
    ours, theirs = (getattr(module, pooling.function) for module in (poolwise.torch.functional, torch.nn.functional))
    x = torch.randn(pooling.shape).to(DTYPES[pooling.dtype])
    if pooling.channels_last:
        x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    x.requires_grad_(pooling.gradient)
    try:
        wanted = theirs(x, *pooling.arguments)
    except RuntimeError:
        return None
    g = torch.randn_like(only(wanted))
    calls = [call(function, x, pooling, g) for function in (ours, theirs)]
    if not (pooling.kind == "lp" and pooling.arguments[-1]):
        compare(pooling, ours(x, *pooling.arguments), theirs(wide(x), *pooling.arguments))
        if pooling.gradient and not only(wanted).dtype.itemsize < 4:
            compare(pooling, *(each() for each in calls))
    for each in calls:
        each()
    begin = time.perf_counter()
    calls[1]()
    rounds = max(5, min(60, int(0.06 / max(time.perf_counter() - begin, 1e-6))))
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for each, own in zip(calls, times, strict=True):
            begin = time.perf_counter()
            each()
            own.append(time.perf_counter() - begin)
    mine, peers = (sorted(own)[rounds // 4] * 1e3 for own in times)
    return mine, peers


def summary(rows: list[tuple[Pooling, float, float]]) -> str:
    slower = [mine / theirs for _, mine, theirs in rows if mine > SLOWER * theirs]
    mean = math.exp(sum(math.log(theirs / mine) for _, mine, theirs in rows) / max(1, len(rows)))
    worse = f", by {math.exp(sum(map(math.log, slower)) / len(slower)):.2f} on average" if slower else ""
    return f"{len(rows)} poolings, {mean:.2f} times PyTorch's speed; slower on {len(slower)}{worse}"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1500, help="how many to draw; three minutes for a thousand")
    parser.add_argument("--least", type=float, default=0.1, help="milliseconds of PyTorch's from which a gap is shown")
    parser.add_argument("--shown", type=int, default=40)
    parser.add_argument("--json", help="where every pooling's times go")
    asked = parser.parse_args()
    rng, rows = random.Random(asked.seed), list[tuple[Pooling, float, float]]()
    torch.manual_seed(asked.seed)
    torch.set_num_threads(2)
    for pooling in (drawn(rng) for _ in range(asked.count)):
        if math.prod(pooling.shape) <= MOST and (times := measured(pooling)):
            rows.append((pooling, *times))
    long = [row for row in rows if row[2] >= asked.least]
    say(f"all: {summary(rows)}")
    say(f"from {asked.least} ms on: {summary(long)}")
    for kind in dict.fromkeys(KINDS):
        for gradient in (False, True):
            some = [row for row in rows if row[0].kind == kind and row[0].gradient == gradient]
            say(f"  {kind}{', gradient' * gradient}: {summary(some)}")
    for pooling, mine, theirs in sorted(long, key=lambda row: row[2] / row[1])[: asked.shown]:
        if mine > SLOWER * theirs:
            say(f"{mine / theirs:6.2f}  {mine:9.3f} ms, PyTorch {theirs:9.3f}  {pooling}")
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as file:
            json.dump(
                [{"pooling": str(pooling), "ours": mine, "torch": theirs} for pooling, mine, theirs in rows], file
            )


if __name__ == "__main__":
    main()
