"""FakeClock: virtual time that passes only when everybody waits for it."""

from collections import Counter

from anyio.lowlevel import checkpoint

TURNS = 30
"""Turns of the event loop without news after which every task is taken to be waiting."""


class FakeClock:
    """Sleepers wake in the order of their deadlines, whatever tasks they are in; no real time passes.

    Nothing moves the time but `sleep`: a task that waits for anything else has to be woken by a sleeper.
    """

    def __init__(self, start: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self.now = start
        self._offset = wall - start
        self._deadlines: Counter[float] = Counter()
        self._events = 0
        """Counts falling asleep, waking and being cancelled: news that somebody may react to."""

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self._offset

    async def sleep(self, seconds: float) -> None:
        deadline = self.now + max(seconds, 0)
        self._deadlines[deadline] += 1
        self._events += 1
        try:
            seen, idle = self._events, 0
            while self.now < deadline or idle == 0:
                await checkpoint()
                if seen != self._events:
                    seen, idle = self._events, 0
                idle += 1
                if idle > TURNS and deadline == min(self._deadlines):
                    self.now = max(self.now, deadline)
        finally:
            self._deadlines[deadline] -= 1
            self._deadlines += Counter()
            self._events += 1
