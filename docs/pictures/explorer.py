"""Pictures of the explorer's views: `python docs/pictures/explorer.py [FOLDER]`.

Without a folder the README's two; with one, every view there: light and dark, wide and as on a phone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))
from browser import NARROW, View, launched, served

from poolwise.explorer.inputs import samples

DIGIT = "item=1&op=max&window=3x3&stride=2x2&padding=1-1x1-1"
PHOTO = "item=0&channel=-1&op=max&window=16x16"
README = {
    "explorer-windows": (f"view=windows&{DIGIT}&cell=outputx5x8", "light"),
    "explorer-shift": ("view=shift&item=1&op=max&window=2x2&shift=1x1&cell=outputx6x7", "dark"),
}
VIEWS = {
    "windows": f"{DIGIT}&cell=outputx5x8",
    "coverage": "item=1&op=max&window=3x3&stride=2x2&padding=0-1x0-0&cell=outputx4x4",
    "frameworks": "item=1&op=mean&window=3x3&stride=2x2&padding=1-1x1-1&framework=pytorch&cell=outputx0x0",
    "backward": f"{DIGIT}&cell=outputx5x8",
    "compare": "item=1&op=max&window=4x4&other=mean&cell=outputx3x3",
    "shift": "item=1&op=max&window=2x2&shift=1x1&cell=outputx6x7",
    "maps": "item=0&op=mean&window=8x8",
    "code": DIGIT,
}
SMALL = {"width": 1080, "height": 700}


def taken(browser: Any, address: str, state: str, theme: Any, shape: Any, target: Path) -> None:
    context = browser.new_context(viewport=shape, color_scheme=theme)
    view = View(context.new_page()).open(address, state)
    view.page.screenshot(path=target, full_page=True)
    context.close()


def main(folder: Path | None) -> None:
    with launched() as browser, served(samples()) as address:
        if folder is None:
            for name, (state, theme) in README.items():
                taken(browser, address, state, theme, SMALL, HERE / f"{name}.png")
            return
        folder.mkdir(parents=True, exist_ok=True)
        for view, state in VIEWS.items():
            for theme in ("light", "dark"):
                for name, shape in (("wide", {"width": 1280, "height": 900}), ("narrow", NARROW)):
                    taken(browser, address, f"view={view}&{state}", theme, shape, folder / f"{view}-{theme}-{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
