"""On whose threads the work runs where PyTorch has brought its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from child import outcomes

TASKS = Path("/proc/self/task")
PRELUDE = """
import os, time
import torch, poolwise.torch.functional as ours

torch.set_num_threads(2)
x = torch.randn(8, 64, 64, 64)
wanted = torch.nn.functional.max_pool2d(x, 2)  # its threads are there
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
right = lambda: torch.equal(ours.max_pool2d(x, 2), wanted)
"""
SNIPPETS = {
    "first": "right() and threads() == before",
    "awake": "all([right() for _ in range(9)])",
    "asleep": "right(); time.sleep(0.5); right() and right() and threads() > before",
    "again": "right(); torch.relu(x); right() and right()",
    "many": "from threading import Thread\n"
    "found = []\n"
    "task = lambda: [found.append(right()) or time.sleep(0.06) for _ in range(5)]\n"
    "callers = [Thread(target=task) for _ in range(4)]\n"
    "[caller.start() for caller in callers]; [caller.join() for caller in callers]\n"
    "len(found) == 20 and all(found)",
}


@pytest.mark.skipif(not TASKS.exists(), reason="this system does not list a process's threads")
def test_pytorchs_threads_serve_first_and_others_once_they_sleep(monkeypatch):
    for setting in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(setting, raising=False)
    found = {name: outcome.value or outcome for name, outcome in outcomes(SNIPPETS, PRELUDE).items()}
    assert found == dict.fromkeys(SNIPPETS, "True")
