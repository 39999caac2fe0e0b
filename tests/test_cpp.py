"""The C++ tests beside the kernels (csrc/tests/), with the engine that was built for the module."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from poolwise import _native

ROOT = Path(__file__).parents[1]
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where .venv has cmake and ninja


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": TOOLS, **environment}
    return subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, check=False)


def shell(*command: str | Path, **environment: str) -> str:
    done = run(*command, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def engine() -> tuple[str, ...]:
    """What this Python's editable installation left, if it is newer than the source; else one set is built here."""
    changed = max(path.stat().st_mtime for path in (ROOT / "csrc").glob("*.*"))
    for built in ROOT.glob(f"build/cp{sys.version_info.major}{sys.version_info.minor}-*/libengine.a"):
        if built.stat().st_mtime > changed:
            return (f"-DPOOLWISE_ENGINE={built}",)
    assert not os.environ.get("CI"), "the module was built for these tests, and left no engine"
    return "-DPOOLWISE_ONE_SET=ON", "-DPOOLWISE_OPTIMIZE=-O1"


@pytest.mark.slow
def test_the_cpp_tests_pass(tmp_path: Path) -> None:
    shell("cmake", "-G", "Ninja", "-S", ROOT, "-B", tmp_path, "-DPOOLWISE_TESTS=ON", *engine())
    shell("cmake", "--build", tmp_path)
    said = shell("ctest", "--test-dir", tmp_path, "--output-on-failure")
    assert "100% tests passed" in said and "Test #3" in said


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="one instruction set")
def test_native_is_the_best_instruction_set_of_this_machine_and_the_default_all(tmp_path: Path) -> None:
    configure = ("cmake", "-G", "Ninja", "-S", ROOT, "-B", tmp_path, "-DPOOLWISE_TESTS=ON")
    every = {"x86_64_v2", "x86_64_v3", "x86_64_v4"}
    for sets, wanted in (("native", {_native.instruction_sets()[-1].replace("-", "_")}), ("", every)):
        shell(*configure, POOLWISE_SETS=sets)
        assert set(re.findall(r"kernels_(x86_64_v\d)\.dir", (tmp_path / "build.ninja").read_text())) == wanted
    refused = run(*configure, POOLWISE_SETS="avx")
    assert refused.returncode and "POOLWISE_SETS must be native" in refused.stderr and "got avx" in refused.stderr
