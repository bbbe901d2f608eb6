"""Decide which way a packet goes, by walking the rules as the kernel does; compare reply routes.

The model covers rules by priority and, in their tables, the longest prefix with the lowest metric. Rules
with attributes that it does not know (`Rule.more`) are skipped and reported.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from entrypoint.addresses import Address, Network
from entrypoint.errors import PlatformError
from entrypoint.linux.kernel_objects import PROTOCOL_KERNEL, Flow, Route, Rule, Snapshot, Visit
from entrypoint.linux.visits import FAR_AWAY
from entrypoint.linux.world import Netlink, Nft, World
from entrypoint.routing.uplinks import Uplinks


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """The rule that decided, and the route it found, if any; `skipped` rules were not understood."""

    rule: Rule
    route: Route | None
    skipped: tuple[Rule, ...] = ()

    @property
    def device(self) -> str | None:
        """The interface that the packet leaves by, None if it is rejected."""
        return self.route.device if self.route else None


def decide_route(snapshot: Snapshot, flow: Flow) -> RouteDecision | None:
    """Return the first rule that decides; None without any route."""
    skipped = []
    for rule in sorted(snapshot.rules, key=lambda one: one.priority):
        if rule.family != flow.destination.version or not matches(rule, flow):
            continue
        # A rule with an unknown attribute may or may not match; the kernel's own answer shows.
        if rule.more:
            skipped.append(rule)
            continue
        if rule.table is None:
            return RouteDecision(rule, None, tuple(skipped))
        route = best_route(snapshot, rule.table, flow)
        if route and (rule.suppress is None or route.destination.prefixlen > rule.suppress):
            return RouteDecision(rule, route, tuple(skipped))
    return None


def matches(rule: Rule, flow: Flow) -> bool:
    """Return whether the rule's selector matches this flow; a flow without a source matches no source."""
    return (
        _inside(flow.source, rule.source)
        and _inside(flow.destination, rule.destination)
        and (rule.mark is None or flow.mark & rule.mark.mask == rule.mark.value)
        and rule.iif in (None, "lo")
        and rule.oif in (None, flow.device)
        and rule.uid in (None, flow.uid)
        and rule.ip_protocol in (None, flow.transport)
        and _between(flow.source_port, rule.source_ports)
        and _between(flow.destination_port, rule.destination_ports)
    )


# As the kernel chooses: the longest prefix, then the lowest metric.
def best_route(snapshot: Snapshot, table: int, flow: Flow) -> Route | None:
    """Return the table's route for this flow: longest prefix, then lowest metric, on a device that is up."""
    up = {link.name for link in snapshot.links if link.up}
    fitting = [
        route
        for route in snapshot.routes
        if route.table == table
        and route.destination.version == flow.destination.version
        and flow.destination in route.destination
        and (route.device is None or route.device in up)
        and (flow.device is None or route.device in (None, flow.device) or "local" in route.more)
    ]
    return min(fitting, key=lambda route: (-route.destination.prefixlen, route.metric), default=None)


def _inside(address: Address | None, network: Network | None) -> bool:
    return network is None or network.prefixlen == 0 or (address is not None and address in network)


def _between(port: int, span: tuple[int, int] | None) -> bool:
    return span is None or span[0] <= port <= span[1]


MOST_VISITS = 256
REFUSING = 1
"""A port with hardly ever a server (tcpmux): a refusal is an answer, too."""
MOST_NAMED = 3

log = logging.getLogger("ss-warp")


@dataclass(frozen=True, slots=True)
class Replies:
    """By which interface replies leave: as the kernel looks up routes, and as packets were seen to."""

    routes: dict[Address, str | None]
    packets: dict[Visit, str]


async def watch_replies(world: World, snapshot: Snapshot, uplinks: Uplinks) -> Replies:
    """Return by which interface replies from this host's addresses leave. Raises OSError."""
    routes = await _routes(world.netlink, uplinks.addresses)
    devices = {
        state.address.ip: state.device
        for state in snapshot.addresses
        if not (state.link_scope or state.address.is_loopback)
    }
    addresses = tuple(dict.fromkeys((*uplinks.addresses, *devices)))
    packets = await _packets(world.nft, visits(snapshot, addresses, world.netlink.listening_ports()), {})
    # No request from far away is for a bridge's address, and no reply has the mark of another interface:
    # what leads elsewhere than where requests come in is not what a reply would do.
    sure = {*uplinks.addresses}
    kept = {
        one: to
        for one, to in packets.items()
        if to == devices.get(one.address) or (one.address in sure and not one.mark)
    }
    return Replies(routes, kept)


def visits(snapshot: Snapshot, addresses: Sequence[Address], listening: Collection[int]) -> tuple[Visit, ...]:
    """Return what to ask each address: a port that refuses, with others' marks, and ports that answer."""
    marks = {rule.mark.value for rule in snapshot.rules if rule.mark and rule.protocol != PROTOCOL_KERNEL}
    every = [Visit(one, REFUSING, mark) for mark in sorted({0, *marks}) for one in addresses]
    every += [Visit(one, port) for port in sorted(listening) for one in addresses]
    return tuple(dict.fromkeys(every))[:MOST_VISITS]


async def require_unchanged_replies(world: World, before: Replies) -> None:
    """Raise PlatformError if a reply from any of the addresses would no longer leave as before."""
    routes = await _routes(world.netlink, before.routes)
    wrong = [
        f"{one} by {routes[one]} instead of {device}"
        for one, device in before.routes.items()
        if routes[one] != device
    ]
    if before.packets and not wrong:
        packets = await _packets(world.nft, tuple(before.packets), before.packets)
        wrong = [
            f"{one} {f'by {packets[one]} instead of' if one in packets else 'no longer by'} {device}"
            for one, device in before.packets.items()
            if packets.get(one) != device
        ]
    if wrong:
        raise PlatformError(
            f"replies would not leave as before ({', '.join(wrong[:MOST_NAMED])}); "
            "all changes were rolled back to keep this host reachable",
            "see `ip rule` and `nft list ruleset` for other programs' rules; ROUTE_MODE=proxy changes less",
        )


async def _routes(netlink: Netlink, addresses: Iterable[Address]) -> dict[Address, str | None]:
    # The kernel's own answer (RTM_GETROUTE), not a model of its rules.
    return {one: await netlink.route_device(Flow(FAR_AWAY[one.version], one)) for one in addresses}


async def _packets(nft: Nft, asked: Sequence[Visit], expected: Mapping[Visit, str]) -> Mapping[Visit, str]:
    try:
        return await nft.visit(asked, expected)
    except OSError as error:
        log.warning("cannot test replies with packets: %s; their routes alone are compared", error)
        return expected
