"""A whole world of fakes: a container on a network, Cloudflare behind it, and the chain that runs there.

An answer comes back only when links, addresses, routes, WireGuard and firewall are as they must be.
"""

import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import anyio
import httpx
from anyio.lowlevel import checkpoint

from entrypoint import supervisor
from entrypoint.account.model import public_key
from entrypoint.addresses import Address, Destination, Endpoint
from entrypoint.firewall.policy import Closed
from entrypoint.firewall.ruleset import ruleset
from entrypoint.linux.kernel_objects import LinkState, Snapshot, Traffic
from entrypoint.linux.world import Bound, Marked, Netlink, World
from entrypoint.settings import Settings, load
from entrypoint.status.board import Board, Run
from entrypoint.status.states import State
from entrypoint.wireguard.open import Places
from tests.fakes.clock import FakeClock
from tests.fakes.http import FakeHttp
from tests.fakes.netlink import FakeNetlink
from tests.fakes.nft import FakeNft
from tests.fakes.processes import FakeProcesses
from tests.fakes.warp_api import FakeApi

HOST = "api.cloudflareclient.com"
API = ip_address("104.16.192.82")
RESOLVERS = tuple(map(ip_address, ("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001")))
SEEN = ip_address("198.51.100.7")
EXIT = {4: "104.28.0.1", 6: "2a09:bac1::1"}
LONGEST = 60_000
"""Turns of the event loop after which what is waited for does not come."""


class EdgeHttp(FakeHttp):
    """The Http door: by the tunnel when it carries packets, or marked, through the firewall's holes.

    `fail_at` maps the number of a question, counted from 1, to the error that it meets instead.
    """

    def __init__(self, netlink: FakeNetlink, nft: FakeNft, processes: FakeProcesses) -> None:
        self.api = FakeApi()
        self.edge = True
        self.edges: set[Address] | None = None
        """Where the edge is; None: everywhere."""
        self.deaf_engines: set[str] = set()
        """Implementations that never hear an answer."""
        self.small_only: set[str] = set()
        """Implementations whose offloads lose large answers."""
        self.deaf = False
        """Whether resolvers do not answer marked queries."""
        self.through = False
        """Whether there is a tunnel, whatever the kernel's links say: for a test of a command alone."""
        self.ahead = 0.0
        """Seconds that Cloudflare's clock is ahead of this machine's."""
        self.now: Callable[[], float] = lambda: 0.0
        self.count = 0
        self.fail_at: dict[int, OSError] = {}
        self._netlink, self._nft, self._processes = netlink, nft, processes
        sites = dict.fromkeys(RESOLVERS, self._trace) | {API: self.api}
        super().__init__(sites, {one: {HOST: [API]} for one in RESOLVERS})

    def may(self, way: Marked | Bound, destination: Destination) -> bool:
        if isinstance(way, Bound):
            return self.through or self._through(way.device, destination.address)
        return self._out(destination)

    def transport(
        self,
        way: Marked | Bound,
        addresses: Sequence[Address],
        ca_file: Path | None = None,
        *,
        newest: ssl.TLSVersion | None = None,
    ) -> httpx.AsyncBaseTransport:
        if error := self._refused():
            addresses = ()
            assert isinstance(error, OSError)
        return super().transport(way, addresses, ca_file, newest=newest)

    async def lookup(
        self, name: str, servers: Sequence[Address], way: Marked | Bound, *, limit: float = 5.0
    ) -> tuple[Address, ...]:
        await checkpoint()
        if error := self._refused():
            raise error
        return await super().lookup(name, servers, way, limit=limit)

    async def ask(self, server: Address, name: str, way: Marked | Bound, *, limit: float) -> None:
        await checkpoint()
        if self.deaf and isinstance(way, Marked):
            raise TimeoutError
        if error := self._refused():
            raise error
        await super().ask(server, name, way, limit=limit)

    def _refused(self) -> OSError | None:
        self.count += 1
        return self.fail_at.get(self.count)

    def _out(self, to: Destination) -> bool:
        """What nft says of a marked packet to the uplink."""
        table = self._nft.tables.get("inet ss_warp", "")
        if "hook output priority filter; policy drop" not in table:
            return True
        return re.search(rf"[ {{]{to.address} \. {to.transport} \. {to.port}[ ,]", table) is not None

    def _through(self, device: str, to: Address) -> bool:
        there = self._netlink.traffic(device)
        if there is None:
            return False
        alive = self.edge and self._carries(device) and self._leads(device, to)
        self._netlink.packets[device] = Traffic(there.rx + alive, there.tx + 1)
        return alive

    def _leads(self, device: str, to: Address) -> bool:
        up = any(link.name == device and link.up for link in self._netlink.links)
        own = any(a.device == device and a.address.version == to.version for a in self._netlink.addresses)
        tables = {
            r.table for r in self._netlink.rules if (r.family == to.version and r.iif) or r.oif == device
        }
        routes = [r for r in self._netlink.routes if r.device == device and r.table in tables]
        return up and own and any(to in route.destination for route in routes)

    def _carries(self, device: str) -> bool:
        """Whether WireGuard has a key that Cloudflare knows, and its packets may leave."""
        if config := self._netlink.wireguards.get(device):
            key, endpoint, engine_name = config.private_key, config.endpoint, "kernel"
        elif (engine := self._processes.engine(device)) and engine.settings:
            key = engine.private_key
            at, _, port = engine.settings["endpoint"].rpartition(":")
            endpoint, engine_name = Endpoint(ip_address(at.strip("[]")), int(port)), "userspace"
        else:
            return False
        if engine_name in self.deaf_engines or endpoint.address not in (self.edges or {endpoint.address}):
            return False
        return public_key(key) in self.api.keys and self._out(
            Destination(endpoint.address, endpoint.port, "udp")
        )

    def _trace(self, request: httpx.Request) -> httpx.Response:
        bound = isinstance(request.extensions["way"], Bound)
        if bound and ("kernel" if self._netlink.wireguards else "userspace") in self.small_only:
            raise httpx.ReadError("nothing comes")
        ip = EXIT[ip_address(request.url.host).version] if bound else SEEN
        page = f"ip={ip}\nts={self.now() + self.ahead}\ncolo=FRA\nloc=DE\nwarp={'on' if bound else 'off'}\n"
        return httpx.Response(200, text=page)


class CountingNetlink(FakeNetlink):
    """Refuses a snapshot, too: the number of it, counted from 1, that fails, and how."""

    snapshots = 0
    deaf_at: tuple[int, int] = (0, 0)

    async def snapshot(self, *, whole: bool = False, table: int = 0) -> Snapshot:
        self.snapshots += 1
        if self.snapshots == self.deaf_at[0]:
            raise OSError(self.deaf_at[1], "the kernel does not say")
        return await super().snapshot()


@contextmanager
def in_memory(*, has_wireguard: bool = False) -> "Iterator[FakeWorld]":
    """A world whose volume is not on a disk: thousands of small files are written to it."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield FakeWorld(Path(directory), has_wireguard)


class Inside:
    """What the engine sees of the kernel: it meets no fault that is meant for us."""

    def __init__(self, netlink: FakeNetlink) -> None:
        self.netlink = netlink
        self.add, self.changes = netlink.add, netlink.changes

    async def snapshot(self, *, whole: bool = False, table: int = 0) -> Snapshot:
        return await FakeNetlink.snapshot(self.netlink)

    async def link(self, name: str) -> LinkState | None:
        return await FakeNetlink.link(self.netlink, name)


@dataclass
class FakeWorld:
    """A container with a state volume; prints what it shows of our product."""

    directory: Path
    has_wireguard: bool = False

    def __post_init__(self) -> None:
        self.state = self.directory / "state"
        self.state.mkdir()
        (self.directory / "tun").touch()
        self.places = Places(self.directory / "tun", self.directory / "sockets")
        self.clock = FakeClock()
        container = CountingNetlink.container(has_wireguard=self.has_wireguard)
        assert isinstance(container, CountingNetlink)
        self.netlink = container
        self.nft = FakeNft()
        self.nft.leads = self.netlink.answer_to
        self.nft.tables["ip others"] = "\tchain theirs {\n\t}\n"
        self.processes = FakeProcesses(cast("Netlink", Inside(self.netlink)), self.clock)
        self.http = EdgeHttp(self.netlink, self.nft, self.processes)
        self.http.now = self.clock.wall
        self.doors = World(self.clock, self.http, self.netlink, self.nft, self.processes)

    def __str__(self) -> str:
        return f"{self.netlink}\n{self.nft}\n{' '.join(sorted(self.processes.alive()))}"

    async def closed(self) -> str:
        """What `str` will be when our closed tables are all that is added to what is there now."""
        added = FakeNft()
        await added.load(ruleset(Closed()))
        added.tables |= {name: body for name, body in self.nft.tables.items() if "ss_warp" not in name}
        return f"{self.netlink}\n{added}\n"

    def settings(self, **environ: str) -> Settings:
        base = {"NETWORK": "own", "WARP_STATE_DIR": str(self.state), "WARP_DEVICE_NAME": "lab"}
        return load(base | environ)

    def board(self) -> Board:
        return Board(self.clock, self.directory / "run")

    async def run(self, board: Board | None = None, **environ: str) -> None:
        """Run the chain until cancelled, or until it fails."""
        run = Run(self.settings(**environ), self.doors, board or self.board())
        await supervisor.keep_up(run, self.places)

    @asynccontextmanager
    async def serving(self, **environ: str) -> AsyncIterator[Board]:
        """Inside, the chain is connected and serves; on leaving it is cancelled as by SIGTERM."""
        board = self.board()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: self.run(board, **environ))
            await self.until(lambda: board.status.state is State.CONNECTED)
            if environ.get("SHADOWSOCKS") != "off":
                await self.until(lambda: bool(board.status.listening))
            await self.clock.sleep(0.001)
            yield board
            tasks.cancel_scope.cancel()

    async def attempt(self, **environ: str) -> Exception | None:
        """Start, and stop as soon as it serves; return what went wrong."""
        try:
            async with self.serving(**environ):
                return None
        except Exception as failure:
            return failure

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(LONGEST):
            if condition():
                return
            await checkpoint()
        raise AssertionError(f"it does not come:\n{self}")
