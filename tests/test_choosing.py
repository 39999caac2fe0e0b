"""The page "which pooling when": nothing is claimed without a measurement or a source, and no figure is made up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "choosing.md"
RECORDS = {name: (ROOT / "benchmarks" / name).read_text() for name in ("2026-11-25-lab.md", "2026-11-25-two-cores.md")}
MEASURED = r"\]\(\.\./benchmarks/[^)]+\)|`(?:poolwise|python) "
SOURCE = r"[A-ZŠ][\w-]+(?:,| et al\.|(?: &) [\w ]+)?[^.;()]*\b(?:19|20)\d\d\b"
MARKER = re.compile(f"{MEASURED}|{SOURCE}")
FIGURE = re.compile(r"[+−]?\d[\d,]*\.\d+(?: ± \d+\.\d+)?|\d+,\d{3}")
OWN = {"1,000", "31.2"}  # images that the lab trains on; 100 − 68.8


def blocks(text: str) -> list[str]:
    """Every paragraph, bullet and row, without headings and the heads of tables."""
    text = re.sub(r"\[([^]]+)\]\(https?://[^)]+\)", r"\1", text)  # an address is no figure
    found: list[str] = []
    for part in re.split(r"\n\s*\n", text):
        lines = [line for line in part.splitlines() if not line.startswith("#")]
        if lines and lines[0].startswith("|"):
            found += lines[2:]
        elif lines and lines[0].startswith("- "):
            found += re.split(r"\n(?=- )", "\n".join(lines))
        elif lines:
            found.append(" ".join(lines))
    return found


def unmarked(text: str) -> list[str]:
    """What claims something and names neither a measurement nor a source."""
    return [block for block in blocks(text) if not MARKER.search(block)]


def made_up(text: str) -> list[str]:
    """Figures that no record holds."""
    said = "\n".join(RECORDS.values())
    return [
        figure
        for block in blocks(text)
        for figure in FIGURE.findall(block)
        if figure not in {*OWN} and figure not in said
    ]


def test_everything_said_names_a_measurement_or_a_source() -> None:
    assert len(blocks(PAGE.read_text())) > 35
    assert unmarked(PAGE.read_text()) == []


def test_every_figure_is_in_a_record() -> None:
    assert made_up(PAGE.read_text()) == []


@pytest.mark.parametrize(
    "claim",
    [
        "Max pooling is best.",
        "- Blur is always worth it, by 3 points.",
        "| a | b | c |\n|---|---|---|\n| speed | max | it is |",
    ],
)
def test_a_bare_claim_is_seen(claim: str) -> None:
    assert len(unmarked(f"# Title\n\nWell known (Zhang 2019).\n\n{claim}\n")) == 1


def test_a_figure_of_nobodys_is_seen() -> None:
    assert made_up("Max-blur gains +7.7 ± 0.1 points (`poolwise lab`).") == ["+7.7 ± 0.1"]


def test_every_author_who_is_named_is_in_the_list() -> None:
    body, sources = PAGE.read_text().split("## Sources")
    cited = set(re.findall(r"([A-ZŠ][\wé]+)(?:, [^()]*?)?(?: et al\.| & [A-Z]\w+)? (20\d\d)(?=, )", body))
    assert len(cited) >= 12
    for author, year in cited:
        assert any(author in line and year in line for line in sources.splitlines()), (author, year)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((\.\./[^)#]+)", PAGE.read_text()))))
def test_links_lead_somewhere(link: str) -> None:
    assert (PAGE.parent / link).resolve().is_file()


def test_the_table_is_the_labs() -> None:
    """Each row's differences stand in one line of the record, in the same order."""
    rows = [row for row in blocks(PAGE.read_text()) if row.count("±") >= 4 and row.startswith("|")]
    assert len(rows) == 5
    for row in rows:
        name, *figures = [cell.strip() for cell in row.strip("|").split("|")][:5]
        lines = [line for line in RECORDS["2026-11-25-lab.md"].splitlines() if line.startswith(f"{name} ")]
        pattern = r"\s+".join(map(re.escape, figures))
        assert any(re.search(pattern, line) for line in lines), row
