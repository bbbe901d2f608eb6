"""A userspace device on fakes: what tests of the engine and of its configuration share."""

import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import anyio

from entrypoint.addresses import Endpoint
from entrypoint.linux.kernel_objects import DeviceConfig, LinkUp
from entrypoint.linux.world import World
from entrypoint.wireguard.device import Device, Trouble
from entrypoint.wireguard.open import Places, open_device
from tests.fakes.clock import FakeClock
from tests.fakes.links import FakeLinks
from tests.fakes.processes import FakeEngine, FakeProcesses

KEY = b64encode(b"\x01" * 32).decode()
CONFIG = DeviceConfig("wg0", KEY, KEY, Endpoint(ip_address("162.159.192.1"), 2408), 0x1000, 25)
LOG = logging.getLogger("test")
UNUSED = cast("Any", None)


@dataclass
class Bench:
    clock: FakeClock
    links: FakeLinks
    processes: FakeProcesses
    places: Places
    reports: list[Trouble]

    @property
    def world(self) -> World:
        return World(clock=self.clock, http=UNUSED, netlink=self.links, nft=UNUSED, processes=self.processes)

    def engine(self) -> FakeEngine:
        engine = self.processes.engine("wg0")
        assert engine is not None
        return engine

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Device]:
        """A device, up with MTU 1280, that is being kept alive."""
        async with (
            open_device("userspace", CONFIG, self.world, LOG, self.places) as device,
            anyio.create_task_group() as tasks,
        ):
            await self.links.add(LinkUp("wg0", 1280))
            tasks.start_soon(device.keep, self.reports.append)
            await self.clock.sleep(0.1)
            yield device
            tasks.cancel_scope.cancel()


def bench_in(directory: Path) -> Bench:
    """A bench whose files are in `directory`."""
    (directory / "tun").touch()
    links = FakeLinks()
    places = Places(tun=directory / "tun", sockets=directory / "wireguard")
    clock = FakeClock()
    return Bench(clock, links, FakeProcesses(links, clock), places, [])
