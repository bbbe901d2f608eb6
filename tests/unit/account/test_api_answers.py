"""What every kind of answer means, and when to ask again."""

import gzip
import ssl
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import anyio
import httpx
import pytest

from tests.fakes.http import API, Slices
from tests.fakes.warp_api import EDGE_KEY, Fault, refusal
from tests.unit.account.clients import HOST, NOW, Setting

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("wrap", [lambda d: {"result": d}, lambda d: {"result": [d], "success": True}])
async def test_both_envelopes(wrap: Callable[[object], dict[str, object]]) -> None:
    setting = Setting()
    setting.site.alter = wrap
    assert (await setting.register())["key"] == EDGE_KEY


async def test_gzip() -> None:
    setting = Setting()
    body = gzip.compress(b'{"id": "x"}')
    setting.site.faults.append(Fault(packed(body)))
    assert await setting.register() == {"id": "x"}


def packed(body: bytes, encoding: str = "gzip") -> httpx.Response:
    return httpx.Response(200, headers={"Content-Encoding": encoding}, stream=Slices(body))


GARBAGE: dict[str, httpx.Response | Exception] = {
    "empty": httpx.Response(200),
    "page": httpx.Response(200, html="<html>Log in to the hotel</html>"),
    "truncated": httpx.Response(200, content=b'{"id": "11111111-'),
    "a list": httpx.Response(200, json=[]),
    "a number": httpx.Response(200, json=7),
    "null result": httpx.Response(200, json={"result": None, "success": True}),
    "empty result list": httpx.Response(200, json={"result": []}),
    "failure with 200": refusal(200, "no"),
    "no utf-8": httpx.Response(200, content=b'{"id": "\xff"}'),
    "nested": httpx.Response(200, content=b"[" * 500_000),
    "too large": httpx.Response(200, stream=Slices(b" " * (1 << 20) + b" ")),
    "bomb": packed(gzip.compress(bytes(50 << 20))),
    "not gzip": packed(b"hello"),
    "unknown coding": packed(b"hello", "br"),
    "reset in the body": httpx.Response(200, stream=Slices(b'{"id":', httpx.ReadError("reset"))),
    "cut in the body": httpx.Response(200, stream=Slices(b"{", httpx.RemoteProtocolError("incomplete"))),
    "lost answer": httpx.ReadError("Connection reset by peer"),
    "read timeout": httpx.ReadTimeout("no answer in time"),
    "redirect": httpx.Response(302, headers={"Location": "http://evil.example/"}),
    "permanent redirect": httpx.Response(308, headers={"Location": "https://evil.example/"}),
    "500": httpx.Response(500, text="oops"),
    "503": httpx.Response(503),
    "599": httpx.Response(599),
}


@pytest.mark.parametrize("case", GARBAGE)
async def test_garbage_may_have_made_a_device_so_the_next_try_waits(case: str) -> None:
    setting = Setting()
    error = await setting.fail(GARBAGE[case])
    assert error.again == 60
    assert setting.site.calls == [("POST", "/v0a2158/reg")]  # no redirect was followed
    assert HOST in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("answer", "words", "code"),
    [
        (
            refusal(400, "Invalid registration request"),
            f"{HOST} answered 400 Bad Request: Invalid registration request",
            None,
        ),
        (
            refusal(400, {"code": 1001, "message": "Invalid public key"}),
            f"{HOST} answered 400 Bad Request: Invalid public key (code 1001)",
            1001,
        ),
        (
            refusal(400, {"message": "Invalid license"}),
            f"{HOST} answered 400 Bad Request: Invalid license",
            None,
        ),
        (refusal(400, {"code": 7}), f"{HOST} answered 400 Bad Request", None),
        (refusal(400, 5), f"{HOST} answered 400 Bad Request", None),
        (httpx.Response(400, json={"errors": {}}), f"{HOST} answered 400 Bad Request", None),
        (
            httpx.Response(403, text="error code: 1020"),
            f"{HOST} answered 403 Forbidden: error code: 1020",
            None,
        ),
        (httpx.Response(403, html="<h1>no</h1>"), f"{HOST} answered 403 Forbidden", None),
        (
            httpx.Response(404, text="404 page not found"),
            f"{HOST} answered 404 Not Found: 404 page not found",
            None,
        ),
        (httpx.Response(401), f"{HOST} answered 401 Unauthorized", None),
        (
            refusal(400, "a\x1b[31m\nb\u202ec" + "d" * 500),
            f"{HOST} answered 400 Bad Request: a [31m b c" + "d" * 190,
            None,
        ),
    ],
)
async def test_a_refusal_is_final_and_shows_the_servers_words(
    answer: httpx.Response, words: str, code: int | None
) -> None:
    error = await Setting().fail(answer)
    assert (error.message, error.again, error.code) == (words, None, code)
    assert error.status == answer.status_code


def in_seconds(seconds: float) -> str:
    return formatdate(NOW + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *((None, 60), ("", 60), ("7", 7), ("120", 120), ("0", 1), ("-5", 60), ("soon", 60), ("1e3", 60)),
        *(("99999999999999999999999999", 3600), ("315360000", 3600), ("٣", 60), ("3600.5", 60)),
        *((in_seconds(90), 90), (in_seconds(-90), 1), (in_seconds(10 * 365 * 86400), 3600)),
        ("Fri, 32 Jan 2026 00:00:00 GMT", 60),
    ],
)
async def test_retry_after(header: str | None, seconds: float) -> None:
    headers = [] if header is None else [(b"Retry-After", header.encode())]
    error = await Setting().fail(httpx.Response(429, headers=headers))
    assert error.again == pytest.approx(seconds, abs=1)
    assert error.message == f"{HOST} answered 429 Too Many Requests"


async def test_retry_after_of_a_5xx_only_lengthens() -> None:
    assert (await Setting().fail(httpx.Response(503, headers={"Retry-After": "7"}))).again == 60
    assert (await Setting().fail(httpx.Response(503, headers={"Retry-After": "700"}))).again == 700


async def test_what_was_not_sent_may_be_tried_at_once() -> None:
    setting = Setting()
    setting.http.sites.clear()
    error = await setting.fail()
    assert error.again == 0
    assert str(error).startswith(f"cannot reach {HOST}: ") and "Connection refused" in str(error)


def certificate_error(code: int, words: str) -> httpx.ConnectError:
    inner = ssl.SSLCertVerificationError(1, "certificate verify failed")
    inner.verify_code, inner.verify_message = code, words
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = inner
    return error


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        (9, "certificate is not yet valid", "clock"),
        (10, "certificate has expired", "clock"),
        (18, "self-signed certificate", "WARP_API_CA_FILE"),
        (62, f"Hostname mismatch, certificate is not valid for '{HOST}'.", "WARP_API_CA_FILE"),
    ],
)
async def test_certificates(code: int, words: str, hint: str) -> None:
    setting = Setting()
    setting.site.faults.extend([Fault(certificate_error(code, words))] * 2)  # as either client
    error = await setting.fail()
    assert words in error.message
    assert hint in error.hint


def hanging(after: bytes) -> Callable[[httpx.Request], Awaitable[httpx.Response]]:
    class Hang(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            while True:
                yield after
                await anyio.sleep(0.01)

    async def site(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Hang())

    return site


async def test_the_total_deadline_holds_against_a_drip() -> None:
    setting = Setting(limit=0.1)
    setting.http.sites[API] = hanging(b" ")  # type: ignore[assignment]
    with anyio.fail_after(5):
        error = await setting.fail()
    assert error.message == f"cannot reach {HOST}: no answer in time"
    assert error.again == 60


async def test_an_error_shows_no_secret() -> None:
    setting = Setting()
    text = str(await setting.fail(httpx.Response(200, json={"token": "canary", "result": None})))
    assert "canary" not in text
