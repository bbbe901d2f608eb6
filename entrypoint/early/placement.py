"""Detect whether ss-warp runs in a network namespace of its own or in the host's.

When in doubt assume the host: wrongly assuming "own" could lock the operator out.
Light to import. The only socket is a netlink one, opened after the socket tables were read.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal

from entrypoint.linux.raw_netlink import DUMP, HEADER, ask, attributes

type Placement = Literal["own", "host"]
type Address = IPv4Address | IPv6Address

# Left by a predecessor in the same namespace.
OURS = frozenset({"wg0", "ssw-null"})
CABLES = frozenset({"veth", "macvlan", "ipvlan"})
TUNNELS = frozenset(
    {"ipip", "sit", "ip6tnl", "gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan", "vti", "vti6"}
)
"""Kinds of fallback devices that a kernel may create in every namespace."""

DOCKER_DNS = IPv4Address("127.0.0.11")
TABLES = ("tcp", "udp", "raw", "tcp6", "udp6", "raw6")


@dataclass(frozen=True, slots=True)
class LinkFact:
    """A network device. `elsewhere`: its other end is in another namespace; `enslaved`: it has a master."""

    name: str
    kind: str = ""
    up: bool = True
    elsewhere: bool = False
    enslaved: bool = False
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """What distinguishes a container's namespace from the host's."""

    initial: bool
    """/proc/sys/net/core/dev_weight exists, which it does only in the initial namespace."""
    sockets: bool
    """A Unix, packet, TCP, UDP or raw socket exists, other than those of Docker's resolver."""
    links: tuple[LinkFact, ...]
    named: frozenset[Address]
    """Addresses of our host name in /etc/hosts, where the runtime writes the container's address."""


def placement(wanted: str) -> Placement:
    """Return the placement; `wanted` is NETWORK as written (empty is auto, anything invalid is host)."""
    match wanted.strip().lower():
        case "own":
            return "own"
        case "" | "auto":
            try:
                return judge_placement(gather_facts())
            except (OSError, ValueError, struct.error):
                return "host"
        case _:
            return "host"


def judge_placement(facts: NamespaceFacts) -> Placement:
    """Return "own" only if every fact says so."""
    # A container's interface has its other end in another namespace and belongs to no bridge here.
    cables = [link for link in facts.links if link.kind in CABLES and link.elsewhere and not link.enslaved]
    harmless = [
        link
        for link in facts.links
        if link.name == "lo" or link.name in OURS or (link.kind in TUNNELS and not link.up)
    ]
    # All of them, since each single fact has a host on which it misleads.
    alone = (
        not facts.initial
        and not facts.sockets
        and len(cables) + len(harmless) == len(facts.links)
        and any(facts.named & set(link.addresses) for link in cables)
    )
    return "own" if alone else "host"


def gather_facts(proc: Path = Path("/proc"), hosts: Path = Path("/etc/hosts")) -> NamespaceFacts:
    """Read the facts. Raises OSError, ValueError or struct.error for anything unreadable."""
    return NamespaceFacts(
        initial=(proc / "sys/net/core/dev_weight").exists(),
        sockets=_sockets(proc / "net"),
        links=_links(),
        # Runtimes write the container's address into its /etc/hosts; a host has no such line for its cable.
        named=frozenset(_named(hosts.read_text(), socket.gethostname())),
    )


def _sockets(net: Path) -> bool:
    if any(len((net / table).read_text().splitlines()) > 1 for table in ("unix", "packet")):
        return True
    # Docker's resolver has sockets in every container's namespace; any other socket means that other programs
    # run here.
    rows = [row for table in TABLES for row in (net / table).read_text().splitlines()[1:]]
    return any(_local(row) != DOCKER_DNS for row in rows)


def _local(row: str) -> Address:
    """Return the local address in a row of /proc/net/tcp: 32-bit words in host byte order."""
    digits = row.split()[1].partition(":")[0]
    words = (int(digits[at : at + 8], 16) for at in range(0, len(digits), 8))
    return ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _named(hosts: str, name: str) -> Iterator[Address]:
    for line in hosts.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if name in names:
            yield ip_address(address)


# linux/rtnetlink.h, if_link.h, if_addr.h
RTM_GETLINK, RTM_GETADDR = 18, 22
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_LINK_NETNSID, IFLA_INFO_KIND = 3, 10, 18, 37, 1
IFA_ADDRESS, IFA_LOCAL = 1, 2


def _links() -> tuple[LinkFact, ...]:
    addresses: dict[int, list[Address]] = {}
    for message in ask(socket.NETLINK_ROUTE, RTM_GETADDR, DUMP, bytes(16)):
        parts = dict(attributes(message[HEADER + 8 :]))
        index = struct.unpack_from("=I", message, HEADER + 4)[0]
        addresses.setdefault(index, []).append(ip_address(parts.get(IFA_LOCAL, parts.get(IFA_ADDRESS, b""))))
    return tuple(
        _link(message[HEADER:], addresses)
        for message in ask(socket.NETLINK_ROUTE, RTM_GETLINK, DUMP, bytes(16))
    )


def _link(body: bytes, addresses: dict[int, list[Address]]) -> LinkFact:
    index, flags = struct.unpack_from("=iI", body, 4)
    parts = dict(attributes(body[16:]))
    info = dict(attributes(parts.get(IFLA_LINKINFO, b"")))
    return LinkFact(
        name=parts[IFLA_IFNAME].rstrip(b"\0").decode(),
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        up=bool(flags & 1),
        elsewhere=IFLA_LINK_NETNSID in parts,
        enslaved=IFLA_MASTER in parts,
        addresses=tuple(addresses.get(index, ())),
    )
