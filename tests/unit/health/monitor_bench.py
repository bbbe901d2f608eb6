"""A tunnel under observation, in virtual time: what the monitor's tests stand on."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, cast

import anyio
import pytest

from entrypoint.addresses import Endpoint
from entrypoint.health.ladder import Rung
from entrypoint.health.monitor import HealthMonitor
from entrypoint.health.probe import Probe, Trace
from entrypoint.linux.kernel_objects import DeviceConfig
from entrypoint.linux.world import World
from tests.fakes.clock import FakeClock
from tests.fakes.tunnel import FakeTunnel

ENDPOINTS = tuple(Endpoint(ip_address("162.159.192.1"), port) for port in (2408, 500, 1701))
PROBE = Probe(
    dns=(ip_address("1.1.1.1"), ip_address("1.0.0.1"), ip_address("2606:4700:4700::1111")),
    trace_urls=("https://1.1.1.1/cdn-cgi/trace", "https://[2606:4700:4700::1111]/cdn-cgi/trace"),
)


@dataclass
class Events:
    """An Observer that notes when what was said."""

    clock: FakeClock
    seen: list[tuple[float, object]] = field(default_factory=list)

    def answered(self, trace: Trace | None) -> None:
        self.seen.append((self.clock.now, trace or "dns"))

    def silent(self, reason: str) -> None:
        self.seen.append((self.clock.now, reason))

    def healing(self, rung: Rung) -> None:
        self.seen.append((self.clock.now, rung))

    def rungs(self) -> list[Rung]:
        return [what for _, what in self.seen if isinstance(what, Rung)]

    def first(self, wanted: Callable[[object], bool], since: float = 0) -> float:
        return next((at for at, what in self.seen if at >= since and wanted(what)), float("inf"))

    def answer_after(self, since: float) -> float:
        return self.first(lambda what: what == "dns" or isinstance(what, Trace), since)


@dataclass
class Bench:
    clock: FakeClock
    edge: FakeTunnel
    events: Events
    monitor: HealthMonitor
    restored: list[float]
    doubts: list[float]

    async def until(self, seconds: float) -> None:
        """Let virtual time go on."""
        await self.clock.sleep(seconds)


@pytest.fixture(autouse=True)
def quiet_httpx() -> Iterator[None]:
    """As in the product: other loggers tell warnings only."""
    httpx = logging.getLogger("httpx")
    level = httpx.level
    httpx.setLevel(logging.WARNING)
    yield
    httpx.setLevel(level)


@pytest.fixture
def bench(anyio_backend: str) -> Bench:
    clock = FakeClock()
    config = DeviceConfig("wg0", "", "", ENDPOINTS[0], 0x1000, 25)
    edge = FakeTunnel(clock, config)
    events = Events(clock)
    restored: list[float] = []
    doubts: list[float] = []

    async def restore() -> None:
        restored.append(clock.now)

    unused = cast("Any", None)
    world = World(clock=clock, http=edge, netlink=unused, nft=unused, processes=unused)
    log = logging.getLogger("test")
    monitor = HealthMonitor(
        edge,
        config,
        ENDPOINTS,
        PROBE,
        world,
        events,
        restore,
        lambda: doubts.append(clock.now),
        log,
        traffic=edge.traffic,
    )
    return Bench(clock, edge, events, monitor, restored, doubts)


@asynccontextmanager
async def watching(bench: Bench, seconds: float = 1.0) -> AsyncIterator[None]:
    """Watch a tunnel that has answered for some seconds."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.monitor.run)
        await bench.until(seconds)
        yield
        tasks.cancel_scope.cancel()
