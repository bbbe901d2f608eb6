"""The status board: what is known at this moment, moved through the state table by events.

It writes /run/ss-warp/status.json (`ss-warp status`) and the heartbeat (`ss-warp healthcheck`), and logs
one sentence per change of state. What people and programs get to see: shown.py.
"""

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entrypoint import heartbeat
from entrypoint.shown import as_json
from entrypoint.state import Event, State, step
from shadowsocks.lines import Listening

if TYPE_CHECKING:
    from entrypoint.health.checks import Trace
    from entrypoint.health.ladder import Rung
    from entrypoint.ports import Clock
    from entrypoint.warp.endpoints import Endpoint
    from entrypoint.wireguard.device import Implementation, Stats

NAME = "status.json"

_log = logging.getLogger("ss-warp")


@dataclass(frozen=True, slots=True)
class Healing:
    """A repair under way: since when (seconds since 1970), the rung, and how many were tried."""

    since: float
    rung: str = ""
    tried: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Everything the board shows. Times in seconds since 1970; empty, None or 0 is "not known"."""

    since: float
    state: State = State.STARTING
    reason: str = "starting"
    warp: str = ""
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    colo: str = ""
    implementation: "Implementation | None" = None
    endpoint: "Endpoint | None" = None
    reserved: bytes = b""
    handshake: float = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    account: str = ""
    listening: frozenset[Listening] = field(default_factory=frozenset)
    method: str = ""
    users: tuple[str, ...] = ()
    healing: Healing | None = None
    repairs: int = 0

    @property
    def health(self) -> tuple[str, str]:
        """What probes are told, and why; only `connected` is well, and only while clients are served."""
        if self.state is State.CONNECTED and self.method and not self.listening:
            return "unserved", "the tunnel works, but Shadowsocks does not answer"
        return self.state, self.reason


class Board:
    """Holds the status, and tells files and log when it changes. Implements health's Observer.

    `interval` is HEALTH_INTERVAL in seconds: a beat is good for two of them and a slow answer.
    """

    def __init__(
        self, clock: "Clock", directory: Path = Path(heartbeat.DIRECTORY), *, interval: float = 10.0
    ) -> None:
        self.clock = clock
        self.status = Status(since=clock.wall())
        self._directory = directory
        self._good_for = 2 * interval + 15
        self._answered = clock.monotonic()
        self._proven = False
        self._writable = True
        self._write()

    def move(self, event: Event, detail: str = "", level: int = logging.INFO) -> None:
        """Take the step that `event` leads to; raise DefectError when there is none."""
        if self.status.state is State.STOPPING:
            return  # what was already on its way comes too late
        to, sentence, _ = step(self.status.state, event)
        reason = f"{sentence}: {detail}" if detail else sentence
        since = self.status.since if to is self.status.state else self.clock.wall()
        healing = self.status.healing
        if to is not State.HEALING:
            healing = None
        elif self.status.state is not State.HEALING:
            healing = Healing(since)
        changed = reason != self.status.reason
        self.status = replace(self.status, state=to, reason=reason, since=since, healing=healing)
        self._write()
        if changed:
            _log.log(level, "%s", reason)

    def answered(self, trace: "Trace | None") -> None:
        """Take note of an answer through the tunnel. The first proof is a trace; later any answer will do."""
        state = self.status.state
        proof = trace.active if trace else self._proven
        if not proof or state not in (State.CONNECTING, State.CONNECTED, State.HEALING):
            return
        self._answered = self.clock.monotonic()
        if trace:
            self._seen(trace)
        if state is State.CONNECTED:
            self._write()
            return
        # Once it was connected, the monitor's own lines tell of outages and their end.
        self.move(Event.ANSWERED, self._exit(), logging.DEBUG if self._proven else logging.INFO)
        self._proven = True

    def silent(self, reason: str) -> None:
        """Take note that the tunnel does not answer; the monitor logs the reason."""
        if self.status.state in (State.CONNECTING, State.CONNECTED):
            self.move(Event.UNANSWERED, reason, logging.DEBUG)
        elif self.status.state is State.HEALING:
            self._set(reason=reason)

    def healing(self, rung: "Rung") -> None:
        """Take note that a rung of the ladder is being climbed."""
        if self.status.state not in (State.CONNECTED, State.HEALING):
            return
        self.status = replace(self.status, repairs=self.status.repairs + 1)
        self.move(Event.REPAIRED, rung.value, logging.DEBUG)
        if now := self.status.healing:
            self._set(healing=replace(now, rung=rung.value, tried=now.tried + 1))

    def stopping(self) -> None:
        """Take note that everything is being taken back; twice is once."""
        self.move(Event.STOP)

    def device(self, implementation: "Implementation", endpoint: "Endpoint", reserved: bytes = b"") -> None:
        """Take note of who carries the packets, where to, and with which reserved bytes."""
        self._set(implementation=implementation, endpoint=endpoint, reserved=reserved)

    def counted(self, stats: "Stats") -> None:
        """Take note of the peer's counters; written with the next beat."""
        self.status = replace(
            self.status, handshake=stats.handshake, rx_bytes=stats.rx_bytes, tx_bytes=stats.tx_bytes
        )

    def account(self, kind: str) -> None:
        """Take note of the kind of account: free, plus, team."""
        self._set(account=kind)

    def serving(self, method: str, users: tuple[str, ...], listening: Collection[Listening]) -> None:
        """Take note of what Shadowsocks offers now; no listeners when its server is down."""
        self._set(method=method, users=users, listening=frozenset(listening))

    def _set(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        self._write()

    def _seen(self, trace: "Trace") -> None:
        self.status = replace(
            self.status,
            warp=trace.warp,
            colo=trace.colo or self.status.colo,
            ipv4=trace.ip if isinstance(trace.ip, IPv4Address) else self.status.ipv4,
            ipv6=trace.ip if isinstance(trace.ip, IPv6Address) else self.status.ipv6,
        )

    def _exit(self) -> str:
        exits = " and ".join(str(address) for address in (self.status.ipv4, self.status.ipv6) if address)
        return f"warp={self.status.warp} by {exits or 'an unknown address'} {self.status.colo}".rstrip()

    def _write(self) -> None:
        status = self.status
        state, reason = status.health
        beat = heartbeat.beat(state, self._answered, self._good_for, reason)
        content = json.dumps(as_json(status, self.clock.wall()), indent=1) + "\n"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _replace(self._directory / heartbeat.NAME, beat)
            _replace(self._directory / NAME, content)
        except OSError as error:
            if self._writable:
                _log.warning("cannot write the status to %s: %s", self._directory, error.strerror)
            self._writable = False
        else:
            self._writable = True


def _replace(path: Path, text: str) -> None:
    # No fsync: it tells of this boot alone, and must not wait for a disk.
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)
