"""Log files that many processes write to stay bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cluster.processes.log_files import cut_large, older, open_log
from holdfast.cluster.processes.parent import spawn

LIMIT_NBYTES = 20_000
WRITER = """
import os, sys
for number in range(30_000):
    os.write(1, b"%s %d\\n" % (sys.argv[1].encode(), number))
"""


def test_a_log_that_many_write_to_is_cut_and_its_end_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "node-0.log"
    fd = open_log(log)
    with open(fd, "wb", buffering=0) as out:
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, name], stdout=fd) for name in "ab"]
        cuts = 0
        while any(writer.poll() is None for writer in writers):
            before = log.stat().st_size
            cut_large([log, tmp_path / "there is none"], LIMIT_NBYTES)
            if before > LIMIT_NBYTES:
                cuts += 1
                assert older(log).stat().st_size <= 2 * LIMIT_NBYTES + (1 << 20)
        out.write(b"a 30000\n")  # what is written during a cut may be lost
    assert cuts
    cut_large([log], LIMIT_NBYTES)
    assert log.stat().st_size <= LIMIT_NBYTES
    lines = (older(log).read_text() + log.read_text()).splitlines()
    assert {line.split()[0] for line in lines} <= {"a", "b"}
    for name in "ab":
        numbers = [int(line.split()[1]) for line in lines if line.startswith(name)]
        assert numbers == sorted(numbers), "each line is whole, and in its place"
    assert lines[-1] == "a 30000", "the end is kept"


def test_small_logs_stay_as_they_are(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * LIMIT_NBYTES)
    cut_large([log], LIMIT_NBYTES)
    assert log.stat().st_size == LIMIT_NBYTES
    assert not older(log).exists()


def test_a_log_is_cut_even_if_its_end_can_not_be_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    log.write_bytes(b"x" * (LIMIT_NBYTES + 1))
    elsewhere.write_text("somebody's")
    older(log).symlink_to(elsewhere)
    cut_large([log], LIMIT_NBYTES)
    assert log.stat().st_size == 0
    assert elsewhere.read_text() == "somebody's"
    assert "can't be kept" in caplog.text


def test_the_end_of_a_log_that_was_cut_is_shown_when_its_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hf_says.py").write_text("print('first words')")
    monkeypatch.syspath_prepend(str(tmp_path))
    log = tmp_path / "log"
    log.write_text("of one before\n" * 1000)
    child = spawn("hf_says", log_file=log)
    child.wait()
    cut_large([log], 10)
    with open(log, "a") as written:
        written.write("last words\n")
    assert "last words" in child.log_tail()
