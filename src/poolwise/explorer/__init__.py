"""See what a pooling does: in a notebook, on a page of this machine, or in one file.

`Explorer(x)` is the widget; `poolwise explore` at the shell opens the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from poolwise import InvalidType, MissingExtra, Operation
from poolwise.ops import Max

__all__ = ["Explorer", "explore"]


class Explorer:
    """An array, a picture or a model's poolings, to look at.

    x: an array or tensor whose last two axes are rows and columns (all before them are channels; height × width × 3
        bytes are a colour picture), a Pillow image, a model (PyTorch, Keras, ONNX), or the path of any of these.
    op, window: the pooling to begin with; the other arguments of `poolwise.pool` (stride, padding, …) go with them.
    images: for a model, the batch that it sees; by default the package's photograph in the shape that the model names.
    title: what stands above it.

    In a notebook (Jupyter, VS Code, Colab, marimo) the last expression of a cell shows it. `state` is the text of what
    is on the screen, and can be set; `save(path)` writes one HTML file that needs no network and no Python.

    Raises InvalidValue or InvalidType for what cannot be shown, MissingExtra without `poolwise[explore]`.

    >>> import numpy as np
    >>> explorer = Explorer(np.arange(16.0).reshape(4, 4), window=(2, 2))
    >>> explorer.state
    'op=max&window=2x2'
    """

    def __init__(
        self,
        x: Any,
        op: Operation | None = None,
        window: Sequence[int] | None = None,
        *,
        images: Any = None,
        title: str | None = None,
        **arguments: Any,
    ) -> None:
        source = _part("inputs").source_of(x, images=images, title=title)
        self.source = replace(source, start=_start(op, window, arguments)) if op or window or arguments else source
        self._state = self.source.start

    @cached_property
    def widget(self) -> Any:
        """The notebook's widget."""
        return _part("widget").Widget(replace(self.source, start=self._state))

    @property
    def state(self) -> str:
        """What is on the screen, as the text that a link carries."""
        return self.widget.state if "widget" in self.__dict__ else self._state

    @state.setter
    def state(self, text: str) -> None:
        if "widget" in self.__dict__:
            self.widget.state = text
        self._state = text

    def save(self, path: str | Path) -> Path:
        """Write what is on the screen as one HTML file that opens from disk."""
        target = Path(path)
        target.write_text(_part("page").saved(self.source, self.state), encoding="utf-8")
        return target

    def _repr_mimebundle_(self, **keywords: Any) -> Any:
        return self.widget._repr_mimebundle_(**keywords)


def explore(
    name: str | None = None,
    *,
    image: Path | None = None,
    shape: Sequence[int] | None = None,
    save: Path | None = None,
    port: int | None = None,
    browser: bool = True,
    said: Callable[[str], None] = print,
) -> None:
    """Show what a command line names on a page of this machine until interrupted, or save it as one file.

    name: a picture, an .npy or .npz, an .onnx or .keras, or module:factory; None: the package's own pictures.
    image, shape: what a model sees, and its batch's shape. save: write this file instead of serving.
    port: of 127.0.0.1; None: 8765, or another that is free. browser: open it. said: is told where it is.
    """
    source = _part("inputs").opened(name, image=image, shape=shape)
    if save is None:
        _part("server").serve(source, port=port, browser=browser, said=said)
        return
    text = _part("page").saved(source, source.start)
    save.write_text(text, encoding="utf-8")
    said(f"{save} ({len(text.encode()) / 1e6:.1f} MB)")


def _start(op: Operation | None, window: Sequence[int] | None, arguments: dict[str, Any]) -> str:
    state = _part("state")
    if op is not None and not isinstance(op, Operation):
        raise InvalidType(f"op must be an operation such as Max(), got {op!r}", "Explorer")
    if "output_size" not in arguments:
        arguments = {"window": window or (2, 2), **arguments}
    text: str = state.write(op or Max(), arguments)
    state.read(text)
    return text


def _part(name: str) -> Any:
    """One of the explorer's files; what it needs comes with the extra."""
    try:
        return import_module(f"poolwise.explorer.{name}")
    except ModuleNotFoundError as cause:
        raise MissingExtra(f'the explorer needs {cause.name}: pip install "poolwise[explore]"') from None
