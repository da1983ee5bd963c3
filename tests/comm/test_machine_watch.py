"""Machines that are gone, machines that stand behind a link that is cut, and processes that read nothing.

The links are real ones, in a network namespace of their own, so that the kernel does what it does.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]

PRELUDE = """
    import asyncio, socket, subprocess, time
    from holdfast.cluster.comm import machine_watch, shortcut
    from holdfast.cluster.comm.connecting import connect
    from holdfast.cluster.comm.listening import Listener, bound_socket
    from holdfast.cluster.comm.frames import raw
    from holdfast.cluster.comm.loops import run

    machine_watch.LOOK_SECONDS = 0.25
    machine_watch.PROBE_SECONDS = 1
    machine_watch.MAX_SILENT_LOOKS = 8
    shortcut.listening = lambda host, port: None
    TOKEN = b"t" * 32

    def link(state):
        subprocess.run(["ip", "link", "set", "lo", state], check=True)

    class Pair:
        async def open(self, grace=0.0):
            link("up")
            self.connections, self.received, self.ends = [], [], []
            self.listener = Listener(TOKEN, lambda role, info: {}, self.connected, grace=lambda role: grace)
            await self.listener.listen(bound_socket("127.0.0.1", 0))
            self.near = await connect(self.listener.address, token=TOKEN, role="client", info={"id": "me"})
            self.near.start(lambda batch: None, self.ends.append)
            while not self.connections:
                await asyncio.sleep(0.01)
            return self

        def connected(self, connection):
            self.connections.append(connection)
            connection.start(self.received.append, self.ends.append)

        async def until(self, condition):
            async with asyncio.timeout(20):
                while not condition():
                    await asyncio.sleep(0.01)
"""


def in_a_namespace(script):
    """Run a script where it is root of a network of its own; what it prints."""
    if subprocess.run([*IN_A_NAMESPACE, "ip", "link", "set", "lo", "up"], check=False, capture_output=True).returncode:
        pytest.skip("this process may not make a network namespace")
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(script)
    done = subprocess.run(
        [*IN_A_NAMESPACE, sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("says", ["something", "nothing"])
def test_a_machine_that_is_gone_is_given_up(says):
    said = in_a_namespace(f"""
        async def main():
            pair = await Pair().open()
            link("down")
            if {says == "something"}:
                pair.near.send(("lost",))
            await pair.until(lambda: pair.ends)
            print(pair.ends[0])

        run(main())
    """)
    assert "has acknowledged nothing for 2 s" in said


def test_a_link_that_is_cut_for_less_is_none_the_worse():
    said = in_a_namespace("""
        async def main():
            pair = await Pair().open()
            for number in range(3):
                link("down")
                pair.near.send(("late", number))
                await asyncio.sleep(1.2)
                link("up")
                await pair.until(lambda: len(pair.received) > number)
            print(pair.received, pair.ends)

        run(main())
    """)
    assert said == "[(('late', 0),), (('late', 1),), (('late', 2),)] []"


def test_a_connection_that_was_forgotten_on_the_way_is_taken_up_again_over_another_one():
    said = in_a_namespace("""
        async def main():
            pair = await Pair().open(grace=20)
            pair.near.send(("before",))
            await pair.until(lambda: pair.received)
            link("down")
            pair.near.send(("meanwhile",))
            await pair.until(lambda: pair.near.is_broken)
            link("up")
            pair.near.send(("after",))
            await pair.until(lambda: sum(map(len, pair.received)) == 3)
            print([message for batch in pair.received for (message,) in batch], pair.ends)

        run(main())
    """)
    assert said == "['before', 'meanwhile', 'after'] []"


def test_a_process_that_reads_nothing_is_none_the_worse():
    said = in_a_namespace("""
        async def main():
            pair = await Pair().open()
            pair.connections[0].pause()
            for number in range(100):
                pair.near.send(("data", raw(b"x" * 1_000_000)))
                await asyncio.sleep(0)
            full = pair.near.is_full
            await asyncio.sleep(3.0)  # longer than a machine may be silent
            pair.connections[0].resume()
            await pair.until(lambda: sum(map(len, pair.received)) == 100)
            print(full, pair.ends)

        run(main())
    """)
    assert said == "True []"
