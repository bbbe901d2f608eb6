"""What the kernel holds, as values: links, addresses, routes and rules.

Every item prints as the `ip` command that adds or removes it: logs, fakes, tests and `explain` use
the same text. `network_plan` decides which items are wanted, reconcile.py compares them with the
kernel's, netlink.py talks to the kernel.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from entrypoint.addresses import Address, Endpoint, Family, Interface, Mark, Network

MAIN_TABLE = 254
# The same rule under another protocol is another rule to the kernel.
PROTOCOL_KERNEL = 2
"""Rules carry RTPROT_KERNEL: systemd-networkd deletes rules of every other protocol that it did not make."""


type Verb = Literal["add", "del"]


@dataclass(frozen=True, slots=True)
class Link:
    """A device that we create: a persistent TUN, or a kernel WireGuard interface."""

    name: str
    kind: Literal["tun", "wireguard"]

    def command(self, verb: Verb) -> str:
        """Return the `ip` command that creates or deletes it."""
        if verb == "add" and self.kind == "tun":
            return f"ip tuntap add dev {self.name} mode tun vnet_hdr"
        return f"ip link {verb} dev {self.name}{f' type {self.kind}' if verb == 'add' else ''}"


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A device is up, with this MTU (bytes); `None` leaves the MTU alone."""

    name: str
    mtu: int | None = None

    def command(self, verb: Verb) -> str:
        """Return the `ip` command that brings it up or takes it down."""
        mtu = f" mtu {self.mtu}" if self.mtu and verb == "add" else ""
        return f"ip link set dev {self.name}{mtu} {'up' if verb == 'add' else 'down'}"


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address on a device."""

    device: str
    address: Interface

    def command(self, verb: Verb) -> str:
        """Return the `ip` command; no duplicate address detection on a tunnel."""
        nodad = " nodad" if self.address.version == 6 and verb == "add" else ""
        return f"ip address {verb} {self.address} dev {self.device}{nodad}"


@dataclass(frozen=True, slots=True)
class Route:
    """One route of one table; `device` None is an unreachable route, metric 0 the family's default.

    `more` is what another program's route has beyond this; it never equals one of our routes.
    """

    destination: Network
    table: int
    device: str | None
    metric: int = 0
    gateway: Address | None = None
    more: str = ""
    connected: bool = field(default=False, compare=False)
    """Whether the kernel made it from an interface's address."""

    def command(self, verb: Verb) -> str:
        """Return the `ip` command that adds or deletes it."""
        via = f" via {self.gateway}" if self.gateway else ""
        dev = f" dev {self.device}" if self.device else ""
        kind = "" if self.device else "unreachable "
        metric = f" metric {self.metric}" if self.metric else ""
        default = "default" if self.destination.prefixlen == 0 else str(self.destination)
        more = f" {self.more}" if self.more else ""
        route = f"{kind}{default}{via}{dev} table {self.table}{metric}{more}"
        return f"ip -{self.destination.version} route {verb} {route}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy rule; `table` None is an unreachable rule. Ports are inclusive ranges.

    `more` is what another program's rule has beyond this; it never equals one of our rules.
    """

    family: Family
    priority: int
    table: int | None
    source: Network | None = None
    destination: Network | None = None
    mark: Mark | None = None
    iif: str | None = None
    oif: str | None = None
    uid: int | None = None
    ip_protocol: Literal["tcp", "udp"] | None = None
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    suppress: int | None = None
    """Routes with a prefix this long or shorter do not count (suppress_prefixlength)."""
    protocol: int = PROTOCOL_KERNEL
    more: str = ""

    def command(self, verb: Verb) -> str:
        """Return the `ip` command that adds or deletes it."""

        def host(network: Network) -> str:
            single = network.prefixlen == network.max_prefixlen
            return str(network.network_address) if single else str(network)

        def ports(span: tuple[int, int]) -> str:
            return str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"

        words = [f"priority {self.priority}", f"from {host(self.source)}" if self.source else "from all"]
        if self.destination:
            words.append(f"to {host(self.destination)}")
        if self.mark:
            words.append(f"fwmark {self.mark}")
        if self.iif:
            words.append(f"iif {self.iif}")
        if self.oif:
            words.append(f"oif {self.oif}")
        if self.uid is not None:
            words.append(f"uidrange {self.uid}-{self.uid}")
        if self.ip_protocol:
            words.append(f"ipproto {self.ip_protocol}")
        if self.source_ports:
            words.append(f"sport {ports(self.source_ports)}")
        if self.destination_ports:
            words.append(f"dport {ports(self.destination_ports)}")
        if self.more:
            words.append(self.more)
        table = {None: "unreachable", MAIN_TABLE: "lookup main"}.get(self.table, f"lookup {self.table}")
        if self.suppress is not None:
            table += f" suppress_prefixlength {self.suppress}"
        protocol = "kernel" if self.protocol == PROTOCOL_KERNEL else str(self.protocol)
        text = " ".join([*words, table, f"protocol {protocol}"])
        return f"ip -{self.family} rule {verb} {text}"


type Item = Link | LinkUp | LinkAddress | Route | Rule


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """The far end of a tunnel that the kernel builds: IP protocol number, and UDP port if it is UDP."""

    address: Address
    protocol: int
    port: int = 0


@dataclass(frozen=True, slots=True)
class LinkState:
    """A device as it is. `kind` is the kernel's word (veth, tun, wireguard, …), empty for hardware."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    peers: tuple[TunnelPeer, ...] = ()
    """Where the outer packets of a tunnel go."""


@dataclass(frozen=True, slots=True)
class AddressState:
    """An address as it is. Usable: neither tentative nor deprecated; permanent: not a privacy address."""

    device: str
    address: Interface
    link_scope: bool = False
    usable: bool = True
    permanent: bool = True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the kernel has at one moment: every link, address, route (of all tables) and rule."""

    links: tuple[LinkState, ...] = ()
    addresses: tuple[AddressState, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    ipv6_by_default: bool = True
    """Whether an interface that is created now has IPv6 (net.ipv6.conf.default.disable_ipv6)."""


@dataclass(frozen=True, slots=True)
class Guise:
    """What messages look like on the way: bytes 1 to 3 of each, and datagrams before each handshake.

    The kernel sends no junk and has no place for the bytes; there nftables writes them.
    """

    reserved: bytes = bytes(3)
    junk: str = ""
    """COUNT,MIN,MAX; empty is none."""

    @property
    def octets(self) -> str:
        """The reserved bytes as text, empty for zeros."""
        return ",".join(map(str, self.reserved)) if any(self.reserved) else ""

    def __str__(self) -> str:
        junk = f"junk ({self.junk}) before each handshake" if self.junk else "no junk"
        return f"{junk}, {f'reserved bytes {self.octets}' if self.octets else 'no reserved bytes'}"


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """A device with its one peer. Keys are base64, keepalive in seconds (0 is off), mark 0 is none."""

    name: str
    private_key: str
    peer_public_key: str
    endpoint: Endpoint
    mark: int
    keepalive: int
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
    guise: Guise = Guise()
    listen_port: int = 0
    """The source port; 0 leaves it as it is."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of the peer; `handshake` in seconds since 1970, 0 = never."""

    handshake: float
    rx_bytes: int
    tx_bytes: int


SSSERVER_UID = 58388
"""ssserver's uid and gid."""


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
class Visit:
    """A connection to our own address; its answer gets the mark, as another program's rules may set it."""

    address: Address
    port: int
    mark: int = 0

    def __str__(self) -> str:
        return f"{self.address} port {self.port}{f' with mark {self.mark:#x}' if self.mark else ''}"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets inside the tunnel, so neither handshakes nor keepalives: a silent edge cannot feign them."""

    rx: int
    tx: int
