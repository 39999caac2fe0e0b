"""How long a frame of the explorer takes: `python benchmarks/explorer.py > benchmarks/explorer.md`.

A frame is everything that the page computes and draws for one step of the slider, of the wheel or of a drag, on the
main thread, without the browser's own compositing. Steps come one at a time; the first ones, which warm up, are left out.
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


def timed(view: View, step: Callable[[int], Any]) -> list[float]:
    """Milliseconds of each step."""
    spent = []
    for number in range(STEPS):
        view.page.evaluate("() => { window.spent = 0; }")
        step(number)
        view.settle()
        spent.append(view.page.evaluate("() => window.spent"))
    return spent[WARM:]


def row(name: str, spent: list[float]) -> str:
    return f"| {name} | {median(spent):.1f} | {sorted(spent)[int(0.95 * len(spent))]:.1f} |"


def main() -> None:
    print(f"# The explorer's frames, {date.today().isoformat()}\n")
    print(
        "`python benchmarks/explorer.py`, headless Chromium without a GPU, two cores; milliseconds on the main thread.\n"
    )
    print("| step | median | 95 % |\n|---|---|---|")
    with launched() as browser:
        page = browser.new_page(viewport=WIDE)
        page.add_init_script(WATCH)
        view = View(page)
        with served(samples()) as address:
            for call in CALLS:
                view.open(address, f"view=shift&item=0&channel=0&{call}")
                slide = """(value) => { const input = document.querySelector('.slider input'); input.value = value;
                    input.dispatchEvent(new Event('input')); }"""
                spent = timed(view, lambda number: page.evaluate(slide, number % 17 - 8))
                print(row(f"shift slider, 512×512, {call}", spent))
            view.open(address, "view=windows&item=0&channel=-1")
            board = view.board(0).bounding_box()
            move = lambda number: page.mouse.move(board["x"] + 60 + 8 * number, board["y"] + 120 + 5 * number)
            print(row("pointing at cells, 512×512 in colour", timed(view, move)))
        large = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
        with served(Explorer(large).source) as address:
            view.open(address, "view=windows&channel=-1")
            page.wait_for_load_state("networkidle")
            board = view.board(0).bounding_box()
            page.mouse.move(board["x"] + 200, board["y"] + 200)
            print(row("zooming by the wheel, 4000×3000 in colour", timed(view, lambda _: page.mouse.wheel(0, -40))))
            page.mouse.down()
            drag = lambda number: page.mouse.move(board["x"] + 200 - 4 * number, board["y"] + 200 - 3 * number)
            print(row("dragging, 4000×3000 in colour", timed(view, drag)))
            page.mouse.up()


if __name__ == "__main__":
    main()
