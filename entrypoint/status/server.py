"""Three read-only pages for probes and scrapers: /healthz, /status and /metrics (HTTP/1.1, h11)."""

import json
import logging
import os
import socket
from ipaddress import ip_address
from typing import NamedTuple

import anyio
import h11
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskStatus

from entrypoint.addresses import Endpoint
from entrypoint.errors import SettingsError
from entrypoint.status.board import Board

HEADER_BYTES = 8192
CONNECTIONS = 16
SECONDS = 2.0
"""Time limit of one connection, so that a slow reader does not occupy its place."""

_log = logging.getLogger("ss-warp")


class Page(NamedTuple):
    """One answer."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"


async def serve(
    address: Endpoint, board: Board, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; report the port once listening. Raises SettingsError if it cannot bind."""
    try:
        # anyio's own listener uses getaddrinfo, which finds no 127.0.0.1 on a host with IPv6 alone.
        family = socket.AF_INET if address.address.version == 4 else socket.AF_INET6
        bound = socket.create_server((str(address.address), address.port), family=family, backlog=CONNECTIONS)
        listener = await SocketListener.from_socket(bound)
    except OSError as error:
        wrong = f"HEALTH_SERVER_ADDRESS: {os.strerror(error.errno or 0)}: got '{address}'"
        raise SettingsError(
            [f"{wrong}; expected an address and port free here, e.g. 127.0.0.1:9999"]
        ) from error
    places = anyio.Semaphore(CONNECTIONS)

    async def connection(stream: SocketStream) -> None:
        async with stream:
            try:
                places.acquire_nowait()
            except anyio.WouldBlock:
                return
            try:
                with anyio.move_on_after(SECONDS):
                    await _converse(stream, board)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                _log.debug("a client of the health server disconnected")
            finally:
                places.release()

    async with listener:
        task_status.started(listener.extra(SocketAttribute.local_port))  # noqa: S610 - not Django's
        await listener.serve(connection)


async def _converse(stream: SocketStream, board: Board) -> None:
    """Answer the one request that a connection gets."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES)
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            try:
                http.receive_data(await stream.receive(4096))
            except anyio.EndOfStream:
                http.receive_data(b"")
        if not isinstance(event, h11.Request):
            return
        page = await answer(event, board)
        method = event.method
    except h11.RemoteProtocolError as error:
        page, method = Page(error.error_status_hint, b"not a request for this server\n"), b"GET"
    headers = {
        "Content-Type": page.kind,
        "Content-Length": str(len(page.body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }
    answered = http.send(h11.Response(status_code=page.status, headers=list(headers.items()))) or b""
    if method != b"HEAD":
        answered += http.send(h11.Data(data=page.body)) or b""
    await stream.send(answered)


async def answer(request: h11.Request, board: Board) -> Page:
    """Return the page that answers a request."""
    host = next((value.decode("ascii", "replace") for name, value in request.headers if name == b"host"), "")
    if not _is_local_name(host):
        # A web page whose name was rebound to this address sends that name, which has a dot.
        return Page(400, b"use an address or a name without a dot\n")
    if request.method not in (b"GET", b"HEAD"):
        return Page(405, b"GET or HEAD\n")
    status = board.status
    match request.target.partition(b"?")[0]:
        case b"/healthz":
            state, reason = status.health
            return Page(200 if status.healthy else 503, f"{state}: {reason}\n".encode())
        case b"/status":
            body = json.dumps(status.as_json(board.clock.wall(), board.history)).encode() + b"\n"
            return Page(200, body, "application/json")
        case b"/metrics":
            return Page(200, await _metrics(board), "text/plain; version=0.0.4; charset=utf-8")
        case _:
            return Page(404, b"/healthz, /status or /metrics\n")


async def _metrics(board: Board) -> bytes:
    def text() -> bytes:
        # 100 ms of import that most lives never need; in a thread, since the loop must not wait.
        from entrypoint.status.metrics import exposition

        return exposition(board.status, board.clock.wall())

    return await anyio.to_thread.run_sync(text)


def _is_local_name(host: str) -> bool:
    """Return whether `host` is an address or, like a compose service, a name without a dot."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name and name.replace("-", "").replace("_", "").isalnum():
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
