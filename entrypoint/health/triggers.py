"""Reasons to look at the tunnel at once: what others say, and sending without receiving. Hints, no proofs."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import anyio

from entrypoint.linux.kernel_objects import Traffic
from entrypoint.linux.world import Clock

STALL_SECONDS = 1.2
"""Seconds of sending without receiving that are worth a question."""

COUNTER_INTERVAL = 0.4
"""Seconds between two looks at the counters; a look is one small file."""


class Trigger(Enum):
    """Why to look at once instead of at the next interval."""

    SILENCE = "sending without receiving"
    RESTARTED = "the engine was started again"
    GONE = "the interface is gone"
    UPLINK = "an address or route of the uplink changed"


class Triggers:
    """Where others say that something may be wrong; saying it never waits."""

    def __init__(self) -> None:
        self._raised: set[Trigger] = set()
        self._event = anyio.Event()

    def suspect(self, suspicion: Trigger) -> None:
        """Make the monitor look at once."""
        self._raised.add(suspicion)
        self._event.set()

    async def wait(self) -> None:
        """Wait until there is a suspicion."""
        await self._event.wait()

    def take(self) -> frozenset[Trigger]:
        """Return the suspicions since the last call."""
        taken, self._raised, self._event = frozenset(self._raised), set(), anyio.Event()
        return taken


@dataclass(frozen=True, slots=True)
class TrafficFlow:
    """The last counters, and since when (Clock.monotonic) packets went out with nothing coming in."""

    last: Traffic
    quiet_since: float | None = None

    def then(self, traffic: Traffic, now: float) -> "TrafficFlow":
        """Return the flow after one more look at the counters."""
        if traffic.rx != self.last.rx:
            return TrafficFlow(traffic)
        if self.quiet_since is None and traffic.tx != self.last.tx:
            return TrafficFlow(traffic, now)
        return TrafficFlow(traffic, self.quiet_since)

    def suspicious(self, now: float) -> bool:
        """Whether this looks like a tunnel that lost its other end."""
        return self.quiet_since is not None and now - self.quiet_since >= STALL_SECONDS


async def wait_for_trigger(
    suspicions: Triggers, traffic: Callable[[str], Traffic | None], device: str, clock: Clock, interval: float
) -> None:
    """Wait `interval` seconds, or until somebody, or the traffic of `device`, gives reason to look."""

    async def look() -> None:
        flow: TrafficFlow | None = None
        while (counters := traffic(device)) is not None:
            now = clock.monotonic()
            flow = flow.then(counters, now) if flow else TrafficFlow(counters)
            if flow.suspicious(now):
                suspicions.suspect(Trigger.SILENCE)
            await clock.sleep(COUNTER_INTERVAL)
        suspicions.suspect(Trigger.GONE)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)

        async def suspected() -> None:
            await suspicions.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(suspected)
        await clock.sleep(interval)
        tasks.cancel_scope.cancel()
