"""What is known now, and the object that shows it: `ss-warp status --json`, /status and status.json.

One table makes the object and documents it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from entrypoint.addresses import Endpoint, Family
from entrypoint.health.diagnosis import Diagnosis
from entrypoint.linux.kernel_objects import Guise
from entrypoint.status import heartbeat
from entrypoint.status.history import History
from entrypoint.status.states import State
from entrypoint.wireguard.device import Implementation
from shadowsocks.server import Listening


@dataclass(frozen=True, slots=True)
class Healing:
    """A repair under way: its begin (seconds since 1970), the rung, and how many were tried."""

    since: float
    rung: str = ""
    tried: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Everything the board shows. Times in seconds since 1970; empty, None or 0 is "not known"."""

    since: float
    state: State = State.STARTING
    reason: str = "starting"
    proven: bool = False
    """Whether a trace through the tunnel has said WARP."""
    cause: Diagnosis | None = None
    warp: str = ""
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    colo: str = ""
    country: str = ""
    traced: float = 0
    """When a trace last came through the present session."""
    implementation: Implementation | None = None
    endpoint: Endpoint | None = None
    guise: Guise | None = None
    handshake: float = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    answered: float = 0
    round_trip: float = 0
    families: dict[Family, float] = field(default_factory=dict)
    account: str = ""
    shadowsocks: bool = False
    """Whether clients are to be served."""
    listening: frozenset[Listening] = field(default_factory=frozenset)
    method: str = ""
    users: tuple[str, ...] = ()
    healing: Healing | None = None
    repairs: int = 0

    @property
    def health(self) -> tuple[str, str]:
        """The one verdict that every probe shows, and why."""
        if self.state is State.FOREIGN and not self.proven:
            return "unproven", self.reason
        if self.state in (State.CONNECTED, State.FOREIGN) and self.shadowsocks and not self.listening:
            return "unserved", "the tunnel works, but Shadowsocks is not listening"
        return self.state, self.reason

    @property
    def healthy(self) -> bool:
        """Whether `health` is a good word."""
        return self.health[0] in heartbeat.HEALTHY

    def as_json(self, now: float, history: History | None = None) -> dict[str, Any]:
        """Return the stable object of `ss-warp status --json`, /status and status.json."""
        return as_json(self, history or History(), now)


class Field(NamedTuple):
    """A field by its path in the object, what it is, and where it comes from. Nothing known is null."""

    path: str
    text: str
    value: Callable[[Status, History, float], Any]


def format_time(seconds: float) -> str | None:
    """Return the time in UTC, None for 0."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None


def _age(since: float, now: float) -> int | None:
    return max(0, round(now - since)) if since else None


def _cause(status: Status) -> dict[str, str] | None:
    if status.cause is None:
        return None
    kind = status.cause.cause.name.lower().replace("_", "-")
    return {"kind": kind, "sentence": status.cause.sentence, "remedy": status.cause.remedy}


def _healing(status: Status) -> dict[str, Any] | None:
    now = status.healing
    return {"since": format_time(now.since), "rung": now.rung or None, "tried": now.tried} if now else None


def _day(history: History, now: float) -> dict[str, Any]:
    recent = history.recent(now)
    return {
        "strip": history.strip(now),
        "interruptions": len(recent),
        "seconds": round(sum(end - begin for begin, end, _ in recent)),
        "last": format_time(recent[-1][0]) if recent else None,
        "last_reason": recent[-1][2] if recent else None,
        "exits": [place for _, place in history.exits],
        "repairs": history.repairs,
    }


FIELDS = (
    Field("time", "when this was written", lambda s, _, now: format_time(now)),
    Field("pid", "the supervisor's process id in the container", lambda *_: os.getpid()),
    Field("state", "what ss-warp is doing, e.g. `connected`, `healing`", lambda s, *_: s.state.value),
    Field("since", "when it entered this state", lambda s, *_: format_time(s.since)),
    Field("reason", "why `health` is what it is", lambda s, *_: s.health[1]),
    Field("healthy", "whether /healthz answers 200", lambda s, *_: s.healthy),
    Field(
        "health",
        "`state`, or `unproven` (never seen to be WARP), or `unserved` (Shadowsocks is not listening)",
        lambda s, *_: str(s.health[0]),
    ),
    Field("cause", "what is wrong: `kind`, `sentence` and `remedy`", lambda s, *_: _cause(s)),
    Field("warp", "what the trace page calls the tunnel: `on`, `plus`, `off`", lambda s, *_: s.warp or None),
    Field("exit.ipv4", "the IPv4 address that sites see", lambda s, *_: s.ipv4 and str(s.ipv4)),
    Field("exit.ipv6", "the IPv6 address that sites see", lambda s, *_: s.ipv6 and str(s.ipv6)),
    Field("colo", "Cloudflare's data centre", lambda s, *_: s.colo or None),
    Field("country", "the country that sites see", lambda s, *_: s.country or None),
    Field("traced", "when the trace page last answered on this session", lambda s, *_: format_time(s.traced)),
    Field("implementation", "`kernel` or `userspace`", lambda s, *_: s.implementation),
    Field("endpoint", "where WireGuard's packets go", lambda s, *_: s.endpoint and str(s.endpoint)),
    Field(
        "reserved", "the reserved bytes of each message", lambda s, *_: (s.guise and s.guise.octets) or None
    ),
    Field("junk", "datagrams before each handshake", lambda s, *_: (s.guise and s.guise.junk) or None),
    Field("handshake_age", "seconds since the last handshake", lambda s, _, now: _age(s.handshake, now)),
    Field(
        "answer_age",
        "seconds since the last answer through the tunnel",
        lambda s, _, now: _age(s.answered, now),
    ),
    Field(
        "round_trip_ms",
        "how long the last answer took",
        lambda s, *_: round(s.round_trip * 1000) if s.answered else None,
    ),
    Field("families.ipv4", "when IPv4 last answered", lambda s, *_: format_time(s.families.get(4, 0))),
    Field("families.ipv6", "when IPv6 last answered", lambda s, *_: format_time(s.families.get(6, 0))),
    Field("rx_bytes", "received through the tunnel, restarts included", lambda s, *_: s.rx_bytes),
    Field("tx_bytes", "sent through the tunnel, restarts included", lambda s, *_: s.tx_bytes),
    Field("account.kind", "`free`, `plus`, `team` or `imported`", lambda s, *_: s.account or None),
    Field(
        "shadowsocks.listening",
        "transport and address of each listener",
        lambda s, *_: sorted(map(str, s.listening)),
    ),
    Field("shadowsocks.method", "SHADOWSOCKS_METHOD", lambda s, *_: s.method or None),
    Field("shadowsocks.users", "names in SHADOWSOCKS_USERS", lambda s, *_: list(s.users)),
    Field(
        "healing",
        "the repair under way: `since`, `rung`, and how many were `tried`",
        lambda s, *_: _healing(s),
    ),
    Field("reconnects.asked", "new exits requested, restarts included", lambda _, h, now: h.reconnects),
    Field("reconnects.changed", "how many of them changed an exit", lambda _, h, now: h.changed),
    Field(
        "day",
        "the last 24 hours: `strip` (a quarter of an hour each: █ connected, ▒ degraded, _ down), "
        "`interruptions`, their `seconds`, start and reason of the `last`, `exits`, and all `repairs` so far",
        lambda _, h, now: _day(h, now),
    ),
)


def as_json(status: Status, history: History, now: float) -> dict[str, Any]:
    """Return the object; `now` in seconds since 1970."""
    found: dict[str, Any] = {}
    for one in FIELDS:
        place = found
        *parents, name = one.path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = one.value(status, history, now)
    return found
