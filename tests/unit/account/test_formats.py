"""Accounts made elsewhere: every form, what each lacks, and lines that are wrong; and back out again."""

import json
import tomllib
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.account.formats import profile, read_profile, wgcf_account
from entrypoint.account.model import Account
from entrypoint.account.registration import AccountWishes
from entrypoint.account.replies import ApiError
from entrypoint.errors import SettingsError
from entrypoint.strict_json import InvalidError
from tests.fakes.box import Box
from tests.fakes.warp_api import EDGE_KEY, Fault
from tests.unit.account.pasted import DEVICE, FLAT, LINES, PLAIN, PRIVATE, WGCF_PROFILE


async def taken(tmp_path: Path, text: str) -> Account:
    file = tmp_path / "account"
    file.write_text(text)
    state = tmp_path / "state"
    state.mkdir()
    box = Box(state)
    box.wishes = AccountWishes("lab", import_file=file)
    account = await box.start()
    assert not box.site.calls
    file.unlink()
    assert await box.start() == account, "the file is needed once"
    return account


OFFLINE = {
    # text, kind, whether there is a token, the first endpoint, reserved
    "wgcf's profile": (WGCF_PROFILE, "imported", False, "engage.cloudflareclient.com:2408", None),
    "a plain profile": (PLAIN, "imported", False, "[2606:4700:d0::a29f:c001]:500", b"\1\2\3"),
    "warp-reg.sh": (json.dumps(FLAT), "imported", False, "162.159.192.7:2408", b"\1\2\3"),
    "warp-reg": (LINES, "plus", True, "engage.cloudflareclient.com:2408", b"\1\2\3"),
    "a device": (json.dumps(DEVICE), "free", True, "162.159.192.6:2408", b"\1\2\3"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("form", OFFLINE)
async def test_what_says_enough_needs_no_call(tmp_path: Path, form: str) -> None:
    text, kind, token, endpoint, reserved = OFFLINE[form]
    account = await taken(tmp_path, text)
    assert (account.kind, account.private_key, account.peer_public_key) == (kind, PRIVATE, EDGE_KEY)
    assert (account.access is not None) is token
    assert str(next(iter(account.endpoints), account.endpoint_name)) == endpoint
    assert account.client_id == reserved
    assert account.v4 == ip_address("172.16.0.2")
    assert str(account.v6).startswith("2606:4700:110:8abc:")


@pytest.fixture
async def wgcf(tmp_path: Path) -> Box:
    """wgcf-account.toml of a device that the API knows."""
    box = Box(tmp_path)
    made = await box.start()
    text = wgcf_account(made)
    assert text
    (tmp_path / "wgcf-account.toml").write_text(text)
    box.path.unlink()
    box.site.calls.clear()
    box.wishes = AccountWishes("lab", import_file=tmp_path / "wgcf-account.toml")
    return box


@pytest.mark.anyio
async def test_wgcf_s_account_is_asked_for_once(wgcf: Box) -> None:
    account = await wgcf.start()
    assert account.access and account.kind == "free"
    assert [method for method, _ in wgcf.site.calls] == ["GET"]
    await wgcf.start()
    assert len(wgcf.site.calls) == 1
    assert len(wgcf.site.devices) == 1


@pytest.mark.anyio
async def test_a_silent_api_is_waited_for(wgcf: Box) -> None:
    wgcf.site.faults.append(Fault(httpx.Response(500)))
    assert (await wgcf.start()).access
    assert len(wgcf.clock.slept) == 1


@pytest.mark.anyio
async def test_a_device_that_is_gone_registers_nothing(wgcf: Box) -> None:
    wgcf.site.devices.clear()
    with pytest.raises(ApiError, match="404"):
        await wgcf.start()
    assert not wgcf.site.devices


@pytest.mark.anyio
async def test_a_key_that_was_changed_meanwhile(wgcf: Box) -> None:
    (device,) = wgcf.site.devices.values()
    device["key"] = EDGE_KEY
    with pytest.raises(SettingsError, match="its private key is no longer the device's"):
        await wgcf.start()


WRONG = {
    "empty": ("", "no known form"),
    "a page": ("<html></html>", "no known form"),
    "broken JSON": ("{", "not JSON"),
    "JSON of nothing": ("{}", "JSON without a WireGuard key"),
    "TOML": ("access_token = 1 2\n", "not TOML (at line 1)"),
    "wgcf without key": ("access_token = 'a'\ndevice_id = 'b'\n", "private_key: missing"),
    "no peer": (f"[Interface]\nPrivateKey = {PRIVATE}\n", "no [Peer]"),
    "no value": ("[Interface]\nPrivateKey\n", "line 2: expected Name = value"),
    "twice": (f"[Interface]\nMTU=1\n\nMTU=2\nPrivateKey = {PRIVATE}\n", "line 4: MTU occurs twice"),
    "two peers": (WGCF_PROFILE + "[Peer]\n", "line 10: a second [Peer]"),
    "a section": (WGCF_PROFILE + "[Socks]\n", "line 10: expected [Interface] or [Peer]"),
    "preshared": (WGCF_PROFILE + f"PresharedKey = {PRIVATE}\n", "[Peer] PresharedKey: WARP has none"),
    "short key": (WGCF_PROFILE.replace(PRIVATE, "canary"), "privatekey: expected the base64 of 32 bytes"),
    "endpoint": (WGCF_PROFILE.replace(":2408", ":0"), "endpoint: port 0"),
    "own network": (
        WGCF_PROFILE.replace("engage.cloudflareclient.com", "127.0.0.1"),
        "127.0.0.1 is loopback",
    ),
    "no address": (WGCF_PROFILE.replace("Address", "Adress"), "no usable address"),
    "three addresses": (
        WGCF_PROFILE.replace("/32,", "/32, 172.16.0.3/32,"),
        "more than one tunnel address of a family",
    ),
    "reserved": (
        json.dumps({k: v for k, v in FLAT.items() if k != "reserved_str"} | {"reserved_dec": [1]}),
        "three",
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_is_one_line_and_repeats_no_value(tmp_path: Path, case: str) -> None:
    text, words = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        await taken(tmp_path, text)
    (problem,) = caught.value.problems
    assert problem.startswith(f"WARP_IMPORT_FILE: {tmp_path / 'account'}")
    assert words in problem
    assert problem.isprintable()
    assert PRIVATE not in problem and "canary" not in problem


@pytest.mark.anyio
async def test_no_such_file(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.wishes = AccountWishes("lab", import_file=tmp_path / "none")
    with pytest.raises(SettingsError, match="No such file"):
        await box.start()
    assert not box.site.calls


@settings(max_examples=300)
@given(data=st.data())
def test_a_changed_file_is_an_account_or_one_line(data: st.DataObject) -> None:
    forms = [text for text, *_ in OFFLINE.values()] + ["access_token='a'\ndevice_id='b'\nprivate_key='c'\n"]
    content = bytearray(data.draw(st.sampled_from(forms)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_profile(bytes(content))
    except InvalidError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 300
        assert PRIVATE not in str(error)


@pytest.mark.anyio
async def test_exported_and_imported_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    account = await taken(tmp_path / "a", json.dumps(DEVICE))
    text = profile(account)
    (tmp_path / "b").mkdir()
    again = await taken(tmp_path / "b", text)
    same = {"access": None, "kind": "imported", "license_key": None, "endpoint_name": None}
    assert replace(again, endpoints=account.endpoints) == replace(account, **same)  # type: ignore[arg-type]
    assert again.endpoints == account.endpoints[:1]
    toml = tomllib.loads(wgcf_account(account) or "")
    assert toml == {
        "access_token": DEVICE["token"],
        "device_id": DEVICE["id"],
        "license_key": "Ab12Cd34-Ef56Gh78-Ij90Kl12",
        "private_key": PRIVATE,
    }
    assert wgcf_account(again) is None
