"""Memory for large outputs, kept from one call to the next.

The usual allocators give a large block back to the system when it is free, at once or as what else the process asks for
has it, and the system clears each page of the next one: that takes several times as long as pooling. The module keeps
up to 32 blocks, 256 MiB at most, all but the newest 32 MiB of which the system may take back while nobody uses them
(`csrc/cache.h`). They are whole pages of 2 MiB. Such an array or tensor cannot be resized in place.
"""

from __future__ import annotations

from typing import Any

from poolwise import _native

LARGE = 1 << 20  # bytes up to which that is left to the allocator


def lent(size: int) -> Any | None:
    """So many bytes that can be written to, through the buffer protocol; None where an allocator does as well."""
    return _native.Buffer(size) if size > LARGE else None
