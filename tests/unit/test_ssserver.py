"""The Shadowsocks server in its life: ended, hung, moved."""

import json
import logging
from collections.abc import Callable
from ipaddress import ip_interface
from itertools import pairwise

import anyio
import pytest

from entrypoint.linux.kernel_objects import LinkAddress
from entrypoint.status.board import Board
from entrypoint.status.heartbeat import find_problem
from entrypoint.status.states import State
from shadowsocks.server import ENVIRONMENT
from tests.fakes.processes import FakeSsserver
from tests.fakes.world import FakeWorld
from tests.unit.servers import last, world

__all__ = ["world"]  # a fixture

pytestmark = pytest.mark.anyio
NEW = LinkAddress("eth0", ip_interface("172.18.0.9/16"))


def servers(child: FakeSsserver) -> list[str]:
    return [server["server"] for server in json.loads(child.program.files["config"])["servers"]]


def listeners(board: Board) -> int:
    return len(board.status.listening)


def unhealthy(world: FakeWorld) -> str:
    return find_problem((world.directory / "run" / "heartbeat").read_text(), world.clock.now)


def started(world: FakeWorld, number: int) -> Callable[[], bool]:
    return lambda: len(world.processes.ssservers()) == number


async def test_one_that_was_ready_is_started_again_at_once(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.serving() as board:
        for number in range(2, 12):
            ended = world.clock.now
            last(world).kill()
            await world.until(started(world, number))
            assert world.clock.now == ended
            await world.until(lambda: listeners(board) == 4)
    assert sum("signal 9" in line for line in caplog.messages) == 10


async def test_while_it_is_down_the_board_shows_no_listener(world: FakeWorld) -> None:
    async with world.serving() as board:
        assert (listeners(board), board.status.method) == (4, "2022-blake3-aes-128-gcm")
        world.processes.refuse["ssserver"] = "ERROR server aborted with Address already in use"
        last(world).kill()
        await world.until(lambda: listeners(board) == 0)
        status = json.loads((world.directory / "run" / "status.json").read_text())
        assert status["shadowsocks"]["listening"] == []
        assert status["state"] == "connected", "the tunnel lives"


async def test_c06_one_that_never_gets_ready_is_started_ever_more_seldom(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """At most ten starts in the first minute, a line for each; the tunnel is kept and no listener claimed."""
    world.processes.refuse["ssserver"] = "ERROR server aborted with Address already in use"
    board = world.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.run, board)
        await world.until(started(world, 1))
        times = [world.clock.now]
        for number in range(2, 12):
            await world.until(started(world, number))
            times.append(world.clock.now)
        assert (board.status.state, listeners(board)) == (State.CONNECTED, 0)
        assert unhealthy(world).startswith("unserved: ")
        assert "ss-warp-wireguard" in world.processes.alive()
        tasks.cancel_scope.cancel()
    assert sum(at - times[0] < 60 for at in times) <= 12
    said = sum("restarting" in line for line in caplog.messages)
    assert said in (len(times) - 1, len(times)), "one line a try"
    pauses = [later - earlier for earlier, later in pairwise(times)]
    bounds = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True)), pauses


async def test_c14_one_that_hangs_is_noticed_and_started_again(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Not before it has answered once: a firewall of the host's may be in the way of the question."""
    async with world.serving() as board:
        assert unhealthy(world) == ""
        await world.clock.sleep(11)
        last(world).hangs, since = True, world.clock.now
        await world.until(lambda: listeners(board) == 0)
        assert world.clock.now - since <= 15
        assert unhealthy(world).startswith("unserved: ")
        assert board.status.state is State.CONNECTED, "the tunnel lives"
        await world.until(started(world, 2))
        assert 30 < world.clock.now - since < 60
        await world.until(lambda: listeners(board) == 4)
        assert unhealthy(world) == ""
        last(world).hangs = True
        await world.clock.sleep(300)
        assert started(world, 2)(), "it never answered"
    said = [line for line in caplog.messages if line.startswith("ssserver")]
    assert said == ["ssserver does not react to clients", "ssserver hangs, restarting it"]


async def test_c14_one_that_goes_on_after_half_a_minute_is_left_alone(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ss-warp")
    async with world.serving() as board:
        for _ in range(3):
            await world.clock.sleep(11)
            last(world).hangs = True
            await world.clock.sleep(30)
            last(world).hangs = False
            await world.clock.sleep(1)
            assert listeners(board) == 4
        assert started(world, 1)()
    said = [line for line in caplog.messages if line.startswith("ssserver")]
    assert said == ["ssserver does not react to clients", "ssserver reacts again"] * 3


async def test_one_that_speaks_but_takes_no_client_keeps_those_it_has(world: FakeWorld) -> None:
    """Without a file descriptor left it says so once a second."""
    async with world.serving() as board:
        await world.clock.sleep(11)
        last(world).hangs = True
        for _ in range(300):
            last(world).say("ERROR tcp server accept failed with error: Too many open files (os error 24)")
            await world.clock.sleep(1)
        assert (started(world, 1)(), listeners(board)) == (True, 0)


async def test_a_new_address_is_listened_on_a_vanished_one_disturbs_nobody(world: FakeWorld) -> None:
    async with world.serving() as board:
        assert servers(last(world)) == ["172.18.0.5", "fd00:18::5"]
        world.netlink.meddle(NEW)
        await world.until(started(world, 2))
        await world.until(lambda: listeners(board) == 6)
        assert sorted(servers(last(world))) == ["172.18.0.5", "172.18.0.9", "fd00:18::5"]
        world.netlink.meddle(NEW, removes=True)
        await world.until(lambda: "from 172.18.0.9" not in str(world))
        await world.clock.sleep(60)
        assert started(world, 2)()
        assert last(world).alive
        assert [child.alive for child in world.processes.ssservers()] == [False, True]


async def test_m5_one_that_dies_after_an_address_vanished_listens_on_the_others(world: FakeWorld) -> None:
    async with world.serving() as board:
        world.netlink.meddle(NEW)
        await world.until(lambda: listeners(board) == 6)
        world.netlink.meddle(NEW, removes=True)
        await world.until(lambda: "from 172.18.0.9" not in str(world))
        last(world).kill()
        await world.until(started(world, 3))
        await world.until(lambda: listeners(board) == 4)
        assert sorted(servers(last(world))) == ["172.18.0.5", "fd00:18::5"]


@pytest.mark.parametrize("udp", ["on", "off"])
async def test_it_gets_what_it_needs_and_no_right(world: FakeWorld, udp: str) -> None:
    async with world.serving(SHADOWSOCKS_UDP=udp, SHADOWSOCKS_USERS="alice,bob") as board:
        program = last(world).program
        assert program.uid == 58388
        assert program.environment == ENVIRONMENT
        config = json.loads(program.files["config"])
        assert config["outbound_bind_interface"] == "wg0"
        assert config["dns"] == "1.1.1.1,1.0.0.1,2606:4700:4700::1111,2606:4700:4700::1001"
        own = program.files["acl"].decode().splitlines()
        assert {"172.18.0.5", "fd00:18::5", "172.16.0.2"} <= set(own)
        assert {one.transport for one in board.status.listening} == (
            {"tcp", "udp"} if udp == "on" else {"tcp"}
        )
        assert board.status.users == ("alice", "bob")
