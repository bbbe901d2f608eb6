"""The numbers and names that we take in the kernel: what carries them is ours, and nothing else is."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Interface, ip_network
from typing import Final, Literal

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
from entrypoint.linux.kernel_objects import (
    MAIN_TABLE,
    PROTOCOL_KERNEL,
    SSSERVER_UID,
    Item,
    Link,
    LinkAddress,
    LinkUp,
    Route,
    Rule,
    Snapshot,
)
from entrypoint.routing.uplinks import Uplinks

TUNNEL_PRIORITY = 32764
"""Just before the kernel's own rules: whatever else is decided comes first."""


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
        """All priorities, in the order in which the kernel asks."""
        return (*range(self.priority - 2, self.priority + 3), TUNNEL_PRIORITY)

    @property
    def links(self) -> frozenset[str]:
        """The names of our devices."""
        return frozenset({self.device, self.null_device})


def encode(taken: Iterable[OurIds]) -> bytes:
    """Return network.json's content: every set of ids that may be in use."""
    return json.dumps([asdict(ids) for ids in taken], indent=1).encode() + b"\n"


def decode(data: bytes | None) -> tuple[OurIds, ...]:
    """Read what `encode` wrote; no file is no ids. Raises StateError."""
    try:
        entries = json.loads(data or b"[]")
        if not isinstance(entries, list):
            raise TypeError("not a list")
        return tuple(map(_read, entries))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(
            "network.json is corrupt: which rules and routes are ours is unknown",
            "remove what is left of ss-warp's rules, then the file",
        ) from error


def _read(entry: dict[str, object]) -> OurIds:
    whole = {name: entry[name] for name in ("priority", "table")}
    names = {name: entry[name] for name in ("device", "null_device")}
    mark = entry["mark"]
    if not isinstance(mark, dict):
        raise TypeError("mark")
    for value in (*whole.values(), mark["value"], mark["mask"]):
        if type(value) is not int or not 0 < value < 1 << 32:
            raise ValueError("not a number")
    for value in names.values():
        if not isinstance(value, str) or not 0 < len(value) < 16:
            raise ValueError("not a name")
    return OurIds(**whole, **names, mark=Mark(mark["value"], mark["mask"]))  # type: ignore[arg-type]


def ours_in(snapshot: Snapshot, ids: OurIds) -> Iterator[Item]:
    """Yield everything in the kernel that carries our ids; of the device itself only that it is up.

    Routes and rules with a word that ours never have are somebody else's, also under our ids.
    """
    for link in snapshot.links:
        if link.name in ids.links and link.up:
            yield LinkUp(link.name, link.mtu)
        if link.name == ids.null_device and link.kind == "tun":
            yield Link(link.name, "tun")
    for state in snapshot.addresses:
        # Link-local addresses come and go with the device, by the kernel's own hand.
        if state.device == ids.device and not state.link_scope:
            yield LinkAddress(state.device, state.address)
    yield from (route for route in snapshot.routes if route.table == ids.table and not route.more)
    yield from (
        rule
        for rule in snapshot.rules
        if (rule.priority in ids.priorities and rule.protocol == PROTOCOL_KERNEL)
        and not (rule.more or rule.uid not in {None, SSSERVER_UID})
    )


def add_order(item: Item, ids: OurIds) -> tuple[int, int]:
    """Return the item's place in the order of adding; removing is the exact reverse.

    The floor is there before anything is sent to the table, and answers keep their way before the
    tunnel rule takes the rest: the other way round an open session froze for 1.8 s.
    """
    match item:
        case Link():
            return 0, 0
        case LinkUp(name) if name != ids.device:
            return 1, 0
        case Route(device=device) if device != ids.device:
            return 2, 0
        case Rule(priority=priority) if priority != TUNNEL_PRIORITY:
            return 3, priority
        case LinkUp():
            return 4, 0
        case LinkAddress():
            return 5, 0
        case Route():
            return 6, 0
        case Rule():
            return 7, 0


type RouteMode = Literal["full", "proxy"]
DUMMY: Final = IPv4Interface("192.0.0.8/32")
"""The dummy address (RFC 7600) of a tunnel without IPv4: a socket bound to a device without any would take
the uplink's, and not hear that it is refused, since that comes back to the address's device."""

FLOOR_METRIC: Final = 4278198272
"""Worse than any metric that somebody sets, so that it is the last route of the table."""

LAST_PORT: Final = 65534
"""The kernel takes no rule for 65535 (fib_rule_port_range_valid, include/net/fib_rules.h)."""


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """What is wanted, in the order of adding; removing is the exact reverse. Prints as `ip` commands."""

    ids: OurIds
    items: tuple[Item, ...]

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
) -> NetworkPlan:
    """Return the plan; `addresses` are the tunnel's. The device itself is made and deleted by Device.

    A family without an address of the tunnel stops at the floor in mode full; the `direct` one stays as it
    was before us.
    """
    own = [address for address in addresses if address.version in uplinks.families]
    items: list[Item] = [
        Link(ids.null_device, "tun"),
        LinkUp(ids.null_device),
        LinkUp(ids.device, mtu),
        *(LinkAddress(ids.device, address) for address in own),
    ]
    if direct != 4 and all(address.version == 6 for address in own):
        items.append(LinkAddress(ids.device, DUMMY))
    for family in uplinks.families:
        if family == direct:
            continue
        # An IPv6 error route is no floor: the kernel looks up again with a source, and a rule matches.
        floor = None if family == 4 else ids.null_device
        items.append(Route(DEFAULT_NETWORK[family], ids.table, floor, FLOOR_METRIC))
        if any(address.version == family for address in own):
            items.append(Route(DEFAULT_NETWORK[family], ids.table, ids.device))
        if mode == "full":
            items += _full_rules(ids, family, uplinks, input_ports, outbound_subnets)
        else:
            items += _proxy_rules(ids, family, own)
            # ssserver is not bound to the device then: its user leads into it, but for its answers.
            if direct:
                items += _reply_rules(ids, family, uplinks)
                items.append(Rule(family, ids.priority + 2, ids.table, uid=SSSERVER_UID))
    return NetworkPlan(ids, tuple(sorted(dict.fromkeys(items), key=lambda item: add_order(item, ids))))


def _full_rules(
    ids: OurIds,
    family: Family,
    uplinks: Uplinks,
    input_ports: Sequence[Ports],
    outbound_subnets: Sequence[Network],
) -> Iterator[Rule]:
    """Yield one family's rules, each row with its reason."""
    marked, lost, _, neighbours, servers, _ = ids.priorities
    # WireGuard's own packets and our own sockets outside the tunnel …
    yield Rule(family, marked, MAIN_TABLE, mark=ids.mark)
    # … which would run in circles through the device once `main` has no default.
    yield Rule(family, lost, None, mark=ids.mark)
    yield from _reply_rules(ids, family, uplinks)
    # Private networks by any route of `main` but its default: containers and pods come and go without
    # a rule each. Never so for public destinations: a more specific route pushed by DHCP would leak.
    for network in PRIVATE:
        if network.version == family:
            yield Rule(family, neighbours, MAIN_TABLE, destination=network, suppress=0)
    for network in (*uplinks.direct, LINK_LOCAL, *outbound_subnets):
        if network.version == family:
            yield Rule(family, neighbours, MAIN_TABLE, destination=network)
    # A UDP server on a wildcard address answers without a source.
    for ports in input_ports:
        if ports.transport == "udp" and ports.first <= LAST_PORT:
            span = (ports.first, min(ports.last, LAST_PORT))
            yield Rule(family, servers, MAIN_TABLE, ip_protocol="udp", source_ports=span)
    # The rest of what starts here; forwarded packets keep their way.
    yield Rule(family, TUNNEL_PRIORITY, ids.table, iif="lo")


def _reply_rules(ids: OurIds, family: Family, uplinks: Uplinks) -> Iterator[Rule]:
    # An answer already has its source, so it leaves where the question came in; a server with several
    # interfaces may have said so itself, by a rule that comes after ours.
    for address in uplinks.addresses:
        if address.version == family:
            theirs = (table for network, table in uplinks.sources if address in network)
            yield Rule(family, ids.priority, next(theirs, MAIN_TABLE), source=ip_network(address))


def _proxy_rules(ids: OurIds, family: Family, own: Sequence[Interface]) -> Iterator[Rule]:
    """Yield one family's rules: only what is bound to the device, or has its address, is sent into it."""
    yield Rule(family, ids.priority, ids.table, oif=ids.device)
    for address in own:
        if address.version == family:
            yield Rule(family, ids.priority + 1, ids.table, source=ip_network(address.ip))
