"""CONTRIBUTING's walk: a geometric mean, written in one file and named in one list, exists in every door.

The walk is done for real, in a copy of the package: the file that CONTRIBUTING shows, and two lines in the list.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import poolwise

ROOT = Path(__file__).parent.parent
INSTEAD_OF_THE_INSTALLED = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "poolwise" not in type(finder).__module__]
sys.path.insert(0, {place!r})
"""
PROGRAM = """
import numpy as np, poolwise
assert poolwise.__file__.startswith({place!r}), poolwise.__file__
x = np.random.default_rng(0).standard_normal((2, 3, 7, 8))
windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3))[:, :, ::2, ::2]
expected = np.maximum(windows, 0.5).prod((-1, -2)) ** 0.25
"""
NUMPY = """
for kernel in (None, "gathered", "reference"):
    np.testing.assert_allclose(poolwise.geometricmean_pool(x, (2, 2), eps=0.5, kernel=kernel), expected)
assert np.isfinite(poolwise.geometricmean_pool(x * 1e300, (2, 2))).all()
assert poolwise.explain(x, poolwise.GeometricMean(), (2, 2)).refusals["native"] == "it has no body for geometricmean"
from poolwise.call import Call
from poolwise.doors import NUMPY
from poolwise.geometry import Geometry
from poolwise.reference import Reference
geometry = Geometry.of(x.shape, window=(3, 2), padding=1)
call = Call(poolwise.GeometricMean(0.5), geometry, NUMPY.framework, ("float64",), (0, 1, 2, 3), keep=True)
g = np.random.default_rng(1).standard_normal(geometry.output_shape)
analytic = Reference().backward(g, (x,), call)[0]
step = 1e-5 * np.random.default_rng(2).standard_normal(x.shape)
either = [(Reference().forward((x + sign * step,), call)[0] * g).sum() for sign in (1, -1)]
np.testing.assert_allclose((analytic * step).sum(), (either[0] - either[1]) / 2, rtol=1e-6)
"""
TORCH = """
import torch, poolwise.torch
t = torch.from_numpy(x).requires_grad_()
layer = poolwise.torch.GeometricMeanPool2d(2, eps=0.5)
assert "eps=0.5" in repr(layer)
np.testing.assert_allclose(layer(t).detach().numpy(), expected)
assert torch.autograd.gradcheck(layer, t)
assert torch.autograd.gradgradcheck(layer, t[:1, :1, :4, :4].detach().requires_grad_())
poolwise.torch.functional.geometricmean_pool2d(t, 2, 2, 1)
"""
KERAS = """
import keras, poolwise.keras
layer = poolwise.keras.GeometricMeanPooling2D(2, data_format="channels_first", eps=0.5, dtype="float32")
np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x.astype("float32"))), expected, rtol=1e-5)
twin = type(layer).from_config(layer.get_config())
assert twin.get_config() == layer.get_config() and twin.get_config()["eps"] == 0.5
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, grown by what CONTRIBUTING says."""
    place = tmp_path_factory.mktemp("grown")
    shutil.copytree(Path(poolwise.__file__).parent, place / "poolwise", ignore=shutil.ignore_patterns("__pycache__"))
    compiled = Path(sys.modules["poolwise._native"].__file__ or "")
    shutil.copy(compiled, place / "poolwise" / compiled.name)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    body, listed = (
        next(block for block in blocks if first in block) for first in ("class GeometricMean", "OPERATIONS:")
    )
    (place / "poolwise" / "ops" / "geometricmean.py").write_text(body)
    listing = place / "poolwise" / "ops" / "__init__.py"
    import_line, named_last = re.search(r"from .*\n", listed), re.search(r"OPERATIONS: .*\(\.\.\., (\w+)\)", listed)
    assert import_line
    assert named_last
    grown, times = re.subn(r"(OPERATIONS: [^)]*?),?\s*\)", rf"\1, {named_last[1]})", listing.read_text())
    assert times == 1
    listing.write_text(grown.replace("\nOPERATIONS", f"{import_line[0]}\nOPERATIONS"))
    return place


@pytest.mark.parametrize(("door", "backend"), [("NUMPY", ""), ("TORCH", ""), ("KERAS", "torch"), ("KERAS", "jax")])
def test_an_operation_written_in_two_files_exists_in_every_door(grown: Path, door: str, backend: str) -> None:
    program = PROGRAM.format(place=str(grown)) + {"NUMPY": NUMPY, "TORCH": TORCH, "KERAS": KERAS}[door]
    done = subprocess.run(
        [sys.executable, "-c", INSTEAD_OF_THE_INSTALLED.format(place=str(grown)) + program],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend or "torch"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
