"""Being told of changes, as the kernel's multicast groups tell: a burst once, nothing of the past."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Bursts:
    """What the `changes` of a door hand out."""

    def __init__(self) -> None:
        self._changed = anyio.Event()
        self._generation = 0

    def tell(self) -> None:
        self._generation += 1
        self._changed.set()
        self._changed = anyio.Event()

    @asynccontextmanager
    async def subscribed(self) -> AsyncIterator[AsyncIterator[None]]:
        yield self._bursts(self._generation)

    async def _bursts(self, seen: int) -> AsyncIterator[None]:
        while True:
            while seen == self._generation:
                await self._changed.wait()
            seen = self._generation
            yield
