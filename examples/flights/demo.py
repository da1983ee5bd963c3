"""The main job, end to end: a cluster by command line, one process that publishes, another that reads in place.

Everything is real, and apart from any cluster of yours: the token, the run directories and the logs are in a folder
of its own. Exits with 0 when every number is as pandas has it and nothing is left running.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data import unpack_flights

HERE = Path(__file__).parent


def main() -> int:
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hf-demo-", dir="/tmp") as folder:
        (Path(folder) / "run").mkdir(mode=0o700)
        os.environ.update(
            HOLDFAST_TOKEN_FILE=f"{folder}/token", XDG_RUNTIME_DIR=f"{folder}/run", XDG_STATE_HOME=f"{folder}/state"
        )
        for name in ("HOLDFAST_TOKEN", "HOLDFAST_ADDRESS"):
            os.environ.pop(name, None)
        csv = unpack_flights(Path(folder))
        code = 1
        try:
            code = run(str(csv))
        finally:
            step("holdfast stop")
            holdfast("stop")
            if left := sorted(path.name for path in Path(folder, "run", "holdfast").glob("*")):
                print(f"   left behind: {left}")
                code = 1
            if code:
                print_logs(Path(folder))
    print(f"\n{'Done' if code == 0 else 'FAILED'} in {time.perf_counter() - begun:.1f} s.")
    return code


def run(csv: str) -> int:
    step("holdfast start --head")
    if code := holdfast("start", "--head", "--port", "0", "--object-store-memory", "1GB"):
        return code
    address = json.loads(holdfast_says("status", "--json"))["scheduler"]["address"]
    step("the first process: read, derive, persist, publish")
    if code := script("publish.py", address, csv):
        return code
    step("between the two, nobody is connected: holdfast memory")
    holdfast("memory", "--limit", "3")
    step("the second process: get by name, read in place, compute, compare with pandas")
    return script("analyse.py", address, csv)


def step(text: str) -> None:
    print(f"\n— {text}", flush=True)


def holdfast(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "holdfast", *arguments], timeout=60).returncode


def holdfast_says(*arguments: str) -> str:
    command = [sys.executable, "-m", "holdfast", *arguments]
    return subprocess.run(command, timeout=60, check=True, stdout=subprocess.PIPE, text=True).stdout


def script(name: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, str(HERE / name), *arguments], timeout=100).returncode


def print_logs(folder: Path) -> None:
    for log in sorted(folder.glob("state/holdfast/logs/*/*.log")):
        print(f"\n{log.name}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))


if __name__ == "__main__":
    sys.exit(main())
