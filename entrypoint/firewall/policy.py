"""What the kill switch has to allow, as values; ruleset.py turns them into nftables text. Light to import.

A policy prints itself as one sentence, which is logged when it is applied; docs/security.md says what
each of them promises.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from entrypoint.addresses import MARK, Address, Destination, Family, Mark, Network, Ports
from entrypoint.linux.kernel_objects import TunnelPeer


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Only replies leave, and marked packets to the holes."""

    holes: frozenset[Destination] = frozenset()
    input_ports: tuple[Ports, ...] = ()
    mark: Mark = MARK

    def __str__(self) -> str:
        return f"blocking everything but replies{_holes(self.holes)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelPolicy:
    """What the three policies around a tunnel have in common."""

    device: str
    """The tunnel's interface."""
    addresses: tuple[Address, ...] = ()
    """The tunnel's addresses; without any of a family nothing of that family enters the tunnel."""
    outer: IPv4Address | None = None
    """What IPv4 packets get as their source on entering the tunnel: something else here has that address."""
    endpoints: frozenset[Destination] = frozenset()
    """Where WireGuard's encrypted packets go."""
    holes: frozenset[Destination] = frozenset()
    shadowsocks: tuple[Ports, ...] = ()
    """Ports of the Shadowsocks server."""
    mark: Mark = MARK
    direct: Family | None = None
    """The family that may bypass the tunnel."""
    reserved: bytes = b""
    """Bytes that nftables writes into WireGuard's messages: the kernel's engine has no place for them."""

    def _path(self) -> str:
        ends = ", ".join(sorted({str(one.address) for one in self.endpoints}))
        bypass = f", IPv{self.direct} bypasses the tunnel" if self.direct else ""
        return (
            f"{f' through {self.device} to {ends}' if ends else ' nowhere yet'}{bypass}{_holes(self.holes)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FullTunnel(TunnelPolicy):
    """Our own namespace: everything leaves through the tunnel except replies and packets to neighbours.

    `neighbours` are reached directly; `input_ports` are open to the outside besides Shadowsocks.
    """

    neighbours: tuple[Network, ...] = ()
    input_ports: tuple[Ports, ...] = ()

    def __str__(self) -> str:
        return f"sending everything but replies and {len(self.neighbours)} private networks{self._path()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyTunnel(TunnelPolicy):
    """Only ssserver's user and the tunnel's addresses are restricted."""

    def __str__(self) -> str:
        return f"sending ssserver's traffic{self._path()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFull(TunnelPolicy):
    """The host's namespace: only what this machine itself sends by an uplink is restricted.

    Without addresses and endpoints nothing is sent: closed.
    """

    null_device: str
    """The interface of the IPv6 floor: what falls to it is refused instead of swallowed."""
    uplinks: tuple[str, ...]
    """Names of the uplink interfaces."""
    source: IPv4Address | None = None
    """An address of theirs, for errors about forwarded packets."""
    neighbours: tuple[Network, ...] = ()
    listening: tuple[int, ...] = ()
    """TCP ports whose sessions may be older than connection tracking."""
    foreign: tuple[Mark, ...] = ()
    """Marks that another VPN's rules send to `main`."""
    peers: tuple[TunnelPeer, ...] = ()
    """Far ends of this host's own tunnels: their outer packets carry no mark and are no replies."""
    input_ports: tuple[Ports, ...] = ()
    """Servers whose replies pass even where connection tracking was switched off for them."""

    def __str__(self) -> str:
        return f"sending what this host starts on {', '.join(self.uplinks) or 'no uplink'}{self._path()}"


type Policy = Closed | FullTunnel | ProxyTunnel | HostFull


def _holes(holes: Iterable[Destination]) -> str:
    places = ", ".join(sorted(str(one.address) for one in holes))
    return f"; open for ss-warp itself: {places}" if places else ""
