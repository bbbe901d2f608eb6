"""The ladder of repairs: a table of rungs, and the rung to climb next. Pure."""

from dataclasses import dataclass, replace
from enum import Enum


class Rung(Enum):
    """A kind of repair; the value completes a sentence in the log."""

    REPLACE_PEER = "replacing the peer"
    NEXT_ENDPOINT = "trying the next endpoint"
    NEW_PORT = "changing the source port"
    RECREATE = "recreating the interface"
    SWITCH_ENGINE = "trying the other WireGuard implementation"
    DISGUISE = "changing what handshakes look like"
    ASK_API = "asking the API about the account"


class SwitchEngineError(Exception):
    """The supervisor should start over with the other WireGuard implementation."""


@dataclass(frozen=True, slots=True)
class Row:
    """A rung and when it may be climbed.

    `times` in one round of the ladder; not before the outage is `after` seconds old; over all outages
    `burst` times in `seconds`. `reason` says what it mends.
    """

    rung: Rung
    times: int
    after: float
    burst: int
    seconds: float
    reason: str


# rung, times, after, burst, seconds: reason
LADDER = (  # one round
    Row(Rung.REPLACE_PEER, 1, 0, 1, 5, "an edge that lost the session; WireGuard alone needs 15 s"),
    Row(Rung.NEXT_ENDPOINT, 3, 2, 10, 30, "a blocked port or a dead edge; no wandering for a short outage"),
    Row(Rung.NEW_PORT, 1, 8, 1, 20, "a NAT or filter on the way that dropped this flow for good"),
    Row(Rung.RECREATE, 1, 30, 1, 300, "an engine that hangs; seldom: sockets bound to the interface die"),
)

ROUNDS = 3
"""Rounds of the ladder without an answer before the account itself is doubted."""

ASK_API = Row(Rung.ASK_API, 1, 0, 1, 600, "a device that was deleted or moved; calls to the API are rare")
SWITCH_ENGINE = Row(
    Rung.SWITCH_ENGINE, 1, 60, 1, 86400, "an engine that this kernel or NIC breaks; once a day"
)
DISGUISE = Row(Rung.DISGUISE, 1, 10, 1, 20, "a filter that knows WireGuard by its first packet or its bytes")
INTERFACE_MISSING = Row(
    Rung.RECREATE, 1, 0, 10, 50, "no interface; but another program may delete it in a loop"
)
UPLINK_CHANGED = Row(
    Rung.REPLACE_PEER, 1, 0, 10, 50, "another uplink address: an engine may keep the old one 15 s"
)


BESIDE = frozenset({Rung.ASK_API, Rung.DISGUISE})
"""Rungs that leave the round where it is."""


@dataclass(frozen=True, slots=True)
class Climb:
    """A rung that was climbed, and when (Clock.monotonic)."""

    rung: Rung
    at: float


@dataclass(frozen=True, slots=True)
class Outage:
    """What is known about the outage that began at `since` (Clock.monotonic).

    `jitter` is between 0 and 1, drawn once per outage: after an outage of the edge a whole fleet would ask
    the API in the same second.
    """

    since: float
    device_missing: bool = False
    uplink_changed: bool = False
    endpoints: int = 1
    other_engine: bool = False
    """Whether another WireGuard implementation is worth a try."""
    disguise: bool = False
    """Whether messages may look otherwise, and every port is blocked as they are."""
    jitter: float = 0.0

    @property
    def ask_after(self) -> float:
        """Seconds an outage must last before the API is called; three rounds take about 85."""
        return 90 + 60 * self.jitter

    @property
    def ask_every(self) -> float:
        """Seconds between two calls of the API: 10 minutes ± 20 %."""
        return ASK_API.seconds * (0.8 + 0.4 * self.jitter)


def next_rung(history: tuple[Climb, ...], now: float, outage: Outage) -> Rung | None:
    """Return the rung to climb `now`; None while every rung that could help has to wait."""
    age = now - outage.since
    if outage.device_missing:
        return Rung.RECREATE if _allowed(INTERFACE_MISSING, history, now) else None
    if outage.uplink_changed and _allowed(UPLINK_CHANGED, history, now):
        return Rung.REPLACE_PEER
    if outage.other_engine and age >= SWITCH_ENGINE.after and _allowed(SWITCH_ENGINE, history, now):
        return Rung.SWITCH_ENGINE
    if outage.disguise and age >= DISGUISE.after and _allowed(DISGUISE, history, now):
        return Rung.DISGUISE
    others = outage.endpoints - 1
    round_ = [
        row
        for row in LADDER
        for _ in range(min(row.times, others) if row.rung is Rung.NEXT_ENDPOINT else row.times)
    ]
    climbed = sum(climb.at >= outage.since and climb.rung not in BESIDE for climb in history)
    ask = replace(ASK_API, seconds=outage.ask_every)
    if climbed >= ROUNDS * len(round_) and age >= outage.ask_after and _allowed(ask, history, now):
        return Rung.ASK_API
    for step in range(len(round_)):
        row = round_[(climbed + step) % len(round_)]
        if age >= row.after and _allowed(row, history, now):
            return row.rung
    return None


def _allowed(row: Row, history: tuple[Climb, ...], now: float) -> bool:
    recent = sum(climb.rung is row.rung and now - climb.at < row.seconds for climb in history)
    return recent < row.burst


def is_exhausted(history: tuple[Climb, ...], outage: Outage) -> bool:
    """Return whether every rung that can be climbed has been, in this outage."""
    climbed = {climb.rung for climb in history if climb.at >= outage.since}
    possible = {row.rung for row in LADDER if row.rung is not Rung.NEXT_ENDPOINT or outage.endpoints > 1}
    return climbed >= {*possible, Rung.ASK_API}
