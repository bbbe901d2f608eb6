"""One WireGuard device, whichever engine drives it."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Protocol

from entrypoint.network.plan import Link, LinkState
from entrypoint.ports import Netlink
from entrypoint.warp.endpoints import Endpoint

type Implementation = Literal["kernel", "userspace"]


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """A device with its one peer. Keys are base64, keepalive in seconds (0 is off), mark 0 is none."""

    name: str
    private_key: str
    peer_public_key: str
    endpoint: Endpoint
    mark: int
    keepalive: int
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
    reserved: bytes = bytes(3)
    """Bytes 1 to 3 of each message. The kernel has no place for them: there nftables writes them."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of the peer; `handshake` in seconds since 1970, 0 = never."""

    handshake: float
    rx_bytes: int
    tx_bytes: int


type Trouble = Literal["restarted", "gone"]
"""What `Device.keep` reports: the engine was started again, or the interface is not there any more."""


class Device(Protocol):
    """A live device. `configure` replaces the peer (remove and add), which restarts the handshake."""

    @property
    def name(self) -> str:
        """The interface's name."""

    @property
    def implementation(self) -> Implementation:
        """Who carries the packets."""

    async def configure(self, config: DeviceConfig) -> None:
        """Set key, mark and peer; the old peer is gone afterwards. Raises OSError."""

    async def recreate(self) -> None:
        """Make interface and engine anew, with the last configuration. Raises OSError.

        Addresses, routes and MTU are the caller's: they went with the old interface.
        """

    async def keep(self, report: Callable[[Trouble], None]) -> None:
        """Keep the engine alive, for ever; to be run in a task of its own.

        A dead engine is started again on the interface that is still there, with the last
        configuration; without an interface that waits for `recreate`.
        """

    async def stats(self) -> Stats:
        """Read the counters. Raises OSError when the device is gone."""


async def find(netlink: Netlink, name: str) -> LinkState | None:
    """Return the link of this name, None when there is none."""
    links = (await netlink.snapshot()).links
    return next((link for link in links if link.name == name), None)


async def delete(netlink: Netlink, name: str) -> None:
    """Delete a link of ours, also one that somebody else deletes meanwhile; that ends its wireguard-go."""
    link = await find(netlink, name)
    try:
        match link:
            case LinkState(kind="tun" | "wireguard" as kind):
                await netlink.remove(Link(name, kind))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
