"""What outlives a tunnel: repairs made, for the rate limits, and which endpoints worked, on disk."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from entrypoint.addresses import Endpoint
from entrypoint.errors import Error
from entrypoint.health.ladder import Climb
from entrypoint.linux import state_dir

ENDPOINTS_FILE = "endpoints.json"

COOL_DOWN = 600.0
"""Seconds that an endpoint which did not answer comes after all others."""

CLIMBS = 1000
"""Climbs remembered: more than the longest rate limit counts."""

ENDPOINTS = 64
"""Endpoints remembered, those used last."""

log = logging.getLogger("ss-warp")


@dataclass(frozen=True, slots=True)
class Tried:
    """When an endpoint last worked and last failed, in seconds since 1970; 0 is never."""

    worked: float = 0.0
    failed: float = 0.0


def order(known: dict[str, Tried], endpoints: Sequence[Endpoint], now: float) -> tuple[Endpoint, ...]:
    """Return the endpoints, best first: the one that worked last, untried ones, then those cooling down."""

    def rank(endpoint: Endpoint) -> tuple[bool, float, float]:
        tried = known.get(str(endpoint), Tried())
        cooling = tried.failed > tried.worked and 0 <= now - tried.failed < COOL_DOWN
        return cooling, -tried.worked, tried.failed if cooling else 0.0

    return tuple(sorted(endpoints, key=rank))


def next_endpoint(
    known: dict[str, Tried], endpoints: Sequence[Endpoint], current: Endpoint, now: float
) -> Endpoint:
    """Return the endpoint to try after `current`: the best of the others."""
    others = [one for one in endpoints if one != current]
    return order(known, others, now)[0] if others else current


@dataclass(slots=True)
class HealthMemory:
    """Repairs and endpoints of one run; `path` None keeps nothing on disk. `random` draws the jitter."""

    path: Path | None = None
    climbs: tuple[Climb, ...] = ()
    answered: float = 0.0
    """When a tunnel last answered in this run, in seconds since 1970; 0 is never."""
    known: dict[str, Tried] = field(default_factory=dict)
    random: Random = field(default_factory=Random)

    @classmethod
    def load(cls, path: Path) -> "HealthMemory":
        """Read what earlier runs learned; an unreadable file counts as empty."""
        memory = cls(path)
        try:
            content = json.loads(state_dir.read(path) or b"{}")
            for name, (worked, failed) in list(content["endpoints"].items())[:ENDPOINTS]:
                if math.isfinite(float(worked)) and math.isfinite(float(failed)):
                    memory.known[str(name)] = Tried(float(worked), float(failed))
        except (ValueError, TypeError, KeyError, AttributeError, Error):
            memory.known.clear()
        return memory

    def climb(self, climb: Climb) -> None:
        """Remember a repair."""
        self.climbs = (*self.climbs, climb)[-CLIMBS:]

    def record_worked(self, endpoint: Endpoint, now: float) -> None:
        """Remember that the endpoint answered; written when that is news."""
        before = self.known.get(str(endpoint), Tried())
        newest = max((tried.worked for tried in self.known.values()), default=0)
        self._set(endpoint, Tried(now, before.failed))
        if before.worked < newest or before.failed > before.worked or not before.worked:
            self._save()

    def record_failed(self, endpoint: Endpoint, now: float) -> None:
        """Remember that the endpoint did not answer."""
        before = self.known.get(str(endpoint), Tried())
        self._set(endpoint, Tried(before.worked, now))

    def _set(self, endpoint: Endpoint, tried: Tried) -> None:
        self.known.pop(str(endpoint), None)
        self.known = dict([*self.known.items(), (str(endpoint), tried)][-ENDPOINTS:])

    def _save(self) -> None:
        if self.path is None:
            return
        table = {name: [round(one.worked), round(one.failed)] for name, one in self.known.items()}
        try:
            state_dir.replace(self.path, json.dumps({"format": 1, "endpoints": table}).encode() + b"\n")
        except Error as error:
            log.debug("cannot save the endpoints: %s", error)
