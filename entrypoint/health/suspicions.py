"""Reasons to look at the tunnel at once: what others say, and sending without receiving. Hints, no proofs."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import anyio

from entrypoint.network.counters import Traffic
from entrypoint.ports import Clock

QUIET = 1.2
"""Seconds of sending without receiving that are worth a question."""

LOOK = 0.4
"""Seconds between two looks at the counters; a look is one small file."""


class Suspicion(Enum):
    """Why to look at once instead of at the next interval."""

    SILENCE = "sending without receiving"
    RESTARTED = "the engine was started again"
    GONE = "the interface is gone"
    UPLINK = "an address or route of the uplink changed"


class Suspicions:
    """Where others say that something may be wrong; saying it never waits."""

    def __init__(self) -> None:
        self._raised: set[Suspicion] = set()
        self._event = anyio.Event()

    def suspect(self, suspicion: Suspicion) -> None:
        """Make the monitor look at once."""
        self._raised.add(suspicion)
        self._event.set()

    async def wait(self) -> None:
        """Wait until there is a suspicion."""
        await self._event.wait()

    def take(self) -> frozenset[Suspicion]:
        """Return the suspicions since the last call."""
        taken, self._raised, self._event = frozenset(self._raised), set(), anyio.Event()
        return taken


@dataclass(frozen=True, slots=True)
class Flow:
    """The last counters, and since when (Clock.monotonic) packets went out with nothing coming in."""

    last: Traffic
    quiet_since: float | None = None

    def then(self, traffic: Traffic, now: float) -> "Flow":
        """Return the flow after one more look at the counters."""
        if traffic.rx != self.last.rx:
            return Flow(traffic)
        if self.quiet_since is None and traffic.tx != self.last.tx:
            return Flow(traffic, now)
        return Flow(traffic, self.quiet_since)

    def suspicious(self, now: float) -> bool:
        """Whether this looks like a tunnel that lost its other end."""
        return self.quiet_since is not None and now - self.quiet_since >= QUIET


async def pause(
    suspicions: Suspicions,
    traffic: Callable[[str], Traffic | None],
    device: str,
    clock: Clock,
    interval: float,
) -> None:
    """Wait `interval` seconds, or until somebody, or the traffic of `device`, gives reason to look."""

    async def look() -> None:
        flow: Flow | None = None
        while (counters := traffic(device)) is not None:
            now = clock.monotonic()
            flow = flow.then(counters, now) if flow else Flow(counters)
            if flow.suspicious(now):
                suspicions.suspect(Suspicion.SILENCE)
            await clock.sleep(LOOK)
        suspicions.suspect(Suspicion.GONE)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)

        async def suspected() -> None:
            await suspicions.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(suspected)
        await clock.sleep(interval)
        tasks.cancel_scope.cancel()
