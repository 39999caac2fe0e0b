"""The rules of the review, one by one: each says its arithmetic, and its fix, applied to the model, ends it."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

import poolwise
import poolwise.torch
from poolwise import cli
from poolwise.design import RULES, review
from review_models import VGG16, ResNet50, UNet, made


def found(model, shape, rule):
    return review(model, shape, select=[rule]).findings


def messages(model, shape, rule):
    return [each.message for each in found(model, shape, rule)]


def net(*layers):
    return nn.Sequential(*layers)


# ---- PW108: windows mostly padding ----


def test_a_dilation_that_leaves_one_tap_on_the_map_is_found_until_it_is_smaller():
    def atrous(rate):
        return net(nn.Conv2d(1, 1, 3, padding=rate, dilation=rate))

    (said,) = messages(atrous(18), (1, 1, 14, 14), "PW108")
    assert said == "14 of 14 windows hold more padding than rows and columns: one has 1 of its 3 taps on the input"
    assert found(atrous(18), (1, 1, 14, 14), "PW108")[0].fix == "a smaller dilation"
    assert messages(atrous(3), (1, 1, 14, 14), "PW108") == []


def test_rounding_up_to_a_window_of_one_element_is_found_until_it_rounds_down():
    (said,) = messages(net(nn.MaxPool2d(3, ceil_mode=True)), (1, 1, 7, 9), "PW108")
    assert said == "1 of 3 windows hold more padding than rows: one has 1 of its 3 taps on the input"
    assert messages(net(nn.MaxPool2d(3)), (1, 1, 7, 9), "PW108") == []


# ---- PW109: frameworks disagree ----


def test_a_mean_that_counts_padding_is_found_until_it_has_none():
    model = net(nn.AvgPool2d(3, 2, 1))
    assert messages(model, (1, 1, 7, 7), "PW109") == [
        "the first window's mean is divided by 9; the default of TensorFlow, Keras and ONNX divides by 4"
    ]
    # what is told: PyTorch divides a corner's four ones by 9, Keras by 4
    ones = torch.ones(1, 1, 7, 7)
    assert model(ones)[0, 0, 0, 0] == pytest.approx(4 / 9)
    other = keras.ops.average_pool(ones, 3, 2, "same", "channels_first")
    assert float(other[0, 0, 0, 0]) == pytest.approx(1)
    assert messages(net(nn.AvgPool2d(3, 2)), (1, 1, 7, 7), "PW109") == []


def test_a_mean_that_leaves_padding_out_is_found_too():
    model = net(nn.AvgPool2d(3, 2, 1, count_include_pad=False))
    assert messages(model, (1, 1, 7, 7), "PW109") == [
        "the first window's mean is divided by 4; PyTorch's default divides by 9"
    ]


def test_sizes_that_are_rounded_up_are_found_until_the_padding_says_so():
    (said,) = messages(net(nn.MaxPool2d(3, 2, ceil_mode=True)), (1, 1, 56, 57), "PW109")
    assert said == "rounded up there are 28 rows, rounded down 27: TensorFlow and Keras have no ceil_mode"
    padded = net(nn.ConstantPad2d((0, 0, 0, 1), -torch.inf), nn.MaxPool2d(3, 2))
    assert messages(padded, (1, 1, 56, 57), "PW109") == []


def test_the_window_that_pytorch_drops_and_older_onnx_keeps_is_found():
    # (5 + 2 − 2) / 2 = 2.5: the fourth window would begin at 6 − 1 = 5, in the padding
    (said,) = messages(net(nn.MaxPool2d(2, 2, 1, ceil_mode=True)), (1, 1, 5, 5), "PW109")
    assert said.startswith(
        "the last of 4 windows would start in the padding: PyTorch drops it and gives 3 rows and col"
    )


def test_same_is_found_until_a_layer_says_both_sides():
    def model(*layers):
        return keras.Sequential([keras.Input((8, 8, 3)), *layers])

    (said,) = messages(model(keras.layers.Conv2D(4, 3, 2, padding="same")), (1, 8, 8, 3), "PW109")
    assert said.startswith(
        "padded by 0 before and 1 after, as SAME does: PyTorch's padding=1 gives as many rows and columns"
    )
    explicit = model(keras.layers.ZeroPadding2D(((0, 1), (0, 1))), keras.layers.Conv2D(4, 3, 2))
    assert messages(explicit, (1, 8, 8, 3), "PW109") == []


# ---- PW201, PW202: skips ----


class Skips(nn.Module):
    """Two levels of a U-Net with padded convolutions. fit: what is done to what is made larger."""

    def __init__(self, fit=lambda y, _: y):
        super().__init__()
        self.down, self.up, self.fit = nn.MaxPool2d(2), nn.Upsample(scale_factor=2), fit

    def forward(self, x):
        y = self.down(x)
        y = torch.cat([self.fit(self.up(self.down(y)), y), y], 1)
        return torch.cat([self.fit(self.up(y), x), x], 1)


def resized(y, like):
    return F.interpolate(y, like.shape[2:])


def test_skips_that_cannot_agree_are_one_error_and_the_rest_is_that_of_the_next_size():
    report = review(Skips(), (1, 1, 13, 16), select=["PW201"])
    (finding,) = report.findings
    assert (finding.severity, finding.fix) == ("error", "sizes that are multiples of 4, such as 1×1×16×16")
    assert "does not run on 1×1×13×16 (Sizes of tensors must match" in finding.message
    assert finding.message.endswith("), but on 1×1×16×16")
    assert report.stages[0].before.sizes == (16, 16)
    assert messages(Skips(), (1, 1, 16, 16), "PW201") == []


def test_keras_whose_concatenation_takes_anything_is_held_to_the_same():
    x = keras.Input((None, None, 1))
    y = keras.layers.UpSampling2D(2)(keras.layers.MaxPooling2D(2)(x))
    model = keras.Model(x, keras.layers.Concatenate(name="join")([x, y]))
    (said,) = messages(model, (1, 13, 16, 1), "PW201")
    assert said == (
        "it does not run on 1×13×16×1 (branches that meet must have sizes that agree, got 13×16 and 12×16 at "
        "join), but on 1×14×16×1"
    )


def test_onnx_branches_that_cannot_agree_on_any_size_are_refused():
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["x", "a"], ["y"], axis=1),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 9, 9]) for name in "xy")
    y.type.tensor_type.ClearField("shape")
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 22)])
    with pytest.raises(poolwise.InvalidValue, match="must have shapes that agree"):
        review(model)


def test_a_skip_that_is_resized_over_an_odd_size_is_found_until_the_size_is_even():
    (said,) = messages(Skips(resized), (1, 1, 14, 16), "PW202")
    assert said.startswith("7 rows mod stride 2 = 1: what is made 2 times larger again cannot have 7")
    assert found(Skips(resized), (1, 1, 14, 16), "PW202")[0].fix == "an input for which this size is 6 or 8"
    assert messages(Skips(resized), (1, 1, 16, 16), "PW202") == []


def test_the_papers_unet_meets_even_sizes_at_572_and_odd_ones_at_574():
    assert messages(made(UNet), (1, 1, 572, 572), "PW202") == []
    assert messages(made(UNet), (1, 1, 574, 574), "PW202")[0].startswith("281 rows and columns mod stride 2 = 1")


def test_a_classifier_without_skips_has_no_odd_ones():
    assert messages(made(ResNet50), (1, 3, 225, 225), "PW202") == []


# ---- PW203, PW204: receptive fields and the image ----


def stack(convolutions):
    return net(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(convolutions)], nn.MaxPool2d(2))


def test_layers_that_already_see_the_image_are_counted_until_it_is_larger():
    # after n convolutions of 3 the field is 2 n + 1: 9 of 9 after four, so that the fifth and sixth see nothing new
    (said,) = messages(stack(6), (1, 1, 9, 9), "PW203")
    assert said == (
        "what it reads already sees 9×9 of 9×9: 2 of 6 convolutions with windows larger than 1, from this one on, "
        "see nothing new"
    )
    assert found(stack(6), (1, 1, 9, 9), "PW203")[0].step == "4"
    assert messages(stack(6), (1, 1, 12, 12), "PW203") == []
    assert messages(stack(4), (1, 1, 9, 9), "PW203") == []


def test_a_field_smaller_than_the_image_is_told_until_layers_are_added():
    (said,) = messages(stack(2), (1, 1, 20, 20), "PW204")
    assert said.startswith("no cells see more than its 6×6 of the input's 20×20 (30 %)")
    assert messages(stack(10), (1, 1, 20, 20), "PW204") == []


# ---- PW205: flatten and dense ----


def test_flat_maps_before_a_dense_layer_are_found_until_a_global_average_stands_there():
    (finding,) = found(made(VGG16), (1, 3, 224, 224), "PW205")
    assert finding.message.startswith(f"it reads 7×7 positions laid flat: {512 * 7 * 7 * 4096:,} weights, 74 % of")
    assert finding.fix == f"a global average before it: {512 * 4096:,} weights, and any input size"
    mended = made(VGG16)
    mended.features.append(nn.AdaptiveAvgPool2d(1))
    mended.classifier[0] = nn.Linear(512, 4096, device="meta")
    assert messages(mended, (1, 3, 224, 224), "PW205") == []


def test_the_tutorials_model_in_keras_is_found_too():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    (said,) = messages(model, None, "PW205")
    assert said.startswith(f"it reads 13×13 positions laid flat: {13 * 13 * 32 * 10:,} weights, 99 % of")


# ---- PW206: ReLU and maximum ----


class Rectified(nn.Module):
    def __init__(self, pool, *, read_twice=False):
        super().__init__()
        self.pool, self.read_twice = pool, read_twice

    def forward(self, x):
        y = F.relu(x)
        return self.pool(y) + y.mean() if self.read_twice else self.pool(y)


def test_a_relu_before_a_maximum_is_told_with_its_bytes_until_they_are_one():
    (said,) = messages(Rectified(nn.MaxPool2d(2)), (2, 3, 8, 8), "PW206")
    assert said == (
        f"for training the ReLU before it and its indices keep {2 * 3 * 64 * 4:,} + {2 * 3 * 16 * 8:,} bytes in "
        f"PyTorch; joined with it, {2 * 3 * 16}"
    )
    assert messages(Rectified(nn.MaxPool2d(2), read_twice=True), (2, 3, 8, 8), "PW206") == []
    mended = poolwise.torch.accelerate(net(nn.ReLU(), nn.MaxPool2d(2)))
    assert messages(mended, (2, 3, 8, 8), "PW206") == []


# ---- the project's own choice ----


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "own.py").write_text(
        "import torch\nodd = lambda: torch.nn.Sequential(torch.nn.MaxPool2d(2))\n"
    )
    monkeypatch.chdir(tmp_path / "inner")
    yield tmp_path / "pyproject.toml"
    __import__("sys").modules.pop("own", None)


def shell(*words):
    return CliRunner().invoke(cli.app, ["review", "own:odd", "--input", "1x1x9x8", "--format", "json", *words])


def ids(done):
    return [each["rule"] for each in __import__("json").loads(done.stdout)["findings"]]


def test_a_pyproject_in_or_above_the_current_folder_chooses_the_rules(project):
    project.write_text('[tool.poolwise.review]\nselect = ["PW1"]\nignore = ["PW106"]\nstrict = true\n')
    assert (ids(shell()), shell().exit_code) == (["PW101"], 1)
    assert (ids(shell("--ignore", "PW101")), shell("--no-strict").exit_code) == (["PW106"], 0)
    assert ids(shell("--select", "PW2", "--ignore", "")) == ["PW204"]


def test_steps_that_are_named_there_are_left_alone(project):
    project.write_text('[tool.poolwise.review.per-step-ignores]\n"[0-9]" = ["PW1"]\n"other*" = ["PW2"]\n')
    assert ids(shell()) == ["PW204"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[tool.poolwise.review]\nselct = []\n",
            "must have the entries select, ignore, strict, per-step-ignores, got 'selct'",
        ),
        ('[tool.poolwise.review]\nselect = "PW1"\n', "select of tool.poolwise.review"),
        ("[tool.poolwise.review]\nstrict = 1\n", "must be true or false, got 1"),
        ('[tool.poolwise.review]\nignore = ["PX"]\n', "ignore must name rules"),
        ('[tool.poolwise.review.per-step-ignores]\na = ["PX"]\n', "must name rules"),
        ("[tool.poolwise]\nreview = 1\n", "must be a table, got 1"),
        ("[tool", "must be TOML"),
    ],
)
def test_a_mistake_in_it_is_one_line_that_names_it(project, text, says):
    project.write_text(text)
    done = shell()
    assert done.exit_code == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1


# ---- code in model files ----


def test_a_saved_module_is_opened_only_when_it_is_trusted(project):
    torch.save(net(nn.MaxPool2d(2)), "whole.pt")
    run = CliRunner().invoke
    refused = run(cli.app, ["review", "whole.pt", "--input", "1x1x8x8"])
    assert refused.exit_code == 2 and "it runs code when it is opened" in refused.stderr
    assert run(cli.app, ["review", "whole.pt", "--input", "1x1x8x8", "--trust"]).exit_code == 0


def test_a_file_of_weights_alone_is_no_model_even_when_it_is_trusted(project):
    torch.save(net(nn.Conv2d(1, 1, 1)).state_dict(), "weights.pt")
    done = CliRunner().invoke(cli.app, ["review", "weights.pt", "--input", "1x1x8x8", "--trust"])
    assert done.exit_code == 2 and "model must be a torch.nn.Module" in done.stderr


def test_a_lambda_layer_is_opened_only_when_it_is_trusted(project):
    double = keras.layers.Lambda(lambda x: 2 * x, output_shape=(8, 8, 1))
    keras.Sequential([keras.Input((8, 8, 1)), double, keras.layers.MaxPooling2D(2)]).save("lambda.keras")
    run = CliRunner().invoke
    refused = run(cli.app, ["review", "lambda.keras"])
    assert refused.exit_code == 2 and "whose code a file would run" in refused.stderr
    assert "MaxPool" in run(cli.app, ["review", "lambda.keras", "--trust"]).stdout


# ---- several inputs ----


class Two(nn.Module):
    def forward(self, x, y):
        return F.max_pool2d(x, 2) + y


def two_inputs():
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["a", "z"], ["y"]),
    ]
    x, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "h", "w"]) for name in "xz")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [x, z], [y]), opset_imports=[helper.make_opsetid("", 22)])


def keras_two():
    x, y = keras.Input((8, 8, 1)), keras.Input((4, 4, 1))
    return keras.Model([x, y], keras.layers.Add()([keras.layers.MaxPooling2D(2)(x), y]))


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (Two(), [(1, 1, 8, 8), (1, 1, 4, 4)]),
        (two_inputs(), [(1, 1, 8, 8), (1, 1, 4, 4)]),
        (keras_two(), [(1, 8, 8, 1), (1, 4, 4, 1)]),
        (keras_two(), None),
    ],
)
def test_a_model_of_several_inputs_is_given_a_shape_for_each(model, shapes):
    data = review(model, shapes).data()
    assert [stage["op"] for stage in data["stages"]] == ["MaxPool"] and len(data["inputs"]) == 2


class Mixed(nn.Module):
    """An image and a vector, in either order."""

    def __init__(self, image):
        super().__init__()
        self.image, self.conv = image, nn.Conv2d(3, 5, 3, 2)

    def forward(self, *given):
        return F.max_pool2d(self.conv(given[self.image]), 2).mean((2, 3)) + given[1 - self.image]


@pytest.mark.parametrize("shapes", [[(1, 3, 32, 32), (1, 5)], [(1, 5), (1, 3, 32, 32)]])
def test_an_image_beside_a_vector_is_the_image_that_fields_are_held_against(shapes):
    (finding,) = review(Mixed(len(shapes[0]) == 2), shapes, select=["PW204"]).findings
    assert "5×5 of the input's 32×32" in finding.message


def test_two_images_have_no_one_size_to_hold_fields_against():
    assert review(Two(), [(1, 1, 8, 8), (1, 1, 4, 4)], select=["PW203", "PW204"]).findings == ()


def test_what_a_blur_or_a_mean_smooths_is_not_said_to_alias_and_a_blur_covers_evenly():
    blurred = net(poolwise.torch.BlurPool2d(3, 1, padding=1), nn.Conv2d(1, 1, 3, 2))
    assert messages(blurred, (1, 1, 9, 9), "PW106") == []
    assert messages(net(nn.AvgPool2d(2, 1), nn.MaxPool2d(1, 2)), (1, 1, 9, 9), "PW106") == []
    assert messages(net(poolwise.torch.MaxBlurPool2d(2, 2)), (1, 1, 9, 9), "PW104") == []
    assert messages(net(nn.AvgPool2d(3, 2)), (1, 1, 9, 9), "PW104")


def test_offsets_inside_large_windows_are_four_bytes():
    (stage,) = review(net(nn.AdaptiveMaxPool2d(1)), (1, 3, 32, 32)).stages
    assert stage.kept == (12, 24)


def test_too_few_shapes_are_refused():
    with pytest.raises(poolwise.InvalidValue, match="input must be given for each of x, z, got 1"):
        review(two_inputs(), (1, 1, 8, 8))


def test_every_rule_is_held_here_or_beside():
    here = Path(__file__).read_text() + Path(__file__).with_name("test_review.py").read_text()
    assert [rule.id for rule in RULES if f'"{rule.id}"' not in here] == []
