"""`ss-warp explain`: which way a packet goes, by which rule, and why; in sentences for people."""

from dataclasses import dataclass, replace
from typing import Any

from entrypoint.linux.kernel_objects import SSSERVER_UID, Flow, Snapshot
from entrypoint.linux.world import Netlink
from entrypoint.routing.lookup import RouteDecision, decide_route
from entrypoint.routing.plan import TUNNEL_PRIORITY, OurIds

LOCAL_TABLE = 255


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: a sentence that says what kind of packet this is, and one that says why.

    `contradicted`: the kernel, asked for this packet, says something else: "by eth0", "refused".
    """

    flow: Flow
    way: RouteDecision | None
    what: str
    why: str
    contradicted: str = ""

    def as_text(self) -> str:
        """Return the lines for people."""
        lines = [f"{self._packet()}: {self.what}."]
        if self.way:
            lines.append(f"  decided by: {self.way.rule.add_command().partition(' add ')[2]}")
            route = self.way.route.add_command().partition(" add ")[2] if self.way.route else "none: refused"
            lines.append(f"  route: {route}")
            lines += [f"  passed over, not understood: {rule.add_command()}" for rule in self.way.skipped]
        lines.append(f"  why: {self.why}.")
        if self.contradicted:
            lines.append(
                f"  but the kernel itself says: {self.contradicted}; somebody's rule is not understood."
            )
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the same as a stable object."""
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


def explain(snapshot: Snapshot, numbers: OurIds, flow: Flow) -> Explanation:
    """Walk the rules and say what came out."""
    way = decide_route(snapshot, flow)
    if way is None:
        return Explanation(
            flow, None, "there is no route to it, it is refused", "no rule's table has a route"
        )
    what, why = _reason(way, numbers, flow)
    return Explanation(flow, way, what, why)


async def explain_live(netlink: Netlink, numbers: OurIds, flow: Flow) -> Explanation:
    """Explain, and ask the kernel for the same packet. Raises OSError."""
    said = explain(await netlink.snapshot(), numbers, flow)
    if said.way and said.way.rule.table == LOCAL_TABLE:
        return said  # the kernel says "lo" for what stays here, whatever device has the address
    truth = await netlink.route_device(flow)
    if truth == (said.way.device if said.way else None):
        return said
    return replace(said, contradicted=f"by {truth}" if truth else "refused")


def _reason(way: RouteDecision, numbers: OurIds, flow: Flow) -> tuple[str, str]:
    """Return what happens, and why."""
    place, rule = f"by {way.device}", f"rule {way.rule.priority}"
    table, device = way.rule.table, way.device
    if table == LOCAL_TABLE:
        return "it stays here", f"{flow.destination} is an address of this machine"
    if table == numbers.table and device != numbers.device:
        return (
            "it is refused: the tunnel has no way for it",
            f"{rule}, table {table}: only the floor is left, so that nothing leaves in clear",
        )
    if table == numbers.table:
        started = "started here, " if way.rule.priority == TUNNEL_PRIORITY else ""
        return f"{started}it goes {place} through WARP", f"{rule}, table {table}: {_TUNNELLED[bool(started)]}"
    marked, lost, answers, neighbours, servers, _ = numbers.priorities
    reasons = {
        marked: (
            f"it goes {place}, outside the tunnel",
            "WireGuard's own encrypted packets and the supervisor's own questions",
        ),
        lost: ("it is refused", "an encrypted packet without a way of its own would run in circles"),
        answers: (
            f"an answer from this server's own address, it goes {place}",
            f"what came in by {device} is answered by {device}: SSH keeps working",
        ),
        neighbours: (f"a neighbour, it goes {place}", "gateways and private networks are reached directly"),
        servers: (
            f"an answer of a UDP server, it goes {place}",
            "a server on a wildcard address answers without a source",
        ),
    }
    other = (f"it goes {place}", "none of ss-warp's rules takes it")
    what, why = reasons.get(way.rule.priority, other)
    return what, f"{rule}: {why}"


_TUNNELLED = {
    True: "the rest of what starts here",
    False: "what is bound to the tunnel, has its address or is ssserver's uses it",
}
