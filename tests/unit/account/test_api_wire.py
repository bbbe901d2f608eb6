"""The real door to HTTPS against servers on loopback that misbehave: A-04 to A-07 and S-11.

Deadlines are a twentieth of the product's, the code that keeps them is the same.
"""

import socket
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import anyio
import httpx
import pytest
import trustme

from entrypoint.account.api import WarpApi
from entrypoint.account.model import Access
from entrypoint.account.replies import ApiError
from entrypoint.addresses import Address
from entrypoint.errors import SettingsError
from entrypoint.linux.http import SystemHttp
from entrypoint.linux.this_machine import SystemClock
from entrypoint.linux.world import Bound, Marked
from entrypoint.settings import load
from tests.cloudflare.authority import Certificate, present, server_context
from tests.cloudflare.faults import Fault, bomb, drip, elsewhere, hang, huge, reset, stall, truncated
from tests.cloudflare.spoiled import spoiled
from tests.cloudflare.web import Request, Response, serve
from tests.conftest import Record
from tests.fakes.http import Holes
from tests.fakes.warp_api import EDGE_KEY, device_object

pytestmark = pytest.mark.anyio
NAME = "api.test"
HERE = ip_address("127.0.0.1")
LIMIT = 1.0
GIVES_UP = 20.0 / LIMIT
SLACK = 0.5
"""Seconds that a loaded machine may take to notice that its time is over."""
ACCESS = Access("11111111-2222-4333-8444-555555555555", "canary-token")


class Loopback(SystemHttp):
    """The door, in a network that has loopback alone: marks need a capability, and names a server."""

    def transport(
        self,
        way: Marked | Bound,
        addresses: Sequence[Address],
        ca_file: Path | None = None,
        *,
        newest: ssl.TLSVersion | None = None,
    ) -> httpx.AsyncBaseTransport:
        return super().transport(Bound("lo"), addresses, ca_file, newest=newest)

    async def lookup(
        self, name: str, servers: Sequence[Address], way: Marked | Bound, *, limit: float = 5.0
    ) -> tuple[Address, ...]:
        return (HERE,)


class Site:
    """An API on loopback that answers every call with a whole device, spoiled by `fault`."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.ca_file = directory / f"{id(self)}.pem"
        self.ca_file.write_bytes(self.ca.cert_pem.bytes())
        self.context = server_context(self.ca, [NAME])
        self.fault = Fault()
        self.seen: list[Request] = []
        self.port = 0

    async def answer(self, request: Request) -> Response:
        self.seen.append(request)
        body = httpx.Response(200, json=device_object(EDGE_KEY)).content
        return spoiled(Response(200, body, {"content-type": "application/json"}), self.fault)

    @asynccontextmanager
    async def listening(self, *, tls: bool = True) -> AsyncIterator[None]:
        with socket.create_server((str(HERE), 0)) as sock:
            self.port = sock.getsockname()[1]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(serve, sock, self.answer, self.context if tls else None))
                yield
                tasks.cancel_scope.cancel()

    def api(self, port: int = 0, limit: float = LIMIT) -> WarpApi:
        return WarpApi(
            http=Loopback(),
            clock=SystemClock(),
            reach=Holes().reach,
            servers=(HERE,),
            mark=0,
            base_url=f"https://{NAME}:{port or self.port}",
            ca_file=self.ca_file,
            limit=limit,
        )

    async def fails(self, port: int = 0, *, register: bool = False) -> tuple[ApiError, float]:
        """Ask for the device, or for a new one; return the failure and how long it took."""
        begun, api = time.monotonic(), self.api(port)
        with pytest.raises(ApiError) as caught:
            await (api.register(EDGE_KEY, "lab") if register else api.device(ACCESS))
        assert ACCESS.token not in str(caught.value) and "\n" not in str(caught.value)
        return caught.value, time.monotonic() - begun


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_products_deadline_is_what_the_figure_says() -> None:
    assert WarpApi.__dataclass_fields__["limit"].default == GIVES_UP * LIMIT


BROKEN = {
    "accept, then silence": hang(),
    "one byte a second": drip(),
    "a stall in the body": stall(),
    "reset in the body": reset(),
    "cut in the body": truncated(),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_04_a_broken_answer_is_given_up_in_time(site: Site, how: str, record: Record) -> None:
    site.fault = BROKEN[how]
    async with site.listening():
        error, took = await site.fails(register=True)
    assert took <= LIMIT + SLACK
    assert error.again == 60, "the call may have been carried out"
    record(f"A-04: {how}", f"given up after {took:.2f} s of {LIMIT:g} (product: {GIVES_UP:g} times as long)")


@pytest.mark.parametrize("how", ["refused", "SYN dropped", "TLS hangs"])
async def test_a_04_a_connection_that_does_not_come_is_given_up_in_time(
    site: Site, how: str, record: Record
) -> None:
    with socket.socket() as door, socket.socket() as first, socket.socket() as second:
        door.bind((str(HERE), 0))
        port = door.getsockname()[1]
        if how != "refused":
            door.listen(0 if how == "SYN dropped" else 8)
        if how == "SYN dropped":  # whoever comes to a full queue is not answered
            for one in (first, second):
                one.setblocking(False)
                one.connect_ex((str(HERE), port))
        error, took = await site.fails(port, register=True)
    assert took <= LIMIT + SLACK
    assert error.again == 0, "nothing was sent"
    record(f"A-04: {how}", f"given up after {took:.2f} s of {LIMIT:g} (product: {GIVES_UP:g} times as long)")


CERTIFICATES: dict[Certificate, tuple[str, str]] = {
    "expired": ("certificate has expired", "check this machine's clock"),
    "early": ("certificate is not yet valid", "check this machine's clock"),
    "another name": ("certificate is not valid for 'api.test'", "WARP_API_CA_FILE"),
    "unknown": ("unable to get local issuer certificate", "WARP_API_CA_FILE"),
}


@pytest.mark.parametrize("which", CERTIFICATES)
async def test_a_05_a_bad_certificate_is_refused_and_sees_no_token(
    site: Site, which: Certificate, record: Record
) -> None:
    words, hint = CERTIFICATES[which]
    present(site.context, site.ca, [NAME], which)
    async with site.listening():
        error, _ = await site.fails()
    assert words in error.message and hint in error.hint
    assert not site.seen
    assert error.again == 0
    record(f"A-05: certificate: {which}", f"refused, {len(site.seen)} requests sent")


async def test_a_05_self_signed(site: Site, record: Record) -> None:
    stranger = trustme.CA()
    with stranger.cert_pem.tempfile() as chain, stranger.private_key_pem.tempfile() as key:
        site.context.load_cert_chain(chain, key)
    async with site.listening():
        error, _ = await site.fails()
    assert "self-signed certificate" in error.message
    assert not site.seen
    record("A-05: certificate: self-signed", f"refused, {len(site.seen)} requests sent")


@pytest.mark.parametrize("where", ["https", "http"])
async def test_a_06_a_redirect_is_refused_and_no_token_goes_elsewhere(
    site: Site, where: str, tmp_path: Path, record: Record
) -> None:
    other = Site(tmp_path)
    async with other.listening(tls=where == "https"), site.listening():
        site.fault = elsewhere(f"{where}://{NAME}:{other.port}/steal")
        error, _ = await site.fails()
    assert len(site.seen) == 1 and site.seen[0].headers["authorization"] == f"Bearer {ACCESS.token}"
    assert not other.seen
    assert (error.status, error.again) == (302, 60)
    record(f"A-06: redirect to another host by {where}", f"refused, {len(other.seen)} tokens sent elsewhere")


@pytest.mark.parametrize("what", ["1 GiB", "a gzip bomb"])
async def test_a_07_a_flood_takes_little_memory(site: Site, what: str, record: Record) -> None:
    site.fault = huge() if what == "1 GiB" else bomb()
    async with site.listening():
        if what == "a gzip bomb":
            await site.fails()  # the server packs it once, outside of what is measured
            packed = await site.answer(site.seen[0])
            site.fault = Fault(apply=False)
            site.answer = partial(_always, packed)  # type: ignore[method-assign]
    async with site.listening():
        tracemalloc.start()
        try:
            error, _ = await site.fails()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert "the answer is too large" in error.message
    record(f"A-07: {what}", f"refused with {peak / (1 << 20):.1f} MiB (limit 20)")
    assert peak <= 20 << 20


async def _always(response: Response, _: Request) -> Response:
    return response


async def test_s_11_no_proxy_of_the_environment_is_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    trap = Site(tmp_path)
    async with trap.listening(tls=False), site.listening():
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{trap.port}")
        assert (await site.api(limit=5).device(ACCESS)).member("key").value == EDGE_KEY
    assert len(site.seen) == 1
    assert not trap.seen
    record("S-11: HTTPS_PROXY and three more are set", f"{len(trap.seen)} connections to it")


@pytest.mark.parametrize("url", ["http://api.cloudflareclient.com", "api.cloudflareclient.com", "ftp://x"])
def test_s_11_the_api_is_asked_by_tls_alone(url: str) -> None:
    with pytest.raises(SettingsError, match="WARP_API_URL"):
        load({"WARP_API_URL": url})
