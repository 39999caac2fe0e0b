"""The explorer in a notebook."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from poolwise import Fault
from poolwise.explorer.answers import Answers
from poolwise.explorer.page import module, style
from poolwise.explorer.source import Source

IN_MESSAGE = 1 << 20  # numbers that a notebook server passes on, and a notebook file keeps, without complaint


class Widget(anywidget.AnyWidget):
    """The page's module as a Jupyter widget: questions come as messages, the state is a trait on both sides."""

    _esm = module()
    _css = style()
    source = traitlets.Dict().tag(sync=True)
    state = traitlets.Unicode().tag(sync=True)

    def __init__(self, source: Source) -> None:
        super().__init__(source=source.data(IN_MESSAGE), state=source.start)
        self._answers = Answers(source)
        self.on_msg(self._asked)

    def _asked(self, _: Any, message: dict[str, Any], __: Any) -> None:
        try:
            answer = self._answers.answer(message["kind"], message["query"])
        except Fault as fault:
            self.send({"id": message["id"], "error": fault.fact})
        else:
            self.send({"id": message["id"], "answer": answer})
