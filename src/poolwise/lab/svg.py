"""matplotlib's drawings as inline SVG that takes its colours and its letters from the page around it."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins that become the page's own colours, so that one drawing serves light and dark
INK, MUTED, RULE, FIRST, SECOND = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
COLOURS = {INK: "--ink", MUTED: "--muted", RULE: "--rule", FIRST: "--first", SECOND: "--second"}
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "poolwise", "font.size": 9.0}
WIDTH = 3.4  # inches; about 326 CSS pixels, a phone's width without its margins


def canvas(height: float, *, left: float = 0.36, bottom: float = 0.16) -> tuple[Figure, Axes]:
    """An empty drawing; height in inches, left and bottom margins as shares."""
    figure = Figure(figsize=(WIDTH, height), facecolor="none")
    axes = figure.add_axes((left, bottom, 0.97 - left, 0.97 - bottom), facecolor="none")
    axes.tick_params(length=0, colors=INK, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def inline(figure: Figure, alt: str) -> str:
    """The drawing as one `<svg>` element: no header, no addresses, a name for those who do not see it."""
    buffer = io.StringIO()
    with rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for stand_in, variable in COLOURS.items():
        text = text.replace(stand_in, f"var({variable})")
    return re.sub(
        r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{escape(alt)}">', text
    )
