"""A WireGuard device, the same for both engines."""

from collections.abc import Callable
from typing import Literal, Protocol

import anyio

from entrypoint.linux.kernel_objects import DeviceConfig, Link, Stats
from entrypoint.linux.world import Netlink
from entrypoint.routing.reconcile import delete_link

type Implementation = Literal["kernel", "userspace"]

type Choice = Literal["auto", "kernel", "userspace"]


type Trouble = Literal["restarted", "gone"]
"""What `Device.keep` reports: the engine was restarted, or the interface is gone."""


class Device(Protocol):
    """A live device. `configure` replaces the peer (remove and add), which restarts the handshake."""

    @property
    def name(self) -> str:
        """The interface's name."""

    @property
    def implementation(self) -> Implementation:
        """Which engine carries the packets."""

    async def configure(self, config: DeviceConfig) -> None:
        """Set key, mark and peer; the old peer is gone afterwards. Raises OSError."""

    async def recreate(self) -> None:
        """Recreate interface and engine with the last configuration. Raises OSError.

        Addresses, routes and MTU went with the old interface; the caller restores them.
        """

    async def keep(self, report: Callable[[Trouble], None]) -> None:
        """Keep the engine alive until cancelled; run it in a task of its own.

        Restarts a dead engine on the interface it left behind, with the last configuration;
        without an interface, waits for `recreate`.
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
        """Recreate the interface."""
        await delete_link(self._netlink, self.name)
        await self._netlink.add(Link(self.name, "wireguard"))
        await self._netlink.configure_wireguard(self._config)

    async def keep(self, report: Callable[[Trouble], None]) -> None:
        """Do nothing until cancelled: the kernel's engine cannot die; NetworkWatch sees a lost link."""
        await anyio.sleep_forever()

    async def stats(self) -> Stats:
        """Read the counters."""
        return await self._netlink.wireguard_stats(self.name)
