"""The C++ tests beside the kernels (csrc/tests/), for what every processor runs; `make ctest` builds every set."""

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


@pytest.mark.slow
def test_the_cpp_tests_pass(tmp_path: Path) -> None:
    options = ("-DPOOLWISE_TESTS=ON", "-DPOOLWISE_ONE_SET=ON", "-DPOOLWISE_OPTIMIZE=-O1")
    shell("cmake", "-G", "Ninja", "-S", ROOT, "-B", tmp_path, *options)
    shell("cmake", "--build", tmp_path)
    said = shell("ctest", "--test-dir", tmp_path, "--output-on-failure")
    assert "100% tests passed" in said and "Test #3" in said
