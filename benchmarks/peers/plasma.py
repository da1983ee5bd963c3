"""The workloads of a store on Plasma, the original one, of the last pyarrow that carried it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pyarrow import plasma

from benchmarks.peers.reporting import Report


def main() -> None:
    """Runs them."""
    report = Report("plasma")
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "plasma.sock"))
        program = str(Path(sys.executable).with_name("plasma_store"))
        with subprocess.Popen([program, "-m", "4000000000", "-s", path], stderr=subprocess.DEVNULL) as server:
            try:
                client = plasma.connect(path, num_retries=50)
                array = report.puts(
                    lambda a: client.put(a, memcopy_threads=2), lambda reference: client.delete([reference])
                )
                reference = client.put(array, memcopy_threads=2)
                report.milliseconds("get_400mb", lambda: client.get(reference))
                report.small_objects(client.put, client.get, 2000)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
