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
from entrypoint.linux.kernel_objects import Guise

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
        tried, cooling = known.get(str(endpoint), Tried()), _is_cooling(known, endpoint, now)
        return cooling, -tried.worked, tried.failed if cooling else 0.0

    return tuple(sorted(endpoints, key=rank))


def next_endpoint(
    known: dict[str, Tried], endpoints: Sequence[Endpoint], current: Endpoint, now: float
) -> Endpoint:
    """Return the endpoint to try after `current`: the one that shares least with what failed."""
    silent = [one for one in endpoints if _is_cooling(known, one, now)]

    def shared(endpoint: Endpoint) -> int:
        # A network blocks a port, an outage takes an address: the next try should have neither.
        if endpoint in silent:
            return 2 * len(silent) + 1
        return sum((endpoint.port == one.port) + (endpoint.address == one.address) for one in silent)

    return min(order(known, [one for one in endpoints if one != current], now), key=shared, default=current)


def _is_cooling(known: dict[str, Tried], endpoint: Endpoint, now: float) -> bool:
    tried = known.get(str(endpoint), Tried())
    return tried.failed > tried.worked and 0 <= now - tried.failed < COOL_DOWN


def following(guises: tuple[Guise, ...], current: Guise) -> Guise:
    """Return the guise to try after `current`."""
    place = guises.index(current) if current in guises else -1
    return guises[(place + 1) % len(guises)]


def silent_everywhere(known: dict[str, Tried], endpoints: Sequence[Endpoint], now: float) -> bool:
    """Return whether every port but one, which is in use, failed lately and has not worked since."""
    every = {endpoint.port for endpoint in endpoints}
    return len(every - {endpoint.port for endpoint in endpoints if _is_cooling(known, endpoint, now)}) <= 1


@dataclass(slots=True)
class HealthMemory:
    """Repairs, endpoints and guise; `path` None keeps nothing on disk. `random` draws the jitter."""

    path: Path | None = None
    climbs: tuple[Climb, ...] = ()
    answered: float = 0.0
    """When a tunnel last answered in this run, in seconds since 1970; 0 is never."""
    known: dict[str, Tried] = field(default_factory=dict)
    guise: Guise | None = None
    """What messages look like, once that had to change."""
    unsaved: bool = False
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
            if guise := content.get("guise"):
                memory.guise = Guise(bytes(map(int, guise["reserved"])), str(guise["junk"]))
        except (ValueError, TypeError, KeyError, AttributeError, Error):
            memory.known.clear()
        return memory

    def climb(self, climb: Climb) -> None:
        """Remember a repair."""
        self.climbs = (*self.climbs, climb)[-CLIMBS:]

    def disguise(self, guise: Guise) -> None:
        """Remember what messages look like from now on; written once that has worked."""
        self.guise, self.unsaved = guise, True

    def record_worked(self, endpoint: Endpoint, now: float) -> None:
        """Remember that the endpoint answered; written when that is news."""
        before = self.known.get(str(endpoint), Tried())
        newest = max((tried.worked for tried in self.known.values()), default=0)
        self._set(endpoint, Tried(now, before.failed))
        if self.unsaved or before.worked < newest or before.failed > before.worked or not before.worked:
            self.unsaved = False
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
        content: dict[str, object] = {"format": 1}
        content["endpoints"] = {
            name: [round(one.worked), round(one.failed)] for name, one in self.known.items()
        }
        if self.guise:
            content["guise"] = {"reserved": list(self.guise.reserved), "junk": self.guise.junk}
        try:
            state_dir.replace(self.path, json.dumps(content).encode() + b"\n")
        except Error as error:
            log.debug("cannot save the endpoints: %s", error)
