"""The door to time."""

import time

import anyio


class SystemClock:
    """Real time (see ports.Clock)."""

    def monotonic(self) -> float:
        """Return seconds since boot, sleep included: a suspended machine sees the gap."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Return seconds since 1970, UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
        await anyio.sleep(seconds)
