"""The review: stages and findings against published figures and arithmetic by hand, on models nobody here wrote."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import poolwise
from poolwise import cli
from poolwise.design import RULES, review
from poolwise.design import rules as rules_module
from review_models import ResNet50

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


@pytest.mark.parametrize(("size", "stages"), [(224, 5), (225, 0)])
def test_resnet_consumes_padding_on_one_side_in_all_five_stages_at_224_and_in_none_at_225(size, stages):
    """Alsallakh et al. 2021."""
    with torch.device("meta"):
        found = review(ResNet50(), (1, 3, size, size), select=["PW103"])
    assert len(found.findings) == stages
    assert sum(any(pads.high for pads in stage.pads) for stage in found.stages) == 5


# ---- what ONNX says in its own way ----


def graph_of(nodes, shape, constants=()):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))
    held = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in constants]
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])


def test_a_skip_whose_sizes_cannot_agree_is_refused():
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["x", "a"], ["y"], axis=1),
    ]
    with pytest.raises(poolwise.InvalidValue, match=r"model must have shapes that agree, got .*Concat"):
        review(graph_of(nodes, [1, 2, 9, 9]))


def test_a_strided_slice_is_a_stage_and_a_pad_shifts_what_is_seen():
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Slice", ["p", "starts", "ends", "axes", "steps"], ["y"], name="half"),
    ]
    constants = [
        ("pads", np.array([0, 0, 2, 0, 0, 1])),
        ("starts", [1]),
        ("ends", [99]),
        ("axes", [2]),
        ("steps", [2]),
    ]
    (stage,) = review(graph_of(nodes, [1, 1, 10], constants)).stages
    assert (stage.step.name, stage.before.sizes, stage.after.sizes) == ("half", (13,), (6,))
    assert (stage.spans[0].jump, stage.spans[0].first) == (2, -1)


def test_another_input_than_the_declared_one_is_inferred_anew():
    found = review(LIGHT / "light_vgg19.onnx", (1, 3, 224, 224))
    assert found.data()["stages"] == review(LIGHT / "light_vgg19.onnx").data()["stages"]
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2], strides=[2])
    model = graph_of([pool], [1, 1, 8])
    model = onnx.shape_inference.infer_shapes(model)
    assert review(model, (3, 1, 12)).stages[0].after.shape == (3, 1, 6)


def test_normalisations_count_their_scale_and_shift():
    node = helper.make_node("InstanceNormalization", ["x", "s", "b"], ["y"])
    held = [("s", np.ones(3, "f4")), ("b", np.ones(3, "f4"))]
    assert review(graph_of([node], [1, 3, 8], held)).data()["totals"]["parameters"] == 6


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
    before = review(net(*vgg16()[:-1], nn.MaxPool2d(1)), (1, 3, 224, 224)).stages[-1]  # sees what the last one takes
    assert before.spans[0].field == 196


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 5, padding=2), nn.MaxPool2d(2)

    def forward(self, x):
        return self.pool(torch.nn.functional.relu(self.a(x) + self.b(x) + x))


def test_branches_that_meet_see_what_any_of_them_sees():
    (stage,) = review(Skip(), (1, 3, 8, 8)).stages
    assert (stage.spans[0].field, stage.spans[0].first) == (6, -2)


class Strides(nn.Module):
    """One branch steps by 2, the other by 1."""

    def forward(self, x):
        pool = torch.nn.functional.max_pool2d
        return pool(pool(x, 2) + x[:, :, :4, :4], 1)


def test_branches_of_different_strides_see_from_the_first_element_to_the_last():
    stage = review(Strides(), (1, 1, 8, 8)).stages[-1]
    # cell i sees 2 i and 2 i + 1 by one way, i by the other: 3 … 7 at the last
    assert (stage.spans[0].field, stage.spans[0].first, stage.spans[0].even) == (5, 0, False)


class Unknown(nn.Module):
    def forward(self, x):
        return torch.nn.functional.max_pool2d(torch.fft.fft2(x).real, 2)


def test_behind_what_is_not_known_the_rest_is_still_reviewed():
    found = review(Unknown(), (1, 1, 9, 8))
    assert found.data()["unknown"] and found.stages[-1].step.op == "MaxPool"
    assert found.data()["stages"][-1]["receptive_field"] is None
    assert [f.rule for f in found.findings if f.rule < "PW2"] == ["PW101", "PW106"]


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


@pytest.mark.parametrize(
    ("stride", "says"),
    [  # at stride 3 windows end at 10; at 4 they end at 9, one more would begin at 11, and 10 lies between
        (
            3,
            "(12 + 2 − 3) mod 3 = 2, of which 1 are padding or between windows",
        ),
        (
            4,
            "(12 + 2 − 3) mod 4 = 3, of which 2 are padding or between windows",
        ),
    ],
)
def test_what_one_more_window_would_reach_is_told_apart(stride, says):
    (finding,) = review(net(nn.Conv2d(1, 1, 3, stride, 1)), (1, 1, 12, 12), select=["PW101"]).findings
    assert finding.message == f"1 of 12 rows and columns are in no window: {says}"


def test_each_fix_of_what_is_cut_off_ends_it():
    model = net(nn.Conv2d(1, 1, 3, 2))
    (finding,) = review(model, (1, 1, 8, 8), select=["PW101"]).findings
    assert finding.fix == "pad 1 more at the end, crop the input by 1"
    assert rules(net(nn.ZeroPad2d((0, 1, 0, 1)), *model), (1, 1, 8, 8), select=["PW101"]) == []
    assert rules(model, (1, 1, 7, 7), select=["PW101"]) == []


def test_a_projection_of_one_tap_skips_and_cuts_nothing_off():
    model = net(nn.Conv2d(1, 1, 1, 2))
    assert rules(model, (1, 1, 8, 8), select=["PW101", "PW102"]) == ["PW102"]
    (finding,) = review(model, (1, 1, 8, 8), select=["PW102"]).findings
    assert "4 of 8 rows and columns lie between windows" in finding.message


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


def test_every_rule_has_its_page_with_all_its_parts_and_stands_in_the_list():
    listed = re.findall(r"^\| \[(PW\d+)\]\(\S+\) \| (\w+) \| (.+) \|$", (DOCS / "rules.md").read_text(), re.M)
    assert listed == [(rule.id, rule.severity, rule.title) for rule in RULES]
    for rule in RULES:
        parts = re.findall(r"^\*\*(\w+)(?: it)?\.?\*\*", rule.page, re.M)
        assert parts == ["What", "Why", "Evidence", "Source", "Fix", "Ignore"]
        assert rule.page.startswith(f"# {rule.id}: ")
    assert sorted(path.stem for path in rules_module.PAGES.iterdir()) == [rule.id for rule in RULES]


def test_a_finding_names_its_page_and_the_shell_prints_it():
    (finding,) = review(net(nn.MaxPool2d(2)), (1, 1, 9, 8), select=["PW101"]).findings
    assert (Path(poolwise.__file__).parents[1] / finding.page).read_text().startswith("# PW101")
    printed = CliRunner().invoke(cli.app, ["rule", "PW101"]).stdout
    assert "that one more window would reach" in " ".join(printed.split())
    assert CliRunner().invoke(cli.app, ["rule"]).stdout.splitlines()[0].split()[:2] == ["PW101", "warning"]


def test_the_schema_names_every_entry_and_no_other():
    section = (DOCS / "review.md").read_text().partition("## JSON")[2].partition("## SARIF")[0]
    said = set(re.findall(r"`([a-z_]+)`", section))
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
    assert shell(odd, "--input", "1x1x8x8", "--strict", "--ignore", "PW106,PW204").exit_code == 0


def test_json_is_all_that_is_printed(odd):
    data = json.loads(shell(odd, "--input", "1x1x9x8", "--format", "json").stdout)
    assert data["schema"] == 1 and data["stages"][0]["op"] == "MaxPool" and data["poolwise"] == poolwise.__version__


def test_text_names_the_stage_the_rule_and_the_fix(odd):
    text = shell(odd, "--input", "1x1x9x8").stdout
    text = " ".join(text.split())
    assert "PW101 warning elements that no window reads (Dumoulin & Visin 2016, relationship 6)" in text
    assert "0: 1 of 9 rows are in no window: (9 + 0 − 2) mod 2 = 1. Fix: pad 1 more at the end" in text


class Long(nn.Module):
    """Stages whose names and sizes are as long as those of real networks."""

    def __init__(self):
        super().__init__()
        self.feature_extraction_backbone = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d((3, 2), (2, 3)), nn.Sequential(nn.MaxPool2d(3, 2, 1))
        )
        self.feature_extraction_backbone[2].add_module("downsampling_by_maximum", nn.MaxPool2d(3, 2, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(self.feature_extraction_backbone(x))


HEADS = """stage op window size stride so far receptive field starts at never read padding touch
parameters MACs compared or added activation bytes kept poolwise PyTorch"""


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_terminal_holds_every_column(width, monkeypatch):
    """None is dropped, and nothing in it cut."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    done = shell("test_review:Long", "--input", "1x3x225x231")
    assert done.exit_code == 0, done.output
    table = done.stdout.partition("PW1")[0]
    assert "…" not in table
    assert max(map(len, done.stdout.splitlines())) <= width
    words = table.split()
    assert [head for head in HEADS.split() if head not in words] == []
    cells = "225×231 113×116 56×39 28×20 14×10 1×1 11×9 19×21 35×45 −7×−9 −15×−21 0+0×0+0~38 1+0×1+1 13 419 1.12"
    assert [cell for cell in cells.split() if cell not in words] == []
    assert any(word.endswith("downsampling_by_maximum") for word in words)  # whole, or broken behind a dot


def test_a_piped_review_has_every_column_at_120(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    lines = shell("test_review:Long", "--input", "1x3x225x231").stdout.splitlines()
    assert 100 < max(map(len, lines)) <= 120


def test_names_in_brackets_are_shown_as_they_are():
    """They are no style of the terminal's, and none that is not closed."""
    made = graph_of([helper.make_node("MaxPool", ["x"], ["y"], name="a[b]/c[/d]", kernel_shape=[2, 2])], [1, 1, 5, 5])
    console = Console(width=80, file=StringIO())
    console.print(review(made).text(80))
    assert console.file.getvalue().count("a[b]/c[/d]") > 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: shell(folder / "none.onnx"), "must be a file that exists"),
        (lambda folder: shell(truncated(folder)), "must be an ONNX file"),
        (lambda folder: shell(text(folder)), "must be an ONNX file"),
        (lambda folder: shell(without_weights(folder)), "must have its data in files beside it, got 'weights.bin'"),
        (lambda _: shell("json:dumps"), "model must be made by json:dumps()"),
        (lambda _: shell("collections:OrderedDict"), "model must be a torch.nn.Module, a keras model"),
        (lambda folder: shell(dynamic(folder)), "input must be given"),
        (lambda folder: shell(dynamic(folder), "--input", "1x1"), "input must have 3 sizes, got 1x1"),
        (lambda folder: shell(folder / "weights.pt"), "it runs code when it is opened"),
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


def text(folder):
    path = folder / "text.onnx"
    path.write_text("no model at all")
    return path


def without_weights(folder):
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    model = graph_of([conv], [1, 3, 8, 8], [("w", np.zeros((4, 3, 3, 3), "f4"))])
    onnx.save(model, folder / "apart.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").unlink()
    return folder / "apart.onnx"


def dynamic(folder):
    model = onnx_net(kernel_shape=[2])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "n"
    onnx.save(model, folder / "dynamic.onnx")
    return folder / "dynamic.onnx"
