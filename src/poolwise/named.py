"""What a user names on a command line: an object as `module:attribute`, a shape as `8x3x224x224`."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poolwise.errors import InvalidType, InvalidValue


def factory(name: str) -> Any:
    """The callable called `module:attribute`; the current folder is importable.

    Raises InvalidValue if it cannot be imported, InvalidType if it is no callable.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise InvalidValue(f"model must be module:factory, got {name!r}")
    try:
        with current_folder():
            found: Any = getattr(importlib.import_module(module), attribute)
    except Exception as cause:  # whatever the user's module raises when it is imported
        raise InvalidValue(f"model must be importable, got {name!r} ({type(cause).__name__}: {cause})") from None
    if not callable(found):
        raise InvalidType(f"model must name a callable, got {name!r}, a {type(found).__name__}")
    return found


def made(found: Any) -> Any:
    """What a user's factory makes; InvalidValue says what it raised instead."""
    try:
        return found()
    except Exception as cause:  # whatever the user's factory raises
        raise InvalidValue(f"model must be made without arguments, got {type(cause).__name__}: {cause}") from None


def shape(text: str) -> tuple[int, ...]:
    """The sizes of a batch such as 8x3x224x224; InvalidValue for anything else."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", text):
        raise InvalidValue(f"input must be a batch's shape such as 8x3x224x224, got {text!r}")
    return tuple(map(int, text.split("x")))


def whole_numbers(name: str, text: str, between: str) -> tuple[int, ...]:
    """Whole numbers such as 224x224 or 2,3; InvalidValue for anything else."""
    parts = text.split(between)
    if not all(re.fullmatch(r"\d{1,9}", part) for part in parts):
        raise InvalidValue(f"{name} must be whole numbers joined by {between!r}, got {text!r}")
    return tuple(map(int, parts))


@contextmanager
def current_folder() -> Iterator[None]:
    """The current folder in front of the import path."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
