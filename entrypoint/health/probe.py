"""What proves that the tunnel works: a trace, or a DNS answer, that came back through it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import cycle
from pathlib import Path

import anyio
import httpx

from entrypoint.addresses import Address, Family
from entrypoint.linux.kernel_objects import Traffic
from entrypoint.linux.world import Bound, Http, Marked, World

MAX_TRACE = 16_384
"""More than any trace: whoever answers must not fill our memory."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What /cdn-cgi/trace said (warp-api 6). Fields it did not send are empty, `ip` None."""

    warp: str
    ip: Address | None
    colo: str
    loc: str

    @property
    def active(self) -> bool:
        """Whether the request came out of WARP."""
        return self.warp in {"on", "plus"}


def parse_trace(text: str) -> Trace:
    """Read `key=value` lines; whatever cannot be read counts as not sent."""
    # `uag` holds further equals signs.
    fields = dict(line.strip().partition("=")[::2] for line in text.splitlines())
    return Trace(
        warp=fields.get("warp", ""),
        ip=literal(fields.get("ip", "")),
        colo=fields.get("colo", ""),
        loc=fields.get("loc", ""),
    )


def literal(host: str) -> Address | None:
    """Return the address that `host` is, None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def url_site(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = httpx.URL(url)
    return parts.host, parts.port or {"http": 80}.get(parts.scheme, 443)


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
    """Ask `url` this way; a host that is a name is looked up the same way, at `servers`.

    Raises OSError without an HTTP 200 within `limit` seconds.
    """
    try:
        with anyio.fail_after(limit):
            at = url_address(url)
            name = httpx.URL(url).host
            addresses = (at,) if at else await http.lookup(name, servers, way, limit=limit)
            transport = http.transport(way, addresses, ca_file)
            async with (
                httpx.AsyncClient(transport=transport, timeout=limit, trust_env=False) as client,
                client.stream("GET", url) as answer,
            ):
                answer.raise_for_status()
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_TRACE:
                        raise ConnectionAbortedError(f"{url} does not answer with a trace")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionError(f"{url}: {error}") from error
    return parse_trace(body.decode(errors="replace"))


async def query_dns(http: Http, server: Address, name: str, device: str, *, limit: float) -> None:
    """Send one DNS query for `name` through `device`; raise OSError without an answer in `limit` seconds."""
    await http.ask(server, name, Bound(device), limit=limit)


RETRY_GAP = 0.5
"""Seconds between two attempts at one question; they overlap, so a slow tunnel still answers the first."""

LINGER = 1.0
"""Seconds that the other questions get after the first answer."""

QUERY_NAME = "cloudflare.com"


@dataclass(frozen=True, slots=True)
class Probe:
    """What is asked through the tunnel; `interval` in seconds. The families in use are those of `dns`."""

    dns: tuple[Address, ...]
    trace_urls: tuple[str, ...]
    ca_file: Path | None = None
    interval: float = 10.0

    def families(self) -> frozenset[Family]:
        """Return the families in use."""
        return frozenset(address.version for address in self.dns)

    def urls(self) -> tuple[str, ...]:
        """Return the trace addresses of the families in use; a name may be of either."""
        hosts = {url: url_address(url) for url in self.trace_urls}
        return tuple(url for url, at in hosts.items() if at is None or at.version in self.families())


@dataclass(frozen=True, slots=True)
class Answers:
    """What one round brought: `families` answered, of those `asked`; `thorough`: traces were asked too."""

    asked: frozenset[Family]
    families: frozenset[Family] = frozenset()
    traces: tuple[Trace, ...] = ()
    thorough: bool = True

    @property
    def active(self) -> Trace | None:
        """The first trace that came out of WARP."""
        return next((trace for trace in self.traces if trace.active), None)


@dataclass(frozen=True, slots=True)
class Alive:
    """Something came back. `quiet` families brought nothing in this round."""

    quiet: frozenset[Family]


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """Nothing came back, but only little was asked: ask thoroughly."""


@dataclass(frozen=True, slots=True)
class Silent:
    """The tunnel is of no use, for this reason."""

    reason: str


type Verdict = Alive | Inconclusive | Silent


def judge(answers: Answers, device: str, *, connected: bool) -> Verdict:
    """Say what a round means. Until the tunnel is `connected`, only a trace that says WARP counts as life."""
    if answers.traces and answers.active is None:
        said = answers.traces[0].warp or "nothing of warp"
        return Silent(f"{device} answers, but not from WARP: the trace says {said!r}")
    if answers.active or (connected and answers.families):
        return Alive(answers.asked - answers.families)
    if not answers.thorough:
        return Inconclusive()
    return Silent(
        f"{device} answers DNS, but no trace" if answers.families else f"no answer through {device}"
    )


@dataclass(frozen=True, slots=True)
class ProbePath:
    """What a round of questions goes through: a device, and its packet counters."""

    device: str
    world: World
    traffic: Callable[[str], Traffic | None]


async def run_round(
    way: ProbePath,
    probe: Probe,
    *,
    connected: bool,
    thorough: bool,
    patience: float,
    heard: Callable[[Trace | None], None],
    interrupt: Callable[[], Awaitable[None]],
) -> Answers:
    """Ask one DNS query per family, and with `thorough` every trace, all at once.

    Until the tunnel is `connected`, ends with the first trace from WARP; later LINGER after the first
    answer. Without one it ends after `patience` seconds, but a tunnel that receives meanwhile is busy, not
    dead, and gets as much again. `heard` gets each answer as it comes; `interrupt` returning ends the round,
    which then was not thorough.
    """
    clock = way.world.clock
    families: set[Family] = set()
    traces: list[Trace] = []
    first = anyio.Event()

    def came(family: Family | None, trace: Trace | None) -> None:
        if family is not None:
            families.add(family)
        heard(trace)
        first.set()

    async def query(family: Family) -> None:
        servers = cycle(address for address in probe.dns if address.version == family)
        async with anyio.create_task_group() as attempts:

            async def attempt(server: Address) -> None:
                try:
                    await query_dns(way.world.http, server, QUERY_NAME, way.device, limit=2 * patience)
                except OSError:
                    return
                came(family, None)
                attempts.cancel_scope.cancel()

            while True:
                attempts.start_soon(attempt, next(servers))
                await clock.sleep(RETRY_GAP)

    async def visit(url: str) -> None:
        while True:
            try:
                seen = await fetch_trace(
                    way.world.http, url, Bound(way.device), probe.ca_file, probe.dns, limit=2 * patience
                )
            except OSError:
                await clock.sleep(RETRY_GAP)
                continue
            traces.append(seen)
            if seen.active and not connected:
                everything.cancel_scope.cancel()
            came(seen.ip.version if seen.ip and seen.active else None, seen)
            return

    async def limit() -> None:
        before = way.traffic(way.device)
        await clock.sleep(patience)
        after = way.traffic(way.device)
        if before and after and after.rx != before.rx:
            await clock.sleep(patience)
        everything.cancel_scope.cancel()

    async def linger() -> None:
        await first.wait()
        if not connected:
            return
        await clock.sleep(LINGER)
        everything.cancel_scope.cancel()

    async def interrupted() -> None:
        nonlocal thorough
        await interrupt()
        thorough = False
        everything.cancel_scope.cancel()

    async with anyio.create_task_group() as everything:
        everything.start_soon(limit)
        everything.start_soon(interrupted)
        everything.start_soon(linger)
        async with anyio.create_task_group() as questions:
            for family in probe.families():
                questions.start_soon(query, family)
            for url in probe.urls() if thorough else ():
                questions.start_soon(visit, url)
        everything.cancel_scope.cancel()
    return Answers(probe.families(), frozenset(families), tuple(traces), thorough)
