"""Warming the scheduler up, before there is a task: why is told in `cluster/worker/warm_up.py`.

A state machine of its own takes in what a first host, worker and client would say, and what it answers goes the way of
a message as far as the socket. Nothing of it is left.
"""

from __future__ import annotations

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader
from holdfast.cluster.scheduler.io.instruction_messages import message_of
from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks import events
from holdfast.cluster.scheduler.watching import introspection

_HOST, _WORKER, _CLIENT = "tcp://host:1", "tcp://host:1/0", "client"
_DIGEST = bytes(16)
_ROUNDS = 2  # the first has the memory copied, the second has the interpreter see what repeats


def warm_up() -> None:
    """Handle the events of a few tasks."""
    state = SchedulerState()
    reader = FrameReader()

    def handle(event: events.Event) -> None:
        messages = [message_of(instruction) for instruction in state.handle(event, 0.0)]
        if messages:
            reader.feed(b"".join(frames.pack(messages)))

    handle(events.HostJoined(_HOST, {"hostname": "host", "capacity": 1 << 30}))
    handle(events.WorkerJoined(_WORKER, "host-0", _HOST, 1, {}))
    handle(events.ClientJoined(_CLIENT, _CLIENT))
    handle(events.FunctionsSent(_CLIENT, [(_DIGEST, b"pickle")]))
    for round_ in range(_ROUNDS):
        below, above, pinned = (f"warm-up-{round_}-{number}" for number in range(3))
        handle(events.TasksSubmitted(_CLIENT, [(below, _DIGEST, b"", ())], None, {}))
        handle(events.TasksSubmitted(_CLIENT, [(above, _DIGEST, b"", (below,))], None, {}))
        handle(events.TasksSubmitted(_CLIENT, [(pinned, _DIGEST, b"", (below,))], None, {"workers": [_WORKER]}))
        while runs := state.workers[_WORKER].runs:
            run = next(iter(runs.values()))
            assert run.task is not None
            inline = None if run.run_id % 2 else b"result"
            result = (run.task.serial, run.run_id, run.run_id.to_bytes(16, "big"), 1 << 20, inline, "int", 1e-5)
            handle(events.TasksFinished(_WORKER, [result]))
        introspection.info(state, {})
        handle(events.KeysReleased(_CLIENT, [below, above, pinned]))
    handle(events.ClientLeft(_CLIENT))
    handle(events.WorkerExited(_HOST, _WORKER, ""))
    handle(events.WorkerParted(_WORKER, ""))
    handle(events.HostLeft(_HOST, ""))
