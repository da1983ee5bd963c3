"""What the processes of a cluster say to each other: each message is defined once, as data.

==============================  ==========================================================================
`client`, `worker`, `node`      what each of the three and the scheduler say to each other
`assistant`                     what the scheduler and the process beside it say to each other
`nanny`                         what a node and the process beside it say to each other
`requests`                      what a client asks, and what the answers are
`errands`                       what a client has workers and nodes do beside their tasks, by way of the scheduler
`opening`                       what the two ends of a new connection say about themselves
`payloads`                      what a task carries, which the scheduler never looks into
`kinds`, `limits`               keys, objects, names and the like; how much there may be of each
`shapes`, `quick`               what a value may be, and checkers of long lists that are fast
`message`                       what a definition is, and the table by which a receiver handles messages
`cutting`, `answers`            one message or answer that becomes several
`document`                      writes ``docs/protocol.md``
==============================  ==========================================================================

Rules of the room: an operation's name is written here and nowhere else. A sender builds a message by calling its
definition. A receiver takes it by a `message.Dispatch`, which checks the message before anything is done about it; so
what is malformed costs the peer that sent it, and no other. Nothing here does I/O. Only `payloads` imports from the
store's rooms, and nothing from the cluster's but errors.
"""

from holdfast.cluster.protocol import assistant, client, errands, nanny, node, requests, worker

__all__ = ["assistant", "client", "errands", "nanny", "node", "requests", "worker"]
