"""The ladder of repairs: which rung comes next, as a table. Pure."""

from dataclasses import dataclass
from enum import Enum


class Rung(Enum):
    """One kind of repair; the value completes a sentence in the log."""

    REPLACE_PEER = "replacing the peer"
    NEXT_ENDPOINT = "trying the next endpoint"
    RECREATE = "recreating the interface"
    ASK_API = "asking the API about the account"


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
    Row(Rung.RECREATE, 1, 30, 1, 300, "an engine that hangs; seldom: sockets bound to the interface die"),
)

ROUNDS = 3
"""Rounds of the ladder without an answer until the account itself is doubted."""
ASK_API = Row(
    Rung.ASK_API, 1, 0, 1, 600, "a device that was deleted, or moved; else the API is left in peace"
)

INTERFACE_MISSING = Row(
    Rung.RECREATE, 1, 0, 10, 50, "no interface; but somebody may be deleting it in a loop"
)
UPLINK_CHANGED = Row(
    Rung.REPLACE_PEER, 1, 0, 10, 50, "another uplink address: wireguard-go keeps the old 15 s"
)


@dataclass(frozen=True, slots=True)
class Climb:
    """A rung that was climbed, and when (Clock.monotonic)."""

    rung: Rung
    at: float


@dataclass(frozen=True, slots=True)
class Outage:
    """What is known about the outage: `since` (Clock.monotonic), and what needs no guessing."""

    since: float
    device_missing: bool = False
    uplink_changed: bool = False
    endpoints: int = 1


def next_rung(history: tuple[Climb, ...], now: float, facts: Outage) -> Rung | None:
    """Return the rung to climb `now`; None while every rung that could help has to wait."""
    if facts.device_missing:
        return Rung.RECREATE if _allowed(INTERFACE_MISSING, history, now) else None
    if facts.uplink_changed and _allowed(UPLINK_CHANGED, history, now):
        return Rung.REPLACE_PEER
    others = facts.endpoints - 1
    round_ = [
        row
        for row in LADDER
        for _ in range(min(row.times, others) if row.rung is Rung.NEXT_ENDPOINT else row.times)
    ]
    climbed = sum(climb.at >= facts.since and climb.rung is not ASK_API.rung for climb in history)
    if climbed >= ROUNDS * len(round_) and _allowed(ASK_API, history, now):
        return ASK_API.rung
    for step in range(len(round_)):
        row = round_[(climbed + step) % len(round_)]
        if now - facts.since >= row.after and _allowed(row, history, now):
            return row.rung
    return None


def _allowed(row: Row, history: tuple[Climb, ...], now: float) -> bool:
    recent = sum(climb.rung is row.rung and now - climb.at < row.seconds for climb in history)
    return recent < row.burst


def exhausted(history: tuple[Climb, ...], facts: Outage) -> bool:
    """Return whether every rung that can be climbed has been, in this outage."""
    climbed = {climb.rung for climb in history if climb.at >= facts.since}
    possible = {row.rung for row in LADDER if row.rung is not Rung.NEXT_ENDPOINT or facts.endpoints > 1}
    return climbed >= {*possible, ASK_API.rung}
