"""What ssserver (shadowsocks-rust 1.25) is told, as data: its configuration and its access list."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

from shadowsocks.credentials import Credentials

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

ARGV = ("ssserver", "-c", "{config}", "--acl", "{acl}")
"""The command line; the names in braces stand for the paths of `server_config` and `acl`."""

ENVIRONMENT = {"MIMALLOC_ALLOW_THP": "0"}
"""Its allocator would ask for huge pages: 160 KB instead of 32 KB of memory for each idle connection."""

HANDSHAKE_TIMEOUT = 15
"""Seconds for a handshake and for a connection to a target; 0 would be for ever."""

UDP_TIMEOUT = 300
"""Seconds that a UDP association lives without packets; SIP022 asks for 60 at least, QUIC lives longer."""

UDP_ASSOCIATIONS = 4096
"""At most; each holds two sockets."""

BLOCKED = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    # NAT64, Teredo and 6to4 hide IPv4 addresses that ssserver does not unpack.
    *("::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32"),
    *("2002::/16", "fc00::/7", "fe80::/10", "ff00::/8"),
)
"""Where no client may be taken: special-purpose addresses (RFC 6890) and what contains them."""

BLOCKED_NAMES = ("||localhost", "||internal", "||local")


@dataclass(frozen=True, slots=True)
class Inbound:
    """What clients connect to. `addresses` are concrete: see `server_config`."""

    addresses: tuple[Address, ...]
    port: int
    credentials: Credentials
    udp: bool = True


def server_config(inbound: Inbound, *, device: str | None, dns: Sequence[Address]) -> bytes:
    """Return ssserver's configuration file: it is bound to `device`, if any; names are asked of `dns`.

    Raises ValueError for a wildcard address, from which UDP answers would leave with another source, and
    without any address or resolver: ssserver's defaults for those would leave the tunnel.
    """
    if not inbound.addresses or not dns or any(address.is_unspecified for address in inbound.addresses):
        raise ValueError("ssserver needs concrete addresses and resolvers")
    credentials = inbound.credentials
    entry: dict[str, object] = {
        "server_port": inbound.port,
        "method": credentials.method.name,
        "password": credentials.password,
    }
    if credentials.users:
        entry["users"] = [{"name": user.name, "password": user.key} for user in credentials.users]
    return json.dumps(
        {
            "servers": [{"server": str(address), **entry} for address in inbound.addresses],
            # Left out, it is tcp_only.
            "mode": "tcp_and_udp" if inbound.udp else "tcp_only",
            **({"outbound_bind_interface": device} if device else {}),
            # Otherwise UDP above the tunnel's MTU, or the uplink's, is dropped instead of fragmented.
            "outbound_udp_allow_fragmentation": True,
            "inbound_udp_allow_fragmentation": True,
            "dns": ",".join(map(str, dns)),
            "timeout": HANDSHAKE_TIMEOUT,
            "udp_timeout": UDP_TIMEOUT,
            "udp_max_associations": UDP_ASSOCIATIONS,
            "no_delay": True,
            "keep_alive": 15,
            "runtime": {"mode": "multi_thread"},
            # Level 0 names clients and destinations in its errors: `digest` lets none of that through.
            "log": {"level": 0, "format": {"without_time": True}},
        },
        indent=1,
    ).encode()


def acl(own: Iterable[Address] = (), allowed: Sequence[Network] = ()) -> bytes:
    """Return ssserver's access list: nobody is taken to special addresses or to our `own`.

    `allowed` are the networks that clients may come from; none means any.
    """
    lines = ["[outbound_allow_all]", "[outbound_block_list]", *BLOCKED, *BLOCKED_NAMES, *map(str, own)]
    if allowed:
        lines = ["[reject_all]", "[white_list]", *map(str, allowed), *lines]
    else:
        lines = ["[accept_all]", *lines]
    return "\n".join(lines).encode() + b"\n"


type Level = Literal["debug", "info", "warning", "error"]

_LINE = re.compile(r"(?:\S+Z )?\s*(?P<level>TRACE|DEBUG|INFO|WARN|ERROR) (?P<text>.*)", re.DOTALL)
_LISTENING = re.compile(r"shadowsocks (tcp|udp) server listening on (\S+):(\d+), inbound address .*")

KEPT: tuple[tuple[str, Level, str], ...] = (
    (r"shadowsocks server \d", "debug", "its version"),
    (r"shadowsocks (tcp|udp) server listening on ", "debug", "it is up"),
    (r"received SIG", "debug", "we ended it"),
    (r"tcp server accept failed with error", "error", "out of file descriptors"),
    (r"servers exited with error", "error", "a listener is gone"),
    (r"server aborted with ", "error", "an address that cannot be bound"),
    (r"loading config ", "error", "a configuration it refuses; it quotes no secret"),
    (r"initialize DNS resolver", "error", "resolvers it refuses"),
    (r"set_nofile ", "warning", "the limit of open files"),
    (r"failed to set IPV6_V6ONLY", "warning", "a listener that may clash"),
    (r"thread '", "error", "a panic; the line says where in its source"),
)
"""Beginning of a line, level it deserves, and what it tells."""


@dataclass(frozen=True, slots=True)
class Listening:
    """One listener that is up."""

    transport: Literal["tcp", "udp"]
    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.transport} {host}:{self.port}"


def parse_listening(line: str) -> Listening | None:
    """Return which listener this line says to be up."""
    match = _LINE.fullmatch(line)
    found = _LISTENING.fullmatch(match["text"]) if match else None
    if not found:
        return None
    transport: Literal["tcp", "udp"] = "tcp" if found[1] == "tcp" else "udp"
    return Listening(transport, ip_address(found[2].strip("[]")), int(found[3]))


def summarize_line(line: str) -> tuple[Level, str] | None:
    """Return level and text worth logging, None for everything about single clients and destinations."""
    match = _LINE.fullmatch(line)
    text = match["text"].strip() if match else line.strip()
    for beginning, level, _ in KEPT:
        if re.match(beginning, text):
            return level, text
    return None
