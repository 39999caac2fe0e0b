"""The benchmark's workings: what it compares, whom it refuses, what it reports. Nothing here asserts a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import poolwise
from poolwise import Fault, Max
from poolwise import bench as library
from poolwise.bench import CASES, Attempt, Contender, Size, contenders
from poolwise.bench.cases import Problem, made
from poolwise.bench.measure import Row, geometric_mean, in_turns
from poolwise.cli import app
from poolwise.reference import Reference

SMALL = Size("small", 2, 3, 14, 3, 3)


def shell(*words: str) -> Result:
    return CliRunner().invoke(app, ["bench", *words])


def small(task: str = "forward", layout: str = "NCHW") -> Problem:
    case = next(case for case in CASES if (case.label, case.layout, case.task) == ("max 3/2 p1", layout, task))
    return Problem(case, made(case, SMALL))


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


class Absent(contenders.PyTorch):
    """A framework that nobody has."""

    name = "Absent"
    needs = ("no_such_framework",)


def compete(monkeypatch: pytest.MonkeyPatch, *others: type[Contender]) -> None:
    kinds = (contenders.Poolwise, contenders.PoolwiseNumPy, *others)
    monkeypatch.setattr(contenders.present, "__defaults__", (kinds,))


def test_quick_on_one_case_writes_every_number(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    done = shell("--quick", "--cases", "max 2/2 NCHW forward", "--json", str(target))
    assert done.exit_code == 0, done.output
    report = json.loads(target.read_text())
    assert report.keys() == {
        "poolwise",
        "machine",
        "threads",
        "tutorial",
        "size",
        "versions",
        "missing",
        "rows",
        "geometric_means",
    }
    (row,) = report["rows"]
    assert row["case"] == "max 2/2 NCHW forward"
    assert row["bytes"] == 4 * (row["shape"][0] * row["shape"][1] * 112 * 112) * 5 // 4
    ours = row["contenders"]["poolwise"]
    assert ours["ratio"] == pytest.approx(ours["median"] / row["ideal"])
    assert ours["fastest"] <= ours["median"] <= ours["slowest"]
    assert row["ideal"] == pytest.approx(row["bytes"] / row["ruler_bytes_per_second"])
    assert {"poolwise", "PyTorch"} <= row["contenders"].keys()


def test_a_tiny_call_is_compared_with_pytorch() -> None:
    result = library.run(cases="tiny", size=SMALL)
    assert [row.case.task for row in result.rows] == ["tiny", "tiny recorded"]
    assert all(row.time("poolwise") and row.time("PyTorch") and row.ideal is None for row in result.rows)


@pytest.mark.parametrize("case", [case for case in CASES if case.label != "avg 2/2"], ids=lambda case: case.name)
def test_every_contender_answers_every_case_rightly(case: Any) -> None:
    result = library.run(cases=case.name, size=SMALL)
    (row,) = [row for row in result.rows if row.case == case]
    assert {name: entry.refused for name, entry in row.entries.items() if entry.refused} == {}
    assert "poolwise" in row.entries


def test_a_contender_whose_output_is_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compete(monkeypatch, contenders.PyTorch, Lying)
    done = shell("--quick", "--cases", "max 2/2 NCHW forward")
    assert done.exit_code == 0, done.output
    assert "wrong" in done.stdout
    assert "not timed: Liar on max 2/2 NCHW forward: its output is wrong by up to 0.25" in done.stdout


def test_a_missing_gradient_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compete(monkeypatch, Short)
    result = library.run(cases="max 2/2 NCHW training", size=SMALL)
    assert result.rows[0].entries["Short"].refused == "it gives 1 outputs instead of 2"
    assert result.rows[0].time("Short") is None
    assert result.sound


def test_our_own_wrong_output_ends_in_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lying, "name", "poolwise")
    monkeypatch.setattr(contenders.present, "__defaults__", ((Lying,),))
    monkeypatch.setattr(library, "QUICK", SMALL)
    assert shell("--quick", "--cases", "max 2/2 NCHW forward").exit_code == 1


def test_a_peer_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    compete(monkeypatch, Absent)
    monkeypatch.setattr(library, "QUICK", SMALL)
    done = shell("--quick", "--cases", "max 2/2 NCHW forward")
    assert "missing: Absent (pip install no_such_framework)" in done.stdout


def test_without_pytorch_poolwise_is_measured_on_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders.Poolwise, "needs", ("no_such_framework",))
    compete(monkeypatch)
    result = library.run(cases="max 2/2 NHWC", size=SMALL)
    assert [row.case.task for row in result.rows if row.time("poolwise")] == ["forward"]
    assert result.missing == {}
    assert result.sound


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("label", ["max 2/2", "max 3/2 p1", "max 3/1 p1", "avg 2/2", "avg 3/2 p1"])
def test_the_right_answers_are_the_references(label: str, layout: str) -> None:
    case = next(c for c in CASES if (c.label, c.layout, c.task) == (label, layout, "training"))
    data = made(case, Size("tiny", 1, 2, 14, 1, 1))
    window = (case.window,) * 2
    options: dict[str, Any] = {"stride": case.stride, "padding": case.padding, "axes": case.axes}
    expected = poolwise.pool(data.x, case.op, window, **options, kernel="reference")
    np.testing.assert_allclose(data.output, expected, rtol=1e-6, atol=1e-6)
    call = poolwise.explain(data.x, case.op, window, **options).call
    judge = Reference()
    _, kept = judge.forward((data.x,), call)
    np.testing.assert_allclose(data.gradient, judge.backward(data.g, kept, call)[0], rtol=1e-6, atol=1e-6)


def test_no_window_holds_a_value_twice() -> None:
    problem = small()
    windows = np.lib.stride_tricks.sliding_window_view(problem.x, (3, 3), axis=(2, 3)).reshape(-1, 9)
    assert all(len(np.unique(window)) == 9 for window in windows)


def test_bytes_that_must_move() -> None:
    x, g = 4 * 2 * 3 * 14 * 14, 4 * 2 * 3 * 7 * 7
    assert small("forward").bytes == x + g
    assert small("indices").bytes == x + g + g // 4
    assert small("training").bytes == 2 * (x + g + g // 4)


def test_every_round_asks_everybody_after_a_warm_up() -> None:
    asked: list[str] = []
    times = in_turns({name: lambda name=name: asked.append(name) for name in "abc"}, 3, 2)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(asked.count(name) == (3 + 1) * 2 for name in "abc")
    assert [asked[n] for n in range(6, 24, 6)] == ["a", "b", "c"]


def test_ratio_and_speed_up() -> None:
    case = small().case
    entries = {"poolwise": library.Entry(2.0, 2.0, 2.0), "PyTorch": library.Entry(6.0, 6.0, 6.0)}
    row = Row(case, (1,), 10, 1.25, 1.0, 10.0, entries)
    assert (row.ratio("poolwise"), row.speed_up("PyTorch"), row.ratio("JAX")) == (2.0, 3.0, None)
    assert geometric_mean([1.0, 4.0, None]) == pytest.approx(2.0)
    assert geometric_mean([None]) is None


@pytest.mark.parametrize(
    ("words", "said"), [(("--cases", "nothing"), "cases must match"), (("--threads", "4096"), "threads")]
)
def test_what_bench_refuses(words: tuple[str, ...], said: str) -> None:
    done = shell("--quick", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(isinstance(case.op, Max) for case in CASES if case.task == "indices")


def test_faults_are_the_librarys() -> None:
    with pytest.raises(Fault, match="bench: threads must be between 1 and"):
        library.run(threads=0)
