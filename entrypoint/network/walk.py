"""Which way a packet goes: the kernel's rules walked as the kernel walks them. Pure.

Only what decides here is modelled: rules by priority, and in the table named the longest prefix with
the lowest metric. Rules with words that ours never have (`Rule.more`) are passed over and said so.
"""

from dataclasses import dataclass
from typing import Literal

from entrypoint.network.plan import Address, Network, Route, Rule, Snapshot


@dataclass(frozen=True, slots=True)
class Flow:
    """A packet that starts here; `source` None: nothing chosen yet, as for a socket bound to nothing."""

    destination: Address
    source: Address | None = None
    mark: int = 0
    device: str | None = None
    uid: int = 0
    transport: Literal["tcp", "udp"] = "tcp"
    source_port: int = 0
    destination_port: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """What decided: the rule, and the route it found, if it has a table. `skipped`: not understood."""

    rule: Rule
    route: Route | None
    skipped: tuple[Rule, ...] = ()

    @property
    def device(self) -> str | None:
        """Where it leaves, None when it is refused."""
        return self.route.device if self.route else None


def walk(snapshot: Snapshot, flow: Flow) -> Way | None:
    """Return the first rule that decides; None when there is no route at all."""
    skipped = []
    for rule in sorted(snapshot.rules, key=lambda one: one.priority):
        if rule.family != flow.destination.version or not matches(rule, flow):
            continue
        if rule.more:
            skipped.append(rule)
            continue
        if rule.table is None:
            return Way(rule, None, tuple(skipped))
        if route := best(snapshot, rule.table, flow):
            return Way(rule, route, tuple(skipped))
    return None


def matches(rule: Rule, flow: Flow) -> bool:
    """Return whether the rule's selector takes this flow; an unchosen source matches no source."""
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


def best(snapshot: Snapshot, table: int, flow: Flow) -> Route | None:
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
