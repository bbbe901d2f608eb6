"""The five doors to the outside, as protocols: Clock, Http, Netlink, Nft, Processes; World holds them.

Everything else is pure or goes through one of these, so a test can pass in a world that behaves
(tests/fakes) and inspect its state afterwards.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from entrypoint.addresses import Address, Endpoint
from entrypoint.linux import kernel_objects as kernel

if TYPE_CHECKING:
    import ssl

    import httpx


class Clock(Protocol):
    """Time: monotonic for durations, wall for people and tokens."""

    def monotonic(self) -> float:
        """Return seconds since boot, time asleep included (CLOCK_BOOTTIME)."""

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
    """HTTPS and DNS on sockets that are marked or bound before they connect; no system resolver."""

    def transport(
        self,
        way: Marked | Bound,
        addresses: Sequence[Address],
        ca_file: Path | None = None,
        *,
        newest: "ssl.TLSVersion | None" = None,
    ) -> "httpx.AsyncBaseTransport":
        """Return a transport for one httpx.AsyncClient that connects to `addresses`, in this order.

        The URL's host is only the TLS server name; `ca_file` replaces the system's CAs; no TLS newer
        than `newest` is offered.
        """

    async def lookup(
        self, name: str, servers: Sequence[Address], way: Marked | Bound, *, limit: float = 5.0
    ) -> tuple[Address, ...]:
        """Query the DNS servers in turn (UDP, then TCP if truncated); return the addresses, IPv4 first.

        An IP literal is returned as it is. Raises OSError when no server answers with an address
        within `limit` seconds each.
        """

    async def ask(self, server: Address, name: str, way: Marked | Bound, *, limit: float) -> None:
        """Send one DNS query over UDP; return on any answer, raise OSError without one in `limit` seconds."""

    async def knock(self, endpoint: Endpoint, way: Marked | Bound, *, limit: float) -> None:
        """Send a datagram to the edge; silence proves nothing.

        Raises OSError if this machine or a router on the way rejects it within `limit` seconds.
        """


class Netlink(Protocol):
    """The kernel's links, addresses, routes, rules and WireGuard devices.

    Operations raise OSError with the kernel's errno: EEXIST for what exists, ENOENT/ESRCH/ENODEV/
    EADDRNOTAVAIL for what does not, EOPNOTSUPP for an unknown kind of link, EPERM without NET_ADMIN.
    """

    async def link(self, name: str) -> kernel.LinkState | None:
        """Look one link up by its name."""

    async def snapshot(self, *, whole: bool = False, table: int = 0) -> kernel.Snapshot:
        """List links, addresses, rules, and of the routes those that decide.

        With `whole` that is every route, with `table` what is in it.
        """

    async def add(self, item: kernel.Item) -> None:
        """Add one item."""

    async def remove(self, item: kernel.Item) -> None:
        """Remove one item."""

    def hold(self, link: kernel.LinkState) -> None:
        """Keep the carrier of an unread TUN as long as we live; of one TUN at a time."""

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe; the iterator yields once for each burst of changes, whoever makes them."""

    async def configure_wireguard(self, config: kernel.DeviceConfig) -> None:
        """Configure a kernel WireGuard device; its old peers are gone afterwards."""

    async def wireguard_stats(self, device: str) -> kernel.Stats:
        """Read a kernel WireGuard device's counters."""

    def traffic(self, device: str) -> kernel.Traffic | None:
        """Read a device's packet counters without waiting; None if it does not exist."""

    async def route_device(self, flow: kernel.Flow) -> str | None:
        """Return the interface that a local packet would leave by, None if it would be rejected."""

    def close_outgoing(self, allowed: Callable[[Address, Address], bool]) -> int:
        """Close the connections to the internet that began here, except `allowed` (local, remote) ones.

        Returns how many were closed.
        """

    def listening_ports(self) -> frozenset[int]:
        """Read the TCP ports that programs listen on."""

    def resolvers(self) -> tuple[Address, ...]:
        """Read which resolvers programs here ask."""

    def socket_users(self) -> frozenset[int]:
        """Read which users have sockets."""


class Nft(Protocol):
    """nftables; `load` is one atomic transaction."""

    async def load(self, text: str) -> None:
        """Run `nft -f -` on `text`; raise OSError if it is refused: then nothing has changed."""

    async def listing(self, family: str, table: str) -> str:
        """Return `nft -s list table`'s text, empty if it does not exist."""

    async def visit(
        self, visits: Sequence[kernel.Visit], expected: Mapping[kernel.Visit, str]
    ) -> Mapping[kernel.Visit, str]:
        """Return the interface that each visit's answer leaves by; what is not answered is left out.

        Waits a moment for what is missing, longer where answers are `expected`.
        """

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Subscribe; the iterator yields once for each burst of changes, our own included."""


@dataclass(frozen=True, slots=True)
class Program:
    """A child process to start: nothing secret in `argv` or `environment`.

    `files` are passed as sealed memory files; `{name}` in an argument becomes a path that the child can
    open. `uid` is user and group; None keeps our own. `name` is for the log.
    """

    name: str
    argv: Sequence[str]
    uid: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Running(Protocol):
    """A started child in its own session; it dies with the supervisor."""

    @property
    def pid(self) -> int:
        """Process id."""

    async def wait(self) -> int:
        """Wait for its end; return the exit code, negative for a signal."""

    def lines(self) -> AsyncIterator[str]:
        """Yield what it prints, line by line, until it ends."""


class Processes(Protocol):
    """Child processes, and the Unix sockets that control them."""

    def running(self, program: Program) -> AbstractAsyncContextManager[Running]:
        """Start the program; on leaving end it with SIGTERM, after a grace period SIGKILL, and reap it.

        Raises PlatformError if it does not exist.
        """

    async def exchange(self, socket: Path, request: str) -> str:
        """Send `request` to a Unix stream socket and return the answer up to its empty line.

        Raises OSError if nothing listens.
        """

    async def is_responsive(self, address: Address, port: int, *, limit: float) -> bool:
        """Return whether the server on our `address` reacts to a client that closes without sending."""


# The only way to the outside. Tests pass in a world that refuses what Linux refuses.
@dataclass(frozen=True, slots=True)
class World:
    """All five doors."""

    clock: Clock
    http: Http
    netlink: Netlink
    nft: Nft
    processes: Processes
