"""HealthMonitor: probe the tunnel in rounds, judge them, and repair the tunnel while it is silent."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import assert_never

import anyio

from entrypoint.addresses import Endpoint, Family
from entrypoint.errors import UnhealableError
from entrypoint.health import memory
from entrypoint.health.diagnosis import Diagnosis, Outside
from entrypoint.health.ladder import Climb, Outage, Rung, SwitchEngineError, is_exhausted, next_rung
from entrypoint.health.memory import HealthMemory
from entrypoint.health.observer import Hooks, Observer
from entrypoint.health.probe import Answers, End, HttpsGate, Probe, ProbePath, Trace, run_round
from entrypoint.health.triggers import Trigger, Triggers, wait_for_trigger
from entrypoint.health.verdict import (
    TRACELESS,
    Alive,
    Blocked,
    Degraded,
    Foreign,
    Silent,
    Traced,
    Verdict,
    is_usable,
    judge,
)
from entrypoint.linux.kernel_objects import DeviceConfig, Guise, Traffic
from entrypoint.linux.world import Clock, World
from entrypoint.wireguard.device import Device, Trouble

PROBE_TIMEOUT = 1.2
"""Seconds without an answer before a round is silent: three queries of each family."""

TRACE_AFTER = 0.6
"""Seconds without a DNS answer before the trace pages are requested too."""

SETTLE_TIMEOUTS = (3.0, 1.5, 2.0, 3.0, 4.0)
"""Seconds that a tunnel gets to answer: a new one, then after each repair of an outage; then SLOWEST_TIMEOUT.

The second is short because a lost handshake is common under load, and WireGuard repeats it only after 5 s.
"""

SLOWEST_TIMEOUT = 5.0
"""Seconds that a slow tunnel gets at most."""

TRACE_EVERY = 300.0
"""Seconds between two traces of a tunnel that answers."""

TRACE_PAUSE = 600.0
"""Seconds at most between two traces while the trace pages do not load, or do not say WARP."""

RECONNECT_PAUSE = 5.0
"""Seconds between two requested changes of the exit."""

PORTS = (20_000, 60_000)
"""Range of the source ports that Rung.NEW_PORT draws from."""

log = logging.getLogger("ss-warp")


@dataclass(slots=True)
class HealthMonitor:
    """Watch one tunnel and repair it while it is silent.

    `endpoints` and `guises` are the candidates, those of `config` are in use. Replacing the peer
    alternates with `other_key` while a key rotation is unconfirmed. `can_switch`: another WireGuard
    implementation may be tried. Start `keep_device` first, then call `connect`, then `run`.
    """

    device: Device
    config: DeviceConfig
    endpoints: tuple[Endpoint, ...]
    probe: Probe
    world: World
    observer: Observer
    hooks: Hooks
    traffic: Callable[[str], Traffic | None]
    guises: tuple[Guise, ...] = ()
    memory: HealthMemory = field(default_factory=HealthMemory)
    triggers: Triggers = field(default_factory=Triggers)
    exit_on_fatal: bool = False
    can_switch: bool = False
    other_key: str | None = field(default=None, repr=False)

    verdict: Verdict | None = None
    traced: Traced = field(default_factory=Traced)
    cause: Diagnosis | None = None
    outside: Outside = field(default_factory=Outside)
    outage: Outage | None = None
    pace: float = 0.0
    last_trip: float = 0.0
    broken: bool = False
    outage_wall: float = 0.0
    _again: bool = False
    _trace_due: float = float("-inf")
    _bad_traces: int = 0
    _disguised: bool = False
    _missing: frozenset[Family] = frozenset()
    _quiet: frozenset[Family] = frozenset()
    _reconnected: float = float("-inf")
    _gate: HttpsGate = field(init=False)
    trouble: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self._gate = HttpsGate(self.clock)

    @property
    def clock(self) -> Clock:
        return self.world.clock

    @property
    def name(self) -> str:
        return self.device.name

    async def keep_device(self) -> None:
        """Keep the device's engine alive until cancelled, and turn its reports into triggers."""

        def report(trouble: Trouble) -> None:
            if trouble == "restarted":
                log.warning("%s: restarted the WireGuard engine, which had exited", self.name)
            self.triggers.fire(Trigger.RESTARTED if trouble == "restarted" else Trigger.GONE)

        await self.device.keep(report)

    async def connect(self) -> Verdict:
        """Probe and repair until the tunnel carries something; return the verdict."""
        while self.verdict is None or not is_usable(self.verdict):
            await self._step()
        if self.memory.unsaved:
            self.memory.record_worked(self.config.endpoint, self.clock.wall())
        return self.verdict

    async def run(self) -> None:
        """Probe every interval, and at once on a trigger; repair while silent. Never returns."""
        while True:
            await self._step()
            if is_usable(self.verdict) and not self._again:
                await wait_for_trigger(
                    self.triggers, self.traffic, self.name, self.clock, self.probe.interval
                )

    async def _step(self) -> None:
        """Probe one round, show the verdict, and climb a rung if the tunnel is silent."""
        self._again, taken = False, self.triggers.take()
        if self._is_missing():
            self._set_verdict(Silent(f"{self.name} is gone"))
            await self._climb(taken)
        elif Trigger.RECONNECT in taken:
            await self._reconnect()
        elif Trigger.UPLINK in taken:
            await self._climb(taken)
        answers = await self._ask(taken)
        if self._is_missing():
            return
        before, self.traced = self.traced, self.traced.after(answers)
        verdict = judge(answers, self.name, self.traced, strict_clock=self.probe.strict_clock)
        if verdict is None:
            return  # a cut round, or DNS before the first trace: not enough to judge
        if before.known:
            self._schedule_trace(answers)
        else:
            self._again = True  # the first round ends with the first trace: the other family is due
        self._set_verdict(verdict)
        if isinstance(verdict, Silent):
            await self._climb(frozenset())
            return
        self._report_families(answers)
        if before.unanswered < self.traced.unanswered and not self.traced.certificate:
            await self._repair_degraded(self.traced.unanswered)

    async def _ask(self, taken: frozenset[Trigger]) -> Answers:
        """Probe one round; a trigger ends it early."""
        begun = self.clock.monotonic()
        heard = False

        def on_answer(family: Family | None, trace: Trace | None) -> None:
            nonlocal heard
            if not heard:
                heard, self.last_trip = True, self.clock.monotonic() - begun
                self.pace = max(self.last_trip, 0.8 * self.pace)
            self.observer.record_answer(family, trace, self.last_trip)

        thorough = begun >= self._trace_due or bool(taken - {Trigger.SILENCE}) or not self.traced.known
        trace_after = 0.0 if thorough and not self.outage else max(TRACE_AFTER, 2 * self.pace)
        if not self.traced.known:
            end: End = "trace"
            trace_after = 0.0
        else:
            end = "answer" if self.outage else "linger"
        return await run_round(
            ProbePath(self.name, self.world, self.traffic, self._gate),
            self.probe,
            end=end,
            trace_after=trace_after,
            patience=self._patience() + (trace_after if self.traced.known else 0),
            on_answer=on_answer,
            interrupt=self.triggers.wait,
        )

    def _patience(self) -> float:
        slow = min(3 * self.pace, SLOWEST_TIMEOUT)
        if self.outage is None and self.verdict is not None:
            return max(slow, PROBE_TIMEOUT)
        climbed = 0 if self.outage is None else self._climbed(self.outage)
        if climbed >= len(SETTLE_TIMEOUTS):
            return SLOWEST_TIMEOUT * self.memory.random.uniform(0.8, 1)  # a fleet must not keep in step
        return max(slow, SETTLE_TIMEOUTS[climbed])

    def _climbed(self, outage: Outage) -> int:
        return sum(climb.at >= outage.since for climb in self.memory.climbs)

    def _schedule_trace(self, answers: Answers) -> None:
        """Ask for the traces again in 5 minutes; sooner, then ever later, if they failed."""
        if not answers.thorough or answers.interrupted or self.outage:
            return
        jitter = 1 + self.memory.random.uniform(0, 0.2)
        if answers.active:
            self._bad_traces, pause = 0, TRACE_EVERY * jitter
        elif answers.families or answers.traces:
            self._bad_traces += 1
            doubled = max(0, self._bad_traces - TRACELESS)
            pause = min(TRACE_PAUSE, self.probe.interval * 2**doubled) * jitter if doubled else 0
        else:
            return
        self._trace_due = self.clock.monotonic() + pause

    def _set_verdict(self, verdict: Verdict) -> None:
        """Show the verdict; log one line when it changes."""
        now = self.clock.monotonic()
        if isinstance(verdict, Silent):
            if self.outage is None:
                self.outage = Outage(now, jitter=self.memory.random.random())
                self.outage_wall = self.clock.wall()
            if self.cause and self.cause.blocked:
                verdict = Blocked(f"{verdict.reason}: {self.cause.sentence}")
        elif is_usable(verdict):
            self.memory.answered = self.clock.wall()
        before, self.verdict = self.verdict, verdict
        self.observer.show(verdict)
        if self.outage and is_usable(verdict):
            self._end_outage(now)
        elif type(before) is not type(verdict) or (before and _reason(before) != _reason(verdict)):
            self._log(before, verdict)
        if isinstance(verdict, Alive):
            self.trouble = anyio.Event() if self.trouble.is_set() else self.trouble
            if self.cause:
                self.set_cause(None)
        else:
            self.trouble.set()

    def _log(self, before: Verdict | None, verdict: Verdict) -> None:
        match verdict:
            case Alive() if isinstance(before, Degraded | Foreign):
                log.info("%s has recovered: the trace page says WARP", self.name)
            case Silent(reason):
                log.warning("%s (repairing)", reason)
            case Degraded(reason) | Foreign(reason):
                log.warning("%s", reason)
            case Alive() | Blocked():
                pass  # the supervisor says when it is connected; `explain` says what blocks
            case _:
                assert_never(verdict)

    def _end_outage(self, now: float) -> None:
        assert self.outage is not None  # noqa: S101 - the caller asked
        since, climbed = self.outage.since, self._climbed(self.outage)
        last = self.memory.climbs[-1].rung.value if climbed else ""
        repairs = {0: "", 1: f"; after: {last}"}.get(climbed, f"; {climbed} repairs, the last: {last}")
        took = now - since
        log.info("%s answers again (after %.*f s%s)", self.name, 1 if took < 10 else 0, took, repairs)
        self.outage, self._again, self._trace_due = None, True, now  # with a trace, and both families
        self._disguised = False
        self.memory.record_worked(self.config.endpoint, self.clock.wall())

    async def _repair_degraded(self, rounds: int) -> None:
        """Repair once, gently: DNS passes, so the trace page may simply be down.

        DNS answers are small; a page with its certificates is the first large answer. Where only that is
        lost, broken segmentation offloads may be the cause, and the other engine has others.
        """
        if rounds == TRACELESS:
            await self._climb(frozenset())
        elif rounds == 2 * TRACELESS and self.can_switch:
            self.memory.climb(Climb(Rung.SWITCH_ENGINE, self.clock.monotonic()))
            raise SwitchEngineError

    async def _climb(self, taken: frozenset[Trigger]) -> None:
        """Climb the next rung, if one is allowed; one that fails did not help."""
        now = self.clock.monotonic()
        may_switch = self.can_switch and not self.traced.known  # sockets bound to the interface die
        outage = replace(
            self.outage or Outage(now),
            device_missing=self._is_missing(),
            uplink_changed=Trigger.UPLINK in taken,
            endpoints=len(self.endpoints),
            other_engine=may_switch and bool(self.outside.udp),
            disguise=bool(self.outside.udp and self.guises[1:])
            and (may_switch or self.device.implementation == "userspace")
            and memory.silent_everywhere(self.memory.known, self.endpoints, self.clock.wall()),
        )
        if self.exit_on_fatal and self.outage and is_exhausted(self.memory.climbs, outage):
            reason = _reason(self.verdict) if self.verdict else "no answer"
            raise UnhealableError(f"{reason}: every repair was tried", "exiting: EXIT_ON_FATAL=on")
        rung = next_rung(self.memory.climbs, now, outage)
        if rung is None:
            return
        self.memory.climb(Climb(rung, now))
        self.observer.show_repair(rung)
        log.debug("%s: %s", self.name, rung.value)
        try:
            await self._carry_out(rung)
        except OSError as error:
            log.debug("%s: %s failed: %s", self.name, rung.value, error)

    async def _carry_out(self, rung: Rung) -> None:
        match rung:
            case Rung.REPLACE_PEER:
                if other := self.other_key:
                    self.other_key = self.config.private_key
                    self.config = replace(self.config, private_key=other)
                await self.device.configure(self.config)
            case Rung.NEXT_ENDPOINT:
                self.memory.record_failed(self.config.endpoint, self.clock.wall())
                await self._configure(self._next_endpoint())
            case Rung.NEW_PORT:
                await self._configure(self.config.endpoint, listen_port=self.memory.random.randint(*PORTS))
            case Rung.DISGUISE:
                guise = memory.following(self.guises, self.config.guise)
                level = logging.DEBUG if self._disguised else logging.WARNING  # once an outage
                log.log(level, "%s: no port answers, but DNS outside does: trying %s", self.name, guise)
                self._disguised = True
                self.memory.disguise(guise)
                if self.device.implementation == "kernel":
                    # Userspace starts with this guise, and stays: it counts as the day's switch.
                    self.memory.climb(Climb(Rung.SWITCH_ENGINE, self.clock.monotonic()))
                    raise SwitchEngineError
                self.config = replace(self.config, guise=guise)
                await self.device.configure(self.config)
            case Rung.RECREATE:
                self.broken = True
                await self.device.recreate()
                await self.hooks.restore()
                self.broken = False
            case Rung.ASK_API:
                self.hooks.doubt()  # answered in its own time: the tunnel may come back meanwhile
            case Rung.SWITCH_ENGINE:
                raise SwitchEngineError
            case _:
                assert_never(rung)

    async def _configure(self, endpoint: Endpoint, *, listen_port: int = 0) -> None:
        self.config = replace(self.config, endpoint=endpoint, listen_port=listen_port)
        try:
            await self.device.configure(self.config)
        finally:
            self.config = replace(self.config, listen_port=0)

    def _next_endpoint(self) -> Endpoint:
        return memory.next_endpoint(
            self.memory.known, self.endpoints, self.config.endpoint, self.clock.wall()
        )

    async def _reconnect(self) -> None:
        """Take a new endpoint, session and source port, because a user wants another exit."""
        now = self.clock.monotonic()
        if self.outage or now - self._reconnected < RECONNECT_PAUSE:
            return
        self._reconnected, endpoint = now, self._next_endpoint()
        log.info("%s: reconnecting on request, through %s", self.name, endpoint)
        self.observer.show_reconnect(endpoint)
        try:
            await self._configure(endpoint, listen_port=self.memory.random.randint(*PORTS))
        except OSError as error:
            log.warning("%s: cannot reconnect: %s", self.name, error)

    def _is_missing(self) -> bool:
        return self.broken or self.traffic(self.name) is None

    def _report_families(self, answers: Answers) -> None:
        """Log which family stopped answering, or answers again, while the other goes on."""
        missing = answers.asked - answers.families
        quiet, self._missing = missing & self._missing, missing
        for family in sorted(quiet - self._quiet):
            log.warning("IPv%d does not answer through %s", family, self.name)
        for family in sorted(self._quiet & answers.families):
            log.info("IPv%d answers through %s again", family, self.name)
        self._quiet = (self._quiet - answers.families) | quiet

    def set_cause(self, cause: Diagnosis | None) -> None:
        self.cause = cause
        self.observer.show_cause(cause)


def _reason(verdict: Verdict) -> str:
    return "" if isinstance(verdict, Alive) else verdict.reason
