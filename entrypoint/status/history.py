"""The last day: a strip of quarter hours, interruptions, exits; and counters that survive a restart."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SLOT = 900
"""Seconds of one character of the strip."""

SLOTS = 96
INTERRUPTIONS = 100
EXITS = 24

MARKS = {"unknown": " ", "connected": "█", "degraded": "▒", "down": "_"}
"""How the strip shows the worst that happened in a quarter of an hour."""

RANK = tuple(MARKS)


@dataclass(slots=True)
class History:
    """What `ss-warp status` shows of the past. Times in seconds since 1970."""

    slots: dict[int, str] = field(default_factory=dict)
    interruptions: list[tuple[float, float, str]] = field(default_factory=list)
    """Begin, end and reason; an end of 0 is not over."""
    exits: list[tuple[float, str]] = field(default_factory=list)
    received: int = 0
    sent: int = 0
    repairs: int = 0
    reconnects: int = 0
    """New exits that were asked for, and how many of them `changed` anything."""
    changed: int = 0

    def mark(self, now: float, kind: str) -> None:
        """Note that the tunnel is `kind` (a key of MARKS) now."""
        slot = int(now // SLOT)
        if RANK.index(kind) >= RANK.index(self.slots.get(slot, "unknown")):
            self.slots[slot] = kind
        for old in [one for one in self.slots if not slot - SLOTS < one <= slot]:
            del self.slots[old]

    def begin_interruption(self, now: float, reason: str) -> None:
        """Note the begin of an interruption, unless one goes on."""
        if not (self.interruptions and not self.interruptions[-1][1]):
            self.interruptions = [*self.interruptions, (now, 0.0, reason)][-INTERRUPTIONS:]

    def end_interruption(self, now: float) -> None:
        """Note the end of the interruption that goes on, if one does."""
        if self.interruptions and not self.interruptions[-1][1]:
            begin, _, reason = self.interruptions[-1]
            self.interruptions[-1] = (begin, max(now, begin), reason)

    def record_exit(self, now: float, place: str) -> None:
        """Note where requests come out, if that is new."""
        if not self.exits or self.exits[-1][1] != place:
            self.exits = [*self.exits, (now, place)][-EXITS:]

    def strip(self, now: float) -> str:
        """Return the last 24 hours, oldest first."""
        last = int(now // SLOT)
        return "".join(MARKS[self.slots.get(slot, "unknown")] for slot in range(last - SLOTS + 1, last + 1))

    def recent(self, now: float) -> list[tuple[float, float, str]]:
        """Return the interruptions of the last 24 hours, cut to them."""
        since = now - SLOT * SLOTS
        return [
            (max(begin, since), end or now, reason)
            for begin, end, reason in self.interruptions
            if begin <= now and (end or now) >= since
        ]

    def to_json(self) -> bytes:
        """Return the file's content."""
        return (
            json.dumps(
                {
                    "format": 1,
                    "slots": self.slots,
                    "interruptions": self.interruptions,
                    "exits": self.exits,
                    "counters": [*(self.received, self.sent, self.repairs), *(self.reconnects, self.changed)],
                }
            ).encode()
            + b"\n"
        )

    @classmethod
    def from_json(cls, content: bytes | None) -> "History":
        """Parse the file; what cannot be read counts as empty."""
        try:
            read: Mapping[str, Any] = json.loads(content or b"{}")
            return cls(
                {int(slot): kind for slot, kind in read["slots"].items() if kind in MARKS},
                [(_time(a), _time(b), str(why)) for a, b, why in read["interruptions"]][-INTERRUPTIONS:],
                [(_time(at), str(place)) for at, place in read["exits"]][-EXITS:],
                *(max(0, int(one)) for one in read["counters"][:5]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return cls()


def _time(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]  # a TypeError is caught by the caller
    if not math.isfinite(number):
        raise ValueError(value)
    return number
