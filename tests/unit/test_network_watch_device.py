"""A recreated device: programs bound to the old one have to restart."""

import anyio
import pytest

from entrypoint.linux.kernel_objects import Link, LinkUp
from tests.unit.watched import followed

pytestmark = pytest.mark.anyio


async def test_another_device_of_the_same_name_is_told_and_an_outage_of_the_same_is_not() -> None:
    async with followed() as scene:
        around, told = scene.surroundings, []

        async def wait() -> None:
            await around.outdated(around.uplinks.listening, around.device_generation)
            told.append(around.device_generation)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await scene.clock.sleep(0.1)
            scene.netlink.meddle(LinkUp("wg0"), removes=True)
            await scene.clock.sleep(1)
            assert told == []
            scene.netlink.meddle(Link("wg0", "tun"), removes=True)
            await scene.clock.sleep(1)
            assert told == []
            # Some other device has taken the number meanwhile.
            scene.netlink.plug("eth7")
            scene.netlink.meddle(Link("wg0", "tun"))
            await scene.clock.sleep(1)
            assert told == [1]


async def test_the_floors_tun_has_a_carrier_also_after_it_was_recreated() -> None:
    async with followed() as scene:

        def floor() -> int:
            return next(link.index for link in scene.netlink.links if link.name == "ssw-null")

        await scene.clock.sleep(1)
        assert scene.netlink.held == floor()
        scene.netlink.meddle(Link("ssw-null", "tun"), removes=True)
        scene.netlink.plug("eth7")
        await scene.clock.sleep(1)
        assert scene.netlink.held == floor()
