"""The kill switch as a pure function: a policy in, the text of one atomic nft transaction out.

Light to import: the closed ruleset is loaded before anything big. Output accepts `ct direction reply`, never
`ct state established`: a connection older than the kill switch would go on in the clear.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from itertools import chain
from typing import assert_never

from entrypoint.addresses import NEVER_BEYOND, Destination, Family, Mark, Network, Ports
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.linux.kernel_objects import SSSERVER_UID, TunnelPeer
from shadowsocks.server import UDP_TIMEOUT

type Lines = Iterator[str]

FAMILY_WORDS: dict[int, str] = {4: "ip", 6: "ip6"}


def to_marked(mark: Mark, destinations: Iterable[Destination]) -> Lines:
    """Yield the rules that accept marked packets to `destinations`; they come before ssserver's rules.

    The kernel's WireGuard packets keep the user of the packet inside; ssserver itself cannot set a mark.
    """
    for word, places in endpoint_sets(destinations):
        yield f"{mark_match(mark)} {word} daddr . meta l4proto . th dport {places} accept"


def mark_match(mark: Mark) -> str:
    """Return the nft match for packets that carry the mark."""
    return f"meta mark & {mark.mask:#x} == {mark.value:#x}"


def endpoint_sets(destinations: Iterable[Destination]) -> Iterator[tuple[str, str]]:
    """Yield `ip` or `ip6` and a set of address, protocol and port, for each family present."""
    for version, word in FAMILY_WORDS.items():
        same = (d for d in destinations if d.address.version == version)
        places = ", ".join(sorted(f"{d.address} . {d.transport} . {d.port}" for d in same))
        if places:
            yield word, f"{{ {places} }}"


def to_ports(spans: Iterable[Ports], end: str) -> Lines:
    """Yield the rules that accept these ports; `end` is sport or dport."""
    for transport in ("tcp", "udp"):
        same = (span for span in spans if span.transport == transport)
        ports = ", ".join(dict.fromkeys(f"{span.first}-{span.last}" for span in same))
        if ports:
            yield f"{transport} {end} {{ {ports} }} accept"


def by_family(networks: Iterable[Network]) -> Iterator[tuple[str, str]]:
    """Yield `ip` or `ip6` and a set of prefixes, merged, since nft refuses overlapping ones."""
    for version, word in FAMILY_WORDS.items():
        same = [network for network in networks if network.version == version]
        if same:
            yield word, f"{{ {', '.join(map(str, collapse_addresses(same)))} }}"  # type: ignore[type-var]


def _uses_udp(policy: Policy) -> bool:
    return not isinstance(policy, Closed) and any(one.transport == "udp" for one in policy.shadowsocks)


def chain_of(name: str, hook: str | None, rules: Iterable[str]) -> Lines:
    """Yield the lines of a chain; one without a hook is a jump target."""
    yield f"\tchain {name} {{"
    if hook:
        yield f"\t\ttype {hook};"
    yield from (f"\t\t{rule}" for rule in rules)
    yield "\t}"


RESERVED = "@th,72,24"
"""Bytes 1 to 3 behind a UDP header, in bits."""


def reserved_chains(octets: bytes, mark: Mark, endpoints: Iterable[Destination]) -> Lines:
    """Yield the chains that write the bytes into marked packets to `endpoints` and clear them in replies."""
    # Packet by packet: of merged packets (GRO) only the first segment is cleared. A host that forwards merged
    # UDP needs WIREGUARD_IMPLEMENTATION=userspace.
    ends = list(endpoint_sets(endpoints))
    write = (
        f"{mark_match(mark)} {word} daddr . meta l4proto . th dport {places} {RESERVED} set 0x{octets.hex()}"
        for word, places in ends
    )
    clear = (f"{word} saddr . meta l4proto . th sport {places} {RESERVED} set 0" for word, places in ends)
    yield from chain_of("write_reserved", "filter hook output priority mangle; policy accept", write)
    yield from chain_of(
        "clear_reserved",
        "filter hook input priority mangle; policy accept",
        # Clearing the bytes makes a UDP checksum wrong that nothing has verified yet, and in IPv6 it may not
        # be left out. conntrack verifies it first (unless net.netfilter.nf_conntrack_checksum=0), and what it
        # finds invalid stays as it is.
        chain(("ct state invalid accept",), clear),
    )


TABLES = ("inet ss_warp", "arp ss_warp")
RESET = "counter reject with tcp reset"
# icmpx finds the TCP socket locked, so only the second SYN's error ended a connection, after 1.0 s. A reset
# ends it at once.
REFUSAL = (f"meta l4proto tcp {RESET}", "counter reject with icmpx admin-prohibited")
REFUSE = "goto refuse"  # answered, so that programs do not wait for a time-out
DISCOVERY = (
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, "
    "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept"
)
ON_LINK = (
    IPv4Network("224.0.0.0/24"),  # VRRP, OSPF, mDNS: routers never forward it (RFC 5771)
    IPv4Network("255.255.255.255/32"),  # asking for a DHCP lease
    IPv6Network("fe80::/10"),
    IPv6Network("ff02::/16"),
)
"""Destinations that never leave the link."""

# conntrack forgets a UDP flow after 30 s, ssserver after UDP_TIMEOUT. A reply in between would count as a
# connection that ssserver opens, and be refused.
REMEMBER = (
    "\tct timeout shadowsocks {",
    "\t\tprotocol udp;",
    "\t\tl3proto inet;",
    f"\t\tpolicy = {{ unreplied : {UDP_TIMEOUT}, replied : {UDP_TIMEOUT} }};",
    "\t}",
)
"""Else connection tracking forgets a UDP client before ssserver does, and its next answer is none."""


def ruleset(policy: Policy, *, policed: bool = True) -> str:
    """Return the nft text that replaces our tables by `policy`'s, in one transaction.

    Unless `policed` (FIREWALL=off) only what changes packets is left of it.
    """
    # The reserved bytes live in the same table, so they come, go and are restored with the firewall.
    changing = tuple(_changing_chains(policy))
    if not (changing or policed):
        return release()
    inet, arp = _policing(policy) if policed else (iter(()), iter(()))
    tables = zip(TABLES, (chain(changing, inet), arp), strict=True)
    return release() + "".join("\n".join((f"table {name} {{", *lines, "}\n")) for name, lines in tables)


def _changing_chains(policy: Policy) -> Lines:
    """Yield the chains that change packets: reserved bytes, and the tunnel's address where it is taken."""
    if isinstance(policy, Closed):
        return
    if policy.reserved:
        yield from reserved_chains(policy.reserved, policy.mark, policy.endpoints)
    if policy.outer:
        rule = f'oifname "{policy.device}" ip saddr != {policy.outer} snat ip to {policy.outer}'
        yield from chain_of("translate", "nat hook postrouting priority srcnat; policy accept", (rule,))


def _policing(policy: Policy) -> tuple[Lines, Lines]:
    """Return the chains of both tables."""
    arp: Lines = iter(())
    match policy:
        case Closed():
            inet = _closed_chains(policy, None, policy.holes, (), policy.input_ports)
        case FullTunnel():
            input_ports = policy.shadowsocks + policy.input_ports
            inet = chain(
                _tunnel_address_chain(policy),
                _closed_chains(
                    policy, policy.device, policy.endpoints | policy.holes, policy.neighbours, input_ports
                ),
            )
            arp = _arp_chain(policy)
        case ProxyTunnel():
            inet = chain(_tunnel_address_chain(policy), _proxy_chains(policy))
            arp = _arp_chain(policy)
        case HostFull():
            inet = chain(_tunnel_address_chain(policy), _host_chains(policy))
            arp = _arp_chain(policy)
        case _:
            assert_never(policy)
    return chain(REMEMBER if _uses_udp(policy) else (), inet), arp


def release() -> str:
    """Return the nft text that removes our tables, whether or not they exist."""
    # Deleting a missing table is an error; declaring an existing one is not.
    return "".join(f"table {table}\ndelete table {table}\n" for table in TABLES)


def _closed_chains(
    policy: Closed | FullTunnel,
    device: str | None,
    marked: frozenset[Destination],
    neighbours: tuple[Network, ...],
    input_ports: tuple[Ports, ...],
) -> Lines:
    """Yield the chains of a namespace in which everything is filtered; without a device nothing is sent."""
    direct = policy.direct if isinstance(policy, FullTunnel) else None
    into = list(_into_tunnel(policy)) if isinstance(policy, FullTunnel) else []
    yield from _ssserver_chain(into, direct)
    # ssserver's rows come before loopback and discovery. Packets without a socket (resets, ICMP) do not match
    # `skuid != X`, so an exception on a later row would miss them.
    output = [
        *to_marked(policy.mark, marked),
        *SSSERVER_FIRST,
        *(_forwarding_errors(device) if device else ()),
        *_direct_family(direct),
        'oifname "lo" accept',
        DISCOVERY,
        # Not `ct state established`: a connection older than the kill switch would go on in the clear.
        "ct direction reply accept",
        *into,
        *(f"{word} daddr {places} accept" for word, places in by_family((*neighbours, *ON_LINK))),
        REFUSE,
    ]
    yield from chain_of("output", "filter hook output priority filter; policy drop", output)
    # A new network namespace may have ip_forward=1, and Docker's default gateway can be any container.
    yield from chain_of("forward", "filter hook forward priority filter; policy drop", ())
    # Only what a container needs: neighbours reach it directly, past Docker's published ports.
    admitted = [
        'iifname "lo" accept',
        "ct state established,related accept",
        *([f'iifname "{device}" drop'] if device else ()),  # nothing comes out of the tunnel unasked
        # Ping answers, so that a person can see that the container is there.
        "icmp type echo-request accept",
        # No router advertisements: the runtime assigns addresses, and a neighbour could move ours.
        "icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert } accept",
        "icmpv6 type mld-listener-query accept",
        *(_remember(policy.shadowsocks) if isinstance(policy, FullTunnel) else ()),
        *to_ports(input_ports, "dport"),
    ]
    yield from chain_of("input", "filter hook input priority filter; policy drop", admitted)


def _proxy_chains(policy: ProxyTunnel) -> Lines:
    yield from _ssserver_chain(_into_tunnel(policy), policy.direct)
    output = [
        # First, in proxy mode too: the kernel's WireGuard does not orphan its packets (6.12, wg_xmit), so
        # they carry ssserver's user and would be refused as ssserver's own attempt to leave by the uplink.
        # ssserver has no capability to set a mark.
        *to_marked(policy.mark, policy.endpoints),
        *SSSERVER_FIRST,
        f'oifname {{ "lo", "{policy.device}" }} accept',
        *(f"{FAMILY_WORDS[address.version]} saddr {address} {REFUSE}" for address in policy.addresses),
    ]
    yield from chain_of("output", "filter hook output priority filter; policy accept", output)
    yield from _unasked_chains(policy)


def _host_chains(policy: HostFull) -> Lines:
    """Yield the chains of the host's namespace: input and forwarding are open, except from the tunnel."""
    yield from _ssserver_chain(_into_tunnel(policy), policy.direct)
    # Turn replies back that would enter the tunnel: from a new address, or ICMP errors.
    turned = [f"oifname != {_names((policy.device, policy.null_device))} accept"]
    others = 0xFFFFFFFF ^ policy.mark.mask
    for version, word in FAMILY_WORDS.items():
        own = ", ".join(str(one) for one in policy.addresses if one.version == version)
        whose = f"{word} saddr != {{ {own} }}" if own else f"meta nfproto ipv{version}"
        turned.append(
            f"ct direction reply {whose} meta mark set meta mark & {others:#x} | {policy.mark.value:#x}"
        )
        if version == 4 and own and policy.source:
            # "Fragmentation needed" quotes the packet, whose destination is ours if the tunnel brought it.
            # About a forwarded packet the kernel would send it from the tunnel's address.
            quoted = f"{{ {', '.join(f'{int(one):#x}' for one in policy.addresses if one.version == 4)} }}"
            turned.append(
                f"icmp type destination-unreachable @th,192,32 != {quoted} ip saddr set {policy.source}"
            )
    # A route hook: after a change of mark or source the kernel looks the route up again.
    yield from chain_of("answers", "route hook output priority mangle; policy accept", turned)
    listening = ", ".join(map(str, policy.listening))
    output = [
        *to_marked(policy.mark, policy.endpoints | policy.holes),
        *SSSERVER_FIRST,
        *_forwarding_errors(policy.device),
        # What fell to the floor is refused instead of swallowed.
        f"oifname != {_names((*policy.uplinks, policy.null_device))} accept",
        *_direct_family(policy.direct),
        "ct direction reply accept",
        # Another VPN's encrypted packets; without them it would lose its connection.
        *(f"{mark_match(mark)} accept" for mark in policy.foreign),
        # Group memberships: without reports a switch stops forwarding mDNS and OSPF to this host.
        *map(_to_peer, policy.peers),
        "meta l4proto igmp ip daddr 224.0.0.0/4 accept",
        DISCOVERY,
        *(f"{word} daddr {places} accept" for word, places in by_family((*policy.neighbours, *ON_LINK))),
        # Replies without a direction: sessions older than connection tracking look outbound when the
        # server speaks first, and `notrack` hides them from it. A reset would end them.
        *(
            f"tcp sport {{ {listening} }} tcp flags & (syn | ack) != syn {unknown} accept"
            for unknown in ("ct direction original", "ct state untracked")
            if listening
        ),
        *(
            f"ct state untracked {rule}"
            for rule in to_ports(policy.input_ports, "sport")
            if rule[:3] == "udp"
        ),
        # A new connection gets a reset. Anything else of TCP is dropped: it may belong to a session that is
        # older than ss-warp, and a reset would end it.
        f"tcp flags & (syn | ack) == syn {RESET}",
        "counter drop",
    ]
    yield from chain_of("output", "filter hook output priority filter; policy accept", output)
    yield from _unasked_chains(policy)


def _to_peer(peer: TunnelPeer) -> str:
    what = f"udp dport {peer.port}" if peer.port else f"meta l4proto {peer.protocol}"
    return f"{FAMILY_WORDS[peer.address.version]} daddr {peer.address} {what} accept"


def _unasked_chains(policy: ProxyTunnel | HostFull) -> Lines:
    """Yield the chains that keep the far end of the tunnel from connecting to or through this host."""
    unasked = f'iifname "{policy.device}" ct state {{ new, invalid, untracked }} drop'
    # Answers that come while the tunnel's address is being removed: a host that forwards would send them on.
    late = (
        f'iifname "{policy.device}" {FAMILY_WORDS[address.version]} daddr {address} drop'
        for address in policy.addresses
    )
    yield from chain_of(
        "input", "filter hook input priority filter; policy accept", (unasked, *_remember(policy.shadowsocks))
    )
    yield from chain_of("forward", "filter hook forward priority filter; policy accept", (unasked, *late))


def _names(devices: Iterable[str]) -> str:
    return f"{{ {', '.join(f'"{name}"' for name in devices)} }}"


def _forwarding_errors(device: str) -> Lines:
    """Yield the rules that keep errors about forwarded packets, which quote them, out of the tunnel."""
    yield f'oifname "{device}" icmp type {{ redirect, time-exceeded }} drop'
    yield f'oifname "{device}" icmpv6 type {{ nd-redirect, time-exceeded }} drop'


def _direct_family(family: Family | None) -> Lines:
    if family:
        yield f"meta nfproto ipv{family} accept"


def _into_tunnel(policy: FullTunnel | ProxyTunnel | HostFull) -> Lines:
    carried = {address.version for address in policy.addresses}
    for version in FAMILY_WORDS:
        # A socket bound to the device would send even without an address, and never get an answer.
        if version not in carried:
            yield f'oifname "{policy.device}" meta nfproto ipv{version} {REFUSE}'
    # Whatever is routed into the tunnel may go: WireGuard encrypts it.
    yield f'oifname "{policy.device}" accept'


def _ssserver_chain(into: Iterable[str], direct: Family | None) -> Lines:
    """Yield the chain for what ssserver opens: into the tunnel, never to this machine or its neighbours."""
    never = by_family(tuple(network for network, _ in NEVER_BEYOND))
    rules = [
        *(f"{word} daddr {places} {REFUSE}" for word, places in never),
        # ssserver's access list resolves a name and then resolves it again to connect (rebinding), so these
        # walls are the ones that count.
        f"fib daddr type {{ local, broadcast, anycast, multicast }} {REFUSE}",
        *into,
        *_direct_family(direct),
        REFUSE,
    ]
    yield from chain_of("refuse", None, REFUSAL)
    yield from chain_of("ssserver", None, rules)


SSSERVER_FIRST = (
    f"meta skuid {SSSERVER_UID} ct direction reply accept",
    f"meta skuid {SSSERVER_UID} goto ssserver",
)
"""These come before every accept: none of those is meant for ssserver."""


def _remember(shadowsocks: tuple[Ports, ...]) -> Lines:
    """Yield the rule that makes conntrack remember Shadowsocks' UDP clients longer."""
    for ports in shadowsocks:
        if ports.transport == "udp":
            yield f'udp dport {{ {ports.first}-{ports.last} }} ct timeout set "shadowsocks"'


def _tunnel_address_chain(policy: FullTunnel | ProxyTunnel | HostFull) -> Lines:
    """Yield the chain that drops packets from the uplink to the tunnel's addresses."""
    rules = [
        # Loopback stays open: the reset of a refused connection comes back by it, from the address that was
        # asked.
        f'iifname != {{ "lo", "{policy.device}" }} {FAMILY_WORDS[address.version]} daddr {address} drop'
        for address in policy.addresses
    ]
    yield from chain_of("probe", "filter hook prerouting priority raw; policy accept", rules)


def _arp_chain(policy: FullTunnel | ProxyTunnel | HostFull) -> Lines:
    """Yield the same for ARP, which also works where arp_ignore is read-only."""
    rules = [
        f'iifname != "{policy.device}" arp daddr ip {address} drop'
        for address in policy.addresses
        if address.version == 4
    ]
    yield from chain_of("probe", "filter hook input priority filter; policy accept", rules)
