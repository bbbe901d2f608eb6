import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest

from entrypoint.addresses import Endpoint
from entrypoint.errors import SettingsError
from entrypoint.health.probe import Trace
from entrypoint.health.verdict import Alive, Foreign, Silent
from entrypoint.linux.kernel_objects import Stats
from entrypoint.status.board import Board
from entrypoint.status.server import CONNECTIONS, serve
from entrypoint.status.states import Event
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio
LOCAL = Endpoint(ip_address("127.0.0.1"), 0)
ANSWER = Trace("on", ip_address("104.28.0.1"), "AMS", "NL")


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(FakeClock(), tmp_path)


def answer(board: Board) -> None:
    board.record_answer(4, ANSWER, 0.05)
    board.show(Alive())


@asynccontextmanager
async def serving(board: Board) -> AsyncIterator[int]:
    async with anyio.create_task_group() as tasks:
        yield await tasks.start(serve, LOCAL, board)
        tasks.cancel_scope.cancel()


async def sent(port: int, data: bytes) -> bytes:
    """Send and return everything that comes back until the server closes."""
    received = b""
    with anyio.fail_after(5):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            try:
                await stream.send(data)
                while True:
                    received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return received


async def asked(
    port: int, path: str, *, method: str = "GET", host: str = "127.0.0.1"
) -> tuple[int, str, str]:
    """Return status code, head and body."""
    answer = await sent(port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


async def test_healthz_is_503_until_connected(board: Board) -> None:
    async with serving(board) as port:
        assert (await asked(port, "/healthz"))[::2] == (503, "starting: starting\n")
        board.move(Event.ACCOUNT_READY)
        answer(board)
        assert (await asked(port, "/healthz"))[0] == 200
        board.show(Silent("no answer through wg0"))
        code, _, body = await asked(port, "/healthz?verbose")
        assert code == 503
        assert body.startswith("healing: ")
        assert "no answer through wg0" in body
        answer(board)
        board.expect(shadowsocks=True)
        assert (await asked(port, "/healthz"))[0] == 503, "clients are not served"


async def test_status_is_the_object_of_the_command(board: Board, tmp_path: Path) -> None:
    async with serving(board) as port:
        code, head, body = await asked(port, "/status")
        assert code == 200
        assert "content-type: application/json" in head
        assert json.loads(body) == json.loads((tmp_path / "status.json").read_text())


async def test_metrics(board: Board) -> None:
    board.count(Stats(1_800_000_000, 10, 20))
    async with serving(board) as port:
        code, head, body = await asked(port, "/metrics")
    assert code == 200
    assert "version=0.0.4" in head
    lines = body.splitlines()
    assert 'ss_warp_state{state="starting"} 1.0' in lines
    assert 'ss_warp_state{state="connected"} 0.0' in lines
    assert "ss_warp_received_bytes_total 10.0" in lines
    assert "ss_warp_sent_bytes_total 20.0" in lines


async def test_head_has_the_head_only(board: Board) -> None:
    async with serving(board) as port:
        code, head, body = await asked(port, "/status", method="HEAD")
    assert (code, body) == (200, "")
    assert "content-length: 0" not in head


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_it_is_read_only(board: Board, method: str) -> None:
    async with serving(board) as port:
        assert (await asked(port, "/healthz", method=method))[0] == 405


async def test_other_paths_are_not_there(board: Board) -> None:
    async with serving(board) as port:
        assert (await asked(port, "/../healthz"))[0] == 404


async def test_a_page_that_does_not_say_warp_is_unhealthy_until_it_once_did(board: Board) -> None:
    async with serving(board) as port:
        board.move(Event.ACCOUNT_READY)
        board.show(Foreign("the trace page says warp=off", proven=False))
        assert (await asked(port, "/healthz"))[::2] == (503, "unproven: the trace page says warp=off\n")
        answer(board)
        board.show(Foreign("the trace page says warp=off"))
        assert (await asked(port, "/healthz"))[::2] == (200, "foreign: the trace page says warp=off\n")


@pytest.mark.parametrize(
    "host",
    ["localhost:9999", "127.0.0.1", "[::1]:9999", "[::1]", "172.18.0.2:9999", "ss-warp:9999", "ss_warp"],
)
async def test_addresses_and_names_without_a_dot_are_good_hosts(board: Board, host: str) -> None:
    async with serving(board) as port:
        assert (await asked(port, "/status", host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["rebound.example", "rebound.example:9999", "127.0.0.1.example", "", "[x]:1"]
)
async def test_a_rebound_name_is_refused(board: Board, host: str) -> None:
    async with serving(board) as port:
        code, _, body = await asked(port, "/status", host=host)
    assert code == 400
    assert "since" not in body


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"hello\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"a" * 20000,
    ],
    ids=["tls", "text", "no host", "bad length", "long"],
)
async def test_what_is_no_request_gets_a_4xx(board: Board, data: bytes) -> None:
    async with serving(board) as port:
        assert b"HTTP/1.1 4" in await sent(port, data)
        assert (await asked(port, "/status"))[0] == 200


async def test_a_silent_client_is_left_after_two_seconds(board: Board) -> None:
    async with serving(board) as port:
        begun = anyio.current_time()
        assert await sent(port, b"GET /healthz HT") == b""
        assert 1.5 < anyio.current_time() - begun < 4


async def test_places_are_limited_and_freed(board: Board) -> None:
    async with serving(board) as port:
        streams = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(CONNECTIONS)]
        request = b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        assert await sent(port, request) == b"", "connections are accepted in their order"
        for stream in streams:
            await stream.aclose()
        with anyio.fail_after(1.5):  # sooner than the time limit would free them
            while not await sent(port, request):
                pass


async def test_a_taken_port_is_a_problem_of_the_settings(board: Board) -> None:
    async with serving(board) as port:
        with pytest.raises(SettingsError, match="HEALTH_SERVER_ADDRESS: Address already in use: got"):
            await serve(Endpoint(LOCAL.address, port), board)
