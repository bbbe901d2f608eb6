"""A dead tunnel whose account may be why: asked once, confirmed once, registered anew where that is allowed.

A-03 and N-07 in virtual time: the monitor alone, then the chain on the fake world.
"""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from entrypoint.status.board import Board
from entrypoint.status.states import OUTAGE, State
from tests.fakes.warp_api import Fault
from tests.fakes.world import FakeWorld
from tests.unit.health.monitor_bench import Bench, bench, quiet_httpx, watching

__all__ = ["bench", "quiet_httpx"]  # fixtures
pytestmark = pytest.mark.anyio
CONFIRMING = ("GET", "/v0a2158/client_config")


async def test_n_07_endpoints_rotate_for_three_rounds_before_the_account_is_doubted(bench: Bench) -> None:
    async with watching(bench, 5):
        bench.edge.up = False
        lost = bench.clock.now
        await bench.until(700)
    assert 25 <= bench.doubts[0] - lost <= 90
    assert len(bench.doubts) <= 2
    rungs = bench.events.rungs()
    assert len(bench.doubts) * 9 <= len(rungs)


@pytest.fixture
async def world(tmp_path: Path, anyio_backend: str) -> AsyncIterator[FakeWorld]:
    """A world with an account that is older than a day."""
    world = FakeWorld(tmp_path)
    async with world.serving():
        pass
    world.clock.now += 100_000
    world.http.api.calls.clear()
    yield world


def account(world: FakeWorld) -> dict[str, Any]:
    return dict(json.loads((world.state / "account.json").read_text()))


def forgotten(world: FakeWorld, status: int) -> None:
    """The device is deleted: unknown at the edge, and the API says `status` to whoever asks for it."""
    world.http.api.devices.clear()
    world.http.api.keys.clear()
    world.http.api.gone = status


async def outlived(world: FakeWorld, board: Board, seconds: float = 300) -> None:
    """Let time go on until it is connected again, or `seconds` are over."""
    end = world.clock.now + seconds
    await world.until(lambda: board.status.state is not State.CONNECTED)
    while board.status.state is not State.CONNECTED and world.clock.now < end:
        await world.clock.sleep(1)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_03_a_deleted_device_is_confirmed_by_one_call_and_registered_anew(
    world: FakeWorld, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ss-warp")
    async with world.serving() as board:
        before = account(world)["account"]
        forgotten(world, status)
        await outlived(world, board)
        assert board.status.state is State.CONNECTED
        calls = [path for method, path in world.http.api.calls if (method, path) != CONFIRMING]
        asked = 2 if status == 403 else 1  # turned away, it asks as another client
        assert len(calls) == asked + 1 and calls[-1].endswith("/reg")
        assert world.http.api.calls.count(CONFIRMING) == 1
        assert account(world)["account"]["private_key"] != before["private_key"]
        await world.until(lambda: bool(board.status.listening))
    assert "the account no longer exists, registering a new one" in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("broken", ["500", "blocked", "silent", "portal"])
async def test_a_03_an_api_that_is_broken_costs_no_account(world: FakeWorld, broken: str) -> None:
    async with world.serving() as board:
        before = account(world)
        world.http.api.keys.clear()  # the edge alone has lost it
        match broken:
            case "500":
                world.http.api.faults.extend([Fault(httpx.Response(500))] * 9)
            case "blocked":
                world.http.api.faults.extend([Fault(httpx.Response(403, text="error code: 1020"))] * 99)
            case "silent":
                del world.http.sites[
                    next(at for at, site in world.http.sites.items() if site is world.http.api)
                ]
            case "portal":
                world.http.api.faults.extend([Fault(httpx.Response(404, html="<html>no</html>"))] * 99)
        await outlived(world, board, 300)
        assert board.status.state in OUTAGE
    assert account(world) == before
    assert not [one for one in world.http.api.calls if one[0] == "POST"]


async def test_n_07_a_device_that_the_api_knows_is_kept_and_seldom_asked_about(world: FakeWorld) -> None:
    async with world.serving() as board:
        before = account(world)
        world.http.edge = False
        await outlived(world, board, 700)
        assert [method for method, _ in world.http.api.calls] == ["GET"] * len(world.http.api.calls)
        assert 1 <= len(world.http.api.calls) <= 2, "in ten minutes one"
        world.http.edge = True
        await outlived(world, board)
        assert board.status.state is State.CONNECTED
    assert account(world) == before


REFUSED = {
    "young": ({"created": "2033-01-01T00:00:00+00:00"}, "once a day at most"),
    "team": ({"kind": "team"}, "it is a team account"),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_a_03_what_may_not_be_replaced_stays_and_is_told(
    world: FakeWorld, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """9.4-07."""
    changes, words = REFUSED[why]
    before = account(world)
    before["account"] |= changes
    (world.state / "account.json").write_text(json.dumps(before))
    async with world.serving() as board:
        forgotten(world, 404)
        await outlived(world, board, 300)
        assert board.status.state in OUTAGE
    assert account(world) == before
    assert words in caplog.text
    assert "`ss-warp account delete` and restart" in caplog.text


async def test_a_licence_follows_into_the_next_account(world: FakeWorld) -> None:
    key = "Zz12Cd34-Ef56Gh78-Ij90Kl12"
    world.http.api.licences[key] = "unlimited"
    kept = account(world)
    kept["account"]["kind"] = "plus"
    kept["account"]["device"]["account"]["license"] = key
    (world.state / "account.json").write_text(json.dumps(kept))
    async with world.serving() as board:
        forgotten(world, 404)
        await outlived(world, board)
        assert board.status.account == "plus"
    (device,) = world.http.api.devices.values()
    assert device["account"]["license"] == key


async def test_an_edge_that_moved_is_followed_without_registering(world: FakeWorld) -> None:
    (device,) = world.http.api.devices.values()
    async with world.serving() as board:
        device["config"]["peers"][0]["endpoint"]["v4"] = "162.159.193.9:0"
        keys, world.http.api.keys = world.http.api.keys, []
        await world.until(lambda: board.status.state is State.HEALING)
        await world.until(lambda: "193.9" in (world.state / "account.json").read_text())
        world.http.api.keys = keys
        await outlived(world, board)
        assert str(board.status.endpoint) == "162.159.193.9:2408"
    assert [method for method, _ in world.http.api.calls] == ["GET"]


async def test_another_key_at_the_api_is_told(world: FakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    (device,) = world.http.api.devices.values()
    before = account(world)
    async with world.serving() as board:
        device["key"] = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
        world.http.api.keys.clear()
        await outlived(world, board, 300)
    assert account(world) == before
    assert "somebody changed it" in caplog.text


async def test_an_answer_that_comes_when_the_tunnel_is_back_disturbs_nothing(world: FakeWorld) -> None:
    asked, answer = anyio.Event(), anyio.Event()
    api, keys = world.http.api, list(world.http.api.keys)

    async def slow(request: httpx.Request) -> httpx.Response:
        asked.set()
        await answer.wait()
        return api(request)

    async with world.serving() as board:
        for at, one in world.http.sites.items():
            if one is api:
                world.http.sites[at] = slow
        forgotten(world, 404)
        await asked.wait()
        api.keys = keys
        await outlived(world, board)
        answer.set()
        await world.until(lambda: CONFIRMING in api.calls)
        await world.clock.sleep(30)
        assert board.status.state is State.CONNECTED
    assert not [one for one in api.calls if one[0] == "POST"]


async def test_a_stop_in_the_middle_of_the_question_leaves_the_account(world: FakeWorld) -> None:
    before = account(world)
    asked = anyio.Event()
    site = world.http.api

    async def slow(request: httpx.Request) -> httpx.Response:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with world.serving():
        for at, one in world.http.sites.items():
            if one is site:
                world.http.sites[at] = slow
        forgotten(world, 404)
        await asked.wait()
    assert account(world) == before
