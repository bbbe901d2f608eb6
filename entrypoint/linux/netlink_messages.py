"""Netlink messages to values and back: the pure half of netlink.py.

Attribute names are from linux/rtnetlink.h, if_addr.h and fib_rules.h.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from socket import AF_INET, AF_INET6
from typing import Any, Literal

from entrypoint.addresses import Address, Family, Mark, Network
from entrypoint.linux import kernel_objects as kernel
from entrypoint.linux.raw_netlink import attributes

FAMILIES: dict[int, Family] = {AF_INET: 4, AF_INET6: 6}
IFF_UP = 0x1
IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x01, 0x08, 0x20, 0x40
RT_SCOPE_LINK = 253
NDA_DST = 1
NHA_ID, NHA_GROUP, NHA_OIF, NHA_GATEWAY = 1, 2, 5, 6
RTPROT_KERNEL = 2
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
ROUTE_KINDS = {2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 8: "prohibit"}
DEFAULT: dict[Family, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
DEFAULT_METRIC = {4: 0, 6: 1024}
FR_ACT_TO_TBL, FR_ACT_UNREACHABLE = 1, 7
FIB_RULE_INVERT = 2
UNSET = 0xFFFFFFFF
TRANSPORTS: dict[int, Literal["tcp", "udp"]] = {6: "tcp", 17: "udp"}

type Message = Any
"""A pyroute2 message: header fields by `[]`, attributes by `get_attr`."""


type NextHops = tuple[tuple[int, Address | None], ...]
"""Index of the device and gateway of each way."""


def next_hops(bodies: Sequence[bytes]) -> dict[int, NextHops]:
    """Return what nexthop objects (struct nhmsg, linux/nexthop.h) stand for, by id."""
    known = [dict(attributes(body[8:])) for body in bodies]
    single: dict[int, NextHops] = {}
    for one in known:
        if NHA_OIF in one:
            gateway = ip_address(one[NHA_GATEWAY]) if NHA_GATEWAY in one else None
            single[_number(one[NHA_ID])] = ((_number(one[NHA_OIF]), gateway),)
    groups = {
        _number(one[NHA_ID]): tuple(
            way
            for member in range(0, len(one[NHA_GROUP]), 8)
            for way in single.get(_number(one[NHA_GROUP][member : member + 4]), ())
        )
        for one in known
        if NHA_GROUP in one
    }
    return single | groups


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


TUNNEL_PROTOCOLS = {"vxlan": 17, "geneve": 17, "gre": 47, "gretap": 47, "ip6gre": 47, "ipip": 4, "sit": 41}
"""IP protocol of a tunnel's outer packets (linux/in.h)."""
DEFAULT_PORTS = {"vxlan": 8472, "geneve": 6081}


def tunnel_peers(kind: str, data: Message, learned: Iterable[str] = ()) -> Iterator[kernel.TunnelPeer]:
    """Yield a tunnel's far ends: as configured, and as a VXLAN's forwarding table has them."""
    fields = dict(data["attrs"]) if data else {}
    port = next((value for name, value in fields.items() if name.endswith("_PORT")), None)
    ends = [
        value for name, value in fields.items() if name.endswith(("_REMOTE", "_REMOTE6", "_GROUP", "_GROUP6"))
    ]
    for end in dict.fromkeys((*ends, *learned)):
        address = ip_address(end)
        if not (address.is_unspecified or address.is_multicast):
            yield kernel.TunnelPeer(
                address, TUNNEL_PROTOCOLS[kind], (port or DEFAULT_PORTS[kind]) if kind in DEFAULT_PORTS else 0
            )


def learned_ends(bodies: Sequence[bytes]) -> dict[int, list[str]]:
    """Return the far ends in forwarding tables (struct ndmsg, linux/neighbour.h), by interface."""
    ends: dict[int, list[str]] = {}
    for body in bodies:
        if end := dict(attributes(body[12:])).get(NDA_DST):
            ends.setdefault(struct.unpack_from("=i", body, 4)[0], []).append(str(ip_address(end)))
    return ends


def link_state(message: Message, learned: Mapping[int, list[str]] | None = None) -> kernel.LinkState:
    """Return the link in an RTM_NEWLINK message."""
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    peers: Iterator[kernel.TunnelPeer] = iter(())
    if kind in TUNNEL_PROTOCOLS:
        peers = tunnel_peers(kind, info.get_attr("IFLA_INFO_DATA"), (learned or {}).get(message["index"], ()))
    return kernel.LinkState(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        up=bool(message["flags"] & IFF_UP),
        mtu=message.get_attr("IFLA_MTU"),
        peers=tuple(peers),
    )


def address_state(message: Message, names: Mapping[int, str]) -> kernel.AddressState:
    """Return the address in an RTM_NEWADDR message."""
    flags = message.get_attr("IFA_FLAGS", message["flags"])
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    interface = ip_interface(f"{address}/{message['prefixlen']}")
    return kernel.AddressState(
        device=names.get(message["index"], ""),
        address=interface,
        link_scope=message["scope"] == RT_SCOPE_LINK,
        usable=not flags & (IFA_F_TENTATIVE | IFA_F_DEPRECATED | IFA_F_DADFAILED),
        # For IPv4 the same bit means "secondary".
        permanent=interface.version == 4 or not flags & IFA_F_TEMPORARY,
    )


def routes_of(
    message: Message, names: Mapping[int, str], hops_by_id: Mapping[int, NextHops] | None = None
) -> Iterator[kernel.Route]:
    """Yield the routes in an RTM_NEWROUTE message, one for each next hop."""
    family = FAMILIES.get(message["family"])
    if family is None:
        return
    destination = _network(family, message.get_attr("RTA_DST"), message["dst_len"])
    table = message.get_attr("RTA_TABLE", message["table"])
    metric = message.get_attr("RTA_PRIORITY", 0)
    # IPv6 lists its default metric as a number, IPv4 not at all; a plan writes neither.
    metric = 0 if metric == DEFAULT_METRIC[family] else metric
    kind = message["type"]
    more = [] if kind in {RTN_UNICAST, RTN_UNREACHABLE} else [f"type {ROUTE_KINDS.get(kind, kind)}"]
    if message["tos"]:
        more.append(f"tos {message['tos']}")
    # A multipath route counts as one route for each hop: each of them is a way out.
    ways: NextHops = tuple((hop["oif"], _gateway(hop)) for hop in message.get_attr("RTA_MULTIPATH") or ())
    if not ways and not message.get_attr("RTA_OIF"):
        ways = (hops_by_id or {}).get(message.get_attr("RTA_NH_ID") or 0, ())
    connected = message["proto"] == RTPROT_KERNEL and kind == RTN_UNICAST
    for index, gateway in ways or ((message.get_attr("RTA_OIF"), _gateway(message)),):
        device = None if kind == RTN_UNREACHABLE else names.get(index, "")
        yield kernel.Route(destination, table, device, metric, gateway, " ".join(more), connected)


def _gateway(hop: Message) -> Address | None:
    via = hop.get_attr("RTA_VIA")  # an IPv4 route through an IPv6 neighbour
    gateway = hop.get_attr("RTA_GATEWAY") or (via["addr"] if via else None)
    return ip_address(gateway) if gateway else None


def rule_of(message: Message) -> kernel.Rule:
    """Return the rule in an RTM_NEWRULE message."""
    family = FAMILIES[message["family"]]
    value, mask = message.get_attr("FRA_FWMARK", 0), message.get_attr("FRA_FWMASK", 0)
    action = message["action"]
    source, destination = message.get_attr("FRA_SRC"), message.get_attr("FRA_DST")
    return kernel.Rule(
        family=family,
        priority=message.get_attr("FRA_PRIORITY", 0),
        table=message.get_attr("FRA_TABLE", message["table"]) if action != FR_ACT_UNREACHABLE else None,
        source=_network(family, source, message["src_len"]) if source else None,
        destination=_network(family, destination, message["dst_len"]) if destination else None,
        mark=Mark(value, mask) if mask else None,
        iif=message.get_attr("FRA_IIFNAME"),
        oif=message.get_attr("FRA_OIFNAME"),
        uid=_uid(message.get_attr("FRA_UID_RANGE")),
        ip_protocol=TRANSPORTS.get(message.get_attr("FRA_IP_PROTO", 0)),
        source_ports=_ports(message.get_attr("FRA_SPORT_RANGE")),
        destination_ports=_ports(message.get_attr("FRA_DPORT_RANGE")),
        suppress=_set_or_none(message.get_attr("FRA_SUPPRESS_PREFIXLEN")),
        protocol=message.get_attr("FRA_PROTOCOL", 0),
        more=" ".join(_more(message)),
    )


def _more(message: Message) -> Iterator[str]:
    """Yield the parts that our own rules never have."""
    if message["flags"] & FIB_RULE_INVERT:
        yield "not"
    if message["tos"]:
        yield f"tos {message['tos']}"
    if message["action"] not in {FR_ACT_TO_TBL, FR_ACT_UNREACHABLE}:
        yield f"action {message['action']}"
    users = message.get_attr("FRA_UID_RANGE")
    if users and _uid(users) is None:
        yield f"uidrange {users}"
    protocol = message.get_attr("FRA_IP_PROTO", 0)
    if protocol and protocol not in TRANSPORTS:
        yield f"ipproto {protocol}"
    for name, word in (
        ("FRA_SUPPRESS_IFGROUP", "suppress_ifgroup"),
        ("FRA_L3MDEV", "l3mdev"),
        ("FRA_GOTO", "goto"),
        ("FRA_FLOW", "realms"),
        ("FRA_TUN_ID", "tun_id"),
    ):
        if value := _set_or_none(message.get_attr(name)):
            yield f"{word} {value}"


def _set_or_none(value: int | None) -> int | None:
    return None if value == UNSET else value


def _uid(text: str | None) -> int | None:
    """Return the user of a range that holds one."""
    first, _, last = (text or "").partition(":")
    return int(first) if first and first == last else None


def _ports(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition(":")
    return int(first), int(last)


def _network(family: Family, address: str | None, length: int) -> Network:
    return ip_network(f"{address}/{length}") if address else DEFAULT[family]


def index_of(name: str) -> int:
    """Return the device's index. Raises OSError (ENODEV)."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None


def family_of(version: int) -> int:
    """Return the address family of an IP version."""
    return socket.AF_INET if version == 4 else socket.AF_INET6


def address_fields(item: kernel.LinkAddress) -> dict[str, object]:
    """Return the fields that identify an address."""
    return {
        "index": index_of(item.device),
        "family": family_of(item.address.version),
        "address": str(item.address.ip),
        "prefixlen": item.address.network.prefixlen,
    }


def route_fields(item: kernel.Route) -> dict[str, object]:
    """Return the fields that identify a route."""
    # Without the family pyroute2 sends a request that the kernel answers with EOPNOTSUPP.
    fields: dict[str, object] = {
        "family": family_of(item.destination.version),
        "dst": str(item.destination),
        "table": item.table,
        "priority": item.metric,
        "type": "unicast" if item.device else "unreachable",
    }
    if item.device:
        fields["oif"] = index_of(item.device)
    if item.gateway:
        fields["gateway"] = str(item.gateway)
    return fields


def flow_fields(flow: kernel.Flow) -> dict[str, object]:
    """Return the fields of a route lookup for this packet (RTM_GETROUTE)."""
    length = flow.destination.max_prefixlen
    fields: dict[str, object] = {
        "family": family_of(flow.destination.version),
        "dst": str(flow.destination),
        "dst_len": length,
    }
    if flow.source:
        fields |= {"src": str(flow.source), "src_len": length}
    if flow.mark:
        fields["mark"] = flow.mark
    if flow.uid:
        fields["uid"] = flow.uid
    if flow.source_port:
        fields |= {"ip_proto": socket.getprotobyname(flow.transport), "sport": flow.source_port}
    if flow.device:
        fields["oif"] = index_of(flow.device)
    return fields


def rule_fields(item: kernel.Rule) -> dict[str, object]:
    """Return the fields that identify a rule."""
    fields: dict[str, object] = {
        "family": family_of(item.family),
        "priority": item.priority,
        "protocol": item.protocol,
        "action": "to_tbl" if item.table else "unreachable",
    }
    if item.table:
        fields["table"] = item.table
    for word, network in (("src", item.source), ("dst", item.destination)):
        if network:
            fields |= {word: str(network.network_address), f"{word}_len": network.prefixlen}
    if item.mark:
        fields |= {"fwmark": item.mark.value, "fwmask": item.mark.mask}
    if item.iif:
        fields["iifname"] = item.iif
    if item.oif:
        fields["oifname"] = item.oif
    if item.uid is not None:
        fields["uid_range"] = f"{item.uid}:{item.uid}"
    if item.ip_protocol:
        fields["ip_proto"] = socket.getprotobyname(item.ip_protocol)
    for word, span in (("sport_range", item.source_ports), ("dport_range", item.destination_ports)):
        if span:
            fields[word] = f"{span[0]}:{span[1]}"
    if item.suppress is not None:
        fields["suppress_prefixlen"] = item.suppress
    return fields
