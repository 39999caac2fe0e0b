"""How long a frame of the explorer takes: `python benchmarks/explorer.py > benchmarks/explorer.md`.

A frame is everything that the page computes and draws for one step of the slider, of the wheel or of a drag, on the
main thread, without the browser's own compositing. Steps come one at a time; the first, which warm up, are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from browser import WIDE, View, launched, served

from poolwise.explorer import Explorer
from poolwise.explorer.inputs import samples

STEPS, WARM = 40, 8
WATCH = """
window.spent = 0;
const plain = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (callback) => plain((time) => {
  const began = performance.now();
  const done = () => { window.spent += performance.now() - began; };
  const result = callback(time);
  if (result instanceof Promise) result.then(done); else done();
});
"""
CALLS = (
    "op=max&window=2x2",
    "op=max&window=3x3&stride=2x2&padding=1-1x1-1",
    "op=mean&window=3x3&stride=1x1",
    "op=max&window=31x31&stride=1x1",
)


SLIDE = """(value) => {
  const input = document.querySelector(".slider input");
  input.value = value;
  input.dispatchEvent(new Event("input"));
}"""


def timed(view: View, step: Callable[[int], Any]) -> list[float]:
    """Milliseconds of each step."""
    spent = []
    for number in range(STEPS):
        view.page.evaluate("() => { window.spent = 0; }")
        step(number)
        view.settle()
        spent.append(view.page.evaluate("() => window.spent"))
    return spent[WARM:]


def said(name: str, spent: list[float]) -> None:
    print(f"| {name} | {median(spent):.1f} | {sorted(spent)[int(0.95 * len(spent))]:.1f} |")


def shifts(view: View, address: str) -> None:
    for call in CALLS:
        view.open(address, f"view=shift&item=0&channel=0&{call}")
        said(f"shift slider, 512×512, {call}", timed(view, lambda number: view.page.evaluate(SLIDE, number % 33 - 16)))


def pointing(view: View, address: str) -> None:
    view.open(address, "view=windows&item=0&channel=-1")
    board = view.board(0).bounding_box()
    x, y = board["x"] + 60, board["y"] + 120
    said("pointing at cells, 512×512 in colour", timed(view, lambda n: view.page.mouse.move(x + 8 * n, y + 5 * n)))


def panning(view: View, address: str) -> None:
    view.open(address, "view=windows&channel=-1")
    view.page.wait_for_load_state("networkidle")
    board, mouse = view.board(0).bounding_box(), view.page.mouse
    x, y = board["x"] + 200, board["y"] + 200
    mouse.move(x, y)
    said("zooming by the wheel, 4000×3000 in colour", timed(view, lambda _: mouse.wheel(0, -40)))
    mouse.down()
    said("dragging, 4000×3000 in colour", timed(view, lambda n: mouse.move(x - 4 * n, y - 3 * n)))
    mouse.up()


def main() -> None:
    print(f"# The explorer's frames, {date.today().isoformat()}\n")
    print(
        "`python benchmarks/explorer.py`: headless Chromium without a GPU, two cores; milliseconds on the main thread.\n"
    )
    print("| step | median | 95 % |\n|---|---|---|")
    large = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    with launched() as browser:
        view = View(browser.new_page(viewport=WIDE))
        view.page.add_init_script(WATCH)
        with served(samples()) as address:
            shifts(view, address)
            pointing(view, address)
        with served(Explorer(large).source) as address:
            panning(view, address)


if __name__ == "__main__":
    main()
