"""Configuration, access list and log lines of ssserver (shadowsocks-rust 1.25)."""

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
"""The command line; the braces stand for the paths of `server_config` and `acl`."""

ENVIRONMENT = {"MIMALLOC_ALLOW_THP": "0"}
"""With huge pages its allocator uses 160 KB instead of 32 KB of memory per idle connection."""

HANDSHAKE_TIMEOUT = 15
"""Seconds for a handshake and for connecting to a target; 0 would mean no limit."""

UDP_TIMEOUT = 300
"""Seconds that an idle UDP association lives; SIP022 requires at least 60, QUIC connections idle longer."""

UDP_ASSOCIATIONS = 4096
"""The maximum; each holds two sockets."""

BLOCKED = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    # NAT64, Teredo and 6to4 embed IPv4 addresses that ssserver does not check.
    *("::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32"),
    *("2002::/16", "fc00::/7", "fe80::/10", "ff00::/8"),
)
"""Networks that no client may reach: special-purpose addresses (RFC 6890) and what embeds them."""

BLOCKED_NAMES = ("||localhost", "||internal", "||local")


@dataclass(frozen=True, slots=True)
class Inbound:
    """What clients connect to; `addresses` contain no wildcard."""

    addresses: tuple[Address, ...]
    port: int
    credentials: Credentials
    udp: bool = True


def server_config(
    inbound: Inbound, *, device: str | None, dns: Sequence[Address], ipv6_first: bool = False
) -> bytes:
    """Return ssserver's configuration file, bound to `device` if given, resolving names at `dns`.

    Raises ValueError for a wildcard address, whose UDP replies would leave with another source, and for
    no address or resolver at all, because ssserver's defaults bypass the tunnel.
    """
    # Refused here as well, since ssserver would start without complaint.
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
            # The default is tcp_only.
            "mode": "tcp_and_udp" if inbound.udp else "tcp_only",
            **({"outbound_bind_interface": device} if device else {}),
            # Otherwise UDP above the MTU of the tunnel or uplink is dropped instead of fragmented.
            "outbound_udp_allow_fragmentation": True,
            "inbound_udp_allow_fragmentation": True,
            "dns": ",".join(map(str, dns)),
            "ipv6_first": ipv6_first,
            "timeout": HANDSHAKE_TIMEOUT,
            "udp_timeout": UDP_TIMEOUT,
            # Without a limit one client can exhaust the file descriptors.
            "udp_max_associations": UDP_ASSOCIATIONS,
            "no_delay": True,
            "keep_alive": 15,
            "runtime": {"mode": "multi_thread"},
            # Even level 0 names clients and destinations in errors; `summarize_line` drops those.
            "log": {"level": 0, "format": {"without_time": True}},
        },
        indent=1,
    ).encode()


def acl(own: Iterable[Address] = (), allowed: Sequence[Network] = ()) -> bytes:
    """Return ssserver's access list, which blocks special addresses and our `own` as destinations.

    `allowed` are the networks that clients may connect from; empty means any.
    """
    # The first wall, for a clear answer. The firewall is the second: ssserver resolves a name again when it
    # connects.
    lines = ["[outbound_allow_all]", "[outbound_block_list]", *BLOCKED, *BLOCKED_NAMES, *map(str, own)]
    if allowed:
        lines = ["[reject_all]", "[white_list]", *map(str, allowed), *lines]
    else:
        lines = ["[accept_all]", *lines]
    return "\n".join(lines).encode() + b"\n"


type Level = Literal["debug", "info", "warning", "error"]

_LINE = re.compile(r"(?:\S+Z )?\s*(?P<level>TRACE|DEBUG|INFO|WARN|ERROR) (?P<text>.*)", re.DOTALL)
_LISTENING = re.compile(r"shadowsocks (tcp|udp) server listening on (\S+):(\d+), inbound address .*")

KNOWN_LINES: tuple[tuple[str, Level, str], ...] = (
    (r"shadowsocks server \d", "debug", "its version"),
    (r"shadowsocks (tcp|udp) server listening on ", "debug", "it is up"),
    (r"received SIG", "debug", "stopped by us"),
    (r"tcp server accept failed with error", "error", "out of file descriptors"),
    (r"servers exited with error", "error", "a listener failed"),
    (r"server aborted with ", "error", "an address that cannot be bound"),
    (r"loading config ", "error", "a configuration it rejects; quotes no secret"),
    (r"initialize DNS resolver", "error", "resolvers it rejects"),
    (r"set_nofile ", "warning", "the limit of open files"),
    (r"failed to set IPV6_V6ONLY", "warning", "a listener that may clash"),
    (r"thread '", "error", "a panic, with its place in the source"),
)
"""Start of a line, log level, and meaning."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A listening socket of ssserver."""

    transport: Literal["tcp", "udp"]
    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.transport} {host}:{self.port}"


def parse_listening(line: str) -> Listening | None:
    match = _LINE.fullmatch(line)
    found = _LISTENING.fullmatch(match["text"]) if match else None
    if not found:
        return None
    transport: Literal["tcp", "udp"] = "tcp" if found[1] == "tcp" else "udp"
    return Listening(transport, ip_address(found[2].strip("[]")), int(found[3]))


def summarize_line(line: str) -> tuple[Level, str] | None:
    """Return log level and text, or None for lines about individual clients and destinations."""
    match = _LINE.fullmatch(line)
    text = match["text"].strip() if match else line.strip()
    for beginning, level, _ in KNOWN_LINES:
        if re.match(beginning, text):
            return level, text
    return None
