"""An account's life in a whole chain, in virtual time: A-09 to A-13 and C-12, each with its figure."""

import json
import logging
import re
import statistics
from pathlib import Path

import anyio
import httpx
import pytest

from entrypoint.errors import BusyError
from entrypoint.status.states import State
from tests.conftest import Record
from tests.fakes.warp_api import Fault
from tests.fakes.world import API, FakeWorld, in_memory

pytestmark = pytest.mark.anyio
KEY = "Zz12Cd34-Ef56Gh78-Ij90Kl12"
RESTARTS = 100
DOWN = 300.0
HOUR = 3600.0


@pytest.fixture
def world(tmp_path: Path, anyio_backend: str) -> FakeWorld:
    return FakeWorld(tmp_path)


def swallow(world: FakeWorld) -> None:
    """The API and the servers that know its name are gone; the tunnel's other end is not."""
    del world.http.sites[API]
    world.http.dns.clear()


async def test_a_09_an_api_that_is_gone_interrupts_nothing(world: FakeWorld, record: Record) -> None:
    """An hour stands for the day: what asks the API at all has had its turn after two minutes."""
    world.http.api.licences[KEY] = "unlimited"  # the one account that is looked at again
    async with world.serving(WARP_LICENSE_KEY=KEY) as board:
        del world.http.sites[API]
        since, calls = board.status.since, len(world.http.api.calls)
        await world.clock.sleep(HOUR)
        assert (board.status.state, board.status.since) == (State.CONNECTED, since)
        assert board.status.repairs == 0
        assert len(world.http.api.calls) == calls
    record("A-09: API gone for an hour of virtual time, account saved", "0 interruptions, 0 repairs")


@pytest.mark.parametrize("kind", ["free", "plus"])
async def test_a_10_a_hundred_restarts_of_the_chain(world: FakeWorld, kind: str, record: Record) -> None:
    world.http.api.licences[KEY] = "unlimited"
    environ = {"WARP_LICENSE_KEY": KEY} if kind == "plus" else {}
    async with world.serving(**environ):
        pass
    world.http.api.calls.clear()
    worst = 0
    for _ in range(RESTARTS):
        before = len(world.http.api.calls)
        async with world.serving(SHADOWSOCKS="off", **environ):
            pass
        worst = max(worst, len(world.http.api.calls) - before)
    posts = sum(method == "POST" for method, _ in world.http.api.calls)
    assert (posts, worst <= 1) == (0, True)
    record(
        f"A-10: {RESTARTS} restarts with a saved {kind} account", f"{posts} registrations, {worst} calls each"
    )


async def test_a_11_a_first_start_with_the_api_down_for_five_minutes(record: Record) -> None:
    took: list[float] = []
    asked: list[int] = []
    for _ in range(10):
        with in_memory() as world:
            board = world.board()
            api = world.http.sites.pop(API)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: world.run(board))  # noqa: B023
                await world.until(lambda: "retrying in" in board.status.reason)  # noqa: B023
                await world.clock.sleep(DOWN)
                status = json.loads((world.directory / "run/status.json").read_text())
                assert status["state"] == "registering"
                assert re.search(r"retrying in \d+ s, at \d\d:\d\d:\d\d UTC$", status["reason"])
                assert str(world) == await world.closed(), "the kill switch is closed"
                world.http.sites[API] = api
                back = world.clock.now
                while not board.status.warp:
                    await world.clock.sleep(0.1)
                took.append(world.clock.now - back)
                asked.append(len(world.http.api.calls))
                tasks.cancel_scope.cancel()
    assert max(took) <= 30
    assert set(asked) == {1}
    record(
        "A-11: first start, API down for five minutes",
        f"up {statistics.median(took):.1f} s (median of 10), {max(took):.1f} s (worst; limit 30) after that",
    )


async def test_a_12_an_answer_lost_after_the_post_costs_one_orphan_and_is_told(
    world: FakeWorld, caplog: pytest.LogCaptureFixture, record: Record
) -> None:
    world.http.api.faults.append(Fault(httpx.ReadError("reset"), created=True))
    async with world.serving():
        pass
    assert len(world.http.api.devices) == 2
    assert len(set(world.http.api.keys)) == 1, "the same key both times"
    assert "may have been carried out" in caplog.text
    record("A-12: answer lost after POST", f"{len(world.http.api.devices)} devices (limit 2), reported")


LICENCES = {
    "invalid": {"code": 1000, "message": "Invalid license"},
    "full": {"code": 1056, "message": "Too many connected devices."},
    "revoked later": "unlimited",
}


@pytest.mark.parametrize("why", LICENCES)
async def test_a_13_whatever_becomes_of_the_licence_it_is_up_and_says_so(
    world: FakeWorld, why: str, caplog: pytest.LogCaptureFixture, record: Record
) -> None:
    caplog.set_level(logging.INFO, "ss-warp")
    world.http.api.licences[KEY] = LICENCES[why]  # type: ignore[assignment]
    async with world.serving(WARP_LICENSE_KEY=KEY) as board:
        if why == "revoked later":
            assert board.status.account == "plus"
            (device,) = world.http.api.devices.values()
            device["account"]["account_type"] = "free"
            await world.clock.sleep(130)
        assert (board.status.state, board.status.account) == (State.CONNECTED, "free")
    words = {
        "invalid": "is not valid",
        "full": "is already used on 5 devices",
        "revoked later": "is no longer honoured",
    }
    assert f"the licence key {words[why]}" in caplog.text
    assert KEY not in caplog.text
    record(f"A-13: licence {why}", "up on the free tier, told in one line")


async def test_c_12_two_starts_at_once_register_once(world: FakeWorld, record: Record) -> None:
    failures = []

    async def second() -> None:
        failures.append(await world.attempt())

    async with world.serving(), anyio.create_task_group() as tasks:
        tasks.start_soon(second)
    (group,) = failures
    assert isinstance(group, ExceptionGroup)
    (failure,) = group.exceptions
    assert isinstance(failure, BusyError) and failure.exit_code == 75
    assert len(world.http.api.calls) == 1
    assert json.loads((world.state / "account.json").read_text())["account"]
    record("C-12: two starts on one volume", f"1 registration, the other ends with 75: {failure.message}")
