"""The review: stages and findings against published figures and arithmetic by hand, on models nobody here wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

import poolwise
from poolwise import cli
from poolwise.design import RULES, review

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
DOCS = Path(__file__).parents[1] / "docs"


def net(*layers):
    return nn.Sequential(*layers)


def rules(model, shape, **words):
    return [finding.rule for finding in review(model, shape, **words).findings]


def shell(*words):
    return CliRunner().invoke(cli.app, ["review", *map(str, words)])


# ---- the light graphs of the onnx wheel ----


@pytest.mark.parametrize("path", sorted(LIGHT.glob("light_*.onnx")), ids=lambda path: path.stem)
def test_every_light_graph_is_read_with_the_sizes_that_onnx_infers(path):
    found = review(path)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in [*inferred.graph.value_info, *inferred.graph.output]
    }
    pooled = [node for node in inferred.graph.node if "Pool" in node.op_type]
    assert [s.step.op for s in found.stages if s.step.pooling] == [node.op_type for node in pooled]
    assert [list(s.after.shape) for s in found.stages if s.step.pooling] == [shapes[node.output[0]] for node in pooled]
    assert not found.data()["unknown"]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("resnet50", 25_557_032, 4_089_184_256), ("vgg19", 143_667_240, 19_632_062_464)],
)
def test_parameters_and_macs_are_those_published(name, parameters, macs):
    totals = review(LIGHT / f"light_{name}.onnx").data()["totals"]
    assert (totals["parameters"], totals["macs"]) == (parameters, macs)


def test_resnet_consumes_padding_on_one_side_in_all_five_stages_at_224_and_in_none_at_225():
    """Alsallakh et al. 2021."""
    path = LIGHT / "light_resnet50.onnx"
    consumed = {f.step for f in review(path, select=["PW103"]).findings}
    padded = {s.step.name for s in review(path).stages if any(pads.high for pads in s.pads)}
    assert len(consumed) == 5 and consumed == padded


# ---- receptive fields ----


def vgg16():
    widths = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]
    layers, before = [], 3
    for width, convs in widths:
        for _ in range(convs):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    return net(*layers)


def test_vgg16_sees_196_before_its_last_pooling_and_212_after():
    stages = review(vgg16(), (1, 3, 224, 224)).stages
    assert [stage.spans[0].field for stage in stages] == [6, 16, 44, 100, 212]
    assert [stage.spans[0].jump for stage in stages] == [2, 4, 8, 16, 32]
    # what the last pooling takes: 212 less one more of its 2 × 2 windows' steps of 16
    assert stages[-1].spans[0].field - stages[-2].spans[0].jump == 196


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 5, padding=2), nn.MaxPool2d(2)

    def forward(self, x):
        return self.pool(torch.nn.functional.relu(self.a(x) + self.b(x) + x))


def test_branches_that_meet_see_what_any_of_them_sees():
    (stage,) = review(Skip(), (1, 3, 8, 8)).stages
    assert (stage.spans[0].field, stage.spans[0].first) == (6, -2)


class Unknown(nn.Module):
    def forward(self, x):
        return torch.nn.functional.max_pool2d(torch.fft.fft2(x).real, 2)


def test_behind_what_is_not_known_the_rest_is_still_reviewed():
    found = review(Unknown(), (1, 1, 9, 8))
    assert found.data()["unknown"] and found.stages[-1].step.op == "MaxPool"
    assert found.data()["stages"][-1]["receptive_field"] is None
    assert [f.rule for f in found.findings] == ["PW101", "PW106"]


# ---- the rules: each fires, and its fix ends it ----

FIXES = {
    "PW101": (net(nn.MaxPool2d(2)), net(nn.MaxPool2d(2, ceil_mode=True)), (1, 1, 9, 8)),
    "PW102": (net(nn.Conv2d(1, 1, 1, 2)), net(nn.Conv2d(1, 1, 2, 2)), (1, 1, 8, 8)),
    "PW104": (net(nn.AvgPool2d(3, 2)), net(nn.AvgPool2d(4, 2)), (1, 1, 10, 10)),
    "PW105": (net(nn.AdaptiveAvgPool2d(3)), net(nn.AdaptiveAvgPool2d(4)), (1, 1, 8, 8)),
    "PW106": (net(nn.MaxPool2d(2)), net(nn.MaxPool2d(2, 1), nn.AvgPool2d(2)), (1, 1, 9, 9)),
}


@pytest.mark.parametrize("rule", FIXES)
def test_a_rule_finds_and_its_fix_ends_it(rule):
    wrong, right, shape = FIXES[rule]
    assert set(rules(wrong, shape, select=[rule])) == {rule}
    assert rules(right, shape, select=[rule]) == []


def test_an_input_one_larger_consumes_the_padding_of_both_sides():
    model = net(nn.Conv2d(1, 1, 3, 2, 1))
    assert rules(model, (1, 1, 8, 8), select=["PW103"]) == ["PW103"]
    assert rules(model, (1, 1, 9, 9), select=["PW103"]) == []


def test_at_stride_4_the_size_that_consumes_both_sides_is_named():
    model = net(nn.Conv2d(1, 1, 7, 4, 3))
    (finding,) = review(model, (1, 1, 15, 15), select=["PW103"]).findings
    assert finding.fix == "an input whose size here is 17 consumes both sides' padding alike"
    assert rules(model, (1, 1, 17, 17), select=["PW103"]) == []


def test_of_what_is_left_over_padding_is_told_apart():
    (finding,) = review(net(nn.Conv2d(1, 1, 3, 4, 1)), (1, 1, 12, 12), select=["PW101"]).findings
    assert (
        finding.message == "2 of 12 rows and columns are in no window: (12 + 2 − 3) mod 4 = 3, of which 1 are padding"
    )


def test_one_window_over_all_of_a_map_does_not_alias():
    assert rules(net(nn.MaxPool2d(7)), (1, 1, 7, 7), select=["PW106"]) == []


def onnx_net(**words):
    node = helper.make_node("MaxPool", ["x"], ["y"], name="pool", **words)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, None])
    return helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 22)])


def test_windows_of_padding_alone_are_an_error_until_there_is_less_padding():
    found = review(onnx_net(kernel_shape=[2], strides=[1], pads=[3, 0]), select=["PW107"]).findings
    assert [(f.rule, f.severity, f.message) for f in found] == [("PW107", "error", "2 of 6 windows read padding alone")]
    assert rules(onnx_net(kernel_shape=[2], strides=[1], pads=[1, 0]), None, select=["PW107"]) == []


def test_the_message_holds_the_arithmetic():
    (finding,) = review(net(nn.MaxPool2d(3, 2, 1)), (1, 1, 8, 7), select=["PW103"]).findings
    assert (
        finding.message
        == "of 1 + 1 padded rows windows read 1 before and 0 after the input: size 8, window 3, stride 2"
    )


def test_every_rule_has_its_section_and_no_other_stands_there():
    assert re.findall(r"^## (PW\d+)", (DOCS / "rules.md").read_text(), re.M) == [rule.id for rule in RULES]


def test_the_schema_names_every_entry_and_no_other():
    said = set(re.findall(r"`([a-z_]+)`", (DOCS / "review.md").read_text()))
    data = review(net(nn.MaxPool2d(2)), (1, 1, 9, 8)).data()
    held = {*data, *data["totals"], *data["stages"][0], *data["findings"][0], *data["stages"][0]["never_read"][0]}
    held |= {*data["stages"][0]["kept_bytes"]}
    assert held <= said and said - held <= {"keras", "onnx", "error", "warning", "info"}


# ---- the shell ----


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text("import torch\nodd = lambda: torch.nn.Sequential(torch.nn.MaxPool2d(2))\n")
    monkeypatch.chdir(tmp_path)
    yield "nets:odd"
    __import__("sys").modules.pop("nets", None)


def test_findings_end_with_status_1_only_when_strict(odd):
    assert shell(odd, "--input", "1x1x9x8").exit_code == 0
    assert shell(odd, "--input", "1x1x9x8", "--strict").exit_code == 1
    assert shell(odd, "--input", "1x1x8x8", "--strict", "--ignore", "PW106").exit_code == 0


def test_json_is_all_that_is_printed(odd):
    data = json.loads(shell(odd, "--input", "1x1x9x8", "--format", "json").stdout)
    assert data["schema"] == 1 and data["stages"][0]["op"] == "MaxPool" and data["poolwise"] == poolwise.__version__


def test_text_names_the_stage_the_rule_and_the_fix(odd):
    text = shell(odd, "--input", "1x1x9x8").stdout
    assert "PW101 warning 0: 1 of 9 rows are in no window: (9 + 0 − 2) mod 2 = 1" in " ".join(text.split())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: shell(folder / "none.onnx"), "must be a file that exists"),
        (lambda folder: shell(truncated(folder)), "must be an ONNX file"),
        (lambda folder: shell(dynamic(folder)), "input must be given"),
        (lambda folder: shell(dynamic(folder), "--input", "1x1"), "input must have 3 sizes, got 1x1"),
        (lambda folder: shell(folder / "weights.pt"), "a pickle runs code"),
        (lambda folder: shell(dynamic(folder), "--input", "1x1x8", "--select", "PX"), "select must name rules"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, make, says):
    done = make(tmp_path)
    assert done.exit_code == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1


def truncated(folder):
    path = folder / "cut.onnx"
    path.write_bytes((LIGHT / "light_resnet50.onnx").read_bytes()[:5000])
    return path


def dynamic(folder):
    model = onnx_net(kernel_shape=[2])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "n"
    onnx.save(model, folder / "dynamic.onnx")
    return folder / "dynamic.onnx"
