"""Where this namespace meets the world, read from a snapshot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from entrypoint.addresses import MARK, PRIVATE, Address, Family, Mark, Network, is_subnet, word_for
from entrypoint.linux.kernel_objects import MAIN_TABLE, PROTOCOL_KERNEL, Route, Rule, Snapshot


@dataclass(frozen=True, slots=True)
class Uplinks:
    """Interfaces that carry a non-private route in `main`, and what is seen through them.

    `addresses` are all of them but link-local ones; `listening` those that a server may be bound to
    for long. `private` are the connected private prefixes of every interface. `families` are those
    that the kernel offers here. `foreign` are the marks that somebody else's rules send to `main`:
    another VPN's encrypted packets; `sources` are somebody else's source rules, network and table. `mtu` is
    the smallest of the links', in bytes.
    """

    links: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    listening: tuple[Address, ...] = ()
    gateways: tuple[Address, ...] = ()
    private: tuple[Network, ...] = ()
    families: tuple[Family, ...] = (4, 6)
    foreign: tuple[Mark, ...] = ()
    sources: tuple[tuple[Network, int], ...] = ()
    mtu: int = 1500


def find_uplinks(snapshot: Snapshot, ours: frozenset[str], *, host: bool = False) -> Uplinks:
    """Return the uplinks; `ours` are the names of our own devices.

    In a namespace of our own without any non-private route (a Docker `internal` network) every other
    interface that is up and has a global address is one. Of a `host` every public address counts,
    also one on a loopback or dummy interface.
    """
    others = {link.name for link in snapshot.links if link.name != "lo" and link.name not in ours}
    main = [route for route in snapshot.routes if route.table == MAIN_TABLE and route.device in others]
    links = {route.device for route in main if route.device and not _is_private(route.destination)}
    if not links and not host:
        up = {link.name for link in snapshot.links if link.up}
        links = {state.device for state in snapshot.addresses if not state.link_scope} & up & others
    states = [s for s in snapshot.addresses if s.device in links and not s.link_scope]
    more = [s for s in snapshot.addresses if host and s.device not in ours and not word_for(s.address.ip)]
    return Uplinks(
        links=tuple(link.name for link in snapshot.links if link.name in links),
        addresses=tuple(dict.fromkeys(s.address.ip for s in (*states, *more))),
        listening=tuple(dict.fromkeys(s.address.ip for s in states if s.usable and s.permanent)),
        gateways=tuple(dict.fromkeys(r.gateway for r in main if r.gateway and not r.gateway.is_link_local)),
        private=tuple(dict.fromkeys(_connected_private(main))),
        # With disable_ipv6 the kernel has not even ::1, and refuses routes.
        families=(4, 6) if any(s.address.version == 6 for s in snapshot.addresses) else (4,),
        foreign=tuple(dict.fromkeys(_foreign(snapshot.rules))),
        sources=tuple(dict.fromkeys(_sources(snapshot.rules))),
        mtu=min((link.mtu for link in snapshot.links if link.name in links), default=1500),
    )


def _foreign(rules: Sequence[Rule]) -> Iterator[Mark]:
    for rule in rules:
        ours = (rule.mark, rule.protocol) == (MARK, PROTOCOL_KERNEL)
        # Mark 0 would be everybody's.
        if rule.table == MAIN_TABLE and rule.mark and rule.mark.value and not (rule.more or ours):
            yield rule.mark


def _sources(rules: Sequence[Rule]) -> Iterator[tuple[Network, int]]:
    for rule in sorted(rules, key=lambda one: one.priority):
        if rule.source and rule.table and rule.protocol != PROTOCOL_KERNEL:
            plain = Rule(rule.family, rule.priority, rule.table, rule.source, protocol=rule.protocol)
            if rule == plain:
                yield rule.source, rule.table


def _connected_private(routes: list[Route]) -> Iterator[Network]:
    for route in routes:
        if route.gateway is None and any(is_subnet(route.destination, network) for network in PRIVATE):
            yield route.destination


def _is_private(destination: Network) -> bool:
    # fe80::/64 and multicast are on every interface: they say nothing about where the world is.
    return destination.prefixlen > 0 and word_for(destination.network_address) is not None
