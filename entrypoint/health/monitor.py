"""Who is told what became of the tunnel; the status board is one."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, assert_never

from entrypoint.addresses import Endpoint, Family
from entrypoint.errors import UnhealableError
from entrypoint.health.ladder import Climb, Outage, Rung, exhausted, next_rung
from entrypoint.health.probe import (
    Alive,
    Answers,
    Inconclusive,
    Probe,
    ProbePath,
    Silent,
    Trace,
    Verdict,
    judge,
    run_round,
)
from entrypoint.health.triggers import Trigger, Triggers, wait_for_trigger
from entrypoint.linux.kernel_objects import DeviceConfig, Traffic
from entrypoint.linux.world import Clock, World
from entrypoint.wireguard.device import Device, Trouble

if TYPE_CHECKING:
    from entrypoint.health.ladder import Rung
    from entrypoint.health.probe import Trace


class Observer(Protocol):
    """Who is told; calls must not block."""

    def answered(self, trace: "Trace | None") -> None:
        """Take note of an answer: a trace (its `ip` tells the family), or None for a DNS answer."""

    def silent(self, reason: str) -> None:
        """Take note that the tunnel does not answer, or answers that it is not WARP."""

    def healing(self, rung: "Rung") -> None:
        """Take note that a rung is being climbed."""


PROBE_TIMEOUT = 1.2
"""Seconds without any answer before a round counts as silence: three queries of each family."""

SETTLE_TIMEOUT = 3.0
"""Seconds that a new tunnel, or a rung of the ladder, gets until it must answer."""

SLOWEST_TIMEOUT = 5.0
"""Seconds at most that a slow tunnel is waited for."""

TRACE_EVERY = 300.0
"""Seconds between two traces of a tunnel that answers."""

HISTORY_LENGTH = 1000
"""Climbs that are remembered, for the rate limits: more than there are in the longest of them."""


@dataclass(slots=True)
class HealthMonitor:
    """Watch one tunnel and repair it while it is silent.

    `endpoints` are the candidates, `config.endpoint` among them is the one in use. `restore` puts back
    what a recreated interface lacks; `doubt` is called when the account itself is suspected. Replacing
    the peer alternates with `other_key`, if a key rotation has not been confirmed. Start `keep_device`
    first, then call `connect`, then `run`.
    """

    device: Device
    config: DeviceConfig
    endpoints: tuple[Endpoint, ...]
    probe: Probe
    world: World
    observer: Observer
    restore: Callable[[], Awaitable[object]]
    doubt: Callable[[], None]
    log: logging.Logger
    traffic: Callable[[str], Traffic | None]
    exit_on_fatal: bool = False
    triggers: Triggers = field(default_factory=Triggers)
    other_key: str | None = field(default=None, repr=False)
    history: tuple[Climb, ...] = ()
    broken: bool = False
    pace: float = 0.0

    @property
    def clock(self) -> Clock:
        """Time."""
        return self.world.clock

    async def keep_device(self) -> None:
        """Keep the device's engine alive and turn what it reports into suspicions, for ever.

        To be started before `connect`: the only owner of "start wireguard-go again".
        """

        def report(trouble: Trouble) -> None:
            match trouble:
                case "restarted":
                    self.log.warning("%s: the WireGuard engine ended and was started again", self.device.name)
                    self.triggers.suspect(Trigger.RESTARTED)
                case "gone":
                    self.triggers.suspect(Trigger.GONE)

        await self.device.keep(report)

    async def connect(self) -> Trace:
        """Try the endpoints until a trace through the tunnel says warp=on or plus; return that trace."""
        answers = await self._probe(connected=False, thorough=True, patience=SETTLE_TIMEOUT)
        verdict = judge(answers, self.device.name, connected=False)
        if not isinstance(verdict, Alive):
            answers = await self._heal(verdict, connected=False)
        assert answers.active is not None  # noqa: S101 - or `judge` would not have called it alive
        return answers.active

    async def run(self) -> None:
        """Ask through the tunnel every interval, and at once on suspicion; heal it when silent. For ever."""
        traced = float("-inf")
        quiet, doubted = frozenset[Family](), frozenset[Family]()
        while True:
            taken = self.triggers.take()
            if Trigger.UPLINK in taken and not self._is_missing():
                await self._climb(self._outage(self.clock.monotonic(), taken))
            due = self.clock.monotonic() - traced >= TRACE_EVERY
            thorough = due or bool(taken - {Trigger.SILENCE})
            verdict: Verdict = Inconclusive()
            if not self._is_missing():
                answers, verdict = await self._examine(thorough=thorough)
            if self._is_missing() or isinstance(verdict, Silent):
                answers = await self._heal(verdict, connected=True)
            elif isinstance(verdict, Inconclusive):
                continue  # interrupted: somebody knows more
            if answers.traces:
                traced = self.clock.monotonic()
            missing = answers.asked - answers.families
            quiet, doubted = self._report_families(quiet, missing & doubted, answers.families), missing
            await wait_for_trigger(
                self.triggers, self.traffic, self.device.name, self.clock, self.probe.interval
            )

    async def _examine(self, *, thorough: bool) -> tuple[Answers, Verdict]:
        """Ask little, and when nothing comes back, everything."""
        while True:
            patience = min(max(3 * self.pace, PROBE_TIMEOUT), SLOWEST_TIMEOUT)
            answers = await self._probe(connected=True, thorough=thorough, patience=patience)
            verdict = judge(answers, self.device.name, connected=True)
            if thorough or not isinstance(verdict, Inconclusive):
                return answers, verdict
            thorough = True

    async def _heal(self, verdict: Verdict, *, connected: bool) -> Answers:
        """Climb the ladder until the tunnel answers; return what it answered. One sentence per change."""
        since, said, name = self.clock.monotonic(), "", self.device.name
        taken = self.triggers.take()
        while True:
            if self._is_missing():
                reason = f"{name} is gone"
            else:
                reason = verdict.reason if isinstance(verdict, Silent) else said
            if reason != said:
                self.log.warning("%s", reason)
                self.observer.silent(reason)
                said = reason
            # A round that was cut short proves nothing: an engine just started deserves a moment.
            if isinstance(verdict, Silent) or Trigger.UPLINK in taken or self._is_missing():
                facts = self._outage(since, taken)
                if self.exit_on_fatal and exhausted(self.history, facts):
                    raise UnhealableError(f"{said}: every repair was tried", "EXIT_ON_FATAL=on ends it")
                await self._climb(facts)
            answers = await self._probe(connected=connected, thorough=True, patience=SETTLE_TIMEOUT)
            verdict = judge(answers, name, connected=connected)
            if isinstance(verdict, Alive):
                if said:
                    self.log.info("%s answers again (%.1f s)", name, self.clock.monotonic() - since)
                return answers
            taken = self.triggers.take()

    async def _climb(self, facts: Outage) -> None:
        """Climb the next rung, if one is allowed; a rung that fails is one that did not help."""
        now = self.clock.monotonic()
        rung = next_rung(self.history, now, facts)
        if rung is None:
            return
        self.history = (*self.history, Climb(rung, now))[-HISTORY_LENGTH:]
        self.observer.healing(rung)
        self.log.debug("%s: %s", self.device.name, rung.value)
        try:
            match rung:
                case Rung.REPLACE_PEER:
                    if other := self.other_key:
                        self.other_key = self.config.private_key
                        self.config = replace(self.config, private_key=other)
                    await self.device.configure(self.config)
                case Rung.NEXT_ENDPOINT:
                    self.config = replace(self.config, endpoint=self._next_endpoint())
                    await self.device.configure(self.config)
                case Rung.RECREATE:
                    self.broken = True
                    await self.device.recreate()
                    await self.restore()
                    self.broken = False
                case Rung.ASK_API:
                    self.doubt()  # answered in its own time: the tunnel may come back meanwhile
                case _:
                    assert_never(rung)
        except OSError as error:
            self.log.debug("%s: %s failed: %s", self.device.name, rung.value, error)

    def _next_endpoint(self) -> Endpoint:
        try:
            current = self.endpoints.index(self.config.endpoint)
        except ValueError:
            current = -1
        return self.endpoints[(current + 1) % len(self.endpoints)]

    def _is_missing(self) -> bool:
        return self.broken or self.traffic(self.device.name) is None

    def _outage(self, since: float, taken: frozenset[Trigger]) -> Outage:
        return Outage(since, self._is_missing(), Trigger.UPLINK in taken, len(self.endpoints))

    def _report_families(
        self, before: frozenset[Family], quiet: frozenset[Family], families: frozenset[Family]
    ) -> frozenset[Family]:
        """Say which family stopped answering, or answers again, while the other goes on."""
        for family in sorted(quiet - before):
            self.log.warning("IPv%d does not answer through %s", family, self.device.name)
        for family in sorted(before & families):
            self.log.info("IPv%d answers through %s again", family, self.device.name)
        return (before - families) | quiet

    async def _probe(self, *, connected: bool, thorough: bool, patience: float) -> Answers:
        """Ask one round, tell the observer, and learn how fast the tunnel is; a suspicion ends it early."""
        begun = self.clock.monotonic()
        heard = False

        def hear(trace: Trace | None) -> None:
            nonlocal heard
            if not heard:
                heard, self.pace = True, self.clock.monotonic() - begun
            if trace is None or trace.active:
                self.observer.answered(trace)

        way = ProbePath(self.device.name, self.world, self.traffic)
        return await run_round(
            way,
            self.probe,
            connected=connected,
            thorough=thorough,
            patience=patience,
            heard=hear,
            interrupt=self.triggers.wait,
        )
