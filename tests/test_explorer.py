"""The explorer without a browser: what it opens and refuses, what its server answers and to whom, what a file holds."""

from __future__ import annotations

import base64
import http.client
import io
import json
import pickle
import re
import socket
import struct
import subprocess
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import poolwise
from browser import served
from explorer_node import engine
from poolwise.explorer import Explorer, page, state
from poolwise.explorer.answers import Answers
from poolwise.explorer.inputs import MOST_PIXELS, opened, samples
from poolwise.explorer.server import application, listening
from poolwise.explorer.source import IN_PAGE, array_item, packed, titled
from test_cli import shell

X = np.random.default_rng(5).integers(0, 256, (40, 50), dtype=np.uint8)


@pytest.fixture
def client() -> TestClient:
    return TestClient(application(Explorer(X).source, 4321), base_url="http://127.0.0.1:4321")


def unpacked(answer: dict[str, Any]) -> Any:
    values = np.frombuffer(base64.b64decode(answer["data"]), np.dtype(answer["wire"]).newbyteorder("<"))
    return values.reshape(answer["rows"], answer["columns"])


# ---- the server ----


@pytest.mark.parametrize(
    "call", ["op=max&window=2x2", "op=mean&window=3x3&padding=same", "op=sum&adaptive=3x4", "op=min&global=1"]
)
def test_the_server_answers_with_pooled_numbers(client: TestClient, call: str) -> None:
    y = state.read(call).forward(X)
    query = f"item=0&channel=0&what=output&{call}"
    facts = client.get(f"/ask/field?{query}").json()
    assert facts == {"rows": y.shape[0], "columns": y.shape[1], "dtype": y.dtype.name, "low": y.min(), "high": y.max()}
    tile = client.get(f"/ask/tile?{query}&level=0&row=0&column=0").json()
    assert np.array_equal(unpacked(tile), y)


def test_coarser_levels_are_means(client: TestClient) -> None:
    tile = client.get("/ask/tile?item=0&channel=0&what=input&level=2&row=0&column=0").json()
    expected = poolwise.pool(X.astype("f4"), poolwise.Mean(), (4, 4), ceil_mode=True)
    assert np.array_equal(unpacked(tile), expected)


def test_a_whole_large_grid_is_its_tiles() -> None:
    x = np.random.default_rng(0).standard_normal((700, 530)).astype("f4")
    answers = Answers(Explorer(x).source)
    query = "item=0&channel=0&what=input&level=0"
    tiles = [
        [unpacked(answers.answer("tile", f"{query}&row={row}&column={column}")) for column in range(3)]
        for row in range(3)
    ]
    whole = np.block(tiles)
    assert np.array_equal(whole, x)


def test_an_operation_of_floats_takes_a_pictures_bytes_as_floats(client: TestClient) -> None:
    tile = client.get("/ask/tile?item=0&channel=0&what=output&op=lp(p:3)&window=2x2&level=0&row=0&column=0").json()
    assert np.array_equal(unpacked(tile), poolwise.lp_pool(X.astype("f4"), (2, 2), p=3))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("nothing?", "a question must be one of field, tile, change, network, got 'nothing'"),
        ("field?item=1&channel=0", "item must be less than 1, got 1"),
        ("field?item=0&channel=7", "channel must be one of array's, got 7"),
        ("field?item=-1", "item must be a whole number, got '-1'"),
        ("field?what=output&op=nothing", "op must be one of"),
        ("field?what=output&op=max(p:3)", "op max must have parameters among []"),
        ("field?what=output&window=2", "window must be two whole numbers such as 2x2, got '2'"),
        ("field?what=output&window=0x2", "window must be at least 1"),
        ("field?what=output&window=99x2", "window must fit the padded input"),
        ("field?what=output&op=lp(p:0)&window=2x2", "p must be at least 1"),
        ("field?what=output&padding=-1x3", "padding must be same, same_lower, valid or such as 1-1x0-2"),
        ("field?what=sideways", "what must be input, output, gradient or after"),
        ("field?shift=a", "shift must be two whole numbers such as 1x0"),
        ("tile?level=0&row=9&column=0", "row and column must name a tile"),
        ("field?what=output&window=2x2&padding=4000000000-0x0-0&stride=1x1", "the output would have"),
    ],
)
def test_a_wrong_question_gets_one_sentence(client: TestClient, query: str, sentence: str) -> None:
    answer = client.get(f"/ask/{query}")
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(sentence)
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    "host", ["example.org", "127.0.0.1", "127.0.0.1:80", "localhost:4322", "evil.localhost:4321", ""]
)
def test_it_answers_to_this_machines_names_only(client: TestClient, host: str) -> None:
    for path in ("/", "/ask/field?item=0", "/view.html"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 421
        assert "poolwise" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:4321", "localhost:4321", "LOCALHOST:4321", "[::1]:4321"])
def test_it_answers_to_this_machines_names(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/ask/field", "/view.html"])
def test_there_is_nothing_to_write(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/static/explorer.js",
        "/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/ask/../../README.md",
        "/%2e%2e/pyproject.toml",
        "/ask",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


def test_every_answer_forbids_the_rest_of_the_web(client: TestClient) -> None:
    for path in ("/", "/ask/field?item=0", "/ask/nothing", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_it_listens_on_the_loopback_alone() -> None:
    with listening(0) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"


def test_many_ask_at_once() -> None:
    with served(Explorer(X).source) as address, ThreadPoolExecutor(8) as pool:
        port = int(address.rstrip("/").rpartition(":")[2])

        def ask(number: int) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(
                "GET", f"/ask/tile?item=0&channel=0&what=output&op=max&window={1 + number % 7}x2&level=0&row=0&column=0"
            )
            return int(json.load(connection.getresponse())["rows"])

        assert list(pool.map(ask, range(64))) == [40 // (1 + number % 7) for number in range(64)]


# ---- what is opened ----


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def bomb() -> bytes:
    """A picture of 30,000 × 30,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(X).save(buffer, "PNG")
    return buffer.getvalue()


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploited"),))


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Exploit()], object), allow_pickle=True)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    """An .npz that would unpack to five gigabytes, of which it says so and holds nothing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.npy", bytes(1000))
        packed.filelist[0].file_size = 0xFFFFFFF0
        packed.writestr("b.npy", bytes(1000))
        packed.filelist[1].file_size = 0xFFFFFFF0
    return buffer.getvalue()


BAD_FILES = {
    "bomb.npz": (zip_bomb(), "must have at most 4,294,967,296 bytes"),
    "text.png": (b"no picture at all", "must be a picture"),
    "empty.jpg": (b"", "must be a picture"),
    "cut.png": (png()[:200], "must be a whole picture"),
    "bomb.png": (bomb(), f"must have at most {MOST_PIXELS:,} pixels"),
    "text.npy": (b"no array", "must be an array saved"),
    "cut.npy": (b"\x93NUMPY\x01\x00", "must be an array saved"),
    "objects.npy": (objects(), "must be an array saved without pickles"),
    "cut.npz": (b"PK\x03\x04broken", "must be an array saved"),
    "model.pt": (pickle.dumps(Exploit()), "a pickle"),
    "model.pkl": (pickle.dumps(Exploit()), "a pickle"),
    "cut.onnx": (b"\x08\x07broken", "model must"),
    "cut.keras": (b"PK\x03\x04broken", "model must"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line_and_runs_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, sentence = BAD_FILES[name]
    monkeypatch.chdir(tmp_path)
    done = shell("explore", str(written(tmp_path / name, content)), "--save", "view.html")
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "exploited").exists()
    assert not (tmp_path / "view.html").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing.png"], "must be a file, and there is none"),
        (["."], "must be a file, and there is none"),
        (["no.such.module:thing"], "must be importable"),
        (["--image", "x.png"], ""),
        (["--port", "70000"], "port must be between 0 and 65535, got 70000"),
        (["mynet:Net", "--input", "3x"], "input must be a batch's shape"),
    ],
)
def test_a_bad_command_is_one_line(words: list[str], sentence: str) -> None:
    if words == ["--image", "x.png"]:
        words, sentence = [str(Path(__file__)), "--image", "x.png"], "go with a model"
    done = shell("explore", *words, "--no-browser")
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_in_use_is_one_line_and_without_one_another_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = shell("explore", "--no-browser", "--port", str(port))
        assert done.exit_code == 2
        assert f"port must be free, got {port}" in done.stderr
    with listening(None) as first, listening(None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_pictures_and_arrays_are_opened_as_they_are(tmp_path: Path) -> None:
    (item,) = opened(str(written(tmp_path / "grey.png", png()))).items
    assert item.picture
    assert np.array_equal(item.values[0], X)
    colour = np.random.default_rng(1).integers(0, 256, (9, 8, 4), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    (item,) = opened(str(tmp_path / "colour.png")).items
    assert item.channels == ("red", "green", "blue")
    assert np.array_equal(np.moveaxis(item.values, 0, 2), colour[..., :3])
    np.savez(tmp_path / "two.npz", a=X, b=np.ones((2, 3, 4, 5)))
    first, second = opened(str(tmp_path / "two.npz")).items
    assert (first.name, second.name, second.values.shape) == ("a", "b", (6, 4, 5))
    deep = (np.arange(2000) * 32).astype(np.uint16).reshape(40, 50)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (item,) = opened(str(tmp_path / "deep.png")).items
    assert np.array_equal(item.values[0], deep)


def test_the_samples_are_in_the_package_with_their_source() -> None:
    source = samples()
    assert [item.values.shape for item in source.items] == [(3, 512, 512), (1, 28, 28)]
    assert "NASA" in source.credit
    assert "MNIST" in source.credit


# ---- Explorer ----


@pytest.mark.parametrize(
    ("x", "fault"),
    [
        (np.array(["a"]), poolwise.InvalidType),
        (np.ones(3, complex), poolwise.InvalidType),
        (object(), poolwise.InvalidType),
        (np.ones((0, 3)), poolwise.InvalidValue),
        (3.0, poolwise.InvalidValue),
        ("nothing.png", poolwise.InvalidValue),
    ],
)
def test_what_is_no_array_is_refused(x: Any, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        Explorer(x)


def test_explorer_takes_tensors_pictures_and_a_pooling() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(2, 3, 8, 8, requires_grad=True, dtype=torch.bfloat16)
    assert Explorer(tensor).source.items[0].values.shape == (6, 8, 8)
    assert Explorer(Image.fromarray(X)).source.items[0].picture
    explorer = Explorer(X, poolwise.Mean(count_include_pad=True), (3, 3), stride=2, padding=1)
    assert explorer.state == "op=mean(count_include_pad:true)&window=3x3&stride=2x2&padding=1-1x1-1"
    assert Explorer(X, poolwise.Lp(3), output_size=(4, 4)).state == "op=lp(p:3)&adaptive=4x4"
    with pytest.raises(poolwise.InvalidType, match="op must be an operation"):
        Explorer(X, "max")  # type: ignore[arg-type]


def test_a_widget_answers_as_the_server_does() -> None:
    explorer = Explorer(X, window=(2, 2))
    sent: list[Any] = []
    explorer.widget.send = sent.append
    query = "item=0&channel=0&what=output&op=max&window=2x2&level=0&row=0&column=0"
    explorer.widget._asked(None, {"id": 3, "kind": "tile", "query": query}, [])
    explorer.widget._asked(None, {"id": 4, "kind": "tile", "query": "op=nothing&what=output"}, [])
    assert np.array_equal(unpacked(sent[0]["answer"]), poolwise.max_pool(X, (2, 2)))
    assert sent[1]["error"].startswith("op must be one of")
    assert explorer.widget.state == explorer.state
    explorer.state = "op=min&window=2x2"
    assert explorer.widget.state == "op=min&window=2x2"
    assert "application/vnd.jupyter.widget-view+json" in str(explorer._repr_mimebundle_())


def test_large_arrays_stay_in_python() -> None:
    large = titled([array_item("large", np.zeros((IN_PAGE // 1024 + 1, 1024), np.uint8))], "large")
    assert large.data()["items"][0]["data"] is None
    assert large.data(large.size)["items"][0]["data"] is not None
    with pytest.raises(poolwise.InvalidValue, match="a file holds at most"):
        page.saved(titled([array_item("huge", np.zeros((page.LARGEST_FILE // 1024 + 1, 1024), np.uint8))], "huge"), "")


def test_a_picture_too_large_for_a_file_is_reduced_and_says_so() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2000, 1700, 3), dtype=np.uint8)
    small = page.fitting(Explorer(x).source)
    expected = poolwise.avg_pool(np.moveaxis(x, 2, 0), (9, 9), ceil_mode=True)
    assert np.array_equal(small.items[0].values, expected)
    assert small.items[0].note == "reduced 9×9 for this file"
    assert small.size <= page.LARGEST_PICTURE


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "int64", "uint64", "float32", "float64"])
def test_numbers_travel_as_they_are(dtype: str) -> None:
    x = np.arange(12).reshape(3, 4).astype(dtype)
    assert np.array_equal(unpacked(packed(x)), x)
    assert packed(x)["dtype"] == dtype


def test_a_file_is_written_by_the_command(tmp_path: Path) -> None:
    done = shell("explore", "--save", str(tmp_path / "view.html"))
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "view.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "https://" not in text.replace("http://www.w3.org", "")


# ---- the module ----


def test_the_parts_are_one_module_without_imports() -> None:
    text = page.module()
    assert not re.search(
        r"^import |^export (?!default|function featureMaps|function mount|class Explorer)", text, re.MULTILINE
    )
    names = re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names))


def test_the_module_is_sound_javascript(tmp_path: Path) -> None:
    program = written(tmp_path / "module.mjs", page.module().encode())
    done = subprocess.run([engine(), "--check", str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_can_be_reached_from_the_package() -> None:
    assert poolwise.explorer.Explorer is Explorer
