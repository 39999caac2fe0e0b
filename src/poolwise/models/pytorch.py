"""What a PyTorch module declares."""

from __future__ import annotations

from typing import Any


def declared(model: Any) -> None:
    """No shape: a module declares none."""
