"""The five doors to the world, as Protocols: Clock, Http, Netlink, Nft, Processes; World holds them.

Everything else is pure or goes through one of these, so a test can hand in a world that behaves
(tests/fakes.py) and look at what it has become.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ssl

    import httpx

    from entrypoint.addresses import Address
    from entrypoint.linux.kernel_objects import DeviceConfig, Flow, Item, Snapshot, Stats, Traffic


class Clock(Protocol):
    """Time: monotonic for durations, wall for people and tokens."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; goes on while the machine sleeps (CLOCK_BOOTTIME)."""

    def wall(self) -> float:
        """Return seconds since 1970, UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""


@dataclass(frozen=True, slots=True)
class Marked:
    """Outside the tunnel: sockets carry this fwmark before they connect."""

    mark: int


@dataclass(frozen=True, slots=True)
class Bound:
    """Through the tunnel: sockets are bound to this device before they connect."""

    device: str


class Http(Protocol):
    """HTTPS and DNS on sockets that know their way before they connect; no system resolver."""

    def transport(
        self,
        way: Marked | Bound,
        addresses: "Sequence[Address]",
        ca_file: Path | None = None,
        *,
        newest: "ssl.TLSVersion | None" = None,
    ) -> "httpx.AsyncBaseTransport":
        """Return a transport for one httpx.AsyncClient that connects to `addresses`, in this order.

        The URL's host is only the TLS server name; `ca_file` replaces the system's CAs; no TLS newer
        than `newest` is offered.
        """

    async def lookup(
        self, name: str, servers: "Sequence[Address]", way: Marked | Bound, *, limit: float = 5.0
    ) -> "tuple[Address, ...]":
        """Ask the DNS servers in turn (UDP, then TCP when truncated); return the addresses, IPv4 first.

        An IP literal is returned as it is. Raises OSError when no server answers with an address
        within `limit` seconds each.
        """

    async def ask(self, server: "Address", name: str, way: Marked | Bound, *, limit: float) -> None:
        """Send one DNS query over UDP; return on any answer, raise OSError without one in `limit` seconds."""


class Netlink(Protocol):
    """The kernel's links, addresses, routes, rules and WireGuard devices.

    Operations raise OSError with the kernel's errno: EEXIST for what is there, ENOENT/ESRCH/ENODEV/
    EADDRNOTAVAIL for what is not, EOPNOTSUPP for an unknown kind of link, EPERM without NET_ADMIN.
    """

    async def snapshot(self) -> "Snapshot":
        """List everything."""

    async def add(self, item: "Item") -> None:
        """Add one item."""

    async def remove(self, item: "Item") -> None:
        """Remove one item."""

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe; the iterator yields once for each burst of changes made by anybody."""

    async def configure_wireguard(self, config: "DeviceConfig") -> None:
        """Configure a kernel WireGuard device; its old peers are gone afterwards."""

    async def wireguard_stats(self, device: str) -> "Stats":
        """Read a kernel WireGuard device's counters."""

    def traffic(self, device: str) -> "Traffic | None":
        """Read any device's packet counters at once; None when there is no such device."""

    async def route_device(self, flow: "Flow") -> str | None:
        """Ask by which device a packet from us would leave; None: refused, or its source is not ours."""

    def listening_ports(self) -> frozenset[int]:
        """Read which TCP ports somebody listens on."""


class Nft(Protocol):
    """nftables; `load` is one atomic transaction."""

    async def load(self, text: str) -> None:
        """Run `nft -f -` on `text`; raise OSError when it is refused, and then nothing has changed."""

    async def listing(self, family: str, table: str) -> str:
        """Return `nft -s list table`'s text, empty when there is no such table."""

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe; the iterator yields once for each burst of changes made by anybody, us too."""


@dataclass(frozen=True, slots=True)
class Program:
    """A child process to start: nothing secret in `argv` or `environment`.

    `files` are handed over as sealed memory files; `{name}` in an argument becomes the path the
    child can open. `uid` is user and group; None stays what we are. `name` is for the log.
    """

    name: str
    argv: Sequence[str]
    uid: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Running(Protocol):
    """A started child, in its own session; it dies with us."""

    @property
    def pid(self) -> int:
        """Its process id."""

    async def wait(self) -> int:
        """Wait for its end; return the exit code, negative for a signal."""

    def lines(self) -> AsyncIterator[str]:
        """Yield what it prints, line by line, until it ends."""


class Processes(Protocol):
    """Child processes, and the Unix sockets they are steered by."""

    def running(self, program: Program) -> AbstractAsyncContextManager[Running]:
        """Start it; on leaving: SIGTERM, after a grace period SIGKILL, and it is always reaped.

        Raises PlatformError when the program does not exist.
        """

    async def exchange(self, socket: Path, request: str) -> str:
        """Send `request` to a Unix stream socket and return the answer up to its empty line.

        Raises OSError when nobody listens.
        """

    async def is_responsive(self, address: "Address", port: int, *, limit: float) -> bool:
        """Say whether who listens at our own `address` reacts to a client that says nothing and ends."""


@dataclass(frozen=True, slots=True)
class World:
    """All five doors."""

    clock: Clock
    http: Http
    netlink: Netlink
    nft: Nft
    processes: Processes
