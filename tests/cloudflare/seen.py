"""What the emulator tells of itself: the API's calls, the origin's visitors, the edge's devices."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One call the API got; header names in lower case. `status` 0: it was never answered."""

    time: float
    source: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: str
    status: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing the origin saw. `protocol`: echo, http, https, dns-udp, dns-tcp; `detail`: path or name."""

    time: float
    protocol: str
    source: str
    source_port: int
    destination: str
    detail: str
    warp: str


@dataclass(frozen=True, slots=True)
class DeviceSeen:
    """A device as the edge has it. `handshake` in seconds since 1970, 0 = never; `active` False: deleted.

    `with_reserved` and `without_reserved` count datagrams that came with its bytes, and with others or none.
    """

    id: str
    token: str
    key: str
    active: bool
    address4: str
    address6: str
    endpoint4: str
    endpoint6: str
    exit4: str
    exit6: str
    handshake: float
    rx_bytes: int
    tx_bytes: int
    with_reserved: int
    without_reserved: int
