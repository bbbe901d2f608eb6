"""What ssserver prints, and how little of it is worth repeating.

At its default level it names the client and the destination of whatever fails, so lines pass by a list
of what may, never by a list of what may not.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

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


def listening(line: str) -> Listening | None:
    """Return which listener this line says to be up."""
    match = _LINE.fullmatch(line)
    found = _LISTENING.fullmatch(match["text"]) if match else None
    if not found:
        return None
    transport: Literal["tcp", "udp"] = "tcp" if found[1] == "tcp" else "udp"
    return Listening(transport, ip_address(found[2].strip("[]")), int(found[3]))


def digest(line: str) -> tuple[Level, str] | None:
    """Return level and text worth logging, None for everything about single clients and destinations."""
    match = _LINE.fullmatch(line)
    text = match["text"].strip() if match else line.strip()
    for beginning, level, _ in KEPT:
        if re.match(beginning, text):
            return level, text
    return None
