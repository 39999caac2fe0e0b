"""Does another pooling make a trained network steadier?  The tutorial's CNN, before and after `swap`, on digits.

Run: python examples/measure_digits.py
"""

from __future__ import annotations

import torch
from rich.console import Console

from poolwise.design import swapped
from poolwise.lab.data import load
from poolwise.lab.experiment import Config, as_input, spread, train
from poolwise.lab.model import built
from poolwise.lab.variants import parse


def main() -> None:
    data, console = load(None, 1000, 2000), Console(width=110)
    torch.manual_seed(0)
    network = built(None, parse("max2/2").stage, data.shape, len(data.classes))
    network[2] = torch.nn.MaxPool2d(2)  # the same pooling, as everybody's models have it
    train(network, Config("max2/2", 0, 12, data.digest, ""), data)
    images = as_input(data.test)[spread(len(data.test.images), 500)]
    for name in ("max-blur", "mean", "strided"):
        console.print(swapped(network, "max", name, images).text(), "", highlight=False)


if __name__ == "__main__":
    main()
