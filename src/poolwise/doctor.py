"""What this installation is made of, and whether its kernels tell the truth."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from poolwise import _native
from poolwise._version import __version__
from poolwise.call import Call, Kernel
from poolwise.choose import ALL
from poolwise.doors import NUMPY
from poolwise.geometry import Geometry
from poolwise.op import Array, Operation, Selection
from poolwise.ops import OPERATIONS
from poolwise.reference import Reference
from poolwise.threads import get_num_threads

# Each package that poolwise works with -> the extra that brings it ("": none does), and the distributions it comes in.
PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch": ("torch", ("torch",)),
    "jax": ("jax", ("jax",)),
    "keras": ("keras", ("keras",)),
    "tensorflow": ("", ("tensorflow", "tensorflow-cpu", "tensorflow-macos")),
    "onnx": ("", ("onnx",)),
    "onnxruntime": ("", ("onnxruntime", "onnxruntime-gpu")),
    "dask": ("dask", ("dask",)),
    "mlxtend": ("lab", ("mlxtend",)),
    "matplotlib": ("lab", ("matplotlib",)),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-13}  # relative and absolute; the cases' values are at most 10
CHECKS = ("forward", "gradient", "indices")


@dataclass(frozen=True)
class Machine:
    """The facts a number depends on. caches: bytes by name, as the system reports them, where it does."""

    date: str
    platform: str
    processor: str
    cores: int
    usable_cores: int
    threads: int
    caches: dict[str, int]
    python: str
    numpy: str
    poolwise: str
    instruction_set: str
    instruction_sets: tuple[str, ...]


@dataclass(frozen=True)
class Package:
    """A package that poolwise works with. version: "" where it is not installed."""

    name: str
    version: str
    install: str
    note: str = ""


@dataclass(frozen=True)
class Check:
    """One kernel on one small case. problem: "" where its result is the reference's."""

    kernel: str
    what: str
    case: str
    problem: str


@dataclass(frozen=True)
class Report:
    """Everything `poolwise doctor` says. refused: the kernels that NumPy's arrays do not reach, with the reason."""

    machine: Machine
    packages: tuple[Package, ...]
    checks: tuple[Check, ...]
    refused: dict[str, str]

    @property
    def healthy(self) -> bool:
        """Whether every kernel agrees with the reference, and at least one ran."""
        return bool(self.checks) and not any(check.problem for check in self.checks)

    def data(self) -> dict[str, Any]:
        """The same as JSON's own types."""
        return {**asdict(self), "healthy": self.healthy}


def examine() -> Report:
    """The machine, the packages beside poolwise, and the self-check.

    >>> examine().healthy
    True
    """
    checks, refused = self_check()
    return Report(machine(), packages(), tuple(checks), refused)


def machine() -> Machine:
    """What this process runs on."""
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        platform=platform.platform(aliased=True),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        threads=get_num_threads(),
        caches=_caches(),
        python=platform.python_version(),
        numpy=np.__version__,
        poolwise=__version__,
        instruction_set=instruction_set(),
        instruction_sets=instruction_sets(),
    )


def instruction_set() -> str:
    """The instruction set that the native module uses here; "" where it does not say."""
    ask = getattr(_native, "instruction_set", None)
    return str(ask()) if ask else ""


def instruction_sets() -> tuple[str, ...]:
    """Those that the native module was compiled for and this machine has."""
    ask = getattr(_native, "instruction_sets", None)
    return tuple(map(str, ask())) if ask else ()


def usable_cores() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def packages() -> tuple[Package, ...]:
    """The frameworks' versions, read from their metadata: none is imported."""
    return tuple(_package(name, *facts) for name, facts in PACKAGES.items())


def _package(name: str, extra: str, distributions: Sequence[str]) -> Package:
    install = f'pip install "poolwise[{extra}]"' if extra else f"pip install {name}"
    found = next((have for have in map(version_of, distributions) if have), "")
    note = f"backend {keras_backend()}" if name == "keras" and found else ""
    return Package(name, found, "" if found else install, note)


def keras_backend() -> str:
    """The backend that Keras would take: the environment's, else the configuration file's, else Keras's default."""
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        configured = json.loads((folder / "keras.json").read_text()).get("backend")
    except (OSError, ValueError, AttributeError):
        configured = None
    return os.environ.get("KERAS_BACKEND") or configured or "tensorflow"


def version_of(distribution: str) -> str:
    """An installed distribution's version, "" where there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The processor's name, where the system tells."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        named = [line for line in facts.read_text(errors="replace").splitlines() if line.startswith("model name")]
        if named:
            return named[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _caches() -> dict[str, int]:
    """Sizes in bytes of the first processor's data caches, where the system tells."""
    sizes: dict[str, int] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[f"L{level}"] = 1024 * int(size[:-1])
    return sizes


def self_check() -> tuple[list[Check], dict[str, str]]:
    """Every kernel that serves NumPy's arrays on small cases against the reference, and why the others do not."""
    checks: list[Check] = []
    refused: dict[str, str] = {}
    judge = Reference()
    for kernel in (kernel for kernel in ALL if kernel.name != judge.name):
        reasons: list[str] = []
        for call, x in _cases():
            reason = kernel.refusal(call)
            if reason is None:
                checks += _compared(kernel, judge, call, x)
            else:
                reasons.append(reason)
        if not any(check.kernel == kernel.name for check in checks):
            refused[kernel.name] = reasons[0]
    return checks, refused


def _cases() -> Iterator[tuple[Call, Array]]:
    """Each operation without obligatory parameters or arrays, in both memory orders, with padding, NaN, an odd size."""
    draws = np.random.default_rng(0)
    for kind in OPERATIONS:
        for dtype, axes in (("float32", (2, 3)), ("float64", (1, 2))):
            x = draws.uniform(-10, 10, (2, 3, 7, 5)).astype(dtype)
            x[0, 1, 2, 3] = np.nan
            geometry = Geometry.of(x.shape, axes, window=(3, 2), stride=(2, 1), padding=1)
            op = _made(kind)
            if op is not None and op.refusal(geometry) is None:
                yield Call(op, geometry, NUMPY.framework, (dtype,), (0, 1, 2, 3), keep=True), x


def _made(kind: type[Operation]) -> Operation | None:
    try:
        op = kind()
    except TypeError:
        return None
    return None if op.operands else op


def _compared(kernel: Kernel, judge: Reference, call: Call, x: Array) -> Iterator[Check]:
    for what in CHECKS:
        if what == "indices" and not isinstance(call.op, Selection):
            continue
        case = f"{call.op!r} {call.dtype} axes {call.geometry.axes}"
        yield Check(kernel.name, what, case, _problem(kernel, judge, call, x, what))


def _problem(kernel: Kernel, judge: Reference, call: Call, x: Array, what: str) -> str:
    """What is wrong with the kernel's answer, "" for nothing."""
    try:
        got, expected = np.asarray(_answer(kernel, call, x, what)), _answer(judge, call, x, what)
    except Exception as fault:  # whatever it is, the report must name it and go on
        return f"{type(fault).__name__}: {fault}"
    if got.shape != expected.shape:
        return f"shape {got.shape} instead of {expected.shape}"
    wrong = _differ(got, expected)
    if not wrong.any():
        return ""
    at = tuple(map(int, np.argwhere(wrong)[0]))
    return f"{int(wrong.sum())} of {wrong.size} values differ, the first at {at}: {got[at]}, not {expected[at]}"


def _differ(got: Array, expected: Array) -> Array:
    """Where two arrays differ; NaN equals NaN."""
    tolerance = TOLERANCE.get(expected.dtype.name, 0.0)
    return ~np.isclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def _answer(kernel: Kernel, call: Call, x: Array, what: str) -> Array:
    y, kept = kernel.forward((x,), call)
    if what == "forward":
        return y
    if what == "indices":
        return kernel.indices(kept, call)
    g = np.random.default_rng(1).uniform(-1, 1, y.shape).astype(y.dtype)
    return kernel.backward(g, kept, call)[0]


def facts_table(facts: Machine) -> Table:
    """The machine, a fact a line."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, said in machine_lines(facts):
        grid.add_row(name, said)
    return grid


def machine_lines(facts: Machine) -> list[tuple[str, str]]:
    """The machine's facts as words."""
    others = [name for name in facts.instruction_sets if name != facts.instruction_set]
    sets = facts.instruction_set + (f" (also {', '.join(others)})" if others else "")
    caches = ", ".join(f"{name} {_bytes(size)}" for name, size in facts.caches.items())
    return [
        ("poolwise", f"{facts.poolwise}, native code for {sets or 'an unnamed instruction set'}"),
        ("Python", f"{facts.python}, NumPy {facts.numpy}"),
        ("platform", facts.platform),
        ("processor", f"{facts.processor}; {facts.usable_cores} of {facts.cores} cores, {facts.threads} threads"),
        ("caches", caches or "not reported"),
        ("date", facts.date),
    ]


def packages_table(found: Sequence[Package]) -> Table:
    """Each package with its version, or how to get it."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column("package", no_wrap=True)
    grid.add_column("version", no_wrap=True)
    grid.add_column("")
    for package in found:
        missing = escape(f"install it with: {package.install}")
        grid.add_row(package.name, package.version or "–", package.note if package.version else missing)
    return grid


def checks_table(report: Report) -> Table:
    """Each kernel with the outcome of its cases."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column("kernel", no_wrap=True)
    for what in CHECKS:
        grid.add_column(what, no_wrap=True)
    for kernel in dict.fromkeys(check.kernel for check in report.checks):
        done = [check for check in report.checks if check.kernel == kernel]
        grid.add_row(kernel, *(_outcome([check for check in done if check.what == what]) for what in CHECKS))
    return grid


def _outcome(checks: Sequence[Check]) -> str:
    failed = sum(bool(check.problem) for check in checks)
    if not checks:
        return "–"
    return f"[red]FAIL {failed} of {len(checks)}[/red]" if failed else f"[green]pass[/green] {len(checks)}"


def _bytes(size: int) -> str:
    """A size in KiB or MiB."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def show(report: Report, console: Console) -> None:
    """The report, printed."""
    console.print(facts_table(report.machine))
    console.print()
    console.print(packages_table(report.packages))
    console.print()
    console.print(checks_table(report))
    for kernel, reason in report.refused.items():
        console.print(f"{kernel} is not checked here: {reason}.", markup=False)
    for check in report.checks:
        if check.problem:
            console.print(f"{check.kernel}, {check.what}, {check.case}: {check.problem}", markup=False, soft_wrap=True)
    if report.healthy:
        console.print(f"\n{len(report.checks)} checks passed.", highlight=False)
