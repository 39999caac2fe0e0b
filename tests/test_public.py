"""The public names, which are fetched where they are first used: as if they had always been there."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import poolwise

ROOMS = ["api", "compose", "errors", "geometry", "ops", "threads", "unpool"]


def fresh(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_public_name_is_there_and_said_by_dir() -> None:
    assert len(set(poolwise.__all__)) == len(poolwise.__all__) > 60
    assert set(poolwise.__all__) | set(ROOMS) <= set(dir(poolwise))
    program = "import poolwise; print('explorer' in dir(poolwise))"  # help() would import it, and what it needs
    assert fresh(program) == "False"
    for name in dir(poolwise):
        assert getattr(poolwise, name) is getattr(poolwise, name)


def test_a_star_imports_every_public_name() -> None:
    program = "from poolwise import *; import poolwise; print(set(poolwise.__all__) - set(globals()))"
    assert fresh(program) == "set()"


def test_a_pickled_function_is_found_by_another_interpreter() -> None:
    for function in (poolwise.max_pool, poolwise.pool, poolwise.avgmax_pool, poolwise.max_unpool):
        assert pickle.loads(pickle.dumps(function)) is function
        assert function.__name__ in fresh(f"import pickle; print(pickle.loads({pickle.dumps(function)!r}))")


@pytest.mark.parametrize("name", [*ROOMS, "max_pool", "Max", "pool", "avgmax_pool", "InvalidValue", "get_num_threads"])
def test_whichever_name_is_asked_for_first_is_found(name: str) -> None:
    twice = "import sys, poolwise; first = poolwise.{0}; from poolwise import {0}; print({0} is first is poolwise.{0})"
    assert fresh(twice.format(name)) == "True"


def test_importing_poolwise_waits_with_what_it_may_not_need() -> None:
    program = "import sys, poolwise; print([name for name in sys.modules if name.startswith(('poolwise', 'numpy'))])"
    assert fresh(program) == "['poolwise._version', 'poolwise']"


@pytest.mark.parametrize("name", ["nothing", "_nothing", "__wrapped__", "torch", "Max2"])
def test_what_is_not_there_is_no_attribute(name: str) -> None:
    program = f"import poolwise; print(hasattr(poolwise, {name!r})); poolwise.{name}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False"
    assert f"AttributeError: module 'poolwise' has no attribute '{name}'" in done.stderr
