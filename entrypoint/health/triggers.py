"""Reasons to check the tunnel at once: reports, and sending without receiving. Hints, not proofs."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import anyio

from entrypoint.linux.kernel_objects import Traffic
from entrypoint.linux.world import Clock

STALL_SECONDS = 1.2
"""Seconds of sending without receiving before a check."""

COUNTER_INTERVAL = 0.4
"""Seconds between two reads of the counters, one small file."""


class Trigger(Enum):
    """Why to check now rather than at the next interval."""

    SILENCE = "sending without receiving"
    RESTARTED = "the engine was restarted"
    GONE = "the interface is gone"
    UPLINK = "an address or route of the uplink changed"
    RECONNECT = "a new exit was requested"


class Triggers:
    """Collects triggers for the monitor; firing one never waits."""

    def __init__(self) -> None:
        self._fired: set[Trigger] = set()
        self._event = anyio.Event()

    def fire(self, trigger: Trigger) -> None:
        """Make the monitor check at once."""
        self._fired.add(trigger)
        self._event.set()

    async def wait(self) -> None:
        """Wait until a trigger has fired."""
        await self._event.wait()

    def take(self) -> frozenset[Trigger]:
        """Return the triggers fired since the last call."""
        taken, self._fired, self._event = frozenset(self._fired), set(), anyio.Event()
        return taken


@dataclass(frozen=True, slots=True)
class TrafficFlow:
    """The last counters, and since when (Clock.monotonic) packets have gone out with none coming in."""

    last: Traffic
    quiet_since: float | None = None

    def then(self, traffic: Traffic, now: float) -> "TrafficFlow":
        """Return the flow after another read of the counters."""
        if traffic.rx != self.last.rx:
            return TrafficFlow(traffic)
        if self.quiet_since is None and traffic.tx != self.last.tx:
            return TrafficFlow(traffic, now)
        return TrafficFlow(traffic, self.quiet_since)

    def stalled(self, now: float) -> bool:
        """Return whether the other end seems to be lost."""
        return self.quiet_since is not None and now - self.quiet_since >= STALL_SECONDS


async def wait_for_trigger(
    triggers: Triggers, traffic: Callable[[str], Traffic | None], device: str, clock: Clock, interval: float
) -> None:
    """Wait `interval` seconds, or until a trigger fires or the traffic of `device` stalls."""

    async def look() -> None:
        flow: TrafficFlow | None = None
        while (counters := traffic(device)) is not None:
            now = clock.monotonic()
            flow = flow.then(counters, now) if flow else TrafficFlow(counters)
            if flow.stalled(now):
                triggers.fire(Trigger.SILENCE)
            await clock.sleep(COUNTER_INTERVAL)
        triggers.fire(Trigger.GONE)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)

        async def fired() -> None:
            await triggers.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(fired)
        await clock.sleep(interval)
        tasks.cancel_scope.cancel()
