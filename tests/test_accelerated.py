"""`poolwise accelerate MODEL`: what it changes, what that saves, and one clear line for what cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from poolwise import InvalidValue
from poolwise.bench import accelerated
from poolwise.cli import app
from poolwise.torch import accelerate

MODELS = """
from torch import nn

def cnn():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 15 * 15, 10))

def without():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())

def broken():
    raise RuntimeError("no such thing")

def number():
    return 3

ready = cnn()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)


def shell(*words: str) -> Result:
    return CliRunner().invoke(app, ["accelerate", *words])


def test_the_report_says_what_changed_and_what_it_saves() -> None:
    done = shell("own_models:cnn", "--input", "4x3x32x32", "--rounds", "2", "--format", "json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [change["path"] for change in report["changes"]] == ["2", ""]
    figures = {"stock", "poolwise", "ratio", "ratio_low", "ratio_high", "rounds"}
    assert report["training_step_s"].keys() == report["inference_s"].keys() == figures
    assert report["inference_s"]["rounds"] == 2
    joined, flat = 4 * 8 * 15 * 15, 4 * (4 * 8 * 15 * 15)  # one byte per output, and what the dense layer needs
    relu, indices = 4 * (4 * 8 * 30 * 30), 8 * joined
    assert report["kept_bytes"] == {"stock": relu + indices + flat, "poolwise": joined + flat}


def test_a_model_that_is_there_is_taken_as_it_is() -> None:
    done = shell("own_models:ready", "--input", "2x3x32x32", "--rounds", "1")
    assert done.exit_code == 0, done.output
    for text in ("2: torch.nn.MaxPool2d → poolwise.torch.MaxPool2d", "training step", "kept for backward", "KiB"):
        assert text in done.stdout


def test_a_ratio_has_its_spread_beside_it() -> None:
    times = accelerated.Times((1.0, 1.0, 2.0, 4.0, 1.0), (0.5, 0.4, 1.2, 1.2, 9.0))
    assert times.ratio == pytest.approx((0.5, 0.4, 0.6))  # of each round's pair, not of the medians
    assert accelerated.Times((2.0,), (1.0,)).ratio == (0.5, 0.5, 0.5)
    done = shell("own_models:ready", "--input", "2x3x32x32", "--rounds", "5")
    for line in ("training step", "inference"):
        found = re.search(rf"{line} .* ([\d.]+) \(([\d.]+) … ([\d.]+)\), 5 rounds", done.stdout)
        assert found, done.stdout
        middle, low, high = map(float, found.groups())
        assert low <= middle <= high


def test_a_step_too_long_to_be_repeated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerated, "in_turns", lambda runs, *_: {name: [] for name in runs})
    with pytest.raises(InvalidValue, match="input must be a batch whose step takes at most 5 s"):
        accelerated.saving(nn.Sequential(nn.MaxPool2d(2)), torch.randn(2, 3, 8, 8, requires_grad=True), rounds=1)


def test_nothing_to_change_is_said() -> None:
    done = shell("own_models:without", "--input", "2x3x32x32", "--rounds", "1")
    assert done.exit_code == 0
    assert "Nothing to change" in done.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("own_models:cnn", "--input", "3"), "input must be a batch's shape such as 8x3x224x224, got '3'"),
        (("own_models:cnn", "--input", "4x0x3x3"), "input must be a batch's shape"),
        (("own_models:cnn", "--input", "4x3x9x9"), "model must take the input 4x3x9x9, got RuntimeError"),
        (("own_models", "--input", "4x3x32x32"), "model must be module:factory, got 'own_models'"),
        (("nowhere:cnn", "--input", "4x3x32x32"), "model must be importable, got 'nowhere:cnn'"),
        (("own_models:MODEL", "--input", "4x3x32x32"), "model must be importable"),
        (("own_models:broken", "--input", "4x3x32x32"), "model must be made without arguments, got RuntimeError"),
        (("own_models:number", "--input", "4x3x32x32"), "model must be a torch.nn.Module, got int"),
    ],
)
def test_bad_input_gets_one_clear_line(words: tuple[str, ...], text: str) -> None:
    done = shell(*words)
    assert done.exit_code == 2
    assert text in " ".join(done.stderr.split())
    assert done.stderr.count("\n") == 1


def test_results_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module) -> Any:
        accelerate(model)
        model.register_forward_hook(lambda *given: given[-1] * 1.1)
        return model

    monkeypatch.setattr(accelerated, "accelerate", wrong)
    with pytest.raises(InvalidValue, match="the same accelerated"):
        accelerated.saving(nn.Sequential(nn.MaxPool2d(2)), torch.randn(2, 3, 8, 8, requires_grad=True), rounds=1)


def test_the_model_that_was_given_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    before = [p.clone() for p in model.parameters()]
    accelerated.saving(model, torch.randn(2, 3, 8, 8), rounds=1)
    assert type(model[1]) is nn.MaxPool2d
    assert all(p.grad is None and torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
