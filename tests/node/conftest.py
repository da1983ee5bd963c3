from __future__ import annotations

import contextlib

import pytest
from agents import Host
from scripted_scheduler import ScriptedScheduler


@pytest.fixture
def scheduler():
    with ScriptedScheduler() as scheduler:
        yield scheduler


@pytest.fixture
def start_host(scheduler):
    with contextlib.ExitStack() as stack:
        yield lambda **options: Host(scheduler, stack, **options)
