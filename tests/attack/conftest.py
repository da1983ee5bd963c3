"""Attacks: what a hostile, broken or sleeping peer does, and what a hostile environment is.

Besides tests of single attacks there are campaigns (`campaign.Campaign`), which go on for a share of half a minute in
``make test`` and for as long as they are told in ``make attack``. What they have counted stands in the summary.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from campaign import REPORTS, campaign_seconds


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "attack" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(campaign_seconds() + 180))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REPORTS:
        terminalreporter.section("campaigns")
        for line in REPORTS:
            terminalreporter.write_line(line)
