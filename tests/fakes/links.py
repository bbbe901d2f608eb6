"""FakeLinks: the Netlink door with links alone, for what creates and deletes devices.

Refuses what Linux refuses: EEXIST, ENODEV, EPERM without NET_ADMIN, EOPNOTSUPP without the module.
"""

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint

from entrypoint.addresses import Address
from entrypoint.linux.kernel_objects import (
    DeviceConfig,
    Item,
    Link,
    LinkState,
    LinkUp,
    Snapshot,
    Stats,
    Traffic,
)
from tests.fakes.netlink import MTU


class FakeLinks:
    """Links by name; `log` has the commands that changed something."""

    def __init__(self, *, kernel: bool = False, net_admin: bool = True) -> None:
        self.kernel = kernel
        self.net_admin = net_admin
        self.links: dict[str, LinkState] = {"lo": LinkState(1, "lo", "", up=True, mtu=65536)}
        self.devices: dict[str, DeviceConfig] = {}
        self.log: list[str] = []
        self._count = 1
        self._changed = anyio.Event()

    async def link(self, name: str) -> LinkState | None:
        await checkpoint()
        return self.links.get(name)

    async def snapshot(self, *, whole: bool = False, table: int = 0) -> Snapshot:
        await checkpoint()
        return Snapshot(links=tuple(self.links.values()))

    async def add(self, item: Item) -> None:
        await self._allowed()
        match item:
            case Link(name, kind):
                if name in self.links:
                    raise _error(errno.EEXIST)
                if kind == "wireguard" and not self.kernel:
                    raise _error(errno.EOPNOTSUPP)
                self._count += 1
                self.links[name] = LinkState(self._count, name, kind, up=False, mtu=MTU[kind])
            case LinkUp(name, mtu):
                old = self._link(name)
                self.links[name] = LinkState(old.index, name, old.kind, up=True, mtu=mtu or old.mtu)
            case _:
                raise AssertionError(f"not a link: {item}")
        self._note(item.command("add"))

    async def remove(self, item: Item) -> None:
        await self._allowed()
        assert isinstance(item, Link)
        assert self._link(item.name).kind == item.kind
        self.delete(item.name)
        self._note(item.command("del"))

    def delete(self, name: str) -> None:
        """Another program deletes a link."""
        self.links.pop(name)
        self.devices.pop(name, None)
        self._wake()

    def hold(self, link: LinkState) -> None:
        self.held = link.index

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        async def bursts() -> AsyncIterator[None]:
            while True:
                await self._changed.wait()
                yield

        yield bursts()

    async def configure_wireguard(self, config: DeviceConfig) -> None:
        await self._allowed()
        self._require_wireguard(config.name)
        self.devices[config.name] = config

    async def wireguard_stats(self, device: str) -> Stats:
        await self._allowed()
        self._require_wireguard(device)
        return Stats(1_800_000_000.0, 92, 148)

    def traffic(self, device: str) -> Traffic | None:
        return Traffic(0, 0) if device in self.links else None

    async def route_device(self, flow: object) -> str | None:
        raise AssertionError("not used by these tests")

    def close_outgoing(self, allowed: Callable[[Address, Address], bool]) -> int:
        return 0

    def resolvers(self) -> tuple[Address, ...]:
        return ()

    def socket_users(self) -> frozenset[int]:
        return frozenset()

    def listening_ports(self) -> frozenset[int]:
        return frozenset()

    async def _allowed(self) -> None:
        await checkpoint()
        if not self.net_admin:
            raise _error(errno.EPERM)

    def _require_wireguard(self, device: str) -> None:
        if not self.kernel:
            raise _error(errno.ENOENT)
        if self._link(device).kind != "wireguard":
            raise _error(errno.EOPNOTSUPP)

    def _link(self, name: str) -> LinkState:
        if name not in self.links:
            raise _error(errno.ENODEV)
        return self.links[name]

    def _note(self, command: str) -> None:
        self.log.append(command)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
