"""The whole chain on the fake world: what is wrong is in log and status, one sentence, and no other."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from entrypoint.commands import doctor
from entrypoint.health.diagnosis import Cause
from entrypoint.status.board import Board
from entrypoint.status.states import State
from tests.fakes.world import RESOLVERS, FakeWorld
from tests.unit.health.monitor_bench import quiet_httpx

__all__ = ["quiet_httpx"]  # a fixture
pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(tmp_path: Path, anyio_backend: str) -> AsyncIterator[FakeWorld]:
    """A world with an account that is older than a day."""
    world = FakeWorld(tmp_path)
    async with world.serving():
        pass
    world.clock.now += 100_000
    yield world


def shown(world: FakeWorld) -> dict[str, Any]:
    return dict(json.loads((world.directory / "run/status.json").read_text()))


def one_sentence(world: FakeWorld, board: Board, cause: Cause, caplog: pytest.LogCaptureFixture) -> None:
    """Log, status and doctor say the same, and nothing says the remedy of anything else."""
    assert board.status.cause and board.status.cause.cause is cause
    sentence, remedy = board.status.cause.sentence, board.status.cause.remedy
    assert shown(world)["cause"]["sentence"] == sentence
    found = doctor.supervisor(shown(world))
    assert (found.level, found.remedy) == ("FAIL", remedy)
    assert sentence in found.text
    assert any(sentence in line and remedy in line for line in caplog.messages)
    for other in set(Cause) - {cause}:
        assert other.value not in caplog.text


async def until_named(world: FakeWorld, board: Board, seconds: float) -> None:
    """Let time go on until a cause is shown."""
    end = world.clock.now + seconds
    while board.status.cause is None and world.clock.now < end:
        await world.clock.sleep(1)


@pytest.mark.parametrize("cause", [Cause.ACCOUNT_GONE, Cause.KEY_REFUSED, Cause.WIREGUARD_BLOCKED])
async def test_what_the_api_knows_is_asked_before_wireguard_is_called_blocked(
    world: FakeWorld, cause: Cause, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.serving() as board:
        api = world.http.api
        api.keys.clear()  # unknown at the edge
        match cause:
            case Cause.ACCOUNT_GONE:
                api.devices.clear()
            case Cause.KEY_REFUSED:
                (device,) = api.devices.values()
                device["key"] = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
        await until_named(world, board, 300)
        one_sentence(world, board, cause, caplog)


async def test_a_resolver_that_is_gone_is_named_while_endpoints_have_names(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    for server in RESOLVERS:
        world.http.dns.pop(server)
    board = world.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: world.run(board, WARP_ENDPOINTS="edge.example:500"))
        await until_named(world, board, 60)
        one_sentence(world, board, Cause.PROVIDER_DNS, caplog)
        lines = len(caplog.messages)
        await world.clock.sleep(600)
        assert lines < len(caplog.messages) <= lines + 6, "at growing distances"
        world.http.dns |= {one: {"edge.example": [next(iter(world.http.sites))]} for one in RESOLVERS}
        await world.until(lambda: board.status.state is not State.CONNECTING or board.status.cause is None)
        tasks.cancel_scope.cancel()


async def test_a_name_that_does_not_exist_is_no_fault_of_the_resolver(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    board = world.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: world.run(board, WARP_ENDPOINTS="no.example:500"))
        await world.until(lambda: "check WARP_ENDPOINTS" in caplog.text)
        assert board.status.cause is None
        tasks.cancel_scope.cancel()


async def test_udp_that_is_dropped_is_named(world: FakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    async with world.serving() as board:
        world.http.edge = False
        world.http.deaf = True
        await until_named(world, board, 60)
        one_sentence(world, board, Cause.UDP_BLOCKED, caplog)


async def test_an_uplink_that_is_gone_is_named(world: FakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    async with world.serving() as board:
        world.http.edge = False
        world.http.deaf = True
        world.http.sites.clear()
        await until_named(world, board, 60)
        one_sentence(world, board, Cause.UPLINK_GONE, caplog)


async def test_a_clock_that_is_off_is_named_to_2022_clients(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.http.ahead = 45
    board = world.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: world.run(board))
        await until_named(world, board, 60)
        assert board.status.state is State.DEGRADED
        one_sentence(world, board, Cause.CLOCK_WRONG, caplog)
        tasks.cancel_scope.cancel()
