"""What the kill switch is asked for, as values; killswitch.py says them to nftables. Light to import."""

from dataclasses import dataclass

from entrypoint.addresses import MARK, Address, Destination, Family, Mark, Network, Ports


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing leaves but answers, and marked packets to the holes."""

    holes: frozenset[Destination] = frozenset()
    input_ports: tuple[Ports, ...] = ()
    mark: Mark = MARK


@dataclass(frozen=True, slots=True)
class FullTunnel:
    """Everything leaves by the device, but for answers, neighbours and what carries it.

    `addresses` are the tunnel's; `endpoints` where its encrypted packets go; `neighbours` the private
    prefixes and FIREWALL_OUTBOUND_SUBNETS; `shadowsocks` and `input_ports` what may be asked from outside.
    `direct` is a family that may leave by the uplinks as it likes.
    """

    device: str
    addresses: tuple[Address, ...]
    endpoints: frozenset[Destination]
    neighbours: tuple[Network, ...] = ()
    shadowsocks: tuple[Ports, ...] = ()
    input_ports: tuple[Ports, ...] = ()
    holes: frozenset[Destination] = frozenset()
    mark: Mark = MARK
    direct: Family | None = None
    reserved: bytes = b""


@dataclass(frozen=True, slots=True)
class ProxyTunnel:
    """Only ssserver's user and the tunnel's addresses are policed."""

    device: str
    addresses: tuple[Address, ...]
    shadowsocks: tuple[Ports, ...] = ()
    endpoints: frozenset[Destination] = frozenset()
    mark: Mark = MARK
    direct: Family | None = None
    reserved: bytes = b""


@dataclass(frozen=True, slots=True)
class HostFull:
    """The host's namespace: of what it sends itself, only what leaves by an uplink is policed.

    `uplinks` are names of interfaces; `devices` the tunnel's and the one that swallows; `listening` the
    TCP ports whose sessions may be older than conntrack; `foreign` marks that another VPN's rules send
    to `main`; the rest as in FullTunnel. Without addresses and endpoints nothing is sent: closed.
    """

    devices: tuple[str, str]
    addresses: tuple[Address, ...]
    uplinks: tuple[str, ...]
    endpoints: frozenset[Destination] = frozenset()
    neighbours: tuple[Network, ...] = ()
    shadowsocks: tuple[Ports, ...] = ()
    listening: tuple[int, ...] = ()
    foreign: tuple[Mark, ...] = ()
    holes: frozenset[Destination] = frozenset()
    mark: Mark = MARK
    direct: Family | None = None
    reserved: bytes = b""

    @property
    def device(self) -> str:
        """The tunnel's device."""
        return self.devices[0]


type Policy = Closed | FullTunnel | ProxyTunnel | HostFull
