"""The status as an object for programs and as lines for people."""

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entrypoint.linux.world import World
from entrypoint.settings import Settings
from entrypoint.status import heartbeat
from entrypoint.status.states import Event, State, step
from shadowsocks.server import Listening

if TYPE_CHECKING:
    from entrypoint.addresses import Endpoint
    from entrypoint.health.ladder import Rung
    from entrypoint.health.probe import Trace
    from entrypoint.linux.kernel_objects import Stats
    from entrypoint.linux.world import Clock
    from entrypoint.wireguard.device import Implementation


def status_json(status: "Status", now: float) -> dict[str, Any]:
    """Return the stable object of `ss-warp status --json`, /status and status.json."""
    healing = status.healing
    return {
        "state": status.state.value,
        "since": _format_time(status.since),
        "reason": status.reason,
        "warp": status.warp or None,
        "exit": {
            "ipv4": str(status.ipv4) if status.ipv4 else None,
            "ipv6": str(status.ipv6) if status.ipv6 else None,
        },
        "colo": status.colo or None,
        "implementation": status.implementation,
        "endpoint": str(status.endpoint) if status.endpoint else None,
        "reserved": ",".join(map(str, status.reserved)) if any(status.reserved) else None,
        "handshake_age": max(0, round(now - status.handshake)) if status.handshake else None,
        "rx_bytes": status.rx_bytes,
        "tx_bytes": status.tx_bytes,
        "account": {"kind": status.account or None},
        "shadowsocks": {
            "listening": sorted(map(str, status.listening)),
            "method": status.method or None,
            "users": list(status.users),
        },
        "healing": {
            "since": _format_time(healing.since),
            "rung": healing.rung or None,
            "tried": healing.tried,
        }
        if healing
        else None,
    }


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


STATUS_NAME = "status.json"

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
        beat = heartbeat.format_beat(state, self._answered, self._good_for, reason)
        content = json.dumps(status_json(status, self.clock.wall()), indent=1) + "\n"
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


def _replace(path: Path, text: str) -> None:
    # No fsync: it tells of this boot alone, and must not wait for a disk.
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Run:
    """What every part of one run shares: its settings, the five doors, and the status board."""

    settings: Settings
    world: World
    board: Board

    def state_file(self, name: str) -> Path:
        """Return the path of one of state_dir's files."""
        return self.settings.account.state_dir / name
