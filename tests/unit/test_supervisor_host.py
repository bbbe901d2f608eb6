"""The straight path on a host: what may be locked out is not, and afterwards everything is as before."""

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from entrypoint.linux.kernel_objects import MAIN_TABLE, Route, Rule
from tests.fakes.world import FakeWorld, in_memory

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("mode", ["full", "proxy"])


@pytest.fixture
def world(anyio_backend: str) -> Iterator[FakeWorld]:
    with in_memory() as world:
        yield world


@BOTH
async def test_up_and_down_it_is_as_before(world: FakeWorld, mode: str) -> None:
    before = str(world)
    for _ in range(2):
        async with world.serving(NETWORK="host", ROUTE_MODE=mode) as board:
            assert board.status.warp == "on"
            text = str(world)
            assert ("priority 32764 from all iif lo lookup 51820" in text) == (mode == "full")
            assert "priority 32759 " in text
            assert "priority 18 " not in text
            assert "policy drop" not in world.nft.tables["inet ss_warp"]
            assert json.loads((world.state / "network.json").read_bytes())[0]["priority"] == 32759
        assert str(world) == before
        assert json.loads((world.state / "network.json").read_bytes()) == []


async def test_unset_it_is_proxy(world: FakeWorld) -> None:
    async with world.serving(NETWORK="host"):
        assert "iif lo" not in str(world)


@BOTH
@pytest.mark.parametrize("number", range(1, 60))
async def test_whatever_is_refused_nobody_is_locked_out(world: FakeWorld, mode: str, number: int) -> None:
    before = str(world)
    world.netlink.fail_at = {number: 1}
    failure = await world.attempt(NETWORK="host", ROUTE_MODE=mode)
    if "UndoError" in repr(failure):
        world.netlink.fail_at = {}
        assert await world.attempt(NETWORK="host", ROUTE_MODE=mode) is None
    assert str(world) == before


async def test_a_way_that_would_change_takes_all_back(world: FakeWorld) -> None:
    world.netlink.meddle(Rule(4, 9, 51820, source=ip_network("172.18.0.5/32"), protocol=3))
    before = str(world)
    failure = await world.attempt(NETWORK="host", ROUTE_MODE="full")
    assert "PlatformError('replies would not leave as before (172.18.0.5 by wg0 instead of eth0" in repr(
        failure
    )
    assert str(world) == before


async def test_without_a_default_route_nothing_is_touched(world: FakeWorld) -> None:
    for version, gateway in ((4, "172.18.0.1"), (6, "fd00:18::1")):
        everything = ip_network("0.0.0.0/0" if version == 4 else "::/0")
        default = Route(everything, MAIN_TABLE, "eth0", gateway=ip_address(gateway))
        world.netlink.meddle(default, removes=True)
    before = str(world)
    failure = await world.attempt(NETWORK="host")
    assert "PlatformError('this host has no default route" in repr(failure)
    assert (str(world), world.nft.count, world.netlink.count) == (before, 0, 0)
