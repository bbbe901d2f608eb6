"""Links and configurations for clients: SIP002, QR codes, and each client's own format."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

from shadowsocks.credentials import Credentials, User


def link(
    host: IPv4Address | IPv6Address | str,
    port: int,
    credentials: Credentials,
    user: User | None = None,
    tag: str = "ss-warp",
) -> str:
    """Return the `ss://` link of the server, or of one of its users.

    SIP002: 2022 methods are percent-encoded, older ones base64url without padding. The colon between
    server key and user key is percent-encoded too, because clients split at the first one.
    """
    method, password = credentials.method, credentials.client_password(user)
    if method.edition == 2022:
        userinfo = f"{method}:{quote(password, safe='')}"
    else:
        userinfo = urlsafe_b64encode(f"{method}:{password}".encode()).decode().rstrip("=")
    at = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    return f"ss://{userinfo}@{at}:{port}#{quote(tag, safe='')}"


def qr(text: str) -> str:
    """Return a QR code of half blocks for a dark terminal, quiet zone included."""
    # Rarely needed, and 50 ms to import.
    import segno

    rows = [bytes(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    rows += [b"\1" * len(rows[0])] * (len(rows) % 2)
    shapes = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join("".join(shapes[pair] for pair in zip(*two, strict=True)) for two in pairs)


@dataclass(frozen=True, slots=True)
class Entry:
    """A server as clients know it; `udp` tells whether it relays UDP."""

    name: str
    host: str
    port: int
    method: str
    password: str = field(repr=False)
    udp: bool = True


def _surge(entry: Entry) -> str:
    # Quoted, because base64 ends in = and a comma would end the value.
    return (
        f"{entry.name} = ss, {entry.host}, {entry.port}, encrypt-method={entry.method}, "
        f'password="{entry.password}", udp-relay={str(entry.udp).lower()}'
    )


def _mihomo(entry: Entry) -> str:
    proxy = {
        "name": entry.name,
        "type": "ss",
        "server": entry.host,
        "port": entry.port,
        "cipher": entry.method,
        "password": entry.password,
        "udp": entry.udp,
    }
    return f"- {json.dumps(proxy)}"  # JSON is YAML


def _sing_box(entry: Entry) -> str:
    outbound = {
        "type": "shadowsocks",
        "tag": entry.name,
        "server": entry.host,
        "server_port": entry.port,
        "method": entry.method,
        "password": entry.password,
        **({} if entry.udp else {"network": "tcp"}),
    }
    return json.dumps(outbound, indent=1)


def _shadowsocks_rust(entry: Entry) -> str:
    config = {
        "server": entry.host,
        "server_port": entry.port,
        "method": entry.method,
        "password": entry.password,
        "mode": "tcp_and_udp" if entry.udp else "tcp_only",
        "local_address": "127.0.0.1",
        "local_port": 1080,
    }
    return json.dumps(config, indent=1)


CLIENTS: Final[Mapping[str, Callable[[Entry], str]]] = {
    "surge": _surge,
    "mihomo": _mihomo,
    "sing-box": _sing_box,
    "shadowsocks-rust": _shadowsocks_rust,
}
"""The formatter of each client's configuration."""
