"""What others change around us: repairs are limited, looking is cheap."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network
from typing import Any, cast

import anyio
import pytest

from entrypoint.account.model import Account
from entrypoint.addresses import Endpoint
from entrypoint.desired import DesiredState, choose_ids
from entrypoint.firewall.killswitch import KillSwitch
from entrypoint.health.triggers import Trigger
from entrypoint.linux.kernel_objects import Link, LinkAddress, LinkUp, Rule
from entrypoint.linux.world import World
from entrypoint.network_watch import BURST, EVERY, PAUSE, NetworkWatch, RateLimit
from entrypoint.routing.uplinks import find_uplinks
from entrypoint.settings import load
from tests.fakes.clock import FakeClock
from tests.fakes.netlink import FakeNetlink
from tests.fakes.nft import FakeNft

pytestmark = pytest.mark.anyio
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
OTHERS = Rule(4, 100, 254, destination=ip_network("10.9.9.0/24"))


async def test_ten_repairs_a_pause_apart_then_one_in_five_seconds() -> None:
    clock = FakeClock()
    limit = RateLimit(clock)
    begun = clock.now
    for _ in range(BURST - 1):
        await limit.pause(repaired=True)
    assert clock.now - begun == pytest.approx((BURST - 1) * PAUSE)
    for number in range(1, 4):
        await limit.pause(repaired=True)
        assert clock.now == pytest.approx(begun + number * EVERY)


async def test_a_look_costs_no_repair_however_many_there_were() -> None:
    clock = FakeClock()
    limit = RateLimit(clock)
    begun = clock.now
    for _ in range(1000):
        await limit.pause(repaired=False)
    await limit.pause(repaired=True)
    assert clock.now - begun == pytest.approx(1001 * PAUSE), "the first repair is followed by a look at once"


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


async def test_what_others_do_with_their_own_does_not_use_up_the_repairs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with followed() as scene:
        for _ in range(50):
            scene.netlink.somebody(OTHERS)
            await scene.moment()
            scene.netlink.somebody(OTHERS, removes=True)
            await scene.moment()
        before = str(scene.netlink)
        scene.netlink.somebody(LinkUp("wg0"), removes=True)
        assert str(scene.netlink) != before
        await scene.moment()
        assert str(scene.netlink) == before
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_an_engine_that_sets_the_mtu_is_corrected_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with followed() as scene:
        before = str(scene.netlink)
        for _ in range(20):
            scene.netlink.somebody(LinkUp("wg0", 1420))
            assert str(scene.netlink) != before
            await scene.moment()
            assert str(scene.netlink) == before
    assert caplog.records == []


async def test_suspicions_are_raised_by_what_changes() -> None:
    async with followed() as scene:
        assert scene.surroundings.triggers.take() == frozenset()
        scene.netlink.somebody(LinkAddress("eth0", ip_interface("172.18.0.9/16")))
        await scene.moment()
        assert scene.surroundings.triggers.take() == frozenset(), "one more address moves no packet"
        scene.netlink.somebody(LinkAddress("eth0", ip_interface("172.18.0.5/16")), removes=True)
        await scene.moment()
        assert scene.surroundings.triggers.take() == {Trigger.UPLINK}
        scene.netlink.somebody(Link("wg0", "tun"), removes=True)
        await scene.moment()
        assert scene.surroundings.triggers.take() == {Trigger.GONE}
