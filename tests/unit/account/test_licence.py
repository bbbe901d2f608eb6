"""WARP+ (A-13): bound before the first handshake, and whatever happens the account connects."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from entrypoint.account.lifecycle import apply_pending, check_licence
from entrypoint.account.registration import AccountWishes
from entrypoint.account.store import StoredAccount, edit
from tests.fakes.box import Box
from tests.fakes.warp_api import Fault, refusal

pytestmark = pytest.mark.anyio
KEY = "Zz12Cd34-Ef56Gh78-Ij90Kl12"
OTHER = "Yy12Cd34-Ef56Gh78-Ij90Kl12"
FULL = {"code": 1056, "message": "Too many connected devices."}


@pytest.fixture
def box(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Box:
    caplog.set_level(logging.INFO, "ss-warp")
    box = Box(tmp_path)
    box.site.licences[KEY] = "unlimited"
    box.wishes = AccountWishes("lab", KEY)
    return box


def methods(box: Box) -> list[tuple[str, str]]:
    return [(method, path.rpartition("/")[2]) for method, path in box.site.calls]


@pytest.mark.parametrize("kind", ["limited", "unlimited"])
async def test_bound_right_after_registration_in_three_calls(box: Box, kind: str) -> None:
    """Three are a budget's whole minute."""
    box.site.licences[KEY] = kind
    account = await box.start()
    assert (account.kind, account.license_key) == ("plus", KEY)
    assert account.access
    assert methods(box) == [("POST", "reg"), ("PUT", "account"), ("GET", account.access.device_id)]
    for _ in range(3):
        assert await box.start() == account
    assert len(box.site.calls) == 3


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "invalid": ({"code": 1000, "message": "Invalid license"}, "is not valid", "(code 1000)"),
    "full": (FULL, "is already used on 5 devices", "Too many connected devices. (code 1056)"),
    "a text": ({"message": "no"}, "is not valid", "400 Bad Request: no"),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_refused_it_runs_free_and_says_why(
    box: Box, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer, words, detail = REFUSED[why]
    box.site.licences[KEY] = answer
    account = await box.start()
    assert account.kind == "free"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    said = record.getMessage()
    assert words in said and detail in said and "the account stays free" in said
    assert KEY not in said
    assert not box.clock.slept
    before = len(box.site.calls)
    await box.start()
    assert len(box.site.calls) == before + 1, "one call a start: the user may have made room"


async def test_room_is_found_at_the_next_start(box: Box) -> None:
    box.site.licences[KEY] = FULL
    assert (await box.start()).kind == "free"
    box.site.licences[KEY] = "unlimited"
    assert (await box.start()).kind == "plus"


async def test_a_new_device_waits_once_for_its_licence(box: Box) -> None:
    """Once it has connected as a free one it would stay that."""
    box.site.faults.append(Fault(httpx.Response(429), method="PUT"))
    await box.ready()
    assert box.clock.slept and all(60 <= pause <= 120 for pause in box.clock.slept)
    assert "429" in box.told[-1][0]
    assert len(box.site.devices) == 1


@pytest.mark.parametrize(
    "fault", [Fault(httpx.Response(500)), Fault(httpx.ReadTimeout("x")), Fault(httpx.Response(429))]
)
async def test_a_kept_account_never_waits_for_it(
    box: Box, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    box.wishes = AccountWishes("lab")
    before = await box.start()
    box.wishes = AccountWishes("lab", KEY)
    box.site.faults.append(fault)
    assert await box.start() == before
    assert not box.clock.slept
    assert "cannot be bound now, the next start tries again" in caplog.text
    assert (await box.start()).kind == "plus"


async def test_bound_though_the_reading_fails(box: Box) -> None:
    box.wishes = AccountWishes("lab")
    await box.start()
    box.wishes = AccountWishes("lab", KEY)
    box.site.faults.append(Fault(httpx.Response(500), method="GET"))
    account = await box.start()
    assert account.license_key == KEY
    calls = len(box.site.calls)
    assert (await box.start()).license_key == KEY
    assert len(box.site.calls) == calls


async def test_a_changed_key_is_bound_at_the_next_start(box: Box) -> None:
    await box.start()
    box.site.licences[OTHER] = "limited"
    box.wishes = AccountWishes("lab", OTHER)
    assert (await box.start()).license_key == OTHER


async def test_a_command_s_key_waits_for_the_start_and_is_dropped_when_it_is_no_key(box: Box) -> None:
    box.wishes = AccountWishes("lab")
    await box.start()
    edit(box.path, lambda kept: replace(kept, license_key=OTHER))
    kept = await box.ready()
    assert (kept.account.kind, kept.license_key) == ("free", None)
    edit(box.path, lambda kept: replace(kept, license_key=KEY))
    kept = await box.ready()
    assert (kept.account.kind, kept.account.license_key, kept.license_key) == ("plus", KEY, None)
    assert "license_key" not in box.kept()


async def test_at_once_when_nobody_runs(box: Box) -> None:
    box.wishes = AccountWishes("lab")
    kept = await box.ready()
    edit(box.path, lambda kept: replace(kept, license_key=KEY))
    after = await apply_pending(box.directory, replace(kept, license_key=KEY), box.api, box.clock, None)
    assert isinstance(after, StoredAccount) and after.account.kind == "plus"


async def test_revoked_later_is_noticed_in_one_call(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    kept = await box.ready()
    (device,) = box.site.devices.values()
    calls = len(box.site.calls)
    assert await check_licence(box.path, kept, KEY, box.api) == kept
    device["account"]["account_type"] = "free"
    after = await check_licence(box.path, kept, KEY, box.api)
    assert after.account.kind == "free"
    assert len(box.site.calls) == calls + 2
    assert "no longer honoured" in caplog.text
    assert await check_licence(box.path, after, None, box.api) == after
    assert len(box.site.calls) == calls + 2, "a free account is not asked about"


async def test_a_licence_that_shows_late_is_noticed(box: Box) -> None:
    box.site.alter = lambda device: device | {"account": device["account"] | {"account_type": "free"}}
    kept = await box.ready()
    assert (kept.account.kind, kept.account.license_key) == ("free", KEY)
    box.site.alter = lambda device: device
    assert (await check_licence(box.path, kept, KEY, box.api)).account.kind == "plus"
    assert box.kept()["account"]["kind"] == "plus"


async def test_an_accepted_key_that_gives_nothing_is_told(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    box.site.licences[KEY] = "free"
    assert (await box.start()).kind == "free"
    assert "accepted, but the account is still free" in caplog.text


async def test_a_device_that_is_gone_is_no_reason_to_register(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """A-03: the tunnel may work all the same."""
    box.wishes = AccountWishes("lab")
    before = await box.start()
    box.wishes = AccountWishes("lab", KEY)
    box.site.devices.clear()
    assert await box.start() == before
    assert [method for method, _ in box.site.calls] == ["POST", "PUT"]
    assert "does not know this device" in caplog.text


async def test_the_key_is_in_no_text(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    """S-05."""
    box.site.licences[KEY] = {"code": 1, "message": "no"}
    kept = await box.ready()
    assert KEY not in caplog.text + repr(kept) + repr(box.wishes)
    assert refusal(400, "x").status_code == 400
