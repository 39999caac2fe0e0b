"""The lab: what it measures is right, what it keeps is kept, what it says follows from the numbers."""

from __future__ import annotations

import io
import json
import pickle
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from scipy import stats

import poolwise
from browser import launched
from poolwise.errors import Fault, InvalidType, InvalidValue, MissingExtra
from poolwise.lab import Claim, Comparison, Interval, Results, runner
from poolwise.lab.claims import CLAIMS, REFUTED, SUPPORTED, UNDECIDED, combined, judged, verdict
from poolwise.lab.cost import cost, kept_bytes
from poolwise.lab.data import load
from poolwise.lab.experiment import Config, run_one
from poolwise.lab.figures import sheets
from poolwise.lab.model import built, find
from poolwise.lab.retention import Retention, retention
from poolwise.lab.schedule import as_completed
from poolwise.lab.shifts import circular_consistency, crop_consistency
from poolwise.lab.statistics import interval, paired
from poolwise.lab.store import opened
from poolwise.lab.variants import DEFAULT, chosen, parse
from poolwise.ops import OPERATIONS

MNIST = (1, 28, 28)


def lab(folder: Path, **arguments: Any) -> Results:
    """A tiny experiment: 2 variants × 2 seeds × 1 epoch on 100 + 100 digits."""
    small = {"variants": ["none", "max2/2"], "seeds": 2, "epochs": 1, "train": 100, "test": 100}
    console = arguments.pop("console", Console(file=io.StringIO(), width=100))
    return poolwise.lab.run(report=folder / "report.html", console=console, **{**small, **arguments})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def digits() -> Any:
    return load(None, 100, 100)


class Calls:
    """`run_one` that counts, and breaks off where told."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.made: list[Config] = []
        self.stop_at = stop_at

    def __call__(self, config: Config, data: Any) -> Any:
        if len(self.made) + 1 == self.stop_at:
            raise KeyboardInterrupt
        self.made.append(config)
        return run_one(config, data)


class Page(HTMLParser):
    """What the report refers to, shows and tabulates."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.alternatives: list[str | None] = []
        self.rows: list[list[str]] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append(tag)
        self.ids.add(known.get("id") or "")
        self.references += [known[name] or "" for name in ("src", "href", "srcset", "action", "data") if name in known]
        self.references += re.findall(r"url\(([^)]*)\)", known.get("style") or "")
        self.references += re.findall(r"url\(([^)]*)\)", known.get("clip-path") or "")
        if tag in ("img", "svg"):
            self.alternatives.append(known.get("alt") if tag == "img" else known.get("aria-label"))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_report_is_one_file_with_named_pictures(tiny: Results) -> None:
    text = tiny.report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("figure") >= 4
    assert len(page.alternatives) >= 4
    assert all(page.alternatives)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.tags.count("script") == 2
    assert "default-src 'none'" in text
    for reference in page.references:
        assert reference.startswith("data:image/png;base64,") or reference.strip("\"'")[1:] in page.ids, reference
    assert "@import" not in text
    assert "@font-face" not in text
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]*", "", text))
    assert not re.findall(r"url\((?!#)", re.sub(r"base64,[A-Za-z0-9+/=]*", "", text))
    assert next(tag for tag in page.tags if re.fullmatch("h[1-6]", tag)) == "h1"
    assert page.tags.count("h1") == 1


@pytest.mark.slow
def test_a_reader_can_point_at_the_feature_maps(tiny: Results) -> None:
    with launched() as browser:
        page = browser.new_context(offline=True).new_page()
        faults: list[Any] = []
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.goto(tiny.report.resolve().as_uri())
        (result, *_), (sheet, *_) = tiny.of("max2/2"), sheets(tiny)
        pair = page.locator(".map:has(strong:text-is('max 2/2'))").first
        board = pair.locator(".board").nth(1)
        board.focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
        channel = int(sheet.title.rpartition(" ")[2])
        value = float(np.float32(result.maps.after[0, channel, 1, 1]))
        assert pair.locator("output").inner_text() == f"after (1, 1) = {value:.4g}"
        assert faults == []


@pytest.mark.parametrize("name", ["none", "max2/2"])
def test_reported_numbers_are_the_stored_ones(tiny: Results, name: str) -> None:
    with sqlite3.connect(tiny.store) as connection:
        rows = connection.execute("select result from runs where variant = ? order by seed", (name,)).fetchall()
    runs = [json.loads(row[0]) for row in rows]
    assert [run["config"]["seed"] for run in runs] == [0, 1]
    tested = [100 * run["epochs"][-1]["test_accuracy"] for run in runs]
    gaps = [100 * run["epochs"][-1]["train_accuracy"] - test for run, test in zip(runs, tested, strict=True)]
    shown = [row for row in Page(tiny.report.read_text(encoding="utf-8")).rows if row and row[0] == parse(name).label]
    outcome = next(row for row in shown if len(row) == 9)
    for cell, values in ((outcome[2], tested), (outcome[3], gaps), (outcome[4], [100 * r["circular"] for r in runs])):
        half = stats.t.ppf(0.975, 1) * np.std(values, ddof=1) / np.sqrt(2)
        expected = f"{np.mean(values):.1f}" + (f" ± {half:,.1f}" if half else "")
        assert cell == expected.replace("-", "−")
    costs = next(row for row in shown if len(row) == 8 and row is not shown[0] and "," in row[2])
    assert costs[2:4] == [f"{runs[0]['parameters']:,}", f"{runs[0]['macs']:,}"]


def test_terminal_tells_runs_tables_and_claims(tmp_path: Path) -> None:
    file = io.StringIO()
    lab(tmp_path, seeds=1, train=20, test=20, console=Console(file=file, width=100))
    said = file.getvalue()
    for words in ("run 1/2: no pooling, seed 0", "1 left", "run 2/2: max 2/2, seed 0", "0 left", "54,410", "216,650"):
        assert words in said
    assert said.count("supported") + said.count("not decided") >= len(CLAIMS)
    assert "report.html" in said


def test_second_run_resumes_and_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(runner, "run_one", calls)
    first = lab(tmp_path, train=20, test=20)
    assert (first.fresh, len(calls.made)) == (4, 4)
    again = lab(tmp_path, train=20, test=20)
    assert (again.fresh, len(calls.made)) == (0, 4)
    assert again.runs == first.runs
    more = lab(tmp_path, train=20, test=20, seeds=3)
    assert [(config.variant, config.seed) for config in calls.made[4:]] == [("none", 2), ("max2/2", 2)]
    assert more.fresh == 2
    wider = lab(tmp_path, train=20, test=20, variants=["none", "max2/2", "mean2/2"])
    assert [config.variant for config in calls.made[6:]] == ["mean2/2", "mean2/2"]
    assert len(wider.runs) == 6
    longer = lab(tmp_path, train=20, test=20, epochs=2)
    assert longer.fresh == 4


def test_interruption_loses_the_run_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run_one", Calls(stop_at=3))
    file = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        lab(tmp_path, train=20, test=20, console=Console(file=file, width=100))
    assert "2 of 4 runs are kept" in file.getvalue()
    with opened(tmp_path / "lab.sqlite") as store:
        assert len(store) == 2
    calls = Calls()
    monkeypatch.setattr(runner, "run_one", calls)
    assert len(lab(tmp_path, train=20, test=20).runs) == 4
    assert [config.seed for config in calls.made] == [1, 1]


@pytest.mark.slow
def test_killed_process_keeps_finished_runs(tmp_path: Path) -> None:
    code = "import poolwise.lab, sys\npoolwise.lab.run(report=sys.argv[1], epochs=2, train=100, test=100)"
    command = [sys.executable, "-u", "-c", code, str(tmp_path / "report.html")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout
        assert child.stdout.readline().startswith("run 1/15")
        child.send_signal(signal.SIGKILL)
    with opened(tmp_path / "lab.sqlite") as store:
        assert len(store) >= 1


@pytest.mark.slow
def test_jobs_are_processes(tmp_path: Path) -> None:
    assert len(lab(tmp_path, seeds=1, train=20, test=20, jobs=2).runs) == 2


def test_runs_are_equal_on_any_executor(digits: Any) -> None:
    config = Config("max2/2", seed=3, epochs=1, data=digits.digest, code="")
    before = torch.random.get_rng_state()
    here = run_one(config, digits)
    assert torch.equal(torch.random.get_rng_state(), before)
    with ThreadPoolExecutor(1) as pool:
        (there,) = as_completed(pool, 2, run_one, [pickle.loads(pickle.dumps((config, digits)))])
    assert timeless(pickle.loads(pickle.dumps(there))) == timeless(here)
    assert np.array_equal(there.maps.after, here.maps.after)
    assert timeless(run_one(replace(config, seed=4), digits)).epochs != here.epochs


def timeless(result: Any) -> Any:
    return replace(result, seconds=0.0, step_seconds=0.0)


def test_store_gives_back_what_it_was_given(tiny: Results) -> None:
    with opened(tiny.store) as store:
        for result in tiny.runs:
            kept = store.get(result.config.key)
            assert kept == result
            assert kept is not None
            assert np.array_equal(kept.maps.before, result.maps.before)
            assert kept.maps.images.dtype == np.uint8
        assert store.get("no such key") is None
        assert store.connection.execute("pragma journal_mode").fetchone() == ("wal",)


# What is measured


def test_paired_interval_worked_by_hand() -> None:
    found = paired({0: 0.90, 1: 0.92, 2: 0.94, 7: 5.0}, {0: 0.91, 1: 0.90, 2: 0.90})
    # differences −0.01, 0.02, 0.04: mean 1/60, standard deviation 0.0251661, t(0.975, 2) = 4.3026527
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(1 / 60), 3)
    assert found.half_width == pytest.approx(4.3026527 * 0.0251661 / 3**0.5, rel=1e-5)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, 1 / 60, 0.0251661 / 3**0.5), rel=1e-5)


def test_intervals_at_the_edges() -> None:
    assert interval([2.0]) == Interval(2.0, None, None, 1)
    assert interval([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0, 3)
    assert paired({0: 1.0}, {1: 1.0}) is None


def pixels(places: np.ndarray) -> torch.Tensor:
    """One lit pixel in each image."""
    images = torch.zeros(len(places), *MNIST)
    images[torch.arange(len(places)), 0, places[:, 0], places[:, 1]] = 1.0
    return images


def column(images: torch.Tensor) -> torch.Tensor:
    return images.amax((1, 2)).argmax(1)


def test_consistency_of_models_whose_answer_is_known() -> None:
    images = pixels(np.random.default_rng(0).integers(5, 23, (2000, 2)))
    assert circular_consistency(lambda x: x.sum((1, 2, 3)).long(), images) == 1.0
    assert crop_consistency(lambda x: x.sum((1, 2, 3)).long(), images) == 1.0
    # parity of the column: the same after horizontal shifts of −2, 0, 2, which are 3 · 5 − 1 of the 24
    assert circular_consistency(lambda x: column(x) % 2, images) == pytest.approx(14 / 24)
    # the column itself: the same after vertical shifts only, 4 of 24; crops agree when both chose the same of 5 columns
    assert circular_consistency(column, images) == pytest.approx(4 / 24)
    assert crop_consistency(column, images) == pytest.approx(1 / 5, abs=0.03)


@pytest.mark.slow
def test_max_blur_makes_trained_networks_more_consistent() -> None:
    digits = load(None, 600, 400)
    for seed in (0, 1):
        maxed, blurred = (
            run_one(Config(name, seed, 3, digits.digest, ""), digits) for name in ("max2/2", "maxblur2/2")
        )
        assert blurred.circular > maxed.circular + 0.01
        assert blurred.crops > maxed.crops


def test_crops_are_the_same_for_every_model() -> None:
    images = torch.rand(50, *MNIST)
    seen: list[torch.Tensor] = []

    def remember(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x[:, 0, 0, 0]

    for _ in range(2):
        crop_consistency(remember, images)
    assert seen[0].shape == images.shape
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


COUNTED = {  # variant: (parameters, MACs, window reads, cells of a pooled map, bytes that the stage keeps)
    "none": (320 + 21632 * 10 + 10, 26 * 26 * 32 * 9 + 21632 * 10, 0, 26 * 26, 0),
    "max2/2": (320 + 5408 * 10 + 10, 26 * 26 * 32 * 9 + 5408 * 10, 5408 * 4, 13 * 13, 5408),
    "mean2/2": (320 + 5408 * 10 + 10, 26 * 26 * 32 * 9 + 5408 * 10, 5408 * 4, 13 * 13, 0),
    "max3/2": (320 + 4608 * 10 + 10, 26 * 26 * 32 * 9 + 4608 * 10, 4608 * 9, 12 * 12, 4608),
    "strided": (  # its stage keeps its input (26·26·32) and its ReLU's output (13·13·32), 4 bytes each
        320 + 32 * 32 * 4 + 32 + 5408 * 10 + 10,
        26 * 26 * 32 * 9 + 13 * 13 * 32 * 32 * 4 + 5408 * 10,
        0,
        13 * 13,
        4 * 26 * 26 * 32 + 4 * 13 * 13 * 32,
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_costs_counted_by_hand(name: str) -> None:
    variant = parse(name)
    found = cost(built(None, variant.stage, MNIST, 10), variant, MNIST, 4)
    assert (found.parameters, found.macs, found.reads, found.cells, found.stage_kept) == COUNTED[name]
    assert next(size for _, size in found.sizes) == (32, 26, 26)
    assert [size for _, size in found.sizes][-1] == (10,)
    assert found.stage_kept <= found.step_kept


def test_costs_of_a_composition() -> None:
    variant = parse("max-blur 2/2")
    assert (variant.name, variant.label) == ("maxblur2/2", "max-blur 2/2")
    few, more = (cost(built(None, variant.stage, MNIST, 10), variant, MNIST, batch) for batch in (4, 8))
    assert few.reads == 32 * (25 * 25 * 4 + 13 * 13 * 9)
    assert (few.cells, few.macs) == (13 * 13, 26 * 26 * 32 * 9 + 5408 * 10)
    # where each of the 25·25 maxima is; the blur keeps its weights, however many images there are
    assert 8 * more.stage_kept - 4 * few.stage_kept == 4 * 32 * 25 * 25


def test_kept_bytes_counts_memory_once() -> None:
    x = torch.rand(10, requires_grad=True)
    assert kept_bytes(lambda: x.sin() * x.cos(), []) == 3 * 40  # x once, sin x, cos x


def test_poolings_run_on_our_kernel(digits: Any) -> None:
    assert run_one(Config("max2/2", 0, 1, digits.digest, ""), digits).kernel == "native"


def test_retention_of_maps_whose_answer_is_known() -> None:
    alternating = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(8, 8)[None, None]
    flat = torch.full((1, 1, 8, 8), 0.5)
    assert retention(alternating, alternating, 1) == Retention(1.0, 1.0, 1.0)
    mean = poolwise.avg_pool(alternating, (2, 2))
    assert torch.equal(mean, flat)
    kept = retention(alternating, mean, 2)
    assert (kept.peak, kept.energy) == (0.5, 0.5)
    noise = torch.rand(20, 4, 26, 26, generator=torch.Generator().manual_seed(0))
    largest, average = (retention(noise, f(noise, (2, 2)), 2) for f in (poolwise.max_pool, poolwise.avg_pool))
    assert largest.peak == 1.0
    assert average.detail == pytest.approx(0.25, abs=0.02)  # white noise: averaging four cells quarters the power
    assert average.peak is not None
    assert average.peak < 1.0
    assert retention(-noise, -noise, 1).peak is None


# What follows from the numbers

LOWER = Comparison("gap", "max2/2", "none", -1)
NOT_MUCH_LOWER = Comparison("test_accuracy", "max2/2", "none", 1, -0.01)


@pytest.mark.parametrize(
    ("low", "high", "comparison", "expected"),
    [
        (-0.03, -0.01, LOWER, SUPPORTED),
        (0.01, 0.03, LOWER, REFUTED),
        (-0.03, 0.01, LOWER, UNDECIDED),
        (-0.03, 0.0, LOWER, UNDECIDED),
        (0.0, 0.0, LOWER, REFUTED),
        (None, None, LOWER, UNDECIDED),
        (-0.005, 0.02, NOT_MUCH_LOWER, SUPPORTED),
        (-0.05, -0.02, NOT_MUCH_LOWER, REFUTED),
        (-0.02, 0.02, NOT_MUCH_LOWER, UNDECIDED),
    ],
)
def test_verdict(low: float | None, high: float | None, comparison: Comparison, expected: str) -> None:
    assert verdict(Interval(0.0, low, high, 3), comparison) == expected


def test_a_claim_needs_all_its_comparisons() -> None:
    assert combined([SUPPORTED, SUPPORTED]) == SUPPORTED
    assert combined([SUPPORTED, UNDECIDED]) == UNDECIDED
    assert combined([SUPPORTED, REFUTED, UNDECIDED]) == REFUTED


def synthetic(tiny: Results, consistent: list[float]) -> Results:
    """The tiny experiment's runs, the consistency of the pooled ones replaced."""
    runs = [replace(result, circular=0.5) for result in tiny.of("none")]
    pairs = zip(tiny.of("max2/2"), consistent, strict=True)
    return replace(tiny, runs=(*runs, *(replace(result, circular=value) for result, value in pairs)))


@pytest.mark.parametrize(
    ("consistent", "expected"),
    [([0.80, 0.81], SUPPORTED), ([0.20, 0.21], REFUTED), ([0.45, 0.60], UNDECIDED), ([0.5, 0.5], REFUTED)],
)
def test_claims_follow_from_the_runs(tiny: Results, consistent: list[float], expected: str) -> None:
    claim = Claim("Pooling helps.", (Comparison("circular", "max2/2", "none", 1),))
    found = judged(claim, synthetic(tiny, consistent))
    assert found.verdict == expected
    assert f"max 2/2 {100 * sum(consistent) / 2:.1f} %, no pooling 50.0 %" in found.evidence[0].text


def test_what_was_not_run_decides_nothing(tiny: Results) -> None:
    claim = Claim("Averages help.", (Comparison("macs", "mean2/2", "none", -1),))
    found = judged(claim, tiny)
    assert found.verdict == UNDECIDED
    assert "not both run" in found.evidence[0].text


def test_costs_are_decided_by_a_single_run(tiny: Results) -> None:
    single = replace(tiny, runs=(tiny.of("none")[0], tiny.of("max2/2")[0]))
    fewer = Claim("", (Comparison("parameters", "max2/2", "none", -1),))
    better = Claim("", (Comparison("circular", "max2/2", "none", 1),))
    assert judged(fewer, single).verdict == SUPPORTED
    assert judged(better, single).verdict == UNDECIDED


# What can be asked for


def test_variants_by_name() -> None:
    assert tuple(variant.name for variant in chosen(None)) == DEFAULT
    every = chosen(["all"])
    assert {type(variant.op) for variant in every} >= set(OPERATIONS) - {poolwise.LIP}  # it needs a second map
    assert [variant.name for variant in chosen(["avg 3/2", "MEAN3/2", "min2"])] == ["mean3/2", "min2/2"]
    assert parse("none").stage(4)(torch.ones(1, 4, 6, 6)).shape == (1, 4, 6, 6)
    for variant in every:
        if variant.op is not None:
            x = torch.rand(1, 3, 9, 9)
            learns = {
                each.name: torch.tensor(each.start) for each in variant.op.arrays if each.name in variant.op.operands
            }
            operands = {name: start for name, start in learns.items() if name != "draws"}
            rules = {"stride": (variant.stride,) * 2, "operands": operands}
            op = variant.op if variant.op.evaluated is None else variant.op.evaluated()
            expected = poolwise.pool(x, op, (variant.window,) * 2, **rules)
            y = variant.stage(3).eval()(x)
            if variant.name.startswith("gem"):  # a learned p is a tensor, whose powers are rounded otherwise
                torch.testing.assert_close(y, expected)
            else:
                assert torch.equal(y, expected)


def test_split_is_balanced_and_fixed() -> None:
    data = load(None, 105, 200)
    assert (data.train.images.shape, data.test.images.shape) == ((100, *MNIST), (200, *MNIST))
    assert set(np.bincount(data.train.labels)) == {10}
    assert set(np.bincount(data.test.labels)) == {20}
    again = load(None, 105, 200)
    assert data.digest == again.digest != load(None, 100, 190).digest
    seen = {image.tobytes() for image in data.train.images}
    assert not any(image.tobytes() in seen for image in data.test.images)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes, five pictures each."""
    random = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(5):
            pixels = random.integers(0, 255, (12, 10), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / kind / f"{number}.png")
    return tmp_path / "pictures"


def test_own_pictures_and_arrays(tmp_path: Path, pictures: Path) -> None:
    data = load(pictures, 1000, 2000)
    assert (data.classes, data.shape, len(data.train.images), len(data.test.images)) == (
        ("cat", "dog"),
        (1, 12, 10),
        2,
        8,
    )
    x = np.random.default_rng(0).normal(size=(20, 9, 9, 3))
    np.savez(tmp_path / "xy.npz", x=x, y=np.repeat(["a", "b"], 10))
    assert load(tmp_path / "xy.npz", 10, 10).shape == (3, 9, 9)
    np.savez(tmp_path / "halves.npz", x_train=x[:8], y_train=np.arange(8) % 2, x_test=x[8:], y_test=np.arange(12) % 2)
    halves = load(tmp_path / "halves.npz", 6, 100)
    assert (len(halves.train.images), len(halves.test.images)) == (6, 12)
    assert lab(tmp_path, data=pictures, seeds=1).data.classes == ("cat", "dog")


MODEL = """
from torch import nn
def build(pool, shape, classes):
    return nn.Sequential(nn.Conv2d(shape[0], 4, 3), pool(4), nn.Conv2d(4, 6, 3), nn.ReLU(), pool(6),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))
def blind(pool, shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes))
def wrong(pool, shape, classes):
    return nn.Sequential(pool(1), nn.Flatten())
def broken(pool, shape, classes):
    raise RuntimeError("no such layer")
"""


def test_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab_own_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    results = lab(tmp_path, model="lab_own_model:build", seeds=1)
    assert [size for _, size in results.of("max2/2")[0].sizes][:2] == [(4, 26, 26), (4, 13, 13)]
    assert results.of("max2/2")[0].reads == 4 * (4 * 13 * 13 + 6 * 5 * 5)
    for factory, words in (("blind", "at least one pool"), ("wrong", "logits"), ("broken", "no such layer")):
        with pytest.raises(InvalidValue, match=words):
            lab(tmp_path, model=f"lab_own_model:{factory}")
    with pytest.raises(InvalidType, match="callable"):
        find("lab_own_model:__name__")
    assert str(tmp_path) not in sys.path


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def hostile(name: str, folder: Path, pictures: Path) -> Path:
    """A source of images that cannot be used."""
    path = folder / f"{name}.npz"
    x = np.zeros((40, 9, 9))
    arrays: dict[str, dict[str, Any]] = {
        "no y": {"x": x},
        "labels": {"x": x, "y": np.zeros(7, int)},
        "nan": {"x": np.full((40, 9, 9), np.nan), "y": np.arange(40) % 2},
        "flat": {"x": np.zeros((40, 81)), "y": np.arange(40) % 2},
        "one class": {"x": x, "y": np.zeros(40, int)},
        "rare": {"x": x, "y": np.arange(40) == 3},
        "objects": {"x": np.array([{}]), "y": np.zeros(1, int)},
        "small": {"x": np.zeros((40, 3, 3)), "y": np.arange(40) % 2},
    }
    if name in arrays:
        np.savez(path, **arrays[name])
        return path
    if name == "text":
        path.write_text("not an archive")
        return path
    if name == "empty folder":
        (folder / name).mkdir()
        return folder / name
    spoiled = pictures / "cat" / "0.png"
    odd_size = io.BytesIO()
    Image.new("L", (99, 99)).save(odd_size, "PNG")
    spoiled.write_bytes({"broken": b"\x89PNG", "bomb": bomb(), "sizes": odd_size.getvalue()}[name])
    return pictures


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no y", "arrays x and y"),
        ("labels", r"shape \(40,\)"),
        ("nan", "finite"),
        ("flat", "height, width"),
        ("one class", "2 classes"),
        ("rare", "2 images of each class"),
        ("objects", "readable .npz"),
        ("small", "at least 8×8"),
        ("text", "readable .npz"),
        ("empty folder", "one folder of pictures per class"),
        ("broken", "0.png"),
        ("bomb", "pixels"),
        ("sizes", "one size"),
        ("missing", "npz file or a folder"),
    ],
)
def test_unusable_images(name: str, words: str, tmp_path: Path, pictures: Path) -> None:
    source = tmp_path / "nowhere.npz" if name == "missing" else hostile(name, tmp_path, pictures)
    refused(tmp_path, InvalidValue, words, data=source)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"variants": ["middle2/2"]}, InvalidValue, "middle2/2"),
        ({"variants": ["max0/1"]}, InvalidValue, "at least 1"),
        ({"variants": ["max40/2"]}, InvalidValue, "max40/2"),
        ({"variants": []}, InvalidValue, "at least one"),
        ({"variants": [3]}, InvalidType, "names"),
        ({"seeds": 0}, InvalidValue, "seeds must be at least 1, got 0"),
        ({"seeds": 2.5}, InvalidType, "seeds"),
        ({"seeds": True}, InvalidType, "seeds"),
        ({"epochs": 0}, InvalidValue, "epochs"),
        ({"jobs": -1}, InvalidValue, "jobs"),
        ({"train": 5}, InvalidValue, "train must be at least 10"),
        ({"test": "many"}, InvalidType, "test"),
        ({"model": "nothing"}, InvalidValue, "module:factory"),
        ({"model": "no_such_module:build"}, InvalidValue, "no_such_module"),
        ({"data": 7}, InvalidType, "data must be a path"),
    ],
)
def test_unusable_arguments(arguments: dict[str, Any], kind: type[Fault], words: str, tmp_path: Path) -> None:
    refused(tmp_path, kind, words, **arguments)


def refused(folder: Path, kind: type[Fault], words: str, **arguments: Any) -> None:
    """One clear line, before any run and any file."""
    with pytest.raises(kind, match=words) as caught:
        lab(folder, **arguments)
    assert "\n" not in str(caught.value)
    assert not (folder / "lab.sqlite").exists()


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="report must be a file in a folder that exists"):
        lab(tmp_path / "nowhere")
    (tmp_path / "lab.sqlite").write_text("these are no results, and longer than a header of SQLite's would be" * 20)
    with pytest.raises(InvalidValue, match="results file of the lab"):
        lab(tmp_path)


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(MissingExtra, match=r'pip install "poolwise\[dask\]"'):
        lab(tmp_path, scheduler="tcp://127.0.0.1:1")
    code = "import sys\nsys.modules['mlxtend'] = None\nimport poolwise.lab"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'poolwise.lab needs mlxtend: pip install "poolwise[lab]"' in child.stderr
