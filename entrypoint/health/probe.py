"""The questions that prove the tunnel works: a trace page and DNS, asked through it in rounds."""

import math
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Literal

import anyio
import httpx

from entrypoint.addresses import Address, Family, literal
from entrypoint.linux.http import certificate_error, is_misdated
from entrypoint.linux.kernel_objects import Traffic
from entrypoint.linux.world import Bound, Clock, Http, Marked, World

MAX_TRACE = 16_384
"""Bytes read of an answer at most; a trace has about 300."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The answer of /cdn-cgi/trace. Fields that were not sent are empty or None."""

    warp: str
    ip: Address | None
    colo: str
    loc: str
    at: float | None = field(default=None, compare=False)
    """Cloudflare's clock, in seconds since 1970."""

    @property
    def active(self) -> bool:
        """Whether the request came out of WARP."""
        return self.warp in {"on", "plus"}


def parse_trace(text: str) -> Trace:
    """Parse `key=value` lines; a value that cannot be read counts as not sent."""
    # `uag` holds further equals signs.
    fields = dict(line.strip().partition("=")[::2] for line in text.splitlines())
    return Trace(
        warp=fields.get("warp", ""),
        ip=literal(fields.get("ip", "")),
        colo=fields.get("colo", ""),
        loc=fields.get("loc", ""),
        at=_seconds(fields.get("ts", "")),
    )


def _seconds(text: str) -> float | None:
    try:
        return float(text) if math.isfinite(float(text)) else None
    except ValueError:
        return None


def url_address(url: str) -> Address | None:
    """Return the address in a URL, None when its host is a name."""
    return literal(httpx.URL(url).host)


async def fetch_trace(
    http: Http,
    url: str,
    way: Marked | Bound,
    ca_file: Path | None,
    servers: Sequence[Address],
    *,
    limit: float,
) -> Trace:
    """Fetch the trace page `url`; resolve a host that is a name the same way, at `servers`.

    Raises OSError without an HTTP 200 within `limit` seconds, CertificateError for a bad certificate.
    """
    try:
        with anyio.fail_after(limit):
            at = url_address(url)
            name = httpx.URL(url).host
            addresses = (at,) if at else await http.lookup(name, servers, way, limit=limit)
            transport = http.transport(way, addresses, ca_file)
            async with (
                httpx.AsyncClient(transport=transport, timeout=limit, trust_env=False) as client,
                client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
            ):
                answer.raise_for_status()
                body = b""
                # Raw: httpx would inflate a bomb before its size could be checked.
                async for part in answer.aiter_raw():
                    body += part
                    if len(body) > MAX_TRACE:
                        raise ConnectionAbortedError(f"{url} does not answer with a trace")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if refused := certificate_error(error):
            raise CertificateError(refused) from error
        raise ConnectionError(str(error) or "no answer") from error
    return parse_trace(body.decode(errors="replace"))


class CertificateError(ConnectionError):
    """The page answered through TLS, but with a certificate that is not trusted, or not valid now."""

    def __init__(self, refused: ssl.SSLCertVerificationError) -> None:
        super().__init__(f"its certificate is not trusted ({refused.verify_message})")
        self.misdated = is_misdated(refused)


async def query_dns(http: Http, server: Address, name: str, device: str, *, limit: float) -> None:
    """Send one DNS query for `name` through `device`; raise OSError without an answer in `limit` seconds."""
    await http.ask(server, name, Bound(device), limit=limit)


RETRY_GAP = 0.5
"""Seconds between two attempts at one question; they overlap, so a slow tunnel still answers the first."""

LINGER = 1.0
"""Seconds that the other questions get after the first answer, at least; a trace takes three round trips."""

HTTPS_GAP = 1.0
"""Seconds between two HTTPS requests, whatever happens: a whole fleet may be in trouble at once."""

LONGEST_ROUND = 10.0
"""Seconds that a round lasts at most while the tunnel is busy."""

BUSY_PACKETS = 3
"""Packets received within one patience that show a busy tunnel; a lone one may be a handshake's."""

QUERY_NAME = "cloudflare.com"


@dataclass(frozen=True, slots=True)
class Probe:
    """The questions of a round; `interval` in seconds. The families in use are those of `dns`.

    `strict_clock`: clients are refused when this machine's clock is wrong (Shadowsocks 2022).
    """

    dns: tuple[Address, ...]
    trace_urls: tuple[str, ...]
    ca_file: Path | None = None
    interval: float = 10.0
    strict_clock: bool = False

    def families(self) -> frozenset[Family]:
        """Return the families in use."""
        return frozenset(address.version for address in self.dns)

    def urls(self) -> tuple[str, ...]:
        """Return the trace pages of the families in use; a name may be of either."""
        hosts = {url: url_address(url) for url in self.trace_urls}
        return tuple(url for url, at in hosts.items() if at is None or at.version in self.families())


@dataclass(frozen=True, slots=True)
class Answers:
    """The outcome of one round: `families` answered, of those `asked`.

    `thorough`: traces were requested. `failures` says why the last request of a trace failed; `received`
    counts packets that came in while nothing answered, `offset` is Cloudflare's clock minus ours in seconds.
    """

    asked: frozenset[Family]
    families: frozenset[Family] = frozenset()
    traces: tuple[Trace, ...] = ()
    thorough: bool = True
    interrupted: bool = False
    received: int = 0
    failures: tuple[OSError, ...] = field(default=(), compare=False)
    offset: float | None = field(default=None, compare=False)

    @property
    def active(self) -> Trace | None:
        """The first trace that came out of WARP."""
        return next((trace for trace in self.traces if trace.active), None)


class HttpsGate:
    """Lets one HTTPS request pass every HTTPS_GAP seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = clock.monotonic()

    async def wait(self) -> None:
        while (pause := self._next - self._clock.monotonic()) > 1e-6:
            await self._clock.sleep(pause)
        self._next = self._clock.monotonic() + HTTPS_GAP


@dataclass(frozen=True, slots=True)
class ProbePath:
    """The tunnel's device, and its packet counters."""

    device: str
    world: World
    traffic: Callable[[str], Traffic | None]
    gate: HttpsGate


type End = Literal["trace", "answer", "linger"]
"""When a round ends: at the first trace from WARP, at the first answer, or some time after it."""


async def run_round(
    path: ProbePath,
    probe: Probe,
    *,
    end: End,
    trace_after: float,
    patience: float,
    on_answer: Callable[[Family | None, Trace | None], None],
    interrupt: Callable[[], Awaitable[None]],
) -> Answers:
    """Send one DNS query per family at once, and request the traces `trace_after` seconds without an answer.

    With `trace_after` 0 the traces are requested in any case. Without an answer the round ends after
    `patience` seconds, but a tunnel that receives meanwhile is busy, not dead, and gets more. `on_answer`
    gets each answer as it comes; `interrupt` returning ends the round.
    """
    return await _Round(path, probe, end, trace_after, patience, on_answer).run(interrupt)


@dataclass(slots=True)
class _Round:
    path: ProbePath
    probe: Probe
    end: End
    trace_after: float
    patience: float
    on_answer: Callable[[Family | None, Trace | None], None]
    families: set[Family] = field(default_factory=set)
    traces: list[Trace] = field(default_factory=list)
    failures: dict[str, OSError] = field(default_factory=dict)
    offset: float | None = None
    first: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    thorough: bool = False
    interrupted: bool = False
    received: int = 0

    @property
    def clock(self) -> Clock:
        return self.path.world.clock

    async def run(self, interrupt: Callable[[], Awaitable[None]]) -> Answers:
        async def interrupted() -> None:
            await interrupt()
            self.interrupted = True
            self.scope.cancel()

        with self.scope:
            async with anyio.create_task_group() as tasks:
                for task in (self.limit, interrupted, self.linger):
                    tasks.start_soon(task)
                async with anyio.create_task_group() as questions:
                    for family in self.probe.families():
                        questions.start_soon(self.query, family)
                    questions.start_soon(self.visit_all)
                tasks.cancel_scope.cancel()
        return Answers(
            self.probe.families(),
            frozenset(self.families),
            tuple(self.traces),
            self.thorough,
            self.interrupted,
            self.received,
            tuple(self.failures.values()),
            self.offset,
        )

    def record(self, family: Family | None, trace: Trace | None) -> None:
        if family is not None:
            self.families.add(family)
        self.on_answer(family, trace)
        self.first.set()
        if self.end == "answer" or (self.end == "trace" and trace and trace.active):
            self.scope.cancel()

    async def query(self, family: Family) -> None:
        servers = cycle(address for address in self.probe.dns if address.version == family)
        async with anyio.create_task_group() as attempts:

            async def attempt(server: Address) -> None:
                try:
                    await query_dns(
                        self.path.world.http, server, QUERY_NAME, self.path.device, limit=LONGEST_ROUND
                    )
                except OSError:
                    return
                self.record(family, None)
                attempts.cancel_scope.cancel()

            while True:
                attempts.start_soon(attempt, next(servers))
                await self.clock.sleep(RETRY_GAP)

    async def visit_all(self) -> None:
        if self.trace_after:
            await self.clock.sleep(self.trace_after)
            if self.first.is_set():
                return
        self.thorough = True
        async with anyio.create_task_group() as visits:
            for url in self.probe.urls():
                visits.start_soon(self.visit, url)

    async def visit(self, url: str) -> None:
        path, bound = self.path, Bound(self.path.device)
        while True:
            await path.gate.wait()
            begun = self.clock.wall()
            try:
                seen = await fetch_trace(
                    path.world.http, url, bound, self.probe.ca_file, self.probe.dns, limit=LONGEST_ROUND
                )
            except OSError as error:
                self.failures[url] = error
                await self.clock.sleep(RETRY_GAP)
                continue
            if seen.at is not None:
                self.offset = seen.at - (begun + self.clock.wall()) / 2
            self.traces.append(seen)
            self.record(seen.ip.version if seen.ip and seen.active else None, seen)
            return

    async def limit(self) -> None:
        begun, before = self.clock.monotonic(), self._packets()
        while True:
            await self.clock.sleep(self.patience)
            now = self._packets()
            if self.first.is_set() and self.end == "linger":
                return
            grown, before = now - before, now
            self.received = grown if grown >= BUSY_PACKETS and not self.first.is_set() else 0
            if not self.received or self.clock.monotonic() - begun > LONGEST_ROUND:
                self.scope.cancel()

    def _packets(self) -> int:
        traffic = self.path.traffic(self.path.device)
        return traffic.rx if traffic else 0

    async def linger(self) -> None:
        begun = self.clock.monotonic()
        await self.first.wait()
        if self.end != "linger":
            await anyio.sleep_forever()
        gates = HTTPS_GAP * len(self.probe.urls()) if self.thorough else 0
        await self.clock.sleep(max(LINGER, 4 * (self.clock.monotonic() - begun)) + gates)
        self.scope.cancel()
