"""Which code, which machine: what a number needs beside it to be believed."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import poolwise

PACKAGE = Path(poolwise.__file__).parent
# Parts that show or start runs, but have no hand in a run's numbers
# (but for the two files of the review that the lab measures with)
MEASURING = {("design", "shifts.py"), ("design", "retention.py")}
APART = {"bench", "design", "explorer", "keras", "jax", "dask", "cli.py", "doctor.py", "__main__.py"}
SHOWING = {"claims.py", "figures.py", "pictures.py", "report.py", "statistics.py", "store.py", "summary.py"}
SHOWING |= {
    "schedule.py",
    "terminal.py",
    "templates",
    "provenance.py",
    "measures.py",
    "svg.py",
    "runner.py",
    "__init__.py",
}


@lru_cache(maxsize=1)
def code_version() -> str:
    """A content hash of everything that a run's numbers come from: poolwise, compiled parts included, and PyTorch."""
    hasher = hashlib.sha256(f"{poolwise.__version__} torch {torch.__version__}".encode())
    for path in sorted(computing_files()):
        hasher.update(path.relative_to(PACKAGE).as_posix().encode())
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def computing_files() -> Iterator[Path]:
    for path in PACKAGE.rglob("*"):
        parts = path.relative_to(PACKAGE).parts
        shows = parts[0] == "lab" and parts[1:2] and parts[1] in SHOWING
        apart = parts[0] in APART and parts not in MEASURING
        if path.suffix in (".py", ".so", ".pyd") and not apart and not shows:
            yield path


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts() -> dict[str, str]:
    """Versions and the machine's cores, for the report."""
    return {
        "poolwise": poolwise.__version__,
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "mlxtend": version("mlxtend"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(cores()),
    }
