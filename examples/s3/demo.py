"""The example of dask's page on publishing datasets: CSV files in S3, filtered, persisted, published, used elsewhere.

A server of moto stands for S3, and is filled with accounts. With your own bucket nothing else is different.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import s3fs
from moto.server import ThreadedMotoServer

from holdfast import LocalCluster

HERE = Path(__file__).parent
FIRST = "name,balance\nAlice,-100\nZoe,250\nBob,-200\n"
SECOND = "name,balance\nCharlie,-300\nYann,40\nDennis,-400\nXenia,0\nEdith,-500\n"


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else each request is told
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        # The processes of the cluster and both scripts find the server, and their credentials, by their environment.
        host, port = server.get_host_and_port()
        os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
        os.environ.update(AWS_ACCESS_KEY_ID="any", AWS_SECRET_ACCESS_KEY="any", AWS_DEFAULT_REGION="us-east-1")
        files = s3fs.S3FileSystem()
        files.mkdir("my-bucket")
        files.pipe({"my-bucket/2025.csv": FIRST.encode(), "my-bucket/2026.csv": SECOND.encode()})
        run()
    finally:
        server.stop()


def run() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=2) as cluster:
        step("the first process reads, filters, persists, publishes and ends")
        script("publish.py", cluster.scheduler_address)
        step("the second process gets what was published, and uses it")
        script("use.py", cluster.scheduler_address)
    with LocalCluster(n_workers=1, threads_per_worker=2) as cluster:
        step("another cluster gets it from S3")
        script("use.py", cluster.scheduler_address, "s3://my-bucket/published")


def step(text: str) -> None:
    print(f"\n— {text}", flush=True)


def script(name: str, *arguments: str) -> None:
    """Run a script in a process of its own; end if it fails."""
    subprocess.run([sys.executable, str(HERE / name), *arguments], check=True, timeout=120)


if __name__ == "__main__":
    main()
