"""What rtnetlink is asked for, in pyroute2's words: the fields of each item's request."""

import errno
import os
import socket

from entrypoint.network.plan import LinkAddress, Route, Rule
from entrypoint.network.walk import Flow


def index_of(name: str) -> int:
    """Return the device's index. Raises OSError (ENODEV)."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None


def family_of(version: int) -> int:
    """Return the address family of an IP version."""
    return socket.AF_INET if version == 4 else socket.AF_INET6


def address_fields(item: LinkAddress) -> dict[str, object]:
    """Return what names this address."""
    return {
        "index": index_of(item.device),
        "family": family_of(item.address.version),
        "address": str(item.address.ip),
        "prefixlen": item.address.network.prefixlen,
    }


def route_fields(item: Route) -> dict[str, object]:
    """Return what names this route."""
    # Without the family pyroute2 asks for what the kernel answers with EOPNOTSUPP.
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


def flow_fields(flow: Flow) -> dict[str, object]:
    """Return what asks for this packet's way (RTM_GETROUTE)."""
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


def rule_fields(item: Rule) -> dict[str, object]:
    """Return what names this rule."""
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
    return fields
