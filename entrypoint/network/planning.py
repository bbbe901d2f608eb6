"""Which links, addresses, routes and rules are wanted: pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Network, ip_network
from typing import Final, Literal

from entrypoint.network.numbers import TUNNEL_PRIORITY, Numbers, stage
from entrypoint.network.plan import (
    MAIN_TABLE,
    Family,
    Interface,
    Item,
    Link,
    LinkAddress,
    LinkUp,
    Network,
    Ports,
    Route,
    Rule,
)
from entrypoint.network.policies import SSSERVER
from entrypoint.network.uplinks import Uplinks

type RouteMode = Literal["full", "proxy"]

DEFAULT: Final[dict[Family, Network]] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
LINK_LOCAL: Final = IPv6Network("fe80::/10")
DUMMY: Final = IPv4Interface("192.0.0.8/32")
"""The dummy address (RFC 7600) of a tunnel without IPv4: a socket bound to a device without any would take
the uplink's, and not hear that it is refused, since that comes back to the address's device."""

FLOOR_METRIC: Final = 4278198272
"""Worse than any metric that somebody sets, so that it is the last route of the table."""

DHCP: Final[dict[Family, tuple[int, int]]] = {4: (68, 67), 6: (546, 547)}
"""Client's and server's port: a lease is renewed by the uplink."""

LAST_PORT: Final = 65534
"""The kernel takes no rule for 65535 (fib_rule_port_range_valid, include/net/fib_rules.h)."""


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """What is wanted, in the order of adding; removing is the exact reverse. Prints as `ip` commands."""

    numbers: Numbers
    items: tuple[Item, ...]

    def __str__(self) -> str:
        return "\n".join(item.add_command() for item in self.items)


def network_plan(
    mode: RouteMode,
    numbers: Numbers,
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
        Link(numbers.null_device, "tun"),
        LinkUp(numbers.null_device),
        LinkUp(numbers.device, mtu),
        *(LinkAddress(numbers.device, address) for address in own),
    ]
    if direct != 4 and all(address.version == 6 for address in own):
        items.append(LinkAddress(numbers.device, DUMMY))
    for family in uplinks.families:
        if family == direct:
            continue
        # An IPv6 error route is no floor: the kernel looks up again with a source, and a rule matches.
        floor = None if family == 4 else numbers.null_device
        items.append(Route(DEFAULT[family], numbers.table, floor, FLOOR_METRIC))
        if any(address.version == family for address in own):
            items.append(Route(DEFAULT[family], numbers.table, numbers.device))
        if mode == "full":
            items += _full(numbers, family, uplinks, input_ports, outbound_subnets)
        else:
            items += _proxy(numbers, family, own)
            # ssserver is not bound to the device then: its user leads into it, but for its answers.
            if direct:
                items += _answers(numbers, family, uplinks)
                items.append(Rule(family, numbers.priority + 2, numbers.table, uid=SSSERVER))
    return NetworkPlan(numbers, tuple(sorted(dict.fromkeys(items), key=lambda item: stage(item, numbers))))


def _full(
    numbers: Numbers,
    family: Family,
    uplinks: Uplinks,
    input_ports: Sequence[Ports],
    outbound_subnets: Sequence[Network],
) -> Iterator[Rule]:
    """Yield one family's rules, each row with its reason."""
    marked, lost, _, neighbours, servers, _ = numbers.priorities
    # WireGuard's own packets and our own sockets outside the tunnel …
    yield Rule(family, marked, MAIN_TABLE, mark=numbers.mark)
    # … which would run in circles through the device once `main` has no default.
    yield Rule(family, lost, None, mark=numbers.mark)
    yield from _answers(numbers, family, uplinks)
    # Neighbours, named one by one: a more specific route pushed by DHCP must not count.
    for network in (*map(ip_network, uplinks.gateways), *uplinks.private, LINK_LOCAL, *outbound_subnets):
        if network.version == family:
            yield Rule(family, neighbours, MAIN_TABLE, destination=network)
    # A UDP server on a wildcard address answers without a source.
    for ports in input_ports:
        if ports.transport == "udp" and ports.first <= LAST_PORT:
            span = (ports.first, min(ports.last, LAST_PORT))
            yield Rule(family, servers, MAIN_TABLE, ip_protocol="udp", source_ports=span)
    client, server = DHCP[family]
    yield Rule(
        family,
        servers,
        MAIN_TABLE,
        ip_protocol="udp",
        source_ports=(client, client),
        destination_ports=(server, server),
    )
    # The rest of what starts here; forwarded packets keep their way.
    yield Rule(family, TUNNEL_PRIORITY, numbers.table, iif="lo")


def _answers(numbers: Numbers, family: Family, uplinks: Uplinks) -> Iterator[Rule]:
    # An answer already has its source, so it leaves where the question came in; a server with several
    # interfaces may have said so itself, by a rule that comes after ours.
    for address in uplinks.addresses:
        if address.version == family:
            theirs = (table for network, table in uplinks.sources if address in network)
            yield Rule(family, numbers.priority, next(theirs, MAIN_TABLE), source=ip_network(address))


def _proxy(numbers: Numbers, family: Family, own: Sequence[Interface]) -> Iterator[Rule]:
    """Yield one family's rules: only what is bound to the device, or has its address, is sent into it."""
    yield Rule(family, numbers.priority, numbers.table, oif=numbers.device)
    for address in own:
        if address.version == family:
            yield Rule(family, numbers.priority + 1, numbers.table, source=ip_network(address.ip))
