"""The addresses of this machine's network interfaces."""

from __future__ import annotations

import socket


def address_of_interface(name: str) -> str:
    """The IPv4 address of a network interface, or else its IPv6 address.

    Raises
    ------
    ValueError
        There is no such interface, or it has no address; names those that there are.

    Examples
    --------
    >>> address_of_interface("lo")
    '127.0.0.1'
    """
    import psutil  # here, because the time to the first task counts

    interfaces = psutil.net_if_addrs()
    for family in (socket.AF_INET, socket.AF_INET6):
        for address in interfaces.get(name, ()):
            if address.family == family:
                return str(address.address).partition("%")[0]
    raise ValueError(
        f"interface={name!r}: there is no such interface with an address; there are {', '.join(interfaces)}"
    )
