"""The benchmark's workings: what it compares, whom it refuses, what it reports. Nothing here asserts a time."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import poolwise
from poolwise import Fault, Max
from poolwise import bench as library
from poolwise.bench import CASES, FULL, Attempt, Bins, Case, Contender, Entry, Row, Size, contenders, turns
from poolwise.bench.apart import APART
from poolwise.bench.cases import SECTIONS, MaxBlur, matching
from poolwise.bench.goals import behind, goals
from poolwise.bench.measure import geometric_mean, wrong
from poolwise.bench.problem import Data, Problem, made, problems
from poolwise.bench.turns import in_turns
from poolwise.call import Call
from poolwise.cli import app
from poolwise.doctor import machine, usable_cores
from poolwise.doors import NUMPY
from poolwise.ops import OPERATIONS
from poolwise.reference import Reference

SMALL = Size("small", 2, 3, 14, 3, 3, 3)
SMALLEST = Size("smallest", 1, 2, 8, 1, 1, 1)
RECORD = Path(__file__).parents[1] / "benchmarks" / "2026-11-23-two-cores-door.json"


def shell(*words: str) -> Result:
    return CliRunner().invoke(app, ["bench", *words])


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def small(task: str = "forward", layout: str = "NCHW") -> Problem:
    return made(case_of(f"max 3/2 p1 {layout} {task}"), SMALL)


def row_of(name: str, seconds: Mapping[str, float], ideal: float = 1.0) -> Row:
    """A row of the full table as if it had been measured."""
    case = case_of(name)
    entries = {who: Entry(time, time, time, 7) for who, time in seconds.items()}
    given = hollow(case)
    return Row(case, given.x.shape, 10, given.goal, None if case.tiny else ideal, 1e9, entries)


def hollow(case: Case) -> Problem:
    """The case's full arrays, but one element of memory."""
    shape = case.at(FULL)
    pooled = [case.places.outputs(n) if axis in case.axes else n for axis, n in enumerate(shape)]
    zero = np.zeros((), "float16" if case.dtype == "bfloat16" else case.dtype)
    return Problem(case, Data(case, np.broadcast_to(zero, shape), np.broadcast_to(zero, pooled)))


def result_of(*rows: Row, **apart: Any) -> library.Result:
    names = list(dict.fromkeys(name for row in rows for name in row.entries))
    return library.Result(machine(), 2, FULL, dict.fromkeys(names, "1.0"), {}, rows, apart)


class Lying(contenders.PyTorch):
    """PyTorch, but for one value."""

    name = "Liar"

    def attempt(self, problem: Problem) -> Attempt:
        honest = super().attempt(problem)

        def outputs() -> tuple[Any, ...]:
            wrong = np.array(honest.outputs()[0])
            wrong[-1, -1, -1, -1] += 0.25
            return (wrong, *honest.outputs()[1:])

        return Attempt(honest.run, outputs)


class Short(contenders.PyTorch):
    """PyTorch, but without a gradient."""

    name = "Short"

    def attempt(self, problem: Problem) -> Attempt:
        honest = super().attempt(problem)
        return Attempt(honest.run, lambda: honest.outputs()[:1])


class Broken(contenders.PyTorch):
    """Raises instead of answering."""

    name = "Broken"

    def attempt(self, problem: Problem) -> Attempt:
        raise RuntimeError("no such kernel")


class Absent(contenders.PyTorch):
    """A framework that nobody has."""

    name = "Absent"
    needs = ("no_such_framework",)


def compete(monkeypatch: pytest.MonkeyPatch, *others: type[Contender]) -> None:
    kinds = (contenders.Poolwise, contenders.PoolwiseNumPy, *others)
    monkeypatch.setattr(contenders.present, "__defaults__", (kinds,))
    monkeypatch.setattr(library, "QUICK", SMALL)


# The table


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(isinstance(case.op, Max) for case in CASES if case.task == "indices")


def test_every_section_has_cases_and_every_case_a_section() -> None:
    assert list(dict.fromkeys(case.section for case in CASES)) == list(SECTIONS)


def test_every_operation_has_a_case() -> None:
    """But for the two that are max and mean over again, and what is drawn at random."""
    measured = {case.op.name for case in CASES}
    assert {kind.name for kind in OPERATIONS} - measured == {"min", "sum", "stochastic"}


def test_a_case_is_found_by_its_name_or_by_a_part_of_it() -> None:
    assert [case.name for case in matching("max 2/2 NCHW forward")] == ["max 2/2 NCHW forward"]
    assert len(matching("max 2/2 nchw forward,")) > 5
    assert {case.section for case in matching("large windows")} == {"large windows"}
    assert {case.dtype for case in matching("uint8")} == {"uint8"}
    assert {case.op.name for case in matching("median*")} == {"median"}
    assert len(matching("quantile(0.25) 3/2")) == 1


def test_a_smaller_size_keeps_what_is_ragged() -> None:
    assert case_of("max 2/2 NHWC forward, odd sizes").at(SMALL) == (2, 15, 15, 3)
    assert case_of("max 2/2 NCHW forward").at(SMALL) == (2, 3, 14, 14)
    assert all(max(case.shape) <= 16000 and case.at(FULL).count(16000) == case.shape.count(16000) for case in CASES)


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("max 2/2 NCHW forward", 1.25),
        ("max 3/2 p1 NHWC indices", 1.25),
        ("max 3/1 p1 NCHW training", 1.2),
        ("max 2/2 NCHW training", 1.8),  # its gradient is larger than 32 MiB
        ("max 3/1 p1 NCDHW forward, 3-D", 1.8),
        ("Lp(2) 2/2 NCHW forward", 2.5),
        ("median 3/2 NCHW forward, uint8", 2.5),
        ("mode 2/2 NCDHW forward, uint8", 2.5),
        ("global avg NHWC forward, 112x112", 2.5),
        ("GeM 2/2 NCHW forward", None),
        ("soft 2/2 NCHW training", None),
        ("max 63/1 p31 NCHW forward, large windows", None),
        ("max 2/2 NCHW tiny recorded", 2.0),
    ],
)
def test_goals_of_rows(name: str, goal: float | None) -> None:
    assert hollow(case_of(name)).goal == goal


# The right answers


def distinct() -> list[Case]:
    """One case for each answer: tasks and shapes that differ share it."""
    found = {(case.op, case.places, case.order, case.dtype, case.gradient): case for case in CASES}
    return list(found.values())


def reference(problem: Problem) -> Any:
    """The output by the library's own reference; of max-blur in float64."""
    case, x, places = problem.case, problem.x, problem.case.places
    if isinstance(places, Bins):
        return poolwise.adaptive_pool(x, cast("Any", case.op), places.output, axes=case.axes, kernel="reference")
    options: dict[str, Any] = {"stride": places.stride, "padding": places.padding, "axes": case.axes}
    window = (places.window,) * case.rank
    if isinstance(case.op, MaxBlur):
        return poolwise.max_blur_pool(x.astype(np.float64), window, **options)
    options |= {"padding_mode": places.mode, "operands": dict(problem.operands) or None}
    return poolwise.pool(x, case.op, window, **options, kernel="reference")


def reference_gradient(problem: Problem) -> Any:
    case, x, places = problem.case, problem.x, problem.case.places
    if isinstance(places, Bins):
        geometry = poolwise.Geometry.adaptive(x.shape, case.axes, output_size=(places.output,) * case.rank)
    else:
        window, options = (places.window,) * case.rank, {"stride": places.stride, "padding": places.padding}
        geometry = poolwise.Geometry.of(x.shape, case.axes, window=window, **cast("Any", options))
    call = Call(cast("Any", case.op), geometry, NUMPY.framework, (x.dtype.name,), tuple(range(x.ndim)), keep=True)
    judge = Reference()
    _, kept = judge.forward((x,), call)
    return judge.backward(problem.g, kept, call)[0]


@pytest.mark.parametrize("case", distinct(), ids=lambda case: case.name)
def test_the_right_answers_are_the_references(case: Case) -> None:
    problem = made(case, SMALLEST)
    output, *gradient = problem.truth
    expected = reference(problem)
    tolerance = {"float16": 1e-3, "bfloat16": 1e-2}.get(case.dtype, 1e-6)
    assert output.dtype == problem.x.dtype
    if output.dtype.kind in "iu":
        np.testing.assert_array_equal(output, expected)
    np.testing.assert_allclose(output.astype(float), expected.astype(float), rtol=tolerance, atol=tolerance)
    if gradient:
        np.testing.assert_allclose(gradient[0], reference_gradient(problem), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("taps", [3, 13, 31])
def test_no_window_holds_a_value_twice(taps: int) -> None:
    x = made(case_of("max 31/1 p15 NCHW training, large windows"), Size("", 1, 2, 34, 1, 1, 1)).x
    windows = np.lib.stride_tricks.sliding_window_view(x, (taps, taps), axis=(2, 3)).reshape(-1, taps * taps)
    assert all(len(np.unique(window)) == taps * taps for window in windows[::7])


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64"])
def test_no_tile_of_labels_holds_two_equally_often(dtype: str) -> None:
    x = made(case_of(f"mode 2/2 NCHW forward, {dtype}"), Size("", 1, 4, 64, 1, 1, 1)).x
    tiles = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(2, 3))[:, :, ::2, ::2].reshape(-1, 4)
    counts = [sorted(np.unique(tile, return_counts=True)[1]) for tile in tiles]
    assert {tuple(map(int, count)) for count in counts} == {(4,), (1, 3)}
    assert x.max() > np.iinfo(dtype).max // 2


def test_cases_on_the_same_data_share_it() -> None:
    names = ("max 2/2 NCHW training", "avg 2/2 NCHW forward", "max 2/2 NCHW forward")
    first, second, third = problems([case_of(name) for name in names], SMALL)
    assert [one.case.name for one in (first, second, third)] == [names[0], names[2], names[1]]
    assert first.data is second.data
    assert first.x is third.x


def test_bytes_of_what_an_operation_needs_beside_the_input() -> None:
    plain, logits = (made(case_of(f"{word} 2/2 NCHW forward"), SMALL) for word in ("log-sum-exp", "LIP"))
    assert logits.bytes - plain.bytes == plain.x.nbytes
    blur, soft = (made(case_of(f"{word} NCHW training"), SMALL) for word in ("blur 3/2 p1", "soft 2/2"))
    assert blur.bytes == 2 * (blur.x.nbytes + blur.g.nbytes)
    assert soft.bytes == blur.bytes + soft.x.nbytes  # its backward reads the input


def test_bytes_that_must_move() -> None:
    x, g = 4 * 2 * 3 * 14 * 14, 4 * 2 * 3 * 7 * 7
    assert small("forward").bytes == x + g
    assert small("indices").bytes == x + g + g // 4
    assert small("training").bytes == 2 * (x + g + g // 4)
    assert made(case_of("max 2/2 NCHW forward, uint8"), SMALL).bytes == (x + g) // 4


# The contenders


@pytest.fixture(scope="module")
def everybody() -> list[Contender]:
    return contenders.present(usable_cores())[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_contender_answers_every_case_rightly(case: Case, everybody: list[Contender]) -> None:
    problem = made(case, SMALL)
    serving = [one for one in everybody if one.serves(case)]
    assert {one.name: wrong(one.attempt(problem).outputs(), problem) for one in serving} == {
        one.name: "" for one in serving
    }
    assert "poolwise" in {one.name for one in serving}


@pytest.mark.parametrize("case", [case for case in CASES if not case.gradient], ids=lambda case: case.name)
def test_without_pytorch_poolwise_answers_rightly(case: Case) -> None:
    problem = made(case, SMALL)
    assert wrong(contenders.PoolwiseNumPy(1).attempt(problem).outputs(), problem) == ""


def test_every_contender_that_is_installed_serves_a_case(everybody: list[Contender]) -> None:
    assert [one.name for one in everybody if not any(map(one.serves, CASES))] == []


def test_peers_are_what_the_package_for_developers_brings(everybody: list[Contender]) -> None:
    names = {"PyTorch", "ONNX Runtime", "JAX", "TensorFlow", "scikit-image", "tinybrain", "kornia"}
    assert {one.name for one in everybody} == {"poolwise"} | names
    assert all(one.version() for one in everybody)


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("median 2/2 NCHW forward", "PyTorch, poolwise, scikit-image"),
        ("median 2/2 NHWC forward", "PyTorch, poolwise"),
        ("median 3/1 p1 NCHW forward", "poolwise"),
        ("median 3/1 NCHW forward", "PyTorch, kornia, poolwise"),
        ("mode 2/2 NCHW forward, uint64", "poolwise, tinybrain"),
        ("mode 3/2 NCHW forward, uint8", "PyTorch, poolwise"),
        ("blur 3/2 p1 NCHW forward", "PyTorch, kornia, poolwise"),
        ("blur 3/2 p1 NCHW training", "PyTorch, kornia, poolwise"),
        ("blur 3/2 p1 reflect NCHW forward", "PyTorch, poolwise"),
        ("Lp(2) 2/2 NCHW forward", "JAX, ONNX Runtime, PyTorch, poolwise"),
        ("gated 2/2 NCHW forward", "PyTorch, poolwise"),
    ],
)
def test_who_has_an_operation(name: str, who: str, everybody: list[Contender]) -> None:
    assert sorted(one.name for one in everybody if one.serves(case_of(name))) == who.split(", ")


def test_a_tiny_call_is_compared_with_pytorch() -> None:
    result = library.run(cases="tiny", size=SMALL)
    assert [row.case.task for row in result.rows] == ["tiny", "tiny recorded"]
    assert all(row.time("poolwise") and row.time("PyTorch") and row.ideal is None for row in result.rows)


def test_a_contender_whose_output_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compete(monkeypatch, contenders.PyTorch, Lying, Broken)
    done = shell("--quick", "--cases", "max 2/2 NCHW forward")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("refused") == 2
    assert "not timed: Liar on max 2/2 NCHW forward: its output is wrong by up to 0.25" in done.stdout
    assert "not timed: Broken on max 2/2 NCHW forward: RuntimeError: no such kernel" in done.stdout


def test_a_missing_gradient_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compete(monkeypatch, Short)
    result = library.run(cases="max 2/2 NCHW training", size=SMALL)
    assert result.rows[0].entries["Short"].refused == "it gives 1 outputs instead of 2"
    assert result.rows[0].time("Short") is None
    assert result.sound


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (lambda y, gx: (y * np.float32(np.nan), gx), "its output is wrong by up to nan"),
        (lambda y, gx: (y.astype(np.float64), gx), "its output has dtype float64 instead of float32"),
        (lambda y, gx: (y[:1], gx), "its output has shape"),
        (lambda y, gx: (y, -gx), "its gradient is wrong by"),
        (lambda y, gx: (y, gx + np.float32(1e-3)), "its gradient is wrong by up to 0.001"),
        (lambda y, gx: (y, gx), ""),
    ],
)
def test_what_is_wrong_with_an_answer(lie: Any, said: str) -> None:
    problem = small("training")
    found = wrong(lie(*problem.truth), problem)
    assert found.startswith(said) and bool(found) == bool(said)


def test_integers_must_be_exact() -> None:
    problem = made(case_of("avg 2/2 NCHW forward, uint8"), SMALL)
    assert wrong((problem.truth[0] ^ 1,), problem) == "its output is wrong by up to 1"


def test_integers_of_64_bits_must_be_exact() -> None:
    problem = made(case_of("mode 2/2 NCHW forward, uint64"), SMALL)
    assert wrong((problem.truth[0] ^ np.uint64(1),), problem) == "its output is wrong by up to 1"


@pytest.mark.parametrize(
    ("name", "step", "allowed"),
    [
        ("max 3/2 p1 NCHW forward", 1, False),
        ("median 2/2 NCHW forward", 1, True),
        ("median 2/2 NCHW forward", 2, False),
        ("soft 2/2 NCHW forward", 8, True),
        ("soft 2/2 NCHW forward", 999, False),
    ],
)
def test_how_exact_an_answer_must_be(name: str, step: int, allowed: bool) -> None:
    """In units of the last place of the numbers from a half to one, where most of the largest are."""
    problem = made(case_of(name), SMALL)
    found = wrong((problem.truth[0] + np.float32(step * 2.0**-24),), problem)
    assert (found == "") == allowed


def test_our_own_wrong_output_ends_in_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lying, "name", "poolwise")
    monkeypatch.setattr(contenders.present, "__defaults__", ((Lying,),))
    monkeypatch.setattr(library, "QUICK", SMALL)
    assert shell("--quick", "--cases", "max 2/2 NCHW forward").exit_code == 1


def test_a_peer_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    compete(monkeypatch, Absent)
    done = shell("--quick", "--cases", "max 2/2 NCHW forward")
    assert "missing: Absent (pip install no_such_framework)" in done.stdout


def test_without_pytorch_poolwise_is_measured_on_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders.Poolwise, "needs", ("no_such_framework",))
    compete(monkeypatch)
    result = library.run(cases="max 2/2 NHWC", size=SMALL)
    assert {row.case.task for row in result.rows if row.time("poolwise")} == {"forward"}
    assert result.missing == {}
    assert result.sound


# Turns


def test_every_round_asks_everybody_after_a_warm_up() -> None:
    asked: list[str] = []
    times = in_turns({name: lambda name=name: asked.append(name) for name in "abc"}, 3, 2)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(asked.count(name) == 2 + 3 * (1 + 2) for name in "abc")
    assert [asked[n] for n in range(6, 33, 9)] == ["a", "b", "c"]


@pytest.mark.parametrize(("brief", "rounds"), [(60.0, 5), (0.01, 2)])
def test_there_are_more_rounds_where_everybody_is_brief(
    brief: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "BRIEF", brief)
    times = in_turns({"brief": lambda: None, "other": lambda: time.sleep(0.02)}, 2, 1, brief=5)
    assert {name: len(taken) for name, taken in times.items()} == {"brief": rounds, "other": rounds}


@pytest.mark.parametrize(("first", "rounds", "calls"), [(0.1, 7, 15), (2.5, 1, 1), (30.0, 0, 0)])
def test_who_is_slow_is_asked_less_often(first: float, rounds: int, calls: int) -> None:
    asked: list[int] = []
    times = in_turns({"slow": lambda: asked.append(1)}, 7, 1, {"slow": first})
    assert (len(times["slow"]), len(asked)) == (rounds, calls)


# What is reported


def test_quick_on_one_case_writes_every_number(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    done = shell("--quick", "--cases", "max 2/2 NCHW forward", "--json", str(target))
    assert done.exit_code == 0, done.output
    report = json.loads(target.read_text())
    keys = {"poolwise", "machine", "load", "threads", "size", "versions", "missing", "rows", "apart", "goals"}
    assert report.keys() == keys
    (row,) = report["rows"]
    assert row["case"] == "max 2/2 NCHW forward"
    assert row["bytes"] == 4 * (row["shape"][0] * row["shape"][1] * 112 * 112) * 5 // 4
    ours = row["contenders"]["poolwise"]
    assert ours["ratio"] == pytest.approx(ours["median"] / row["ideal"])
    assert ours["fastest"] <= ours["median"] <= ours["slowest"]
    assert ours["rounds"] == 3
    assert row["ideal"] == pytest.approx(row["bytes"] / row["ruler_bytes_per_second"])
    assert {"poolwise", "PyTorch"} <= row["contenders"].keys()
    assert any(goal["what"] == "forward" and goal["over"] == "PyTorch" for goal in report["goals"])


def test_what_is_measured_apart() -> None:
    found = [library.run(cases=each.name, size=SMALL) for each in APART]
    assert all(not result.rows and len(result.apart) == 1 for result in found)
    result = result_of(**{key: apart for each in found for key, apart in each.apart.items()})
    assert result.apart.keys() == {each.key for each in APART}
    assert {name: kept["poolwise"] for name, kept in result.apart["kept"].items()} == {
        "max": 1,
        "mean": 0,
        "ReLU + max": 1,
    }
    assert all(seconds > 0 for seconds in result.apart["imports"].values())
    assert "skipped" in result.apart["scaling"] or len(result.apart["scaling"]["seconds"]) == 3
    assert {goal.what.split(",")[0] for goal in goals(result)} >= {
        "bytes kept per output",
        "import poolwise over import numpy",
        "two threads over one",
        "tutorial's training step",
    }


def test_two_threads_are_told_beside_the_copy() -> None:
    apart = {"seconds": {"a": {"1": 3.0, "2": 2.0}, "b": {"1": 3.8, "2": 2.0}}, "ideal": {"a": 1.0, "b": 1.9}}
    slow, fast = (goal for goal in goals(result_of(scaling=apart)) if goal.what.startswith("two threads"))
    assert (slow.measured, slow.met, slow.said) == (1.5, False, "two at 2.00 of the ruler")
    assert (fast.measured, fast.met, fast.said) == (1.9, True, "two at 1.05 of the ruler")


def test_one_core_has_no_second_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolwise.bench.apart.usable_cores", lambda: 1)
    result = library.run(cases="scaling", threads=1, size=SMALL)
    assert result.apart["scaling"] == {"skipped": "only one core is usable"}
    assert "not measured: scaling: only one core is usable" in printed(result)


def test_ratio_and_speed_up() -> None:
    row = row_of("max 2/2 NCHW forward", {"poolwise": 2.0, "PyTorch": 6.0})
    assert (row.ratio("poolwise"), row.speed_up("PyTorch"), row.ratio("JAX")) == (2.0, 3.0, None)
    assert geometric_mean([1.0, 4.0, None]) == pytest.approx(2.0)
    assert geometric_mean([None]) is None


def test_means_beside_their_goals() -> None:
    result = result_of(
        row_of("max 2/2 NCHW forward", {"poolwise": 1.0, "PyTorch": 8.0, "JAX": 8.0}),
        row_of("max 2/2 NHWC forward", {"poolwise": 1.21, "PyTorch": 8.0}),
        row_of("max 2/2 NCHW training", {"poolwise": 2.0}),
    )
    found = {(goal.what, goal.over): goal for goal in goals(result)}
    assert found["forward", "ruler"].measured == pytest.approx(1.1)
    assert (found["forward", "ruler"].goal, found["forward", "ruler"].met) == (1.15, True)
    assert found["forward", "PyTorch"].measured == pytest.approx(8 / 1.1)
    assert (found["forward", "JAX"].goal, found["forward", "JAX"].met) == (5, True)
    assert (found["training", "ruler"].goal, found["training", "ruler"].met) == (1.8, False)
    assert found["rows beyond their own goal", ""].measured == 1


def test_the_goals_of_the_literatures_operations() -> None:
    ratios: dict[str, float] = {"median 2/2 NCHW forward": 4, "blur 3/2 p1 NCHW forward": 1, "GeM 2/2 NCHW forward": 99}
    ratios["global max NCHW forward, 14x14"] = 2.6
    rows = [row_of(name, {"poolwise": ratio}) for name, ratio in ratios.items()]
    found = {(goal.what, goal.over): goal for goal in goals(result_of(*rows))}
    own = found["median, mode, soft, Lp, blur", "ruler"]
    assert (own.goal, own.measured, own.met) == (2.5, pytest.approx(2.0), True)
    assert found["adaptive, global", "ruler"].met is False
    assert (found["without a goal", "ruler"].goal, found["without a goal", "ruler"].met) == (None, None)
    beyond = found["rows beyond their own goal", ""]
    assert (beyond.measured, beyond.said) == (2, "of 3")


def test_the_largest_window_beside_the_smallest() -> None:
    result = result_of(
        row_of("max 3/1 p1 NCHW forward, large windows", {"poolwise": 1.0, "PyTorch": 20.0}),
        row_of("max 63/1 p31 NCHW forward, large windows", {"poolwise": 2.5, "PyTorch": 500.0}),
    )
    found = {(goal.what, goal.over): goal for goal in goals(result)}
    assert (found["max: window 63×63 over 3×3", ""].measured, found["max: window 63×63 over 3×3", ""].met) == (
        2.5,
        True,
    )
    assert found["windows 3 to 63", "PyTorch"].measured == pytest.approx(4000**0.5)


def test_a_busy_machine_is_told_of() -> None:
    row = row_of("max 2/2 NCHW forward", {"poolwise": 1.0})
    quiet, busy = (replace(result_of(row), load=load) for load in (0.1, 1.7))
    assert "was not quiet" not in printed(quiet)
    assert "was not quiet before (a load of 1.7)" in printed(busy)


def test_rows_where_a_peer_is_faster_are_named() -> None:
    result = result_of(
        row_of("max 2/2 NCHW forward", {"poolwise": 1.0, "PyTorch": 0.5, "JAX": 0.96}),
        row_of("max 2/2 NHWC forward", {"poolwise": 1.0, "PyTorch": 0.96}),
        row_of("max 2/2 NCHW tiny", {"poolwise": 1.9, "PyTorch": 1.0}),
    )
    assert behind(result) == {"max 2/2 NCHW forward": {"PyTorch": 2.0}}
    assert "max 2/2 NCHW forward" in printed(result).split("where a peer is more than 5 % faster")[-1]


def printed(result: library.Result, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    library.show(result, console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_terminal_holds_every_row(width: int, everybody: list[Contender]) -> None:
    rows = [
        row_of(
            case.name, {one.name: 10.0 if one.name == "poolwise" else 223.0 for one in everybody if one.serves(case)}
        )
        for case in CASES
    ]
    said = printed(result_of(*rows), width)
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= width
    assert all(title in said for title in SECTIONS.values())
    training = said[said.index("forward + backward") :].splitlines()[0]
    assert "TensorFlow" in training and "tinybrain" not in training
    assert ("(22×)" in said[said.index("forward, other dtypes") :][:500]) == (width > 80)


# Earlier runs


def test_compare_says_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compete(monkeypatch, contenders.PyTorch)
    file = tmp_path / "before.json"
    assert shell("--quick", "--cases", "max 2/2 NCHW*", "--json", str(file)).exit_code == 0
    report = json.loads(file.read_text())
    for row, factor in zip(report["rows"], (1e3, 1e-3), strict=False):
        row["contenders"]["poolwise"]["ratio"] *= factor
    file.write_text(json.dumps(report))
    done = shell("--quick", "--cases", "max 2/2 NCHW forward", "--compare", str(file))
    assert done.exit_code == 0, done.output
    assert "1 of 1 rows changed by more than 10%" in done.stdout
    assert "times as fast" in done.stdout and "times as slow" not in done.stdout
    done = shell("--quick", "--cases", "max 3/3 NCHW", "--compare", str(file))
    assert "No row of the file was measured now" in done.stdout


def test_a_change_of_ten_percent_is_noise() -> None:
    assert [library.Change("", 1.0, now).notable for now in (0.89, 0.91, 1.0, 1.09, 1.11)] == [True, *[False] * 3, True]


def test_the_kept_results_can_be_compared_with() -> None:
    then = library.earlier(RECORD)
    assert then.figures["max 2/2 NCHW forward", (32, 64, 112, 112)] == pytest.approx(1.59, abs=0.005)
    row = row_of("max 2/2 NCHW forward", {"poolwise": 1.0})
    assert [change.case for change in then.changes(result_of(row))] == [row.case.name]


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("{", "no JSON"), ("[1]", "another JSON"), ('{"rows": [{"case": 1}]}', "another JSON")],
)
def test_compare_refuses_what_is_no_benchmark(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    if text is not None:
        file.write_text(text)
    done = shell("--quick", "--compare", str(file))
    assert done.exit_code == 2
    assert "compare must be a file that `poolwise bench --json` wrote" in done.stderr and said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"), [(("--cases", "nothing"), "cases must match"), (("--threads", "4096"), "threads")]
)
def test_what_bench_refuses(words: tuple[str, ...], said: str) -> None:
    done = shell("--quick", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_cases_can_name_is_told_by_section() -> None:
    done = shell("--cases", "nothing*")
    assert all(title in done.stderr for title in SECTIONS.values())
    assert "poolwise bench --list" in done.stderr
    done = shell("--list")
    assert done.exit_code == 0
    parts = dict(part.split("\n", 1) for part in done.stdout.split("\n\n")[1:])
    assert list(parts) == [*SECTIONS.values(), "single numbers"]
    for case in CASES:
        told = " ".join(parts[SECTIONS[case.section]].split())
        assert f"{case.name.removeprefix(case.label).strip()}: " in told
        assert case.label in told


def test_a_section_can_be_asked_for() -> None:
    assert {case.section for case in matching("forward, in the cache")} == {"cache resident"}
    assert {case.section for case in matching("*median and mode")} == {"order"}


def test_faults_are_the_librarys() -> None:
    with pytest.raises(Fault, match="bench: threads must be between 1 and"):
        library.run(threads=0)
