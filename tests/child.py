"""Runs snippets in a child process, so that a crash or a hang is an answer and not the end of the tests.

The child writes one line when it begins a snippet and one when it has its answer. If it dies, the snippet that it had
begun takes the blame, and another child goes on behind it.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

HANG = 20  # seconds after which the alarm ends the child, inside compiled code too
# Bytes of address space: what would allocate without bounds fails instead of filling memory. A sanitizer needs all.
ROOM = resource.RLIM_INFINITY if os.environ.get("POOLWISE_CHILD_ROOM") == "unlimited" else 16 << 30


@dataclass(frozen=True)
class Outcome:
    """What became of a snippet: its last expression, or the exception, or the signal that ended the process."""

    value: str = ""
    fault: str = ""
    kinds: tuple[str, ...] = ()
    text: str = ""
    signal: str = ""


def outcomes(snippets: Mapping[str, str], prelude: str) -> dict[str, Outcome]:
    """Every snippet's outcome, each run in the names that `prelude` defines."""
    done: dict[str, Outcome] = {}
    while len(done) < len(snippets):
        left = {name: snippet for name, snippet in snippets.items() if name not in done}
        done.update(_one_child(left, prelude))
    return done


def _one_child(snippets: Mapping[str, str], prelude: str) -> dict[str, Outcome]:
    child = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([prelude, list(snippets.items())]),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "2"},
        check=False,
    )
    answers = [json.loads(line) for line in child.stdout.splitlines()]
    done = {answer["name"]: _outcome(answer["outcome"]) for answer in answers if "outcome" in answer}
    if child.returncode == 0:
        return done
    begun = [answer["name"] for answer in answers if answer["name"] not in done]
    assert begun, f"the child ended with {child.returncode} before its first snippet:\n{child.stderr}"
    ended = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit {child.returncode}"
    return {**done, begun[-1]: Outcome(signal=ended, text=child.stderr[-2000:])}


def _outcome(fields: dict[str, Any]) -> Outcome:
    return Outcome(**{**fields, "kinds": tuple(fields["kinds"])})


def run(snippet: str, names: dict[str, Any]) -> Outcome:
    """One snippet's outcome, in this process."""
    body = ast.parse(snippet)
    last = body.body.pop()
    assert isinstance(last, ast.Expr), f"a snippet must end in an expression: {snippet}"
    try:
        exec(compile(body, "<snippet>", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "<snippet>", "eval"), names)
    except Exception as fault:
        return Outcome(
            fault=type(fault).__name__, kinds=tuple(k.__name__ for k in type(fault).__mro__), text=str(fault)
        )
    return Outcome(value=repr(value.tolist() if hasattr(value, "tolist") else value))


def main() -> None:
    """Read prelude and snippets, write answers."""
    prelude, snippets = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a snippet prints is no answer
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    names: dict[str, Any] = {}
    exec(prelude, names)
    with contextlib.suppress(ValueError, OSError):  # not every system bounds the address space
        resource.setrlimit(resource.RLIMIT_AS, (ROOM, resource.RLIM_INFINITY))
    for name, snippet in snippets:
        print(json.dumps({"name": name}), file=answers, flush=True)
        signal.alarm(HANG)
        outcome = run(snippet, dict(names))
        signal.alarm(0)
        print(json.dumps({"name": name, "outcome": asdict(outcome)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
