"""A kernel's links, addresses, routes and rules: refuses what Linux refuses, and prints itself.

tests/lab/test_netlink.py holds it against the real one.
"""

import errno
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from ipaddress import ip_interface, ip_network

import anyio.lowlevel

from entrypoint.addresses import Address, Family
from entrypoint.linux.kernel_objects import (
    MAIN_TABLE,
    AddressState,
    DeviceConfig,
    Flow,
    Item,
    Link,
    LinkAddress,
    LinkState,
    LinkUp,
    Route,
    Rule,
    Snapshot,
    Stats,
    Traffic,
    Visit,
)
from entrypoint.linux.visits import FAR_AWAY
from entrypoint.routing.lookup import decide_route
from tests.fakes.bursts import Bursts
from tests.fakes.views import show

MTU = {"tun": 1500, "wireguard": 1420}
KERNELS_RULES = (
    *(Rule(4, priority, table) for priority, table in ((0, 255), (32766, 254), (32767, 253))),
    *(Rule(6, priority, table) for priority, table in ((0, 255), (32766, 254))),
)
CONNECTED_METRIC = {4: 0, 6: 256}


class FakeNetlink:
    """See ports.Netlink. `denied`: no NET_ADMIN; `has_wireguard`: the kernel has WireGuard.

    `fail_at` maps the number of a change, counted from 1, to the errno that it gets instead.
    """

    def __init__(self, *, has_wireguard: bool = False, denied: bool = False) -> None:
        self.has_wireguard = has_wireguard
        self.denied = denied
        self.fail_at: dict[int, int] = {}
        self.count = 0
        self.log: list[str] = []
        self.wireguards: dict[str, DeviceConfig] = {}
        self.stats = Stats(0, 0, 0)
        self.listeners: frozenset[int] = frozenset()
        self.held = 0
        """Index of the TUN whose carrier is kept."""
        self.users: frozenset[int] = frozenset()
        self.asked: tuple[Address, ...] = ()
        self.outgoing: list[tuple[Address, Address]] = []
        """Connections that began here: local and remote address."""
        self.packets: dict[str, Traffic] = {}
        self.links = [LinkState(1, "lo", "", True, 65536)]
        self.addresses = [
            AddressState("lo", ip_interface("127.0.0.1/8")),
            AddressState("lo", ip_interface("::1/128")),
        ]
        self.routes: list[Route] = []
        self.rules = list(KERNELS_RULES)
        self._told = Bursts()

    @classmethod
    def container(cls, **options: bool) -> "FakeNetlink":
        """Return a container's namespace on a Docker network with both families."""
        made = cls(**options)
        made.plug("eth0", "172.18.0.5/16", "fd00:18::5/64")
        made.routes += [
            Route(ip_network("0.0.0.0/0"), MAIN_TABLE, "eth0", gateway=ip_interface("172.18.0.1").ip),
            Route(ip_network("::/0"), MAIN_TABLE, "eth0", gateway=ip_interface("fd00:18::1").ip),
        ]
        return made

    def plug(self, name: str, *addresses: str, kind: str = "veth") -> None:
        """Another program adds a device with these addresses, and it is up."""
        self.links.append(LinkState(self._next_index(), name, kind, True, 1500))
        self.addresses += [AddressState(name, ip_interface(address)) for address in addresses]
        self._told.tell()

    def meddle(self, *items: Item, removes: bool = False) -> None:
        """Another program adds (or removes) these; not counted, not logged."""
        for item in items:
            (self._remove if removes else self._add)(item)
        self._told.tell()

    def __str__(self) -> str:
        return show(self._state())

    async def link(self, name: str) -> LinkState | None:
        await anyio.lowlevel.checkpoint()
        return next((link for link in self.links if link.name == name), None)

    async def snapshot(self, *, whole: bool = False, table: int = 0) -> Snapshot:
        await anyio.lowlevel.checkpoint()
        return self._state()

    async def add(self, item: Item) -> None:
        await anyio.lowlevel.checkpoint()
        self._counted(item.command("add"))
        self._add(item)
        self._told.tell()
        await anyio.lowlevel.checkpoint()

    async def remove(self, item: Item) -> None:
        await anyio.lowlevel.checkpoint()
        self._counted(item.command("del"))
        self._remove(item)
        self._told.tell()
        await anyio.lowlevel.checkpoint()

    def hold(self, link: LinkState) -> None:
        self.held = link.index

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        return self._told.subscribed()

    async def configure_wireguard(self, config: DeviceConfig) -> None:
        await anyio.lowlevel.checkpoint()
        self._counted(f"wg set {config.name}")
        self._require_wireguard(config.name)
        self.wireguards[config.name] = config

    async def wireguard_stats(self, device: str) -> Stats:
        await anyio.lowlevel.checkpoint()
        self._require_wireguard(device)
        return self.stats

    def traffic(self, device: str) -> Traffic | None:
        there = any(link.name == device for link in self.links)
        return self.packets.get(device, Traffic(0, 0)) if there else None

    async def route_device(self, flow: Flow) -> str | None:
        await anyio.lowlevel.checkpoint()
        ours = flow.source is None or any(one.address.ip == flow.source for one in self.addresses)
        found = decide_route(self._state(), flow) if ours else None
        return found.device if found else None

    def answer_to(self, visit: Visit) -> str | None:
        """By which interface the answer to a visit leaves."""
        found = decide_route(self._state(), Flow(FAR_AWAY[visit.address.version], visit.address, visit.mark))
        return found.device if found else None

    def close_outgoing(self, allowed: Callable[[Address, Address], bool]) -> int:
        ended = [ends for ends in self.outgoing if not allowed(*ends)]
        self.outgoing = [ends for ends in self.outgoing if allowed(*ends)]
        return len(ended)

    def resolvers(self) -> tuple[Address, ...]:
        return self.asked

    def socket_users(self) -> frozenset[int]:
        return self.users

    def listening_ports(self) -> frozenset[int]:
        return self.listeners

    # What happens inside.

    def _require_wireguard(self, device: str) -> None:
        if not self.has_wireguard or self._link(device).kind != "wireguard":
            raise _error(errno.EOPNOTSUPP if self.has_wireguard else errno.ENOENT)

    def _counted(self, command: str) -> None:
        self.count += 1
        if self.denied:
            raise _error(errno.EPERM)
        if code := self.fail_at.get(self.count):
            raise _error(code)
        self.log.append(command)

    def _state(self) -> Snapshot:
        return Snapshot(
            tuple(self.links),
            tuple(self.addresses),
            (*self.routes, *self._connected()),
            tuple(sorted(self.rules, key=lambda rule: (rule.family, rule.priority))),
        )

    def _connected(self) -> Iterable[Route]:
        """The routes to an address's own network, which come and go with address and link."""
        up = {link.name for link in self.links if link.up and link.name != "lo"}
        networks = {
            (one.device, one.address.network)
            for one in self.addresses
            if one.device in up and (one.address.version == 6 or one.address.network.prefixlen < 32)
        }
        for device, network in sorted(networks, key=str):
            yield Route(network, MAIN_TABLE, device, CONNECTED_METRIC[network.version], connected=True)

    def _next_index(self) -> int:
        return max(link.index for link in self.links) + 1

    def _link(self, name: str) -> LinkState:
        for link in self.links:
            if link.name == name:
                return link
        raise _error(errno.ENODEV)

    def _change(self, link: LinkState, **fields: object) -> None:
        self.links[self.links.index(link)] = replace(link, **fields)  # type: ignore[arg-type]

    def _add(self, item: Item) -> None:
        match item:
            case Link(name, kind):
                if any(link.name == name for link in self.links):
                    raise _error(errno.EEXIST)
                if kind == "wireguard" and not self.has_wireguard:
                    raise _error(errno.EOPNOTSUPP)
                self.links.append(LinkState(self._next_index(), name, kind, False, MTU[kind]))
            case LinkUp(name, mtu):
                self._change(self._link(name), up=True, mtu=mtu or self._link(name).mtu)
            case LinkAddress(device, address):
                self._link(device)
                if any((one.device, one.address) == (device, address) for one in self.addresses):
                    raise _error(errno.EEXIST)
                self.addresses.append(AddressState(device, address))
            case Route(destination, table, device, metric):
                if device and not self._link(device).up:
                    raise _error(errno.ENETDOWN)
                if any(
                    (r.destination, r.table, r.metric) == (destination, table, metric) for r in self.routes
                ):
                    raise _error(errno.EEXIST)
                self.routes.append(item)
            case Rule():
                if item in self.rules:
                    raise _error(errno.EEXIST)
                self.rules.append(item)

    def _remove(self, item: Item) -> None:
        match item:
            case Link(name):
                self._downed(name, (4, 6))
                self.links.remove(self._link(name))
                self.wireguards.pop(name, None)
            case LinkUp(name):
                self._change(self._link(name), up=False)
                self._downed(name, (6,))
            case LinkAddress(device, address):
                self._link(device)
                found = [one for one in self.addresses if (one.device, one.address) == (device, address)]
                if not found:
                    raise _error(errno.EADDRNOTAVAIL)
                self.addresses.remove(found[0])
                left = {one.address.version for one in self.addresses if one.device == device}
                if address.version == 4 and 4 not in left:  # the kernel's fib_disable_ip
                    self._unroute(device, (4,))
            case Route(_, _, device):
                if device:
                    self._link(device)
                if item not in self.routes:
                    raise _error(errno.ESRCH)
                self.routes.remove(item)
            case Rule():
                if item not in self.rules:
                    raise _error(errno.ENOENT)
                self.rules.remove(item)

    def _downed(self, name: str, lost: tuple[Family, ...]) -> None:
        self._link(name)
        self._unroute(name, (4, 6))
        self.addresses = [a for a in self.addresses if a.device != name or a.address.version not in lost]

    def _unroute(self, name: str, families: tuple[Family, ...]) -> None:
        self.routes = [r for r in self.routes if r.device != name or r.destination.version not in families]


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
