"""What a command line names, opened with care: a picture, an array, a model. Nothing that could run code is opened."""

from __future__ import annotations

import base64
import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from poolwise import InvalidType, InvalidValue, design, models
from poolwise.design.strip import network
from poolwise.explorer.models import Stage, stages
from poolwise.explorer.source import Item, Source, array_item, picture_item, span, titled
from poolwise.explorer.state import write

LARGEST_SHOWN, SMALL = 256, 64  # pixels along a side, of a picture in the page; the smaller ones are drawn as squares
MOST_PIXELS = 100_000_000
MOST_BYTES = 1 << 32  # of an array's file
MODELS = (".onnx", ".keras")
GREY = {"1": np.uint8, "L": np.uint8, "I;16": np.uint16, "I;16L": np.uint16, "I": np.int32, "F": np.float32}
SAMPLES = {
    "astronaut.jpg": ("photograph", "astronaut Eileen Collins (NASA, public domain)"),
    "digit.png": ("digit", "a handwritten digit of MNIST (LeCun, Cortes & Burges, CC BY-SA 3.0)"),
}


def opened(name: str | None, *, image: Path | None = None, shape: Sequence[int] | None = None) -> Source:
    """The source that a command line names.

    name: a picture, an .npy or .npz, an .onnx or .keras, or `module:factory`; None: the pictures of the package.
    image, shape: what a model is to see, and the batch's shape where the model does not say it.
    Raises InvalidValue or InvalidType, in one sentence, for what cannot be opened.
    """
    if name is None:
        return samples()
    path = Path(name)
    if path.suffix.lower() in MODELS or (":" in name and not path.exists()):
        return model_source(models.load(name), name, image=image, shape=shape)
    if image is not None or shape is not None:
        raise InvalidValue(f"--image and --input go with a model, got {name!r}, which is none")
    _check_file(path)
    if path.suffix.lower() in (".npy", ".npz"):
        items = [array_item(label, array) for label, array in arrays(path).items()]
        return titled(items, path.name)
    if path.suffix.lower() in models.PICKLES:
        raise InvalidValue(f"{path} is a pickle, which runs code when it is opened; give module:factory instead")
    return titled([picture(path)], path.name)


def samples() -> Source:
    """The package's own pictures: a photograph and a digit."""
    folder = files("poolwise.explorer").joinpath("samples")
    items = []
    for name, (label, _) in SAMPLES.items():
        with folder.joinpath(name).open("rb") as file, Image.open(file) as image:
            items.append(picture_item(label, _planes(image)))
    credit = "Pictures: " + "; ".join(words for _, words in SAMPLES.values()) + "."
    return titled(items, "What pooling does", credit=credit)


def picture(path: Path) -> Item:
    """A picture as bytes: (1 or 3, height, width)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                return picture_item(path.name, _planes(ImageOps.exif_transpose(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidValue(f"{path} must have at most {MOST_PIXELS:,} pixels, and has more") from None
    except Image.UnidentifiedImageError:
        raise InvalidValue(
            f"{path} must be a picture, an .npy or .npz, an .onnx or .keras, or module:factory; it is none of them"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError) as cause:
        raise InvalidValue(f"{path} must be a whole picture, and could not be read ({cause})") from None


def _planes(image: Image.Image) -> NDArray[Any]:
    if image.mode in GREY:
        return np.asarray(image.convert("L") if image.mode == "1" else image, GREY[image.mode])[None]
    if image.mode in ("LA", "La"):
        return np.asarray(image.convert("L"))[None]
    return np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)


def arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of an .npy or .npz by name; pickled objects are refused."""
    try:
        size = unpacked_size(path)
        if size > MOST_BYTES:
            raise InvalidValue(f"{path} must have at most {MOST_BYTES:,} bytes, and has {size:,}")
        loaded = np.load(path, allow_pickle=False)
        return {path.stem: loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except InvalidValue:
        raise
    except (OSError, ValueError, EOFError, KeyError) as cause:
        raise InvalidValue(f"{path} must be an array saved without pickles, and could not be read ({cause})") from None
    except Exception as cause:  # a damaged zip raises what zipfile and zlib have
        raise InvalidValue(f"{path} must be an array saved by NumPy, and could not be read ({cause})") from None


def unpacked_size(path: Path) -> int:
    """The bytes of a file, or of all that a zip file holds: it says so before anything is unpacked."""
    if path.suffix.lower() != ".npz":
        return path.stat().st_size
    with zipfile.ZipFile(path) as packed:
        return sum(member.file_size for member in packed.infolist())


def model_source(
    model: Any, title: str, *, image: Path | NDArray[Any] | None = None, shape: Sequence[int] | None = None
) -> Source:
    """A model's poolings, before and after, on one image (the package's own photograph, if none is given)."""
    batch_shape = tuple(shape) if shape is not None else _whole(models.input_shape(model))
    if isinstance(image, np.ndarray):
        batch = image
    elif isinstance(image, Path) and image.suffix.lower() == ".npy":
        _check_file(image)
        (batch,) = arrays(image).values()
    elif batch_shape is None:
        raise InvalidValue(f"{title} does not say its input's shape; give it, such as --input 1x3x224x224")
    else:
        batch = batch_of(picture(image) if image is not None else samples().items[0], batch_shape)
    found = stages(model, batch)
    source = titled([stage_item(stage) for stage in found], title)
    return replace(source, network=lambda: network_of(model, batch))


def network_of(model: Any, batch: NDArray[Any]) -> dict[str, Any]:
    """The whole network as the page's strip reads it, over the first image of the batch.

    Raises InvalidValue for a model that the review cannot follow.
    """
    found = design.review(model, batch.shape)
    shown = address(batch[0]) if batch.ndim == 4 else ""
    return network(found.graph, found.stages, found.findings, shown, smooth=min(batch.shape[1:]) > SMALL)


def address(planes: NDArray[Any]) -> str:
    """A picture as the text of an address; "" where there are neither 1 nor 3 channels, first or last."""
    channels = next((axis for axis in (0, 2) if planes.shape[axis] in (1, 3)), None)
    if channels is None:
        return ""
    low, high = (0, 255) if planes.dtype == np.uint8 else span(planes)
    scaled = np.nan_to_num((planes - low) * (255 / ((high - low) or 1))).clip(0, 255).round().astype(np.uint8)
    last = np.moveaxis(scaled, channels, 2)
    image = Image.fromarray(last[..., 0] if last.shape[2] == 1 else last)
    image.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
    kind, held = "jpeg" if max(image.size) > SMALL else "png", io.BytesIO()
    image.save(held, kind, quality=82)
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"


def _whole(declared: tuple[int | None, ...] | None) -> tuple[int, ...] | None:
    """A declared shape of which every size is known."""
    sizes = tuple(size for size in declared or () if size is not None)
    return sizes if declared and len(sizes) == len(declared) else None


def batch_of(item: Item, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One picture as a batch of this shape, (N, C, H, W) or (N, H, W, C): resized, 0 to 1, the same N times."""
    if len(shape) != 4:
        raise InvalidValue(
            f"a model must take (batch, channels, height, width) to see a picture, got {tuple(shape)}; give an .npy"
        )
    first = shape[1] in (1, 3)
    channels, (height, width) = (shape[1], shape[2:]) if first else (shape[3], shape[1:3])
    if channels not in (1, 3):
        raise InvalidValue(f"a model must take 1 or 3 channels to see a picture, got {tuple(shape)}; give an .npy")
    planes = item.values if len(item.values) == channels else item.values.mean(0, keepdims=True).repeat(channels, 0)
    low, high = (0, 255) if item.values.dtype == np.uint8 else (item.values.min(), item.values.max())
    scaled = ((planes - low) / (high - low or 1)).astype(np.float32)
    resized = np.stack([_resized(plane, height, width) for plane in scaled])
    one = resized if first else np.moveaxis(resized, 0, 2)
    return np.repeat(one[None], shape[0], 0)


def _resized(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


def stage_item(stage: Stage) -> Item:
    """One pooling of a model: its input as planes, its call if poolwise has it, and what the model made."""
    before, after = _flat(stage.before), _flat(stage.after)
    call = "" if stage.op is None or stage.before.ndim > 3 else write(stage.op, stage.arguments)
    note = stage.note
    if stage.before.ndim > 3:
        note = "; ".join(filter(None, [note, "three-dimensional: slices of all channels, shown apart"]))
    names = tuple(map(str, range(len(before))))
    same = len(before) == len(after)
    return Item(stage.name, before, names, call=call, after=after if same else None, note=note)


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """(channels, …, rows, columns) → planes."""
    values = np.ascontiguousarray(values)
    values = values[:, None, :] if values.ndim == 2 else values
    return values.reshape(-1, *values.shape[-2:])


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InvalidValue(f"{path} must be a file, and there is none of that name")


def is_model(x: Any) -> bool:
    """Whether x is a model of a framework that poolwise reads."""
    try:
        models.input_shape(x)
    except InvalidType:
        return False
    except InvalidValue:  # one of several inputs, which `stages` refuses with the reason
        return True
    return True


def source_of(x: Any, *, images: Any = None, title: str | None = None) -> Source:
    """The source of what an `Explorer` is given: an array of any framework, a picture of Pillow, a model, a path."""
    if isinstance(x, str | Path):
        return opened(str(x))
    if is_model(x):
        return model_source(x, title or type(x).__name__, image=None if images is None else np.asarray(images))
    if images is not None:
        raise InvalidType(f"images go with a model, got {type(x).__name__}")
    if isinstance(x, Image.Image):
        return titled([picture_item(title or "picture", _planes(x))], title or "picture")
    return titled([array_item(title or "array", x)], title or "array")
