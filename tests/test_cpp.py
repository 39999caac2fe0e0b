"""The C++ tests beside the kernels (csrc/tests/), with the very engine that the module holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where .venv has cmake and ninja


def shell(*command: str | Path) -> str:
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, "PATH": TOOLS}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def engine() -> tuple[str, ...]:
    """The newest that an editable installation left; without one, what every processor runs is built here."""
    built = sorted(ROOT.glob("build/cp*/libengine.a"), key=lambda path: path.stat().st_mtime)
    return (f"-DPOOLWISE_ENGINE={built[-1]}",) if built else ("-DPOOLWISE_ONE_SET=ON",)


@pytest.mark.slow
def test_the_cpp_tests_pass(tmp_path: Path) -> None:
    options = ("-DPOOLWISE_TESTS=ON", "-DPOOLWISE_OPTIMIZE=-O1", *engine())
    shell("cmake", "-G", "Ninja", "-S", ROOT, "-B", tmp_path, *options)
    shell("cmake", "--build", tmp_path)
    said = shell("ctest", "--test-dir", tmp_path, "--output-on-failure")
    assert "100% tests passed" in said and "Test #3" in said
