"""What others do to rules, routes, tables and devices of a running chain is undone and told."""

from collections.abc import Iterator
from ipaddress import ip_interface, ip_network

import pytest

from entrypoint.linux.kernel_objects import Item, Link, LinkAddress, Rule
from entrypoint.status.states import State
from tests.fakes.world import FakeWorld, in_memory

pytestmark = pytest.mark.anyio
OTHERS = Rule(4, 100, 254, destination=ip_network("10.9.9.0/24"))


@pytest.fixture
def world(anyio_backend: str) -> Iterator[FakeWorld]:
    with in_memory() as world:
        yield world


async def test_rules_and_routes_that_others_remove_are_restored_and_reported(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.serving():
        before = str(world)
        ours = [rule for rule in world.netlink.rules if 0 < rule.priority < 32766]
        routes = [route for route in world.netlink.routes if route.table == 51820]
        items: list[Item] = [*ours, *routes]
        for item in items:
            world.netlink.meddle(item, removes=True)
            assert str(world) != before
            await world.until(lambda: str(world) == before)
            await world.clock.sleep(60)
    told = [line for line in caplog.messages if line.startswith("restored network configuration")]
    assert [line.partition(": ")[2] for line in told] == [one.command("add") for one in items]


async def test_tables_that_others_flush_or_change_are_loaded_again(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.serving():
        before = dict(world.nft.tables)
        world.nft.flush()
        del before["ip others"]
        await world.until(lambda: world.nft.tables == before)
        await world.nft.load("table inet ss_warp {\n\tchain output {\n\t\taccept\n\t}\n}\n")
        assert world.nft.tables != before
        await world.until(lambda: world.nft.tables == before)
        await world.nft.load("table ip strangers {\n}\n")
        await world.clock.sleep(60)
        assert world.nft.tables == before | {"ip strangers": ""}
    assert caplog.messages.count("nftables tables were modified externally; restored") == 2


async def test_who_fights_for_the_tables_is_answered_ten_times_then_every_five_seconds(
    world: FakeWorld,
) -> None:
    async with world.serving():
        begun, loads = world.clock.now, world.nft.count
        while world.clock.now < begun + 32:
            world.nft.flush()
            await world.clock.sleep(0.1)
        assert world.nft.count - loads == 10 + 32 // 5


async def test_an_nft_that_refuses_for_a_while_is_tried_again(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.serving():
        before = dict(world.nft.tables)
        del before["ip others"]
        world.nft.denied = True
        world.nft.flush()
        await world.clock.sleep(12)
        assert world.nft.tables == {}
        world.nft.denied = False
        await world.until(lambda: world.nft.tables == before)
    assert "cannot load the firewall: nft: Operation not permitted" in caplog.text


async def test_a_kernel_that_refuses_is_told_and_tried_at_the_next_change(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.serving():
        before = str(world)
        rule = next(rule for rule in world.netlink.rules if rule.priority == 18)
        world.netlink.denied = True
        world.netlink.meddle(rule, removes=True)
        await world.clock.sleep(1)
        world.netlink.denied = False
        assert "cannot restore the network: ip -4 rule add priority 18" in caplog.text
        world.netlink.meddle(OTHERS)
        world.netlink.meddle(OTHERS, removes=True)
        await world.until(lambda: str(world) == before)


async def test_a_deleted_device_is_suspected_and_recreated(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.serving() as board:
        before, deleted = str(world), world.clock.now
        for name in ("wg0", "ssw-null"):
            world.netlink.meddle(Link(name, "tun"), removes=True)
        await world.until(lambda: str(world) == before and board.status.state is State.CONNECTED)
        assert world.clock.now - deleted < 2
    assert [line for line in caplog.messages if line.startswith("wg0 is gone")]


async def test_a_new_uplink_address_gets_its_rule_and_a_lost_one_a_new_session(world: FakeWorld) -> None:
    async with world.serving():
        engine = world.processes.engine()
        assert engine
        configured, moved = len(engine.requests), world.clock.now
        world.netlink.meddle(LinkAddress("eth0", ip_interface("192.168.7.7/24")))
        await world.until(lambda: "ip -4 rule add priority 18 from 192.168.7.7 lookup main" in str(world))
        world.netlink.meddle(LinkAddress("eth0", ip_interface("172.18.0.5/16")), removes=True)
        await world.until(lambda: len(engine.requests) == configured + 1)
        assert world.clock.now - moved < 2
    assert world.processes.engine() is None


async def test_a_change_between_loading_and_looking_is_not_taken_for_ours(world: FakeWorld) -> None:
    async with world.serving():
        before = dict(world.nft.tables)
        del before["ip others"]
        world.nft.flush()
        await world.until(lambda: world.nft.tables == before)
        world.nft.flush()  # the new tables have not been listed yet
        await world.until(lambda: world.nft.tables == before)
