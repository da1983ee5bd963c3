"""Attacks: what a hostile, broken or sleeping peer does, and what a hostile environment is.

Besides tests of single attacks there are campaigns (`campaign.Campaign`), which go on for a share of half a minute in
``make test`` and for as long as they are told in ``make attack``. What they have counted stands in the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from campaign import REPORTS, campaign_seconds


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "attack" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(campaign_seconds() + 180))


@pytest.fixture(autouse=True)
def _campaigns(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """What campaigns have counted goes with the report of the test, also from another process that runs it."""
    REPORTS.clear()
    yield
    for line in REPORTS:
        record_property("campaign", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ended = [report for reports in terminalreporter.stats.values() for report in reports if is_end(report)]
    if lines := [line for report in ended for name, line in report.user_properties if name == "campaign"]:
        terminalreporter.section("campaigns")
        for line in lines:
            terminalreporter.write_line(line)


def is_end(report: object) -> bool:
    return isinstance(report, pytest.TestReport) and report.when == "teardown"
