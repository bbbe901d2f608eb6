"""One registration per account life, whatever the API does."""

import json
import stat
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest

from entrypoint.account.model import Account, public_key
from entrypoint.account.registration import LOOK_AGAIN
from entrypoint.account.replies import ApiError
from entrypoint.errors import BusyError, Error
from tests.fakes.box import HOST, START, Box
from tests.fakes.http import API, DNS
from tests.fakes.warp_api import Fault, refusal
from tests.unit.account.faults import FAULTS, FINAL


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.mark.anyio
async def test_first_start_registers_once_and_later_ones_do_not_call(box: Box) -> None:
    first = await box.start()
    calls, lookups = len(box.site.calls), len(box.http.lookups)
    assert calls == 1
    for _ in range(10):
        assert await box.start() == first
    assert (len(box.site.calls), len(box.http.lookups)) == (calls, lookups)
    assert box.files() == ["account.json"]
    assert stat.S_IMODE(box.path.stat().st_mode) == 0o600
    assert box.kept()["format"] == 2
    assert "pending" not in box.kept()
    assert not box.told


@pytest.mark.anyio
async def test_a_pending_key_is_used_again(box: Box) -> None:
    box.site.faults.append(Fault(refusal(400, "no")))
    with pytest.raises(ApiError):
        await box.start()
    key = box.kept()["pending"]["private_key"]
    box.clock.now += 301
    assert (await box.start()).private_key == key
    assert not box.told


@pytest.mark.anyio
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_02_what_passes_is_waited_for(box: Box, fault: str) -> None:
    box.site.faults.append(FAULTS[fault])
    account = await box.start()
    assert len(box.site.calls) == 2
    assert len(box.site.devices) == 1 + FAULTS[fault].created  # one orphan at most
    assert set(box.site.keys) == {public_key(account.private_key)}
    ((reason, seconds),) = box.told
    assert reason.startswith((f"{HOST} answered", f"cannot reach {HOST}"))
    assert box.clock.slept == [seconds]
    assert seconds >= 60


@pytest.mark.anyio
async def test_waits_grow_and_spare_an_api_that_refuses_for_an_hour(box: Box) -> None:
    box.site.faults.extend(Fault(httpx.Response(429)) for _ in range(30))
    await box.start()
    assert len(box.clock.slept) == 30
    assert all(60 < pause <= 3600 for pause in box.clock.slept)
    assert sum(box.clock.slept[:12]) > 3600
    assert max(box.clock.slept[10:]) > max(box.clock.slept[:3])


@pytest.mark.anyio
async def test_three_times_too_many_then_whole(box: Box) -> None:
    """Four calls, each wait at least what was asked for, and the bound they are drawn from grows."""
    for after in ("70", "200", "700"):
        box.site.faults.append(Fault(httpx.Response(429, headers={"Retry-After": after})))
    await box.start()
    assert [method for method, _ in box.site.calls] == ["POST"] * 4
    assert all(pause >= least for pause, least in zip(box.clock.slept, (70, 200, 700), strict=True))
    assert len(box.site.devices) == 1


@pytest.mark.anyio
async def test_retry_after_is_the_least(box: Box) -> None:
    box.site.faults.append(Fault(httpx.Response(429, headers={"Retry-After": "2000"})))
    await box.start()
    assert box.clock.slept[0] >= 2000


@pytest.mark.anyio
async def test_an_absent_api_is_asked_again_soon(box: Box) -> None:
    box.http.sites.clear()

    class Told(list[tuple[str, float]]):
        def append(self, told: tuple[str, float]) -> None:
            super().append(told)
            if len(self) == 50:
                box.http.sites[API] = box.site

    box.told = Told()
    await box.start()
    assert len(box.told) == 50
    assert all(reason.startswith(f"cannot reach {HOST}: ") for reason, _ in box.told)
    assert all(pause <= 30 for pause in box.clock.slept)
    assert len(box.site.calls) == 1


@pytest.mark.anyio
async def test_a_restart_asks_no_sooner_than_waiting_would(box: Box) -> None:
    box.site.faults.append(Fault(httpx.Response(429, headers={"Retry-After": "1000"})))
    async with anyio.create_task_group() as tasks:

        async def sleep(seconds: float) -> None:
            tasks.cancel_scope.cancel()
            await anyio.lowlevel.checkpoint()

        box.clock.sleep = sleep  # type: ignore[method-assign]
        tasks.start_soon(box.start)
    assert len(box.site.calls) == 1
    due = box.kept()["pending"]["due"]
    assert due >= START + 1000
    again = Box(box.directory)
    again.clock.now = START + 10
    await again.start()
    ((_, pause),) = again.told
    assert pause == sum(again.clock.slept) == due - START - 10
    assert max(again.clock.slept) <= LOOK_AGAIN


@pytest.mark.anyio
async def test_another_api_has_another_budget_and_a_wrong_clock_costs_an_hour(box: Box) -> None:
    box.site.faults.append(Fault(refusal(400, "no")))
    with pytest.raises(ApiError):
        await box.start()
    pending = box.kept()
    pending["pending"] |= {"due": START + 1e9, "refused_until": 0}
    box.path.write_text(json.dumps(pending))
    mirror = Box(box.directory)
    mirror.url = "https://mirror.example"
    mirror.http.dns[DNS] = {"mirror.example": [API]}
    mirror.site.faults.append(Fault(refusal(400, "no")))
    with pytest.raises(ApiError):
        await mirror.start()
    assert not mirror.clock.slept
    box.path.write_text(json.dumps(pending))
    await box.start()
    assert sum(box.clock.slept) == 3600


@pytest.mark.anyio
@pytest.mark.parametrize("fault", FINAL)
async def test_a_refusal_is_one_clear_error(box: Box, fault: str) -> None:
    clients = 2 if fault == "403" else 1  # turned away as one client, it tries as another
    box.site.faults.extend([FINAL[fault]] * clients)
    with pytest.raises(ApiError) as caught:
        await box.start()
    assert caught.value.exit_code == 69
    assert "\n" not in str(caught.value)
    assert len(box.site.calls) == clients
    assert not box.clock.slept
    assert set(box.kept()) == {"format", "pending"}
    assert box.files() == ["account.json"]


@pytest.mark.anyio
async def test_five_at_once_register_once(tmp_path: Path) -> None:
    boxes = [Box(tmp_path) for _ in range(5)]
    done: list[Account | Error] = []
    others_refused = anyio.Event()

    async def start(box: Box) -> None:
        try:
            done.append(await box.start())
        except BusyError as error:
            done.append(error)
            if len(done) == 4:
                others_refused.set()

    async def slow(request: httpx.Request) -> httpx.Response:
        await others_refused.wait()
        return boxes[0].site(request)

    async with anyio.create_task_group() as tasks:
        for box in boxes:
            box.http.sites[API] = slow
            tasks.start_soon(start, box)
    assert sum(isinstance(outcome, Account) for outcome in done) == 1
    refused = [outcome for outcome in done if isinstance(outcome, BusyError)]
    assert len(refused) == 4
    assert all("is in use by process" in error.message for error in refused)
    assert len(boxes[0].site.calls) == 1
