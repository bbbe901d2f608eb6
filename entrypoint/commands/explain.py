"""`ss-warp explain`: which way a packet goes, by which rule, and why."""

from dataclasses import dataclass, replace
from typing import Any

from entrypoint.addresses import Family
from entrypoint.errors import UsageError
from entrypoint.linux.kernel_objects import SSSERVER_UID, Flow, Snapshot
from entrypoint.linux.world import Netlink
from entrypoint.routing.lookup import RouteDecision, decide_route
from entrypoint.routing.plan import TUNNEL_PRIORITY, OurIds

LOCAL_TABLE = 255


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happens to a packet, and why.

    `contradicted` is the kernel's own answer where it differs: "by eth0", "rejected".
    """

    flow: Flow
    way: RouteDecision | None
    what: str
    why: str
    contradicted: str = ""

    def as_text(self) -> str:
        lines = [f"{self._packet()}: {self.what}."]
        if self.way:
            lines.append(f"  decided by: {self.way.rule.command('add').partition(' add ')[2]}")
            route = self.way.route.command("add").partition(" add ")[2] if self.way.route else "none"
            lines.append(f"  route: {route}")
            lines += [f"  ignored, not understood: {rule.command('add')}" for rule in self.way.skipped]
        lines.append(f"  why: {self.why}.")
        if self.contradicted:
            lines.append(
                f"  but the kernel says: {self.contradicted}; a rule of another program is not understood."
            )
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        way = self.way
        return {
            "from": str(self.flow.source) if self.flow.source else None,
            "to": str(self.flow.destination),
            "mark": self.flow.mark,
            "what": self.what,
            "why": self.why,
            "device": way.device if way else None,
            "gateway": str(way.route.gateway) if way and way.route and way.route.gateway else None,
            "priority": way.rule.priority if way else None,
            "table": way.rule.table if way else None,
            "contradicted": self.contradicted or None,
        }

    def _packet(self) -> str:
        flow = self.flow
        start = f"from {flow.source} " if flow.source else ""
        marked = f" with mark {flow.mark:#x}" if flow.mark else ""
        port = f" from UDP port {flow.source_port}" if flow.source_port else ""
        whose = " by ssserver" if flow.uid == SSSERVER_UID else ""
        bound = f", bound to {flow.device}" if flow.device else ""
        return f"{start}to {flow.destination}{port}{marked}{whose}{bound}"


@dataclass(frozen=True, slots=True)
class Firewall:
    """What the kill switch does to packets that none of our rules takes.

    `closed`: it rejects them, but for the family `direct`, which bypasses the tunnel by setting.
    """

    closed: bool = False
    direct: Family | None = None


def explain(snapshot: Snapshot, numbers: OurIds, flow: Flow, firewall: Firewall = Firewall()) -> Explanation:
    way = decide_route(snapshot, flow)
    if way is None:
        return Explanation(flow, None, "rejected: no route to it", "no rule leads to a table with a route")
    what, why = _reason(way, numbers, flow, firewall)
    return Explanation(flow, way, what, why)


async def explain_live(
    netlink: Netlink, numbers: OurIds, flow: Flow, firewall: Firewall = Firewall()
) -> Explanation:
    """Explain the packet and compare with the kernel's own route lookup.

    Raises OSError, UsageError for a source that is no address of this machine.
    """
    snapshot = await netlink.snapshot(whole=True)
    if flow.source and flow.source not in {one.address.ip for one in snapshot.addresses}:
        raise UsageError(
            f"{flow.source} is not an address of this machine", "leave FROM out, or see: ip address"
        )
    said = explain(snapshot, numbers, flow, firewall)
    if said.way and said.way.rule.table == LOCAL_TABLE:
        return said  # the kernel says "lo" for local addresses, whichever device has them
    # The kernel has the last word: a rule that this program does not understand must show.
    truth = await netlink.route_device(flow)
    if truth == (said.way.device if said.way else None):
        return said
    return replace(said, contradicted=f"by {truth}" if truth else "rejected")


def _reason(way: RouteDecision, numbers: OurIds, flow: Flow, firewall: Firewall) -> tuple[str, str]:
    """Return what happens to the packet, and why."""
    leaves, rule = f"leaves by {way.device}", f"rule {way.rule.priority}"
    table, device = way.rule.table, way.device
    if table == LOCAL_TABLE:
        return "stays on this machine", f"{flow.destination} is an address of this machine"
    # The floor: an unreachable route, or the null device for IPv6.
    if table == numbers.table and device != numbers.device:
        return (
            "rejected: the tunnel has no route for it",
            f"{rule}, table {table}: only the blocking route is left, so that nothing leaves unencrypted",
        )
    if table == numbers.table:
        started = "started here, " if way.rule.priority == TUNNEL_PRIORITY else ""
        return (
            f"{started}leaves through WARP by {device}",
            f"{rule}, table {table}: {_TUNNELLED[bool(started)]}",
        )
    marked, lost, answers, neighbours, servers, _ = numbers.priorities
    reasons = {
        marked: (
            f"{leaves}, outside the tunnel",
            "WireGuard's encrypted packets and the supervisor's own queries",
        ),
        lost: ("rejected", "an encrypted packet without a route would loop through the tunnel"),
        answers: (
            f"a reply from this server's own address, {leaves}",
            f"replies leave the way the request came, by {device}: SSH keeps working",
        ),
        neighbours: (
            f"a neighbour, {leaves}",
            "private networks and those next to this machine are reached directly",
        ),
        servers: (
            f"a reply of a UDP server, {leaves}",
            "a server on a wildcard address replies without choosing a source",
        ),
    }
    other = (leaves, "none of ss-warp's rules matches it")
    if flow.destination.version == firewall.direct:
        other = (f"{leaves}, outside the tunnel", f"DIRECT_IP_VERSION={firewall.direct} bypasses the tunnel")
    elif firewall.closed and device != "lo":
        other = (
            f"rejected by the kill switch; the route is by {device}",
            "none of ss-warp's rules matches it, and the firewall is closed",
        )
    what, why = reasons.get(way.rule.priority, other)
    return what, f"{rule}: {why}"


_TUNNELLED = {
    True: "everything else started here uses the tunnel",
    False: "traffic of ssserver, bound to the tunnel or from its address uses the tunnel",
}
