"""The status board: what is known now, as the object that programs read."""

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from entrypoint.errors import Error
from entrypoint.health.triggers import Triggers
from entrypoint.health.verdict import Alive, Blocked, Degraded, Foreign, Silent, Verdict
from entrypoint.linux import state_dir
from entrypoint.linux.world import World
from entrypoint.settings import Settings
from entrypoint.status import heartbeat
from entrypoint.status.history import History
from entrypoint.status.report import Healing, Status
from entrypoint.status.states import OUTAGE, USABLE, Event, State, step
from shadowsocks.server import Listening

if TYPE_CHECKING:
    from entrypoint.addresses import Endpoint, Family
    from entrypoint.health.diagnosis import Diagnosis
    from entrypoint.health.ladder import Rung
    from entrypoint.health.probe import Trace
    from entrypoint.linux.kernel_objects import Guise, Stats
    from entrypoint.linux.world import Clock
    from entrypoint.wireguard.device import Implementation

STATUS_NAME = "status.json"
HISTORY_FILE = "history.json"

SAVE_EVERY = 600.0
"""Seconds between two writes of the history while nothing changes."""

_log = logging.getLogger("ss-warp")


class Board:
    """Holds the status, and writes files and log when it changes. Implements health's Observer.

    `interval` is HEALTH_INTERVAL in seconds: a beat is good for two of them and a slow answer.
    """

    def __init__(
        self, clock: "Clock", directory: Path = Path(heartbeat.DIRECTORY), *, interval: float = 10.0
    ) -> None:
        self.clock = clock
        self.status = Status(since=clock.wall())
        self.history = History()
        self.on_change: Callable[[Status, Status], None] = lambda before, after: None
        """Called with each change of the health word; must not block."""
        self._history_file: Path | None = None
        self._saved = clock.monotonic()
        self._directory = directory
        self._good_for = 2 * interval + 15
        self._beat = clock.monotonic()
        self._peer = (0, 0)
        self._left: Status | None = None
        """What was shown before the last reconnect, until its exit turns out to be another."""
        self._writable = True
        self._write()

    def expect(self, *, shadowsocks: bool, state_directory: Path | None = None) -> None:
        """Note whether clients are to be served; continue the history in `state_directory`."""
        if state_directory and self._history_file is None:
            self._history_file = state_directory / HISTORY_FILE
            try:
                self.history = History.from_json(state_dir.read(self._history_file))
            except Error as error:
                _log.debug("cannot read the history: %s", error)
            self.history.end_interruption(self.clock.wall())
        self._set(shadowsocks=shadowsocks)

    def move(self, event: Event, detail: str = "", level: int = logging.INFO) -> None:
        """Take the step that `event` leads to; raise DefectError if the table has none."""
        before = self.status
        if before.state is State.STOPPING:
            return  # whatever was under way comes too late
        to, sentence, _ = step(before.state, event)
        reason = ": ".join(filter(None, (sentence, detail)))
        now = self.clock.wall()
        since = before.since if to is before.state else now
        healing = before.healing
        if to not in OUTAGE:
            healing = None
        elif before.state not in OUTAGE:
            healing = Healing(since)
        cause = None if to in (State.CONNECTING, State.CONNECTED) else before.cause
        self.status = replace(before, state=to, reason=reason, since=since, healing=healing, cause=cause)
        self._keep_history(before, now)
        self._write()
        if reason != before.reason:
            phase = before.state in (State.REGISTERING, State.CONNECTING) and to is not before.state
            took = f" ({now - before.since:.1f} s)" if phase else ""
            _log.log(level, "%s%s%s", sentence, took, f": {detail}" if detail else "")
        if before.health != self.status.health:
            self.on_change(before, self.status)

    def record_answer(self, family: "Family | None", trace: "Trace | None", round_trip: float) -> None:
        """Note an answer through the tunnel: a trace, or None for DNS."""
        now = self.clock.wall()
        families = self.status.families | ({family: now} if family else {})
        self.status = replace(self.status, answered=now, round_trip=round_trip, families=families)
        if self.status.state in USABLE:
            self._beat = self.clock.monotonic()
        if trace:
            self._record_trace(trace, now)
        self._write()

    def _record_trace(self, trace: "Trace", now: float) -> None:
        self.status = replace(
            self.status,
            proven=self.status.proven or trace.active,
            traced=now,
            warp=trace.warp,
            colo=trace.colo or self.status.colo,
            country=trace.loc or self.status.country,
            ipv4=trace.ip if isinstance(trace.ip, IPv4Address) and trace.active else self.status.ipv4,
            ipv6=trace.ip if isinstance(trace.ip, IPv6Address) and trace.active else self.status.ipv6,
        )
        # An address that becomes known only now is no other exit.
        if (before := self._left) and any(
            old and old != new for old, new in zip(_exit(before), _exit(self.status), strict=True)
        ):
            self._left = None
            self.history.changed += 1
        if trace.active and trace.ip:
            self.history.record_exit(now, f"{trace.ip} {trace.colo} {trace.loc}".strip())

    def show(self, verdict: Verdict) -> None:
        """Show the verdict on a round; the monitor logs it, but for the first connection."""
        first = self.status.state is State.CONNECTING
        match verdict:
            case Alive():
                self._beat = self.clock.monotonic()
                if self.status.state is State.CONNECTED:
                    self._mark()
                    self._write()
                else:
                    self.move(Event.ANSWERED, self._exit(), logging.INFO if first else logging.DEBUG)
            case Degraded(reason):
                self.move(Event.DEGRADED, reason, logging.DEBUG)
            case Foreign(reason):
                self._beat = self.clock.monotonic()
                self.move(Event.FOREIGN, reason, logging.DEBUG)
            case Silent(reason):
                self.move(Event.UNANSWERED, reason, logging.DEBUG)
            case Blocked(reason):
                self.move(Event.BLOCKED, reason, logging.DEBUG)
            case _:
                assert_never(verdict)

    def show_cause(self, cause: "Diagnosis | None") -> None:
        """Show what is wrong, None when nothing is."""
        self._set(cause=cause)

    def show_repair(self, rung: "Rung") -> None:
        """Show the repair that is being tried."""
        if self.status.state not in (*USABLE, *OUTAGE):
            return
        self.history.repairs += 1
        self.status = replace(self.status, repairs=self.history.repairs)
        if now := self.status.healing:
            self.status = replace(self.status, healing=replace(now, rung=rung.value, tried=now.tried + 1))
        self._write()

    def show_reconnect(self, endpoint: "Endpoint") -> None:
        """Show that a user asked for another exit; the next trace says which one it is."""
        self.history.reconnects += 1
        self._left = self.status
        self._set(traced=0, endpoint=endpoint)

    def show_stop(self) -> None:
        """Show that everything is being undone; twice is once."""
        self.move(Event.STOP)
        self.save_history()

    def show_device(
        self, implementation: "Implementation", endpoint: "Endpoint", guise: "Guise | None" = None
    ) -> None:
        """Show which engine carries the packets, where to, and what they look like."""
        self._set(implementation=implementation, endpoint=endpoint, guise=guise)

    def count(self, stats: "Stats") -> None:
        """Add the peer's counters, which start at 0 with every new peer, to the totals."""
        received, sent = stats.rx_bytes, stats.tx_bytes
        before = self._peer if received >= self._peer[0] and sent >= self._peer[1] else (0, 0)
        self.history.received += received - before[0]
        self.history.sent += sent - before[1]
        self._peer = received, sent
        self.status = replace(
            self.status,
            handshake=stats.handshake or self.status.handshake,
            rx_bytes=self.history.received,
            tx_bytes=self.history.sent,
        )
        self._mark()
        if self.clock.monotonic() - self._saved >= SAVE_EVERY:
            self.save_history()
        self._write()

    def show_account(self, kind: str) -> None:
        """Show the kind of account: free, plus, team."""
        self._set(account=kind)

    def show_listeners(self, method: str, users: tuple[str, ...], listening: Collection[Listening]) -> None:
        """Show what Shadowsocks offers; no listeners while its server is down."""
        before = self.status
        self._set(method=method, users=users, listening=frozenset(listening))
        if before.health != self.status.health:
            self.on_change(before, self.status)

    def save_history(self) -> None:
        """Write the history to the state volume."""
        self._saved = self.clock.monotonic()
        if self._history_file is None:
            return
        try:
            state_dir.replace(self._history_file, self.history.to_json())
        except Error as error:
            _log.debug("cannot save the history: %s", error)

    def _keep_history(self, before: Status, now: float) -> None:
        if self.status.state in OUTAGE and before.state in USABLE:
            self.history.begin_interruption(now, self.status.reason)
        elif self.status.state in (*USABLE, State.STOPPING):
            self.history.end_interruption(now)
        self._mark()
        if before.state is not self.status.state and before.state in (*USABLE, *OUTAGE):
            self.save_history()

    def _mark(self) -> None:
        kinds = {State.CONNECTED: "connected", State.DEGRADED: "degraded", State.FOREIGN: "degraded"}
        if self.status.state in (*USABLE, *OUTAGE):
            self.history.mark(self.clock.wall(), kinds.get(self.status.state, "down"))

    def _set(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        self._write()

    def _exit(self) -> str:
        exits = " and ".join(str(address) for address in (self.status.ipv4, self.status.ipv6) if address)
        return f"warp={self.status.warp} through {exits or 'an unknown address'} {self.status.colo}".rstrip()

    def _write(self) -> None:
        state, reason = self.status.health
        beat = heartbeat.format_beat(state, self._beat, self._good_for, reason)
        content = json.dumps(self.status.as_json(self.clock.wall(), self.history), indent=1) + "\n"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _replace(self._directory / heartbeat.HEARTBEAT_NAME, beat)
            _replace(self._directory / STATUS_NAME, content)
        except OSError as error:
            if self._writable:
                _log.warning("cannot write the status to %s: %s", self._directory, error.strerror)
            self._writable = False
        else:
            self._writable = True


def _exit(status: Status) -> tuple[object, ...]:
    return status.ipv4, status.ipv6, status.colo


def _replace(path: Path, text: str) -> None:
    # No fsync: the file describes this boot alone and must not wait for a disk.
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Run:
    """What every part of one run shares: settings, the five doors, status board, and triggers."""

    settings: Settings
    world: World
    board: Board
    triggers: Triggers = field(default_factory=Triggers)

    def state_file(self, name: str) -> Path:
        """Return the path of a file in the state directory."""
        return self.settings.account.state_dir / name
