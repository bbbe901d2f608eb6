"""The API's patience: another client on 403, 429 in all its forms, restarts without a call (A-01…A-10)."""

import json
import ssl
import tempfile
from email.utils import formatdate
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.account.store import (
    CACHED_NAMES,
    PendingRegistration,
    StoredAccount,
    cache_addresses,
    cached_addresses,
    parse,
    write,
)
from entrypoint.strict_json import InvalidError, parse_json
from tests.fakes.box import HOST, START, Box
from tests.fakes.http import API, DNS
from tests.fakes.warp_api import Fault

pytestmark = pytest.mark.anyio


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


async def test_turned_away_it_asks_as_another_client(box: Box) -> None:
    seen: list[httpx.Request] = []
    box.site.on_call = seen.append
    box.site.faults.append(Fault(httpx.Response(403, text="error code: 1020")))
    await box.start()
    assert [one.url.path for one in seen] == ["/v0a2158/reg", "/v0a4471/reg"]
    assert [one.headers["User-Agent"] for one in seen] == ["okhttp/3.12.1", "WARP for Android"]
    assert seen[0].content == seen[1].content
    assert [one.newest for one in box.http.connected] == [ssl.TLSVersion.TLSv1_2, None]
    assert not box.clock.slept
    assert not box.holes.open


async def test_blocked_by_one_family_it_is_asked_by_the_other(box: Box) -> None:
    six = ip_address("2001:db8::80")
    box.http.dns[DNS] = {HOST: [API, six]}
    box.http.sites[six] = box.site
    box.http.sites[API] = lambda request: httpx.Response(403, text="error code: 1020")
    await box.start()
    assert [one.address for one in box.http.connected] == [API, six]
    assert not box.clock.slept


RETRY_AFTER = {
    # as sent, the least seconds until the next call
    "absent": (None, 60),
    "seconds": ("120", 120),
    "zero": ("0", 1),
    "date": (formatdate(START + 300, usegmt=True), 299),
    "a date that has passed": (formatdate(START - 300, usegmt=True), 1),
    "negative": ("-5", 60),
    "ten years": (str(10 * 365 * 86400), 3600),
    "a date in ten years": (formatdate(START + 10 * 365 * 86400, usegmt=True), 3600),
    "absurd": ("9" * 400, 3600),
    "text": ("soon", 60),
    "a fraction": ("1.5", 60),
}


@pytest.mark.parametrize("form", RETRY_AFTER)
async def test_a_01_retry_after_in_every_form(box: Box, form: str) -> None:
    value, least = RETRY_AFTER[form]
    headers = {"Retry-After": value} if value else {}
    box.site.faults.append(Fault(httpx.Response(429, headers=headers)))
    await box.start()
    (pause,) = box.clock.slept
    assert least < pause <= 1.5 * 3600, "what was demanded, and some jitter"


async def test_a_01_at_most_twelve_calls_in_the_first_hour(box: Box) -> None:
    moments: list[float] = []
    box.site.on_call = lambda request: moments.append(box.clock.now)
    box.site.faults.extend([Fault(httpx.Response(429))] * 60)
    await box.start()
    assert sum(moment - START <= 3600 for moment in moments) <= 12


async def test_a_09_a_10_a_hundred_starts_of_a_kept_account_ask_nobody(box: Box) -> None:
    account = await box.start()
    box.site.calls.clear()
    box.http.sites.clear()  # the API is a black hole
    box.http.dns.clear()
    lookups = len(box.http.lookups)
    for _ in range(100):
        assert await box.start() == account
    assert not box.site.calls and not box.clock.slept
    assert len(box.http.lookups) == lookups


async def test_c_16_format_1_is_read_and_written_as_the_present_one(box: Box) -> None:
    account = await box.start()
    old = {"format": 1, "account": box.kept()["account"]}
    box.path.write_text(json.dumps(old))
    assert await box.start() == account
    assert box.kept() == old, "a start that changes nothing writes nothing"
    kept = parse(parse_json(box.path.read_bytes()))
    assert isinstance(kept, StoredAccount)
    write(box.path, kept)
    assert box.kept() == old | {"format": 2}
    pending = {"private_key": account.private_key, "api": "https://x", "due": 5.0}
    assert parse(parse_json(json.dumps({"format": 1, "pending": pending}).encode())) == PendingRegistration(
        account.private_key, "https://x", 5.0
    )


@pytest.mark.parametrize("version", [0, 3, -1, 10**9])
def test_c_17_other_formats_are_refused(version: int) -> None:
    with pytest.raises(InvalidError, match="another version of ss-warp, this one reads 2"):
        parse(parse_json(json.dumps({"format": version, "account": {}}).encode()))


def test_addresses_of_several_names_are_remembered(tmp_path: Path) -> None:
    memory = tmp_path / "addresses.json"
    one, two = ip_address("192.0.2.1"), ip_address("2001:db8::1")
    cache_addresses(memory, "a.example", [one])
    cache_addresses(memory, "b.example", [one, two])
    assert cached_addresses(memory, "a.example") == (one,)
    assert cached_addresses(memory, "b.example") == (one, two)
    assert cached_addresses(memory, "c.example") == cached_addresses(None, "a.example") == ()
    for number in range(2 * CACHED_NAMES):
        cache_addresses(memory, f"{number}.example", [two])
    assert cached_addresses(memory, "a.example") == ()
    assert len(json.loads(memory.read_text())) == CACHED_NAMES


@given(st.binary(max_size=80))
def test_a_memory_of_any_bytes_is_at_worst_none(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        memory = Path(directory) / "addresses.json"
        memory.write_bytes(data)
        cached_addresses(memory, "a.example")
        cache_addresses(memory, "a.example", [ip_address("192.0.2.1")])
        assert cached_addresses(memory, "a.example") == (ip_address("192.0.2.1"),)


async def test_every_client_and_address_is_tried_before_giving_up_and_what_worked_is_remembered(
    box: Box,
) -> None:
    """A filter on the way stops one family's TLS greetings, and one client's on the other family."""
    six = ip_address("2001:db8::80")
    box.http.dns[DNS] = {HOST: [API, six]}

    def swallowed(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("no answer in time")

    def only_the_second_client(request: httpx.Request) -> httpx.Response:
        if request.headers["User-Agent"].startswith("okhttp/"):
            raise httpx.ConnectError("TLSV1_ALERT_PROTOCOL_VERSION")
        return box.site(request)

    box.remembers = True
    box.http.sites = {API: swallowed, six: only_the_second_client}
    await box.start()
    assert not box.clock.slept and len(box.site.devices) == 1
    tried = len(box.http.connected)
    assert tried == 3, "the first client at both addresses, the second where it works"
    box.path.unlink()
    await box.start()
    assert len(box.http.connected) == tried + 1, "what worked the last time comes first"
