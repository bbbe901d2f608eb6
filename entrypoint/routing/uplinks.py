"""Find the uplink interfaces in a snapshot, and the networks reached without them.

Routes and rules decide, never what an address looks like: an uplink is where a default route leads.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from entrypoint.addresses import MARK, PLATFORM, PRIVATE, Address, Family, Mark, Network, word_for
from entrypoint.linux import kernel_objects as kernel

SHORTEST = {4: 1, 6: 3}
"""Prefixes up to this length count as default routes, which some programs split (0.0.0.0/1, 2000::/3)."""


@dataclass(frozen=True, slots=True)
class Uplinks:
    """Interfaces that a default route leads to, and what is seen through them.

    `addresses` are those that replies leave from by the uplink, link-local ones excluded; `listening`
    those that a server may be bound to for long; `defaults` the default routes of `main`. `direct` are
    networks that are reached without the tunnel: connected to an interface that is no uplink, or the
    platform's, or the private range that this host itself is in. `families` are those that the kernel
    offers here. `occupied` are addresses of the tunnel that something else here has, or a network holds.
    `foreign` are the marks that another VPN's rules keep out of its tunnel: its encrypted
    packets; `sources` are other programs' source rules (network, table). `mtu` is the links' smallest.
    """

    links: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    listening: tuple[Address, ...] = ()
    defaults: tuple[kernel.Route, ...] = ()
    direct: tuple[Network, ...] = ()
    families: tuple[Family, ...] = (4, 6)
    foreign: tuple[Mark, ...] = ()
    sources: tuple[tuple[Network, int], ...] = ()
    mtu: int = 1500
    occupied: tuple[Address, ...] = ()
    peers: tuple[kernel.TunnelPeer, ...] = ()
    """Far ends of the kernel's own tunnels, whose outer packets leave by the uplinks."""


# By their routes, never by what an address looks like: clouds give servers private addresses. Public
# addresses on loopback or dummy devices count too (anycast, floating addresses).
def find_uplinks(
    snapshot: kernel.Snapshot, ours: frozenset[str], *, host: bool = False, tunnel: Iterable[Address] = ()
) -> Uplinks:
    """Return the uplinks; `ours` are the names of our own interfaces, `tunnel` the tunnel's addresses.

    In our own namespace every other interface is a way in, so that an app on a second network reaches
    Shadowsocks; without any default route (a Docker `internal` network) they are the uplinks too.
    Of a `host` every public address counts, also one on a loopback or dummy interface.
    """
    others = {link.name for link in snapshot.links if link.name != "lo" and link.name not in ours}
    up = {link.name for link in snapshot.links if link.up} & others
    sources = tuple(dict.fromkeys(_sources(snapshot.rules)))
    tables = {kernel.MAIN_TABLE, *(table for _, table in sources)}
    defaults = [
        one for one in snapshot.routes if one.table in tables and one.device in others and is_default(one)
    ]
    links = {route.device for route in defaults if route.device}
    inside = [state for state in snapshot.addresses if state.device in up and not state.link_scope]
    if not links and not host:
        links = {state.device for state in inside}
    states = [state for state in inside if state.device in links or not host]
    more = [s for s in snapshot.addresses if host and s.device not in ours and not word_for(s.address.ip)]
    main = [route for route in snapshot.routes if route.table == kernel.MAIN_TABLE and route.device in others]
    own_networks = tuple(_own_networks(main, states)) if host else ()
    theirs = [state.address.network for state in snapshot.addresses if state.device in others]
    gateways = {route.gateway for route in main}
    return Uplinks(
        links=tuple(link.name for link in snapshot.links if link.name in links),
        addresses=tuple(dict.fromkeys(s.address.ip for s in (*states, *more))),
        listening=tuple(dict.fromkeys(s.address.ip for s in states if s.usable and s.permanent)),
        defaults=tuple(dict.fromkeys(one for one in defaults if one.table == kernel.MAIN_TABLE)),
        direct=tuple(dict.fromkeys((*_connected(main, links), *own_networks))),
        # With disable_ipv6 the kernel has not even ::1, and refuses routes.
        families=(4, 6) if snapshot.ipv6_by_default and _has_ipv6(snapshot) else (4,),
        foreign=tuple(dict.fromkeys(_foreign(snapshot.rules))),
        sources=sources,
        mtu=min((link.mtu for link in snapshot.links if link.name in links), default=1500),
        peers=tuple(dict.fromkeys(peer for link in snapshot.links if link.name in up for peer in link.peers)),
        occupied=tuple(
            one
            for one in tunnel
            if one in gateways or any(one in network for network in (*own_networks, *theirs))
        ),
    )


def _has_ipv6(snapshot: kernel.Snapshot) -> bool:
    return any(state.address.version == 6 for state in snapshot.addresses)


def is_default(route: kernel.Route) -> bool:
    """Return whether a route leads to the world, or to a large part of it."""
    return route.destination.prefixlen <= SHORTEST[route.destination.version] and not (
        route.more or route.destination.is_multicast or route.destination.network_address.is_link_local
    )


def _connected(main: Sequence[kernel.Route], uplinks: set[str]) -> Iterator[Network]:
    """Yield the public networks of interfaces that are no uplink: private ones are reached anyway."""
    for route in main:
        if (
            route.connected
            and route.device not in uplinks
            and not word_for(route.destination.network_address)
        ):
            yield route.destination


def _own_networks(main: Sequence[kernel.Route], states: Sequence[kernel.AddressState]) -> Iterator[Network]:
    """Yield what belongs to a host's platform, also where only the default route leads there.

    A host with a private address is part of a private network (a VPC) that may have no route of its own.
    """
    for state in states:
        yield from (network for network in PRIVATE if state.address.ip in network)
    for network in PLATFORM:
        if any(route.destination == network for route in main):
            yield network


def _foreign(rules: Sequence[kernel.Rule]) -> Iterator[Mark]:
    for rule in rules:
        ours = rule.mark is not None and (rule.mark.value, rule.protocol) == (
            MARK.value,
            kernel.PROTOCOL_KERNEL,
        )
        # Mark 0 would match every packet.
        if ours or not (rule.mark and rule.mark.value):
            continue
        if (rule.table == kernel.MAIN_TABLE and not rule.more) or (rule.table and rule.more == "not"):
            yield rule.mark


# `ip rule add from B lookup 101` without a number gets 32765, behind our rules, so our rule for B repeats its
# table.
def _sources(rules: Sequence[kernel.Rule]) -> Iterator[tuple[Network, int]]:
    for rule in sorted(rules, key=lambda one: one.priority):
        if rule.source and rule.table and rule.protocol != kernel.PROTOCOL_KERNEL:
            plain = kernel.Rule(rule.family, rule.priority, rule.table, rule.source, protocol=rule.protocol)
            if rule == plain:
                yield rule.source, rule.table
