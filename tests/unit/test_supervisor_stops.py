"""Stopped at any moment, it leaves nothing behind, and the next start does not notice."""

import json
from collections.abc import Iterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from entrypoint.linux import state_dir
from tests.fakes.world import FakeWorld, in_memory

pytestmark = pytest.mark.anyio
TURNS = 210
"""A first start needs about 130 turns of the event loop until it serves: the rest stops a running chain."""
AT_A_TIME = 15


@pytest.fixture
def world(anyio_backend: str) -> Iterator[FakeWorld]:
    with in_memory() as world:
        yield world


async def stop_after(world: FakeWorld, turns: int, again_after: int | None = None, **environ: str) -> None:
    """Cancel the chain after so many turns, and everything around it once more while it unwinds."""

    async def again(scope: anyio.CancelScope, after: int) -> None:
        for _ in range(after):
            await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as outer:
        with anyio.CancelScope() as second:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: world.run(None, PRINT_LINK="off", **environ))
                for _ in range(turns):
                    await checkpoint()
                tasks.cancel_scope.cancel()
                if again_after is not None:
                    outer.start_soon(again, second, again_after)
        outer.cancel_scope.cancel()


async def nothing_is_left(world: FakeWorld, before: str, closed: str) -> None:
    assert str(world) == (closed if world.nft.count else before)
    network = state_dir.read(world.state / "network.json")
    assert network is None or json.loads(network) == []
    assert not [path.name for path in world.state.iterdir() if path.name.endswith(".new")]
    with state_dir.lock(world.state):
        pass
    assert len(world.http.api.devices) <= 1


@pytest.mark.parametrize("mode", ["full", "proxy"])
@pytest.mark.parametrize("begin", range(0, TURNS, AT_A_TIME))
async def test_a_first_start_stopped_at_any_turn_leaves_nothing(begin: int, mode: str) -> None:
    for turns in range(begin, begin + AT_A_TIME, 1 if mode == "full" else 3):
        with in_memory() as world:
            before, closed = str(world), await world.closed()
            await stop_after(world, turns, ROUTE_MODE=mode)
            await nothing_is_left(world, before, closed)


@pytest.mark.parametrize("begin", range(0, TURNS, AT_A_TIME))
async def test_stopped_twice_it_unwinds_all_the_same(begin: int) -> None:
    for turns in range(begin, begin + AT_A_TIME, 4):
        with in_memory(has_wireguard=turns % 2 == 0) as world:
            before, closed = str(world), await world.closed()
            await stop_after(world, turns, again_after=turns * 7 % 40)
            await nothing_is_left(world, before, closed)


async def test_a_start_after_many_that_were_stopped_connects_with_the_first_account(world: FakeWorld) -> None:
    closed = await world.closed()
    for turns in range(10, TURNS, 12):
        await stop_after(world, turns)
        await nothing_is_left(world, closed, closed)
    calls = len(world.http.api.calls)
    async with world.serving():
        pass
    assert len(world.http.api.calls) == calls <= 2, "a POST that was cut off may have to be sent again"
    assert str(world) == closed


@pytest.mark.parametrize("waits", ["for the API", "for an answer"])
async def test_stopped_while_it_waits_it_leaves_nothing(world: FakeWorld, waits: str) -> None:
    before, closed = str(world), await world.closed()
    if waits == "for the API":
        del world.http.sites[next(iter(a for a, site in world.http.sites.items() if site is world.http.api))]
    else:
        world.http.edge = False
    for turns in (500, 1000, 3000):
        await stop_after(world, turns)
        await nothing_is_left(world, before, closed)
    assert not world.processes.alive()
