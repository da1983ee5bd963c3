"""What is known of a worker's process that has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from holdfast.cluster.node.deaths import death_of
from holdfast.cluster.node.ledger import AgentLedger

PROGRAM = """
    import ctypes, os, sys, threading
    from holdfast.cluster.worker.ledger import WorkerLedger, leave_last_words

    def crash():
        {how}

    def run(thread, run_id):
        ledger.hold(thread)
        ledger.taker(thread)(run_id)
        ready.wait()
        if thread == {crashing}:
            crash()
        threading.Event().wait()

    fd = int(sys.argv[1])
    leave_last_words(fd, 2)
    ledger = WorkerLedger.of_descriptor(fd, 2)
    ready = threading.Barrier(2)
    threads = [threading.Thread(target=run, args=(n, 10 + n), daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    {main}
    for thread in threads:
        thread.join()
"""
SEGMENTATION = "ctypes.memset(0, 1, 1)"
OF_ANOTHER = "threading.Thread(target=ctypes.memset, args=(0, 1, 1)).start()"
OF_A_FORK = "os.fork() or ctypes.memset(0, 1, 1); os.wait(); os._exit(3)"
OF_A_FORK_AND_THEN = "os.fork() or ctypes.memset(0, 1, 1); os.wait(); os.abort()"


@pytest.fixture
def ledger():
    with contextlib.closing(AgentLedger(1, 2)) as ledger:
        yield ledger


def death(ledger, how, crashing=1, main="pass"):
    """Of a process with two threads, which have taken runs 10 and 11."""
    program = textwrap.dedent(PROGRAM).format(how=how, crashing=crashing, main=main)
    with subprocess.Popen([sys.executable, "-c", program, str(ledger.fd)], pass_fds=[ledger.fd]) as process:
        return death_of(process.wait(60), ledger)


@pytest.mark.parametrize(
    ("how", "number"),
    [(SEGMENTATION, signal.SIGSEGV), ("os.abort()", signal.SIGABRT), ("os.kill(os.getpid(), 7)", signal.SIGBUS)],
)
def test_which_run_has_crashed_it_and_where(ledger, how, number):
    found = death(ledger, how)
    assert found.running == (10, 11)
    assert found.fault
    assert found.reason.startswith(f"was killed by {number.name}")
    if number != signal.SIGBUS:  # which any thread takes that is sent to the process
        assert found.crashed == 11
        assert found.reason.endswith("in crash (<string>:6)")
        assert "in crash" in found.frames


@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), 9)", OF_ANOTHER, OF_A_FORK])
def test_what_nobody_can_know(ledger, how):
    found = death(ledger, how)
    assert (found.running, found.crashed) == ((10, 11), None)
    assert found.fault == (how == OF_ANOTHER)


def test_what_a_fork_has_said_before_is_not_what_the_process_says(ledger):
    found = death(ledger, OF_A_FORK_AND_THEN, crashing=0)
    assert (found.reason.split(" in ")[0], found.crashed) == ("was killed by SIGABRT", 10)


def test_what_a_warm_up_had_taken_is_no_run(ledger):
    found = death(ledger, SEGMENTATION, main="ledger.taker(0)(-5)")
    assert set(found.running) <= {10, 11}
    assert -5 not in found.running


def test_a_descriptor_that_was_closed_says_nothing(ledger):
    found = death(ledger, "os.closerange(3, 1000); " + SEGMENTATION)
    assert (found.reason, found.running, found.crashed, found.fault) == ("was killed by SIGSEGV", (10, 11), None, True)


def test_a_process_that_never_ran_anything(ledger):
    program = "import os; os._exit(1)"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        found = death_of(process.wait(60), ledger)
    assert (found.reason, found.running, found.crashed) == ("exited with code 1", (), None)
    assert os.fstat(ledger.fd)
