"""The images that a model is measured on: a folder of pictures, or an array in a file; and what a model makes of bytes.

Nothing is resized and nothing is scaled unless somebody says so: both would change what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise import InvalidType, InvalidValue
from poolwise.errors import MissingExtra

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
Preprocess = Callable[[NDArray[Any]], Any]


def load(path: Path, *, channels_last: bool = False) -> NDArray[Any]:
    """The images in a folder of pictures, all of one size, as bytes; or the array in an .npy or .npz, as it is.

    channels_last: whether pictures become (N, height, width, channels) instead of (N, channels, height, width). An
    .npz holds one array, or one called `images`.

    Raises InvalidValue that says what cannot be read, MissingExtra where Pillow is not installed.
    """
    if path.is_dir():
        return _folder(path, channels_last=channels_last)
    if path.suffix.lower() not in (".npy", ".npz") or not path.is_file():
        reason = "" if path.exists() else ", which does not exist"
        raise InvalidValue(f"images must be a folder of pictures, an .npy or an .npz, got {str(path)!r}{reason}")
    try:
        held = np.load(path, allow_pickle=False)
        return held if isinstance(held, np.ndarray) else held[_only(held.files, path)]
    except InvalidValue:
        raise
    except Exception as cause:  # a damaged file raises what zipfile and zlib have
        raise InvalidValue(f"images must be an array saved by NumPy, got {str(path)!r} ({cause})") from None


def _only(names: Sequence[str], path: Path) -> str:
    if "images" in names:
        return "images"
    if len(names) != 1:
        raise InvalidValue(f"images must be one array, or one called images, got {', '.join(names)} in {str(path)!r}")
    return names[0]


def _folder(path: Path, *, channels_last: bool) -> NDArray[Any]:
    """Every picture in a folder and its subfolders, by name."""
    files = sorted(each for each in path.rglob("*") if each.suffix.lower() in PICTURES and each.is_file())
    if not files:
        raise InvalidValue(f"images must be a folder with pictures in it, got {str(path)!r}, which has none")
    pictures = [_picture(each) for each in files]
    grey = all(each.ndim == 2 for each in pictures)
    planes = [each[..., None] if grey else _in_colour(each) for each in pictures]
    for file, plane in zip(files, planes, strict=True):
        if plane.shape != planes[0].shape:
            first, other = (f"{width}×{height}" for height, width, _ in (planes[0].shape, plane.shape))
            raise InvalidValue(f"images must all have one size, got {files[0].name} of {first}, {file.name} of {other}")
    batch = np.stack(planes)
    return batch if channels_last else np.ascontiguousarray(np.moveaxis(batch, -1, 1))


def _in_colour(plane: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(plane[..., None], 3, axis=2) if plane.ndim == 2 else plane


def _picture(path: Path) -> NDArray[np.uint8]:
    """(height, width) of a grey picture, (height, width, 3) of any other, turned as its camera was held."""
    try:
        from PIL import Image, ImageOps  # noqa: PLC0415 (arrays are read without it)
    except ImportError:
        raise MissingExtra('reading pictures needs PIL: pip install "poolwise[explore]"') from None
    try:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image)
            return np.asarray(turned.convert("L" if turned.mode in ("1", "L", "LA") else "RGB"))
    except Exception as cause:  # whatever a damaged picture leads to
        raise InvalidValue(f"images must be pictures, got {str(path)!r} ({type(cause).__name__})") from None


@dataclass(frozen=True)
class Scaled:
    """(x · scale − mean) / std, in float32: what a model was trained to see.

    mean, std: one number for all channels, or one for each. channels: their axis.

    >>> Scaled(1 / 255, (0.5,), (0.5,))(np.array([[[[0, 255]]]], np.uint8))
    array([[[[-1.,  1.]]]], dtype=float32)
    """

    scale: float
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: int = 1

    def __post_init__(self) -> None:
        if not all(np.isfinite(self.mean)) or not all(number > 0 and np.isfinite(number) for number in self.std):
            raise InvalidValue(f"mean must be finite and std above 0, got {self.mean} and {self.std}")
        if not (np.isfinite(self.scale) and self.scale != 0):
            raise InvalidValue(f"scale must be a number other than 0, got {self.scale}")

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """(N, …) → the same shape."""
        mean, std = (self._placed(name, numbers, images) for name, numbers in (("mean", self.mean), ("std", self.std)))
        return ((images.astype(np.float64) * self.scale - mean) / std).astype(np.float32)

    def _placed(self, name: str, numbers: tuple[float, ...], images: NDArray[Any]) -> NDArray[np.float64]:
        axis = self.channels % images.ndim
        if len(numbers) not in (1, images.shape[axis]):
            raise InvalidValue(
                f"{name} must be 1 number, or one for each of {images.shape[axis]} channels, got {numbers}"
            )
        return np.array(numbers).reshape([-1 if each == axis else 1 for each in range(images.ndim)])


def number(name: str, text: str) -> float:
    """A number such as 0.5 or 1/255.

    >>> number("scale", "1/4")
    0.25
    """
    try:
        above, slash, below = text.partition("/")
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise InvalidValue(f"{name} must be a number such as 0.5 or 1/255, got {text!r}") from None


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Numbers joined by commas."""
    return tuple(number(name, each) for each in text.split(","))


def batch_of(images: Any, preprocess: Preprocess | None) -> NDArray[Any]:
    """The images as the model takes them, checked.

    Raises InvalidType for what is no array of numbers, InvalidValue for bytes of which nobody says how they are scaled.
    """
    given = _array("images", images)
    if preprocess is None:
        if given.dtype.kind != "f":
            raise InvalidValue(
                f"images must be floats as the model takes them, got {given.dtype}; give a preprocess that scales them"
            )
        return given.astype(np.float32) if given.dtype == np.float64 else given
    try:
        made = preprocess(given)
    except (InvalidValue, InvalidType):
        raise
    except Exception as cause:  # whatever the user's function raises
        raise InvalidValue(f"preprocess must work on images of shape {given.shape}, got {cause!r}") from None
    batch = _array("what preprocess gives", made)
    if len(batch) != len(given):
        raise InvalidValue(f"preprocess must give as many images as it takes, {len(given)}, got {len(batch)}")
    return batch.astype(np.float32) if batch.dtype == np.float64 else batch


def _array(name: str, value: Any) -> NDArray[Any]:
    try:
        detached = value.detach().cpu() if hasattr(value, "detach") else value
        array = np.asarray(detached)
    except Exception as cause:  # a ragged list, a tensor that NumPy has no dtype for
        raise InvalidType(f"{name} must be an array of numbers, got {type(value).__name__} ({cause})") from None
    if array.dtype.kind not in "biuf":
        raise InvalidType(f"{name} must be an array of numbers, got {type(value).__name__} of {array.dtype}")
    if array.ndim < 3 or not array.size:
        raise InvalidValue(f"{name} must be (N, channels, *sizes) or (N, *sizes, channels), got {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidValue(f"{name} must be finite, got NaN or inf among them")
    return array
