"""What the README shows works as it is shown: its blocks of Python and of commands, in their order, in one place.

Only the port is another one, since a cluster of the user's may have the one in the README.
"""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path

import pytest
from command_line import SMALL, holdfast, services
from documents import BLOCK, run_python

import holdfast as package

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text()
FIVE_MINUTES, REST = re.split(
    r"^## (?=The API in brief)", TEXT[TEXT.index("## Five minutes") :], maxsplit=1, flags=re.M
)
DEFAULT_PORT = "8786"


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return str(sock.getsockname()[1])


def test_the_first_five_minutes(tmp_path: Path) -> None:
    port = free_port()
    printed = {}
    try:
        for language, block in BLOCK.findall(FIVE_MINUTES):
            text = block.replace(DEFAULT_PORT, port)
            if language == "python":
                printed[block] = run_python(text, tmp_path)
                continue
            for command in re.findall(r"^\$ holdfast (.*)$", text, re.MULTILINE):
                more = ("--port", port, *SMALL) if command.startswith("start") else ()
                printed[command] = holdfast(*shlex.split(command), *more)
    finally:
        holdfast("stop")
    commands = [command for command in printed if "\n" not in command]
    assert commands == ["start --head", "memory", "stop"]
    # The last script has read what another process had published, and 'memory' names what keeps it.
    (means,) = [text for block, text in printed.items() if "get_dataset" in block]
    assert {"Alice", "Zelda"} <= set(means.split())
    assert "readings" in printed["memory"]
    assert f"Holdfast runs at tcp://127.0.0.1:{port}" in printed["start --head"]
    assert "Stopped the cluster" in printed["stop"]
    assert services() == []


@pytest.mark.parametrize("code", [block for language, block in BLOCK.findall(REST) if language == "python"])
def test_what_comes_after_them(code: str, tmp_path: Path) -> None:
    run_python(code, tmp_path)


def test_every_name_in_the_brief_of_the_api_is_there() -> None:
    brief = REST[: REST.index("## Memory")]
    table = [line for line in brief.splitlines() if line.startswith("| ")]
    names = {name for line in table for name in re.findall(r"`(?:Future\.)?([a-z_]+)`", line)}
    known = [package, package.Client, package.Future]
    assert len(names) > 20
    assert not [name for name in names if not any(hasattr(place, name) for place in known)]


def test_every_command_in_the_table_is_there() -> None:
    table = REST[REST.index("## The command line") :]
    rows = re.findall(r"^\| `holdfast (\w+)(.*?)` \| (.*) \|$", table, re.MULTILINE)
    assert {name for name, _, _ in rows} >= {"start", "status", "memory", "stop"}
    for name, usage, words in rows:
        said = holdfast(name, "--help")
        for option in re.findall(r"--[a-z-]+", f"{usage} {words}"):
            assert option in said, f"{option} of 'holdfast {name}'"
