"""A dead tunnel whose account may be why: asked twice, minutes apart, and replaced where that is allowed.

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


ASKED_WITHIN = 13 + 150 + 6
"""Seconds from a loss to the first call: noticed, the longest draw that keeps a fleet apart, and a round."""


async def test_n_07_endpoints_rotate_for_three_rounds_before_the_account_is_doubted(bench: Bench) -> None:
    async with watching(bench, 5):
        bench.edge.up = False
        lost = bench.clock.now
        await bench.until(700)
    assert 90 <= bench.doubts[0] - lost <= ASKED_WITHIN
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


async def outlived(world: FakeWorld, board: Board, seconds: float = ASKED_WITHIN + 11) -> None:
    """Let time go on until it is connected again, or `seconds` are over."""
    end = world.clock.now + seconds
    await world.until(lambda: board.status.state is not State.CONNECTED)
    while board.status.state is not State.CONNECTED and world.clock.now < end:
        await world.clock.sleep(1)


async def test_a_03_a_deleted_device_is_confirmed_minutes_later_and_replaced(
    world: FakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ss-warp")
    async with world.serving() as board:
        before = account(world)["account"]
        forgotten(world, 404)
        moments: list[float] = []
        world.http.api.on_call = lambda request: moments.append(world.clock.now)
        await outlived(world, board, ASKED_WITHIN + 600 + 60)
        assert board.status.state is State.CONNECTED
        assert [method for method, _ in world.http.api.calls] == ["GET", "GET", "POST"]
        assert 300 <= moments[1] - moments[0] <= 600
        after = account(world)
        assert after["account"]["private_key"] != before["private_key"]
        assert set(after) == {"format", "account"}, "the old one is forgotten once the new one has connected"
        await world.until(lambda: bool(board.status.listening))
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
        await outlived(world, board)
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


async def test_an_edge_that_moved_is_followed_without_registering(world: FakeWorld) -> None:
    (device,) = world.http.api.devices.values()
    async with world.serving() as board:
        device["config"]["peers"][0]["endpoint"]["v4"] = "162.159.193.9:0"
        keys, world.http.api.keys = world.http.api.keys, []
        await world.until(lambda: board.status.state is State.HEALING)
        end = world.clock.now + ASKED_WITHIN + 11
        while "193.9" not in (world.state / "account.json").read_text() and world.clock.now < end:
            await world.clock.sleep(1)
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
        await outlived(world, board)
    assert account(world) == before
    assert "was changed elsewhere" in caplog.text


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
        await world.until(lambda: bool(api.calls))
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
