"""Chaos for a minute: whatever is killed or stopped, nothing is lost, wrong, hung or left (`tests/chaos`)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import REPORTS, Campaign, campaign_seconds
from waiting import until

#: The part of the half minute, or of ``HOLDFAST_ATTACK_SECONDS``, that this takes.
SHARE = 2.0
#: For all that comes before and after the faults, on a busy machine. The run itself says what hangs, which takes it
#: this long at the most.
REST_SECONDS = 1200.0

REPOSITORY = Path(__file__).parent.parent.parent


def chaos(*arguments: str, stderr: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=REPOSITORY)


@pytest.mark.timeout(campaign_seconds(SHARE) + REST_SECONDS)
def test_whatever_dies_nothing_is_lost() -> None:
    campaign = Campaign("chaos", share=SHARE)
    with chaos("--seconds", f"{campaign.seconds:g}", "--seed", str(campaign.seed)) as run:
        said, _ = run.communicate()
    assert run.returncode == 0, said
    REPORTS.append("; ".join(line.strip() for line in said.splitlines()[1:]))


def test_an_interrupt_ends_it_in_order(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file, chaos("--seconds", "600", "--clients", "1", stderr=subprocess.STDOUT) as run:
        assert run.stdout is not None
        for line in run.stdout:
            file.write(line)
            if re.search(r"faults: [1-9]", line):
                os.kill(run.pid, signal.SIGINT)
                break
        rest = run.stdout.read()
    assert run.returncode == 130, log.read_text() + rest
    assert "chaos: interrupted, seed" in rest
    until(lambda: not Path(f"/proc/{run.pid}").exists(), "it has ended")
