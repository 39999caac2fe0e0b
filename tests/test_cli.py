"""The shell: what each command prints, what it refuses, and with which exit status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import poolwise
from poolwise import doctor
from poolwise.cli import app
from poolwise.design import parse, trace
from poolwise.kernels.gathered import Gathered

VGG16 = "224x224 " + " ".join([*["conv3p1 conv3p1 max2/2"] * 2, *["conv3p1 conv3p1 conv3p1 max2/2"] * 3])
STAGE_KEYS = {
    "layer": str,
    "op": (str, types.NoneType),
    "form": str,
    "input": list,
    "output": list,
    "channels": list,
    "window": list,
    "stride": list,
    "dilation": list,
    "padding": list,
    "total_stride": list,
    "receptive_field": list,
    "receptive_field_start": list,
    "receptive_field_centre": list,
    "even": bool,
    "never_read": list,
    "empty_windows": int,
    "kept": float,
}


def shell(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def stages(stack: str) -> list[dict[str, Any]]:
    done = shell("shapes", "--format", "json", *stack.split())
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["stages"]


def each(stack: str, key: str) -> list[Any]:
    return [stage[key] for stage in stages(stack)]


def one_line(done: Result) -> str:
    """The fault that ended a command: one line on standard error, nothing on standard output, status 2."""
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_sizes_of_the_example() -> None:
    assert each("28x28 conv3 max2/2 max3/2p1", "output") == [[26, 26], [13, 13], [7, 7]]


@pytest.mark.parametrize(
    ("stack", "output"),
    [
        ("224x224 conv7/2p3", [112, 112]),
        ("3x224x224 conv7/2p3:64", [112, 112]),
        ("112x112 max3/2p1", [56, 56]),
        ("112x112 max3/2ceil", [56, 56]),
        ("112x112 max3/2", [55, 55]),
        ("7x7 avg2", [3, 3]),
        ("7x8 max2x3/1x2", [6, 3]),
        ("7x7 min3/2same", [4, 4]),
        ("6x6 sum3/2same_lower", [3, 3]),
        ("32x32 conv3d2", [28, 28]),
        ("10 mean3/2p0+1", [5]),
        ("10x12 adaptive7", [7, 7]),
        ("10x12 adaptiveavg7x5", [7, 5]),
        ("10x12 globalmax", [1, 1]),
        ("8x9x10:4 max2", [4, 4, 5]),
        ("4x8x9x10 max2", [4, 4, 5]),
    ],
)
def test_size_after_one_layer(stack: str, output: list[int]) -> None:
    assert each(stack, "output") == [output]


def test_vgg16_receptive_fields() -> None:
    """The known figures: 196 before the fifth pooling, 212 after it; Araujo et al. 2019's start is −90."""
    fields, starts, strides = (each(VGG16, key) for key in ("receptive_field", "receptive_field_start", "total_stride"))
    assert (fields[-2], fields[-1]) == ([196, 196], [212, 212])
    assert (starts[-1], strides[-1]) == ([-90, -90], [32, 32])
    assert each(VGG16, "output")[-1] == [7, 7]


@pytest.mark.parametrize("stack", ["29 max3/2p1 conv5d2p3 avg2/3", "31 adaptive7 max2/1", "23 max3/2 adaptive4 conv3"])
def test_receptive_field_is_what_an_impulse_reaches(stack: str) -> None:
    """Every input element is tried: the last stage's first cell reads those that change it."""
    given, layers = parse(stack.split())
    placed = trace(given, layers)
    reached = [element for element in range(given.sizes[0]) if 0 in touched(placed, element)]
    span = placed[-1].spans[0]
    assert min(reached) == max(span.first, 0)
    if span.even:
        assert max(reached) == span.first + span.field - 1


def touched(placed: Sequence[Any], element: int) -> set[int]:
    """The cells of the last stage that depend on one input element."""
    seen = {element}
    for stage in placed:
        rows = stage.geometry.tables[0].table()
        read = [set(index[:present]) for index, present in zip(rows.index.tolist(), rows.present, strict=True)]
        seen = {cell for cell, taps in enumerate(read) if taps & seen}
    return seen


@pytest.mark.parametrize(
    ("stack", "unread"),
    [
        ("7 max2", [{"before": 0, "after": 1, "between": 0}]),
        ("8 max2", [{"before": 0, "after": 0, "between": 0}]),
        ("7 max1/3", [{"before": 0, "after": 0, "between": 4}]),
        ("9 max1/3", [{"before": 0, "after": 2, "between": 4}]),
        ("7 max2/3p1", [{"before": 0, "after": 0, "between": 2}]),
    ],
)
def test_never_read(stack: str, unread: list[dict[str, int]]) -> None:
    assert each(stack, "never_read") == [unread]


def test_never_read_names_the_sides() -> None:
    assert "1 bottom, 2 right" in " ".join(shell("shapes", "7x8", "max2x3").stdout.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_holds_every_column(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stack = "3x1000x1000 conv7/2p3:64 max3/2p1 avg1/3 quantile13/5p6d2ceil adaptive7x9 max2/1p2d1 globalavg"
    said = shell("shapes", *stack.split()).stdout
    assert "…" not in said and max(map(len, said.splitlines())) <= width
    heads = "layer size stride so far receptive field starts at never read kept empty windows"
    cells = "3@1000×1000 64@16×16 ≈130×≈105 ≤479×≤419 −77 gaps: 166 rows, columns 11 40"
    assert [word for word in f"{heads} {cells}".split() if word not in said.split()] == []


HELP = ("", "lab", "shapes", "bench", "accelerate", "review", "rule", "measure", "explore", "doctor")


@pytest.mark.parametrize("command", HELP)
def test_help_fits_a_terminal_and_names_no_types_of_pythons(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = shell(*command.split(), "--help")
    assert done.exit_code == 0
    assert "…" not in done.stdout.replace("tcp://…", "").replace("fused …", "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    options = done.stdout.partition("Options")[2]
    assert not re.search(r"<(str|int|path)", options)


def test_empty_windows_are_counted() -> None:
    assert each("2x2 max2/1p2d1", "empty_windows") == [25 - 9]
    assert "empty" not in shell("shapes", "4x4", "max2").stdout


def test_share_kept() -> None:
    assert each("8x8 max2 conv3p1", "kept") == [0.25, 1.0]


def test_shapes_json_schema() -> None:
    report = json.loads(
        shell("shapes", "1x28x28", "conv3:32", "avg2", "adaptive5", "global", "--format", "json").stdout
    )
    assert report["poolwise"] == poolwise.__version__
    assert report["input"] == {"sizes": [28, 28], "channels": 1}
    for stage in report["stages"]:
        assert stage.keys() == STAGE_KEYS.keys()
        assert all(isinstance(stage[key], kind) for key, kind in STAGE_KEYS.items())
    assert [stage["channels"] for stage in report["stages"]] == [[1, 32], [32, 32], [32, 32], [32, 32]]
    assert [stage["op"] for stage in report["stages"]] == ["conv", "mean", None, None]


def test_channels_are_unknown_after_a_convolution_that_gives_none() -> None:
    assert each("3x8x8 conv3", "channels") == [[3, None]]


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        ("", "word 1, '': expected sizes such as 28x28"),
        ("axb", "word 1, 'axb': expected sizes such as 28x28 at character 1 (axb)"),
        ("28x", "at character 3 (x)"),
        ("0x4", "numbers from 1"),
        ("1x2x3x4x5", "sizes:channels"),
        ("99999999999999999999999", "numbers from 1"),
        ("28x28 mx2/2", "word 2, 'mx2/2': expected one of conv, max"),
        ("28x28 conv3 max", "word 3, 'max': expected a window such as 3 or 3x5 at character 4 (its end)"),
        ("28x28 max2/2q", "at character 7 (q)"),
        ("28x28 max2:3", "p1, same, same_lower, valid, d2, ceil, or the end at character 5 (:3)"),
        ("28x28 conv3ceil", ":CHANNELS, or the end at character 6 (ceil)"),
        ("28x28 max2p1p1", "expected d2, ceil, or the end at character 7 (p1)"),
        ("28x28 max2x2x2", "1 or 2 numbers, as the input has 2 axes,"),
        ("28x28 max2/0", "numbers from 1"),
        ("28x28 conv3 max99", "word 3, 'max99' on 26x26: window must fit the padded input"),
        ("28x28 global3", "a global pooling has no window"),
        ("28x28 max٣", "expected a window"),
    ],
)
def test_what_shapes_refuses(stack: str, said: str) -> None:
    words = stack.split() or [""]
    assert said in one_line(shell("shapes", *words))


def test_the_grammar_can_be_read() -> None:
    told = shell("shapes", "--grammar").stdout
    assert "3x224x224" in told
    assert all(operation.name in told for operation in poolwise.ops.OPERATIONS)


def test_version() -> None:
    assert shell("--version").stdout == f"{poolwise.__version__}\n"


def test_only_the_commands_that_exist() -> None:
    help_text = shell("--help").stdout
    assert all(name in help_text for name in ("lab", "shapes", "review", "bench", "doctor"))
    assert "pyramid" not in help_text


def test_lab_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    stand_in = types.ModuleType("poolwise.lab")
    monkeypatch.setattr(stand_in, "run", lambda **options: given.update(options), raising=False)
    monkeypatch.setitem(sys.modules, "poolwise.lab", stand_in)
    monkeypatch.setattr(poolwise, "lab", stand_in, raising=False)
    words = "lab --variants max,avg --seeds 2 --epochs 1 --jobs 2 --model a:b --scheduler tcp://here:1 --store s.db"
    done = shell(*words.split(), "--data", "digits.npz", "--report", "r.html")
    assert done.exit_code == 0, done.output
    assert given == {
        "variants": ["max", "avg"],
        "seeds": 2,
        "epochs": 1,
        "data": Path("digits.npz"),
        "model": "a:b",
        "jobs": 2,
        "scheduler": "tcp://here:1",
        "report": Path("r.html"),
        "store": Path("s.db"),
    }


@pytest.mark.parametrize(
    ("words", "name"), [(("explore", "--save"), "save"), (("bench", "--quick", "--json"), "json")], ids=str
)
def test_where_nothing_can_be_written_nothing_is_begun(words: tuple[str, ...], name: str, tmp_path: Path) -> None:
    told = one_line(shell(*words, str(tmp_path / "nowhere" / "file")))
    assert f"{name} must be a file in a folder that is there, got" in told
    assert f"{name} must be" in one_line(shell(*words, str(tmp_path)))


def test_a_process_of_its_own_answers_and_faults_in_one_line() -> None:
    command = [sys.executable, "-m", "poolwise", "shapes", "28x28"]
    done = subprocess.run([*command, "max2"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "14×14" in done.stdout
    wrong = subprocess.run([*command, "mx2"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


def test_the_doctor_finds_this_installation_healthy() -> None:
    done = shell("doctor")
    assert done.exit_code == 0, done.output
    assert "FAIL" not in done.stdout


def test_doctor_json() -> None:
    report = json.loads(shell("doctor", "--format", "json").stdout)
    assert report.keys() == {"machine", "packages", "checks", "refused", "healthy"}
    assert report["healthy"] is True
    assert {check["kernel"] for check in report["checks"]} >= {"gathered"}
    assert report["machine"]["numpy"] == np.__version__
    packages = {package["name"]: package for package in report["packages"]}
    assert all(bool(package["version"]) != bool(package["install"]) for package in packages.values())


def test_a_lying_kernel_makes_the_doctor_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Gathered.forward

    def lying(self: Gathered, operands: Any, call: Any) -> tuple[Any, Any]:
        y, kept = honest(self, operands, call)
        y[-1, -1, -1, -1] += 1
        return y, kept

    monkeypatch.setattr(Gathered, "forward", lying)
    done = shell("doctor")
    assert done.exit_code == 1
    assert re.search(r"FAIL (\d+) of \1\b", done.stdout)
    assert "gathered, forward, Max()" in done.stdout


def test_a_kernel_that_breaks_is_named_by_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(Gathered, "backward", broken)
    done = shell("doctor")
    assert done.exit_code == 1
    assert "RuntimeError: no such luck" in done.stdout


def test_the_doctor_says_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version_of", lambda _: "")
    done = shell("doctor")
    assert 'pip install "poolwise[torch]"' in done.stdout
    assert "pip install onnxruntime" in done.stdout
