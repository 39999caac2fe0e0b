"""The library's own faults: one type per kind, each a short fact that the outer layers complete with a name."""

from __future__ import annotations

from typing import Self

_LONGEST = 80  # characters of a value in a sentence


def shown(value: object) -> str:
    """The value in one line, cut where it is long: an array, say."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


class Fault(Exception):
    """What is wrong, as one sentence that names the argument, the value received and what is allowed."""

    def __init__(self, fact: str, function: str = "") -> None:
        super().__init__(f"{function}: {fact}" if function else fact)
        self.fact = fact
        self.function = function

    def within(self, function: str) -> Self:
        """The same fault, said by the public function in which it happened (the innermost name stays)."""
        return self if self.function else type(self)(self.fact, function)

    def said_by(self, function: str) -> Self:
        """The same fault, said by this public function whatever it called."""
        return type(self)(self.fact, function)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.fact, self.function)


class InvalidValue(Fault, ValueError):
    """An argument of the right type whose value cannot be used."""


class InvalidType(Fault, TypeError):
    """An argument of a type, or an array of a dtype, that cannot be used."""


class MissingExtra(Fault, ImportError):
    """A part of poolwise needs a package that is not installed; the text names the extra that brings it."""
