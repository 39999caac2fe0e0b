"""The explorer in a browser: every view, its numbers held to poolwise, by hand, by keyboard, by ear and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import numpy as np
import pytest
from playwright.sync_api import Browser

import poolwise
from browser import NARROW, WIDE, View, launched, served
from poolwise.explorer import Explorer, state
from poolwise.explorer.answers import changed
from poolwise.explorer.inputs import samples
from poolwise.explorer.page import saved

pytestmark = pytest.mark.slow
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
VIEWS = ("windows", "coverage", "frameworks", "backward", "compare", "shift", "maps", "code")
SOURCE = samples()
DIGIT = SOURCE.items[1].values[0]
PHOTO = SOURCE.items[0].values


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(SOURCE) as found:
        yield found


@pytest.fixture
def view(browser: Browser) -> Iterator[View]:
    context = browser.new_context(viewport=WIDE)
    shown = View(context.new_page())
    yield shown
    context.close()
    assert shown.faults == []


def said(value: float) -> str:
    """A number as the page writes it."""
    value = float(value)
    if value.is_integer() and abs(value) < 1e9:
        return str(int(value)).replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def forward(call: str, x: Any) -> Any:
    return state.read(call).forward(x)


def test_alone_it_opens_on_a_photograph_in_colour_and_a_digit(view: View, address: str) -> None:
    view.open(address)
    assert view.facts()["size"] == "512×512 → 256×256"
    assert view.state()["channel"] == "-1"
    view.page.locator("label:has-text('Array') select").select_option(label="digit")
    view.settle()
    assert view.facts()["size"] == "28×28 → 14×14"


CALLS = (
    "op=max&window=2x2",
    "op=mean&window=3x3&stride=2x2&padding=1-1x1-1",
    "op=mean(count_include_pad:true)&window=3x2&padding=1-0x0-1&ceil=1",
    "op=min&window=2x2&stride=1x1&dilation=3x3",
    "op=sum&adaptive=5x3",
    "op=max&global=1",
    "op=relumax&window=3x3&padding=same",
    "op=lp(p:3)&window=4x4",
)


@pytest.mark.parametrize("call", CALLS)
def test_the_formula_of_a_cell_ends_in_pooled_number(view: View, address: str, call: str) -> None:
    x = DIGIT.astype(np.float32) if "lp" in call else DIGIT
    y = forward(call, x)
    view.open(address, f"view=windows&item=1&channel=0&{call}")
    assert view.facts()["size"] == f"28×28 → {y.shape[0]}×{y.shape[1]}"
    for row, column in {(0, 0), (y.shape[0] // 2, y.shape[1] // 2), (y.shape[0] - 1, y.shape[1] - 1)}:
        view.show(f"view=windows&item=1&channel=0&{call}&cell=outputx{row}x{column}")
        view.page.wait_for_function(
            "() => !document.querySelector('.formula').textContent.includes('…')"
            if "lp" in call or "relumax" in call
            else "() => true"
        )
        first = view.formula().split("  ")[0]
        assert re.search(rf"= {re.escape(said(y[row, column]))}( |$|\()", view.formula().replace("\n", " ") + " "), (
            first,
            y[row, column],
        )


def test_pointing_lights_windows_both_ways(view: View, address: str) -> None:
    view.open(address, "view=windows&item=1&op=max&window=3x3&stride=2x2")
    view.board(1).hover()
    view.settle()
    where = re.search(r"out \((\d+), (\d+)\)", view.formula())
    assert where
    row, column = map(int, where.groups())
    taps = DIGIT[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
    assert f"max({', '.join(map(str, taps.ravel()))}) = {taps.max()}" in view.formula()
    view.board(0).hover()
    view.settle()
    where = re.search(r"in \((\d+), (\d+)\)\s+(\d+)", view.formula())
    assert where
    row, column, value = map(int, where.groups())
    assert value == DIGIT[row, column]
    readers = sum(2 * i <= row <= 2 * i + 2 for i in range(13)) * sum(2 * i <= column <= 2 * i + 2 for i in range(13))
    assert f"read by {readers} window" in view.formula()


def test_keys_walk_zoom_and_leave(view: View, address: str) -> None:
    view.open(address, "view=windows&item=1&op=max&window=2x2")
    view.press(1, "ArrowRight", "ArrowRight", "ArrowDown")
    assert view.state()["cell"] == "outputx1x1"
    grid = view.board(1)
    assert grid.get_attribute("role") == "grid"
    assert (grid.get_attribute("aria-rowcount"), grid.get_attribute("aria-colcount")) == ("14", "14")
    active = view.page.locator(f"#{grid.get_attribute('aria-activedescendant')}")
    assert active.text_content() == f"row 1, column 1: {DIGIT[2:4, 2:4].max()}"
    view.press(1, "End", "PageDown", "+", "+")
    assert view.state()["cell"] == "outputx11x13"
    assert float(view.state()["place"].split("x")[2]) == pytest.approx(2.25)
    view.press(1, "0", "Escape")
    assert "place" not in view.state()
    assert "cell" not in view.state()
    view.page.locator("[role=tab] >> nth=0").focus()
    view.page.keyboard.press("ArrowRight")
    view.settle()
    assert view.state()["view"] == "coverage"


def test_every_control_changes_what_is_pooled(view: View, address: str) -> None:
    view.open(address, "view=windows&item=1&op=max&window=2x2")
    page = view.page
    page.fill('[aria-label="Window, height"]', "5")
    page.fill('[aria-label="Window, width"]', "3")
    page.fill('[aria-label="Stride, height"]', "4")
    page.fill('[aria-label="Padding, top"]', "2")
    page.fill('[aria-label="Padding, right"]', "1")
    page.fill('[aria-label="Dilation, width"]', "2")
    page.check("text=round the size up")
    page.locator("label:has-text('Padding reads') select").select_option("reflect")
    page.select_option("fieldset:has-text('Operation') select", "mean")
    page.fill("label:has-text('divisor') input", "7")
    view.settle()
    call = "op=mean(divisor:7)&window=5x3&stride=4x3&padding=2-0x0-1&dilation=1x2&ceil=1&mode=reflect"
    assert "&".join(f"{k}={v}" for k, v in view.state().items() if k not in ("view", "item", "channel")) == call
    y = forward(call, DIGIT)
    assert view.facts()["size"] == f"28×28 → {y.shape[0]}×{y.shape[1]}"
    page.select_option("fieldset:has-text('Geometry') select >> nth=0", "adaptive")
    page.fill('[aria-label="Output size, height"]', "6")
    view.settle()
    assert view.facts()["size"] == "28×28 → 6×7"


@pytest.mark.parametrize(
    ("label", "value", "sentence"),
    [
        ("Window, height", "29", "window must fit the padded input: it spans 29 along the height, which has 28"),
        ("Window, width", "0", "window must be a whole number of at least 1, got 0"),
        ("Window, width", "", "window must be a whole number of at least 1, got NaN"),
        ("Stride, width", "1.5", "stride must be a whole number of at least 1, got 1.5"),
        ("Padding, top", "99999999", "the output would be 50000013×14 cells, more than can be shown"),
        ("Padding, left", "-1", "padding must be a whole number of at least 0, got -1"),
    ],
)
def test_a_number_that_cannot_be_is_one_sentence_and_the_page_goes_on(
    view: View, address: str, label: str, value: str, sentence: str
) -> None:
    view.open(address, "view=windows&item=1&op=max&window=2x2")
    view.page.fill(f'[aria-label="{label}"]', value)
    view.settle()
    assert view.fault().startswith(sentence)
    assert view.facts()["size"] == "28×28 → 14×14"  # what was there stays
    view.page.fill(f'[aria-label="{label}"]', "2")
    view.settle()
    assert view.fault() == ""


def test_coverage_counts_what_the_geometry_counts(view: View, address: str) -> None:
    call = "op=max&window=3x3&stride=2x2&padding=0-1x0-0"
    view.open(address, f"view=coverage&item=1&{call}")
    geometry = poolwise.Geometry.of((28, 28), window=(3, 3), stride=2, padding=((0, 1), (0, 0)))
    times, counts = np.unique(np.outer(*geometry.coverage()), return_counts=True)
    rows = view.page.eval_on_selector_all(
        ".histogram tbody tr", "(rows) => rows.map((row) => [row.children[0].textContent, row.children[1].textContent])"
    )
    assert rows == [[f"{time}×", str(count)] for time, count in zip(times, counts, strict=True)]
    assert view.facts()["never read"] == "1 column"


@pytest.mark.parametrize(
    "call", ["op=max&window=3x3&stride=2x2", "op=mean&adaptive=5x5", "op=lp(p:3)&window=4x4&stride=3x3"]
)
def test_backward_reaches_the_elements_that_poolwise_reaches(view: View, address: str, call: str) -> None:
    x = DIGIT.astype(np.float64)
    gradient = state.read(call).backward(np.ones(forward(call, x).shape), x)
    view.open(address, f"view=backward&item=1&{call}")
    view.page.wait_for_selector(".below p")
    row, column = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    view.show(f"view=backward&item=1&{call}&cell=inputx{row}x{column}")
    view.page.wait_for_function("() => !document.querySelector('.spoken [role=gridcell]').textContent.includes('…')")
    spoken = view.board(0).locator("[role=gridcell]").text_content()
    assert spoken == f"row {row}, column {column}: {said(gradient[row, column])}"
    if "lp" not in call:
        share = 100 * (gradient != 0).mean()
        assert view.page.inner_text(".below").startswith(f"{share:.3g} % of the elements receive a gradient")


def test_compare_shows_two_operations_and_their_difference(view: View, address: str) -> None:
    call = "window=4x4&stride=2x2"
    view.open(address, f"view=compare&item=1&op=max&{call}&other=mean")
    a, b = forward(f"op=max&{call}", DIGIT), forward(f"op=mean&{call}", DIGIT)
    gap = a.astype(int) - b
    assert view.page.locator(".boards .board").count() == 4
    assert f"{(gap != 0).sum()} of {gap.size} numbers differ, by at most {np.abs(gap).max()}." in view.page.inner_text(
        ".below"
    )
    row, column = np.unravel_index(np.abs(gap).argmax(), gap.shape)
    view.show(f"view=compare&item=1&op=max&{call}&other=mean&cell=outputx{row}x{column}")
    assert view.board(3).locator("[role=gridcell]").text_content().endswith(f": {gap[row, column]}")
    view.page.select_option("fieldset:has-text('Compared with') select", "lp")
    view.page.locator("fieldset:has-text('Compared with')").get_by_label("p", exact=True).fill("3")
    view.settle()
    assert view.state()["other"] == "lp(p:3)"
    assert view.page.locator(".boards .board").count() == 4


def test_the_shift_slider_moves_the_input_and_says_how_much_changed(view: View, address: str) -> None:
    call = "op=max&window=2x2"
    view.open(address, f"view=shift&item=1&{call}")
    assert view.changes()["input changed by"] == "0 %"
    view.page.locator(".slider input").nth(0).focus()
    view.page.keyboard.press("ArrowRight")
    view.settle()
    assert view.state()["shift"] == "1x0"
    moved = np.roll(DIGIT, 1, 0)
    for name, before, after in (("input", DIGIT, moved), ("output", forward(call, DIGIT), forward(call, moved))):
        assert view.changes()[f"{name} changed by"] == f"{100 * changed(before, after):.3g} %"
    view.show(f"view=shift&item=1&{call}&shift=2x-4&cell=outputx7x7")
    moved = np.roll(DIGIT, (2, -4), (0, 1))
    assert f"= {forward(call, moved)[7, 7]}" in view.formula()
    assert "multiple of the stride" in view.page.inner_text(".below")


def test_frameworks_can_be_switched(view: View, address: str) -> None:
    view.open(address, "view=frameworks&item=1&op=mean&window=3x3&padding=1-1x1-1")
    rows = {row.locator("th").inner_text(): row for row in view.page.locator(".readings tbody tr").all()}
    assert list(rows) == ["poolwise", "PyTorch", "Keras / TensorFlow", "JAX (Flax)", "ONNX"]
    sizes = [row.locator("td").nth(0).inner_text() for row in rows.values()]
    assert sizes == ["10×10", "10×10", "–", "28×28", "28×28"]
    assert "count_include_pad=True is PyTorch’s default" in rows["PyTorch"].inner_text()
    rows["JAX (Flax)"].locator("input").check()
    view.settle()
    assert view.state()["framework"] == "jax"
    view.press(1, "ArrowRight")
    padded = np.pad(DIGIT.astype(float), 1)
    assert f"/ 9 = {round(padded[:3, :3].mean())}" in view.formula()


def test_feature_maps_open_a_channel(view: View, address: str) -> None:
    view.open(address, "view=maps&item=0&op=max&window=2x2")
    assert view.page.locator(".map").count() == 3
    pair = view.page.locator(".map").nth(1)
    pair.locator(".board").nth(1).focus()
    view.page.keyboard.press("ArrowRight")
    assert pair.locator("output").inner_text() == f"after (0, 0) = {PHOTO[1, :2, :2].max()}"
    view.page.click("text=Channel blue")
    view.settle()
    assert (view.state()["view"], view.state()["channel"]) == ("windows", "2")


def test_the_feature_maps_of_a_model_are_its_own(view: View) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 12, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2, 1), torch.nn.AvgPool2d(2)]
    model = torch.nn.Sequential(*layers)
    batch = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        after = model[:3](batch)[0].numpy()
        last = model(batch)[0].numpy()
    with served(Explorer(model, images=batch).source) as address:
        view.open(address, "view=maps")
        assert view.facts()["size"] == "36×44 → 18×22"
        assert view.state()["op"] == "max"
        assert "as the model itself computed them" in view.page.inner_text(".lede")
        assert view.page.locator(".map").count() == 8
        pair = view.page.locator(".map").nth(3)
        pair.locator(".board").nth(1).focus()
        view.page.keyboard.press("ArrowRight")
        assert pair.locator("output").inner_text() == f"after (0, 0) = {said(after[3, 0, 0])}"
        view.page.click("text=next ›")
        view.settle()
        assert view.page.locator(".map").count() == 4
        view.show("view=windows&item=1&channel=2&cell=outputx4x5")
        assert view.state()["op"] == "mean(count_include_pad:true)"
        assert f"= {said(last[2, 4, 5])}" in view.formula()


def test_code_is_shown_for_each_framework(view: View, address: str) -> None:
    view.open(address, "view=code&item=1&op=max&window=2x2&stride=1x1")
    assert "poolwise.max_pool(x, (2, 2), stride=(1, 1))" in view.page.inner_text("pre[data-language=numpy]")
    assert "F.max_pool2d(x, (2, 2), stride=(1, 1))" in view.page.inner_text("pre[data-language=pytorch]")
    assert view.page.locator("pre").count() == 5


@pytest.mark.parametrize("shape", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_overflows(browser: Browser, address: str, shape: Any, theme: Any) -> None:
    context = browser.new_context(viewport=shape, color_scheme=theme, reduced_motion="reduce", bypass_csp=True)
    view = View(context.new_page())
    view.open(address)
    view.page.evaluate(AXE.read_text())
    extras = ("&window=3x3&stride=2x2&padding=0-1x0-0&cell=outputx3x3", "&window=40x2", "&adaptive=5x5")
    for name in VIEWS:
        for extra in extras if (shape is WIDE) == (theme == "light") else extras[:1]:
            view.show(f"view={name}&item=1&op=mean{extra}")
            found = view.page.evaluate("() => axe.run()")
            told = [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]]
            assert told == [], (name, extra)
        wide = view.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, name
    context.close()


def test_a_link_shows_a_colleague_the_same_view(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport=WIDE)
    first, second = View(context.new_page()), View(context.new_page())
    first.open(address, "view=windows&item=0")
    first.page.locator("label:has-text('Channel') select").select_option(label="green")
    first.page.fill('[aria-label="Window, height"]', "4")
    first.settle()
    box = first.board(0).bounding_box()
    first.page.mouse.move(box["x"] + 150, box["y"] + 200)
    for _ in range(3):
        first.page.mouse.wheel(0, -400)
        first.settle()
    first.press(1, "ArrowRight", "ArrowDown")
    second.open(first.page.url.partition("#")[0], first.page.url.partition("#")[2])
    assert second.page.url == first.page.url
    for shown in (first, second):
        shown.page.mouse.move(1, 1)
        shown.page.evaluate("() => document.activeElement?.blur()")
        shown.settle()
    assert first.formula() == second.formula()
    assert first.facts() == second.facts()
    pictures = [shown.page.screenshot() for shown in (first, second)]
    assert pictures[0] == pictures[1]
    context.close()


def test_a_saved_file_is_live_with_the_network_off(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "view.html"
    file.write_text(saved(SOURCE, "view=windows&item=1&op=max&window=3x3"), encoding="utf-8")
    context = browser.new_context(viewport=WIDE, offline=True)
    view = View(context.new_page())
    asked: list[str] = []
    view.page.on("request", lambda request: asked.append(request.url))
    view.open(file.as_uri())
    assert view.facts()["size"] == "28×28 → 9×9"
    view.page.fill('[aria-label="Window, height"]', "5")
    view.page.select_option("fieldset:has-text('Operation') select", "mean")
    view.settle()
    view.press(1, "ArrowRight")
    assert view.formula().strip().endswith(f"= {forward('op=mean&window=5x3&stride=5x3', DIGIT)[0, 0]}")
    view.show("view=windows&item=1&op=lp&window=3x3&cell=outputx4x4")
    assert f"= {said(forward('op=lp&window=3x3', DIGIT.astype('f4'))[4, 4])}" in view.formula()
    view.show("view=windows&item=1&op=lp&window=5x5")
    assert view.fault().startswith("only Python has these numbers, and this is a saved file")
    view.show("view=backward&item=1&op=min&window=5x5")
    assert view.fault() == ""
    assert {url.partition(":")[0] for url in asked} <= {"file", "about", "data"}
    assert view.faults == []
    context.close()


def test_a_saved_file_carries_no_script_of_its_data(browser: Browser, tmp_path: Path) -> None:
    title = "</script><script>document.title = 'taken'</script><!--"
    path = Explorer(np.eye(4), title=title).save(tmp_path / "view.html")
    context = browser.new_context()
    view = View(context.new_page()).open(path.as_uri())
    assert view.page.title() == f"{title}: poolwise explorer"
    assert view.page.inner_text("h1") == title
    context.close()


def test_a_large_picture_comes_in_tiles(view: View) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    with served(Explorer(x).source) as address:
        tiles: list[str] = []
        view.page.on("request", lambda request: tiles.append(request.url) if "/ask/tile" in request.url else None)
        view.open(address, "view=windows&channel=0&op=max&window=3x2")
        view.page.wait_for_load_state("networkidle")
        assert 0 < len(tiles) < 60
        view.show("view=windows&channel=0&op=max&window=3x2&place=0.5x0.5x200&cell=outputx500x1000")
        view.page.wait_for_load_state("networkidle")
        view.settle()
        taps = x[1500:1503, 2000:2002, 0]
        assert f"max({', '.join(map(str, taps.ravel()))}) = {taps.max()}" in view.formula()
        assert len(tiles) < 120
        view.show("view=shift&channel=0&op=max&window=3x2&shift=1x0")
        view.page.wait_for_load_state("networkidle")
        moved = np.roll(x[..., 0], 1, 0)
        call = state.read("op=max&window=3x2")
        assert (
            view.changes()["output changed by"]
            == f"{100 * changed(call.forward(x[..., 0]), call.forward(moved)):.3g} %"
        )


@pytest.mark.parametrize(
    "x",
    [
        np.arange(9.0),
        np.full((4, 4), np.nan),
        np.array([[1, np.inf], [-np.inf, 2]]),
        np.zeros((1, 1)),
        np.array([[True, False]]),
        np.arange(12, dtype="int64").reshape(3, 4) << 40,
        np.ones((2, 3, 4, 5), "float16"),
    ],
)
def test_any_array_can_be_looked_at(view: View, x: Any) -> None:
    with served(Explorer(x).source) as address:
        assert view.open(address).fault() == ""
    with served(Explorer(x, window=(1, 1)).source) as address:
        view.open(address)
        assert view.fault() == ""
        assert view.facts()["numbers kept"] == "100 %"
        for name in VIEWS:
            view.show(f"view={name}&window=1x1&cell=outputx0x0")
            assert view.fault() == "", name
