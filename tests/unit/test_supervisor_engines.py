"""The other WireGuard implementation, and endpoints that move, on the fake world."""

import logging
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest

from entrypoint.status.board import Board
from entrypoint.status.states import State
from tests.fakes.world import RESOLVERS, FakeWorld
from tests.unit.health.monitor_bench import quiet_httpx

__all__ = ["quiet_httpx"]  # a fixture
pytestmark = pytest.mark.anyio
HERE, THERE = ip_address("162.159.192.6"), ip_address("162.159.193.9")


async def pass_until(world: FakeWorld, condition: Callable[[], bool], seconds: float) -> None:
    end = world.clock.now + seconds
    while not condition():
        assert world.clock.now < end, f"not within {seconds:g} s"
        await world.clock.sleep(1)


async def used(world: FakeWorld, board: Board, seconds: float) -> list[str]:
    """Return which implementations were opened, in order, in so many seconds."""
    seen: list[str] = []
    end = world.clock.now + seconds
    while world.clock.now < end:
        now = board.status.implementation
        if now and seen[-1:] != [now]:
            seen.append(now)
        await world.clock.sleep(1)
    return seen


async def test_a_kernel_that_never_hears_an_answer_is_left_for_userspace_once(tmp_path: Path) -> None:
    world = FakeWorld(tmp_path, has_wireguard=True)
    world.http.deaf_engines = {"kernel"}
    board = world.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: world.run(board, SHADOWSOCKS="off"))
        await pass_until(world, lambda: board.status.state is State.CONNECTED, 120)
        assert board.status.implementation == "userspace"
        assert [one for one in world.http.api.calls if one[0] == "POST"] == [("POST", "/v0a2158/reg")]
        tasks.cancel_scope.cancel()


async def test_where_neither_is_answered_each_is_tried_once_a_day(tmp_path: Path) -> None:
    world = FakeWorld(tmp_path, has_wireguard=True)
    world.http.edge = False
    board = world.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: world.run(board, SHADOWSOCKS="off"))
        assert await used(world, board, 400) == ["kernel", "userspace"]
        tasks.cancel_scope.cancel()


async def test_an_implementation_that_was_chosen_is_kept(tmp_path: Path) -> None:
    world = FakeWorld(tmp_path, has_wireguard=True)
    world.http.deaf_engines = {"kernel"}
    board = world.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: world.run(board, SHADOWSOCKS="off", WIREGUARD_IMPLEMENTATION="kernel"))
        assert await used(world, board, 150) == ["kernel"]
        tasks.cancel_scope.cancel()


async def test_offloads_that_lose_large_answers_alone_are_left_for_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """DNS answers are small; the page with its certificates is not."""
    caplog.set_level(logging.INFO)
    world = FakeWorld(tmp_path, has_wireguard=True)
    world.http.small_only = {"kernel"}
    board = world.board()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: world.run(board, SHADOWSOCKS="off"))
        await pass_until(world, lambda: board.status.state is State.DEGRADED, 60)
        await pass_until(world, lambda: board.status.state is State.CONNECTED, 900)
        assert board.status.implementation == "userspace"
        tasks.cancel_scope.cancel()


async def test_m13_a_name_that_moves_in_an_outage_is_followed(tmp_path: Path) -> None:
    world = FakeWorld(tmp_path)
    for server in RESOLVERS:
        world.http.dns[server]["edge.example"] = [HERE]
    async with world.serving(WARP_ENDPOINTS="edge.example:2408", SHADOWSOCKS="off") as board:
        assert str(board.status.endpoint) == f"{HERE}:2408"
        world.http.edges = {THERE}
        for server in RESOLVERS:
            world.http.dns[server]["edge.example"] = [THERE]
        await pass_until(world, lambda: board.status.state is State.HEALING, 30)
        await pass_until(world, lambda: board.status.state is State.CONNECTED, 60)
        await pass_until(world, lambda: str(board.status.endpoint) == f"{THERE}:2408", 10)
