"""The real World: this machine's clock, network and processes."""

import time

import anyio

from entrypoint.linux.http import SystemHttp
from entrypoint.linux.netlink import SystemNetlink
from entrypoint.linux.nft import SystemNft
from entrypoint.linux.processes import SystemProcesses
from entrypoint.linux.world import World


class SystemClock:
    """Real time (see world.Clock)."""

    def monotonic(self) -> float:
        """Return seconds since boot, time asleep included: a suspended machine sees the gap."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Return seconds since 1970, UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
        await anyio.sleep(seconds)


def open_world() -> World:
    """Return the doors of this machine."""
    return World(SystemClock(), SystemHttp(), SystemNetlink(), SystemNft(), SystemProcesses())
