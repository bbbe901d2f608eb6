"""Addresses, networks, ports, endpoints and marks: the words that every room uses.

Python's `is_private` and `is_global` do not fit: they count documentation and benchmarking ranges as
private, which routers, labs and firewalls do not.
"""

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal

type Address = IPv4Address | IPv6Address
type Interface = IPv4Interface | IPv6Interface
type Network = IPv4Network | IPv6Network
type Family = Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Mark:
    """A firewall mark under a mask."""

    value: int
    mask: int

    def __str__(self) -> str:
        return f"{self.value:#x}/{self.mask:#x}"


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports `first` to `last`, inclusive, of one transport."""

    first: int
    last: int
    transport: Literal["tcp", "udp"]


MARK = Mark(0x1000, 0x10FF)
"""One bit: 0x2000 is CNI portmap's, 0x4000 and 0x8000 kube-proxy's, 0x0f00 Cilium's, 0xff0000 Tailscale's.
The low byte must be 0: that tells ours from numbers that people choose, such as mihomo's 6666 (0x1a0a)."""


@dataclass(frozen=True, slots=True, order=False)
class Destination:
    """Where a marked socket may connect while a hole is open for it."""

    address: Address
    port: int
    transport: Literal["tcp", "udp"]


DEFAULT_NETWORK: dict[Family, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
LINK_LOCAL = IPv6Network("fe80::/10")

DHCP_PORTS: dict[Family, tuple[int, int]] = {4: (68, 67), 6: (546, 547)}
"""Ports of client and server: a lease is renewed over the uplink."""

PLATFORM = (IPv4Network("168.63.129.16/32"),)
"""Public addresses that a cloud uses itself (Azure's agent and resolver), if `main` has a route to them."""

WORLDWIDE = frozenset(
    map(
        ip_address,
        (
            *("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),  # Cloudflare
            *("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),  # Google
            *("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),  # Quad9
            *("208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"),  # OpenDNS
        ),
    )
)
"""Resolvers that answer everybody, also through the tunnel."""

PRIVATE: tuple[Network, ...] = tuple(
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

NEVER_BEYOND: tuple[tuple[Network, str], ...] = (
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
"""Ranges that no API answer may name and ssserver may never reach, with a word for each."""


# One list for everything that is not a public host, used by the account's reader and by the firewall.
def word_for(address: Address) -> str | None:
    """Return what keeps `address` from being a place on the internet ("private", …), else None."""
    for network, word in NEVER_BEYOND:
        if address in network:
            return word
    return None


def literal(host: str) -> Address | None:
    """Return the address that `host` is, None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_subnet(inner: Network, outer: Network) -> bool:
    """Return whether `inner` is a part of `outer`, or all of it."""
    return inner.network_address in outer and inner.prefixlen >= outer.prefixlen


DEFAULT_PORT = 2408

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE | re.ASCII)
_SPLIT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a UDP port."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NamedEndpoint:
    """A host name and a UDP port, not resolved yet."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


def parse_endpoint(text: str, *, zero: int | None = None) -> Endpoint | NamedEndpoint:
    """Read `host[:port]`, `v4[:port]`, `[v6]:port` or a bare IPv6 address; without a port it is 2408.

    `zero` replaces port 0, which the real API sends for "the default". Raises ValueError, whose message
    does not repeat `text`.
    """
    # A bare IPv6 address: its last group is not a port.
    if text.count(":") > 1 and "[" not in text:
        return Endpoint(_v6(text), DEFAULT_PORT)
    if not (parts := _SPLIT.fullmatch(text)):
        raise ValueError("expected host[:port] or [v6]:port")
    port = DEFAULT_PORT if parts["port"] is None else int(parts["port"])
    if port == 0 and zero is not None:
        port = zero
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not in 1..65535")
    if parts["v6"] is not None:
        return Endpoint(_v6(parts["v6"]), port)
    host = parts["host"]
    if re.fullmatch(r"[0-9.]+", host):  # never a name: resolvers would read 127.1 as an address
        try:
            return Endpoint(IPv4Address(host), port)
        except ValueError:
            raise ValueError("not an IPv4 address") from None
    if not _NAME.fullmatch(host):
        raise ValueError("not a host name")
    return NamedEndpoint(host.lower().rstrip("."), port)


def _v6(text: str) -> IPv6Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("not an IPv6 address") from None
    if not isinstance(address, IPv6Address) or address.scope_id is not None:
        raise ValueError("not an IPv6 address")
    return address
