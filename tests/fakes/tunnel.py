"""FakeTunnel: what answers through a tunnel, as a Device and the Http door that is bound to it.

An edge with sessions: it loses them (`restart`), comes and goes (`up`), answers on some endpoints only,
is slow, busy or not WARP. Time is the clock's; a question without an answer takes its whole limit.
"""

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from random import Random

import httpx
from anyio import sleep_forever
from anyio.lowlevel import checkpoint

from entrypoint.addresses import Address, Endpoint, Family
from entrypoint.linux.kernel_objects import DeviceConfig, Guise, Stats, Traffic
from entrypoint.linux.world import Bound, Clock, Marked
from entrypoint.wireguard.device import Implementation, Trouble
from tests.fakes.http import Slices

EXIT: dict[Family, str] = {4: "104.28.0.1", 6: "2a09:bac1::1"}


@dataclass
class FakeTunnel:
    """Device and Http at once; what it did is in `configured` (endpoints, in order) and `recreated`."""

    clock: Clock
    config: DeviceConfig
    name: str = "wg0"
    implementation: Implementation = "userspace"
    up: bool = True
    exists: bool = True
    session: bool = True
    warp: str = "on"
    round_trip: float = 0.05
    families: set[Family] = field(default_factory=lambda: {4, 6})
    traces: bool = True
    certificate: ssl.SSLCertVerificationError | None = None
    """Why the trace page's certificate is refused."""
    handshakes: bool = False
    """Handshakes are answered, whatever happens to the data."""
    endpoints: set[Endpoint] | None = None
    """Endpoints that answer; None is all."""
    guises: set[Guise] | None = None
    """What messages must look like to pass; None is anything."""
    bulk: bool = False
    """A download goes on, so packets come in whatever happens to the questions."""
    refuse_recreate: int = 0
    loss: float = 0.0
    """The share of questions that is lost, in either direction; `random` draws them."""
    random: Random = field(default_factory=Random)
    configured: list[Endpoint] = field(default_factory=list)
    recreated: int = 0
    asked: list[tuple[float, str]] = field(default_factory=list)
    rx: int = 0
    tx: int = 0
    report: Callable[[Trouble], None] | None = None

    # Device

    async def configure(self, config: DeviceConfig) -> None:
        await checkpoint()
        if not self.exists:
            raise FileNotFoundError(2, "no socket")
        self.config = config
        self.configured.append(config.endpoint)
        self.session = True

    async def recreate(self) -> None:
        await checkpoint()
        self.recreated += 1
        if self.refuse_recreate:
            self.refuse_recreate -= 1
            raise OSError(16, "Device or resource busy")
        self.exists = self.session = True

    async def keep(self, report: Callable[[Trouble], None]) -> None:
        self.report = report
        await sleep_forever()

    async def stats(self) -> Stats:
        return Stats(self.clock.wall() if self.handshakes else 0, self.rx, self.tx)

    def traffic(self, device: str) -> Traffic | None:
        assert device == self.name
        self.rx += 50 * self.bulk
        return Traffic(self.rx, self.tx) if self.exists else None

    def restart_edge(self) -> None:
        """The edge forgets its sessions."""
        self.session = False

    def passes(self, family: Family) -> bool:
        """Whether packets of this family come back right now."""
        reached = self.endpoints is None or self.config.endpoint in self.endpoints
        seemly = self.guises is None or self.config.guise in self.guises
        return self.up and self.exists and self.session and reached and seemly and family in self.families

    # Http

    async def lookup(
        self, name: str, servers: Sequence[Address], way: Marked | Bound, *, limit: float = 5.0
    ) -> tuple[Address, ...]:
        await self._round_trip(servers[0].version, f"lookup {name}", way, limit)
        return (ip_address("104.16.132.229"),)

    async def ask(self, server: Address, name: str, way: Marked | Bound, *, limit: float) -> None:
        await self._round_trip(server.version, f"dns {server}", way, limit)

    async def knock(self, endpoint: Endpoint, way: Marked | Bound, *, limit: float) -> None:
        raise AssertionError("nothing of the tunnel knocks")

    def transport(
        self,
        way: Marked | Bound,
        addresses: Sequence[Address],
        ca_file: Path | None = None,
        *,
        newest: ssl.TLSVersion | None = None,
    ) -> httpx.AsyncBaseTransport:
        async def site(request: httpx.Request) -> httpx.Response:
            family = addresses[0].version
            limit = request.extensions["timeout"]["connect"]
            await self._round_trip(family, f"trace {addresses[0]}", way, limit)
            if self.certificate:
                raise httpx.ConnectError("TLS") from self.certificate
            if not self.traces:
                raise httpx.ConnectError("refused")
            text = f"fl=1\nip={EXIT[family]}\nuag=a=b\ncolo=FRA\nloc=DE\nwarp={self.warp}\n"
            return httpx.Response(200, stream=Slices(text.encode()))

        return httpx.MockTransport(site)

    async def _round_trip(self, family: Family, what: str, way: Marked | Bound, limit: float) -> None:
        assert way == Bound(self.name), "a question that does not go through the tunnel proves nothing"
        self.asked.append((self.clock.monotonic(), what))
        self.tx += 1
        if not self.exists:
            await checkpoint()
            raise OSError(19, "No such device")
        passed = self.passes(family) and self.random.random() >= self.loss
        if not passed or self.round_trip >= limit:
            await self.clock.sleep(limit)
            raise TimeoutError
        await self.clock.sleep(self.round_trip)
        if not self.passes(family):
            await self.clock.sleep(limit - self.round_trip)
            raise TimeoutError
        self.rx += 1
