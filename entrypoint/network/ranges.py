"""Address ranges with a meaning, one list for everybody who decides by them.

Python's `is_private` and `is_global` are no help: they count documentation and benchmarking ranges
as private, which routers, labs and firewalls do not.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from entrypoint.network.plan import Address, Network

PRIVATE: Final[tuple[Network, ...]] = tuple(
    map(
        ip_network,
        (
            "10.0.0.0/8",  # RFC 1918
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",  # RFC 6598, carrier-grade NAT
            "fc00::/7",  # RFC 4193, unique local
        ),
    )
)
"""Neighbours, bridges, LANs: never reached through WARP."""

NEVER_BEYOND: Final[tuple[tuple[Network, str], ...]] = (
    *((network, "private") for network in PRIVATE),
    (IPv4Network("0.0.0.0/8"), "unspecified"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("169.254.0.0/16"), "link-local"),  # cloud metadata lives here
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),  # broadcast included
    (IPv6Network("::/128"), "unspecified"),
    (IPv6Network("::1/128"), "loopback"),
    (IPv6Network("::/96"), "IPv4-compatible"),
    (IPv6Network("::ffff:0:0/96"), "IPv4-mapped"),  # would smuggle any of the IPv4 ranges
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fec0::/10"), "private"),  # site-local, deprecated and still routed by some
    (IPv6Network("ff00::/8"), "multicast"),
)
"""Ranges that no answer may name to us and that ssserver may never reach, with the word for each."""


def word_for(address: Address) -> str | None:
    """Return what keeps `address` from being a place on the internet ("private", …), else None."""
    for network, word in NEVER_BEYOND:
        if address in network:
            return word
    return None
