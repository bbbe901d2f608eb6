"""The Netlink door: rtnetlink by pyroute2, which with wireguard/kernel.py alone imports it.

Every operation has a socket of its own (0.4 ms for an addition, 2.4 ms for a snapshot): a cancelled
exchange leaves nothing behind that the next one could take for its answer.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final, assert_never

from entrypoint.network.changes import bursts
from entrypoint.network.counters import Traffic, read_traffic
from entrypoint.network.listening import read_listening
from entrypoint.network.listing import FAMILIES, Message, address_state, link_state, routes_of, rule_of
from entrypoint.network.plan import Item, Link, LinkAddress, LinkUp, Route, Rule, Snapshot
from entrypoint.network.requests import address_fields, flow_fields, index_of, route_fields, rule_fields
from entrypoint.network.walk import Flow
from entrypoint.pyroute import NLM_F_DUMP_INTR, AsyncIPRoute, NetlinkError
from entrypoint.wireguard.device import DeviceConfig, Stats
from entrypoint.wireguard.kernel import read_device, set_device

ATTEMPTS: Final = 5
"""Listings that somebody's change may interrupt before it is an error."""

GROUPS: Final = (1, 5, 7, 8, 9, 11, 19)
"""RTNLGRP_: LINK, and IFADDR, ROUTE, RULE of IPv4 and IPv6 (linux/rtnetlink.h)."""

UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})

# linux/if_tun.h
TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR, IFF_TUN_EXCL = 0x0001, 0x1000, 0x4000, 0x8000
NODAD: Final = 0x02

# linux/rtnetlink.h: when deleting they mean "whatever it is"
RT_SCOPE_NOWHERE, RTPROT_UNSPEC = 255, 0


class SystemNetlink:
    """The kernel of this network namespace (see ports.Netlink)."""

    async def snapshot(self) -> Snapshot:
        """List everything. Raises OSError."""
        for _ in range(ATTEMPTS):
            with _translated():
                if (snapshot := await _snapshot()) is not None:
                    return snapshot
        raise OSError(errno.EINTR, "the network changes faster than it can be listed")

    async def add(self, item: Item) -> None:
        """Add one item."""
        match item:
            case Link(name, "tun"):
                _add_tun(name)
            case Link(name, kind):
                await _request("link", "add", ifname=name, kind=kind)
            case LinkUp(name, mtu):
                more = {"mtu": mtu} if mtu else {}
                await _request("link", "set", index=index_of(name), state="up", **more)
            case LinkAddress():
                flags = NODAD if item.address.version == 6 else 0
                await _request("addr", "add", **address_fields(item), flags=flags)
            case Route():
                await _request("route", "add", **route_fields(item))
            case Rule():
                await _request("rule", "add", **rule_fields(item))
            case _:
                assert_never(item)

    async def remove(self, item: Item) -> None:
        """Remove one item."""
        match item:
            case Link(name):
                await _request("link", "del", index=index_of(name))
            case LinkUp(name):
                await _request("link", "set", index=index_of(name), state="down")
            case LinkAddress():
                await _request("addr", "del", **address_fields(item))
            case Route():
                await _request(
                    "route", "del", **route_fields(item), scope=RT_SCOPE_NOWHERE, proto=RTPROT_UNSPEC
                )
            case Rule():
                await _request("rule", "del", **rule_fields(item))
            case _:
                assert_never(item)

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe; what happens while the consumer is busy is one burst."""
        return bursts(socket.NETLINK_ROUTE, GROUPS)

    async def set_wireguard(self, config: DeviceConfig) -> None:
        """Configure a kernel WireGuard device."""
        await set_device(config)

    async def wireguard(self, device: str) -> Stats:
        """Read a kernel WireGuard device's counters."""
        return await read_device(device)

    def traffic(self, device: str) -> Traffic | None:
        """Read any device's packet counters."""
        return read_traffic(device)

    async def way(self, flow: Flow) -> str | None:
        """Ask the kernel's own lookup (RTM_GETROUTE)."""
        try:
            (answer,) = await _request("route", "get", **flow_fields(flow))
        except OSError as error:
            if error.errno in UNREACHABLE:
                return None
            raise
        return socket.if_indextoname(answer.get_attr("RTA_OIF"))

    def listening(self) -> frozenset[int]:
        """Read the kernel's tables of sockets."""
        return read_listening()


async def _snapshot() -> Snapshot | None:
    """Return None when somebody's change came in between."""
    async with AsyncIPRoute() as netlink:
        links = [message async for message in await netlink.link("dump")]
        addresses = [message async for message in await netlink.addr("dump", family=socket.AF_UNSPEC)]
        routes: list[Message] = []
        rules: list[Message] = []
        for family in FAMILIES:
            with _present(family):
                routes += [message async for message in await netlink.route("dump", family=family)]
                rules += [message async for message in await netlink.rule("dump", family=family)]
    if any(message["header"]["flags"] & NLM_F_DUMP_INTR for message in (*links, *addresses, *routes, *rules)):
        return None
    states = tuple(map(link_state, links))
    names = {state.index: state.name for state in states}
    return Snapshot(
        links=states,
        addresses=tuple(address_state(message, names) for message in addresses),
        # A kernel without IPv6 answers the second question with IPv4 again.
        routes=tuple(dict.fromkeys(route for message in routes for route in routes_of(message, names))),
        rules=tuple(dict.fromkeys(map(rule_of, rules))),
    )


@contextmanager
def _present(family: int) -> Iterator[None]:
    """Accept that a kernel has no IPv6."""
    try:
        yield
    except NetlinkError as error:
        if family == socket.AF_INET or error.code not in NO_IPV6:
            raise


@contextmanager
def _translated() -> Iterator[None]:
    """Turn pyroute2's own error into the OSError of the same number."""
    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error


async def _request(what: str, command: str, **fields: object) -> list[Message]:
    with _translated():
        async with AsyncIPRoute() as netlink:
            return list(await getattr(netlink, what)(command, **fields))


def _add_tun(name: str) -> None:
    """Make a persistent TUN; it is ours although nobody holds it open."""
    flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL
    node = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(node, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(node, TUNSETPERSIST, 1)
    except OSError as error:
        if error.errno == errno.EBUSY:  # what TUN says of a name that is taken
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        raise
    finally:
        os.close(node)
