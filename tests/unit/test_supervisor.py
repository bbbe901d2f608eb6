"""The straight path on the fake world: up, down, and up again."""

import json
import logging
import re
import signal
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from entrypoint.addresses import Endpoint
from entrypoint.linux import state_dir
from entrypoint.linux.kernel_objects import MAIN_TABLE, Rule
from entrypoint.status.board import Run
from entrypoint.status.states import State
from entrypoint.supervisor import run_until_signal
from tests.fakes.world import FakeWorld

pytestmark = pytest.mark.anyio
GOLDEN = Path(__file__).parent / "golden"
WORLDS = {
    "full": {"ROUTE_MODE": "full"},
    "proxy": {"ROUTE_MODE": "proxy"},
    "full-6": {"ROUTE_MODE": "full", "WARP_IP_VERSION": "6"},
    "full-4-direct-6": {"ROUTE_MODE": "full", "WARP_IP_VERSION": "4", "DIRECT_IP_VERSION": "6"},
    "proxy-6-direct-4": {"ROUTE_MODE": "proxy", "WARP_IP_VERSION": "6", "DIRECT_IP_VERSION": "4"},
}


@pytest.fixture
def world(tmp_path: Path, anyio_backend: str) -> FakeWorld:
    return FakeWorld(tmp_path)


@pytest.fixture
def kernel(tmp_path: Path, anyio_backend: str) -> FakeWorld:
    return FakeWorld(tmp_path, has_wireguard=True)


@pytest.mark.parametrize("name", WORLDS)
async def test_up_it_is_the_golden_text_down_it_is_as_before(world: FakeWorld, name: str) -> None:
    closed = await world.closed()
    for _ in range(2):  # the second start adopts what the first left closed
        async with world.serving(**WORLDS[name]) as board:
            assert str(world) + "\n" == (GOLDEN / f"{name}.txt").read_text()
            assert sorted(map(str, board.status.listening)) == [
                "tcp 172.18.0.5:8388",
                "tcp [fd00:18::5]:8388",
                "udp 172.18.0.5:8388",
                "udp [fd00:18::5]:8388",
            ]
            assert (board.status.warp, board.status.implementation) == ("on", "userspace")
        assert str(world) == closed
        assert json.loads((world.state / "network.json").read_bytes()) == []
    assert world.http.api.calls == [("POST", "/v0a2158/reg")], "the second start registers nothing"


async def test_the_kernels_wireguard_leads_to_the_same_but_for_the_engine(kernel: FakeWorld) -> None:
    closed = await kernel.closed()
    async with kernel.serving(WARP_RESERVED="off") as board:
        golden = (GOLDEN / "full.txt").read_text()
        golden = golden.replace("wg0 tun up", "wg0 wireguard up")
        golden = golden.replace("ss-warp-wireguard ssserver", "ssserver")
        golden = golden.replace("ssw-null tun up mtu 1500", "ssw-null wireguard up mtu 1420")
        assert str(kernel) + "\n" == golden
        assert board.status.implementation == "kernel"
    assert str(kernel) == closed


async def test_a_first_start_tells_each_phase_a_second_none_of_it(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ss-warp")
    async with world.serving():
        pass
    first = [record.message for record in caplog.records]
    assert [re.split(r":| \(\d", line)[0] for line in first] == [
        "registering an account",
        "registered account",
        "this kernel has no WireGuard",
        "brought up wg0 (userspace), routes and firewall",
        "connected",
        "Shadowsocks is listening on tcp 172.18.0.5",
    ]
    caplog.clear()
    async with world.serving():
        pass
    second = [record.message for record in caplog.records]
    assert not set(first[:2] + first[3:4]) & set(second)
    assert [record.levelname for record in caplog.records] == ["INFO"] * len(second)


async def test_without_firewall_nothing_is_loaded_and_our_old_tables_go(world: FakeWorld) -> None:
    world.nft.tables["inet ss_warp"] = "\tchain output {\n\t}\n"
    theirs = {"ip others": world.nft.tables["ip others"]}
    async with world.serving(FIREWALL="off", ROUTE_MODE="proxy"):
        assert world.nft.tables == theirs
    assert world.nft.tables == theirs


async def test_without_shadowsocks_there_is_the_tunnel_alone(world: FakeWorld) -> None:
    async with world.serving(SHADOWSOCKS="off"):
        assert world.processes.alive() == ["ss-warp-wireguard"]
        assert "8388-8388" not in str(world)


async def test_a_namespace_without_ipv6_gets_no_ipv6(world: FakeWorld) -> None:
    world.netlink.addresses = [a for a in world.netlink.addresses if a.address.version == 4]
    world.netlink.routes = [r for r in world.netlink.routes if r.destination.version == 4]
    async with world.serving() as board:
        ours = [rule for rule in world.netlink.rules if rule.family == 6 and 0 < rule.priority < 32766]
        assert not ours
        assert board.status.ipv6 is None


async def test_what_a_killed_predecessor_left_is_taken_over_and_then_removed(world: FakeWorld) -> None:
    async with world.serving():
        up = world.netlink.links, world.netlink.addresses, world.netlink.routes, world.netlink.rules
        kept = [list(part) for part in up]
        network = (world.state / "network.json").read_bytes()
    closed = str(world)
    world.netlink.links, world.netlink.addresses, world.netlink.routes, world.netlink.rules = kept  # type: ignore[assignment]
    (world.state / "network.json").write_bytes(network)
    assert str(world) != closed
    async with world.serving(ROUTE_RULE_PRIORITY="118"):
        ours = {rule.priority for rule in world.netlink.rules} - {0, 32766, 32767}
        assert ours == {116, 117, 118, 119, 32764}
    assert str(world) == closed


async def test_a_number_of_others_is_refused_before_anything_is_changed(world: FakeWorld) -> None:
    theirs = Rule(4, 18, MAIN_TABLE, protocol=4)
    world.netlink.meddle(theirs)
    before = str(world)
    failure = await world.attempt()
    assert "ROUTE_RULE_PRIORITY=18: another program" in repr(failure)
    assert str(world) == before
    assert theirs in world.netlink.rules


@pytest.mark.parametrize("signals", [1, 2])
async def test_sigterm_ends_it_in_order_once_or_twice(kernel: FakeWorld, signals: int) -> None:
    closed = await kernel.closed()
    settings = kernel.settings()
    address = Endpoint(settings.health.server_address.address, 0)
    settings = replace(settings, health=replace(settings.health, server_address=address))
    board = kernel.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_until_signal, Run(settings, kernel.doors, board))
        await kernel.until(lambda: bool(board.status.listening))
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
            await anyio.lowlevel.checkpoint()
    assert board.status.state is State.STOPPING
    assert str(kernel) == closed
    with state_dir.lock(kernel.state):
        pass
