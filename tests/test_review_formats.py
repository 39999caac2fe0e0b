"""The review as SARIF, which a code host takes, and as one HTML file, by hand, by keyboard, by ear and on a phone."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import jsonschema
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from playwright.sync_api import Browser, Page
from torch import nn
from typer.testing import CliRunner

from browser import NARROW, WIDE, View, launched, served
from poolwise import Geometry, InvalidValue, Lp, Max, Mean, MissingExtra, cli
from poolwise.design import Review, html, review
from poolwise.design.columns import COLUMNS
from poolwise.design.rules import RULES
from poolwise.design.small import small
from poolwise.explorer import Explorer, state
from poolwise.explorer.answers import Answers
from poolwise.explorer.inputs import address, samples
from poolwise.geometry import Regular
from poolwise.ops import Blur, GeM
from review_models import ResNet50, made

HERE = Path(__file__)
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
SCHEMA = json.loads(HERE.with_name("sarif.schema.json").read_text())
EVIL = "</script><img src=x onerror='window.taken = 1'>"


class Small(nn.Module):
    """The tutorial's shape: a functional pooling, and one as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3)
        self.second = nn.Conv2d(8, 16, 3)
        self.pool = nn.MaxPool2d(2)
        self.dense = nn.Linear(16 * 5 * 5, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.first(x).relu(), 2)
        x = self.pool(self.second(x).relu())
        return self.dense(x.flatten(1))


def evil() -> nn.Module:
    """A model whose names are markup."""
    net = nn.Sequential()
    net._modules[EVIL] = nn.MaxPool2d(2)
    net._modules["a\"'`<b>&amp;\u2028"] = nn.Conv2d(1, 2, 3, stride=2)
    type_ = type(EVIL, (nn.Sequential,), {})
    return type_(*[net])


@pytest.fixture(scope="module")
def resnet() -> Review:
    return review(LIGHT / "light_resnet50.onnx")


@pytest.fixture(scope="module")
def net() -> Review:
    return review(Small(), (1, 1, 28, 28))


def shell(*words: Any) -> Any:
    return CliRunner().invoke(cli.app, ["review", *map(str, words)])


# ---- SARIF ----


@pytest.mark.parametrize("name", ["resnet50", "vgg19", "inception_v1", "densenet121", "zfnet512"])
def test_a_log_is_valid(name: str) -> None:
    jsonschema.validate(review(LIGHT / f"light_{name}.onnx").sarif(), SCHEMA)


def test_the_schema_refuses_what_the_standard_refuses(resnet: Review) -> None:
    for spoil in (
        lambda log: log.update(version="2.0.0"),
        lambda log: log["runs"][0].pop("tool"),
        lambda log: log["runs"][0]["results"][0].pop("message"),
        lambda log: log["runs"][0]["results"][0].update(level="info"),
        lambda log: log["runs"][0]["results"][0].update(fix="pad"),
    ):
        log = json.loads(json.dumps(resnet.sarif()))
        spoil(log)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(log, SCHEMA)


def test_every_finding_is_a_result_of_a_described_rule(resnet: Review) -> None:
    (run,) = resnet.sarif()["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.id for rule in RULES]
    assert len(run["results"]) == len(resnet.findings) > 0
    levels = {"error": "error", "warning": "warning", "info": "note"}
    for result, finding in zip(run["results"], resnet.findings, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.rule
        assert result["level"] == rules[result["ruleIndex"]]["defaultConfiguration"]["level"]
        assert result["level"] == levels[finding.severity]
        for said in (finding.step, finding.message, finding.fix, finding.source):
            assert said in result["message"]["text"]
        assert result["properties"]["fix"] == finding.fix
        assert result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == finding.step


def test_a_rule_carries_its_page(resnet: Review) -> None:
    for told, rule in zip(resnet.sarif()["runs"][0]["tool"]["driver"]["rules"], RULES, strict=True):
        assert told["help"]["markdown"] == rule.page
        assert "**" not in told["help"]["text"] and "`" not in told["help"]["text"]
        assert told["shortDescription"]["text"].lower() == f"{rule.title.lower()}."
        assert told["fullDescription"]["text"] in " ".join(told["help"]["text"].split())


def test_fingerprints_tell_findings_apart_and_outlive_a_change_of_numbers(resnet: Review) -> None:
    def prints(found: Review) -> dict[tuple[str, str, int], str]:
        made: dict[tuple[str, str, int], str] = {}
        for result in found.sarif()["runs"][0]["results"]:
            name = result["locations"][0]["logicalLocations"][0]["name"]
            number = sum(key[:2] == (result["ruleId"], name) for key in made)
            made[result["ruleId"], name, number] = result["partialFingerprints"]["primaryLocationLineHash"]
        return made

    here, again = prints(resnet), prints(review(LIGHT / "light_resnet50.onnx"))
    assert here == again
    assert len(set(here.values())) == len(here)
    larger = prints(review(made(ResNet50), (1, 3, 256, 256)))
    smaller = prints(review(made(ResNet50), (1, 3, 224, 224)))
    both = set(larger) & set(smaller)
    assert len(both) > 10
    assert all(larger[key] == smaller[key] for key in both)


def place(result: dict[str, Any]) -> tuple[str, int] | None:
    physical = result["locations"][0].get("physicalLocation")
    return physical and (physical["artifactLocation"]["uri"], physical["region"]["startLine"])


def test_a_file_is_named_from_the_current_folder_or_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my nets"
    folder.mkdir()
    path = folder / "größe.onnx"
    path.write_bytes((LIGHT / "light_resnet50.onnx").read_bytes())
    monkeypatch.chdir(tmp_path)
    found = review("my nets/größe.onnx").sarif()["runs"][0]["results"]
    assert {place(result) for result in found} == {("my%20nets/gr%C3%B6%C3%9Fe.onnx", 1)}
    assert found[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uriBaseId"] == "%SRCROOT%"
    monkeypatch.chdir(folder)
    assert {place(result) for result in review(path).sarif()["runs"][0]["results"]} == {("gr%C3%B6%C3%9Fe.onnx", 1)}
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert {place(result) for result in review(path).sarif()["runs"][0]["results"]} == {(path.as_uri(), 1)}


def test_a_functional_call_is_its_line_and_a_module_the_class_that_holds_it(
    net: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(HERE.parent)
    lines = HERE.read_text().splitlines()
    call = 1 + next(number for number, line in enumerate(lines) if "F.max_pool2d(self" in line)
    places = {result["locations"][0]["logicalLocations"][0]["name"]: place(result)
              for result in net.sarif()["runs"][0]["results"]}  # fmt: skip
    assert places[f"forward: max_pool2d ({HERE.name}:{call})"] == (HERE.name, call)
    assert places["pool"] == (HERE.name, 1 + lines.index("class Small(nn.Module):"))


def test_a_factory_is_where_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_a_test.py").write_text("import torch\n\n\ndef net():\n    return torch.nn.MaxPool2d(2)\n")
    monkeypatch.chdir(tmp_path)
    found = review("nets_of_a_test:net", (1, 1, 9, 9)).sarif()["runs"][0]["results"]
    assert {place(result) for result in found} == {("nets_of_a_test.py", 4)}


def test_a_model_without_a_file_has_no_place_in_one() -> None:
    log = review(nn.MaxPool2d(2), (1, 1, 9, 9)).sarif()
    jsonschema.validate(log, SCHEMA)
    assert {place(result) for result in log["runs"][0]["results"]} == {None}


def test_a_name_makes_no_link_and_asks_for_no_argument() -> None:
    net = nn.Sequential()
    net._modules["[mend](https://x.example) {0} \\"] = nn.MaxPool2d(2)
    told = review(net, (1, 1, 9, 9), select=["PW101"]).sarif()["runs"][0]["results"][0]["message"]["text"]
    assert told.startswith("\\[mend\\](https://x.example) {{0}} \\\\: 1 of 9 rows")


def test_two_models_are_two_analyses() -> None:
    names = [review(LIGHT / f"light_{name}.onnx").sarif()["runs"][0]["automationDetails"]["id"]
             for name in ("resnet50", "vgg19")]  # fmt: skip
    assert names == ["poolwise/resnet50/", "poolwise/vgg19/"]


# ---- the command ----


def test_standard_output_holds_the_report_alone(tmp_path: Path) -> None:
    path = LIGHT / "light_vgg19.onnx"
    for form, begins in (("sarif", "{"), ("html", "<!DOCTYPE html>"), ("json", "{")):
        printed = shell(path, "--format", form)
        assert printed.exit_code == 0, printed.output
        assert printed.stdout.startswith(begins)
        file = tmp_path / f"review.{form}"
        told = shell(path, "--format", form, "-o", file)
        assert (told.exit_code, told.output) == (0, "")
        assert file.read_text(encoding="utf-8") == printed.stdout
    shell(path, "--output", tmp_path / "review.txt")
    assert "PW106 info" in (tmp_path / "review.txt").read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    told = shell(LIGHT / "light_vgg19.onnx", "--format", "html", "-o", tmp_path / "none" / "review.html")
    assert told.exit_code == 2
    assert re.fullmatch(r"poolwise: output must be a file that can be written, got .*\n", told.stderr)


def test_what_the_page_needs_is_named(net: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "poolwise.design.html", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match=re.escape('the page needs jinja2: pip install "poolwise[explore]"')):
        net.html()


# ---- the small arrays ----


def ends(geometry: Geometry) -> list[tuple[int, int, int]]:
    """Of each axis: elements never read at the end, padding read before and after."""
    found = []
    for table, read in zip(geometry.tables, geometry.coverage(), strict=True):
        touched = np.flatnonzero(read)
        last = table.start + (table.output - 1) * table.step + (table.taps - 1) * table.dilation
        found.append((table.size - 1 - int(touched[-1]), -table.start, max(0, last - table.size + 1)))
    return found


def of_small(geometry: Geometry) -> Geometry:
    found = small(geometry)
    assert found is not None, geometry
    sizes, arguments = found
    text = state.write(Max(), arguments)  # as the page reads it
    return state.read(text).geometry(sizes)


def test_a_small_array_ends_as_the_large_one_does() -> None:
    tried = 0
    for size, window, stride, padding, dilation, ceil in itertools.product(
        range(29, 60), (1, 2, 3, 5), (1, 2, 3), ((0, 0), (1, 1), (1, 0)), (1, 2), (False, True)
    ):
        geometry = Geometry.of(
            (size, 2 * size), window=(window, 2), stride=(stride, 2), padding=(padding, (0, 0)), dilation=(dilation, 1),
            ceil_mode=ceil,
        )  # fmt: skip
        less = of_small(geometry)
        assert ends(less) == ends(geometry), geometry
        assert max(less.shape) <= 24
        tried += 1
    assert tried > 2000


def test_uneven_bins_stay_as_uneven() -> None:
    for size, output in itertools.product((29, 41, 223), (3, 5, 7)):
        geometry = Geometry.adaptive((size, size), output_size=(output, output))
        widths = [np.diff([table.table().present for table in g.tables]) for g in (of_small(geometry), geometry)]
        assert np.array_equal(*widths)


def test_what_cannot_be_shown_small_is_left_out() -> None:
    assert small(Geometry.of((224, 224), window=(112, 112), stride=(16, 16))) is None
    assert small(Geometry.whole((224, 200), (0, 1))) == ((9, 9), {"output_size": (1, 1)})
    crop = Regular(size=30, output=14, start=1, step=2, dilation=1, taps=1, low=0, high=0)
    assert small(Geometry((30, 30), (0, 1), (crop, crop))) is None


def test_one_axis_is_a_row_and_of_three_the_last_two_are_shown() -> None:
    assert small(Geometry.of((101,), window=(2,), stride=2)) == (
        (1, 9),
        {"window": (1, 2), "stride": (1, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "ceil_mode": False,
         "padding_mode": "absent"},
    )  # fmt: skip
    found = small(Geometry.of((9, 20, 31), window=(1, 2, 3), stride=2))
    assert found is not None
    assert (found[0], found[1]["window"]) == ((10, 9), (2, 3))


def test_what_an_address_cannot_say_is_shown_as_a_mean() -> None:
    assert [html._shown_as(op) for op in (None, GeM(p=None), Blur((1.0, 3.0, 1.0)))] == [html.STAND_IN] * 3
    assert [html._shown_as(op) for op in (Max(), Lp(p=3.0), Mean())] == [Max(), Lp(p=3.0), Mean()]


# ---- the page as text ----


def test_nothing_comes_from_elsewhere(resnet: Review) -> None:
    text = resnet.html()
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert "url(" not in text and "@import" not in text
    assert "https://" not in text.replace("http://www.w3.org", "")
    assert resnet.html() == text  # the same review, the same file


def test_the_table_has_every_figure_of_every_stage(resnet: Review) -> None:
    text = resnet.html()
    for column in COLUMNS:
        assert f'<th scope="col">{column.name}</th>' in text
        for stage in resnet.stages:
            value = column.cell(stage).value
            assert value is None or f'<data value="{value}"' in text
    (row,) = re.findall(r'<tr><th scope="row"><a href="#stage=3">n44</a></th>(.*?)</tr>', text)
    cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
    assert cells[:9] == [
        "Conv", "1/2", "256@56×56", "512@28×28", "8", "35", "−17",
        "1 bottom, 1 right, 27 rows and 27 columns between windows", "–",
    ]  # fmt: skip


def test_every_finding_stands_under_its_rule_with_its_page(resnet: Review) -> None:
    text = resnet.html()
    for finding in resnet.findings:
        (rule,) = re.findall(rf'<article class="rule \w+" id="{finding.rule}-.*?</article>', text, re.DOTALL)
        plain = re.sub("<[^>]*>", "", rule).replace("&#39;", "'").replace("&amp;", "&")
        for said in (finding.step, finding.message, finding.fix, finding.source):
            assert said in plain
        assert "<details>" in rule and "<strong>Why.</strong>" in rule


def test_a_network_without_stages_is_a_page_too() -> None:
    text = review(nn.ReLU(), (1, 1, 8, 8)).html()
    assert "Nothing in this network makes its map smaller." in text
    assert "<script" not in text


class Joined(nn.Module):
    """A skip around a pooling, which fits even sizes only, behind something that the reader does not know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + F.interpolate(F.max_pool2d(x.cumsum(2), 2), scale_factor=2)


def test_what_was_not_reviewed_is_said() -> None:
    text = review(Joined(), (1, 1, 9, 9)).html()
    assert "On an input of 1×1×9×9 branches that meet cannot agree" in text
    assert "what follows is of one rounded up to multiples of 2." in text
    assert "Not known, and reviewed around: aten::cumsum." in text
    assert "<dt>receptive field</dt><dd>?</dd>" in text


# ---- the page in a browser ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


class Shown:
    """A review's page, opened from disk with the network off."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page, self.file = page, file
        self.faults: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, address: str = "") -> Shown:
        self.page.goto("about:blank")
        self.page.goto(f"{self.file.as_uri()}{address}")
        return self.settle()

    def settle(self) -> Shown:
        self.page.wait_for_selector('section.stage[aria-busy="false"]', state="attached")
        self.page.wait_for_timeout(200)
        self.page.wait_for_selector('section.stage[aria-busy="false"]', state="attached")
        return self

    def chosen(self) -> str:
        return self.page.inner_text('.stages [aria-selected="true"] strong')

    def said(self) -> str:
        return self.page.inner_text(".said")

    def facts(self) -> dict[str, str]:
        """The explorer's, of the small array."""
        return dict(
            self.page.eval_on_selector_all(
                ".main > .facts div", "(all) => all.map((e) => [e.children[0].textContent, e.children[1].textContent])"
            )
        )


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    contexts: list[Any] = []
    pages: list[Shown] = []

    def open_(found: Review, address: str = "", **words: Any) -> Shown:
        file = tmp_path / f"review{len(pages)}.html"
        file.write_text(found.html(), encoding="utf-8")
        contexts.append(browser.new_context(**{"viewport": WIDE, "offline": True, **words}))
        pages.append(Shown(contexts[-1].new_page(), file))
        return pages[-1].open(address)

    yield open_
    for context in contexts:
        context.close()
    for shown in pages:
        assert shown.faults == []
        assert {url.partition(":")[0] for url in shown.asked} <= {"file", "about", "data"}


@pytest.mark.slow
def test_the_strip_has_every_stage_on_one_scale(resnet: Review, opened: Any) -> None:
    page = opened(resnet).page
    boxes = page.eval_on_selector_all(
        ".strip .box i", "(all) => all.map((e) => [e.offsetWidth, e.offsetHeight, parseFloat(e.style.width)])"
    )
    sizes = [224, *(stage.after.sizes[0] for stage in resnet.stages)]
    assert [box[2] for box in boxes] == pytest.approx([size * boxes[0][2] / 224 for size in sizes], rel=1e-3)
    assert all(box[0] >= 2 and box[1] >= 2 for box in boxes)
    tabs = page.locator(".stages [role=tab]").all()
    for tab, stage in zip(tabs, resnet.stages, strict=True):
        text = tab.inner_text()
        assert stage.step.name in text
        assert f"sees {stage.spans[0].field}" in text
        assert f"stride {stage.spans[0].jump}" in text


@pytest.mark.slow
def test_it_opens_on_the_first_of_the_gravest_and_stays_at_its_top(resnet: Review, opened: Any) -> None:
    shown = opened(resnet)
    assert shown.chosen() == "n44"
    assert shown.page.evaluate("scrollY") == 0


@pytest.mark.slow
def test_the_chosen_stage_is_in_sight_on_a_phone(resnet: Review, opened: Any) -> None:
    for number in (0, 4, 8):
        page = opened(resnet, f"#stage={number}", viewport=NARROW).page
        box = page.locator('.stages [aria-selected="true"]').bounding_box()
        assert box["x"] >= -1 and box["x"] + box["width"] <= NARROW["width"] + 1


@pytest.mark.slow
def test_what_a_cell_sees_is_what_the_stage_says(resnet: Review, opened: Any) -> None:
    shown = opened(resnet)
    for number, stage in enumerate(resnet.stages):
        shown.page.locator(".stages [role=tab]").nth(number).click()
        for name, cell in (("first corner", 0), ("last corner", stage.after.sizes[0] - 1)):
            shown.page.click(f".pick >> text={name}")
            span = stage.spans[0]
            first = span.first + cell * span.jump
            last = first + span.field - 1
            told = f"rows {first} to {last}, columns {first} to {last}: {span.field}×{span.field} elements"
            assert told.replace("-", "−") in shown.said()
            inside = min(last, 223) - max(first, 0) + 1
            outside = 1 - inside**2 / span.field**2
            if outside >= 0.01:
                assert f"{100 * outside:.0f} % of that lies outside" in shown.said()


@pytest.mark.slow
def test_uneven_cells_are_seen_as_they_are(opened: Any) -> None:
    found = review(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(5), nn.MaxPool2d(2)), (1, 3, 34, 34))
    shown = opened(found, "#stage=0&seen=2x4")
    assert "Cell (2, 4) of 5×5 sees rows 12 to 21, columns 25 to 33: 10×9 elements." in shown.said()


@pytest.mark.slow
def test_keys_walk_the_strip_and_the_cells(resnet: Review, opened: Any) -> None:
    shown = opened(resnet)
    page = shown.page
    page.locator('.stages [aria-selected="true"]').focus()
    page.keyboard.press("ArrowRight")
    assert shown.chosen() == "n81"
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert shown.chosen() == "n148"
    assert page.inner_text("[data-about]:not([hidden]) h3") == "n148"
    page.keyboard.press("Home")
    assert shown.chosen() == "n0"
    page.locator(".sight").focus()
    for key in ("Home", "PageUp", "PageUp", "PageUp", "PageUp", "PageUp", "PageUp", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert shown.said().startswith("Cell (1, 1) of 112×112 sees rows −1 to 5")
    grid = page.locator(".sight")
    active = page.locator(f"#{grid.get_attribute('aria-activedescendant')}")
    assert active.text_content() == shown.said()
    page.mouse.click(*middle(grid.bounding_box()))
    assert re.match(r"Cell \(5[56], 5[56]\) of 112×112", shown.said())


def middle(box: dict[str, float]) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.slow
def test_every_tab_stop_can_be_reached_and_seen(net: Review, opened: Any) -> None:
    page = opened(net).page
    page.mouse.click(2, 2)
    met: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        met.append(page.evaluate("document.activeElement.getAttribute('role') ?? document.activeElement.tagName"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or met[-1] == "BODY", met
    assert {"tab", "tabpanel", "grid", "BUTTON", "SELECT", "A", "SUMMARY", "region"} <= set(met)


@pytest.mark.slow
def test_the_windows_of_a_stage_leave_over_what_it_leaves_over(net: Review, opened: Any) -> None:
    shown = opened(net)
    assert shown.chosen() == "pool"
    assert shown.facts()["size"] == "9×9 → 4×4"  # 11 → 5
    assert shown.facts()["never read"] == "1 row, 1 column"
    shown.page.check("text=round the size up")  # the fix
    shown.settle()
    assert shown.facts()["never read"] == "none"
    shown.page.locator(".stages [role=tab]").nth(0).click()
    shown.settle()
    assert shown.facts()["size"] == "10×10 → 5×5"
    shown.page.locator("label:has-text('Array') select").select_option(label="pool")
    shown.settle()
    assert shown.chosen() == "pool"


@pytest.mark.slow
def test_an_operation_that_only_python_computes_is_there(opened: Any) -> None:
    shown = opened(review(nn.Sequential(nn.LPPool2d(3, 2), nn.MaxPool2d(2)), (1, 1, 29, 29)), "#stage=0")
    assert shown.page.inner_text(".status") == ""
    assert shown.facts()["size"] == "9×9 → 4×4"
    assert "lp(p:3" in shown.page.inner_text(".boards")


@pytest.mark.slow
def test_a_link_shows_the_same(resnet: Review, opened: Any) -> None:
    shown = opened(resnet)
    shown.page.locator(".stages [role=tab]").nth(1).click()
    shown.page.click(".pick >> text=first corner")
    shown.page.fill('[aria-label="Padding, bottom"]', "2")
    shown.page.click("text=Coverage")
    shown.settle()
    address = shown.page.evaluate("location.hash")
    assert address.startswith("#stage=1&seen=first%20corner&view=coverage")
    again = opened(resnet, address)
    assert again.chosen() == "n3"
    assert again.said() == shown.said()
    assert again.facts() == shown.facts()
    assert again.page.evaluate("location.hash") == address
    again.page.click("a[href='#stage=3'] >> nth=0")
    again.settle()
    assert again.chosen() == "n44"
    assert again.page.evaluate("document.activeElement.title") == "n44"


@pytest.mark.slow
def test_names_are_text_whatever_they_say(opened: Any) -> None:
    shown = opened(review(evil(), (1, 1, 29, 29)))
    assert shown.page.evaluate("window.taken") is None
    assert shown.page.locator("img[onerror], img:not([src^='data:'])").count() == 0
    assert shown.page.inner_text("h1") == EVIL
    assert EVIL in shown.chosen()
    assert EVIL in shown.page.inner_text("[data-about]:not([hidden]) h3")
    assert EVIL in shown.page.inner_text("tbody tr:first-child th")
    policy = shown.page.get_attribute("meta[http-equiv]", "content")
    assert "unsafe" not in policy and "nonce" not in policy
    blocked = shown.page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.taken = 1'; "
        "document.body.append(s); return window.taken; }"
    )
    assert blocked is None
    shown.faults.clear()  # the browser says that it refused


@pytest.mark.slow
@pytest.mark.parametrize("shape", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_overflows(
    resnet: Review, net: Review, opened: Any, shape: Any, theme: Any
) -> None:
    one = review(nn.Sequential(nn.Conv1d(2, 4, 9, stride=2, padding=4), nn.MaxPool1d(4)), (1, 2, 403))
    for found in (resnet, net, one) if (shape is WIDE) == (theme == "light") else (net,):
        shown = opened(found, viewport=shape, color_scheme=theme, reduced_motion="reduce", bypass_csp=True)
        shown.page.evaluate(AXE.read_text())
        shown.page.evaluate("() => document.querySelectorAll('details').forEach((each) => (each.open = true))")
        shown.settle()
        told = shown.page.evaluate("() => axe.run()")["violations"]
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in told] == []
        assert shown.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@pytest.mark.slow
def test_light_and_dark_can_be_chosen(net: Review, opened: Any) -> None:
    shown = opened(net, color_scheme="light")
    shown.page.select_option('[aria-label="Light or dark"]', "dark")
    shown.settle()
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert shown.page.evaluate("getComputedStyle(document.querySelector('.review')).color") == "rgb(233, 235, 238)"


# ---- the same strip in the explorer ----


def test_only_a_model_has_a_network() -> None:
    assert not samples().data()["network"]
    with pytest.raises(InvalidValue, match="network must be asked of a model"):
        Answers(samples()).answer("network", "")
    source = Explorer(Small(), images=torch.rand(1, 1, 28, 28)).source
    assert source.data()["network"]
    told = Answers(source).answer("network", "")
    assert [stage["size"] for stage in told["stages"]] == ["8@13×13", "16@5×5"]
    assert told["picture"].startswith("data:image/png;base64,") and not told["smooth"]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((3, 80, 90), "jpeg"), ((1, 20, 20), "png"), ((20, 30, 3), "png"), ((5, 20, 20), ""), ((20, 20, 7), "")],
)
def test_a_picture_is_an_address_where_it_is_one(shape: tuple[int, ...], kind: str) -> None:
    planes = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    planes.flat[3] = np.nan
    assert address(planes).startswith(f"data:image/{kind};" if kind else "")
    assert bool(address(planes)) == bool(kind)


@pytest.mark.slow
def test_the_explorer_of_a_model_shows_its_network(browser: Browser, tmp_path: Path) -> None:
    explorer = Explorer(Small(), images=torch.rand(1, 1, 28, 28), title="Small")
    file = explorer.save(tmp_path / "view.html")
    context = browser.new_context(viewport=WIDE, offline=True, bypass_csp=True)
    view = View(context.new_page()).open(file.as_uri(), "view=network&stage=1&seen=last%20corner")
    assert view.page.inner_text(".said") == "Cell (4, 4) of 5×5 sees rows 16 to 25, columns 16 to 25: 10×10 elements."
    view.page.locator('.stages [aria-selected="true"]').focus()
    view.page.keyboard.press("ArrowLeft")
    view.settle()
    assert view.state()["stage"] == "0"
    view.page.keyboard.press("ArrowRight")
    view.settle()
    view.page.evaluate(AXE.read_text())
    assert [each["id"] for each in view.page.evaluate("() => axe.run()")["violations"]] == []
    view.page.click("text=Its feature maps")
    view.settle()
    assert view.state()["view"] == "maps"
    assert view.state()["item"] == "1"
    assert view.faults == []
    context.close()
    with served(samples()) as host:
        context = browser.new_context(viewport=WIDE)
        view = View(context.new_page()).open(host)
        assert view.page.locator("[role=tab] >> text=Network").count() == 0
        context.close()
