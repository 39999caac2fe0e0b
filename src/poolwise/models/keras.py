"""The reading of a .keras file, without running its code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from poolwise.errors import InvalidValue
from poolwise.models import Shape, said


def declared(model: Any) -> list[Shape]:
    """The shape of each of a model's inputs; none where it is not built."""
    inputs = [tuple(each.shape) for each in getattr(model, "inputs", None) or []]
    one = getattr(model, "input_shape", None)  # of a layer that is no functional model
    return inputs or ([one] if isinstance(one, tuple) and all(isinstance(size, int | None) for size in one) else [])


def load(path: Path) -> Any:
    """The model in a .keras archive; one with code in it is refused."""
    import poolwise.keras  # noqa: F401, PLC0415 (its layers may be in the file)

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as cause:  # whatever a damaged file leads to
        if "Lambda" in str(cause):
            fact = f"model must be without Lambda layers, whose code a file would run, got {str(path)!r}"
            raise InvalidValue(f"{fact}; give module:factory") from None
        raise InvalidValue(f"model must be a .keras archive, got {str(path)!r} ({said(cause)})") from None


def trusted(path: Path) -> Any:
    """The same, or a legacy .h5 file, with whatever code is in it."""
    import poolwise.keras  # noqa: F401, PLC0415 (its layers may be in the file)

    return keras.saving.load_model(path, compile=False, safe_mode=False)
