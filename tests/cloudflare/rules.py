"""The edge's packet rules as nft text: ports, exits and faults. Pure functions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from tests.cloudflare.config import API_PORTS, ECHO_PORT, EDGE_PORTS, Address, Config
from tests.cloudflare.devices import ADDRESS4, Addresses

LISTEN4, LISTEN6 = 2408, 2409
"""Where the two engines listen."""
INNER4, INNER6 = "10.99.0.0/16", "fd00:99::/32"
"""Where packets for other ports arrive: 10.99.N.x:2408 stands for <endpoint's last byte x>:<N-th port>."""
MARK6 = 6
"""On connections whose last packet came in by the IPv6 engine: answers go there too."""


@dataclass(frozen=True, slots=True)
class EdgeFaults:
    """What is wrong with the edge. `mute`: WireGuard message types it does not send.

    `ports` and `addresses` drop, `refused` are ports that answer with an ICMP error (E2). `reserved`: it
    drops what comes without the device's reserved bytes; other edges do not mind. Two middleboxes: `first`
    drops handshakes that come first on a flow, `stamped` whatever has reserved bytes (E25).
    """

    mute: tuple[int, ...] = ()
    dead: bool = False
    ports: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()
    refused: tuple[int, ...] = ()
    reserved: bool = False
    first: bool = False
    stamped: bool = False


def _middleboxes(faults: EdgeFaults, every: str) -> list[str]:
    """Return what filters on the way drop, by what a datagram looks like."""
    drops = [f"iifname uplink udp dport {every} @th,72,24 != 0 drop"] if faults.stamped else []
    if faults.first:
        for kind, begun in (("ip", "begun4"), ("ip6", "begun6")):
            flow = f"{kind} saddr . udp sport . {kind} daddr . udp dport"
            drops += [
                f"iifname uplink udp dport {every} @th,64,8 1 {flow} != @{begun} drop",
                f"iifname uplink udp dport {every} update @{begun} {{ {flow} }}",
            ]
    return drops


def device_rules(
    config: Config, address6: str, place: Addresses, interfaces: tuple[str, str], faults: EdgeFaults
) -> str:
    """Return the ruleset of one device's namespace, whose way out is `uplink`; `interfaces`: both engines'.

    An engine has one port, so packets to the others are re-addressed, without state: connections tracked
    for one client on two ports would clash, and would be forgotten while the edge is idle.
    """
    every, types = _set(EDGE_PORTS), _set(faults.mute)
    drops = [f"iifname uplink udp dport {every} drop"] if faults.dead else []
    drops += [f"iifname uplink udp dport {one} drop" for one in faults.ports]
    drops += _middleboxes(faults, every)
    drops += [f"iifname uplink {_ip(ip_address(one))} daddr {one} drop" for one in faults.addresses]
    mutes = (
        [f"oifname uplink udp sport {{ {LISTEN4}, {LISTEN6} }} @th,64,8 {types} drop"] if faults.mute else []
    )
    inward, outward = [], []
    for number, port in enumerate(EDGE_PORTS):
        for kind, network, inner, low, listen in (
            ("ip", config.endpoints4, f"10.99.{number}.0/24", "0.0.0.255", LISTEN4),
            ("ip6", config.endpoints6, f"fd00:99:{number:x}::/48", "::ffff:ffff", LISTEN6),
        ):
            base = inner.partition("/")[0]
            # Left as it is, the kernel refuses what comes to a port without a listener.
            inward += (
                []
                if port in faults.refused
                else [
                    f"iifname uplink {kind} daddr {network} udp dport {port} notrack"
                    f" {kind} daddr set {kind} daddr & {low} | {base} udp dport set {listen}"
                ]
            )
            outward.append(
                f"{kind} saddr {inner} udp sport {listen} notrack"
                f" {kind} saddr set {kind} saddr & {low} | {network[0]} udp sport set {port}"
            )
    four, six = interfaces
    paths = [
        f"iifname {six} ct mark set {MARK6}",
        f"iifname {four} ct mark set 0",
        "iifname uplink meta mark set ct mark",
    ]
    exits = [
        f"oifname uplink ip saddr {ADDRESS4} snat ip to {place.exit4}",
        f"oifname uplink ip6 saddr {address6} snat ip6 to {place.exit6}",
    ]
    return _table(
        "edge",
        ("inbound", "filter hook prerouting priority raw", [*drops, *inward]),
        ("outbound", "filter hook output priority raw", [*mutes, *outward]),
        ("paths", "filter hook prerouting priority mangle", paths),
        ("exits", "nat hook postrouting priority srcnat", exits),
        sets=(
            "begun4 { type ipv4_addr . inet_service . ipv4_addr . inet_service; flags dynamic; timeout 3m; }",
            "begun6 { type ipv6_addr . inet_service . ipv6_addr . inet_service; flags dynamic; timeout 3m; }",
        ),
    )


def published_rules(config: Config, first: Addresses, origin: Sequence[Address]) -> str:
    """Return the ruleset of the emulator's own namespace: published addresses stand for edge and origin."""
    lines = []
    for address in config.published:
        kind, version = _ip(address), address.version
        edge = first.endpoint4 if isinstance(address, IPv4Address) else first.endpoint6
        target = next(one for one in origin if one.version == version)
        to = f"{kind} daddr {address}"
        lines += [
            f"{to} udp dport {_set(EDGE_PORTS)} dnat {kind} to {edge}",
            f"{to} udp dport {{ {ECHO_PORT}, 53 }} dnat {kind} to {target}",
            f"{to} tcp dport {{ 53, 80 }} dnat {kind} to {target}",
        ]
    return _table("cloudflare", ("published", "nat hook prerouting priority dstnat", lines))


def port_rules(port: int, state: str) -> str:
    """Return the ruleset that keeps the API's port open, dropped or refused. Raises KeyError."""
    rule = f"tcp dport {port} {API_PORTS[state]}"
    return _table("api_port", ("inbound", "filter hook input priority filter", [rule]))


def _ip(address: Address) -> str:
    return "ip" if address.version == 4 else "ip6"


def _set(numbers: Iterable[int]) -> str:
    return "{ " + ", ".join(map(str, numbers)) + " }"


def _table(name: str, *chains: tuple[str, str, list[str]], sets: Sequence[str] = ()) -> str:
    bodies = "".join(f"  set {one}\n" for one in sets) + "".join(
        f"  chain {chain} {{\n    type {hook}; policy accept;\n"
        + "".join(f"    {one}\n" for one in lines)
        + "  }\n"
        for chain, hook, lines in chains
    )
    return f"table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n{bodies}}}\n"
