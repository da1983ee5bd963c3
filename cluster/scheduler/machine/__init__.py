"""The state machine: what answers an event, in which order, and what follows from it.

`machine` has the order and the table. The other modules answer events about hosts, workers, clients, what clients
order, objects and runs. They change tasks by way of `tasks.lifecycle` only. It imports from `parts`, `placing` and
`tasks`.
"""
