"""The picture of a review's page: `python docs/pictures/review.py [FOLDER]`.

Without a folder the one of docs/review.md; with one, pages of several networks there: light and dark, wide and as on a
phone. The networks are the light graphs inside the onnx wheel.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))
from browser import NARROW, launched

from poolwise.design import review

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SHAPES = {"wide": {"width": 1280, "height": 1100}, "narrow": NARROW}


def taken(browser: Any, name: str, state: str, theme: Any, shape: Any, target: Path, *, whole: bool) -> None:
    file = target.with_suffix(".html")
    file.write_text(review(LIGHT / f"light_{name}.onnx").html(), encoding="utf-8")
    context = browser.new_context(viewport=shape, color_scheme=theme)
    page = context.new_page()
    page.goto(f"{file.resolve().as_uri()}#{state}")
    page.wait_for_selector('section.stage[aria-busy="false"]')
    page.wait_for_timeout(300)
    page.screenshot(path=target, full_page=whole)
    context.close()
    file.unlink()


def main(folder: Path | None) -> None:
    with launched() as browser:
        if folder is None:
            shape = {"width": 1280, "height": 1200}
            taken(browser, "resnet50", "stage=7&seen=2x1", "light", shape, HERE / "review.png", whole=False)
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("resnet50", "vgg19", "densenet121", "squeezenet"):
            for theme in ("light", "dark"):
                for width, shape in SHAPES.items():
                    target = folder / f"{name}-{theme}-{width}.png"
                    taken(browser, name, "", theme, shape, target, whole=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
