"""The product with a clock that runs faster: what waits minutes waits seconds. `python -m tests.lab.fast 5`.

Durations shrink, the time of day stays: certificates, tokens and Cloudflare's clock are judged as ever. The
early steps before the supervisor are left out; its own kill switch closes the network.
"""

import os
import signal
import sys
from dataclasses import dataclass, field, replace

import anyio

from entrypoint.linux.this_machine import SystemClock, open_world
from entrypoint.linux.world import Clock
from entrypoint.log import configure
from entrypoint.settings import load
from entrypoint.status.board import Board, Run
from entrypoint.supervisor import run_until_signal


@dataclass
class FastClock:
    """`pace` seconds pass in each real one."""

    pace: float
    real: Clock = field(default_factory=SystemClock)

    def monotonic(self) -> float:
        return self.real.monotonic() * self.pace

    def wall(self) -> float:
        return self.real.wall()

    async def sleep(self, seconds: float) -> None:
        await self.real.sleep(seconds / self.pace)


def main(pace: float) -> None:
    settings = load(os.environ)
    configure(settings.logs.level, settings.logs.format)
    world = replace(open_world(), clock=FastClock(pace))
    anyio.run(run_until_signal, Run(settings, world, Board(world.clock)))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    main(float(sys.argv[1]))
