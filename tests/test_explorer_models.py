"""The poolings of a user's own model: what is recorded is what poolwise computes from the same numbers, by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as stock

import poolwise
import poolwise.torch as door
from poolwise.errors import Fault, InvalidType, InvalidValue, MissingExtra
from poolwise.explorer.models import Stage, stages
from poolwise.models import PICKLES, input_shape, load
from poolwise.torch.functional import min_pool2d

ROOT = Path(__file__).parent.parent
RANDOM = np.random.default_rng(7)


def images(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype("float32")


def again(stage: Stage) -> np.ndarray:
    """The stage by poolwise's public functions."""
    function: Any = poolwise.adaptive_pool if "output_size" in stage.arguments else poolwise.pool
    return function(stage.before, stage.op, **stage.arguments)


def checked(recorded: Sequence[Stage], *, silent: bool = True) -> list[str]:
    """The names of stages that are what poolwise makes of them; silent: and have no note."""
    assert recorded
    for stage in recorded:
        assert stage.op is not None, stage.note
        assert stage.before.dtype == np.float32
        np.testing.assert_allclose(again(stage), stage.after, rtol=1e-5, atol=1e-5, err_msg=stage.name)
        assert not (silent and stage.note), stage.note
    return [stage.name for stage in recorded]


def refused(kind: type[Fault], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=text) as raised:
        call()
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


# PyTorch

STOCK_MODULES = (
    *((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1](3, 2, 1, ceil_mode=True) for rank in (1, 2, 3)),
    *((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[rank - 1](3, 2, 1) for rank in (1, 2, 3)),
    *((nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)[rank - 1](2, 3, 2) for rank in (1, 2, 3)),
    *(getattr(nn, f"Adaptive{stem}Pool{rank}d")(3) for stem in ("Max", "Avg") for rank in (1, 2, 3)),
    nn.MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0), dilation=(1, 2)),
    nn.MaxPool2d(2, return_indices=True),
    nn.AvgPool2d((2, 3), ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AvgPool2d(3, 2, 1, divisor_override=4),
    nn.AdaptiveAvgPool2d((None, 2)),
    nn.AdaptiveAvgPool2d(1),
)


def own_modules() -> list[nn.Module]:
    apart = (poolwise.Mean, poolwise.Lp, poolwise.LIP, poolwise.Gated, poolwise.Stochastic)  # below, or with arrays
    sliding = [kind for kind in poolwise.ops.OPERATIONS if kind not in apart]
    return [
        *(getattr(door, f"{kind.stems[1]}Pool{rank}d")(3, 2, 1) for kind in sliding for rank in (1, 2, 3)),
        door.AvgPool2d(3, 2, 1, count_include_pad=False),
        door.AdaptiveAvgPool3d((2, None, 1)),
        door.LPPool2d(3, 2),
        door.Pool(poolwise.Lp(3), (2, 3), stride=1, padding="same_lower"),
        door.Pool(poolwise.Sum(), (3, 2), padding=((1, 0), (0, 1)), padding_mode="circular", kernel="native"),
        door.Pool(poolwise.Min(), (2, 2), axes=(-2, -1)),
    ]


def rank_of(module: Any) -> int:
    return len(module.window) if isinstance(module, door.Pool) else int(type(module).__name__[-2])


@pytest.mark.parametrize("module", [*STOCK_MODULES, *own_modules()], ids=str)
def test_a_torch_module_is_what_poolwise_says(module: nn.Module) -> None:
    x = images(2, 3, *(11, 13, 7)[: rank_of(module)])
    (stage,) = stages(nn.Sequential(module), x)
    assert checked([stage]) == ["0"]
    np.testing.assert_array_equal(stage.before, x[0])
    with torch.no_grad():
        own = module(torch.from_numpy(x))
    np.testing.assert_array_equal(stage.after, (own[0] if isinstance(own, tuple) else own)[0].numpy())


def test_what_takes_an_array_is_named_and_has_no_operation() -> None:
    model = nn.Sequential(
        door.GatedPool2d(2), door.GeMPool2d(2, p=torch.full((3, 1, 1), 2.0)), door.GeMPool2d(1, p=2.5)
    )
    gated, many, one = stages(model, images(2, 3, 8, 9).astype("float32") ** 2)
    assert (gated.op, gated.note) == (None, "it takes an array beside its input, gate")
    assert (many.op, many.note) == (None, "it takes an array beside its input, p")
    assert (one.op, one.note) == (poolwise.GeM(2.5), "")


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "max_pool1d": lambda x: stock.max_pool1d(x[:, :, 0], 3, 2, 1),
    "max_pool2d": lambda x: stock.max_pool2d(x, 3, 2, 1, 1, True),
    "max_pool3d": lambda x: stock.max_pool3d(x[:, None], 2, return_indices=True),
    "max_pool2d #2": lambda x: torch.max_pool2d(input=x, kernel_size=[2], padding=1),
    "max_pool2d #3": lambda x: torch.ops.aten.max_pool2d.default(x, [2, 2]),
    "avg_pool1d": lambda x: stock.avg_pool1d(x[:, :, 0], 2),
    "avg_pool2d": lambda x: stock.avg_pool2d(x, (3, 2), (1, 2), (1, 0), False, False),
    "avg_pool3d": lambda x: stock.avg_pool3d(x[:, None], 2, divisor_override=3),
    "lp_pool2d": lambda x: stock.lp_pool2d(x, 2.0, 3, stride=1),
    "adaptive_max_pool2d": lambda x: stock.adaptive_max_pool2d(x, (3, 4), return_indices=True),
    "adaptive_avg_pool2d": lambda x: stock.adaptive_avg_pool2d(x, [None, 4]),
    "adaptive_avg_pool3d": lambda x: stock.adaptive_avg_pool3d(x[:, None], 2),
    "avg_pool2d #2": lambda x: door.functional.avg_pool2d(x, 3, 2, 1),
    "min_pool2d": lambda x: min_pool2d(x, 3, stride=1, padding=1),
    "lp_pool2d #2": lambda x: door.functional.lp_pool2d(x, 3, 2),
    "relumax_pool1d": lambda x: door.functional.relumax_pool1d(input=x[:, :, 0], kernel_size=2),
    "max_pool2d #4": lambda x: door.functional.max_pool2d_with_indices(x, 2)[0],
}


class Calls(nn.Module):
    """All of FUNCTIONS, one after the other; their results are left."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for function in FUNCTIONS.values():
            function(x)
        return x


def test_functional_calls_are_seen_in_their_order() -> None:
    for _ in range(2):  # the second time poolwise's functions know the call
        assert checked(stages(Calls(), images(2, 3, 9, 11))) == list(FUNCTIONS)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.layer1 = nn.Sequential(nn.Dropout(0.9), door.MaxPool2d(2), nn.ReLU(inplace=True))
        self.pool = nn.AvgPool2d(2, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = stock.max_pool2d(stock.relu(self.conv(x)), 3, 1)
        x = self.pool(self.pool(self.layer1(x) - 1)).relu_()
        return self.head(stock.max_pool2d(x, x.shape[2:]).flatten(1))


NET = ["max_pool2d", "layer1.1", "pool", "pool #2", "max_pool2d #2"]


def test_a_torch_model_is_run_in_order_and_left_as_it_was() -> None:
    net = Net()
    net.layer1.eval()
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    recorded = stages(net, input_shape=(2, 3, 20, 22))
    assert checked(recorded) == NET
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert sys.getprofile() is None
    assert [stage.after.shape for stage in recorded[:2]] == [(4, 16, 18), (4, 8, 9)]
    assert recorded[1].after.min() < 1, "what follows in place is not in it"
    count = len(recorded)
    net(torch.zeros(1, 3, 20, 22))
    assert len(recorded) == count


def test_a_torch_model_that_fails_is_left_as_it_was() -> None:
    net = Net()
    refused(
        InvalidValue,
        r"run on images of shape \(1, 2, 20, 20\), got RuntimeError",
        lambda: stages(net, images(1, 2, 20, 20)),
    )
    assert net.training
    assert net.pool.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert sys.getprofile() is None
    assert checked(stages(net, input_shape=(1, 3, 20, 20))) == NET


def test_a_torch_model_in_another_dtype_or_compiled_or_accelerated() -> None:
    x = images(1, 3, 20, 20).astype("float64")
    half = stages(Net().to(torch.bfloat16), x)
    assert [stage.note for stage in half] == [""] * 5
    assert checked(stages(torch.compile(Net()), x)) == NET
    net = door.accelerate(Net())
    assert checked(stages(net, x)) == ["relumax_pool2d", "layer1.1", "pool", "pool #2", "max_pool2d"]


class Loud(nn.MaxPool2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_subclass_with_its_own_forward_is_what_it_calls() -> None:
    assert checked(stages(Loud(2), images(1, 3, 6, 6))) == ["max_pool2d"]
    assert checked(stages(type("Quiet", (nn.MaxPool2d,), {})(2), images(3, 6, 6))) == ["Quiet"]


class Stubborn(nn.Module):
    """Tries a pooling that fails, and holds a compiled one."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = torch.compile(nn.MaxPool2d(2))
        self.flat = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for function, given in ((self.flat, x[0, 0]), (lambda y: door.functional.min_pool2d(y, 0), x)):
            with pytest.raises((RuntimeError, ValueError)):
                function(given)
        return stock.avg_pool2d(self.pool(input=x), 2)


def test_a_pooling_that_fails_inside_a_model_hides_none() -> None:
    assert checked(stages(Stubborn(), images(1, 2, 8, 8))) == ["pool", "avg_pool2d"]


def test_graphs_of_a_torch_model() -> None:
    x = images(1, 3, 20, 20)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.AvgPool2d(3, padding=1), nn.AvgPool2d(2))
    exported = torch.export.export(net.eval(), (torch.from_numpy(x),)).module()
    assert checked(stages(exported, x)) == ["max_pool2d", "avg_pool2d", "avg_pool2d #2"]
    assert checked(stages(torch.fx.symbolic_trace(nn.Sequential(nn.MaxPool2d(2))), x)) == ["0"]
    scripted = torch.jit.script(nn.Sequential(nn.MaxPool2d(2)))
    refused(InvalidValue, "must have a pooling, got RecursiveScriptModule, in which none", lambda: stages(scripted, x))


def test_what_poolwise_has_not_or_has_otherwise_is_said() -> None:
    (random,) = stages(nn.FractionalMaxPool2d(2, output_size=3), images(1, 2, 9, 9))
    assert (random.op, random.arguments, random.note) == (None, {}, "its windows lie at random places")
    (signed,) = stages(nn.LPPool2d(3, 2), images(1, 2, 8, 8))
    assert signed.op == poolwise.Lp(3)
    assert signed.note.startswith("PyTorch sums signed powers")
    assert "differs from poolwise in" in signed.note
    (small,) = stages(nn.LPPool2d(0.5, 2), images(1, 2, 8, 8) ** 2)
    assert small.op is None
    assert "p must be at least 1" in small.note
    masked = door.Pool(poolwise.Max(), (2, 2), where=torch.ones(8, 8, dtype=torch.bool))
    assert stages(masked, images(1, 2, 8, 8))[0].note == "a mask leaves some elements out"
    assert "pools the axes (1, 2)" in stages(door.Pool(poolwise.Max(), (2, 2), axes=(1, 2)), images(1, 2, 8, 8))[0].note


def test_a_model_that_computes_something_else_is_found_out() -> None:
    net = nn.MaxPool2d(2)
    net.register_forward_hook(lambda _module, _inputs, output: output * 1.01)
    assert stages(net, np.ones((1, 2, 8, 8)))[0].note == "differs from poolwise in 32 of 32 outputs"
    net.register_forward_hook(lambda _module, _inputs, output: output[..., 1:])
    assert stages(net, np.ones((1, 2, 8, 8)))[0].note == "poolwise gives the shape (2, 4, 4), the model (2, 4, 3)"


def test_nan_and_infinity_agree() -> None:
    x = images(1, 1, 6, 6)
    x[0, 0, 0, 0], x[0, 0, 3, 3] = np.nan, np.inf
    assert [stage.note for stage in stages(nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2)), x)] == ["", ""]


# ONNX


def onnx_model(
    nodes: Sequence[Any], shape: Sequence[Any], constants: Sequence[Any] = (), opset: int = 22, dtype: int = 1
) -> Any:
    rank = 2 if nodes[-1].op_type == "Flatten" else len(shape)
    listed = [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in constants]
    x = helper.make_tensor_value_info("x", dtype, shape)
    y = helper.make_tensor_value_info(nodes[-1].output[0], dtype, [None] * rank)
    graph = helper.make_graph(nodes, "g", [*listed, x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


ONNX: tuple[tuple[str, dict[str, Any]], ...] = (
    ("MaxPool", {"kernel_shape": [3]}),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    ("MaxPool", {"kernel_shape": [3, 2, 2], "dilations": [2, 1, 1]}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [4, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", {"kernel_shape": [4, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
    ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("LpPool", {"kernel_shape": [3, 3], "strides": [2, 2], "p": 3}),
    ("LpPool", {"kernel_shape": [2], "pads": [1, 0]}),
    ("GlobalMaxPool", {}),
    ("GlobalAveragePool", {}),
)


# onnx.reference rounds the sizes of SAME_LOWER down, where the specification and onnxruntime round them up.
RUNS = [(*row, runtime) for row in ONNX for runtime in ("onnxruntime", "reference")]
RUNS = [row for row in RUNS if row[2] != "reference" or row[1].get("auto_pad") != "SAME_LOWER"]


@pytest.mark.parametrize(("kind", "attributes", "runtime"), RUNS, ids=str)
def test_an_onnx_node_is_what_poolwise_says(
    kind: str, attributes: dict[str, Any], runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtime == "reference":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    x = images(2, 3, *(11, 13, 7)[: len(attributes.get("kernel_shape", (1, 1)))])
    model = onnx_model([helper.make_node(kind, ["x"], ["y"], **attributes)], x.shape)
    before = model.SerializeToString()
    (stage,) = stages(model, x)
    assert checked([stage]) == [f"{kind}_0"]
    np.testing.assert_array_equal(stage.before, x[0])
    assert model.SerializeToString() == before


@pytest.mark.parametrize("attributes", [{}, {"p": 3}], ids=str)
def test_a_global_norm(attributes: dict[str, Any]) -> None:
    """Which of the two runtimes only onnxruntime has, and not in ONNX's newest version."""
    node = helper.make_node("GlobalLpPool", ["x"], ["y"], **attributes)
    assert checked(stages(onnx_model([node], (1, 3, 5, 6), opset=21))) == ["GlobalLpPool_0"]


def chain(shape: Sequence[Any] = ("batch", 3, 12, 14)) -> Any:
    """conv → pool → pool: an initialiser that is listed as an input, a name and none, an output that is read."""
    weight = numpy_helper.from_array(images(4, 3, 3, 3), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["p"], name="features/MaxPool_3", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["q"]),
        helper.make_node("Flatten", ["q"], ["y"]),
    ]
    return onnx_model(nodes, shape, [weight])


def test_an_onnx_model_is_read_whole(tmp_path: Path) -> None:
    onnx.save(chain(), tmp_path / "net.onnx")
    model = load(str(tmp_path / "net.onnx"))
    assert isinstance(model, onnx.ModelProto)
    assert input_shape(model) == (1, 3, 12, 14)
    for given in (model, tmp_path / "net.onnx", str(tmp_path / "net.onnx")):
        recorded = stages(given)
        assert checked(recorded) == ["features/MaxPool_3", "GlobalAveragePool_2"]
        assert [stage.after.shape for stage in recorded] == [(4, 5, 6), (4, 1, 1)]
    assert checked(stages(model, images(5, 3, 12, 14)))


def test_onnx_functions_are_looked_into() -> None:
    body = [helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2])]
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Block", ["a"], ["b"], body, opsets[:1])
    model = onnx_model([helper.make_node("Block", ["x"], ["y"], domain="own")], (1, 2, 6, 6))
    model.functions.append(function)
    model.opset_import.append(opsets[1])
    assert checked(stages(model)) == ["MaxPool_0"]


def test_an_onnx_model_of_halves_or_of_bytes() -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])
    (stage,) = stages(onnx_model([node], (1, 2, 6, 6), dtype=onnx.TensorProto.UINT8), 200 * np.ones((1, 2, 6, 6)))
    assert (stage.before.dtype, stage.note) == (np.uint8, "")
    half = onnx_model([helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2])], (1, 2, 6, 6), dtype=10)
    (stage,) = stages(half)
    assert (stage.before.dtype, stage.note) == (np.float16, "")


LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


@pytest.mark.parametrize("name", ["squeezenet", "resnet50", "inception_v1", "densenet121"])
def test_the_models_in_onnxs_own_wheel(name: str) -> None:
    model = load(LIGHT / f"light_{name}.onnx")
    assert input_shape(model) == (1, 3, 224, 224)
    count = {"squeezenet": 4, "resnet50": 2, "inception_v1": 14, "densenet121": 5}[name]
    assert len(checked(stages(model))) == count


def test_an_exported_torch_model_has_its_models_poolings(tmp_path: Path) -> None:
    x = images(1, 3, 20, 20)
    torch.manual_seed(0)
    net = Net().eval()
    torch.onnx.export(net, (torch.from_numpy(x),), tmp_path / "net.onnx", verbose=False)
    for ours, theirs in zip(stages(net, x), stages(tmp_path / "net.onnx", x), strict=True):
        assert type(ours.op) is type(theirs.op)
        np.testing.assert_allclose(ours.after, theirs.after, rtol=1e-4, atol=1e-5)


# What cannot be read or run


def with_data_elsewhere(folder: Path, location: str) -> Path:
    """A model whose weight lies in another file."""
    model = chain()
    weight = model.graph.initializer[0]
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    data = bytes(weight.raw_data)
    weight.ClearField("raw_data")
    path = folder / "in" / "net.onnx"
    path.parent.mkdir()
    path.write_bytes(model.SerializeToString())
    (folder / "outside.bin").write_bytes(data)
    (folder / "in" / "beside.bin").write_bytes(data)
    (folder / "in" / "short.bin").write_bytes(data[:9])
    (folder / "in" / "link.bin").symlink_to(folder / "outside.bin")
    return path


def test_data_beside_an_onnx_model_is_read(tmp_path: Path) -> None:
    assert checked(stages(with_data_elsewhere(tmp_path, "beside.bin")))


@pytest.mark.parametrize("location", ["../outside.bin", "{}/outside.bin", "link.bin", "nowhere.bin", ".", ""])
def test_data_that_is_not_beside_an_onnx_model_is_not_read(location: str, tmp_path: Path) -> None:
    path = with_data_elsewhere(tmp_path, location.format(tmp_path))
    refused(InvalidValue, "must have its data in files beside it, got ", lambda: load(path))


def test_data_that_is_too_short_is_refused(tmp_path: Path) -> None:
    refused(InvalidValue, "must be an ONNX file", lambda: load(with_data_elsewhere(tmp_path, "short.bin")))


@pytest.mark.parametrize("keep", [0, 1, 40, 300, 600])
def test_a_damaged_onnx_file_is_refused(keep: int, tmp_path: Path) -> None:
    whole = chain().SerializeToString()
    assert keep < len(whole) - 1
    (tmp_path / "net.onnx").write_bytes(whole[:keep])
    refused(InvalidValue, r"model must be an ONNX file, got '.*net.onnx' \(", lambda: load(tmp_path / "net.onnx"))
    (tmp_path / "net.onnx").write_text("no model at all\n" * 20)
    refused(InvalidValue, r"model must be an ONNX file, got '.*net.onnx' \(", lambda: load(tmp_path / "net.onnx"))


def test_names_that_are_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix in PICKLES:
        text = f"got 'net{suffix}': it runs code when it is opened; give module:factory"
        refused(InvalidValue, text, lambda suffix=suffix: load(f"net{suffix}"))
    for name in ("net.onnx", "net.keras", str(tmp_path / "a:b.onnx"), "folder.onnx"):
        (tmp_path / "folder.onnx").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path)
        refused(InvalidValue, "model must be a file that exists, got", lambda name=name: stages(name))
    for name in ("net.tflite", "net", "", "saved_model/"):
        refused(
            InvalidValue, "model must be a .onnx or .keras file or module:factory, got", lambda name=name: load(name)
        )
    (tmp_path / "net.keras").write_bytes(b"PK\x03\x04 and then nothing")
    refused(InvalidValue, "model must be a .keras archive, got .* damaged", lambda: load("net.keras"))
    refused(InvalidValue, "model must be importable, got 'nowhere:net'", lambda: load("nowhere:net"))
    refused(InvalidValue, "model must be module:factory, got ':net'", lambda: load(":net"))


def test_a_factory_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        import my_other\n"
        "        super().__init__(torch.nn.MaxPool2d(2))\n"
        "made = Net\n"
        "ready = torch.nn.AvgPool2d(2)\n"
        "def none(): return [1]\n"
        "def broken(): raise OSError('first\\nsecond')\n"
    )
    (tmp_path / "my_other.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert checked(stages("my_nets:Net", images(1, 2, 4, 4))) == ["0"]
    assert checked(stages("my_nets:ready", images(1, 2, 4, 4))) == ["AvgPool2d"]
    refused(InvalidType, "model must be a torch.nn.Module, .* got list", lambda: load("my_nets:none"))
    refused(InvalidValue, r"made by my_nets:broken\(\), got OSError: first second", lambda: load("my_nets:broken"))


def test_what_is_no_model_or_has_no_pooling() -> None:
    text = "model must be a torch.nn.Module, a keras model or an onnx.ModelProto, got"
    for thing in (3, nn.Module, [nn.MaxPool2d(2)], None, b"net.onnx"):
        for function in (stages, input_shape):
            refused(InvalidType, text, lambda thing=thing, function=function: function(thing))
    flat = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    text = "model must have a pooling, got Sequential, in which none"
    refused(InvalidValue, text, lambda: stages(flat, images(1, 3, 4, 4)))
    node = helper.make_node("Relu", ["x"], ["y"])
    refused(InvalidValue, "must have a pooling, got ModelProto", lambda: stages(onnx_model([node], (1, 3))))


def test_images_that_cannot_be_taken() -> None:
    net = nn.MaxPool2d(2)
    none = "images or input_shape must be given for a model that declares no shape"
    refused(InvalidValue, none, lambda: stages(net))
    refused(InvalidValue, r"declares the shape \(1, 3, any, any\)", lambda: stages(chain(("n", 3, 0, -1))))
    refused(InvalidValue, "made of ints, each at least 1", lambda: stages(net, input_shape=(1, 0, 4, 4)))
    refused(InvalidValue, "made of ints, each at least 1", lambda: stages(net, input_shape=(1, 2.0, 4, 4)))
    refused(InvalidValue, "at most 268,435,456 numbers", lambda: stages(net, input_shape=(1, 9, 10**5, 10**5)))
    refused(InvalidValue, "images must be an array of numbers, got <U1", lambda: stages(net, ["a"]))
    refused(InvalidType, "images must be an array of numbers, got list", lambda: stages(net, [[1, 2], [3]]))
    refused(InvalidType, "got Tensor", lambda: stages(net, torch.ones(1, 4, 4, requires_grad=True)))
    refused(InvalidValue, r"got float64 of shape \(0,\)", lambda: stages(net, []))
    both = lambda: stages(net, images(1, 3, 4, 4), input_shape=(1, 3, 5, 4))  # noqa: E731
    refused(InvalidValue, r"images must have the shape \(1, 3, 5, 4\), got \(1, 3, 4, 4\)", both)
    wrong = r"images must have the shape \(any, 3, 12, 14\), got \(1, 12, 14, 3\)"
    refused(InvalidValue, wrong, lambda: stages(chain(), images(1, 12, 14, 3)))
    refused(InvalidValue, wrong, lambda: stages(chain(), input_shape=(1, 12, 14, 3)))
    refused(InvalidValue, "must run on images .* got RuntimeError", lambda: stages(net, images(4)))
    small = chain(("n", 3, "h", "w"))
    refused(InvalidValue, r"must run on images of shape \(1, 3, 2, 2\), got", lambda: stages(small, images(1, 3, 2, 2)))
    two = onnx_model([helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2])], (1, 2, 4))
    two.graph.input.append(helper.make_tensor_value_info("z", 1, (1,)))
    refused(
        InvalidValue,
        r"model must take one input, got inputs of the shapes \(1, 2, 4\), \(1,\)",
        lambda: stages(two),
    )


# What is imported


def test_nothing_is_imported_for_nothing() -> None:
    program = (
        "import sys, poolwise.explorer.models as m; known = {'torch', 'keras', 'tensorflow', 'onnx', 'onnxruntime'}; "
        "print(known & set(sys.modules)); import torch; m.stages(torch.nn.MaxPool2d(2), input_shape=(1, 1, 4, 4)); "
        "print(known & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["set()", "{'torch'}"]


def test_a_framework_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in ("onnx", "keras"):  # another test may have imported it
        monkeypatch.delitem(sys.modules, f"poolwise.models.{reader}", raising=False)
    onnx.save(chain(), tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(MissingExtra, "a .onnx file needs onnx: pip install onnx onnxruntime", lambda: load(tmp_path / "net.onnx"))
    monkeypatch.setitem(sys.modules, "keras", None)
    (tmp_path / "net.keras").write_bytes(b"PK\x05\x06" + bytes(18))
    refused(MissingExtra, r'needs keras: pip install "poolwise\[keras\]"', lambda: load(tmp_path / "net.keras"))


# Keras, in a process for each backend, which Keras fixes when it is imported: see the end of this file


QUICKLY = {  # compiled code that is used once need not be optimised
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_keras(backend: str) -> None:
    environment = {**os.environ, **QUICKLY, "KERAS_BACKEND": backend}
    command = [sys.executable, "-W", "error:::poolwise", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [fact.__name__ for fact in KERAS_FACTS]


def every_layer(keras: Any, rank: int) -> list[Any]:
    import poolwise.keras as ours  # noqa: PLC0415

    layers: list[Any] = []
    for stem in ("Max", "Average"):
        windowed, whole = (getattr(keras.layers, f"{prefix}{stem}Pooling{rank}D") for prefix in ("", "Global"))
        layers += [windowed(2), windowed((3, 2, 4)[:rank], 1), whole(), whole(keepdims=True)]
        layers.append(getattr(keras.layers, f"Adaptive{stem}Pooling{rank}D")(2))
        if stem == "Max" or keras.backend.backend() != "torch":  # whose averages repeat the border
            layers.append(windowed(3, 2, "same"))
    compiles = keras.backend.backend() != "torch"  # each for up to a second: there every kind over one rank
    kinds = [kind for kind in poolwise.ops.OPERATIONS if kind not in (poolwise.LIP, poolwise.Gated)]
    for kind in kinds[rank - 1 :: 3] if compiles else kinds:
        layers.append(getattr(ours, f"{kind.stems[2]}Pooling{rank}D")(3, 2, "same"))
        layers.append(getattr(ours, f"Global{kind.stems[2]}Pooling{rank}D")())
    return layers


def keras_layers_are_what_poolwise_says(keras: Any, folder: Path) -> None:
    for rank in (1, 2, 3):
        x = images(2, *(8, 9, 7)[:rank], 3)
        for layer in every_layer(keras, rank):
            expected = keras.ops.convert_to_numpy(layer(x))[0]
            recorded = stages(keras.Sequential([layer]), x)
            assert checked(recorded) == [f"{layer.name} ({type(layer).__name__})"]
            np.testing.assert_array_equal(recorded[0].before, np.moveaxis(x[0], -1, 0))
            np.testing.assert_array_equal(np.moveaxis(recorded[0].after, 0, -1).ravel(), expected.ravel())
            assert "call" not in vars(layer)


def channels_first_stay_first(keras: Any, folder: Path) -> None:
    x = images(2, 3, 8, 9)
    whole = keras.layers.GlobalMaxPooling2D(data_format="channels_first")
    recorded = stages(whole, x)
    assert checked(recorded)
    np.testing.assert_array_equal(recorded[0].before, x[0])
    assert recorded[0].after.shape == (3, 1, 1)
    if keras.backend.backend() != "tensorflow":  # whose CPU pools channels last only
        assert checked(stages(keras.layers.MaxPooling2D(2, data_format="channels_first"), x))


def net(keras: Any) -> Any:
    return keras.Sequential(
        [
            keras.Input((12, 14, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.MaxPooling2D(name="pool1"),
            keras.Sequential([keras.layers.Dropout(0.9), keras.layers.AveragePooling2D(2, 1, name="inner")]),
            keras.layers.GlobalAveragePooling2D(name="head"),
            keras.layers.Dense(2),
        ]
    )


NAMES = ["pool1 (MaxPooling2D)", "inner (AveragePooling2D)", "head (GlobalAveragePooling2D)"]


def a_sequential_model_is_run_and_left_as_it_was(keras: Any, folder: Path) -> None:
    model = net(keras)
    assert input_shape(model) == (1, 12, 14, 3)
    before = model.get_weights()
    assert checked(stages(model)) == NAMES
    recorded = stages(model, images(2, 12, 14, 3).astype("float64"))
    assert checked(recorded) == NAMES
    assert [stage.after.shape for stage in recorded] == [(4, 5, 6), (4, 4, 5), (4, 1, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    model(np.zeros((1, 12, 14, 3)))
    assert len(recorded) == 3


def a_functional_model_of_any_size_is_run(keras: Any, folder: Path) -> None:
    inputs = keras.Input((None, None, 3), batch_size=2)
    pool = keras.layers.MaxPooling2D(2, 1, name="twice")
    side = keras.layers.AveragePooling2D(3, 1, name="side")(inputs)
    model = keras.Model(inputs, [pool(pool(inputs)), side])
    assert input_shape(model) == (2, None, None, 3)
    names = checked(stages(model, images(2, 6, 7, 3)))
    assert sorted(names) == ["side (AveragePooling2D)", "twice (MaxPooling2D)", "twice (MaxPooling2D) #2"]
    refused(InvalidValue, r"declares the shape \(2, any, any, 3\)", lambda: stages(model))
    refused(InvalidValue, r"must have the shape \(any, any, any, 3\)", lambda: stages(model, images(2, 6, 7, 4)))
    two = keras.Model([inputs, keras.Input((3,))], pool(inputs))
    refused(InvalidValue, "model must take one input, got inputs of the shapes", lambda: stages(two))


def a_subclass_is_run(keras: Any, folder: Path) -> None:
    import poolwise.keras as ours  # noqa: PLC0415

    class Doubled(keras.layers.MaxPooling2D):
        def call(self, inputs: Any) -> Any:
            return 2 * super().call(inputs)

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.pools = [ours.MinPooling2D(2, name="low"), keras.layers.MaxPooling2D(2, name="high")]
            self.steps = keras.layers.TimeDistributed(keras.layers.AveragePooling1D(2, name="each"))
            self.doubled = Doubled(name="doubled")

        def call(self, x: Any) -> Any:
            for pool in (*self.pools, self.pools[1]):
                x = pool(x)
            self.doubled(x)
            return self.steps(x)

    model = Net()
    *recorded, doubled, first, second = stages(model, images(1, 16, 32, 2))
    assert checked(recorded) == ["low (MinPooling2D)", "high (MaxPooling2D)", "high (MaxPooling2D) #2"]
    assert checked([first, second]) == ["each (AveragePooling1D)", "each (AveragePooling1D) #2"]
    assert (doubled.op, doubled.note) == (None, "Doubled has a call of its own")
    assert input_shape(model) is None
    refused(InvalidValue, "for a model that declares no shape", lambda: stages(model))


def a_model_that_fails_is_left_as_it_was(keras: Any, folder: Path) -> None:
    model = keras.Sequential([keras.layers.MaxPooling2D(), keras.layers.Reshape((7, 7))])
    refused(InvalidValue, r"must run on images of shape \(1, 4, 4, 1\), got", lambda: stages(model, images(1, 4, 4, 1)))
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    layer = keras.layers.MaxPooling2D()
    own = layer.call
    vars(layer)["call"] = own
    assert checked(stages(layer, images(1, 4, 4, 1)))
    assert vars(layer)["call"] is own
    refused(InvalidValue, "must have a pooling, got Dense", lambda: stages(keras.layers.Dense(2), images(1, 4)))


def differences_are_said(keras: Any, folder: Path) -> None:
    words = np.array([[1, 2, 0, 0]], "int32")
    model = keras.Sequential([keras.layers.Embedding(5, 4, mask_zero=True), keras.layers.GlobalAveragePooling1D()])
    assert [stage.note for stage in stages(model, words)] == ["a mask leaves some steps out"]
    x = images(1, 5, 5, 2)
    same = stages(keras.layers.AveragePooling2D(4, 2, "same"), x)[0]
    assert bool(same.note) == (keras.backend.backend() == "torch")  # which repeats the border where it pads unevenly
    x[0, 0, 0, 0] = np.nan
    (nan,) = stages(keras.layers.MaxPooling2D(), x)
    dropped = "differs from poolwise in 1 of 8 outputs, where it reads NaN"
    assert nan.note == (dropped if keras.backend.backend() == "tensorflow" else "")
    half = keras.layers.AveragePooling2D(2, dtype="bfloat16")
    assert [stage.note for stage in stages(half, images(1, 4, 4, 2))] == [""]


def a_keras_file_is_read_and_runs_no_code(keras: Any, folder: Path) -> None:
    import poolwise.keras as ours  # noqa: PLC0415

    model = net(keras)
    model.add(keras.layers.Reshape((2, 1)))
    model.add(ours.SumPooling1D(2, name="sum"))
    model.save(folder / "net.keras")
    assert checked(stages(str(folder / "net.keras"))) == [*NAMES, "sum (SumPooling1D)"]
    whole = (folder / "net.keras").read_bytes()
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    refused(InvalidValue, "model must be a .keras archive, got .* damaged", lambda: load(folder / "cut.keras"))
    (folder / "spoilt.keras").write_bytes(whole.replace(b"MaxPooling2D", b"NoPooling2D!"))
    refused(InvalidValue, "model must be a .keras archive, got", lambda: load(folder / "spoilt.keras"))
    ran = str(folder / "ran")
    bad = keras.layers.Lambda(lambda x: (open(ran, "w").close(), x)[1], output_shape=(4, 4, 1))
    keras.Sequential([keras.Input((4, 4, 1)), bad, keras.layers.MaxPooling2D()]).save(folder / "code.keras")
    Path(ran).unlink(missing_ok=True)
    refused(InvalidValue, "must be without Lambda layers.*give module:factory", lambda: load(folder / "code.keras"))
    assert not Path(ran).exists()


KERAS_FACTS = (
    keras_layers_are_what_poolwise_says,
    channels_first_stay_first,
    a_sequential_model_is_run_and_left_as_it_was,
    a_functional_model_of_any_size_is_run,
    a_subclass_is_run,
    a_model_that_fails_is_left_as_it_was,
    differences_are_said,
    a_keras_file_is_read_and_runs_no_code,
)

if __name__ == "__main__":
    import keras

    for fact in KERAS_FACTS:
        with tempfile.TemporaryDirectory() as temporary:
            fact(keras, Path(temporary))
        print(fact.__name__)  # noqa: T201 (the test that started this reads it)
