"""What the emulator can be told, its addresses, and the bytes its origin serves."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

type Address = IPv4Address | IPv6Address

API_NAME = "api.cloudflareclient.com"
TEAM_API_NAME = "zero-trust-client.cloudflareclient.com"
TEAM = "acme"
TEAM_NAME = f"{TEAM}.cloudflareaccess.com"
"""The organisation whose devices can be enrolled."""
API_URL = f"https://{API_NAME}"
EDGE_NAME = "engage.cloudflareclient.com"
EDGE_PORTS = (2408, 500, 1701, 4500)
API_PORTS = {"open": "accept", "dropped": "drop", "refused": "reject with tcp reset"}
"""What can become of connections to the API, and nft's word for it."""
ECHO_PORT = 7
"""UDP: answers `payload + b"|" + source address + b" " + source port`."""
BULK_PORT = 80
"""HTTP: `GET /bytes/N` answers `bulk(N)`, `POST /sink` answers the sha256 of what it got, in hex."""

ENDPOINTS4, ENDPOINTS6 = IPv4Network("162.159.192.0/24"), IPv6Network("2606:4700:d0::/48")
EXITS4, EXITS6 = IPv4Network("104.28.0.0/16"), IPv6Network("2a09:bac0::/32")
API_ADDRESSES: tuple[Address, ...] = (IPv4Address("104.16.192.82"), IPv6Address("2606:4700::6810:1854"))
ORIGIN_ADDRESSES: tuple[Address, ...] = tuple(
    ip_address(text)
    for text in (
        "1.1.1.1",
        "1.0.0.1",
        "104.16.132.229",
        "2606:4700:4700::1111",
        "2606:4700:4700::1001",
        "2606:4700::6810:84e5",
    )
)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set; as JSON, addresses are strings.

    `uplink` is the interface towards the host under test. `published` lists addresses of the uplink at
    which device 1's edge ports and the origin's ports 7, 53 and 80 answer too, for places where the real
    ranges are not routed here (the demo); the API answers at its port on every address of the namespace
    anyway. `names` adds to or replaces the DNS zone. `control` is an optional `address:port` for the
    control interface besides the Unix socket in `state`. `one_by_one`: the edge's packets arrive as off a
    wire, not merged as between neighbours on one machine, of which kernel WireGuard with reserved bytes
    takes the first alone. `gro`: it takes merged ones, at the cost of answering only from its own address.
    """

    state: Path
    uplink: str
    published: tuple[Address, ...] = ()
    endpoints4: IPv4Network = ENDPOINTS4
    endpoints6: IPv6Network = ENDPOINTS6
    exits4: IPv4Network = EXITS4
    exits6: IPv6Network = EXITS6
    api_addresses: tuple[Address, ...] = API_ADDRESSES
    api_port: int = 443
    names: dict[str, tuple[Address, ...]] = field(default_factory=dict)
    control: str = ""
    one_by_one: bool = False
    gro: bool = False

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), default=str, indent=1)

    @classmethod
    def load(cls, text: str) -> "Config":
        """Read what `dump` wrote; what is missing keeps its default. Raises TypeError, ValueError."""
        raw: dict[str, Any] = json.loads(text)
        unknown = raw.keys() - {one.name for one in fields(cls)}
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        for name in ("endpoints4", "endpoints6", "exits4", "exits6"):
            if name in raw:
                raw[name] = ip_network(raw[name])
        for name in ("published", "api_addresses"):
            if name in raw:
                raw[name] = tuple(map(ip_address, raw[name]))
        raw["names"] = {k: tuple(map(ip_address, v)) for k, v in raw.get("names", {}).items()}
        return cls(**raw | {"state": Path(raw["state"])})

    @property
    def socket(self) -> Path:
        """The control interface's Unix socket."""
        return self.state / "control.sock"

    @property
    def ca_file(self) -> Path:
        """The certificate authority of API and origin."""
        return self.state / "ca.pem"


BLOCK = 1 << 20


@cache
def _block() -> bytes:
    return random.Random("bulk").randbytes(BLOCK)


def bulk_blocks(size: int) -> Iterator[bytes]:
    """Yield the origin's deterministic `size` bytes in blocks."""
    block = _block()
    for start in range(0, size, BLOCK):
        yield block[: min(BLOCK, size - start)]


def bulk(size: int) -> bytes:
    """Return the origin's deterministic `size` bytes: what `GET /bytes/size` answers."""
    return b"".join(bulk_blocks(size))


def bulk_sha256(size: int) -> str:
    """Return the hex sha256 of `bulk(size)`."""
    digest = hashlib.sha256()
    for block in bulk_blocks(size):
        digest.update(block)
    return digest.hexdigest()
