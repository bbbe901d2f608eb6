"""The ids that mark what is ours in the kernel, and the network as it should be. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Interface, ip_network
from typing import Literal

from entrypoint.addresses import (
    DEFAULT_NETWORK,
    LINK_LOCAL,
    MARK,
    PRIVATE,
    Family,
    Interface,
    Mark,
    Network,
    Ports,
)
from entrypoint.errors import StateError
from entrypoint.linux import kernel_objects as kernel
from entrypoint.linux.state_dir import NETWORK_FILE
from entrypoint.routing.uplinks import Uplinks
from entrypoint.strict_json import InvalidError, JsonValue, parse_json

TUNNEL_PRIORITY = 32764
"""Just before the kernel's own rules, so that every other rule comes first."""


@dataclass(frozen=True, slots=True)
class OurIds:
    """Rule priorities, table, mark, devices. `priority` is the `from` row's (ROUTE_RULE_PRIORITY)."""

    priority: int = 18
    table: int = 51820
    mark: Mark = MARK
    device: str = "wg0"
    null_device: str = "ssw-null"

    @property
    def priorities(self) -> tuple[int, ...]:
        """All priorities, in the order in which the kernel tries them."""
        return (*range(self.priority - 2, self.priority + 3), TUNNEL_PRIORITY)

    @property
    def links(self) -> frozenset[str]:
        """The names of our devices."""
        return frozenset({self.device, self.null_device})


def encode(taken: Iterable[OurIds]) -> bytes:
    """Return the content of network.json: every set of ids that may be in use."""
    return json.dumps([asdict(ids) for ids in taken], indent=1).encode() + b"\n"


def decode(data: bytes | None) -> tuple[OurIds, ...]:
    """Read what `encode` wrote; None means no ids. Raises StateError."""
    try:
        return tuple(map(_read, parse_json(data or b"[]").entries()))
    except InvalidError as error:
        raise StateError(
            f"{NETWORK_FILE} is corrupt ({error}): cannot tell which rules and routes belong to ss-warp",
            "remove its leftover rules, then the file",
        ) from error


def _read(entry: JsonValue) -> OurIds:
    def number(of: JsonValue) -> int:
        return of.number(1, 0xFFFFFFFF)

    def name(of: JsonValue) -> str:
        return of.text(most=15)  # IFNAMSIZ

    # Read as strictly as an API's answer: what this file names is deleted without another question.
    mark = entry.member("mark")
    return OurIds(
        priority=number(entry.member("priority")),
        table=number(entry.member("table")),
        device=name(entry.member("device")),
        null_device=name(entry.member("null_device")),
        mark=Mark(number(mark.member("value")), number(mark.member("mask"))),
    )


def ours_in(snapshot: kernel.Snapshot, ids: OurIds) -> Iterator[kernel.Item]:
    """Yield everything in the kernel that carries our ids; of the device itself only that it is up.

    Routes and rules with attributes that ours never have belong to other programs, even under our ids.
    """
    # Only what carries our names: another program's devices are never listed.
    for link in snapshot.links:
        if link.name in ids.links and link.up:
            yield kernel.LinkUp(link.name, link.mtu)
        if link.name == ids.null_device:
            match link.kind:
                case "tun" | "wireguard" as kind:
                    yield kernel.Link(link.name, kind)
    for state in snapshot.addresses:
        # The kernel adds and removes link-local addresses with the device.
        if state.device == ids.device and not state.link_scope:
            yield kernel.LinkAddress(state.device, state.address)
    yield from (route for route in snapshot.routes if route.table == ids.table and not route.more)
    yield from (
        rule
        for rule in snapshot.rules
        if (rule.priority in ids.priorities and rule.protocol == kernel.PROTOCOL_KERNEL)
        and not (rule.more or rule.uid not in {None, kernel.SSSERVER_UID})
    )


def add_order(item: kernel.Item, ids: OurIds) -> tuple[int, int]:
    """Return the item's place in the order of adding; removal is the exact reverse.

    The floor exists before any packet reaches the table, and the reply rules before the tunnel rule takes
    the rest: in the other order an open session froze for 1.8 s.
    """
    match item:
        # First the null device that carries the IPv6 floor, …
        case kernel.Link():
            return 0, 0
        # … which must be up …
        case kernel.LinkUp(name) if name != ids.device:
            return 1, 0
        # … before the floor's routes can use it.
        case kernel.Route(device=device) if device != ids.device:
            return 2, 0
        # Then every rule that keeps packets out of the tunnel, …
        case kernel.Rule(priority=priority) if priority != TUNNEL_PRIORITY:
            return 3, priority
        # … then the tunnel: up, with its addresses and its route.
        case kernel.LinkUp():
            return 4, 0
        case kernel.LinkAddress():
            return 5, 0
        case kernel.Route():
            return 6, 0
        # Last the rule that sends the rest into it.
        case kernel.Rule():
            return 7, 0


type RouteMode = Literal["full", "proxy"]
DUMMY = IPv4Interface("192.0.0.8/32")
"""Address (RFC 7600) of a tunnel without IPv4. A socket bound to a device without an address would use the
uplink's, and miss the refusal, which comes in by that address's device: it failed after 15 s, now 10 ms."""

FLOOR_METRIC = 4278198272
"""Worse than any metric in use, so that it is the last route of the table."""

LAST_PORT = 65534
"""The kernel accepts no rule for 65535 (fib_rule_port_range_valid, include/net/fib_rules.h)."""


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """Items in the order of adding; removal is the exact reverse. Prints as `ip` commands."""

    ids: OurIds
    items: tuple[kernel.Item, ...]

    def __str__(self) -> str:
        return "\n".join(item.command("add") for item in self.items)


def network_plan(
    mode: RouteMode,
    ids: OurIds,
    uplinks: Uplinks,
    addresses: Sequence[Interface],
    mtu: int,
    *,
    input_ports: Sequence[Ports] = (),
    outbound_subnets: Sequence[Network] = (),
    direct: Family | None = None,
    floor: Literal["tun", "wireguard"] = "tun",
) -> NetworkPlan:
    """Return the plan; `addresses` are the tunnel's. Device creates and deletes the device itself.

    `floor` is the kind of the interface that swallows IPv6. One of WireGuard without a peer needs no
    /dev/net/tun, and always has a carrier: with `ignore_routes_with_linkdown` a TUN's routes do not count.

    In mode full a family without a tunnel address stops at the floor; the `direct` family is left alone.
    """
    own = [address for address in addresses if address.version in uplinks.families]
    items: list[kernel.Item] = [
        kernel.Link(ids.null_device, floor),
        kernel.LinkUp(ids.null_device),
        kernel.LinkUp(ids.device, mtu),
        *(kernel.LinkAddress(ids.device, address) for address in own),
    ]
    if direct != 4 and all(address.version == 6 for address in own):
        items.append(kernel.LinkAddress(ids.device, DUMMY))
    for family in uplinks.families:
        if family == direct:
            continue
        # An IPv6 error route is no floor: the kernel looks up again with a source address, and a `from`
        # rule matches.
        swallows = None if family == 4 else ids.null_device
        items.append(kernel.Route(DEFAULT_NETWORK[family], ids.table, swallows, FLOOR_METRIC))
        # The floor stays below it. Without the device's route nothing falls through to `main`.
        if any(address.version == family for address in own):
            items.append(kernel.Route(DEFAULT_NETWORK[family], ids.table, ids.device))
        if mode == "full":
            items += _full_rules(ids, family, uplinks, input_ports, outbound_subnets)
        else:
            items += _proxy_rules(ids, family, own)
            # ssserver is not bound to the device then: a rule for its user leads into it, after its replies.
            if direct:
                items += _reply_rules(ids, family, uplinks)
                items.append(kernel.Rule(family, ids.priority + 2, ids.table, uid=kernel.SSSERVER_UID))
    return NetworkPlan(ids, tuple(sorted(dict.fromkeys(items), key=lambda item: add_order(item, ids))))


def _full_rules(
    ids: OurIds,
    family: Family,
    uplinks: Uplinks,
    input_ports: Sequence[Ports],
    outbound_subnets: Sequence[Network],
) -> Iterator[kernel.Rule]:
    """Yield one family's rules, each row with its reason."""
    marked, lost, _, neighbours, servers, _ = ids.priorities
    # WireGuard's own packets and our own sockets outside the tunnel …
    yield kernel.Rule(family, marked, kernel.MAIN_TABLE, mark=ids.mark)
    # … which would loop through the device once `main` has no default route.
    yield kernel.Rule(family, lost, None, mark=ids.mark)
    yield from _reply_rules(ids, family, uplinks)
    # Private networks by any route of `main` but its default: containers and pods come and go without
    # a rule each. Never so for public destinations: a more specific route pushed by DHCP would leak.
    for network in PRIVATE:
        if network.version == family:
            yield kernel.Rule(family, neighbours, kernel.MAIN_TABLE, destination=network, suppress=0)
    for network in (*uplinks.direct, LINK_LOCAL, *outbound_subnets):
        if network.version == family:
            yield kernel.Rule(family, neighbours, kernel.MAIN_TABLE, destination=network)
    # A UDP server on a wildcard address replies without a source.
    for ports in input_ports:
        if ports.transport == "udp" and ports.first <= LAST_PORT:
            span = (ports.first, min(ports.last, LAST_PORT))
            yield kernel.Rule(family, servers, kernel.MAIN_TABLE, ip_protocol="udp", source_ports=span)
    # The rest of what starts here; forwarded packets keep their routes.
    yield kernel.Rule(family, TUNNEL_PRIORITY, ids.table, iif="lo")


def _reply_rules(ids: OurIds, family: Family, uplinks: Uplinks) -> Iterator[kernel.Rule]:
    # The rule that saves SSH: a reply already has its source, so it leaves where the request came in. A
    # server with several interfaces may have such rules itself, after ours, so ours use their tables.
    for address in uplinks.addresses:
        if address.version == family:
            theirs = (table for network, table in uplinks.sources if address in network)
            yield kernel.Rule(
                family, ids.priority, next(theirs, kernel.MAIN_TABLE), source=ip_network(address)
            )


def _proxy_rules(ids: OurIds, family: Family, own: Sequence[Interface]) -> Iterator[kernel.Rule]:
    """Yield one family's rules: only what is bound to the device, or has its address, goes into it."""
    # Bound sockets and those with the tunnel's address; everything else keeps the routes it had.
    yield kernel.Rule(family, ids.priority, ids.table, oif=ids.device)
    for address in own:
        if address.version == family:
            yield kernel.Rule(family, ids.priority + 1, ids.table, source=ip_network(address.ip))
