"""What others change around us: repairs are limited, looking is cheap."""

import logging
from ipaddress import ip_interface, ip_network

import pytest

from entrypoint.health.triggers import Trigger
from entrypoint.linux.kernel_objects import Link, LinkAddress, LinkUp, Rule
from entrypoint.network_watch import BURST, EVERY, PAUSE, RateLimit
from tests.fakes.clock import FakeClock
from tests.unit.watched import followed

pytestmark = pytest.mark.anyio
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


async def test_what_others_do_with_their_own_does_not_use_up_the_repairs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with followed() as scene:
        for _ in range(50):
            scene.netlink.meddle(OTHERS)
            await scene.moment()
            scene.netlink.meddle(OTHERS, removes=True)
            await scene.moment()
        before = str(scene.netlink)
        scene.netlink.meddle(LinkUp("wg0"), removes=True)
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
            scene.netlink.meddle(LinkUp("wg0", 1420))
            assert str(scene.netlink) != before
            await scene.moment()
            assert str(scene.netlink) == before
    assert caplog.records == []


async def test_suspicions_are_raised_by_what_changes() -> None:
    async with followed() as scene:
        assert scene.surroundings.triggers.take() == frozenset()
        scene.netlink.meddle(LinkAddress("eth0", ip_interface("172.18.0.9/16")))
        await scene.moment()
        assert scene.surroundings.triggers.take() == frozenset(), "one more address moves no packet"
        scene.netlink.meddle(LinkAddress("eth0", ip_interface("172.18.0.5/16")), removes=True)
        await scene.moment()
        assert scene.surroundings.triggers.take() == {Trigger.UPLINK}
        scene.netlink.meddle(Link("wg0", "tun"), removes=True)
        await scene.moment()
        assert scene.surroundings.triggers.take() == {Trigger.GONE}
