"""What every test module shares: a steady hypothesis profile, a short way through many cases, no silent skips in CI."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator

import hypothesis
import pytest

hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.load_profile("steady")

CASES = 5  # of one test function that `make core` runs


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that has more cases than that, so many, evenly spread; the others are slow, all together."""
    families = defaultdict[tuple[object, str], list[pytest.Item]](list)
    for item in items:
        if isinstance(item, pytest.Function):
            families[item.parent, item.originalname].append(item)
    for cases in families.values():
        chosen = {cases[at * len(cases) // CASES] for at in range(CASES)}
        for case in cases:
            if case not in chosen:
                case.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failure: what it needs should have been there."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
