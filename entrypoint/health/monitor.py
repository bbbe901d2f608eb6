"""Health is a request answered through the tunnel; without one the ladder is climbed, for ever."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import assert_never

from entrypoint.errors import UnhealableError
from entrypoint.health.checks import Trace
from entrypoint.health.ladder import Climb, Facts, Rung, exhausted, next_rung
from entrypoint.health.observer import Observer
from entrypoint.health.questions import Alive, Answers, Doubtful, Probe, Silent, Verdict, Way, ask, judge
from entrypoint.health.suspicions import Suspicion as Suspicion
from entrypoint.health.suspicions import Suspicions as Suspicions
from entrypoint.health.suspicions import pause
from entrypoint.network.counters import Traffic
from entrypoint.network.plan import Family
from entrypoint.ports import Clock, World
from entrypoint.warp.endpoints import Endpoint
from entrypoint.wireguard.device import Device, DeviceConfig, Trouble

PATIENCE = 1.2
"""Seconds without any answer before a round counts as silence: three queries of each family."""

SETTLE = 3.0
"""Seconds that a new tunnel, or a rung of the ladder, gets until it must answer."""

SLOW = 5.0
"""Seconds at most that a slow tunnel is waited for."""

TRACE_EVERY = 300.0
"""Seconds between two traces of a tunnel that answers."""

KEPT = 1000
"""Climbs that are remembered, for the rate limits: more than there are in the longest of them."""


@dataclass(slots=True)
class Tunnel:
    """One tunnel under observation: what `keep_device`, `connect` and `watch_health` share.

    `endpoints` are the candidates, the configured one among them; `config.endpoint` is the one in use.
    `restored` puts back what a new interface lacks; `doubt` is told that it may be the account. Replacing
    the peer takes turns with `other_key`.
    """

    device: Device
    config: DeviceConfig
    endpoints: tuple[Endpoint, ...]
    probe: Probe
    world: World
    observer: Observer
    restored: Callable[[], Awaitable[object]]
    doubt: Callable[[], None]
    log: logging.Logger
    traffic: Callable[[str], Traffic | None]
    exit_on_fatal: bool = False
    suspicions: Suspicions = field(default_factory=Suspicions)
    other_key: str | None = field(default=None, repr=False)
    history: tuple[Climb, ...] = ()
    broken: bool = False
    pace: float = 0.0

    @property
    def clock(self) -> Clock:
        """Time."""
        return self.world.clock


async def keep_device(tunnel: Tunnel) -> None:
    """Keep the device's engine alive and turn what it reports into suspicions, for ever.

    To be started before `connect`: the only owner of "start wireguard-go again".
    """

    def report(trouble: Trouble) -> None:
        match trouble:
            case "restarted":
                tunnel.log.warning("%s: the WireGuard engine ended and was started again", tunnel.device.name)
                tunnel.suspicions.suspect(Suspicion.RESTARTED)
            case "gone":
                tunnel.suspicions.suspect(Suspicion.GONE)

    await tunnel.device.keep(report)


async def connect(tunnel: Tunnel) -> Trace:
    """Try the endpoints until a trace through the tunnel says warp=on or plus; return it. Never gives up."""
    answers = await _ask(tunnel, connected=False, thorough=True, patience=SETTLE)
    verdict = judge(answers, tunnel.device.name, connected=False)
    if not isinstance(verdict, Alive):
        answers = await _heal(tunnel, verdict, connected=False)
    assert answers.active is not None  # noqa: S101 - or `judge` would not have called it alive
    return answers.active


async def watch_health(tunnel: Tunnel) -> None:
    """Ask through the tunnel every interval, and at once on suspicion; heal it when silent. For ever."""
    traced = float("-inf")
    quiet, doubted = frozenset[Family](), frozenset[Family]()
    while True:
        taken = tunnel.suspicions.take()
        if Suspicion.UPLINK in taken and not _missing(tunnel):
            await _climb(tunnel, _facts(tunnel, tunnel.clock.monotonic(), taken))
        due = tunnel.clock.monotonic() - traced >= TRACE_EVERY
        thorough = due or bool(taken - {Suspicion.SILENCE})
        verdict: Verdict = Doubtful()
        if not _missing(tunnel):
            answers, verdict = await _examine(tunnel, thorough=thorough)
        if _missing(tunnel) or isinstance(verdict, Silent):
            answers = await _heal(tunnel, verdict, connected=True)
        elif isinstance(verdict, Doubtful):
            continue  # interrupted: somebody knows more
        if answers.traces:
            traced = tunnel.clock.monotonic()
        missing = answers.asked - answers.families
        quiet, doubted = _compare(tunnel, quiet, missing & doubted, answers.families), missing
        await pause(
            tunnel.suspicions, tunnel.traffic, tunnel.device.name, tunnel.clock, tunnel.probe.interval
        )


async def _examine(tunnel: Tunnel, *, thorough: bool) -> tuple[Answers, Verdict]:
    """Ask little, and when nothing comes back, everything."""
    while True:
        patience = min(max(3 * tunnel.pace, PATIENCE), SLOW)
        answers = await _ask(tunnel, connected=True, thorough=thorough, patience=patience)
        verdict = judge(answers, tunnel.device.name, connected=True)
        if thorough or not isinstance(verdict, Doubtful):
            return answers, verdict
        thorough = True


async def _heal(tunnel: Tunnel, verdict: Verdict, *, connected: bool) -> Answers:
    """Climb the ladder until the tunnel answers; return what it answered. One sentence per change."""
    since, said, name = tunnel.clock.monotonic(), "", tunnel.device.name
    taken = tunnel.suspicions.take()
    while True:
        if _missing(tunnel):
            reason = f"{name} is gone"
        else:
            reason = verdict.reason if isinstance(verdict, Silent) else said
        if reason != said:
            tunnel.log.warning("%s", reason)
            tunnel.observer.silent(reason)
            said = reason
        # A round that was cut short proves nothing: an engine just started deserves a moment.
        if isinstance(verdict, Silent) or Suspicion.UPLINK in taken or _missing(tunnel):
            facts = _facts(tunnel, since, taken)
            if tunnel.exit_on_fatal and exhausted(tunnel.history, facts):
                raise UnhealableError(f"{said}: every repair was tried", "EXIT_ON_FATAL=on ends it")
            await _climb(tunnel, facts)
        answers = await _ask(tunnel, connected=connected, thorough=True, patience=SETTLE)
        verdict = judge(answers, name, connected=connected)
        if isinstance(verdict, Alive):
            if said:
                tunnel.log.info("%s answers again (%.1f s)", name, tunnel.clock.monotonic() - since)
            return answers
        taken = tunnel.suspicions.take()


async def _climb(tunnel: Tunnel, facts: Facts) -> None:
    """Climb the next rung, if one is allowed; a rung that fails is one that did not help."""
    now = tunnel.clock.monotonic()
    rung = next_rung(tunnel.history, now, facts)
    if rung is None:
        return
    tunnel.history = (*tunnel.history, Climb(rung, now))[-KEPT:]
    tunnel.observer.healing(rung)
    tunnel.log.debug("%s: %s", tunnel.device.name, rung.value)
    try:
        match rung:
            case Rung.REPLACE_PEER:
                if other := tunnel.other_key:
                    tunnel.other_key = tunnel.config.private_key
                    tunnel.config = replace(tunnel.config, private_key=other)
                await tunnel.device.configure(tunnel.config)
            case Rung.NEXT_ENDPOINT:
                tunnel.config = replace(tunnel.config, endpoint=_next_endpoint(tunnel))
                await tunnel.device.configure(tunnel.config)
            case Rung.RECREATE:
                tunnel.broken = True
                await tunnel.device.recreate()
                await tunnel.restored()
                tunnel.broken = False
            case Rung.ASK_API:
                tunnel.doubt()  # answered in its own time: the tunnel may come back meanwhile
            case _:
                assert_never(rung)
    except OSError as error:
        tunnel.log.debug("%s: %s failed: %s", tunnel.device.name, rung.value, error)


def _next_endpoint(tunnel: Tunnel) -> Endpoint:
    try:
        current = tunnel.endpoints.index(tunnel.config.endpoint)
    except ValueError:
        current = -1
    return tunnel.endpoints[(current + 1) % len(tunnel.endpoints)]


def _missing(tunnel: Tunnel) -> bool:
    return tunnel.broken or tunnel.traffic(tunnel.device.name) is None


def _facts(tunnel: Tunnel, since: float, taken: frozenset[Suspicion]) -> Facts:
    return Facts(since, _missing(tunnel), Suspicion.UPLINK in taken, len(tunnel.endpoints))


def _compare(
    tunnel: Tunnel, before: frozenset[Family], quiet: frozenset[Family], families: frozenset[Family]
) -> frozenset[Family]:
    """Say which family stopped answering, or answers again, while the other goes on."""
    for family in sorted(quiet - before):
        tunnel.log.warning("IPv%d does not answer through %s", family, tunnel.device.name)
    for family in sorted(before & families):
        tunnel.log.info("IPv%d answers through %s again", family, tunnel.device.name)
    return (before - families) | quiet


async def _ask(tunnel: Tunnel, *, connected: bool, thorough: bool, patience: float) -> Answers:
    """Ask one round, tell the observer, and learn how fast the tunnel is; a suspicion ends it early."""
    begun = tunnel.clock.monotonic()
    heard = False

    def hear(trace: Trace | None) -> None:
        nonlocal heard
        if not heard:
            heard, tunnel.pace = True, tunnel.clock.monotonic() - begun
        if trace is None or trace.active:
            tunnel.observer.answered(trace)

    way = Way(tunnel.device.name, tunnel.world, tunnel.traffic)
    return await ask(
        way,
        tunnel.probe,
        connected=connected,
        thorough=thorough,
        patience=patience,
        heard=hear,
        interrupt=tunnel.suspicions.wait,
    )
