"""Tries to get at a cluster of another user's; says in JSON what it could do.

It is told, as JSON in its first argument, what it could find out anyway: directories, processes, addresses, and names
of sockets.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from holdfast import Client
from holdfast.objectstore import HoldfastError, connect


def look_into(folder: str) -> list[str]:
    """What can be listed, read, written and connected to in a folder and all below it."""
    done = []
    try:
        entries = os.listdir(folder)
        done.append(f"listed {folder}")
    except PermissionError:
        entries = []
    for path in (os.path.join(folder, entry) for entry in entries):
        if os.path.isdir(path):
            done += look_into(path)
            continue
        for mode in ("rb", "r+b"):
            try:
                open(path, mode).close()
                done.append(f"opened {path} {mode}")
            except OSError:
                continue
        done += [f"connected to {path}"] if connects(path) else []
    try:
        Path(folder, "intruder").touch()
        done.append(f"wrote into {folder}")
    except PermissionError:
        pass
    return done


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(path) == 0


def get_into(pid: int) -> list[str]:
    """What can be read of a process, and done to it."""
    done = []
    for name in ("environ", "mem", "maps", "smaps_rollup"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                file.read(1)
            done.append(f"read {name} of {pid}")
        except OSError:
            continue
    for name in ("fd", "map_files"):
        try:
            done.append(f"listed {name} of {pid}: {os.listdir(f'/proc/{pid}/{name}')}")
        except (PermissionError, FileNotFoundError):  # or the process has ended
            continue
    try:
        os.kill(pid, 0)
        done.append(f"sent a signal to {pid}")
    except (PermissionError, ProcessLookupError):
        pass
    return done


def join(address: str) -> list[str]:
    """Be a client, without the token."""
    try:
        Client(address, token="an intruder's own token", timeout=5).close()
    except HoldfastError as error:
        return [type(error).__name__]
    return [f"joined {address}"]


def use_store(path: str) -> list[str]:
    try:
        connect(path).close()
    except (HoldfastError, OSError) as error:
        return [type(error).__name__]
    return [f"attached to the store at {path}"]


if __name__ == "__main__":
    told: dict[str, Any] = json.loads(sys.argv[1])
    ways = {"folders": look_into, "processes": get_into, "addresses": join, "stores": use_store}
    print(
        json.dumps({name: [each for thing in told.get(name, ()) for each in way(thing)] for name, way in ways.items()})
    )
