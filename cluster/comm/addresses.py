"""Addresses: ``tcp://host:port``, also written ``host:port``."""

from __future__ import annotations

import ipaddress
import socket

DEFAULT_PORT = 8786
_FORM = "an address is 'tcp://HOST:PORT' or 'HOST:PORT'"
#: What people may take for the address of a scheduler, by its scheme.
_OTHERS = {
    "http": "the scheduler has no web page",
    "https": "the scheduler has no web page",
    "tls": "connections prove that they know the token, and are not encrypted (docs/security.md)",
    "ucx": "all connections are TCP",
    "ws": "all connections are TCP",
    "inproc": "a cluster within a process is made with LocalCluster(processes=False)",
    "ray": "that is a cluster of Ray's",
}


def parse_address(address: str, default_port: int | None = DEFAULT_PORT) -> tuple[str, int]:
    """Split an address into host and port.

    Raises
    ------
    ValueError
        It is not an address; says what one looks like.

    Examples
    --------
    >>> parse_address("tcp://10.0.0.1:8786")
    ('10.0.0.1', 8786)
    >>> parse_address("[::1]:80")
    ('::1', 80)
    """
    rest = address.strip()
    scheme, separator, tail = rest.partition("://")
    if separator:
        if scheme != "tcp":
            known = f"{_OTHERS[scheme]}; " if scheme in _OTHERS else ""
            raise ValueError(f"{address!r}: unknown scheme {scheme!r}; {known}{_FORM}")
        rest = tail
    host, separator, port = rest.rpartition(":")
    if not separator or (port.endswith("]") and rest.startswith("[")):
        host, port = rest, "" if default_port is None else str(default_port)
        if host.isdecimal():  # which the system would take for an IPv4 address
            raise ValueError(f"{address!r} is a port without a host; {_FORM}")
    host = host.removeprefix("[").removesuffix("]")
    labels = [host] if ":" in host else host.removesuffix(".").split(".")
    if not all(0 < len(label) < 64 for label in labels) or not port.isdecimal() or not 0 <= int(port) < 65536:
        raise ValueError(f"{address!r} is no address; {_FORM}")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of `parse_address`.

    >>> format_address("::1", 80)
    'tcp://[::1]:80'
    """
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def unknown_host(error: Exception, host: str) -> str | None:
    """What to say of an error if it means that no host is known by this name; None if it means something else.

    >>> unknown_host(socket.gaierror(socket.EAI_NONAME, "unknown"), "nowhere")
    "no host is known by the name 'nowhere'; check the name"
    """
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
        return f"no host is known by the name {host!r}; check the name"
    return None


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach what listens at ``host``, an address or a name.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
