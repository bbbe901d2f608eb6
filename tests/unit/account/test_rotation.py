"""A new key for the same device: whatever is lost on the way, one of the two keys kept is the account's."""

import logging
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.account.lifecycle import rotate_key, settle_key
from entrypoint.account.model import new_private_key, public_key
from entrypoint.account.store import StoredAccount, edit, read
from tests.fakes.box import Box
from tests.fakes.deaths import outcomes
from tests.fakes.warp_api import Fault, refusal

pytestmark = pytest.mark.anyio
LOST = httpx.ReadError("reset")
NEW = new_private_key()


@pytest.fixture
def box(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Box:
    caplog.set_level(logging.INFO, "ss-warp")
    return Box(tmp_path)


async def wanting(box: Box) -> StoredAccount:
    await box.start()
    box.site.calls.clear()
    return edit(box.path, lambda kept: replace(kept, next_private_key=NEW))


def at_edge(box: Box) -> str:
    (device,) = box.site.devices.values()
    return str(device["key"])


async def test_one_call_and_everything_else_stays(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    before = (await wanting(box)).account
    after = await box.start()
    assert after == replace(before, private_key=NEW)
    assert at_edge(box) == public_key(NEW)
    assert [method for method, _ in box.site.calls] == ["PUT"]
    assert before.private_key not in box.path.read_text(), "S-10: the old key is gone"
    assert public_key(NEW) in caplog.text and NEW not in caplog.text
    await box.start()
    assert len(box.site.calls) == 1


async def test_by_patch_where_put_is_no_method(box: Box) -> None:
    await wanting(box)
    box.site.lists_put = False
    assert (await box.start()).private_key == NEW
    assert [method for method, _ in box.site.calls] == ["PUT", "PATCH"]


async def test_an_address_that_changes_with_the_key_is_taken_over(box: Box) -> None:
    await wanting(box)

    def alter(device: dict[str, object]) -> object:
        config = device["config"]
        assert isinstance(config, dict)
        config["interface"]["addresses"]["v6"] = "2606:4700:110::1"
        return device

    box.site.alter = alter
    assert str((await box.start()).v6) == "2606:4700:110::1"


CASES = {
    # faults in order; whether the new key is the device's in the end; whether that is known
    "applied, answer lost": ([Fault(LOST, created=True, method="PUT")], True, True),
    "applied, 500": ([Fault(httpx.Response(500), created=True, method="PUT")], True, True),
    "not applied, 500": ([Fault(httpx.Response(500), method="PUT")], False, True),
    "refused": (
        [Fault(refusal(400, {"code": 1001, "message": "Invalid public key"}), method="PUT")],
        False,
        True,
    ),
    "429": ([Fault(httpx.Response(429), method="PUT")], False, True),
    "applied, nothing known": ([Fault(LOST, created=True), Fault(LOST)], True, False),
    "not applied, nothing known": ([Fault(LOST), Fault(LOST)], False, False),
    "gone": ([Fault(httpx.Response(401)), Fault(httpx.Response(401))], False, False),
    "another key": ([Fault(httpx.Response(200, json={"key": "AQID"}))], False, False),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_key_in_force_is_never_lost(box: Box, case: str) -> None:
    faults, applied, known = CASES[case]
    old = (await wanting(box)).account.private_key
    box.site.faults.extend(faults)
    kept = await box.ready()
    assert not box.clock.slept, "a start does not wait for it"
    assert at_edge(box) == public_key(NEW if applied else old)
    assert (kept.next_private_key is None) is known
    mine = {kept.account.private_key, kept.next_private_key}
    assert (NEW if applied else old) in mine
    if known:
        assert mine == {NEW if applied else old, None}
    # What answers at the edge wins, and the other is removed.
    right = NEW if applied else old
    done = settle_key(box.path, kept, right)
    assert (done.account.private_key, done.next_private_key) == (right, None)
    assert read(box.path) == done
    assert (await box.ready()) == done


async def test_without_a_token_it_is_dropped(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    kept = await wanting(box)
    imported = edit(box.path, lambda _: replace(kept, account=replace(kept.account, access=None)))
    assert (await rotate_key(box.path, imported, box.api, own=())).next_private_key is None
    assert "no token" in caplog.text
    assert not box.site.calls


@settings(max_examples=60)
@given(data=st.data())
def test_any_row_of_bad_luck_leaves_an_account_that_connects(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Starts with any faults, until one without: the device's key is always among those kept."""
    box = Box(tmp_path_factory.mktemp("state"))
    anyio.run(wanting, box)
    fault = st.builds(
        Fault, st.sampled_from([LOST, httpx.Response(500), httpx.Response(429)]), created=st.booleans()
    )
    for faults in data.draw(st.lists(st.lists(fault, max_size=3), max_size=4)):
        box.site.faults.clear()
        box.site.faults.extend(faults)
        kept = anyio.run(box.ready)
        mine = {public_key(key) for key in (kept.account.private_key, kept.next_private_key) if key}
        assert at_edge(box) in mine
        if kept.next_private_key and data.draw(st.booleans()):
            right = next(
                key
                for key in (kept.account.private_key, kept.next_private_key)
                if public_key(key) == at_edge(box)
            )
            settle_key(box.path, kept, right)
    box.site.faults.clear()
    assert public_key(anyio.run(box.ready).account.private_key) == at_edge(box)
    assert len(box.site.devices) == 1


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
import anyio
from entrypoint.account import lifecycle, store
from entrypoint.account.model import new_private_key, public_key
from entrypoint.linux import state_dir
from tests.fakes.box import Box
from tests.fakes.deaths import killed_at

when = 0
while True:
    when += 2
    directory = Path(sys.argv[1]) / str(when)
    directory.mkdir()
    box = Box(directory)
    anyio.run(box.start)
    (device,) = box.site.devices.values()
    sent = directory / "sent"
    def note(request):
        if request.method == "PUT":
            sent.write_bytes(request.content)  # the API lives on when we are killed
    box.site.on_call = note
    def life():
        store.edit(box.path, lambda kept: replace(kept, next_private_key=new_private_key()))
        anyio.run(box.start)
    status = killed_at(when, (state_dir, store, lifecycle), life)
    kept = store.read(box.path)
    arrived = sent.exists()
    if arrived:
        device["key"] = __import__("json").loads(sent.read_bytes())["key"]
    keys = [key for key in (kept.account.private_key, kept.next_private_key) if key]
    assert device["key"] in map(public_key, keys), "the key at the edge is lost"
    assert public_key(anyio.run(box.start).private_key) == box.site.devices[device["id"]]["key"]
    print(status, len(keys), arrived)
    if status == 0:
        break
"""


def test_c_16_killed_at_any_line_the_key_at_the_edge_is_kept(tmp_path: Path) -> None:
    printed = outcomes(KILLED, tmp_path, timeout=110)
    assert {"9 1 False", "9 2 False", "9 2 True", "9 1 True", "0 1 True"} == set(printed)
