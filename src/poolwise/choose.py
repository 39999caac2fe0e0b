"""Call -> kernel, with the reason of every kernel that refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from poolwise.call import Call, Kernel
from poolwise.errors import InvalidType, InvalidValue
from poolwise.kernels.table import KERNELS
from poolwise.reference import Reference

ALL: tuple[Kernel, ...] = (*KERNELS, Reference())


@dataclass(frozen=True)
class Choice:
    """The kernel that serves a call, and why each one preferred to it does not."""

    kernel: Kernel
    refusals: tuple[tuple[str, str], ...]


@lru_cache(maxsize=4096)
def choose(call: Call, name: str | None = None) -> Choice:
    """The first kernel that does not refuse; with a name, that kernel or an error that says why not."""
    wanted = [kernel for kernel in ALL if name in (None, kernel.name)]
    if not wanted:
        fault = InvalidValue if isinstance(name, str) else InvalidType
        raise fault(f"kernel must be None or one of {', '.join(repr(k.name) for k in ALL)}, got {name!r}")
    refusals: list[tuple[str, str]] = []
    for kernel in wanted:
        reason = kernel.refusal(call)
        if reason is None:
            return Choice(kernel, tuple(refusals))
        refusals.append((kernel.name, reason))
    said = "; ".join(f"{kernel}: {reason}" for kernel, reason in refusals)
    raise InvalidValue(f"kernel must serve the call, got {name!r}, which refused it ({said})")


def refusals(call: Call) -> dict[str, str | None]:
    """Every kernel's answer to a call; None: it would serve it."""
    return {kernel.name: kernel.refusal(call) for kernel in ALL}
