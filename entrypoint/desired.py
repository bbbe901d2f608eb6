"""Desired state, computed from settings, uplinks and account. Pure; the supervisor applies it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from entrypoint.account.model import Account
from entrypoint.addresses import (
    PLATFORM,
    PRIVATE,
    WORLDWIDE,
    Address,
    Destination,
    Endpoint,
    Family,
    Interface,
    Network,
    Ports,
    word_for,
)
from entrypoint.errors import PlatformError, SettingsError
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import ON_LINK
from entrypoint.health.probe import Probe
from entrypoint.linux.kernel_objects import MAIN_TABLE, DeviceConfig, Guise, Snapshot
from entrypoint.routing.ownership import IdKind, choose_free
from entrypoint.routing.plan import NetworkPlan, OurIds, RouteMode, network_plan
from entrypoint.routing.uplinks import Uplinks, find_uplinks
from entrypoint.settings import Settings
from entrypoint.wireguard.device import Choice, Implementation

HOST_PRIORITY = 32759
"""Late on purpose: a server with several NICs, or another VPN, has its own rules before that."""

INNER_ADDRESS = IPv4Interface("192.0.0.2/32")
"""What wg0 has instead of 172.16.0.2 where that is taken: of a range that no network has (RFC 7335)."""

TUNNELS = frozenset(
    {"vxlan", "geneve", "gre", "gretap", "ip6gre", "ip6gretap", "ipip", "sit", "ip6tnl", "vti", "vti6"}
)
"""Kinds of interfaces whose outer packets carry no mark and are no replies."""

HOSTS_OWN = (
    IPv4Network("169.254.0.0/16"),  # the cloud's metadata, Oracle's boot volume
    *ON_LINK,
)
"""What a host always reaches by the uplink, whatever its routes say."""

NAMED_IDS: dict[str, IdKind] = {
    "ROUTE_RULE_PRIORITY": "priority",
    "ROUTE_TABLE": "table",
    "WIREGUARD_INTERFACE": "device",
}
"""Ids that the user sets are used or refused, never replaced."""


def on_host(settings: Settings) -> bool:
    """Return whether the network namespace is the host's; when in doubt it is."""
    return settings.routing.network != "own"


def choose_ids(
    settings: Settings, before: tuple[OurIds, ...] = (), snapshot: Snapshot | None = None
) -> OurIds:
    """Return the numbers and names to take in the kernel.

    On a host others' are avoided, as found in `snapshot`, unless the settings name ours; `before` are a
    predecessor's.
    """
    host = on_host(settings)
    wish = OurIds(
        priority=settings.routing.rule_priority or (HOST_PRIORITY if host else OurIds().priority),
        table=settings.routing.table,
        device=settings.tunnel.interface,
    )
    if not host or snapshot is None:
        return wish
    # Only what is written in the environment; a default may move.
    fixed = [field for name, field in NAMED_IDS.items() if name in settings.texts]
    return choose_free(wish, fixed, before, snapshot, route_mode(settings))


def route_mode(settings: Settings) -> RouteMode:
    """Return the route mode; the default is full in the own placement, proxy on a host."""
    return settings.routing.mode or ("proxy" if on_host(settings) else "full")


def require_uplink(snapshot: Snapshot, found: Uplinks) -> None:
    """Raise PlatformError if a host has no default route or no address."""
    # A default route into our own old tunnel would not count: `links` leaves our devices out.
    lost = not any(
        route.table == MAIN_TABLE and route.device in found.links and route.destination.prefixlen == 0
        for route in snapshot.routes
    )
    if lost or not found.addresses:
        raise PlatformError(
            "this host has no default route" if lost else "the uplink has no address",
            "see `ip route` and `ip address`; nothing was changed",
        )


def require_understood(settings: Settings, snapshot: Snapshot) -> None:
    """Raise PlatformError if this host's routes are beyond what mode full accounts for."""
    names = ", ".join(link.name for link in snapshot.links if link.kind == "vrf")
    # What is bound to a VRF has routes of its own, by a rule that is no uplink's: nothing would police it.
    if names and route_mode(settings) == "full":
        raise PlatformError(
            f"this host has a VRF ({names}), whose traffic ROUTE_MODE=full would not keep in the tunnel; "
            "nothing was changed",
            "set ROUTE_MODE=proxy",
        )


def what_stays_cut_off(
    settings: Settings, snapshot: Snapshot, resolvers: Sequence[Address] = ()
) -> Iterator[str]:
    """Yield a sentence for each thing here that will not work with the tunnel, and what mends it."""
    if 6 in settings.tunnel.families and not snapshot.ipv6_by_default:
        yield (
            "IPv6 is off for new interfaces, so the tunnel carries IPv4 alone "
            "(sysctl net.ipv6.conf.default.disable_ipv6=0)"
        )
    if on_host(settings) and route_mode(settings) == "full":
        there = [link for link in snapshot.links if link.up and link.kind in TUNNELS and not link.peers]
        if there:
            names = ", ".join(f"{link.name} ({link.kind})" for link in there)
            yield (
                f"outer packets of {names} start on this host and are blocked on its uplinks; "
                "list the far ends in FIREWALL_OUTBOUND_SUBNETS, or set ROUTE_MODE=proxy"
            )
        reached = (*PLATFORM, *settings.firewall.outbound_subnets)
        if theirs := [
            one
            for one in resolvers
            if not (word_for(one) or one in {*WORLDWIDE, *settings.dns.addresses})
            and not any(one in network for network in reached)
        ]:
            yield (
                f"this host's resolvers {', '.join(map(str, theirs))} will be asked through the tunnel, "
                "where a provider's own do not answer; list them in FIREWALL_OUTBOUND_SUBNETS"
            )


def closed_policy(settings: Settings, ids: OurIds) -> Policy:
    """Return the policy for the time before the tunnel exists."""
    # On a host everything but ssserver's traffic passes until the tunnel exists: closing it any earlier would
    # cut off a server whose start fails.
    if route_mode(settings) == "proxy" or on_host(settings):
        return ProxyTunnel(device=ids.device, shadowsocks=shadowsocks_ports(settings))
    return Closed(input_ports=settings.firewall.input_ports)


def policy_after_failure(
    settings: Settings, ids: OurIds, uplinks: Uplinks, listening: frozenset[int]
) -> Policy:
    """Return a host's policy until the tunnel is back: what was closed stays closed."""
    if route_mode(settings) == "proxy":
        return closed_policy(settings, ids)
    return HostFull(
        device=ids.device,
        null_device=ids.null_device,
        uplinks=uplinks.links,
        neighbours=neighbours(settings, uplinks),
        input_ports=settings.firewall.input_ports,
        shadowsocks=shadowsocks_ports(settings),
        listening=tuple(sorted(listening)),
        foreign=uplinks.foreign,
        peers=uplinks.peers,
        mark=ids.mark,
        direct=settings.tunnel.direct,
    )


def shadowsocks_ports(settings: Settings) -> tuple[Ports, ...]:
    """Return the ports that clients connect to."""
    port = settings.shadowsocks.port
    if not settings.shadowsocks.on:
        return ()
    tcp, udp = Ports(port, port, "tcp"), Ports(port, port, "udp")
    return (tcp, udp) if settings.shadowsocks.udp else (tcp,)


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything that follows from settings, account and endpoints."""

    settings: Settings
    ids: OurIds
    account: Account
    endpoints: tuple[Endpoint, ...]
    listening: frozenset[int] = frozenset()
    """TCP ports of this host whose sessions may be older than ss-warp."""
    remembered: Guise | None = None
    """What worked last."""
    engine: Implementation = "userspace"

    @property
    def guise(self) -> Guise:
        """What messages look like: as remembered where the settings still allow it, else as they prefer."""
        allowed = guises(self.settings, self.account)
        return self.remembered if self.remembered in allowed else allowed[0]

    def look(self, snapshot: Snapshot) -> Uplinks:
        """Return the uplinks found in `snapshot`."""
        tunnel = [one.ip for one in self.account.addresses]
        return find_uplinks(snapshot, self.ids.links, host=on_host(self.settings), tunnel=tunnel)

    @property
    def outbound_device(self) -> str | None:
        """The device that ssserver is bound to; None if one family bypasses the tunnel."""
        # A socket can be bound to one device only, so with a direct family ssserver is not bound at all; a
        # rule for its user leads it into the tunnel instead.
        return None if self.settings.tunnel.direct else self.ids.device

    def device(self) -> DeviceConfig:
        """Return the configuration of the device, with the first endpoint."""
        return DeviceConfig(
            name=self.ids.device,
            private_key=self.account.private_key,
            peer_public_key=self.account.peer_public_key,
            endpoint=self.endpoints[0],
            mark=self.ids.mark.value,
            keepalive=round(self.settings.tunnel.keepalive),
            guise=self.guise,
        )

    def plan(self, uplinks: Uplinks) -> NetworkPlan:
        """Return links, addresses, routes and rules."""
        return network_plan(
            route_mode(self.settings),
            self.ids,
            uplinks,
            self.addresses(uplinks),
            mtu(self.settings, uplinks.mtu),
            input_ports=self.settings.firewall.input_ports,
            outbound_subnets=direct_subnets(self.settings),
            direct=self.settings.tunnel.direct,
            floor="wireguard" if self.engine == "kernel" else "tun",
        )

    def policy(self, uplinks: Uplinks) -> Policy:
        """Return the kill switch's policy with the tunnel in place."""
        # Userspace writes the reserved bytes itself. The kernel has no place for them, so nftables does.
        octets = self.guise.reserved
        common: dict[str, Any] = {
            "device": self.ids.device,
            "addresses": tuple(address.ip for address in self.addresses(uplinks)),
            "endpoints": frozenset(Destination(one.address, one.port, "udp") for one in self.endpoints),
            "shadowsocks": shadowsocks_ports(self.settings),
            "outer": self.account.v4 if self.account.v4 in uplinks.occupied else None,
            "mark": self.ids.mark,
            "direct": self.settings.tunnel.direct,
            "reserved": octets if self.engine == "kernel" and any(octets) else b"",
        }
        match route_mode(self.settings):
            case "full" if on_host(self.settings):
                return HostFull(
                    **common,
                    null_device=self.ids.null_device,
                    uplinks=uplinks.links,
                    source=next((a for a in uplinks.addresses if isinstance(a, IPv4Address)), None),
                    neighbours=neighbours(self.settings, uplinks),
                    input_ports=self.settings.firewall.input_ports,
                    listening=tuple(sorted(self.listening)),
                    foreign=uplinks.foreign,
                    peers=uplinks.peers,
                )
            case "full":
                return FullTunnel(
                    **common,
                    neighbours=neighbours(self.settings, uplinks),
                    input_ports=self.settings.firewall.input_ports,
                )
            case "proxy":
                return ProxyTunnel(**common)

    def may_go_on(self, uplinks: Uplinks, local: Address, remote: Address) -> bool:
        """Return whether an outgoing connection that is older than the firewall may go on."""
        inside = any(local == one.ip for one in self.addresses(uplinks))
        named = any(remote in network for network in (*uplinks.direct, *direct_subnets(self.settings)))
        return inside or named or remote.version == self.settings.tunnel.direct

    def addresses(self, uplinks: Uplinks) -> tuple[Interface, ...]:
        """Return the tunnel's addresses in the families that the settings want and the kernel offers."""
        # The kernel may lack IPv6 altogether; a tunnel address in a missing family could not be added.
        families = {*uplinks.families} & {*self.settings.tunnel.families}
        return tuple(
            INNER_ADDRESS if one.version == 4 and one.ip in uplinks.occupied else one
            for one in self.account.addresses
            if one.version in families
        )

    def require_family(self, uplinks: Uplinks) -> None:
        """Raise PlatformError if the tunnel has no address, or no probe could use it."""
        probe = self.probe(uplinks)
        if not (probe.dns and probe.urls()):
            has = " and ".join(sorted(f"IPv{one.version}" for one in self.account.addresses))
            here = " and ".join(f"IPv{family}" for family in uplinks.families)
            # All three are needed to see which setting excludes which.
            carries = "dual" if len(carried := self.settings.tunnel.families) > 1 else carried[0]
            raise PlatformError(
                f"cannot probe the tunnel: the account has {has}, this kernel {here}, "
                f"WARP_IP_VERSION is {carries}",
                "DNS_ADDRESSES and HEALTH_TRACE_URLS must name one of a family that all three have",
            )

    def probe(self, uplinks: Uplinks) -> Probe:
        """Return the probe, in the families that the tunnel has."""
        families: set[Family] = {one.version for one in self.addresses(uplinks)}
        return Probe(
            dns=tuple(one for one in self.settings.dns.addresses if one.version in families),
            trace_urls=self.settings.health.trace_urls,
            ca_file=self.settings.health.ca_file,
            interval=self.settings.health.interval,
            strict_clock=needs_exact_clock(self.settings),
        )


def needs_exact_clock(settings: Settings) -> bool:
    """Return whether clients are refused when this machine's clock is wrong."""
    return settings.shadowsocks.on and settings.shadowsocks.method.name.startswith("2022-")


def neighbours(settings: Settings, uplinks: Uplinks) -> tuple[Network, ...]:
    """Return where packets may go outside the tunnel: private, adjacent and configured networks."""
    return (*PRIVATE, *uplinks.direct, *direct_subnets(settings))


def direct_subnets(settings: Settings) -> tuple[Network, ...]:
    """Return what is reached by the uplink on purpose; a host may need its cloud's metadata service."""
    named = settings.firewall.outbound_subnets
    return (*named, *HOSTS_OWN) if on_host(settings) else named


OVERHEAD = 80
"""Bytes that WireGuard adds to a packet over IPv6: header 40, UDP 8, its own 32."""

IPV6_MTU = 1280
"""The minimum MTU of IPv6 (RFC 8200 section 5)."""

LARGEST_MTU = 1420
"""Larger packets do not reach WARP whole, even if the uplink allows 9000."""


def mtu(settings: Settings, uplink: int) -> int:
    """Return the device's MTU; `auto` fits the uplink's packets, within what WARP carries."""
    asked = settings.tunnel.mtu
    # Arithmetic, not a search: a hole on the way that reports nothing is what 1280 is for.
    return asked if asked != "auto" else min(max(uplink - OVERHEAD, IPV6_MTU), LARGEST_MTU)


JUNK = "4,40,70"
"""What WARP_JUNK=auto sends: a handful of datagrams, smaller than any handshake."""


def guises(settings: Settings, account: Account) -> tuple[Guise, ...]:
    """Return what messages may look like, best first. Raises SettingsError as `reserved` does."""
    tunnel, octets = settings.tunnel, reserved(settings, account)
    # The kernel sends no junk, and the setting rules out userspace.
    quiet = tunnel.junk == "off" or tunnel.implementation == "kernel"
    junk = ("",) if quiet else ("", JUNK) if tunnel.junk == "auto" else (tunnel.junk,)
    every = (
        (octets, bytes(3)) if tunnel.reserved == "auto" and tunnel.implementation != "kernel" else (octets,)
    )
    return tuple(dict.fromkeys(Guise(one, other) for one in every for other in junk))


def implementation(settings: Settings, remembered: Guise | None) -> Choice:
    """Return what to open first: `auto` is userspace where junk is sent, which the kernel cannot."""
    tunnel = settings.tunnel
    junk = tunnel.junk not in {"auto", "off"} or (tunnel.junk == "auto" and remembered and remembered.junk)
    return "userspace" if tunnel.implementation == "auto" and junk else tunnel.implementation


def reserved(settings: Settings, account: Account) -> bytes:
    """Return the three reserved bytes, zeros to send none.

    Raises SettingsError if they are required and the account has none.
    """
    match settings.tunnel.reserved:
        case bytes(octets):
            return octets
        case "off":
            return bytes(3)
        case "auto":
            return account.client_id or bytes(3)
        case "on" if account.client_id is None:
            raise SettingsError(
                ["WARP_RESERVED=on: this account has no client_id; set the bytes, e.g. 193,29,7"]
            )
        case "on":
            return account.client_id
