"""FakeClock: virtual time that passes only when everybody waits for it."""

from dataclasses import dataclass, field

import anyio
from anyio.lowlevel import checkpoint

TURNS = 30
"""Turns of the event loop without news after which every task is taken to be waiting."""


@dataclass(eq=False)
class Sleeper:
    """One who waits: until when, and whether that is over. `called`: he is to look again."""

    deadline: float
    over: bool = False
    called: anyio.Event = field(default_factory=anyio.Event)


class FakeClock:
    """Sleepers wake in the order of their deadlines, whatever tasks they are in; no real time passes.

    Nothing moves the time but `sleep`: a task that waits for anything else has to be woken by a sleeper.
    One of the sleepers watches the event loop for all of them.
    """

    def __init__(self, start: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self.now = start
        self._offset = wall - start
        self._sleepers: list[Sleeper] = []
        self._watched = False
        self._events = 0
        """Counts falling asleep, waking and being cancelled: events that tests wait for."""

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self._offset

    async def sleep(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError("delay must be a non-negative number")  # as anyio says
        own = Sleeper(self.now + seconds)
        self._sleepers.append(own)
        self._events += 1
        try:
            await checkpoint()
            while not own.over and self.now < own.deadline:
                if self._watched:
                    await own.called.wait()
                    own.called = anyio.Event()
                else:
                    await self._watch(own)
        finally:
            self._sleepers.remove(own)
            self._events += 1
            if self._sleepers and not self._watched:
                self._sleepers[0].called.set()

    async def _watch(self, own: Sleeper) -> None:
        self._watched = True
        try:
            seen, idle = self._events, 0
            while not own.over:
                await checkpoint()
                if seen != self._events:
                    seen, idle = self._events, 0
                idle += 1
                first = min(one.deadline for one in self._sleepers)
                if first <= self.now or idle > TURNS:
                    self.now = max(self.now, first)
                    self._wake()
        finally:
            self._watched = False

    def _wake(self) -> None:
        for one in self._sleepers:
            if one.deadline <= self.now:
                one.over = True
                one.called.set()
