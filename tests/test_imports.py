"""The rooms: which file may import which, read from the imports themselves; and what importing poolwise loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import poolwise

ROOT = Path(poolwise.__file__).parent
BASE = {"errors", "geometry", "op", "ops", "call"}
API = BASE | {"reference", "choose", "kernels", "doors", "memory", "threads", "_version", "_native", "api"}
FRAMEWORKS = {"torch", "jax", "keras", "tensorflow", "dask", "onnx", "array_api_compat"}

# room -> the rooms of poolwise that it may import
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "_version": set(),
    "geometry": {"errors"},
    "op": {"errors", "geometry"},
    "ops": {"errors", "geometry", "op"},
    "call": {"errors", "geometry", "op"},
    "reference": {"call", "geometry", "op"},
    "threads": {"errors", "_native"},
    "kernels": {"call", "op", "errors", "geometry", "kernels", "_native"},
    "choose": {"call", "errors", "kernels", "reference"},
    "memory": {"_native"},
    "doors": {"call", "op", "errors", "geometry", "memory"},
    "api": API,
    "unpool": API,
    "named": {"errors"},
    "models": API | {"named", "keras"},  # a file may hold the layers of the Keras door
    "compose": API,
    "torch": API | {"torch", "unpool", "compose"},
    "keras": API | {"keras", "compose"},
    "__init__": API | {"unpool", "compose"},
    "doctor": API,  # it asks every kernel
}
PUBLIC = {
    "",
    "named",
    "models",
    "api",
    "unpool",
    "compose",
    "errors",
    "torch",
    "keras",
    "ops",
    "__init__",
    "design",
    "explorer",
    "lab",
    "bench",
    "doctor",
    "cli",
    "_version",
}
ROOMS["design"] = PUBLIC - {"explorer", "lab", "bench", "doctor", "cli"} | {"geometry"}
# one file -> the rooms that it alone of its room may import
FILES = {"design/html.py": {"explorer"}}  # the page of a review shows the explorer; nothing else of the room loads it


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "static" not in path.parts)


def imported(path: Path) -> set[str]:
    """The modules that a file imports at run time, whole names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def wrong_imports(path: Path, names: set[str]) -> set[str]:
    """The imports of a file that its room may not have."""
    inside = {name.split(".")[1] for name in names if name.startswith("poolwise.")}
    inside = {name for name in inside if (ROOT / name).is_dir() or list(ROOT.glob(f"{name}.*"))}
    room = room_of(path)
    allowed = ROOMS.get(room, PUBLIC | {room, "geometry", "op", "_native"})
    outside = {name.split(".")[0] for name in names} & FRAMEWORKS
    own = {"torch": {"torch", "array_api_compat"}, "keras": FRAMEWORKS, "design": FRAMEWORKS, "models": FRAMEWORKS}
    foreign = outside - own.get(room, FRAMEWORKS if room not in ROOMS else set())
    return (inside - allowed - FILES.get(path.relative_to(ROOT).as_posix(), set()) - {room}) | foreign


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stay_in_their_direction(path: Path) -> None:
    assert wrong_imports(path, imported(path)) == set()


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("geometry.py", "poolwise.api.pool"),
        ("design/review.py", "poolwise.explorer.Explorer"),
        ("ops/max.py", "poolwise.kernels.native"),
        ("api.py", "torch"),
    ],
)
def test_an_import_against_the_direction_is_seen(room: str, name: str) -> None:
    assert wrong_imports(ROOT / room, {name})


def test_importing_poolwise_loads_numpy_and_nothing_else() -> None:
    program = (
        "import sys, numpy; before = set(sys.modules); import poolwise; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - {'numpy'}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) == {"poolwise"}


def test_all_of_kernels_but_gathered_can_go() -> None:
    program = (
        "import numpy as np, poolwise, poolwise.choose as choose; "
        "choose.ALL = tuple(k for k in choose.ALL if k.name in ('gathered', 'reference')); "
        "kernel = poolwise.explain(np.eye(4), poolwise.Max(), (2, 2)).kernel; "
        "print(poolwise.max_pool(np.eye(4, dtype='f4'), (2, 2)).tolist(), kernel)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[1.0, 0.0], [0.0, 1.0]] gathered"
