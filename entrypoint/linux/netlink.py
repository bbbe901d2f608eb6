"""The kernel's links, addresses, routes, rules and WireGuard devices; the only file that imports pyroute2.

Every operation opens its own socket (0.4 ms for an addition, 2.4 ms for a snapshot), so a cancelled
exchange leaves nothing behind that the next one could mistake for its answer.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import assert_never

import anyio.lowlevel

from entrypoint.addresses import Address
from entrypoint.linux import kernel_objects as kernel
from entrypoint.linux import netlink_messages as wire
from entrypoint.linux import proc
from entrypoint.linux.deciding_routes import all_dull, concerns_us, worth_a_look
from entrypoint.linux.raw_netlink import DUMP, HEADER, Keep, Skip, ask
from entrypoint.linux.sock_diag import close_outgoing
from entrypoint.linux.sockets import watch_groups
from entrypoint.linux.tun import Carrier, add_tun


def _bare_package(name: str) -> None:
    if name not in sys.modules:
        spec = find_spec(name)
        bare = ModuleType(name)
        bare.__spec__ = spec
        bare.__path__ = list(spec.submodule_search_locations or ()) if spec else []
        sys.modules[name] = bare


# Importing the package loads everything it has, 5 MB and 200 ms. A bare package stands in for it; the
# submodules are the real ones.
_bare_package("pyroute2")

from pyroute2.iproute.linux import AsyncIPRoute  # noqa: E402
from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST  # noqa: E402
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402
from pyroute2.netlink.generic import wireguard as wg  # noqa: E402
from pyroute2.netlink.rtnl.fibmsg import fibmsg  # noqa: E402
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: E402
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: E402

# pyroute2's list ends at 23; the next (linux/rtnetlink.h) look up a route for another user, and by ports.
rtmsg.nla_map = (
    *rtmsg.nla_map,
    ("RTA_PAD", "hex"),
    ("RTA_UID", "uint32"),
    ("RTA_TTL_PROPAGATE", "uint8"),
    ("RTA_IP_PROTO", "uint8"),
    ("RTA_SPORT", "be16"),
    ("RTA_DPORT", "be16"),
    ("RTA_NH_ID", "uint32"),
)


RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETRULE, RTM_GETNEXTHOP = 18, 22, 26, 34, 106

RTM_GETNEIGH, AF_BRIDGE = 30, 7

GROUPS = (1, 5, 7, 8, 9, 11, 19)
"""RTNLGRP_: LINK, and IFADDR, ROUTE, RULE of IPv4 and IPv6 (linux/rtnetlink.h)."""

UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
NOTHING_TO_LIST = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT})
RTA_TABLE = 15

NODAD = 0x02

# linux/rtnetlink.h: when deleting they match anything
RT_SCOPE_NOWHERE, RTPROT_UNSPEC = 255, 0


class SystemNetlink:
    """The kernel of this network namespace (see world.Netlink)."""

    def __init__(self) -> None:
        self._carrier = Carrier()

    async def snapshot(self, *, whole: bool = False, table: int = 0) -> kernel.Snapshot:
        """List what decides: of routes only default and connected ones, and other tables than main's."""
        await anyio.lowlevel.checkpoint()
        return _snapshot(whole, table)

    async def link(self, name: str) -> kernel.LinkState | None:
        """Look one link up by its name."""
        try:
            (answer,) = await _request("link", "get", ifname=name)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return wire.link_state(answer)

    async def add(self, item: kernel.Item) -> None:
        """Add one item."""
        match item:
            case kernel.Link(name, "tun"):
                add_tun(name)
            case kernel.Link(name, kind):
                await _request("link", "add", ifname=name, kind=kind)
            case kernel.LinkUp(name, mtu):
                more = {"mtu": mtu} if mtu else {}
                await _request("link", "set", index=wire.index_of(name), state="up", **more)
            case kernel.LinkAddress():
                # No duplicate address detection: the tunnel has no neighbours, and a tentative address drops
                # its first packets.
                flags = NODAD if item.address.version == 6 else 0
                await _request("addr", "add", **wire.address_fields(item), flags=flags)
            case kernel.Route():
                await _request("route", "add", **wire.route_fields(item))
            case kernel.Rule():
                await _request("rule", "add", **wire.rule_fields(item))
            case _:
                assert_never(item)

    async def remove(self, item: kernel.Item) -> None:
        """Remove one item."""
        match item:
            case kernel.Link(name):
                await _request("link", "del", index=wire.index_of(name))
            case kernel.LinkUp(name):
                await _request("link", "set", index=wire.index_of(name), state="down")
            case kernel.LinkAddress():
                await _request("addr", "del", **wire.address_fields(item))
            case kernel.Route():
                await _request(
                    "route", "del", **wire.route_fields(item), scope=RT_SCOPE_NOWHERE, proto=RTPROT_UNSPEC
                )
            case kernel.Rule():
                await _request("rule", "del", **wire.rule_fields(item))
            case _:
                assert_never(item)

    def hold(self, link: kernel.LinkState) -> None:
        """Open the TUN, and close one that was held before."""
        self._carrier.keep(link)

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe; changes while the consumer is busy count as one burst."""
        return watch_groups(socket.NETLINK_ROUTE, GROUPS, concerns_us)

    async def configure_wireguard(self, config: kernel.DeviceConfig) -> None:
        """Configure a kernel WireGuard device."""
        await configure_wireguard(config)

    async def wireguard_stats(self, device: str) -> kernel.Stats:
        """Read a kernel WireGuard device's counters."""
        return await read_wireguard(device)

    def traffic(self, device: str) -> kernel.Traffic | None:
        """Read any device's packet counters."""
        return proc.read_traffic(device)

    async def route_device(self, flow: kernel.Flow) -> str | None:
        """Use the kernel's own lookup (RTM_GETROUTE)."""
        try:
            (answer,) = await _request("route", "get", **wire.flow_fields(flow))
        # Unreachable is an answer here, not an error.
        except OSError as error:
            if error.errno in UNREACHABLE:
                return None
            raise
        return socket.if_indextoname(answer.get_attr("RTA_OIF"))

    def close_outgoing(self, allowed: Callable[[Address, Address], bool]) -> int:
        """Close sockets by sock_diag."""
        return close_outgoing(allowed)

    def listening_ports(self) -> frozenset[int]:
        """Read the kernel's tables of sockets."""
        return proc.read_listening()

    def resolvers(self) -> tuple[Address, ...]:
        """Read /etc/resolv.conf."""
        return proc.read_resolvers()

    def socket_users(self) -> frozenset[int]:
        """Read the kernel's tables of sockets."""
        return proc.read_users()


def _listed(
    kind: int,
    body: bytes,
    form: type[wire.Message],
    keep: Keep | None = None,
    skip: Skip | None = None,
    *,
    strict: bool = False,
) -> list[wire.Message]:
    """Return a listing, decoded by pyroute2; without IPv6, or the table, there is nothing to list."""
    try:
        answers = ask(socket.NETLINK_ROUTE, kind, DUMP, body, keep, skip, strict=strict)
    except OSError as error:
        if error.errno in NOTHING_TO_LIST:
            return []
        raise
    messages = [form(answer) for answer in answers]
    for message in messages:
        message.decode()
    return messages


def _snapshot(whole: bool, table: int) -> kernel.Snapshot:
    links = _listed(RTM_GETLINK, bytes(16), ifinfmsg)
    states = tuple(map(wire.link_state, links))
    if any(state.kind == "vxlan" for state in states):
        tables = ask(socket.NETLINK_ROUTE, RTM_GETNEIGH, DUMP, bytes((AF_BRIDGE, *bytes(15))))
        learned = wire.learned_ends([answer[HEADER:] for answer in tables])
        states = tuple(wire.link_state(message, learned) for message in links)
    # By index first: another program may rename a link between two listings.
    names = {state.index: state.name for state in states}
    routes: list[wire.Message] = []
    rules: list[wire.Message] = []
    which = (None, None) if whole or table else (worth_a_look, all_dull)
    only = struct.pack("=HHI", 8, RTA_TABLE, table) if table else b""
    for family in wire.FAMILIES:
        head = bytes((family, *bytes(11)))
        routes += _listed(RTM_GETROUTE, head + only, rtmsg, *which, strict=bool(table))
        rules += _listed(RTM_GETRULE, head, fibmsg)
    addresses = _listed(RTM_GETADDR, bytes(8), ifaddrmsg)
    hops: dict[int, wire.NextHops] = {}
    if any(message.get_attr("RTA_NH_ID") and not message.get_attr("RTA_OIF") for message in routes):
        hops = wire.next_hops(
            [answer[HEADER:] for answer in ask(socket.NETLINK_ROUTE, RTM_GETNEXTHOP, DUMP, bytes(8))]
        )
    return kernel.Snapshot(
        links=states,
        addresses=tuple(wire.address_state(message, names) for message in addresses),
        # A kernel without IPv6 answers the second request with IPv4 again.
        routes=tuple(
            dict.fromkeys(route for message in routes for route in wire.routes_of(message, names, hops))
        ),
        rules=tuple(dict.fromkeys(map(wire.rule_of, rules))),
        ipv6_by_default=proc.read_ipv6_by_default(),
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Turn pyroute2's own error into an OSError with the same errno."""
    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error


async def _request(what: str, command: str, **fields: object) -> list[wire.Message]:
    with _translated():
        async with AsyncIPRoute() as netlink:
            return list(await getattr(netlink, what)(command, **fields))


async def configure_wireguard(config: kernel.DeviceConfig) -> None:
    """Configure a kernel device in one message, replacing its peers. Raises OSError.

    The private key reads back clamped: compare public keys.
    """
    await _exchange_genl(wireguard_message(config), NLM_F_REQUEST | NLM_F_ACK)


async def read_wireguard(name: str) -> kernel.Stats:
    """Read a kernel device's counters. Raises OSError; ENODEV if it does not exist."""
    request = wg.wgmsg()
    request["cmd"] = wg.WG_CMD_GET_DEVICE
    request["attrs"] = [["WGDEVICE_A_IFNAME", name]]
    return wireguard_stats(await _exchange_genl(request, NLM_F_REQUEST | NLM_F_DUMP))


def wireguard_message(config: kernel.DeviceConfig) -> wg.wgmsg:
    """Return the message that makes `config` the whole configuration.

    Built by hand because pyroute2's `set` cannot replace the peers (WGDEVICE_F_REPLACE_PEERS).
    """
    endpoint = {"addr": str(config.endpoint.address), "port": config.endpoint.port}
    networks = [
        {
            "attrs": [
                ["WGALLOWEDIP_A_FAMILY", socket.AF_INET if network.version == 4 else socket.AF_INET6],
                ["WGALLOWEDIP_A_IPADDR", network.network_address.packed],
                ["WGALLOWEDIP_A_CIDR_MASK", network.prefixlen],
            ]
        }
        for network in config.allowed_ips
    ]
    peer = [
        ["WGPEER_A_PUBLIC_KEY", config.peer_public_key],
        ["WGPEER_A_ENDPOINT", endpoint],
        ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", config.keepalive],
        ["WGPEER_A_FLAGS", wg.WGPEER_F_REPLACE_ALLOWEDIPS],
        ["WGPEER_A_ALLOWEDIPS", networks],
    ]
    message = wg.wgmsg()
    message["cmd"] = wg.WG_CMD_SET_DEVICE
    message["version"] = wg.WG_GENL_VERSION
    message["attrs"] = [
        ["WGDEVICE_A_IFNAME", config.name],
        ["WGDEVICE_A_FLAGS", wg.WGDEVICE_F_REPLACE_PEERS],
        ["WGDEVICE_A_PRIVATE_KEY", config.private_key],
        ["WGDEVICE_A_FWMARK", config.mark],
        *([["WGDEVICE_A_LISTEN_PORT", config.listen_port]] if config.listen_port else []),
        ["WGDEVICE_A_PEERS", [{"attrs": peer}]],
    ]
    return message


def wireguard_stats(messages: list[wg.wgmsg]) -> kernel.Stats:
    """Return the counters of the one peer in a listing; a device without a peer has none."""
    for message in messages:
        for peer in message.get_attr("WGDEVICE_A_PEERS") or ():
            time = peer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")
            return kernel.Stats(
                handshake=time["tv_sec"] + time["tv_nsec"] / 1e9,
                rx_bytes=peer.get_attr("WGPEER_A_RX_BYTES"),
                tx_bytes=peer.get_attr("WGPEER_A_TX_BYTES"),
            )
    return kernel.Stats(0, 0, 0)


# A socket for each exchange, as everywhere in this file.
class _WireGuardSocket(wg.AsyncWireGuard):  # type: ignore[misc]  # untyped
    module_err_level = "debug"  # otherwise a missing module is logged by the root logger


async def _exchange_genl(message: wg.wgmsg, flags: int) -> list[wg.wgmsg]:
    """Send one message on its own socket: a cancelled exchange would leave the next one out of step.

    Raises OSError; ENOENT if the kernel has no WireGuard.
    """
    genl = _WireGuardSocket()
    try:
        await genl.setup_endpoint()
        answers = await genl.nlm_request(message, msg_type=genl.prid, msg_flags=flags)
        return [answer async for answer in answers]
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error
    finally:
        genl.close()
