"""A namespace with nothing in it but lo, and what a test adds; the netlink door used from inside."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_interface, ip_network

import anyio

from tests.cloudflare.netns import Namespace

T4, T6 = ip_interface("172.16.0.2/32"), ip_interface("2606:4700:110:8a36::2/128")
ANY4, ANY6 = ip_network("0.0.0.0/0"), ip_network("::/0")
ETH0 = ("10.1.0.2/24", "203.0.113.9/24", "2001:db8:7::7/64", "fd00:1::2/64")


def inside[T](namespace: Namespace, test: Callable[[], Awaitable[T]]) -> T:
    """Run `test` in there: every socket is made in this thread."""
    with namespace.entered():
        return anyio.run(test)


def ip(namespace: Namespace, *lines: str) -> None:
    """Run these one by one: a batch takes no -6."""
    for line in lines:
        namespace.output("ip", *line.split())


def plug(namespace: Namespace, *addresses: str) -> None:
    namespace.ip(
        "link add eth0 type veth peer far",
        "link set eth0 up",
        "link set far up",
        *(f"address add {one} dev eth0{' nodad' if ':' in one else ''}" for one in addresses),
        "route add default via 203.0.113.1",
        "route add default via 2001:db8:7::1",
    )


def listed(namespace: Namespace) -> str:
    """What `ip` itself says, for comparing before and after."""
    words = ("-o address", "-d rule", "-6 -d rule", "route show table all", "-6 route show table all")
    lines = (line for word in words for line in sorted(namespace.output("ip", *word.split())))
    # Link-local addresses, and the word on a dead cable, come when the kernel finds the time.
    return "\n".join(line.replace(" linkdown", "") for line in lines if "fe80:" not in line)
