"""Random calls: the native kernel against the reference, and the judge against kernels with one thing wrong."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings

import soak
from poolwise import Mean, Sum, _native, get_num_threads
from poolwise.call import Call
from poolwise.kernels.gathered import Gathered
from poolwise.kernels.native import Native
from poolwise.op import DTYPES, FLOATS, INTEGERS, Selection
from soak import (
    CASES,
    MASKS,
    MEMORY,
    OPERATIONS,
    THREADS,
    UNHURRIED,
    Case,
    Disagreement,
    Figures,
    case_from,
    judge,
    work_of,
)

QUICK = settings(max_examples=300, suppress_health_check=UNHURRIED)
# One that the native kernel serves and in which every lie below shows: windows that overlap, ties, two dimensions
PLAIN = Case(
    op="Max()",
    kind="sliding",
    shape=(2, 7, 9),
    arguments={"window": [3, 2], "stride": [2, 1], "padding": [[1, 1], [0, 1]], "axes": [1, 2]},
    dtype="float32",
    values="special",
    seed=3,
    memory="C order",
    mask="none",
    keep=True,
    gradient="C order",
    copies=1,
    front=True,
    threads=2,
    instruction_set=_native.instruction_sets()[0],
)


@QUICK
@given(CASES)
def test_native_gives_what_the_reference_gives_in_every_case_that_it_serves(case: Case) -> None:
    judge(case, Native())


@QUICK
@given(CASES)
def test_native_refuses_none_of_these(case: Case) -> None:
    assert Native().refusal(work_of(case).call) is None


class Liar(Gathered):
    """A kernel with one thing wrong with it."""

    def __init__(self, lie: str) -> None:
        self.lie = lie

    def forward(self, operands: Sequence[Any], call: Call) -> tuple[Any, Any]:
        if self.lie == "forgets the mask" and call.masked:
            operands = (operands[0], np.ones_like(operands[1]))
        y, kept = super().forward(operands, call)
        if self.lie == "drops NaN" and y.dtype.kind == "f":
            y = np.nan_to_num(y, nan=0, posinf=np.inf, neginf=-np.inf)
        if self.lie == "one element off":
            y.reshape(-1)[-1:] += y.dtype.type(1)
        if self.lie == "eight units off" and y.dtype.kind == "f" and not isinstance(call.op, Selection):
            y = y + 8 * np.spacing(y)
        if self.lie == "a neighbouring copy":
            y = np.roll(y, 1, axis=0)
        if self.lie == "another dtype" and y.dtype == np.float16:
            y = y.astype(np.float32)
        if self.lie == "zeros of another sign on seven threads" and y.dtype.kind == "f" and get_num_threads() == 7:
            y = np.where(y == 0, -np.abs(y), y)
        if self.lie == "writes to its input" and operands[0].flags.writeable:
            operands[0].reshape(-1)[-1:] = 1
        return y, kept

    def backward(self, g: Any, kept: Any, call: Call) -> tuple[Any, ...]:
        gradient = np.array(super().backward(g, kept, call)[0])
        if self.lie == "gradient twice":
            gradient *= gradient.dtype.type(2)
        if self.lie == "gradient to the neighbour":
            gradient = np.roll(gradient, 1, axis=-1)
        return (gradient,)

    def indices(self, kept: Any, call: Call) -> Any:
        flat = super().indices(kept, call)
        return np.where(flat >= 0, flat, 0) if self.lie == "an index where nobody won" else flat


LIES = [
    "forgets the mask",
    "drops NaN",
    "one element off",
    "eight units off",
    "a neighbouring copy",
    "another dtype",
    "zeros of another sign on seven threads",
    "writes to its input",
    "gradient twice",
    "gradient to the neighbour",
    "an index where nobody won",
]


def case_of(fault: str) -> Case:
    """The case in a fault's `--repeat`."""
    return case_from(shlex.split(fault.rpartition("--repeat")[2])[0])


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_kernel_is_found_out(lie: str) -> None:
    figures = Figures()
    soak.searched(Liar(lie), 1500, 0, figures, phases=[Phase.generate])
    (fault,) = figures.faults
    assert "Disagreement" in fault
    judge(case_of(fault), Liar(""))  # it is the lie that was found


def test_an_honest_kernel_is_not() -> None:
    assert judge(PLAIN, Liar("")).compared > 0
    assert judge(replace(PLAIN, copies=5, mask="full", dtype="bfloat16"), Liar("")).compared > 0


def test_a_fault_is_shrunk_and_can_be_repeated() -> None:
    class NoUnsigned(Gathered):
        """Wrong for unsigned integers of more than two axes only."""

        def forward(self, operands: Sequence[Any], call: Call) -> tuple[Any, Any]:
            y, kept = super().forward(operands, call)
            wrong = call.dtype.startswith("u") and len(call.geometry.shape) > 2 and y.size
            return y + y.dtype.type(1) if wrong else y, kept

    figures = Figures()
    soak.searched(NoUnsigned(), 400, 0, figures)
    (fault,) = figures.faults
    case = case_of(fault)
    assert len(work_of(case).full[0].shape) == 3
    assert case.copies == 1 or len(case.shape) == 2
    with pytest.raises(Disagreement):
        judge(case, NoUnsigned())
    assert figures.cases < 400, "what is judged while shrinking is not counted"


def test_the_instruction_set_and_the_threads_are_as_before_afterwards() -> None:
    before = _native.instruction_set(), get_num_threads()
    for name in _native.instruction_sets():
        judge(replace(PLAIN, instruction_set=name, threads=7), Native())
    assert (_native.instruction_set(), get_num_threads()) == before


def test_the_strategy_reaches_every_kind_of_everything() -> None:
    seen: dict[str, set[str]] = {}

    @settings(QUICK, max_examples=1000, phases=[Phase.generate])
    @given(CASES)
    def draw(case: Case) -> None:
        for facet, value in case.facets().items():
            seen.setdefault(facet, set()).add(value)

    draw()
    assert seen["operation"] == set(OPERATIONS)
    assert seen["dtype"] == set(DTYPES)
    assert seen["memory"] == set(MEMORY)
    assert seen["mask"] == set(MASKS)
    assert seen["pooled axes"] == set("1234")
    assert seen["threads"] == set(map(str, THREADS))
    assert seen["instruction set"] == set(_native.instruction_sets())
    assert seen["copies"] == {"1", "a few", "enough to share"}
    assert seen["values"] == {*soak.FLOAT_VALUES, *soak.INTEGER_VALUES}
    sliding = {f"sliding, {mode}" for mode in soak.PADDING_MODES}
    assert seen["geometry"] == {*sliding, "adaptive, overlapping", "adaptive, disjoint", "global, whole"}


@pytest.mark.parametrize("memory", MEMORY)
def test_a_place_in_memory_is_what_its_name_says(memory: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5)).astype("float32")
    stored = soak.stored(x, memory, 1)
    facts = {
        "C order": stored.flags.c_contiguous,
        "F order": stored.flags.f_contiguous,
        "channels last": stored.strides[1] == 4,
        "permuted": sorted(stored.strides)[0] == 4,
        "negative strides": max(stored.strides) < 0,
        "every second": not stored.flags.forc,
        "broadcast": 0 in stored.strides,
        "unaligned": not stored.flags.aligned,
        "read-only": not stored.flags.writeable,
    }
    assert facts[memory]
    assert memory == "broadcast" or np.array_equal(stored, x)


def test_the_sample_of_many_copies_is_their_first_two_and_they_differ() -> None:
    for front in (True, False):
        case = replace(PLAIN, copies=9, front=front, values="normal")
        (x,), (few,) = work_of(case).full, work_of(case).sample
        x, few = (np.moveaxis(array, 0 if front else -1, 0) for array in (x, few))
        assert len(x) == 9
        assert len(few) == 2
        assert not np.array_equal(few[0], few[1])
        for number, copy in enumerate(x):
            np.testing.assert_array_equal(copy, few[number % 2])


def test_sums_are_judged_more_strictly_than_a_unit_per_tap() -> None:
    case = replace(PLAIN, op="Sum()", values="normal", arguments={"window": [7, 9], "axes": [1, 2]})
    bound = soak._bound(work_of(case))
    total = np.abs(work_of(case).sample[0]).astype(float).sum((1, 2))
    np.testing.assert_allclose(bound.reshape(-1), 4 * np.finfo(np.float32).eps * total, rtol=1e-12)


def test_only_a_sum_that_may_overflow_is_left_open() -> None:
    for values, some in (("normal", False), ("extreme", True)):
        case = replace(PLAIN, op="Sum()", values=values)
        assert (judge(case, Gathered()).undecided > 0) == some


def test_integers_and_selections_are_judged_exactly() -> None:
    for op in (Sum(), Mean(), *(op for op in OPERATIONS.values() if isinstance(op, Selection))):
        for dtype in INTEGERS:
            case = replace(PLAIN, op=repr(op), dtype=dtype, values="ties")
            with pytest.raises(Disagreement):
                judge(case, Liar("one element off"))


def test_the_command_runs_cases_and_writes_their_figures(tmp_path: Path) -> None:
    output = tmp_path / "figures.md"
    options = ["--cases", "40", "--jobs", "2", "--seed", "7", "--output", str(output)]
    command = [sys.executable, soak.__file__, *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    text = output.read_text()
    assert "--cases 40 --seed 7" in text
    assert "| cases | 40 |" in text
    assert "## Faults: 0" in text
    assert text in done.stdout


def test_a_process_that_a_signal_ends_is_a_fault_with_its_last_case(tmp_path: Path) -> None:
    path = tmp_path / "0.json"
    soak.soak_alone(Gathered(), 3, 0, path)
    last = case_from(path.with_suffix(".last").read_text())
    assert soak.reported(0, path).faults == []
    figures = soak.reported(-11, path)
    assert figures.cases == 3
    assert len(figures.faults) == 1
    assert "status -11" in figures.faults[0]
    assert json.loads(last.text())["seed"] == last.seed
    assert str(last.seed) in figures.faults[0]


def test_figures_survive_the_way_between_processes(tmp_path: Path) -> None:
    class Choosy(Gathered):
        """Refuses floats."""

        def refusal(self, call: Call) -> str | None:
            return f"it takes no {call.dtype}" if call.dtype in FLOATS else None

    path = tmp_path / "0.json"
    figures = soak.soak_alone(Choosy(), 20, 1, path)
    read = soak.reported(0, path)
    assert read == figures
    read.add(figures)
    assert read.cases == 40
    assert sum(read.drawn["dtype"].values()) == 40
    assert sum(read.reasons.values()) == read.refused == sum(read.drawn["dtype"][name] for name in FLOATS) > 0
    assert sum(read.served["dtype"].values()) == read.cases - read.refused
