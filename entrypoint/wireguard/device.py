"""One WireGuard device, whichever engine drives it."""

from collections.abc import Callable
from typing import Literal, Protocol

import anyio

from entrypoint.linux.kernel_objects import DeviceConfig, Link, Stats
from entrypoint.linux.world import Netlink
from entrypoint.routing.reconcile import delete_link

type Implementation = Literal["kernel", "userspace"]


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


class KernelDevice:
    """A device in the kernel (see device.Device)."""

    implementation: Implementation = "kernel"

    def __init__(self, config: DeviceConfig, netlink: Netlink) -> None:
        self._config = config
        self._netlink = netlink

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._config.name

    async def configure(self, config: DeviceConfig) -> None:
        """Set key, mark and peer, replacing the old peer."""
        self._config = config
        await self._netlink.configure_wireguard(config)

    async def recreate(self) -> None:
        """Make the interface anew."""
        await delete_link(self._netlink, self.name)
        await self._netlink.add(Link(self.name, "wireguard"))
        await self._netlink.configure_wireguard(self._config)

    async def keep(self, report: Callable[[Trouble], None]) -> None:
        """Do nothing, for ever: the kernel's engine does not die, and a lost link is seen by others."""
        await anyio.sleep_forever()

    async def stats(self) -> Stats:
        """Read the counters."""
        return await self._netlink.wireguard_stats(self.name)
