"""The figures: their names, units and goals. Which group measures them is in groups.py and starts.py."""

from dataclasses import dataclass
from typing import Literal

from bench.engines import ENGINE
from bench.engines import GO as GO_ALONE
from bench.groups import SHARE
from bench.lanes import GO, OURS

ENGINES = (ENGINE, GO_ALONE)
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
    beside: str = GO


FASTER = (Goal(BETTER, "≥", 1.3),)
CHEAP = (Goal(BETTER, "≤", 0.6),)
MORE = (Goal(BETTER, "≥", 1.2),)
CASES = tuple(f"{way}, {streams}" for way in ("download", "upload") for streams in ("1 stream", "8 streams"))

FIGURES: dict[str, tuple[Figure, ...]] = {
    "throughput": (
        *(Figure(case, "Mbit/s", 0, True, FASTER if case.startswith("download") else ()) for case in CASES),
        *(Figure(f"processor: {case}", "s/GB", 2, False, CHEAP) for case in CASES),
    ),
    "limited": tuple(
        Figure(f"{case}, {SHARE} of a processor", "Mbit/s", 0, True, FASTER) for case in CASES[2:]
    ),
    "engine": (
        Figure("engine alone: one stream", "Mbit/s", 0, True, (), *ENGINES),
        Figure("processor: engine alone", "s/GB of both ends", 2, False, (), *ENGINES),
        Figure("engine alone: memory, fresh", "MB", 1, False, (), *ENGINES),
        Figure("engine alone: memory, after load", "MB", 1, False, (), *ENGINES),
    ),
    "small": (
        Figure("connections", "new a second", 0, True, MORE),
        Figure("processor: connections", "µs each", 0, False),
        Figure("datagrams", "of 1,200 bytes there and back a second", 0, True, MORE),
        Figure("latency p50", "ms there and back", 2, False),
        Figure("latency p99", "ms there and back", 2, False),
        Figure("latency p99 beside a download", "ms there and back", 2, False, (Goal(BETTER, "≤", 0.8),)),
    ),
    "held": (
        Figure("memory, fresh", "MB", 1, False, (Goal(ITSELF, "≤", 65),)),
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
}
"""Group → what it measures, as docs/benchmarks.md shows it."""
