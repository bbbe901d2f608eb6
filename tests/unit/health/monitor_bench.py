"""A tunnel under observation, in virtual time: what the monitor's tests stand on."""

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random
from typing import Any, cast

import anyio
import pytest

from entrypoint.account.upkeep import Rechecks
from entrypoint.addresses import Endpoint, Family
from entrypoint.health.diagnosis import AccountCheck, Cause, Diagnosis, Outside
from entrypoint.health.explainer import explain_trouble
from entrypoint.health.ladder import Rung
from entrypoint.health.memory import HealthMemory
from entrypoint.health.monitor import HealthMonitor
from entrypoint.health.observer import Hooks
from entrypoint.health.probe import Probe, Trace
from entrypoint.health.verdict import Verdict
from entrypoint.linux.kernel_objects import DeviceConfig
from entrypoint.linux.world import World
from tests.fakes.clock import FakeClock
from tests.fakes.tunnel import FakeTunnel

ENDPOINTS = tuple(Endpoint(ip_address("162.159.192.1"), port) for port in (2408, 500, 1701))
PROBE = Probe(
    dns=(ip_address("1.1.1.1"), ip_address("1.0.0.1"), ip_address("2606:4700:4700::1111")),
    trace_urls=("https://1.1.1.1/cdn-cgi/trace", "https://[2606:4700:4700::1111]/cdn-cgi/trace"),
)


def refusal(code: int, message: str) -> ssl.SSLCertVerificationError:
    """What OpenSSL raises for a certificate; 9: not yet valid, 10: expired, 18: self-signed."""
    refused = ssl.SSLCertVerificationError(1, message)
    refused.verify_code, refused.verify_message = code, message
    return refused


@dataclass
class Events:
    """An Observer that notes when what was said."""

    clock: FakeClock
    seen: list[tuple[float, object]] = field(default_factory=list)
    verdicts: list[tuple[float, Verdict]] = field(default_factory=list)
    causes: list[tuple[float, Cause]] = field(default_factory=list)

    def record_answer(self, family: Family | None, trace: Trace | None, round_trip: float) -> None:
        self.seen.append((self.clock.now, trace or "dns"))

    def show(self, verdict: Verdict) -> None:
        if not (self.verdicts and self.verdicts[-1][1] == verdict):
            self.verdicts.append((self.clock.now, verdict))

    def show_repair(self, rung: Rung) -> None:
        self.seen.append((self.clock.now, rung))

    def show_cause(self, cause: Diagnosis | None) -> None:
        if cause:
            self.causes.append((self.clock.now, cause.cause))

    def show_reconnect(self, endpoint: Endpoint) -> None:
        self.seen.append((self.clock.now, "reconnect"))

    def shown(self, kind: type[object], since: float = 0) -> float:
        """When a verdict of this kind was first shown."""
        return next((at for at, one in self.verdicts if at >= since and isinstance(one, kind)), float("inf"))

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
    rechecks: Rechecks
    outside: Outside = field(default_factory=lambda: Outside(udp=True))
    trouble: Diagnosis | None = None
    """The API's answer about the account."""

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
    return make_bench()


def make_bench(seed: int = 0) -> Bench:
    clock = FakeClock()
    config = DeviceConfig("wg0", "", "", ENDPOINTS[0], 0x1000, 25)
    edge = FakeTunnel(clock, config)
    events = Events(clock)
    restored: list[float] = []
    doubts: list[float] = []

    async def restore() -> None:
        restored.append(clock.now)

    unused = cast("Any", None)

    async def look_outside(endpoint: Endpoint) -> Outside:
        return made.outside

    world = World(clock=clock, http=edge, netlink=unused, nft=unused, processes=unused)

    def doubt() -> None:
        doubts.append(clock.now)
        rechecks.note(AccountCheck(clock.wall(), made.trouble))

    async def resolve(answered: bool) -> tuple[tuple[Endpoint, ...], str]:
        return (), ""

    rechecks = Rechecks()
    hooks = Hooks(restore, doubt, look_outside, resolve, lambda: rechecks.last, rechecks.noted)
    memory = HealthMemory(random=Random(seed))
    monitor = HealthMonitor(edge, config, ENDPOINTS, PROBE, world, events, hooks, edge.traffic, memory=memory)
    made = Bench(clock, edge, events, monitor, restored, doubts, rechecks)
    return made


@asynccontextmanager
async def watching(bench: Bench, seconds: float = 1.0) -> AsyncIterator[None]:
    """Watch a tunnel that has answered for some seconds."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.monitor.run)
        tasks.start_soon(explain_trouble, bench.monitor)
        await bench.until(seconds)
        yield
        tasks.cancel_scope.cancel()
