"""The widget in a real notebook: JupyterLab, its kernel, a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

import poolwise
from browser import WIDE, launched

pytestmark = pytest.mark.slow
CODE = """
import numpy as np, poolwise
from poolwise.explorer import Explorer
explorer = Explorer(np.arange(49.0).reshape(7, 7), poolwise.Lp(3), (3, 3), stride=2)
explorer
"""
X = np.arange(49.0).reshape(7, 7)


def notebook(*cells: str) -> str:
    made = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "execution_count": None,
            "metadata": {},
            "outputs": [],
            "source": cell,
        }
        for number, cell in enumerate(cells)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps({"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab whose folder holds one notebook."""
    pytest.importorskip("jupyterlab")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "look.ipynb").write_text(notebook(CODE.strip(), "print('state', explorer.state)"))
    environment = {**os.environ, "HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    settings = {
        "ServerApp.token": "looking",
        "ServerApp.root_dir": str(tmp_path / "work"),
        "ServerApp.port": "0",
        "ServerApp.open_browser": "False",
        "ServerApp.allow_root": "True",
        "LabApp.news_url": "",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in settings.items())]
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield found_address(server, log) + "lab/tree/look.ipynb?token=looking"
        finally:
            server.terminate()
            server.wait(20)


def found_address(server: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(240):
        said = re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/", log.read_text())
        if said:
            return said.group()
        assert server.poll() is None, log.read_text()
        try:
            server.wait(0.25)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(log.read_text())


def test_the_widget_renders_asks_its_kernel_and_tells_its_state(laboratory: str) -> None:
    with launched() as browser:
        page = browser.new_page(viewport=WIDE)
        page.goto(laboratory)
        run(page, 0)
        page.wait_for_selector('.poolwise section.stage[aria-busy="false"]', timeout=90_000)
        assert page.inner_text(".poolwise .main > .facts dd >> nth=0") == "7×7 → 3×3"
        y = poolwise.lp_pool(X, (3, 3), p=3, stride=2)
        page.locator(".poolwise .boards .board").nth(1).focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("() => / = [0-9.]+/.test(document.querySelector('.poolwise .formula').textContent)")
        assert f"= {y[0, 0]:.4g}" in page.inner_text(".poolwise .formula")
        page.fill('.poolwise [aria-label="Window, height"]', "5")
        page.wait_for_function("() => document.querySelector('.poolwise .facts dd').textContent === '7×7 → 2×3'")
        page.wait_for_timeout(300)
        run(page, 1)
        page.wait_for_selector("text=state view=windows")
        assert "op=lp(p:3)&window=5x3&stride=2x2" in page.inner_text(".jp-OutputArea >> nth=1")


def run(page: Page, cell: int) -> None:
    """Click into a cell and run it; again where the notebook was not listening yet."""
    code = page.locator(".jp-Notebook .jp-CodeCell").nth(cell)
    code.wait_for(timeout=90_000)
    for _ in range(20):
        code.locator(".jp-Editor").click()
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(1500)
        if code.locator(".jp-InputPrompt").inner_text() not in ("[ ]:", ""):
            return
    raise AssertionError(f"the notebook does not run cell {cell}: {page.inner_text('body')[:2000]}")
