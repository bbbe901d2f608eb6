"""Trace pages, DNS queries and packet counters."""

from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.health.probe import CertificateError, Probe, Trace, fetch_trace, parse_trace, query_dns
from entrypoint.health.triggers import TrafficFlow
from entrypoint.linux.kernel_objects import Traffic
from entrypoint.linux.proc import read_traffic
from entrypoint.linux.world import Bound
from tests.fakes.http import FakeHttp
from tests.unit.health.monitor_bench import refusal

WARP = """fl=000f000
h=1.1.1.1
ip=104.28.0.1
ts=1767225600.123
visit_scheme=https
uag=curl/8.5.0 (warp=off; ip=1.2.3.4)
colo=FRA
sliver=none
http=http/2
loc=DE
tls=TLSv1.3
sni=off
warp=on
gateway=off
"""
ON = Trace("on", ip_address("104.28.0.1"), "FRA", "DE")
SITE = ip_address("1.1.1.1")
URL = "https://1.1.1.1/cdn-cgi/trace"


def test_a_trace_is_read() -> None:
    assert parse_trace(WARP) == ON


@pytest.mark.parametrize(("warp", "active"), [("on", True), ("plus", True), ("off", False), ("", False)])
def test_only_on_and_plus_are_warp(warp: str, active: bool) -> None:
    assert parse_trace(f"warp={warp}\r\n").active is active


@given(st.text())
def test_whatever_is_sent_is_read_without_an_error(text: str) -> None:
    assert parse_trace(text).ip is None or "ip=" in text


def test_an_answer_that_is_no_trace_is_not_warp() -> None:
    assert parse_trace("<html>Please log in</html>") == Trace("", None, "", "")


@pytest.mark.anyio
async def test_a_trace_goes_through_the_device_to_the_literal_address() -> None:
    http = FakeHttp({SITE: lambda request: httpx.Response(200, text=WARP)})
    assert await fetch_trace(http, URL, Bound("wg0"), Path(__file__), (), limit=1) == ON
    (connected,) = http.connected
    assert (connected.way, connected.address, connected.ca_file) == (Bound("wg0"), SITE, Path(__file__))
    assert http.lookups == []


@pytest.mark.anyio
async def test_a_name_is_looked_up_through_the_device() -> None:
    http = FakeHttp(
        {SITE: lambda request: httpx.Response(200, text=WARP)}, {SITE: {"www.cloudflare.com": (SITE,)}}
    )
    found = await fetch_trace(
        http, "https://www.cloudflare.com/cdn-cgi/trace", Bound("wg0"), None, (SITE,), limit=1
    )
    assert found == ON
    assert http.lookups == ["www.cloudflare.com"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503),
        httpx.Response(302, headers={"location": "/"}),
        httpx.Response(200, text="x" * 99_999),
    ],
)
async def test_anything_but_a_small_200_is_no_answer(answer: httpx.Response) -> None:
    http = FakeHttp({SITE: lambda request: answer})
    with pytest.raises(OSError):
        await fetch_trace(http, URL, Bound("wg0"), None, (), limit=1)


def test_cloudflares_clock_is_read() -> None:
    assert parse_trace(WARP).at == 1767225600.123
    assert parse_trace("ts=inf").at is None


@pytest.mark.anyio
async def test_a_certificate_that_is_not_trusted_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("TLS") from refusal(18, "self-signed")

    with pytest.raises(CertificateError, match="self-signed"):
        await fetch_trace(FakeHttp({SITE: refuse}), URL, Bound("wg0"), None, (), limit=1)


@pytest.mark.anyio
async def test_nobody_there_is_no_answer() -> None:
    with pytest.raises(OSError):
        await fetch_trace(FakeHttp({}), URL, Bound("wg0"), None, (), limit=1)
    with pytest.raises(OSError):
        await query_dns(FakeHttp({}), SITE, "example.com", "wg0", limit=1)


@pytest.mark.anyio
async def test_any_dns_answer_counts() -> None:
    http = FakeHttp({}, {SITE: {}})
    await query_dns(http, SITE, "example.com", "wg0", limit=1)
    assert http.lookups == ["example.com"]


def test_traces_of_unused_families_are_not_asked() -> None:
    probe = Probe(
        dns=(ip_address("1.1.1.1"),),
        trace_urls=(URL, "https://[2606:4700:4700::1111]/cdn-cgi/trace", "https://name.example/"),
    )
    assert probe.families() == {4}
    assert probe.urls() == (URL, "https://name.example/")


def test_packet_counters_are_those_of_the_device(tmp_path: Path) -> None:
    table = tmp_path / "dev"
    table.write_text(
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n"
        "    lo: 1 2 0 0 0 0 0 0 9 10 0 0 0 0 0 0\n"
        "   wg0: 5000 40 0 0 0 0 0 0 7000 60 0 1 0 0 0 0\n"
    )
    assert read_traffic("wg0", table) == Traffic(rx=40, tx=60)
    assert read_traffic("wg1", table) is None
    table.write_bytes(table.read_bytes() + b"  w\xffg: 1 2 0 0 0 0 0 0 9 10 0 0 0 0 0 0\n")
    assert read_traffic("wg0", table) == Traffic(rx=40, tx=60), "a name need not be UTF-8"


def flow(*samples: tuple[float, int, int]) -> bool:
    state: TrafficFlow | None = None
    for now, rx, tx in samples:
        state = state.then(Traffic(rx, tx), now) if state else TrafficFlow(Traffic(rx, tx))
    assert state is not None
    return state.stalled(samples[-1][0])


@pytest.mark.parametrize(
    ("samples", "stalled"),
    [
        (((0, 0, 0), (0.4, 0, 0), (9, 0, 0)), False),
        (((0, 0, 0), (0.4, 0, 5), (0.8, 0, 6)), False),
        (((0, 0, 0), (0.4, 0, 5), (1.6, 0, 6)), True),
        (((0, 0, 0), (0.4, 0, 5), (1.6, 0, 5)), True),
        (((0, 0, 0), (0.4, 0, 5), (1.2, 1, 5), (1.6, 1, 5)), False),
        (((0, 0, 0), (0.4, 0, 5), (1.2, 1, 9), (1.6, 1, 12), (3.0, 1, 12)), True),
    ],
)
def test_sending_without_receiving_is_a_stall(
    samples: tuple[tuple[float, int, int], ...], stalled: bool
) -> None:
    assert flow(*samples) is stalled
