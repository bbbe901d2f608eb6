"""The figures: their names, units and goals. Which group measures them is in groups.py and starts.py."""

from dataclasses import dataclass
from typing import Literal

from bench.lanes import OURS, WIREGUARD
from bench.reserved import WITH, WITHOUT

ITSELF, BETTER = "itself", "the better sing-box"


@dataclass(frozen=True, slots=True)
class Goal:
    """At least, or at most, this much: of the value ITSELF, or of its ratio to another contestant's."""

    against: str
    bound: Literal["≥", "≤"]
    limit: float

    def met(self, value: float) -> bool:
        """Say whether this median is good enough."""
        return value >= self.limit if self.bound == "≥" else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the report: `subject` is whose figure it is, `beside` the first it is compared with."""

    name: str
    unit: str
    digits: int
    more_is_better: bool
    goals: tuple[Goal, ...] = ()
    subject: str = OURS
    beside: str = WIREGUARD


WHOLE = (Goal(WIREGUARD, "≥", 0.95), Goal(BETTER, "≥", 1.3))
CHEAP = (Goal(BETTER, "≤", 0.8),)
CASES = tuple(f"{way}, {streams}" for way in ("download", "upload") for streams in ("1 stream", "8 streams"))

FIGURES: dict[str, tuple[Figure, ...]] = {
    "throughput": (
        *(Figure(case, "Mbit/s", 0, True, WHOLE) for case in CASES),
        *(Figure(f"processor: {case}", "s/GB", 2, False, CHEAP) for case in CASES),
    ),
    "small": (
        Figure("connections", "new a second", 0, True, (Goal(BETTER, "≥", 1.0),)),
        Figure("processor: connections", "µs each", 0, False),
        Figure("datagrams", "of 1,200 bytes there and back a second", 0, True),
        Figure("latency p50", "ms there and back", 2, False),
        Figure("latency p99", "ms there and back", 2, False),
    ),
    "held": (
        Figure("memory, fresh", "MB", 1, False),
        Figure("memory, 9,920 idle connections", "MB", 1, False, (Goal(ITSELF, "≤", 150),)),
    ),
    "start": (
        Figure("cold start", "s to the first byte", 2, False, (Goal(ITSELF, "≤", 1.5),)),
        Figure("exec to blocked", "ms", 0, False, (Goal(ITSELF, "≤", 50),)),
        Figure("image", "MB", 0, False, (Goal(ITSELF, "≤", 150),)),
    ),
    "idle": (
        Figure("memory: supervisor", "MB", 1, False, (Goal(ITSELF, "≤", 60),)),
        Figure("memory: all processes", "MB", 1, False),
        Figure("idle: supervisor", "% of a core", 2, False, (Goal(ITSELF, "≤", 0.2),)),
        Figure("idle: all processes", "% of a core", 2, False),
    ),
    "reserved": (
        Figure("one stream", "Mbit/s", 0, True, (Goal(WITHOUT, "≥", 0.95),), WITH, WITHOUT),
        Figure("processor: one stream", "s/GB of both ends", 2, False, (), WITH, WITHOUT),
    ),
}
"""Group → what it measures, as docs/benchmarks.md shows it."""
