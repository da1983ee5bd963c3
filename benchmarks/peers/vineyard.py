"""The workloads of a store on Vineyard."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import vineyard

from benchmarks.peers.reporting import SMALL, Report

_STARTING_SECONDS = 30.0
_SETTLING_SECONDS = 1.0


def main() -> None:
    """Runs them."""
    report = Report("vineyard")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "vineyard.sock")
        command = [sys.executable, "-m", "vineyard", "--socket", str(path), "--size", "4G", "--meta", "local"]
        command += ["--reserve_memory", "false"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                deadline = time.monotonic() + _STARTING_SECONDS
                while not path.exists() and time.monotonic() < deadline:
                    time.sleep(0.2)
                time.sleep(_SETTLING_SECONDS)  # its socket is there before it answers
                client = vineyard.connect(str(path))
                array = report.puts(client.put, lambda reference: client.delete([reference]))
                reference = client.put(array)
                report.milliseconds("get_400mb", lambda: client.get(reference))
                report.small_objects(client.put, client.get, 1000, SMALL[:1])
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
