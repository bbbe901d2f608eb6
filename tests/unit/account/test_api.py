"""Registration: what is sent, by which way, and what every kind of answer means."""

import json
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from entrypoint.account.api import BUILT_IN
from entrypoint.addresses import Destination
from entrypoint.errors import SettingsError
from entrypoint.linux.world import Marked
from tests.fakes.http import API, DNS
from tests.fakes.warp_api import EDGE_KEY
from tests.unit.account.clients import HOST, MARK, Setting

pytestmark = pytest.mark.anyio


async def test_what_is_sent() -> None:
    setting = Setting()
    seen: list[httpx.Request] = []
    setting.site.on_call = seen.append
    device = await setting.register()
    assert device["key"] == EDGE_KEY
    (request,) = seen
    assert str(request.url) == f"https://{HOST}/v0a2158/reg"
    assert request.method == "POST"
    assert dict(request.headers) == {
        "host": HOST,
        "accept": "*/*",
        "accept-encoding": "gzip",
        "connection": "keep-alive",
        "user-agent": "okhttp/3.12.1",
        "cf-client-version": "a-6.10-2158",
        "content-type": "application/json; charset=UTF-8",
        "content-length": str(len(request.content)),
    }
    assert json.loads(request.content) == {
        "key": EDGE_KEY,
        "install_id": "",
        "fcm_token": "",
        "tos": "2026-01-02T03:00:45.250Z",
        "model": "PC",
        "type": "Android",
        "locale": "en_US",
        "serial_number": "",
        "name": "lab",
    }


async def test_marked_and_only_through_holes_made_for_it() -> None:
    setting = Setting()
    await setting.register()
    assert setting.holes.history == [
        frozenset({Destination(DNS, 53, "udp"), Destination(DNS, 53, "tcp")}),
        frozenset({Destination(API, 443, "tcp")}),
    ]
    (connected,) = setting.http.connected
    assert (connected.way, connected.address) == (Marked(MARK), API)


async def test_a_literal_is_not_looked_up(tmp_path: Path) -> None:
    memory = tmp_path / "addresses.json"
    setting = Setting(base_url=f"https://{API}:8443/mirror/", memory=memory)
    setting.site.on_call = lambda request: None
    await setting.fail()  # the fake has nothing under /mirror
    assert setting.site.calls == [("POST", "/mirror/v0a2158/reg")]
    assert not setting.http.lookups
    assert setting.holes.history == [frozenset({Destination(API, 8443, "tcp")})]
    assert not memory.exists()


async def test_dns_falls_back_to_memory_then_to_what_is_built_in(tmp_path: Path) -> None:
    setting = Setting(memory=tmp_path / "addresses.json")
    await setting.register()
    setting.http.dns.clear()
    await setting.register()
    assert [connected.address for connected in setting.http.connected] == [API, API]
    fresh = Setting(memory=tmp_path / "none.json")
    fresh.http.dns.clear()
    fresh.http.sites = {BUILT_IN[HOST][0]: fresh.site}
    await fresh.register()
    assert fresh.http.connected[0].address == BUILT_IN[HOST][0]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"api.cloudflareclient.com": ["evil"]}', b"\xff"])
async def test_a_broken_memory_is_no_memory(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "addresses.json").write_bytes(data)
    setting = Setting(memory=tmp_path / "addresses.json")
    setting.http.dns.clear()
    assert "cannot reach" in str(await setting.fail())
    await Setting(memory=tmp_path / "addresses.json").register()
    known = json.loads((tmp_path / "addresses.json").read_bytes())
    assert known[HOST][0] == str(API) and known[f"{HOST}/v0a2158"] == [str(API)]


async def test_a_memory_that_cannot_be_written_is_no_condition(tmp_path: Path) -> None:
    await Setting(memory=tmp_path / "missing" / "addresses.json").register()


async def test_a_captive_portals_dns_answer_is_not_believed() -> None:
    setting = Setting()
    setting.http.dns[DNS] = {HOST: [ip_address("10.0.0.1")]}
    setting.http.sites[BUILT_IN[HOST][0]] = setting.site
    await setting.register()
    assert setting.http.connected[0].address == BUILT_IN[HOST][0]


async def test_a_mirror_may_be_anywhere_and_has_nothing_built_in() -> None:
    setting = Setting(base_url="https://mirror.example")
    setting.http.dns[DNS] = {"mirror.example": [ip_address("10.0.0.1")]}
    setting.http.sites[ip_address("10.0.0.1")] = setting.site
    await setting.register()
    setting.http.dns.clear()
    error = await setting.fail()
    assert (str(error), error.again) == ("no DNS server has an address for mirror.example", 0)


async def test_a_ca_file_that_is_not_there() -> None:
    setting = Setting(ca_file=Path("/nonexistent/ca.pem"))
    with pytest.raises(SettingsError, match="WARP_API_CA_FILE: not usable: No such file"):
        await setting.register()
