"""Two models on the same images, shifts and crops: before and after a change."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from rich.console import Group

from poolwise import InvalidType, InvalidValue, __version__, models
from poolwise.design import shifts, show_measured
from poolwise.design.images import Preprocess, batch_of
from poolwise.design.intervals import Interval, paired, share
from poolwise.design.measure import LOWEST, SCHEMA, Measurement, Options, Subject, measured, opened, planned


@dataclass(frozen=True)
class Comparison:
    """Two models, and what lies between them.

    circular, crops: after − before, image by image, with its interval. same: how the answers to the images as they are
    agree between the two. changes: what was changed, in words, where poolwise changed it.
    """

    before: Measurement
    after: Measurement
    circular: Interval
    crops: Interval
    same: Interval
    changes: tuple[str, ...] = ()

    def data(self) -> dict[str, Any]:
        """Everything as JSON's own types; docs/measure.md says what each entry means."""
        return {
            "schema": SCHEMA,
            "poolwise": __version__,
            "changes": list(self.changes),
            "before": self.before.data(),
            "after": self.after.data(),
            "difference": {"circular": asdict(self.circular), "crops": asdict(self.crops)},
            "same_answer": asdict(self.same),
            "time_ratio": self.after.seconds / self.before.seconds,
        }

    def text(self) -> Group:
        """The same for a terminal."""
        return show_measured.both(self)

    def named(self, name: str) -> Comparison:
        """The same of a model that is called so."""
        return replace(self, before=self.before.named(name), after=self.after.named(name))


def compare(
    before: Any, after: Any, images: Any, *, preprocess: Preprocess | None = None, **options: Unpack[Options]
) -> Comparison:
    """Two models on the same images, with the same shifts and crops, timed in turns.

    before, after: models or their names. images, preprocess, options: as in `measure`; both models must take the same
    images and give the same classes.

    Raises InvalidType or InvalidValue, as `measure` does.

    >>> import torch
    >>> blurred = torch.nn.Sequential(torch.nn.AvgPool2d(3, 1), torch.nn.Flatten())
    >>> compare(torch.nn.Flatten(), blurred, torch.rand(20, 1, 8, 8)).same.images
    20
    """
    return compared(opened(before), opened(after), batch_of(images, preprocess), options)


def swapped(
    model: Any, what: str, with_: str, images: Any, *, preprocess: Preprocess | None = None, **options: Unpack[Options]
) -> Comparison:
    """A PyTorch model before and after one of poolwise's ready-made replacements; the model stays as it was.

    what, with_: as `poolwise.torch.swap` takes names: "max" with "max-blur", "mean" or "strided", "relu+max" with
    "fused". The weights are those that were trained without it. The rest is as in `compare`.

    Raises InvalidType for a model of Keras or ONNX, InvalidValue for other names and where there is nothing to replace.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.Flatten())
    >>> swapped(net, "max", "mean", torch.rand(20, 1, 8, 8)).changes
    ('0: torch.nn.MaxPool2d → poolwise.torch.Pool',)
    """
    subject = opened(model)
    framework = models.kind(subject.model)
    if framework != "pytorch":
        raise InvalidType(f"model must be a torch.nn.Module to have its poolings swapped, got one of {framework}")
    from poolwise.torch import swap  # noqa: PLC0415 (only where there is a model of PyTorch)

    other: Any = swap(deepcopy(subject.model), what, with_)
    done = tuple(map(str, other.poolwise_changes[len(getattr(subject.model, "poolwise_changes", ())) :]))
    if not done:
        raise InvalidValue(f"model must have a place for {what}:{with_}, got {subject.name}, in which none was found")
    return compared(subject, Subject(subject.name, other), batch_of(images, preprocess), options, done)


def compared(
    before: Subject, after: Subject, images: NDArray[Any], options: Options, changes: tuple[str, ...] = ()
) -> Comparison:
    """Two models by one plan."""
    one, other = measured([before, after], planned(before.model, images, options))
    answer = one.settings.answer
    lowest = LOWEST[answer]
    if one.answers.shape != other.answers.shape:
        raise InvalidValue(f"after must give as many numbers as before, got {other.answers.shape}, {one.answers.shape}")
    agree: Any = np.equal if answer == "class" else shifts.cosine
    same = np.asarray(agree(one.answers, other.answers), np.float64)[:, None]
    circular = paired(other.circular.values, one.circular.values, lowest)
    crops = paired(other.crops.values, one.crops.values, lowest)
    return Comparison(one, other, circular, crops, share(same, lowest), changes)
