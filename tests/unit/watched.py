"""A network watch on a fake kernel, followed while the kernel changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_address
from typing import Any, cast

import anyio

from entrypoint.account.model import Account
from entrypoint.addresses import Endpoint
from entrypoint.desired import DesiredState, choose_ids
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.linux.kernel_objects import Link
from entrypoint.linux.world import World
from entrypoint.network_watch import PAUSE, NetworkWatch
from entrypoint.routing.uplinks import find_uplinks
from entrypoint.settings import load
from tests.fakes.clock import FakeClock
from tests.fakes.netlink import FakeNetlink
from tests.fakes.nft import FakeNft

UNUSED = cast("Any", None)
ENDPOINT = Endpoint(ip_address("162.159.192.1"), 2408)
ACCOUNT = Account(
    kind="free",
    access=None,
    private_key="k",
    license_key=None,
    peer_public_key="p",
    endpoints=(ENDPOINT,),
    endpoint_name=None,
    ports=(),
    v4=IPv4Address("172.16.0.2"),
    v6=None,
    client_id=None,
    created=datetime(2026, 1, 1, tzinfo=UTC),
)


@dataclass
class Scene:
    clock: FakeClock
    netlink: FakeNetlink
    surroundings: NetworkWatch

    async def moment(self) -> None:
        await self.clock.sleep(2 * PAUSE)


@asynccontextmanager
async def followed() -> AsyncIterator[Scene]:
    clock, netlink, nft = FakeClock(), FakeNetlink.container(), FakeNft()
    settings = load({"NETWORK": "own"})
    names = choose_ids(settings)
    wanted = DesiredState(settings, names, ACCOUNT, (ENDPOINT,))
    await netlink.add(Link("wg0", "tun"))
    world = World(clock, UNUSED, netlink, nft, UNUSED)
    found = find_uplinks(await netlink.snapshot(), names.links)
    surroundings = NetworkWatch(wanted, world, KillSwitch(nft, on=True), found)
    await surroundings.reconcile()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(surroundings.watch_network)
        await clock.sleep(0.1)
        yield Scene(clock, netlink, surroundings)
        tasks.cancel_scope.cancel()
