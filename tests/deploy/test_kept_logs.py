"""What a process keeps of its log."""

from __future__ import annotations

import logging

import pytest

from holdfast.cluster.processes import kept_logs


@pytest.fixture
def keeper(monkeypatch):
    """A keeper of this test's own."""
    keeper = kept_logs._Keeper()
    monkeypatch.setattr(kept_logs, "_keeper", keeper)
    yield keeper
    if keeper.logger is not None:
        keeper.logger.removeHandler(keeper)


def test_the_newest_lines_come_first_and_are_limited(keeper, monkeypatch):
    monkeypatch.setattr(kept_logs, "MAX_LINES", 5)
    kept_logs.keep_all()
    for n in range(10):
        logging.getLogger("some").warning("number %d", n)
    lines = kept_logs.newest(None, "holdfast")
    assert [(level, text.rpartition(" ")[2]) for level, text in lines] == [("WARNING", str(n)) for n in (9, 8, 7, 6, 5)]
    assert kept_logs.newest(2, "holdfast") == lines[:2]


def test_long_lines_are_cut_and_all_together_have_a_limit(keeper, monkeypatch):
    monkeypatch.setattr(kept_logs, "MAX_CHARACTERS", 3 * kept_logs.MAX_LINE_LENGTH)
    kept_logs.keep_all()
    for n in range(10):
        logging.getLogger("some").warning("%d %s", n, "x" * 100_000)
    lines = kept_logs.newest(None, "holdfast")
    assert len(lines) == 3
    assert {len(text) for _, text in lines} == {kept_logs.MAX_LINE_LENGTH}


def test_in_the_process_of_a_user_only_our_lines_are_kept_and_each_finds_its_own(keeper):
    kept_logs.keep_own()
    logging.getLogger("some").warning("the user's")
    logging.getLogger("holdfast.cluster.worker.worker").warning("a worker's")
    logging.getLogger("holdfast.cluster.scheduler.io").warning("a scheduler's")
    kept_logs.keep_own()
    ((_, text),) = kept_logs.newest(None, "holdfast.cluster.worker")
    assert text.endswith("a worker's")
    assert len(kept_logs.newest(None, "holdfast")) == 2


def test_a_fork_begins_anew(keeper):
    kept_logs.keep_all()
    logging.getLogger("some").warning("of the parent")
    kept_logs.keep_all()
    assert kept_logs.newest(None, "some") == []
    logging.getLogger("some").warning("of the child")
    assert len(kept_logs.newest(None, "some")) == 1


def test_a_line_that_can_not_be_made_harms_nothing(keeper, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    kept_logs.keep_all()
    logging.getLogger("some").warning("%d", "no number")
    assert kept_logs.newest(None, "some") == []
