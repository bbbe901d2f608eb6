"""The server as a client's own configuration writes it: one entry to paste among its proxies.

Surge: manual, "Proxy policy"; mihomo: wiki.metacubex.one, "proxies/ss"; sing-box: "outbound/shadowsocks";
shadowsocks-rust: README, sslocal's configuration.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """What every client wants to know. `udp`: the server takes UDP."""

    name: str
    host: str
    port: int
    method: str
    password: str = field(repr=False)
    udp: bool = True


def _surge(entry: Entry) -> str:
    # Base64 ends in =, and one comma in a password would end it.
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
"""How each client writes a server."""
