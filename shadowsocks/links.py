"""Links and configurations for clients: SIP002, QR codes, and each client's own format."""

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, unquote_to_bytes

from shadowsocks.credentials import METHODS, Credentials, Method


@dataclass(frozen=True, slots=True)
class Entry:
    """A server as one client knows it; `udp`: it relays UDP too."""

    name: str
    host: str
    port: int
    method: Method
    password: str = field(repr=False)
    udp: bool = True


def entries(
    host: IPv4Address | IPv6Address | str, port: int, credentials: Credentials, udp: bool = True
) -> tuple[Entry, ...]:
    """Return the server's entry, or one for each of its users, named after them."""
    return tuple(
        Entry(
            f"ss-warp-{user.name}" if user else "ss-warp",
            str(host),
            port,
            credentials.method,
            credentials.client_password(user),
            udp,
        )
        for user in credentials.users or (None,)
    )


def link(entry: Entry, *, base64: bool = False) -> str:
    """Return the `ss://` link (SIP002).

    2022 methods are percent-encoded, older ones base64url without padding; `base64` asks for that form
    in any case, because some clients read no other, Shadowsocks for Android among them. The colon between
    server key and user key is percent-encoded too, because clients split at the first one.
    """
    if entry.method.edition == 2022 and not base64:
        # SIP022 forbids base64 here; Shadowsocks for Android reads nothing else.
        userinfo = f"{entry.method}:{quote(entry.password, safe='')}"
    else:
        userinfo = urlsafe_b64encode(f"{entry.method}:{entry.password}".encode()).decode().rstrip("=")
    at = f"[{entry.host}]" if ":" in entry.host else entry.host
    return f"ss://{userinfo}@{at}:{entry.port}#{quote(entry.name, safe='')}"


# Half blocks: two rows of modules in one line of text, so the code fits a terminal of 80 columns.
def qr(text: str) -> str:
    """Return a QR code of half blocks for a dark terminal, quiet zone included."""
    # Rarely needed, and 50 ms to import.
    import segno

    rows = [bytes(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=2)]
    rows += [b"\1" * len(rows[0])] * (len(rows) % 2)
    # Light modules are drawn, because terminals are usually dark; the quiet zone is part of it.
    shapes = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join("".join(shapes[pair] for pair in zip(*two, strict=True)) for two in pairs)


def qr_image(text: str, kind: str) -> bytes:
    """Return a QR code as the content of an image file: png or svg."""
    import segno

    code = segno.make(text, error="l", micro=False)
    if kind == "png":
        return b64decode(code.png_data_uri(scale=8).partition(",")[2])
    return unquote_to_bytes(code.svg_data_uri(scale=8).partition(",")[2])


def _surge(entry: Entry) -> str:
    # Quoted, because base64 ends in = and a comma would end the value. Surge knows no escapes.
    if set('"\\\n') & set(entry.password):
        raise ValueError("Surge cannot write a password that contains a quotation mark or a backslash")
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
        "cipher": entry.method.name,
        "password": entry.password,
        "udp": entry.udp,
    }
    # JSON is YAML, but for surrogate pairs: hence no escapes.
    return f"- {json.dumps(proxy, ensure_ascii=False)}"


def _sing_box(entry: Entry) -> dict[str, object]:
    return {
        "type": "shadowsocks",
        "tag": entry.name,
        "server": entry.host,
        "server_port": entry.port,
        "method": entry.method.name,
        "password": entry.password,
        # Left out, sing-box relays both.
        **({} if entry.udp else {"network": "tcp"}),
    }


def _shadowsocks_rust(entry: Entry) -> dict[str, object]:
    return {
        "remarks": entry.name,
        "server": entry.host,
        "server_port": entry.port,
        "method": entry.method.name,
        "password": entry.password,
        "mode": "tcp_and_udp" if entry.udp else "tcp_only",
    }


def _outline(entry: Entry) -> str:
    uri, _, name = link(entry, base64=True).partition("#")
    return f"{uri}/?outline=1#{name}"


def _links(some: Sequence[Entry]) -> str:
    return "\n".join(link(entry, base64=True) for entry in some)


@dataclass(frozen=True, slots=True)
class Client:
    """How to write servers for a client: one valid document, whatever their number.

    `use` says where to put it; `methods` are those that the client has.
    """

    write: Callable[[Sequence[Entry]], str]
    use: str
    methods: frozenset[str] = frozenset(METHODS)


_OLD = frozenset(name for name, method in METHODS.items() if method.edition == 2017)
_NO_XCHACHA = frozenset(METHODS) - {"2022-blake3-chacha20-poly1305"}

CLIENTS: Mapping[str, Client] = {
    "surge": Client(
        lambda some: "\n".join(map(_surge, some)), "add below [Proxy] of the profile", _NO_XCHACHA
    ),
    "mihomo": Client(
        lambda some: "\n".join(["proxies:", *map(_mihomo, some)]), "a configuration's proxies, or a provider"
    ),
    "sing-box": Client(
        lambda some: json.dumps({"outbounds": [*map(_sing_box, some)]}, indent=1), "merge into the config"
    ),
    "shadowsocks-rust": Client(
        lambda some: json.dumps(
            {
                "servers": [*map(_shadowsocks_rust, some)],
                "local_address": "127.0.0.1",
                "local_port": 1080,
                "mode": "tcp_and_udp" if some[0].udp else "tcp_only",
            },
            indent=1,
        ),
        "sslocal -c FILE",
    ),
    "android": Client(_links, "Shadowsocks for Android: import from clipboard"),
    "shadowrocket": Client(_links, "copy, then open Shadowrocket"),
    "nekobox": Client(_links, "import from clipboard"),
    "v2rayn": Client(_links, "import from clipboard"),
    "outline": Client(lambda some: "\n".join(map(_outline, some)), "add as an access key", _OLD),
}


def write_for(client: str, some: Sequence[Entry]) -> str:
    """Return one document with all entries; raise ValueError for what the client does not have."""
    known = CLIENTS[client]
    if (method := some[0].method.name) not in known.methods:
        raise ValueError(f"{client} does not support {method}")
    return known.write(some)
