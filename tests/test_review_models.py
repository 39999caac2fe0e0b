"""The review of models nobody here wrote, and of published definitions: what it finds in each, to be checked by hand.

`python tests/test_review_models.py` writes the findings anew.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from poolwise.design import Review, review
from review_models import VGG16, DenseNet121, InceptionV3, ResNet50, UNet, made

SNAPSHOT = Path(__file__).with_name("review_findings.txt")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
FACES = {"PNet": (12, 6_632), "RNet": (24, 100_178), "ONet": (48, 389_040)}  # of mtcnn: input, parameters
TEXT = {  # of rapidocr-onnxruntime
    "ch_PP-OCRv4_det_infer": (1, 3, 640, 640),
    "ch_PP-OCRv4_rec_infer": (1, 3, 48, 320),
    "ch_ppocr_mobile_v2.0_cls_infer": (1, 3, 48, 192),
}
PUBLISHED = {
    "VGG-16": (VGG16, (1, 3, 224, 224)),
    "ResNet-50": (ResNet50, (1, 3, 224, 224)),
    "DenseNet-121": (DenseNet121, (1, 3, 224, 224)),
    "Inception-v3": (InceptionV3, (1, 3, 299, 299)),
    "U-Net": (UNet, (1, 1, 572, 572)),
}


def text_model(name: str) -> Path:
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "models" / f"{name}.onnx"


def reviews() -> dict[str, Review]:
    """Every model's review by the name under which it stands in the snapshot."""
    light = {f"onnx: {path.stem}": review(path) for path in sorted(LIGHT.glob("light_*.onnx"))}
    faces = {
        f"mtcnn: {name}": review(f"mtcnn.network.{name.lower()}:{name}", (1, size, size, 3))
        for name, (size, _) in FACES.items()
    }
    text = {f"rapidocr: {name}": review(text_model(name), shape) for name, shape in TEXT.items()}
    published = {f"PyTorch: {name}": review(made(kind), shape) for name, (kind, shape) in PUBLISHED.items()}
    return {**light, **faces, **text, **published}


def written(found: dict[str, Review]) -> str:
    parts = []
    for name, report in found.items():
        totals = report.data()["totals"]
        shapes = " ".join("×".join(map(str, shape)) for shape in report.data()["inputs"])
        parts.append(f"{name} on {shapes}: {totals['parameters']:,} parameters, {totals['macs']:,} MACs")
        parts += [f"  {each.rule} {each.step}: {each.message}" for each in report.findings]
    return "\n".join(parts) + "\n"


@pytest.fixture(scope="module")
def found() -> dict[str, Review]:
    return reviews()


@pytest.mark.slow
def test_the_findings_are_those_that_were_checked_by_hand(found: dict[str, Review]) -> None:
    assert written(found) == SNAPSHOT.read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_model_is_read_without_an_unknown_operator(found: dict[str, Review]) -> None:
    assert {name: report.data()["unknown"] for name, report in found.items() if report.data()["unknown"]} == {}
    assert len(found) == 9 + len(FACES) + len(TEXT) + len(PUBLISHED)


@pytest.mark.slow
@pytest.mark.parametrize("name", FACES)
def test_mtcnn_has_the_parameters_that_keras_counts(found: dict[str, Review], name: str) -> None:
    assert found[f"mtcnn: {name}"].data()["totals"]["parameters"] == FACES[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXT)
def test_text_models_have_the_sizes_that_onnxruntime_gives(found: dict[str, Review], name: str) -> None:
    import onnxruntime  # noqa: PLC0415

    model = onnx.load(text_model(name))
    stages = [stage for stage in found[f"rapidocr: {name}"].stages if stage.step.output]
    have = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=s.step.output) for s in stages if s.step.output not in have)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: np.zeros(TEXT[name], "f4")}
    ran = session.run([stage.step.output for stage in stages], given)
    assert [each.shape for each in ran] == [stage.after.shape for stage in stages]


def long_chain(nodes: int) -> onnx.ModelProto:
    """Convolutions, ReLUs, skips and five poolings."""
    x = helper.make_tensor_value_info("v0", TensorProto.FLOAT, [1, 8, 224, 224])
    weights = onnx.numpy_helper.from_array(np.zeros((8, 8, 3, 3), "f4"), "w")
    made_nodes = []
    for place in range(nodes):
        into, out = f"v{place}", f"v{place + 1}"
        if place % 100 == 99:
            node = helper.make_node("MaxPool", [into], [out], kernel_shape=[2, 2], strides=[2, 2])
        elif place % 3 == 0:
            node = helper.make_node("Conv", [into, "w"], [out], pads=[1, 1, 1, 1])
        elif place % 3 == 1 or place % 100 == 0:  # a pooling lies before it: no skip over that
            node = helper.make_node("Relu", [into], [out])
        else:
            node = helper.make_node("Add", [into, f"v{place - 1}"], [out])
        made_nodes.append(node)
    y = helper.make_tensor_value_info(f"v{nodes}", TensorProto.FLOAT, None)
    graph = helper.make_graph(made_nodes, "chain", [x], [y], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])


def test_a_graph_of_500_nodes_is_read_whole() -> None:
    model = long_chain(500)
    begin = time.perf_counter()
    report = review(model)
    print(f"500 nodes: {time.perf_counter() - begin:.2f} s")  # noqa: T201 (a figure to read; `pytest -s`)
    assert len(report.graph.steps) == 500 and len(report.stages) == 5


if __name__ == "__main__":
    SNAPSHOT.write_text(written(reviews()), encoding="utf-8")
    sys.stdout.write(f"{SNAPSHOT}\n")
