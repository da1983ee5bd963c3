"""What hosts and workers can be called, wherever they are named, as in ``workers=``."""

from __future__ import annotations

from holdfast.cluster.comm.addresses import format_address, is_loopback, parse_address

_SCHEME = "tcp://"


def names_of_host(node: str, hostname: str) -> frozenset[str]:
    """The names of a host with a node agent at the address ``node``: they mean all of its workers.

    Examples
    --------
    >>> sorted(names_of_host("tcp://10.0.0.1:40123", "alpha"))
    ['10.0.0.1', '10.0.0.1:40123', 'alpha', 'tcp://10.0.0.1:40123']
    """
    names = {node, node.removeprefix(_SCHEME), hostname}
    host = parse_address(node)[0]
    names |= {host, format_address(host, 0).removeprefix(_SCHEME).removesuffix(":0")}  # an IPv6 one has brackets there
    if is_loopback(host):
        names.add("localhost")
    return frozenset(names - {""})


def names_of_worker(address: str, name: str, host_names: frozenset[str]) -> frozenset[str]:
    """The names of a worker on the host that has ``host_names``.

    Examples
    --------
    >>> sorted(names_of_worker("tcp://10.0.0.1:40123/0", "alpha-0", frozenset({"alpha"})))
    ['10.0.0.1:40123/0', 'alpha', 'alpha-0', 'tcp://10.0.0.1:40123/0']
    """
    return host_names | frozenset({address, address.removeprefix(_SCHEME), name} - {""})


def id_of_tasks(worker: str) -> str:
    """The id of the client that the tasks of a worker share. No client that connects has an address for its id.

    Examples
    --------
    >>> id_of_tasks("tcp://10.0.0.1:40123/0")
    'tcp://10.0.0.1:40123/0/tasks'
    """
    return f"{worker}/tasks"
