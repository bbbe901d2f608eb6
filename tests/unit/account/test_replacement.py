"""Whether an account is gone, and what takes its place: asked directly, without a tunnel (A-03)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from entrypoint.account.lifecycle import settle_key, unregister
from entrypoint.account.registration import GONE_PAUSE, AccountWishes
from entrypoint.account.replacement import Recheck, recheck
from entrypoint.account.replies import ApiError
from entrypoint.account.store import edit, read
from entrypoint.health.diagnosis import Cause
from tests.fakes.box import Box
from tests.fakes.warp_api import Fault, refusal

pytestmark = pytest.mark.anyio
KEY = "Zz12Cd34-Ef56Gh78-Ij90Kl12"


@pytest.fixture
async def box(tmp_path: Path, anyio_backend: str) -> Box:
    """A box with an account that is older than a day."""
    box = Box(tmp_path)
    await box.start()
    box.clock.now += 100_000
    box.site.calls.clear()
    return box


async def ask(box: Box, *, needed: bool = True) -> Recheck:
    return await recheck(box.path, box.api, box.clock, own=(), wishes=box.wishes, needed=lambda: needed)


def forget(box: Box) -> dict[str, Any]:
    """Have the API forget the device; return it."""
    devices = dict(box.site.devices)
    box.site.devices.clear()
    return devices


async def replaced(box: Box) -> Recheck:
    first = await ask(box)
    assert first.again == GONE_PAUSE and not first.changed
    assert first.trouble and first.trouble.cause is Cause.ACCOUNT_GONE
    box.clock.now += GONE_PAUSE
    return await ask(box)


@pytest.mark.parametrize("status", [401, 404, 410])
async def test_gone_is_said_twice_minutes_apart(box: Box, status: int) -> None:
    before = read(box.path).account
    box.site.gone = status
    forget(box)
    assert (await ask(box)).again == GONE_PAUSE
    box.clock.now += GONE_PAUSE / 2
    assert (await ask(box)).again == pytest.approx(GONE_PAUSE / 2)
    assert not box.site.devices
    box.clock.now += GONE_PAUSE / 2
    shown = await ask(box)
    assert shown.changed and shown.gone
    stored = read(box.path)
    assert stored.previous == before and stored.account != before
    assert len(box.site.devices) == 1
    settled = settle_key(box.path, stored, stored.account.private_key)
    assert settled.previous is None and set(box.kept()) == {"format", "account"}


NOT_GONE = {
    "a firewall rule": httpx.Response(403, text="error code: 1020"),
    "403 in JSON": refusal(403, "no"),
    "a retired path": httpx.Response(404, text="404 page not found"),
    "a page": httpx.Response(404, html="<html>"),
    "401 without JSON": httpx.Response(401),
    "an incident": httpx.Response(500),
    "too often": httpx.Response(429),
}


@pytest.mark.parametrize("answer", NOT_GONE)
async def test_whatever_else_is_said_costs_no_account(box: Box, answer: str) -> None:
    before = box.path.read_bytes()
    box.site.faults.extend([Fault(NOT_GONE[answer])] * 9)
    for _ in range(3):
        shown = await ask(box)
        assert shown == Recheck(unknown=shown.unknown) and shown.unknown
        box.clock.now += 1000
    assert box.path.read_bytes() == before


async def test_an_answer_in_between_takes_it_back(box: Box) -> None:
    devices = forget(box)
    await ask(box)
    box.site.devices |= devices
    assert await ask(box) == Recheck()
    assert "missing_since" not in box.kept()


async def test_the_old_account_has_its_turn_until_one_connects(box: Box) -> None:
    before = read(box.path).account
    devices = forget(box)
    assert (await replaced(box)).changed
    new = read(box.path).account
    box.site.devices |= devices  # the incident is over
    assert (await ask(box)).changed
    assert read(box.path).account == before and read(box.path).previous == new
    assert (await ask(box)).changed
    assert read(box.path).account == new
    assert len(box.site.devices) == 2


async def test_while_the_replacement_waits_the_old_account_stays(box: Box) -> None:
    before = read(box.path).account
    forget(box)
    await ask(box)
    box.clock.now += GONE_PAUSE
    box.site.faults.append(Fault(refusal(400, "no"), method="POST"))
    with pytest.raises(ApiError, match="400"):
        await ask(box)
    stored = read(box.path)
    assert stored.account == before and stored.replacement
    assert await box.start() == before, "a restart goes on with it"
    key = stored.replacement.private_key
    box.clock.now += 1000
    assert (await ask(box)).changed
    assert read(box.path).account.private_key == key


async def test_a_tunnel_that_answers_again_needs_no_replacement(box: Box) -> None:
    forget(box)
    await ask(box)
    box.clock.now += GONE_PAUSE
    assert await ask(box, needed=False) == Recheck()
    assert not box.site.devices


@pytest.mark.parametrize("why", ["young", "team"])
async def test_what_may_not_be_replaced_stays_and_is_told(box: Box, why: str) -> None:
    account = read(box.path).account
    if why == "team":
        edit(box.path, lambda stored: replace(stored, account=replace(account, kind="team")))
    else:
        box.clock.now -= 90_000
    before = read(box.path).account
    forget(box)
    shown = await replaced(box)
    assert shown.trouble and not shown.changed
    assert shown.trouble.cause is Cause.ACCOUNT_GONE
    assert "`ss-warp account delete` and restart" in shown.trouble.remedy
    assert read(box.path).account == before
    assert not box.site.devices


async def test_a_licence_follows_into_the_next_account(box: Box) -> None:
    box.site.licences[KEY] = "unlimited"
    account = read(box.path).account
    edit(box.path, lambda there: replace(there, account=replace(account, kind="plus", license_key=KEY)))
    forget(box)
    await replaced(box)
    assert (await box.start()).license_key == KEY
    (device,) = box.site.devices.values()
    assert device["account"]["license"] == KEY


async def test_an_imported_account_is_replaced_by_a_new_one_not_by_its_file(box: Box) -> None:
    box.wishes = AccountWishes("lab", import_file=box.directory / "no longer there")
    forget(box)
    assert (await replaced(box)).changed


async def test_a_later_answer_adds_and_never_takes_away(box: Box) -> None:
    account = replace(read(box.path).account, kind="team", client_id=b"\1\2\3")
    edit(box.path, lambda there: replace(there, account=account))
    (device,) = box.site.devices.values()
    box.site.alter = lambda it: (
        it | {"account": None, "config": it["config"] | {"client_id": "", "peers": []}}
    )
    assert await ask(box) == Recheck()
    assert read(box.path).account == account
    box.site.alter = lambda it: it
    device["config"]["peers"][0]["endpoint"]["v4"] = "162.159.193.9:0"
    assert (await ask(box)).changed
    known = read(box.path).account.endpoints
    assert str(known[0]) == "162.159.193.9:2408" and set(account.endpoints) < set(known)
    assert read(box.path).account.kind == "team"


async def test_a_lost_answer_to_the_deletion_is_made_good_by_the_next_start(box: Box) -> None:
    box.site.faults.append(Fault(httpx.ReadError("reset"), created=True, method="DELETE"))
    assert not await unregister(box.path, read(box.path), box.api)
    assert box.kept()["leaving"] is True
    before = read(box.path).account
    assert (await box.start()).private_key != before.private_key
    assert len(box.site.devices) == 1


async def test_any_2xx_without_a_page_is_a_deletion(box: Box) -> None:
    box.site.faults.append(Fault(httpx.Response(200), created=True, method="DELETE"))
    assert await unregister(box.path, read(box.path), box.api)
    assert not box.path.exists()
