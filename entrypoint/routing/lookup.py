"""Decide which way a packet goes, by walking the rules as the kernel does; compare reply routes.

The model covers rules by priority and, in their tables, the longest prefix with the lowest metric. Rules
with attributes that it does not know (`Rule.more`) are skipped and reported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from entrypoint.addresses import Address, Family, Network
from entrypoint.errors import PlatformError
from entrypoint.linux.kernel_objects import Flow, Route, Rule, Snapshot
from entrypoint.linux.world import Netlink


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


# Documentation addresses: routed like any other, and never anyone's.
FAR_AWAY: Final[dict[Family, Address]] = {4: IPv4Address("192.0.2.1"), 6: IPv6Address("2001:db8::1")}
"""Addresses somewhere on the internet, for route lookups; nothing is sent to them."""


async def reply_routes(netlink: Netlink, addresses: Iterable[Address]) -> dict[Address, str | None]:
    """Return the interface that a reply from each address would leave by, or None. Raises OSError."""
    # The kernel's own answer (RTM_GETROUTE), not a model of its rules.
    return {one: await netlink.route_device(Flow(FAR_AWAY[one.version], one)) for one in addresses}


async def require_unchanged_replies(netlink: Netlink, before: Mapping[Address, str | None]) -> None:
    """Raise PlatformError if a reply from any of the addresses would no longer leave as before."""
    after = await reply_routes(netlink, before)
    if changed := [one for one in before if after[one] != before[one]]:
        wrong = ", ".join(f"{one} by {after[one]} instead of {before[one]}" for one in changed)
        raise PlatformError(
            f"replies would leave by another interface ({wrong}); "
            "all changes were rolled back to keep this host reachable",
            "see `ip rule` for rules of other programs; ROUTE_MODE=proxy changes less",
        )
